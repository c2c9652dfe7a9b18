//! JSON lines, a JSON array of objects, a JSON object of objects.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ocelli_data::io::{IoError, MAX_LINE, read_bounded};
use serde_json::{Map, Value};

use super::{Cell, LoadError, MAX_JSON, Sink, kind_of};

fn bad(path: &Path, message: String) -> LoadError {
    LoadError::Format { path: path.to_owned(), message }
}

fn cells(path: &Path, row: usize, value: Value) -> Result<Vec<(String, Cell)>, LoadError> {
    match value {
        Value::Object(map) => Ok(map.into_iter().map(|(k, v)| (k, Cell::Value(v))).collect()),
        other => Err(bad(path, format!("row {row} is {}, not an object", kind_of(&other)))),
    }
}

pub(super) fn read_lines(path: &Path, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let os = |source| IoError::Os { what: "read", path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(os)?);
    let (mut line, mut number, mut row) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        number += 1;
        let n = (&mut reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(os)?;
        if n == 0 {
            return Ok(());
        }
        if n as u64 > MAX_LINE {
            return Err(bad(path, format!("line {number} is longer than the limit of {MAX_LINE} bytes")));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        row += 1;
        let value = serde_json::from_slice(&line).map_err(|e| bad(path, format!("line {number}: {e}")))?;
        sink(row, cells(path, row, value)?)?;
    }
}

fn document(path: &Path, nested: &str) -> Result<Value, LoadError> {
    let bytes = read_bounded(path, MAX_JSON)?;
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(path, e.to_string()))?;
    if nested.is_empty() {
        return Ok(value);
    }
    let found = value.get_mut(nested).map(Value::take);
    found.ok_or_else(|| bad(path, format!("there is no key `{nested}`")))
}

pub(super) fn read_array(path: &Path, nested: &str, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    match document(path, nested)? {
        Value::Array(rows) => {
            rows.into_iter().enumerate().try_for_each(|(i, v)| sink(i + 1, cells(path, i + 1, v)?))
        }
        other => Err(bad(path, format!("holds {}, not a list of rows", kind_of(&other)))),
    }
}

/// The key of a row becomes its column `#key`.
pub(super) fn read_map(path: &Path, nested: &str, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let rows: Map<String, Value> = match document(path, nested)? {
        Value::Object(rows) => rows,
        other => return Err(bad(path, format!("holds {}, not a table of rows", kind_of(&other)))),
    };
    rows.into_iter().enumerate().try_for_each(|(i, (key, value))| {
        let mut cells = cells(path, i + 1, value)?;
        cells.push(("#key".into(), Cell::Value(Value::String(key))));
        sink(i + 1, cells)
    })
}
