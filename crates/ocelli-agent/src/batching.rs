//! Continuous batching: many conversations extended together, one token each per step, by a model that the caller
//! lends.
//!
//! The [`Driver`] runs on the caller's thread and borrows the model only while it runs, so that a trainer can lend the
//! weights which it is about to change. Conversations send their requests from other threads. Between two steps the
//! driver takes in new requests, so a trajectory that comes back from its tool joins the batch at once.
//!
//! Keys and values: a conversation keeps its cache between turns, so that an observation costs only its own tokens.
//! The rollouts of one group share the cache of their prompt where the model can copy it. When the cache is full, the
//! conversations that wait for tools lose theirs, the longest unused first, and are read again when they come back.
//!
//! Draws depend on the rollout's seed and the position alone ([`DrawAt`]); with a model whose rows do not depend on
//! their neighbours, the same seed gives the same tokens whatever the batch and whatever the tools' timing. Real kernels
//! round differently in other company, by about 1e-6; where numbers must repeat to the last bit, [`Lockstep`] makes the
//! company itself repeatable.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use ocelli_data::ContentHash;
use tokio::sync::oneshot;

use crate::control::{Control, Signal};
use crate::pictures::Pictures;
use crate::policy::{PolicyError, Stop};
use crate::tokens::Renderer;

/// Names a sequence in a model's cache.
pub type SeqId = u64;

/// One sequence in a step: tokens to append, and whether to draw the next one.
#[derive(Debug)]
pub struct Row<'a> {
    /// The sequence; a new name begins an empty one.
    pub seq: SeqId,
    /// Tokens to append to its cache: a prompt, an observation, or the token drawn last. Never empty.
    pub ids: &'a [u32],
    /// Images whose placeholders lie in `ids`, in order.
    pub images: &'a [ContentHash],
    /// Draw the token that follows; `None` to fill the cache only.
    pub draw: Option<DrawAt>,
}

/// Where a draw takes its random numbers from: the same place gives the same numbers, whatever was drawn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawAt {
    /// Seed of the rollout.
    pub seed: u64,
    /// Number of the draw within the rollout, from 0.
    pub index: u64,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// Its log-probability under the distribution that it was drawn from.
    pub logprob: f32,
}

/// A model that extends several sequences together.
pub trait BatchModel {
    /// Version of the weights; recorded with every token.
    fn version(&self) -> u64;

    /// Longest sequence that it can hold.
    fn max_context(&self) -> usize;

    /// Appends each row's ids and draws where asked. One result per row, in order.
    fn step(&mut self, rows: &[Row<'_>], pictures: &Pictures) -> Result<Vec<Option<Drawn>>, PolicyError>;

    /// Begins `to` as a copy of `from`; false where the model cannot.
    fn fork(&mut self, from: SeqId, to: SeqId) -> bool;

    /// Forgets a sequence; unknown names are ignored.
    fn release(&mut self, seq: SeqId);
}

/// Bounds of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchConfig {
    /// Most sequences that are extended together.
    pub rows: usize,
    /// Most tokens in all caches together.
    pub cached_tokens: usize,
    /// Keep each prompt's cache for the other rollouts of its group.
    pub share_prompts: bool,
    /// Let the batch not depend on time; `None` lets it.
    pub lockstep: Option<Lockstep>,
}

/// Every step waits until all trajectories that are under way want a token, in the order of their seeds, so that the batches
/// of a run, and with them its rounding, do not depend on how long tools take. Costs the time that the slowest tool
/// takes; meant for training with tools in the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockstep {
    /// Trajectories of the run.
    pub jobs: usize,
    /// Trajectories that are under way together.
    pub live: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { rows: 32, cached_tokens: 1 << 20, share_prompts: true, lockstep: None }
    }
}

/// Tokens of one turn, or of a piece of it.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<f32>,
    pub(crate) version: u64,
    pub(crate) stop: Stop,
}

pub(crate) struct Request {
    pub(crate) seq: SeqId,
    /// The whole context. `[T]`
    pub(crate) ids: Vec<u32>,
    pub(crate) images: Vec<ContentHash>,
    /// Leading ids and images that other rollouts of the group share.
    pub(crate) prompt: (usize, usize),
    /// Ids at the end of `ids` that belong to the turn that goes on.
    pub(crate) begun: usize,
    pub(crate) seed: u64,
    /// Tokens drawn so far in the rollout.
    pub(crate) drawn: usize,
    pub(crate) max_tokens: usize,
    pub(crate) max_context: usize,
    pub(crate) until: Instant,
    pub(crate) control: Control,
    pub(crate) renderer: Arc<dyn Renderer>,
    pub(crate) pictures: Arc<Pictures>,
    pub(crate) reply: oneshot::Sender<Result<Generated, PolicyError>>,
}

pub(crate) enum Command {
    Generate(Box<Request>),
    Close(SeqId),
    Stop,
}

/// The sending half, held by policies and by the engine.
#[derive(Clone, Debug)]
pub(crate) struct DriverHandle(Sender<Command>);

impl DriverHandle {
    pub(crate) fn send(&self, command: Command) -> Result<(), PolicyError> {
        self.0
            .send(command)
            .map_err(|_| PolicyError("the generator was dropped while rollouts were running".into()))
    }
}

/// What the driver did, for logs and benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// Steps of the model.
    pub steps: u64,
    /// Rows over all steps.
    pub rows: u64,
    /// Tokens drawn.
    pub drawn: u64,
    /// Tokens read: prompts, observations, and contexts read again.
    pub read: u64,
    /// Prompts that were copied from another rollout of the group instead of being read.
    pub shared: u64,
    /// Caches given up for room.
    pub evicted: u64,
}

/// The receiving half: runs the decoding loop on the caller's thread.
pub struct Driver {
    commands: Receiver<Command>,
    handle: DriverHandle,
    config: BatchConfig,
    stats: DriverStats,
}

/// What the model holds of a sequence.
#[derive(Clone, Copy, Debug, Default)]
struct Cached {
    ids: usize,
    images: usize,
    used: u64,
}

struct Active {
    request: Box<Request>,
    fresh: Vec<u32>,
    logprobs: Vec<f32>,
}

/// How long the driver in lockstep waits before it asks again who has ended.
const TICK: Duration = Duration::from_micros(500);

/// Tokens at the end of a turn that are decoded to see whether its text ends the turn.
const TAIL: usize = 16;

impl Driver {
    /// A driver, to be given to a [`LocalPolicy`](crate::local::LocalPolicy) first.
    pub fn new(config: BatchConfig) -> Self {
        let (sender, commands) = channel();
        Self { commands, handle: DriverHandle(sender), config, stats: DriverStats::default() }
    }

    pub(crate) fn handle(&self) -> DriverHandle {
        self.handle.clone()
    }

    /// Counts since the driver was made.
    pub fn stats(&self) -> DriverStats {
        self.stats
    }

    /// Serves requests until the engine says stop; `between` is called between steps and whenever a request came in, and
    /// says how many trajectories have ended.
    pub(crate) fn run(&mut self, model: &mut dyn BatchModel, between: &mut dyn FnMut() -> usize) {
        let mut batch = Batch {
            model,
            config: self.config,
            stats: &mut self.stats,
            waiting: VecDeque::new(),
            active: Vec::new(),
            cached: BTreeMap::new(),
            prompts: HashMap::new(),
            next_prompt: SeqId::MAX,
            clock: 0,
        };
        loop {
            let ended = between();
            let mut next = match (batch.wanting() == 0, batch.misses_some(ended)) {
                // An end is told by `between` alone, so this waits a little at a time.
                (_, true) => self.commands.recv_timeout(TICK).map_err(|_| TryRecvError::Empty),
                (true, false) => self.commands.recv().map_err(|_| TryRecvError::Disconnected),
                (false, false) => self.commands.try_recv(),
            };
            let mut stop = false;
            while let Ok(command) = next {
                match command {
                    Command::Generate(request) => batch.waiting.push_back(request),
                    Command::Close(seq) => batch.forget(seq),
                    Command::Stop => {
                        stop = true;
                        break;
                    }
                }
                next = self.commands.try_recv();
            }
            if stop {
                batch.close();
                return;
            }
            if !batch.misses_some(ended) {
                batch.advance();
            }
        }
    }
}

/// State of one run: it lives exactly as long as the loan of the model.
struct Batch<'m, 's> {
    model: &'m mut dyn BatchModel,
    config: BatchConfig,
    stats: &'s mut DriverStats,
    waiting: VecDeque<Box<Request>>,
    active: Vec<Active>,
    /// Ordered, so that ties in age are broken the same way in every run.
    cached: BTreeMap<SeqId, Cached>,
    /// Shared prompts by their content; their names count down from the top.
    prompts: HashMap<ContentHash, SeqId>,
    next_prompt: SeqId,
    clock: u64,
}

impl Batch<'_, '_> {
    /// Turns that are under way or wait for a place.
    fn wanting(&self) -> usize {
        self.active.len() + self.waiting.len()
    }

    /// In lockstep: true while trajectories that are under way are busy elsewhere. A pause, or a turn whose time is up, is
    /// not kept waiting.
    fn misses_some(&self, ended: usize) -> bool {
        let Some(lockstep) = self.config.lockstep else { return false };
        let expected = lockstep.live.min(lockstep.jobs.saturating_sub(ended));
        let now = Instant::now();
        let mut requests = self.waiting.iter().chain(self.active.iter().map(|a| &a.request));
        self.wanting() < expected && requests.all(|r| r.control.signal() == Signal::Run && now < r.until)
    }

    fn advance(&mut self) {
        self.clock += 1;
        self.retire();
        if self.config.lockstep.is_some() {
            self.waiting.make_contiguous().sort_by_key(|r| r.seed);
        }
        self.admit();
        if self.config.lockstep.is_some() {
            self.active.sort_by_key(|a| a.request.seed);
        }
        if !self.active.is_empty() {
            self.step();
        }
    }

    /// Ends the turns that are to pause, are late, or whose rollout is gone.
    fn retire(&mut self) {
        let now = Instant::now();
        let ends = |r: &Request| match r.control.signal() {
            Signal::Pause | Signal::Cancel => Some(Stop::Paused),
            Signal::Run if now >= r.until => Some(Stop::Deadline),
            Signal::Run => None,
        };
        for request in std::mem::take(&mut self.waiting) {
            match ends(&request) {
                None => self.waiting.push_back(request),
                Some(stop) => self.end(Active { request, fresh: vec![], logprobs: vec![] }, stop),
            }
        }
        for active in std::mem::take(&mut self.active) {
            match ends(&active.request) {
                None if active.request.reply.is_closed() => self.forget(active.request.seq),
                None => self.active.push(active),
                Some(stop) => self.end(active, stop),
            }
        }
    }

    fn end(&mut self, active: Active, stop: Stop) {
        let Active { request, fresh, logprobs } = active;
        let generated = Generated { ids: fresh, logprobs, version: self.model.version(), stop };
        // The rollout may have met its end while it waited.
        let _ = request.reply.send(Ok(generated));
    }

    fn admit(&mut self) {
        while self.active.len() < self.config.rows {
            let Some(request) = self.waiting.front() else { return };
            let room = request.max_context.min(self.model.max_context());
            let needed = (request.ids.len() + request.max_tokens).min(room);
            if !self.make_room(request.seq, needed) && !self.active.is_empty() {
                return;
            }
            let Some(request) = self.waiting.pop_front() else { return };
            let active = Active { request, fresh: vec![], logprobs: vec![] };
            if active.request.ids.is_empty() {
                let _ = active.request.reply.send(Err(PolicyError("the prompt has no tokens".into())));
            } else if active.request.ids.len() >= room {
                self.end(active, Stop::ContextFull);
            } else {
                self.begin_from_prompt(&active.request);
                self.active.push(active);
            }
        }
    }

    /// Frees caches that nobody uses now until `needed` tokens fit. False where they cannot.
    fn make_room(&mut self, seq: SeqId, needed: usize) -> bool {
        let reserved = |a: &Active| (a.request.ids.len() + a.request.max_tokens).min(a.request.max_context);
        let active: usize = self.active.iter().map(reserved).sum();
        let busy: Vec<SeqId> = self.active.iter().map(|a| a.request.seq).collect();
        loop {
            let idle = || self.cached.iter().filter(|(id, _)| !busy.contains(id) && **id != seq);
            let held: usize = idle().map(|(_, c)| c.ids).sum();
            if active + held + needed <= self.config.cached_tokens {
                return true;
            }
            let oldest = idle().min_by_key(|(id, c)| (c.used, **id)).map(|(id, _)| *id);
            match oldest {
                Some(id) => {
                    self.forget(id);
                    self.stats.evicted += 1;
                }
                None => return false,
            }
        }
    }

    /// Gives a new sequence the cache of its prompt, which the first rollout of a group computes. The prompt's last
    /// token is left to each rollout, since its logits are where the rollouts part.
    fn begin_from_prompt(&mut self, request: &Request) {
        let (prompt, images) = request.prompt;
        let shared = prompt.saturating_sub(1).min(request.ids.len());
        if !self.config.share_prompts || self.cached.contains_key(&request.seq) || shared == 0 {
            return;
        }
        let Some(prompt_images) = request.images.get(..images) else { return };
        let mut content: Vec<u8> = request.ids[..shared].iter().flat_map(|id| id.to_le_bytes()).collect();
        prompt_images.iter().for_each(|hash| content.extend(hash.as_bytes()));
        let key = ContentHash::of(&content);
        let known = self.prompts.get(&key).copied().filter(|id| self.cached.contains_key(id));
        let prompt = match known {
            Some(prompt) => {
                self.stats.shared += 1;
                prompt
            }
            None => {
                let prompt = self.next_prompt;
                let row = Row { seq: prompt, ids: &request.ids[..shared], images: prompt_images, draw: None };
                if self.model.step(&[row], &request.pictures).is_err() {
                    // The rollout reads its prompt itself and meets the error there.
                    self.model.release(prompt);
                    return;
                }
                self.next_prompt -= 1;
                self.stats.read += shared as u64;
                self.cached.insert(prompt, Cached { ids: shared, images, used: self.clock });
                self.prompts.insert(key, prompt);
                prompt
            }
        };
        if self.model.fork(prompt, request.seq) {
            self.cached.insert(request.seq, Cached { ids: shared, images, used: self.clock });
            if let Some(cached) = self.cached.get_mut(&prompt) {
                cached.used = self.clock;
            }
        }
    }

    fn step(&mut self) {
        let mut active = std::mem::take(&mut self.active);
        let results = match self.step_rows(&active) {
            Ok(drawn) => drawn.into_iter().map(Ok).collect(),
            Err(_) if active.len() > 1 => {
                // One bad row must not take the others with it: read each again, alone.
                active.iter().for_each(|a| self.forget(a.request.seq));
                active.iter().map(|a| self.step_rows(std::slice::from_ref(a)).map(|d| d[0])).collect()
            }
            Err(e) => vec![Err(e)],
        };
        for (mut one, result) in active.drain(..).zip(results) {
            match result {
                Ok(drawn) => {
                    one.fresh.push(drawn.id);
                    one.logprobs.push(drawn.logprob);
                    match self.stop_of(&one) {
                        Some(stop) => self.end(one, stop),
                        None => self.active.push(one),
                    }
                }
                Err(e) => {
                    self.forget(one.request.seq);
                    let _ = one.request.reply.send(Err(e));
                }
            }
        }
    }

    fn step_rows(&mut self, active: &[Active]) -> Result<Vec<Drawn>, PolicyError> {
        let contexts: Vec<(Vec<u32>, Cached)> = active
            .iter()
            .map(|a| {
                let cached = self.cached.get(&a.request.seq).copied().unwrap_or_default();
                let whole = a.request.ids.iter().chain(&a.fresh).copied();
                (whole.skip(cached.ids).collect(), cached)
            })
            .collect();
        let rows: Vec<Row<'_>> = active
            .iter()
            .zip(&contexts)
            .map(|(a, (ids, cached))| Row {
                seq: a.request.seq,
                ids,
                images: &a.request.images[cached.images..],
                draw: Some(DrawAt { seed: a.request.seed, index: (a.request.drawn + a.fresh.len()) as u64 }),
            })
            .collect();
        let Some(first) = active.first() else { return Ok(Vec::new()) };
        let drawn = self.model.step(&rows, &first.request.pictures)?;
        let complete: Option<Vec<Drawn>> = drawn.into_iter().collect();
        let drawn = complete.filter(|d| d.len() == rows.len()).ok_or_else(|| {
            PolicyError(format!("the model did not draw a token for each of the {} rows", rows.len()))
        })?;
        self.stats.steps += 1;
        self.stats.rows += rows.len() as u64;
        self.stats.drawn += rows.len() as u64;
        for (a, (ids, cached)) in active.iter().zip(&contexts) {
            let now =
                Cached { ids: cached.ids + ids.len(), images: a.request.images.len(), used: self.clock };
            self.cached.insert(a.request.seq, now);
            self.stats.read += ids.len().saturating_sub(1) as u64;
        }
        Ok(drawn)
    }

    fn stop_of(&self, a: &Active) -> Option<Stop> {
        let request = &a.request;
        let last = *a.fresh.last()?;
        if request.renderer.ends_turn(last) {
            return Some(Stop::EndOfTurn);
        }
        let begun = &request.ids[request.ids.len() - request.begun..];
        let turn: Vec<u32> = begun.iter().chain(&a.fresh).copied().collect();
        let tail = &turn[turn.len().saturating_sub(TAIL)..];
        if request.renderer.text_ends_turn(&request.renderer.text(tail)) {
            return Some(Stop::EndOfTurn);
        }
        if a.fresh.len() >= request.max_tokens {
            return Some(Stop::Length);
        }
        let length = request.ids.len() + a.fresh.len();
        (length >= request.max_context.min(self.model.max_context())).then_some(Stop::ContextFull)
    }

    fn forget(&mut self, seq: SeqId) {
        self.cached.remove(&seq);
        self.prompts.retain(|_, prompt| *prompt != seq);
        self.model.release(seq);
    }

    /// The model goes back to its owner, who may change it: nothing cached outlives the loan.
    fn close(mut self) {
        let late: Vec<Active> = std::mem::take(&mut self.active);
        late.into_iter().for_each(|a| self.end(a, Stop::Paused));
        for request in std::mem::take(&mut self.waiting) {
            self.end(Active { request, fresh: vec![], logprobs: vec![] }, Stop::Paused);
        }
        for seq in self.cached.keys().copied().collect::<Vec<_>>() {
            self.forget(seq);
        }
    }
}
