//! Tokens and money: per request and in total.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Tokens of one request as the endpoint counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, images included.
    pub prompt: u64,
    /// Those of the prompt that came from the endpoint's cache.
    #[serde(default)]
    pub cached: u64,
    /// Tokens of the answer, thinking included.
    pub completion: u64,
    /// Those of the answer that were thinking, where the endpoint says so.
    #[serde(default)]
    pub reasoning: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.completion += other.completion;
        self.reasoning += other.reasoning;
    }
}

/// Price in any currency per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Prompt tokens.
    pub input: f64,
    /// Prompt tokens from the cache; the full input price where absent.
    #[serde(default)]
    pub cached_input: Option<f64>,
    /// Completion tokens.
    pub output: f64,
}

impl Price {
    /// Cost of `usage`.
    pub fn of(&self, usage: &Usage) -> f64 {
        let cached = usage.cached.min(usage.prompt);
        let fresh = (usage.prompt - cached) as f64 * self.input;
        let reused = cached as f64 * self.cached_input.unwrap_or(self.input);
        (fresh + reused + usage.completion as f64 * self.output) / 1e6
    }
}

/// What an endpoint was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that ended in a completion.
    pub answered: u64,
    /// Requests that ended in an error.
    pub failed: u64,
    /// Attempts sent, repetitions included.
    pub attempts: u64,
    /// Tokens of all completions.
    pub usage: Usage,
    /// Cost of these tokens, where a price is configured.
    pub cost: Option<f64>,
    /// Most requests that were in flight at once.
    pub max_in_flight: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_have_their_own_price() {
        let usage = Usage { prompt: 1_000_000, cached: 400_000, completion: 500_000, reasoning: 0 };
        let price = Price { input: 2.0, cached_input: Some(0.5), output: 8.0 };
        assert!((price.of(&usage) - (0.6 * 2.0 + 0.4 * 0.5 + 0.5 * 8.0)).abs() < 1e-12);
        let flat = Price { cached_input: None, ..price };
        assert!((flat.of(&usage) - (2.0 + 4.0)).abs() < 1e-12);
    }
}
