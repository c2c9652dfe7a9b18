//! Real child processes share one ledger file and are killed with SIGKILL at random moments, again and again.
//!
//! A child is this test binary itself, called with `OCELLI_LEDGER_CHILD`. It does the work of a worker: lease, think a
//! little, save partial work, finish. One task in 40 kills its own worker every time.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ocelli_agent::ledger::{LeaseRef, Ledger, Outcome, SqliteLedger, Task};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const RUN: &str = "kill";
const TASKS: usize = 400;
const POISON_EVERY: usize = 40;
const MAX_ATTEMPTS: u32 = 12;
const TTL: Duration = Duration::from_millis(400);

/// The body of a child; as a test of its own it does nothing.
#[test]
fn child_worker() {
    let Ok(path) = std::env::var("OCELLI_LEDGER_CHILD") else { return };
    let ledger = SqliteLedger::open(Path::new(&path), MAX_ATTEMPTS).unwrap();
    let me = std::process::id().to_string();
    loop {
        let leases = ledger.lease(RUN, &me, 8, TTL).unwrap();
        if leases.is_empty() {
            if ledger.stats(RUN).unwrap().is_settled() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let saved: Vec<(LeaseRef, Option<Vec<u8>>)> =
            leases.iter().map(|l| (l.at.clone(), Some(b"half".to_vec()))).collect();
        ledger.renew(RUN, &saved, TTL).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let (poison, good): (Vec<_>, Vec<_>) = leases.into_iter().partition(|l| l.payload == b"poison");
        let outcomes: Vec<_> = good
            .into_iter()
            .map(|l| {
                let body = format!("{}: {}", me, String::from_utf8_lossy(&l.payload));
                (l.at, Outcome::Done(body.into_bytes()))
            })
            .collect();
        ledger.finish(RUN, &outcomes).unwrap();
        if !poison.is_empty() {
            std::process::abort();
        }
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_worker", "--quiet"])
        .env("OCELLI_LEDGER_CHILD", path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_is_there_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let ledger = SqliteLedger::open(&path, MAX_ATTEMPTS).unwrap();
    let tasks: Vec<Task> = (0..TASKS)
        .map(|i| {
            let poison = i % POISON_EVERY == 0;
            Task {
                key: format!("{i:05}"),
                payload: if poison { b"poison".to_vec() } else { vec![b'g'; 200] },
            }
        })
        .collect();
    assert_eq!(ledger.put(RUN, &tasks).unwrap(), TASKS as u64);

    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let mut workers: Vec<Child> = (0..2).map(|_| spawn(&path)).collect();
    let mut kills = 0;
    let give_up = Instant::now() + Duration::from_secs(120);
    while !ledger.stats(RUN).unwrap().is_settled() {
        assert!(Instant::now() < give_up, "stuck: {:?} after {kills} kills", ledger.stats(RUN));
        std::thread::sleep(Duration::from_millis(rng.random_range(5..60)));
        let victim = rng.random_range(0..workers.len());
        if kills < 60 {
            workers[victim].kill().unwrap(); // SIGKILL
            kills += 1;
        }
        for worker in &mut workers {
            if worker.try_wait().unwrap().is_some() {
                *worker = spawn(&path);
            }
        }
    }
    for worker in &mut workers {
        let _ = worker.kill();
        let _ = worker.wait();
    }

    // The same command again adds nothing.
    assert_eq!(ledger.put(RUN, &tasks).unwrap(), 0);
    let rows = ledger.scan(RUN, None, usize::MAX >> 1).unwrap();
    let mut keys: Vec<_> = rows.iter().map(|r| r.key.clone()).collect();
    keys.dedup();
    let dead = ledger.dead_letters(RUN).unwrap();
    let poison = TASKS / POISON_EVERY;
    assert_eq!(keys.len(), TASKS - poison, "after {kills} kills");
    assert_eq!(rows.len(), TASKS - poison);
    assert_eq!(dead.len(), poison);
    assert!(
        dead.iter()
            .all(|d| d.key.parse::<usize>().unwrap() % POISON_EVERY == 0 && d.attempts == MAX_ATTEMPTS)
    );
    assert!(kills >= 10, "only {kills} kills");
    let integrity: String = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(integrity, "ok");
}
