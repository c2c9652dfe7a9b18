//! Decoders, vision towers, projectors, heads, weights, tokenizer, chat template, image preprocessing, generation.

mod chat;
mod checkpoint;
pub mod config;
mod declare;
mod error;
pub mod generate;
pub mod hub;
pub mod image;
mod language_model;
pub mod lora;
pub mod text;
mod tokenizer;
mod vision;
pub mod vlm;
pub mod weights;

pub use chat::{ChatOptions, ChatTemplate};
pub use checkpoint::Checkpoint;
pub use config::{Family, ModelConfig, TextConfig};
pub use error::{Mismatch, Misshapen, ModelError};
pub use generate::{Engine, EngineLimits, Prompt, Sampling, SeqId, Splice, StopReason, Turn};
pub use language_model::{LanguageModel, save_merged};
pub use lora::LoraConfig;
pub use text::{Attend, DeepFeatures, Keep, Positions, TextModel, TextNames};
pub use tokenizer::{SpecialTokens, TextStream, Tokenizer};
pub use vlm::Vlm;
pub use weights::{Dtype, SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};
