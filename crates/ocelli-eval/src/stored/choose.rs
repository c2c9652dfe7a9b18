//! Which format a file of stored outputs has.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use ocelli_data::io::{IoError, MAX_LINE};
use serde_json::Value;

use super::{Rows, StoredError};
use crate::declare::{Format, StoredFormat, Task};
use crate::load::{Cell, LoadError, Place, read_rows};

/// Usual names of the columns of a general file, the first that is there counts.
const IDS: [&str; 8] = ["id", "pid", "question_id", "qid", "unique_id", "idx", "index", "#key"];
const RESPONSES: [&str; 8] = [
    "response",
    "output",
    "model_output",
    "generation",
    "completion",
    "raw_output",
    "model_response",
    "text",
];
const LABELS: [&str; 6] = ["correct", "true_false", "is_correct", "hit", "if_right", "right"];

/// The file format by name and first bytes: `.parquet`, `.tsv`, a JSON list, JSON lines, or one JSON object of rows.
pub fn sniff(path: &Path) -> Result<Format, LoadError> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("parquet") => return Ok(Format::Parquet),
        Some("tsv") => return Ok(Format::Tsv),
        _ => {}
    }
    let os = |source| IoError::Os { what: "read", path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(os)?);
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| -> Result<usize, IoError> {
        loop {
            line.clear();
            let n = (&mut reader).take(MAX_LINE).read_until(b'\n', line).map_err(os)?;
            if n == 0 || !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(n);
            }
        }
    };
    next(&mut line)?;
    match line.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => Ok(Format::Json),
        Some(b'{') => {
            let first: Option<Value> = serde_json::from_slice(&line).ok();
            let more = next(&mut line)? > 0;
            Ok(match first {
                // One line holds everything: a table of rows has nothing but tables.
                Some(Value::Object(map)) if !more && map.values().all(Value::is_object) => Format::JsonMap,
                Some(_) => Format::Jsonl,
                None => Format::JsonMap,
            })
        }
        _ => Err(LoadError::Format {
            path: path.to_owned(),
            message: "is neither JSON, JSON lines, .tsv nor .parquet".into(),
        }),
    }
}

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

/// The format that fits, with the rows.
pub(super) fn choose(
    task: &Task,
    path: &Path,
    given: Option<&StoredFormat>,
) -> Result<(StoredFormat, Rows), StoredError> {
    let mut tried = String::new();
    let found = sniff(path)?;
    let declared: &[StoredFormat] = match given {
        Some(given) => std::slice::from_ref(given),
        None => &task.benchmark.stored,
    };
    let mut last: Option<(Format, String, Rows)> = None;
    for format in declared {
        // Rows nested in a document make it one JSON object, on one line or on many.
        let nested = !format.rows.is_empty() && matches!(found, Format::JsonMap | Format::Jsonl);
        if format.format != found && !nested {
            let (wanted, found) = (format.format.name(), found.name());
            tried.push_str(&format!("\n  {}: is {wanted}, this file is {found}", format.name));
            continue;
        }
        // Formats of one kind of file share its rows.
        let rows = match last.take() {
            Some((kind, nested, rows)) if kind == format.format && nested == format.rows => Ok(rows),
            _ => rows(path, format),
        };
        match rows {
            Ok(rows) => match fits(format, &rows) {
                Ok(()) => return Ok((format.clone(), rows)),
                Err(why) => {
                    tried.push_str(&format!("\n  {}: {why}", format.name));
                    last = Some((format.format, format.rows.clone(), rows));
                }
            },
            Err(LoadError::Io(error)) => return Err(LoadError::Io(error).into()),
            Err(error) => tried.push_str(&format!("\n  {}: {error}", format.name)),
        }
    }
    if given.is_none() {
        let rows = match last.take() {
            Some((kind, nested, rows)) if kind == found && nested.is_empty() => rows,
            _ => rows(path, &StoredFormat { format: found, ..StoredFormat::default() })?,
        };
        match general(found, &rows) {
            Ok(format) => return Ok((format, rows)),
            Err(why) => tried.push_str(&format!("\n  any rows with a name and a response: {why}")),
        }
    }
    Err(StoredError::Format { path: path.to_owned(), task: task.benchmark.title.clone(), tried })
}

fn has(rows: &Rows, column: &str) -> bool {
    rows.iter().any(|(_, row)| row.contains_key(column))
}

fn columns_of(rows: &Rows) -> String {
    let names = rows.first().map(|(_, row)| row.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>());
    names.unwrap_or_default().join(", ")
}

/// Whether the rows have the columns of a format; a column may be absent from some rows, not from all.
fn fits(format: &StoredFormat, rows: &Rows) -> Result<(), String> {
    if rows.is_empty() {
        return Err("the file holds no rows".into());
    }
    let first_sample = if format.samples.is_empty() { String::new() } else { format!("{}0", format.samples) };
    let needed = [
        &format.id,
        &format.response,
        &first_sample,
        &format.rewards,
        &format.judge,
        &format.extraction,
        &format.label,
        &format.better,
    ];
    let missing: Vec<&str> = needed
        .into_iter()
        .chain(&format.scores)
        .chain(&format.needs)
        .filter(|c| !c.is_empty() && !has(rows, c))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("no row has `{}`; the first has {}", missing.join("`, `"), columns_of(rows)))
}

/// Rows of any program with a name and a response under one of their usual column names.
fn general(format: Format, rows: &Rows) -> Result<StoredFormat, String> {
    let pick = |names: &[&str]| names.iter().find(|n| has(rows, n)).map(|n| (*n).to_owned());
    let missing = |what: &str, names: &[&str]| {
        format!(
            "no column names the {what} (looked for `{}`); there are {}",
            names.join("`, `"),
            columns_of(rows)
        )
    };
    let id = pick(&IDS).ok_or_else(|| missing("item", &IDS))?;
    let response = pick(&RESPONSES).ok_or_else(|| missing("response", &RESPONSES))?;
    let label = pick(&LABELS).unwrap_or_default();
    let verdicts = if label.is_empty() { String::new() } else { format!(", published verdict `{label}`") };
    let name = format!("{} with name `{id}`, response `{response}`{verdicts}", format.name());
    Ok(StoredFormat { name, format, id, response, label, ..StoredFormat::default() })
}
