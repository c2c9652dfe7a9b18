//! From rewards to advantages. All statistics in f64; whether a group carries information is decided by exact
//! equality of its rewards, never by a threshold on a rounded standard deviation (eight rewards of 0.95 summed in f32
//! have a "deviation" of 6e-8, and dividing by it invents advantages of +0.9 for all eight).
//!
//! ```text
//! standardised   (R_i - mean) / (std + epsilon), std with n - 1          GRPO
//! centred        R_i - mean                                             Dr.GRPO
//! leave_one_out  R_i - mean of the others = n/(n-1) (R_i - mean)        RLOO
//! mean_scaled    (R_i - mean) / mean                                    MaxRL
//! ```

use serde::{Deserialize, Serialize};

use crate::losses::LossError;
use crate::losses::finite;

/// How a group's rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Advantage {
    /// Divided by the standard deviation (n - 1) plus epsilon.
    Standardised {
        /// Added to the deviation. 1e-4 in TRL, 1e-6 in verl.
        epsilon: f64,
    },
    /// Mean removed.
    Centred,
    /// Mean of the other members removed.
    LeaveOneOut,
    /// Mean removed, divided by the mean; rewards must not be negative.
    MeanScaled,
}

impl Default for Advantage {
    fn default() -> Self {
        Self::Standardised { epsilon: 1e-6 }
    }
}

/// A group's rewards in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GroupStats {
    /// Members.
    pub n: usize,
    /// Mean reward.
    pub mean: f64,
    /// Standard deviation with n - 1; 0 for one member.
    pub std: f64,
    /// True when not all rewards are the same number.
    pub informative: bool,
}

/// Statistics of one group. NaN or infinite rewards are errors.
pub fn group_stats(rewards: &[f64]) -> Result<GroupStats, LossError> {
    finite("reward", rewards)?;
    let n = rewards.len();
    if n == 0 {
        return Ok(GroupStats::default());
    }
    let mean = rewards.iter().sum::<f64>() / n as f64;
    let informative = rewards.iter().any(|r| *r != rewards[0]);
    let squares: f64 = rewards.iter().map(|r| (r - mean) * (r - mean)).sum();
    let std = if informative { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
    Ok(GroupStats { n, mean, std, informative })
}

/// Advantages of one group; all zero where the group is not informative (also for a single member).
pub fn group_advantages(kind: Advantage, rewards: &[f64]) -> Result<(Vec<f64>, GroupStats), LossError> {
    let stats = group_stats(rewards)?;
    if !stats.informative {
        return Ok((vec![0.0; stats.n], stats));
    }
    let n = stats.n as f64;
    let scale = match kind {
        Advantage::Standardised { epsilon } => 1.0 / (stats.std + epsilon),
        Advantage::Centred => 1.0,
        Advantage::LeaveOneOut => n / (n - 1.0),
        Advantage::MeanScaled if stats.mean > 0.0 => 1.0 / stats.mean,
        Advantage::MeanScaled => {
            return Err(LossError::Range {
                what: "mean reward",
                value: stats.mean,
                range: "positive for mean_scaled",
            });
        }
    };
    Ok((rewards.iter().map(|r| (r - stats.mean) * scale).collect(), stats))
}

/// How several rewards of one response are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Weighted sum, then the advantage of the sum.
    #[default]
    Sum,
    /// Advantage of each reward inside its group, then the weighted sum, then divided by its deviation over the responses of
    /// the batch's informative groups (GDPO, arXiv 2601.05242).
    Each,
}

/// Advantages of one group with several rewards per response, each reward's inside the group, added with their weights:
/// `group[i][k]` is reward `k` of member `i`. The group is informative where any reward of non-zero weight is. Mean and
/// deviation are those of the weighted sums. The division by the deviation over the batch is not done here.
pub fn each_advantages(
    kind: Advantage,
    group: &[Vec<f64>],
    weights: &[f64],
) -> Result<(Vec<f64>, GroupStats), LossError> {
    for member in group {
        crate::losses::same_length(
            "rewards of a response against their weights",
            member.len(),
            weights.len(),
        )?;
    }
    let sum = |member: &Vec<f64>| member.iter().zip(weights).map(|(r, w)| r * w).sum();
    let mut stats = group_stats(&group.iter().map(sum).collect::<Vec<f64>>())?;
    stats.informative = false;
    let mut advantages = vec![0.0; group.len()];
    for (k, weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
        let column: Vec<f64> = group.iter().map(|m| m[k]).collect();
        let (part, of_part) = group_advantages(kind, &column)?;
        stats.informative |= of_part.informative;
        advantages.iter_mut().zip(part).for_each(|(a, p)| *a += weight * p);
    }
    Ok((advantages, stats))
}

/// KL in the reward: every sampled token costs `beta k1`, as in REINFORCE++ (see [`token_returns`]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardKl {
    /// Weight, zero or more.
    pub beta: f64,
    /// Discount of a token's return by what comes after it, 0..=1.
    #[serde(default = "undiscounted")]
    pub gamma: f64,
}

fn undiscounted() -> f64 {
    1.0
}

/// Token advantages of REINFORCE++ (arXiv 2501.03262): reward `-beta k1_t` at every token plus `R` at the last,
/// returns with discount `gamma`, `k1_t = old_t - reference_t`. Its variant with a baseline takes the reward's advantage
/// inside its group for `R`.
///
/// `old` and `reference` are log-probabilities of the sampled tokens. `[S]`
pub fn token_returns(
    reward: f64,
    old: &[f64],
    reference: &[f64],
    beta: f64,
    gamma: f64,
) -> Result<Vec<f64>, LossError> {
    crate::losses::same_length("old log-probabilities against the reference's", old.len(), reference.len())?;
    finite("reward", &[reward])?;
    let mut returns = vec![0.0; old.len()];
    let mut ahead = 0.0;
    for t in (0..old.len()).rev() {
        let last = if t + 1 == old.len() { reward } else { 0.0 };
        ahead = last - beta * (old[t] - reference[t]) + gamma * ahead;
        returns[t] = ahead;
    }
    finite("return", &returns)?;
    Ok(returns)
}

/// Whitens token values over the whole batch: `(x - mean) / sqrt(var + 1e-8)` with the population variance.
///
/// `counts[i]` false leaves response `i` out of the statistics and gives it zeros: whitening would otherwise hand
/// the tokens of uninformative groups an advantage of `-mean / std`.
pub fn whiten(values: &mut [Vec<f64>], counts: &[bool]) -> Result<(), LossError> {
    crate::losses::same_length("responses against flags", values.len(), counts.len())?;
    let used = || values.iter().zip(counts).filter(|(_, c)| **c).flat_map(|(v, _)| v);
    let n = used().count() as f64;
    if n == 0.0 {
        values.iter_mut().flatten().for_each(|v| *v = 0.0);
        return Ok(());
    }
    let mean = used().sum::<f64>() / n;
    let var = used().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let scale = 1.0 / (var + 1e-8).sqrt();
    for (response, counts) in values.iter_mut().zip(counts) {
        response.iter_mut().for_each(|v| *v = if *counts { (*v - mean) * scale } else { 0.0 });
    }
    Ok(())
}
