//! What people and programs read when all stages are done: `summary.json`, `items/`, `samples.jsonl`, `metrics.jsonl`,
//! `report.html`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ocelli_data::Trajectory;
use ocelli_data::io::{read_bounded, read_jsonl, write_atomic, write_jsonl};
use ocelli_data::record::Record;
use ocelli_data::run::{Arm, ItemResult, RunSummary, StageRun};

use super::config::{Pipeline, Stage};
use super::stages::ArmItems;
use super::store::Store;
use crate::report::{Run, render};

/// Largest list of arms, in bytes.
const MAX_ARMS: u64 = 1 << 20;

/// Writes everything and returns the path of the page.
pub(super) fn write(config: &Pipeline, store: &Store) -> anyhow::Result<PathBuf> {
    let root = store.root();
    let mut summary = RunSummary {
        name: config.name.clone(),
        about: config.about.clone(),
        seed: config.seed,
        ..RunSummary::default()
    };
    let (mut metrics, mut samples): (Vec<Record>, Vec<Trajectory>) = (Vec::new(), Vec::new());
    for (name, stage) in &config.stage {
        let Some(done) = store.done(name)? else { continue };
        let dir = store.dir(name);
        summary.stages.push(StageRun { name: name.clone(), seconds: done.seconds, outcome: done.outcome });
        summary.facts.extend(done.facts);
        metrics.extend(records(&dir, name)?);
        if let Stage::Evaluate(e) = stage {
            summary.chance = summary.chance.or(e.chance);
            summary.arms.extend(arms(&dir, root, &summary.arms, name)?);
            samples.extend(read_jsonl::<Trajectory>(&dir.join("samples.jsonl"))?);
        }
    }
    write_jsonl(&root.join("metrics.jsonl"), &metrics)?;
    write_jsonl(&root.join("samples.jsonl"), &samples)?;
    write_atomic(&root.join("summary.json"), serde_json::to_string_pretty(&summary)?.as_bytes())?;
    let page = root.join("report.html");
    write_atomic(&page, render(&[Run::open(root)?]).as_bytes())?;
    Ok(page)
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
fn arms(dir: &Path, root: &Path, taken: &[Arm], stage: &str) -> anyhow::Result<Vec<Arm>> {
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
    Ok(out)
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
    let width = by_label.iter().map(|(l, _)| l.chars().count()).max().unwrap_or(0).max(5);
    let mut out = format!("{:width$}  {:<22}  {:<22}  calls\n", "", "without tools", "with tools");
    for (label, cells) in by_label {
        let cell = |tools: bool| cells.get(&tools).map_or("-", |(text, _)| text.as_str());
        let calls = cells.get(&true).map_or(String::new(), |(_, calls)| format!("{calls:.2}"));
        out += &format!("{label:width$}  {:<22}  {:<22}  {calls}\n", cell(false), cell(true));
    }
    out
}
