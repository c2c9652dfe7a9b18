//! A generator that costs time and computes nothing: for benches and tests of the engine.
//!
//! The cost model is that of batched decoding on one device: a step that extends `b` sequences by one token takes
//! `step + b * per_row`. Sequences join and leave between steps (continuous batching); at most `max_batch` run together.
//! `chunk` steps are slept at once, to spare the timer.

use std::sync::Arc;
use std::time::Duration;

use ocelli_data::Message;
use tokio::sync::{mpsc, oneshot};

use crate::policy::{BoxFuture, Conversation, Policy, PolicyError, Said, Start, Turn};
use crate::scripted::ScriptedPolicy;

/// Costs of a simulated device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceCosts {
    /// Time of a step, whatever the batch.
    pub step: Duration,
    /// Additional time per sequence.
    pub per_row: Duration,
    /// Most sequences that decode together.
    pub max_batch: usize,
    /// Steps between two looks at the queue.
    pub chunk: u32,
}

impl DeviceCosts {
    /// Time to extend `rows` sequences by one token.
    pub fn step_time(&self, rows: usize) -> Duration {
        self.step + self.per_row * rows as u32
    }
}

struct Work {
    tokens: u32,
    done: oneshot::Sender<()>,
}

/// A simulated device; clones are the same one. Runs as a task of the tokio runtime that it was started in.
#[derive(Clone, Debug)]
pub struct SimulatedDevice {
    queue: mpsc::UnboundedSender<Work>,
}

impl SimulatedDevice {
    /// Starts the device.
    pub fn start(costs: DeviceCosts) -> Self {
        let (queue, work) = mpsc::unbounded_channel();
        tokio::spawn(serve(costs, work));
        Self { queue }
    }

    /// Decodes `tokens` tokens together with whatever else is running.
    pub async fn decode(&self, tokens: u32) -> Result<(), PolicyError> {
        let (done, finished) = oneshot::channel();
        let gone = || PolicyError("the simulated device was stopped".to_owned());
        self.queue.send(Work { tokens, done }).map_err(|_| gone())?;
        finished.await.map_err(|_| gone())
    }
}

async fn serve(costs: DeviceCosts, mut queue: mpsc::UnboundedReceiver<Work>) {
    let mut active: Vec<Work> = Vec::new();
    loop {
        while active.len() < costs.max_batch {
            let next = match active.is_empty() {
                true => queue.recv().await,
                false => queue.try_recv().ok(),
            };
            match next {
                Some(work) => active.push(work),
                None if active.is_empty() => return,
                None => break,
            }
        }
        let shortest = active.iter().map(|w| w.tokens).min().unwrap_or(0);
        let steps = shortest.min(costs.chunk).max(1);
        tokio::time::sleep(costs.step_time(active.len()) * steps).await;
        for work in &mut active {
            work.tokens = work.tokens.saturating_sub(steps);
        }
        let (finished, running): (Vec<_>, Vec<_>) = active.into_iter().partition(|w| w.tokens == 0);
        active = running;
        for work in finished {
            // Nobody waits any more where the trajectory met its deadline.
            let _ = work.done.send(());
        }
    }
}

/// Tokens of a turn.
type Tokens = dyn Fn(&Start, usize) -> u32 + Send + Sync;

/// Says what a script says, after the time that a device takes for `tokens(turn)` tokens.
#[derive(Clone)]
pub struct SimulatedPolicy {
    device: SimulatedDevice,
    script: ScriptedPolicy,
    tokens: Arc<Tokens>,
}

impl SimulatedPolicy {
    /// A policy on `device`.
    pub fn new(
        device: SimulatedDevice,
        script: ScriptedPolicy,
        tokens: impl Fn(&Start, usize) -> u32 + Send + Sync + 'static,
    ) -> Self {
        Self { device, script, tokens: Arc::new(tokens) }
    }
}

impl Policy for SimulatedPolicy {
    fn open(&self, start: Start) -> Result<Box<dyn Conversation>, PolicyError> {
        let turns = start.heard.iter().filter(|m: &&Message| m.role == ocelli_data::Role::Assistant).count();
        let script = self.script.open(start.clone())?;
        Ok(Box::new(Simulated { policy: self.clone(), script, start, turns }))
    }
}

struct Simulated {
    policy: SimulatedPolicy,
    script: Box<dyn Conversation>,
    start: Start,
    turns: usize,
}

impl Conversation for Simulated {
    fn turn<'a>(&'a mut self, turn: Turn<'a>) -> BoxFuture<'a, Result<Said, PolicyError>> {
        Box::pin(async move {
            let tokens = (self.policy.tokens)(&self.start, self.turns);
            self.turns += 1;
            self.policy.device.decode(tokens).await?;
            self.script.turn(turn).await
        })
    }
}
