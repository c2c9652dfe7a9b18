//! Decoders, vision towers, projectors, heads, weights, tokenizer, chat template, image preprocessing, generation.

mod chat;
mod checkpoint;
pub mod config;
mod error;
pub mod hub;
mod tokenizer;
pub mod weights;

pub use chat::{ChatOptions, ChatTemplate};
pub use checkpoint::Checkpoint;
pub use config::{Family, ModelConfig, TextConfig};
pub use error::{Mismatch, Misshapen, ModelError};
pub use tokenizer::{SpecialTokens, TextStream, Tokenizer};
pub use weights::{Dtype, SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};
