//! Text to token ids and back: a checkpoint's `tokenizer.json`, the byte-level BPE of its `vocab.json` and `merges.txt`, or the one that a
//! GGUF file carries.
//!
//! Both run on the `tokenizers` crate, the reference's own engine. A GGUF file names its pre-tokenizer (`smollm`,
//! `qwen2` ...); [`Tokenizer::from_gguf`] writes the `tokenizer.json` that the hub has for it, so that a model can be
//! saved in the hub's layout whatever it was loaded from.

use std::path::{Path, PathBuf};

use ocelli_data::io::read_bounded;
use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::guard::Guard;
use crate::weights::{Gguf, GgufValue};

/// Largest `tokenizer.json` that is read, in bytes (Gemma's is 33 MB).
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// The tokens that chat templates and stopping rules refer to, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a sequence.
    pub bos: Option<String>,
    /// End of a turn or sequence.
    pub eos: Option<String>,
    /// Padding; not used for computing here, but some templates print it.
    pub pad: Option<String>,
    /// Unknown.
    pub unk: Option<String>,
}

impl SpecialTokens {
    /// From `tokenizer_config.json`, where a token is a string or an object with `content`.
    pub fn from_config(config: &Map<String, Value>) -> Self {
        let token = |key: &str| match config.get(key) {
            Some(Value::String(s)) => Some(s.clone()),
            Some(Value::Object(o)) => o.get("content").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        Self {
            bos: token("bos_token"),
            eos: token("eos_token"),
            pad: token("pad_token"),
            unk: token("unk_token"),
        }
    }

    /// From the metadata of a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Self {
        let tokens = gguf.texts("tokenizer.ggml.tokens").unwrap_or(&[]);
        let token = |key: &str| {
            let id = gguf.int(&format!("tokenizer.ggml.{key}_token_id")).ok()?;
            tokens.get(usize::try_from(id).ok()?).cloned()
        };
        Self { bos: token("bos"), eos: token("eos"), pad: token("padding"), unk: token("unknown") }
    }
}

/// A tokenizer.
///
/// ```no_run
/// # fn main() -> Result<(), ocelli_model::ModelError> {
/// let tokenizer = ocelli_model::Tokenizer::from_file("SmolLM2/tokenizer.json".as_ref())?;
/// let ids = tokenizer.encode("How many bars?")?;
/// assert_eq!(tokenizer.decode(&ids)?, "How many bars?");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    guard: Guard,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        Self::from_bytes(&read_bounded(path, MAX_TOKENIZER_BYTES)?, path)
    }

    /// Parses the content of a `tokenizer.json`; `path` appears in errors.
    pub fn from_bytes(json: &[u8], path: &Path) -> Result<Self, ModelError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| error(path, e))?;
        // Both would make the ids of a text depend on more than the text.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| error(path, e))?;
        let added = inner.get_added_tokens_decoder();
        let guard = Guard::new(added.into_values().map(|t| (t.content, t.special)));
        Ok(Self { inner, path: path.to_owned(), guard })
    }

    /// Builds the byte-level BPE of `vocab.json` and `merges.txt`, which older checkpoints have in place of a `tokenizer.json` (Qwen2's, and
    /// with it InternVL2.5's); `config` is their `tokenizer_config.json`. `None` where there are no such files, or of another class of
    /// tokenizer than Qwen2's and GPT-2's.
    ///
    /// # Errors
    /// A file that is no vocabulary; added tokens whose ids leave a gap.
    pub fn from_vocabulary(dir: &Path, config: &Map<String, Value>) -> Result<Option<Self>, ModelError> {
        let (path, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
        if !path.exists() || !merges.exists() {
            return Ok(None);
        }
        let object = |path: &Path| -> Result<Map<String, Value>, ModelError> {
            serde_json::from_slice(&read_bounded(path, MAX_TOKENIZER_BYTES)?)
                .map_err(|e| error(path, format!("not a JSON object: {e}")))
        };
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let Some(rules) = Rules::of_class(class) else { return Ok(None) };
        let vocab = object(&path)?;
        let text = String::from_utf8(read_bounded(&merges, MAX_TOKENIZER_BYTES)?)
            .map_err(|e| error(&merges, format!("not UTF-8: {e}")))?;
        let mut pairs = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.is_empty() || (i == 0 && line.starts_with("#version")) {
                continue;
            }
            let Some((a, b)) = line.split_once(' ') else {
                return Err(error(
                    &merges,
                    format!("line {}: `{line}` is not two tokens and a space", i + 1),
                ));
            };
            pairs.push(json!([a, b]));
        }
        let side = dir.join("added_tokens.json");
        let more = if side.exists() { object(&side)? } else { Map::new() };
        let added = added_tokens(config, &more);
        let json = rules.json(vocab, pairs, added.iter().map(|(id, token)| with_id(*id, token)).collect());
        let this = Self::from_bytes(json.to_string().as_bytes(), &path)?;
        for (id, token) in &added {
            let content = token["content"].as_str().unwrap_or_default();
            if this.id(content).map(u64::from) != Some(*id) {
                let why =
                    format!("added token `{content}` should have id {id}, but tokens before it are missing");
                return Err(error(&path, why));
            }
        }
        Ok(Some(this))
    }

    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let json = gguf_tokenizer_json(gguf)?;
        Self::from_bytes(json.to_string().as_bytes(), gguf.path())
    }

    /// What keeps the text of messages from being taken for marks of the template.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Ids of a text. Special tokens written in the text (`<|im_end|>`) become their ids; none are added around it:
    /// the chat template writes what a model wants. A rendered dialogue with text from outside goes through
    /// [`Tokenizer::encode_guarded`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| error(&self.path, e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of ids, special tokens included. Ids without a token (padding of the embedding) add nothing, as in the
    /// reference.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.inner.decode(ids, false).map_err(|e| error(&self.path, e))
    }

    /// Text of ids without special tokens.
    pub fn decode_plain(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.inner.decode(ids, true).map_err(|e| error(&self.path, e))
    }

    /// Id of a token, e.g. `<|im_end|>`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The content of a `tokenizer.json` that reads back as this tokenizer.
    pub fn to_json(&self) -> Result<String, ModelError> {
        self.inner.to_string(false).map_err(|e| error(&self.path, e))
    }
}

fn error(path: &Path, why: impl std::fmt::Display) -> ModelError {
    ModelError::Tokenizer { path: path.to_owned(), why: why.to_string() }
}

/// Turns a stream of ids into pieces of text that never end inside a character.
///
/// A byte-level token may hold half a character; text is released once the bytes so far are whole. Decoding starts a
/// few tokens back, because some decoders treat the first token of a text differently.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// Where decoding starts.
    from: usize,
    /// Ids before this are released.
    released: usize,
}

impl TextStream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an id; returns the text that is now certain (often empty within a character). Special tokens are left out.
    pub fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        self.ids.push(id);
        let whole = tokenizer.decode_plain(&self.ids[self.from..])?;
        if whole.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.release(&whole, tokenizer)
    }

    /// What is left at the end, broken characters included.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        let whole = tokenizer.decode_plain(&self.ids[self.from..])?;
        self.release(&whole, tokenizer)
    }

    fn release(&mut self, whole: &str, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        let known = tokenizer.decode_plain(&self.ids[self.from..self.released])?;
        let new = whole.get(known.len()..).unwrap_or("").to_owned();
        self.from = self.released;
        self.released = self.ids.len();
        Ok(new)
    }
}

/// The `tokenizer.json` of a byte-level BPE described by GGUF metadata.
fn gguf_tokenizer_json(gguf: &Gguf) -> Result<Value, ModelError> {
    if gguf.text("tokenizer.ggml.model")? != "gpt2" {
        return Err(gguf.bad("tokenizer.ggml.model", "gpt2 (byte-level BPE)"));
    }
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let merges = gguf.texts("tokenizer.ggml.merges")?;
    let types: &[i64] = match gguf.metadata().get("tokenizer.ggml.token_type") {
        Some(GgufValue::Ints(v)) if v.len() == tokens.len() => v,
        None => &[],
        Some(_) => {
            let expected = format!("one integer for each of the {} tokens", tokens.len());
            return Err(gguf.bad("tokenizer.ggml.token_type", &expected));
        }
    };
    let pre = gguf.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
    let known = "one of gpt-2, smollm, qwen2, llama-bpe";
    let rules = Rules::of_gguf(pre).ok_or_else(|| gguf.bad("tokenizer.ggml.pre", known))?;
    let mut vocab = Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert(token.clone(), id.into()).is_some() {
            return Err(error(gguf.path(), format!("token {id} `{token}` occurs twice")));
        }
    }
    let mut pairs = Vec::with_capacity(merges.len());
    for (i, merge) in merges.iter().enumerate() {
        let Some((a, b)) = merge.split_once(' ') else {
            return Err(error(gguf.path(), format!("merge {i} `{merge}` is not two tokens and a space")));
        };
        pairs.push(json!([a, b]));
    }
    // Types of tokens in GGUF: 3 control (special), 4 user defined (matched in text, not special).
    let added: Vec<Value> = tokens
        .iter()
        .zip(types)
        .enumerate()
        .filter(|(_, (_, kind))| matches!(kind, 3 | 4))
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": *kind == 3})
        })
        .collect();
    Ok(rules.json(vocab, pairs, added))
}

/// Added tokens by id: those of `tokenizer_config.json`, then those that only `added_tokens.json` names.
fn added_tokens(config: &Map<String, Value>, more: &Map<String, Value>) -> Vec<(u64, Value)> {
    let mut added: Vec<(u64, Value)> = config
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token.clone())))
        .filter(|(_, token)| token.get("content").is_some_and(Value::is_string))
        .collect();
    let special: Vec<&str> = config
        .get("additional_special_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|t| t.as_str().or_else(|| t.get("content")?.as_str()))
        .collect();
    for (content, id) in more {
        let Some(id) = id.as_u64().filter(|id| added.iter().all(|(known, _)| known != id)) else { continue };
        let is_special = special.contains(&content.as_str()) || content.starts_with("<|");
        added.push((id, json!({"content": content, "special": is_special})));
    }
    added.sort_by_key(|(id, _)| *id);
    added
}

/// A token of `added_tokens_decoder` as `tokenizer.json` lists it.
fn with_id(id: u64, token: &Value) -> Value {
    let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
    json!({"id": id, "content": token["content"], "single_word": flag("single_word"), "lstrip": flag("lstrip"),
           "rstrip": flag("rstrip"), "normalized": flag("normalized"), "special": flag("special")})
}

/// What a family of byte-level BPEs does besides its vocabulary.
struct Rules {
    pre_tokenizer: Value,
    normalizer: Value,
    ignore_merges: bool,
}

impl Rules {
    fn new(pre_tokenizer: Value, normalizer: Value, ignore_merges: bool) -> Self {
        Self { pre_tokenizer, normalizer, ignore_merges }
    }

    /// By the name of the pre-tokenizer in a GGUF file.
    fn of_gguf(pre: &str) -> Option<Self> {
        let split = |pattern: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level(false),
            ]})
        };
        Some(match pre {
            "gpt-2" | "default" => Self::new(byte_level(true), Value::Null, false),
            "smollm" => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                let both = json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]});
                Self::new(both, Value::Null, false)
            }
            "qwen2" => Self::new(split(&gpt4_split("\\p{N}")), json!({"type": "NFC"}), false),
            "llama-bpe" => Self::new(split(&gpt4_split("\\p{N}{1,3}")), Value::Null, true),
            _ => return None,
        })
    }

    /// By `tokenizer_class`.
    fn of_class(class: &str) -> Option<Self> {
        match class.trim_end_matches("Fast") {
            "Qwen2Tokenizer" => Self::of_gguf("qwen2"),
            "GPT2Tokenizer" => Self::of_gguf("gpt-2"),
            _ => None,
        }
    }

    /// The content of `tokenizer.json`.
    fn json(self, vocab: Map<String, Value>, merges: Vec<Value>, added: Vec<Value>) -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": null,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": self.ignore_merges, "vocab": vocab, "merges": merges,
            },
        })
    }
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

/// The splitting pattern that GPT-4's tokenizer introduced; families differ in how many digits stay together.
fn gpt4_split(digits: &str) -> String {
    format!(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|{digits}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    )
}
