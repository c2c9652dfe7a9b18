//! Tests of the text half of the crate: weights, tokenizer, templates, decoders, generation.

mod generation;
mod invariants;
mod parity;
mod reference;
mod tiny;
mod weights;
