//! A model put together from parts: any text model that can be loaded, our vision tower and a new projector, the language
//! model frozen (the construction of Skywork R1V, arXiv 2504.05599, section 2.1, at a size that two cores can train).
//!
//! The tower and the projector are those of [`super::qwen3_vl`]. A token that the language model has and never uses stands
//! for a picture; its features replace that token's embedding, so the embedding table stays as it is. Text positions
//! are one-dimensional, as the language model was trained.

use std::path::Path;

use serde_json::{Value, json};

use super::tiny::TinyVision;
use crate::ModelError;
use crate::chat::ChatTemplate;
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, to_json};
use crate::tokenizer::SpecialTokens;

/// `model_type` in `config.json`.
pub(crate) const MODEL_TYPE: &str = "ocelli_assembled";

/// Settings of an assembled model.
#[derive(Clone, Debug, PartialEq)]
pub struct Assembly {
    /// The vision tower.
    pub vision: TinyVision,
    /// A token of the language model that stands for a piece of picture. SmolLM2: `<empty_output>`.
    pub image_token: String,
}

impl Default for Assembly {
    /// For SmolLM2: patches of 16 pixels, six blocks of width 192.
    fn default() -> Self {
        let vision = TinyVision {
            patch: 16,
            width: 192,
            depth: 6,
            heads: 6,
            max_pixels: 256 * 256,
            ..TinyVision::default()
        };
        Self { vision, image_token: "<empty_output>".into() }
    }
}

impl Assembly {
    /// The configuration of the whole.
    pub(crate) fn config(&self, text: &Checkpoint) -> Result<ModelConfig, ModelError> {
        let image_token_id = text.tokenizer()?.id(&self.image_token).ok_or_else(|| {
            ModelError::Request(format!(
                "the language model has no token `{}` to stand for a picture",
                self.image_token
            ))
        })?;
        let mut text_config = to_json(&text.config.text);
        text_config["eos_token_id"] = json!(text.eos_ids);
        let value = json!({
            "model_type": MODEL_TYPE,
            "image_token_id": image_token_id,
            "tie_word_embeddings": text.config.text.tie_word_embeddings,
            "text_config": text_config,
            "vision_config": self.vision.config(text.config.text.hidden_size),
        });
        ModelConfig::from_value(value, Path::new("config.json"))
    }

    /// The language model's ChatML with a place for pictures.
    pub(crate) fn chat(&self, special: SpecialTokens) -> Result<ChatTemplate, ModelError> {
        ChatTemplate::new(&super::tiny::chat_template(&self.image_token), special)
    }

    pub(crate) fn preprocessor_config(&self) -> Value {
        self.vision.preprocessor_config()
    }
}
