//! Tests of the text half of the crate: weights, tokenizer, templates, decoders, generation.

mod generation;
mod hub;
mod invariants;
mod parity;
mod reference;
mod rope;
mod streaming;
mod tiny;
mod weights;
