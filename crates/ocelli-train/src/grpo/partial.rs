//! Partial rollouts with bounded staleness (Kimi k1.5, arXiv 2501.12599, section 2.6.2; the bound is AReaL's, 2505.24298).
//!
//! More groups are under way than a step trains. Every rollout samples a piece of bounded length; once enough groups are
//! complete the step trains those, and the others go on in the next step, under newer weights. So one long answer does not hold
//! up the batch. Each token keeps the version of the weights that sampled it, and a group is trained at the latest
//! `max_staleness` steps after it began: then its rollouts run to their end.
//!
//! Which groups a step trains does not depend on time, only on lengths. Between pieces a rollout's cache is given up and its
//! context is read again, so pieces should be long against prompts.

use std::collections::HashSet;
use std::sync::Arc;

use ocelli_agent::engine::Report;
use ocelli_agent::episode::{Ended, Job};
use ocelli_agent::snapshot::Snapshot;
use ocelli_data::{ContentHash, Sample};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// How far rollouts may run ahead of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partial {
    /// Groups under way beside the `prompts` that a step trains; at most as many as those.
    pub ahead: usize,
    /// Tokens that each rollout samples before it is seen whether enough groups are complete.
    pub tokens: usize,
    /// Most optimizer steps between the first token of a group and its training, at least 1.
    pub max_staleness: u64,
}

impl Partial {
    pub(super) fn validate(&self, prompts: usize) -> Result<(), TrainError> {
        // A group that is left over must find a place in the last step that may train it: those left over are never more
        // than `ahead`, and a step has `prompts` places.
        if self.tokens == 0 || self.max_staleness == 0 || self.ahead > prompts {
            return Err(TrainError::Config(format!(
                "partial: tokens {} and max_staleness {} must be at least 1, ahead {} at most prompts ({prompts})",
                self.tokens, self.max_staleness, self.ahead
            )));
        }
        Ok(())
    }
}

/// A rollout that has not ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    attempt: u32,
    seed: u64,
    resume: Option<Box<Snapshot>>,
}

/// A group under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Carried {
    /// Index of its question.
    pub(super) question: usize,
    /// Step in which it began.
    begun: u64,
    ended: Vec<Ended>,
    open: Vec<Open>,
}

impl Carried {
    /// A group whose rollouts, `jobs`, have not begun.
    pub(super) fn new(question: usize, begun: u64, jobs: &[Job]) -> Self {
        let open = jobs.iter().map(|j| Open { attempt: j.attempt, seed: j.seed, resume: None }).collect();
        Self { question, begun, ended: Vec::new(), open }
    }

    fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    fn is_due(&self, step: u64, partial: &Partial) -> bool {
        step.saturating_sub(self.begun) >= partial.max_staleness
    }

    /// Its rollouts in the order of their attempts.
    pub(super) fn into_ended(mut self) -> Vec<Ended> {
        self.ended.sort_by_key(|e| e.trajectory.attempt);
        self.ended
    }

    /// Pictures that did not come with the question.
    pub(super) fn made_pictures(&self, sample: &Sample) -> HashSet<ContentHash> {
        let given: HashSet<ContentHash> = sample.messages.iter().flat_map(|m| m.images()).collect();
        let ended = self.ended.iter().flat_map(|e| &e.trajectory.messages);
        let open = self.open.iter().filter_map(|o| o.resume.as_ref()).flat_map(|s| &s.messages);
        ended.chain(open).flat_map(|m| m.images()).filter(|hash| !given.contains(hash)).collect()
    }
}

/// True while another round is needed: too few groups are complete, or one that must be trained now is not.
pub(super) fn goes_on(groups: &[Carried], step: u64, partial: &Partial, wanted: usize) -> bool {
    let complete = groups.iter().filter(|g| g.is_complete()).count();
    complete < wanted.min(groups.len()) || groups.iter().any(|g| g.is_due(step, partial) && !g.is_complete())
}

/// The rollouts of the next round.
pub(super) fn jobs(groups: &[Carried], step: u64, partial: &Partial, train: &[Arc<Sample>]) -> Vec<Job> {
    let job = |group: &Carried, open: &Open| Job {
        sample: train[group.question].clone(),
        attempt: open.attempt,
        seed: open.seed,
        resume: open.resume.clone(),
        allowance: (!group.is_due(step, partial)).then_some(partial.tokens),
    };
    groups.iter().flat_map(|g| g.open.iter().map(move |o| job(g, o))).collect()
}

/// Takes in what a round of [`jobs`] gave.
pub(super) fn take_in(groups: &mut [Carried], report: Report) {
    // Both lists are in the order of the jobs; seeds tell which of them a job is in.
    let paused: HashSet<u64> = report.paused.iter().map(|j| j.seed).collect();
    let (mut ended, mut open) = (report.ended.into_iter(), report.paused.into_iter());
    for group in groups {
        for was in std::mem::take(&mut group.open) {
            if paused.contains(&was.seed) {
                group.open.extend(open.next().map(|j| Open { resume: j.resume, ..was }));
            } else {
                group.ended.extend(ended.next());
            }
        }
    }
}

/// Removes the groups that the step trains: those that are due, then complete ones in the order of their beginning, `wanted`
/// in all.
pub(super) fn harvest(
    groups: &mut Vec<Carried>,
    step: u64,
    partial: &Partial,
    wanted: usize,
) -> Vec<Carried> {
    let mut order: Vec<usize> = (0..groups.len()).filter(|&i| groups[i].is_complete()).collect();
    order.sort_by_key(|&i| (!groups[i].is_due(step, partial), i));
    order.truncate(wanted);
    let mut taken: Vec<Option<Carried>> = std::mem::take(groups).into_iter().map(Some).collect();
    order.sort_unstable();
    let harvest = order.iter().filter_map(|&i| taken[i].take()).collect();
    groups.extend(taken.into_iter().flatten());
    harvest
}
