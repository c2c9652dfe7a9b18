//! A mean judged by a model, corrected by a small sample that people judged too.
//!
//! Angelopoulos et al., "Prediction-powered inference", Science 2023, and PPI++ (arXiv 2311.01453) for the weight
//! lambda that minimises the variance: `mean = lambda mean(judge on all others) + mean(human - lambda judge)`.

use serde::{Deserialize, Serialize};

use super::interval::normal_quantile;
use super::{Interval, StatsError, check_lengths, check_values, domain};

/// A corrected mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrected {
    /// Corrected mean.
    pub mean: f64,
    /// Its standard error.
    pub se: f64,
    /// Mean of the judge over all items, uncorrected.
    pub judged: f64,
    /// Estimated bias of the judge: its mean minus people's on the shared items.
    pub bias: f64,
    /// Weight given to the judge, from 0 (worthless) to 1.
    pub lambda: f64,
    /// Normal interval of the corrected mean.
    pub interval: Interval,
}

/// Corrects the judge's mean. `human[i]` and `judge_shared[i]` are two verdicts on one item; `judge_only` are its
/// verdicts on the items that no person saw.
pub fn prediction_powered(
    human: &[f64],
    judge_shared: &[f64],
    judge_only: &[f64],
    confidence: f64,
) -> Result<Corrected, StatsError> {
    const WHAT: &str = "prediction-powered mean";
    check_lengths(WHAT, human.len(), judge_shared.len())?;
    [human, judge_shared, judge_only].iter().try_for_each(|v| check_values(WHAT, v))?;
    if human.len() < 2 || judge_only.len() < 2 {
        let (n, m) = (human.len(), judge_only.len());
        return Err(domain(
            WHAT,
            format!("{n} items judged by people, {m} by the judge alone; 2 of each are the least"),
        ));
    }
    let (n, m) = (human.len() as f64, judge_only.len() as f64);
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (h, s, o) = (mean(human), mean(judge_shared), mean(judge_only));
    let covariance = human.iter().zip(judge_shared).map(|(x, y)| (x - h) * (y - s)).sum::<f64>() / (n - 1.0);
    let all = mean(&[judge_shared, judge_only].concat());
    let spread =
        judge_shared.iter().chain(judge_only).map(|y| (y - all).powi(2)).sum::<f64>() / (n + m - 1.0);
    let lambda = if spread > 0.0 { (covariance / ((1.0 + n / m) * spread)).clamp(0.0, 1.0) } else { 0.0 };
    let corrected = lambda * o + h - lambda * s;
    let rest = human.iter().zip(judge_shared).map(|(x, y)| x - lambda * y).collect::<Vec<_>>();
    let rest_mean = mean(&rest);
    let rest_variance = rest.iter().map(|r| (r - rest_mean).powi(2)).sum::<f64>() / (n - 1.0);
    let only_variance = judge_only.iter().map(|y| (y - o).powi(2)).sum::<f64>() / (m - 1.0);
    let se = (lambda * lambda * only_variance / m + rest_variance / n).sqrt();
    let half = normal_quantile(confidence)? * se;
    let interval = Interval { low: corrected - half, high: corrected + half };
    Ok(Corrected { mean: corrected, se, judged: all, bias: s - h, lambda, interval })
}
