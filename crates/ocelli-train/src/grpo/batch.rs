//! From scored groups and drawn replays to what goes through the model.

use std::sync::Arc;

use ocelli_data::{Sample, Status, Trajectory};
use ocelli_model::vlm::{Context, Pictures, Vlm};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::hybrid_reward::Rewarded;
use crate::responses::Response;

/// A trajectory in the buffer; its log-probabilities are kept as bits, so that a checkpoint loses nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    trajectory: Trajectory,
    logprob_bits: Vec<u32>,
    /// Pictures that came with the question; tools made the others.
    given: usize,
}

impl Stored {
    pub(super) fn new(trajectory: &Trajectory) -> Self {
        let mut trajectory = trajectory.clone();
        let given = trajectory.messages.iter().take_while(|m| m.role != ocelli_data::Role::Assistant);
        let given = given.map(|m| m.images().count()).sum();
        let logprob_bits = std::mem::take(&mut trajectory.logprobs).into_iter().map(f32::to_bits).collect();
        // The training of a replayed response needs its tokens and pictures, not what people read.
        trajectory.messages.clear();
        trajectory.tools.clear();
        trajectory.scores.clear();
        Self { trajectory, logprob_bits, given }
    }

    /// Pictures that tools made.
    pub(super) fn made_pictures(&self) -> impl Iterator<Item = ocelli_data::ContentHash> {
        self.trajectory.images.iter().skip(self.given).copied()
    }

    pub(super) fn trajectory(&self) -> Trajectory {
        let mut trajectory = self.trajectory.clone();
        trajectory.logprobs = self.logprob_bits.iter().map(|b| f32::from_bits(*b)).collect();
        trajectory
    }
}

/// One response on its way through the model.
pub(super) struct Item {
    pub(super) response: Response,
    /// One number for all tokens unless there is a KL term in the reward. `[S]`
    pub(super) advantages: Vec<f64>,
    /// What its tokens were sampled with. `[S]`
    pub(super) sampled: Vec<f64>,
    /// True for tokens of a fresh response that older weights sampled; empty where there is none. `[S]`
    pub(super) stale: Vec<bool>,
    /// Weight beside the advantage (prioritised replay); 1 for fresh ones.
    pub(super) weight: f64,
    pub(super) fresh: bool,
}

impl Item {
    /// True where the policy term has a gradient.
    pub(super) fn has_advantage(&self) -> bool {
        self.advantages.iter().any(|a| *a != 0.0)
    }
}

/// A group after scoring.
pub(super) struct Scored {
    pub(super) sample: Arc<Sample>,
    pub(super) trajectories: Vec<Trajectory>,
    pub(super) rewards: Vec<Rewarded>,
    pub(super) advantages: Vec<f64>,
    pub(super) stats: crate::advantages::GroupStats,
}

impl Scored {
    /// Members that the policy itself brought to an end; only they are trained and judged.
    pub(super) fn is_trained(t: &Trajectory) -> bool {
        t.status.is_policy_end() && t.sampled_len() > 0
    }
}

/// True where a limit cut the response off.
pub(super) fn cut_off(status: Status) -> bool {
    matches!(
        status,
        Status::TruncatedTokens | Status::TruncatedTurns | Status::TruncatedCalls | Status::ContextFull
    )
}

/// Contexts of trajectories with the same prompt: the prompt's pictures are decoded for the first one only.
pub(super) fn responses(
    model: &Vlm,
    trajectories: &[&Trajectory],
    pictures: &dyn Pictures,
) -> Result<Vec<Response>, TrainError> {
    let mut prompt: Option<Context> = None;
    let mut out = Vec::with_capacity(trajectories.len());
    for t in trajectories {
        let length = t.prompt_len();
        let reusable = prompt.as_ref().filter(|p| {
            p.ids() == &t.ids[..length]
                && p.images().len() == t.images.len()
                && p.images().iter().zip(&t.images).all(|(a, b)| a.hash == *b)
        });
        let response = match reusable {
            Some(p) => {
                t.validate().map_err(|e| TrainError::Data(e.to_string()))?;
                let mut context = p.clone();
                context.push(&t.ids[length..]);
                let mask = t.mask();
                let trained = (0..mask.len()).filter(|i| mask[*i]).collect();
                Response { context, prompt: length, trained }
            }
            None => Response::of_trajectory(model, t, pictures)?,
        };
        if prompt.is_none() {
            let mut p = response.context.clone();
            p.truncate(length)?;
            prompt = Some(p);
        }
        out.push(response);
    }
    Ok(out)
}
