//! Honest numbers: intervals, paired comparisons, sampling curves, agreement, power.
//!
//! Every function is pure; randomness is passed in; an input that is not a finite number is an error.
//! Expected values in the tests come from scipy and statsmodels (`fixtures/stats.py`).

mod agreement;
mod correction;
mod interval;
mod mean;
mod paired;
mod pairs;
mod power;
mod samples;
mod several;
mod tournament;
mod vote;

pub use agreement::{cohen_kappa, fleiss_kappa, krippendorff_alpha};
pub use correction::{Corrected, prediction_powered};
pub use interval::{Interval, clopper_pearson, normal_quantile, student_quantile, wilson};
pub use mean::{Estimate, VarianceSplit, mean_clustered, proportion, variance_split};
pub use paired::{
    McNemar, PairedDifference, mcnemar, paired_bootstrap, paired_difference, paired_permutation,
};
pub use pairs::{Calibration, auc, calibration, spearman};
pub use power::{detectable_difference, sample_size};
pub use samples::{GuessCorrected, g_pass_at_k, guess_corrected, pass_all_k, pass_at_k};
pub use several::{benjamini_hochberg, holm};
pub use tournament::{MAX_TOURNAMENT, tournament_at_k};
pub use vote::{Expectation, Vote, best_of_k, majority_at_k, weighted_majority_at_k};

/// An input that statistics cannot be made of.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// Nothing to average.
    #[error("{what}: there are no values")]
    Empty {
        /// The quantity.
        what: &'static str,
    },
    /// NaN or infinity.
    #[error("{what}: value {index} is {value}, not a finite number")]
    NotFinite {
        /// The quantity.
        what: &'static str,
        /// Position from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Two columns of different length.
    #[error("{what}: {left} values on one side, {right} on the other")]
    Lengths {
        /// The quantity.
        what: &'static str,
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// An argument outside its range.
    #[error("{what}: {message}")]
    Domain {
        /// The quantity.
        what: &'static str,
        /// Which argument, its value and its range.
        message: String,
    },
}

pub(crate) fn check_values(what: &'static str, values: &[f64]) -> Result<(), StatsError> {
    if values.is_empty() {
        return Err(StatsError::Empty { what });
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(StatsError::NotFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}

pub(crate) fn check_lengths(what: &'static str, left: usize, right: usize) -> Result<(), StatsError> {
    if left == right { Ok(()) } else { Err(StatsError::Lengths { what, left, right }) }
}

pub(crate) fn domain(what: &'static str, message: impl Into<String>) -> StatsError {
    StatsError::Domain { what, message: message.into() }
}

/// Binomial coefficient C(n, k); exact while it fits 53 bits, relative error below 1e-13 beyond.
pub(crate) fn choose(n: usize, k: usize) -> f64 {
    if k > n {
        return 0.0;
    }
    let k = k.min(n - k);
    (0..k).fold(1.0, |c, i| {
        let next = c * (n - i) as f64 / (i + 1) as f64;
        if next < 9e15 { next.round() } else { next }
    })
}
