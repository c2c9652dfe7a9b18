//! Rollouts with tools against an OpenAI-compatible server that fails one request in five, hangs, hangs up, and sends
//! half answers. Each trajectory ends within its deadline with the status that fits. The server refuses, as real ones
//! do, a request that lacks the tools, a picture, or the answer to a call.

mod toy;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ocelli_agent::control::Control;
use ocelli_agent::endpoint::{Concurrency, Endpoint, EndpointConfig, RetryPolicy, SamplingParams};
use ocelli_agent::endpoint_policy::EndpointPolicy;
use ocelli_agent::engine::{Engine, Report, Until};
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
    /// Requests being answered, and the most of them at once.
    running: AtomicUsize,
    most: AtomicUsize,
    /// When requests came and how they were met.
    log: Mutex<Vec<(Instant, &'static str)>>,
}

impl Server {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood,
            seen: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            log: Mutex::default(),
        })
    }
}

/// Counts a request as running until it is answered or its client has gone.
struct Running(Arc<Server>);

impl Running {
    fn begin(server: &Arc<Server>) -> Self {
        let now = server.running.fetch_add(1, Ordering::SeqCst) + 1;
        server.most.fetch_max(now, Ordering::SeqCst);
        Self(server.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Milliseconds that a 429 asks everybody to wait.
const ASKED: u64 = 150;

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
        1 => (call(r#"{"image": "img_1, "bbox": [1, 1, 9, 9]}"#), "tool_calls"),
        2 => (call(r#"{'image': 'img_1', 'bbox': [1, 1, 9, 9]}"#), "tool_calls"),
        _ => (json!({"role": "assistant", "content": "a square"}), "stop"),
    }
}

/// What is wrong with a request, if anything.
fn refused(request: &Value) -> Option<String> {
    let messages = request["messages"].as_array()?;
    // Every call must have been answered, by its id.
    let ids = |role: &str, key: &dyn Fn(&Value) -> Vec<Value>| -> Vec<Value> {
        messages.iter().filter(|m| m["role"] == role).flat_map(key).collect()
    };
    let called = ids("assistant", &|m| {
        m["tool_calls"].as_array().into_iter().flatten().map(|c| c["id"].clone()).collect()
    });
    let answered = ids("tool", &|m| vec![m["tool_call_id"].clone()]);
    if called != answered {
        return Some(format!("calls {called:?}, answers {answered:?}"));
    }
    let has_crop = |t: &Value| t["function"]["name"] == "crop" && t["function"]["parameters"].is_object();
    if !request["tools"].as_array().is_some_and(|tools| tools.iter().any(has_crop)) {
        return Some(format!("the tools are {}", request["tools"]));
    }
    // The question's picture, and one for each of the two crops that can be read.
    let pictures = |m: &Value| {
        let parts = m["content"].as_array().cloned().unwrap_or_default();
        parts.iter().filter(|p| png(p).is_some()).count()
    };
    let (shown, turn) = (messages.iter().map(pictures).sum::<usize>(), called.len());
    let expected = [1, 2, 2, 3][turn.min(3)];
    if shown != expected {
        return Some(format!("{shown} pictures in turn {turn}, not {expected}"));
    }
    (!request["seed"].is_u64() || !request["max_tokens"].is_u64()).then(|| "no seed or limit".to_owned())
}

/// The picture of a part, where it is a PNG that can be decoded.
fn png(part: &Value) -> Option<image::DynamicImage> {
    use base64::Engine as _;
    let text = part["image_url"]["url"].as_str()?.strip_prefix("data:image/png;base64,")?;
    image::load_from_memory(&base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
}

async fn answer(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let _running = Running::begin(&server);
    let n = server.seen.fetch_add(1, Ordering::SeqCst);
    let request: Value = serde_json::from_slice(&body).unwrap();
    if let Some(why) = refused(&request) {
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let mood = (server.mood)(n);
    server.log.lock().unwrap().push((Instant::now(), mood));
    let (message, mut finish) = next_message(&request);
    match mood {
        "401" => return (StatusCode::UNAUTHORIZED, "wrong key").into_response(),
        "500" => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "429" => {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", ASKED.to_string())], "slow down")
                .into_response();
        }
        "hang" => std::future::pending::<()>().await,
        "cut" => finish = "length",
        "slow" => tokio::time::sleep(Duration::from_millis(10)).await,
        _ => {}
    }
    let text = json!({"id": "x", "model": "mock", "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                      "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    .to_string();
    match mood {
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
    roll_with(mood, count, seconds, attempts, Concurrency { start: 16, max: 16 })
}

fn roll_with(
    mood: Mood,
    count: usize,
    seconds: f64,
    attempts: u32,
    concurrency: Concurrency,
) -> (Vec<Ended>, Arc<Server>) {
    let (report, server, _) = run(mood, count, seconds, attempts, concurrency);
    assert_eq!(report.ended.len(), count);
    (report.ended, server)
}

fn run(
    mood: Mood,
    count: usize,
    seconds: f64,
    attempts: u32,
    concurrency: Concurrency,
) -> (Report, Arc<Server>, EndpointPolicy) {
    let server = Server::new(mood);
    let state = server.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(state);
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let config = EndpointConfig {
        timeout_s: 2.0,
        retry: RetryPolicy { attempts, base_s: 0.01, max_s: 0.05, ..RetryPolicy::default() },
        concurrency,
        ..EndpointConfig::new(format!("http://{address}/v1"), "mock")
    };
    let endpoint = Endpoint::new(config).unwrap();
    let policy = EndpointPolicy::new(endpoint, SamplingParams::default(), CallFormat::OpenAi);
    let env = ToolEnvConfig { format: CallFormat::OpenAi, ..ToolEnvConfig::default() };
    let limits = RolloutLimits { seconds, ..RolloutLimits::default() };
    let world = world(Arc::new(policy.clone()), standard_tools(), env, limits);
    let jobs = Job::group(&samples(&world, count), 1, 0);
    let engine = Engine::new(32).unwrap();
    let report = engine.run(None, &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
    runtime.shutdown_background();
    (report, server, policy)
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
    let log = server.log.lock().unwrap();
    assert_eq!(log.len(), seen, "a request was refused as malformed");
    let sorts = ["500", "429", "hang up", "hang", "half"];
    for sort in sorts {
        assert!(log.iter().any(|(_, mood)| *mood == sort), "no request was met with `{sort}`");
    }
}

#[test]
fn a_throttling_server_is_left_alone_as_long_as_it_asks() {
    // Every 16th request is refused; the one in flight beside it may still come, further ones must wait.
    let (ended, server) = roll_with(
        |n| if n % 16 == 15 { "429" } else { "fine" },
        24,
        60.0,
        8,
        Concurrency { start: 1, max: 1 },
    );
    assert!(ended.iter().all(|e| e.trajectory.status == Status::Answered));
    let log = server.log.lock().unwrap();
    let mut refusals = 0;
    for pair in log.windows(2).filter(|pair| pair[0].1 == "429") {
        let pause = pair[1].0 - pair[0].0;
        assert!(pause >= Duration::from_millis(ASKED), "asked again after {pause:?}");
        refusals += 1;
    }
    assert!(refusals >= 6, "{refusals} refusals");
}

#[test]
fn requests_in_flight_grow_to_the_limit_and_not_beyond() {
    let (ended, server) = roll_with(|_| "slow", 60, 60.0, 2, Concurrency { start: 2, max: 12 });
    assert!(ended.iter().all(|e| e.trajectory.status == Status::Answered));
    assert_eq!(server.most.load(Ordering::SeqCst), 12);
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

#[test]
fn a_wrong_key_pauses_the_run_and_costs_no_trajectory() {
    // The key is taken away in the middle.
    let concurrency = Concurrency { start: 4, max: 4 };
    let (report, server, policy) = run(|n| if n < 150 { "fine" } else { "401" }, 60, 60.0, 5, concurrency);
    assert!(report.ended.iter().all(|e| e.trajectory.status == Status::Answered));
    assert_eq!(report.ended.len() + report.paused.len(), 60);
    // 150 requests are enough for 37 trajectories of four turns.
    assert!((1..=37).contains(&report.ended.len()), "{}", report.ended.len());
    let refusal = policy.refusal().unwrap();
    assert!(refusal.contains("401") && refusal.contains("wrong key"), "{refusal}");
    // The requests in flight, and those that waited for their place.
    assert!(server.seen.load(Ordering::SeqCst) <= 150 + 32);
}
