//! Tools as an environment calls them: off the engine's threads, with a deadline per call that begins when the call does.

use std::sync::Arc;
use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{
    CallTime, Client, Deadline, Effort, Fatal, Images, Limits, Picture, Registry, Reply, Timed, ToolError,
    ToolSpec,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::policy::BoxFuture;

/// Something that can run tool calls, many at once.
pub trait Toolbox: Send + Sync {
    /// The tools, in the order in which prompts list them.
    fn specs(&self) -> Arc<[ToolSpec]>;

    /// Runs one call on the pictures of a dialogue, within `time`.
    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>>;

    /// The same where calls may have to wait before they run, which is not held against them: how many others are under way
    /// must not decide what becomes of a call. Says how long it waited.
    fn timed<'a>(&'a self, call: &'a ToolCall, images: &'a Images, time: CallTime) -> BoxFuture<'a, Timed> {
        Box::pin(async move {
            let reply = self.call(call, images, time.run.min(time.whole)).await;
            Timed { reply, waited: Duration::ZERO }
        })
    }
}

/// The tools of a [`Registry`], run on a bounded number of threads.
///
/// Tools that are next to no work run where they are called. Those that are little work do not stand in line behind those
/// that read texts: each kind has threads of its own. Calls of other programs' tools hold no thread of these, but have as
/// many places as that program takes.
///
/// A call that passes its deadline is given up at once; its thread stops at the tool's next check and is free again
/// only then, so that runaway tools cannot pile up threads.
#[derive(Clone, Debug)]
pub struct LocalTools {
    registry: Arc<Registry>,
    heavy: Arc<Semaphore>,
    quick: Arc<Semaphore>,
}

impl LocalTools {
    /// At most `threads` calls of this program's tools that are much work run together, and as many of those that are little;
    /// further ones wait.
    pub fn new(registry: Arc<Registry>, threads: usize) -> Self {
        let places = || Arc::new(Semaphore::new(threads.clamp(1, 256)));
        Self { registry, heavy: places(), quick: places() }
    }

    fn places(&self, tool: &str) -> Arc<Semaphore> {
        self.registry.room(tool).unwrap_or_else(|| match self.registry.effort(tool) < Effort::Heavy {
            true => self.quick.clone(),
            false => self.heavy.clone(),
        })
    }
}

/// The tool stops at its next check once nobody waits for it any more.
struct GiveUp(Deadline);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Toolbox for LocalTools {
    fn specs(&self) -> Arc<[ToolSpec]> {
        self.registry.specs().into()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        Box::pin(async move { self.timed(call, images, CallTime::all_in(time)).await.reply })
    }

    fn timed<'a>(&'a self, call: &'a ToolCall, images: &'a Images, time: CallTime) -> BoxFuture<'a, Timed> {
        let late = || Err(Fatal::Deadline { tool: call.name.clone() }.into());
        Box::pin(async move {
            let (run, asked) = (time.run.min(time.whole), Instant::now());
            if self.registry.effort(&call.name) == Effort::None {
                let reply = self.registry.run(call, images, &Deadline::after(run));
                return Timed { reply, waited: Duration::ZERO };
            }
            let place = tokio::time::timeout(time.whole, self.places(&call.name).acquire_owned()).await;
            let waited = asked.elapsed();
            let Ok(Ok(place)) = place else { return Timed { reply: late(), waited } };
            let run = run.min(time.whole.saturating_sub(waited));
            let deadline = Deadline::after(run);
            // Dropped with this future, too: when the trajectory ends, so does its tool.
            let _guard = GiveUp(deadline.clone());
            let (registry, call, images) = (self.registry.clone(), call.clone(), images.clone());
            let name = call.name.clone();
            let ran = tokio::task::spawn_blocking(move || {
                let reply = registry.run(&call, &images, &deadline);
                drop(place);
                reply
            });
            let reply = match tokio::time::timeout(run, ran).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(e)) => Err(Fatal::Broken { tool: name, why: e.to_string() }.into()),
                Err(_) => late(),
            };
            Timed { reply, waited }
        })
    }
}

/// Tools on servers. Which server, what when one fails, and when to leave it alone is the client's business.
///
/// A picture that a server made is decoded once before anybody is shown it: where it is broken, the tool has failed,
/// and not the policy that would have to look at it.
impl Toolbox for Client {
    fn specs(&self) -> Arc<[ToolSpec]> {
        Self::specs(self)
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        Box::pin(async move { shown(call, Self::call(self, call, images, time).await).await })
    }

    fn timed<'a>(&'a self, call: &'a ToolCall, images: &'a Images, time: CallTime) -> BoxFuture<'a, Timed> {
        Box::pin(async move {
            let Timed { reply, waited } = Self::timed(self, call, images, time).await;
            Timed { reply: shown(call, reply).await, waited }
        })
    }
}

/// The reply, unless its picture is broken.
async fn shown(call: &ToolCall, reply: Result<Reply, ToolError>) -> Result<Reply, ToolError> {
    let reply = reply?;
    if let Some(made) = &reply.image {
        let picture = made.picture.clone();
        let looked = tokio::task::spawn_blocking(move || whole(&picture)).await;
        let unsound = match looked {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(defect) => Some(defect.to_string()),
        };
        if let Some(why) = unsound {
            let why = format!("its picture for `{}` cannot be shown: {why}", call.name);
            return Err(Fatal::Remote { server: "(remote)".into(), why }.into());
        }
    }
    Ok(reply)
}

/// Decodes a picture whose header was checked already; the frame is limited to what the header announced.
fn whole(picture: &Picture) -> Result<(), String> {
    let (width, height) = (picture.width(), picture.height());
    let limits = Limits {
        image_bytes: picture.bytes().len(),
        pixels: u64::from(width) * u64::from(height),
        side: width.max(height),
        ..Limits::default()
    };
    picture.decode(&limits).map(drop).map_err(|e| e.to_string())
}

/// No tools: the first turn of the policy is its answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTools;

impl Toolbox for NoTools {
    fn specs(&self) -> Arc<[ToolSpec]> {
        Arc::from(Vec::new())
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        _: &'a Images,
        _: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        let complaint = format!("there is no tool `{}`; there are none here", call.name);
        Box::pin(async move { Err(ToolError::ForModel(complaint)) })
    }
}
