//! Rollouts that survive the process: each job is a task of a [`Ledger`], leased, saved turn by turn, finished once.
//!
//! Kill the program at any moment and start it again: finished trajectories stay, those in flight go on from their last
//! saved turn once their lease has run out, none is there twice. An end that says nothing about the policy, because tools,
//! their servers or what the policy runs on failed, is tried again, from the start, up to `retries` times; then the task is
//! given up: it becomes a dead letter that says what failed, and never a result. So does a task that kills its worker again
//! and again. [`is_outage`] tells the two apart: the former may be tried again once the machines are mended.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ocelli_data::{ContentHash, Sample, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::control::{Control, Signal};
use crate::engine::broken;
use crate::episode::{Ended, Job, Outcome, World, roll_out};
use crate::ledger::{self, DeadLetter, Lease, LeaseRef, Ledger, LedgerError, Task};
use crate::snapshot::Snapshot;

/// How work is taken from the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableConfig {
    /// Name of the run within the ledger.
    pub run: String,
    /// Name of this process, for people.
    pub worker: String,
    /// Most trajectories at once.
    pub live: usize,
    /// How long a lease lasts without renewal; it is renewed after a third of it.
    pub lease: Duration,
    /// Leases of one job that may end in `PolicyFailed` or `ToolFailed` before it is given up.
    pub retries: u32,
    /// Pause before such a retry.
    pub retry_pause: Duration,
    /// How long finished work is held in memory while the ledger cannot take it.
    pub patience: Duration,
}

impl DurableConfig {
    /// Usual values for `run`.
    pub fn new(run: impl Into<String>) -> Self {
        Self {
            run: run.into(),
            worker: format!("pid-{}", std::process::id()),
            live: 32,
            lease: Duration::from_secs(60),
            retries: 3,
            retry_pause: Duration::from_secs(5),
            patience: Duration::from_secs(60),
        }
    }
}

/// A run that had to stop. Nothing that was finished is lost; start it again.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The ledger failed for longer than the patience.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A row of the ledger is not what this program wrote.
    #[error("ledger row {key}: {source}; was the ledger written by another version?")]
    Row {
        /// The task.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Payload of a task.
#[derive(Serialize, Deserialize)]
struct Payload {
    sample: Sample,
    attempt: u32,
    seed: u64,
}

/// Makes tasks of jobs. `config` is everything that decides what a rollout does (prompt, tools, limits, weights): the
/// same job under another configuration is another task.
pub fn tasks(jobs: &[Job], config: &str) -> Result<Vec<Task>, DurableError> {
    jobs.iter()
        .map(|job| {
            let payload = Payload { sample: (*job.sample).clone(), attempt: job.attempt, seed: job.seed };
            let key = format!("{}#{:04}", job.sample.id, job.attempt);
            let row = |source| DurableError::Row { key: key.clone(), source };
            let payload = serde_json::to_vec(&payload).map_err(row)?;
            let mut content = payload.clone();
            content.extend_from_slice(config.as_bytes());
            Ok(Task { key: format!("{key}@{}", ContentHash::of(&content).short()), payload })
        })
        .collect()
}

/// True where a task was given up because tools, their servers or what the policy runs on failed; false where it killed its
/// worker.
pub fn is_outage(letter: &DeadLetter) -> bool {
    OUTAGES.iter().any(|status| letter.error.starts_with(&outage(*status, "")))
}

/// Ends after which a task is tried again.
const OUTAGES: [Status; 2] = [Status::ToolFailed, Status::PolicyFailed];

/// The error of a task that ended so.
fn outage(status: Status, why: &str) -> String {
    format!("{status:?}: {why}")
}

/// All finished trajectories of a run, in the order of keys.
pub fn finished(ledger: &dyn Ledger, run: &str) -> Result<Vec<Ended>, DurableError> {
    finished_where(ledger, run, &|_| true)
}

/// The finished ones among `tasks`, in the order of keys: a ledger may hold work of an earlier configuration, too.
pub fn finished_tasks(ledger: &dyn Ledger, run: &str, tasks: &[Task]) -> Result<Vec<Ended>, DurableError> {
    let keys: HashSet<&str> = tasks.iter().map(|t| t.key.as_str()).collect();
    finished_where(ledger, run, &|key| keys.contains(key))
}

fn finished_where(
    ledger: &dyn Ledger,
    run: &str,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Ended>, DurableError> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = ledger.scan(run, after.as_deref(), 256)?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.key.clone());
        for row in page.into_iter().filter(|row| wanted(&row.key)) {
            let ended = serde_json::from_slice(&row.body);
            all.push(ended.map_err(|source| DurableError::Row { key: row.key, source })?);
        }
    }
}

struct Running {
    lease: Lease,
    job: Job,
    /// The newest snapshot that is not in the ledger yet.
    unsaved: Arc<Mutex<Option<Snapshot>>>,
    abort: tokio::task::AbortHandle,
}

struct Durable<'a> {
    world: Arc<World>,
    control: &'a Control,
    ledger: Arc<dyn Ledger>,
    config: &'a DurableConfig,
    tasks: JoinSet<Outcome>,
    running: HashMap<tokio::task::Id, Running>,
    unfinished: Vec<(LeaseRef, ledger::Outcome)>,
    failing_since: Option<Instant>,
}

/// Works until nothing is left that could be leased, or until `control` says pause (each trajectory ends its turn first) or
/// cancel (at once, from the middle of a turn): leases are given back with their partial work. `out` sees each trajectory as
/// it ends, those that are given up included.
pub async fn run_durable(
    world: &World,
    control: &Control,
    ledger: Arc<dyn Ledger>,
    config: &DurableConfig,
    out: &UnboundedSender<Ended>,
) -> Result<(), DurableError> {
    let mut run = Durable {
        world: Arc::new(world.clone()),
        control,
        ledger,
        config,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        unfinished: Vec::new(),
        failing_since: None,
    };
    run.work(out).await
}

impl Durable<'_> {
    async fn work(&mut self, out: &UnboundedSender<Ended>) -> Result<(), DurableError> {
        let mut renewal = tokio::time::interval(self.config.lease / 3);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let more = self.refill().await?;
            if self.tasks.is_empty() && self.unfinished.is_empty() && !more {
                return Ok(());
            }
            tokio::select! {
                Some(finished) = self.tasks.join_next_with_id() => {
                    self.note(finished, out);
                    // Whatever else has ended meanwhile goes into the same commit.
                    while let Some(finished) = self.tasks.try_join_next_with_id() {
                        self.note(finished, out);
                    }
                }
                _ = renewal.tick() => self.renew().await?,
                () = tokio::time::sleep(Duration::from_millis(200)), if self.tasks.is_empty() || !self.unfinished.is_empty() => {}
            }
            self.commit().await?;
        }
    }

    /// Takes new leases for free places. True where work may come later: others hold leases that could run out.
    async fn refill(&mut self) -> Result<bool, DurableError> {
        let stopping = self.control.signal() != Signal::Run;
        let free = self.config.live.saturating_sub(self.tasks.len());
        if stopping || free == 0 {
            return Ok(false);
        }
        if !self.unfinished.is_empty() {
            return Ok(true); // the ledger fails: bring home what is done before taking more
        }
        let (run, worker, ttl) = (self.config.run.clone(), self.config.worker.clone(), self.config.lease);
        let leased = self.ask(move |ledger| ledger.lease(&run, &worker, free, ttl)).await;
        let leases = match leased {
            Ok(leases) => leases,
            Err(e) => return self.failing(e).map(|()| true),
        };
        self.failing_since = None;
        let nothing = leases.is_empty();
        for lease in leases {
            self.start(lease)?;
        }
        if !nothing || !self.tasks.is_empty() {
            return Ok(true);
        }
        let run = self.config.run.clone();
        match self.ask(move |ledger| ledger.stats(&run)).await {
            Ok(stats) => Ok(!stats.is_settled()),
            Err(e) => self.failing(e).map(|()| true),
        }
    }

    fn start(&mut self, lease: Lease) -> Result<(), DurableError> {
        let row = |source| DurableError::Row { key: lease.at.key.clone(), source };
        let Payload { sample, attempt, seed } = serde_json::from_slice(&lease.payload).map_err(row)?;
        let resume = lease.partial.as_deref().map(serde_json::from_slice).transpose().map_err(row)?;
        let job = Job { sample: Arc::new(sample), attempt, seed, resume, allowance: None };
        let unsaved = Arc::new(Mutex::new(None));
        let (world, control) = (self.world.clone(), self.control.clone());
        let (begun, slot) = (job.clone(), unsaved.clone());
        let abort = self.tasks.spawn(async move {
            let save = move |snapshot| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
            roll_out(&world, &control, begun, Some(&save)).await
        });
        self.running.insert(abort.id(), Running { lease, job, unsaved, abort });
        Ok(())
    }

    fn note(
        &mut self,
        finished: Result<(tokio::task::Id, Outcome), tokio::task::JoinError>,
        out: &UnboundedSender<Ended>,
    ) {
        let id = finished.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let Some(Running { lease, job, unsaved, .. }) = self.running.remove(&id) else { return };
        let outcome = match finished {
            Ok((_, outcome)) => outcome,
            Err(e) if e.is_cancelled() => return, // the lease was lost; its new holder goes on
            Err(e) => broken(job, &e),
        };
        let outcome = match outcome {
            Outcome::Paused(job) => {
                // The caller commits at once; the snapshot travels with the last renewal.
                if let Some(snapshot) = job.resume {
                    *unsaved.lock().unwrap_or_else(PoisonError::into_inner) = Some(*snapshot);
                }
                self.save_now(&lease.at, &unsaved);
                ledger::Outcome::Release
            }
            // Whoever takes it next goes on behind the last whole turn.
            Outcome::Ended(ended) if ended.trajectory.status == Status::Cancelled => {
                self.save_now(&lease.at, &unsaved);
                ledger::Outcome::Release
            }
            Outcome::Ended(ended) => self.settle(&lease, *ended, out),
        };
        self.unfinished.push((lease.at, outcome));
    }

    fn settle(&self, lease: &Lease, ended: Ended, out: &UnboundedSender<Ended>) -> ledger::Outcome {
        let status = ended.trajectory.status;
        if status.is_outage() {
            let error = outage(status, ended.why.as_deref().unwrap_or("no reason given"));
            if lease.attempt <= self.config.retries {
                return ledger::Outcome::Retry { after: self.config.retry_pause, error };
            }
            tracing::info!(key = lease.at.key, error, "given up");
            let _ = out.send(ended);
            return ledger::Outcome::Dead(error);
        }
        match serde_json::to_vec(&ended) {
            Ok(body) => {
                let _ = out.send(ended);
                ledger::Outcome::Done(body)
            }
            Err(e) => ledger::Outcome::Dead(format!("the trajectory cannot be written as JSON: {e}")),
        }
    }

    /// Saves the state of a paused rollout before its lease is given back.
    fn save_now(&self, at: &LeaseRef, unsaved: &Mutex<Option<Snapshot>>) {
        let snapshot = unsaved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let bytes = snapshot.and_then(|s| serde_json::to_vec(&s).ok());
        // Without it the next holder begins again: slower, not wrong.
        if let Err(e) = self.ledger.renew(&self.config.run, &[(at.clone(), bytes)], self.config.lease) {
            tracing::warn!(key = at.key, error = %e, "partial work could not be saved");
        }
    }

    async fn renew(&mut self) -> Result<(), DurableError> {
        if self.running.is_empty() {
            return Ok(());
        }
        let mut ids = Vec::new();
        let mut leases = Vec::new();
        for (id, running) in &self.running {
            let snapshot = running.unsaved.lock().unwrap_or_else(PoisonError::into_inner).take();
            ids.push(*id);
            leases.push((running.lease.at.clone(), snapshot.and_then(|s| serde_json::to_vec(&s).ok())));
        }
        let (run, ttl) = (self.config.run.clone(), self.config.lease);
        match self.ask(move |ledger| ledger.renew(&run, &leases, ttl)).await {
            Err(e) => self.failing(e),
            Ok(held) => {
                for (id, held) in ids.into_iter().zip(held) {
                    if let (false, Some(running)) = (held, self.running.get(&id)) {
                        tracing::warn!(key = running.lease.at.key, "lease lost, another worker goes on");
                        running.abort.abort();
                    }
                }
                Ok(())
            }
        }
    }

    async fn commit(&mut self) -> Result<(), DurableError> {
        if self.unfinished.is_empty() {
            return Ok(());
        }
        let (run, batch) = (self.config.run.clone(), self.unfinished.clone());
        match self.ask(move |ledger| ledger.finish(&run, &batch)).await {
            Ok(done) => {
                if done.duplicate > 0 {
                    tracing::info!(
                        done.duplicate,
                        "results that another worker had brought first were discarded"
                    );
                }
                self.unfinished.clear();
                self.failing_since = None;
                Ok(())
            }
            Err(e) => self.failing(e),
        }
    }

    /// A failing ledger is waited for, up to the patience.
    fn failing(&mut self, error: LedgerError) -> Result<(), DurableError> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        tracing::warn!(%error, "the ledger failed; holding finished work in memory");
        match since.elapsed() > self.config.patience {
            true => Err(error.into()),
            false => Ok(()),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ledger = self.ledger.clone();
        match tokio::task::spawn_blocking(move || call(&*ledger)).await {
            Ok(result) => result,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
}
