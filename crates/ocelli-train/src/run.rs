//! One run of one stage: steps, checkpoints, evaluation, records, early stop, and exact resumption.
//!
//! ```text
//! RUN/config.json              the resolved configuration
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

use std::path::{Path, PathBuf};
use std::time::Instant;

use ocelli_data::io::{JsonlWriter, create_dir, read_bounded, read_jsonl, write_atomic};
use ocelli_data::record::Record;
use ocelli_tensor::{AdamW, Grads, Params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint;
use crate::error::TrainError;
use crate::exact;
use crate::monitors::{Monitor, Monitors};
use crate::observe::{Go, Observer, Progress};
use crate::optim::{OptimizerConfig, all_frozen};
use crate::tensorboard;

/// Stop when a metric no longer gets better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// Largest `config.json` or `outcome.json` that is read, in bytes.
const MAX_JSON: u64 = 16 << 20;
/// Largest `metrics.jsonl` that is resumed, in bytes.
const MAX_METRICS: u64 = 4 << 30;

/// Runs a stage to its end in `dir`, or goes on with the run that is there. `resolved` is the whole configuration of
/// the run: a directory that was made with another one is refused.
pub fn run<S: Stage>(
    stage: &mut S,
    dir: &Path,
    config: &RunConfig,
    optimizer: &OptimizerConfig,
    resolved: &Value,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    optimizer.validate()?;
    if config.steps == 0 {
        return Err(TrainError::Config("run.steps is 0; at least one step is needed".into()));
    }
    if !stage.params().iter().any(|(_, p)| p.trainable()) {
        return Err(all_frozen());
    }
    same_configuration(dir, resolved)?;
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
    let (last, alarms) = cut_records(&metrics_path, state.step)?;
    let monitors = config.monitors.clone().unwrap_or_else(Monitor::defaults);
    let log = JsonlWriter::open(&metrics_path)?;
    let mut run = Run { dir, config, monitors, log, last, alarms, state };
    run.drive(stage, &mut adam, optimizer, observer)
}

/// Compares the configuration with that of the directory, or writes it into a new one.
fn same_configuration(dir: &Path, resolved: &Value) -> Result<(), TrainError> {
    create_dir(dir)?;
    let path = dir.join("config.json");
    let text = format!("{resolved:#}\n");
    if !path.exists() {
        return Ok(write_atomic(&path, text.as_bytes())?);
    }
    let found = read_bounded(&path, MAX_JSON)?;
    if found == text.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found);
    let differs = found.lines().zip(text.lines()).find(|(a, b)| a != b);
    let what = differs.map_or("one has more entries".to_owned(), |(a, b)| {
        format!("`{}` there, `{}` here", a.trim(), b.trim())
    });
    Err(TrainError::OtherRun { path: dir.to_owned(), what })
}

/// Removes records of steps from `step` on: they will be written again. Returns the last value of each metric and
/// the number of alarms. Lines that stay are kept byte for byte: a number that is read and printed again may lose its last bit.
fn cut_records(path: &Path, step: u64) -> Result<(Vec<(String, f64)>, usize), TrainError> {
    if !path.exists() {
        return Ok((Vec::new(), 0));
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
    let (mut last, mut alarms) = (Vec::new(), 0);
    for record in records.into_iter().filter(|r| at(r) < step) {
        match record {
            Record::Metric { name, value, .. } => remember(&mut last, &name, value),
            Record::Alarm { .. } => alarms += 1,
        }
    }
    Ok((last, alarms))
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
        let mut stopped_early = false;
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
        let Some((_, value)) = found.iter().find(|(n, _)| *n == stop.metric) else { return false };
        let better =
            self.state.best.is_none_or(|b| if stop.larger { *value > b.value } else { *value < b.value });
        if better {
            self.state.best = Some(Best { step: self.state.step, value: *value });
            self.state.since_best = 0;
        } else {
            self.state.since_best += 1;
        }
        stop.patience > 0 && self.state.since_best >= stop.patience
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
        let records: Vec<Record> = read_jsonl(&self.dir.join("metrics.jsonl"))?;
        write_atomic(&self.dir.join("events.out.tfevents.0.ocelli"), &tensorboard::event_file(&records))?;
        let outcome = self.outcome(false, stopped_early, Some(model));
        write_atomic(&self.dir.join("outcome.json"), format!("{:#}\n", json!(outcome)).as_bytes())?;
        Ok(outcome)
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
