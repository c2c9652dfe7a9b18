//! Which item of the data set each stored output belongs to, and whether the file's gold answers agree with that.
//!
//! Programs name items by the data set's own column, by another unique column of it, by row number from 0 or 1, by
//! the question's text, or not at all. Each way is taken only where it explains every row of the file.

use std::collections::{HashMap, HashSet};

use ocelli_reward::verify::{Outcome, Policy, verify};
use serde_json::Value;

use super::cells::cell;
use super::general::{columns, id_columns};
use super::{Rows, text};
use crate::declare::StoredFormat;
use crate::item::{Gold, Item};
use crate::load::kind_of;
use crate::prompt::option_letter;

/// Column that holds the item's name once it is known otherwise than by the format's own column.
const ITEM: &str = "#item";
/// Columns that may hold the question, best first.
const QUESTIONS: [&str; 8] =
    ["question", "problem", "query", "prompt", "doc.question", "doc.problem", "doc.query", "input"];
/// Columns that may hold the gold answer, best first.
const GOLDS: [&str; 14] = [
    "gold",
    "gold_answer",
    "ground_truth",
    "groundtruth",
    "gt",
    "target",
    "reference_answer",
    "expected",
    "expected_answer",
    "correct_answer",
    "answer",
    "doc.answer",
    "doc.final_answer",
    "Answer",
];
/// Rows with a gold answer from which on a disagreement of more than half of them means another data set.
const ENOUGH: usize = 3;

/// Finds the item of every row; where the format's own column does not name it, a column of its own then does. The notes
/// say how it was found.
pub(super) fn align(
    format: &mut StoredFormat,
    rows: &mut Rows,
    items: &[Item],
    named_by_user: bool,
) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let known: HashSet<&str> = items.iter().map(|i| i.id.as_str()).collect();
    let mut candidates: Vec<String> = Some(format.id.clone()).into_iter().filter(|c| !c.is_empty()).collect();
    if !named_by_user {
        let others = id_columns(&columns(rows));
        candidates.extend(others.into_iter().filter(|c| *c != format.id));
    }
    let names_in = |column: &str| -> Option<Vec<String>> {
        rows.iter().map(|(_, row)| text(cell(row, column))).collect()
    };
    let named: Vec<(String, Vec<String>)> =
        candidates.iter().filter_map(|c| Some((c.clone(), names_in(c)?))).collect();
    let found = named
        .iter()
        .find(|(_, names)| names.iter().all(|n| known.contains(n.as_str())))
        .map(|(column, names)| {
            (names.clone(), (*column != format.id).then(|| format!("items named by the column `{column}`")))
        })
        .or_else(|| named.iter().find_map(|(column, names)| by_other_column(column, names, items)))
        .or_else(|| named.iter().find_map(|(column, names)| by_row_number(column, names, items)))
        .or_else(|| by_question(rows, items))
        .or_else(|| {
            let whole = named.is_empty() && candidates.is_empty() && rows.len() == items.len();
            let names = items.iter().map(|i| i.id.clone()).collect();
            whole.then(|| {
                (
                    names,
                    Some(
                        "no column names the items: outputs are taken in the order of the data set"
                            .to_owned(),
                    ),
                )
            })
        });
    let Some((names, note)) = found else { return Err(unknown(format, rows, items, &known)) };
    if let Some(note) = note {
        notes.push(note);
    }
    if format.id.is_empty() || names_in(&format.id).as_ref() != Some(&names) || format.id.contains('.') {
        for ((_, row), name) in rows.iter_mut().zip(&names) {
            row.insert(ITEM.into(), Value::String(name.clone()));
        }
        format.id = ITEM.into();
    }
    notes.extend(golds_agree(format, rows, items, &names)?);
    Ok(notes)
}

type Found = Option<(Vec<String>, Option<String>)>;

/// By another column of the data set whose values are unique there.
fn by_other_column(column: &str, names: &[String], items: &[Item]) -> Found {
    let owns: Vec<&String> = items.first()?.columns.keys().collect();
    owns.into_iter().find_map(|own| {
        let mut places: HashMap<String, &str> = HashMap::new();
        for item in items {
            if places.insert(item.column(own)?, &item.id).is_some() {
                return None;
            }
        }
        let found: Option<Vec<String>> =
            names.iter().map(|n| places.get(n).map(|id| (*id).to_owned())).collect();
        Some((found?, Some(format!("items named by the data set's column `{own}` (here `{column}`)"))))
    })
}

/// By row number: all of 0 to n - 1, or of 1 to n.
fn by_row_number(column: &str, names: &[String], items: &[Item]) -> Found {
    let numbers: Vec<usize> = names.iter().map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let distinct: HashSet<usize> = numbers.iter().copied().collect();
    let first = *distinct.iter().min()?;
    let whole = first <= 1
        && distinct.len() == items.len()
        && distinct.iter().max() == Some(&(first + items.len() - 1));
    whole.then(|| {
        let found = numbers.iter().map(|n| items[n - first].id.clone()).collect();
        (found, Some(format!("`{column}` counts the rows of the data set from {first}")))
    })
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn by_question(rows: &Rows, items: &[Item]) -> Found {
    let mut places: HashMap<String, Option<&str>> = HashMap::new();
    for item in items.iter().filter(|i| !i.question.trim().is_empty()) {
        // A question that stands twice names no item.
        places.entry(squeezed(&item.question)).and_modify(|p| *p = None).or_insert(Some(&item.id));
    }
    QUESTIONS.iter().find_map(|column| {
        let found: Option<Vec<String>> = rows
            .iter()
            .map(|(_, row)| {
                let question = cell(row, column)?.as_str()?;
                places.get(&squeezed(question)).copied().flatten().map(str::to_owned)
            })
            .collect();
        Some((found?, Some(format!("items found by the text of `{column}`"))))
    })
}

fn unknown(format: &StoredFormat, rows: &Rows, items: &[Item], known: &HashSet<&str>) -> String {
    let example = items.first().map_or("none", |i| i.id.as_str());
    let nameless =
        rows.iter().find(|(_, row)| !format.id.is_empty() && text(cell(row, &format.id)).is_none());
    if let Some((place, row)) = nameless {
        let found = cell(row, &format.id).map_or("nothing", kind_of);
        return format!("{place}: column `{}` names the item and holds {found}", format.id);
    }
    let names: Vec<String> = rows.iter().filter_map(|(_, row)| text(cell(row, &format.id))).collect();
    let mut strange: Vec<&String> = names.iter().filter(|n| !known.contains(n.as_str())).collect();
    if strange.is_empty() {
        return format!(
            "no column names the item, no question is that of an item, and {} outputs are not the {} items in order; the data set's own names look like `{example}`",
            rows.len(),
            items.len()
        );
    }
    let total = strange.len();
    strange.truncate(5);
    let strange: Vec<&str> = strange.into_iter().map(String::as_str).collect();
    format!(
        "{total} of {} outputs are for items that the data set lacks, e.g. `{}`; its own names look like `{example}`. Is it another benchmark, another split, or another column that names the items?",
        rows.len(),
        strange.join("`, `")
    )
}

/// Gold answers that the file itself holds must be those of the data set, or the rows belong elsewhere.
fn golds_agree(
    format: &StoredFormat,
    rows: &Rows,
    items: &[Item],
    names: &[String],
) -> Result<Option<String>, String> {
    let places: HashMap<&str, &Item> = items.iter().map(|i| (i.id.as_str(), i)).collect();
    let taken = [&format.response, &format.extraction, &format.label];
    let column = GOLDS.iter().find(|c| {
        !taken.iter().any(|t| t.as_str() == **c) && rows.iter().any(|(_, row)| text(cell(row, c)).is_some())
    });
    let Some(column) = column else { return Ok(None) };
    let (mut compared, mut differ, mut example) = (0usize, 0usize, None);
    for ((_, row), name) in rows.iter().zip(names) {
        let (Some(found), Some(item)) = (text(cell(row, column)), places.get(name.as_str())) else {
            continue;
        };
        let Gold::Answers(golds) = &item.gold else { return Ok(None) };
        compared += 1;
        if !golds.iter().any(|gold| same_gold(gold, &found, &item.options)) {
            differ += 1;
            example.get_or_insert_with(|| {
                format!(
                    "item `{name}`: `{}` in the file, `{}` in the data set",
                    short(&found),
                    short(&item.gold_text())
                )
            });
        }
    }
    let Some(example) = example else { return Ok(None) };
    if compared >= ENOUGH && differ * 2 > compared {
        return Err(format!(
            "the gold answers in its column `{column}` are not those of the data set ({differ} of {compared} differ; {example}). Is it another split, or are the names of the items shifted?"
        ));
    }
    Ok(Some(format!(
        "{differ} of {compared} gold answers in the file (`{column}`) are not those of the data set, which count here; {example}"
    )))
}

fn short(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}

fn same_gold(gold: &str, found: &str, options: &[String]) -> bool {
    let folded = |t: &str| squeezed(t).to_lowercase();
    let (gold, found) = (gold.trim(), found.trim());
    // A whole solution ends with its answer; an option may be named by letter, text or place.
    folded(gold) == folded(found)
        || found.ends_with(gold)
        || options.iter().enumerate().any(|(i, option)| {
            let is_gold = option_letter(i) == gold || folded(option) == folded(gold);
            is_gold
                && (folded(option) == folded(found)
                    || option_letter(i).eq_ignore_ascii_case(found)
                    || found == i.to_string())
        })
        || verify(gold, found, &Policy::default()).outcome != Outcome::Different
}
