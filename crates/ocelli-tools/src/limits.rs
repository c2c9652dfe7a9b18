//! Bounds on what comes from outside. They are checked before memory is taken.

use std::time::Duration;

/// Bounds that hold for every call, local or remote.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest encoded picture, in bytes.
    pub image_bytes: usize,
    /// Largest picture, in pixels (width x height).
    pub pixels: u64,
    /// Longest side, in pixels.
    pub side: u32,
    /// Most pictures that one dialogue may hold, given and derived together.
    pub images: usize,
    /// Longest text that a tool may say, in bytes; the rest is cut off and the cut is said.
    pub text_bytes: usize,
    /// Most bytes of a call's arguments, pictures apart.
    pub argument_bytes: usize,
    /// Time of one call where the caller names none, and the most that it may name.
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image_bytes: 32 << 20,
            pixels: 25_000_000,
            side: 16_384,
            images: 64,
            text_bytes: 16 << 10,
            argument_bytes: 16 << 10,
            call: Duration::from_secs(30),
        }
    }
}
