//! Decoders, vision towers, projectors, heads, weights, tokenizer, chat template, image preprocessing, generation.

pub mod config;
mod error;
pub mod weights;

pub use config::{Family, ModelConfig, TextConfig};
pub use error::{Mismatch, Misshapen, ModelError};
pub use weights::{Dtype, SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};
