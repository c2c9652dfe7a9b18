//! k samples per item: what share of subsets of k succeeds. Exact over the n stored samples, no seed.
//!
//! pass@k: Chen et al., arXiv 2107.03374, eq. 1. pass^k: Yao et al. (tau-bench), arXiv 2406.12045.
//! G-pass@k: Liu et al., arXiv 2412.13147.

use serde::{Deserialize, Serialize};

use super::{StatsError, choose, domain};

fn check(what: &'static str, n: usize, right: usize, k: usize) -> Result<(), StatsError> {
    if k == 0 || k > n || right > n || n > 1000 {
        return Err(domain(
            what,
            format!("k = {k} of n = {n} samples, {right} right; needs 1 <= k <= n <= 1000"),
        ));
    }
    Ok(())
}

/// Probability that at least one of `k` samples drawn from the `n` is right: `1 - C(n - c, k) / C(n, k)`.
pub fn pass_at_k(n: usize, right: usize, k: usize) -> Result<f64, StatsError> {
    check("pass@k", n, right, k)?;
    Ok(1.0 - choose(n - right, k) / choose(n, k))
}

/// Probability that all `k` samples drawn from the `n` are right: `C(c, k) / C(n, k)`.
pub fn pass_all_k(n: usize, right: usize, k: usize) -> Result<f64, StatsError> {
    check("pass^k", n, right, k)?;
    Ok(choose(right, k) / choose(n, k))
}

/// Probability that at least `ceil(tau k)` (and at least one) of `k` samples drawn from the `n` are right.
pub fn g_pass_at_k(n: usize, right: usize, k: usize, tau: f64) -> Result<f64, StatsError> {
    const WHAT: &str = "G-pass@k";
    check(WHAT, n, right, k)?;
    if !(0.0..=1.0).contains(&tau) {
        return Err(domain(WHAT, format!("tau is {tau}; it lies between 0 and 1")));
    }
    // 0.7 * 10 is 7.000000000000001 in floating point; the share is meant.
    let needed = ((tau * k as f64 - 1e-9).ceil() as usize).max(1);
    let ways: f64 = (needed..=k).map(|j| choose(right, j) * choose(n - right, k - j)).sum();
    Ok((ways / choose(n, k)).min(1.0))
}

/// pass@k beside what guessing among the options would reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuessCorrected {
    /// `1 - (1 - 1/m)^k` for m options; 0 for an open question.
    pub chance: f64,
    /// pass@k minus chance.
    pub excess: f64,
    /// `(pass@k - chance) / (1 - chance)`: 0 for a guesser, 1 for perfection.
    pub scaled: f64,
}

/// Corrects a pass@k for guessing among `options` (0 for an open question, which cannot be guessed).
pub fn guess_corrected(pass: f64, options: usize, k: usize) -> Result<GuessCorrected, StatsError> {
    const WHAT: &str = "guess-corrected pass@k";
    if !(0.0..=1.0).contains(&pass) || k == 0 || options == 1 {
        return Err(domain(
            WHAT,
            format!("pass@k {pass}, k {k}, {options} options; one option is no choice"),
        ));
    }
    let chance =
        if options == 0 { 0.0 } else { 1.0 - (1.0 - 1.0 / options as f64).powi(k.min(1 << 20) as i32) };
    Ok(GuessCorrected { chance, excess: pass - chance, scaled: (pass - chance) / (1.0 - chance) })
}
