//! Intervals for proportions.
//!
//! Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927; Clopper and Pearson,
//! Biometrika 1934. A Student-t interval on zeros and ones collapses at 0/n and n/n, these do not.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use statrs::function::beta::beta_reg;

use super::{StatsError, domain};

/// Lower and upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// True where `value` lies inside or on a bound.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

fn check_confidence(what: &'static str, confidence: f64) -> Result<(), StatsError> {
    if confidence > 0.0 && confidence < 1.0 {
        Ok(())
    } else {
        Err(domain(what, format!("confidence is {confidence}; it lies between 0 and 1, e.g. 0.95")))
    }
}

/// The z of a two-sided interval, 1.96 for 0.95.
pub fn normal_quantile(confidence: f64) -> Result<f64, StatsError> {
    check_confidence("normal quantile", confidence)?;
    Ok(Normal::standard().inverse_cdf(0.5 + confidence / 2.0))
}

/// The t of a two-sided interval with `freedom` degrees of freedom.
pub fn student_quantile(confidence: f64, freedom: f64) -> Result<f64, StatsError> {
    check_confidence("Student quantile", confidence)?;
    let t = StudentsT::new(0.0, 1.0, freedom).map_err(|_| {
        domain("Student quantile", format!("{freedom} degrees of freedom; there must be more than 0"))
    })?;
    Ok(t.inverse_cdf(0.5 + confidence / 2.0))
}

/// Wilson score interval of `successes` out of `n`, both possibly fractional (an effective sample size).
pub(crate) fn wilson_fraction(p: f64, n: f64, z: f64) -> Interval {
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).max(0.0).sqrt();
    Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

/// Wilson score interval of a proportion.
pub fn wilson(successes: u64, n: u64, confidence: f64) -> Result<Interval, StatsError> {
    check_counts("Wilson interval", successes, n)?;
    let z = normal_quantile(confidence)?;
    let mut interval = wilson_fraction(successes as f64 / n as f64, n as f64, z);
    // At the ends the bound is exactly 0 or 1; rounding must not say otherwise.
    if successes == 0 {
        interval.low = 0.0;
    }
    if successes == n {
        interval.high = 1.0;
    }
    Ok(interval)
}

/// Clopper-Pearson interval of a proportion: never covers less than `confidence`, and is wider for it.
pub fn clopper_pearson(successes: u64, n: u64, confidence: f64) -> Result<Interval, StatsError> {
    check_counts("Clopper-Pearson interval", successes, n)?;
    check_confidence("Clopper-Pearson interval", confidence)?;
    let tail = (1.0 - confidence) / 2.0;
    let (k, n) = (successes as f64, n as f64);
    let low = if successes == 0 { 0.0 } else { beta_quantile(k, n - k + 1.0, tail) };
    let high = if k == n { 1.0 } else { beta_quantile(k + 1.0, n - k, 1.0 - tail) };
    Ok(Interval { low, high })
}

fn check_counts(what: &'static str, successes: u64, n: u64) -> Result<(), StatsError> {
    if n == 0 {
        return Err(StatsError::Empty { what });
    }
    if successes > n {
        return Err(domain(what, format!("{successes} successes out of {n}")));
    }
    Ok(())
}

/// Quantile of the beta distribution by bisection: `beta_reg` is monotone, 200 halvings reach the last bit.
fn beta_quantile(a: f64, b: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..200 {
        let mid = 0.5 * (low + high);
        if mid == low || mid == high {
            break;
        }
        if beta_reg(a, b, mid) < p { low = mid } else { high = mid }
    }
    0.5 * (low + high)
}
