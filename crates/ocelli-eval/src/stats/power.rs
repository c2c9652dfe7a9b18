//! Planning: how many items show a difference of a given size.
//!
//! `n = ((z_{1 - alpha/2} + z_{power}) sigma / delta)^2`, sigma the standard deviation of paired item differences.

use statrs::distribution::{ContinuousCDF, Normal};

use super::{StatsError, domain};

fn z_sum(what: &'static str, alpha: f64, power: f64) -> Result<f64, StatsError> {
    let inside = |p: f64| p > 0.0 && p < 1.0;
    if !inside(alpha) || !inside(power) {
        return Err(domain(what, format!("alpha {alpha}, power {power}; both lie between 0 and 1")));
    }
    let normal = Normal::standard();
    Ok(normal.inverse_cdf(1.0 - alpha / 2.0) + normal.inverse_cdf(power))
}

fn check_positive(what: &'static str, name: &str, value: f64) -> Result<(), StatsError> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(domain(what, format!("{name} is {value}; it must be positive")))
    }
}

/// Items needed to see a true difference `delta` with probability `power` in a two-sided test at level `alpha`.
pub fn sample_size(sigma: f64, delta: f64, alpha: f64, power: f64) -> Result<u64, StatsError> {
    const WHAT: &str = "sample size";
    check_positive(WHAT, "sigma", sigma)?;
    check_positive(WHAT, "delta", delta)?;
    Ok((z_sum(WHAT, alpha, power)? * sigma / delta).powi(2).ceil() as u64)
}

/// Smallest true difference that `n` items show with probability `power`.
pub fn detectable_difference(sigma: f64, n: u64, alpha: f64, power: f64) -> Result<f64, StatsError> {
    const WHAT: &str = "detectable difference";
    check_positive(WHAT, "sigma", sigma)?;
    check_positive(WHAT, "n", n as f64)?;
    Ok(z_sum(WHAT, alpha, power)? * sigma / (n as f64).sqrt())
}
