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
        let value = parse(&line, number == 1).map_err(|e| bad(path, at_line(number, &e)))?;
        sink(row, cells(path, row, value)?)?;
    }
}

/// An error of one line by its place in the file: the parser saw a single line, and numbers that one.
fn at_line(number: usize, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    // At the end of the text the parser may already count the next line.
    if error.line() == 1 && error.column() > 0 {
        format!("line {number}, column {}: {message}", error.column())
    } else {
        format!("line {number}: {message}")
    }
}

/// A value as programs write it: a byte order mark before it is passed over, and the `NaN` and `Infinity` of Python's
/// writer, which are no JSON, become null.
pub(crate) fn parse(bytes: &[u8], first: bool) -> Result<Value, serde_json::Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| first).unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|error| match without_nan(bytes) {
        Some(text) => serde_json::from_slice(&text).map_err(|_| error),
        None => Err(error),
    })
}

/// The text with bare `NaN`, `Infinity` and `-Infinity` replaced by null; `None` where there are none.
fn without_nan(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut at, mut found, mut quoted) = (Vec::with_capacity(bytes.len()), 0, false, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word =
            [&b"NaN"[..], b"-Infinity", b"Infinity"].into_iter().find(|w| !quoted && rest.starts_with(w));
        if let Some(word) = word {
            out.extend_from_slice(b"null");
            (at, found) = (at + word.len(), true);
            continue;
        }
        let step = if quoted && rest[0] == b'\\' { 2.min(rest.len()) } else { 1 };
        quoted ^= step == 1 && rest[0] == b'"';
        out.extend_from_slice(&rest[..step]);
        at += step;
    }
    found.then_some(out)
}

/// A whole JSON file.
pub(crate) fn document(path: &Path) -> Result<Value, LoadError> {
    parse(&read_bounded(path, MAX_JSON)?, true).map_err(|e| bad(path, e.to_string()))
}

fn within(path: &Path, nested: &str) -> Result<Value, LoadError> {
    let mut value = document(path)?;
    if nested.is_empty() {
        return Ok(value);
    }
    let found = value.get_mut(nested).map(Value::take);
    found.ok_or_else(|| bad(path, format!("there is no key `{nested}`")))
}

pub(super) fn read_array(path: &Path, nested: &str, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    match within(path, nested)? {
        Value::Array(rows) => {
            rows.into_iter().enumerate().try_for_each(|(i, v)| sink(i + 1, cells(path, i + 1, v)?))
        }
        other => Err(bad(path, format!("holds {}, not a list of rows", kind_of(&other)))),
    }
}

/// The key of a row becomes its column `#key`.
pub(super) fn read_map(path: &Path, nested: &str, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let rows: Map<String, Value> = match within(path, nested)? {
        Value::Object(rows) => rows,
        other => return Err(bad(path, format!("holds {}, not a table of rows", kind_of(&other)))),
    };
    rows.into_iter().enumerate().try_for_each(|(i, (key, value))| {
        let mut cells = cells(path, i + 1, value)?;
        cells.push(("#key".into(), Cell::Value(Value::String(key))));
        sink(i + 1, cells)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_read() {
        let read = |text: &str| parse(text.as_bytes(), true).map_err(|e| e.to_string());
        assert_eq!(
            read("\u{feff}{\"a\": NaN, \"b\": [-Infinity, 1]}"),
            Ok(json!({"a": null, "b": [null, 1]}))
        );
        assert_eq!(read(r#"{"a": "NaN \" NaN", "b": NaN}"#), Ok(json!({"a": "NaN \" NaN", "b": null})));
        assert!(read("{\"a\": NaNs}").is_err() && read("{\"a\": \"\\").is_err());
    }
}
