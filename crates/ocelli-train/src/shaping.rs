//! Rewards for length, and what becomes of responses that were cut off.

use serde::{Deserialize, Serialize};

/// Soft punishment of overlong responses (DAPO, arXiv 2503.14476, eq. 13): zero up to `max - cache` tokens, then
/// falling in a straight line to `-factor` at `max`, and `-factor` beyond.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overlong {
    /// Longest response in tokens.
    pub max: usize,
    /// Tokens before `max` over which the punishment grows.
    pub cache: usize,
    /// Largest punishment.
    #[serde(default = "one")]
    pub factor: f64,
}

fn one() -> f64 {
    1.0
}

impl Overlong {
    /// Reward, zero or negative, of a response of `length` tokens.
    pub fn reward(&self, length: usize) -> f64 {
        let free = self.max.saturating_sub(self.cache);
        if length <= free {
            return 0.0;
        }
        let over = (length - free) as f64 / self.cache.max(1) as f64;
        -self.factor * over.min(1.0)
    }
}

/// What becomes of a response that a limit cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// It is scored like any other (and usually scores 0 for want of an answer).
    #[default]
    Score,
    /// It is left out of the loss and of its denominators; its group's statistics keep it.
    Mask,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dapo_example() {
        // The paper's setting: 20,480 tokens with a cache of 4,096.
        let o = Overlong { max: 20_480, cache: 4_096, factor: 1.0 };
        assert_eq!(
            (o.reward(16_384), o.reward(18_432), o.reward(20_480), o.reward(30_000)),
            (0.0, -0.5, -1.0, -1.0)
        );
    }
}
