//! The step of GRPO.

mod measure;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ocelli_agent::episode::{Ended, Job};
use ocelli_agent::pictures::MAX_IMAGE;
use ocelli_data::io::BlobStore;
use ocelli_data::{ContentHash, Sample, Trajectory};
use ocelli_model::SaveDtype;
use ocelli_model::vlm::Vlm;
use ocelli_tensor::{Grads, Params};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::advantages;
use super::batch::{Item, Scored, Stored, cut_off, responses};
use super::denominators;
use super::partial::{self, Carried, Partial};
use super::table::SampleTable;
use super::{Count, GrpoConfig, evaluate};
use crate::advantages::Combine;
use crate::buffer::{FillReport, SampleBuffer};
use crate::error::TrainError;
use crate::hybrid_reward::{Judge, Rewarded};
use crate::losses::{Correction, Divisors, LossError, Normaliser, PolicyMetrics, Rollout, mismatch_stats};
use crate::mentions::Vocabulary;
use crate::responses::{Pack, Pass, TokenGrads, TokenStats, learn, micro_batches, score};
use crate::rollouts::Rollouts;
use crate::run::{Metrics, Stage, StepReport};
use crate::sft::walk;
use crate::shaping::Truncated;

/// What must survive a kill, beside parameters and optimizer.
#[derive(Default, Serialize, Deserialize)]
struct Progress {
    /// Questions taken so far.
    cursor: u64,
    buffer: SampleBuffer<Stored>,
    /// Questions that the filter kept; `None` before it has run, and where there is none.
    #[serde(default)]
    kept: Option<Vec<usize>>,
    /// Groups under way (partial rollouts).
    #[serde(default)]
    carried: Vec<Carried>,
}

pub(super) struct Grpo<'a> {
    config: &'a GrpoConfig,
    pub(super) model: Vlm,
    reference: Option<Vlm>,
    rollouts: Rollouts,
    train: &'a [Arc<Sample>],
    held_out: &'a [Arc<Sample>],
    judge: Judge<'a>,
    progress: Progress,
    samples: SampleTable,
    vocabulary: Vocabulary,
    /// Pictures that tools made and the buffer keeps.
    made: BlobStore,
}

impl<'a> Grpo<'a> {
    pub(super) fn new(
        config: &'a GrpoConfig,
        model: Vlm,
        reference: Option<Vlm>,
        rollouts: Rollouts,
        train: &'a [Arc<Sample>],
        held_out: &'a [Arc<Sample>],
        reward_model: Option<&'a Vlm>,
        dir: &Path,
    ) -> Result<Self, TrainError> {
        let judge = Judge::new(&config.reward, reward_model, config.rows)?
            .with_tools(rollouts.listed(rollouts.has_tools()));
        let samples = SampleTable::new(dir);
        let (progress, made) = (Progress::default(), BlobStore::new(dir.join("pictures")));
        let vocabulary = Vocabulary::of(train.iter().chain(held_out));
        Ok(Self {
            config,
            model,
            reference,
            rollouts,
            train,
            held_out,
            judge,
            progress,
            samples,
            vocabulary,
            made,
        })
    }

    fn pass(&self) -> Pass {
        Pass { temperature: self.config.rollout.temperature, recompute: self.config.recompute }
    }

    /// True where a limit cut the response off and such ones are left out of the loss.
    fn is_masked(&self, t: &Trajectory) -> bool {
        self.config.truncated == Truncated::Mask && cut_off(t.status)
    }

    /// The next `n` questions and the seed of their rollouts.
    fn next_questions(&mut self, n: usize) -> (Vec<usize>, u64) {
        let pool = self.progress.kept.as_ref().map_or(self.train.len(), Vec::len);
        let mut chosen = walk(self.config.run.seed, pool, self.progress.cursor, n);
        if let Some(kept) = &self.progress.kept {
            chosen.iter_mut().for_each(|i| *i = kept[*i]);
        }
        // A question that comes twice in a run gets other draws: the seed holds the position of the walk.
        let seed = self.config.run.seed ^ self.progress.cursor.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.progress.cursor += n as u64;
        (chosen, seed)
    }

    /// Rolls out every question once with the model as it came and keeps those whose group is informative (the offline form
    /// of the Selective Sample Buffer).
    fn filter(&mut self) -> Result<(), TrainError> {
        let Some(filter) = self.config.prompt_filter.filter(|_| self.progress.kept.is_none()) else {
            return Ok(());
        };
        let seed = self.config.run.seed ^ 0x0F11_7E12;
        let tools = self.rollouts.has_tools();
        let mut kept = Vec::new();
        for from in (0..self.train.len()).step_by(self.config.prompts) {
            let samples = &self.train[from..self.train.len().min(from + self.config.prompts)];
            let groups = self.rollouts.run(&self.model, samples, filter.group, seed, 0, None, tools)?;
            for (i, (sample, group)) in samples.iter().zip(groups).enumerate() {
                if self.scored(0, sample, group)?.stats.informative {
                    kept.push(from + i);
                }
            }
        }
        if kept.is_empty() {
            return Err(TrainError::Data(format!(
                "prompt_filter: in each of the {} questions all {} answers earn the same, so there is nothing to learn from; \
                 train the model further, take easier or harder questions, or leave the filter out",
                self.train.len(),
                filter.group
            )));
        }
        self.progress.kept = Some(kept);
        Ok(())
    }

    /// One round of rollouts over the next `n` questions.
    fn round(&mut self, step: u64, n: usize) -> Result<Vec<Scored>, TrainError> {
        let (chosen, seed) = self.next_questions(n);
        let samples: Vec<Arc<Sample>> = chosen.iter().map(|&i| self.train[i].clone()).collect();
        let tools = self.rollouts.has_tools();
        let groups = self.rollouts.run(&self.model, &samples, self.config.group, seed, step, None, tools)?;
        let mut scored = Vec::with_capacity(groups.len());
        for (sample, group) in samples.iter().zip(groups) {
            scored.push(self.scored(step, sample, group)?);
        }
        Ok(scored)
    }

    fn scored(&self, step: u64, sample: &Arc<Sample>, group: Vec<Ended>) -> Result<Scored, TrainError> {
        let mut trajectories: Vec<Trajectory> = group.into_iter().map(|e| e.trajectory).collect();
        let rewards = self.judge.group(sample, &mut trajectories, self.rollouts.pictures().as_ref())?;
        let failed = |source| TrainError::Loss { step, source };
        let judged: Vec<usize> =
            (0..trajectories.len()).filter(|&i| Scored::is_trained(&trajectories[i])).collect();
        let members: Vec<&Rewarded> = judged.iter().map(|&i| &rewards[i]).collect();
        let (found, stats) = self.config.in_group(&members).map_err(failed)?;
        let mut advantages = vec![0.0; trajectories.len()];
        for (i, a) in judged.into_iter().zip(found) {
            advantages[i] = if self.is_masked(&trajectories[i]) { 0.0 } else { a };
        }
        Ok(Scored { sample: sample.clone(), trajectories, rewards, advantages, stats })
    }

    /// Rollouts of a step in pieces; what is not complete goes on in the next one.
    fn gather_pieces(&mut self, step: u64, partial: &Partial) -> Result<(Vec<Scored>, usize), TrainError> {
        let (wanted, tools) = (self.config.prompts, self.rollouts.has_tools());
        let (chosen, seed) =
            self.next_questions((wanted + partial.ahead).saturating_sub(self.progress.carried.len()));
        let samples: Vec<Arc<Sample>> = chosen.iter().map(|&i| self.train[i].clone()).collect();
        let jobs = Job::group(&samples, self.config.group, seed);
        for (&question, jobs) in chosen.iter().zip(jobs.chunks(self.config.group as usize)) {
            self.progress.carried.push(Carried::new(question, step, jobs));
        }
        let mut rounds = 0;
        while partial::goes_on(&self.progress.carried, step, partial, wanted) {
            let jobs = partial::jobs(&self.progress.carried, step, partial, self.train);
            let report = self.rollouts.jobs(&self.model, jobs, step, None, tools)?;
            partial::take_in(&mut self.progress.carried, report);
            rounds += 1;
        }
        let done = partial::harvest(&mut self.progress.carried, step, partial, wanted);
        let score = |c: Carried| {
            let sample = self.train[c.question].clone();
            self.scored(step, &sample, c.into_ended())
        };
        Ok((done.into_iter().map(score).collect::<Result<_, _>>()?, rounds))
    }

    /// Rollouts of a step: one round, or as many as it takes.
    fn gather(&mut self, step: u64) -> Result<(Vec<Scored>, usize), TrainError> {
        if let Some(partial) = &self.config.partial {
            return self.gather_pieces(step, partial);
        }
        let (wanted, rounds) = (self.config.prompts, self.config.dynamic.map_or(1, |d| d.rounds));
        let mut groups = self.round(step, wanted)?;
        let mut done = 1;
        while done < rounds {
            let missing = groups.iter().filter(|g| !g.stats.informative).count();
            if missing == 0 {
                break;
            }
            let more = self.round(step, missing)?;
            // Uninformative groups make room for new ones, so that the batch keeps its size.
            groups.retain(|g| g.stats.informative);
            groups.extend(more);
            done += 1;
        }
        Ok((groups, done))
    }

    /// True where a term of the loss needs responses without an advantage too.
    fn runs_all(&self) -> bool {
        self.config.loss.kl.is_some() || self.config.loss.entropy_bonus != 0.0
    }

    /// Fresh responses that carry a gradient (or all, where a term needs them), behind their prompts, and the mean of `k1`
    /// where it is part of the reward. Where whitening changes the advantages of `groups`, they have the new ones afterwards.
    fn fresh(&self, step: u64, groups: &mut [Scored]) -> Result<(Vec<Vec<Item>>, Option<f64>), TrainError> {
        let failed = |source| TrainError::Loss { step, source };
        let pictures = self.rollouts.pictures().clone();
        let all = self.runs_all() || self.config.reward_kl.is_some();
        let mut items: Vec<Vec<Item>> = Vec::new();
        // Group, its members in `items`.
        let mut places: Vec<(usize, Vec<usize>)> = Vec::new();
        for (g, group) in groups.iter().enumerate() {
            let needed = all || self.config.whiten && group.stats.informative;
            let taken: Vec<usize> = (0..group.trajectories.len())
                .filter(|&i| {
                    let t = &group.trajectories[i];
                    Scored::is_trained(t) && !self.is_masked(t) && (needed || group.advantages[i] != 0.0)
                })
                .collect();
            if taken.is_empty() {
                continue;
            }
            let trajectories: Vec<&Trajectory> = taken.iter().map(|&i| &group.trajectories[i]).collect();
            let made = responses(&self.model, &trajectories, pictures.as_ref())?;
            let group_items = made.into_iter().zip(&taken).map(|(response, &i)| Item {
                advantages: vec![group.advantages[i]; response.trained.len()],
                response,
                sampled: group.trajectories[i].logprobs.iter().map(|l| f64::from(*l)).collect(),
                stale: group.trajectories[i].weight_versions.iter().map(|v| *v != step).collect(),
                weight: 1.0,
                fresh: true,
            });
            items.push(group_items.collect());
            places.push((g, taken));
        }
        let mut kl = None;
        if let (Some(reward_kl), Some(reference)) = (&self.config.reward_kl, &self.reference) {
            let mut scores = Vec::new();
            let packs: Vec<Pack<'_>> =
                items.iter().map(|g| g.iter().map(|i| &i.response).collect()).collect();
            for micro in micro_batches(&packs, self.config.rows) {
                scores.extend(score(reference, &micro, self.pass())?);
            }
            let mut flat: Vec<&mut Item> = items.iter_mut().flatten().collect();
            kl = Some(advantages::with_kl(reward_kl, &mut flat, &scores).map_err(failed)?);
        }
        if self.config.whiten {
            let informative: Vec<bool> = places
                .iter()
                .flat_map(|(g, taken)| vec![groups[*g].stats.informative; taken.len()])
                .collect();
            let mut flat: Vec<&mut Item> = items.iter_mut().flatten().collect();
            advantages::whiten_items(&mut flat, &informative).map_err(failed)?;
            for ((g, taken), group_items) in places.iter().zip(&items) {
                for (&i, item) in taken.iter().zip(group_items) {
                    groups[*g].advantages[i] = item.advantages.first().copied().unwrap_or(0.0);
                }
            }
        }
        if !self.runs_all() {
            items.iter_mut().for_each(|g| g.retain(Item::has_advantage));
            items.retain(|g| !g.is_empty());
        }
        Ok((items, kl))
    }

    /// What goes through the model: fresh responses, then replayed ones.
    fn items(&mut self, step: u64, groups: &mut [Scored]) -> Result<Batch, TrainError> {
        let (mut items, kl) = self.fresh(step, groups)?;
        let pictures = self.rollouts.pictures().clone();
        let Some(config) = self.config.buffer else { return Ok(Batch { items, kl, fill: None }) };
        self.progress.buffer.expire(&config, step);
        let batch = self.config.prompts * self.config.group as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.run.seed);
        rng.set_stream(step + 1);
        let fresh = items.iter().flatten().filter(|i| i.has_advantage()).count();
        let progress = step as f64 / self.config.run.steps.max(1) as f64;
        let (drawn, report) = self.progress.buffer.fill(&config, batch, fresh, step, progress, &mut rng);
        let mut by_prompt: Vec<(String, Vec<(Trajectory, f64, f64)>)> = Vec::new();
        for d in drawn {
            let entry = (d.item.trajectory(), d.advantage, d.weight);
            match by_prompt.iter_mut().find(|(p, _)| *p == d.prompt) {
                Some((_, list)) => list.push(entry),
                None => by_prompt.push((d.prompt, vec![entry])),
            }
        }
        for (_, list) in by_prompt {
            let trajectories: Vec<&Trajectory> = list.iter().map(|(t, _, _)| t).collect();
            let made = responses(&self.model, &trajectories, pictures.as_ref())?;
            let replayed = made.into_iter().zip(&list).map(|(response, (t, advantage, weight))| Item {
                advantages: vec![*advantage; response.trained.len()],
                response,
                sampled: t.logprobs.iter().map(|l| f64::from(*l)).collect(),
                stale: Vec::new(),
                weight: *weight,
                fresh: false,
            });
            items.push(replayed.collect());
        }
        // Fresh responses enter after the draw, so that none is in the batch twice.
        for group in groups.iter() {
            let members: Vec<(Stored, f64, f64)> = (0..group.trajectories.len())
                .filter(|&i| Scored::is_trained(&group.trajectories[i]))
                .map(|i| (Stored::new(&group.trajectories[i]), group.rewards[i].total, group.advantages[i]))
                .collect();
            self.progress.buffer.insert(&config, &group.sample.id, members, &group.stats, step);
        }
        Ok(Batch { items, kl, fill: Some(report) })
    }
}

/// What goes through the model in a step.
struct Batch {
    /// Behind their prompts.
    items: Vec<Vec<Item>>,
    /// Mean of `k1` over fresh tokens, where it is part of the reward.
    kl: Option<f64>,
    fill: Option<FillReport>,
}

/// Sums over the responses of a step.
#[derive(Default)]
struct Sums {
    loss: f64,
    policy: PolicyMetrics,
    replay: PolicyMetrics,
    trainer: Vec<f64>,
    sampler: Vec<f64>,
    drifted: usize,
    rows: usize,
}

impl Grpo<'_> {
    /// Pictures that tools made for what the buffer may replay and for groups under way.
    fn made_pictures(&self) -> BTreeSet<ContentHash> {
        let replayed = self.progress.buffer.entries().iter().flat_map(|e| e.item.made_pictures());
        let carried = self.progress.carried.iter().flat_map(|c| c.made_pictures(&self.train[c.question]));
        replayed.chain(carried).collect()
    }

    fn loss_of(
        &self,
        item: &Item,
        stats: &TokenStats,
        reference: Option<&TokenStats>,
        normaliser: &Normaliser,
        sums: &mut Sums,
    ) -> Result<TokenGrads, LossError> {
        let n = stats.logp.len();
        let nothing = || TokenGrads { d_logp: vec![0.0; n], d_entropy: Vec::new() };
        // Fresh tokens are on-policy: against themselves, the ratio is 1 and its gradient that of log pi. Tokens that older
        // weights sampled take their ratio against those.
        let is_stale = |t: usize| !item.fresh || item.stale.get(t).copied().unwrap_or(false);
        let old: Vec<f64> =
            (0..n).map(|t| if is_stale(t) { item.sampled[t] } else { stats.logp[t] }).collect();
        if !item.fresh {
            let drift = mismatch_stats(&stats.logp, &item.sampled)?.k3;
            if self.config.buffer.and_then(|b| b.max_drift).is_some_and(|limit| drift > limit) {
                sums.drifted += 1;
                return Ok(nothing());
            }
        }
        let mut weights = match (item.fresh, &self.config.mismatch) {
            (true, Some(c)) => Correction::weights(c, &stats.logp, &item.sampled)?,
            _ => vec![1.0; n],
        };
        // The ratio corrects already where it is taken against the sampler.
        weights.iter_mut().enumerate().filter(|(t, _)| is_stale(*t)).for_each(|(_, w)| *w = 1.0);
        weights.iter_mut().for_each(|w| *w *= item.weight);
        let rollout = Rollout {
            logp: &stats.logp,
            old: &old,
            reference: reference.map(|r| r.logp.as_slice()),
            entropy: Some(&stats.entropy),
            advantages: &item.advantages,
            weights: Some(&weights),
        };
        let out = self.config.loss.response(&rollout, normaliser)?;
        sums.loss += out.loss;
        if item.fresh {
            sums.policy.merge(&out.metrics);
            for t in (0..n).filter(|t| !is_stale(*t)) {
                sums.trainer.push(stats.logp[t]);
                sums.sampler.push(item.sampled[t]);
            }
        } else {
            sums.replay.merge(&out.metrics);
        }
        Ok(TokenGrads { d_logp: out.d_logp, d_entropy: out.d_entropy })
    }

    /// Divisors of the policy term, and of KL and entropy; see `denominators`.
    fn divisors(&self, groups: &[Scored], items: &[&Item]) -> (Divisors, Divisors) {
        let length = |i: &&Item| i.response.trained.len();
        let all = groups.iter().flat_map(|g| &g.trajectories).filter(|t| !self.is_masked(t));
        let fresh = Divisors::of(all.map(Trajectory::sampled_len));
        let (new, old): (Vec<&Item>, Vec<&Item>) = items.iter().copied().partition(|i| i.fresh);
        let informative = Divisors::of(new.iter().filter(|i| i.has_advantage()).map(length));
        let idle = Divisors {
            responses: fresh.responses - informative.responses,
            tokens: fresh.tokens - informative.tokens,
        };
        let counts = |i: &&&Item| self.config.count == Count::All || i.has_advantage();
        let replayed = Divisors::of(old.iter().filter(counts).map(length));
        let run = Divisors::of(items.iter().map(length));
        (denominators::policy(self.config.count, informative, idle, replayed), run)
    }

    fn update(
        &self,
        step: u64,
        groups: &[Scored],
        items: &[Vec<Item>],
        grads: &mut Grads,
    ) -> Result<Sums, TrainError> {
        let mut sums = Sums::default();
        if items.is_empty() {
            return Ok(sums);
        }
        let failed = |source| TrainError::Loss { step, source };
        let flat: Vec<&Item> = items.iter().flatten().collect();
        let reduction = self.config.loss.reduction;
        let (main, run) = self.divisors(groups, &flat);
        let normaliser = Normaliser::with_divisors(reduction, main, run).map_err(failed)?;
        let packs: Vec<Pack<'_>> = items.iter().map(|g| g.iter().map(|i| &i.response).collect()).collect();
        let mut at = 0;
        for micro in micro_batches(&packs, self.config.rows) {
            let n: usize = micro.iter().map(Vec::len).sum();
            let part = &flat[at..at + n];
            at += n;
            let reference = match self.reference.as_ref().filter(|_| self.config.loss.kl.is_some()) {
                Some(r) => Some(score(r, &micro, self.pass())?),
                None => None,
            };
            let rows = learn(&self.model, &micro, self.pass(), grads, |stats| {
                let mut out = Vec::with_capacity(n);
                for (k, (item, s)) in part.iter().zip(stats).enumerate() {
                    let r = reference.as_ref().map(|r| &r[k]);
                    out.push(self.loss_of(item, s, r, &normaliser, &mut sums).map_err(failed)?);
                }
                Ok(out)
            })?;
            sums.rows += rows;
        }
        Ok(sums)
    }
}

impl Stage for Grpo<'_> {
    fn name(&self) -> &'static str {
        "grpo"
    }

    fn params(&mut self) -> &mut Params {
        &mut self.model.params
    }

    fn gradients(&mut self, step: u64, grads: &mut Grads) -> Result<StepReport, TrainError> {
        self.filter()?;
        let (mut groups, rounds) = self.gather(step)?;
        if self.config.combine == Combine::Each {
            let counts = |t: &Trajectory| Scored::is_trained(t) && !self.is_masked(t);
            advantages::divide(&mut groups, counts).map_err(|source| TrainError::Loss { step, source })?;
        }
        let batch = self.items(step, &mut groups)?;
        let sums = self.update(step, &groups, &batch.items, grads)?;
        let metrics = self.measure(step, &groups, rounds, &sums, &batch)?;
        self.samples.show(step, &groups, self.rollouts.pictures())?;
        Ok(StepReport { metrics, tokens: sums.rows })
    }

    fn evaluate(&mut self) -> Result<Metrics, TrainError> {
        if self.held_out.is_empty() {
            return Ok(Vec::new());
        }
        Ok(evaluate(&self.model, &self.rollouts, self.held_out, 0)?.metrics())
    }

    fn save(&mut self) -> Result<Value, TrainError> {
        // Pictures that tools made live in memory; those that are needed later must outlive a kill.
        for hash in self.made_pictures() {
            let bytes = self.rollouts.pictures().get(hash).map_err(|e| TrainError::Data(e.to_string()))?;
            self.made.put(&bytes)?;
        }
        serde_json::to_value(&self.progress)
            .map_err(|e| TrainError::Data(format!("the state of the run is no JSON: {e}")))
    }

    fn restore(&mut self, state: &Value) -> Result<(), TrainError> {
        self.progress = Progress::deserialize(state)
            .map_err(|e| TrainError::Data(format!("the saved state of the run cannot be read: {e}")))?;
        for hash in self.made_pictures() {
            let bytes = self.made.get(hash, MAX_IMAGE)?;
            self.rollouts.pictures().put(bytes.into()).map_err(|e| TrainError::Data(e.to_string()))?;
        }
        self.model.forget_features();
        Ok(())
    }

    fn export(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(self.model.save(dir, SaveDtype::F32)?)
    }
}
