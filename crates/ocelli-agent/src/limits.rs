//! Bounds of one trajectory. Each has its own [`Status`](ocelli_data::Status).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of one trajectory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutLimits {
    /// Assistant turns (`TruncatedTurns`).
    pub turns: usize,
    /// Tool calls, failed ones included (`TruncatedCalls`).
    pub calls: usize,
    /// Sampled tokens of one turn (`TruncatedTokens`).
    pub turn_tokens: usize,
    /// Sampled tokens of the trajectory (`TruncatedTokens`).
    pub tokens: usize,
    /// Tokens of the context, prompt and observations included (`ContextFull`).
    pub context: usize,
    /// Seconds of the whole trajectory from its first message (`Deadline`).
    pub seconds: f64,
}

impl Default for RolloutLimits {
    fn default() -> Self {
        Self { turns: 8, calls: 12, turn_tokens: 1024, tokens: 4096, context: 16_384, seconds: 600.0 }
    }
}

impl RolloutLimits {
    /// Time of the whole trajectory; nonsense is read as no time at all.
    pub fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds)
            .unwrap_or(Duration::ZERO)
            .min(Duration::from_secs(365 * 86_400))
    }
}
