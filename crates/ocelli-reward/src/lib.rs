//! Pure scorers: answer extraction, mathematical equality, choices, format and tool use.

pub mod choice;
pub mod extract;
mod number;
pub mod reference;
pub mod text;
mod unicode;
pub mod verify;

pub use unicode::normalise_unicode;
pub use verify::{Outcome, Policy, Verdict, verify};
