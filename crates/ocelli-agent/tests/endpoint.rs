//! The client against a server that misbehaves on request.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use ocelli_agent::endpoint::{
    ApiKey, ChatRequest, Completion, Concurrency, Endpoint, EndpointConfig, EndpointError, Finish, Outcome,
    Price, RetryPolicy, SamplingParams, ToolSchema,
};
use ocelli_data::{ContentHash, Message, Part, ToolCall, ToolResult};
use serde_json::{Value, json};

type Reply = Box<dyn Fn(usize, Value) -> Response + Send + Sync>;

/// Serves `reply(number of the request, its body)`; returns the base address and the count of requests.
async fn serve(reply: Reply) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (seen, reply) = (count.clone(), Arc::new(reply));
    let handler = move |body: Bytes| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        let reply = reply.clone();
        async move { reply(number, serde_json::from_slice(&body).unwrap()) }
    };
    let app = Router::new().route("/v1/chat/completions", post(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}/v1"), count)
}

fn answer(message: Value, finish: &str) -> Response {
    Json(json!({
        "model": "served", "choices": [{"message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4,
                  "prompt_tokens_details": {"cached_tokens": 6}, "completion_tokens_details": {"reasoning_tokens": 3}},
    }))
    .into_response()
}

fn quick(base: String) -> EndpointConfig {
    EndpointConfig {
        retry: RetryPolicy { attempts: 3, base_s: 0.01, ..RetryPolicy::default() },
        ..EndpointConfig::new(base, "m")
    }
}

async fn ask(config: EndpointConfig, messages: &[Message]) -> Result<Completion, EndpointError> {
    let endpoint = Endpoint::new(config).unwrap();
    let sampling =
        SamplingParams { temperature: Some(0.0), max_tokens: Some(16), ..SamplingParams::default() };
    let request = ChatRequest { messages, sampling: &sampling, tools: &[] };
    endpoint.chat(request, |_| Ok(b"\x89PNG rest".to_vec())).await
}

#[tokio::test]
async fn the_request_says_what_it_should() {
    let (base, _) = serve(Box::new(|_, body| answer(json!({"content": body.to_string()}), "stop"))).await;
    let mut config = quick(base);
    config.api_key = Some(ApiKey::new("secret"));
    config.limit_field = "max_completion_tokens".into();
    assert!(!format!("{config:?}").contains("secret"));
    let hash = ContentHash::of(b"picture");
    let call = |id: &str, name: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: json!({"x": 1}).as_object().unwrap().clone(),
    };
    let result = |name: &str, content| {
        Message::tool(ToolResult { id: String::new(), name: name.into(), content, is_error: false })
    };
    let messages = [
        Message::system("be \"short\""),
        Message::user([Part::text("see "), Part::image(hash), Part::text("!")]),
        Message { tool_calls: vec![call("a1", "crop"), call("", "ocr")], ..Message::assistant("") },
        result("ocr", vec![Part::text("words")]),
        result("crop", vec![Part::text("done"), Part::image(hash)]),
        Message::user([Part::text("a"), Part::text("b")]),
    ];
    let endpoint = Endpoint::new(config).unwrap();
    let sampling =
        SamplingParams { max_tokens: Some(7), stop: vec!["###".into()], ..SamplingParams::default() };
    let tools = [ToolSchema {
        name: "crop".into(),
        description: "cuts".into(),
        parameters: json!({"type": "object"}),
    }];
    let request = ChatRequest { messages: &messages, sampling: &sampling, tools: &tools };
    let completion = endpoint.chat(request, |_| Ok(b"\x89PNG".to_vec())).await.unwrap();
    let sent: Value = serde_json::from_str(&completion.text).unwrap();
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}});
    assert_eq!(
        sent,
        json!({
            "model": "m", "max_completion_tokens": 7, "stop": ["###"],
            "tools": [{"type": "function",
                       "function": {"name": "crop", "description": "cuts", "parameters": {"type": "object"}}}],
            "messages": [
                {"role": "system", "content": "be \"short\""},
                {"role": "user", "content": [{"type": "text", "text": "see "}, image, {"type": "text", "text": "!"}]},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "a1", "type": "function", "function": {"name": "crop", "arguments": "{\"x\":1}"}},
                    {"id": "call_2_1", "type": "function", "function": {"name": "ocr", "arguments": "{\"x\":1}"}}]},
                {"role": "tool", "tool_call_id": "call_2_1", "content": "words"},
                {"role": "tool", "tool_call_id": "a1", "content": "done"},
                {"role": "user", "content": [image]},
                {"role": "user", "content": "ab"},
            ],
        })
    );
}

#[tokio::test]
async fn every_way_to_answer_has_its_outcome() {
    let cases = [
        (json!({"content": "B"}), "stop", Outcome::Ok, "B", None),
        (json!({"content": "<think>hm</think>B"}), "stop", Outcome::Ok, "B", Some("hm")),
        (json!({"content": "B", "reasoning_content": "hm"}), "stop", Outcome::Ok, "B", Some("hm")),
        (json!({"content": [{"type": "text", "text": "B"}]}), "stop", Outcome::Ok, "B", None),
        (json!({"content": "The ans"}), "length", Outcome::Truncated, "The ans", None),
        (json!({"content": "<think>hm"}), "stop", Outcome::Truncated, "", Some("hm")),
        (json!({"content": null}), "stop", Outcome::Empty, "", None),
        (json!({"content": " \n"}), "stop", Outcome::Empty, " \n", None),
        (json!({"content": null, "refusal": "no"}), "stop", Outcome::Refused, "", None),
        (json!({"content": ""}), "content_filter", Outcome::Refused, "", None),
    ];
    for (message, finish, outcome, text, reasoning) in cases {
        let reply = message.clone();
        let (base, _) = serve(Box::new(move |_, _| answer(reply.clone(), finish))).await;
        let completion = ask(quick(base), &[Message::user([Part::text("?")])]).await.unwrap();
        assert_eq!(completion.outcome(), outcome, "{message}");
        assert_eq!(
            (completion.text.as_str(), completion.reasoning.as_deref()),
            (text, reasoning),
            "{message}"
        );
    }
}

#[tokio::test]
async fn tool_calls_are_read_and_bad_ones_kept() {
    let (base, _) = serve(Box::new(|_, _| {
        let call = |name: &str, arguments: &str| json!({"id": "i", "function": {"name": name, "arguments": arguments}});
        let calls = [call("crop", "{\"x\": 2}"), call("ocr", ""), call("crop", "{x"), call("crop", "[1]"), call("", "{}")];
        answer(json!({"content": null, "tool_calls": calls}), "tool_calls")
    }))
    .await;
    let completion = ask(quick(base), &[Message::user([Part::text("?")])]).await.unwrap();
    assert_eq!(completion.finish, Finish::ToolCalls);
    assert_eq!(completion.outcome(), Outcome::Ok);
    assert_eq!(completion.tool_calls.len(), 2);
    assert_eq!(completion.tool_calls[0].arguments["x"], 2);
    let errors: Vec<_> = completion.malformed_calls.iter().map(|c| c.error.as_str()).collect();
    assert_eq!(errors.len(), 3);
    assert!(errors[1].contains("not an object") && errors[2].contains("no tool"), "{errors:?}");
}

#[tokio::test]
async fn faults_are_repeated_and_counted() {
    let (base, count) = serve(Box::new(|n, _| match n {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        1 => (StatusCode::OK, "not json").into_response(),
        _ => answer(json!({"content": "B"}), "stop"),
    }))
    .await;
    let mut config = quick(base);
    config.price = Some(Price { input: 1.0, cached_input: Some(0.0), output: 100.0 });
    let endpoint = Endpoint::new(config).unwrap();
    let sampling = SamplingParams::default();
    let messages = [Message::user([Part::text("?")])];
    let request = ChatRequest { messages: &messages, sampling: &sampling, tools: &[] };
    let completion = endpoint.chat(request, |_| Ok(vec![])).await.unwrap();
    assert_eq!((completion.attempts, count.load(Ordering::SeqCst)), (3, 3));
    let totals = endpoint.totals();
    assert_eq!((totals.answered, totals.failed, totals.attempts, totals.max_in_flight), (1, 0, 3, 1));
    assert_eq!((totals.usage.prompt, totals.usage.reasoning), (10, 3));
    assert!((totals.cost.unwrap() - (4.0 + 400.0) / 1e6).abs() < 1e-15);
}

#[tokio::test]
async fn hopeless_requests_are_sent_once() {
    for (status, fatal, attempts) in
        [(400, false, 1), (401, true, 1), (404, true, 1), (413, false, 1), (503, false, 3)]
    {
        let (base, count) =
            serve(Box::new(move |_, _| (StatusCode::from_u16(status).unwrap(), "because").into_response()))
                .await;
        let error = ask(quick(base), &[Message::user([Part::text("?")])]).await.unwrap_err();
        assert_eq!((error.is_fatal(), count.load(Ordering::SeqCst)), (fatal, attempts), "{status}");
        assert!(
            error.to_string().contains("because") && error.to_string().contains(&status.to_string()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_filter_is_a_refusal_and_a_bad_image_names_itself() {
    let (base, _) = serve(Box::new(|_, _| {
        (StatusCode::BAD_REQUEST, "{\"error\":{\"code\":\"content_policy_violation\"}}").into_response()
    }))
    .await;
    let completion = ask(quick(base.clone()), &[Message::user([Part::text("?")])]).await.unwrap();
    assert_eq!(completion.outcome(), Outcome::Refused);

    let endpoint = Endpoint::new(quick(base)).unwrap();
    let messages = [Message::user([Part::image(ContentHash::of(b"x"))])];
    let request = ChatRequest { messages: &messages, sampling: &SamplingParams::default(), tools: &[] };
    for bytes in [Ok(b"%PDF-1.7".to_vec()), Ok(vec![]), Err("gone".to_owned())] {
        let error = endpoint.chat(request, |_| bytes.clone()).await.unwrap_err();
        assert!(matches!(&error, EndpointError::Image { .. }) && !error.is_fatal(), "{error}");
    }
}

#[tokio::test]
async fn nobody_home_and_endless_bodies_are_errors() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error =
        ask(quick(format!("http://{address}/v1")), &[Message::user([Part::text("?")])]).await.unwrap_err();
    assert!(matches!(&error, EndpointError::Transport { attempts: 3, .. }), "{error}");

    let (base, _) = serve(Box::new(|_, _| "x".repeat(5000).into_response())).await;
    let mut config = quick(base);
    config.max_body = 4096;
    let error = ask(config, &[Message::user([Part::text("?")])]).await.unwrap_err();
    assert!(error.to_string().contains("longer than the limit of 4096"), "{error}");
}

#[tokio::test]
async fn requests_in_flight_stay_under_the_limit() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (r, m) = (running.clone(), most.clone());
    let handler = move || {
        let (r, m) = (r.clone(), m.clone());
        async move {
            m.fetch_max(r.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            r.fetch_sub(1, Ordering::SeqCst);
            answer(json!({"content": "B"}), "stop")
        }
    };
    let app = Router::new().route("/v1/chat/completions", post(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = EndpointConfig { concurrency: Concurrency { start: 2, max: 6 }, ..quick(base) };
    let endpoint = Endpoint::new(config).unwrap();
    let tasks: Vec<_> = (0..80)
        .map(|_| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                let messages = [Message::user([Part::text("?")])];
                let request =
                    ChatRequest { messages: &messages, sampling: &SamplingParams::default(), tools: &[] };
                endpoint.chat(request, |_| Ok(vec![])).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(endpoint.totals().answered, 80);
    assert_eq!(most.load(Ordering::SeqCst), 6, "grows to the limit and not beyond");
}

#[test]
fn unusable_configurations_are_named() {
    let message = |c: EndpointConfig| Endpoint::new(c).unwrap_err().to_string();
    assert!(message(EndpointConfig::new("127.0.0.1:8000", "m")).contains("127.0.0.1:8000"));
    assert!(message(EndpointConfig::new("file:///etc", "m")).contains("not http"));
    assert!(
        message(EndpointConfig { timeout_s: f64::NAN, ..EndpointConfig::new("http://x/v1", "m") })
            .contains("NaN")
    );
    let retry = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
    assert!(
        message(EndpointConfig { retry, ..EndpointConfig::new("http://x/v1", "m") }).contains("attempts")
    );
}
