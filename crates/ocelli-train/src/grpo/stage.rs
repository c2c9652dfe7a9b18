//! The step of GRPO.

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

use super::batch::{Item, Scored, Stored, cut_off, responses};
use super::denominators;
use super::partial::{self, Carried, Partial};
use super::table::SampleTable;
use super::{Count, GrpoConfig, evaluate};
use crate::advantages::group_advantages;
use crate::buffer::{FillReport, SampleBuffer};
use crate::error::TrainError;
use crate::hybrid_reward::{Judge, Rewarded};
use crate::losses::{Correction, Divisors, LossError, Normaliser, PolicyMetrics, Rollout, mismatch_stats};
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
    /// Pictures that tools made and the buffer keeps.
    made: BlobStore,
}

/// Phrases by which an answer admits that it does not see (R1V3, arXiv 2507.06167).
const BLIND: [&str; 4] =
    ["can't see the image", "cannot see the image", "no image is provided", "without the image"];

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
        Ok(Self { config, model, reference, rollouts, train, held_out, judge, progress, samples, made })
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

    fn scored(&self, step: u64, sample: &Sample, group: Vec<Ended>) -> Result<Scored, TrainError> {
        let mut trajectories: Vec<Trajectory> = group.into_iter().map(|e| e.trajectory).collect();
        let rewards = self.judge.group(sample, &mut trajectories, self.rollouts.pictures().as_ref())?;
        let failed = |source| TrainError::Loss { step, source };
        let judged: Vec<usize> =
            (0..trajectories.len()).filter(|&i| Scored::is_trained(&trajectories[i])).collect();
        let values: Vec<f64> = judged.iter().map(|&i| rewards[i].total).collect();
        let (found, stats) = group_advantages(self.config.advantage, &values).map_err(failed)?;
        let mut advantages = vec![0.0; trajectories.len()];
        for (i, a) in judged.into_iter().zip(found) {
            advantages[i] = if self.is_masked(&trajectories[i]) { 0.0 } else { a };
        }
        Ok(Scored { prompt: sample.id.clone(), trajectories, rewards, advantages, stats })
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

    /// What goes through the model: fresh responses that carry a gradient (or all, where a term needs them), then
    /// replayed ones; grouped behind their prompts.
    fn items(
        &mut self,
        step: u64,
        groups: &[Scored],
    ) -> Result<(Vec<Vec<Item>>, Option<FillReport>), TrainError> {
        let pictures = self.rollouts.pictures().clone();
        let all = self.config.loss.kl.is_some() || self.config.loss.entropy_bonus != 0.0;
        let mut items = Vec::new();
        let mut fresh = 0;
        for group in groups {
            let taken: Vec<usize> = (0..group.trajectories.len())
                .filter(|&i| {
                    let t = &group.trajectories[i];
                    Scored::is_trained(t) && !self.is_masked(t) && (all || group.advantages[i] != 0.0)
                })
                .collect();
            fresh += group.advantages.iter().filter(|a| **a != 0.0).count();
            let trajectories: Vec<&Trajectory> = taken.iter().map(|&i| &group.trajectories[i]).collect();
            let made = responses(&self.model, &trajectories, pictures.as_ref())?;
            let group_items: Vec<Item> = made
                .into_iter()
                .zip(&taken)
                .map(|(response, &i)| Item {
                    response,
                    advantage: group.advantages[i],
                    sampled: group.trajectories[i].logprobs.iter().map(|l| f64::from(*l)).collect(),
                    stale: group.trajectories[i].weight_versions.iter().map(|v| *v != step).collect(),
                    weight: 1.0,
                    fresh: true,
                })
                .collect();
            if !group_items.is_empty() {
                items.push(group_items);
            }
        }
        let Some(config) = self.config.buffer else { return Ok((items, None)) };
        self.progress.buffer.expire(&config, step);
        let batch = self.config.prompts * self.config.group as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.run.seed);
        rng.set_stream(step + 1);
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
                response,
                advantage: *advantage,
                sampled: t.logprobs.iter().map(|l| f64::from(*l)).collect(),
                stale: Vec::new(),
                weight: *weight,
                fresh: false,
            });
            items.push(replayed.collect());
        }
        // Fresh responses enter after the draw, so that none is in the batch twice.
        for group in groups {
            let members: Vec<(Stored, f64, f64)> = (0..group.trajectories.len())
                .filter(|&i| Scored::is_trained(&group.trajectories[i]))
                .map(|i| (Stored::new(&group.trajectories[i]), group.rewards[i].total, group.advantages[i]))
                .collect();
            self.progress.buffer.insert(&config, &group.prompt, members, &group.stats, step);
        }
        Ok((items, Some(report)))
    }
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
        let advantages = vec![item.advantage; n];
        let rollout = Rollout {
            logp: &stats.logp,
            old: &old,
            reference: reference.map(|r| r.logp.as_slice()),
            entropy: Some(&stats.entropy),
            advantages: &advantages,
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
        let fresh = || {
            let all = groups.iter().flat_map(|g| g.trajectories.iter().zip(&g.advantages));
            all.filter(|(t, _)| !self.is_masked(t)).map(|(t, a)| (t.sampled_len(), *a))
        };
        let informative = Divisors::of(fresh().filter(|(_, a)| *a != 0.0).map(|(n, _)| n));
        let idle = Divisors::of(fresh().filter(|(_, a)| *a == 0.0).map(|(n, _)| n));
        let counts = |i: &&&Item| !i.fresh && (self.config.count == Count::All || i.advantage != 0.0);
        let replayed = Divisors::of(items.iter().filter(counts).map(|i| i.response.trained.len()));
        let run = Divisors::of(items.iter().map(|i| i.response.trained.len()));
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
            let reference = match &self.reference {
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

    fn measure(
        &self,
        step: u64,
        groups: &[Scored],
        rounds: usize,
        sums: &Sums,
        fill: Option<FillReport>,
    ) -> Result<Metrics, TrainError> {
        let mut m: Metrics = vec![("loss".into(), sums.loss)];
        let flat: Vec<(&Trajectory, &Rewarded)> =
            groups.iter().flat_map(|g| g.trajectories.iter().zip(&g.rewards)).collect();
        let n = flat.len().max(1) as f64;
        let mean =
            |f: &dyn Fn(&Trajectory, &Rewarded) -> f64| flat.iter().map(|(t, r)| f(t, r)).sum::<f64>() / n;
        let share = |f: &dyn Fn(&Trajectory) -> bool| mean(&|t, _| f64::from(u8::from(f(t))));
        m.push(("reward".into(), mean(&|_, r| r.total)));
        m.push(("accuracy".into(), mean(&|_, r| r.accuracy)));
        let names: BTreeSet<&String> = flat.iter().flat_map(|(_, r)| r.parts.keys()).collect();
        for name in names {
            m.push((format!("reward/{name}"), mean(&|_, r| r.parts.get(name).copied().unwrap_or(0.0))));
        }
        let informative = groups.iter().filter(|g| g.stats.informative).count() as f64;
        m.push(("groups/informative".into(), informative / groups.len().max(1) as f64));
        m.push(("groups/rounds".into(), rounds as f64));
        if let Some(kept) = self.progress.kept.as_ref().filter(|_| step == 0) {
            m.push(("prompts/kept".into(), kept.len() as f64 / self.train.len().max(1) as f64));
        }
        if self.config.partial.is_some() {
            let ages = flat.iter().flat_map(|(t, _)| t.weight_versions.iter().map(|v| (step - v) as f64));
            let (count, sum, most) =
                ages.fold((0.0, 0.0, 0.0f64), |(n, s, m), age| (n + 1.0, s + age, m.max(age)));
            m.push(("rollout/staleness".into(), sum / f64::max(count, 1.0)));
            m.push(("rollout/staleness_max".into(), most));
            m.push(("rollout/carried".into(), self.progress.carried.len() as f64));
        }
        m.push(("response/length".into(), mean(&|t, _| t.sampled_len() as f64)));
        m.push(("response/truncated".into(), share(&|t| cut_off(t.status))));
        m.push(("response/failed".into(), share(&|t| !t.status.is_policy_end())));
        let blind = |t: &Trajectory| {
            let text = t.final_text().to_lowercase();
            BLIND.iter().any(|b| text.contains(b))
        };
        m.push(("response/hallucination".into(), share(&blind)));
        if self.rollouts.has_tools() {
            m.push(("tools/rate".into(), share(&|t| !t.tools.is_empty())));
            m.push(("tools/calls".into(), mean(&|t, _| t.tools.len() as f64)));
            let calls: f64 = flat.iter().map(|(t, _)| t.tools.len() as f64).sum();
            let errors: f64 =
                flat.iter().map(|(t, _)| t.tools.iter().filter(|u| u.result.is_error).count() as f64).sum();
            m.push(("tools/error_rate".into(), errors / calls.max(1.0)));
        }
        let p = &sums.policy;
        if p.tokens > 0.0 {
            m.push(("policy/entropy".into(), p.entropy / p.tokens));
            m.push(("policy/clip_fraction".into(), (p.clipped_low + p.clipped_high) / p.tokens));
            if self.reference.is_some() {
                m.push(("policy/kl".into(), p.reference_kl / p.tokens));
            }
            let failed = |source| TrainError::Loss { step, source };
            let mismatch = mismatch_stats(&sums.trainer, &sums.sampler).map_err(failed)?;
            m.push(("mismatch/k3".into(), mismatch.k3));
            m.push(("mismatch/max".into(), mismatch.max_abs));
            m.push(("mismatch/ess".into(), mismatch.ess));
        }
        if let Some(f) = fill {
            m.push(("buffer/fill".into(), f.fill));
            m.push(("buffer/fresh_share".into(), f.fresh_share));
            m.push(("buffer/size".into(), self.progress.buffer.len() as f64));
            if f.replayed > 0 {
                m.push(("buffer/replayed".into(), f.replayed as f64));
                m.push(("buffer/age_p50".into(), f.age_p50));
                m.push(("buffer/age_p95".into(), f.age_p95));
                m.push(("buffer/ess".into(), f.ess));
                m.push(("buffer/drifted".into(), sums.drifted as f64));
                let r = &sums.replay;
                m.push(("buffer/clip_fraction".into(), (r.clipped_low + r.clipped_high) / r.tokens.max(1.0)));
            }
        }
        let every = self.config.dependence_every;
        if every > 0 && step.is_multiple_of(every) {
            m.extend(self.dependence(groups)?.map(|gain| ("image/dependence".to_owned(), gain)));
        }
        Ok(m)
    }

    /// How much the picture adds to the log-probability of the sampled tokens of the first turn: mean over up to four
    /// responses.
    fn dependence(&self, groups: &[Scored]) -> Result<Option<f64>, TrainError> {
        let pictures = self.rollouts.pictures().clone();
        let (mut sum, mut n) = (0.0, 0.0);
        for t in groups.iter().filter_map(|g| g.trajectories.iter().find(|t| Scored::is_trained(t))).take(4) {
            let context = self.model.context_of(t, pictures.as_ref())?;
            if context.images().is_empty() {
                continue;
            }
            let start = t.prompt_len();
            let turn = t.spans.iter().find(|s| s.kind == ocelli_data::SpanKind::Sampled).map_or(0, |s| s.len);
            if turn > 0 {
                sum += self.model.image_sensitivity(&context, start..start + turn)?.gain();
                n += 1.0;
            }
        }
        Ok((n > 0.0).then(|| sum / n))
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
        let (groups, rounds) = self.gather(step)?;
        let (items, fill) = self.items(step, &groups)?;
        let sums = self.update(step, &groups, &items, grads)?;
        let metrics = self.measure(step, &groups, rounds, &sums, fill)?;
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
