//! Mixed preference optimisation: preference (DPO), quality (BCO) and generation (likelihood of the chosen answer) in one
//! weighted loss over pairs (arXiv 2411.10442, used by Skywork R1V2, arXiv 2504.16656, section 2.2).
//!
//! Deviations:
//! 1. The two answers of a pair stand behind one copy of their prompt and picture.
//! 2. Log-probabilities of the reference are computed once, before the first step, since the reference never changes; this
//!    is the model as it comes in, so no second copy of frozen parameters is made.
//! 3. The shift of the quality term is the mean over earlier batches (see `losses::preference`).
//! 4. Reference and policy are both run without dropout (the models here have none).

use std::path::Path;

use ocelli_model::SaveDtype;
use ocelli_model::vlm::Vlm;
use ocelli_tensor::{Grads, Params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::TrainError;
use crate::identity::{Identity, Place};
use crate::losses::{PairTerms, PreferenceLoss, PreferenceOutput, ShiftState, preference_loss};
use crate::metric_names::MetricNames;
use crate::observe::Observer;
use crate::optim::{OptimizerConfig, Precision, prepare};
use crate::pairs::Pair;
use crate::ranges;
use crate::responses::{Pack, Pass, TokenGrads, TokenStats, learn, micro_batches, score};
use crate::run::{self, Metrics, Outcome, RunConfig, Stage, StepReport};
use crate::sft::walk;

/// Settings of a preference run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MpoConfig {
    /// Steps, checkpoints, evaluation.
    pub run: RunConfig,
    /// What is trained and how fast.
    pub optimizer: OptimizerConfig,
    /// Weights and kinds of the terms.
    pub loss: PreferenceLoss,
    /// Pairs per optimizer step.
    pub batch: usize,
    /// Most rows of one forward pass.
    pub rows: usize,
    /// Type of activations and products.
    pub precision: Precision,
    /// Keep only the input of each block and compute the rest again in the backward pass.
    pub recompute: bool,
}

impl Default for MpoConfig {
    fn default() -> Self {
        Self {
            run: RunConfig::default(),
            optimizer: OptimizerConfig::default(),
            loss: PreferenceLoss::default(),
            batch: 16,
            rows: 4096,
            precision: Precision::F32,
            recompute: false,
        }
    }
}

impl MpoConfig {
    /// Checks settings and data before any training.
    pub fn validate(&self, train: &[Pair], held_out: &[Pair]) -> Result<(), TrainError> {
        if train.is_empty() {
            return Err(TrainError::Data("there is no pair to train on".into()));
        }
        self.run.validate(&Self::metrics(held_out.len()))?;
        self.validate_settings()?;
        if let Some(i) = train.iter().chain(held_out).position(|p| p.tie) {
            return Err(TrainError::Data(format!(
                "pair {i} is a tie; drop ties before preference optimisation"
            )));
        }
        Ok(())
    }

    /// Checks what can be checked without data and model.
    pub fn validate_settings(&self) -> Result<(), TrainError> {
        ranges::whole("run.steps", self.run.steps, 1, ranges::MAX_STEPS)?;
        ranges::batch("batch", self.batch, self.rows)?;
        let loss = &self.loss;
        let numbers = [
            ("beta", loss.beta),
            ("preference", loss.preference),
            ("quality", loss.quality),
            ("generation", loss.generation),
        ];
        for (name, value) in numbers {
            ranges::within(&format!("loss.{name}"), value, 0.0, ranges::MAX_WEIGHT)?;
        }
        loss.validate().map_err(|e| TrainError::Config(format!("loss: {e}")))?;
        self.optimizer.validate()
    }

    /// The metrics of a run.
    fn metrics(held_out: usize) -> MetricNames {
        let terms =
            ["preference", "quality", "generation", "reward/accuracy", "reward/margin", "chosen_drift"];
        let of_eval: Vec<String> = terms.iter().map(|t| format!("eval/{t}")).collect();
        MetricNames::new("mpo", &terms).when(true, "", &["shift"]).evaluated(held_out, &["eval/loss"]).when(
            held_out > 0,
            "held-out data",
            &of_eval,
        )
    }
}

/// A pair and the reference's sums of log-probabilities, chosen and rejected.
struct Judged<'a> {
    pair: &'a Pair,
    reference: (f64, f64),
}

struct Mpo<'a> {
    config: &'a MpoConfig,
    model: Vlm,
    train: Vec<Judged<'a>>,
    held_out: Vec<Judged<'a>>,
    shift: ShiftState,
}

fn pack<'a>(pair: &'a Pair) -> Pack<'a> {
    vec![&pair.chosen, &pair.rejected]
}

fn sum(stats: &TokenStats) -> f64 {
    stats.logp.iter().sum()
}

/// Sums of log-probabilities of both answers of every pair.
fn sums(model: &Vlm, pairs: &[&Pair], rows: usize) -> Result<Vec<(f64, f64)>, TrainError> {
    let packs: Vec<Pack<'_>> = pairs.iter().map(|p| pack(p)).collect();
    let mut flat = Vec::with_capacity(pairs.len() * 2);
    for micro in micro_batches(&packs, rows) {
        flat.extend(score(model, &micro, Pass::default())?.iter().map(sum));
    }
    Ok(flat.chunks_exact(2).map(|c| (c[0], c[1])).collect())
}

/// Trains `model` on pairs in the run directory `dir`, with itself as it comes in as the reference, and returns it.
/// Ties have no order and are refused.
pub fn run<'a>(
    config: &MpoConfig,
    model: Vlm,
    train: &[Pair],
    held_out: &[Pair],
    place: impl Into<Place<'a>>,
    observer: &mut dyn Observer,
) -> Result<(Vlm, Outcome), TrainError> {
    let (model, identity) = ready(config, model, train, held_out)?;
    // Before the reference is computed: that takes time, and the directory may be another run's.
    let at = identity.open(place, observer)?;
    let judge = |pairs: &'_ [Pair]| -> Result<Vec<(f64, f64)>, TrainError> {
        sums(&model, &pairs.iter().collect::<Vec<_>>(), config.rows)
    };
    let (train_sums, held_sums) = (judge(train)?, judge(held_out)?);
    fn join(pairs: &[Pair], sums: Vec<(f64, f64)>) -> Vec<Judged<'_>> {
        pairs.iter().zip(sums).map(|(pair, reference)| Judged { pair, reference }).collect()
    }
    let (train, held_out) = (join(train, train_sums), join(held_out, held_sums));
    let mut stage = Mpo { config, model, train, held_out, shift: ShiftState::default() };
    let outcome = run::run(&mut stage, &at, &config.run, &config.optimizer, observer)?;
    Ok((stage.model, outcome))
}

/// Everything that [`run`] checks before its first step; nothing is written.
pub fn check<'a>(
    config: &MpoConfig,
    model: Vlm,
    train: &[Pair],
    held_out: &[Pair],
    place: impl Into<Place<'a>>,
) -> Result<(), TrainError> {
    let (mut model, identity) = ready(config, model, train, held_out)?;
    run::rehearse(&mut model.params, &identity, place.into(), &config.optimizer)
}

fn ready(
    config: &MpoConfig,
    mut model: Vlm,
    train: &[Pair],
    held_out: &[Pair],
) -> Result<(Vlm, Identity), TrainError> {
    config.validate(train, held_out)?;
    let identity = Identity::new(config)?.model("the base model", &model)?;
    let identity = identity.pairs("training pairs", train).pairs("held-out pairs", held_out);
    prepare(&mut model, &config.optimizer, config.precision, config.run.seed)?;
    Ok((model, identity))
}

impl Judged<'_> {
    fn terms(&self, chosen: f64, rejected: f64) -> PairTerms {
        PairTerms {
            chosen,
            chosen_reference: self.reference.0,
            chosen_len: self.pair.chosen.trained.len(),
            rejected,
            rejected_reference: self.reference.1,
            rejected_len: self.pair.rejected.trained.len(),
        }
    }
}

fn metrics(prefix: &str, outputs: &[(PreferenceOutput, f64)]) -> Metrics {
    let n = outputs.len().max(1) as f64;
    let mean = |f: &dyn Fn(&PreferenceOutput) -> f64| outputs.iter().map(|(o, _)| f(o)).sum::<f64>() / n;
    let name = |k: &str| format!("{prefix}{k}");
    vec![
        (name("preference"), mean(&|o| o.preference)),
        (name("quality"), mean(&|o| o.quality)),
        (name("generation"), mean(&|o| o.generation)),
        (name("reward/accuracy"), mean(&|o| f64::from(u8::from(o.reward_chosen > o.reward_rejected)))),
        (name("reward/margin"), mean(&|o| o.reward_chosen - o.reward_rejected)),
        // Falls below zero where the likelihood of the chosen answer drifts down (DPO alone).
        (name("chosen_drift"), outputs.iter().map(|(_, h)| h).sum::<f64>() / n),
    ]
}

impl Stage for Mpo<'_> {
    fn name(&self) -> &'static str {
        "mpo"
    }

    fn params(&mut self) -> &mut Params {
        &mut self.model.params
    }

    fn gradients(&mut self, step: u64, grads: &mut Grads) -> Result<StepReport, TrainError> {
        let config = self.config;
        let chosen = walk(config.run.seed, self.train.len(), step * config.batch as u64, config.batch);
        let pass = Pass { temperature: 1.0, recompute: config.recompute };
        let mut outputs = Vec::with_capacity(config.batch);
        let mut rows = 0;
        // A pair is never cut: the derivative by one answer needs the other. Pairs that fit go together.
        for part in whole_pairs(&chosen, |i| self.train[i].pair, config.rows) {
            let packs: Vec<Pack<'_>> = part.iter().map(|&i| pack(self.train[i].pair)).collect();
            let judged: Vec<&Judged<'_>> = part.iter().map(|&i| &self.train[i]).collect();
            let shift = self.shift.value;
            rows += learn(&self.model, &packs, pass, grads, |stats| {
                let mut out = Vec::with_capacity(stats.len());
                for (j, s) in judged.iter().zip(stats.chunks_exact(2)) {
                    let terms = j.terms(sum(&s[0]), sum(&s[1]));
                    let o = preference_loss(&config.loss, &terms, shift, config.batch)
                        .map_err(|source| TrainError::Loss { step, source })?;
                    let flat = |d: f64, n: usize| TokenGrads { d_logp: vec![d; n], d_entropy: Vec::new() };
                    out.push(flat(o.d_chosen, s[0].logp.len()));
                    out.push(flat(o.d_rejected, s[1].logp.len()));
                    outputs.push((o, terms.chosen - terms.chosen_reference));
                }
                Ok(out)
            })?;
        }
        let rewards = |f: fn(&PreferenceOutput) -> f64| outputs.iter().map(|(o, _)| f(o)).collect::<Vec<_>>();
        self.shift.update(config.loss.shift, &rewards(|o| o.reward_chosen), &rewards(|o| o.reward_rejected));
        let mut found = vec![("loss".to_owned(), outputs.iter().map(|(o, _)| o.loss).sum())];
        found.extend(metrics("", &outputs));
        found.push(("shift".into(), self.shift.value));
        Ok(StepReport { metrics: found, tokens: rows })
    }

    fn evaluate(&mut self) -> Result<Metrics, TrainError> {
        if self.held_out.is_empty() {
            return Ok(Vec::new());
        }
        let pairs: Vec<&Pair> = self.held_out.iter().map(|j| j.pair).collect();
        let sums = sums(&self.model, &pairs, self.config.rows)?;
        let mut outputs = Vec::new();
        for (j, (c, r)) in self.held_out.iter().zip(sums) {
            let o = preference_loss(&self.config.loss, &j.terms(c, r), self.shift.value, self.held_out.len())
                .map_err(|source| TrainError::Loss { step: 0, source })?;
            outputs.push((o, c - j.reference.0));
        }
        let mut found = vec![("eval/loss".to_owned(), outputs.iter().map(|(o, _)| o.loss).sum())];
        found.extend(metrics("eval/", &outputs));
        Ok(found)
    }

    fn save(&mut self) -> Result<Value, TrainError> {
        Ok(
            // As bits: a decimal form could lose the last one.
            json!({ "shift": self.shift.value.to_bits(), "seen": self.shift.seen }),
        )
    }

    fn restore(&mut self, state: &Value) -> Result<(), TrainError> {
        let number = |k: &str| {
            state
                .get(k)
                .and_then(Value::as_u64)
                .ok_or_else(|| TrainError::Data(format!("the saved state has no `{k}`")))
        };
        self.shift = ShiftState { value: f64::from_bits(number("shift")?), seen: number("seen")? };
        self.model.forget_features();
        Ok(())
    }

    fn export(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(self.model.save(dir, SaveDtype::F32)?)
    }
}

/// Cuts a list of pairs into parts of at most `rows` rows without cutting a pair.
pub(crate) fn whole_pairs<'a>(
    chosen: &[usize],
    pair: impl Fn(usize) -> &'a Pair,
    rows: usize,
) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut free = 0usize;
    for &i in chosen {
        let p = pair(i);
        let size = p.chosen.context.len() + p.rejected.context.len() - p.chosen.prompt;
        match parts.last_mut() {
            Some(part) if size <= free => part.push(i),
            _ => {
                parts.push(vec![i]);
                free = rows.max(size);
            }
        }
        free -= size;
    }
    parts
}
