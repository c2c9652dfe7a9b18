//! Stored outputs to an evaluation, without asking anything.

use std::collections::{HashMap, HashSet};

use ocelli_agent::endpoint::Outcome;

use super::assemble::{of_answers, of_given};
use super::{EvaluateError, Evaluation, Extra, ItemRecord};
use crate::declare::{Kind, Task};
use crate::judge::{JudgeVerdict, judge_verdict};
use crate::score::{Answer, GivenVerdict, Presented, score_given, score_scalar};
use crate::stored::{Stored, StoredAnswer};
use crate::summary::LabelCheck;

/// Scores stored outputs. Items without an output count as failed and stay in the denominator.
pub fn rescore(
    task: &Task,
    stored: &Stored,
    model: &str,
    extra: &Extra,
) -> Result<Evaluation, EvaluateError> {
    let place: HashMap<&str, usize> =
        stored.items.iter().enumerate().map(|(i, item)| (item.id.as_str(), i)).collect();
    let answered: HashSet<&str> = stored.answers.iter().map(|a| a.item.as_str()).collect();
    let absent = stored.items.iter().filter(|i| !answered.contains(i.id.as_str())).count();
    let judged = judged(task, stored, &place);
    let stored_rewards = stored.answers.iter().filter_map(|a| Some(((a.item.clone(), a.sample), a.reward?)));
    let mut extra = extra.clone();
    for (key, reward) in stored_rewards {
        extra.rewards.entry(key).or_insert(reward);
    }
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
                        judge: judged.get(&(a.item.as_str(), a.sample)),
                        by_judge: stored.by_judge,
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
            of_answers(task, &stored.items, &answers, &extra)?
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
                let mut seen: Vec<Presented<'_>> = seen.collect();
                if seen.is_empty() {
                    // A pair nobody judged is a failed request: without any verdict it would pass for one that ended well.
                    seen.push(Presented { variant: 0, outcome: Outcome::Failed, text: "", read: None });
                }
                presented.push(seen);
            }
            let verdicts: Vec<(GivenVerdict, &[Presented<'_>])> = stored
                .items
                .iter()
                .zip(&presented)
                .map(|(item, seen)| {
                    let scores =
                        by_item.get(item.id.as_str()).and_then(|a| a.first()).map(|a| a.scores.as_slice());
                    match scores.filter(|s| !s.is_empty()) {
                        Some(scores) => (score_scalar(task, item, scores, stored.ties), seen.as_slice()),
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
    summary.notes.extend(stored.notes.iter().cloned());
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

/// Verdicts of the judge whose replies are stored, by item and sample.
fn judged<'a>(
    task: &Task,
    stored: &'a Stored,
    place: &HashMap<&str, usize>,
) -> HashMap<(&'a str, u32), JudgeVerdict> {
    let verdict = |a: &'a StoredAnswer| {
        let rule = task.benchmark.score.get(stored.items[*place.get(a.item.as_str())?].rule)?;
        let prompt = task.benchmark.judges.get(rule.judge.as_ref()?)?;
        Some(((a.item.as_str(), a.sample), judge_verdict(prompt.reply, a.judge.as_ref()?)))
    };
    stored.answers.iter().filter_map(verdict).collect()
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
