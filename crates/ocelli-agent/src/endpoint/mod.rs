//! Client of an OpenAI-compatible chat-completions endpoint.
//!
//! One [`Endpoint`] is shared by everything that asks the same server. A request waits for a place under the adaptive
//! limit ([`limit`]), is sent with its images as base64 data URLs ([`wire`]), is repeated with growing, jittered
//! pauses where repetition can help ([`retry`]), and ends either in a [`Completion`] or in an [`EndpointError`].
//! [`Completion::outcome`] sorts answers into {ok, truncated, refused, empty}; an error is `failed`, and a scorer that
//! finds no answer in the text makes it `unparsed`: together the six [`Outcome`]s, of which every request has one.
//!
//! Images are read only once a request has its place, so memory follows the number of requests in flight, not the
//! number of items.

mod client;
pub mod limit;
pub mod retry;
pub mod thinking;
mod usage;
pub mod wire;

use serde::{Deserialize, Serialize};

pub use client::{ChatRequest, Endpoint, EndpointError};
pub use limit::Concurrency;
pub use retry::RetryPolicy;
pub use usage::{Price, Totals, Usage};
pub use wire::{Completion, Finish, MalformedCall, SamplingParams, ToolImages, ToolSchema};

/// How a request ended. Every request has exactly one; none is ever dropped from a denominator.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A complete answer.
    Ok,
    /// The token limit cut the answer, or its thinking block never closed.
    Truncated,
    /// The endpoint's filter or the model declined to answer.
    Refused,
    /// Neither text nor a tool call came back.
    Empty,
    /// There is text, but no answer could be read from it (set by a scorer).
    Unparsed,
    /// No answer came back after all attempts.
    Failed,
}

impl Outcome {
    /// All outcomes, in the order of reports.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Truncated, Self::Refused, Self::Empty, Self::Unparsed, Self::Failed];

    /// Lower-case name, as in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::Empty => "empty",
            Self::Unparsed => "unparsed",
            Self::Failed => "failed",
        }
    }
}

/// A secret that never shows itself in debug output or in a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

/// Where an endpoint is and how it may be used. The defaults suit a server of one's own.
#[derive(Clone, Debug, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Base address up to and including the version, e.g. `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// Model name as the endpoint knows it.
    pub model: String,
    /// Bearer token; read from the environment by the command line, never from a file of the project.
    #[serde(skip)]
    pub api_key: Option<ApiKey>,
    /// Adaptive limit on requests in flight.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// Repetition of failed requests.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Seconds until one attempt is given up.
    #[serde(default = "default_timeout")]
    pub timeout_s: f64,
    /// Requests per minute that the provider allows.
    #[serde(default)]
    pub requests_per_minute: Option<f64>,
    /// Tokens per minute (prompt and completion) that the provider allows.
    #[serde(default)]
    pub tokens_per_minute: Option<f64>,
    /// Price of tokens, for the account of costs.
    #[serde(default)]
    pub price: Option<Price>,
    /// Name of the field that limits the completion: `max_tokens` (servers of one's own) or `max_completion_tokens`.
    #[serde(default = "default_limit_field")]
    pub limit_field: String,
    /// Where images of tool results go.
    #[serde(default)]
    pub tool_images: ToolImages,
    /// Largest body of a response, in bytes.
    #[serde(default = "default_max_body")]
    pub max_body: usize,
}

fn default_timeout() -> f64 {
    600.0
}

fn default_limit_field() -> String {
    "max_tokens".into()
}

fn default_max_body() -> usize {
    64 << 20
}

impl EndpointConfig {
    /// Defaults for `model` at `base_url`.
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            model: model.into(),
            api_key: None,
            concurrency: Concurrency::default(),
            retry: RetryPolicy::default(),
            timeout_s: default_timeout(),
            requests_per_minute: None,
            tokens_per_minute: None,
            price: None,
            limit_field: default_limit_field(),
            tool_images: ToolImages::default(),
            max_body: default_max_body(),
        }
    }
}
