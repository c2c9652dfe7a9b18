//! The connection to one server: a thread of its own with the asynchronous client on it, and a bounded queue of calls.
//!
//! Tools are called from any thread, asynchronous or not, so the caller waits on an ordinary channel.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, Tool};
use rmcp::service::{ClientInitializeError, Peer, RoleClient, RunningService, ServiceError, ServiceExt};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use crate::circuit::Circuit;
use crate::error::with_causes;
use crate::remote::{McpEndpoint, RemoteConfig};
use crate::{Call, Fatal};

/// Calls that may wait for the thread; further ones are refused.
const QUEUE: usize = 256;
/// How long a server is waited for without a word.
const SILENT: Duration = Duration::from_secs(3);
/// How often a waiting caller looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(20);

/// Why a call gave no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its time was up, or its caller went away.
    Late,
    /// Too many calls wait.
    Full { waiting: usize },
    /// The server says that the call is wrong.
    Complaint(String),
    /// The server failed.
    Server(String),
}

struct Job {
    params: CallToolRequestParams,
    until: Instant,
    answer: SyncSender<Result<CallToolResult, Trouble>>,
    /// Closed when the caller no longer waits.
    caller: oneshot::Receiver<()>,
}

/// The caller's end.
#[derive(Debug)]
pub(super) struct Link {
    jobs: mpsc::Sender<Job>,
}

impl Link {
    /// Starts the thread, connects, and lists the tools.
    pub(super) fn open(config: &RemoteConfig) -> Result<(Self, Vec<Tool>), Fatal> {
        let server = config.endpoint.to_string();
        let failed = |why: String| Fatal::Remote { server: server.clone(), why };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (tell, told) = sync_channel(1);
        let state = Arc::new(State {
            config: config.clone(),
            connection: Mutex::new(None),
            circuit: Circuit::default(),
            room: Semaphore::new(config.concurrent.max(1)),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(format!("cannot start its runtime: {e}")))?;
        std::thread::Builder::new()
            .name("mcp-client".into())
            .spawn(move || runtime.block_on(serve(state, queue, &tell)))
            .map_err(|e| failed(format!("cannot start its thread: {e}")))?;
        let listed = told.recv_timeout(SILENT.min(config.connect)).or_else(|_| {
            let most = config.connect.as_secs_f64();
            tracing::warn!("{server} has not listed its tools yet; it is waited for up to {most:.0} s");
            // The thread itself keeps to the time; the margin only covers a thread that could not answer at all.
            told.recv_timeout(config.connect + Duration::from_secs(5))
        });
        let tools = listed.map_err(|_| failed("no answer".into()))?.map_err(failed)?;
        Ok((Self { jobs }, tools))
    }

    /// Makes a call and waits for its end, at most `longest` and at most until the deadline of `call`.
    pub(super) fn call(
        &self,
        params: CallToolRequestParams,
        longest: Duration,
        call: &Call<'_>,
    ) -> Result<CallToolResult, Trouble> {
        let (answer, answered) = sync_channel(1);
        let (waits, caller) = oneshot::channel();
        let until = call.deadline.at().min(Instant::now() + longest);
        let job = Job { params, until, answer, caller };
        self.jobs.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Trouble::Full { waiting: QUEUE },
            mpsc::error::TrySendError::Closed(_) => {
                Trouble::Server("the connection's thread has ended".into())
            }
        })?;
        let outcome = loop {
            match answered.recv_timeout(LOOK) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Timeout) if call.deadline.is_over() => break Err(Trouble::Late),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Err(Trouble::Late),
            }
        };
        drop(waits);
        outcome
    }
}

/// What the thread does until the last caller is gone.
async fn serve(
    state: Arc<State>,
    mut queue: mpsc::Receiver<Job>,
    tell: &SyncSender<Result<Vec<Tool>, String>>,
) {
    let listing = async {
        let peer = state.peer().await?;
        peer.list_all_tools().await.map_err(|e| format!("it does not list its tools: {}", with_causes(&e)))
    };
    let listed = tokio::time::timeout(state.config.connect, listing)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:.1} s", state.config.connect.as_secs_f64())));
    let good = listed.is_ok();
    let _ = tell.send(listed);
    if good {
        while let Some(job) = queue.recv().await {
            tokio::spawn(state.clone().finish(job));
        }
    }
    state.disconnect().await;
}

struct Connection {
    service: RunningService<RoleClient, ()>,
    child: Option<Child>,
}

struct State {
    config: RemoteConfig,
    connection: Mutex<Option<Connection>>,
    circuit: Circuit,
    room: Semaphore,
}

impl State {
    /// The connection, made anew where it is lost.
    async fn peer(&self) -> Result<Peer<RoleClient>, String> {
        let mut connection = self.connection.lock().await;
        if let Some(there) = connection.as_ref().filter(|c| !c.service.is_closed()) {
            return Ok(there.service.peer().clone());
        }
        *connection = None;
        let time = self.config.connect;
        let made = tokio::time::timeout(time, self.connect())
            .await
            .map_err(|_| format!("no connection within {:.1} s", time.as_secs_f64()))??;
        let peer = made.service.peer().clone();
        *connection = Some(made);
        Ok(peer)
    }

    async fn connect(&self) -> Result<Connection, String> {
        let limit = self.config.message_bytes;
        match &self.config.endpoint {
            McpEndpoint::Http { url, token } => {
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .max_concurrent_requests(self.config.concurrent)
                    .max_json_response_size(limit)
                    .max_sse_event_size(limit)
                    .reinit_on_expired_session(true);
                if let Some(token) = token {
                    config = config.auth_header(token);
                }
                // A redirect would carry pictures to a host that nobody named.
                let http = reqwest::Client::builder()
                    .redirect(reqwest::redirect::Policy::none())
                    .connect_timeout(self.config.connect)
                    .build()
                    .map_err(|e| with_causes(&e))?;
                let transport = StreamableHttpClientTransport::with_client(http, config);
                let service = ().serve(transport).await.map_err(|e| unopened(&e))?;
                Ok(Connection { service, child: None })
            }
            McpEndpoint::Process { program, args } => {
                let mut child = Command::new(program)
                    .args(args)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(|e| format!("cannot be started: {e}"))?;
                let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                    return Err("its standard input and output cannot be had".into());
                };
                let transport = AsyncRwTransport::new(stdout, stdin).with_max_line_length(limit);
                let service = ().serve(transport).await.map_err(|e| unopened(&e))?;
                Ok(Connection { service, child: Some(child) })
            }
        }
    }

    async fn finish(self: Arc<Self>, job: Job) {
        let Job { params, until, answer, mut caller } = job;
        let outcome = tokio::select! {
            outcome = tokio::time::timeout_at(until.into(), self.call(params)) => outcome.unwrap_or_else(|_| {
                self.circuit.failed();
                Err(Trouble::Late)
            }),
            // The caller went away: the call is dropped, and the client tells the server to stop.
            _ = &mut caller => return,
        };
        let _ = answer.send(outcome);
    }

    async fn call(&self, params: CallToolRequestParams) -> Result<CallToolResult, Trouble> {
        if let Some(rest) = self.circuit.rest() {
            let rest = rest.as_secs_f64();
            return Err(Trouble::Server(format!(
                "it failed several times and is left alone for {rest:.1} s"
            )));
        }
        let failed = |why: String| {
            self.circuit.failed();
            Trouble::Server(why)
        };
        let _room = self.room.acquire().await.map_err(|e| Trouble::Server(e.to_string()))?;
        let peer = self.peer().await.map_err(failed)?;
        match peer.call_tool_once(params).await {
            Ok(CallToolResponse::Complete(result)) => {
                self.circuit.succeeded();
                Ok(result)
            }
            Ok(_) => Err(failed("it asks back or defers the result, which is not supported".into())),
            Err(ServiceError::McpError(error)) if error.code == ErrorCode::INVALID_PARAMS => {
                self.circuit.succeeded();
                Err(Trouble::Complaint(error.message.into_owned()))
            }
            Err(error) => {
                if matches!(error, ServiceError::TransportClosed | ServiceError::TransportSend(_)) {
                    *self.connection.lock().await = None;
                }
                Err(failed(match &error {
                    ServiceError::TransportSend(inner) => transported(inner),
                    other => with_causes(other),
                }))
            }
        }
    }

    async fn disconnect(&self) {
        let Some(Connection { service, child }) = self.connection.lock().await.take() else { return };
        let _ = service.cancel().await;
        if let Some(mut child) = child {
            // Its input is closed, which asks it to end; what does not is stopped.
            if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}

/// Why a connection was not made. The protocol's library names its own types around the reason.
fn unopened(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => transported(error),
        other => with_causes(other),
    }
}

fn transported(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(http)) => with_causes(http),
        _ => with_causes(error.error.as_ref()),
    }
}
