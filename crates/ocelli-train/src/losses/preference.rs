//! Losses over pairs of responses: DPO, IPO, BCO, and MPO as their weighted sum with the likelihood of the chosen one.
//!
//! With `h(y) = log pi(y|x) - log pi_ref(y|x)` summed over the response's tokens:
//!
//! ```text
//! preference (DPO)  -(1 - e) log sigma(beta (h_c - h_r)) - e log sigma(-beta (h_c - h_r))
//! preference (IPO)  (h_c / S_c - h_r / S_r - 1 / (2 beta))^2
//! quality (BCO)     -log sigma(beta h_c - d) - log sigma(-(beta h_r - d))
//! generation        -log pi(y_c|x) / S_c
//! MPO               w_p preference + w_q quality + w_g generation        (arXiv 2411.10442; 0.8, 0.2, 1)
//! ```
//!
//! Deviations from InternVL's code: (1) the shift `d` is the running mean of `beta h` over the pairs of *earlier*
//! optimizer batches (0 at first), so that it does not depend on micro-batches; (2) the generation term is the mean
//! over pairs of the per-token mean, as in the paper, not the token mean of the micro-batch.

use serde::{Deserialize, Serialize};

use super::{LossError, finite, sigmoid, softplus};

/// The preference term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Preference {
    /// Logistic loss of DPO, with the share of labels taken to be flipped.
    Sigmoid {
        /// Label smoothing `e`, 0 <= e < 0.5.
        #[serde(default)]
        smoothing: f64,
    },
    /// Squared loss of IPO on per-token means.
    Ipo,
}

impl Default for Preference {
    fn default() -> Self {
        Self::Sigmoid { smoothing: 0.0 }
    }
}

/// Where the shift `d` of BCO comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BcoShift {
    /// `d = 0`.
    None,
    /// Mean over all pairs so far.
    #[default]
    Running,
    /// Exponential moving average over batches.
    Ema {
        /// Share of the old value kept per batch.
        keep: f64,
    },
}

/// Weighted sum of the three terms; DPO is `{quality: 0, generation: 0}`, BCO `{preference: 0, generation: 0}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceLoss {
    /// Strength `beta` of the implicit KL constraint.
    pub beta: f64,
    /// Weight of the preference term.
    pub preference: f64,
    /// Weight of the quality term.
    pub quality: f64,
    /// Weight of the generation term.
    pub generation: f64,
    /// Kind of preference term.
    pub kind: Preference,
    /// Shift of the quality term.
    pub shift: BcoShift,
}

impl Default for PreferenceLoss {
    fn default() -> Self {
        Self {
            beta: 0.1,
            preference: 0.8,
            quality: 0.2,
            generation: 1.0,
            kind: Preference::default(),
            shift: BcoShift::Running,
        }
    }
}

/// Running state of the shift; part of every checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ShiftState {
    /// Present shift.
    pub value: f64,
    /// Pairs seen (running) or batches seen (moving average).
    pub seen: u64,
}

impl ShiftState {
    /// Takes in the `beta h` of the chosen and rejected responses of one optimizer batch.
    pub fn update(&mut self, shift: BcoShift, chosen: &[f64], rejected: &[f64]) {
        let n = chosen.len() + rejected.len();
        if n == 0 {
            return;
        }
        let mean = (chosen.iter().sum::<f64>() + rejected.iter().sum::<f64>()) / n as f64;
        match shift {
            BcoShift::None => {}
            BcoShift::Running => {
                let pairs = chosen.len() as u64;
                self.seen += pairs;
                self.value += (mean - self.value) * pairs as f64 / self.seen as f64;
            }
            BcoShift::Ema { keep } => {
                let keep = if self.seen == 0 { 0.0 } else { keep };
                self.value = keep * self.value + (1.0 - keep) * mean;
                self.seen += 1;
            }
        }
    }
}

/// One pair: sums of log-probabilities under policy and reference, and lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairTerms {
    /// `sum_t log pi` of the chosen response.
    pub chosen: f64,
    /// The same under the reference.
    pub chosen_reference: f64,
    /// Trained tokens of the chosen response.
    pub chosen_len: usize,
    /// `sum_t log pi` of the rejected response.
    pub rejected: f64,
    /// The same under the reference.
    pub rejected_reference: f64,
    /// Trained tokens of the rejected response.
    pub rejected_len: usize,
}

/// Loss of one pair divided by the number of pairs, and its derivative by the log-probability of *each token* (it is
/// the same for all tokens of a response).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreferenceOutput {
    /// Contribution to the batch's loss.
    pub loss: f64,
    /// Preference term, unweighted.
    pub preference: f64,
    /// Quality term, unweighted.
    pub quality: f64,
    /// Generation term, unweighted.
    pub generation: f64,
    /// Derivative by each token of the chosen response.
    pub d_chosen: f64,
    /// Derivative by each token of the rejected response.
    pub d_rejected: f64,
    /// `beta h` of the chosen response: its implicit reward.
    pub reward_chosen: f64,
    /// `beta h` of the rejected response.
    pub reward_rejected: f64,
}

impl PreferenceLoss {
    /// Checks the settings before any training.
    pub fn validate(&self) -> Result<(), LossError> {
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return Err(LossError::Range { what: "beta", value: self.beta, range: "positive" });
        }
        for (what, value) in
            [("preference", self.preference), ("quality", self.quality), ("generation", self.generation)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(LossError::Range { what, value, range: "zero or more" });
            }
        }
        if self.preference + self.quality + self.generation == 0.0 {
            return Err(LossError::Range { what: "the sum of the weights", value: 0.0, range: "positive" });
        }
        match (self.kind, self.shift) {
            (Preference::Sigmoid { smoothing }, _) if !(0.0..0.5).contains(&smoothing) => {
                Err(LossError::Range { what: "smoothing", value: smoothing, range: "0 <= e < 0.5" })
            }
            (_, BcoShift::Ema { keep }) if !(0.0..1.0).contains(&keep) => {
                Err(LossError::Range { what: "shift keep", value: keep, range: "0 <= keep < 1" })
            }
            _ => Ok(()),
        }
    }
}

/// Loss of one pair out of `pairs` in the optimizer batch.
pub fn preference_loss(
    config: &PreferenceLoss,
    pair: &PairTerms,
    shift: f64,
    pairs: usize,
) -> Result<PreferenceOutput, LossError> {
    finite(
        "sum of log-probabilities",
        &[pair.chosen, pair.chosen_reference, pair.rejected, pair.rejected_reference],
    )?;
    let (nc, nr) = (pair.chosen_len.max(1) as f64, pair.rejected_len.max(1) as f64);
    let (h_c, h_r) = (pair.chosen - pair.chosen_reference, pair.rejected - pair.rejected_reference);
    let beta = config.beta;
    // Value, derivative by h_c and by h_r.
    let (preference, p_c, p_r) = match config.kind {
        Preference::Sigmoid { smoothing: e } => {
            let z = beta * (h_c - h_r);
            let slope = -beta * ((1.0 - e) * sigmoid(-z) - e * sigmoid(z));
            ((1.0 - e) * softplus(-z) + e * softplus(z), slope, -slope)
        }
        Preference::Ipo => {
            let gap = h_c / nc - h_r / nr - 1.0 / (2.0 * beta);
            (gap * gap, 2.0 * gap / nc, -2.0 * gap / nr)
        }
    };
    let (z_c, z_r) = (beta * h_c - shift, beta * h_r - shift);
    let quality = softplus(-z_c) + softplus(z_r);
    let (q_c, q_r) = (-beta * sigmoid(-z_c), beta * sigmoid(z_r));
    let generation = -pair.chosen / nc;
    let n = pairs.max(1) as f64;
    let (w_p, w_q, w_g) = (config.preference, config.quality, config.generation);
    let out = PreferenceOutput {
        loss: (w_p * preference + w_q * quality + w_g * generation) / n,
        preference,
        quality,
        generation,
        d_chosen: (w_p * p_c + w_q * q_c - w_g / nc) / n,
        d_rejected: (w_p * p_r + w_q * q_r) / n,
        reward_chosen: beta * h_c,
        reward_rejected: beta * h_r,
    };
    finite("loss", &[out.loss])?;
    Ok(out)
}
