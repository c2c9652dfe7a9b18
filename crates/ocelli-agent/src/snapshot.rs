//! A trajectory in the middle, as a value: it can wait in memory or on disk and go on under newer weights.

use ocelli_data::{Message, ToolUse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tokens::TokenLog;

/// Everything that a trajectory needs to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The dialogue so far; an unfinished turn is in `tokens` alone.
    pub messages: Vec<Message>,
    /// How many of the last messages the policy has not heard yet.
    pub unheard: usize,
    /// Tokens so far, for policies that know them.
    pub tokens: Option<TokenLog>,
    /// Tool calls so far.
    pub tools: Vec<ToolUse>,
    /// Assistant turns so far.
    pub turns: usize,
    /// Seconds used up; the time of the pause does not count.
    pub spent_s: f64,
    /// State of the environment.
    pub env: Value,
}
