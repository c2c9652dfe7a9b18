//! Reader of GGUF (versions 2 and 3, little endian): metadata, tensor table, names and layout of the hub.
//!
//! Layout: magic, version, tensor count, metadata count; key/value pairs; tensor infos (name, dimensions innermost
//! first, type, offset); data, aligned. Source: `docs/gguf.md` of the format. Everything is read through a cursor that
//! cannot leave the file, and counts are checked against the bytes that are left before memory is taken.
//!
//! Llama files store the rows of q and k for interleaved rotary pairs; they are put back into the half-rotation order
//! of the hub while reading (see [`super::interleaved_row`]). Qwen2 and Qwen3 files are stored in the hub's order.

use std::path::Path;

use indexmap::IndexMap;
use serde_json::json;

use super::map::Mapped;
use super::{Dtype, Entry, Weights};
use crate::ModelError;
use crate::config::ModelConfig;

const MAX_TENSORS: u64 = 1 << 20;
const MAX_PAIRS: u64 = 1 << 16;
const MAX_KEY: u64 = 1 << 16;
/// Largest metadata section in bytes; a vocabulary of 256k tokens with merges takes about 10 MB.
const MAX_METADATA: usize = 256 << 20;
const MAX_DIMS: u32 = 4;

/// A metadata value. Arrays of numbers keep one type each; nested arrays do not occur in models and are refused.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Any unsigned or signed integer.
    Int(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// Truth value.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Array of integers or truth values.
    Ints(Vec<i64>),
    /// Array of floating point numbers.
    Floats(Vec<f64>),
    /// Array of texts.
    Texts(Vec<String>),
}

#[derive(Debug)]
struct Info {
    name: String,
    dtype: Dtype,
    /// Outermost first.
    shape: Vec<usize>,
    bytes: std::ops::Range<usize>,
}

/// An opened GGUF file.
#[derive(Debug)]
pub struct Gguf {
    file: Mapped,
    metadata: IndexMap<String, GgufValue>,
    tensors: Vec<Info>,
}

impl Gguf {
    /// Opens a file and checks its header and tensor table.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = Mapped::open(path)?;
        let (metadata, tensors) = parse(file.bytes()).map_err(|fault| match fault.tensor {
            Some(name) => ModelError::tensor(path, &name, fault.why),
            None => ModelError::malformed(path, fault.why),
        })?;
        Ok(Self { file, metadata, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// All metadata in the order of the file.
    pub fn metadata(&self) -> &IndexMap<String, GgufValue> {
        &self.metadata
    }

    /// An integer, or an error that names the key.
    pub fn int(&self, key: &str) -> Result<i64, ModelError> {
        match self.metadata.get(key) {
            Some(GgufValue::Int(v)) => Ok(*v),
            _ => Err(self.bad(key, "an integer")),
        }
    }

    /// A text, or an error that names the key.
    pub fn text(&self, key: &str) -> Result<&str, ModelError> {
        match self.metadata.get(key) {
            Some(GgufValue::Text(v)) => Ok(v),
            _ => Err(self.bad(key, "a text")),
        }
    }

    /// An array of texts, or an error that names the key.
    pub fn texts(&self, key: &str) -> Result<&[String], ModelError> {
        match self.metadata.get(key) {
            Some(GgufValue::Texts(v)) => Ok(v),
            _ => Err(self.bad(key, "an array of texts")),
        }
    }

    pub(crate) fn bad(&self, key: &str, expected: &str) -> ModelError {
        let found = self.metadata.get(key).map_or("nothing".into(), |v| {
            let text = format!("{v:?}");
            if text.len() > 80 { text.chars().take(77).collect::<String>() + "..." } else { text }
        });
        ModelError::Config { file: self.path().to_owned(), key: key.into(), expected: expected.into(), found }
    }

    /// The configuration, as `config.json` of the hub would say it.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        let arch = self.text("general.architecture")?;
        let class = match arch {
            "llama" => "LlamaForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => return Err(self.bad("general.architecture", "llama, qwen2 or qwen3")),
        };
        let key = |k: &str| format!("{arch}.{k}");
        let int = |k: &str| self.int(&key(k));
        let heads = int("attention.head_count")?;
        let float = |k: &str| match self.metadata.get(&key(k)) {
            Some(GgufValue::Float(v)) => Some(*v),
            _ => None,
        };
        let vocab = match self.metadata.get(&key("vocab_size")) {
            Some(GgufValue::Int(v)) => *v,
            _ => self.texts("tokenizer.ggml.tokens")?.len() as i64,
        };
        if let Some(GgufValue::Text(kind)) = self.metadata.get(&key("rope.scaling.type"))
            && kind != "none"
        {
            return Err(self.bad(&key("rope.scaling.type"), "no scaling of rotary frequencies"));
        }
        // f32 in the file; the shortest decimal that means it is what the author wrote (1e-05, not 9.99999974e-06).
        let eps = float("attention.layer_norm_rms_epsilon")
            .and_then(|v| (v as f32).to_string().parse::<f64>().ok())
            .ok_or_else(|| self.bad(&key("attention.layer_norm_rms_epsilon"), "a number"))?;
        let mut value = json!({
            "architectures": [class],
            "model_type": arch,
            "vocab_size": vocab,
            "hidden_size": int("embedding_length")?,
            "intermediate_size": int("feed_forward_length")?,
            "num_hidden_layers": int("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": int("attention.head_count_kv").unwrap_or(heads),
            "max_position_embeddings": int("context_length")?,
            "hidden_act": "silu",
            "rms_norm_eps": eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": float("rope.freq_base").unwrap_or(10_000.0)},
            "tie_word_embeddings": !self.tensors.iter().any(|t| t.name == "output.weight"),
        });
        if let Ok(head_dim) = int("attention.key_length").or_else(|_| int("rope.dimension_count")) {
            value["head_dim"] = head_dim.into();
        }
        for (theirs, ours) in [("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id")] {
            if let Ok(id) = self.int(&format!("tokenizer.ggml.{theirs}")) {
                value[ours] = id.into();
            }
        }
        ModelConfig::from_value(value, self.path())
    }

    /// The tensors under the hub's names.
    pub fn into_weights(self) -> Result<Weights, ModelError> {
        let path = self.path().to_owned();
        let permuted = self.text("general.architecture")? == "llama";
        let (heads, kv_heads) = if permuted {
            let text = self.config()?.text;
            (text.num_attention_heads, text.num_key_value_heads)
        } else {
            (1, 1)
        };
        let mut entries = IndexMap::with_capacity(self.tensors.len());
        for t in self.tensors {
            let interleaved = match t.name.rsplit('.').nth(1) {
                Some("attn_q") if permuted => Some(heads),
                Some("attn_k") if permuted => Some(kv_heads),
                _ => None,
            };
            if let Some(heads) = interleaved
                && !t.shape.first().is_some_and(|rows| rows.is_multiple_of(2 * heads))
            {
                let why = format!("shape {:?} cannot hold pairs of rows for {heads} heads", t.shape);
                return Err(ModelError::tensor(&path, &t.name, why));
            }
            let name = hub_name(&t.name);
            let entry = Entry {
                file: 0,
                dtype: t.dtype,
                shape: t.shape,
                bytes: t.bytes,
                interleaved_heads: interleaved,
            };
            if entries.insert(name.clone(), entry).is_some() {
                return Err(ModelError::tensor(
                    &path,
                    &t.name,
                    format!("a second tensor that maps to `{name}`"),
                ));
            }
        }
        Ok(Weights { path, files: vec![self.file], entries })
    }
}

/// Name in a checkpoint of the hub; a name that is not known stays and is reported as unexpected later.
fn hub_name(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".into(),
        "output_norm.weight" => return "model.norm.weight".into(),
        "output.weight" => return "lm_head.weight".into(),
        _ => {}
    }
    let parts: Vec<&str> = name.split('.').collect();
    let ["blk", layer, part, kind] = parts[..] else { return name.into() };
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return name.into(),
    };
    format!("model.layers.{layer}.{part}.{kind}")
}

/// What is wrong with a file, and with which tensor if it is one.
struct Fault {
    tensor: Option<String>,
    why: String,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self { tensor: None, why }
    }
}

/// Reads forward through the file; every read is checked.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], String> {
        if n > self.left() as u64 {
            return Err(format!("{what} at byte {} needs {n} bytes, {} are left", self.at, self.left()));
        }
        let start = self.at;
        self.at += n as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, max: u64, what: &str) -> Result<String, String> {
        let length = self.u64(what)?;
        if length > max {
            return Err(format!(
                "{what} at byte {} is {length} bytes long, more than the limit {max}",
                self.at
            ));
        }
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|e| format!("{what} before byte {}: {e}", self.at))
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<GgufValue, String> {
        Ok(match kind {
            0 => GgufValue::Int(i64::from(u8::from_le_bytes(self.array(key)?))),
            1 => GgufValue::Int(i64::from(i8::from_le_bytes(self.array(key)?))),
            2 => GgufValue::Int(i64::from(u16::from_le_bytes(self.array(key)?))),
            3 => GgufValue::Int(i64::from(i16::from_le_bytes(self.array(key)?))),
            4 => GgufValue::Int(i64::from(self.u32(key)?)),
            5 => GgufValue::Int(i64::from(i32::from_le_bytes(self.array(key)?))),
            6 => GgufValue::Float(f64::from(f32::from_le_bytes(self.array(key)?))),
            7 => GgufValue::Bool(match self.array::<1>(key)?[0] {
                0 => false,
                1 => true,
                other => return Err(format!("`{key}`: {other} is not a truth value")),
            }),
            8 => GgufValue::Text(self.text(MAX_METADATA as u64, key)?),
            10 => {
                let v = self.u64(key)?;
                GgufValue::Int(i64::try_from(v).map_err(|_| format!("`{key}`: {v} is too large"))?)
            }
            11 => GgufValue::Int(i64::from_le_bytes(self.array(key)?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.array(key)?)),
            other => return Err(format!("`{key}`: value type {other} is not known (0-8, 10-12)")),
        })
    }

    fn value(&mut self, key: &str) -> Result<GgufValue, String> {
        let kind = self.u32(key)?;
        if kind != 9 {
            return self.scalar(kind, key);
        }
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            other => return Err(format!("`{key}`: array of value type {other} is not supported")),
        };
        if count.checked_mul(smallest).is_none_or(|n| n > self.left() as u64) {
            return Err(format!(
                "`{key}`: an array of {count} values does not fit into the {} bytes left",
                self.left()
            ));
        }
        let n = count as usize;
        let (mut ints, mut floats, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..n {
            match self.scalar(kind, key)? {
                GgufValue::Int(v) => ints.push(v),
                GgufValue::Bool(v) => ints.push(i64::from(v)),
                GgufValue::Float(v) => floats.push(v),
                GgufValue::Text(v) => texts.push(v),
                _ => {}
            }
        }
        Ok(match kind {
            6 | 12 => GgufValue::Floats(floats),
            8 => GgufValue::Texts(texts),
            _ => GgufValue::Ints(ints),
        })
    }
}

fn parse(bytes: &[u8]) -> Result<(IndexMap<String, GgufValue>, Vec<Info>), Fault> {
    // Metadata and tensor table are bounded together by MAX_METADATA, whatever the file's size.
    let head = &bytes[..bytes.len().min(MAX_METADATA)];
    let mut c = Cursor { bytes: head, at: 0 };
    if c.array::<4>("magic")? != *b"GGUF" {
        return Err(Fault::from("does not start with the magic GGUF".to_owned()));
    }
    let version = c.u32("version")?;
    if !(2..=3).contains(&version) {
        return Err(Fault::from(format!("GGUF version {version} is not supported (2 and 3 are)")));
    }
    let (tensor_count, pair_count) = (c.u64("tensor count")?, c.u64("metadata count")?);
    if tensor_count > MAX_TENSORS || pair_count > MAX_PAIRS {
        return Err(Fault::from(format!(
            "{tensor_count} tensors and {pair_count} metadata pairs are more than the limits {MAX_TENSORS} and {MAX_PAIRS}"
        )));
    }
    let mut metadata = IndexMap::new();
    for _ in 0..pair_count {
        let key = c.text(MAX_KEY, "metadata key")?;
        let value = c.value(&key)?;
        if metadata.contains_key(&key) {
            return Err(Fault::from(format!("metadata key `{key}` occurs twice")));
        }
        metadata.insert(key, value);
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(GgufValue::Int(a)) if *a > 0 && *a <= 1 << 16 && (*a as u64).is_power_of_two() => *a as usize,
        Some(other) => {
            return Err(Fault::from(format!(
                "general.alignment {other:?} is not a power of two up to 65536"
            )));
        }
    };
    let mut infos = Vec::new();
    for _ in 0..tensor_count {
        infos.push(read_info(&mut c)?);
    }
    let data_start = c.at.next_multiple_of(alignment);
    let tensors = infos
        .into_iter()
        .map(|(name, kind, shape, offset)| {
            place(kind, &shape, offset, alignment, data_start, bytes.len())
                .map(|(dtype, bytes)| Info { name: name.clone(), dtype, shape, bytes })
                .map_err(|why| Fault { tensor: Some(name), why })
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_overlap(&tensors)?;
    Ok((metadata, tensors))
}

type RawInfo = (String, u32, Vec<usize>, u64);

fn read_info(c: &mut Cursor<'_>) -> Result<RawInfo, Fault> {
    let name = c.text(MAX_KEY, "tensor name")?;
    let fault = |why: String| Fault { tensor: Some(name.clone()), why };
    let dims = c.u32("number of dimensions").map_err(fault)?;
    if dims > MAX_DIMS {
        return Err(fault(format!("{dims} dimensions are more than {MAX_DIMS}")));
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        let d = c.u64("dimension").map_err(fault)?;
        shape.push(usize::try_from(d).map_err(|_| fault(format!("dimension {d} is too large")))?);
    }
    shape.reverse();
    let kind = c.u32("tensor type").map_err(fault)?;
    let offset = c.u64("tensor offset").map_err(fault)?;
    Ok((name, kind, shape, offset))
}

/// Bytes of a tensor in the file, checked.
fn place(
    kind: u32,
    shape: &[usize],
    offset: u64,
    alignment: usize,
    data_start: usize,
    file_len: usize,
) -> Result<(Dtype, std::ops::Range<usize>), String> {
    let dtype = match kind {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Q4_0,
        3 => Dtype::Q4_1,
        8 => Dtype::Q8_0,
        12 => Dtype::Q4K,
        14 => Dtype::Q6K,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::BF16,
        other => {
            return Err(format!(
                "GGUF tensor type {other} is not supported (F32 0, F16 1, Q4_0 2, Q4_1 3, Q8_0 8, Q4_K 12, Q6_K 14, BF16 30 are)"
            ));
        }
    };
    let row = shape.last().copied().unwrap_or(1);
    let (values, _) = dtype.block();
    if !row.is_multiple_of(values) {
        return Err(format!(
            "rows of {row} values are no multiple of the {values} values in a block of {dtype}"
        ));
    }
    let size = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .and_then(|n| dtype.bytes(n))
        .ok_or_else(|| format!("shape {shape:?} overflows"))?;
    if !offset.is_multiple_of(alignment as u64) {
        return Err(format!("offset {offset} is no multiple of the alignment {alignment}"));
    }
    let start = usize::try_from(offset).ok().and_then(|o| o.checked_add(data_start));
    match start.and_then(|s| s.checked_add(size).map(|e| s..e)) {
        Some(range) if range.end <= file_len => Ok((dtype, range)),
        _ => Err(format!(
            "{dtype} of shape {shape:?} at offset {offset} takes {size} bytes, but the data section has {}",
            file_len.saturating_sub(data_start)
        )),
    }
}

fn check_overlap(tensors: &[Info]) -> Result<(), Fault> {
    let mut order: Vec<&Info> = tensors.iter().filter(|t| !t.bytes.is_empty()).collect();
    order.sort_by_key(|t| t.bytes.start);
    for pair in order.windows(2) {
        if pair[1].bytes.start < pair[0].bytes.end {
            let why = format!(
                "starts at byte {}, inside tensor `{}`, which ends at {}",
                pair[1].bytes.start, pair[0].name, pair[0].bytes.end
            );
            return Err(Fault { tensor: Some(pair[1].name.clone()), why });
        }
    }
    Ok(())
}
