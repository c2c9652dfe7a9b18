//! One run of one stage: steps, checkpoints, evaluation, records, early stop, and exact resumption.
//!
//! ```text
//! RUN/config.json              the resolved configuration
//! RUN/origin.json              what it is made of, see `identity`
//! RUN/metrics.jsonl            one record per metric and step, alarms among them
//! RUN/events.out.tfevents...   the same for TensorBoard
//! RUN/checkpoints/             see `checkpoint`
//! RUN/model/                   the trained model in the checkpoint layout of its family
//! RUN/outcome.json             how it ended
//! ```
//!
//! A run that was killed goes on from its last checkpoint: records of later steps are removed, and since every choice
//! is a function of the configuration, the step and the saved state, the numbers that follow are those of the
//! uninterrupted run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ocelli_data::io::{JsonlWriter, read_bounded, read_jsonl, write_atomic};
use ocelli_data::record::Record;
use ocelli_tensor::{AdamW, Grads, Params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint;
use crate::error::TrainError;
use crate::exact;
use crate::identity::{Identity, Opened, Place};
use crate::metric_names::MetricNames;
use crate::monitors::{Monitor, Monitors, Rule};
use crate::observe::{Go, Observer, Progress};
use crate::optim::{OptimizerConfig, all_frozen};
use crate::ranges;
use crate::tensorboard;

/// Stop when a metric no longer gets better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Evaluation metric, e.g. `eval/loss`.
    pub metric: String,
    /// True where larger is better.
    #[serde(default)]
    pub larger: bool,
    /// Evaluations without a new best after which the run ends; 0 only remembers the best.
    #[serde(default)]
    pub patience: u64,
}

/// What all stages share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Seed of everything that is random.
    pub seed: u64,
    /// Steps between checkpoints; 0 writes only the last one.
    pub checkpoint_every: u64,
    /// Checkpoints kept beside the best.
    pub keep: usize,
    /// Steps between evaluations; 0 evaluates only at the end.
    pub eval_every: u64,
    /// Best checkpoint and early stop.
    pub early_stop: Option<EarlyStop>,
    /// Monitors; none given means the defaults of the stage.
    pub monitors: Option<Vec<Monitor>>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            steps: 100,
            seed: 0,
            checkpoint_every: 50,
            keep: 2,
            eval_every: 0,
            early_stop: None,
            monitors: None,
        }
    }
}

impl RunConfig {
    /// Checks the settings against the metrics that the run will have.
    pub(crate) fn validate(&self, metrics: &MetricNames) -> Result<(), TrainError> {
        if self.steps == 0 {
            return Err(TrainError::Config("run.steps is 0; at least one step is needed".into()));
        }
        ranges::whole("run.steps", self.steps, 1, ranges::MAX_STEPS)?;
        if let Some(stop) = &self.early_stop {
            metrics.check("run.early_stop.metric", &stop.metric, "eval/")?;
            let between = format!("from 1 to run.steps ({}) where run.early_stop has a patience", self.steps);
            let watched = stop.patience == 0 || (1..=self.steps).contains(&self.eval_every);
            ranges::check("run.eval_every", self.eval_every, watched, &between)?;
        }
        for (i, monitor) in self.monitors.iter().flatten().enumerate() {
            metrics.check(&format!("run.monitors[{i}].metric"), &monitor.metric, "")?;
            ranges::whole(&format!("run.monitors[{i}].window"), monitor.window as u64, 1, 1 << 20)?;
            let (Rule::Above(x) | Rule::Below(x) | Rule::RisenBy(x) | Rule::FallenBy(x)) = monitor.rule;
            ranges::check(&format!("run.monitors[{i}].rule"), x, x.is_finite(), "a finite number")?;
        }
        Ok(())
    }

    /// True where so many evaluations without a new best end the run.
    fn gives_up(&self, since_best: u64) -> bool {
        self.early_stop.as_ref().is_some_and(|s| s.patience > 0 && since_best >= s.patience)
    }
}

/// Metrics of one step by name.
pub type Metrics = Vec<(String, f64)>;

/// What a stage's step gave.
#[derive(Clone, Debug, Default)]
pub struct StepReport {
    /// The loss, `loss`, and whatever else the stage measures.
    pub metrics: Metrics,
    /// Tokens that went through the trained forward pass.
    pub tokens: usize,
}

/// A stage: it owns a model and turns data into gradients.
pub trait Stage {
    /// `sft`, `reward`, `mpo` or `grpo`.
    fn name(&self) -> &'static str;

    /// The model's parameters.
    fn params(&mut self) -> &mut Params;

    /// Adds the gradients of step `step` to `grads`.
    fn gradients(&mut self, step: u64, grads: &mut Grads) -> Result<StepReport, TrainError>;

    /// Factor on the learning rates at a step, beside the schedule.
    fn rate(&self, _step: u64) -> f64 {
        1.0
    }

    /// Measures the model on held-out data; empty where there is none.
    fn evaluate(&mut self) -> Result<Metrics, TrainError>;

    /// Takes what should be said of the last step beside its metrics.
    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What must be restored beside parameters and optimizer.
    fn save(&mut self) -> Result<Value, TrainError>;

    /// Restores what [`Stage::save`] gave.
    fn restore(&mut self, state: &Value) -> Result<(), TrainError>;

    /// Writes the model for others to load.
    fn export(&self, dir: &Path) -> Result<(), TrainError>;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// True where the observer stopped it before its end; it can be resumed.
    pub interrupted: bool,
    /// True where it stopped early for want of improvement.
    pub stopped_early: bool,
    /// Last value of every metric, evaluation included.
    pub metrics: Vec<(String, f64)>,
    /// Step and value of the best evaluation, where one is watched.
    pub best: Option<(u64, f64)>,
    /// Alarms raised.
    pub alarms: usize,
    /// The trained model; absent where the run was interrupted.
    pub model: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progressed {
    step: u64,
    best: Option<Best>,
    since_best: u64,
    monitors: Monitors,
    stage: Value,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Best {
    step: u64,
    #[serde(with = "exact::one")]
    value: f64,
}

struct Run<'a> {
    dir: &'a Path,
    config: &'a RunConfig,
    monitors: Vec<Monitor>,
    log: JsonlWriter,
    last: Vec<(String, f64)>,
    alarms: usize,
    state: Progressed,
    /// Records of earlier steps are lost, so that files that are made of them are left as they are.
    lost: bool,
}

/// Largest `outcome.json` that is read, in bytes.
const MAX_JSON: u64 = 16 << 20;
/// Largest `metrics.jsonl` that is resumed, in bytes.
const MAX_METRICS: u64 = 4 << 30;
/// Name of the alarm that says that records are lost.
const LOST: &str = "records";

/// The checks of [`run`] that need no directory of its own: the model learns something, and where the directory holds a run
/// it is this one, in use by nobody, and its last checkpoint can be gone on from. Nothing is written; `params` may be changed.
pub(crate) fn rehearse(
    params: &mut Params,
    identity: &Identity,
    place: Place<'_>,
    optimizer: &OptimizerConfig,
) -> Result<(), TrainError> {
    learns(params, optimizer)?;
    identity.inspect(place)?;
    let checkpoints = place.dir.join("checkpoints");
    if let Some(&step) = checkpoint::list(&checkpoints)?.last() {
        checkpoint::load(&checkpoints, step, params, &mut optimizer.adam())?;
    }
    Ok(())
}

fn learns(params: &Params, optimizer: &OptimizerConfig) -> Result<(), TrainError> {
    optimizer.validate()?;
    if params.iter().any(|(_, p)| p.trainable()) { Ok(()) } else { Err(all_frozen()) }
}

/// Runs a stage to its end in the directory that was opened for it, or goes on with the run that is there.
pub fn run<S: Stage>(
    stage: &mut S,
    at: &Opened,
    config: &RunConfig,
    optimizer: &OptimizerConfig,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    learns(stage.params(), optimizer)?;
    let dir = at.dir();
    let checkpoints = dir.join("checkpoints");
    let mut adam = optimizer.adam();
    let mut state = Progressed::default();
    if let Some(&step) = checkpoint::list(&checkpoints)?.last() {
        let saved = checkpoint::load(&checkpoints, step, stage.params(), &mut adam)?;
        state = serde_json::from_value(saved).map_err(|e| TrainError::Checkpoint {
            path: checkpoints.clone(),
            what: format!("its state cannot be read: {e}"),
        })?;
        stage.restore(&state.stage)?;
        observer.note(&format!("resumed after step {step}"));
    }
    let metrics_path = dir.join("metrics.jsonl");
    let kept = cut_records(&metrics_path, state.step)?;
    let monitors = config.monitors.clone().unwrap_or_else(Monitor::defaults);
    let log = JsonlWriter::open(&metrics_path)?;
    let lost = kept.steps < state.step;
    let mut run = Run { dir, config, monitors, log, last: kept.last, alarms: kept.alarms, state, lost };
    if lost {
        run.tell_loss(stage.name(), kept.steps, kept.told, observer)?;
    }
    run.drive(stage, &mut adam, optimizer, observer)
}

/// What `metrics.jsonl` holds of the steps that are done.
#[derive(Default)]
struct Kept {
    /// Last value of each metric.
    last: Vec<(String, f64)>,
    alarms: usize,
    /// Steps that have metrics.
    steps: u64,
    /// An alarm says already that records are lost.
    told: bool,
}

/// Removes records of steps from `step` on: they will be written again. Lines that stay are kept byte for byte: a number that is
/// read and printed again may lose its last bit.
fn cut_records(path: &Path, step: u64) -> Result<Kept, TrainError> {
    let mut found = Kept::default();
    if !path.exists() {
        return Ok(found);
    }
    // Opening for appending first removes a line that the killed process left unfinished.
    JsonlWriter::open(path)?;
    let records: Vec<Record> = read_jsonl(path)?;
    let at = |r: &Record| match r {
        Record::Metric { step, .. } | Record::Alarm { step, .. } => *step,
    };
    let bytes = read_bounded(path, MAX_METRICS)?;
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    let kept: Vec<u8> = lines
        .zip(&records)
        .filter(|(_, r)| at(r) < step)
        .flat_map(|(line, _)| line.iter().copied())
        .collect();
    write_atomic(path, &kept)?;
    let mut steps = BTreeSet::new();
    for record in records.into_iter().filter(|r| at(r) < step) {
        match record {
            Record::Metric { name, value, step, .. } => {
                steps.insert(step);
                remember(&mut found.last, &name, value);
            }
            Record::Alarm { monitor, .. } => {
                found.alarms += 1;
                found.told |= monitor == LOST;
            }
        }
    }
    found.steps = steps.len() as u64;
    Ok(found)
}

fn remember(last: &mut Vec<(String, f64)>, name: &str, value: f64) {
    match last.iter_mut().find(|(n, _)| n == name) {
        Some((_, v)) => *v = value,
        None => last.push((name.to_owned(), value)),
    }
}

impl Run<'_> {
    fn drive<S: Stage>(
        &mut self,
        stage: &mut S,
        adam: &mut AdamW,
        optimizer: &OptimizerConfig,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let total = self.config.steps;
        // A run that had stopped when it was called again, or was killed before it could hand on its model, has still stopped.
        let mut stopped_early = self.config.gives_up(self.state.since_best);
        if self.state.step >= total || stopped_early {
            observer.note("it had ended; nothing is trained, and its model is written again");
        }
        while self.state.step < total && !stopped_early {
            let began = Instant::now();
            let step = self.state.step;
            let mut grads = Grads::new();
            let report = stage.gradients(step, &mut grads)?;
            let factor = optimizer.set_rates(adam, stage.rate(step), step, total)?;
            let info = adam.step(stage.params(), &grads)?;
            self.state.step += 1;
            let mut metrics = report.metrics;
            metrics.push(("optimizer/grad_norm".into(), info.grad_norm));
            metrics.push(("optimizer/lr_factor".into(), factor));
            let due =
                |every: u64| every > 0 && self.state.step.is_multiple_of(every) || self.state.step == total;
            let (evaluate, save) = (due(self.config.eval_every), due(self.config.checkpoint_every));
            if evaluate {
                let found = stage.evaluate()?;
                stopped_early = self.judge(&found);
                stage.notes().iter().for_each(|note| observer.note(note));
                metrics.extend(found);
            }
            self.record(stage.name(), step, &metrics, observer)?;
            let seconds = began.elapsed().as_secs_f64();
            let tokens = report.tokens;
            let progress =
                Progress { stage: stage.name(), step: step + 1, total, tokens, seconds, metrics: &metrics };
            let go = observer.step(&progress);
            let new_best = self.state.best.is_some_and(|b| b.step == self.state.step);
            if save || new_best || stopped_early || go == Go::Stop {
                self.checkpoint(stage, adam)?;
            }
            if go == Go::Stop && self.state.step < total && !stopped_early {
                return Ok(self.outcome(true, false, None));
            }
        }
        if stopped_early {
            observer.note(&format!("stopped early after step {}: no better evaluation", self.state.step));
        }
        self.finish(stage, stopped_early)
    }

    /// Writes the records of a step and what the monitors make of them.
    fn record(
        &mut self,
        stage: &str,
        step: u64,
        metrics: &[(String, f64)],
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        for (name, value) in metrics {
            if !value.is_finite() {
                let text = format!("{stage}: the metric {name} of step {step} is {value}");
                return Err(TrainError::Data(text));
            }
            let (stage, name_) = (stage.to_owned(), name.clone());
            self.log.push(&Record::Metric { stage: stage.clone(), step, name: name_, value: *value })?;
            remember(&mut self.last, name, *value);
            for alarm in self.state.monitors.observe(&self.monitors, &stage, step, name, *value) {
                self.log.push(&alarm)?;
                self.alarms += 1;
                observer.alarm(&alarm);
            }
        }
        Ok(())
    }

    /// Compares an evaluation with the best one; true where the run should end.
    fn judge(&mut self, found: &Metrics) -> bool {
        let Some(stop) = &self.config.early_stop else { return false };
        // A metric that was left out because it is no number is no improvement.
        let value = found.iter().find(|(n, _)| *n == stop.metric).map(|(_, v)| *v);
        let better =
            |v: f64| self.state.best.is_none_or(|b| if stop.larger { v > b.value } else { v < b.value });
        match value.filter(|v| better(*v)) {
            Some(value) => {
                self.state.best = Some(Best { step: self.state.step, value });
                self.state.since_best = 0;
            }
            None => self.state.since_best += 1,
        }
        self.config.gives_up(self.state.since_best)
    }

    fn checkpoint<S: Stage>(&mut self, stage: &mut S, adam: &AdamW) -> Result<(), TrainError> {
        self.log.sync()?;
        self.state.stage = stage.save()?;
        let state = serde_json::to_value(&self.state)
            .map_err(|e| TrainError::Data(format!("the state of the run is no JSON: {e}")))?;
        let best = self.state.best.map(|b| b.step);
        let dir = self.dir.join("checkpoints");
        checkpoint::save(&dir, self.state.step, stage.params(), adam, state, self.config.keep, best)?;
        Ok(())
    }

    fn finish<S: Stage>(&mut self, stage: &mut S, stopped_early: bool) -> Result<Outcome, TrainError> {
        // The model that is handed on is the best one where a best is watched and its checkpoint is there.
        let checkpoints = self.dir.join("checkpoints");
        if let Some(best) = self.state.best.filter(|b| b.step != self.state.step)
            && checkpoint::list(&checkpoints)?.contains(&best.step)
        {
            let mut unused = OptimizerConfig::default().adam();
            checkpoint::load(&checkpoints, best.step, stage.params(), &mut unused)?;
        }
        let model = self.dir.join("model");
        stage.export(&model)?;
        let (events, ended) = (self.dir.join("events.out.tfevents.0.ocelli"), self.dir.join("outcome.json"));
        if self.lost && ended.exists() {
            // What was measured is not in the records any more, but it was summed up.
            let known: Outcome = serde_json::from_slice(&read_bounded(&ended, MAX_JSON)?)
                .map_err(|e| TrainError::Data(format!("{}: {e}", ended.display())))?;
            if known.steps == self.state.step {
                return Ok(Outcome { model: Some(model), ..known });
            }
        }
        let records: Vec<Record> = read_jsonl(&self.dir.join("metrics.jsonl"))?;
        write_atomic(&events, &tensorboard::event_file(&records))?;
        let outcome = self.outcome(false, stopped_early, Some(model));
        write_atomic(&ended, format!("{:#}\n", json!(outcome)).as_bytes())?;
        Ok(outcome)
    }

    /// Says, to whoever watches and in the records themselves, that records are lost; the training does not depend on them.
    fn tell_loss(
        &mut self,
        stage: &str,
        kept: u64,
        told: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let steps = self.state.step;
        let message = format!(
            "metrics.jsonl holds {kept} of the {steps} steps that were trained: the others are lost. The training itself does \
             not depend on them"
        );
        observer.note(&message);
        if told {
            return Ok(());
        }
        // With the number of the last step, so that it stays when the run is resumed once more.
        let step = steps.saturating_sub(1);
        self.log.push(&Record::Alarm { stage: stage.into(), step, monitor: LOST.into(), message })?;
        self.alarms += 1;
        Ok(())
    }

    fn outcome(&self, interrupted: bool, stopped_early: bool, model: Option<PathBuf>) -> Outcome {
        Outcome {
            steps: self.state.step,
            interrupted,
            stopped_early,
            metrics: self.last.clone(),
            best: self.state.best.map(|b| (b.step, b.value)),
            alarms: self.alarms,
            model,
        }
    }
}
