//! The durable list of work: each unit (a sample and an attempt) is leased, and finished exactly once by key.
//!
//! Execution is at least once, the result exactly once per key: a worker that dies loses its lease, another takes the
//! unit over, and of two results the first stays. Attempts are counted when a lease is taken, so that a unit which
//! kills its worker every time becomes a dead letter instead of going round for ever. Results and the mark *done* are
//! committed together.
//!
//! [`SqliteLedger`] keeps it in one file on one machine. The trait is kept narrow enough for the same statements on
//! PostgreSQL (`FOR UPDATE SKIP LOCKED` in `lease` and `renew`), where several machines share the work. The calls
//! block; they take milliseconds, and callers that must not wait make them from a blocking thread.

mod filesystem;
mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use sqlite::{EXPIRED, SWEEP, SqliteLedger, WAITING};

/// A unit of work: its key within the run, and what the worker needs to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Unique within the run; results are exported in the order of keys.
    pub key: String,
    /// Opaque to the ledger. Keep it below 64 KiB and put images into a blob store.
    pub payload: Vec<u8>,
}

/// Names one lease: the key and the fence number that was current when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The task.
    pub key: String,
    /// Grows with every lease of the task; an older number has no rights any more.
    pub fence: u64,
}

/// A task that is ours until the lease runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// To renew and finish.
    pub at: LeaseRef,
    /// The task's payload.
    pub payload: Vec<u8>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// What an earlier holder saved with [`Ledger::renew`].
    pub partial: Option<Vec<u8>>,
}

/// How a leased task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result.
    Done(Vec<u8>),
    /// Try again from the start, not before `after` has passed. Becomes a dead letter when the attempts are used up.
    Retry {
        /// Pause before the next lease.
        after: Duration,
        /// What went wrong.
        error: String,
    },
    /// Never try again.
    Dead(String),
    /// Give it back as on a polite shutdown: the attempt is refunded, saved partial work stays.
    Release,
}

/// What became of a batch of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Results that are now the task's result.
    pub accepted: u64,
    /// Results that came after another one for the same key, and were discarded.
    pub duplicate: u64,
    /// `Retry`, `Dead` or `Release` by a holder that had lost the lease: ignored.
    pub stale: u64,
}

/// One finished task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// The task.
    pub key: String,
    /// The result.
    pub body: Vec<u8>,
}

/// A task that will not be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The task.
    pub key: String,
    /// Leases taken.
    pub attempts: u32,
    /// The last error.
    pub error: String,
}

/// How the work stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Waiting, those that wait for a retry included.
    pub ready: u64,
    /// Held by a worker.
    pub leased: u64,
    /// With a result.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest lease in milliseconds since it was taken or renewed.
    pub oldest_lease_ms: Option<u64>,
}

impl Stats {
    /// True when no task can be leased any more.
    pub fn is_settled(&self) -> bool {
        self.ready == 0 && self.leased == 0
    }
}

/// A failed ledger operation. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk or the quota is full.
    #[error(
        "{path}: no space left for the ledger; free space and run the same command again, nothing is lost"
    )]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The file lies where SQLite's locks do not hold.
    #[error(
        "{path} lies on {kind}, a network file system, where SQLite's locks are not safe; put the ledger on a local disk"
    )]
    Network {
        /// The database file.
        path: PathBuf,
        /// Type of the file system.
        kind: String,
    },
    /// The file was written by another version of this program.
    #[error(
        "{path} has ledger format {found}, this program writes {expected}; use the version that made it, or a new file"
    )]
    Version {
        /// The database file.
        path: PathBuf,
        /// Format found.
        found: i64,
        /// Format expected.
        expected: i64,
    },
    /// Everything else that SQLite may say.
    #[error("{path}: cannot {what}: {source}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The directory cannot be made.
    #[error(transparent)]
    Io(#[from] ocelli_data::io::IoError),
}

/// A list of work that survives its workers. `run` separates runs that share a ledger.
pub trait Ledger: Send + Sync {
    /// Adds tasks; those whose key is known are left as they are. Returns how many are new.
    fn put(&self, run: &str, tasks: &[Task]) -> Result<u64, LedgerError>;

    /// Takes up to `max` tasks for `ttl`: ready ones, and those whose lease ran out. Counts the attempt.
    fn lease(&self, run: &str, worker: &str, max: usize, ttl: Duration) -> Result<Vec<Lease>, LedgerError>;

    /// Prolongs leases and saves partial work where some is given. `false` means that the lease is lost: stop working.
    fn renew(
        &self,
        run: &str,
        leases: &[(LeaseRef, Option<Vec<u8>>)],
        ttl: Duration,
    ) -> Result<Vec<bool>, LedgerError>;

    /// Ends leases in one transaction. The first result for a key stays, even where its lease had run out.
    fn finish(&self, run: &str, outcomes: &[(LeaseRef, Outcome)]) -> Result<Finished, LedgerError>;

    /// Results behind the key `after`, in the order of keys, at most `max`.
    fn scan(&self, run: &str, after: Option<&str>, max: usize) -> Result<Vec<ResultRow>, LedgerError>;

    /// Tasks given up, in the order of keys.
    fn dead_letters(&self, run: &str) -> Result<Vec<DeadLetter>, LedgerError>;

    /// Makes those dead letters that `which` names ready again: from the start, with fresh attempts. Returns how many.
    fn retry_dead(&self, run: &str, which: &dyn Fn(&DeadLetter) -> bool) -> Result<u64, LedgerError>;

    /// Counts.
    fn stats(&self, run: &str) -> Result<Stats, LedgerError>;
}
