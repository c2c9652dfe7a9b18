//! One signal for many trajectories: go on, pause, or stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// What trajectories are asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Go on.
    Run,
    /// Stop at the next point where the state can be kept, and hand it back.
    Pause,
    /// Stop now; the trajectory ends as `Cancelled`.
    Cancel,
}

/// Shared by a run and its trajectories; clones are the same signal.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    signal: AtomicU8,
    changed: Notify,
}

impl Control {
    /// Asks everybody to pause. A cancelled run stays cancelled.
    pub fn pause(&self) {
        let _ = self.0.signal.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Asks everybody to stop.
    pub fn cancel(&self) {
        self.0.signal.store(2, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// The signal now.
    pub fn signal(&self) -> Signal {
        match self.0.signal.load(Ordering::SeqCst) {
            0 => Signal::Run,
            1 => Signal::Pause,
            _ => Signal::Cancel,
        }
    }

    /// Returns once the run is cancelled.
    pub async fn cancelled(&self) {
        loop {
            // Registered before the look, so that a change between the two wakes it.
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.signal() == Signal::Cancel {
                return;
            }
            changed.await;
        }
    }
}
