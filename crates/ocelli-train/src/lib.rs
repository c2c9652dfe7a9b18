//! Losses, advantages, sample buffer, packing, checkpoints and the loops: SFT, reward model, MPO, GRPO.
