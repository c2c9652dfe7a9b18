//! Generation: continuous batching, prompts shared inside a group, seeded sampling with log-probabilities, turns.
//!
//! An [`Engine`] runs many sequences, one forward pass per [`Engine::step`]. A sequence generates a *turn*: until a stop
//! token, a stop string, its token limit or the end of the context. Its cache stays, so that the caller can append an
//! observation and let it go on ([`Engine::resume`]); what was sampled is never tokenised again. The G sequences of a
//! group share one copy of their prompt's keys and values.
//!
//! What a sequence samples depends on its seed and stream, its tokens and the weights. It does not depend on what else
//! is in the batch, except where the compute layer chooses another kernel for another number of rows and rounds
//! differently in the last bit.

mod engine;
mod sampler;
mod stop;

pub use engine::{Engine, EngineLimits, SeqId, Step};
pub use sampler::{Choice, Sampler};

use ocelli_tensor::Tensor;

use crate::ModelError;

/// How a sequence chooses tokens and when its turn ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this likely relative to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that are in the context already (Keskar et al.
    /// 2019); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Tokens that one turn may sample.
    pub max_new_tokens: usize,
    /// Tokens that end the turn; they are part of its ids.
    pub stop_ids: Vec<u32>,
    /// Texts that end the turn; the turn's text is cut before them, its ids are not.
    pub stop_strings: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 256,
            stop_ids: Vec::new(),
            stop_strings: Vec::new(),
        }
    }
}

impl Sampling {
    /// The most likely token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let in_unit = |x: f32| (0.0..=1.0).contains(&x);
        let problem = if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            format!("temperature {} must be a number from 0 on", self.temperature)
        } else if !(in_unit(self.top_p) && self.top_p > 0.0) {
            format!("top_p {} must be above 0 and at most 1", self.top_p)
        } else if !in_unit(self.min_p) {
            format!("min_p {} must be from 0 to 1", self.min_p)
        } else if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            format!("repetition_penalty {} must be above 0", self.repetition_penalty)
        } else if self.max_new_tokens == 0 {
            "max_new_tokens must be at least 1".to_owned()
        } else if self.stop_strings.iter().any(String::is_empty) {
            "a stop string must not be empty".to_owned()
        } else {
            return Ok(());
        };
        Err(ModelError::Request(problem))
    }
}

/// Rows that take the place of token embeddings: image features behind their placeholder tokens.
#[derive(Clone, Debug)]
pub struct Splice {
    /// First position in the ids.
    pub at: usize,
    /// Features, `[n, D]`.
    pub rows: Tensor,
    /// Features that are added to the same rows after the decoder's first blocks (DeepStack), `[n, D]` each; usually
    /// none. All splices of an engine have equally many.
    pub deep: Vec<Tensor>,
}

/// Positions of a prompt with images (M-RoPE), counted from its own start.
#[derive(Clone, Debug, PartialEq)]
pub struct MropePositions {
    /// Time, height and width of each token. `[3][N]`
    pub axes: [Vec<f32>; 3],
    /// Position of the first token after the prompt, on all three axes.
    pub next: f32,
}

/// Tokens to be read before something is sampled: a prompt, or an observation in the middle of a dialogue.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Token ids, image placeholders expanded. `[N]`
    pub ids: Vec<u32>,
    /// Image features, not overlapping.
    pub splices: Vec<Splice>,
    /// Positions; `None` counts tokens.
    pub positions: Option<MropePositions>,
}

impl From<Vec<u32>> for Prompt {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }
}

/// Why a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A stop token was sampled.
    Token(u32),
    /// A stop string appeared in the text.
    Text(String),
    /// The turn's token limit.
    MaxTokens,
    /// No room for another token in the model's context.
    ContextFull,
}

/// What a sequence said in one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The sequence.
    pub seq: SeqId,
    /// Sampled ids, the stop token included. `[S]`
    pub ids: Vec<u32>,
    /// Log-probability of each id under the distribution that it was sampled from (temperature, penalty and filters
    /// applied). For greedy turns: under the softmax of the penalised logits. `[S]`
    pub logprobs: Vec<f32>,
    /// Log-probability of each id under the softmax of the untouched logits. `[S]`
    pub raw_logprobs: Vec<f32>,
    /// Text of the ids without special tokens, cut before a stop string; empty without a tokenizer.
    pub text: String,
    /// Why it ended.
    pub reason: StopReason,
}
