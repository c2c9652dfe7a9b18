//! Vision-language models: the native family end to end, invariants of all families, agreement with the reference.

mod assembled;
mod invariants;
mod native;
mod pictures;
mod reference;
