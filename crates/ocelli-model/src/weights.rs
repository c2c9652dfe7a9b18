//! Tensors of a checkpoint by name: memory-mapped safetensors (one file or shards with an index) or GGUF, read as f32.
//!
//! Opening a file parses and checks its header only. [`Weights::check`] compares names and shapes with what a model
//! demands and reports all disagreements at once; only then are tensors read, so a hostile file never causes an
//! allocation that its own size does not justify. A value that is not finite is an error.

mod gguf;
mod map;
mod quant;
mod safetensors;
mod save;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use ocelli_tensor::{DType, ParamId, Params, Tensor};
use rayon::prelude::*;

pub use gguf::{Gguf, GgufValue};
use map::Mapped;
pub use quant::Dtype;
pub(crate) use safetensors::shard_names;
pub use save::{SaveDtype, SaveTensor, save_safetensors};

use crate::ModelError;
use crate::error::{Mismatch, Misshapen};
use crate::text::Keep;

/// Name and shape of a tensor that a model demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the checkpoint, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Shape, outermost first: a linear layer is `[out, in]`.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A demanded tensor.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }
}

/// Where a tensor lies and how it is stored.
#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes of the tensor inside the file; checked to lie in it and to fit dtype and shape.
    bytes: std::ops::Range<usize>,
    /// `Some(heads)`: rows of each head are stored for interleaved rotary pairs and are put back into the
    /// half-rotation order of the hub while reading (GGUF, Llama).
    interleaved_heads: Option<usize>,
}

/// The tensors of one checkpoint.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<Mapped>,
    entries: IndexMap<String, Entry>,
}

impl Weights {
    /// Opens a `.safetensors` file, a `.gguf` file, or a directory that holds `model.safetensors` or
    /// `model.safetensors.index.json` with its shards.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_some_and(|e| e == "gguf") {
            return Gguf::open(path)?.into_weights();
        }
        safetensors::open(path)
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names in the order of the file(s).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// True when the checkpoint holds a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape of a tensor, outermost first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// How a tensor is stored.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|e| e.dtype)
    }

    /// Bytes that a tensor takes in the file.
    pub fn stored_bytes(&self, name: &str) -> Option<usize> {
        self.entries.get(name).map(|e| e.bytes.len())
    }

    /// Compares the checkpoint with what a model demands. Tensors for which `ignored` is true may be there unasked
    /// (buffers such as `rotary_emb.inv_freq`, or the other half of a model).
    pub fn check(&self, demanded: &[TensorSpec], ignored: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let mut missing = Vec::new();
        let mut misshapen = Vec::new();
        let mut known = HashSet::new();
        for spec in demanded {
            known.insert(spec.name.as_str());
            match self.entries.get(&spec.name) {
                None => missing.push(spec.name.clone()),
                Some(e) if e.shape != spec.shape => misshapen.push(Misshapen {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    found: e.shape.clone(),
                }),
                Some(_) => {}
            }
        }
        let unexpected: Vec<String> =
            self.names().filter(|n| !known.contains(n) && !ignored(n)).map(str::to_owned).collect();
        if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
            return Ok(());
        }
        Err(Mismatch { path: self.path.clone(), missing, unexpected, misshapen }.into())
    }

    /// Reads a tensor as f32, outermost dimension first, dequantised if need be.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let entry = self.entry(name)?;
        let mut out = vec![0.0; entry.shape.iter().product()];
        self.read_into(name, &mut out)?;
        Ok(out)
    }

    /// Reads a tensor into `out`, whose length must be the product of the shape.
    pub fn read_into(&self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let file = &self.files[entry.file];
        let numel: usize = entry.shape.iter().product();
        if out.len() != numel {
            let why = format!("shape {:?} holds {numel} values, the destination {}", entry.shape, out.len());
            return Err(ModelError::tensor(file.path(), name, why));
        }
        if numel == 0 {
            return Ok(());
        }
        if !entry.dtype.is_float() {
            let why = format!("dtype {} cannot be read as floating point", entry.dtype);
            return Err(ModelError::tensor(file.path(), name, why));
        }
        let bytes = &file.bytes()[entry.bytes.clone()];
        let row = entry.shape.last().copied().unwrap_or(1).max(1);
        // A bias has one value per row of its weight.
        let (rows, row) = if entry.shape.len() < 2 && entry.interleaved_heads.is_some() {
            (numel, 1)
        } else {
            (numel / row, row)
        };
        let row_bytes = bytes.len() / rows;
        let finite = out.par_chunks_mut(row).enumerate().all(|(r, out)| {
            let r = entry.interleaved_heads.map_or(r, |heads| interleaved_row(r, rows, heads));
            entry.dtype.decode(&bytes[r * row_bytes..(r + 1) * row_bytes], out);
            out.iter().all(|x| x.is_finite())
        });
        if finite {
            return Ok(());
        }
        let at = out.iter().position(|x| !x.is_finite()).unwrap_or(0);
        let why = format!("value {} at flat index {at} of {:?} is not a finite number", out[at], entry.shape);
        Err(ModelError::tensor(file.path(), name, why))
    }

    /// Reads a tensor as an f32 [`Tensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let mut out = Tensor::zeros(&self.entry(name)?.shape, DType::F32);
        self.read_into(name, out.as_mut_slice()?)?;
        Ok(out)
    }

    /// Reads a tensor into a set of parameters under its own name.
    pub fn add_to(&self, params: &mut Params, name: &str, keep: Keep) -> Result<ParamId, ModelError> {
        let value = self.tensor(name)?;
        Ok(match keep {
            Keep::Trainable => params.add(name, value)?,
            Keep::Frozen(dtype) => params.add_frozen(name, value.to_dtype(dtype))?,
        })
    }

    fn entry(&self, name: &str) -> Result<&Entry, ModelError> {
        self.entries
            .get(name)
            .ok_or_else(|| ModelError::tensor(&self.path, name, "there is no tensor of this name"))
    }
}

/// Row of the file that holds row `r` of the hub's layout. The hub rotates dimension i of a head with i + half; GGUF
/// stores the pair side by side: `file[2 i + j] = hub[j * half + i]` within each head.
fn interleaved_row(r: usize, rows: usize, heads: usize) -> usize {
    let head_dim = rows / heads;
    let (head, d) = (r / head_dim, r % head_dim);
    let half = head_dim / 2;
    head * head_dim + 2 * (d % half) + d / half
}
