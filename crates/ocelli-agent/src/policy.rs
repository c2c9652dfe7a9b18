//! Who speaks: a policy opens a conversation, hears messages, and says one assistant turn at a time.
//!
//! Implementations: [`LocalPolicy`](crate::local::LocalPolicy) (a model of this process, token-exact),
//! [`EndpointPolicy`](crate::endpoint_policy::EndpointPolicy) (any OpenAI-compatible server),
//! [`ScriptedPolicy`](crate::scripted::ScriptedPolicy) (an oracle's plan, or a test) and
//! [`SimulatedPolicy`](crate::simulated::SimulatedPolicy) (costs time, says what a script says).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ocelli_data::{Message, Sample};
use ocelli_tools::ToolSpec;

use crate::control::Control;
use crate::formats::Parsed;
use crate::pictures::Pictures;
use crate::tokens::TokenLog;

/// A future that may cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a conversation starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The question.
    pub sample: Arc<Sample>,
    /// Which rollout of the sample this is.
    pub attempt: u32,
    /// Seed of this rollout alone: two attempts differ in it.
    pub seed: u64,
    /// Tools that may be called; endpoints send them with each request.
    pub tools: Arc<[ToolSpec]>,
    /// Bytes of the images that messages name.
    pub pictures: Arc<Pictures>,
    /// What was said before, where a paused rollout goes on; empty otherwise.
    pub heard: Vec<Message>,
    /// Tokens so far, where a paused rollout goes on.
    pub tokens: Option<TokenLog>,
}

/// One request for an assistant turn.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Messages since the last turn: the prompt at first, then observations; empty where a paused turn goes on.
    pub new: &'a [Message],
    /// Most tokens of this turn.
    pub max_tokens: usize,
    /// Most tokens of the whole context, prompt and observations included.
    pub max_context: usize,
    /// Time left to the trajectory. A local policy keeps it; others are cut off from outside.
    pub budget: Duration,
    /// Asked between tokens by policies that can pause.
    pub control: &'a Control,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The policy ended it.
    EndOfTurn,
    /// `max_tokens` were sampled.
    Length,
    /// The context is full.
    ContextFull,
    /// `budget` ran out.
    Deadline,
    /// The rollout is to pause; the turn is unfinished and goes on later.
    Paused,
}

/// One assistant turn.
#[derive(Clone, Debug)]
pub struct Said {
    /// What was said, exactly.
    pub message: Message,
    /// Calls that came beside the text (function calls of endpoints); `None` where calls stand in the text.
    pub calls: Option<Parsed>,
    /// Why it ended.
    pub stop: Stop,
}

/// A policy that could not speak. It ends the trajectory with `PolicyFailed`, never the run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

/// Something that can hold conversations, many at once.
pub trait Policy: Send + Sync {
    /// Opens a conversation; nothing is sampled yet.
    fn open(&self, start: Start) -> Result<Box<dyn Conversation>, PolicyError>;

    /// True where the policy itself keeps `budget` and answers `Stop::Deadline` or `Stop::Paused` with what it has.
    fn keeps_time(&self) -> bool {
        false
    }
}

/// One dialogue with a policy.
pub trait Conversation: Send {
    /// Hears `turn.new` and says one turn.
    fn turn<'a>(&'a mut self, turn: Turn<'a>) -> BoxFuture<'a, Result<Said, PolicyError>>;

    /// The tokens so far, for policies that know them.
    fn tokens(&self) -> Option<&TokenLog> {
        None
    }
}
