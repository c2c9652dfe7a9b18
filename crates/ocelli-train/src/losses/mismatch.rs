//! Corrections for a sampler whose probabilities are not quite the trainer's (other kernels, lower precision, older
//! weights): `rho_t = pi_old(t) / pi_sampler(t)`, both on the sampled tokens, always constant for the gradient.
//!
//! ```text
//! token TIS       weight min(rho_t, cap)                       truncated importance sampling
//! sequence TIS    weight min(prod_t rho_t, cap)
//! IcePop          keep tokens with low <= rho_t <= high, weight rho_t
//! sequence mask   keep responses with low <= prod_t rho_t <= high
//! geometric mask  keep responses with low <= exp(mean_t log rho_t) <= high
//! k3 mask         keep responses with mean_t (rho_t - log rho_t - 1) <= max
//! ```
//!
//! Which are kept and how they are weighed are two independent settings. A masked token keeps its place in the
//! denominator. Where the ratio of the policy loss is taken against the sampler itself ("bypass"), no weight must be
//! put on top: the ratio corrects already.

use serde::{Deserialize, Serialize};

use super::{LOG_RATIO_LIMIT, LossError, finite, same_length};

/// Which tokens are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// Tokens whose own ratio lies inside (IcePop).
    Token {
        /// Lower bound of the ratio.
        low: f64,
        /// Upper bound of the ratio.
        high: f64,
    },
    /// Responses whose product of ratios lies inside.
    Sequence {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// Responses whose geometric mean ratio lies inside.
    Geometric {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// Responses whose mean `k3` is at most this.
    K3 {
        /// Upper bound.
        max: f64,
    },
}

/// How kept tokens are weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Weight {
    /// By 1.
    #[default]
    One,
    /// By their own ratio, at most `cap`.
    Token {
        /// Upper bound of the weight.
        cap: f64,
    },
    /// By the product of the response's ratios, at most `cap`.
    Sequence {
        /// Upper bound of the weight.
        cap: f64,
    },
}

/// A correction: what is kept, and how it is weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Correction {
    /// What is kept.
    pub keep: Keep,
    /// How it is weighed.
    pub weight: Weight,
}

impl Correction {
    /// Constant weights of the tokens of one response; a token that is not kept has weight 0. `[S]`
    pub fn weights(&self, old: &[f64], sampler: &[f64]) -> Result<Vec<f64>, LossError> {
        let logs = log_ratios(old, sampler)?;
        let held = |x: f64| x.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp();
        let sum: f64 = logs.iter().sum();
        let mean = sum / logs.len().max(1) as f64;
        let whole = match self.keep {
            Keep::All | Keep::Token { .. } => true,
            Keep::Sequence { low, high } => (low..=high).contains(&held(sum)),
            Keep::Geometric { low, high } => (low..=high).contains(&held(mean)),
            Keep::K3 { max } => k3_mean(&logs) <= max,
        };
        let weight = |&log: &f64| {
            let rho = held(log);
            let keep =
                whole && !matches!(self.keep, Keep::Token { low, high } if !(low..=high).contains(&rho));
            match (keep, self.weight) {
                (false, _) => 0.0,
                (true, Weight::One) => 1.0,
                (true, Weight::Token { cap }) => rho.min(cap),
                (true, Weight::Sequence { cap }) => held(sum).min(cap),
            }
        };
        Ok(logs.iter().map(weight).collect())
    }
}

fn log_ratios(old: &[f64], sampler: &[f64]) -> Result<Vec<f64>, LossError> {
    same_length("trainer's log-probabilities against the sampler's", old.len(), sampler.len())?;
    finite("trainer's log-probability", old)?;
    finite("sampler's log-probability", sampler)?;
    Ok(old.iter().zip(sampler).map(|(a, b)| a - b).collect())
}

fn k3_mean(logs: &[f64]) -> f64 {
    let k3 = |log: &f64| {
        let x = log.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
        x.exp_m1() - x
    };
    logs.iter().map(k3).sum::<f64>() / logs.len().max(1) as f64
}

/// How far the sampler is from the trainer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MismatchStats {
    /// Mean `k3` over tokens.
    pub k3: f64,
    /// Largest `|log rho|`.
    pub max_abs: f64,
    /// Smallest ratio.
    pub ratio_min: f64,
    /// Largest ratio.
    pub ratio_max: f64,
    /// Effective sample size of token weights `rho`, as a share of the tokens: `(sum w)^2 / (n sum w^2)`.
    pub ess: f64,
}

/// Statistics over all tokens of a batch; zero ratios' worth of tokens give the default.
pub fn mismatch_stats(old: &[f64], sampler: &[f64]) -> Result<MismatchStats, LossError> {
    let logs = log_ratios(old, sampler)?;
    if logs.is_empty() {
        return Ok(MismatchStats::default());
    }
    let ratios: Vec<f64> = logs.iter().map(|l| l.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()).collect();
    let (sum, squares) = ratios.iter().fold((0.0, 0.0), |(s, q), r| (s + r, q + r * r));
    Ok(MismatchStats {
        k3: k3_mean(&logs),
        max_abs: logs.iter().fold(0.0, |m, l| l.abs().max(m)),
        ratio_min: ratios.iter().fold(f64::MAX, |m, r| r.min(m)),
        ratio_max: ratios.iter().fold(0.0, |m, r| r.max(m)),
        ess: sum * sum / (ratios.len() as f64 * squares),
    })
}
