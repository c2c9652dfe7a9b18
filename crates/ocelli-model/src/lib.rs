//! Decoders, vision towers, projectors, heads, weights, tokenizer, chat template, image preprocessing, generation.
//!
//! ```
//! use ocelli_model::{Engine, EngineLimits, ModelConfig, Sampling, StopReason, TextModel, TextNames};
//! use ocelli_tensor::{Params, SeqLayout, Tape};
//! use rand::SeedableRng;
//!
//! // A decoder of the Llama family with fresh weights. A real one: `LanguageModel::load(&Checkpoint::open(path)?, ..)`.
//! let config = serde_json::json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
//!     "num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": true});
//! let config = ModelConfig::from_value(config, "config.json".as_ref())?;
//! let mut params = Params::new();
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! let model = TextModel::init(&mut params, &config.text, &TextNames::default(), &mut rng)?;
//!
//! // Four answers of five tokens to one prompt, which is read once.
//! let mut engine = Engine::new(&model, &params, None, EngineLimits::default())?;
//! let sampling = Sampling { max_new_tokens: 5, ..Sampling::default() };
//! engine.start(vec![3, 17, 5].into(), 4, &sampling, 42, 0)?;
//! let turns = engine.run(|_, _| {})?;
//! assert_eq!((turns.len(), &turns[0].reason), (4, &StopReason::MaxTokens));
//!
//! // The log-probabilities that the engine reports are those that training computes.
//! let ids = [&[3, 17, 5], &turns[0].ids[..]].concat();
//! let mut tape = Tape::train(&params);
//! let hidden = model.hidden(&mut tape, &ids, &SeqLayout::causal(&[ids.len()]), false)?;
//! let scored = model.logprobs(&mut tape, &hidden, &[2, 3, 4, 5, 6], &turns[0].ids, 1.0)?;
//! for (a, b) in turns[0].logprobs.iter().zip(scored.logprob.value().to_vec()) {
//!     assert!((a - b).abs() < 1e-5);
//! }
//! # Ok::<(), ocelli_model::ModelError>(())
//! ```

mod chat;
mod checkpoint;
pub mod config;
mod declare;
mod error;
pub mod generate;
mod guard;
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
pub use guard::Guard;
pub use language_model::{LanguageModel, save_merged};
pub use lora::LoraConfig;
pub use text::{Attend, DeepFeatures, Keep, Positions, TextModel, TextNames};
pub use tokenizer::{SpecialTokens, TextStream, Tokenizer};
pub use vlm::Vlm;
pub use weights::{Dtype, SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};
