//! When to repeat a request and how long to wait: exponential pauses with full jitter, or what the server asks for.
//!
//! Full jitter (a pause drawn uniformly from zero to the exponential bound) keeps many clients that failed together
//! from returning together: Brooker, "Exponential Backoff And Jitter", 2015.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Repetition of failed requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// Bound of the first pause, in seconds; it doubles with each attempt.
    pub base_s: f64,
    /// Longest pause of our own choice, in seconds.
    pub max_s: f64,
    /// Longest pause that a server may ask for, in seconds; a longer one ends the request.
    pub max_asked_s: f64,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 8, base_s: 0.5, max_s: 60.0, max_asked_s: 300.0, seed: 0 }
    }
}

/// What the HTTP status of a failed attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Too many requests: repeat, and send fewer.
    Throttled,
    /// The server is in trouble: repeat.
    Transient,
    /// Nobody may ask this (wrong key, address or model): every other request will fail as well.
    Fatal,
    /// This request is wrong: repeating it cannot help.
    Rejected,
}

/// Sorts an HTTP status other than success.
pub fn classify(status: u16) -> StatusClass {
    match status {
        429 | 529 => StatusClass::Throttled,
        408 | 409 | 425 | 500..=599 => StatusClass::Transient,
        401 | 403 | 404 | 405 => StatusClass::Fatal,
        _ => StatusClass::Rejected,
    }
}

impl RetryPolicy {
    /// Pause before attempt `next` (2 is the first repetition), or `None` where there is to be no further attempt.
    /// `asked` is the pause that the server asked for.
    pub fn pause(&self, next: u32, asked: Option<Duration>, rng: &mut impl Rng) -> Option<Duration> {
        if next > self.attempts {
            return None;
        }
        let bound = (self.base_s * 2f64.powi(next.saturating_sub(2).min(40) as i32)).min(self.max_s);
        let jitter = rng.random::<f64>() * bound.max(0.0);
        match asked {
            Some(wait) if wait.as_secs_f64() > self.max_asked_s => None,
            Some(wait) => Some(wait + Duration::from_secs_f64(jitter.min(1.0))),
            None => Some(Duration::from_secs_f64(jitter)),
        }
    }
}

/// Reads `retry-after-ms` or `retry-after` (seconds; the date form is ignored, the jittered pause then applies).
pub fn asked_pause(retry_after: Option<&str>, retry_after_ms: Option<&str>) -> Option<Duration> {
    let ms = retry_after_ms.and_then(|v| v.trim().parse::<f64>().ok()).map(|v| v / 1000.0);
    let seconds = ms.or_else(|| retry_after.and_then(|v| v.trim().parse::<f64>().ok()))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn pauses_stay_under_a_doubling_bound_and_end() {
        let policy = RetryPolicy { attempts: 6, base_s: 1.0, max_s: 4.0, ..RetryPolicy::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (next, bound) in [(2, 1.0), (3, 2.0), (4, 4.0), (5, 4.0), (6, 4.0)] {
            let longest = (0..200)
                .map(|_| policy.pause(next, None, &mut rng).unwrap().as_secs_f64())
                .fold(0.0, f64::max);
            assert!(longest <= bound && longest > 0.9 * bound, "attempt {next}: {longest} against {bound}");
        }
        assert_eq!(policy.pause(7, None, &mut rng), None);
    }

    #[test]
    fn the_server_may_ask_for_more_time() {
        let policy = RetryPolicy::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(asked_pause(Some("7"), None), Some(Duration::from_secs(7)));
        assert_eq!(asked_pause(Some("7"), Some("250")), Some(Duration::from_millis(250)));
        for hostile in ["-1", "nan", "1e300", "Wed, 21 Oct 2015 07:28:00 GMT", ""] {
            assert_eq!(asked_pause(Some(hostile), None), None, "{hostile}");
        }
        let wait = policy.pause(2, Some(Duration::from_secs(7)), &mut rng).unwrap();
        assert!(wait >= Duration::from_secs(7) && wait <= Duration::from_secs(8));
        assert_eq!(policy.pause(2, Some(Duration::from_secs(3600)), &mut rng), None);
    }

    #[test]
    fn classes() {
        assert_eq!(classify(429), StatusClass::Throttled);
        assert_eq!(classify(503), StatusClass::Transient);
        assert_eq!(classify(401), StatusClass::Fatal);
        assert_eq!(classify(400), StatusClass::Rejected);
        assert_eq!(classify(413), StatusClass::Rejected);
    }
}
