//! The directory of an `ocelli train` run, finished or not, as the page takes a run: curves, monitors, alarms, rollouts to
//! look at, configuration.

use std::path::Path;

use ocelli_data::record::Record;
use ocelli_data::run::{Fact, RunSummary};
use ocelli_data::{Message, Score, Status, ToolUse, Trajectory};
use serde::Deserialize;
use serde_json::Value;

use super::read::{Run, optional_text, rows_so_far};

/// Rollouts that are shown.
const SHOWN: usize = 12;

/// A row of `samples.jsonl` of a training.
#[derive(Deserialize)]
struct Row {
    step: u64,
    sample: String,
    attempt: u32,
    status: Status,
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<ToolUse>,
    #[serde(default)]
    scores: Vec<(String, Score)>,
}

/// What `outcome.json` says of a training that has ended.
#[derive(Deserialize)]
struct Ended {
    steps: u64,
    stopped_early: bool,
    metrics: Vec<(String, f64)>,
}

/// True where `dir` holds what `ocelli train` writes.
pub(super) fn is_training(dir: &Path) -> bool {
    dir.join("config.json").is_file() && dir.join("metrics.jsonl").is_file()
}

/// Reads the training at `dir`.
pub(super) fn open(dir: &Path) -> anyhow::Result<Run> {
    let settings = optional_text(&dir.join("config.json"))?;
    let read: Value = serde_json::from_str(&settings).unwrap_or_default();
    let records: Vec<Record> = rows_so_far(&dir.join("metrics.jsonl"))?;
    let (kind, done) = records.iter().fold((String::new(), 0), |(kind, done), r| {
        let (Record::Metric { stage, step, .. } | Record::Alarm { stage, step, .. }) = r;
        (if kind.is_empty() { stage.clone() } else { kind }, done.max(step + 1))
    });
    let total = read["run"]["steps"].as_u64();
    let ended = optional_text(&dir.join("outcome.json"))?;
    let ended: Option<Ended> = serde_json::from_str(&ended).ok();
    let name = dir.canonicalize().ok().and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()));
    let of = total.map_or_else(String::new, |t| format!(" of {t}"));
    let about = match &ended {
        Some(e) if e.stopped_early => {
            format!("`ocelli train {kind}`: {} steps{of}; it ended early.", e.steps)
        }
        Some(e) => format!("`ocelli train {kind}`: {} steps.", e.steps),
        None => format!("`ocelli train {kind}`: {done} steps{of} so far."),
    };
    let held_out = ended.iter().flat_map(|e| &e.metrics).filter(|(name, _)| name.starts_with("eval/"));
    let facts = held_out.map(|(name, value)| Fact {
        section: "Held-out data".into(),
        name: name.trim_start_matches("eval/").to_owned(),
        text: super::plot::short(*value),
    });
    let summary = RunSummary {
        name: name.unwrap_or_else(|| kind.clone()),
        about,
        seed: read["run"]["seed"].as_u64().unwrap_or(0),
        facts: facts.collect(),
        unfinished: ended.is_none().then(|| kind.clone()),
        ..RunSummary::default()
    };
    let mut run = Run::of(summary, dir, "pictures");
    run.take_records(records);
    run.config = settings;
    run.environment = optional_text(&dir.join("origin.json"))?;
    run.samples = samples(rows_so_far(&dir.join("samples.jsonl"))?);
    Ok(run)
}

/// The latest rollouts first, and the first of all at the end.
fn samples(rows: Vec<Row>) -> Vec<Trajectory> {
    let first = rows.first().map(|r| r.step);
    let (mut begun, mut later): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| Some(r.step) == first);
    let mut steps: Vec<u64> = later.iter().map(|r| r.step).collect();
    steps.dedup();
    // Of each of the last steps two, so that one question does not fill the table.
    let mut shown = Vec::new();
    for step in steps.into_iter().rev() {
        let (of_step, rest): (Vec<Row>, Vec<Row>) = later.into_iter().partition(|r| r.step == step);
        later = rest;
        shown.extend(of_step.into_iter().take(2));
        if shown.len() >= SHOWN - 2 {
            break;
        }
    }
    begun.truncate(2);
    shown.extend(begun);
    shown.truncate(SHOWN);
    shown.into_iter().map(trajectory).collect()
}

fn trajectory(row: Row) -> Trajectory {
    Trajectory {
        sample_id: format!("step {} · {}", row.step, row.sample),
        attempt: row.attempt,
        messages: row.messages,
        ids: Vec::new(),
        spans: Vec::new(),
        logprobs: Vec::new(),
        weight_versions: Vec::new(),
        images: Vec::new(),
        tools: row.tools,
        status: row.status,
        scores: row.scores,
    }
}
