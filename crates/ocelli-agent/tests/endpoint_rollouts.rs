//! Rollouts with tools against an OpenAI-compatible server that fails one request in five, hangs, hangs up, and sends
//! half answers. Each trajectory ends within its deadline with the status that fits.

mod toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ocelli_agent::control::Control;
use ocelli_agent::endpoint::{Concurrency, Endpoint, EndpointConfig, RetryPolicy, SamplingParams};
use ocelli_agent::endpoint_policy::EndpointPolicy;
use ocelli_agent::engine::{Engine, Until};
use ocelli_agent::episode::{Ended, Job};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::tool_env::ToolEnvConfig;
use ocelli_data::{Role, Status};
use serde_json::{Value, json};
use toy::{samples, standard_tools, world};

/// What the server does with request number `n`.
type Mood = fn(usize) -> &'static str;

struct Server {
    mood: Mood,
    seen: AtomicUsize,
    with_images: AtomicUsize,
}

/// Crops in the first turn, calls with broken arguments in the second, then answers.
fn next_message(request: &Value) -> (Value, &'static str) {
    let messages = request["messages"].as_array().unwrap();
    let turn = messages.iter().filter(|m| m["role"] == "assistant").count();
    let call = |arguments: &str| {
        json!({"role": "assistant", "content": "", "tool_calls": [
            {"id": format!("c{turn}"), "type": "function", "function": {"name": "crop", "arguments": arguments}}]})
    };
    match turn {
        0 => (call(r#"{"image": "img_0", "bbox": [4, 4, 24, 24]}"#), "tool_calls"),
        1 => (call(r#"{"image": "img_1", "bbox": [1, "#), "tool_calls"),
        2 => (call(r#"{'image': 'img_1', 'bbox': [1, 1, 9, 9]}"#), "tool_calls"),
        _ => (json!({"role": "assistant", "content": "a square"}), "stop"),
    }
}

async fn answer(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let n = server.seen.fetch_add(1, Ordering::SeqCst);
    let request: Value = serde_json::from_slice(&body).unwrap();
    // Every call must have been answered, by its id, or a real server refuses the request.
    let ids = |role: &str, key: &dyn Fn(&Value) -> Vec<Value>| -> Vec<Value> {
        request["messages"].as_array().unwrap().iter().filter(|m| m["role"] == role).flat_map(key).collect()
    };
    let called = ids("assistant", &|m| {
        m["tool_calls"].as_array().into_iter().flatten().map(|c| c["id"].clone()).collect()
    });
    let answered = ids("tool", &|m| vec![m["tool_call_id"].clone()]);
    if called != answered {
        return (StatusCode::BAD_REQUEST, format!("calls {called:?}, answers {answered:?}")).into_response();
    }
    if body.windows(21).any(|w| w == b"data:image/png;base64") {
        server.with_images.fetch_add(1, Ordering::SeqCst);
    }
    let (message, mut finish) = next_message(&request);
    match (server.mood)(n) {
        "500" => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "429" => {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", "20")], "slow down").into_response();
        }
        "hang" => std::future::pending::<()>().await,
        "cut" => finish = "length",
        _ => {}
    }
    let text = json!({"id": "x", "model": "mock", "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                      "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    .to_string();
    match (server.mood)(n) {
        "half" => text[..text.len() / 2].to_owned().into_response(),
        "hang up" => {
            // More bytes are promised than come.
            let start = Bytes::from(text[..20].to_owned());
            Response::builder().header("content-length", text.len()).body(Body::from(start)).unwrap()
        }
        _ => text.into_response(),
    }
}

/// Rolls out `count` questions against a server of that mood.
fn roll(mood: Mood, count: usize, seconds: f64, attempts: u32) -> (Vec<Ended>, Arc<Server>) {
    let server = Arc::new(Server { mood, seen: AtomicUsize::new(0), with_images: AtomicUsize::new(0) });
    let state = server.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(state);
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let config = EndpointConfig {
        timeout_s: 0.5,
        retry: RetryPolicy { attempts, base_s: 0.01, max_s: 0.05, ..RetryPolicy::default() },
        concurrency: Concurrency { start: 16, max: 16 },
        ..EndpointConfig::new(format!("http://{address}/v1"), "mock")
    };
    let endpoint = Endpoint::new(config).unwrap();
    let policy = Arc::new(EndpointPolicy::new(endpoint, SamplingParams::default(), CallFormat::OpenAi));
    let env = ToolEnvConfig { format: CallFormat::OpenAi, ..ToolEnvConfig::default() };
    let limits = RolloutLimits { seconds, ..RolloutLimits::default() };
    let world = world(policy, standard_tools(), env, limits);
    let jobs = Job::group(&samples(&world, count), 1, 0);
    let engine = Engine::new(32).unwrap();
    let report = engine.run(None, &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
    assert_eq!(report.ended.len(), count);
    runtime.shutdown_background();
    (report.ended, server)
}

#[test]
fn a_bad_server_costs_attempts_and_not_trajectories() {
    // Of 20 requests: 4 fail at once (20 %), one hangs, one hangs up, two are half answers.
    let (ended, server) = roll(
        |n| match n % 20 {
            1 | 8 => "500",
            5 => "429",
            14 => "hang up",
            11 => "hang",
            3 | 17 => "half",
            _ => "fine",
        },
        60,
        60.0,
        8,
    );
    for e in &ended {
        let t = &e.trajectory;
        assert_eq!(t.status, Status::Answered, "{:?}", e.why);
        // The good call, the broken one (told to the policy), the one in single quotes (understood).
        let errors: Vec<bool> = t.tools.iter().map(|u| u.result.is_error).collect();
        assert_eq!(errors, [false, true, false], "{:?}", t.tools);
        assert!(t.messages.iter().any(|m| m.role == Role::Tool && m.plain_text().contains("expected")));
        assert!(e.seconds < 60.0);
        assert!(t.ids.is_empty() && t.images.len() == 3);
    }
    let seen = server.seen.load(Ordering::SeqCst);
    assert!(seen > 60 * 4 * 5 / 4, "only {seen} requests: nothing was repeated");
    assert!(server.with_images.load(Ordering::SeqCst) >= 240);
}

#[test]
fn a_cut_answer_is_truncated() {
    let (ended, _) = roll(|_| "cut", 3, 30.0, 2);
    assert!(ended.iter().all(|e| e.trajectory.status == Status::TruncatedTokens));
}

#[test]
fn a_dead_server_fails_the_policy_and_a_hanging_one_meets_the_deadline() {
    let (ended, _) = roll(|_| "500", 3, 30.0, 2);
    for e in &ended {
        assert_eq!(e.trajectory.status, Status::PolicyFailed);
        assert!(e.why.as_deref().unwrap().contains("500"), "{:?}", e.why);
    }
    let (ended, _) = roll(|_| "hang", 3, 1.2, 1000);
    for e in &ended {
        assert_eq!(e.trajectory.status, Status::Deadline);
        assert!(Duration::from_secs_f64(e.seconds) < Duration::from_secs(3), "{}", e.seconds);
    }
}
