//! A scalar reward model over text and pictures, trained on pairs (Skywork-VL Reward, arXiv 2505.07263): the base with a
//! linear head on the state of the last response token, Bradley-Terry loss, in stages (first pairs with pictures, then text
//! pairs as well, at a lower rate).
//!
//! Deviations:
//! 1. The two answers of a pair stand behind one copy of their prompt and picture.
//! 2. Ties are dropped, as in the paper, or kept with probability 1/2 (`loss.keep_ties`); dropped ones are counted.
//! 3. A stage is a number of steps with a factor on the learning rate, in one run with one optimizer state.

use std::path::Path;

use ocelli_data::{ContentHash, Message};
use ocelli_model::vlm::{Pictures, Vlm};
use ocelli_model::{ChatOptions, SaveDtype};
use ocelli_tensor::{Grads, Params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;
use crate::examples::from_dialogue_with;
use crate::identity::{Identity, Place};
use crate::losses::{BradleyTerry, PairScore, RankingReport, ranking_loss, ranking_report};
use crate::metric_names::MetricNames;
use crate::mpo::whole_pairs;
use crate::observe::Observer;
use crate::optim::{OptimizerConfig, Precision, prepare};
use crate::pairs::Pair;
use crate::ranges;
use crate::responses::{Pack, Response, learn_values, micro_batches, score_values};
use crate::run::{self, Metrics, Outcome, RunConfig, Stage, StepReport};
use crate::sft::walk;

/// One stage of fine-tuning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardStage {
    /// Optimizer steps.
    pub steps: u64,
    /// Factor on the learning rates.
    #[serde(default = "one")]
    pub rate: f64,
    /// Only pairs with a picture.
    #[serde(default)]
    pub pictures_only: bool,
}

fn one() -> f64 {
    1.0
}

/// Settings of a reward-model run. `run.steps` is the sum of the stages' steps, where there are stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Steps, checkpoints, evaluation.
    pub run: RunConfig,
    /// What is trained and how fast.
    pub optimizer: OptimizerConfig,
    /// The loss.
    pub loss: BradleyTerry,
    /// Stages in order; none means one stage over all pairs.
    pub stages: Vec<RewardStage>,
    /// Pairs per optimizer step.
    pub batch: usize,
    /// Most rows of one forward pass.
    pub rows: usize,
    /// Type of activations and products.
    pub precision: Precision,
    /// Keep only the input of each block and compute the rest again in the backward pass.
    pub recompute: bool,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            run: RunConfig::default(),
            optimizer: OptimizerConfig::default(),
            loss: BradleyTerry::default(),
            stages: Vec::new(),
            batch: 16,
            rows: 4096,
            precision: Precision::F32,
            recompute: false,
        }
    }
}

struct RewardRun<'a> {
    config: &'a RewardConfig,
    stages: Vec<RewardStage>,
    model: Vlm,
    all: Vec<&'a Pair>,
    with_picture: Vec<&'a Pair>,
    held_out: &'a [Pair],
}

/// Trains `model` on pairs in the run directory `dir` and returns it; a value head is added where there is none.
pub fn run<'a>(
    config: &RewardConfig,
    model: Vlm,
    train: &[Pair],
    held_out: &[Pair],
    place: impl Into<Place<'a>>,
    observer: &mut dyn Observer,
) -> Result<(Vlm, Outcome), TrainError> {
    let (config, model, identity) = ready(config, model, train, held_out)?;
    let at = identity.open(place, observer)?;
    let all = config.kept(train);
    let ties = train.len() - all.len();
    let with_picture: Vec<&Pair> = all.iter().copied().filter(|p| p.has_picture()).collect();
    if ties > 0 {
        observer.note(&format!("{ties} ties of {} pairs are left out", train.len()));
    }
    let stages = config.stages.clone();
    let mut stage = RewardRun { config: &config, stages, model, all, with_picture, held_out };
    let outcome = run::run(&mut stage, &at, &config.run, &config.optimizer, observer)?;
    Ok((stage.model, outcome))
}

/// Everything that [`run`] checks before its first step; nothing is written.
pub fn check<'a>(
    config: &RewardConfig,
    model: Vlm,
    train: &[Pair],
    held_out: &[Pair],
    place: impl Into<Place<'a>>,
) -> Result<(), TrainError> {
    let (config, mut model, identity) = ready(config, model, train, held_out)?;
    run::rehearse(&mut model.params, &identity, place.into(), &config.optimizer)
}

/// The configuration with its stages filled in, the model as it is trained, and what they are.
fn ready(
    config: &RewardConfig,
    mut model: Vlm,
    train: &[Pair],
    held_out: &[Pair],
) -> Result<(RewardConfig, Vlm, Identity), TrainError> {
    config.validate(train, held_out)?;
    let mut config = config.clone();
    if config.stages.is_empty() {
        config.stages = vec![RewardStage { steps: config.run.steps, rate: 1.0, pictures_only: false }];
    }
    config.run.steps = config.stages.iter().map(|s| s.steps).sum();
    let identity = Identity::new(&config)?.model("the base model", &model)?;
    let identity = identity.pairs("training pairs", train).pairs("held-out pairs", held_out);
    if !model.has_value_head() {
        model.add_value_head(config.run.seed)?;
    }
    prepare(&mut model, &config.optimizer, config.precision, config.run.seed)?;
    Ok((config, model, identity))
}

impl RewardConfig {
    /// Pairs that are trained on.
    fn kept<'a>(&self, train: &'a [Pair]) -> Vec<&'a Pair> {
        train.iter().filter(|p| self.loss.keep_ties || !p.tie).collect()
    }

    /// Checks settings and data before any training.
    pub fn validate(&self, train: &[Pair], held_out: &[Pair]) -> Result<(), TrainError> {
        let all = self.kept(train);
        if all.is_empty() {
            let ties = train.len();
            return Err(TrainError::Data(format!("there is no pair to train on ({ties} ties are left out)")));
        }
        self.validate_settings()?;
        let steps =
            if self.stages.is_empty() { self.run.steps } else { self.stages.iter().map(|s| s.steps).sum() };
        RunConfig { steps, ..self.run.clone() }.validate(&Self::metrics(held_out.len()))?;
        let pictured = all.iter().any(|p| p.has_picture());
        if let Some(i) = self.stages.iter().position(|s| s.pictures_only && !pictured) {
            return Err(TrainError::Data(format!("stage {i} wants pairs with pictures, but there are none")));
        }
        Ok(())
    }

    /// Checks what can be checked without data and model.
    pub fn validate_settings(&self) -> Result<(), TrainError> {
        ranges::whole("run.steps", self.run.steps, 1, ranges::MAX_STEPS)?;
        ranges::batch("batch", self.batch, self.rows)?;
        ranges::whole("the number of stages", self.stages.len() as u64, 0, 1000)?;
        for (i, stage) in self.stages.iter().enumerate() {
            ranges::whole(&format!("stages[{i}].steps"), stage.steps, 1, ranges::MAX_STEPS / 1000)?;
            ranges::positive(&format!("stages[{i}].rate"), stage.rate, 1e3)?;
        }
        ranges::within("loss.centring", self.loss.centring, 0.0, ranges::MAX_WEIGHT)?;
        self.optimizer.validate()
    }

    /// The metrics of a run.
    fn metrics(held_out: usize) -> MetricNames {
        const EVALUATED: [&str; 6] = [
            "eval/accuracy",
            "eval/margin",
            "eval/mean_score",
            "eval/ece",
            "eval/accuracy_chosen_longer",
            "eval/accuracy_chosen_shorter",
        ];
        MetricNames::new("reward", &["accuracy", "margin", "mean_score"]).evaluated(held_out, &EVALUATED)
    }
}

impl RewardRun<'_> {
    /// Stage of a step, and the step's number inside it.
    fn stage_at(&self, step: u64) -> (RewardStage, u64) {
        let mut before = 0;
        for stage in &self.stages {
            if step < before + stage.steps {
                return (*stage, step - before);
            }
            before += stage.steps;
        }
        (RewardStage { steps: 1, rate: 1.0, pictures_only: false }, 0)
    }
}

/// Scores of the two answers of every pair, with the lengths of the answers in tokens.
pub fn score_pairs(
    model: &Vlm,
    pairs: &[Pair],
    rows: usize,
) -> Result<Vec<(PairScore, (usize, usize))>, TrainError> {
    let packs: Vec<Pack<'_>> = pairs.iter().map(|p| vec![&p.chosen, &p.rejected]).collect();
    let mut flat = Vec::with_capacity(pairs.len() * 2);
    for micro in micro_batches(&packs, rows) {
        flat.extend(score_values(model, &micro)?);
    }
    let scored = pairs.iter().zip(flat.chunks_exact(2)).map(|(p, s)| {
        let score = PairScore { chosen: s[0], rejected: s[1], margin: p.margin, tie: p.tie };
        (score, (p.chosen.trained.len(), p.rejected.trained.len()))
    });
    Ok(scored.collect())
}

/// A report over pairs as metrics.
pub fn report_metrics(report: &RankingReport) -> Metrics {
    let mut found = vec![
        ("eval/accuracy".to_owned(), report.accuracy),
        ("eval/margin".to_owned(), report.margin),
        ("eval/mean_score".to_owned(), report.mean_score),
        ("eval/ece".to_owned(), report.ece),
    ];
    let by_length = [
        ("eval/accuracy_chosen_longer", report.accuracy_chosen_longer),
        ("eval/accuracy_chosen_shorter", report.accuracy_chosen_shorter),
    ];
    found.extend(by_length.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))));
    found
}

impl Stage for RewardRun<'_> {
    fn name(&self) -> &'static str {
        "reward"
    }

    fn params(&mut self) -> &mut Params {
        &mut self.model.params
    }

    fn rate(&self, step: u64) -> f64 {
        self.stage_at(step).0.rate
    }

    fn gradients(&mut self, step: u64, grads: &mut Grads) -> Result<StepReport, TrainError> {
        let config = self.config;
        let (stage, inside) = self.stage_at(step);
        let pool = if stage.pictures_only { &self.with_picture } else { &self.all };
        let chosen = walk(config.run.seed, pool.len(), inside * config.batch as u64, config.batch);
        let (mut loss, mut scored, mut rows) = (0.0, Vec::with_capacity(config.batch), 0);
        for part in whole_pairs(&chosen, |i| pool[i], config.rows) {
            let packs: Vec<Pack<'_>> =
                part.iter().map(|&i| vec![&pool[i].chosen, &pool[i].rejected]).collect();
            rows += learn_values(&self.model, &packs, config.recompute, grads, |values| {
                let mut out = Vec::with_capacity(values.len());
                for (&i, s) in part.iter().zip(values.chunks_exact(2)) {
                    let pair = pool[i];
                    let x = PairScore { chosen: s[0], rejected: s[1], margin: pair.margin, tie: pair.tie };
                    let (l, c, r) = ranking_loss(&config.loss, &x, config.batch)
                        .map_err(|source| TrainError::Loss { step, source })?;
                    loss += l;
                    out.extend([c, r]);
                    scored.push((x, (pair.chosen.trained.len(), pair.rejected.trained.len())));
                }
                Ok(out)
            })?;
        }
        let report = ranking_report(&scored);
        let metrics = vec![
            ("loss".into(), loss),
            ("accuracy".into(), report.accuracy),
            ("margin".into(), report.margin),
            ("mean_score".into(), report.mean_score),
        ];
        Ok(StepReport { metrics, tokens: rows })
    }

    fn evaluate(&mut self) -> Result<Metrics, TrainError> {
        if self.held_out.is_empty() {
            return Ok(Vec::new());
        }
        Ok(report_metrics(&ranking_report(&score_pairs(&self.model, self.held_out, self.config.rows)?)))
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

/// Scores of finished dialogues, for GRPO, best-of-N and pair building: the reward model writes each dialogue with its own
/// tokenizer, `listed` tools before it, and reads its head behind the last answer.
pub fn score_dialogues(
    model: &Vlm,
    dialogues: &[Vec<Message>],
    listed: &[Value],
    pictures: &dyn Pictures,
    rows: usize,
) -> Result<Vec<f64>, TrainError> {
    let mut responses: Vec<Response> = Vec::with_capacity(dialogues.len());
    let options = ChatOptions { tools: listed.to_vec(), ..ChatOptions::prompt() };
    for (i, messages) in dialogues.iter().enumerate() {
        responses.push(from_dialogue_with(model, &format!("dialogue {i}"), messages, &options, pictures)?);
    }
    // Neighbours with the same prompt (a group of answers) share it.
    let key = |r: &Response| {
        let images: Vec<ContentHash> = r.context.images().iter().map(|i| i.hash).collect();
        (r.context.ids()[..r.prompt].to_vec(), images)
    };
    let mut packs: Vec<Pack<'_>> = Vec::new();
    for response in &responses {
        match packs.last_mut() {
            Some(pack) if pack.first().is_some_and(|f| key(f) == key(response)) => pack.push(response),
            _ => packs.push(vec![response]),
        }
    }
    let mut scores = Vec::with_capacity(dialogues.len());
    for micro in micro_batches(&packs, rows) {
        scores.extend(score_values(model, &micro)?);
    }
    Ok(scores)
}
