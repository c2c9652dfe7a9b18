//! Calls to tool servers: the least loaded one is asked, a failing one is left alone for a while, and another takes over.
//!
//! Tools that are next to no work (`answer`, `calculate`) are not sent anywhere where they are the same as here.
//!
//! A picture travels with the first call that names it and by its hash afterwards; a server that has forgotten it says
//! so, and the call is made again with the picture.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use ocelli_data::{ContentHash, ToolCall};
use serde_json::Value;

use crate::circuit::Circuit;
use crate::error::with_causes;
use crate::http::{DEADLINE_HEADER, WAIT_HEADER, WAITED_HEADER};
use crate::tools::{Answer, Calculate};
use crate::wire::{CallBody, ErrorBody, ReplyAs, ReplyBody};
use crate::{Cache, Deadline, Fatal, Images, Limits, Picture, Registry, Reply, ToolError, ToolSpec};

/// Address of a server.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Such as `http://127.0.0.1:7070`.
    pub url: String,
    /// Bearer token, if it wants one.
    pub token: Option<String>,
}

/// Time beside waiting and running that an answer may take.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// Hashes remembered per server.
const KNOWN: usize = 100_000;

#[derive(Debug)]
struct Remote {
    endpoint: Endpoint,
    in_flight: AtomicUsize,
    circuit: Circuit,
    has: Mutex<HashSet<ContentHash>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    fn failed(&self) {
        self.circuit.failed();
        locked(&self.has).clear(); // it may come back with an empty store
    }
}

/// Several servers that offer the same tools. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    servers: Arc<[Remote]>,
    http: reqwest::Client,
    specs: Arc<[ToolSpec]>,
    limits: Arc<Limits>,
    cache: Option<Arc<Cache>>,
    /// Tools that run here.
    here: Registry,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTime {
    /// From when it begins to run.
    pub run: Duration,
    /// Over all, with the time in which it waits for a thread or a server.
    pub whole: Duration,
}

impl CallTime {
    /// Waiting counts.
    pub fn all_in(time: Duration) -> Self {
        Self { run: time, whole: time }
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Timed {
    /// The reply.
    pub reply: Result<Reply, ToolError>,
    /// How long it had waited before it began to run.
    pub waited: Duration,
}

impl Client {
    /// Asks the servers for their tools; one that answers is enough.
    pub async fn connect(endpoints: &[Endpoint], limits: Limits) -> Result<Self, Fatal> {
        let remote = |server: &str, why: String| Fatal::Remote { server: server.to_owned(), why };
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .build()
            .map_err(|e| remote("(none)", with_causes(&e)))?;
        let servers: Arc<[Remote]> = endpoints
            .iter()
            .map(|e| Remote {
                endpoint: Endpoint { url: e.url.trim_end_matches('/').to_owned(), token: e.token.clone() },
                in_flight: AtomicUsize::new(0),
                circuit: Circuit::default(),
                has: Mutex::default(),
            })
            .collect();
        let mut specs: Option<Vec<ToolSpec>> = None;
        let mut why = Vec::new();
        for server in servers.iter() {
            match list(&http, &server.endpoint).await {
                Ok(found) => {
                    specs.get_or_insert(found);
                }
                Err(e) => {
                    server.failed();
                    why.push(format!("{}: {e}", server.endpoint.url));
                }
            }
        }
        let specs = specs.ok_or_else(|| Fatal::NoServer { tool: "any".into(), why: why.join("; ") })?;
        // Where a server's tool of the name says something else of itself, it is another one.
        let small = Registry::empty(limits.clone()).with::<Answer>().with::<Calculate>();
        let same: Vec<String> =
            specs.iter().filter(|s| small.spec(&s.name) == Some(s)).map(|s| s.name.clone()).collect();
        let here = small.only(&same).map_err(|e| remote("(none)", e.to_string()))?;
        Ok(Self { servers, http, specs: specs.into(), limits: Arc::new(limits), cache: None, here })
    }

    /// Keeps results, records them, or replays them.
    pub fn with_cache(mut self, cache: Arc<Cache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Keeps the named tools, in the order named; an unknown name is an error that lists those there are.
    pub fn only<S: AsRef<str>>(mut self, names: &[S]) -> Result<Self, ToolError> {
        let named = |name: &str| {
            self.specs.iter().find(|s| s.name == name).cloned().ok_or_else(|| self.unknown(name))
        };
        self.specs = names.iter().map(|n| named(n.as_ref())).collect::<Result<Vec<_>, _>>()?.into();
        Ok(self)
    }

    fn unknown(&self, name: &str) -> ToolError {
        crate::registry::unknown(name, self.specs.iter().map(|s| s.name.as_str()))
    }

    /// The tools.
    pub fn specs(&self) -> Arc<[ToolSpec]> {
        self.specs.clone()
    }

    /// Makes a call within `time`, waiting included, at whichever server can take it.
    pub async fn call(&self, call: &ToolCall, images: &Images, time: Duration) -> Result<Reply, ToolError> {
        self.timed(call, images, CallTime::all_in(time)).await.reply
    }

    /// As [`Client::call`], with the time in which the call runs apart from that in which it waits: for a free thread at
    /// a server, or for a server that has room. Servers that are away are asked again for as long as the call may run.
    pub async fn timed(&self, call: &ToolCall, images: &Images, time: CallTime) -> Timed {
        let mut waited = Duration::ZERO;
        let reply = self.kept_or_made(call, images, time, &mut waited).await;
        Timed { reply, waited }
    }

    async fn kept_or_made(
        &self,
        call: &ToolCall,
        images: &Images,
        time: CallTime,
        waited: &mut Duration,
    ) -> Result<Reply, ToolError> {
        if self.specs.iter().all(|s| s.name != call.name) {
            return Err(self.unknown(&call.name));
        }
        let key = self.cache.as_ref().and_then(|_| Cache::key(call, images));
        if let (Some(cache), Some(key)) = (&self.cache, key)
            && let Some(kept) = cache.get(&call.name, key)?
        {
            return kept.map_err(ToolError::ForModel);
        }
        let outcome = match self.here.spec(&call.name) {
            Some(_) => self.here.run(call, images, &Deadline::after(time.run)),
            None => match tokio::time::timeout(time.whole, self.anywhere(call, images, time, waited)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Fatal::Deadline { tool: call.name.clone() }.into()),
            },
        };
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            cache.put(&call.name, key, &outcome)?;
        }
        outcome
    }

    async fn anywhere(
        &self,
        call: &ToolCall,
        images: &Images,
        time: CallTime,
        waited: &mut Duration,
    ) -> Result<Reply, ToolError> {
        let picture = match call.arguments.get("image") {
            Some(Value::String(name)) => Some(images.resolve(name)?.1.clone()),
            _ => None,
        };
        let asked = Instant::now();
        let end = asked + time.whole;
        // A server that is busy is there: it is waited for. Those that are away are given up earlier.
        let mut until = asked + time.run;
        let mut why = Vec::new();
        loop {
            let mut open: Vec<&Remote> = self.servers.iter().filter(|s| s.circuit.rest().is_none()).collect();
            open.sort_by_key(|s| s.in_flight.load(Ordering::Relaxed));
            let mut wait = Duration::from_millis(100);
            why.clear();
            for server in open {
                let sent = Instant::now();
                *waited = sent - asked;
                let left = CallTime { run: time.run, whole: end.saturating_duration_since(sent) };
                match self.at(server, call, picture.as_ref(), left, waited).await {
                    Err(ToolError::Fatal(fatal)) if fatal.is_transient() => {
                        if let Some(rest) = fatal.retry_after() {
                            wait = wait.min(rest);
                            until = Instant::now() + time.run;
                        }
                        why.push(format!("{}: {fatal}", server.endpoint.url));
                    }
                    decided => return decided,
                }
            }
            if Instant::now() + wait >= until.min(end) {
                if why.is_empty() {
                    why.push("all servers failed lately and are left alone for a while".into());
                }
                return Err(Fatal::NoServer { tool: call.name.clone(), why: why.join("; ") }.into());
            }
            tokio::time::sleep(wait).await;
            *waited = asked.elapsed();
        }
    }

    async fn at(
        &self,
        server: &Remote,
        call: &ToolCall,
        picture: Option<&Picture>,
        time: CallTime,
        waited: &mut Duration,
    ) -> Result<Reply, ToolError> {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        let _guard = InFlight(&server.in_flight);
        let known = picture.is_none_or(|p| locked(&server.has).contains(&p.hash()));
        let mut outcome = self.send(server, call, picture, known, time, waited).await;
        if known && matches!(&outcome, Err(ToolError::Fatal(Fatal::UnknownImage { .. }))) {
            outcome = self.send(server, call, picture, false, time, waited).await;
        }
        if let (Ok(reply), Some(p)) = (&outcome, picture) {
            let mut has = locked(&server.has);
            if has.len() >= KNOWN {
                has.clear();
            }
            has.insert(p.hash());
            has.extend(reply.image.as_ref().map(|m| m.picture.hash()));
        }
        outcome
    }

    async fn send(
        &self,
        server: &Remote,
        call: &ToolCall,
        picture: Option<&Picture>,
        by_hash: bool,
        time: CallTime,
        waited: &mut Duration,
    ) -> Result<Reply, ToolError> {
        let mut arguments = call.arguments.clone();
        if let Some(p) = picture {
            let named = match by_hash {
                true => p.hash().to_string(),
                false => format!("data:image/png;base64,{}", STANDARD.encode_to_string(p.bytes())),
            };
            arguments.insert("image".into(), Value::String(named));
        }
        let body = CallBody { name: call.name.clone(), arguments, reply: ReplyAs::Inline };
        let failed = |why: String| {
            server.failed();
            ToolError::from(Fatal::Remote { server: server.endpoint.url.clone(), why })
        };
        // In one queue a call waits as long as it may run; then another server may be less busy.
        let run = time.run.min(time.whole);
        let wait = run.min(time.whole - run);
        let request =
            authorized(self.http.post(format!("{}/v1/call", server.endpoint.url)), &server.endpoint)
                .header(DEADLINE_HEADER, run.as_millis() as u64)
                .header(WAIT_HEADER, wait.as_millis() as u64)
                .timeout((run + wait + ON_THE_WAY).min(time.whole))
                .json(&body);
        let response = request.send().await.map_err(|e| failed(with_causes(&e)))?;
        let status = response.status();
        let told = response.headers().get(WAITED_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
        *waited += Duration::from_millis(told.unwrap_or(0)).min(time.whole);
        let bytes = bounded(response, self.limits.image_bytes / 3 * 4 + (1 << 20)).await.map_err(failed)?;
        if status.is_success() {
            let body: ReplyBody =
                serde_json::from_slice(&bytes).map_err(|e| failed(format!("an answer that is none: {e}")))?;
            let reply = body.into_reply(&self.limits).map_err(failed)?;
            server.circuit.succeeded();
            return Ok(reply);
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => {
                server.circuit.succeeded(); // it works; this call does not
                Err(body.error)
            }
            Err(_) => Err(failed(format!("status {status}"))),
        }
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn authorized(request: reqwest::RequestBuilder, endpoint: &Endpoint) -> reqwest::RequestBuilder {
    match &endpoint.token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

/// Reads a body of at most `limit` bytes.
async fn bounded(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| with_causes(&e))? {
        if bytes.len() + chunk.len() > limit {
            return Err(format!("an answer of more than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn list(http: &reqwest::Client, endpoint: &Endpoint) -> Result<Vec<ToolSpec>, String> {
    let request =
        authorized(http.get(format!("{}/v1/tools", endpoint.url)), endpoint).timeout(Duration::from_secs(5));
    let response = request.send().await.map_err(|e| with_causes(&e))?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status()));
    }
    let bytes = bounded(response, 4 << 20).await?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}
