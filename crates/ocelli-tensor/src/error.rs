//! Everything that can go wrong in this crate, as one enum: each message names the operation, the operands with their
//! shapes, and what was expected.

use crate::{DType, ParamId};

/// Result of a tensor operation.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;

/// An operation was asked for something it cannot do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// Operand shapes do not fit the operation.
    #[error("{op}: {what}")]
    Shape {
        /// The operation, as its function is called.
        op: &'static str,
        /// The operands' shapes and the rule they break.
        what: String,
    },
    /// An operand has the wrong element type.
    #[error("{op}: expected {expected:?}, got {got:?}; convert with Tensor::to_dtype")]
    DType {
        /// The operation.
        op: &'static str,
        /// What it can work with.
        expected: DType,
        /// What it was given.
        got: DType,
    },
    /// An index points outside its table.
    #[error("{op}: index {index} at position {at} is outside 0..{limit}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The offending index.
        index: usize,
        /// Its position in the index list.
        at: usize,
        /// Number of rows of the table.
        limit: usize,
    },
    /// A variable of another tape was used; inside `Tape::checkpoint` only the closure's own inputs may be used.
    #[error(
        "{op}: a variable was recorded on another tape; pass it in as an input (Tape::checkpoint) or detach it"
    )]
    ForeignVar {
        /// The operation.
        op: &'static str,
    },
    /// A parameter id does not belong to this set of parameters.
    #[error("parameter {0:?} does not exist in this set of parameters")]
    UnknownParam(ParamId),
    /// Two parameters with one name.
    #[error("a parameter named {0:?} exists already")]
    DuplicateParam(String),
    /// A gradient is not a finite number.
    #[error(
        "the gradient of parameter {name:?} contains {value} at element {at}; no parameter was changed by this step"
    )]
    NonFiniteGradient {
        /// Name of the parameter.
        name: String,
        /// First element that is not finite.
        at: usize,
        /// Its value.
        value: f32,
    },
    /// The operation cannot run in this mode (for example cached attention while recording).
    #[error("{op}: {what}")]
    Mode {
        /// The operation.
        op: &'static str,
        /// What was wrong and what to do instead.
        what: String,
    },
}

/// Shorthand for [`TensorError::Shape`].
pub(crate) fn shape_error<T>(op: &'static str, what: impl Into<String>) -> Result<T> {
    Err(TensorError::Shape { op, what: what.into() })
}
