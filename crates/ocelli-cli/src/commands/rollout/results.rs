//! What a rollout leaves behind: the files of its directory, and what is said at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ocelli_agent::endpoint::Totals;
use ocelli_agent::episode::Ended;
use ocelli_agent::filters::{FilterReport, filter};
use ocelli_agent::ledger::{DeadLetter, Stats};
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
    /// Rollouts that came to no end of their own, because machines failed or because they killed their worker.
    pub(super) given_up: Vec<GivenUp>,
    pub(super) filters: FilterReport,
    /// Mean over the `rewarded` rollouts that came to an end.
    pub(super) mean_reward: Option<f64>,
    pub(super) rewarded: usize,
    /// Mean over those and the ones given up, which count 0.
    pub(super) mean_reward_with_given_up: Option<f64>,
    /// Calls per tool.
    pub(super) tools: BTreeMap<String, ToolCounts>,
    /// Requests, tokens and costs of this process, where an endpoint answered.
    pub(super) endpoint: Option<Totals>,
}

/// A rollout without a result.
#[derive(Debug, Serialize)]
pub(super) struct GivenUp {
    key: String,
    attempts: u32,
    error: String,
}

/// Calls of one tool: how long they ran, and how long they waited before they did.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct ToolCounts {
    calls: usize,
    failed: usize,
    median_ms: f64,
    p95_ms: f64,
    median_waited_ms: f64,
    p95_waited_ms: f64,
}

/// What was given up: the dead letters, and outages that ledgers of earlier versions hold as results.
fn given_up(rows: &[Ended], dead: Vec<DeadLetter>) -> Vec<GivenUp> {
    let letters = dead.into_iter().map(|d| GivenUp { key: d.key, attempts: d.attempts, error: d.error });
    let old = rows.iter().filter(|r| r.trajectory.status.is_outage()).map(|r| {
        let t = &r.trajectory;
        let why = r.why.as_deref().unwrap_or("no reason given");
        let key = format!("{}#{:04}", t.sample_id, t.attempt);
        GivenUp {
            key,
            attempts: 0,
            error: format!("{:?}: {why} (an earlier version kept this as a result)", t.status),
        }
    });
    letters.chain(old).collect()
}

/// Counts calls per tool, unreadable ones under `(unreadable)`.
fn tool_counts(trajectories: &[Trajectory]) -> BTreeMap<String, ToolCounts> {
    let mut times: BTreeMap<String, (usize, Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for used in trajectories.iter().flat_map(|t| &t.tools) {
        let name = if used.call.name.is_empty() { "(unreadable)" } else { &used.call.name };
        let entry = times.entry(name.to_owned()).or_default();
        entry.0 += usize::from(used.result.is_error);
        entry.1.push(used.millis);
        entry.2.push(used.waited_ms);
    }
    let ends = |mut millis: Vec<f64>| {
        millis.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            millis.get(millis.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0)
        };
        (at(50), at(95))
    };
    let count = |(failed, millis, waited): (usize, Vec<f64>, Vec<f64>)| {
        let calls = millis.len();
        let ((median_ms, p95_ms), (median_waited_ms, p95_waited_ms)) = (ends(millis), ends(waited));
        ToolCounts { calls, failed, median_ms, p95_ms, median_waited_ms, p95_waited_ms }
    };
    times.into_iter().map(|(name, seen)| (name, count(seen))).collect()
}

pub(super) fn write(
    config: &RolloutConfig,
    rows: &[Ended],
    work: Stats,
    dead: Vec<DeadLetter>,
    endpoint: Option<Totals>,
    pictures: &Pictures,
) -> anyhow::Result<Report> {
    let trajectories: Vec<Trajectory> = rows.iter().map(|r| r.trajectory.clone()).collect();
    let (kept, filters) = filter(&trajectories, &config.filters, "accuracy");
    let ended = trajectories.iter().filter(|t| !t.status.is_outage());
    let rewards: Vec<f64> = ended.filter_map(|t| t.score("reward")).map(Score::or_zero).collect();
    let given_up = given_up(rows, dead);
    let mean = |of: usize| (of > 0).then(|| rewards.iter().sum::<f64>() / of as f64);
    let rewarded = rewards.len();
    let (mean_reward, mean_reward_with_given_up) = (mean(rewarded), mean(rewarded + given_up.len()));
    write_jsonl(&config.out.join("trajectories.jsonl"), &trajectories)?;
    write_jsonl(&config.out.join("sft.jsonl"), &kept)?;
    let tools = tool_counts(&trajectories);
    let report = Report {
        out: config.out.clone(),
        work,
        given_up,
        filters,
        mean_reward,
        rewarded,
        mean_reward_with_given_up,
        tools,
        endpoint,
    };
    write_atomic(&config.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
    let title = config.out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut subtitle = format!("{} trajectories, {} kept for training", rows.len(), report.filters.kept);
    if !report.given_up.is_empty() {
        subtitle.push_str(&format!(", {} given up", report.given_up.len()));
    }
    if !work.is_settled() {
        subtitle.push_str(&format!(", {} not finished", work.ready + work.leased));
    }
    let viewer = ViewerConfig { title, subtitle, ..ViewerConfig::default() };
    let page = render(rows, &viewer, &|hash| pictures.get(hash).ok());
    write_atomic(&config.out.join("index.html"), page.as_bytes())?;
    Ok(report)
}

/// Reasons that are shown of what was given up; the report has all.
const REASONS: usize = 5;

/// Says aloud what was given up, also where nothing else is said.
fn warn(report: &Report, ui: &Ui) {
    if report.given_up.is_empty() {
        return;
    }
    let (gone, all) = (report.given_up.len(), report.rewarded + report.given_up.len());
    ui.warning(&format!(
        "{gone} of {all} rollouts were given up; they are no trajectories, and the same command tries again those that \
         machines failed"
    ));
    for letter in report.given_up.iter().take(REASONS) {
        let attempts =
            if letter.attempts > 0 { format!(" after {} attempts", letter.attempts) } else { String::new() };
        ui.warning(&format!("  {}{attempts}: {}", letter.key, letter.error));
    }
    if gone > REASONS {
        let file = report.out.join("report.json");
        ui.warning(&format!("  and {} more; {} names all", gone - REASONS, file.display()));
    }
}

pub(super) fn show(report: &Report, ui: &Ui) -> anyhow::Result<()> {
    warn(report, ui);
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
        println!(
            "calls per tool (failed), median and 95th percentile of the time they ran, and that they waited"
        );
    }
    for (tool, c) in &report.tools {
        println!(
            "  {:>6}  ({})  {tool}  ran {:.1} ms, {:.1} ms; waited {:.1} ms, {:.1} ms",
            c.calls, c.failed, c.median_ms, c.p95_ms, c.median_waited_ms, c.p95_waited_ms
        );
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
        let gone = report.given_up.len();
        let both = match report.mean_reward_with_given_up.filter(|_| gone > 0) {
            Some(all) => {
                let of = report.rewarded;
                format!(
                    " of the {of} that came to an end; {all:.3} of {} if the {gone} given up count 0",
                    of + gone
                )
            }
            None => String::new(),
        };
        println!("mean reward {mean:.3}{both}");
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
