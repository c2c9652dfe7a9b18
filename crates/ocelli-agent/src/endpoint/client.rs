//! Sending: one request from its place in the queue to its completion or error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ocelli_data::{ContentHash, Message, Part};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::limit::{Gate, Signal};
use super::retry::{self, StatusClass};
use super::wire::{self, BodyWriter};
use super::{Completion, EndpointConfig, SamplingParams, ToolSchema, Totals, Usage};

/// A request that ended without a completion.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EndpointError {
    /// The configuration cannot be used.
    #[error("endpoint {url}: {message}")]
    Config {
        /// Address.
        url: String,
        /// What is wrong.
        message: String,
    },
    /// An image of the request could not be read.
    #[error("image {}: {message}", .hash.short())]
    Image {
        /// Name of the image.
        hash: ContentHash,
        /// What is wrong.
        message: String,
    },
    /// The endpoint refused with a status that repetition cannot change, or kept refusing.
    #[error("endpoint {url} answered {status} after {attempts} attempt(s): {body}")]
    Status {
        /// Address.
        url: String,
        /// HTTP status of the last attempt.
        status: u16,
        /// Attempts made.
        attempts: u32,
        /// Beginning of the body.
        body: String,
    },
    /// No answer came: connection refused or broken, or a timeout.
    #[error("endpoint {url} gave no answer after {attempts} attempt(s): {message}")]
    Transport {
        /// Address.
        url: String,
        /// Attempts made.
        attempts: u32,
        /// The last reason.
        message: String,
    },
    /// The answer is not a chat completion.
    #[error("endpoint {url} sent something else than a chat completion, {attempts} time(s): {message}")]
    Malformed {
        /// Address.
        url: String,
        /// Attempts made.
        attempts: u32,
        /// What is wrong with the last one.
        message: String,
    },
}

impl EndpointError {
    /// True where every other request will fail in the same way (wrong key, address or model), so that a run should
    /// stop instead of writing thousands of failures.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Config { .. } => true,
            Self::Status { status, .. } => retry::classify(*status) == StatusClass::Fatal,
            Self::Image { .. } | Self::Transport { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct ChatRequest<'a> {
    /// The dialogue so far.
    pub messages: &'a [Message],
    /// How to sample.
    pub sampling: &'a SamplingParams,
    /// Tools that may be called; empty for none.
    pub tools: &'a [ToolSchema],
}

/// A client of one endpoint; clones share its limits and its account.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: EndpointConfig,
    url: String,
    client: reqwest::Client,
    gate: Gate,
    sent: AtomicU64,
    totals: Mutex<Totals>,
}

/// How an attempt failed.
enum Failure {
    Status { status: u16, body: String, asked: Option<Duration> },
    Transport(String),
    Malformed(String),
}

impl Endpoint {
    /// Checks the configuration; nothing is sent.
    pub fn new(config: EndpointConfig) -> Result<Self, EndpointError> {
        let bad = |message: String| EndpointError::Config { url: config.base_url.clone(), message };
        let base = reqwest::Url::parse(&config.base_url).map_err(|e| bad(format!("not an address: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad(format!("the scheme is `{}`, not http or https", base.scheme())));
        }
        if !(config.timeout_s > 0.0 && config.timeout_s < 1e9) {
            return Err(bad(format!("timeout_s is {}, which is no time to wait", config.timeout_s)));
        }
        if config.retry.attempts == 0 {
            return Err(bad("retry.attempts is 0; the first attempt counts, so it is at least 1".into()));
        }
        let mut builder = reqwest::Client::builder()
            .timeout(Duration::from_secs_f64(config.timeout_s))
            .connect_timeout(Duration::from_secs(10))
            // A redirect would carry the key and the data to another host.
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(config.concurrency.max);
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| bad(format!("cannot make an HTTP client: {e}")))?;
        let url = format!("{}/chat/completions", config.base_url.trim_end_matches('/'));
        let gate = Gate::new(config.concurrency, config.requests_per_minute, config.tokens_per_minute);
        let totals = Mutex::new(Totals::default());
        Ok(Self(Arc::new(Inner { config, url, client, gate, sent: AtomicU64::new(0), totals })))
    }

    /// The configuration.
    pub fn config(&self) -> &EndpointConfig {
        &self.0.config
    }

    /// Whether anything listens at the address. Any answer will do, an error status too: only a connection that cannot be
    /// made is an error, so that a run says so at once instead of after all its attempts.
    pub async fn reachable(&self) -> Result<(), EndpointError> {
        let url = format!("{}/models", self.0.config.base_url.trim_end_matches('/'));
        let mut request = self.0.client.get(&url).timeout(Duration::from_secs(20));
        if let Some(key) = &self.0.config.api_key {
            request = request.bearer_auth(key.reveal());
        }
        match request.send().await {
            Err(e) if e.is_connect() => Err(EndpointError::Transport {
                url: self.0.config.base_url.clone(),
                attempts: 1,
                message: format!("{}. Is the server running, and is this its address?", reason(&e)),
            }),
            _ => Ok(()),
        }
    }

    /// What was asked so far, by all clones together.
    pub fn totals(&self) -> Totals {
        let mut totals = *self.0.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.max_in_flight = self.0.gate.max_in_flight();
        totals.cost = self.0.config.price.map(|p| p.of(&totals.usage));
        totals
    }

    /// Asks for one completion. `images` gives the encoded bytes (PNG, JPEG, WebP, GIF or BMP) of a picture; it is
    /// called once per picture and request, when the request is about to be sent.
    pub async fn chat(
        &self,
        request: ChatRequest<'_>,
        images: impl Fn(ContentHash) -> Result<Vec<u8>, String> + Sync,
    ) -> Result<Completion, EndpointError> {
        let inner = &*self.0;
        let estimate = estimate_tokens(&request);
        let result = inner.ask(request, &images, estimate).await;
        let used = result.as_ref().map_or(0, |c| c.usage.prompt + c.usage.completion);
        inner.gate.settle(estimate, used as f64);
        let mut totals = inner.totals.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(completion) => {
                totals.answered += 1;
                totals.usage += completion.usage;
            }
            Err(_) => totals.failed += 1,
        }
        result
    }
}

impl Inner {
    async fn ask(
        &self,
        request: ChatRequest<'_>,
        images: &(impl Fn(ContentHash) -> Result<Vec<u8>, String> + Sync),
        estimate: f64,
    ) -> Result<Completion, EndpointError> {
        let mut place = self.gate.enter(estimate).await;
        let writer = BodyWriter {
            model: &self.config.model,
            limit_field: &self.config.limit_field,
            tool_images: self.config.tool_images,
            image: &|hash| images(hash).map_err(|message| EndpointError::Image { hash, message }),
            bad_image: &|hash| EndpointError::Image {
                hash,
                message: "not a PNG, JPEG, WebP, GIF or BMP file".into(),
            },
        };
        // Copies of the prepared request share its body: it is written once however often it is sent.
        let prepared = self.prepare(writer.write(request.messages, request.sampling, request.tools)?)?;
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.retry.seed);
        rng.set_stream(number);
        let mut attempt = 1;
        loop {
            self.totals.lock().unwrap_or_else(PoisonError::into_inner).attempts += 1;
            let started = Instant::now();
            let failure = match self.attempt(&prepared).await {
                Ok(mut completion) => {
                    let latency = started.elapsed();
                    self.gate.record(Signal::Fine, latency, None);
                    completion.attempts = attempt;
                    completion.latency_s = latency.as_secs_f64();
                    return Ok(completion);
                }
                Err(failure) => failure,
            };
            let (signal, asked, again) = match &failure {
                Failure::Status { status, asked, .. } => match retry::classify(*status) {
                    StatusClass::Throttled => (Signal::Throttled, *asked, true),
                    StatusClass::Transient => (Signal::Trouble, *asked, true),
                    StatusClass::Fatal | StatusClass::Rejected => (Signal::Fine, None, false),
                },
                Failure::Transport(_) => (Signal::Trouble, None, true),
                Failure::Malformed(_) => (Signal::Fine, None, true),
            };
            self.gate.record(signal, started.elapsed(), asked);
            drop(place); // others may use the place during the pause
            let pause = if again { self.config.retry.pause(attempt + 1, asked, &mut rng) } else { None };
            match pause {
                Some(pause) => {
                    tracing::debug!(attempt, ?pause, "request failed, trying again");
                    tokio::time::sleep(pause).await;
                    place = self.gate.enter(0.0).await;
                    attempt += 1;
                }
                None => return self.give_up(failure, attempt),
            }
        }
    }

    fn prepare(&self, body: Vec<u8>) -> Result<reqwest::Request, EndpointError> {
        let mut request =
            self.client.post(&self.url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.config.api_key {
            request = request.bearer_auth(key.reveal());
        }
        request.build().map_err(|e| EndpointError::Config {
            url: self.url.clone(),
            message: format!("cannot make a request (is the key printable?): {}", reason(&e)),
        })
    }

    async fn attempt(&self, prepared: &reqwest::Request) -> Result<Completion, Failure> {
        // Only a streamed body cannot be copied, and this one lies in memory.
        let copy =
            prepared.try_clone().ok_or_else(|| Failure::Transport("the body cannot be sent again".into()))?;
        let mut response = self.client.execute(copy).await.map_err(|e| Failure::Transport(reason(&e)))?;
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let asked = retry::asked_pause(header("retry-after"), header("retry-after-ms"));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| Failure::Transport(reason(&e)))? {
            if bytes.len() + chunk.len() > self.config.max_body {
                let limit = self.config.max_body;
                return Err(Failure::Malformed(format!(
                    "the body is longer than the limit of {limit} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let body: String = String::from_utf8_lossy(&bytes).chars().take(500).collect();
            return Err(Failure::Status { status: status.as_u16(), body, asked });
        }
        wire::parse(&bytes).map_err(Failure::Malformed)
    }

    /// A filter that answers with an error status is a refusal, not a failure.
    fn give_up(&self, failure: Failure, attempts: u32) -> Result<Completion, EndpointError> {
        let url = self.url.clone();
        match failure {
            Failure::Status { status, body, .. } if status == 400 && is_filter(&body) => Ok(Completion {
                text: String::new(),
                reasoning: None,
                unclosed_thinking: false,
                refusal: Some(body),
                tool_calls: Vec::new(),
                malformed_calls: Vec::new(),
                finish: super::Finish::ContentFilter,
                usage: Usage::default(),
                model: String::new(),
                attempts,
                latency_s: 0.0,
            }),
            Failure::Status { status, body, .. } => {
                Err(EndpointError::Status { url, status, attempts, body })
            }
            Failure::Transport(message) => Err(EndpointError::Transport { url, attempts, message }),
            Failure::Malformed(message) => Err(EndpointError::Malformed { url, attempts, message }),
        }
    }
}

fn is_filter(body: &str) -> bool {
    ["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "data_inspection_failed"]
        .iter()
        .any(|code| body.contains(code))
}

/// The chain of causes: reqwest's own message names only the outermost.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A rough size for the bucket of tokens: four characters per token, a thousand tokens per image, the whole
/// completion limit. The true count replaces it when the answer is there.
fn estimate_tokens(request: &ChatRequest<'_>) -> f64 {
    let prompt: usize = request
        .messages
        .iter()
        .flat_map(|m| &m.content)
        .map(|part| match part {
            Part::Text { text } => text.len() / 4 + 1,
            Part::Image { .. } => 1000,
        })
        .sum();
    (prompt + request.sampling.max_tokens.unwrap_or(0) as usize) as f64
}
