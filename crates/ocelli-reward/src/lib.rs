//! Pure scorers: from a response or a trajectory, and what a right answer is, to a score with its evidence.
//!
//! [`verify()`] compares two answers and names the rule that decided; [`extract`] finds the answer in a response;
//! [`choice`] reads options; [`scorer`], [`format`](mod@format), [`tool_use`] and [`rubric`] make rewards and metrics of these, the
//! same for training and evaluation; [`mod@reference`] holds the official rules of benchmarks, faults included.
//!
//! No IO, no clock, no randomness. Every input is bounded before it is parsed, and work is counted.
//!
//! ```
//! use ocelli_data::Target;
//! use ocelli_reward::scorer::Accuracy;
//!
//! let target = Target::Math { answer: r"\frac{1}{2}".into() };
//! let score = Accuracy::default().score_text("Half of it, so the answer is 0.5.", &target);
//! assert_eq!((score.value, score.answer.as_deref()), (Some(1.0), Some("0.5")));
//! ```

pub mod choice;
pub mod extract;
pub mod format;
mod number;
pub mod reference;
pub mod rubric;
pub mod scorer;
pub mod text;
pub mod tool_use;
mod unicode;
pub mod verify;

pub use rubric::{Breakdown, Rubric};
pub use scorer::{Accuracy, Scorer};
pub use unicode::normalise_unicode;
pub use verify::{Outcome, Policy, Verdict, verify};
