//! Supervised fine-tuning on what the assistant says.
//!
//! Deviations from common recipes:
//! 1. The mask comes from provenance (who wrote a token), not from searching for marks in the text.
//! 2. The loss is normalised over the optimizer batch, per token or per response; cutting the batch into micro-batches does
//!    not change it.
//! 3. Sequences are packed without padding and do not see one another.
//! 4. The order of the data is a function of seed and epoch, so a resumed run needs no sampler state.

use std::path::Path;

use ocelli_model::SaveDtype;
use ocelli_model::vlm::Vlm;
use ocelli_tensor::{Grads, Params};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;
use crate::identity::{Identity, Place};
use crate::losses::{Normaliser, Reduction, cross_entropy};
use crate::metric_names::MetricNames;
use crate::observe::Observer;
use crate::optim::{OptimizerConfig, Precision, prepare};
use crate::ranges;
use crate::responses::{Pack, Pass, Response, TokenGrads, learn, micro_batches, score};
use crate::run::{self, Metrics, Outcome, RunConfig, Stage, StepReport};

/// Settings of a supervised run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Steps, checkpoints, evaluation.
    pub run: RunConfig,
    /// What is trained and how fast.
    pub optimizer: OptimizerConfig,
    /// Examples per optimizer step.
    pub batch: usize,
    /// Most rows of one forward pass.
    pub rows: usize,
    /// How token losses are added up.
    pub reduction: Reduction,
    /// Type of activations and products.
    pub precision: Precision,
    /// Keep only the input of each block and compute the rest again in the backward pass.
    pub recompute: bool,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            run: RunConfig::default(),
            optimizer: OptimizerConfig::default(),
            batch: 16,
            rows: 4096,
            reduction: Reduction::TokenMean,
            precision: Precision::F32,
            recompute: false,
        }
    }
}

/// Example `k` of an endless shuffled walk over `n` examples: epoch `k / n` is a permutation drawn from seed and epoch.
pub(crate) fn walk(seed: u64, n: usize, from: u64, count: usize) -> Vec<usize> {
    let n = n.max(1) as u64;
    let mut out = Vec::with_capacity(count);
    let mut epoch = u64::MAX;
    let mut order: Vec<usize> = Vec::new();
    for k in from..from + count as u64 {
        if k / n != epoch {
            epoch = k / n;
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch);
            order = (0..n as usize).collect();
            for i in (1..order.len()).rev() {
                // 64 random bits modulo a small number: the bias is below 2^-40.
                order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
            }
        }
        out.push(order[(k % n) as usize]);
    }
    out
}

struct Sft<'a> {
    config: &'a SftConfig,
    model: Vlm,
    train: &'a [Response],
    held_out: &'a [Response],
    notes: Vec<String>,
}

/// Trains `model` on `train` in the run directory `dir`, and returns it. The loss per token on `held_out` is `eval/loss`, its
/// exponential `eval/perplexity`.
pub fn run<'a>(
    config: &SftConfig,
    model: Vlm,
    train: &[Response],
    held_out: &[Response],
    place: impl Into<Place<'a>>,
    observer: &mut dyn Observer,
) -> Result<(Vlm, Outcome), TrainError> {
    let (model, identity) = ready(config, model, train, held_out)?;
    let at = identity.open(place, observer)?;
    let mut stage = Sft { config, model, train, held_out, notes: Vec::new() };
    let outcome = run::run(&mut stage, &at, &config.run, &config.optimizer, observer)?;
    Ok((stage.model, outcome))
}

/// Everything that [`run`] checks before its first step; nothing is written.
pub fn check<'a>(
    config: &SftConfig,
    model: Vlm,
    train: &[Response],
    held_out: &[Response],
    place: impl Into<Place<'a>>,
) -> Result<(), TrainError> {
    let (mut model, identity) = ready(config, model, train, held_out)?;
    run::rehearse(&mut model.params, &identity, place.into(), &config.optimizer)
}

fn ready(
    config: &SftConfig,
    mut model: Vlm,
    train: &[Response],
    held_out: &[Response],
) -> Result<(Vlm, Identity), TrainError> {
    config.validate(train, held_out)?;
    let identity = Identity::new(config)?.model("the base model", &model)?;
    let identity = identity.responses("training examples", train).responses("held-out examples", held_out);
    prepare(&mut model, &config.optimizer, config.precision, config.run.seed)?;
    Ok((model, identity))
}

impl SftConfig {
    /// Checks what can be checked without data and model.
    pub fn validate_settings(&self) -> Result<(), TrainError> {
        ranges::whole("run.steps", self.run.steps, 1, ranges::MAX_STEPS)?;
        ranges::batch("batch", self.batch, self.rows)?;
        ranges::reduction("reduction", self.reduction)?;
        self.optimizer.validate()
    }

    /// The metrics of a run.
    fn metrics(held_out: usize) -> MetricNames {
        MetricNames::new("sft", &["token_loss"]).evaluated(held_out, &["eval/loss", "eval/perplexity"])
    }

    /// Checks settings and data before any training.
    pub fn validate(&self, train: &[Response], held_out: &[Response]) -> Result<(), TrainError> {
        if train.is_empty() {
            return Err(TrainError::Data("there is no example to train on".into()));
        }
        self.run.validate(&Self::metrics(held_out.len()))?;
        self.validate_settings()?;
        for (i, example) in train.iter().enumerate() {
            example.validate(&format!("example {i}"))?;
        }
        for (i, example) in held_out.iter().enumerate() {
            example.validate(&format!("held-out example {i}"))?;
        }
        Ok(())
    }
}

impl Stage for Sft<'_> {
    fn name(&self) -> &'static str {
        "sft"
    }

    fn params(&mut self) -> &mut Params {
        &mut self.model.params
    }

    fn gradients(&mut self, step: u64, grads: &mut Grads) -> Result<StepReport, TrainError> {
        let config = self.config;
        let failed = |source| TrainError::Loss { step, source };
        let chosen = walk(config.run.seed, self.train.len(), step * config.batch as u64, config.batch);
        let packs: Vec<Pack<'_>> = chosen.iter().map(|&i| vec![&self.train[i]]).collect();
        let lengths = chosen.iter().map(|&i| self.train[i].trained.len());
        let normaliser = Normaliser::new(config.reduction, lengths).map_err(failed)?;
        let pass = Pass { temperature: 1.0, recompute: config.recompute };
        let (mut loss, mut logp, mut trained, mut rows) = (0.0, 0.0, 0usize, 0);
        for micro in micro_batches(&packs, config.rows) {
            rows += learn(&self.model, &micro, pass, grads, |stats| {
                let mut out = Vec::with_capacity(stats.len());
                for s in stats {
                    let (l, d_logp) = cross_entropy(&s.logp, &normaliser).map_err(failed)?;
                    loss += l;
                    logp += s.logp.iter().sum::<f64>();
                    trained += s.logp.len();
                    out.push(TokenGrads { d_logp, d_entropy: Vec::new() });
                }
                Ok(out)
            })?;
        }
        let metrics = vec![("loss".into(), loss), ("token_loss".into(), -logp / trained.max(1) as f64)];
        Ok(StepReport { metrics, tokens: rows })
    }

    fn evaluate(&mut self) -> Result<Metrics, TrainError> {
        if self.held_out.is_empty() {
            return Ok(Vec::new());
        }
        let packs: Vec<Pack<'_>> = self.held_out.iter().map(|r| vec![r]).collect();
        let (mut sum, mut n) = (0.0, 0usize);
        for micro in micro_batches(&packs, self.config.rows) {
            for stats in score(&self.model, &micro, Pass::default())? {
                sum -= stats.logp.iter().sum::<f64>();
                n += stats.logp.len();
            }
        }
        let loss = sum / n.max(1) as f64;
        let mut found = vec![("eval/loss".to_owned(), loss)];
        match loss.exp() {
            perplexity if perplexity.is_finite() => found.push(("eval/perplexity".into(), perplexity)),
            // The loss says the same, and is a number.
            _ => self
                .notes
                .push(format!("eval/perplexity is left out: exp({loss:.1}) is beyond the largest number")),
        }
        Ok(found)
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn save(&mut self) -> Result<Value, TrainError> {
        Ok(Value::Null)
    }

    fn restore(&mut self, _: &Value) -> Result<(), TrainError> {
        self.model.forget_features();
        Ok(())
    }

    fn export(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(self.model.save(dir, SaveDtype::F32)?)
    }
}
