//! A data set given in place of outputs: it has questions and gold answers, and scoring the one by the other would give a
//! perfect result, or one of nothing.

use std::collections::HashMap;
use std::path::Path;

use super::cells::cell;
use super::{Rows, StoredError, text};
use crate::declare::{Better, Kind, Layout, StoredFormat, Task};
use crate::item::Item;

fn like_the_data_set(path: &Path, task: &Task, why: &str) -> StoredError {
    let files: Vec<String> =
        task.benchmark.data.iter().flat_map(|l| l.files.iter().map(|f| task.resolve(f))).collect();
    StoredError::Items {
        path: path.to_owned(),
        message: format!(
            "this looks like the data set of {} itself, not like outputs of a model: {why}. A data set belongs below the data folder (as {}); give the file of responses here, or name its columns (--id, --response)",
            task.benchmark.title,
            files.join(" or ")
        ),
    }
}

/// Names of a column of the declaration in the files of a layout, before they are renamed.
fn raw_names<'a>(layout: &'a Layout, column: &'a str) -> impl Iterator<Item = &'a str> {
    let renamed = layout.rename.iter().filter(move |(_, new)| *new == column).map(|(old, _)| old.as_str());
    renamed.chain(std::iter::once(column))
}

fn any_row_has(rows: &Rows, column: &str) -> bool {
    rows.iter().any(|(_, row)| row.get(column).is_some_and(|v| !v.is_null()))
}

/// Columns of the data set that are no response although their names are usual for one: its question and options beside its
/// gold answer, or the answers that were to be compared. Empty where the rows are not rows of the data set.
pub(super) fn own_columns(task: &Task, rows: &Rows) -> Vec<String> {
    let benchmark = &task.benchmark;
    for layout in &benchmark.data {
        let here =
            |column: &str| raw_names(layout, column).find(|name| any_row_has(rows, name)).map(str::to_owned);
        if benchmark.kind == Kind::Answer {
            let (question, gold) =
                (task.resolve(&benchmark.fields.question), task.resolve(&benchmark.fields.answer));
            if let (Some(asked), Some(_)) = (here(&question), here(&gold)) {
                let options = benchmark.fields.option_columns.iter().chain([&benchmark.fields.options]);
                let options = options.map(|c| task.resolve(c)).filter(|c| !c.is_empty());
                return std::iter::once(asked).chain(options.filter_map(|c| here(&c))).collect();
            }
            continue;
        }
        let Some(given) = &benchmark.given else { continue };
        let gold: Vec<&String> = match &given.better {
            Better::FirstColumn => Vec::new(),
            Better::Ranking(column) | Better::Named { column, .. } => vec![column],
            Better::Raters(columns) => columns.iter().collect(),
        };
        let answers: Vec<String> = given.answers.iter().filter_map(|a| here(a)).collect();
        let whole = here(&given.query).is_some()
            && answers.len() == given.answers.len()
            && gold.iter().all(|c| here(c).is_some());
        if whole {
            return answers;
        }
    }
    Vec::new()
}

/// Rows of the data set in which no other column is a response.
pub(super) fn only_data_set(task: &Task, own: &[String], path: &Path) -> StoredError {
    let what = if task.benchmark.kind == Kind::Answer {
        "its question"
    } else {
        "the answers that are to be compared"
    };
    let columns = own.join("`, `");
    like_the_data_set(
        path,
        task,
        &format!("it holds {what} (`{columns}`), and no other column is a response or a verdict"),
    )
}

/// Rows from which on equal answers are no chance.
const ENOUGH: usize = 3;

/// Refuses rows whose responses are the gold cells of the data set, word for word and without exception.
pub(super) fn refuse_by_golds(
    task: &Task,
    format: &StoredFormat,
    rows: &Rows,
    items: &[Item],
    path: &Path,
) -> Result<(), StoredError> {
    let benchmark = &task.benchmark;
    if benchmark.kind != Kind::Answer || format.response.is_empty() || !format.label.is_empty() {
        return Ok(());
    }
    let gold = task.resolve(&benchmark.fields.answer);
    let is_gold = benchmark.data.iter().any(|l| raw_names(l, &gold).any(|name| name == format.response));
    if !is_gold || rows.len() < ENOUGH {
        return Ok(());
    }
    let places: HashMap<&str, &Item> = items.iter().map(|i| (i.id.as_str(), i)).collect();
    let copied = rows.iter().all(|(_, row)| {
        let item = text(cell(row, &format.id)).and_then(|id| places.get(id.as_str()).copied());
        item.is_some_and(|item| text(cell(row, &format.response)) == item.column(&gold))
    });
    if !copied {
        return Ok(());
    }
    let why = format!("its column `{}` is word for word the gold answer of every item", format.response);
    Err(like_the_data_set(path, task, &why))
}

/// Without the data set: rows with its question and its gold answer, the latter taken for the response.
pub(super) fn refuse_alone(
    task: &Task,
    format: &StoredFormat,
    rows: &Rows,
    path: &Path,
) -> Result<(), StoredError> {
    let benchmark = &task.benchmark;
    let (question, gold) = (task.resolve(&benchmark.fields.question), task.resolve(&benchmark.fields.answer));
    let found = benchmark.kind == Kind::Answer
        && benchmark.data.iter().any(|l| {
            raw_names(l, &gold).any(|name| name == format.response)
                && raw_names(l, &question).any(|name| any_row_has(rows, name))
        });
    if !found {
        return Ok(());
    }
    let why = format!("it has the question, and the gold column `{}` would be the response", format.response);
    Err(like_the_data_set(path, task, &why))
}
