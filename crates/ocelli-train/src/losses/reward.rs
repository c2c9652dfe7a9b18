//! Pairwise ranking loss of reward models (Bradley-Terry) and the report of a ranking.
//!
//! ```text
//! z = s_c - s_r - margin
//! L = -p log sigma(z) - (1 - p) log sigma(-z) + centring (s_c + s_r)^2,   p = 1, or 1/2 for a tie that is kept
//! ```
//!
//! Source: Skywork-VL Reward (arXiv 2505.07263) for the pairwise term; centring after Eisenstein et al. 2023.

use serde::{Deserialize, Serialize};

use super::{LossError, finite, sigmoid, softplus};

/// Settings of the ranking loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BradleyTerry {
    /// Use the margins of the pairs where they have one.
    pub margins: bool,
    /// Weight of the centring term; 0.01 keeps scores near zero.
    pub centring: f64,
    /// Keep ties with probability 1/2 instead of dropping them.
    pub keep_ties: bool,
}

/// Scores of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairScore {
    /// Score of the chosen response.
    pub chosen: f64,
    /// Score of the rejected response.
    pub rejected: f64,
    /// Margin by which the pair was judged.
    pub margin: Option<f64>,
    /// The judge called the two equally good.
    pub tie: bool,
}

/// Loss of one pair out of `pairs` in the optimizer batch, and its derivatives by the two scores. A tie that is not
/// kept must not come here: it has no order.
pub fn ranking_loss(
    config: &BradleyTerry,
    x: &PairScore,
    pairs: usize,
) -> Result<(f64, f64, f64), LossError> {
    finite("score", &[x.chosen, x.rejected])?;
    let margin = if config.margins && !x.tie { x.margin.unwrap_or(0.0) } else { 0.0 };
    let p = if x.tie { 0.5 } else { 1.0 };
    let z = x.chosen - x.rejected - margin;
    let n = pairs.max(1) as f64;
    let sum = x.chosen + x.rejected;
    let loss = p * softplus(-z) + (1.0 - p) * softplus(z) + config.centring * sum * sum;
    let by_z = -p * sigmoid(-z) + (1.0 - p) * sigmoid(z);
    let by_sum = 2.0 * config.centring * sum;
    Ok((loss / n, (by_z + by_sum) / n, (-by_z + by_sum) / n))
}

/// What a set of scored pairs says about a reward model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RankingReport {
    /// Pairs with an order.
    pub pairs: usize,
    /// Share with `s_c > s_r`, strictly.
    pub accuracy: f64,
    /// Mean of `s_c - s_r`.
    pub margin: f64,
    /// Mean of all scores.
    pub mean_score: f64,
    /// Expected calibration error of `sigma(|s_c - s_r|)` as the probability that the order is right, ten bins.
    pub ece: f64,
    /// Accuracy among pairs whose chosen response is the longer one.
    pub accuracy_chosen_longer: Option<f64>,
    /// Accuracy among pairs whose chosen response is the shorter one: far below the other, the model prefers length.
    pub accuracy_chosen_shorter: Option<f64>,
}

/// Report over pairs with the lengths of their responses `(chosen, rejected)`; ties are left out.
pub fn ranking_report(pairs: &[(PairScore, (usize, usize))]) -> RankingReport {
    let pairs: Vec<_> = pairs.iter().filter(|(s, _)| !s.tie).collect();
    if pairs.is_empty() {
        return RankingReport::default();
    }
    let n = pairs.len() as f64;
    let right = |s: &PairScore| if s.chosen > s.rejected { 1.0 } else { 0.0 };
    let share = |keep: &dyn Fn(&(usize, usize)) -> bool| {
        let of: Vec<f64> = pairs.iter().filter(|(_, l)| keep(l)).map(|(s, _)| right(s)).collect();
        (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64)
    };
    // Confidence in the order that the scores give; it lies in [0.5, 1].
    let mut bins = [(0.0, 0.0, 0.0); 10];
    for (s, _) in &pairs {
        let confidence = sigmoid((s.chosen - s.rejected).abs());
        let bin = &mut bins[(((confidence - 0.5) * 20.0) as usize).min(9)];
        *bin = (bin.0 + 1.0, bin.1 + confidence, bin.2 + right(s));
    }
    RankingReport {
        pairs: pairs.len(),
        accuracy: pairs.iter().map(|(s, _)| right(s)).sum::<f64>() / n,
        margin: pairs.iter().map(|(s, _)| s.chosen - s.rejected).sum::<f64>() / n,
        mean_score: pairs.iter().map(|(s, _)| s.chosen + s.rejected).sum::<f64>() / (2.0 * n),
        ece: bins.iter().map(|(_, c, r)| (c - r).abs()).sum::<f64>() / n,
        accuracy_chosen_longer: share(&|l| l.0 > l.1),
        accuracy_chosen_shorter: share(&|l| l.0 < l.1),
    }
}
