//! Rollouts whose tools run on servers, and a server that dies under them.

mod toy;

use std::sync::Arc;
use std::time::Duration;

use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Until};
use ocelli_agent::episode::{Ended, Job};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::scripted::{ScriptedPolicy, said, say};
use ocelli_agent::tool_env::ToolEnvConfig;
use ocelli_data::{Status, ToolCall};
use ocelli_tools::{Client, Endpoint, Limits, Registry, Server, ServerConfig, ServiceConfig};
use serde_json::json;
use tokio::runtime::Runtime;
use toy::{samples, world};

/// A server in a runtime of its own: ending the runtime cuts its connections, as a killed process does.
fn serve() -> (Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        token: None,
        service: ServiceConfig::default(),
        drain: Duration::from_secs(1),
    };
    let server = runtime.block_on(Server::bind(Registry::standard(Limits::default()), &config)).unwrap();
    let url = format!("http://{}", server.address());
    runtime.spawn(server.run(std::future::pending()));
    (runtime, url)
}

/// Crops `CROPS` times, each time another region, a little slowly; then answers.
const CROPS: usize = 6;

fn roll(servers: &[&str], kill: Option<(Runtime, Duration)>, count: usize) -> Vec<Ended> {
    let policy = ScriptedPolicy::new(|start, turn, _| {
        std::thread::sleep(Duration::from_millis(1));
        let edge = 10 + 2 * turn as u32 + u32::try_from(start.sample.id.len()).unwrap();
        let arguments = json!({"image": "img_0", "bbox": [2, 2, edge, edge]});
        let arguments = arguments.as_object().unwrap().clone();
        let call = ToolCall { id: String::new(), name: "crop".into(), arguments };
        Ok(if turn < CROPS { say(CallFormat::Hermes, "", &[call]) } else { said("a square") })
    });
    let endpoints: Vec<Endpoint> =
        servers.iter().map(|url| Endpoint { url: (*url).to_owned(), token: None }).collect();
    let connecting = Runtime::new().unwrap();
    let client = connecting.block_on(Client::connect(&endpoints, Limits::default())).unwrap();
    let limits = RolloutLimits { seconds: 20.0, ..RolloutLimits::default() };
    let env = ToolEnvConfig { call_seconds: 2.0, ..ToolEnvConfig::default() };
    let world = world(Arc::new(policy), Arc::new(client), env, limits);
    let jobs = Job::group(&samples(&world, count), 1, 0);
    let killer = kill.map(|(runtime, after)| {
        std::thread::spawn(move || {
            std::thread::sleep(after);
            runtime.shutdown_background();
        })
    });
    let engine = Engine::new(4).unwrap();
    let report = engine.run(None, &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
    if let Some(killer) = killer {
        killer.join().unwrap();
    }
    connecting.shutdown_background();
    assert_eq!(report.ended.len(), count);
    for e in &report.ended {
        assert!(e.seconds < 20.2, "{} s", e.seconds);
    }
    report.ended
}

#[test]
fn tools_on_a_server_are_the_same_tools() {
    let (_server, url) = serve();
    for e in roll(&[&url], None, 4) {
        let t = &e.trajectory;
        assert_eq!((t.status, t.tools.len(), t.images.len()), (Status::Answered, CROPS, CROPS + 1));
        assert!(t.tools.iter().all(|u| !u.result.is_error));
    }
}

#[test]
fn another_server_takes_over_from_a_killed_one() {
    let (dies, first) = serve();
    let (_lives, second) = serve();
    for e in roll(&[&first, &second], Some((dies, Duration::from_millis(60))), 40) {
        assert_eq!(e.trajectory.status, Status::Answered, "{:?}", e.why);
    }
}

#[test]
fn the_last_server_is_killed() {
    let (dies, url) = serve();
    let ended = roll(&[&url], Some((dies, Duration::from_millis(60))), 60);
    let failed: Vec<&Ended> = ended.iter().filter(|e| e.trajectory.status == Status::ToolFailed).collect();
    assert!(!failed.is_empty(), "the server died too late to be noticed");
    assert_eq!(
        failed.len() + ended.iter().filter(|e| e.trajectory.status == Status::Answered).count(),
        60,
        "no other end is possible"
    );
    for e in failed {
        let why = e.why.as_deref().unwrap_or_default();
        assert!(why.contains("tool server") || why.contains("no tool server"), "{why}");
    }
}
