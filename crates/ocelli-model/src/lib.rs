//! Decoders, vision towers, projectors, heads, weights, tokenizer, chat template, image preprocessing, generation.
