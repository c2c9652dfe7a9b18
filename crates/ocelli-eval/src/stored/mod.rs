//! Outputs that other programs stored: rescored without a model, and held against their published verdicts.
//!
//! A file is read by the first format that fits it: one given by the user, the formats that the benchmark declares,
//! and last a general one, which knows the usual names of columns in any spelling, nested ones too. Items are those of the
//! data set; where that is not here and the file holds gold answers, the file's own.

mod align;
mod answers;
mod cells;
mod choose;
mod data_set;
mod general;
mod log;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use ocelli_agent::endpoint::{Outcome, Usage};
use ocelli_data::ContentHash;
use serde_json::{Map, Value};

use crate::declare::{Better, Format, Kind, StoredFormat, Task, Ties};
use crate::item::{Gold, Item, bare_pair, items_to_rescore};
use crate::load::{CELL_LIMIT, Images, LoadError, Place, Problems, Row, Table, fingerprint};

pub use choose::sniff;
pub use log::{check_folder, from_log};

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
    /// What a judge replied about it.
    pub judge: Option<String>,
    /// The published verdict.
    pub label: Option<bool>,
    /// Scores of given answers.
    pub scores: Vec<f64>,
    /// Reward of this sample.
    pub reward: Option<f64>,
    /// Tokens, where the file has them.
    pub usage: Usage,
}

/// Stored outputs with their items.
#[derive(Debug)]
pub struct Stored {
    /// How the file was read.
    pub format: String,
    /// Items: those of the data set, or of the file itself.
    pub items: Vec<Item>,
    /// Outputs in the order of the file.
    pub answers: Vec<StoredAnswer>,
    /// True where the published verdicts are those of the judge whose replies the file holds.
    pub by_judge: bool,
    /// What the program that wrote the file makes of equal scores.
    pub ties: Ties,
    /// Fingerprint of the items.
    pub data: ContentHash,
    /// What a reader of the numbers should know about the file.
    pub notes: Vec<String>,
}

/// Stored outputs that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// None of the formats fits.
    #[error(
        "{path} has none of the formats that {task} knows:{tried}\nName the columns to read it otherwise: --id, --response or --extraction, and --label, --judge-replies, --rows, --own-items where they apply"
    )]
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

/// Most right answers of one item.
const MAX_RIGHT: usize = 1024;

type Rows = Vec<(Place, Map<String, Value>)>;

/// Reads stored outputs of a task. `given` names the columns in place of the declared formats. `table` gives the data
/// set, which is needed unless the file holds its own items, and then tells how much of it the file leaves out; it is
/// called once.
pub fn read_stored(
    task: &Task,
    path: &Path,
    given: Option<&StoredFormat>,
    table: impl FnOnce() -> Result<Table, LoadError>,
) -> Result<Stored, StoredError> {
    let (mut format, mut rows) = choose::choose(task, path, given)?;
    let mut found_how = Vec::new();
    let table = table();
    if let Err(LoadError::Missing { .. }) = &table
        && !format.own_items
    {
        if given.is_none() {
            data_set::refuse_alone(task, &format, &rows, path)?;
        }
        if holds_items(task, &format, &rows) {
            format.own_items = true;
            found_how.push(
                "the data set is not here: questions, options and gold answers are those of the file"
                    .to_owned(),
            );
            if format.id.is_empty() {
                rows.iter_mut().for_each(|(place, row)| {
                    row.insert("#row".into(), place.row.into());
                });
                format.id = "#row".into();
            }
        }
    }
    let (items, data) = match table {
        table if !format.own_items => {
            let table = table?;
            let items = items_to_rescore(task, &table)?;
            let message = |message: String| StoredError::Items { path: path.to_owned(), message };
            found_how.extend(
                align::align(&mut format, &mut rows, &items, given.is_some_and(|g| !g.id.is_empty()))
                    .map_err(message)?,
            );
            if given.is_none() {
                data_set::refuse_by_golds(task, &format, &rows, &items, path)?;
            }
            (items, table.fingerprint)
        }
        table => {
            let (items, data) = own_items(task, &format, rows.clone())?;
            found_how.extend(left_out(task, &items, table.as_ref().ok()));
            (items, data)
        }
    };
    let (answers, told) = answers::answers(task, &format, &rows)?;
    let mut notes = vec![format!("stored outputs read as: {}", format.name)];
    notes.extend(found_how);
    if format.response == "answer" {
        notes.push("the column `answer` was taken for the response; if it is the gold answer, name the response's column (--response)".to_owned());
    }
    if format.format == Format::Xlsx {
        let cut = answers.iter().filter(|a| a.text.encode_utf16().count() >= CELL_LIMIT).count();
        if cut > 0 {
            notes.push(format!(
                "{cut} responses fill their cell of the workbook ({CELL_LIMIT} characters): they were cut when it was written, and their answers may be lost"
            ));
        }
    }
    notes.extend(told);
    notes.extend(uneven(&answers));
    Ok(Stored {
        by_judge: !format.judge.is_empty(),
        ties: format.ties,
        format: format.name,
        items,
        answers,
        data,
        notes,
    })
}

/// What of the data set a file that stands for it leaves out: those items are in no denominator, so this must be said.
fn left_out(task: &Task, items: &[Item], table: Option<&Table>) -> Option<String> {
    let here = items.len();
    let Some(table) = table else {
        // With axes the published number may be that of another variant.
        let published = task.benchmark.source.rows.filter(|rows| task.axes.is_empty() && *rows != here);
        let published =
            published.map_or(String::new(), |rows| format!("; the published data set has {rows}"));
        return Some(format!(
            "the file stands for its own data set: the number of items, {here}, is that of the file{published}"
        ));
    };
    let stored: HashSet<&str> = items.iter().map(|i| i.id.as_str()).collect();
    let found = table.rows.iter().filter(|row| stored.contains(row.id.as_str())).count();
    // Files may name the items in a way of their own: then only the numbers can be compared.
    let missing = table.rows.len().saturating_sub(if found > 0 { found } else { here });
    (missing > 0).then(|| {
        format!(
            "{missing} of the data set's {} items have no stored output; the file stands for its own data set, and they are not in the denominator: the number of items, {here}, is that of the file",
            table.rows.len()
        )
    })
}

/// Whether the rows could be a data set of the task: its gold column is there, and is not the response.
fn holds_items(task: &Task, format: &StoredFormat, rows: &Rows) -> bool {
    if task.benchmark.kind != Kind::Answer {
        // Scores of answers of which the first is the better one need no data set; their groups must be here, though.
        let groups = task.benchmark.groups.iter().flat_map(|g| &g.by);
        return first_is_better(task)
            && !format.scores.is_empty()
            && groups.into_iter().all(|c| rows.iter().all(|(_, row)| row.contains_key(c)));
    }
    let gold = task.resolve(&task.benchmark.fields.answer);
    task.benchmark.kind == Kind::Answer
        && gold != format.response
        && !rows.is_empty()
        && rows.iter().all(|(_, row)| row.get(&gold).is_some_and(|v| !v.is_null()))
}

/// Whether the declaration itself says which given answer is better.
fn first_is_better(task: &Task) -> bool {
    task.benchmark.given.as_ref().is_some_and(|g| g.better == Better::FirstColumn)
}

fn columns_of(rows: &Rows) -> String {
    let names = rows.first().map(|(_, row)| row.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>());
    names.unwrap_or_default().join(", ")
}

/// A note where items have different numbers of outputs: a file that was appended to twice looks like that.
fn uneven(answers: &[StoredAnswer]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    answers.iter().for_each(|a| *counts.entry(&a.item).or_insert(0) += 1);
    let (least, most) = (counts.values().min()?, counts.values().max()?);
    let several = counts.values().filter(|n| **n > *least).count();
    (least != most).then(|| {
        format!(
            "{several} items have more outputs than the others ({most} against {least}); each output counts as a sample, and an item as the mean of its samples"
        )
    })
}

/// Pairs of one source may share its name (9 of 1,247 rows of VL-RewardBench do): each is an item of its own.
fn names_repeat(task: &Task, format: &StoredFormat) -> bool {
    format.own_items && task.benchmark.kind != Kind::Answer
}

/// Numbers repeated names: `x`, `x#2`, `x#3`.
#[derive(Default)]
struct PairNames(std::collections::HashMap<String, u32>);

impl PairNames {
    fn next(&mut self, name: String) -> String {
        let count = self.0.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}#{count}") }
    }
}

/// Text of a cell; numbers are written out.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
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
        let renamed = |name: String| format.rename.get(&name).cloned().unwrap_or(name);
        let columns = columns.into_iter().map(|(name, value)| (renamed(name), value)).collect();
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
        if format.better.is_empty() && first_is_better(task) {
            // RewardBench 2's ties have several right answers, which stand first.
            let right =
                row.columns.get("num_correct").and_then(Value::as_u64).map_or(1, |n| n.max(1) as usize);
            items.push(bare_pair(task, row, Gold::Better((0..right.min(MAX_RIGHT)).collect())));
            continue;
        }
        match row.columns.get(&format.better).and_then(Value::as_u64) {
            Some(better) => items.push(bare_pair(task, row, Gold::Better(vec![better as usize]))),
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
