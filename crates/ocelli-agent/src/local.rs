//! The policy of a model in this process, exact to the token: messages become ids once, sampled ids stay as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ocelli_data::Message;
use tokio::sync::oneshot;

use crate::batching::{Command, Driver, DriverHandle, Generated, Request, SeqId};
use crate::pictures::Pictures;
use crate::policy::{BoxFuture, Conversation, Policy, PolicyError, Said, Start, Stop, Turn};
use crate::tokens::{Renderer, TokenLog};

/// Speaks through the [`Driver`] that it was made with.
pub struct LocalPolicy {
    driver: DriverHandle,
    renderer: Arc<dyn Renderer>,
    next: AtomicU64,
}

impl LocalPolicy {
    /// A policy whose tokens `driver` samples and whose messages `renderer` writes.
    pub fn new(driver: &Driver, renderer: Arc<dyn Renderer>) -> Self {
        Self { driver: driver.handle(), renderer, next: AtomicU64::new(0) }
    }
}

impl Policy for LocalPolicy {
    fn open(&self, start: Start) -> Result<Box<dyn Conversation>, PolicyError> {
        let resumed = start.tokens.is_some();
        if !resumed && !start.heard.is_empty() {
            return Err(PolicyError(
                "a paused rollout without its tokens cannot go on with a local model".into(),
            ));
        }
        Ok(Box::new(LocalConversation {
            seq: self.next.fetch_add(1, Ordering::Relaxed),
            log: start.tokens.unwrap_or_default(),
            driver: self.driver.clone(),
            renderer: self.renderer.clone(),
            pictures: start.pictures,
            seed: start.seed,
        }))
    }

    fn keeps_time(&self) -> bool {
        true
    }
}

/// The one place where messages meet tokens.
struct LocalConversation {
    seq: SeqId,
    log: TokenLog,
    driver: DriverHandle,
    renderer: Arc<dyn Renderer>,
    pictures: Arc<Pictures>,
    seed: u64,
}

impl LocalConversation {
    fn hear(&mut self, new: &[Message]) -> Result<(), PolicyError> {
        if new.is_empty() {
            return Ok(());
        }
        let failed = |e: crate::tokens::RenderError| PolicyError(e.to_string());
        if self.log.ids().is_empty() {
            self.log.prompt(self.renderer.prompt(new, &self.pictures).map_err(failed)?);
        } else {
            let last = self.log.ids().last().copied();
            self.log.observe(self.renderer.observation(new, last, &self.pictures).map_err(failed)?);
        }
        Ok(())
    }

    async fn sample(&mut self, turn: &Turn<'_>) -> Result<Generated, PolicyError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            seq: self.seq,
            ids: self.log.ids().to_vec(),
            images: self.log.images().to_vec(),
            prompt: self.log.prompt_len(),
            begun: self.log.turn().len(),
            seed: self.seed,
            drawn: self.log.logprobs().len(),
            max_tokens: turn.max_tokens,
            max_context: turn.max_context,
            until: Instant::now() + turn.budget,
            control: turn.control.clone(),
            renderer: self.renderer.clone(),
            pictures: self.pictures.clone(),
            reply,
        };
        self.driver.send(Command::Generate(Box::new(request)))?;
        answer
            .await
            .map_err(|_| PolicyError("the generator was dropped while a turn was being sampled".into()))?
    }

    async fn speak(&mut self, turn: Turn<'_>) -> Result<Said, PolicyError> {
        self.hear(turn.new)?;
        if self.log.ids().len() >= turn.max_context {
            return Ok(self.said(Stop::ContextFull));
        }
        let generated = self.sample(&turn).await?;
        self.log
            .sampled(&generated.ids, &generated.logprobs, generated.version)
            .map_err(|e| PolicyError(e.to_string()))?;
        Ok(self.said(generated.stop))
    }

    /// The turn as a message: its text, the end-of-turn token left out.
    fn said(&self, stop: Stop) -> Said {
        let message = Message::assistant(self.renderer.text(self.log.turn()));
        Said { message, calls: None, stop }
    }
}

impl Conversation for LocalConversation {
    fn turn<'a>(&'a mut self, turn: Turn<'a>) -> BoxFuture<'a, Result<Said, PolicyError>> {
        Box::pin(self.speak(turn))
    }

    fn tokens(&self) -> Option<&TokenLog> {
        Some(&self.log)
    }
}

impl Drop for LocalConversation {
    fn drop(&mut self) {
        // Nobody may listen any more: then the cache is gone as well.
        let _ = self.driver.send(Command::Close(self.seq));
    }
}
