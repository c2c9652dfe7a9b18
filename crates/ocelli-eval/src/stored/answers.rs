//! Rows of a file to stored answers.

use std::collections::HashMap;

use indexmap::IndexMap;
use ocelli_agent::endpoint::{Outcome, Usage};
use serde_json::{Map, Value};

use super::cells::{cell, label, responses};
use super::{PairNames, Rows, StoredAnswer, names_repeat, text};
use crate::declare::{Kind, StoredFormat, Task};
use crate::load::{LoadError, Place, Problems, kind_of};

/// Where programs and interfaces of endpoints say how an answer ended.
const ENDS: [&str; 6] = [
    "finish_reason",
    "stop_reason",
    "choices.0.finish_reason",
    "output.choices.0.stop_reason",
    "response.body.choices.0.finish_reason",
    "result.message.stop_reason",
];

/// Most samples that one row may hold.
const MAX_SAMPLES: usize = 4096;
/// Most rows or items that a note names.
const NAMED: usize = 5;

pub(super) fn answers(
    task: &Task,
    format: &StoredFormat,
    rows: &Rows,
) -> Result<(Vec<StoredAnswer>, Vec<String>), LoadError> {
    let mut silent = Vec::new();
    let mut gaps = Vec::new();
    let mut unnumbered: IndexMap<String, usize> = IndexMap::new();
    let mut problems = Problems::default();
    let mut samples: HashMap<String, u32> = HashMap::new();
    let mut answers = Vec::with_capacity(rows.len());
    let mut names = PairNames::default();
    for (place, row) in rows {
        let Some(item) = text(cell(row, &format.id)) else {
            let found = cell(row, &format.id).map_or("nothing", kind_of);
            problems.push(place, format!("column `{}` names the item and holds {found}", format.id));
            continue;
        };
        let item = if names_repeat(task, format) { names.next(item) } else { item };
        let scores = numbers(format.scores.iter(), row, place, "a score", &mut problems);
        let rewards = Some(&format.rewards).filter(|c| !c.is_empty());
        let rewards = numbers(rewards.into_iter(), row, place, "a list of rewards", &mut problems);
        let usage = Usage {
            completion: row.get("completion_tokens").and_then(Value::as_u64).unwrap_or(0),
            ..Usage::default()
        };
        let extraction = text(cell(row, &format.extraction));
        let said: Vec<Option<String>> = if !format.samples.is_empty() {
            let columns = response_columns(format, row);
            columns
                .iter()
                .map(|c| cell(row, c).and_then(responses).and_then(|r| r.into_iter().next()).flatten())
                .collect()
        } else if format.response.is_empty() {
            // The extraction, or nothing beside scores, stands for the response.
            vec![extraction.clone().or_else(|| (!scores.is_empty()).then(String::new))]
        } else {
            match cell(row, &format.response) {
                None => vec![None],
                Some(value) => match responses(value) {
                    Some(said) => said,
                    None => {
                        let column = &format.response;
                        problems.push(
                            place,
                            format!("column `{column}` is a response and holds {}", kind_of(value)),
                        );
                        continue;
                    }
                },
            }
        };
        let several = said.len() > 1;
        if row.get("sample").is_none() {
            *unnumbered.entry(item.clone()).or_insert(0) += 1;
        }
        if said.iter().all(Option::is_none) {
            silent.push(place.row);
        } else if said.iter().any(Option::is_none) {
            gaps.push(place.row);
        }
        let labels = labels(cell(row, &format.label), said.len());
        let cut = ENDS.iter().any(|c| {
            cell(row, c).and_then(Value::as_str).is_some_and(|r| ["length", "max_tokens"].contains(&r))
        });
        let thinking =
            ["reasoning_content", "reasoning", "thinking"].iter().find_map(|c| row.get(*c)?.as_str());
        for (at, response) in said.into_iter().enumerate() {
            let outcome = match &response {
                None => Outcome::Failed,
                Some(_) if format.response.is_empty() && format.samples.is_empty() => Outcome::Ok,
                Some(text) if text.trim().is_empty() => Outcome::Empty,
                Some(_) if cut => Outcome::Truncated,
                Some(_) => Outcome::Ok,
            };
            let next = samples.entry(item.clone()).or_insert(0);
            let numbered = row.get("sample").and_then(Value::as_u64).and_then(|s| u32::try_from(s).ok());
            let sample = numbered.filter(|_| !several).unwrap_or(*next);
            *next += 1;
            answers.push(StoredAnswer {
                item: item.clone(),
                variant: 0,
                sample,
                outcome,
                text: response.unwrap_or_default(),
                reasoning: thinking.filter(|_| !several).map(str::to_owned),
                extraction: extraction.clone().filter(|_| !several),
                judge: text(cell(row, &format.judge)),
                label: labels.get(at).copied().flatten(),
                scores: scores.clone(),
                reward: rewards.get(at).copied(),
                usage,
            });
        }
    }
    problems.into_result(&task.benchmark.title)?;
    // Failed requests of the program and rows that the format does not fit look alike, so they are told.
    let mut notes = Vec::new();
    if !silent.is_empty() {
        notes.push(format!(
            "{} rows hold no response ({}); they count as failed",
            silent.len(),
            first_rows(&silent)
        ));
    }
    if !gaps.is_empty() {
        notes.push(format!(
            "{} rows lack some of their samples ({}); these count as failed",
            gaps.len(),
            first_rows(&gaps)
        ));
    }
    // The file itself numbers no samples: its rows may as well be two runs in one file, or a mistaken name.
    let again: Vec<&str> = unnumbered.iter().filter(|(_, n)| **n > 1).map(|(id, _)| id.as_str()).collect();
    if !again.is_empty() {
        let first: Vec<String> = again.iter().take(NAMED).map(|id| format!("`{id}`")).collect();
        let more = if again.len() > NAMED { ", .." } else { "" };
        let read_as = match task.benchmark.kind {
            Kind::Answer => "samples",
            Kind::Pair | Kind::BestOf => "verdicts that must all be right in strict mode",
        };
        notes.push(format!(
            "{} items have more than one response: read as {read_as} ({}{more})",
            again.len(),
            first.join(", ")
        ));
    }
    Ok((answers, notes))
}

/// The first of some rows: `row 2, 3, 5, ..`.
fn first_rows(rows: &[usize]) -> String {
    let first: Vec<String> = rows.iter().take(NAMED).map(usize::to_string).collect();
    let more = if rows.len() > NAMED { ", .." } else { "" };
    format!("row {}{more}", first.join(", "))
}

/// Numbered columns of the samples of a row, from 0 or from 1.
fn response_columns(format: &StoredFormat, row: &Map<String, Value>) -> Vec<String> {
    let named = |i: usize| format!("{}{i}", format.samples);
    let first = usize::from(!row.contains_key(&named(0)));
    (first..MAX_SAMPLES).map(named).take_while(|column| row.contains_key(column)).collect()
}

/// Published verdicts of the samples of a row: a list of them, or one for a single sample.
fn labels(value: Option<&Value>, samples: usize) -> Vec<Option<bool>> {
    match value {
        Some(Value::Array(list)) if list.len() == samples => list.iter().map(label).collect(),
        Some(value) if samples == 1 => vec![label(value)],
        _ => vec![None; samples],
    }
}

/// Finite numbers of some columns, each a number or a list of numbers.
fn numbers<'a>(
    columns: impl Iterator<Item = &'a String>,
    row: &Map<String, Value>,
    place: &Place,
    what: &str,
    problems: &mut Problems,
) -> Vec<f64> {
    let mut found = Vec::new();
    for column in columns {
        match cell(row, column) {
            Some(Value::Number(n)) => found.push(n.as_f64().unwrap_or(f64::NAN)),
            Some(Value::Array(list)) => found.extend(list.iter().map(|v| v.as_f64().unwrap_or(f64::NAN))),
            other => problems.push(
                place,
                format!("column `{column}` is {what} and holds {}", other.map_or("nothing", kind_of)),
            ),
        }
    }
    if let Some(bad) = found.iter().find(|s| !s.is_finite()) {
        problems.push(place, format!("{what} is {bad}, not a finite number"));
    }
    found
}
