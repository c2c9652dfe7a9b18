//! How many requests may be in flight, and how fast they may start.
//!
//! The limit starts low and grows by one per success (it doubles with every round trip) until the first sign of
//! trouble; from then on it grows by about one per round trip. Throttling (429), or a window in which more than
//! a quarter of the requests failed, multiplies it by 0.8, at most once per cooling time. Single server errors leave
//! it alone. While the 95th percentile of the latency is more than four times the best one seen, it does not grow:
//! more requests would only queue at the server. (AIMD; Chiu and Jain 1989.)
//!
//! The rules are in [`Adaptive`] and [`Bucket`], which know no clock: the time is an argument.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

const WINDOW: usize = 32;
const CUT: f64 = 0.8;
const COOLING: Duration = Duration::from_secs(5);
const FAILURE_SHARE: f64 = 0.25;
const SLOW: f64 = 4.0;

/// Bounds of the adaptive limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    /// Requests in flight at the start.
    pub start: usize,
    /// Most requests in flight.
    pub max: usize,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { start: 20, max: 64 }
    }
}

/// How an attempt ended, as far as the limit is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An answer, or a rejection of this one request.
    Fine,
    /// Too many requests.
    Throttled,
    /// Server error, timeout or broken connection.
    Trouble,
}

/// The limit and what it has seen.
#[derive(Clone, Debug)]
pub struct Adaptive {
    limit: f64,
    max: f64,
    doubling: bool,
    recent: VecDeque<(bool, f64)>,
    best_p95: f64,
    last_cut: Option<Duration>,
}

impl Adaptive {
    /// Starts at `bounds.start`.
    pub fn new(bounds: Concurrency) -> Self {
        let max = bounds.max.max(1) as f64;
        Self {
            limit: (bounds.start.max(1) as f64).min(max),
            max,
            doubling: true,
            recent: VecDeque::with_capacity(WINDOW),
            best_p95: f64::INFINITY,
            last_cut: None,
        }
    }

    /// Requests that may be in flight now.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Takes in how an attempt ended: `now` since any fixed moment, `latency` from sending to the last byte.
    pub fn record(&mut self, signal: Signal, now: Duration, latency: Duration) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((signal == Signal::Trouble, latency.as_secs_f64()));
        match signal {
            Signal::Throttled => self.cut(now),
            Signal::Trouble => {
                let failed = self.recent.iter().filter(|(failed, _)| *failed).count();
                if self.recent.len() == WINDOW && failed as f64 > FAILURE_SHARE * WINDOW as f64 {
                    self.cut(now);
                }
            }
            Signal::Fine => self.grow(),
        }
    }

    fn cut(&mut self, now: Duration) {
        self.doubling = false;
        if self.last_cut.is_none_or(|at| now.saturating_sub(at) >= COOLING) {
            self.limit = (self.limit * CUT).max(1.0);
            self.last_cut = Some(now);
            self.recent.clear();
        }
    }

    fn grow(&mut self) {
        if self.recent.len() == WINDOW {
            let p95 = self.p95();
            self.best_p95 = self.best_p95.min(p95);
            if p95 > SLOW * self.best_p95 {
                return;
            }
        }
        self.limit = (self.limit + if self.doubling { 1.0 } else { 1.0 / self.limit }).min(self.max);
    }

    fn p95(&self) -> f64 {
        let mut latencies: Vec<f64> = self.recent.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_by(f64::total_cmp);
        latencies[(latencies.len() - 1) * 95 / 100]
    }
}

/// A bucket that fills at a steady rate up to one minute's worth, and may go into debt.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    last: Duration,
}

impl Bucket {
    /// Starts with a tenth of a minute's worth, so that a run does not open with a burst.
    pub fn per_minute(rate: f64) -> Self {
        let capacity = rate.max(1e-3);
        Self {
            per_second: capacity / 60.0,
            capacity,
            level: (capacity / 10.0).max(1.0),
            last: Duration::ZERO,
        }
    }

    /// Takes `amount` and says how long to wait before acting on it.
    pub fn take(&mut self, amount: f64, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.capacity);
        self.last = now.max(self.last);
        self.level -= amount;
        Duration::try_from_secs_f64((-self.level / self.per_second).max(0.0)).unwrap_or(Duration::MAX)
    }
}

#[derive(Debug)]
struct State {
    adaptive: Adaptive,
    granted: usize,
    debt: usize,
    in_flight: usize,
    max_in_flight: usize,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    paused_until: Duration,
}

/// Shared gate in front of an endpoint.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Semaphore,
    state: Mutex<State>,
    born: Instant,
}

impl Gate {
    pub(crate) fn new(bounds: Concurrency, requests: Option<f64>, tokens: Option<f64>) -> Self {
        let adaptive = Adaptive::new(bounds);
        let granted = adaptive.limit();
        Self {
            places: Semaphore::new(granted),
            state: Mutex::new(State {
                adaptive,
                granted,
                debt: 0,
                in_flight: 0,
                max_in_flight: 0,
                requests: requests.map(Bucket::per_minute),
                tokens: tokens.map(Bucket::per_minute),
                paused_until: Duration::ZERO,
            }),
            born: Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counters that are still sound: every update below is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, for the configured rates and for any pause that the server asked for.
    pub(crate) async fn enter(&self, estimated_tokens: f64) -> Place<'_> {
        // The semaphore is never closed, so acquiring cannot fail; without a permit the place would count as extra.
        let permit = self.places.acquire().await.ok();
        let wait = {
            let mut state = self.state();
            state.in_flight += 1;
            state.max_in_flight = state.max_in_flight.max(state.in_flight);
            let now = self.born.elapsed();
            let asked = state.paused_until.saturating_sub(now);
            let requests = state.requests.as_mut().map_or(Duration::ZERO, |b| b.take(1.0, now));
            let tokens = state.tokens.as_mut().map_or(Duration::ZERO, |b| b.take(estimated_tokens, now));
            asked.max(requests).max(tokens)
        };
        let place = Place { gate: self, permit };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        place
    }

    /// Takes in how an attempt ended; `pause` is what the server asked everybody to wait.
    pub(crate) fn record(&self, signal: Signal, latency: Duration, pause: Option<Duration>) {
        let mut state = self.state();
        let now = self.born.elapsed();
        state.adaptive.record(signal, now, latency);
        if let (Signal::Throttled, Some(pause)) = (signal, pause) {
            state.paused_until = state.paused_until.max(now + pause);
        }
        let target = state.adaptive.limit();
        if target > state.granted {
            let grown = target - state.granted;
            let repaid = grown.min(state.debt);
            state.debt -= repaid;
            self.places.add_permits(grown - repaid);
        } else {
            state.debt += state.granted - target;
        }
        state.granted = target;
    }

    /// Corrects the estimate that [`Gate::enter`] took from the bucket of tokens.
    pub(crate) fn settle(&self, estimated: f64, used: f64) {
        let now = self.born.elapsed();
        if let Some(bucket) = self.state().tokens.as_mut() {
            bucket.take(used - estimated, now);
        }
    }

    pub(crate) fn max_in_flight(&self) -> usize {
        self.state().max_in_flight
    }
}

/// A request's place in flight; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.in_flight -= 1;
        if state.debt > 0 {
            state.debt -= 1;
            if let Some(permit) = self.permit.take() {
                permit.forget();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const QUICK: Duration = Duration::from_millis(50);

    #[test]
    fn doubles_until_the_first_throttling_then_creeps() {
        let mut a = Adaptive::new(Concurrency { start: 8, max: 64 });
        (0..8).for_each(|_| a.record(Signal::Fine, at(0), QUICK));
        assert_eq!(a.limit(), 16);
        a.record(Signal::Throttled, at(1), QUICK);
        assert_eq!(a.limit(), 12); // 16 * 0.8 = 12.8
        a.record(Signal::Throttled, at(2), QUICK);
        assert_eq!(a.limit(), 12, "one cut per cooling time");
        a.record(Signal::Throttled, at(7), QUICK);
        assert_eq!(a.limit(), 10); // 12.8 * 0.8 = 10.24
        (0..11).for_each(|_| a.record(Signal::Fine, at(8), QUICK));
        assert_eq!(a.limit(), 11, "one more per round trip");
        (0..100_000).for_each(|_| a.record(Signal::Fine, at(9), QUICK));
        assert_eq!(a.limit(), 64);
        (0..100).for_each(|i| a.record(Signal::Throttled, at(100 + 10 * i), QUICK));
        assert_eq!(a.limit(), 1);
    }

    #[test]
    fn single_faults_are_no_reason_to_slow_down_many_are() {
        let mut a = Adaptive::new(Concurrency { start: 64, max: 64 });
        for i in 0..1000 {
            a.record(if i % 10 == 0 { Signal::Trouble } else { Signal::Fine }, at(i), QUICK);
        }
        assert_eq!(a.limit(), 64);
        (0..40).for_each(|_| a.record(Signal::Trouble, at(2000), QUICK));
        assert_eq!(a.limit(), 51);
    }

    #[test]
    fn a_slow_server_is_not_asked_more() {
        let mut a = Adaptive::new(Concurrency { start: 4, max: 1000 });
        (0..40).for_each(|_| a.record(Signal::Fine, at(0), QUICK));
        let reached = a.limit();
        (0..40).for_each(|_| a.record(Signal::Fine, at(1), QUICK * 5));
        assert!(a.limit() <= reached + 2, "{} after {reached}", a.limit());
    }

    #[test]
    fn buckets_spread_requests() {
        let mut b = Bucket::per_minute(60.0); // one per second, six at once
        let waits: Vec<f64> = (0..8).map(|_| b.take(1.0, Duration::ZERO).as_secs_f64()).collect();
        assert_eq!(waits, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(b.take(1.0, at(10)).as_secs_f64(), 0.0);
    }

    #[tokio::test]
    async fn the_gate_follows_the_limit_down_and_up() {
        let gate = Gate::new(Concurrency { start: 5, max: 5 }, None, None);
        let places: Vec<_> = [gate.enter(0.0).await, gate.enter(0.0).await, gate.enter(0.0).await].into();
        gate.record(Signal::Throttled, QUICK, None); // 5 -> 4
        drop(places); // one place is not given back
        assert_eq!(gate.places.available_permits(), 4);
        (0..8).for_each(|_| gate.record(Signal::Fine, QUICK, None));
        assert_eq!(gate.places.available_permits(), 5);
        assert_eq!(gate.max_in_flight(), 3);
    }
}
