//! A whole evaluation: load, ask, judge, score, summarise; or the same from stored outputs without asking.

mod assemble;
mod captions;
mod extra;
mod judging;
mod rescore;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ocelli_agent::endpoint::{Outcome, SamplingParams, Usage};
use ocelli_data::{ContentHash, Message};
use serde::{Deserialize, Serialize};

use crate::declare::{Kind, Task};
use crate::item::{Item, items};
use crate::judge::{ReasoningVerdict, reasoning_report};
use crate::load::{LoadError, Table};
use crate::prompt::PromptError;
use crate::run::{
    Cache, Engine, Entry, Log, LogError, Policy, Progress, Request, RunError, RunHeader, RunReport,
    request_key,
};
use crate::score::{Answer, Presented, Verdict, score_given};
use crate::stats::StatsError;
use crate::summary::{Difference, Summary};

use assemble::{of_answers, of_given};
pub use extra::{Extra, ExtraError};
pub use rescore::rescore;

/// An evaluation that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The folder of the run.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Asking.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The numbers.
    #[error(transparent)]
    Stats(#[from] StatsError),
}

/// What to ask and of whom.
pub struct Plan<'a> {
    /// The task.
    pub task: &'a Task,
    /// Who answers.
    pub policy: &'a Policy,
    /// Who judges, where the task needs a judge; without one, items left to a judge stay unparsed.
    pub judge: Option<&'a Policy>,
    /// Whether reasoning is judged too, and in steps.
    pub reasoning: ReasoningMode,
    /// Sampling, in place of the declaration's.
    pub sampling: SamplingParams,
    /// Samples per item, in place of the declaration's.
    pub samples: u32,
    /// Only the first items, for a trial.
    pub limit: Option<usize>,
}

/// How reasoning is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningMode {
    /// Not at all.
    #[default]
    Off,
    /// Sound or not, as CSVQA does.
    Binary,
    /// And step by step.
    Stepwise,
}

/// Everything that a report shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The numbers.
    pub summary: Summary,
    /// One record per answer (or per item for given answers), in the order of items.
    pub records: Vec<ItemRecord>,
    /// Where the two rules differ.
    pub differences: Vec<Difference>,
}

/// One row of the browsable list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Name of the item.
    pub id: String,
    /// Which sample.
    pub sample: u32,
    /// The prompt as text, images as marks.
    pub prompt: String,
    /// Hashes of the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ContentHash>,
    /// The gold answer.
    pub gold: String,
    /// The response; for given answers all replies.
    pub response: String,
    /// The thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// What a judge says about the reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_reasoning: Option<ReasoningVerdict>,
    /// How it ended.
    pub outcome: Outcome,
    /// Verdict of the official rule: credit, answer, rule and note.
    pub reference: Verdict,
    /// Verdict of ours.
    pub strict: Verdict,
    /// Labels by grouping.
    pub groups: Vec<Vec<String>>,
    /// Cluster of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Completion tokens.
    #[serde(default)]
    pub tokens: u64,
    /// What the judge replied, if one was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub judge: String,
}

/// Header of a run.
pub fn header(plan: &Plan<'_>, table: &Table, items: usize) -> RunHeader {
    RunHeader {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        benchmark: plan.task.benchmark.name.clone(),
        axes: plan.task.axes.clone(),
        declaration: plan.task.benchmark.hash(),
        data: table.fingerprint,
        items,
        model: plan.policy.name(),
        sampling: plan.sampling.clone(),
        samples: plan.samples,
    }
}

/// Runs a plan in `folder`. A folder that holds a part of the same run is continued.
pub async fn evaluate(
    plan: &Plan<'_>,
    table: &Table,
    folder: &Path,
    cache: Option<&mut Cache>,
    mut progress: impl FnMut(&str, Progress),
) -> Result<(Evaluation, RunReport), EvaluateError> {
    let mut items = items(plan.task, table)?;
    if let Some(limit) = plan.limit {
        items.truncate(limit);
    }
    let header = header(plan, table, items.len());
    let engine = Engine { policy: plan.policy, sampling: &plan.sampling, images: &table.images };
    if plan.task.axes.get("input").is_some_and(|v| v == "caption") {
        captions::captions(plan, table, folder, &header, &mut items, &mut progress).await?;
    }
    let mut log = Log::open(folder, "log", &header)?;
    let requests = requests(&items, plan.samples);
    let report = engine.run(&requests, &mut log, cache, |p| progress("answers", p)).await?;
    let name = plan.policy.name();
    let entries: Vec<Option<&Entry>> =
        requests.iter().map(|r| log.entry(request_key(&name, r, &plan.sampling))).collect();

    let mut evaluation = match plan.task.benchmark.kind {
        Kind::Answer => {
            let mut answers: Vec<(usize, Answer<'_>)> = Vec::with_capacity(requests.len());
            for (request, entry) in requests.iter().zip(&entries) {
                // Requests were made item by item, so the index follows from the position.
                let at = answers.len() / plan.samples.max(1) as usize;
                answers.push((at, answer_of(request, *entry)));
            }
            let replies = match plan.judge {
                Some(judge) => {
                    judging::judge_answers(plan, judge, &items, &answers, folder, &header, &mut progress)
                        .await?
                }
                None => HashMap::new(),
            };
            for (i, (_, answer)) in answers.iter_mut().enumerate() {
                answer.judge = replies.get(&i);
            }
            let mut evaluation = of_answers(plan.task, &items, &answers, &Extra::default())?;
            for (record, entry) in evaluation.records.iter_mut().zip(&entries) {
                record.reasoning = entry.and_then(|e| e.reasoning.clone());
            }
            if plan.reasoning != ReasoningMode::Off
                && let Some(judge) = plan.judge
            {
                let verdicts = judging::judge_reasoning(
                    plan,
                    judge,
                    &items,
                    &evaluation.records,
                    folder,
                    &header,
                    &mut progress,
                )
                .await?;
                let stepwise = plan.reasoning == ReasoningMode::Stepwise;
                evaluation.summary.reasoning = Some(reasoning_report(&verdicts, stepwise)?);
                let mut by_item: HashMap<String, ReasoningVerdict> =
                    verdicts.into_iter().map(|v| (v.item.clone(), v)).collect();
                for record in evaluation.records.iter_mut().filter(|r| r.sample == 0) {
                    record.judged_reasoning = by_item.remove(&record.id);
                }
            }
            evaluation
        }
        Kind::Pair | Kind::BestOf => {
            let mut verdicts = Vec::with_capacity(items.len());
            let mut replies: HashMap<&str, Vec<Presented<'_>>> = HashMap::new();
            for (request, entry) in requests.iter().zip(&entries) {
                let (outcome, text) = entry.map_or((Outcome::Failed, ""), |e| (e.outcome, e.text.as_str()));
                let seen = Presented { variant: request.variant, outcome, text, read: None };
                replies.entry(&request.item).or_default().push(seen);
            }
            for item in &items {
                let presented = replies.get(item.id.as_str()).map(Vec::as_slice).unwrap_or_default();
                verdicts.push((score_given(plan.task, item, presented), presented));
            }
            of_given(plan.task, &items, &verdicts)?
        }
    };
    let summary = &mut evaluation.summary;
    summary.model = name;
    summary.data = table.fingerprint.to_string();
    summary.samples = plan.samples;
    if let Policy::Endpoint(endpoint) = plan.policy {
        summary.endpoint = Some(endpoint.totals());
    }
    summary.notes.extend(failures(entries.iter().flatten().copied()));
    if let Some(rows) =
        plan.task.benchmark.source.rows.filter(|rows| *rows != table.rows.len() && plan.limit.is_none())
    {
        summary.notes.push(format!("the published set has {rows} rows, this one {}", table.rows.len()));
    }
    if let Some(limit) = plan.limit {
        summary.notes.push(format!("only the first {limit} items were asked"));
    }
    Ok((evaluation, report))
}

/// Why requests failed, the commonest reasons first.
fn failures<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<String> {
    const REASONS: usize = 3;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    entries
        .filter(|e| e.outcome == Outcome::Failed)
        .for_each(|e| *counts.entry(e.error.as_str()).or_insert(0) += 1);
    let total: usize = counts.values().sum();
    let mut reasons: Vec<(&str, usize)> = counts.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let short = |text: &str| text.chars().take(300).collect::<String>();
    let mut notes: Vec<String> = reasons
        .iter()
        .take(REASONS)
        .map(|(reason, n)| {
            format!("{n} request(s) failed, which the same command asks again: {}", short(reason))
        })
        .collect();
    if reasons.len() > REASONS {
        let shown: usize = reasons.iter().take(REASONS).map(|r| r.1).sum();
        notes.push(format!("{} request(s) failed for other reasons, which the log holds", total - shown));
    }
    notes
}

fn requests(items: &[Item], samples: u32) -> Vec<Request> {
    let one = |item: &Item, variant: usize, messages: &Arc<Vec<Message>>, sample| Request {
        item: item.id.clone(),
        variant: variant as u32,
        sample,
        messages: messages.clone(),
    };
    items
        .iter()
        .flat_map(|item| {
            item.prompts
                .iter()
                .enumerate()
                .flat_map(move |(v, messages)| (0..samples.max(1)).map(move |s| one(item, v, messages, s)))
        })
        .collect()
}

fn answer_of<'a>(request: &Request, entry: Option<&'a Entry>) -> Answer<'a> {
    Answer {
        outcome: Some(entry.map_or(Outcome::Failed, |e| e.outcome)),
        text: entry.map_or("", |e| e.text.as_str()),
        extraction: None,
        judge: None,
        by_judge: false,
        sample: request.sample,
        usage: entry.map_or(Usage::default(), |e| e.usage),
    }
}
