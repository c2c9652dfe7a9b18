//! Losses as pure functions: per-token log-probabilities in, a number and its derivative by each log-probability out.
//!
//! ```text
//! B responses, S_i sampled tokens of response i, l_{i,t} the loss of one token
//! sequence_mean_token_mean   sum_i 1/B sum_t l_{i,t} / S_i          GRPO (each response counts the same)
//! token_mean                 sum_{i,t} l_{i,t} / sum_i S_i          DAPO (each token counts the same)
//! constant { length }        sum_{i,t} l_{i,t} / (B length)         Dr.GRPO (no length bias)
//! sequence_mean_token_sum    sum_i 1/B sum_t l_{i,t}
//! ```
//!
//! The denominators are those of the whole optimizer batch and are known before the first forward pass, so the loss
//! does not change with the way in which the batch is cut into micro-batches, packed or padded. A mean over the
//! micro-batch at hand ("bnpo") is not offered for that reason.

mod mismatch;
mod policy;
mod preference;
mod reward;

use serde::{Deserialize, Serialize};

pub use mismatch::{Correction, Keep, MismatchStats, Weight, mismatch_stats};
pub use policy::{
    Kl, KlEstimator, Level, PolicyLoss, PolicyMetrics, PolicyOutput, Rollout, Surrogate, kl_terms,
};
pub use preference::{
    BcoShift, PairTerms, Preference, PreferenceLoss, PreferenceOutput, ShiftState, preference_loss,
};
pub use reward::{BradleyTerry, PairScore, RankingReport, ranking_loss, ranking_report};

/// Largest log-ratio that is exponentiated; beyond it the value is held and the gradient is zero (verl's bound).
pub const LOG_RATIO_LIMIT: f64 = 20.0;

/// A loss that cannot be computed.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LossError {
    /// Two slices that should run in parallel do not.
    #[error("{what}: {left} values against {right}")]
    Length {
        /// Which slices.
        what: &'static str,
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// Not a number, or infinite.
    #[error("{what} number {index} is {value}; a loss is not computed from it")]
    NotFinite {
        /// Which quantity.
        what: &'static str,
        /// Position.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A setting outside its range.
    #[error("{what} is {value}, but must be {range}")]
    Range {
        /// Setting.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// Settings that exclude one another.
    #[error("{what}")]
    Conflict {
        /// Which, and what to do.
        what: &'static str,
    },
    /// Nothing to divide by.
    #[error("the batch holds no trained token, so its loss has no denominator")]
    Empty,
}

pub(crate) fn same_length(what: &'static str, left: usize, right: usize) -> Result<(), LossError> {
    if left == right { Ok(()) } else { Err(LossError::Length { what, left, right }) }
}

pub(crate) fn finite(what: &'static str, values: &[f64]) -> Result<(), LossError> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(LossError::NotFinite { what, index, value: values[index] }),
    }
}

/// `ln(1 + e^x)` without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-x)` without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// How token losses become one number; see the table at the top.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reduction {
    /// Mean over responses of the mean over their tokens (GRPO).
    SequenceMeanTokenMean,
    /// Mean over all tokens of the batch (DAPO).
    TokenMean,
    /// Sum over tokens, divided by responses times a constant length (Dr.GRPO).
    Constant {
        /// The constant, usually the largest number of new tokens.
        length: f64,
    },
    /// Mean over responses of the sum over their tokens.
    SequenceMeanTokenSum,
}

/// What a term of the loss is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divisors {
    /// Responses.
    pub responses: f64,
    /// Their trained tokens.
    pub tokens: f64,
}

impl Divisors {
    /// Every response of the given lengths counts, also one without tokens.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut found = Self::default();
        for length in lengths {
            found.responses += 1.0;
            found.tokens += length as f64;
        }
        found
    }
}

/// The denominators of one optimizer batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normaliser {
    reduction: Reduction,
    main: Divisors,
    regularisers: Divisors,
}

impl Normaliser {
    /// Denominators for responses of the given lengths, all of which count in every term of the loss.
    pub fn new(reduction: Reduction, lengths: impl IntoIterator<Item = usize>) -> Result<Self, LossError> {
        let all = Divisors::of(lengths);
        Self::with_divisors(reduction, all, all)
    }

    /// Denominators where the policy term (`main`) and the terms that hold the policy near the reference or away from
    /// certainty (`regularisers`: KL, entropy) are means over different responses. `main` may be empty: then no response
    /// of the batch has an advantage, and the weight of the policy term is zero.
    pub fn with_divisors(
        reduction: Reduction,
        main: Divisors,
        regularisers: Divisors,
    ) -> Result<Self, LossError> {
        if regularisers.tokens <= 0.0 {
            return Err(LossError::Empty);
        }
        if let Reduction::Constant { length } = reduction
            && !(length.is_finite() && length > 0.0)
        {
            return Err(LossError::Range { what: "reduction length", value: length, range: "positive" });
        }
        Ok(Self { reduction, main, regularisers })
    }

    fn weight(&self, divisors: &Divisors, length: usize) -> f64 {
        let divisor = match self.reduction {
            Reduction::SequenceMeanTokenMean => divisors.responses * length.max(1) as f64,
            Reduction::TokenMean => divisors.tokens,
            Reduction::Constant { length } => divisors.responses * length,
            Reduction::SequenceMeanTokenSum => divisors.responses,
        };
        if divisor > 0.0 { 1.0 / divisor } else { 0.0 }
    }

    /// Weight of one token of a response with `length` trained tokens in the policy term or the cross-entropy.
    pub fn token_weight(&self, length: usize) -> f64 {
        self.weight(&self.main, length)
    }

    /// The same in the KL term.
    pub fn kl_weight(&self, length: usize) -> f64 {
        self.weight(&self.regularisers, length)
    }

    /// Weight of one token in a mean over all tokens, whatever the reduction: that of the entropy bonus.
    pub fn per_token(&self) -> f64 {
        1.0 / self.regularisers.tokens
    }
}

/// Cross-entropy of one response: `sum_t -w log p_t` with the weight of the reduction; the derivative by each
/// log-probability is `-w`. Which tokens these are follows from the provenance of the ids and from nothing else.
pub fn cross_entropy(logp: &[f64], normaliser: &Normaliser) -> Result<(f64, Vec<f64>), LossError> {
    finite("log-probability", logp)?;
    let w = normaliser.token_weight(logp.len());
    Ok((-w * logp.iter().sum::<f64>(), vec![-w; logp.len()]))
}
