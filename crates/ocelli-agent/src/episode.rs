//! One trajectory from its first message to its one [`Status`], or to a [`Snapshot`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ocelli_data::{Message, Sample, Status, ToolUse, Trajectory};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::control::{Control, Signal};
use crate::env::{Env, EnvFactory, Step, StepContext};
use crate::limits::RolloutLimits;
use crate::pictures::Pictures;
use crate::policy::{Conversation, Policy, PolicyError, Said, Start, Stop, Turn};
use crate::snapshot::Snapshot;

/// What to roll out.
#[derive(Clone, Debug)]
pub struct Job {
    /// The question.
    pub sample: Arc<Sample>,
    /// Which rollout of the sample this is, from 0.
    pub attempt: u32,
    /// Seed of this rollout; see [`Job::group`].
    pub seed: u64,
    /// Where a paused rollout goes on.
    pub resume: Option<Box<Snapshot>>,
    /// Tokens that may be sampled before the rollout is handed back unfinished; `None` lets it run to its end. Counted for
    /// policies that know their tokens.
    pub allowance: Option<usize>,
}

impl Job {
    /// `size` rollouts of each sample, sample by sample. The seed of each follows from the run's seed, the sample's id
    /// and the attempt: neither order nor other samples matter. A sample that stands there again, as at the end of one walk
    /// through the data and the beginning of the next, is drawn again and not copied.
    pub fn group(samples: &[Arc<Sample>], size: u32, run_seed: u64) -> Vec<Self> {
        let mut seen: HashMap<&str, u64> = HashMap::new();
        let mut jobs = Vec::with_capacity(samples.len() * size as usize);
        for sample in samples {
            let again = seen.entry(&sample.id).or_default();
            let seed = run_seed ^ (*again << 32);
            *again += 1;
            jobs.extend((0..size).map(|attempt| Self {
                sample: sample.clone(),
                attempt,
                seed: derive_seed(seed, &sample.id, attempt),
                resume: None,
                allowance: None,
            }));
        }
        jobs
    }
}

/// First 8 bytes of BLAKE3 over the run's seed, the attempt and the sample's id.
fn derive_seed(run_seed: u64, sample_id: &str, attempt: u32) -> u64 {
    let mut bytes = run_seed.to_le_bytes().to_vec();
    bytes.extend(attempt.to_le_bytes());
    bytes.extend(sample_id.as_bytes());
    let hash = ocelli_data::ContentHash::of(&bytes);
    hash.as_bytes()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// A trajectory that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// What happened.
    pub trajectory: Trajectory,
    /// Why, for people, where the end is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Wall time without pauses, in seconds. Not part of the replayable content.
    pub seconds: f64,
}

/// How a rollout came back.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It ended.
    Ended(Box<Ended>),
    /// It was paused, or never begun: give this job to the engine again.
    Paused(Job),
}

/// What all trajectories of a run share.
#[derive(Clone)]
pub struct World {
    /// Who speaks.
    pub policy: Arc<dyn Policy>,
    /// Who answers.
    pub envs: Arc<dyn EnvFactory>,
    /// Images.
    pub pictures: Arc<Pictures>,
    /// Bounds of each trajectory.
    pub limits: RolloutLimits,
}

/// Time beyond the deadline that an environment gets to end by itself, before it is cut off.
const GRACE: Duration = Duration::from_millis(50);

/// Rolls out one job. Never fails: what goes wrong is the trajectory's status. `saved` is given a snapshot after each
/// turn that another follows, for those who keep them.
pub async fn roll_out(
    world: &World,
    control: &Control,
    job: Job,
    saved: Option<&(dyn Fn(Snapshot) + Send + Sync)>,
) -> Outcome {
    let mut episode = Episode::begin(world, control, job);
    let exit = match episode.open() {
        Ok(()) => loop {
            match episode.turn().await {
                Err(exit) => break exit,
                Ok(()) => {
                    if let (Some(saved), Some(snapshot)) = (saved, episode.snapshot()) {
                        saved(snapshot);
                    }
                }
            }
        },
        Err(exit) => exit,
    };
    match exit {
        Exit::Pause => {
            let resume = episode.snapshot().map(Box::new);
            Outcome::Paused(Job { resume, ..episode.job })
        }
        Exit::Status(status, why) => Outcome::Ended(Box::new(episode.end(status, why))),
    }
}

struct Episode<'w> {
    world: &'w World,
    control: &'w Control,
    job: Job,
    begun: Instant,
    spent: Duration,
    messages: Vec<Message>,
    unheard: usize,
    tools: Vec<ToolUse>,
    turns: usize,
    env: Option<Box<dyn Env>>,
    conversation: Option<Box<dyn Conversation>>,
}

/// How the loop leaves.
enum Exit {
    Status(Status, Option<String>),
    Pause,
}

fn failed(status: Status, why: impl ToString) -> Exit {
    Exit::Status(status, Some(why.to_string()))
}

impl<'w> Episode<'w> {
    fn begin(world: &'w World, control: &'w Control, job: Job) -> Self {
        Self {
            world,
            control,
            job,
            begun: Instant::now(),
            spent: Duration::ZERO,
            messages: Vec::new(),
            unheard: 0,
            tools: Vec::new(),
            turns: 0,
            env: None,
            conversation: None,
        }
    }

    fn open(&mut self) -> Result<(), Exit> {
        let bad = |e: crate::env::EnvError| failed(Status::BadSample, e);
        let resume = self.job.resume.take();
        let mut tokens = None;
        match resume {
            None => {
                let mut env = self.world.envs.make(&self.job.sample, None).map_err(bad)?;
                self.messages = env.init().map_err(bad)?;
                self.unheard = self.messages.len();
                self.env = Some(env);
            }
            Some(snapshot) => {
                let Snapshot { messages, unheard, tokens: log, tools, turns, spent_s, env } = *snapshot;
                self.spent = Duration::try_from_secs_f64(spent_s).unwrap_or(Duration::ZERO);
                // A snapshot may come from a file; the slice below needs it to hold.
                self.unheard = unheard.min(messages.len());
                (self.messages, self.tools, self.turns, tokens) = (messages, tools, turns, log);
                self.env =
                    Some(self.world.envs.make(&self.job.sample, Some((&env, &self.messages))).map_err(bad)?);
            }
        }
        let start = Start {
            sample: self.job.sample.clone(),
            attempt: self.job.attempt,
            seed: self.job.seed,
            tools: self.world.envs.tools(),
            pictures: self.world.pictures.clone(),
            heard: self.messages[..self.messages.len() - self.unheard].to_vec(),
            tokens,
        };
        let conversation = self.world.policy.open(start).map_err(|e| failed(Status::PolicyFailed, e))?;
        self.conversation = Some(conversation);
        Ok(())
    }

    fn left(&self) -> Duration {
        self.world.limits.time().saturating_sub(self.spent + self.begun.elapsed())
    }

    /// One assistant turn and the environment's answer.
    async fn turn(&mut self) -> Result<(), Exit> {
        match self.control.signal() {
            Signal::Run => {}
            Signal::Pause => return Err(Exit::Pause),
            Signal::Cancel => return Err(Exit::Status(Status::Cancelled, None)),
        }
        if self.left().is_zero() {
            return Err(Exit::Status(Status::Deadline, None));
        }
        if self.turns >= self.world.limits.turns {
            return Err(Exit::Status(Status::TruncatedTurns, None));
        }
        let said = self.speak().await?;
        let cancelled = self.control.signal() == Signal::Cancel;
        if said.stop == Stop::Paused && !cancelled {
            return Err(Exit::Pause);
        }
        self.messages.push(said.message.clone());
        self.turns += 1;
        match said.stop {
            Stop::EndOfTurn => {}
            Stop::Paused => return Err(Exit::Status(Status::Cancelled, None)),
            Stop::Length => return Err(Exit::Status(Status::TruncatedTokens, None)),
            Stop::ContextFull => return Err(Exit::Status(Status::ContextFull, None)),
            Stop::Deadline => return Err(Exit::Status(Status::Deadline, None)),
        }
        let step = self.answer(&said).await?;
        self.tools.extend(step.tools);
        match step.end {
            Some(status) => Err(Exit::Status(status, step.why)),
            None => {
                self.unheard = step.messages.len();
                self.messages.extend(step.messages);
                Ok(())
            }
        }
    }

    async fn speak(&mut self) -> Result<Said, Exit> {
        let limits = &self.world.limits;
        let left = self.left();
        let Some(conversation) = self.conversation.as_mut() else {
            return Err(failed(Status::PolicyFailed, "the conversation was never opened"));
        };
        // The tokens of an unfinished turn count too: it goes on where it stopped.
        let sampled = conversation.tokens().map_or(0, |t| t.logprobs().len());
        let begun = conversation.tokens().map_or(0, |t| if self.unheard == 0 { t.turn().len() } else { 0 });
        let most = limits.tokens.saturating_sub(sampled).min(limits.turn_tokens.saturating_sub(begun));
        if most == 0 {
            return Err(Exit::Status(Status::TruncatedTokens, None));
        }
        // What the limits cut off has ended; what the allowance cuts off goes on later.
        let max_tokens = most.min(self.job.allowance.unwrap_or(most));
        if max_tokens == 0 {
            return Err(Exit::Pause);
        }
        let new = &self.messages[self.messages.len() - self.unheard..];
        let control = self.control;
        let turn = Turn { new, max_tokens, max_context: limits.context, budget: left, control };
        let speaking = conversation.turn(turn);
        let said: Result<Said, PolicyError> = if self.world.policy.keeps_time() {
            speaking.await
        } else {
            tokio::select! {
                biased;
                said = speaking => said,
                () = control.cancelled() => return Err(Exit::Status(Status::Cancelled, None)),
                () = tokio::time::sleep(left) => return Err(Exit::Status(Status::Deadline, None)),
            }
        };
        let mut said = said.map_err(|e| failed(Status::PolicyFailed, e))?;
        self.unheard = 0;
        let now = conversation.tokens().map_or(sampled, |t| t.logprobs().len());
        if let Some(left) = self.job.allowance.as_mut() {
            *left = left.saturating_sub(now - sampled);
        }
        if said.stop == Stop::Length && max_tokens < most {
            said.stop = Stop::Paused;
        }
        Ok(said)
    }

    async fn answer(&mut self, said: &Said) -> Result<Step, Exit> {
        let left = self.left();
        let context = StepContext {
            turn: self.turns - 1,
            last_turn: self.turns >= self.world.limits.turns,
            calls_left: self.world.limits.calls.saturating_sub(self.tools.len()),
            deadline: Instant::now() + left,
        };
        let Some(env) = self.env.as_mut() else {
            return Err(failed(Status::BadSample, "the environment was never made"));
        };
        tokio::select! {
            biased;
            step = env.step(said, context) => Ok(step),
            () = self.control.cancelled() => Err(Exit::Status(Status::Cancelled, None)),
            () = tokio::time::sleep(left + GRACE) => {
                Err(failed(Status::Deadline, "the environment did not answer before the deadline"))
            }
        }
    }

    /// The state between two turns; `None` where the trajectory never began.
    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot {
            messages: self.messages.clone(),
            unheard: self.unheard,
            tokens: self.conversation.as_ref().and_then(|c| c.tokens().cloned()),
            tools: self.tools.clone(),
            turns: self.turns,
            spent_s: (self.spent + self.begun.elapsed()).as_secs_f64(),
            env: self.env.as_ref()?.save(),
        })
    }

    fn end(self, status: Status, why: Option<String>) -> Ended {
        let log = self.conversation.as_ref().and_then(|c| c.tokens()).cloned().unwrap_or_default();
        let images = match log.ids().is_empty() {
            // Without tokens the images stand in the order in which messages name them.
            true => self.messages.iter().flat_map(|m| m.images().collect::<Vec<_>>()).collect(),
            false => log.images().to_vec(),
        };
        let trajectory = Trajectory {
            sample_id: self.job.sample.id.clone(),
            attempt: self.job.attempt,
            messages: self.messages,
            ids: log.ids().to_vec(),
            spans: log.spans().to_vec(),
            logprobs: log.logprobs().to_vec(),
            weight_versions: log.weight_versions().to_vec(),
            images,
            tools: self.tools,
            status,
            scores: Vec::new(),
        };
        Ended { trajectory, why, seconds: (self.spent + self.begun.elapsed()).as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_stands_there_twice_is_drawn_twice() {
        let sample = |id: &str| {
            let json = serde_json::json!({"id": id, "messages": [], "target": {"kind": "number", "value": 1, "tolerance": 0}});
            Arc::new(serde_json::from_value::<Sample>(json).unwrap())
        };
        let (a, b) = (sample("a"), sample("b"));
        let jobs = Job::group(&[a.clone(), b.clone(), a.clone()], 4, 7);
        let seeds: std::collections::HashSet<u64> = jobs.iter().map(|j| j.seed).collect();
        assert_eq!(seeds.len(), jobs.len());
        // What stands beside a sample does not move its draws.
        let alone: Vec<u64> = Job::group(&[a], 4, 7).iter().map(|j| j.seed).collect();
        assert_eq!(alone, jobs[..4].iter().map(|j| j.seed).collect::<Vec<_>>());
    }
}
