//! `ocelli-tiny`: a native family of half a million to thirty million parameters, trained in minutes on two cores.
//!
//! The architecture is Qwen3-VL's without DeepStack ([`super::qwen3_vl`]; norms on queries and keys keep small models stable
//! at high learning rates, learned positions tell a short tower where it looks), the vocabulary has 512 tokens
//! ([`tokenizer`]). A saved model is a Qwen3-VL checkpoint, and `transformers` loads it.
//!
//! ```
//! use ocelli_model::vlm::{Vlm, tiny::TinyConfig};
//!
//! let model = Vlm::tiny(&TinyConfig::preset("tiny-0.5m")?, 0)?;
//! assert!(model.params.element_count() < 600_000);
//! # Ok::<(), ocelli_model::ModelError>(())
//! ```

mod vocabulary;

use std::path::Path;

use serde_json::{Value, json};

pub use vocabulary::{VOCAB_SIZE, special_tokens, tokenizer};

use super::Vlm;
use crate::ModelError;
use crate::config::ModelConfig;
use crate::image::Preprocessor;

/// What the chat template writes where a picture stands.
pub const IMAGE: &str = "<|vision_start|><|image_pad|><|vision_end|>";

/// Sizes of the vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyVision {
    /// Side of a patch in pixels; a token is 2 x 2 patches.
    pub patch: usize,
    /// E, width of the tower.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; four times their number divides the width.
    pub heads: usize,
    /// Width inside the feed-forward layers.
    pub mlp: usize,
    /// Side of the square table of learned positions.
    pub side: usize,
    /// Pictures are scaled to at least this many pixels.
    pub min_pixels: u64,
    /// Pictures are scaled to at most this many pixels.
    pub max_pixels: u64,
}

impl Default for TinyVision {
    fn default() -> Self {
        Self {
            patch: 8,
            width: 96,
            depth: 3,
            heads: 4,
            mlp: 288,
            side: 16,
            min_pixels: 32 * 32,
            max_pixels: 128 * 128,
        }
    }
}

impl TinyVision {
    /// The sizes of the tower that `model` has, so that another model can be given the same one.
    ///
    /// # Errors
    /// The model has no tower of the native family.
    pub fn of(model: &Vlm) -> Result<Self, ModelError> {
        let none = || {
            ModelError::Request(format!(
                "a model of type `{}` has no tower of the native family",
                model.config.model_type
            ))
        };
        let vision = model.config.raw.get("vision_config").ok_or_else(none)?;
        let size = |key: &str| {
            let found = vision.get(key).and_then(Value::as_u64).and_then(|v| usize::try_from(v).ok());
            found.ok_or_else(none)
        };
        let Some(Preprocessor::Qwen(cut)) = model.preprocessor() else { return Err(none()) };
        if size("spatial_merge_size")? != 2 || size("temporal_patch_size")? != 1 {
            return Err(none());
        }
        Ok(Self {
            patch: size("patch_size")?,
            width: size("hidden_size")?,
            depth: size("depth")?,
            heads: size("num_heads")?,
            mlp: size("intermediate_size")?,
            side: size("num_position_embeddings")?.isqrt(),
            min_pixels: cut.min_pixels,
            max_pixels: cut.max_pixels,
        })
    }

    /// `vision_config` for a language model of width `output`.
    pub(crate) fn config(&self, output: usize) -> Value {
        json!({
            "model_type": "qwen3_vl_vision",
            "depth": self.depth,
            "hidden_size": self.width,
            "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": self.mlp,
            "num_heads": self.heads,
            "in_channels": 3,
            "patch_size": self.patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 1,
            "out_hidden_size": output,
            "num_position_embeddings": self.side * self.side,
            "deepstack_visual_indexes": [],
        })
    }

    /// `preprocessor_config.json`.
    pub(crate) fn preprocessor_config(&self) -> Value {
        json!({
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": self.patch,
            "merge_size": 2,
            "temporal_patch_size": 1,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        })
    }
}

/// Sizes of a native model.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyConfig {
    /// The tower.
    pub vision: TinyVision,
    /// D, width of the language model.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head, a multiple of 4.
    pub head_dim: usize,
    /// Width inside the feed-forward layers.
    pub mlp: usize,
    /// Longest context in tokens.
    pub context: usize,
}

impl TinyConfig {
    /// Names of the presets.
    pub const PRESETS: [&str; 4] = ["tiny-0.5m", "tiny-2m", "tiny-8m", "tiny-30m"];

    /// A preset by its name. Pictures take at most 36, 64, 144 or 256 tokens.
    ///
    /// # Errors
    /// There is no such preset.
    pub fn preset(name: &str) -> Result<Self, ModelError> {
        let vision = TinyVision::default();
        Ok(match name {
            "tiny-0.5m" => Self {
                vision: TinyVision { width: 64, depth: 2, mlp: 192, max_pixels: 96 * 96, ..vision },
                width: 96,
                layers: 3,
                heads: 4,
                kv_heads: 2,
                head_dim: 24,
                mlp: 256,
                context: 2048,
            },
            "tiny-2m" => Self {
                vision,
                width: 192,
                layers: 4,
                heads: 6,
                kv_heads: 2,
                head_dim: 32,
                mlp: 512,
                context: 4096,
            },
            "tiny-8m" => Self {
                vision: TinyVision {
                    width: 160,
                    depth: 4,
                    heads: 5,
                    mlp: 480,
                    max_pixels: 192 * 192,
                    ..vision
                },
                width: 320,
                layers: 6,
                heads: 10,
                kv_heads: 2,
                head_dim: 32,
                mlp: 896,
                context: 4096,
            },
            "tiny-30m" => Self {
                vision: TinyVision {
                    width: 256,
                    depth: 6,
                    heads: 8,
                    mlp: 768,
                    max_pixels: 256 * 256,
                    ..vision
                },
                width: 512,
                layers: 8,
                heads: 8,
                kv_heads: 2,
                head_dim: 64,
                mlp: 1408,
                context: 8192,
            },
            _ => {
                let known = Self::PRESETS.join(", ");
                return Err(ModelError::Request(format!("there is no preset `{name}`; there are {known}")));
            }
        })
    }

    /// `config.json`.
    fn json(&self) -> Result<Value, ModelError> {
        let tokenizer = tokenizer()?;
        let id = |token: &str| tokenizer.id(token);
        // A third of the frequencies for each of time, height and width; what is left over goes to time.
        let third = self.head_dim / 6;
        Ok(json!({
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "model_type": "qwen3_vl",
            "tie_word_embeddings": true,
            "image_token_id": id("<|image_pad|>"),
            "video_token_id": id("<|video_pad|>"),
            "vision_start_token_id": id("<|vision_start|>"),
            "vision_end_token_id": id("<|vision_end|>"),
            "eos_token_id": id("<|im_end|>"),
            "text_config": {
                "model_type": "qwen3_vl_text",
                "vocab_size": VOCAB_SIZE,
                "hidden_size": self.width,
                "intermediate_size": self.mlp,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "head_dim": self.head_dim,
                "hidden_act": "silu",
                "max_position_embeddings": self.context,
                "rms_norm_eps": 1e-6,
                "attention_bias": false,
                "bos_token_id": null,
                "eos_token_id": id("<|im_end|>"),
                "pad_token_id": id("<|endoftext|>"),
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [self.head_dim / 2 - 2 * third, third, third],
                    "mrope_interleaved": true,
                },
            },
            "vision_config": self.vision.config(self.width),
        }))
    }

    pub(crate) fn model_config(&self) -> Result<ModelConfig, ModelError> {
        ModelConfig::from_value(self.json()?, Path::new("config.json"))
    }

    /// The files of a checkpoint beside its weights.
    pub(crate) fn files(&self) -> Result<Vec<(String, Vec<u8>)>, ModelError> {
        let pretty = |v: &Value| format!("{v:#}\n").into_bytes();
        let special = special_tokens();
        let tokenizer_config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": special.eos, "pad_token": special.pad, "model_max_length": self.context,
        });
        let tokenizer = tokenizer()?;
        let eos = tokenizer.id("<|im_end|>");
        Ok(vec![
            ("config.json".into(), pretty(&self.json()?)),
            (
                "generation_config.json".into(),
                pretty(&json!({"eos_token_id": eos, "pad_token_id": tokenizer.id("<|endoftext|>")})),
            ),
            ("preprocessor_config.json".into(), pretty(&self.vision.preprocessor_config())),
            ("tokenizer.json".into(), tokenizer.to_json()?.into_bytes()),
            ("tokenizer_config.json".into(), pretty(&tokenizer_config)),
            ("chat_template.jinja".into(), chat_template(IMAGE).into_bytes()),
        ])
    }
}

/// The chat template of the native family, `image` standing where a picture stands.
///
/// ChatML. Tools are listed by name and parameters, one line each, because every character counts for a small model; calls
/// have the form of Hermes and Qwen, `<tool_call>\n{"name": .., "arguments": ..}\n</tool_call>`, and results come back in a
/// turn of the role `tool`. Thoughts (`<think>..</think>`) are part of what the assistant says.
pub fn chat_template(image: &str) -> String {
    const TEMPLATE: &str = r"
{%- macro body(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == 'image' -%}
        {{- 'IMAGE' -}}
      {%- else -%}
        {{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- set system = messages and messages[0].role == 'system' -%}
{%- if tools or system -%}
  {{- '<|im_start|>system\n' -}}
  {%- if system -%}
    {{- body(messages[0].content) -}}
    {%- if tools -%}{{- '\n' -}}{%- endif -%}
  {%- endif -%}
  {%- if tools -%}
    {{- 'Tools:' -}}
    {%- for tool in tools -%}
      {%- set f = tool.function -%}
      {{- '\n' + f.name + '(' -}}
      {%- if f.parameters and f.parameters.properties -%}
        {{- f.parameters.properties | list | join(', ') -}}
      {%- endif -%}
      {{- ')' -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if not (loop.first and system) -%}
    {{- '<|im_start|>' + message.role + '\n' + body(message.content) -}}
    {%- if message.tool_calls -%}
      {%- for call in message.tool_calls -%}
        {{- '<tool_call>\n' -}}
        {{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson -}}
        {{- '\n</tool_call>' -}}
      {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
";
    TEMPLATE.trim().replace("IMAGE", image)
}
