//! Rollouts that outlive their process: real child processes under SIGKILL, a polite stop, a ledger that fails, and a
//! file system that is really full.

mod toy;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocelli_agent::control::Control;
use ocelli_agent::durable::{DurableConfig, DurableError, finished, is_outage, run_durable, tasks};
use ocelli_agent::episode::{Ended, Job, World};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::ledger::{
    DeadLetter, Finished, Lease, LeaseRef, Ledger, LedgerError, Outcome, ResultRow, SqliteLedger, Stats, Task,
};
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::{BoxFuture, PolicyError};
use ocelli_agent::scripted::{ScriptedPolicy, said, say};
use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::io::BlobStore;
use ocelli_data::{Status, ToolCall};
use ocelli_tools::{Images, Limits, Reply, ToolError, ToolSpec};
use rand::{Rng, SeedableRng};
use serde_json::json;
use toy::{picture, sample, standard_tools};

const RUN: &str = "run";
const TURNS: usize = 4;

fn crop(turn: usize) -> ToolCall {
    let edge = 10 + turn;
    let arguments = json!({"image": "img_0", "bbox": [2, 2, edge, edge]});
    ToolCall { id: String::new(), name: "crop".into(), arguments: arguments.as_object().unwrap().clone() }
}

/// Crops three times, then answers; each turn is written down in `diary` before it is said.
fn world(dir: &Path, diary: Option<PathBuf>, pause: Duration) -> World {
    let policy = ScriptedPolicy::new(move |start, turn, _| {
        if let Some(diary) = &diary {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(diary).unwrap();
            writeln!(file, "{}#{} {turn}", start.sample.id, start.attempt).unwrap();
        }
        std::thread::sleep(pause);
        Ok(if turn + 1 < TURNS { say(CallFormat::Hermes, "", &[crop(turn)]) } else { said("a square") })
    });
    let pictures = Arc::new(Pictures::on_disk(BlobStore::new(dir.join("images")), 1 << 20));
    let envs = Arc::new(ToolEnvs::new(
        ToolEnvConfig::default(),
        standard_tools(),
        pictures.clone(),
        Limits::default(),
    ));
    World { policy: Arc::new(policy), envs, pictures, limits: RolloutLimits::default() }
}

fn jobs(dir: &Path, count: usize, group: u32) -> Vec<Job> {
    let store = BlobStore::new(dir.join("images"));
    let samples: Vec<_> = (0..count)
        .map(|i| sample(&format!("s{i:03}"), &[store.put(picture(40 + i as u8).bytes()).unwrap()]))
        .collect();
    Job::group(&samples, group, 1)
}

fn ledger(dir: &Path) -> Arc<dyn Ledger> {
    Arc::new(SqliteLedger::open(&dir.join("ledger.sqlite"), 30).unwrap())
}

fn config() -> DurableConfig {
    DurableConfig { live: 8, lease: Duration::from_millis(600), ..DurableConfig::new(RUN) }
}

fn work(
    world: &World,
    ledger: Arc<dyn Ledger>,
    config: &DurableConfig,
    control: &Control,
) -> Result<(), DurableError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (out, _ended) = tokio::sync::mpsc::unbounded_channel();
    runtime.block_on(run_durable(world, control, ledger, config, &out))
}

/// The body of a child; as a test of its own it does nothing.
#[test]
fn child_worker() {
    let Ok(dir) = std::env::var("OCELLI_DURABLE_CHILD") else { return };
    let dir = PathBuf::from(dir);
    let world = world(&dir, Some(dir.join("diary")), Duration::from_millis(3));
    work(&world, ledger(&dir), &config(), &Control::default()).unwrap();
}

fn child(name: &str, variable: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--quiet"]).env(variable, dir).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn check_complete(dir: &Path, jobs: &[Job]) -> Vec<Ended> {
    let ended = finished(&*ledger(dir), RUN).unwrap();
    let names: Vec<_> =
        ended.iter().map(|e| (e.trajectory.sample_id.clone(), e.trajectory.attempt)).collect();
    let wanted: Vec<_> = jobs.iter().map(|j| (j.sample.id.clone(), j.attempt)).collect();
    assert_eq!(names, wanted, "each job once, in the order of keys");
    for e in &ended {
        assert_eq!(
            (e.trajectory.status, e.trajectory.tools.len()),
            (Status::Answered, TURNS - 1),
            "{:?}",
            e.why
        );
    }
    ended
}

#[test]
fn killed_at_any_moment_every_trajectory_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path(), 30, 2);
    let shared = ledger(dir.path());
    assert_eq!(shared.put(RUN, &tasks(&jobs, "v1").unwrap()).unwrap(), 60);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let spawn = || child("child_worker", "OCELLI_DURABLE_CHILD", dir.path()).spawn().unwrap();
    let mut worker: Child = spawn();
    let mut kills = 0;
    let give_up = Instant::now() + Duration::from_secs(120);
    while !shared.stats(RUN).unwrap().is_settled() {
        assert!(Instant::now() < give_up, "stuck at {:?} after {kills} kills", shared.stats(RUN));
        std::thread::sleep(Duration::from_millis(rng.random_range(30..300)));
        if kills < 12 {
            worker.kill().unwrap();
            kills += 1;
        }
        if worker.try_wait().unwrap().is_some() {
            worker = spawn();
        }
    }
    let _ = worker.kill();
    let _ = worker.wait();
    let ended = check_complete(dir.path(), &jobs);
    // The same command again finds nothing to do, and a dialogue is whole although several processes wrote it.
    assert_eq!(shared.put(RUN, &tasks(&jobs, "v1").unwrap()).unwrap(), 0);
    let store = BlobStore::new(dir.path().join("images"));
    for e in &ended {
        let crops = e.trajectory.tools.iter().map(|u| u.call.arguments["bbox"].to_string());
        assert_eq!(crops.collect::<BTreeSet<_>>().len(), TURNS - 1, "no turn twice");
        for hash in &e.trajectory.images {
            store.get(*hash, 1 << 20).unwrap();
        }
    }
    // Another configuration is other work.
    assert_eq!(shared.put(RUN, &tasks(&jobs, "v2").unwrap()).unwrap(), 60);
}

#[test]
fn a_polite_stop_keeps_the_turns_that_were_said() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path(), 6, 1);
    let shared = ledger(dir.path());
    shared.put(RUN, &tasks(&jobs, "").unwrap()).unwrap();
    let diary = dir.path().join("diary");
    let world = world(dir.path(), Some(diary.clone()), Duration::from_millis(20));
    let control = Control::default();
    let stopper = control.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        stopper.pause();
    });
    work(&world, shared.clone(), &config(), &control).unwrap();
    thread.join().unwrap();
    let stats = shared.stats(RUN).unwrap();
    assert!(stats.ready > 0 && stats.leased == 0, "{stats:?}");
    work(&world, shared, &config(), &Control::default()).unwrap();
    check_complete(dir.path(), &jobs);
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(diary).unwrap().lines() {
        *said.entry(line.to_owned()).or_default() += 1;
    }
    assert_eq!(said.len(), 6 * TURNS);
    assert!(said.values().all(|n| *n == 1), "a turn was said twice: {said:?}");
}

/// A ledger that refuses for a while.
struct Flaky {
    inner: Arc<dyn Ledger>,
    refusals: AtomicU64,
}

impl Flaky {
    fn turn(&self) -> Result<(), LedgerError> {
        match self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(LedgerError::Full { path: "flaky".into() }),
            Err(_) => Ok(()),
        }
    }
}

impl Ledger for Flaky {
    fn put(&self, run: &str, tasks: &[Task]) -> Result<u64, LedgerError> {
        self.inner.put(run, tasks)
    }
    fn lease(&self, run: &str, worker: &str, max: usize, ttl: Duration) -> Result<Vec<Lease>, LedgerError> {
        self.inner.lease(run, worker, max, ttl)
    }
    fn renew(
        &self,
        run: &str,
        leases: &[(LeaseRef, Option<Vec<u8>>)],
        ttl: Duration,
    ) -> Result<Vec<bool>, LedgerError> {
        self.inner.renew(run, leases, ttl)
    }
    fn finish(&self, run: &str, outcomes: &[(LeaseRef, Outcome)]) -> Result<Finished, LedgerError> {
        self.turn()?;
        self.inner.finish(run, outcomes)
    }
    fn scan(&self, run: &str, after: Option<&str>, max: usize) -> Result<Vec<ResultRow>, LedgerError> {
        self.inner.scan(run, after, max)
    }
    fn dead_letters(&self, run: &str) -> Result<Vec<DeadLetter>, LedgerError> {
        self.inner.dead_letters(run)
    }
    fn retry_dead(&self, run: &str, which: &dyn Fn(&DeadLetter) -> bool) -> Result<u64, LedgerError> {
        self.inner.retry_dead(run, which)
    }
    fn stats(&self, run: &str) -> Result<Stats, LedgerError> {
        self.inner.stats(run)
    }
}

#[test]
fn a_ledger_that_fails_for_a_while_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path(), 5, 1);
    let flaky = Arc::new(Flaky { inner: ledger(dir.path()), refusals: AtomicU64::new(3) });
    flaky.put(RUN, &tasks(&jobs, "").unwrap()).unwrap();
    let world = world(dir.path(), None, Duration::ZERO);
    work(&world, flaky.clone(), &config(), &Control::default()).unwrap();
    check_complete(dir.path(), &jobs);

    // For longer than the patience: the run stops and says so; started again it completes.
    let dir = tempfile::tempdir().unwrap();
    let jobs = self::jobs(dir.path(), 5, 1);
    let flaky = Arc::new(Flaky { inner: ledger(dir.path()), refusals: AtomicU64::new(1_000_000) });
    flaky.put(RUN, &tasks(&jobs, "").unwrap()).unwrap();
    let world = self::world(dir.path(), None, Duration::ZERO);
    let hasty = DurableConfig { patience: Duration::from_millis(300), ..config() };
    let error = work(&world, flaky.clone(), &hasty, &Control::default()).unwrap_err();
    assert!(error.to_string().contains("no space left for the ledger"), "{error}");
    flaky.refusals.store(0, Ordering::SeqCst);
    work(&world, flaky, &config(), &Control::default()).unwrap();
    check_complete(dir.path(), &jobs);
}

#[test]
fn an_outage_is_tried_again_then_given_up_and_comes_back_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path(), 2, 1);
    let tries: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let seen = tries.clone();
    let over = Arc::new(AtomicU64::new(0));
    let mended = over.clone();
    let policy = ScriptedPolicy::new(move |start, _, _| {
        let mut tries = seen.lock().unwrap();
        let n = tries.entry(start.sample.id.clone()).or_default();
        *n += 1;
        // The first comes back at its third try, the second not before its server does.
        if start.sample.id == "s000" && *n == 3 || mended.load(Ordering::SeqCst) > 0 {
            Ok(said("a square"))
        } else {
            Err(PolicyError("HTTP 503".into()))
        }
    });
    let world = World { policy: Arc::new(policy), ..world(dir.path(), None, Duration::ZERO) };
    let shared = ledger(dir.path());
    shared.put(RUN, &tasks(&jobs, "").unwrap()).unwrap();
    let config = DurableConfig { retries: 3, retry_pause: Duration::ZERO, ..config() };
    work(&world, shared.clone(), &config, &Control::default()).unwrap();
    let ended = finished(&*shared, RUN).unwrap();
    let seen = |ended: &[Ended]| -> Vec<(String, Status)> {
        ended.iter().map(|e| (e.trajectory.sample_id.clone(), e.trajectory.status)).collect()
    };
    assert_eq!(seen(&ended), [("s000".to_owned(), Status::Answered)]);
    assert_eq!(tries.lock().unwrap()["s001"], 4);
    let dead = shared.dead_letters(RUN).unwrap();
    assert_eq!(dead.len(), 1);
    assert!(dead[0].key.starts_with("s001#") && dead[0].error == "PolicyFailed: HTTP 503", "{dead:?}");
    assert!(is_outage(&dead[0]));
    let killer =
        DeadLetter { error: "the worker vanished 8 times; last error: none".into(), ..dead[0].clone() };
    assert!(!is_outage(&killer));

    over.store(1, Ordering::SeqCst);
    work(&world, shared.clone(), &config, &Control::default()).unwrap();
    assert_eq!(finished(&*shared, RUN).unwrap().len(), 1, "nothing comes back by itself");
    assert_eq!(shared.retry_dead(RUN, &|letter| !is_outage(letter)).unwrap(), 0);
    assert_eq!(shared.retry_dead(RUN, &is_outage).unwrap(), 1);
    work(&world, shared.clone(), &config, &Control::default()).unwrap();
    let both = ["s000", "s001"].map(|id| (id.to_owned(), Status::Answered));
    assert_eq!(seen(&finished(&*shared, RUN).unwrap()), both);
    assert!(shared.dead_letters(RUN).unwrap().is_empty());
}

/// Tools of which the call with this edge never returns while `stuck`; it counts those that hang.
struct Stuck {
    inner: Arc<dyn Toolbox>,
    stuck: AtomicU64,
    hanging: AtomicU64,
}

impl Toolbox for Stuck {
    fn specs(&self) -> Arc<[ToolSpec]> {
        self.inner.specs()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        Box::pin(async move {
            if call.arguments["bbox"][2] == 12 && self.stuck.load(Ordering::SeqCst) > 0 {
                self.hanging.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            self.inner.call(call, images, time).await
        })
    }
}

#[test]
fn a_cancelled_run_gives_its_work_back_from_the_middle_of_a_turn() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path(), 6, 1);
    let shared = ledger(dir.path());
    shared.put(RUN, &tasks(&jobs, "").unwrap()).unwrap();
    let diary = dir.path().join("diary");
    let mut world = world(dir.path(), Some(diary.clone()), Duration::ZERO);
    let tools = Arc::new(Stuck { inner: standard_tools(), stuck: 1.into(), hanging: 0.into() });
    let limits = Limits::default();
    world.envs =
        Arc::new(ToolEnvs::new(ToolEnvConfig::default(), tools.clone(), world.pictures.clone(), limits));
    let control = Control::default();
    let (stopper, watched) = (control.clone(), tools.clone());
    let thread = std::thread::spawn(move || {
        while watched.hanging.load(Ordering::SeqCst) < 6 {
            std::thread::sleep(Duration::from_millis(2));
        }
        stopper.cancel();
    });
    work(&world, shared.clone(), &config(), &control).unwrap();
    thread.join().unwrap();
    let stats = shared.stats(RUN).unwrap();
    assert_eq!((stats.ready, stats.leased, stats.done, stats.dead), (6, 0, 0, 0));
    tools.stuck.store(0, Ordering::SeqCst);
    work(&world, shared, &config(), &Control::default()).unwrap();
    check_complete(dir.path(), &jobs);
    let diary = std::fs::read_to_string(diary).unwrap();
    for turn in 0..TURNS {
        // The turn whose tool hung is said again; those before it are not.
        let times = if turn == 2 { 12 } else { 6 };
        assert_eq!(diary.lines().filter(|l| l.ends_with(&format!(" {turn}"))).count(), times, "turn {turn}");
    }
}

/// The body of the full disk; as a test of its own it does nothing.
#[test]
fn child_on_a_full_disk() {
    let Ok(dir) = std::env::var("OCELLI_FULL_DISK") else { return };
    let dir = PathBuf::from(dir);
    let jobs = jobs(&dir, 4, 1);
    let shared = ledger(&dir);
    shared.put(RUN, &tasks(&jobs, "").unwrap()).unwrap();
    let mut filler = std::fs::File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    drop(filler);
    let hasty = DurableConfig { patience: Duration::from_millis(300), retries: 0, ..config() };
    let world = self::world(&dir, None, Duration::ZERO);
    let started = Instant::now();
    let stopped = work(&world, shared.clone(), &hasty, &Control::default());
    assert!(started.elapsed() < Duration::from_secs(60));
    let error = stopped.expect_err("the ledger cannot have taken anything").to_string();
    assert!(error.contains("ledger.sqlite"), "{error}");
    // Space again: the same command completes the work.
    std::fs::remove_file(dir.join("filler")).unwrap();
    work(&world, shared, &config(), &Control::default()).unwrap();
    check_complete(&dir, &jobs);
    std::fs::write(dir.join("passed"), b"").unwrap();
    std::process::exit(43);
}

#[test]
fn a_full_disk_stops_the_run_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    // A private mount of 1 MiB, in namespaces of its own where one is not root.
    let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 42; OCELLI_FULL_DISK=\"$1\" exec \"$2\" \
                  --exact child_on_a_full_disk --nocapture";
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([dir.path(), &exe])
        .output();
    let output = match run {
        Ok(output) if output.status.code() != Some(42) && output.status.code() != Some(1) => output,
        other => return eprintln!("skipped: no private mount on this system: {other:?}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(43), "{}{said}", String::from_utf8_lossy(&output.stdout));
}
