//! Types that cross crate boundaries: messages, samples, preference pairs, trajectories, scores and the records of
//! a run. No tensors, no clock, no randomness; [`io`] is the only place that touches the file system.
//!
//! ```
//! use ocelli_data::{Message, Part, Role};
//!
//! let question = Message::user([Part::text("How many bars are there?")]);
//! assert_eq!(question.role, Role::User);
//! assert_eq!(question.plain_text(), "How many bars are there?");
//! ```

mod hash;
pub mod io;
mod message;
pub mod record;
pub mod run;
mod sample;
mod score;
mod trajectory;

pub use hash::ContentHash;
pub use message::{Message, Part, Role, ToolCall, ToolResult};
pub use sample::{PreferencePair, Sample, Target};
pub use score::Score;
pub use trajectory::{Span, SpanKind, Status, ToolUse, Trajectory, TrajectoryError};
