//! A small runtime of coarse, fused operations on a tape, with hand-written backward passes.
