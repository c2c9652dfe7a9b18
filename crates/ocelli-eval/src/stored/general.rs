//! Files of any program: which rows a document holds, and which of their columns name the item, the response and
//! the published verdict. Columns are known by their usual names, in any spelling (`question_id`, `questionId`).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::cells::{cell, label, responses};
use super::{Rows, columns_of};
use crate::declare::{Format, Kind, StoredFormat, Task};
use crate::load::Place;

/// Usual names of items, best first.
const IDS: [&str; 18] = [
    "id",
    "pid",
    "questionid",
    "qid",
    "uniqueid",
    "uid",
    "itemid",
    "sampleid",
    "exampleid",
    "instanceid",
    "problemid",
    "taskid",
    "customid",
    "idx",
    "index",
    "docid",
    "#key",
    "number",
];
/// Tables in which a harness keeps the row of the data set.
const HOLDERS: [&str; 10] =
    ["doc", "metadata", "meta", "item", "sample", "input", "example", "data", "extrainfo", "annotation"];
/// Usual names of responses, best first. `answer` is last: it often is the gold answer.
const RESPONSES: [&str; 36] = [
    "response",
    "modelresponse",
    "output",
    "modeloutput",
    "generation",
    "completion",
    "rawoutput",
    "generatedtext",
    "generatedresponse",
    "modelgeneration",
    "outputtext",
    "fullresponse",
    "rawresponse",
    "finalresponse",
    "resps",
    "responses",
    "outputs",
    "completions",
    "generations",
    "generatedresponses",
    "modeloutputs",
    "code",
    "prediction",
    "modelprediction",
    "pred",
    "predictions",
    "filteredresps",
    "text",
    "reply",
    "result",
    "content",
    "messages",
    "choices",
    "modelanswer",
    "predictedanswer",
    "answer",
];
const LABELS: [&str; 15] = [
    "correct",
    "truefalse",
    "iscorrect",
    "hit",
    "ifright",
    "right",
    "isright",
    "passed",
    "match",
    "exactmatch",
    "acc",
    "accuracy",
    "judgement",
    "score",
    "results",
];
/// Pairs of columns of scalar scores, of the first answer and of the second.
const SCORES: [[&str; 2]; 6] = [
    ["scorea", "scoreb"],
    ["scorechosen", "scorerejected"],
    ["scoreschosen", "scoresrejected"],
    ["chosenscore", "rejectedscore"],
    ["rewardchosen", "rewardrejected"],
    ["chosenreward", "rejectedreward"],
];
/// Where documents keep their rows.
const CONTAINERS: [&str; 11] = [
    "results",
    "samples",
    "data",
    "rows",
    "outputs",
    "predictions",
    "items",
    "records",
    "examples",
    "logs",
    "responses",
];
/// Rows that are looked at to know the columns.
const LOOKED_AT: usize = 200;
/// Most columns, nested ones included.
const MAX_COLUMNS: usize = 2_000;

fn spelling(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric() || *c == '#').flat_map(char::to_lowercase).collect()
}

/// Rows of a document: a list of tables or texts, a table of rows by name, columns as lists, or any of these under a key.
pub(super) fn rows_of(document: Value, file: &std::sync::Arc<str>) -> Result<Rows, String> {
    let place = |row: usize| Place { file: file.clone(), row };
    match document {
        Value::Array(list) => list
            .into_iter()
            .enumerate()
            .map(|(i, row)| match row {
                Value::Object(map) => Ok((place(i + 1), map)),
                text @ (Value::String(_) | Value::Null) => {
                    Ok((place(i + 1), Map::from_iter([("response".to_owned(), text)])))
                }
                other => Err(format!("row {} is {}, not an object", i + 1, crate::load::kind_of(&other))),
            })
            .collect(),
        Value::Object(mut map) => {
            if let Some(rows) = transposed(&map) {
                return rows_of(Value::Array(rows), file);
            }
            if !map.values().all(Value::is_object) {
                let known =
                    map.iter().find(|(k, v)| CONTAINERS.contains(&spelling(k).as_str()) && holds_rows(v));
                let lists: Vec<&String> = map.iter().filter(|(_, v)| holds_rows(v)).map(|(k, _)| k).collect();
                let key = known.map(|(k, _)| k.clone()).or(if lists.len() == 1 {
                    Some(lists[0].clone())
                } else {
                    None
                });
                if let Some(inner) = key.and_then(|k| map.get_mut(&k)).map(Value::take) {
                    return rows_of(inner, file);
                }
            }
            map.into_iter()
                .enumerate()
                .map(|(i, (key, value))| {
                    let mut row = match value {
                        Value::Object(row) => row,
                        other if responses(&other).is_some() => {
                            Map::from_iter([("response".to_owned(), other)])
                        }
                        other => {
                            return Err(format!(
                                "the value of `{key}` is {}, neither a row nor a response",
                                crate::load::kind_of(&other)
                            ));
                        }
                    };
                    row.insert("#key".into(), Value::String(key));
                    Ok((place(i + 1), row))
                })
                .collect()
        }
        other => Err(format!("holds {}, not rows", crate::load::kind_of(&other))),
    }
}

/// Whether a value is a list of tables or a table of tables.
fn holds_rows(value: &Value) -> bool {
    match value {
        Value::Array(list) => !list.is_empty() && list.iter().all(Value::is_object),
        Value::Object(inner) => !inner.is_empty() && inner.values().all(Value::is_object),
        _ => false,
    }
}

/// Whether the only row of a file is a whole document: columns as lists, rows under a key of something that has no name
/// itself, or responses by name.
pub(super) fn is_document(row: &Map<String, Value>) -> bool {
    let named =
        |names: &[&str]| row.iter().any(|(k, v)| names.contains(&spelling(k).as_str()) && !v.is_array());
    let texts = |v: &Value| {
        v.is_string() || v.is_null() || v.as_array().is_some_and(|l| l.iter().all(Value::is_string))
    };
    transposed(row).is_some()
        || (!named(&IDS) && row.values().any(holds_rows))
        || (!row.is_empty() && !named(&IDS) && !named(&RESPONSES) && row.values().all(texts))
}

/// Rows of a table of columns: `{"id": [1, 2], "response": ["a", "b"]}`, or with tables by row number in place of lists.
/// Columns of scores may stand beside facts about the whole (`"model": "m"`), as in RewardBench's result files.
fn transposed(map: &Map<String, Value>) -> Option<Vec<Value>> {
    let named = map.keys().any(|k| RESPONSES.contains(&spelling(k).as_str()));
    let scored = map.keys().any(|k| {
        let name = spelling(k);
        name == "scores" || SCORES.iter().flatten().any(|s| *s == name)
    });
    if scored && map.values().any(|v| v.is_string() || v.is_null()) {
        let columns: Map<String, Value> =
            map.iter().filter(|(_, v)| v.is_array()).map(|(k, v)| (k.clone(), v.clone())).collect();
        return if columns.len() < map.len() { transposed(&columns) } else { None };
    }
    if !(named || scored) || map.len() < 2 {
        return None;
    }
    let lists: Option<Vec<Vec<&Value>>> = map
        .values()
        .map(|column| match column {
            Value::Array(list) => Some(list.iter().collect()),
            Value::Object(by_row) if by_row.keys().all(|k| k.parse::<u64>().is_ok()) => {
                Some(by_row.values().collect())
            }
            _ => None,
        })
        .collect();
    let lists = lists?;
    let n = lists[0].len();
    if n == 0 || lists.iter().any(|l| l.len() != n) {
        return None;
    }
    let row = |i: usize| Value::Object(map.keys().cloned().zip(lists.iter().map(|l| l[i].clone())).collect());
    Some((0..n).map(row).collect())
}

/// Names of the columns, those within tables as paths, in the order in which rows show them.
pub(super) fn columns(rows: &Rows) -> Vec<String> {
    fn add(
        prefix: &str,
        map: &Map<String, Value>,
        depth: usize,
        seen: &mut HashSet<String>,
        names: &mut Vec<String>,
    ) {
        for (key, value) in map {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if names.len() < MAX_COLUMNS && seen.insert(name.clone()) {
                names.push(name.clone());
            }
            if let (Value::Object(inner), true) = (value, depth < 3) {
                add(&name, inner, depth + 1, seen, names);
            }
        }
    }
    let (mut seen, mut names) = (HashSet::new(), Vec::new());
    rows.iter().take(LOOKED_AT).for_each(|(_, row)| add("", row, 0, &mut seen, &mut names));
    names
}

/// Columns that may name the item, best first.
pub(super) fn id_columns(columns: &[String]) -> Vec<String> {
    let rank = |name: &String| {
        let mut parts: Vec<String> = name.split('.').map(spelling).collect();
        let last = IDS.iter().position(|id| Some(*id) == parts.last().map(String::as_str))?;
        parts.pop();
        let held = parts.iter().all(|p| HOLDERS.contains(&p.as_str()));
        held.then_some((parts.len(), last))
    };
    let mut found: Vec<(usize, usize, &String)> =
        columns.iter().filter_map(|c| rank(c).map(|(depth, last)| (depth, last, c))).collect();
    found.sort();
    found.into_iter().map(|(_, _, name)| name.clone()).collect()
}

/// The cells of a column that are there.
fn cells<'a>(rows: &'a Rows, column: &'a str) -> impl Iterator<Item = &'a Value> {
    rows.iter().filter_map(move |(_, row)| cell(row, column))
}

/// The columns of a general file; the item's name may be missing, which the caller then finds out otherwise. `own` are columns of
/// the data set, which are no responses.
pub(super) fn format_of(
    task: &Task,
    found: Format,
    rows: &Rows,
    own: &[String],
) -> Result<StoredFormat, String> {
    let columns = columns(rows);
    let top: Vec<&String> =
        columns.iter().filter(|c| rows.iter().any(|(_, row)| row.contains_key(*c))).collect();
    let pick = |names: &[&str], holds: &dyn Fn(&str) -> bool| {
        let named =
            |name: &&str| top.iter().find(|c| spelling(c) == **name && holds(c)).map(|c| (*c).clone());
        names.iter().find_map(named)
    };
    let id = id_columns(&columns).into_iter().next().unwrap_or_default();
    let is_label = |column: &str| {
        let mut some = false;
        let all = cells(rows, column).filter(|v| !v.is_null()).all(|v| {
            some = true;
            match v {
                Value::Array(list) => list.iter().all(|v| label(v).is_some()),
                v => label(v).is_some(),
            }
        });
        all && some
    };
    let inspect = columns.iter().find(|c| c.starts_with("scores.") && c.ends_with(".value") && is_label(c));
    let label = pick(&LABELS, &is_label).or_else(|| inspect.cloned()).unwrap_or_default();
    let mut format = StoredFormat { format: found, id, label, ..StoredFormat::default() };
    let by = if format.id.is_empty() { "no name".to_owned() } else { format!("name `{}`", format.id) };
    let verdicts = if format.label.is_empty() {
        String::new()
    } else {
        format!(", published verdict `{}`", format.label)
    };
    if task.benchmark.kind != Kind::Answer {
        let number = |c: &str| cells(rows, c).any(Value::is_number);
        let scores = SCORES.iter().find_map(|[a, b]| Some(vec![pick(&[a], &number)?, pick(&[b], &number)?]));
        if let Some(scores) = scores {
            format.name = format!("{} with {by}, scores `{}`{verdicts}", found.name(), scores.join("`, `"));
            format.scores = scores;
            return Ok(format);
        }
        // Scores of all given answers in one list, as RewardBench 2 keeps them.
        let lists = |c: &str| cells(rows, c).all(Value::is_array) && cells(rows, c).any(|v| v.is_array());
        if let Some(column) = pick(&["scores", "rewards"], &lists) {
            format.name = format!("{} with {by}, lists of scores `{column}`{verdicts}", found.name());
            format.scores = vec![column];
            return Ok(format);
        }
    }
    // A gold column is no response: what the declaration calls the answer only counts where nothing else is there.
    // Qwen2.5-Math's evaluation calls the list of its samples `code`; elsewhere that is a language or a program.
    let says = |c: &str| {
        let said = |v: &Value| responses(v).is_some_and(|r| r.iter().any(Option::is_some));
        !own.iter().any(|o| o == c)
            && cells(rows, c).any(|v| {
                said(v)
                    && match spelling(c).as_str() {
                        "code" => v.is_array(),
                        // A number under this name is a score.
                        "result" => v.is_object() || v.is_string(),
                        // An endpoint's choices are tables; texts are the options of a question.
                        "choices" => v.as_array().is_some_and(|l| l.iter().all(Value::is_object)),
                        _ => true,
                    }
            })
    };
    if let Some(response) = pick(&RESPONSES, &says) {
        format.name = format!("{} with {by}, response `{response}`{verdicts}", found.name());
        format.response = response;
        return Ok(format);
    }
    let others: Vec<&String> = top.iter().copied().filter(|c| !own.contains(c)).collect();
    if let Some(prefix) = family(&others) {
        format.name = format!("{} with {by}, responses `{prefix}…`{verdicts}", found.name());
        format.samples = prefix;
        return Ok(format);
    }
    Err(format!(
        "no column is the response (looked for `response`, `output`, `prediction`, `completion`, `text` and the like); there are {}",
        columns_of(rows)
    ))
}

/// The common beginning of numbered columns: `response_0`, `response_1` ...; numbers from 0 or 1.
fn family(columns: &[&String]) -> Option<String> {
    columns.iter().find_map(|name| {
        let prefix = name.strip_suffix('0').or_else(|| name.strip_suffix('1'))?;
        let known =
            RESPONSES.contains(&spelling(prefix).as_str()) && !prefix.ends_with(|c: char| c.is_ascii_digit());
        known.then(|| prefix.to_owned())
    })
}
