//! One thing to ask, and the key under which its answer is kept.

use std::sync::Arc;

use ocelli_agent::endpoint::SamplingParams;
use ocelli_data::{ContentHash, Message};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the item.
    pub item: String,
    /// Which of the item's dialogues (orders of given answers), from 0.
    pub variant: u32,
    /// Which sample, from 0.
    pub sample: u32,
    /// The dialogue.
    pub messages: Arc<Vec<Message>>,
}

/// Content key of a request: policy, dialogue with the hashes of its images, sampling, number of the sample. Two
/// requests with one key would be the same bytes to the same model.
pub fn request_key(policy: &str, request: &Request, sampling: &SamplingParams) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(policy.as_bytes());
    // Messages and sampling parameters are plain data; writing them as JSON cannot fail.
    part(&serde_json::to_vec(&*request.messages).unwrap_or_default());
    part(&serde_json::to_vec(sampling).unwrap_or_default());
    part(&request.sample.to_le_bytes());
    ContentHash::of(hasher.finalize().as_bytes())
}
