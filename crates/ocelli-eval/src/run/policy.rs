//! Who answers: an endpoint or a model in this process.

use std::sync::Arc;

use ocelli_agent::endpoint::{Completion, Endpoint, SamplingParams};
use ocelli_data::{ContentHash, Message};

use crate::load::Images;

/// A model in this process. `generate` may take long; it runs on a thread of its own.
pub trait LocalPolicy: Send + Sync {
    /// Name that tells apart weights and settings: part of the key of every answer.
    fn name(&self) -> String;

    /// Requests that may run at the same time.
    fn parallel(&self) -> usize {
        1
    }

    /// One completion. `seed` is that of this request; the same arguments must give the same completion.
    fn generate(
        &self,
        messages: &[Message],
        images: &dyn Fn(ContentHash) -> Result<Vec<u8>, String>,
        sampling: &SamplingParams,
        seed: u64,
    ) -> Result<Completion, String>;
}

/// Who answers.
#[derive(Clone)]
pub enum Policy {
    /// An OpenAI-compatible endpoint.
    Endpoint(Endpoint),
    /// A model in this process.
    Local(Arc<dyn LocalPolicy>),
}

/// A request that got no completion.
pub(super) struct Failed {
    pub(super) message: String,
    pub(super) fatal: bool,
}

impl Policy {
    /// Name of the model, in the header and in every key.
    pub fn name(&self) -> String {
        match self {
            Self::Endpoint(e) => e.config().model.clone(),
            Self::Local(p) => p.name(),
        }
    }

    /// Requests worth keeping under way: more than the endpoint lets through, so that pauses before repetitions do not
    /// leave places empty.
    pub(super) fn window(&self) -> usize {
        match self {
            Self::Endpoint(e) => e.config().concurrency.max.max(1) * 3 / 2 + 4,
            Self::Local(p) => p.parallel().max(1),
        }
    }

    /// Whether requests can be sent at all.
    pub(super) async fn reachable(&self) -> Result<(), String> {
        match self {
            Self::Endpoint(endpoint) => endpoint.reachable().await.map_err(|e| e.to_string()),
            Self::Local(_) => Ok(()),
        }
    }

    pub(super) async fn ask(
        &self,
        messages: Arc<Vec<Message>>,
        images: Images,
        sampling: Arc<SamplingParams>,
        seed: u64,
    ) -> Result<Completion, Failed> {
        match self {
            Self::Endpoint(endpoint) => {
                let request = ocelli_agent::endpoint::ChatRequest {
                    messages: &messages,
                    sampling: &sampling,
                    tools: &[],
                };
                let answer = endpoint.chat(request, |hash| images.get(hash)).await;
                answer.map_err(|e| Failed { message: e.to_string(), fatal: e.is_fatal() })
            }
            Self::Local(policy) => {
                let policy = policy.clone();
                let work = move || policy.generate(&messages, &|hash| images.get(hash), &sampling, seed);
                match tokio::task::spawn_blocking(work).await {
                    Ok(answer) => answer.map_err(|message| Failed { message, fatal: false }),
                    Err(e) => Err(Failed { message: format!("the local model stopped: {e}"), fatal: false }),
                }
            }
        }
    }
}
