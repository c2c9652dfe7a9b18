//! Many trajectories at once, without a turn barrier: while the tools of some run, the policy speaks for others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ocelli_data::{Status, Trajectory};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::batching::{BatchModel, Command, Driver};
use crate::control::{Control, Signal};
use crate::durable::{DurableConfig, DurableError, run_durable};
use crate::episode::{Ended, Job, Outcome, World, roll_out};
use crate::ledger::Ledger;

/// When a run hands back what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When every trajectory has ended.
    AllEnded,
    /// When so many have ended; the others are paused and come back as jobs (partial rollouts).
    Ended(usize),
}

/// What became of the jobs.
#[derive(Debug, Default)]
pub struct Report {
    /// Those that ended, in the order of the jobs.
    pub ended: Vec<Ended>,
    /// Those that were paused or never begun, in the order of the jobs.
    pub paused: Vec<Job>,
}

impl Report {
    /// The trajectories, group by group: neighbours with the same sample.
    pub fn groups(self) -> Vec<Vec<Ended>> {
        let mut groups: Vec<Vec<Ended>> = Vec::new();
        for ended in self.ended {
            match groups.last_mut() {
                Some(group) if group[0].trajectory.sample_id == ended.trajectory.sample_id => {
                    group.push(ended)
                }
                _ => groups.push(vec![ended]),
            }
        }
        groups
    }
}

/// The engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the rollout threads: {0}")]
pub struct EngineError(#[from] std::io::Error);

/// Runs jobs from blocking code; inside an async runtime use [`run_jobs`].
#[derive(Debug)]
pub struct Engine {
    runtime: Option<Runtime>,
    live: usize,
}

impl Engine {
    /// At most `live` trajectories at once; further jobs wait and their clocks with them.
    pub fn new(live: usize) -> Result<Self, EngineError> {
        // Trajectories only wait and pass on: one thread serves thousands. Tools have threads of their own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rollouts")
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), live: live.max(1) })
    }

    fn runtime(&self) -> &Runtime {
        // Only `drop` takes it.
        self.runtime.as_ref().unwrap_or_else(|| unreachable!("the runtime lives as long as the engine"))
    }

    /// Runs `jobs`. `on_end` sees each trajectory as it ends, on this thread.
    ///
    /// A policy that speaks through a [`Driver`] needs `loan`: the model decodes on this thread and is given back when
    /// the run ends, with nothing of it kept. Tools and the trajectories themselves run on other threads. A pause or
    /// cancellation of `control` holds for good, so each run takes a fresh one.
    pub fn run(
        &self,
        loan: Option<Loan<'_>>,
        world: &World,
        control: &Control,
        jobs: Vec<Job>,
        until: Until,
        on_end: &mut dyn FnMut(&Ended),
    ) -> Report {
        let (out, mut outcomes) = unbounded_channel();
        let (world, control, live) = (world.clone(), control.clone(), self.live);
        let mut gathered = Gathered::default();
        let work = async move { run_jobs(&world, &control, live, jobs, until, &out).await };
        self.drive(loan, work, &mut || {
            while let Ok((index, outcome)) = outcomes.try_recv() {
                gathered.take(index, outcome, on_end);
            }
            gathered.ended.len() + gathered.paused.len()
        });
        gathered.report()
    }

    /// As [`Engine::run`] for the work of a ledger; see [`run_durable`].
    pub fn run_durable(
        &self,
        loan: Option<Loan<'_>>,
        world: &World,
        control: &Control,
        ledger: Arc<dyn Ledger>,
        config: &DurableConfig,
        on_end: &mut dyn FnMut(&Ended),
    ) -> Result<(), DurableError> {
        let (out, mut ended) = unbounded_channel();
        let (world, control, config) = (world.clone(), control.clone(), config.clone());
        let work = async move { run_durable(&world, &control, ledger, &config, &out).await };
        let mut count = 0;
        self.drive(loan, work, &mut || {
            while let Ok(ended) = ended.try_recv() {
                on_end(&ended);
                count += 1;
            }
            count
        })
    }

    /// Runs `work` on the engine's thread while this one decodes, or waits where there is no model to lend.
    fn drive<T: Send + 'static>(
        &self,
        loan: Option<Loan<'_>>,
        work: impl Future<Output = T> + Send + 'static,
        between: &mut dyn FnMut() -> usize,
    ) -> T {
        let mut task = match loan {
            None => self.runtime().spawn(work),
            Some(Loan { driver, model }) => {
                let handle = driver.handle();
                let task = self.runtime().spawn(async move {
                    let stop = StopOnDrop(handle);
                    let result = work.await;
                    drop(stop);
                    result
                });
                driver.run(model, between);
                task
            }
        };
        let result = self.runtime().block_on(async {
            loop {
                tokio::select! {
                    result = &mut task => break result,
                    () = tokio::time::sleep(Duration::from_millis(50)) => { between(); }
                }
            }
        });
        between();
        // A panic of the engine itself is a defect and goes on; those of policies and tools were caught before.
        result.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }
}

/// A model lent to a run.
pub struct Loan<'a> {
    /// The driver through which the policy speaks.
    pub driver: &'a mut Driver,
    /// The model that decodes.
    pub model: &'a mut dyn BatchModel,
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A tool that never returns must not hold the program.
            runtime.shutdown_background();
        }
    }
}

/// Ends the driver's loop even where the task that feeds it panics.
struct StopOnDrop(crate::batching::DriverHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Command::Stop);
    }
}

#[derive(Default)]
struct Gathered {
    ended: Vec<(usize, Ended)>,
    paused: Vec<(usize, Job)>,
}

impl Gathered {
    fn take(&mut self, index: usize, outcome: Outcome, on_end: &mut dyn FnMut(&Ended)) {
        match outcome {
            Outcome::Ended(ended) => {
                on_end(&ended);
                self.ended.push((index, *ended));
            }
            Outcome::Paused(job) => self.paused.push((index, job)),
        }
    }

    fn report(mut self) -> Report {
        self.ended.sort_by_key(|(index, _)| *index);
        self.paused.sort_by_key(|(index, _)| *index);
        Report {
            ended: self.ended.into_iter().map(|(_, e)| e).collect(),
            paused: self.paused.into_iter().map(|(_, j)| j).collect(),
        }
    }
}

/// Runs `jobs`, at most `live` at once, and sends each outcome with its job's index as it comes. Every job comes back
/// exactly once.
pub async fn run_jobs(
    world: &World,
    control: &Control,
    live: usize,
    jobs: Vec<Job>,
    until: Until,
    out: &UnboundedSender<(usize, Outcome)>,
) {
    let mut waiting: VecDeque<(usize, Job)> = jobs.into_iter().enumerate().collect();
    let mut running = JoinSet::new();
    let mut known: HashMap<tokio::task::Id, (usize, Job)> = HashMap::new();
    let mut ended = 0;
    let world = Arc::new(world.clone());
    loop {
        while running.len() < live.max(1) && control.signal() == Signal::Run {
            let Some((index, job)) = waiting.pop_front() else { break };
            let (world, control) = (world.clone(), control.clone());
            let begun = (index, job.clone());
            let task = running.spawn(async move { roll_out(&world, &control, job, None).await });
            known.insert(task.id(), begun);
        }
        let Some(finished) = running.join_next_with_id().await else { break };
        let id = finished.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let Some((index, job)) = known.remove(&id) else { continue };
        let outcome = finished.map_or_else(|e| broken(job, &e), |(_, outcome)| outcome);
        ended += usize::from(matches!(outcome, Outcome::Ended(_)));
        if until == Until::Ended(ended) {
            control.pause();
        }
        let _ = out.send((index, outcome));
    }
    for (index, job) in waiting {
        let outcome = match control.signal() {
            Signal::Cancel => cancelled(job),
            _ => Outcome::Paused(job),
        };
        let _ = out.send((index, outcome));
    }
}

/// A defect in a policy, environment or renderer ends its own trajectory only.
pub(crate) fn broken(job: Job, error: &tokio::task::JoinError) -> Outcome {
    empty(job, Status::PolicyFailed, Some(format!("a defect of this program: {error}")))
}

fn cancelled(job: Job) -> Outcome {
    empty(job, Status::Cancelled, None)
}

fn empty(job: Job, status: Status, why: Option<String>) -> Outcome {
    let trajectory = Trajectory {
        sample_id: job.sample.id.clone(),
        attempt: job.attempt,
        messages: job.sample.messages.clone(),
        ids: vec![],
        spans: vec![],
        logprobs: vec![],
        weight_versions: vec![],
        images: job.sample.messages.iter().flat_map(|m| m.images().collect::<Vec<_>>()).collect(),
        tools: vec![],
        status,
        scores: vec![],
    };
    Outcome::Ended(Box::new(Ended { trajectory, why, seconds: 0.0 }))
}
