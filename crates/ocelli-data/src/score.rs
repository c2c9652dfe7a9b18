//! A score is evidence, not only a number.

use serde::{Deserialize, Serialize};

/// Outcome of scoring one answer.
///
/// `value == None` means *unscored* (no verdict could be reached). Unscored is never silently zero: it stays in the
/// denominator as a failure and is counted apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Usually 0 or 1; any finite number for graded and learned rewards.
    pub value: Option<f64>,
    /// The span of the response that was read as the answer.
    pub answer: Option<String>,
    /// The rule that decided, for a person to check.
    pub why: String,
}

impl Score {
    /// A decided score.
    pub fn new(value: f64, answer: impl Into<String>, why: impl Into<String>) -> Self {
        Self { value: Some(value), answer: Some(answer.into()), why: why.into() }
    }

    /// No verdict could be reached.
    pub fn unscored(why: impl Into<String>) -> Self {
        Self { value: None, answer: None, why: why.into() }
    }

    /// The value that enters a mean: an unscored answer counts as 0 and stays in the denominator.
    pub fn or_zero(&self) -> f64 {
        self.value.unwrap_or(0.0)
    }
}
