//! Where the real data lies: the folder named by `OCELLI_DATA`.

// Each test binary uses a part of this, and a broken data file should stop the test.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The data folder, or `None` after a message when `OCELLI_DATA` is unset.
pub(crate) fn root() -> Option<PathBuf> {
    let root = std::env::var_os("OCELLI_DATA").map(PathBuf::from);
    if root.is_none() {
        eprintln!("skipped: set OCELLI_DATA to the folder of real data to run this test");
    }
    root
}

pub(crate) fn jsonl(path: &Path) -> Vec<Value> {
    ocelli_data::io::read_jsonl(path).unwrap()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&ocelli_data::io::read_bounded(path, 64 << 20).unwrap()).unwrap()
}

/// A field as Python's `str()` would print it.
pub(crate) fn text(row: &Value, key: &str) -> String {
    match &row[key] {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn texts(row: &Value, key: &str) -> Vec<String> {
    row[key].as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
}
