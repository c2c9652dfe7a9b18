//! The engine: which sequences take part in a step, and what happens to them after it.
//!
//! One step is one forward pass over the rows that are due: one row for each sequence that samples, and as many prompt
//! rows as fit into [`EngineLimits::rows_per_step`]. Sequences leave when their turn ends; waiting ones take their place.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ocelli_tensor::ops;
use ocelli_tensor::{KvCache, KvPrefix, Params, Tape, Tensor, Var, on_workers};
use rayon::prelude::*;

use super::sampler::{Choice, Sampler};
use super::stop::TurnText;
use super::{Prompt, Sampling, StopReason, Turn};
use crate::ModelError;
use crate::text::{Attend, DeepFeatures, Positions, TextModel};
use crate::tokenizer::{TextStream, Tokenizer};

/// Name of a sequence within its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// How much an engine does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Sequences that sample in one step.
    pub max_active: usize,
    /// Rows of one forward pass; bounds the memory of reading long prompts.
    pub rows_per_step: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { max_active: 32, rows_per_step: 2048 }
    }
}

/// What happened in one step.
#[derive(Debug, Default)]
pub struct Step {
    /// New text, in the order of the sequences. Empty without a tokenizer.
    pub text: Vec<(SeqId, String)>,
    /// Turns that ended. Their sequences keep their caches until they are resumed or released.
    pub ended: Vec<Turn>,
}

/// Rows that wait to be read.
struct Feed {
    prompt: Prompt,
    /// Rows read so far.
    done: usize,
    /// Position of the prompt's row 0.
    start: f32,
}

impl Feed {
    fn left(&self) -> usize {
        self.prompt.ids.len() - self.done
    }

    /// Position after the last row.
    fn next_position(&self) -> f32 {
        self.start + self.prompt.positions.as_ref().map_or(self.prompt.ids.len() as f32, |p| p.next)
    }

    fn position(&self, row: usize) -> [f32; 3] {
        match &self.prompt.positions {
            Some(p) => [0, 1, 2].map(|a| self.start + p.axes[a][row]),
            None => [self.start + row as f32; 3],
        }
    }
}

/// A sequence and the turn that it is in.
struct Sequence {
    id: SeqId,
    cache: KvCache,
    feed: Feed,
    sampler: Sampler,
    sampling: Sampling,
    turn: Turn,
    stream: TextStream,
    text: TurnText,
}

/// A prompt that is being read for a group.
struct Reading {
    cache: KvCache,
    feed: Feed,
    members: Vec<(SeqId, Sampler)>,
    sampling: Sampling,
}

enum Active {
    Reading(Box<Reading>),
    Sequence(Box<Sequence>),
}

impl Active {
    fn parts(&mut self) -> (&mut KvCache, &mut Feed) {
        match self {
            Self::Reading(r) => (&mut r.cache, &mut r.feed),
            Self::Sequence(s) => (&mut s.cache, &mut s.feed),
        }
    }
}

/// A sequence that has a place in the queue.
enum Waiting {
    /// A new group.
    Group(Reading),
    /// A member of a group whose prompt has been read; its first token comes from the prompt's last logits.
    Member {
        id: SeqId,
        sampler: Sampler,
        sampling: Sampling,
        prefix: Arc<KvPrefix>,
        logits: Tensor,
        next: f32,
    },
    /// A sequence with new input.
    Resumed(Box<Sequence>),
}

/// Runs sequences over one decoder.
pub struct Engine<'m> {
    text: &'m TextModel,
    params: &'m Params,
    tokenizer: Option<&'m Tokenizer>,
    limits: EngineLimits,
    next_id: u64,
    queue: VecDeque<Waiting>,
    active: Vec<Active>,
    parked: HashMap<SeqId, Box<Sequence>>,
}

impl<'m> Engine<'m> {
    /// An engine over a decoder. Without a tokenizer there is no text and there are no stop strings.
    pub fn new(
        text: &'m TextModel,
        params: &'m Params,
        tokenizer: Option<&'m Tokenizer>,
        limits: EngineLimits,
    ) -> Result<Self, ModelError> {
        if limits.max_active == 0 || limits.rows_per_step < limits.max_active {
            let why = format!("an engine needs 1 <= max_active <= rows_per_step, got {limits:?}");
            return Err(ModelError::Request(why));
        }
        let (queue, active, parked) = (VecDeque::new(), Vec::new(), HashMap::new());
        Ok(Self { text, params, tokenizer, limits, next_id: 0, queue, active, parked })
    }

    /// Queues `n` sequences behind one prompt. Member `i` draws its random numbers from `seed` and stream
    /// `first_stream + i`, so that a group may be sampled in parts.
    ///
    /// # Errors
    /// The prompt is empty, leaves no room in the context, holds an id outside the vocabulary, or its splices or
    /// positions do not fit; the sampling settings are out of range.
    pub fn start(
        &mut self,
        prompt: Prompt,
        n: usize,
        sampling: &Sampling,
        seed: u64,
        first_stream: u64,
    ) -> Result<Vec<SeqId>, ModelError> {
        self.check(&prompt, 0, sampling)?;
        let ids: Vec<SeqId> = (self.next_id..self.next_id + n as u64).map(SeqId).collect();
        self.next_id += n as u64;
        let members = ids
            .iter()
            .enumerate()
            .map(|(i, &id)| {
                let mut sampler = Sampler::new(seed, first_stream + i as u64);
                sampler.see(&prompt.ids);
                (id, sampler)
            })
            .collect();
        let cache = KvCache::new(self.text.kv_shape(), prompt.ids.len());
        let feed = Feed { prompt, done: 0, start: 0.0 };
        if n > 0 {
            self.queue.push_back(Waiting::Group(Reading {
                cache,
                feed,
                members,
                sampling: sampling.clone(),
            }));
        }
        Ok(ids)
    }

    /// Appends an observation to a sequence whose turn has ended, and queues its next turn. The sequence keeps its
    /// cache and goes on with its random numbers.
    ///
    /// # Errors
    /// As [`Engine::start`]; the sequence is unknown or still in its turn. After an error it is as it was.
    pub fn resume(&mut self, id: SeqId, more: Prompt, sampling: &Sampling) -> Result<(), ModelError> {
        let Some(seq) = self.parked.get(&id) else {
            return Err(ModelError::Request(format!("sequence {} is not waiting to be resumed", id.0)));
        };
        self.check(&more, seq.cache.len() + seq.feed.left(), sampling)?;
        let Some(mut seq) = self.parked.remove(&id) else { return Ok(()) };
        seq.sampler.see(&more.ids);
        // The last sampled token has not been read yet; it goes in front.
        let last = &seq.feed.prompt.ids[seq.feed.done..];
        let k = last.len();
        let mut joined = more;
        joined.ids.splice(0..0, last.iter().copied());
        joined.splices.iter_mut().for_each(|s| s.at += k);
        if let Some(p) = &mut joined.positions {
            for axis in &mut p.axes {
                axis.iter_mut().for_each(|x| *x += k as f32);
                axis.splice(0..0, (0..k).map(|i| i as f32));
            }
            p.next += k as f32;
        }
        let start = seq.feed.start + seq.feed.done as f32;
        seq.feed = Feed { prompt: joined, done: 0, start };
        seq.turn = empty_turn(id);
        (seq.stream, seq.text) = (TextStream::new(), TurnText::default());
        seq.sampling = sampling.clone();
        self.queue.push_front(Waiting::Resumed(seq));
        Ok(())
    }

    /// A new sequence behind everything that a waiting one has read, with random numbers of its own. The two share that
    /// part of the cache. A token that the old one sampled last and has not read yet stays with the old one alone.
    ///
    /// # Errors
    /// The sequence is unknown or still in its turn.
    pub fn branch(&mut self, id: SeqId, seed: u64, stream: u64) -> Result<SeqId, ModelError> {
        let mut from = self.take_parked(id)?;
        let shape = from.cache.shape();
        let prefix = std::mem::replace(&mut from.cache, KvCache::new(shape, 1)).freeze();
        from.cache = KvCache::behind(&prefix, 1);
        let new = SeqId(self.next_id);
        self.next_id += 1;
        let mut sampler = from.sampler.clone();
        sampler.reseed(seed, stream);
        let start = from.feed.start + from.feed.done as f32;
        self.parked.insert(
            new,
            Box::new(Sequence {
                id: new,
                cache: KvCache::behind(&prefix, 1),
                feed: Feed { prompt: Prompt::default(), done: 0, start },
                sampler,
                sampling: from.sampling.clone(),
                turn: empty_turn(new),
                stream: TextStream::new(),
                text: TurnText::default(),
            }),
        );
        self.parked.insert(id, from);
        Ok(new)
    }

    /// Gives a waiting sequence other random numbers for what it samples next.
    ///
    /// # Errors
    /// The sequence is unknown or still in its turn.
    pub fn reseed(&mut self, id: SeqId, seed: u64, stream: u64) -> Result<(), ModelError> {
        let mut sequence = self.take_parked(id)?;
        sequence.sampler.reseed(seed, stream);
        self.parked.insert(id, sequence);
        Ok(())
    }

    fn take_parked(&mut self, id: SeqId) -> Result<Box<Sequence>, ModelError> {
        self.parked
            .remove(&id)
            .ok_or_else(|| ModelError::Request(format!("sequence {} is not waiting to be resumed", id.0)))
    }

    /// Forgets a sequence, wherever it is, and frees its cache.
    pub fn release(&mut self, id: SeqId) {
        self.parked.remove(&id);
        self.active.retain(|a| !matches!(a, Active::Sequence(s) if s.id == id));
        self.queue.retain_mut(|w| match w {
            Waiting::Group(g) => {
                g.members.retain(|m| m.0 != id);
                !g.members.is_empty()
            }
            Waiting::Member { id: other, .. } => *other != id,
            Waiting::Resumed(s) => s.id != id,
        });
        for a in &mut self.active {
            if let Active::Reading(r) = a {
                r.members.retain(|m| m.0 != id);
            }
        }
    }

    /// Tokens in the context of a sequence whose turn has ended, the last sampled one included.
    pub fn context_len(&self, id: SeqId) -> Option<usize> {
        self.parked.get(&id).map(|s| s.cache.len() + s.feed.left())
    }

    /// True when nothing is queued or running.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.active.is_empty()
    }

    /// Steps until nothing is queued or running; hands text out as it comes and returns all turns that ended.
    pub fn run(&mut self, mut on_text: impl FnMut(SeqId, &str)) -> Result<Vec<Turn>, ModelError> {
        let mut turns = Vec::new();
        while !self.is_idle() {
            let step = self.step()?;
            step.text.iter().for_each(|(id, text)| on_text(*id, text));
            turns.extend(step.ended);
        }
        turns.sort_by_key(|t| t.seq);
        Ok(turns)
    }

    /// One forward pass for everything that is due.
    pub fn step(&mut self) -> Result<Step, ModelError> {
        // Decoding is hundreds of parallel loops of some ten microseconds.
        on_workers(|| self.step_here())
    }

    fn step_here(&mut self) -> Result<Step, ModelError> {
        let mut step = Step::default();
        self.admit(&mut step)?;
        let taken = self.take_rows();
        if taken.iter().all(|&n| n == 0) {
            return Ok(step);
        }
        let logits = self.forward(&taken)?;
        let vocab = self.text.config().vocab_size;
        let mut row = 0;
        let mut samples: Vec<(&mut Box<Sequence>, &[f32])> = Vec::new();
        let all = logits.as_slice::<f32>()?;
        let mut read = Vec::new();
        for (i, (a, n)) in self.active.iter_mut().zip(&taken).enumerate() {
            let (_, feed) = a.parts();
            feed.done += n;
            if *n == 0 || feed.left() > 0 {
                continue;
            }
            match a {
                Active::Sequence(s) => samples.push((s, &all[row * vocab..(row + 1) * vocab])),
                Active::Reading(_) => read.push((i, logits.slice_rows(row..row + 1)?)),
            }
            row += 1;
        }
        let choices = sample(&mut samples)?;
        let context = self.text.config().context();
        for ((s, _), choice) in samples.into_iter().zip(choices) {
            s.accept(choice, self.tokenizer, context, &mut step)?;
        }
        // From the back, so that indices stay; the front of the queue then has them in order.
        for (i, logits) in read.into_iter().rev() {
            if let Active::Reading(r) = self.active.remove(i) {
                let r = *r;
                let (next, prefix) = (r.feed.next_position(), r.cache.freeze());
                for (id, sampler) in r.members.into_iter().rev() {
                    let (sampling, prefix, logits) = (r.sampling.clone(), prefix.clone(), logits.clone());
                    self.queue.push_front(Waiting::Member { id, sampler, sampling, prefix, logits, next });
                }
            }
        }
        self.park(&step);
        Ok(step)
    }

    /// Lets waiting sequences take free places. A member of a group samples its first token here.
    fn admit(&mut self, step: &mut Step) -> Result<(), ModelError> {
        while self.active.len() < self.limits.max_active {
            match self.queue.pop_front() {
                None => break,
                Some(Waiting::Group(r)) => self.active.push(Active::Reading(Box::new(r))),
                Some(Waiting::Resumed(s)) => self.active.push(Active::Sequence(s)),
                Some(Waiting::Member { id, sampler, sampling, prefix, logits, next }) => {
                    let room = self.text.config().context().saturating_sub(prefix.len());
                    let capacity = sampling.max_new_tokens.min(room).min(512);
                    let mut s = Box::new(Sequence {
                        id,
                        cache: KvCache::behind(&prefix, capacity),
                        feed: Feed { prompt: Prompt::default(), done: 0, start: next },
                        sampler,
                        sampling,
                        turn: empty_turn(id),
                        stream: TextStream::new(),
                        text: TurnText::default(),
                    });
                    let choice = s.sampler.choose(logits.as_slice::<f32>()?, &s.sampling)?;
                    s.accept(choice, self.tokenizer, self.text.config().context(), step)?;
                    self.active.push(Active::Sequence(s));
                    self.park(step);
                }
            }
        }
        Ok(())
    }

    /// Moves sequences whose turn ended out of the batch.
    fn park(&mut self, step: &Step) {
        let ended =
            |a: &mut Active| matches!(a, Active::Sequence(s) if step.ended.iter().any(|t| t.seq == s.id));
        for a in self.active.extract_if(.., ended) {
            if let Active::Sequence(s) = a {
                self.parked.insert(s.id, s);
            }
        }
    }

    /// Rows of each active entry for this step: all that sample, then prompts while there is room.
    fn take_rows(&mut self) -> Vec<usize> {
        let left: Vec<usize> = self.active.iter_mut().map(|a| a.parts().1.left()).collect();
        let mut room = self.limits.rows_per_step - left.iter().filter(|&&n| n == 1).count();
        let take = |&n: &usize| {
            if n <= 1 {
                return n;
            }
            let n = n.min(room);
            room -= n;
            n
        };
        left.iter().map(take).collect()
    }

    /// Logits after the last row of every entry whose input is now read. `[done, V]`, f32
    fn forward(&mut self, taken: &[usize]) -> Result<Tensor, ModelError> {
        let (mut ids, mut axes, mut splices) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()], Vec::new());
        let (mut caches, mut new, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for (a, &n) in self.active.iter_mut().zip(taken).filter(|(_, n)| **n > 0) {
            let (cache, feed) = a.parts();
            let rows = feed.done..feed.done + n;
            for s in &feed.prompt.splices {
                let (from, to) = (s.at.max(rows.start), (s.at + s.rows.rows()).min(rows.end));
                if from < to {
                    let at: Vec<usize> = (from..to).map(|r| ids.len() + r - rows.start).collect();
                    let part = |t: &Tensor| t.slice_rows(from - s.at..to - s.at);
                    let deep: Vec<Tensor> = s.deep.iter().map(part).collect::<Result<_, _>>()?;
                    splices.push((at, part(&s.rows)?, deep));
                }
            }
            for row in rows.clone() {
                for (axis, p) in axes.iter_mut().zip(feed.position(row)) {
                    axis.push(p);
                }
            }
            ids.extend_from_slice(&feed.prompt.ids[rows]);
            caches.push(cache);
            new.push(n);
            if feed.left() == n {
                last.push(ids.len() - 1);
            }
        }
        let positions = match self.text.config().rope.mrope {
            Some(_) => Positions::Multimodal(axes),
            None => Positions::Linear(axes[0].iter().map(|&p| p as usize).collect()),
        };
        let rotary = self.text.rotary(&positions)?;
        let mut tape = Tape::inference(self.params);
        let mut x = self.text.embed(&mut tape, &ids)?;
        let mut deep: Option<DeepFeatures> = None;
        for (at, rows, levels) in splices {
            let typed = |t: Tensor| Var::constant(t.to_dtype(x.value().dtype()));
            let (rows, levels) = (typed(rows), levels.into_iter().map(typed).collect::<Vec<_>>());
            x = ops::scatter_rows(&mut tape, &x, &at, &rows)?;
            deep = match deep {
                _ if levels.is_empty() => deep,
                None => Some(DeepFeatures { rows: at, levels }),
                Some(before) => {
                    let join = |(a, b): (&Var, &Var)| ops::concat_rows(&mut tape, &[a, b]);
                    let levels = before.levels.iter().zip(&levels).map(join).collect::<Result<_, _>>()?;
                    Some(DeepFeatures { rows: [before.rows, at].concat(), levels })
                }
            };
        }
        let attend = Attend::Cached { caches: &mut caches, new: &new };
        let hidden = self.text.forward(&mut tape, x, &rotary, attend, deep.as_ref(), false, Some(&last))?;
        // Logits in f32 whatever the hidden states are: as the training's log-probabilities are computed.
        Ok(ops::linear_f32(&tape, &hidden, self.text.head())?)
    }

    fn check(&self, prompt: &Prompt, before: usize, sampling: &Sampling) -> Result<(), ModelError> {
        sampling.check()?;
        let refuse = |why: String| Err(ModelError::Request(why));
        let (n, c) = (prompt.ids.len(), self.text.config());
        if n + before == 0 {
            return refuse("the prompt is empty; a model needs at least one token to start from".into());
        }
        if n + before >= c.context() {
            return refuse(format!(
                "{n} new tokens after {before} leave no room to generate: the context of the model is {} tokens",
                c.context()
            ));
        }
        if let Some((at, id)) = prompt.ids.iter().enumerate().find(|(_, id)| **id as usize >= c.vocab_size) {
            return refuse(format!(
                "token id {id} at position {at} is outside the vocabulary of {}",
                c.vocab_size
            ));
        }
        if !sampling.stop_strings.is_empty() && self.tokenizer.is_none() {
            return refuse("stop strings need a tokenizer, and this engine has none".into());
        }
        let mut end = 0;
        for s in &prompt.splices {
            let rows = s.rows.rows();
            let deep = s.deep.iter().all(|d| d.shape() == s.rows.shape());
            if s.at < end || s.at + rows > n || s.rows.cols() != c.hidden_size || !deep {
                return refuse(format!(
                    "image features of shape {:?} at token {} do not fit {n} tokens of width {} (or overlap the ones before)",
                    s.rows.shape(),
                    s.at,
                    c.hidden_size
                ));
            }
            end = s.at + rows;
        }
        match &prompt.positions {
            Some(p) if p.axes.iter().any(|a| a.len() != n) => refuse(format!(
                "positions for {:?} tokens were given with {n} tokens",
                p.axes.each_ref().map(Vec::len)
            )),
            Some(_) if c.rope.mrope.is_none() => {
                refuse("positions of time, height and width need a model with mrope_section".into())
            }
            _ => Ok(()),
        }
    }
}

/// Samples all rows, in parallel: each has its own random numbers.
fn sample(samples: &mut [(&mut Box<Sequence>, &[f32])]) -> Result<Vec<Choice>, ModelError> {
    samples.par_iter_mut().map(|(s, logits)| s.sampler.choose(logits, &s.sampling)).collect()
}

fn empty_turn(seq: SeqId) -> Turn {
    Turn {
        seq,
        ids: Vec::new(),
        logprobs: Vec::new(),
        raw_logprobs: Vec::new(),
        text: String::new(),
        reason: StopReason::MaxTokens,
    }
}

impl Sequence {
    /// Takes a sampled token: it becomes the next row to be read, its text is shown, and the turn may end.
    fn accept(
        &mut self,
        choice: Choice,
        tokenizer: Option<&Tokenizer>,
        context: usize,
        step: &mut Step,
    ) -> Result<(), ModelError> {
        let start = self.feed.next_position();
        self.feed = Feed { prompt: vec![choice.id].into(), done: 0, start };
        self.turn.ids.push(choice.id);
        self.turn.logprobs.push(choice.logprob);
        self.turn.raw_logprobs.push(choice.raw_logprob);
        let mut reason = None;
        if self.sampling.stop_ids.contains(&choice.id) {
            reason = Some(StopReason::Token(choice.id));
        }
        let stops = &self.sampling.stop_strings;
        if let Some(tokenizer) = tokenizer {
            let mut piece = self.stream.push(choice.id, tokenizer)?;
            let full = self.turn.ids.len() >= self.sampling.max_new_tokens || self.cache.len() + 1 >= context;
            if reason.is_some() || full {
                piece += &self.stream.finish(tokenizer)?;
            }
            if let Some(stop) = self.text.push(&piece, stops) {
                reason = reason.or(Some(StopReason::Text(stop.clone())));
            }
        }
        if reason.is_none() && self.cache.len() + 1 >= context {
            reason = Some(StopReason::ContextFull);
        }
        if reason.is_none() && self.turn.ids.len() >= self.sampling.max_new_tokens {
            reason = Some(StopReason::MaxTokens);
        }
        let shown = if reason.is_some() { self.text.show_rest() } else { self.text.show(stops) };
        if !shown.is_empty() {
            step.text.push((self.id, shown));
        }
        if let Some(reason) = reason {
            let mut turn = std::mem::replace(&mut self.turn, empty_turn(self.id));
            turn.text = std::mem::take(&mut self.text).into_text();
            turn.reason = reason;
            step.ended.push(turn);
        }
        Ok(())
    }
}
