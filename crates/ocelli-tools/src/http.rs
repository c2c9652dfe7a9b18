//! The server's HTTP side: a plain JSON route, pictures by hash, health, and the Model Context Protocol under `/mcp`.
//!
//! Loopback is open; any other address needs a token. Requests that a browser page could send across sites are refused:
//! those with an `Origin`, and calls whose content type is not JSON.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use ocelli_data::ContentHash;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::error::for_model;
use crate::service::{Allowed, Prepared, Service, ServiceConfig};
use crate::wire::{CallBody, ErrorBody, ReplyAs, ReplyBody, Uploaded, status};
use crate::{Deadline, Fatal, Registry, ToolError};

/// How the HTTP server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Bearer token that every request must carry. Needed beyond loopback.
    pub token: Option<String>,
    /// Threads, queue and memory.
    pub service: ServiceConfig,
    /// How long calls may go on after the server is told to stop.
    pub drain: Duration,
}

/// Header with the time that a call may take, in milliseconds.
pub const DEADLINE_HEADER: &str = "x-deadline-ms";

/// Header with the time that a call may wait before it begins to run, in milliseconds, beside that which it may take. Without
/// it, waiting counts as taking.
pub const WAIT_HEADER: &str = "x-wait-ms";

/// Header of an answer: how long the call had waited before it began to run, in milliseconds.
pub const WAITED_HEADER: &str = "x-waited-ms";

/// Most bytes of request bodies held at once, in KiB.
const BODIES_KIB: usize = 1 << 20;

#[derive(Clone)]
struct App {
    service: Arc<Service>,
    token: Option<ContentHash>,
    bodies: Arc<Semaphore>,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
    address: SocketAddr,
    drain: Duration,
    service: ServiceHandle,
}

#[derive(Clone)]
struct ServiceHandle(Arc<Service>);

impl std::fmt::Debug for ServiceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.health())
    }
}

impl Server {
    /// Binds the address and starts the threads.
    pub async fn bind(registry: Registry, config: &ServerConfig) -> Result<Self, Fatal> {
        if !config.address.ip().is_loopback() && config.token.as_deref().is_none_or(str::is_empty) {
            return Err(Fatal::Io(format!(
                "{} is reachable from other machines, so a token is needed",
                config.address
            )));
        }
        let service = Service::start(registry, &config.service)?;
        let listener = TcpListener::bind(config.address)
            .await
            .map_err(|e| Fatal::Io(format!("cannot listen on {}: {e}", config.address)))?;
        let address = listener.local_addr().map_err(|e| Fatal::Io(e.to_string()))?;
        let app = App {
            service: service.clone(),
            token: config.token.as_ref().map(|t| ContentHash::of(t.as_bytes())),
            bodies: Arc::new(Semaphore::new(BODIES_KIB)),
        };
        let body = body_bytes(service.limits());
        let router = Router::new()
            .route("/v1/call", post(call))
            .route("/v1/tools", get(tools))
            .route("/v1/images", put(upload).post(upload))
            .route("/v1/images/{hash}", get(image))
            .route("/v1/health", get(health))
            .fallback(no_such_route)
            .method_not_allowed_fallback(no_such_method)
            .nest_service("/mcp", crate::mcp::http_service(service.clone(), address, body))
            .layer(middleware::from_fn_with_state(app.clone(), guard))
            .layer(DefaultBodyLimit::max(body))
            .with_state(app);
        Ok(Self { listener, router, address, drain: config.drain, service: ServiceHandle(service) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is done; then takes no new calls, lets those that run end, and returns.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Fatal> {
        let (service, time) = (self.service.0, self.drain);
        let (drained, is_drained) = tokio::sync::oneshot::channel();
        let stopping = async move {
            stop.await;
            // A spare thread waits, so that the server goes on answering (`draining`) meanwhile.
            let _ = tokio::task::spawn_blocking(move || service.drain(time)).await;
            let _ = drained.send(());
        };
        let serving = axum::serve(self.listener, self.router).with_graceful_shutdown(stopping);
        // Idle keep-alive connections may hold the graceful end up; nothing runs on them once drained.
        let cut = async move {
            let _ = is_drained.await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(|e| Fatal::Io(format!("the server failed: {e}"))),
            () = cut => Ok(()),
        }
    }
}

/// Longest request: base64 is a third longer than the picture's bytes, and the arguments come on top.
pub(crate) fn body_bytes(limits: &crate::Limits) -> usize {
    limits.image_bytes / 3 * 4 + limits.argument_bytes + 4096
}

/// Token, origin, and room for the body.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "requests from web pages are refused");
    }
    if let Some(expected) = app.token {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given = given.and_then(|v| v.strip_prefix("Bearer "));
        // Hashes are compared, so the time taken says nothing about the token.
        if given.map(|t| ContentHash::of(t.as_bytes())) != Some(expected) {
            return refuse(StatusCode::UNAUTHORIZED, "a bearer token is needed, and this is not it");
        }
    }
    let length: Option<u64> =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let has_body = !matches!(*request.method(), axum::http::Method::GET | axum::http::Method::HEAD);
    let most = body_bytes(app.service.limits());
    if length.is_some_and(|bytes| bytes > most as u64) {
        return too_long(most);
    }
    let kib = match (has_body, length) {
        (false, _) => 0,
        (true, Some(bytes)) => u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1),
        (true, None) => 64 << 10, // unknown: as much as the largest that is let in
    };
    match app.bodies.try_acquire_many(kib) {
        Ok(_held) => next.run(request).await,
        Err(_) => {
            let waiting = app.service.health().waiting;
            answer_error(&Fatal::Busy { waiting, retry_after_ms: 100 }.into())
        }
    }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(serde_json::json!({"error": {"to": "client", "why": why}}))).into_response()
}

fn answer_error(error: &ToolError) -> Response {
    let status = StatusCode::from_u16(status(error)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(ErrorBody { error: error.clone() })).into_response();
    if let ToolError::Fatal(fatal) = error
        && let Some(wait) = fatal.retry_after()
    {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        response.headers_mut().insert(header::RETRY_AFTER, (seconds as u64).into());
    }
    response
}

async fn no_such_route(uri: Uri) -> Response {
    let routes = "POST /v1/call, GET /v1/tools, PUT /v1/images, GET /v1/images/HASH, GET /v1/health and /mcp";
    refuse(StatusCode::NOT_FOUND, &format!("there is no {}; there are {routes}", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("{} does not take {method}", uri.path()))
}

fn too_long(most: usize) -> Response {
    let why = format!("the request is longer than {most} bytes, the most that is taken");
    refuse(StatusCode::PAYLOAD_TOO_LARGE, &why)
}

/// A body, or the answer to one that cannot be had.
fn whole(service: &Service, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Response> {
    body.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_long(body_bytes(service.limits())),
        status => refuse(status, &refused.body_text()),
    })
}

/// The times that a call's headers name.
fn allowed(headers: &HeaderMap, most: Duration) -> Result<Allowed, Response> {
    let named = |name: &str| match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(ms) => Ok(Some(Duration::from_millis(ms))),
            None => {
                let why = format!("the header {name} must be a whole number of milliseconds, not {value:?}");
                Err(refuse(StatusCode::BAD_REQUEST, &why))
            }
        },
    };
    let run = named(DEADLINE_HEADER)?.map_or(most, |asked| asked.min(most));
    Ok(match named(WAIT_HEADER)? {
        Some(wait) => Allowed { run, whole: run + wait.min(LONGEST_WAIT) },
        None => Allowed::all_in(run),
    })
}

/// Most time that a call may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

async fn call(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let json = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if !json.is_some_and(|v| v.starts_with("application/json")) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a call is sent as application/json"));
    }
    let time = allowed(&headers, app.service.limits().call)?;
    let body = whole(&app.service, body)?;
    Ok(match answered(&app.service, body, time).await {
        Ok((Ok(bytes), waited)) => {
            let waited = (waited.as_secs_f64() * 1e3).round() as u64;
            let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            ([json, (HeaderName::from_static(WAITED_HEADER), waited.into())], bytes).into_response()
        }
        Ok((Err(error), _)) => answer_error(&error),
        Err(fatal) => answer_error(&fatal.into()),
    })
}

/// Longest call that is parsed where it was received.
const LIGHT_BODY: usize = 1 << 20;

type Answered = (Result<Vec<u8>, ToolError>, Duration);

async fn answered(service: &Arc<Service>, body: Bytes, time: Allowed) -> Result<Answered, Fatal> {
    if body.len() <= LIGHT_BODY {
        return match prepared(service, &body) {
            Err(error) => Ok((Err(error), Duration::ZERO)),
            Ok((prepared, reply_as)) => here_or_queued(service, prepared, reply_as, time).await,
        };
    }
    // Parsing and writing JSON with a large picture in it is work, too: all of it happens on the tool threads then.
    let work = move |service: &Service, deadline: &Deadline| {
        let (prepared, reply_as) = match prepared(service, &body) {
            Ok(call) => call,
            Err(error) => return Large::Done(Err(error)),
        };
        drop(body);
        match service.registry().room(&prepared.call.name) {
            Some(_) => Large::Elsewhere(Box::new(prepared), reply_as),
            None => Large::Done(answer(service, &prepared, reply_as, deadline)),
        }
    };
    match service.queued("call", time, work).await? {
        (Large::Done(answered), waited) => Ok((answered, waited)),
        (Large::Elsewhere(prepared, reply_as), before) => {
            let (answered, waited) = here_or_queued(service, *prepared, reply_as, time).await?;
            Ok((answered, before + waited))
        }
    }
}

/// What became of a large call on a tool thread.
enum Large {
    Done(Result<Vec<u8>, ToolError>),
    /// It is parsed; another program does the work.
    Elsewhere(Box<Prepared>, ReplyAs),
}

async fn here_or_queued(
    service: &Arc<Service>,
    prepared: Prepared,
    reply_as: ReplyAs,
    time: Allowed,
) -> Result<Answered, Fatal> {
    if let Some(_seat) = service.seat(&prepared) {
        let deadline = Deadline::after(time.run);
        let answered = answer(service, &prepared, reply_as, &deadline);
        return match deadline.is_over() {
            true => Err(Fatal::Deadline { tool: prepared.call.name }),
            false => Ok((answered, Duration::ZERO)),
        };
    }
    let tool = prepared.call.name.clone();
    let work = move |service: &Service, deadline: &Deadline| answer(service, &prepared, reply_as, deadline);
    service.queued(&tool, time, work).await
}

fn prepared(service: &Service, body: &[u8]) -> Result<(Prepared, ReplyAs), ToolError> {
    let call: CallBody = serde_json::from_slice(body)
        .map_err(|e| for_model(format!("the call is not what it should be: {e}")))?;
    Ok((service.prepare(&call.name, call.arguments)?, call.reply))
}

fn answer(
    service: &Service,
    prepared: &Prepared,
    reply_as: ReplyAs,
    deadline: &Deadline,
) -> Result<Vec<u8>, ToolError> {
    let reply = service.run_prepared(prepared, deadline)?;
    ReplyBody::write(&reply, reply_as)
        .map_err(|e| Fatal::Broken { tool: prepared.call.name.clone(), why: e.to_string() }.into())
}

async fn tools(State(app): State<App>) -> Response {
    Json(app.service.registry().specs()).into_response()
}

async fn upload(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Result<Response, Response> {
    let body = whole(&app.service, body)?;
    let time = Allowed::all_in(app.service.limits().call);
    let work = move |service: &Service, _: &Deadline| service.upload(body.to_vec());
    Ok(match app.service.queued("upload", time, work).await {
        Ok((Ok(p), _)) => {
            Json(Uploaded { hash: p.hash(), width: p.width(), height: p.height() }).into_response()
        }
        Ok((Err(error), _)) => answer_error(&error),
        Err(fatal) => answer_error(&fatal.into()),
    })
}

async fn image(State(app): State<App>, Path(hash): Path<String>) -> Response {
    let Ok(hash) = hash.parse::<ContentHash>() else {
        return refuse(StatusCode::BAD_REQUEST, "a picture is named by 64 hexadecimal digits");
    };
    match app.service.picture(hash) {
        Ok(p) => ([(header::CONTENT_TYPE, p.mime())], Body::from(p.bytes().to_vec())).into_response(),
        Err(error) => answer_error(&error),
    }
}

async fn health(State(app): State<App>) -> Response {
    Json(app.service.health()).into_response()
}
