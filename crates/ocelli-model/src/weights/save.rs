//! Writer of the safetensors format: one file, or shards with an index when it would grow too large.
//!
//! Every file is written beside its place and renamed into it, so that a reader never meets half a checkpoint.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use half::bf16;
use serde_json::{Map, Value, json};

use crate::ModelError;
use ocelli_data::io::{create_dir, write_atomic};

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveDtype {
    /// As they are.
    F32,
    /// Rounded to nearest even.
    Bf16,
}

impl SaveDtype {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A tensor to be saved; `values` is row-major.
#[derive(Clone, Debug)]
pub struct SaveTensor<'a> {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Values, their number is the product of the shape.
    pub values: std::borrow::Cow<'a, [f32]>,
}

/// Writes tensors into `dir` as `{stem}.safetensors`, or as `{stem}-00001-of-0000N.safetensors` with
/// `{stem}.safetensors.index.json` when they take more than `max_shard` bytes together.
///
/// The order of tensors is kept. The header is padded with spaces to a multiple of eight bytes, as in the reference.
pub fn save_safetensors(
    dir: &Path,
    stem: &str,
    tensors: &[SaveTensor<'_>],
    dtype: SaveDtype,
    max_shard: usize,
) -> Result<(), ModelError> {
    create_dir(dir)?;
    for t in tensors {
        let numel: usize = t.shape.iter().product();
        if numel != t.values.len() {
            let why = format!("shape {:?} holds {numel} values, but {} were given", t.shape, t.values.len());
            return Err(ModelError::tensor(dir, &t.name, why));
        }
    }
    let mut shards: Vec<(&[SaveTensor<'_>], usize)> = Vec::new();
    let (mut first, mut size) = (0, 0);
    for (i, t) in tensors.iter().enumerate() {
        let bytes = t.values.len() * dtype.bytes();
        if size > 0 && size + bytes > max_shard {
            shards.push((&tensors[first..i], size));
            (first, size) = (i, 0);
        }
        size += bytes;
    }
    shards.push((&tensors[first..], size));
    if let [(all, _)] = shards[..] {
        return write_file(&dir.join(format!("{stem}.safetensors")), all, dtype);
    }
    let mut weight_map = Map::new();
    let n = shards.len();
    for (i, (shard, _)) in shards.iter().enumerate() {
        let name = format!("{stem}-{:05}-of-{n:05}.safetensors", i + 1);
        write_file(&dir.join(&name), shard, dtype)?;
        weight_map.extend(shard.iter().map(|t| (t.name.clone(), Value::from(name.as_str()))));
    }
    let total: usize = shards.iter().map(|(_, size)| size).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    Ok(write_atomic(&dir.join(format!("{stem}.safetensors.index.json")), index.to_string().as_bytes())?)
}

fn write_file(path: &Path, tensors: &[SaveTensor<'_>], dtype: SaveDtype) -> Result<(), ModelError> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for t in tensors {
        let end = at + t.values.len() * dtype.bytes();
        let name = match dtype {
            SaveDtype::F32 => "F32",
            SaveDtype::Bf16 => "BF16",
        };
        header.insert(t.name.clone(), json!({"dtype": name, "shape": t.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));

    let mut tmp = path.as_os_str().to_owned();
    tmp.push(format!(".tmp-{}", std::process::id()));
    let tmp = Path::new(&tmp);
    let written = (|| {
        let mut w = BufWriter::with_capacity(1 << 20, File::create(tmp)?);
        w.write_all(&(header.len() as u64).to_le_bytes())?;
        w.write_all(header.as_bytes())?;
        for t in tensors {
            match dtype {
                SaveDtype::F32 => {
                    for x in t.values.iter() {
                        w.write_all(&x.to_le_bytes())?;
                    }
                }
                SaveDtype::Bf16 => {
                    for x in t.values.iter() {
                        w.write_all(&bf16::from_f32(*x).to_le_bytes())?;
                    }
                }
            }
        }
        w.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    })();
    if let Err(e) = written {
        let _ = fs::remove_file(tmp);
        return Err(ModelError::os("write", tmp)(e));
    }
    fs::rename(tmp, path).map_err(ModelError::os("rename into", path))
}
