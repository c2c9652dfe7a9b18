//! A whole evaluation: load, ask, judge, score, summarise; or the same from stored outputs without asking.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use ocelli_agent::endpoint::{Outcome, SamplingParams, Usage};
use ocelli_data::{ContentHash, Message, Part};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::declare::{Benchmark, JudgePrompt, Kind, ReferenceRule, Task};
use crate::item::{CAPTION_PLACE, Item, items};
use crate::judge::{
    JudgeVerdict, ReasoningVerdict, judge_agreement, judge_message, judge_verdict, parse_steps,
    reasoning_report, split_steps, tolerant_reply,
};
use crate::load::{Images, LoadError, Table};
use crate::prompt::{PromptError, Renderer};
use crate::run::{
    Cache, Engine, Entry, Log, LogError, Policy, Progress, Request, RunError, RunHeader, RunReport,
    request_key,
};
use crate::score::{Answer, GivenVerdict, Presented, Scored, score, score_given, score_scalar};
use crate::stats::StatsError;
use crate::stored::{Stored, StoredAnswer};
use crate::summary::{
    Difference, LabelCheck, Mode, PairSummary, Summary, curves, difference, group_tables, item_credits,
    metrics, pair_summary, summarise,
};

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
    /// How it ended.
    pub outcome: Outcome,
    /// Verdict of the official rule: credit, answer, rule and note.
    pub reference: crate::score::Verdict,
    /// Verdict of ours.
    pub strict: crate::score::Verdict,
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
    mut cache: Option<&mut Cache>,
    mut progress: impl FnMut(&str, Progress),
) -> Result<(Evaluation, RunReport), EvaluateError> {
    let mut items = items(plan.task, table)?;
    if let Some(limit) = plan.limit {
        items.truncate(limit);
    }
    let header = header(plan, table, items.len());
    let engine = Engine { policy: plan.policy, sampling: &plan.sampling, images: &table.images };
    if plan.task.axes.get("input").is_some_and(|v| v == "caption") {
        captions(plan, table, folder, &header, &mut items, &mut progress).await?;
    }
    let mut log = Log::open(folder, "log", &header)?;
    let requests = requests(&items, plan.samples);
    let report = engine.run(&requests, &mut log, cache.as_deref_mut(), |p| progress("answers", p)).await?;
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
                    judge_answers(plan, judge, &items, &answers, folder, &header, &mut progress).await?
                }
                None => HashMap::new(),
            };
            for (i, (_, answer)) in answers.iter_mut().enumerate() {
                answer.judge = replies.get(&i);
            }
            let mut evaluation = of_answers(plan.task, &items, &answers, &HashMap::new())?;
            for (record, entry) in evaluation.records.iter_mut().zip(&entries) {
                record.reasoning = entry.and_then(|e| e.reasoning.clone());
            }
            if plan.reasoning != ReasoningMode::Off {
                if let Some(judge) = plan.judge {
                    let verdicts = judge_reasoning(
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
        sample: request.sample,
        usage: entry.map_or(Usage::default(), |e| e.usage),
    }
}

/// Asks for captions and puts them into the prompts. A caption that does not come leaves its place empty in the text,
/// which the answer then has to do without; the count is in the log.
async fn captions(
    plan: &Plan<'_>,
    table: &Table,
    folder: &Path,
    header: &RunHeader,
    items: &mut [Item],
    progress: &mut impl FnMut(&str, Progress),
) -> Result<(), EvaluateError> {
    let Some(caption) = &plan.task.benchmark.prompt.caption else { return Ok(()) };
    let renderer = Renderer::new(plan.task);
    let rows: HashMap<&str, &crate::load::Row> = table.rows.iter().map(|r| (r.id.as_str(), r)).collect();
    let sampling = SamplingParams {
        temperature: Some(0.0),
        max_tokens: Some(caption.max_tokens),
        ..SamplingParams::default()
    };
    let mut requests = Vec::with_capacity(items.len());
    for item in items.iter() {
        let Some(row) = rows.get(item.id.as_str()) else { continue };
        let variables = renderer.variables(row, &item.question, &item.options);
        let text = renderer.text(&item.id, &caption.user, &variables)?;
        let messages = Arc::new(vec![Message::user(renderer.cut(row, &text)?)]);
        requests.push(Request { item: item.id.clone(), variant: 0, sample: 0, messages });
    }
    let mut log = Log::open(folder, "captions", header)?;
    let engine = Engine { policy: plan.policy, sampling: &sampling, images: &table.images };
    engine.run(&requests, &mut log, None, |p| progress("captions", p)).await?;
    let name = plan.policy.name();
    for (item, request) in items.iter_mut().zip(&requests) {
        let text = log.answer(request_key(&name, request, &sampling)).map_or("", |e| e.text.as_str());
        for prompt in &mut item.prompts {
            for part in Arc::make_mut(prompt).iter_mut().flat_map(|m| &mut m.content) {
                if let Part::Text { text: body } = part {
                    *body = body.replace(CAPTION_PLACE, text);
                }
            }
        }
    }
    Ok(())
}

/// Asks the judge about every answer whose rule leaves it to one. Keyed by the position of the answer.
async fn judge_answers(
    plan: &Plan<'_>,
    judge: &Policy,
    items: &[Item],
    answers: &[(usize, Answer<'_>)],
    folder: &Path,
    header: &RunHeader,
    progress: &mut impl FnMut(&str, Progress),
) -> Result<HashMap<usize, JudgeVerdict>, EvaluateError> {
    let benchmark = &plan.task.benchmark;
    let renderer = Renderer::new(plan.task);
    let mut verdicts = HashMap::new();
    for (name, prompt) in &benchmark.judges {
        let mut places = Vec::new();
        let mut requests = Vec::new();
        for (i, (at, answer)) in answers.iter().enumerate() {
            let rule = &benchmark.score[items[*at].rule];
            if rule.judge.as_ref() != Some(name) || answer.text.trim().is_empty() {
                continue;
            }
            let found = crate::score::strict_answer(&rule.strict, &items[*at], answer.text)
                .answer
                .unwrap_or_default();
            let text = judge_message(&renderer, prompt, &items[*at], answer.text, &found)?;
            let messages = Arc::new(vec![Message::user([Part::text(text)])]);
            places.push(i);
            requests.push(Request {
                item: items[*at].id.clone(),
                variant: 0,
                sample: answer.sample,
                messages,
            });
        }
        let replies =
            ask_judge(judge, prompt, &requests, folder, "judge", header, |p| progress("judge", p)).await?;
        for (i, reply) in places.into_iter().zip(replies) {
            if let Some(reply) = reply {
                verdicts.insert(i, judge_verdict(prompt.reply, &reply));
            }
        }
    }
    Ok(verdicts)
}

async fn ask_judge(
    judge: &Policy,
    prompt: &JudgePrompt,
    requests: &[Request],
    folder: &Path,
    log: &str,
    header: &RunHeader,
    progress: impl FnMut(Progress),
) -> Result<Vec<Option<String>>, EvaluateError> {
    let images = Images::new(folder);
    let mut log = Log::open(folder, log, header)?;
    let engine = Engine { policy: judge, sampling: &prompt.sampling, images: &images };
    engine.run(requests, &mut log, None, progress).await?;
    let name = judge.name();
    let reply = |r: &Request| log.answer(request_key(&name, r, &prompt.sampling)).map(|e| e.text.clone());
    Ok(requests.iter().map(reply).collect())
}

/// Judges the reasoning of first samples of items that have an explanation.
async fn judge_reasoning(
    plan: &Plan<'_>,
    judge: &Policy,
    items: &[Item],
    records: &[ItemRecord],
    folder: &Path,
    header: &RunHeader,
    progress: &mut impl FnMut(&str, Progress),
) -> Result<Vec<ReasoningVerdict>, EvaluateError> {
    let Some(declared) = &plan.task.benchmark.reasoning else { return Ok(Vec::new()) };
    let renderer = Renderer::new(plan.task);
    let by_id: HashMap<&str, &Item> = items.iter().map(|i| (i.id.as_str(), i)).collect();
    let mut verdicts = Vec::new();
    let (mut binary, mut stepwise) = (Vec::new(), Vec::new());
    let mut counts = Vec::new();
    for record in records.iter().filter(|r| r.sample == 0) {
        let Some(item) = by_id.get(record.id.as_str()) else { continue };
        let Some(explanation) = &item.explanation else { continue };
        let solution = match &record.reasoning {
            Some(thinking) => format!("{thinking}\n\n{}", record.response),
            None => record.response.clone(),
        };
        let (steps, reference_steps) = (split_steps(&solution), split_steps(explanation));
        let mut variables = Map::new();
        let mut put = |name: &str, value: String| variables.insert(name.to_owned(), Value::String(value));
        put("question", item.question.clone());
        put("explanation", explanation.clone());
        put("response", solution.clone());
        put("steps", numbered(&steps));
        put("reference_steps", numbered(&reference_steps));
        let ask = |template: &str| -> Result<Request, PromptError> {
            let text = renderer.text(&item.id, template, &variables)?;
            let messages = Arc::new(vec![Message::user([Part::text(text)])]);
            Ok(Request { item: item.id.clone(), variant: 0, sample: 0, messages })
        };
        binary.push(ask(&declared.binary)?);
        if plan.reasoning == ReasoningMode::Stepwise {
            stepwise.push(ask(&declared.stepwise)?);
        }
        counts.push((steps.len(), reference_steps.len()));
        verdicts.push(ReasoningVerdict {
            item: item.id.clone(),
            answer_right: record.strict.or_zero() > 0.5,
            reference_right: record.reference.or_zero() > 0.5,
            groups: item.groups.clone(),
            reference_steps: reference_steps.len(),
            ..ReasoningVerdict::default()
        });
    }
    let prompt = JudgePrompt {
        version: declared.version,
        user: String::new(),
        reply: crate::declare::ReplyRule::YesWord,
        sampling: declared.sampling.clone(),
    };
    let replies =
        ask_judge(judge, &prompt, &binary, folder, "reasoning", header, |p| progress("reasoning", p)).await?;
    for (verdict, reply) in verdicts.iter_mut().zip(replies) {
        let reply = reply.unwrap_or_default();
        verdict.sound = tolerant_reply(&reply);
        verdict.comment = reply;
    }
    let replies =
        ask_judge(judge, &prompt, &stepwise, folder, "steps", header, |p| progress("steps", p)).await?;
    for ((verdict, reply), (steps, reference)) in verdicts.iter_mut().zip(replies).zip(counts) {
        if let Some((steps, covered)) = reply.and_then(|r| parse_steps(&r, steps, reference)) {
            verdict.steps = Some(steps);
            verdict.covered = covered;
        }
    }
    Ok(verdicts)
}

fn numbered(steps: &[String]) -> String {
    steps.iter().enumerate().map(|(i, s)| format!("{}. {s}\n", i + 1)).collect()
}

/// Scores stored outputs. Items without an output count as failed and stay in the denominator.
pub fn rescore(
    task: &Task,
    stored: &Stored,
    model: &str,
    rewards: &HashMap<(String, u32), f64>,
) -> Result<Evaluation, EvaluateError> {
    let place: HashMap<&str, usize> =
        stored.items.iter().enumerate().map(|(i, item)| (item.id.as_str(), i)).collect();
    let answered: std::collections::HashSet<&str> = stored.answers.iter().map(|a| a.item.as_str()).collect();
    let absent = stored.items.iter().filter(|i| !answered.contains(i.id.as_str())).count();
    let mut evaluation = match task.benchmark.kind {
        Kind::Answer => {
            let mut answers: Vec<(usize, Answer<'_>)> = stored
                .answers
                .iter()
                .filter_map(|a| {
                    let answer = Answer {
                        outcome: Some(a.outcome),
                        text: &a.text,
                        extraction: a.extraction.as_deref(),
                        judge: None,
                        sample: a.sample,
                        usage: a.usage,
                    };
                    Some((*place.get(a.item.as_str())?, answer))
                })
                .collect();
            for (i, item) in stored.items.iter().enumerate() {
                if !answered.contains(item.id.as_str()) {
                    answers.push((i, Answer { outcome: Some(Outcome::Failed), ..Answer::default() }));
                }
            }
            answers.sort_by_key(|(at, a)| (*at, a.sample));
            of_answers(task, &stored.items, &answers, rewards)?
        }
        Kind::Pair | Kind::BestOf => {
            let mut by_item: HashMap<&str, Vec<&StoredAnswer>> = HashMap::new();
            stored.answers.iter().for_each(|a| by_item.entry(&a.item).or_default().push(a));
            let mut presented: Vec<Vec<Presented<'_>>> = Vec::with_capacity(stored.items.len());
            for item in &stored.items {
                let answers = by_item.get(item.id.as_str()).map(Vec::as_slice).unwrap_or_default();
                let one = |a: &&'_ StoredAnswer| {
                    let read = a.extraction.as_ref().and_then(|e| e.trim().parse().ok());
                    (a.variant, a.outcome, read)
                };
                let seen = answers.iter().map(|a| {
                    let (variant, outcome, read) = one(a);
                    Presented { variant, outcome, text: a.text.as_str(), read }
                });
                presented.push(seen.collect());
            }
            let verdicts: Vec<(GivenVerdict, &[Presented<'_>])> = stored
                .items
                .iter()
                .zip(&presented)
                .map(|(item, seen)| {
                    let scores =
                        by_item.get(item.id.as_str()).and_then(|a| a.first()).map(|a| a.scores.as_slice());
                    match scores.filter(|s| !s.is_empty()) {
                        Some(scores) => (score_scalar(task, item, scores), seen.as_slice()),
                        None => (score_given(task, item, seen), seen.as_slice()),
                    }
                })
                .collect();
            of_given(task, &stored.items, &verdicts)?
        }
    };
    let summary = &mut evaluation.summary;
    summary.model = model.to_owned();
    summary.data = stored.data.to_string();
    if absent > 0 {
        summary.notes.push(format!("{absent} items have no stored output; they count as failed"));
    }
    summary.labels = labels(stored, &evaluation.records);
    let thinking: HashMap<(&str, u32), &String> = stored
        .answers
        .iter()
        .filter_map(|a| Some(((a.item.as_str(), a.sample), a.reasoning.as_ref()?)))
        .collect();
    for record in &mut evaluation.records {
        record.reasoning = thinking.get(&(record.id.as_str(), record.sample)).map(|t| (*t).clone());
    }
    Ok(evaluation)
}

fn labels(stored: &Stored, records: &[ItemRecord]) -> Option<LabelCheck> {
    let published: HashMap<(&str, u32), bool> =
        stored.answers.iter().filter_map(|a| Some(((a.item.as_str(), a.sample), a.label?))).collect();
    if published.is_empty() {
        return None;
    }
    let mut check = LabelCheck::default();
    for record in records {
        let Some(&label) = published.get(&(record.id.as_str(), record.sample)) else { continue };
        let here = record.reference.or_zero() > 0.5;
        check.compared += 1;
        check.published_right += usize::from(label);
        check.recomputed_right += usize::from(here);
        if label != here {
            let answer = record.reference.answer.clone().unwrap_or_default();
            check.contradictions.push((record.id.clone(), label, here, answer));
        }
    }
    Some(check)
}

fn blank(task: &Task, benchmark: &Benchmark, items: usize) -> Result<Summary, StatsError> {
    let none =
        crate::summary::ModeSummary { estimate: None, credit: 0.0, n: 0, left_out: 0, worst: 0.0, best: 0.0 };
    Ok(Summary {
        task: task.name(),
        title: benchmark.title.clone(),
        model: String::new(),
        items,
        samples: 1,
        outcomes: BTreeMap::new(),
        undecided: 0,
        reference: none,
        strict: none,
        groups: Vec::new(),
        metrics: Vec::new(),
        difference_kinds: BTreeMap::new(),
        curves: None,
        pairs: None,
        judge: None,
        reasoning: None,
        labels: None,
        usage: Usage::default(),
        endpoint: None,
        declaration: benchmark.hash().to_string(),
        data: String::new(),
        notes: benchmark.source.notes.clone(),
    })
}

fn prompt_text(item: &Item) -> String {
    let Some(prompt) = item.prompts.first() else {
        let options: String = item
            .options
            .iter()
            .enumerate()
            .map(|(i, o)| format!("\n({}) {o}", crate::prompt::option_letter(i)))
            .collect();
        return format!("{}{options}", item.question);
    };
    let mut images = 0;
    let mut text = String::new();
    for message in prompt.iter() {
        for part in &message.content {
            match part {
                Part::Text { text: t } => text.push_str(t),
                Part::Image { .. } => {
                    images += 1;
                    text.push_str(&format!("[image {images}]"));
                }
            }
        }
        text.push('\n');
    }
    text
}

fn fill(
    summary: &mut Summary,
    task: &Task,
    items: &[Item],
    scored: &[Scored],
    scores: &BTreeMap<String, Vec<f64>>,
) -> Result<Vec<Difference>, StatsError> {
    let credits = item_credits(items, scored);
    summary.reference = summarise(&credits, Mode::Reference)?;
    summary.strict = summarise(&credits, Mode::Strict)?;
    summary.groups = group_tables(&task.benchmark, &credits)?;
    summary.metrics = metrics(&task.benchmark, &credits, &summary.groups, scored, scores)?;
    summary.undecided = scored.iter().filter(|s| s.strict.undecided).count();
    let mut differences = Vec::new();
    for s in scored {
        *summary.outcomes.entry(s.outcome).or_insert(0) += 1;
        summary.usage += s.usage;
        if let Some(d) = difference(s) {
            let count = summary.difference_kinds.entry(d.kind).or_insert((0, 0));
            if d.reference.unwrap_or(0.0) > d.strict {
                count.0 += 1
            } else {
                count.1 += 1
            }
            differences.push(d);
        }
    }
    Ok(differences)
}

fn of_answers(
    task: &Task,
    items: &[Item],
    answers: &[(usize, Answer<'_>)],
    rewards: &HashMap<(String, u32), f64>,
) -> Result<Evaluation, EvaluateError> {
    let mut summary = blank(task, &task.benchmark, items.len())?;
    let scored: Vec<Scored> = answers.iter().map(|(at, a)| score(task, &items[*at], a)).collect();
    let differences = fill(&mut summary, task, items, &scored, &BTreeMap::new())?;
    summary.samples = answers.iter().map(|(_, a)| a.sample + 1).max().unwrap_or(1);
    summary.curves = Some(curves(items, &scored, rewards)?);
    let judged: Vec<(Option<bool>, Option<bool>)> = answers
        .iter()
        .zip(&scored)
        .filter_map(|((_, a), s)| {
            let rule = (!s.strict.undecided && s.strict.answer.is_some()).then(|| s.strict.or_zero() > 0.5);
            Some((a.judge?.strict, rule))
        })
        .collect();
    if !judged.is_empty() {
        summary.judge = Some(judge_agreement(&judged)?);
    }
    let left_to_judge =
        items.iter().filter(|i| task.benchmark.score[i.rule].reference == ReferenceRule::JudgeOnly).count();
    if left_to_judge > 0 && judged.is_empty() {
        summary.notes.push(format!(
            "the official verdict on {left_to_judge} items is a judge's and no judge was asked: they count as wrong in reference mode"
        ));
    }
    let records = answers
        .iter()
        .zip(scored)
        .map(|((at, answer), s)| {
            let item = &items[*at];
            ItemRecord {
                id: item.id.clone(),
                sample: s.sample,
                prompt: prompt_text(item),
                images: item.images().collect(),
                gold: item.gold_text(),
                response: answer.text.to_owned(),
                reasoning: None,
                outcome: s.outcome,
                reference: s.reference,
                strict: s.strict,
                groups: item.groups.clone(),
                cluster: item.cluster.clone(),
                tokens: s.usage.completion,
                judge: answer.judge.map(|j| j.reply.clone()).unwrap_or_default(),
            }
        })
        .collect();
    Ok(Evaluation { summary, records, differences })
}

fn of_given(
    task: &Task,
    items: &[Item],
    verdicts: &[(GivenVerdict, &[Presented<'_>])],
) -> Result<Evaluation, EvaluateError> {
    let mut summary = blank(task, &task.benchmark, items.len())?;
    let scores: BTreeMap<String, Vec<f64>> = verdicts
        .iter()
        .filter(|(v, _)| !v.scores.is_empty())
        .map(|(v, _)| (v.item.clone(), v.scores.clone()))
        .collect();
    let as_scored = |v: &GivenVerdict| Scored {
        item: v.item.clone(),
        sample: 0,
        outcome: if v.failed > 0 {
            Outcome::Failed
        } else if v.unparsed > 0 {
            Outcome::Unparsed
        } else {
            Outcome::Ok
        },
        reference: v.reference.clone(),
        strict: v.strict.clone(),
        usage: Usage::default(),
    };
    let scored: Vec<Scored> = verdicts.iter().map(|(v, _)| as_scored(v)).collect();
    let differences = fill(&mut summary, task, items, &scored, &scores)?;
    let plain: Vec<GivenVerdict> = verdicts.iter().map(|(v, _)| v.clone()).collect();
    let pairs: PairSummary = pair_summary(items, &plain)?;
    summary.pairs = Some(pairs);
    let records = items
        .iter()
        .zip(scored)
        .zip(verdicts)
        .map(|((item, s), (_, presented))| ItemRecord {
            id: item.id.clone(),
            sample: 0,
            prompt: prompt_text(item),
            images: item.images().collect(),
            gold: item.gold_text(),
            response: presented.iter().map(|p| p.text).collect::<Vec<_>>().join("\n\n---\n\n"),
            reasoning: None,
            outcome: s.outcome,
            reference: s.reference,
            strict: s.strict,
            groups: item.groups.clone(),
            cluster: item.cluster.clone(),
            tokens: 0,
            judge: String::new(),
        })
        .collect();
    Ok(Evaluation { summary, records, differences })
}
