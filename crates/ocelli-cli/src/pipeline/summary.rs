//! What people and programs read when all stages are done: `summary.json`, `items/`, `samples.jsonl`, `metrics.jsonl`,
//! `report.html`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ocelli_data::Trajectory;
use ocelli_data::io::{read_bounded, read_jsonl, write_atomic, write_jsonl};
use ocelli_data::record::Record;
use ocelli_data::run::{Arm, ItemResult, RunSummary, StageRun};

use super::config::{ArmConfig, Evaluate, Pipeline, Stage};
use super::environment;
use super::stages::ArmItems;
use super::store::Store;
use crate::report::{Run, render};

/// Largest list of arms, in bytes.
const MAX_ARMS: u64 = 1 << 20;

/// Writes everything and returns the path of the page.
pub(super) fn write(config: &Pipeline, store: &Store, build: &str) -> anyhow::Result<PathBuf> {
    let root = store.root();
    collect(config, store, config.stage.len(), build)?;
    let page = root.join("report.html");
    write_atomic(&page, render(&[Run::open(root)?]).as_bytes())?;
    Ok(page)
}

/// Says that the run is under way in its stage `n`, and what the stages before it gave; nothing of an earlier run stays.
pub(super) fn unfinished(config: &Pipeline, store: &Store, n: usize, build: &str) -> anyhow::Result<()> {
    let root = store.root();
    let under_way = config.stage.get_index(n).map(|(name, _)| name.clone());
    // At once and before anything is removed, so that no moment shows old results beside new settings.
    write_summary(root, &RunSummary { unfinished: under_way, ..empty(config) })?;
    for file in ["report.html", "samples.jsonl", "metrics.jsonl"] {
        let path = root.join(file);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let items = root.join("items");
    if items.exists() {
        std::fs::remove_dir_all(&items).with_context(|| format!("cannot remove {}", items.display()))?;
    }
    collect(config, store, n, build)
}

fn empty(config: &Pipeline) -> RunSummary {
    RunSummary {
        name: config.name.clone(),
        about: config.about.clone(),
        seed: config.seed,
        ..RunSummary::default()
    }
}

fn write_summary(root: &Path, summary: &RunSummary) -> anyhow::Result<()> {
    Ok(write_atomic(&root.join("summary.json"), serde_json::to_string_pretty(summary)?.as_bytes())?)
}

/// Everything that the first `upto` stages gave; the summary last.
fn collect(config: &Pipeline, store: &Store, upto: usize, build: &str) -> anyhow::Result<()> {
    let root = store.root();
    let unfinished = config.stage.get_index(upto).map(|(name, _)| name.clone());
    let mut summary = RunSummary { unfinished, ..empty(config) };
    let (mut metrics, mut samples): (Vec<Record>, Vec<Trajectory>) = (Vec::new(), Vec::new());
    for (name, stage) in config.stage.iter().take(upto) {
        let Some(done) = store.done(name)? else { continue };
        let dir = store.dir(name);
        summary.stages.push(StageRun { name: name.clone(), seconds: done.seconds, outcome: done.outcome });
        summary.facts.extend(done.facts);
        metrics.extend(records(&dir, name)?);
        if let Stage::Evaluate(e) = stage {
            summary.chance = summary.chance.or(e.chance);
            summary.arms.extend(arms(config, e, &dir, root, &summary.arms, name)?);
            samples.extend(read_jsonl::<Trajectory>(&dir.join("samples.jsonl"))?);
        }
    }
    write_jsonl(&root.join("metrics.jsonl"), &metrics)?;
    write_jsonl(&root.join("samples.jsonl"), &samples)?;
    let environment = environment::describe(config, store, upto, build)?;
    write_atomic(&root.join("environment.json"), environment.as_bytes())?;
    write_summary(root, &summary)
}

/// The records of a stage under its own name: two supervised stages are two curves.
fn records(dir: &Path, name: &str) -> anyhow::Result<Vec<Record>> {
    let path = dir.join("metrics.jsonl");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut rows: Vec<Record> = read_jsonl(&path)?;
    for row in &mut rows {
        let (Record::Metric { stage, .. } | Record::Alarm { stage, .. }) = row;
        name.clone_into(stage);
    }
    Ok(rows)
}

/// Copies the items of an evaluation to the run; an identifier that is taken gets the stage's name in front.
fn arms(
    config: &Pipeline,
    evaluate: &Evaluate,
    dir: &Path,
    root: &Path,
    taken: &[Arm],
    stage: &str,
) -> anyhow::Result<Vec<Arm>> {
    let listed: Vec<ArmItems> = serde_json::from_slice(&read_bounded(&dir.join("arms.json"), MAX_ARMS)?)?;
    let mut out = Vec::with_capacity(listed.len());
    for ArmItems { mut arm, file } in listed {
        if taken.iter().any(|t| t.id == arm.id) {
            arm.id = format!("{stage}-{}", arm.id);
        }
        let rows: Vec<ItemResult> = read_jsonl(&dir.join("items").join(file))?;
        write_jsonl(&root.join("items").join(format!("{}.jsonl", arm.id)), &rows)?;
        out.push(arm);
    }
    let began: Vec<Option<String>> = out.iter().map(|arm| began_from(config, evaluate, arm, &out)).collect();
    for (arm, from) in out.iter_mut().zip(began) {
        arm.began_from = from;
    }
    Ok(out)
}

/// The arm of the nearest model that this arm's model goes back to, on the same questions and with the same use of tools.
fn began_from(config: &Pipeline, evaluate: &Evaluate, arm: &Arm, arms: &[Arm]) -> Option<String> {
    let own = evaluate.arms.iter().find(|a| a.label == arm.label)?;
    let mut model = own.model.as_deref()?;
    // A stage only names earlier ones, so this ends.
    loop {
        model = config.stage.get(model)?.goes_on_from()?;
        let of_model = |a: &&ArmConfig| a.model.as_deref() == Some(model) && a.questions == own.questions;
        let labels = evaluate.arms.iter().filter(of_model).map(|a| &a.label);
        let same_way = |label: &String| arms.iter().find(|a| a.label == *label && a.tools == arm.tools);
        if let Some(found) = labels.filter_map(same_way).next() {
            return Some(found.id.clone());
        }
    }
}

/// The table that ends a run in the terminal.
pub(crate) fn table(run: &Run) -> String {
    let rows: Vec<(&Arm, String, f64)> = run
        .arms()
        .map(|(arm, items)| {
            let text = Run::accuracy(items.iter()).map_or_else(
                || "no item".to_owned(),
                |e| {
                    let (low, high) = (e.interval.low * 100.0, e.interval.high * 100.0);
                    format!("{:5.1} % [{low:.1}, {high:.1}]", e.mean * 100.0)
                },
            );
            let calls = items.iter().map(|i| i.tools.len()).sum::<usize>() as f64 / items.len().max(1) as f64;
            (arm, text, calls)
        })
        .collect();
    let mut by_label: Vec<(&str, HashMap<bool, (String, f64)>)> = Vec::new();
    for (arm, text, calls) in rows {
        match by_label.iter_mut().find(|(l, _)| *l == arm.label) {
            Some((_, cells)) => drop(cells.insert(arm.tools, (text, calls))),
            None => by_label.push((&arm.label, HashMap::from([(arm.tools, (text, calls))]))),
        }
    }
    if by_label.is_empty() {
        return String::new();
    }
    let width = by_label.iter().map(|(l, _)| l.chars().count()).max().unwrap_or(0).max(5);
    let mut out = format!("{:width$}  {:<22}  {:<22}  calls\n", "", "without tools", "with tools");
    for (label, cells) in by_label {
        let cell = |tools: bool| cells.get(&tools).map_or("-", |(text, _)| text.as_str());
        let calls = cells.get(&true).map_or(String::new(), |(_, calls)| format!("{calls:.2}"));
        out += &format!("{label:width$}  {:<22}  {:<22}  {calls}\n", cell(false), cell(true));
    }
    out
}

/// Facts that end a run in the terminal beside the table: section, name, and how the name is said.
const TOLD: &[(&str, &str, &str)] = &[
    ("Reward model", "pair accuracy", "pair accuracy"),
    ("GRPO", "buffer/fill", "batch filled"),
    ("GRPO", "buffer/size", "samples kept"),
    ("GRPO", "buffer/replayed", "replayed in the last step"),
    ("GRPO", "buffer/fresh_share", "share of fresh samples"),
    ("GRPO", "buffer/age_p50", "median age in steps"),
    ("GRPO", "groups/informative", "share of groups that teach"),
];

/// The numbers beside the table: how good the reward models are, and what the sample buffers held at the end.
pub(crate) fn results(run: &Run) -> String {
    let mut out = String::new();
    let mut lines: Vec<(&str, Vec<String>)> = Vec::new();
    for fact in &run.summary.facts {
        let known = TOLD.iter().find(|(section, name, _)| {
            fact.section.split(':').next() == Some(*section) && fact.name == *name
        });
        let Some((_, _, said)) = known else { continue };
        let text = format!("{said} {}", fact.text);
        match lines.iter_mut().find(|(section, _)| *section == fact.section) {
            Some((_, told)) => told.push(text),
            None => lines.push((&fact.section, vec![text])),
        }
    }
    for (section, told) in lines {
        let what = if section.starts_with("GRPO") {
            format!("{section}, sample buffer")
        } else {
            section.to_owned()
        };
        out += &format!("{what}: {}\n", told.join(", "));
    }
    out
}
