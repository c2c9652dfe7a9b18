//! What a tool server does with a call, apart from the protocol it came by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ocelli_data::{ContentHash, ToolCall};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::error::for_model;
use crate::wire::decode_picture;
use crate::workers::{Length, Seat, Workers};
use crate::{Deadline, Effort, Fatal, Images, Limits, Picture, Registry, Reply, ToolError};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Threads that run tools.
    pub threads: usize,
    /// Calls that may wait; further ones are refused as busy.
    pub queue: usize,
    /// Encoded pictures that are kept, in bytes.
    pub picture_bytes: usize,
    /// Pictures that calls can name as `img_0`, `img_1` .. without having sent them.
    pub offered: Vec<Picture>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self { threads, queue: 256, picture_bytes: 512 << 20, offered: Vec::new() }
    }
}

/// Tools, pictures and threads of a server.
pub struct Service {
    registry: Registry,
    pictures: Mutex<Pictures>,
    offered: Vec<Picture>,
    workers: Workers,
    /// Calls that wait for another program, and those that it works on.
    away_waiting: Arc<AtomicUsize>,
    away_running: Arc<AtomicUsize>,
    done: AtomicU64,
    complaints: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

/// State of a server, as `GET /v1/health` answers it.
#[derive(Debug, Serialize)]
pub struct Health {
    /// `ok` or `draining`.
    pub status: &'static str,
    /// Calls that run now.
    pub running: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// Calls that may wait.
    pub capacity: usize,
    /// Threads that run tools.
    pub threads: usize,
    /// Calls answered well since the start.
    pub done: u64,
    /// Calls answered with a complaint to the model.
    pub complaints: u64,
    /// Calls that failed otherwise.
    pub failures: u64,
    /// Calls refused because the queue was full or the server drains.
    pub refused: u64,
}

impl Service {
    /// Starts the threads.
    pub fn start(registry: Registry, config: &ServiceConfig) -> Result<Arc<Self>, Fatal> {
        let workers = Workers::start(config.threads, config.queue)
            .map_err(|e| Fatal::Io(format!("cannot start {} threads: {e}", config.threads)))?;
        Ok(Arc::new(Self {
            registry,
            pictures: Mutex::new(Pictures { limit: config.picture_bytes, ..Pictures::default() }),
            offered: config.offered.clone(),
            workers,
            away_waiting: Arc::default(),
            away_running: Arc::default(),
            done: AtomicU64::new(0),
            complaints: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// The tools.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Bounds.
    pub fn limits(&self) -> &Limits {
        self.registry.limits()
    }

    /// Keeps a picture for later calls. It is decoded now, so that one that is cut off is refused here and not in a call; a call
    /// that follows finds its pixels.
    pub fn upload(&self, bytes: Vec<u8>) -> Result<Picture, ToolError> {
        let hash = ContentHash::of(&bytes);
        let picture =
            Picture::new(bytes, self.limits()).map_err(|e| Fatal::BadImage { hash, why: e.to_string() })?;
        self.registry.engines().pixels(&picture, self.limits())?;
        self.pictures().put(picture.clone());
        Ok(picture)
    }

    /// A picture that is kept or offered.
    pub fn picture(&self, hash: ContentHash) -> Result<Picture, ToolError> {
        let offered = || self.offered.iter().find(|p| p.hash() == hash).cloned();
        self.pictures().get(hash).or_else(offered).ok_or_else(|| Fatal::UnknownImage { hash }.into())
    }

    /// Pictures that calls can name as `img_0`, `img_1` ..
    pub fn offered(&self) -> &[Picture] {
        &self.offered
    }

    /// Runs a call on this thread, see [`Service::prepare`].
    pub fn run(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        deadline: &Deadline,
    ) -> Result<Reply, ToolError> {
        self.run_prepared(&self.prepare(name, arguments)?, deadline)
    }

    /// Finds the picture of a call. `image` is a hash, a data URL or the `img_k` of an offered picture; a path or an
    /// address is never followed.
    pub(crate) fn prepare(
        &self,
        name: &str,
        mut arguments: Map<String, Value>,
    ) -> Result<Prepared, ToolError> {
        let mut images = Images::new(self.registry.limits().clone());
        if let Some(Value::String(image)) = arguments.get("image") {
            let picture = self.named(image)?;
            images.insert_picture(picture).map_err(|e| for_model(e.to_string()))?;
            arguments.insert("image".into(), Value::String("img_0".into()));
        }
        Ok(Prepared { call: ToolCall { id: String::new(), name: name.to_owned(), arguments }, images })
    }

    /// Runs a call on this thread.
    pub(crate) fn run_prepared(&self, prepared: &Prepared, deadline: &Deadline) -> Result<Reply, ToolError> {
        let outcome = self.registry.run(&prepared.call, &prepared.images, deadline);
        let counter = match &outcome {
            Ok(_) => &self.done,
            Err(ToolError::ForModel(_)) => &self.complaints,
            Err(ToolError::Fatal(_)) => &self.failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let reply = outcome?;
        if let Some(made) = &reply.image {
            self.pictures().put(made.picture.clone());
        }
        Ok(reply)
    }

    fn named(&self, image: &str) -> Result<Picture, ToolError> {
        if let Ok(hash) = image.parse::<ContentHash>() {
            return self.picture(hash);
        }
        if let Some(k) = image.strip_prefix("img_").and_then(|k| k.parse::<usize>().ok()) {
            return self.offered.get(k).cloned().ok_or_else(|| {
                for_model(match self.offered.len() {
                    0 => format!(
                        "there is no picture `{image}`: name one by its content hash or as a data URL"
                    ),
                    1 => format!("there is no picture `{image}`; the only one offered is img_0"),
                    n => format!("there is no picture `{image}`; img_0 to img_{} are offered", n - 1),
                })
            });
        }
        let Some((kind, data)) = image.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"))
        else {
            let shown: String = image.chars().take(40).collect();
            return Err(for_model(format!(
                "`{shown}` is no picture: name one by its content hash (64 hexadecimal digits) or give it as a data URL \
                 (data:image/png;base64,...); paths and addresses are not opened"
            )));
        };
        if !kind.starts_with("image/") {
            return Err(for_model(format!("a data URL of kind `{kind}` is no picture")));
        }
        let picture = decode_picture(data, self.limits()).map_err(for_model)?;
        self.pictures().put(picture.clone());
        Ok(picture)
    }

    /// Takes a seat for a call on the caller's thread, where that is no burden to others: a light tool, a picture of moderate
    /// size, no other call waiting, and fewer calls under way than there are threads. Two changes of thread cost as much
    /// as a small crop.
    pub(crate) fn seat(&self, prepared: &Prepared) -> Option<Seat<'_>> {
        let pixels = |p: &Picture| u64::from(p.width()) * u64::from(p.height());
        let small = prepared.images.iter().all(|e| pixels(&e.picture) <= LIGHT_PIXELS);
        let light = self.registry.effort(&prepared.call.name) <= Effort::Light;
        (small && light).then(|| self.workers.seat())?
    }

    /// Runs `work` for a call of `tool` within its time: on one of the threads, or, where another program does the work,
    /// beside them as soon as that program has room. Answers how long the call waited, too.
    pub(crate) async fn queued<T: Send + 'static>(
        self: &Arc<Self>,
        tool: &str,
        time: Allowed,
        work: impl FnOnce(&Self, &Deadline) -> T + Send + 'static,
    ) -> Result<(T, Duration), Fatal> {
        let asked = Instant::now();
        let whole = Deadline::after(time.whole);
        // A call that may wait may run as long as any other, however late it begins.
        let begin_by = match time.whole > time.run {
            true => whole.within(time.whole - time.run),
            false => whole.clone(),
        };
        // Dropped with this future, too: when the caller goes away, the tool stops at its next check.
        let _guard = GiveUp(whole.clone());
        let (send, receive) = tokio::sync::oneshot::channel();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (me, inner) = (self.clone(), whole.clone());
        let job = move || {
            // Nobody waits for an answer that comes too late.
            if !inner.is_over() && begin.send(asked.elapsed()).is_ok() {
                let _ = send.send(work(&me, &inner.within(time.run)));
            }
        };
        let placed = match self.registry.room(tool) {
            Some(room) => self.beside(room, &begin_by, job).await,
            None => self.workers.submit(self.length(tool), job),
        };
        if let Err(refusal) = placed {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(refusal);
        }
        let Ok(Ok(waited)) = tokio::time::timeout_at(begin_by.at().into(), begun).await else {
            self.failures.fetch_add(1, Ordering::Relaxed);
            // A caller that says how long it waits learns that it was not begun, and may ask elsewhere.
            return Err(match time.whole > time.run {
                true => self.workers.busy(self.health().waiting),
                false => Fatal::Deadline { tool: tool.to_owned() },
            });
        };
        match tokio::time::timeout_at(whole.within(time.run).at().into(), receive).await {
            Ok(Ok(done)) => Ok((done, waited)),
            _ => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(Fatal::Deadline { tool: tool.to_owned() })
            }
        }
    }

    /// A call that waits for another program holds none of the threads.
    async fn beside(
        self: &Arc<Self>,
        room: Arc<Semaphore>,
        begin_by: &Deadline,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), Fatal> {
        let load = self.workers.load();
        if load.closed {
            return Err(Fatal::Draining);
        }
        let waits = Counted::of(&self.away_waiting);
        if waits.before >= load.capacity {
            return Err(self.workers.busy(waits.before));
        }
        // Where there is no room in time, the job is dropped unbegun, which its caller sees.
        let room = tokio::time::timeout_at(begin_by.at().into(), room.acquire_owned()).await;
        if let Ok(Ok(place)) = room {
            let me = self.clone();
            let runs = Counted::of(&self.away_running);
            drop(waits);
            tokio::task::spawn_blocking(move || {
                job();
                drop((runs, place, me));
            });
        }
        Ok(())
    }

    fn length(&self, tool: &str) -> Length {
        match self.registry.spec(tool).is_some() && self.registry.effort(tool) < Effort::Heavy {
            true => Length::Short,
            false => Length::Long,
        }
    }

    /// State and counters.
    pub fn health(&self) -> Health {
        let load = self.workers.load();
        Health {
            status: if load.closed { "draining" } else { "ok" },
            running: load.running + self.away_running.load(Ordering::Relaxed),
            waiting: load.waiting + self.away_waiting.load(Ordering::Relaxed),
            capacity: load.capacity,
            threads: load.threads,
            done: self.done.load(Ordering::Relaxed),
            complaints: self.complaints.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Takes no new calls and waits for those that are there; true where all ended in time.
    pub fn drain(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        self.workers.close();
        let mut idle = self.workers.wait_idle(time);
        while idle && self.away_running.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(5));
            idle = Instant::now() < until;
        }
        idle
    }

    fn pictures(&self) -> std::sync::MutexGuard<'_, Pictures> {
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call whose picture is at hand.
pub(crate) struct Prepared {
    pub(crate) call: ToolCall,
    images: Images,
}

/// Most pixels of a picture on which a light tool may work on the caller's thread: some 10 ms to decode.
const LIGHT_PIXELS: u64 = 1 << 21;

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// From when it begins to run.
    pub(crate) run: Duration,
    /// Over all, with the time in which it waits.
    pub(crate) whole: Duration,
}

impl Allowed {
    /// Waiting counts.
    pub(crate) fn all_in(time: Duration) -> Self {
        Self { run: time, whole: time }
    }
}

/// One more, until it is dropped.
struct Counted {
    counter: Arc<AtomicUsize>,
    before: usize,
}

impl Counted {
    fn of(counter: &Arc<AtomicUsize>) -> Self {
        Self { before: counter.fetch_add(1, Ordering::Relaxed), counter: counter.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

struct GiveUp(Deadline);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Pictures by hash; the least recently used leave first.
#[derive(Default)]
struct Pictures {
    entries: HashMap<ContentHash, (u64, Picture)>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

/// What an entry takes beside its bytes.
const OVERHEAD: usize = 256;

impl Pictures {
    fn get(&mut self, hash: ContentHash) -> Option<Picture> {
        self.clock += 1;
        let (used, picture) = self.entries.get_mut(&hash)?;
        *used = self.clock;
        Some(picture.clone())
    }

    fn put(&mut self, picture: Picture) {
        self.clock += 1;
        let size = picture.bytes().len() + OVERHEAD;
        if self.entries.insert(picture.hash(), (self.clock, picture)).is_none() {
            self.bytes += size;
        }
        if self.bytes <= self.limit {
            return;
        }
        let mut by_age: Vec<(u64, ContentHash)> =
            self.entries.iter().map(|(k, (used, _))| (*used, *k)).collect();
        by_age.sort_unstable();
        for (_, oldest) in by_age {
            if self.bytes <= self.limit / 4 * 3 {
                return;
            }
            if let Some((_, gone)) = self.entries.remove(&oldest) {
                self.bytes -= gone.bytes().len() + OVERHEAD;
            }
        }
    }
}
