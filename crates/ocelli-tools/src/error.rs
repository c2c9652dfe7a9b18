//! What can go wrong in a tool call, sorted by who can do something about it.

use std::time::Duration;

use ocelli_data::ContentHash;
use ocelli_data::io::IoError;
use serde::{Deserialize, Serialize};

/// Why a tool call gave no result.
///
/// The split decides what a rollout does: [`ToolError::ForModel`] is written into the dialogue, the policy reads it and
/// may try again; [`ToolError::Fatal`] ends the trajectory, because nothing that the policy says could help.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "to", content = "why", rename_all = "snake_case")]
pub enum ToolError {
    /// A mistake in the call. The text says what was wrong and what would be right.
    #[error("{0}")]
    ForModel(String),
    /// The tool or its machine failed.
    #[error("{0}")]
    Fatal(#[from] Fatal),
}

/// Failures that stop the sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fatal {
    /// The call's time was up.
    #[error("tool `{tool}` passed its deadline")]
    Deadline {
        /// The tool.
        tool: String,
    },
    /// The queue is full; the call was not begun and may be made again, here or at another server.
    #[error(
        "the tool queue is full ({waiting} calls wait); try again in {retry_after_ms} ms or at another server"
    )]
    Busy {
        /// Calls in the queue.
        waiting: usize,
        /// A guess at when there will be room.
        retry_after_ms: u64,
    },
    /// The server is going down and takes no new calls.
    #[error("the tool server is draining and takes no new calls; use another server")]
    Draining,
    /// A picture named by its hash is not in the store.
    #[error("no picture with hash {hash} in the store; upload it again")]
    UnknownImage {
        /// The name.
        hash: ContentHash,
    },
    /// A picture of the sample itself cannot be used.
    #[error("picture {hash} cannot be read: {why}")]
    BadImage {
        /// The name.
        hash: ContentHash,
        /// What is wrong with it.
        why: String,
    },
    /// A network that the tool needs is not on this machine.
    #[error("network `{name}` is not available: {why}")]
    Network {
        /// Name of the network.
        name: String,
        /// What failed and how to get it.
        why: String,
    },
    /// A remote server failed or could not be reached.
    #[error("tool server {server}: {why}")]
    Remote {
        /// Address of the server.
        server: String,
        /// What happened.
        why: String,
    },
    /// No server is left that could take the call.
    #[error("no tool server can take `{tool}` now: {why}")]
    NoServer {
        /// The tool.
        tool: String,
        /// Per server, why not.
        why: String,
    },
    /// Replaying, but this call was never recorded.
    #[error("call of `{tool}` with key {key} is not in the recording; record the run again")]
    NotRecorded {
        /// The tool.
        tool: String,
        /// Key of the call.
        key: ContentHash,
    },
    /// A file could not be read or written.
    #[error("{0}")]
    Io(String),
    /// A defect in a tool, caught at the boundary.
    #[error("tool `{tool}` is broken: {why}")]
    Broken {
        /// The tool.
        tool: String,
        /// What it said as it fell.
        why: String,
    },
}

impl Fatal {
    /// True where the same call may succeed at another server, or here a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Draining | Self::Remote { .. } | Self::NoServer { .. })
    }

    /// How long the server asked to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after_ms, .. } => Some(Duration::from_millis(*retry_after_ms)),
            _ => None,
        }
    }
}

impl From<IoError> for Fatal {
    fn from(e: IoError) -> Self {
        Self::Io(e.to_string())
    }
}

/// An error with its causes, each once: libraries tell what happened last and leave the reason to `source`. That nobody
/// listens is said in plain words and nothing else.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    match text.to_lowercase().contains("connection refused") {
        true => "connection refused (nothing listens there)".to_owned(),
        false => text,
    }
}

/// A complaint to the model.
pub(crate) fn for_model(text: impl Into<String>) -> ToolError {
    ToolError::ForModel(text.into())
}
