//! Policy-gradient losses over sampled tokens.
//!
//! With `r_t = exp(log pi(t) - log pi_old(t))`, advantage `A_t`, constant weight `w_t` and the reduction's weights `u` and `v`:
//!
//! ```text
//! clip     l_t = -w_t min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t)            PPO, GRPO; DAPO with high > low
//!          dual: for A_t < 0 the objective is at least  dual * A_t              dual-clip PPO
//!          cap:  r_t is at most cap                                             two-sided clip (INTELLECT-2)
//! level    token: r_t as above; sequence_mean: s = exp(mean_t log r_t)          GSPO (arXiv 2507.18071)
//!          sequence_sum: s = exp(sum_t log r_t)                                 RLOO
//! cispo    l_t = -w_t sg(clip(r_t, 1 - low, 1 + high)) A_t log pi(t)            CISPO (MiniMax-M1)
//! loss     sum_t u l_t + beta sum_t v k_t - c sum_t H_t / N
//! ```
//!
//! `u` is the mean over the responses that count in the policy term, `v` the same reduction over those for which the KL term is
//! computed, `N` the tokens of the latter; see [`Normaliser`].
//!
//! `low` and `high` are distances from 1 in both families (some trainers read CISPO's upper bound as an absolute cap).
//! GRPO, Dr.GRPO, RLOO and REINFORCE++ differ in advantage and reduction only.

use serde::{Deserialize, Serialize};

use super::{LOG_RATIO_LIMIT, LossError, Normaliser, Reduction, finite, same_length};

/// Over what the ratio is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One ratio per token.
    #[default]
    Token,
    /// One per response: geometric mean of its tokens' ratios (GSPO).
    SequenceMean,
    /// One per response: product of its tokens' ratios.
    SequenceSum,
}

/// The surrogate objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Surrogate {
    /// Clipped ratio; see the table above.
    Clip {
        /// Lower distance from 1.
        low: f64,
        /// Upper distance from 1.
        high: f64,
        /// Over what the ratio is taken.
        #[serde(default)]
        level: Level,
        /// Bound of the objective for negative advantages, > 1; commonly 3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dual: Option<f64>,
        /// Largest ratio for either sign, > 1 + high.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cap: Option<f64>,
    },
    /// Clipped constant weight on `log pi`: every token keeps a gradient.
    Cispo {
        /// Lower distance from 1; 1 or more means no lower bound.
        low: f64,
        /// Upper distance from 1.
        high: f64,
    },
}

impl Default for Surrogate {
    fn default() -> Self {
        Self::Clip { low: 0.2, high: 0.2, level: Level::Token, dual: None, cap: None }
    }
}

/// Estimators of the divergence from the reference on sampled tokens, `x = log pi_ref - log pi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `-x`. In a loss its gradient is zero in expectation: for rewards.
    K1,
    /// `x^2 / 2`: its gradient is that of KL(pi || ref) on-policy.
    K2,
    /// `e^x - x - 1`: never negative, unbiased value; its gradient is that of KL(ref || pi).
    #[default]
    K3,
    /// Value of `k3`, gradient of `k2`.
    K3WithK2Gradient,
}

/// KL term of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kl {
    /// Weight.
    pub beta: f64,
    /// Estimator.
    #[serde(default)]
    pub estimator: KlEstimator,
    /// Multiply by the ratio, which corrects for tokens sampled by an older policy.
    #[serde(default)]
    pub importance: bool,
}

/// Value and derivative by `log pi` of the estimator for one token.
pub fn kl_terms(estimator: KlEstimator, logp: f64, reference: f64) -> (f64, f64) {
    let raw = reference - logp;
    let x = raw.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    // Beyond the limit the value is held, so its derivative is zero.
    let inside = if x == raw { 1.0 } else { 0.0 };
    let (value, slope) = match estimator {
        KlEstimator::K1 => (-x, 1.0),
        KlEstimator::K2 => (x * x / 2.0, -x),
        KlEstimator::K3 => (x.exp_m1() - x, -x.exp_m1()),
        KlEstimator::K3WithK2Gradient => (x.exp_m1() - x, -x),
    };
    (value, slope * inside)
}

/// The whole policy loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyLoss {
    /// Surrogate objective.
    pub surrogate: Surrogate,
    /// How token losses are added up.
    pub reduction: Reduction,
    /// KL term, if any.
    pub kl: Option<Kl>,
    /// Weight of the entropy bonus.
    pub entropy_bonus: f64,
}

impl Default for PolicyLoss {
    fn default() -> Self {
        Self {
            surrogate: Surrogate::default(),
            reduction: Reduction::SequenceMeanTokenMean,
            kl: None,
            entropy_bonus: 0.0,
        }
    }
}

/// The sampled tokens of one response. All slices have length `S`.
#[derive(Clone, Copy, Debug)]
pub struct Rollout<'a> {
    /// Log-probabilities under the policy that is trained.
    pub logp: &'a [f64],
    /// Under the policy that the ratio is taken against.
    pub old: &'a [f64],
    /// Under the reference; needed where the loss has a KL term.
    pub reference: Option<&'a [f64]>,
    /// Entropies of the policy's distributions; needed where the loss has an entropy bonus.
    pub entropy: Option<&'a [f64]>,
    /// Advantages.
    pub advantages: &'a [f64],
    /// Constant weights from the correction of the sampler's mismatch; 1 where absent.
    pub weights: Option<&'a [f64]>,
}

/// Sums over tokens from which the metrics of a batch follow; [`PolicyMetrics::merge`] adds responses up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyMetrics {
    /// Tokens seen.
    pub tokens: f64,
    /// Tokens whose gradient the lower bound removed.
    pub clipped_low: f64,
    /// Tokens whose gradient the upper bound removed.
    pub clipped_high: f64,
    /// Sum of `k3(pi_old || pi)`, the drift since sampling.
    pub old_kl: f64,
    /// Sum of the KL term's values.
    pub reference_kl: f64,
    /// Sum of entropies.
    pub entropy: f64,
    /// Sum of ratios.
    pub ratio: f64,
    /// Largest ratio.
    pub ratio_max: f64,
}

impl PolicyMetrics {
    /// Adds the sums of another response.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.old_kl += other.old_kl;
        self.reference_kl += other.reference_kl;
        self.entropy += other.entropy;
        self.ratio += other.ratio;
        self.ratio_max = self.ratio_max.max(other.ratio_max);
    }
}

/// Loss of one response, already weighted, and its derivatives.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOutput {
    /// Contribution to the batch's loss.
    pub loss: f64,
    /// By each log-probability. `[S]`
    pub d_logp: Vec<f64>,
    /// By each entropy. `[S]`; empty where there is no bonus.
    pub d_entropy: Vec<f64>,
    /// Sums for metrics.
    pub metrics: PolicyMetrics,
}

struct Bound {
    low: f64,
    high: f64,
    dual: Option<f64>,
    cap: Option<f64>,
}

impl Bound {
    /// Objective for ratio `r` and advantage `a`, whether the gradient passes, and at which side it was stopped.
    fn objective(&self, r: f64, a: f64) -> (f64, bool, i8) {
        let capped = self.cap.map_or(r, |c| r.min(c));
        let free = capped * a;
        let held = r.clamp(1.0 - self.low, 1.0 + self.high) * a;
        if a < 0.0
            && let Some(c) = self.dual
            && free.min(held) < c * a
        {
            return (c * a, false, 1);
        }
        if free <= held {
            let passes = capped == r;
            (free, passes, if passes { 0 } else { 1 })
        } else {
            // `held < free` only where the ratio lies outside its bounds.
            (held, false, if r > 1.0 { 1 } else { -1 })
        }
    }
}

impl PolicyLoss {
    /// Checks the settings before any training.
    pub fn validate(&self) -> Result<(), LossError> {
        let positive = |what, value: f64| {
            let ok = value.is_finite() && value >= 0.0;
            if ok { Ok(()) } else { Err(LossError::Range { what, value, range: "zero or more" }) }
        };
        let (low, high) = match self.surrogate {
            Surrogate::Clip { low, high, .. } | Surrogate::Cispo { low, high } => (low, high),
        };
        positive("surrogate low", low)?;
        positive("surrogate high", high)?;
        positive("entropy_bonus", self.entropy_bonus)?;
        // Every condition is written as what must hold, which NaN does not.
        let holds = |what, value: f64, holds: bool, range| {
            if holds { Ok(()) } else { Err(LossError::Range { what, value, range }) }
        };
        if let Surrogate::Clip { level, dual, cap, .. } = self.surrogate {
            holds("surrogate low", low, low <= 1.0, "from 0 to 1: a ratio is never below 0")?;
            let dual = dual.unwrap_or(f64::MAX);
            holds("surrogate dual", dual, dual > 1.0 && dual.is_finite(), "above 1")?;
            let cap = cap.unwrap_or(f64::MAX);
            holds("surrogate cap", cap, cap >= 1.0 + high && cap.is_finite(), "at least 1 + high")?;
            // A ratio of the whole response under a mean over tokens weighs responses by their length unseen.
            if level != Level::Token && self.reduction == Reduction::TokenMean {
                return Err(LossError::Conflict {
                    what: "a ratio per sequence with reduction token_mean; use a reduction per sequence",
                });
            }
        }
        self.kl.map_or(Ok(()), |kl| positive("kl beta", kl.beta))
    }

    /// Loss of one response.
    pub fn response(&self, x: &Rollout<'_>, normaliser: &Normaliser) -> Result<PolicyOutput, LossError> {
        let n = x.logp.len();
        same_length("log-probabilities against old ones", n, x.old.len())?;
        same_length("log-probabilities against advantages", n, x.advantages.len())?;
        for (what, slice) in
            [("log-probability", x.logp), ("old log-probability", x.old), ("advantage", x.advantages)]
        {
            finite(what, slice)?;
        }
        if let Some(w) = x.weights {
            same_length("log-probabilities against weights", n, w.len())?;
            finite("weight", w)?;
        }
        let (u, v) = (normaliser.token_weight(n), normaliser.kl_weight(n));
        let logs: Vec<f64> = x.logp.iter().zip(x.old).map(|(a, b)| a - b).collect();
        let mut out = PolicyOutput {
            loss: 0.0,
            d_logp: vec![0.0; n],
            d_entropy: Vec::new(),
            metrics: PolicyMetrics::default(),
        };
        out.metrics.tokens = n as f64;
        match self.surrogate {
            Surrogate::Clip { low, high, level, dual, cap } => {
                let bound = Bound { low, high, dual, cap };
                match level {
                    Level::Token => token_ratios(x, &logs, u, &bound, &mut out),
                    Level::SequenceMean => {
                        sequence_ratio(x, &logs, u, &bound, 1.0 / n.max(1) as f64, &mut out)
                    }
                    Level::SequenceSum => sequence_ratio(x, &logs, u, &bound, 1.0, &mut out),
                }
            }
            Surrogate::Cispo { low, high } => {
                for t in 0..n {
                    let r = ratio(logs[t]).0;
                    let held = r.clamp((1.0 - low).max(0.0), 1.0 + high);
                    let c = x.weights.map_or(1.0, |w| w[t]) * held * x.advantages[t];
                    out.loss -= u * c * x.logp[t];
                    out.d_logp[t] -= u * c;
                    count(
                        &mut out.metrics,
                        r,
                        if held < r {
                            1
                        } else if held > r {
                            -1
                        } else {
                            0
                        },
                    );
                }
            }
        }
        for (t, log) in logs.iter().enumerate() {
            // k3 of KL(old || new) on tokens sampled by old: x = new - old.
            let drift = log.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
            out.metrics.old_kl += drift.exp_m1() - drift;
            if let Some(kl) = self.kl {
                let reference = x.reference.ok_or(LossError::Length {
                    what: "log-probabilities against those of the reference, which the KL term needs",
                    left: n,
                    right: 0,
                })?;
                same_length("log-probabilities against those of the reference", n, reference.len())?;
                let (k, dk) = kl_terms(kl.estimator, x.logp[t], reference[t]);
                let (r, dr) = if kl.importance { ratio(*log) } else { (1.0, 0.0) };
                out.loss += v * kl.beta * r * k;
                out.d_logp[t] += v * kl.beta * (r * dk + dr * k);
                out.metrics.reference_kl += k;
            }
        }
        if let Some(entropy) = x.entropy {
            same_length("log-probabilities against entropies", n, entropy.len())?;
            finite("entropy", entropy)?;
            out.metrics.entropy = entropy.iter().sum();
        }
        if self.entropy_bonus != 0.0 {
            let c = self.entropy_bonus * normaliser.per_token();
            same_length(
                "log-probabilities against entropies, which the bonus needs",
                n,
                x.entropy.map_or(0, <[f64]>::len),
            )?;
            out.loss -= c * out.metrics.entropy;
            out.d_entropy = vec![-c; n];
        }
        finite("loss", &[out.loss])?;
        finite("derivative", &out.d_logp)?;
        Ok(out)
    }
}

/// Ratio and its derivative by the log-ratio, held beyond the limit.
fn ratio(log: f64) -> (f64, f64) {
    let r = log.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp();
    (r, if log.abs() > LOG_RATIO_LIMIT { 0.0 } else { r })
}

fn count(metrics: &mut PolicyMetrics, r: f64, side: i8) {
    metrics.ratio += r;
    metrics.ratio_max = metrics.ratio_max.max(r);
    match side {
        1 => metrics.clipped_high += 1.0,
        -1 => metrics.clipped_low += 1.0,
        _ => {}
    }
}

fn token_ratios(x: &Rollout<'_>, logs: &[f64], u: f64, bound: &Bound, out: &mut PolicyOutput) {
    for t in 0..logs.len() {
        let (r, dr) = ratio(logs[t]);
        let a = x.advantages[t];
        let w = x.weights.map_or(1.0, |w| w[t]);
        let (objective, passes, side) = bound.objective(r, a);
        out.loss -= u * w * objective;
        if passes {
            out.d_logp[t] -= u * w * a * dr;
        }
        count(&mut out.metrics, r, side);
    }
}

/// One ratio `s = exp(share * sum_t log r_t)` for all tokens; each token keeps its own advantage and weight.
fn sequence_ratio(x: &Rollout<'_>, logs: &[f64], u: f64, bound: &Bound, share: f64, out: &mut PolicyOutput) {
    let (s, ds) = ratio(share * logs.iter().sum::<f64>());
    let mut slope = 0.0;
    for t in 0..logs.len() {
        let w = x.weights.map_or(1.0, |w| w[t]);
        let (objective, passes, side) = bound.objective(s, x.advantages[t]);
        out.loss -= u * w * objective;
        if passes {
            slope -= u * w * x.advantages[t] * ds;
        }
        count(&mut out.metrics, s, side);
    }
    out.d_logp.iter_mut().for_each(|d| *d += slope * share);
}
