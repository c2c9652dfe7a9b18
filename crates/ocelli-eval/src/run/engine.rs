//! The engine: keeps a window of requests under way, writes each answer to the log the moment it is there, asks
//! nothing that the log or the cache already answers.

use std::collections::HashSet;
use std::sync::Arc;

use ocelli_agent::endpoint::{Outcome, SamplingParams, Usage};
use ocelli_data::io::IoError;
use tokio::task::JoinSet;

use super::policy::Failed;
use super::{Cache, Entry, Log, Policy, Request, request_key};
use crate::load::Images;

/// Fatal errors in a row that end a run even after earlier answers.
const FATAL_IN_A_ROW: usize = 5;
/// Answers between two flushes to the disk itself.
const SYNC_EVERY: usize = 256;

/// A run that stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// File operations.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Every further request would fail in the same way.
    #[error("stopped after {answered} of {total} requests: {message}")]
    Fatal {
        /// Answers so far; they are in the log.
        answered: usize,
        /// Requests in all.
        total: usize,
        /// What the endpoint said.
        message: String,
    },
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests that have ended, earlier runs and the cache included.
    pub done: usize,
    /// All requests.
    pub total: usize,
    /// Of the ended ones: failed.
    pub failed: usize,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// Answered by earlier runs in the same folder.
    pub from_log: usize,
    /// Answered by the cache.
    pub from_cache: usize,
    /// Asked now.
    pub asked: usize,
    /// Of these: failed.
    pub failed: usize,
    /// Tokens of the requests asked now.
    pub usage: Usage,
}

/// Everything that requests share.
pub struct Engine<'a> {
    /// Who answers.
    pub policy: &'a Policy,
    /// How to sample.
    pub sampling: &'a SamplingParams,
    /// Pictures.
    pub images: &'a Images,
}

impl Engine<'_> {
    /// Asks all requests that neither `log` nor `cache` answers. The order of the log is that in which answers came.
    pub async fn run(
        &self,
        requests: &[Request],
        log: &mut Log,
        mut cache: Option<&mut Cache>,
        mut progress: impl FnMut(Progress),
    ) -> Result<RunReport, RunError> {
        let name = self.policy.name();
        let mut report = RunReport::default();
        let mut state = Progress { done: 0, total: requests.len(), failed: 0 };
        let mut waiting = Vec::new();
        let mut under_way = HashSet::new();
        for request in requests {
            let key = request_key(&name, request, self.sampling);
            if log.answer(key).is_some() {
                report.from_log += 1;
                state.done += 1;
                continue;
            }
            if let Some(found) = cache.as_deref_mut().map(|c| c.get(key)).transpose()?.flatten() {
                log.push(Entry { item: request.item.clone(), variant: request.variant, ..found })?;
                report.from_cache += 1;
                state.done += 1;
                continue;
            }
            if under_way.insert(key) {
                waiting.push((key, request));
            } else {
                state.done += 1; // two items ask the very same thing: one answer serves both
            }
        }
        progress(state);
        let sampling: Vec<Arc<SamplingParams>> = self.seeds(requests);
        if !waiting.is_empty() {
            let stopped = |message| RunError::Fatal {
                answered: report.from_log + report.from_cache,
                total: requests.len(),
                message,
            };
            self.policy.reachable().await.map_err(stopped)?;
        }
        let mut waiting = waiting.into_iter();
        let mut running = JoinSet::new();
        let (mut fatal_in_a_row, mut answered) = (0, report.from_log + report.from_cache);
        loop {
            while running.len() < self.policy.window() {
                let Some((key, request)) = waiting.next() else { break };
                let policy = self.policy.clone();
                let (images, request) = (self.images.clone(), request.clone());
                let sampling = sampling[request.sample as usize].clone();
                running.spawn(async move {
                    // The seed of a local model follows from the content, so that the order of requests is irrelevant.
                    let seed = key.as_bytes().iter().take(8).fold(0u64, |s, b| s << 8 | u64::from(*b));
                    let answer = policy.ask(request.messages.clone(), images, sampling, seed).await;
                    (key, request, answer)
                });
            }
            let Some(ended) = running.join_next().await else { break };
            let Ok((key, request, answer)) = ended else { continue };
            let entry = match answer {
                Ok(completion) => {
                    fatal_in_a_row = 0;
                    answered += 1;
                    Entry::answered(key, &request, completion)
                }
                Err(Failed { message, fatal }) => {
                    fatal_in_a_row = if fatal { fatal_in_a_row + 1 } else { 0 };
                    if fatal && (answered == 0 || fatal_in_a_row >= FATAL_IN_A_ROW) {
                        log.sync()?;
                        return Err(RunError::Fatal { answered, total: requests.len(), message });
                    }
                    Entry::failed(key, &request, message)
                }
            };
            report.asked += 1;
            report.usage += entry.usage;
            state.done += 1;
            if entry.outcome == Outcome::Failed {
                report.failed += 1;
                state.failed += 1;
            } else if let Some(cache) = cache.as_deref_mut() {
                cache.put(&entry)?;
            }
            log.push(entry)?;
            if report.asked % SYNC_EVERY == 0 {
                log.sync()?;
            }
            progress(state);
        }
        log.sync()?;
        Ok(report)
    }

    /// Sampling of each sample: a seed that is given is counted up, so that samples differ.
    fn seeds(&self, requests: &[Request]) -> Vec<Arc<SamplingParams>> {
        let samples = requests.iter().map(|r| r.sample + 1).max().unwrap_or(1);
        let of = |sample: u32| {
            let seed = self.sampling.seed.map(|s| s.wrapping_add(u64::from(sample)));
            Arc::new(SamplingParams { seed, ..self.sampling.clone() })
        };
        (0..samples).map(of).collect()
    }
}
