//! Outputs that other programs stored: rescored without a model, and held against their published verdicts.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocelli_agent::endpoint::{Outcome, Usage};
use ocelli_data::ContentHash;
use ocelli_data::io::read_jsonl;
use serde_json::{Map, Value};

use crate::declare::{Kind, StoredFormat, Task};
use crate::item::{Gold, Item, items_to_rescore};
use crate::load::{Cell, Images, LoadError, Place, Problems, Row, Table, fingerprint, kind_of, read_rows};
use crate::run::Entry;

/// One stored output.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAnswer {
    /// Name of the item.
    pub item: String,
    /// Which order of given answers.
    pub variant: u32,
    /// Which sample: outputs of one item are numbered in the order of the file.
    pub sample: u32,
    /// How it ended: `failed` for a null response, `empty` for an empty one.
    pub outcome: Outcome,
    /// The response.
    pub text: String,
    /// The thinking.
    pub reasoning: Option<String>,
    /// The answer that was extracted from it.
    pub extraction: Option<String>,
    /// The published verdict.
    pub label: Option<bool>,
    /// Scores of given answers.
    pub scores: Vec<f64>,
    /// Tokens, where the file has them.
    pub usage: Usage,
}

/// Stored outputs with their items.
#[derive(Debug)]
pub struct Stored {
    /// Which of the declared formats the file has.
    pub format: String,
    /// Items: those of the data set, or of the file itself.
    pub items: Vec<Item>,
    /// Outputs in the order of the file.
    pub answers: Vec<StoredAnswer>,
    /// Fingerprint of the items.
    pub data: ContentHash,
}

/// Stored outputs that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Neither of the formats fits.
    #[error("{path} has none of the formats that {task} knows:{tried}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The benchmark.
        task: String,
        /// Each format and why it does not fit.
        tried: String,
    },
    /// Rows, columns, files.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The outputs and the items do not belong together.
    #[error("{path}: {message}")]
    Items {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        message: String,
    },
}

type Rows = Vec<(Place, Map<String, Value>)>;

fn rows(path: &Path, format: &StoredFormat) -> Result<Rows, LoadError> {
    let file: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
    let mut rows = Vec::new();
    read_rows(path, format.format, &format.rows, &mut |row, cells| {
        let columns = cells.into_iter().filter_map(|(name, cell)| match cell {
            Cell::Value(value) => Some((name, value)),
            Cell::Bytes(_) => None,
        });
        rows.push((Place { file: file.clone(), row }, columns.collect()));
        Ok(())
    })?;
    Ok(rows)
}

/// Our own format, accepted for every benchmark: JSON lines with `id`, `response` and optionally `sample`.
fn own_format() -> StoredFormat {
    StoredFormat {
        name: "id and response".into(),
        format: crate::declare::Format::Jsonl,
        rows: String::new(),
        id: "id".into(),
        response: "response".into(),
        extraction: String::new(),
        label: String::new(),
        scores: Vec::new(),
        better: String::new(),
        own_items: false,
    }
}

/// Reads stored outputs of a task. `table` gives the data set, which is needed unless the file holds its own items; it
/// is called at most once.
pub fn read_stored(
    task: &Task,
    path: &Path,
    table: impl FnOnce() -> Result<Table, LoadError>,
) -> Result<Stored, StoredError> {
    let mut tried = String::new();
    let mut found = None;
    for format in task.benchmark.stored.iter().cloned().chain([own_format()]) {
        match rows(path, &format) {
            Ok(rows) => match fits(&format, &rows) {
                Ok(()) => {
                    found = Some((format, rows));
                    break;
                }
                Err(why) => tried.push_str(&format!("\n  {}: {why}", format.name)),
            },
            Err(LoadError::Io(error)) => return Err(LoadError::Io(error).into()),
            Err(error) => tried.push_str(&format!("\n  {}: {error}", format.name)),
        }
    }
    let Some((format, rows)) = found else {
        return Err(StoredError::Format { path: path.to_owned(), task: task.benchmark.title.clone(), tried });
    };
    let answers = answers(task, &format, &rows)?;
    let (items, data) = if format.own_items {
        own_items(task, &format, rows)?
    } else {
        let table = table()?;
        (items_to_rescore(task, &table)?, table.fingerprint)
    };
    let known: HashSet<&str> = items.iter().map(|i| i.id.as_str()).collect();
    let unknown: Vec<&str> =
        answers.iter().map(|a| a.item.as_str()).filter(|id| !known.contains(id)).take(5).collect();
    if !unknown.is_empty() {
        let message =
            format!("there are outputs for items that the data set lacks, e.g. {}", unknown.join(", "));
        return Err(StoredError::Items { path: path.to_owned(), message });
    }
    Ok(Stored { format: format.name, items, answers, data })
}

/// The answers of a run's log, as stored outputs. Entries of items that the data lacks are an error.
pub fn from_log(task: &Task, table: &Table, folder: &Path) -> Result<Stored, StoredError> {
    let path = folder.join("log.jsonl");
    let entries: Vec<Entry> = read_jsonl(&path).map_err(LoadError::Io)?;
    // A later line of the same request replaces an earlier failure.
    let mut last: indexmap::IndexMap<(String, u32, u32), Entry> = indexmap::IndexMap::new();
    for entry in entries {
        last.insert((entry.item.clone(), entry.variant, entry.sample), entry);
    }
    let items = crate::item::items(task, table)?;
    let known: HashSet<&str> = items.iter().map(|i| i.id.as_str()).collect();
    if let Some(entry) = last.values().find(|e| !known.contains(e.item.as_str())) {
        let message = format!("there is an answer to item {}, which the data set lacks", entry.item);
        return Err(StoredError::Items { path, message });
    }
    let answers = last.into_values().map(|e| StoredAnswer {
        item: e.item,
        variant: e.variant,
        sample: e.sample,
        outcome: e.outcome,
        text: e.text,
        reasoning: e.reasoning,
        extraction: None,
        label: None,
        scores: Vec::new(),
        usage: e.usage,
    });
    let answers = answers.collect();
    Ok(Stored { format: "log of a run".into(), items, answers, data: table.fingerprint })
}

/// Whether the first row has the columns of a format.
fn fits(format: &StoredFormat, rows: &Rows) -> Result<(), String> {
    let (_, first) = rows.first().ok_or("the file holds no rows")?;
    let needed = [&format.id, &format.response, &format.extraction, &format.label, &format.better];
    let missing: Vec<&str> = needed
        .into_iter()
        .chain(&format.scores)
        .filter(|c| !c.is_empty() && !first.contains_key(*c) && **c != "#key")
        .map(String::as_str)
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("the first row lacks `{}`", missing.join("`, `"))) }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn answers(task: &Task, format: &StoredFormat, rows: &Rows) -> Result<Vec<StoredAnswer>, LoadError> {
    let mut problems = Problems::default();
    let mut samples: HashMap<String, u32> = HashMap::new();
    let mut answers = Vec::with_capacity(rows.len());
    let mut names = PairNames::default();
    for (place, row) in rows {
        let Some(item) = text(row.get(&format.id)) else {
            problems.push(place, format!("column `{}` names the item and holds no text", format.id));
            continue;
        };
        let item = if names_repeat(task, format) { names.next(item) } else { item };
        let mut scores = Vec::new();
        for column in &format.scores {
            match row.get(column) {
                Some(Value::Number(n)) => scores.push(n.as_f64().unwrap_or(f64::NAN)),
                Some(Value::Array(list)) => {
                    scores.extend(list.iter().map(|v| v.as_f64().unwrap_or(f64::NAN)))
                }
                other => problems.push(
                    place,
                    format!("column `{column}` is a score and holds {}", other.map_or("nothing", kind_of)),
                ),
            }
        }
        if let Some(bad) = scores.iter().find(|s| !s.is_finite()) {
            problems.push(place, format!("a score is {bad}, not a finite number"));
        }
        let response = row.get(&format.response);
        let (outcome, response) = match response {
            Some(Value::String(s)) if s.trim().is_empty() => (Outcome::Empty, s.clone()),
            Some(Value::String(s)) => (Outcome::Ok, s.clone()),
            Some(Value::Number(n)) => (Outcome::Ok, n.to_string()),
            Some(Value::Null) | None if format.response.is_empty() => (Outcome::Ok, String::new()),
            Some(Value::Null) | None => (Outcome::Failed, String::new()),
            Some(other) => {
                problems.push(
                    place,
                    format!("column `{}` is a response and holds {}", format.response, kind_of(other)),
                );
                continue;
            }
        };
        let label = match row.get(&format.label) {
            Some(Value::Bool(b)) => Some(*b),
            Some(Value::Number(n)) => n.as_f64().map(|x| x > 0.5),
            _ => None,
        };
        let usage = Usage {
            completion: row.get("completion_tokens").and_then(Value::as_u64).unwrap_or(0),
            ..Usage::default()
        };
        let next = samples.entry(item.clone()).or_insert(0);
        let sample = row.get("sample").and_then(Value::as_u64).map_or(*next, |s| s as u32);
        *next += 1;
        let extraction = text(row.get(&format.extraction));
        let (variant, reasoning, text) = (0, None, response);
        answers.push(StoredAnswer {
            item,
            variant,
            sample,
            outcome,
            text,
            reasoning,
            extraction,
            label,
            scores,
            usage,
        });
    }
    problems.into_result(&task.benchmark.title)?;
    Ok(answers)
}

/// Pairs of one source may share its name (9 of 1,247 rows of VL-RewardBench do): each is an item of its own.
fn names_repeat(task: &Task, format: &StoredFormat) -> bool {
    format.own_items && task.benchmark.kind != Kind::Answer
}

/// Numbers repeated names: `x`, `x#2`, `x#3`.
#[derive(Default)]
struct PairNames(HashMap<String, u32>);

impl PairNames {
    fn next(&mut self, name: String) -> String {
        let count = self.0.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}#{count}") }
    }
}

/// Items that the file itself holds; repeated names are further samples of one item.
fn own_items(task: &Task, format: &StoredFormat, rows: Rows) -> Result<(Vec<Item>, ContentHash), LoadError> {
    let mut seen = HashSet::new();
    let mut names = PairNames::default();
    let mut kept = Vec::new();
    for (place, columns) in rows {
        let Some(id) = text(columns.get(&format.id)) else { continue };
        let id = if names_repeat(task, format) { names.next(id) } else { id };
        if seen.insert(id.clone()) {
            kept.push(Row { id, place, columns, images: Default::default() });
        }
    }
    let print = fingerprint(&kept);
    let table = Table { rows: kept, images: Images::new(Path::new("")), fingerprint: print };
    if task.benchmark.kind == Kind::Answer {
        return Ok((items_to_rescore(task, &table)?, print));
    }
    let mut problems = Problems::default();
    let mut items = Vec::new();
    for row in &table.rows {
        match row.columns.get(&format.better).and_then(Value::as_u64) {
            Some(better) => {
                items.push(crate::item::bare_pair(task, row, Gold::Better(vec![better as usize])))
            }
            None => problems.push(
                &row.place,
                format!(
                    "column `{}` is the index of the better answer and holds no whole number",
                    format.better
                ),
            ),
        }
    }
    problems.into_result(&task.benchmark.title)?;
    Ok((items, print))
}
