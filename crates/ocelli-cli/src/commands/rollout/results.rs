//! What a rollout leaves behind: the files of its directory, and what is said at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ocelli_agent::endpoint::Totals;
use ocelli_agent::episode::Ended;
use ocelli_agent::filters::{FilterReport, filter};
use ocelli_agent::ledger::Stats;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::viewer::{ViewerConfig, render};
use ocelli_data::io::{write_atomic, write_jsonl};
use ocelli_data::{Score, Trajectory};
use serde::Serialize;

use super::settings::RolloutConfig;
use crate::ui::Ui;

/// What `report.json` holds, and `--json` prints.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) out: PathBuf,
    pub(super) work: Stats,
    pub(super) dead: usize,
    pub(super) filters: FilterReport,
    pub(super) mean_reward: Option<f64>,
    /// Calls per tool.
    pub(super) tools: BTreeMap<String, ToolCounts>,
    /// Requests, tokens and costs of this process, where an endpoint answered.
    pub(super) endpoint: Option<Totals>,
}

/// Calls of one tool.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct ToolCounts {
    calls: usize,
    failed: usize,
    median_ms: f64,
    p95_ms: f64,
}

/// Counts calls per tool, unreadable ones under `(unreadable)`.
fn tool_counts(trajectories: &[Trajectory]) -> BTreeMap<String, ToolCounts> {
    let mut times: BTreeMap<String, (usize, Vec<f64>)> = BTreeMap::new();
    for used in trajectories.iter().flat_map(|t| &t.tools) {
        let name = if used.call.name.is_empty() { "(unreadable)" } else { &used.call.name };
        let entry = times.entry(name.to_owned()).or_default();
        entry.0 += usize::from(used.result.is_error);
        entry.1.push(used.millis);
    }
    let count = |(failed, mut millis): (usize, Vec<f64>)| {
        millis.sort_by(f64::total_cmp);
        let at = |percent: usize| millis.get((millis.len() - 1) * percent / 100).copied().unwrap_or(0.0);
        ToolCounts { calls: millis.len(), failed, median_ms: at(50), p95_ms: at(95) }
    };
    times.into_iter().map(|(name, seen)| (name, count(seen))).collect()
}

pub(super) fn write(
    config: &RolloutConfig,
    rows: &[Ended],
    work: Stats,
    dead: usize,
    endpoint: Option<Totals>,
    pictures: &Pictures,
) -> anyhow::Result<Report> {
    let trajectories: Vec<Trajectory> = rows.iter().map(|r| r.trajectory.clone()).collect();
    let (kept, filters) = filter(&trajectories, &config.filters, "accuracy");
    let rewards: Vec<f64> =
        trajectories.iter().filter_map(|t| t.score("reward")).map(Score::or_zero).collect();
    let mean_reward = (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / rewards.len() as f64);
    write_jsonl(&config.out.join("trajectories.jsonl"), &trajectories)?;
    write_jsonl(&config.out.join("sft.jsonl"), &kept)?;
    let tools = tool_counts(&trajectories);
    let report = Report { out: config.out.clone(), work, dead, filters, mean_reward, tools, endpoint };
    write_atomic(&config.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
    let title = config.out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut subtitle = format!("{} trajectories, {} kept for training", rows.len(), report.filters.kept);
    if !work.is_settled() {
        subtitle.push_str(&format!(", {} not finished", work.ready + work.leased));
    }
    let viewer = ViewerConfig { title, subtitle, ..ViewerConfig::default() };
    let page = render(rows, &viewer, &|hash| pictures.get(hash).ok());
    write_atomic(&config.out.join("index.html"), page.as_bytes())?;
    Ok(report)
}

pub(super) fn show(report: &Report, ui: &Ui) -> anyhow::Result<()> {
    if ui.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let f = &report.filters;
    println!("{}", ui.bold(&format!("{} trajectories, {} kept for training", f.seen, f.kept)));
    for (status, count) in &f.statuses {
        println!("  {count:>6}  {}", name(status)?);
    }
    println!("refused by each filter (by it alone)");
    for (filter, count) in &f.refused {
        let alone = f.refused_alone.get(filter).copied().unwrap_or(0);
        println!("  {count:>6}  ({alone})  {}", name(filter)?);
    }
    if !report.tools.is_empty() {
        println!("calls per tool (failed), median and 95th percentile");
    }
    for (tool, c) in &report.tools {
        println!("  {:>6}  ({})  {tool}  {:.1} ms, {:.1} ms", c.calls, c.failed, c.median_ms, c.p95_ms);
    }
    if let Some(totals) = &report.endpoint {
        let (asked, usage) = (totals.answered + totals.failed, totals.usage);
        println!(
            "endpoint: {asked} requests in {} attempts, {} failed; {} tokens in, {} out{}",
            totals.attempts,
            totals.failed,
            usage.prompt,
            usage.completion,
            totals.cost.map(|c| format!("; cost {c:.4}")).unwrap_or_default()
        );
    }
    if let Some(mean) = report.mean_reward {
        println!("mean reward {mean:.3}");
    }
    if !report.work.is_settled() {
        let left = report.work.ready + report.work.leased;
        println!("{left} not finished; the same command goes on");
    }
    println!("{}", report.out.join("index.html").display());
    Ok(())
}

/// The name that JSON uses.
fn name(value: &impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
