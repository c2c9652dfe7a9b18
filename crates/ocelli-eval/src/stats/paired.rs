//! Two runs on the same items: the difference, its error and whether it can be chance.
//!
//! McNemar 1947 in its exact (binomial) form; Miller, arXiv 2411.00640, section 4 (paired standard error); Efron 1979
//! (bootstrap); Fisher (sign-flip permutation). Items of one cluster are resampled and flipped together.

use std::hash::Hash;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::interval::student_quantile;
use super::mean::by_cluster;
use super::{Interval, StatsError, check_lengths, check_values, domain, mean_clustered};

/// Outcome of McNemar's test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Items that only the first run has right.
    pub only_a: u64,
    /// Items that only the second run has right.
    pub only_b: u64,
    /// Exact two-sided p-value.
    pub p: f64,
}

/// Exact McNemar test of two columns of right (true) and wrong.
pub fn mcnemar(a: &[bool], b: &[bool]) -> Result<McNemar, StatsError> {
    check_lengths("McNemar", a.len(), b.len())?;
    let count = |first: bool| a.iter().zip(b).filter(|(x, y)| **x == first && **y != first).count() as u64;
    let (only_a, only_b) = (count(true), count(false));
    Ok(McNemar { only_a, only_b, p: binomial_two_sided(only_a, only_b) })
}

/// Two-sided sign test: min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]), summed upwards in logarithms.
fn binomial_two_sided(b: u64, c: u64) -> f64 {
    let n = b + c;
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for i in 0..b.min(c) {
        log_term += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
        sum += log_term.exp();
    }
    (2.0 * sum).min(1.0)
}

/// Mean difference of two runs over the same items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean of a - b.
    pub difference: f64,
    /// Standard error of the paired difference.
    pub se: f64,
    /// Standard error that ignoring the pairing would give; the gain of pairing is the ratio.
    pub unpaired_se: f64,
    /// Standard deviation of the item differences, for planning.
    pub sigma: f64,
    /// Student interval of the difference.
    pub interval: Interval,
    /// Number of items.
    pub n: usize,
    /// Number of independent groups.
    pub clusters: usize,
}

fn differences(what: &'static str, a: &[f64], b: &[f64]) -> Result<Vec<f64>, StatsError> {
    check_lengths(what, a.len(), b.len())?;
    check_values(what, a)?;
    check_values(what, b)?;
    Ok(a.iter().zip(b).map(|(x, y)| x - y).collect())
}

/// Paired difference of `a` and `b`, item by item.
pub fn paired_difference<C: Hash + Eq>(
    a: &[f64],
    b: &[f64],
    clusters: Option<&[C]>,
    confidence: f64,
) -> Result<PairedDifference, StatsError> {
    let d = differences("paired difference", a, b)?;
    let e = mean_clustered(&d, clusters, confidence)?;
    let apart = |v: &[f64]| mean_clustered(v, clusters, confidence).map(|e| e.se * e.se);
    let unpaired_se = (apart(a)? + apart(b)?).sqrt();
    let n = d.len() as f64;
    let sigma = (d.iter().map(|x| (x - e.mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
    let interval = if e.clusters > 1 {
        let half = student_quantile(confidence, e.clusters as f64 - 1.0)? * e.se;
        Interval { low: e.mean - half, high: e.mean + half }
    } else {
        e.interval
    };
    Ok(PairedDifference {
        difference: e.mean,
        se: e.se,
        unpaired_se,
        sigma,
        interval,
        n: e.n,
        clusters: e.clusters,
    })
}

/// Percentile bootstrap interval of the mean difference: clusters drawn with replacement, `replicates` times.
pub fn paired_bootstrap<C: Hash + Eq>(
    a: &[f64],
    b: &[f64],
    clusters: Option<&[C]>,
    replicates: usize,
    confidence: f64,
    rng: &mut impl Rng,
) -> Result<Interval, StatsError> {
    const WHAT: &str = "paired bootstrap";
    let d = differences(WHAT, a, b)?;
    if replicates < 100 || !(confidence > 0.0 && confidence < 1.0) {
        return Err(domain(
            WHAT,
            format!("{replicates} replicates at confidence {confidence}; 100 are the least"),
        ));
    }
    let sums: Vec<(f64, f64)> = by_cluster(WHAT, &d, clusters)?
        .iter()
        .map(|m| (m.iter().map(|&i| d[i]).sum(), m.len() as f64))
        .collect();
    let mut means: Vec<f64> = (0..replicates)
        .map(|_| {
            let (sum, n) = (0..sums.len()).fold((0.0, 0.0), |(sum, n), _| {
                let (s, m) = sums[rng.random_range(0..sums.len())];
                (sum + s, n + m)
            });
            sum / n
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Ok(Interval { low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) })
}

/// Quantile of sorted values with linear interpolation (Hyndman and Fan's type 7).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
}

const EXACT_FLIPS: usize = 20;

/// Two-sided p-value of the mean difference under sign flips of whole clusters: all of them where at most 20 clusters
/// differ, otherwise `replicates` random ones with the observed arrangement counted among them.
pub fn paired_permutation<C: Hash + Eq>(
    a: &[f64],
    b: &[f64],
    clusters: Option<&[C]>,
    replicates: usize,
    rng: &mut impl Rng,
) -> Result<f64, StatsError> {
    const WHAT: &str = "paired permutation";
    let d = differences(WHAT, a, b)?;
    // A cluster whose differences add to zero is unchanged by a flip.
    let sums: Vec<f64> = by_cluster(WHAT, &d, clusters)?
        .iter()
        .map(|m| m.iter().map(|&i| d[i]).sum::<f64>())
        .filter(|s| *s != 0.0)
        .collect();
    let observed = sums.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in the last bits; they are ties, not losses.
    let threshold = observed - 1e-9 * sums.iter().map(|s| s.abs()).sum::<f64>();
    if sums.len() <= EXACT_FLIPS {
        let all = 1usize << sums.len();
        let flipped = |mask: usize| -> f64 {
            sums.iter().enumerate().map(|(i, s)| if mask >> i & 1 == 1 { -s } else { *s }).sum()
        };
        return Ok((0..all).filter(|&m| flipped(m).abs() >= threshold).count() as f64 / all as f64);
    }
    if replicates < 100 {
        return Err(domain(WHAT, format!("{replicates} replicates; 100 are the least")));
    }
    let mut extreme = 0usize;
    for _ in 0..replicates {
        let mut sum = 0.0;
        let mut bits = 0u64;
        for (i, s) in sums.iter().enumerate() {
            if i % 64 == 0 {
                bits = rng.random();
            }
            sum += if bits & 1 == 1 { -s } else { *s };
            bits >>= 1;
        }
        extreme += usize::from(sum.abs() >= threshold);
    }
    Ok((extreme + 1) as f64 / (replicates + 1) as f64)
}
