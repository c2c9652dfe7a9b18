//! One opened checkpoint: configuration, weights, tokenizer, chat template, stop tokens; from a directory in the hub's
//! layout or from a `.gguf` file.

use std::path::{Path, PathBuf};

use ocelli_data::io::{create_dir, read_bounded, write_atomic};
use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::chat::ChatTemplate;
use crate::config::{MAX_CONFIG_BYTES, ModelConfig, token_ids};
use crate::hub::SIDE_FILES;
use crate::tokenizer::{SpecialTokens, Tokenizer};
use crate::weights::{Gguf, Weights};

/// Largest side file that is copied, in bytes.
const MAX_SIDE_FILE: u64 = 128 << 20;

/// A checkpoint whose headers are read and checked; tensors are still on disk.
#[derive(Debug)]
pub struct Checkpoint {
    /// The directory or file.
    pub path: PathBuf,
    /// The checked configuration.
    pub config: ModelConfig,
    /// The tensors.
    pub weights: Weights,
    /// The tokenizer, where there is one (tiny test checkpoints have none).
    pub tokenizer: Option<Tokenizer>,
    /// The chat template, where there is one.
    pub chat: Option<ChatTemplate>,
    /// Tokens after which generation ends, from `generation_config.json`, `config.json` and the tokenizer; sorted.
    pub eos_ids: Vec<u32>,
    /// The tokens that templates refer to.
    pub special: SpecialTokens,
}

impl Checkpoint {
    /// Opens a directory in the hub's layout, or a `.gguf` file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() { Self::open_dir(path) } else { Self::open_gguf(path) }
    }

    fn open_dir(dir: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::read(&dir.join("config.json"))?;
        let weights = Weights::open(dir)?;
        let tokenizer_path = dir.join("tokenizer.json");
        let tokenizer_config = read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let tokenizer = match tokenizer_path.exists() {
            true => Some(Tokenizer::from_file(&tokenizer_path)?),
            false => Tokenizer::from_vocabulary(dir, &tokenizer_config)?,
        };
        let special = SpecialTokens::from_config(&tokenizer_config);
        let chat = chat_source(dir, &tokenizer_config)?
            .map(|source| ChatTemplate::new(&source, special.clone()))
            .transpose()?;
        let generation = read_object(&dir.join("generation_config.json"))?.unwrap_or_default();
        let mut eos_ids = config.eos_ids();
        eos_ids.extend(token_ids(generation.get("eos_token_id")));
        Ok(Self::assemble(dir, config, weights, tokenizer, special, chat, eos_ids))
    }

    fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_none_or(|e| e != "gguf") {
            let why = "it is neither a directory with config.json nor a .gguf file".into();
            return Err(ModelError::NotFound { name: path.display().to_string(), why });
        }
        let gguf = Gguf::open(path)?;
        let config = gguf.config()?;
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let special = SpecialTokens::from_gguf(&gguf);
        let chat = gguf
            .text("tokenizer.chat_template")
            .ok()
            .map(|source| ChatTemplate::new(source, special.clone()))
            .transpose()?;
        let eos_ids = config.eos_ids();
        let weights = gguf.into_weights()?;
        Ok(Self::assemble(path, config, weights, Some(tokenizer), special, chat, eos_ids))
    }

    fn assemble(
        path: &Path,
        config: ModelConfig,
        weights: Weights,
        tokenizer: Option<Tokenizer>,
        special: SpecialTokens,
        chat: Option<ChatTemplate>,
        mut eos_ids: Vec<u32>,
    ) -> Self {
        eos_ids.extend(special.eos.as_deref().and_then(|eos| tokenizer.as_ref()?.id(eos)));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        Self { path: path.to_owned(), config, weights, tokenizer, chat, eos_ids, special }
    }

    /// Writes everything but the weights into `dir`, so that it becomes a checkpoint in the hub's layout: files of a
    /// directory are copied, those of a GGUF file are made from its metadata.
    pub fn save_side_files(&self, dir: &Path) -> Result<(), ModelError> {
        create_dir(dir)?;
        for (name, bytes) in self.side_files()? {
            write_atomic(&dir.join(name), &bytes)?;
        }
        Ok(())
    }

    /// Names and content of all files of the checkpoint but its weights, see [`Checkpoint::save_side_files`].
    pub fn side_files(&self) -> Result<Vec<(String, Vec<u8>)>, ModelError> {
        let mut files = Vec::new();
        if self.path.is_dir() {
            for name in SIDE_FILES {
                let from = self.path.join(name);
                if from.exists() {
                    files.push(((*name).to_owned(), read_bounded(&from, MAX_SIDE_FILE)?));
                }
            }
            return Ok(files);
        }
        let mut config = crate::config::to_json(&self.config.text);
        config["eos_token_id"] = json!(self.eos_ids);
        let mut tokenizer_config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.special.bos, "eos_token": self.special.eos,
            "pad_token": self.special.pad, "unk_token": self.special.unk,
        });
        if let Some(chat) = &self.chat {
            tokenizer_config["chat_template"] = chat.source().into();
        }
        files.push(("config.json".into(), format!("{config:#}\n").into_bytes()));
        files.push(("tokenizer_config.json".into(), format!("{tokenizer_config:#}\n").into_bytes()));
        if let Some(tokenizer) = &self.tokenizer {
            files.push(("tokenizer.json".into(), tokenizer.to_json()?.into_bytes()));
        }
        Ok(files)
    }

    /// The tokenizer, or an error that says where it was expected.
    pub fn tokenizer(&self) -> Result<&Tokenizer, ModelError> {
        self.tokenizer.as_ref().ok_or_else(|| ModelError::Tokenizer {
            path: self.path.join("tokenizer.json"),
            why: "there is no such file; text cannot become tokens without it".into(),
        })
    }

    /// The chat template, or an error that says where it was expected.
    pub fn chat(&self) -> Result<&ChatTemplate, ModelError> {
        self.chat.as_ref().ok_or_else(|| {
            let path = self.path.display();
            ModelError::Chat(format!(
                "{path} has none (chat_template.jinja, or a key in tokenizer_config.json)"
            ))
        })
    }
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_bounded(path, MAX_CONFIG_BYTES)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| ModelError::malformed(path, format!("not a JSON object: {e}")))
}

/// `chat_template.jinja`, `chat_template.json`, or the key `chat_template` of `tokenizer_config.json`, which is a text or
/// a list of named templates.
fn chat_source(dir: &Path, tokenizer_config: &Map<String, Value>) -> Result<Option<String>, ModelError> {
    let jinja = dir.join("chat_template.jinja");
    if jinja.exists() {
        let bytes = read_bounded(&jinja, MAX_CONFIG_BYTES)?;
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|e| ModelError::malformed(&jinja, format!("not UTF-8: {e}")));
    }
    let separate = read_object(&dir.join("chat_template.json"))?;
    let value =
        separate.as_ref().and_then(|o| o.get("chat_template")).or(tokenizer_config.get("chat_template"));
    Ok(match value {
        Some(Value::String(s)) => Some(s.clone()),
        Some(Value::Array(named)) => named
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template").and_then(Value::as_str))
            .map(str::to_owned),
        _ => None,
    })
}
