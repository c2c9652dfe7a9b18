//! Means with their standard errors, items clustered where they are not independent.
//!
//! Clusters are images that several questions share, passages, sets of edited questions, or items of which several
//! samples were drawn. `SE^2 = (1/n^2) sum_c (sum_{i in c} (s_i - mean))^2` (Miller, "Adding Error Bars to Evals",
//! arXiv 2411.00640, section 2.2). The interval is Wilson's at the effective sample size `mean (1 - mean) / SE^2` with
//! Student's quantile at `clusters - 1` degrees of freedom (Korn and Graubard 1998, with Wilson in the place of
//! Clopper-Pearson), so that it neither leaves [0, 1] nor collapses at 0/n.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::interval::{normal_quantile, student_quantile, wilson_fraction};
use super::{Interval, StatsError, check_lengths, check_values, domain};

/// A mean and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean of the values.
    pub mean: f64,
    /// Standard error of the mean.
    pub se: f64,
    /// Number of values.
    pub n: usize,
    /// Number of independent groups; `n` where every value stands alone.
    pub clusters: usize,
    /// Confidence interval.
    pub interval: Interval,
}

/// Sums of `values` by cluster, in order of first appearance; without clusters every value is its own.
pub(crate) fn by_cluster<C: Hash + Eq>(
    what: &'static str,
    values: &[f64],
    clusters: Option<&[C]>,
) -> Result<Vec<Vec<usize>>, StatsError> {
    let Some(clusters) = clusters else {
        return Ok((0..values.len()).map(|i| vec![i]).collect());
    };
    check_lengths(what, values.len(), clusters.len())?;
    let mut place = HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (i, cluster) in clusters.iter().enumerate() {
        let at = *place.entry(cluster).or_insert(members.len());
        if at == members.len() {
            members.push(Vec::new());
        }
        members[at].push(i);
    }
    Ok(members)
}

fn squared_error(values: &[f64], mean: f64, members: &[Vec<usize>]) -> f64 {
    let n = values.len() as f64;
    let sum_of_squares: f64 =
        members.iter().map(|m| m.iter().map(|&i| values[i] - mean).sum::<f64>().powi(2)).sum();
    sum_of_squares / (n * n)
}

/// Mean of any finite values with a Student interval.
pub fn mean_clustered<C: Hash + Eq>(
    values: &[f64],
    clusters: Option<&[C]>,
    confidence: f64,
) -> Result<Estimate, StatsError> {
    const WHAT: &str = "mean";
    check_values(WHAT, values)?;
    let members = by_cluster(WHAT, values, clusters)?;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let se = squared_error(values, mean, &members).sqrt();
    let half = if members.len() > 1 {
        student_quantile(confidence, members.len() as f64 - 1.0)? * se
    } else {
        f64::MAX
    };
    let interval = Interval { low: (mean - half).max(f64::MIN), high: (mean + half).min(f64::MAX) };
    Ok(Estimate { mean, se, n: values.len(), clusters: members.len(), interval })
}

/// Mean of values in [0, 1] (right or wrong, or a share of k samples) with an interval inside [0, 1].
pub fn proportion<C: Hash + Eq>(
    values: &[f64],
    clusters: Option<&[C]>,
    confidence: f64,
) -> Result<Estimate, StatsError> {
    const WHAT: &str = "proportion";
    check_values(WHAT, values)?;
    if let Some(index) = values.iter().position(|v| !(0.0..=1.0).contains(v)) {
        return Err(domain(WHAT, format!("value {index} is {}; it must lie between 0 and 1", values[index])));
    }
    let members = by_cluster(WHAT, values, clusters)?;
    let n = values.len() as f64;
    let mean = (values.iter().sum::<f64>() / n).clamp(0.0, 1.0);
    let squared = squared_error(values, mean, &members);
    let groups = members.len() as f64;
    let alone = members.len() == values.len() && values.iter().all(|v| *v == 0.0 || *v == 1.0);
    let interval = if alone {
        wilson_fraction(mean, n, normal_quantile(confidence)?)
    } else if members.len() == 1 {
        Interval { low: 0.0, high: 1.0 } // one cluster says nothing about the spread between clusters
    } else {
        // With no spread at all the clusters are what is independent; a design cannot be better than one value each.
        let effective =
            if squared > 0.0 { mean * (1.0 - mean) / (squared * groups / (groups - 1.0)) } else { groups };
        wilson_fraction(mean, effective, student_quantile(confidence, groups - 1.0)?)
    };
    let interval = Interval {
        low: if mean == 0.0 { 0.0 } else { interval.low.min(mean) },
        high: if mean == 1.0 { 1.0 } else { interval.high.max(mean) },
    };
    Ok(Estimate { mean, se: squared.sqrt(), n: values.len(), clusters: members.len(), interval })
}

/// Where the variance of avg@k comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VarianceSplit {
    /// Variance between items, divided by the number of items: more items help.
    pub items: f64,
    /// Mean variance within items, divided by items times samples: more samples help.
    pub samples: f64,
}

impl VarianceSplit {
    /// Standard error of avg@k over items drawn from their population.
    pub fn se(&self) -> f64 {
        (self.items + self.samples).sqrt()
    }
}

/// Splits the variance of the mean of `samples` (`[items][k]`, the same k >= 2 for every item) by one-way analysis of
/// variance. The share between items is unbiased and therefore cut at 0 where the samples scatter more than the items.
pub fn variance_split(samples: &[Vec<f64>]) -> Result<VarianceSplit, StatsError> {
    const WHAT: &str = "variance of avg@k";
    let k = samples.first().ok_or(StatsError::Empty { what: WHAT })?.len();
    if k < 2 || samples.len() < 2 {
        return Err(domain(
            WHAT,
            format!("{} items of {k} samples; at least 2 of each are needed", samples.len()),
        ));
    }
    for row in samples {
        check_values(WHAT, row)?;
        check_lengths(WHAT, k, row.len())?;
    }
    let n = samples.len() as f64;
    let means: Vec<f64> = samples.iter().map(|row| row.iter().sum::<f64>() / k as f64).collect();
    let mean = means.iter().sum::<f64>() / n;
    let of_means = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let within = samples
        .iter()
        .zip(&means)
        .map(|(row, m)| row.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (k as f64 - 1.0))
        .sum::<f64>()
        / n;
    let between = (of_means - within / k as f64).max(0.0);
    Ok(VarianceSplit { items: between / n, samples: within / (n * k as f64) })
}
