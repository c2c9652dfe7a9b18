//! Rollouts whose tools run on servers: one that dies under them, and one that answers with hostile pictures.

mod toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    roll_with(servers, kill, count, 2.0)
}

fn roll_with(
    servers: &[&str],
    kill: Option<(Runtime, Duration)>,
    count: usize,
    call_seconds: f64,
) -> Vec<Ended> {
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
    let env = ToolEnvConfig { call_seconds, ..ToolEnvConfig::default() };
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

/// Answers that a hostile or broken server may give to a call.
fn hostile(kind: usize) -> Vec<u8> {
    let good = toy::picture(77);
    let png = |bytes: &[u8], hash: ocelli_data::ContentHash| {
        let (width, height) = (good.width(), good.height());
        let data = STANDARD.encode(bytes);
        let image = json!({"hash": hash, "width": width, "height": height,
                           "to_parent": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "png": data});
        json!({"text": "done", "image": image}).to_string().into_bytes()
    };
    let named = |bytes: &[u8]| png(bytes, ocelli_data::ContentHash::of(bytes));
    let whole = good.bytes().to_vec();
    match kind {
        // A header that promises four billion pixels (bytes 16 to 23 of a PNG are its sides).
        0 => {
            let mut bomb = whole;
            bomb[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
            named(&bomb)
        }
        // Cut off after the header, which is right.
        1 => named(&whole[..60]),
        // Pixels that do not unpack.
        2 => {
            let mut torn = whole;
            let middle = torn.len() / 2;
            torn[middle..].iter_mut().for_each(|b| *b ^= 0x5a);
            named(&torn)
        }
        // Another picture than the one announced.
        3 => png(&whole, ocelli_data::ContentHash::of(b"another")),
        4 => b"{\"text\": \"done\", \"image\": {\"png\": \"!!!".to_vec(),
        5 => vec![b'['; 200_000],
        6 => named(b"<svg onload=alert(1)>"),
        _ => named(b""),
    }
}

#[test]
fn hostile_pictures_from_a_server_end_in_tool_failed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let specs = serde_json::to_string(&Registry::standard(Limits::default()).specs()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let call = move || {
        let kind = counter.fetch_add(1, Ordering::SeqCst) % 8;
        async move { hostile(kind) }
    };
    let app = axum::Router::new()
        .route("/v1/tools", axum::routing::get(move || std::future::ready(specs.clone())))
        .route("/v1/call", axum::routing::post(call));
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let ended = roll_with(&[&url], None, 24, 0.3);
    for e in &ended {
        let t = &e.trajectory;
        assert_eq!(t.status, Status::ToolFailed, "{:?}", e.why);
        // One failure was forgiven, the second ended it; no picture of the server was shown.
        assert_eq!((t.tools.len(), t.images.len()), (2, 1));
        assert!(!e.why.as_deref().unwrap_or_default().contains("defect"), "{:?}", e.why);
    }
    assert!(asked.load(Ordering::SeqCst) >= 8, "not every kind was sent");
    runtime.shutdown_background();
}
