//! Parquet files as a data hub writes them, from rows in JSON and the types of their columns.

// Each test file compiles its own copy and uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use image::ImageFormat;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use crate::made_data::picture;

/// Type of a column; any cell may be null.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    Text,
    Int,
    Real,
    Bool,
    /// List of texts.
    Texts,
    /// List of whole numbers.
    Ints,
    /// A struct of `bytes` and `path`; the JSON cell is a number that tells drawn pictures apart, or a file.
    Image,
    /// A struct.
    Table(&'static [(&'static str, Type)]),
}

use Type::*;

fn declare(name: &str, kind: Type, out: &mut String) {
    let list =
        |of: &str| format!("optional group {name} (LIST) {{ repeated group list {{ optional {of}; }} }} ");
    out.push_str(&match kind {
        Text => format!("optional binary {name} (UTF8); "),
        Int => format!("optional int64 {name}; "),
        Real => format!("optional double {name}; "),
        Bool => format!("optional boolean {name}; "),
        Texts => list("binary element (UTF8)"),
        Ints => list("int64 element"),
        Image => format!("optional group {name} {{ optional binary bytes; optional binary path (UTF8); }} "),
        Table(columns) => {
            let mut inner = String::new();
            columns.iter().for_each(|(name, kind)| declare(name, *kind, &mut inner));
            format!("optional group {name} {{ {inner} }} ")
        }
    });
}

#[derive(Default)]
struct Leaf {
    levels: Vec<i16>,
    repetitions: Vec<i16>,
    bytes: Vec<ByteArray>,
    ints: Vec<i64>,
    reals: Vec<f64>,
    bools: Vec<bool>,
}

impl Leaf {
    fn push(&mut self, kind: Type, value: &Value, level: i16, repetition: i16) {
        self.levels.push(level);
        self.repetitions.push(repetition);
        match kind {
            Int | Ints => self.ints.push(value.as_i64().unwrap()),
            Real => self.reals.push(value.as_f64().unwrap()),
            Bool => self.bools.push(value.as_bool().unwrap()),
            _ => self.bytes.push(ByteArray::from(value.as_str().unwrap())),
        }
    }

    fn null(&mut self, level: i16) {
        self.levels.push(level);
        self.repetitions.push(0);
    }
}

/// Cells of a column, row by row; `above` counts the structs around it, `None` stands for a null at level `.1`.
fn leaves(kind: Type, cells: &[(Option<&Value>, i16)], above: i16, out: &mut Vec<(Type, Leaf)>) {
    match kind {
        Table(columns) => {
            for (name, kind) in columns {
                let inner: Vec<(Option<&Value>, i16)> = cells
                    .iter()
                    .map(|(cell, level)| match cell {
                        Some(table) => (table.get(*name).filter(|v| !v.is_null()), above + 1),
                        None => (None, *level),
                    })
                    .collect();
                leaves(*kind, &inner, above + 1, out);
            }
        }
        Image => {
            let (mut bytes, mut path) = (Leaf::default(), Leaf::default());
            for (cell, level) in cells {
                let encoded = match cell {
                    Some(Value::String(file)) => std::fs::read(file).unwrap(),
                    Some(seed) => picture(seed.as_u64().unwrap() as u32, ImageFormat::Png),
                    None => {
                        bytes.null(*level);
                        path.null(*level);
                        continue;
                    }
                };
                bytes.levels.push(above + 2);
                bytes.repetitions.push(0);
                bytes.bytes.push(ByteArray::from(encoded));
                path.null(above + 1);
            }
            out.push((Text, bytes));
            out.push((Text, path));
        }
        Texts | Ints => {
            let mut leaf = Leaf::default();
            for (cell, level) in cells {
                match cell.map(|v| v.as_array().unwrap().as_slice()) {
                    None => leaf.null(*level),
                    Some([]) => leaf.null(above + 1),
                    Some(list) => list
                        .iter()
                        .enumerate()
                        .for_each(|(i, v)| leaf.push(kind, v, above + 3, i16::from(i > 0))),
                }
            }
            out.push((kind, leaf));
        }
        _ => {
            let mut leaf = Leaf::default();
            for (cell, level) in cells {
                match cell {
                    Some(value) => leaf.push(kind, value, above + 1, 0),
                    None => leaf.null(*level),
                }
            }
            out.push((kind, leaf));
        }
    }
}

/// Writes a file of these columns; cells that a row leaves out are null.
pub(crate) fn write_parquet(path: &Path, columns: &[(&'static str, Type)], rows: &[Value]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut schema = "message schema { ".to_owned();
    let mut all = Vec::new();
    for (name, kind) in columns {
        declare(name, *kind, &mut schema);
        let cells: Vec<(Option<&Value>, i16)> =
            rows.iter().map(|row| (row.get(*name).filter(|v| !v.is_null()), 0)).collect();
        leaves(*kind, &cells, 0, &mut all);
    }
    for row in rows {
        for key in row.as_object().unwrap().keys() {
            assert!(columns.iter().any(|(name, _)| name == key), "the schema has no `{key}`");
        }
    }
    schema.push('}');
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (kind, leaf) in all {
        let mut column = group.next_column().unwrap().unwrap();
        let repetitions = matches!(kind, Texts | Ints).then_some(leaf.repetitions.as_slice());
        let levels = Some(leaf.levels.as_slice());
        match kind {
            Int | Ints => column.typed::<Int64Type>().write_batch(&leaf.ints, levels, repetitions),
            Real => column.typed::<DoubleType>().write_batch(&leaf.reals, levels, repetitions),
            Bool => column.typed::<BoolType>().write_batch(&leaf.bools, levels, repetitions),
            _ => column.typed::<ByteArrayType>().write_batch(&leaf.bytes, levels, repetitions),
        }
        .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}
