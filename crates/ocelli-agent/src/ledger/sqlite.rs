//! The ledger in one SQLite file: WAL, `synchronous=FULL`, one transaction per call.
//!
//! A row of `task` is ready (0), leased (1), done (2) or dead (3). `not_before` orders the ready rows; each state that is searched has its
//! own partial index, so that no call sorts or scans the whole table. Several processes may open the same file; writers
//! wait for one another up to [`BUSY`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocelli_data::io::create_dir;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::filesystem::network_kind;
use super::{DeadLetter, Finished, Lease, LeaseRef, Ledger, LedgerError, Outcome, ResultRow, Stats, Task};

/// Format of the tables, kept in `user_version`.
const FORMAT: i64 = 1;

/// How long a call waits for another process to end its transaction.
const BUSY: Duration = Duration::from_secs(30);

const TABLES: &str = "
CREATE TABLE task (
  run TEXT NOT NULL, key TEXT NOT NULL, payload BLOB NOT NULL,
  state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, fence INTEGER NOT NULL DEFAULT 0,
  not_before INTEGER NOT NULL DEFAULT 0, worker TEXT, leased_at INTEGER, lease_until INTEGER,
  partial BLOB, error TEXT,
  PRIMARY KEY (run, key)) WITHOUT ROWID;
CREATE TABLE result (
  run TEXT NOT NULL, key TEXT NOT NULL, fence INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (run, key)) WITHOUT ROWID;
CREATE INDEX task_ready ON task (run, not_before, key) WHERE state = 0;
CREATE INDEX task_leased ON task (run, lease_until) WHERE state = 1;
CREATE INDEX task_done ON task (run) WHERE state = 2;
CREATE INDEX task_dead ON task (run, key) WHERE state = 3;
";

/// Milliseconds since 1970 on the wall clock: leases must mean the same to every process on the machine.
fn wall_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// The embedded [`Ledger`].
pub struct SqliteLedger {
    db: Mutex<Connection>,
    path: PathBuf,
    max_attempts: u32,
    clock: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLedger")
            .field("path", &self.path)
            .field("max_attempts", &self.max_attempts)
            .finish()
    }
}

impl SqliteLedger {
    /// Opens or creates the ledger at `path`. A task becomes a dead letter after `max_attempts` leases (usually 4).
    pub fn open(path: &Path, max_attempts: u32) -> Result<Self, LedgerError> {
        Self::with_clock(path, max_attempts, wall_clock)
    }

    /// As [`SqliteLedger::open`], with a clock in milliseconds of the caller's choice.
    pub fn with_clock(
        path: &Path,
        max_attempts: u32,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Result<Self, LedgerError> {
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            create_dir(dir)?;
        }
        if let Some(kind) = network_kind(path) {
            return Err(LedgerError::Network { path: path.to_owned(), kind });
        }
        let ledger = |source| failed(path, "open", source);
        let mut db = Connection::open(path).map_err(ledger)?;
        db.busy_timeout(BUSY).map_err(ledger)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(ledger)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(ledger)?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(ledger)?;
        let found: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(ledger)?;
        match found {
            0 => {
                tx.execute_batch(TABLES).map_err(ledger)?;
                tx.pragma_update(None, "user_version", FORMAT).map_err(ledger)?;
            }
            FORMAT => {}
            found => return Err(LedgerError::Version { path: path.to_owned(), found, expected: FORMAT }),
        }
        tx.commit().map_err(ledger)?;
        Ok(Self { db: Mutex::new(db), path: path.to_owned(), max_attempts, clock: Box::new(clock) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere cannot leave half a transaction: dropping it rolls it back.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(
        &self,
        what: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let mut db = self.lock();
        let run = || {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let out = body(&tx)?;
            tx.commit()?;
            Ok(out)
        };
        run().map_err(|source| failed(&self.path, what, source))
    }

    fn read<T>(
        &self,
        what: &'static str,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        body(&self.lock()).map_err(|source| failed(&self.path, what, source))
    }

    /// Limits the file to `pages` pages of 4 KiB; a write that needs more gives [`LedgerError::Full`].
    pub fn limit_pages(&self, pages: u32) -> Result<(), LedgerError> {
        self.read("limit the file", |db| db.pragma_update(None, "max_page_count", pages))
    }

    /// How SQLite would run a statement of this file; tests hold the plans to the partial indexes.
    pub fn explain(&self, sql: &str) -> Result<String, LedgerError> {
        self.read("explain", |db| {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let count = statement.parameter_count();
            let nothing = vec![rusqlite::types::Null; count];
            let lines: rusqlite::Result<Vec<String>> =
                statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get(3))?.collect();
            Ok(lines?.join("\n"))
        })
    }
}

fn failed(path: &Path, what: &'static str, source: rusqlite::Error) -> LedgerError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LedgerError::Full { path: path.to_owned() },
        _ => LedgerError::Sqlite { path: path.to_owned(), what, source },
    }
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Tasks whose worker vanished with the last attempt.
pub const SWEEP: &str = "UPDATE task SET state = 3, worker = NULL,
  error = 'the worker vanished ' || attempts || ' times; last error: ' || coalesce(error, 'none')
  WHERE run = ?1 AND state = 1 AND lease_until <= ?2 AND attempts >= ?3";
/// Tasks whose worker vanished: they go first, since somebody has waited for them already.
pub const EXPIRED: &str = "SELECT key FROM task WHERE run = ?1 AND state = 1 AND lease_until <= ?2 \
  ORDER BY lease_until LIMIT ?3";
/// Tasks that wait.
pub const WAITING: &str = "SELECT key FROM task WHERE run = ?1 AND state = 0 AND not_before <= ?2 \
  ORDER BY not_before, key LIMIT ?3";
const TAKE: &str = "UPDATE task SET state = 1, worker = ?3, leased_at = ?4, lease_until = ?5,
  attempts = attempts + 1, fence = fence + 1 WHERE run = ?1 AND key = ?2
  RETURNING fence, payload, attempts, partial";

impl Ledger for SqliteLedger {
    fn put(&self, run: &str, tasks: &[Task]) -> Result<u64, LedgerError> {
        self.write("add tasks", |tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO task (run, key, payload) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?;
            let mut new = 0;
            for task in tasks {
                new += insert.execute(params![run, task.key, task.payload])? as u64;
            }
            Ok(new)
        })
    }

    fn lease(&self, run: &str, worker: &str, max: usize, ttl: Duration) -> Result<Vec<Lease>, LedgerError> {
        let now = (self.clock)();
        self.write("lease tasks", |tx| {
            tx.prepare_cached(SWEEP)?.execute(params![run, now, self.max_attempts])?;
            let mut keys: Vec<String> = Vec::new();
            for sql in [EXPIRED, WAITING] {
                let room = (max - keys.len()) as i64;
                let mut select = tx.prepare_cached(sql)?;
                let found: rusqlite::Result<Vec<String>> =
                    select.query_map(params![run, now, room], |row| row.get(0))?.collect();
                keys.extend(found?);
            }
            let mut take = tx.prepare_cached(TAKE)?;
            keys.into_iter()
                .map(|key| {
                    take.query_row(params![run, key, worker, now, now.saturating_add(millis(ttl))], |row| {
                        let at = LeaseRef { key: key.clone(), fence: row.get::<_, i64>(0)? as u64 };
                        Ok(Lease { at, payload: row.get(1)?, attempt: row.get(2)?, partial: row.get(3)? })
                    })
                })
                .collect()
        })
    }

    fn renew(
        &self,
        run: &str,
        leases: &[(LeaseRef, Option<Vec<u8>>)],
        ttl: Duration,
    ) -> Result<Vec<bool>, LedgerError> {
        let now = (self.clock)();
        self.write("renew leases", |tx| {
            let mut update = tx.prepare_cached(
                "UPDATE task SET leased_at = ?4, lease_until = ?5, partial = coalesce(?6, partial)
                 WHERE run = ?1 AND key = ?2 AND fence = ?3 AND state = 1",
            )?;
            leases
                .iter()
                .map(|(at, partial)| {
                    let until = now.saturating_add(millis(ttl));
                    Ok(update.execute(params![run, at.key, at.fence as i64, now, until, partial])? == 1)
                })
                .collect()
        })
    }

    fn finish(&self, run: &str, outcomes: &[(LeaseRef, Outcome)]) -> Result<Finished, LedgerError> {
        let now = (self.clock)();
        self.write("finish tasks", |tx| {
            let mut finished = Finished::default();
            for (at, outcome) in outcomes {
                let applied = match outcome {
                    Outcome::Done(body) => {
                        match done(tx, run, at, body)? {
                            true => finished.accepted += 1,
                            false => finished.duplicate += 1,
                        }
                        continue;
                    }
                    Outcome::Retry { after, error } => {
                        let not_before = now.saturating_add(millis(*after));
                        tx.prepare_cached(
                            "UPDATE task SET state = CASE WHEN attempts >= ?6 THEN 3 ELSE 0 END,
                             not_before = ?4, error = ?5, worker = NULL, partial = NULL
                             WHERE run = ?1 AND key = ?2 AND fence = ?3 AND state = 1",
                        )?
                        .execute(params![
                            run,
                            at.key,
                            at.fence as i64,
                            not_before,
                            error,
                            self.max_attempts
                        ])?
                    }
                    Outcome::Dead(error) => tx
                        .prepare_cached(
                            "UPDATE task SET state = 3, error = ?4, worker = NULL
                             WHERE run = ?1 AND key = ?2 AND fence = ?3 AND state = 1",
                        )?
                        .execute(params![run, at.key, at.fence as i64, error])?,
                    Outcome::Release => tx
                        .prepare_cached(
                            "UPDATE task SET state = 0, attempts = attempts - 1, worker = NULL
                             WHERE run = ?1 AND key = ?2 AND fence = ?3 AND state = 1",
                        )?
                        .execute(params![run, at.key, at.fence as i64])?,
                };
                finished.stale += u64::from(applied == 0);
            }
            Ok(finished)
        })
    }

    fn scan(&self, run: &str, after: Option<&str>, max: usize) -> Result<Vec<ResultRow>, LedgerError> {
        self.read("read results", |db| {
            let mut select = db.prepare_cached(
                "SELECT key, body FROM result WHERE run = ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key LIMIT ?3",
            )?;
            let rows = select.query_map(params![run, after, max as i64], |row| {
                Ok(ResultRow { key: row.get(0)?, body: row.get(1)? })
            })?;
            rows.collect()
        })
    }

    fn dead_letters(&self, run: &str) -> Result<Vec<DeadLetter>, LedgerError> {
        self.read("read dead letters", |db| dead(db, run))
    }

    fn retry_dead(&self, run: &str, which: &dyn Fn(&DeadLetter) -> bool) -> Result<u64, LedgerError> {
        self.write("reopen dead letters", |tx| {
            let chosen: Vec<DeadLetter> = dead(tx, run)?.into_iter().filter(|letter| which(letter)).collect();
            let mut update = tx.prepare_cached(
                "UPDATE task SET state = 0, attempts = 0, not_before = 0, partial = NULL
                 WHERE run = ?1 AND key = ?2 AND state = 3",
            )?;
            for letter in &chosen {
                update.execute(params![run, letter.key])?;
            }
            Ok(chosen.len() as u64)
        })
    }

    fn stats(&self, run: &str) -> Result<Stats, LedgerError> {
        let now = (self.clock)();
        self.read("count tasks", |db| {
            // One count per state, each from its own partial index, so that payloads are not read.
            let count = |sql: &str| -> rusqlite::Result<u64> {
                db.prepare_cached(sql)?.query_row([run], |row| row.get::<_, i64>(0)).map(|n| n as u64)
            };
            let mut stats = Stats {
                ready: count("SELECT count(*) FROM task WHERE run = ?1 AND state = 0")?,
                leased: count("SELECT count(*) FROM task WHERE run = ?1 AND state = 1")?,
                done: count("SELECT count(*) FROM task WHERE run = ?1 AND state = 2")?,
                dead: count("SELECT count(*) FROM task WHERE run = ?1 AND state = 3")?,
                oldest_lease_ms: None,
            };
            let oldest: Option<i64> = db
                .query_row("SELECT min(leased_at) FROM task WHERE run = ?1 AND state = 1", [run], |row| {
                    row.get(0)
                })
                .optional()?
                .flatten();
            stats.oldest_lease_ms = oldest.map(|at| now.saturating_sub(at).max(0) as u64);
            Ok(stats)
        })
    }
}

fn dead(db: &Connection, run: &str) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut select = db.prepare_cached(
        "SELECT key, attempts, coalesce(error, '') FROM task WHERE run = ?1 AND state = 3 ORDER BY key",
    )?;
    let rows = select.query_map([run], |row| {
        Ok(DeadLetter { key: row.get(0)?, attempts: row.get(1)?, error: row.get(2)? })
    })?;
    rows.collect()
}

/// Inserts the result unless there is one; then the task is done, whatever state it was in.
fn done(tx: &Transaction<'_>, run: &str, at: &LeaseRef, body: &[u8]) -> rusqlite::Result<bool> {
    let first = tx
        .prepare_cached(
            "INSERT INTO result (run, key, fence, body)
             SELECT run, key, ?3, ?4 FROM task WHERE run = ?1 AND key = ?2 ON CONFLICT DO NOTHING",
        )?
        .execute(params![run, at.key, at.fence as i64, body])?
        == 1;
    if first {
        tx.prepare_cached(
            "UPDATE task SET state = 2, worker = NULL, partial = NULL WHERE run = ?1 AND key = ?2",
        )?
        .execute(params![run, at.key])?;
    }
    Ok(first)
}
