//! Asking a judge: about answers that the rules leave to one, and about the reasoning behind answers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ocelli_data::{Message, Part};
use serde_json::{Map, Value};

use super::{EvaluateError, ItemRecord, Plan, ReasoningMode};
use crate::declare::{JudgePrompt, ReplyRule};
use crate::item::Item;
use crate::judge::{
    JudgeVerdict, ReasoningVerdict, judge_message, judge_verdict, parse_steps, split_steps, tolerant_reply,
};
use crate::load::Images;
use crate::prompt::{PromptError, Renderer};
use crate::run::{Engine, Log, Policy, Progress, Request, RunHeader, request_key};
use crate::score::{Answer, strict_answer};

/// Asks the judge about every answer whose rule leaves it to one. Keyed by the position of the answer.
pub(super) async fn judge_answers(
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
            let found = strict_answer(&rule.strict, &items[*at], answer.text).answer.unwrap_or_default();
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
pub(super) async fn judge_reasoning(
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
        reply: ReplyRule::YesWord,
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
