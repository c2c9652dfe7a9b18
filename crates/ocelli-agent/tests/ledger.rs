//! What every ledger must do, and which indexes SQLite uses for it. Time is a counter that the tests advance.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ocelli_agent::ledger::{Finished, Lease, LeaseRef, Ledger, LedgerError, Outcome, SqliteLedger, Task};

const TTL: Duration = Duration::from_secs(60);
const RUN: &str = "run";

struct Fixture {
    ledger: SqliteLedger,
    now: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_000_000));
        let clock = now.clone();
        let path = dir.path().join("a/ledger.sqlite");
        let ledger = SqliteLedger::with_clock(&path, 3, move || clock.load(Ordering::Relaxed)).unwrap();
        Self { ledger, now, _dir: dir }
    }

    fn put(&self, keys: &[&str]) -> u64 {
        let tasks: Vec<Task> =
            keys.iter().map(|k| Task { key: (*k).into(), payload: k.as_bytes().to_vec() }).collect();
        self.ledger.put(RUN, &tasks).unwrap()
    }

    fn lease(&self, max: usize) -> Vec<Lease> {
        self.ledger.lease(RUN, "w", max, TTL).unwrap()
    }

    fn finish(&self, at: &LeaseRef, outcome: Outcome) -> Finished {
        self.ledger.finish(RUN, &[(at.clone(), outcome)]).unwrap()
    }

    fn wait(&self, d: Duration) {
        self.now.fetch_add(d.as_millis() as i64, Ordering::Relaxed);
    }
}

fn keys(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|l| l.at.key.as_str()).collect()
}

fn retry(after: u64) -> Outcome {
    Outcome::Retry { after: Duration::from_secs(after), error: "late".into() }
}

#[test]
fn putting_twice_adds_once_and_runs_are_apart() {
    let f = Fixture::new();
    assert_eq!(f.put(&["a", "b"]), 2);
    assert_eq!(f.put(&["b", "c"]), 1);
    assert_eq!(f.ledger.put("other", &[Task { key: "a".into(), payload: vec![] }]).unwrap(), 1);
    assert_eq!(f.ledger.stats(RUN).unwrap().ready, 3);
    assert_eq!(f.ledger.stats("other").unwrap().ready, 1);
}

#[test]
fn a_leased_task_is_not_leased_again_until_it_expires() {
    let f = Fixture::new();
    f.put(&["a", "b", "c"]);
    assert_eq!(keys(&f.lease(2)), ["a", "b"]);
    assert_eq!(keys(&f.lease(9)), ["c"]);
    assert!(f.lease(9).is_empty());
    f.wait(TTL);
    let again = f.lease(9);
    assert_eq!(keys(&again), ["a", "b", "c"]);
    assert_eq!((again[0].attempt, again[0].at.fence, again[0].payload.as_slice()), (2, 2, &b"a"[..]));
    assert_eq!(f.ledger.stats(RUN).unwrap().oldest_lease_ms, Some(0));
}

#[test]
fn the_first_result_stays() {
    let f = Fixture::new();
    f.put(&["a"]);
    let slow = f.lease(1).remove(0);
    f.wait(TTL);
    let quick = f.lease(1).remove(0);
    assert_eq!(f.finish(&quick.at, Outcome::Done(b"quick".to_vec())).accepted, 1);
    assert_eq!(f.finish(&slow.at, Outcome::Done(b"slow".to_vec())).duplicate, 1);
    assert_eq!(f.finish(&quick.at, Outcome::Done(b"twice".to_vec())).duplicate, 1);
    let rows = f.ledger.scan(RUN, None, 10).unwrap();
    assert_eq!((rows.len(), rows[0].body.as_slice()), (1, &b"quick"[..]));
    assert!(f.ledger.stats(RUN).unwrap().is_settled());
    assert!(f.lease(1).is_empty());
}

#[test]
fn a_late_result_is_kept_where_there_is_none_yet() {
    let f = Fixture::new();
    f.put(&["a"]);
    let slow = f.lease(1).remove(0);
    f.wait(TTL);
    let second = f.lease(1).remove(0);
    assert_eq!(f.finish(&slow.at, Outcome::Done(b"slow".to_vec())).accepted, 1);
    assert_eq!(f.finish(&second.at, retry(0)).stale, 1);
    assert_eq!(f.ledger.stats(RUN).unwrap().done, 1);
}

#[test]
fn a_lost_lease_has_no_rights() {
    let f = Fixture::new();
    f.put(&["a"]);
    let old = f.lease(1).remove(0).at;
    f.wait(TTL);
    let new = f.lease(1).remove(0).at;
    let renewed =
        f.ledger.renew(RUN, &[(old.clone(), Some(b"x".to_vec())), (new.clone(), None)], TTL).unwrap();
    assert_eq!(renewed, [false, true]);
    for outcome in [retry(0), Outcome::Dead("no".into()), Outcome::Release] {
        assert_eq!(f.finish(&old, outcome).stale, 1);
    }
    assert_eq!(f.ledger.stats(RUN).unwrap().leased, 1);
    assert_eq!(f.finish(&new, Outcome::Release), Finished::default());
}

#[test]
fn partial_work_goes_to_the_next_holder() {
    let f = Fixture::new();
    f.put(&["a"]);
    let first = f.lease(1).remove(0).at;
    f.ledger.renew(RUN, &[(first.clone(), Some(b"turn 1".to_vec()))], TTL).unwrap();
    f.wait(TTL / 2);
    assert_eq!(f.ledger.renew(RUN, &[(first, None)], TTL).unwrap(), [true]);
    f.wait(TTL / 2 + Duration::from_secs(1));
    assert!(f.lease(1).is_empty(), "renewed in between");
    f.wait(TTL);
    assert_eq!(f.lease(1)[0].partial.as_deref(), Some(&b"turn 1"[..]));
}

#[test]
fn attempts_are_counted_at_the_lease_and_end_in_a_dead_letter() {
    let f = Fixture::new();
    f.put(&["killer", "failer", "refused"]);
    for _ in 0..3 {
        for lease in f.lease(3) {
            match lease.at.key.as_str() {
                "failer" => assert_eq!(f.finish(&lease.at, retry(0)).stale, 0),
                "refused" => assert_eq!(f.finish(&lease.at, Outcome::Dead("no image".into())).stale, 0),
                _ => {} // its worker dies without a word
            }
        }
        f.wait(TTL);
    }
    assert!(f.lease(3).is_empty());
    let dead = f.ledger.dead_letters(RUN).unwrap();
    let seen: Vec<_> = dead.iter().map(|d| (d.key.as_str(), d.attempts)).collect();
    assert_eq!(seen, [("failer", 3), ("killer", 3), ("refused", 1)]);
    assert_eq!(dead[1].error, "the worker vanished 3 times; last error: none");
    assert_eq!(f.ledger.retry_dead(RUN, &|_| true).unwrap(), 3);
    assert_eq!(f.lease(9).iter().map(|l| l.attempt).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn release_refunds_the_attempt_and_retry_waits() {
    let f = Fixture::new();
    f.put(&["a"]);
    for _ in 0..10 {
        let lease = f.lease(1).remove(0);
        assert_eq!(lease.attempt, 1);
        f.finish(&lease.at, Outcome::Release);
    }
    let lease = f.lease(1).remove(0);
    f.finish(&lease.at, retry(5));
    assert!(f.lease(1).is_empty());
    assert_eq!(f.ledger.stats(RUN).unwrap().ready, 1);
    f.wait(Duration::from_secs(5));
    assert_eq!(f.lease(1)[0].attempt, 2);
}

#[test]
fn a_batch_is_one_transaction_and_scan_is_in_key_order() {
    let f = Fixture::new();
    let names: Vec<String> = (0..25).map(|i| format!("k{:02}", (i * 7) % 25)).collect();
    f.put(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let outcomes: Vec<_> =
        f.lease(25).into_iter().map(|l| (l.at.clone(), Outcome::Done(l.payload))).collect();
    assert_eq!(f.ledger.finish(RUN, &outcomes).unwrap().accepted, 25);
    let mut seen = Vec::new();
    while let Some(last) = {
        let page = f.ledger.scan(RUN, seen.last().map(String::as_str), 10).unwrap();
        seen.extend(page.iter().map(|r| r.key.clone()));
        page.last().map(|r| r.key.clone())
    } {
        assert_eq!(seen.last(), Some(&last));
    }
    let mut sorted = names;
    sorted.sort();
    assert_eq!(seen, sorted);
}

#[test]
fn lease_and_sweep_use_their_own_indexes() {
    let f = Fixture::new();
    use ocelli_agent::ledger::{EXPIRED, SWEEP, WAITING};
    for (sql, index) in [(WAITING, "task_ready"), (EXPIRED, "task_leased"), (SWEEP, "task_leased")] {
        let plan = f.ledger.explain(sql).unwrap();
        assert!(plan.contains(&format!("INDEX {index}")), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{sql}\n{plan}");
    }
}

#[test]
fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.sqlite");
    drop(SqliteLedger::open(&path, 3).unwrap());
    drop(SqliteLedger::open(&path, 3).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 7).unwrap();
    drop(db);
    assert!(matches!(SqliteLedger::open(&path, 3), Err(LedgerError::Version { found: 7, expected: 1, .. })));
}

#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    // A tiny tmpfs would need root; a page limit makes SQLite give the same SQLITE_FULL.
    let f = Fixture::new();
    f.put(&["a", "b"]);
    let leases = f.lease(2);
    f.ledger.limit_pages(20).unwrap();
    let big = vec![(leases[0].at.clone(), Outcome::Done(vec![7; 1 << 20]))];
    assert!(matches!(f.ledger.finish(RUN, &big), Err(LedgerError::Full { .. })));
    assert_eq!(f.finish(&leases[1].at, Outcome::Done(b"small".to_vec())).accepted, 1);
    let stats = f.ledger.stats(RUN).unwrap();
    assert_eq!((stats.leased, stats.done), (1, 1));
    f.ledger.limit_pages(1 << 30).unwrap();
    assert_eq!(f.ledger.finish(RUN, &big).unwrap().accepted, 1);
}

#[test]
fn dev_full_names_the_path() {
    if !Path::new("/dev/full").exists() {
        return eprintln!("skipped: no /dev/full on this system");
    }
    let message = SqliteLedger::open(Path::new("/dev/full"), 3).unwrap_err().to_string();
    assert!(message.contains("/dev/full"), "{message}");
}
