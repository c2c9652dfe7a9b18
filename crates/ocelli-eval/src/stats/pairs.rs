//! Scores of a reward model against known preferences: ranking quality and calibration.

use serde::{Deserialize, Serialize};

use super::{StatsError, check_lengths, check_values, domain};

/// Area under the ROC curve of `scores` for telling `positive` items from the others; ties count one half.
/// `None` where one of the two classes is empty.
pub fn auc(scores: &[f64], positive: &[bool]) -> Result<Option<f64>, StatsError> {
    const WHAT: &str = "AUC";
    check_lengths(WHAT, scores.len(), positive.len())?;
    check_values(WHAT, scores)?;
    let ranks = ranks(scores);
    let p = positive.iter().filter(|x| **x).count() as f64;
    let n = positive.len() as f64 - p;
    if p == 0.0 || n == 0.0 {
        return Ok(None);
    }
    let sum: f64 = ranks.iter().zip(positive).filter(|(_, x)| **x).map(|(r, _)| r).sum();
    Ok(Some((sum - p * (p + 1.0) / 2.0) / (p * n)))
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for group in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let shared = before as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|&i| ranks[i] = shared);
        before += group.len();
    }
    ranks
}

/// Spearman's rank correlation; `None` where one side is constant.
pub fn spearman(a: &[f64], b: &[f64]) -> Result<Option<f64>, StatsError> {
    const WHAT: &str = "Spearman's correlation";
    check_lengths(WHAT, a.len(), b.len())?;
    check_values(WHAT, a)?;
    check_values(WHAT, b)?;
    let (x, y) = (ranks(a), ranks(b));
    let mean = (a.len() + 1) as f64 / 2.0;
    let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(p, q)| (p - mean) * (q - mean)).sum::<f64>();
    let scale = (dot(&x, &x) * dot(&y, &y)).sqrt();
    Ok((scale > 0.0).then(|| dot(&x, &y) / scale))
}

/// How well `sigmoid(margin)` says the probability that the higher-scored answer is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Mean squared error of the probability (Brier score).
    pub brier: f64,
    /// Expected calibration error over ten bins of equal width.
    pub ece: f64,
}

/// Calibration of margins `score(a) - score(b)` against whether a is the better answer.
pub fn calibration(margins: &[f64], a_is_better: &[bool]) -> Result<Calibration, StatsError> {
    const WHAT: &str = "calibration";
    check_lengths(WHAT, margins.len(), a_is_better.len())?;
    check_values(WHAT, margins)?;
    if margins.len() < 2 {
        return Err(domain(WHAT, "fewer than 2 pairs"));
    }
    let n = margins.len() as f64;
    let mut bins = [(0.0, 0.0, 0.0); 10]; // (count, sum of probabilities, sum of outcomes)
    let mut brier = 0.0;
    for (margin, better) in margins.iter().zip(a_is_better) {
        let (p, y) = (1.0 / (1.0 + (-margin).exp()), f64::from(u8::from(*better)));
        brier += (p - y).powi(2);
        let bin = &mut bins[((p * 10.0) as usize).min(9)];
        *bin = (bin.0 + 1.0, bin.1 + p, bin.2 + y);
    }
    let ece = bins.iter().map(|(_, p, y)| (p - y).abs()).sum::<f64>() / n;
    Ok(Calibration { brier: brier / n, ece })
}
