//! Rows of a file to stored answers.

use std::collections::HashMap;

use ocelli_agent::endpoint::{Outcome, Usage};
use serde_json::{Map, Value};

use super::{PairNames, Rows, StoredAnswer, names_repeat, text};
use crate::declare::{StoredFormat, Task};
use crate::load::{LoadError, Place, Problems, kind_of};

/// Most samples that one row may hold.
const MAX_SAMPLES: usize = 4096;

pub(super) fn answers(
    task: &Task,
    format: &StoredFormat,
    rows: &Rows,
) -> Result<Vec<StoredAnswer>, LoadError> {
    let mut problems = Problems::default();
    let mut samples: HashMap<String, u32> = HashMap::new();
    let mut answers = Vec::with_capacity(rows.len());
    let mut names = PairNames::default();
    for (place, row) in rows {
        let Some(item) = text(row.get(&format.id)) else {
            let found = row.get(&format.id).map_or("nothing", kind_of);
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
        let columns = response_columns(format, row);
        let several = columns.len() > 1;
        for (at, column) in columns.into_iter().enumerate() {
            let extraction = text(row.get(&format.extraction)).filter(|_| !several);
            let (outcome, response) = match row.get(&column) {
                _ if column.is_empty() => {
                    let text = extraction.clone().unwrap_or_default();
                    let missing = text.is_empty() && scores.is_empty();
                    (if missing { Outcome::Failed } else { Outcome::Ok }, text)
                }
                Some(Value::String(s)) if s.trim().is_empty() => (Outcome::Empty, s.clone()),
                Some(Value::String(s)) => (Outcome::Ok, s.clone()),
                Some(Value::Number(n)) => (Outcome::Ok, n.to_string()),
                Some(Value::Null) | None => (Outcome::Failed, String::new()),
                Some(other) => {
                    problems
                        .push(place, format!("column `{column}` is a response and holds {}", kind_of(other)));
                    continue;
                }
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
                text: response,
                reasoning: None,
                extraction,
                judge: text(row.get(&format.judge)),
                label: label(row.get(&format.label)).filter(|_| !several),
                scores: scores.clone(),
                reward: rewards.get(at).copied(),
                usage,
            });
        }
    }
    problems.into_result(&task.benchmark.title)?;
    Ok(answers)
}

/// Columns of the responses of a row; one empty name where the extraction stands for the response.
fn response_columns(format: &StoredFormat, row: &Map<String, Value>) -> Vec<String> {
    if format.samples.is_empty() {
        return vec![format.response.clone()];
    }
    let numbered = (0..MAX_SAMPLES).map(|i| format!("{}{i}", format.samples));
    numbered.take_while(|column| row.contains_key(column)).collect()
}

/// A published verdict: true and false, or 1 and 0, also as text.
fn label(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => n.as_f64().map(|x| x > 0.5),
        Value::String(s) => match s.trim().to_lowercase().as_str() {
            "true" | "1" | "correct" => Some(true),
            "false" | "0" | "incorrect" => Some(false),
            _ => None,
        },
        _ => None,
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
        match row.get(column) {
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
