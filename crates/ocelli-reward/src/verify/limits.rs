//! What one comparison may cost. Work is counted, never timed, so that a verdict does not depend on the machine.

/// Longest answer that is parsed, in bytes; a longer one is compared as text only.
pub(crate) const MAX_BYTES: usize = 4096;
/// Deepest nesting of brackets, powers and functions.
pub(crate) const MAX_DEPTH: usize = 48;
/// Most factorial signs, powers and the like behind one atom.
pub(crate) const MAX_MARKS: u32 = 8;
/// Most nodes of one answer.
pub(crate) const MAX_NODES: usize = 2048;
/// Most elements of a list, set or tuple.
pub(crate) const MAX_ITEMS: usize = 64;
/// Most cells of a matrix.
pub(crate) const MAX_CELLS: usize = 256;
/// Most different symbols in a comparison.
pub(crate) const MAX_SYMBOLS: usize = 64;
/// Most digits of a number.
pub(crate) const MAX_DIGITS: usize = 1024;
/// Largest exact integer, in bits.
pub(crate) const MAX_BITS: u64 = 1 << 16;
/// Largest argument of a factorial that is multiplied out.
pub(crate) const MAX_FACTORIAL: u32 = 5000;
/// Work of one comparison, in units of roughly one 64-bit word operation.
pub(crate) const WORK: u64 = 1 << 22;

/// Counts the work that is left.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u64,
}

impl Budget {
    /// The work of one comparison.
    pub(crate) fn new() -> Self {
        Self { left: WORK }
    }

    /// Takes `units`; false when they are not left.
    pub(crate) fn take(&mut self, units: u64) -> bool {
        let enough = units <= self.left;
        self.left = self.left.saturating_sub(units);
        enough
    }
}
