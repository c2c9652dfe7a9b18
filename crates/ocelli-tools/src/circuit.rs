//! A circuit breaker: a server that fails several times in a row is left alone for a while.
//!
//! After the rest one call finds out whether the server is back; a further failure doubles the rest, a success ends it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a server is left alone.
const FAILURES: u32 = 3;
/// How long it is left alone at first; doubled with each further failure, up to [`LONGEST_REST`].
const REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    resting_until: Option<Instant>,
}

/// Whether a server is worth asking.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    state: Mutex<State>,
}

impl Circuit {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time until the server may be asked again; `None` where it may be asked now.
    pub(crate) fn rest(&self) -> Option<Duration> {
        let left = self.state().resting_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn succeeded(&self) {
        *self.state() = State::default();
    }

    pub(crate) fn failed(&self) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            let rest = REST.saturating_mul(1 << (state.failures - FAILURES).min(8)).min(LONGEST_REST);
            state.resting_until = Some(Instant::now() + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_rest_a_server_and_a_success_wakes_it() {
        let circuit = Circuit::default();
        circuit.failed();
        circuit.failed();
        assert_eq!(circuit.rest(), None);
        circuit.succeeded();
        circuit.failed();
        circuit.failed();
        assert_eq!(circuit.rest(), None);
        circuit.failed();
        let first = circuit.rest().unwrap();
        assert!(first <= REST);
        circuit.failed();
        assert!(circuit.rest().unwrap() > REST);
        for _ in 0..100 {
            circuit.failed();
        }
        assert!(circuit.rest().unwrap() <= LONGEST_REST);
        circuit.succeeded();
        assert_eq!(circuit.rest(), None);
    }
}
