//! Everything that can fail around a trajectory: each ends before its deadline, with the status that says who failed.
//!
//! Time is tokio's test clock: a tool of a thousand seconds costs nothing here, and a deadline is exact.

mod toy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ocelli_agent::control::Control;
use ocelli_agent::engine::{Until, run_jobs};
use ocelli_agent::episode::{Ended, Job, Outcome, World};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::{BoxFuture, Conversation, Policy, PolicyError, Said, Start, Turn};
use ocelli_agent::scripted::{ScriptedPolicy, said, say};
use ocelli_agent::tool_env::{AnswerRule, ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::io::BlobStore;
use ocelli_data::{Status, ToolCall};
use ocelli_tools::{Fatal, Images, Limits, Registry, Reply, ToolError, ToolSpec};
use serde_json::{Map, json};
use toy::{samples, standard_tools, world};

fn call(name: &str) -> ToolCall {
    let arguments = Map::from_iter([("image".to_owned(), json!("img_0"))]);
    ToolCall { id: String::new(), name: name.into(), arguments }
}

/// Calls `crop` `calls` times, then answers.
fn caller(calls: usize) -> Arc<dyn Policy> {
    Arc::new(ScriptedPolicy::new(move |_, turn, _| match turn < calls {
        true => Ok(say(CallFormat::Hermes, "", &[call("crop")])),
        false => Ok(said("a square")),
    }))
}

/// Tools that behave as `behave` says: time to take, and what to answer.
struct Odd<F>(F, AtomicUsize);

fn odd<F>(behave: F) -> Arc<dyn Toolbox>
where
    F: Fn(usize) -> (Duration, Result<Reply, ToolError>) + Send + Sync + 'static,
{
    Arc::new(Odd(behave, AtomicUsize::new(0)))
}

impl<F: Fn(usize) -> (Duration, Result<Reply, ToolError>) + Send + Sync> Toolbox for Odd<F> {
    fn specs(&self) -> Arc<[ToolSpec]> {
        Registry::standard(Limits::default()).specs().into()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        _: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        let (takes, reply) = (self.0)(self.1.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            tokio::time::sleep(takes.min(time)).await;
            if takes > time { Err(Fatal::Deadline { tool: call.name.clone() }.into()) } else { reply }
        })
    }
}

const NOW: Duration = Duration::ZERO;

fn fine() -> (Duration, Result<Reply, ToolError>) {
    (NOW, Ok(Reply::text("done")))
}

fn gone() -> ToolError {
    Fatal::Remote { server: "http://127.0.0.1:9".into(), why: "connection refused".into() }.into()
}

async fn roll(world: &World, count: usize) -> Vec<Ended> {
    let ended = run(world, Job::group(&samples(world, count), 1, 0)).await;
    assert_eq!(ended.len(), count);
    ended.into_values().collect()
}

async fn run(world: &World, jobs: Vec<Job>) -> BTreeMap<String, Ended> {
    run_with(world, jobs, Control::default()).await
}

/// Runs jobs that all begin at once, and sees to it that they end within one deadline.
async fn run_with(world: &World, jobs: Vec<Job>, control: Control) -> BTreeMap<String, Ended> {
    let (out, mut outcomes) = tokio::sync::mpsc::unbounded_channel();
    let started = tokio::time::Instant::now();
    run_jobs(world, &control, 64, jobs, Until::AllEnded, &out).await;
    assert!(started.elapsed() <= world.limits.time() + Duration::from_millis(100), "{:?}", started.elapsed());
    drop(out);
    let mut ended = BTreeMap::new();
    while let Some((_, outcome)) = outcomes.recv().await {
        match outcome {
            Outcome::Ended(e) => ended.insert(e.trajectory.sample_id.clone(), *e),
            Outcome::Paused(_) => panic!("nobody asked for a pause"),
        };
    }
    ended
}

fn limits(seconds: f64) -> RolloutLimits {
    RolloutLimits { seconds, turns: 6, ..RolloutLimits::default() }
}

fn env(call_seconds: f64, forgiven: usize) -> ToolEnvConfig {
    ToolEnvConfig { call_seconds, forgiven, ..ToolEnvConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_slow_tool_is_forgiven_once_and_then_ends_the_trajectory() {
    let slow = || odd(|_| (Duration::from_secs(1000), Ok(Reply::text("late"))));
    let ended = roll(&world(caller(1), slow(), env(2.0, 1), limits(60.0)), 3).await;
    for e in &ended {
        assert_eq!(e.trajectory.status, Status::Answered);
        let told = &e.trajectory.tools[0].result;
        assert!(told.is_error && format!("{told:?}").contains("passed its deadline. Try another way"));
        assert_eq!(e.trajectory.tools[0].millis.round(), 2000.0);
    }
    let ended = roll(&world(caller(3), slow(), env(2.0, 1), limits(60.0)), 3).await;
    for e in &ended {
        assert_eq!((e.trajectory.status, e.trajectory.tools.len()), (Status::ToolFailed, 2));
        assert!(e.why.as_deref().unwrap().contains("tool `crop` passed its deadline"));
    }
    // The trajectory's own deadline comes first: that is nobody's fault but the clock's.
    let ended = roll(&world(caller(3), slow(), env(30.0, 1), limits(5.0)), 3).await;
    for e in &ended {
        assert_eq!(e.trajectory.status, Status::Deadline);
        assert_eq!(e.trajectory.tools.len(), 1, "the interrupted call is recorded");
        assert!((5.0..5.1).contains(&e.seconds), "{}", e.seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_dies_in_the_middle() {
    let dies = odd(|n| if n < 2 { fine() } else { (NOW, Err(gone())) });
    let ended = roll(&world(caller(4), dies, env(5.0, 1), limits(60.0)), 1).await;
    // Two calls went well, one was forgiven, the next ended it.
    assert_eq!(ended[0].trajectory.status, Status::ToolFailed);
    let errors: Vec<bool> = ended[0].trajectory.tools.iter().map(|u| u.result.is_error).collect();
    assert_eq!(errors, [false, false, true, true]);
    // It comes back: nobody is lost.
    let returns = odd(|n| if n == 1 { (NOW, Err(gone())) } else { fine() });
    let ended = roll(&world(caller(4), returns, env(5.0, 1), limits(60.0)), 1).await;
    assert_eq!(ended[0].trajectory.status, Status::Answered);
}

#[tokio::test(start_paused = true)]
async fn a_broken_tool_is_never_forgiven() {
    let broken = odd(|_| (NOW, Err(Fatal::Broken { tool: "crop".into(), why: "index".into() }.into())));
    let ended = roll(&world(caller(2), broken, env(5.0, 9), limits(60.0)), 1).await;
    assert_eq!(ended[0].trajectory.status, Status::ToolFailed);
    assert_eq!(ended[0].why.as_deref(), Some("tool `crop` is broken: index"));
}

#[tokio::test(start_paused = true)]
async fn malformed_calls_are_answered_and_counted() {
    let script = |right_after: usize| {
        Arc::new(ScriptedPolicy::new(move |_, turn, _| {
            Ok(said(match turn < right_after {
                true => "<tool_call>{\"name\": \"crop\", \"arguments\": {</tool_call",
                false => "a square",
            }))
        }))
    };
    let ended = roll(&world(script(2), standard_tools(), env(5.0, 1), limits(60.0)), 4).await;
    for e in &ended {
        assert_eq!((e.trajectory.status, e.trajectory.tools.len()), (Status::Answered, 2));
        let text = e.trajectory.messages[3].plain_text();
        assert!(text.contains("A right call looks like this: <tool_call>"), "{text}");
    }
    let ended = roll(&world(script(99), standard_tools(), env(5.0, 1), limits(60.0)), 4).await;
    assert!(ended.iter().all(|e| e.trajectory.status == Status::TruncatedTurns));
}

#[tokio::test(start_paused = true)]
async fn without_the_answer_tool_a_turn_is_reminded() {
    let config = ToolEnvConfig { answer: AnswerRule::Tool, ..ToolEnvConfig::default() };
    let policy = Arc::new(ScriptedPolicy::new(|_, turn, _| {
        let arguments = Map::from_iter([("answer".to_owned(), json!("a square"))]);
        let answer = ToolCall { id: String::new(), name: "answer".into(), arguments };
        Ok(if turn == 0 { said("a square") } else { say(CallFormat::Hermes, "", &[answer]) })
    }));
    let ended = roll(&world(policy, standard_tools(), config, limits(60.0)), 1).await;
    let t = &ended[0].trajectory;
    assert_eq!((t.status, t.tools.len()), (Status::Answered, 1));
    assert!(t.messages.iter().any(|m| m.plain_text().starts_with("No tool was called.")));
}

/// A policy that does what tests do not want it to.
struct Bad(&'static str);

impl Policy for Bad {
    fn open(&self, _: Start) -> Result<Box<dyn Conversation>, PolicyError> {
        match self.0 {
            "refuses" => Err(PolicyError("no such model".into())),
            how => Ok(Box::new(Bad(how))),
        }
    }
}

impl Conversation for Bad {
    fn turn<'a>(&'a mut self, _: Turn<'a>) -> BoxFuture<'a, Result<Said, PolicyError>> {
        match self.0 {
            "panics" => panic!("a defect in a policy"),
            "fails" => Box::pin(async { Err(PolicyError("HTTP 500".into())) }),
            _ => Box::pin(std::future::pending()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn policies_that_fail_hang_and_panic() {
    for (how, status, why) in [
        ("refuses", Status::PolicyFailed, "no such model"),
        ("fails", Status::PolicyFailed, "HTTP 500"),
        ("panics", Status::PolicyFailed, "a defect of this program"),
        ("hangs", Status::Deadline, ""),
    ] {
        let world = world(Arc::new(Bad(how)), standard_tools(), env(5.0, 1), limits(7.0));
        for e in roll(&world, 3).await {
            assert_eq!(e.trajectory.status, status, "{how}");
            assert!(e.why.unwrap_or_default().contains(why), "{how}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_running_and_the_waiting() {
    let control = Control::default();
    let world = world(Arc::new(Bad("hangs")), standard_tools(), env(5.0, 1), limits(1000.0));
    let canceller = control.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        canceller.cancel();
    });
    let ended = run_with(&world, Job::group(&samples(&world, 100), 1, 0), control).await;
    assert_eq!(ended.len(), 100);
    assert!(ended.values().all(|e| e.trajectory.status == Status::Cancelled && e.seconds < 3.1));
}

#[tokio::test(start_paused = true)]
async fn a_sample_without_its_picture_is_a_bad_sample() {
    let world = world(caller(1), standard_tools(), env(5.0, 1), limits(60.0));
    let jobs = Job::group(&samples(&world, 2), 1, 0);
    world.pictures.clear();
    world.pictures.put(toy::picture(90).bytes().clone()).unwrap(); // that of s0 alone
    let ended = run(&world, jobs).await;
    assert_eq!(ended["s0"].trajectory.status, Status::Answered);
    assert_eq!(ended["s1"].trajectory.status, Status::BadSample);
    assert!(ended["s1"].why.as_deref().unwrap().contains("no image with hash"));
}

/// The pictures that tools make cannot be kept. `tests/durable.rs` does the same on a file system that is really full.
#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::new(dir.path());
    let given = store.put(toy::picture(90).bytes()).unwrap();
    for prefix in 0..=255u8 {
        // A file stands where the directory of each new blob should be made.
        let path = dir.path().join(format!("{prefix:02x}"));
        if !path.exists() {
            std::fs::write(path, b"").unwrap();
        }
    }
    let pictures = Arc::new(Pictures::on_disk(store, 1 << 20));
    let crop =
        r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0", "bbox": [4, 4, 24, 24]}}</tool_call>"#;
    let policy = Arc::new(ScriptedPolicy::new(move |_, _, _| Ok(said(crop))));
    let envs = Arc::new(ToolEnvs::new(env(5.0, 9), standard_tools(), pictures.clone(), Limits::default()));
    let world = World { policy, envs, pictures, limits: limits(60.0) };
    let ended = run(&world, Job::group(&[toy::sample("s0", &[given])], 1, 0)).await;
    assert_eq!(ended["s0"].trajectory.status, Status::ToolFailed);
    let why = ended["s0"].why.as_deref().unwrap();
    assert!(why.contains("cannot create directory") && why.contains(dir.path().to_str().unwrap()), "{why}");
}
