//! The exact token record of one rollout, and what turns messages into tokens.
//!
//! Ids enter a [`TokenLog`] in three ways only: as prompt, as samples of the policy, and as observations. Nothing is
//! ever decoded and encoded again, so the record *is* what the policy saw, and training takes it as it stands. Spans
//! hold the provenance; the loss mask follows from them and from nothing else.

use ocelli_data::{ContentHash, Message, Span, SpanKind};
use serde::{Deserialize, Serialize};

use crate::pictures::Pictures;

/// Tokens of some messages, image placeholders expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Images in the order of their placeholders in `ids`.
    pub images: Vec<ContentHash>,
}

/// Messages that cannot become tokens.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot write the dialogue as tokens: {0}")]
pub struct RenderError(pub String);

/// A chat template with its tokenizer.
///
/// Invariant: `prompt(all messages)` = `prompt(first)` + sampled ids + `observation(rest)` wherever the sampled ids are
/// what the tokenizer itself would write.
pub trait Renderer: Send + Sync {
    /// The dialogue up to where the assistant begins to speak.
    fn prompt(&self, messages: &[Message], pictures: &Pictures) -> Result<Rendered, RenderError>;

    /// What follows an assistant turn: its closing tokens, without the first where the policy sampled it itself
    /// (`last` is the last sampled token), the messages, and the header of the next assistant turn.
    fn observation(
        &self,
        messages: &[Message],
        last: Option<u32>,
        pictures: &Pictures,
    ) -> Result<Rendered, RenderError>;

    /// Text of sampled ids, without the end-of-turn token.
    fn text(&self, ids: &[u32]) -> String;

    /// True for tokens that end an assistant turn.
    fn ends_turn(&self, id: u32) -> bool;

    /// True where the text so far ends a turn although no end-of-turn token was sampled, e.g. behind `</tool_call>`.
    fn text_ends_turn(&self, text: &str) -> bool {
        text.ends_with("</tool_call>")
    }
}

/// Log-probabilities that do not belong to their ids.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TokenLogError {
    /// Not one per id.
    #[error("{ids} sampled ids came with {logprobs} log-probabilities")]
    Count {
        /// Ids.
        ids: usize,
        /// Log-probabilities.
        logprobs: usize,
    },
    /// A log-probability is NaN, infinite or positive.
    #[error("the log-probability of sampled token {index} is {value}; it should be finite and at most 0")]
    Value {
        /// Index within the turn's piece.
        index: usize,
        /// The number.
        value: f32,
    },
}

/// The tokens of one rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLog {
    ids: Vec<u32>,
    spans: Vec<Span>,
    logprobs: Vec<f32>,
    weight_versions: Vec<u64>,
    images: Vec<ContentHash>,
    prompt_images: usize,
}

impl TokenLog {
    /// Adds the prompt; it comes first and once.
    pub fn prompt(&mut self, rendered: Rendered) {
        self.push(SpanKind::Prompt, &rendered.ids);
        self.images.extend(rendered.images);
        self.prompt_images = self.images.len();
    }

    /// Adds template text and messages that the policy did not write.
    pub fn observe(&mut self, rendered: Rendered) {
        self.push(SpanKind::Observation, &rendered.ids);
        self.images.extend(rendered.images);
    }

    /// Adds ids that the policy sampled, with their log-probabilities and the version of the weights.
    pub fn sampled(&mut self, ids: &[u32], logprobs: &[f32], version: u64) -> Result<(), TokenLogError> {
        if ids.len() != logprobs.len() {
            return Err(TokenLogError::Count { ids: ids.len(), logprobs: logprobs.len() });
        }
        // A rounding error may lift a certain token a little above 0.
        let bad = logprobs.iter().position(|l| !(l.is_finite() && *l <= 1e-3));
        if let Some(index) = bad {
            return Err(TokenLogError::Value { index, value: logprobs[index] });
        }
        self.push(SpanKind::Sampled, ids);
        self.logprobs.extend_from_slice(logprobs);
        self.weight_versions.extend(std::iter::repeat_n(version, ids.len()));
        Ok(())
    }

    fn push(&mut self, kind: SpanKind, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        self.ids.extend_from_slice(ids);
        match self.spans.last_mut() {
            Some(last) if last.kind == kind => last.len += ids.len(),
            _ => self.spans.push(Span { kind, len: ids.len() }),
        }
    }

    /// All ids. `[T]`
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Origin of the ids.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Log-probabilities of the sampled ids. `[S]`
    pub fn logprobs(&self) -> &[f32] {
        &self.logprobs
    }

    /// Weight versions of the sampled ids. `[S]`
    pub fn weight_versions(&self) -> &[u64] {
        &self.weight_versions
    }

    /// Images in the order of their placeholders.
    pub fn images(&self) -> &[ContentHash] {
        &self.images
    }

    /// Number of leading ids and of leading images that are the prompt.
    pub fn prompt_len(&self) -> (usize, usize) {
        match self.spans.first() {
            Some(Span { kind: SpanKind::Prompt, len }) => (*len, self.prompt_images),
            _ => (0, 0),
        }
    }

    /// Sampled ids of the turn that is being spoken: the last span, where it is a sampled one.
    pub fn turn(&self) -> &[u32] {
        match self.spans.last() {
            Some(Span { kind: SpanKind::Sampled, len }) => &self.ids[self.ids.len() - len..],
            _ => &[],
        }
    }
}
