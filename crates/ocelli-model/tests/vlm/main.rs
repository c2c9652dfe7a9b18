//! Vision-language models: the native family end to end, invariants of all families, agreement with the reference.

mod assembled;
mod invariants;
mod layouts;
mod native;
mod parts;
mod pictures;
mod reference;
mod text_templates;
