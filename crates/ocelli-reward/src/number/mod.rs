//! Real and complex numbers with rigorous error bounds, and residues modulo large primes.

pub(crate) mod ball;
pub(crate) mod complex;
pub(crate) mod elementary;
pub(crate) mod magnitude;
pub(crate) mod residue;
#[cfg(test)]
mod tests;

/// Why a value could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is no value: division by zero, the logarithm of a negative number, an even root outside the reals.
    Undefined,
    /// The bounds are too wide to go on; more precision may help.
    Imprecise,
    /// The value is too large to be written down.
    Overflow,
    /// The work allowed for one comparison is spent.
    Budget,
    /// The operation is not one that this evaluator knows.
    Unsupported,
}
