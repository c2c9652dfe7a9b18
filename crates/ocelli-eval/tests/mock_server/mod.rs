//! A chat-completions server on a local port that answers by a rule and counts what it is asked.

// Each test file compiles its own copy and uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use ocelli_agent::endpoint::{Concurrency, Endpoint, EndpointConfig, RetryPolicy};
use ocelli_eval::run::Policy;
use serde_json::{Value, json};

/// What the server says.
pub(crate) enum Say {
    Text(String),
    Cut(String),
    Nothing,
    Refusal,
    Status(u16),
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) text: String,
    pub(crate) images: usize,
    pub(crate) body: Value,
}

pub(crate) struct Server {
    pub(crate) base: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) async fn start(rule: impl Fn(usize, &Asked) -> Say + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, rule) = (asked.clone(), Arc::new(rule));
        let handler = move |body: Bytes| {
            let body: Value = serde_json::from_slice(&body).unwrap();
            let request = read(body);
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.clone());
                seen.len() - 1
            };
            let reply = reply(rule(number, &request));
            async move { reply }
        };
        let app =
            Router::new().route("/v1/chat/completions", post(handler)).layer(DefaultBodyLimit::max(1 << 26));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base, asked }
    }

    pub(crate) fn policy(&self) -> Policy {
        let mut config = EndpointConfig::new(&self.base, "mock");
        config.concurrency = Concurrency { start: 8, max: 8 };
        config.retry = RetryPolicy { attempts: 4, base_s: 0.01, ..RetryPolicy::default() };
        Policy::Endpoint(Endpoint::new(config).unwrap())
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn read(body: Value) -> Asked {
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    let (text, images) = match &last["content"] {
        Value::String(text) => (text.clone(), 0),
        Value::Array(parts) => (
            parts.iter().filter_map(|p| p["text"].as_str()).collect(),
            parts.iter().filter(|p| p["type"] == "image_url").count(),
        ),
        other => panic!("content is {other}"),
    };
    Asked { text, images, body }
}

fn reply(say: Say) -> Response {
    let answer = |message: Value, finish: &str, tokens: usize| {
        Json(json!({"model": "mock", "choices": [{"message": message, "finish_reason": finish}],
                    "usage": {"prompt_tokens": 50, "completion_tokens": tokens}}))
        .into_response()
    };
    match say {
        Say::Text(text) => {
            let tokens = text.len() / 4 + 1;
            answer(json!({"content": text}), "stop", tokens)
        }
        Say::Cut(text) => answer(json!({"content": text}), "length", 16),
        Say::Nothing => answer(json!({"content": ""}), "stop", 0),
        Say::Refusal => answer(json!({"content": null, "refusal": "I cannot help with that."}), "stop", 8),
        Say::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
    }
}
