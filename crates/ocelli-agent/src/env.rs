//! The environment speaks messages: it opens the dialogue and answers each assistant turn. Tokens are not its business.

use ocelli_data::{Message, Sample, Status, ToolUse};
use ocelli_tools::ToolSpec;
use serde_json::Value;
use tokio::time::Instant;

use crate::policy::{BoxFuture, Said};

/// A sample that cannot be run: it ends as `BadSample`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// What the engine tells an environment about a turn.
#[derive(Clone, Copy, Debug)]
pub struct StepContext {
    /// Index of the assistant turn, from 0.
    pub turn: usize,
    /// No turn can follow this one, so tools need not run.
    pub last_turn: bool,
    /// Tool calls that may still be made.
    pub calls_left: usize,
    /// When the trajectory must have ended.
    pub deadline: Instant,
}

/// The environment's answer to one assistant turn.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Messages for the policy, where the dialogue goes on.
    pub messages: Vec<Message>,
    /// Calls made, failed and malformed ones included.
    pub tools: Vec<ToolUse>,
    /// How the trajectory ended, where it did.
    pub end: Option<Status>,
    /// Why, for people, where the end is a failure.
    pub why: Option<String>,
}

impl Step {
    /// The trajectory ends.
    pub fn end(status: Status) -> Self {
        Self { end: Some(status), ..Self::default() }
    }
}

/// One sample's world, used for one trajectory.
pub trait Env: Send {
    /// The dialogue up to where the policy first speaks.
    fn init(&mut self) -> Result<Vec<Message>, EnvError>;

    /// Answers an assistant turn.
    fn step<'a>(&'a mut self, said: &'a Said, context: StepContext) -> BoxFuture<'a, Step>;

    /// The state that [`EnvFactory::make`] needs to go on later.
    fn save(&self) -> Value;
}

/// Makes environments.
pub trait EnvFactory: Send + Sync {
    /// For a fresh trajectory, or, with `saved` and the dialogue so far, for a paused one.
    fn make(&self, sample: &Sample, saved: Option<(&Value, &[Message])>) -> Result<Box<dyn Env>, EnvError>;

    /// Tools that the environments offer; empty for none.
    fn tools(&self) -> std::sync::Arc<[ToolSpec]>;
}
