//! Which format a file of stored outputs has.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use ocelli_data::io::{IoError, MAX_LINE};
use serde_json::Value;

use super::cells::cell;
use super::general::{format_of, is_document, rows_of};
use super::{Rows, StoredError, columns_of, data_set};
use crate::declare::{Format, StoredFormat, Task};
use crate::load::{Cell, LoadError, Place, document, joined, parse, read_rows};

/// The file format by name and first bytes: `.parquet`, `.tsv`, `.csv`, `.xlsx`, a JSON list, JSON lines, or one JSON object of rows.
pub fn sniff(path: &Path) -> Result<Format, LoadError> {
    match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
        Some("parquet") => return Ok(Format::Parquet),
        Some("tsv") => return Ok(Format::Tsv),
        Some("csv") => return Ok(Format::Csv),
        Some("xlsx") => return Ok(Format::Xlsx),
        Some(kind @ ("xls" | "pkl" | "gz" | "zip" | "zst" | "eval")) => {
            let message =
                format!("a .{kind} file is not read; save it as CSV, TSV, .xlsx, Parquet or JSON first");
            return Err(LoadError::Format { path: path.to_owned(), message });
        }
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
    let any = next(&mut line)?;
    if line.starts_with(b"\xef\xbb\xbf") {
        line.drain(..3);
    }
    if any == 0 || line.is_empty() {
        let message = "is empty: there are no outputs in it".into();
        return Err(LoadError::Format { path: path.to_owned(), message });
    }
    match line.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => Ok(Format::Json),
        Some(b'{') => {
            let first: Option<Value> = parse(&line, true).ok();
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
            message: "is neither JSON, JSON lines, .csv, .tsv, .xlsx nor .parquet".into(),
        }),
    }
}

fn rows(path: &Path, format: &StoredFormat) -> Result<Rows, LoadError> {
    let file = file_name(path);
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
        match rows.map(|rows| named_together(format, rows)) {
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
            Some((kind, nested, rows)) if kind == found && nested.is_empty() => Ok(rows),
            _ => general_rows(path, found),
        };
        let rows = unnested(rows?, path)?;
        let own = data_set::own_columns(task, &rows);
        match format_of(task, found, &rows, &own) {
            Ok(format) => return Ok((format, rows)),
            Err(_) if !own.is_empty() => return Err(data_set::only_data_set(task, &own, path)),
            Err(why) => tried.push_str(&format!("\n  any rows with a response: {why}")),
        }
    }
    Err(StoredError::Format { path: path.to_owned(), task: task.benchmark.title.clone(), tried })
}

/// Rows of a file of any program. A JSON document may keep them under a key, or as columns.
fn general_rows(path: &Path, found: Format) -> Result<Rows, LoadError> {
    match found {
        Format::Json | Format::JsonMap => {
            let bad = |message: String| LoadError::Format { path: path.to_owned(), message };
            rows_of(document(path)?, &file_name(path)).map_err(bad)
        }
        _ => rows(path, &StoredFormat { format: found, ..StoredFormat::default() }),
    }
}

/// One line of JSON lines may be a whole document: `{"model": .., "results": [..]}`.
fn unnested(rows: Rows, path: &Path) -> Result<Rows, LoadError> {
    match rows.as_slice() {
        [(_, row)] if is_document(row) => rows_of(Value::Object(row.clone()), &file_name(path))
            .map_err(|message| LoadError::Format { path: path.to_owned(), message }),
        _ => Ok(rows),
    }
}

/// Where several columns name the item together: that name as a column.
fn named_together(format: &StoredFormat, mut rows: Rows) -> Rows {
    if format.id.contains('/') {
        for (_, row) in &mut rows {
            if let Some(name) = joined(&format.id, row) {
                row.insert(format.id.clone(), Value::String(name));
            }
        }
    }
    rows
}

fn file_name(path: &Path) -> Arc<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}

fn has(rows: &Rows, column: &str) -> bool {
    rows.iter().any(|(_, row)| cell(row, column).is_some())
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
