//! Apache Parquet as data hubs write it.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ocelli_data::io::IoError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::TreeBuilder;
use serde_json::{Map, Value};

use super::{Cell, LoadError, Sink};

/// Rows decoded at a time: image columns make them large.
const BATCH: usize = 16;
/// Largest column of one row group once decoded, in bytes.
const MAX_CHUNK: i64 = 4 << 30;

pub(super) fn read(path: &Path, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    // The parquet crate panics on some corrupt files; an evaluation must not.
    let outcome = catch_unwind(AssertUnwindSafe(|| read_inner(path, sink)));
    outcome.unwrap_or_else(|_| {
        Err(LoadError::Format {
            path: path.to_owned(),
            message: "not a sound parquet file; download it again".into(),
        })
    })
}

fn read_inner(path: &Path, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let bad = |message: String| LoadError::Format { path: path.to_owned(), message };
    let file =
        File::open(path).map_err(|source| IoError::Os { what: "open", path: path.to_owned(), source })?;
    let reader = SerializedFileReader::new(file).map_err(|e| bad(e.to_string()))?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let meta = reader.metadata().row_group(group);
        for column in meta.columns() {
            if column.uncompressed_size() > MAX_CHUNK {
                let (name, size) = (column.column_path().string(), column.uncompressed_size());
                let from = number + 1;
                return Err(bad(format!(
                    "column `{name}` of the row group from row {from} holds {size} bytes, more than the limit of {MAX_CHUNK}"
                )));
            }
        }
        let rows = reader.get_row_group(group).map_err(|e| bad(format!("row group {group}: {e}")))?;
        let rows = TreeBuilder::new()
            .with_batch_size(BATCH)
            .as_iter(schema.clone(), &*rows)
            .map_err(|e| bad(format!("row group {group}: {e}")))?;
        for row in rows {
            number += 1;
            let row = row.map_err(|e| bad(format!("row {number}: {e}")))?;
            sink(number, row.get_column_iter().map(|(name, field)| (name.clone(), cell(field))).collect())?;
        }
    }
    Ok(())
}

/// A struct of `bytes` and `path` is an image as the hub writes it: its bytes, else its path.
fn cell(field: &Field) -> Cell {
    match field {
        Field::Bytes(bytes) => Cell::Bytes(bytes.data().to_vec()),
        Field::Group(row) => {
            let part = |wanted: &str| row.get_column_iter().find(|(n, _)| *n == wanted).map(|(_, f)| f);
            match (part("bytes"), part("path")) {
                (Some(Field::Bytes(bytes)), _) => Cell::Bytes(bytes.data().to_vec()),
                (Some(Field::Null), Some(Field::Str(path))) => Cell::Value(Value::String(path.clone())),
                (Some(Field::Null), Some(Field::Null)) => Cell::Value(Value::Null),
                _ => Cell::Value(value(field)),
            }
        }
        other => Cell::Value(value(other)),
    }
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(b) => Value::Bool(*b),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => f64::from(*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(s) => Value::String(s.clone()),
        Field::Bytes(bytes) => Value::String(ocelli_data::ContentHash::of(bytes.data()).to_string()),
        Field::Group(row) => {
            Value::Object(row.get_column_iter().map(|(n, f)| (n.clone(), value(f))).collect::<Map<_, _>>())
        }
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect()),
        other => Value::String(other.to_string()),
    }
}
