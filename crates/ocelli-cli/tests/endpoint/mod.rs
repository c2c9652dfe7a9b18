//! A chat-completions endpoint on a local port that answers by a rule, with nothing but the standard library.

// Each test file compiles its own copy; a broken request should stop the test.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

/// Text of the last message and number of its pictures, to the answer.
type Rule = dyn Fn(&str, usize) -> String + Send + Sync;

/// A running endpoint; it ends with the process.
pub(crate) struct Endpoint {
    /// Base address, as `--endpoint` takes it.
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
}

impl Endpoint {
    /// Starts one that answers by `rule`.
    pub(crate) fn start(rule: impl Fn(&str, usize) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (asked, rule): (Arc<AtomicUsize>, Arc<Rule>) = (Arc::default(), Arc::new(rule));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (rule, count) = (rule.clone(), count.clone());
                std::thread::spawn(move || serve(stream, &*rule, &count));
            }
        });
        Self { url, asked }
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, rule: &Rule, count: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line, mut get) = (0, String::new(), false);
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_lowercase();
            if let Some(n) = lower.strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            get |= line.starts_with("GET ");
            if line.trim().is_empty() {
                break;
            }
        }
        if get {
            // Whether the server is there at all.
            if reader.get_mut().write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
            continue;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let (text, pictures) = match &body["messages"].as_array().unwrap().last().unwrap()["content"] {
            Value::Array(parts) => (
                parts.iter().filter_map(|p| p["text"].as_str()).collect(),
                parts.iter().filter(|p| p["type"] == "image_url").count(),
            ),
            other => (other.as_str().unwrap().to_owned(), 0),
        };
        count.fetch_add(1, Ordering::SeqCst);
        let reply = json!({"model": "mock", "choices": [{"message": {"content": rule(&text, pictures)}, "finish_reason": "stop"}],
                           "usage": {"prompt_tokens": 50, "completion_tokens": 7}})
        .to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            reply.len()
        );
        if reader.get_mut().write_all((head + &reply).as_bytes()).is_err() {
            return;
        }
    }
}
