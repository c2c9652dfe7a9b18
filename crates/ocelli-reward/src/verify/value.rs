//! What an answer is: a number with its unit, a tuple, a set, a relation, a matrix, a ratio, or a text.

use super::expr::Expr;
use super::token::{Bracket, Relation};
use super::units::Unit;

/// How a decimal was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    /// The last digit stands for `10^-places`; negative for multiples of ten (`1.5 \times 10^3` has -2).
    pub(crate) places: i32,
    /// Significant digits.
    pub(crate) significant: u32,
}

/// A single quantity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    /// Its value, without unit and per cent sign.
    pub(crate) expr: Expr,
    /// Set when the quantity was written as a decimal with digits after the point.
    pub(crate) decimal: Option<Decimal>,
    /// A per cent sign follows.
    pub(crate) percent: bool,
    /// Its unit.
    pub(crate) unit: Option<Unit>,
    /// For `52_8`: the digits read as a decimal number, and the base.
    pub(crate) base: Option<(i64, u32)>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A quantity or an expression.
    Scalar(Scalar),
    /// Elements in brackets whose order matters: a point, a vector, an interval.
    Tuple {
        /// Opening bracket.
        open: Bracket,
        /// Closing bracket.
        close: Bracket,
        /// Elements.
        items: Vec<Value>,
    },
    /// Elements in braces.
    Set(Vec<Value>),
    /// Elements separated by commas or `or`.
    List(Vec<Value>),
    /// Parts whose order matters, e.g. the answers to several blanks.
    Sequence(Vec<Value>),
    /// Rows of a matrix.
    Matrix(Vec<Vec<Expr>>),
    /// `sides[0] ops[0] sides[1] ops[1] ...`
    Relation {
        /// The sides.
        sides: Vec<Value>,
        /// The relations between them.
        ops: Vec<Relation>,
    },
    /// A union of sets or intervals.
    Union(Vec<Value>),
    /// A set without another, or two sets' common part.
    SetOperation {
        /// True for the difference.
        difference: bool,
        /// Both sets.
        sets: Box<(Value, Value)>,
    },
    /// `a : b : c`
    Ratio {
        /// The parts.
        parts: Vec<Expr>,
        /// Hours, minutes and seconds, when it may be a time of day.
        clock: Option<Vec<i64>>,
    },
    /// The missing left side of `> -2`.
    Blank,
    /// Anything else.
    Text(String),
}

impl Value {
    /// A bare expression.
    pub(crate) fn expr(expr: Expr) -> Self {
        Self::Scalar(Scalar { expr, decimal: None, percent: false, unit: None, base: None })
    }

    /// The expression of a quantity without unit and per cent sign.
    pub(crate) fn as_expr(&self) -> Option<&Expr> {
        match self {
            Self::Scalar(Scalar { expr, unit: None, percent: false, .. }) => Some(expr),
            _ => None,
        }
    }

    /// The kind, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(s) if s.unit.is_some() => "quantity",
            Self::Scalar(s) if s.expr.has_symbols() => "expression",
            Self::Scalar(_) => "number",
            Self::Tuple { .. } => "tuple or interval",
            Self::Set(_) => "set",
            Self::List(_) => "list",
            Self::Sequence(_) => "sequence",
            Self::Matrix(_) => "matrix",
            Self::Relation { .. } => "relation",
            Self::Union(_) | Self::SetOperation { .. } => "set of numbers",
            Self::Ratio { .. } => "ratio",
            Self::Blank => "blank",
            Self::Text(_) => "text",
        }
    }
}
