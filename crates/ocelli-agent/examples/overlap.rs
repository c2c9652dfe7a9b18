//! Wall time of many trajectories with slow tools: this engine against the loop with a turn barrier.
//!
//! Both use the same simulated device (one step for up to 32 sequences takes 6 ms + 0.1 ms per sequence) and the same
//! tools (50 to 500 ms each, by a hash of question and turn). The loop is that of common tool trainers: all live
//! trajectories generate as one batch, then their tools run one after another, then the next round; free places are
//! filled between rounds. A third column runs the tools of a round together, to show what the barrier alone costs.
//!
//! `cargo run --release -p ocelli-agent --example overlap`; with `-- --real`, tools go through the toolbox of rollouts.

#![allow(clippy::print_stdout)] // a bench talks to the terminal

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_agent::control::Control;
use ocelli_agent::engine::{Until, run_jobs};
use ocelli_agent::episode::{Job, World};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::BoxFuture;
use ocelli_agent::scripted::{ScriptedPolicy, said, say};
use ocelli_agent::simulated::{DeviceCosts, SimulatedDevice, SimulatedPolicy};
use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::{LocalTools, Toolbox};
use ocelli_data::{ContentHash, Message, Part, Sample, Target, ToolCall};
use ocelli_tools::{Declared, Images, Limits, Registry, Reply, ToolError, ToolSpec};
use serde_json::{Map, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const COSTS: DeviceCosts = DeviceCosts {
    step: Duration::from_millis(6),
    per_row: Duration::from_micros(100),
    max_batch: 32,
    chunk: 4,
};
const CALLS: usize = 3;

fn hash(what: &str, id: &str, turn: usize) -> u64 {
    let h = ContentHash::of(format!("{what}/{id}/{turn}").as_bytes());
    u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| h.as_bytes()[i]))
}

/// 40 to 120 tokens.
fn tokens(id: &str, turn: usize) -> u32 {
    40 + (hash("tokens", id, turn) % 81) as u32
}

/// 50 to 500 ms.
fn tool_time(id: &str, turn: usize) -> Duration {
    Duration::from_millis(50 + hash("tool", id, turn) % 451)
}

/// Sleeps as long as the call's argument says.
struct SlowTools(bool);

impl Toolbox for SlowTools {
    fn specs(&self) -> Arc<[ToolSpec]> {
        Registry::standard(Limits::default()).specs().into()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        _: &'a Images,
        _: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        let millis = call.arguments.get("millis").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let time = if self.0 { Duration::from_millis(millis) } else { Duration::ZERO };
        Box::pin(async move {
            tokio::time::sleep(time).await;
            Ok(Reply::text("done"))
        })
    }
}

fn jobs(count: usize) -> Vec<Job> {
    let sample = |i: usize| {
        Arc::new(Sample {
            id: format!("q{i}"),
            messages: vec![Message::user([Part::text("What is shown?")])],
            target: Target::Text { accepted: vec!["nothing".into()] },
            meta: Map::new(),
        })
    };
    Job::group(&(0..count).map(sample).collect::<Vec<_>>(), 1, 0)
}

/// The engine; with `generate` or `tools` off, that resource costs nothing.
async fn engine(live: usize, count: usize, generate: bool, tools: bool) -> Duration {
    engine_with(live, count, generate, Arc::new(SlowTools(tools))).await
}

/// The toolbox of rollouts with a tool that sleeps as long as its argument says, on a thread: as one of another program, of
/// which it takes `far` calls at once, or as one of this program on four threads.
fn real_tools(far: Option<usize>) -> Arc<dyn Toolbox> {
    let crop = Registry::standard(Limits::default()).spec("crop").cloned();
    let parameters = json!({"type": "object", "properties": {"millis": {"type": "integer"}}});
    let spec = crop.map(|crop| ToolSpec { parameters, ..crop });
    let sleeps = spec.map(|spec| {
        Declared::dynamic(spec, |arguments, _| {
            let millis = arguments.get("millis").and_then(serde_json::Value::as_u64).unwrap_or(0);
            std::thread::sleep(Duration::from_millis(millis));
            Ok(Reply::text("done"))
        })
    });
    let placed = sleeps.map(|tool| match far {
        Some(places) => tool.elsewhere(Arc::new(Semaphore::new(places))),
        None => tool,
    });
    let registry = placed.into_iter().fold(Registry::empty(Limits::default()), Registry::with_declared);
    Arc::new(LocalTools::new(Arc::new(registry), 4))
}

async fn engine_with(live: usize, count: usize, generate: bool, toolbox: Arc<dyn Toolbox>) -> Duration {
    let script = ScriptedPolicy::new(|start, turn, _| {
        let millis = tool_time(&start.sample.id, turn).as_millis() as u64;
        let arguments = Map::from_iter([("millis".to_owned(), json!(millis))]);
        let call = ToolCall { id: String::new(), name: "crop".into(), arguments };
        Ok(if turn < CALLS { say(CallFormat::Hermes, "", &[call]) } else { said("nothing") })
    });
    let policy: Arc<dyn ocelli_agent::policy::Policy> = match generate {
        true => Arc::new(SimulatedPolicy::new(SimulatedDevice::start(COSTS), script, |start, turn| {
            tokens(&start.sample.id, turn)
        })),
        false => Arc::new(script),
    };
    let pictures = Arc::new(Pictures::in_memory(1 << 20));
    let envs =
        Arc::new(ToolEnvs::new(ToolEnvConfig::default(), toolbox, pictures.clone(), Limits::default()));
    let world = World { policy, envs, pictures, limits: RolloutLimits::default() };
    let (out, mut outcomes) = tokio::sync::mpsc::unbounded_channel();
    let started = Instant::now();
    run_jobs(&world, &Control::default(), live, jobs(count), Until::AllEnded, &out).await;
    let wall = started.elapsed();
    drop(out);
    let mut ended = 0;
    while outcomes.recv().await.is_some() {
        ended += 1;
    }
    assert_eq!(ended, count);
    wall
}

/// The loop with a barrier after each turn.
async fn barrier(live: usize, count: usize, tools_together: bool) -> Duration {
    let device = SimulatedDevice::start(COSTS);
    let started = Instant::now();
    let mut waiting = (0..count).map(|i| (format!("q{i}"), 0));
    let mut batch: Vec<(String, usize)> = Vec::new();
    loop {
        batch.extend(waiting.by_ref().take(live - batch.len()));
        if batch.is_empty() {
            return started.elapsed();
        }
        let mut generating = JoinSet::new();
        for (id, turn) in &batch {
            let (device, n) = (device.clone(), tokens(id, *turn));
            generating.spawn(async move { device.decode(n).await });
        }
        generating.join_all().await;
        batch.retain(|(_, turn)| *turn < CALLS);
        let mut tools = JoinSet::new();
        for (id, turn) in &mut batch {
            let time = tool_time(id, *turn);
            *turn += 1;
            match tools_together {
                true => {
                    tools.spawn(tokio::time::sleep(time));
                }
                false => tokio::time::sleep(time).await,
            }
        }
        tools.join_all().await;
    }
}

/// The longest trajectory on a device of its own: no schedule can be faster.
fn longest(count: usize) -> Duration {
    let one = |i: usize| -> Duration {
        let id = format!("q{i}");
        let generation: Duration = (0..=CALLS).map(|t| COSTS.step_time(1) * tokens(&id, t)).sum();
        generation + (0..CALLS).map(|t| tool_time(&id, t)).sum::<Duration>()
    };
    (0..count).map(one).max().unwrap_or_default()
}

/// The same through the toolbox of rollouts.
async fn real() {
    println!(
        "| live | trajectories | tools that only sleep | of another program, 16 places | of this program, 4 threads |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for live in [8usize, 32, 96] {
        let mut row = format!("| {live} | {} |", live * 2);
        let toolboxes: [Arc<dyn Toolbox>; 3] =
            [Arc::new(SlowTools(true)), real_tools(Some(16)), real_tools(None)];
        for toolbox in toolboxes {
            let took = engine_with(live, live * 2, true, toolbox).await;
            row.push_str(&format!(" {:.2} s |", took.as_secs_f64()));
        }
        println!("{row}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().any(|a| a == "--real") {
        return real().await;
    }
    println!(
        "| live | trajectories | barrier, tools in turn | barrier, tools together | ours | only generation | only tools | longest alone | ours / bound | barrier / ours |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for live in [1usize, 8, 32, 96] {
        let count = if live == 1 { 4 } else { live * 2 };
        let sequential = barrier(live, count, false).await;
        let together = barrier(live, count, true).await;
        let ours = engine(live, count, true, true).await;
        let generation = engine(live, count, true, false).await;
        let tools = engine(live, count, false, true).await;
        let longest = longest(count);
        // One live trajectory alternates between the two, so its bound is their sum.
        let bound = if live == 1 { generation + tools } else { generation.max(tools).max(longest) };
        let s = |d: Duration| format!("{:.2} s", d.as_secs_f64());
        println!(
            "| {live} | {count} | {} | {} | **{}** | {} | {} | {} | {:.2} | {:.1} |",
            s(sequential),
            s(together),
            s(ours),
            s(generation),
            s(tools),
            s(longest),
            ours.as_secs_f64() / bound.as_secs_f64(),
            sequential.as_secs_f64() / ours.as_secs_f64()
        );
    }
}
