//! Ranges of settings. A refusal names the key, its value and what is allowed. Every condition is written as what must hold, so
//! that a NaN, which holds nothing, is refused everywhere.

use std::fmt::Display;

use crate::error::TrainError;

/// Largest number of examples, pairs, questions or rollouts in one optimizer step.
pub(crate) const MAX_BATCH: u64 = 1 << 16;
/// Largest number of rows in one forward pass.
pub(crate) const MAX_ROWS: u64 = 1 << 32;
/// Largest number of optimizer steps.
pub(crate) const MAX_STEPS: u64 = 1_000_000_000;
/// Largest weight of a term.
pub(crate) const MAX_WEIGHT: f64 = 1e6;

/// Refuses unless `holds`.
pub(crate) fn check(key: &str, value: impl Display, holds: bool, allowed: &str) -> Result<(), TrainError> {
    if holds { Ok(()) } else { Err(TrainError::Config(format!("{key} is {value}; it must be {allowed}"))) }
}

/// A whole number from `low` to `high`.
pub(crate) fn whole(key: &str, value: u64, low: u64, high: u64) -> Result<(), TrainError> {
    check(key, value, (low..=high).contains(&value), &format!("from {low} to {high}"))
}

/// A number from `low` to `high`.
pub(crate) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), TrainError> {
    check(key, value, value >= low && value <= high, &format!("from {low} to {high}"))
}

/// A number above zero and at most `high`.
pub(crate) fn positive(key: &str, value: f64, high: f64) -> Result<(), TrainError> {
    check(key, value, value > 0.0 && value <= high, &format!("above 0 and at most {high}"))
}

/// A reduction of token losses.
pub(crate) fn reduction(key: &str, reduction: crate::losses::Reduction) -> Result<(), TrainError> {
    match reduction {
        crate::losses::Reduction::Constant { length } => {
            positive(&format!("{key}.constant.length"), length, 1e9)
        }
        _ => Ok(()),
    }
}

/// Examples (under their own key) and rows of a step.
pub(crate) fn batch(key: &str, batch: usize, rows: usize) -> Result<(), TrainError> {
    whole(key, batch as u64, 1, MAX_BATCH)?;
    whole("rows", rows as u64, 1, MAX_ROWS)
}
