//! Tools as an environment calls them: off the engine's threads, with a deadline per call.

use std::sync::Arc;
use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{Client, Deadline, Fatal, Images, Limits, Picture, Registry, Reply, ToolError, ToolSpec};
use tokio::sync::Semaphore;

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
}

/// The tools of a [`Registry`], run on a bounded number of threads.
///
/// A call that passes its deadline is given up at once; its thread stops at the tool's next check and is free again
/// only then, so that runaway tools cannot pile up threads.
#[derive(Clone, Debug)]
pub struct LocalTools {
    registry: Arc<Registry>,
    threads: Arc<Semaphore>,
}

impl LocalTools {
    /// At most `threads` calls run together; further ones wait within their deadline.
    pub fn new(registry: Arc<Registry>, threads: usize) -> Self {
        Self { registry, threads: Arc::new(Semaphore::new(threads.clamp(1, 256))) }
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
        let deadline = Deadline::after(time);
        let late = || ToolError::Fatal(Fatal::Deadline { tool: call.name.clone() });
        Box::pin(async move {
            let work = async {
                let permit = self.threads.clone().acquire_owned().await.map_err(|_| late())?;
                let (registry, deadline) = (self.registry.clone(), deadline.clone());
                let (call, images) = (call.clone(), images.clone());
                let name = call.name.clone();
                let ran = tokio::task::spawn_blocking(move || {
                    let reply = registry.run(&call, &images, &deadline);
                    drop(permit);
                    reply
                });
                ran.await.unwrap_or_else(|e| Err(Fatal::Broken { tool: name, why: e.to_string() }.into()))
            };
            let reply = tokio::time::timeout(time, work).await;
            deadline.give_up();
            reply.unwrap_or_else(|_| Err(late()))
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
        Box::pin(async move {
            let reply = Self::call(self, call, images, time).await?;
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
        })
    }
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
