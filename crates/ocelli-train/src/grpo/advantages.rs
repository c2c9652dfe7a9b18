//! What the advantages of a step's groups become over the whole batch, and which settings of this go together.
//!
//! ```text
//! GRPO                     advantage standardised
//! REINFORCE++ (baseline)   advantage centred, whiten; reward_kl { beta, gamma = 1 }
//! GDPO                     advantage standardised, combine each
//!
//! order: advantage in the group -> combine each: divided by the deviation over responses
//!        -> reward_kl: token returns -> whiten: over tokens
//! ```

use super::GrpoConfig;
use super::batch::{Item, Scored};
use crate::advantages::{Combine, each_advantages, group_advantages, group_stats, token_returns, whiten};
use crate::advantages::{GroupStats, RewardKl};
use crate::buffer::Refresh;
use crate::error::TrainError;
use crate::hybrid_reward::Rewarded;
use crate::losses::LossError;
use crate::responses::TokenStats;

impl GrpoConfig {
    /// Checks the settings that make advantages of rewards against one another.
    pub(super) fn validate_advantages(&self) -> Result<(), TrainError> {
        let bad = |text: &str| Err(TrainError::Config(text.into()));
        if let Some(kl) = self.reward_kl {
            if !(kl.beta.is_finite() && kl.beta >= 0.0 && (0.0..=1.0).contains(&kl.gamma)) {
                return Err(TrainError::Config(format!(
                    "reward_kl: beta {} must be zero or more, gamma {} between 0 and 1",
                    kl.beta, kl.gamma
                )));
            }
            if self.loss.kl.is_some() {
                return bad(
                    "`reward_kl` and `loss.kl` punish the same distance twice; leave one of them out",
                );
            }
            if self.buffer.is_some() {
                return bad(
                    "`reward_kl` and `buffer` cannot be combined: with KL in the reward every response carries a gradient, so \
                     that no place is free for replays; use `loss.kl`",
                );
            }
        }
        if let Some(buffer) = &self.buffer {
            if buffer.refresh == Refresh::PromptMean && (self.whiten || self.combine == Combine::Each) {
                return bad(
                    "buffer.refresh `prompt_mean` needs advantages that are a multiple of reward minus mean; with `whiten` or \
                     `combine = \"each\"` they are not",
                );
            }
            let group = self.group as usize;
            if buffer.unit == crate::buffer::Unit::Group
                && (buffer.capacity < group || buffer.per_prompt < group)
            {
                return Err(TrainError::Config(format!(
                    "buffer.unit `group` keeps groups whole: capacity {} and per_prompt {} must be at least group ({group})",
                    buffer.capacity, buffer.per_prompt
                )));
            }
        }
        Ok(())
    }

    /// Advantages of the members of one group.
    pub(super) fn in_group(&self, members: &[&Rewarded]) -> Result<(Vec<f64>, GroupStats), LossError> {
        match self.combine {
            Combine::Sum => {
                let totals: Vec<f64> = members.iter().map(|r| r.total).collect();
                group_advantages(self.advantage, &totals)
            }
            Combine::Each => {
                let column = |pick: fn(&(f64, f64)) -> f64, r: &Rewarded| r.terms.iter().map(pick).collect();
                let terms: Vec<Vec<f64>> = members.iter().map(|r| column(|t| t.1, r)).collect();
                let weights: Vec<f64> = members.first().map(|r| column(|t| t.0, r)).unwrap_or_default();
                each_advantages(self.advantage, &terms, &weights)
            }
        }
    }
}

/// Divides by the deviation (n - 1) over the responses of informative groups for which `counts` holds. Nothing is
/// subtracted: a group's advantages sum to zero, and a member exactly at its mean keeps exactly none.
pub(super) fn divide(
    groups: &mut [Scored],
    counts: impl Fn(&ocelli_data::Trajectory) -> bool,
) -> Result<(), LossError> {
    let mut values: Vec<&mut f64> = Vec::new();
    for group in groups.iter_mut().filter(|g| g.stats.informative) {
        let members = group.trajectories.iter().zip(&mut group.advantages);
        values.extend(members.filter(|(t, _)| counts(t)).map(|(_, a)| a));
    }
    let std = group_stats(&values.iter().map(|v| **v).collect::<Vec<_>>())?.std;
    if std > 0.0 {
        values.into_iter().for_each(|v| *v /= std);
    }
    Ok(())
}

/// Puts the cost of every token's distance from the reference into the returns. Returns the mean of `k1` over the tokens.
pub(super) fn with_kl(
    kl: &RewardKl,
    items: &mut [&mut Item],
    reference: &[TokenStats],
) -> Result<f64, LossError> {
    let (mut sum, mut tokens) = (0.0, 0.0);
    for (item, reference) in items.iter_mut().zip(reference) {
        let advantage = item.advantages.first().copied().unwrap_or(0.0);
        item.advantages = token_returns(advantage, &item.sampled, &reference.logp, kl.beta, kl.gamma)?;
        sum += item.sampled.iter().zip(&reference.logp).map(|(s, r)| s - r).sum::<f64>();
        tokens += item.sampled.len() as f64;
    }
    Ok(sum / f64::max(tokens, 1.0))
}

/// Whitens over the tokens of the informative groups; those of the others have no advantage afterwards.
pub(super) fn whiten_items(items: &mut [&mut Item], informative: &[bool]) -> Result<(), LossError> {
    let mut values: Vec<Vec<f64>> = items.iter_mut().map(|i| std::mem::take(&mut i.advantages)).collect();
    whiten(&mut values, informative)?;
    items.iter_mut().zip(values).for_each(|(item, v)| item.advantages = v);
    Ok(())
}
