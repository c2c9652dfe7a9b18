//! Reader of the safetensors format: `u64` header length, JSON header `{name: {dtype, shape, data_offsets}}`, data.
//!
//! Own reader rather than the crate's, for one reason: errors here name file, tensor and numbers. The checks are those
//! of the reference (header <= 100 MB, offsets in order, no hole, no overlap, size = dtype x shape) and one more:
//! a name that occurs twice is an error.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use ocelli_data::io::read_bounded;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::map::Mapped;
use super::{Dtype, Entry, Weights};
use crate::ModelError;

/// Largest header, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
/// Largest index of a sharded checkpoint, in bytes.
const MAX_INDEX: u64 = 100_000_000;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Opens one file, or a directory with `model.safetensors` or an index.
pub(super) fn open(path: &Path) -> Result<Weights, ModelError> {
    let mut weights = Weights { path: path.to_owned(), files: Vec::new(), entries: IndexMap::new() };
    if !path.is_dir() {
        add_file(&mut weights, path)?;
        return Ok(weights);
    }
    let (single, index) = (path.join(SINGLE), path.join(INDEX));
    if single.exists() {
        add_file(&mut weights, &single)?;
    } else if index.exists() {
        add_shards(&mut weights, path, &index)?;
    } else {
        let why = format!("neither {SINGLE} nor {INDEX} is there");
        return Err(ModelError::NotFound { name: path.display().to_string(), why });
    }
    Ok(weights)
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn add_shards(weights: &mut Weights, dir: &Path, index: &Path) -> Result<(), ModelError> {
    let (weight_map, shards) = read_index(index)?;
    let absent: Vec<&str> = shards.iter().map(String::as_str).filter(|s| !dir.join(s).is_file()).collect();
    if !absent.is_empty() {
        let why = format!("{} of {} shards are not there: {}", absent.len(), shards.len(), absent.join(", "));
        return Err(ModelError::malformed(index, why));
    }
    let mut files: HashMap<usize, &String> = HashMap::new();
    for shard in &shards {
        files.insert(weights.files.len(), shard);
        add_file(weights, &dir.join(shard))?;
    }
    for (name, shard) in &weight_map {
        match weights.entries.get(name).and_then(|e| files.get(&e.file)) {
            Some(found) if *found == shard => {}
            Some(found) => {
                let why = format!("the index says it is in {shard}, but it is in {found}");
                return Err(ModelError::tensor(index, name, why));
            }
            None => {
                let why = format!("the index says it is in {shard}, but that file has no such tensor");
                return Err(ModelError::tensor(index, name, why));
            }
        }
    }
    Ok(())
}

fn add_file(weights: &mut Weights, path: &Path) -> Result<(), ModelError> {
    let file = Mapped::open(path)?;
    let index = weights.files.len();
    for (name, entry) in parse(path, file.bytes(), index)? {
        if let Some(before) = weights.entries.get(&name) {
            let why = format!("also in {}", weights.files[before.file].path().display());
            return Err(ModelError::tensor(path, &name, why));
        }
        weights.entries.insert(name, entry);
    }
    weights.files.push(file);
    Ok(())
}

fn parse(path: &Path, bytes: &[u8], file: usize) -> Result<Vec<(String, Entry)>, ModelError> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        let why = format!("{} bytes are too few for a safetensors header length (8)", bytes.len());
        return Err(ModelError::malformed(path, why));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        let why = format!(
            "header length {length} is more than the limit {MAX_HEADER} or the {} bytes that follow",
            rest.len()
        );
        return Err(ModelError::malformed(path, why));
    }
    let (header, data) = rest.split_at(length as usize);
    let Header(rows) = serde_json::from_slice(header)
        .map_err(|e| ModelError::malformed(path, format!("safetensors header: {e}")))?;
    let data_start = 8 + length as usize;
    let mut entries = Vec::with_capacity(rows.len());
    for (name, row) in rows {
        let entry = check_row(&row, data_start, data.len(), file)
            .map_err(|why| ModelError::tensor(path, &name, why))?;
        entries.push((name, entry));
    }
    entries.sort_by_key(|(_, e)| (e.bytes.start, e.bytes.end));
    let mut end = data_start;
    for (name, e) in &entries {
        if e.bytes.start != end {
            let what =
                if e.bytes.start < end { "overlaps its predecessor" } else { "leaves a hole before it" };
            let why = format!(
                "data_offsets [{}, {}] {what}, which ends at {}",
                e.bytes.start - data_start,
                e.bytes.end - data_start,
                end - data_start
            );
            return Err(ModelError::tensor(path, name, why));
        }
        end = e.bytes.end;
    }
    if end != bytes.len() {
        let why = format!("tensors end at byte {end}, the file at {}", bytes.len());
        return Err(ModelError::malformed(path, why));
    }
    Ok(entries)
}

fn check_row(row: &Row, data_start: usize, data_len: usize, file: usize) -> Result<Entry, String> {
    let dtype = match row.dtype.as_str() {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::BF16,
        "I64" => Dtype::I64,
        "I32" => Dtype::I32,
        "I16" => Dtype::I16,
        "I8" => Dtype::I8,
        "U64" => Dtype::U64,
        "U32" => Dtype::U32,
        "U16" => Dtype::U16,
        "U8" => Dtype::U8,
        "BOOL" => Dtype::Bool,
        other => return Err(format!("dtype `{other}` is not known")),
    };
    let [start, end] = row.data_offsets;
    if start > end || end > data_len {
        return Err(format!("data_offsets [{start}, {end}] do not lie in the {data_len} bytes of data"));
    }
    let wanted = row
        .shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .and_then(|n| dtype.bytes(n))
        .ok_or_else(|| format!("shape {:?} overflows", row.shape))?;
    if wanted != end - start {
        return Err(format!(
            "{dtype} of shape {:?} takes {wanted} bytes, data_offsets [{start}, {end}] give {}",
            row.shape,
            end - start
        ));
    }
    let bytes = data_start + start..data_start + end;
    Ok(Entry { file, dtype, shape: row.shape.clone(), bytes, interleaved_heads: None })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Rows of the header in order; `__metadata__` is skipped, a repeated name is refused.
struct Header(Vec<(String, Row)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut rows: IndexMap<String, Row> = IndexMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let row = map.next_value()?;
                    if rows.contains_key(&name) {
                        return Err(serde::de::Error::custom(format!("tensor `{name}` occurs twice")));
                    }
                    rows.insert(name, row);
                }
                Ok(Header(rows.into_iter().collect()))
            }
        }
        deserializer.deserialize_map(Rows)
    }
}

/// The shards that an index names, each once; only plain file names are accepted.
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>, ModelError> {
    Ok(read_index(index)?.1)
}

fn read_index(index: &Path) -> Result<(BTreeMap<String, String>, Vec<String>), ModelError> {
    let bytes = read_bounded(index, MAX_INDEX)?;
    let Index { weight_map } = serde_json::from_slice(&bytes)
        .map_err(|e| ModelError::malformed(index, format!("not a safetensors index: {e}")))?;
    let mut shards: Vec<String> = weight_map.values().cloned().collect();
    shards.sort();
    shards.dedup();
    // Anything but a plain file name could reach out of the directory.
    match shards.iter().find(|s| Path::new(s).file_name().is_none_or(|n| n != s.as_str())) {
        Some(s) => Err(ModelError::malformed(index, format!("shard `{s}` is not a plain file name"))),
        None => Ok((weight_map, shards)),
    }
}
