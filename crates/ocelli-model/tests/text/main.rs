//! Tests of the text half of the crate: weights, tokenizer, templates, decoders, generation.

mod invariants;
mod parity;
mod tiny;
mod weights;
