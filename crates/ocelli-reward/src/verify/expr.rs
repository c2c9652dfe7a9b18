//! Mathematical expressions as trees.

use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Index of a name in the table shared by the two sides of a comparison.
pub(crate) type SymbolId = u16;

/// Functions of one argument with a value that can be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Function {
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Tangent.
    Tan,
    /// Cotangent.
    Cot,
    /// Secant.
    Sec,
    /// Cosecant.
    Csc,
    /// Inverse sine.
    Asin,
    /// Inverse cosine.
    Acos,
    /// Inverse tangent.
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Hyperbolic tangent.
    Tanh,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Ln,
    /// Absolute value.
    Abs,
    /// Largest integer not above.
    Floor,
    /// Smallest integer not below.
    Ceil,
    /// Product of the integers up to the argument.
    Factorial,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// An exact number.
    Number(BigRational),
    /// A variable or a named quantity.
    Symbol(SymbolId),
    /// The circle's pi.
    Pi,
    /// Euler's number.
    E,
    /// The imaginary unit.
    I,
    /// Positive infinity.
    Infinity,
    /// A sum.
    Sum(Vec<Expr>),
    /// A product.
    Product(Vec<Expr>),
    /// A quotient.
    Quotient(Box<Expr>, Box<Expr>),
    /// A power.
    Power(Box<Expr>, Box<Expr>),
    /// Radicand and index of a root.
    Root(Box<Expr>, u32),
    /// A known function.
    Apply(Function, Box<Expr>),
    /// Base and argument of a logarithm.
    Log(Box<Expr>, Box<Expr>),
    /// `n` over `k`.
    Binomial(Box<Expr>, Box<Expr>),
    /// A function or operator without a known value, e.g. `f(x)` or an integral; equal arguments, equal values.
    Opaque(SymbolId, Vec<Expr>),
}

impl Expr {
    /// An integer.
    pub(crate) fn int(n: i64) -> Self {
        Self::Number(BigRational::from_integer(n.into()))
    }

    /// `-self`, folded into literals.
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Number(r) => Self::Number(-r),
            other => Self::Product(vec![Self::int(-1), other]),
        }
    }

    /// `n` over `k`. For a whole `k` and a symbolic `n` it is the polynomial `n (n-1) ... (n-k+1) / k!`.
    pub(crate) fn binomial(n: Self, k: Self) -> Self {
        const MOST: i64 = 16;
        let whole = match &k {
            Self::Number(r) if r.is_integer() => r.to_integer().to_i64().filter(|k| (1..=MOST).contains(k)),
            _ => None,
        };
        match whole {
            Some(k) if n.has_symbols() => {
                let factors = (0..k).map(|i| n.clone().plus(Self::int(-i))).collect();
                Self::Quotient(Box::new(Self::Product(factors)), Box::new(Self::int((1..=k).product())))
            }
            _ => Self::Binomial(Box::new(n), Box::new(k)),
        }
    }

    /// `self * other`, flattened.
    pub(crate) fn times(self, other: Self) -> Self {
        match self {
            Self::Product(mut factors) => {
                factors.push(other);
                Self::Product(factors)
            }
            first => Self::Product(vec![first, other]),
        }
    }

    /// `self + other`, flattened.
    pub(crate) fn plus(self, other: Self) -> Self {
        match self {
            Self::Sum(mut terms) => {
                terms.push(other);
                Self::Sum(terms)
            }
            first => Self::Sum(vec![first, other]),
        }
    }

    /// `self - other`.
    pub(crate) fn minus(self, other: Self) -> Self {
        self.plus(other.negated())
    }

    /// `self / other`.
    pub(crate) fn over(self, other: Self) -> Self {
        Self::Quotient(Box::new(self), Box::new(other))
    }

    /// `self ^ other`.
    pub(crate) fn raised(self, other: Self) -> Self {
        Self::Power(Box::new(self), Box::new(other))
    }

    /// The direct parts.
    pub(crate) fn children(&self) -> Vec<&Self> {
        match self {
            Self::Sum(v) | Self::Product(v) | Self::Opaque(_, v) => v.iter().collect(),
            Self::Quotient(a, b) | Self::Power(a, b) | Self::Log(a, b) | Self::Binomial(a, b) => vec![a, b],
            Self::Root(a, _) | Self::Apply(_, a) => vec![a],
            _ => Vec::new(),
        }
    }

    /// True when `test` holds for this expression or a part of it.
    pub(crate) fn any(&self, test: &impl Fn(&Self) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|c| c.any(test))
    }

    /// The integer that a literal is.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Number(r) if r.is_integer() => r.to_integer().to_i64(),
            _ => None,
        }
    }

    /// True for a literal zero.
    pub(crate) fn is_zero(&self) -> bool {
        matches!(self, Self::Number(r) if r.is_zero())
    }

    /// True for a literal one.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self, Self::Number(r) if r.is_one())
    }

    /// True for `-infinity`.
    pub(crate) fn is_minus_infinity(&self) -> bool {
        match self {
            Self::Product(factors) => {
                let sign = factors.iter().filter(|f| matches!(f, Self::Number(r) if r.is_negative())).count();
                sign % 2 == 1 && factors.contains(&Self::Infinity)
            }
            _ => false,
        }
    }

    /// True when a variable or an opaque function occurs.
    pub(crate) fn has_symbols(&self) -> bool {
        self.any(&|e| matches!(e, Self::Symbol(_) | Self::Opaque(..)))
    }

    /// The variables, each once.
    pub(crate) fn symbols(&self, found: &mut Vec<SymbolId>) {
        match self {
            Self::Symbol(s) if !found.contains(s) => found.push(*s),
            _ => self.children().into_iter().for_each(|c| c.symbols(found)),
        }
    }

    /// Largest size of a literal in bits, which decides how much precision an identity needs.
    pub(crate) fn literal_bits(&self) -> u64 {
        let own = match self {
            Self::Number(r) => r.numer().bits().max(r.denom().bits()),
            _ => 0,
        };
        self.children().into_iter().map(Self::literal_bits).fold(own, u64::max)
    }

    /// True where the value is computed by an operator that this crate does not evaluate (integral, sum, limit).
    pub(crate) fn has_operator(&self, is_operator: &impl Fn(SymbolId) -> bool) -> bool {
        self.any(&|e| matches!(e, Self::Opaque(s, _) if is_operator(*s)))
    }
}

/// Names of variables, shared by both sides so that equal names have equal indices.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Vec<String>,
}

impl Names {
    /// Index of a name; `None` when the table is full.
    pub(crate) fn id(&mut self, name: &str) -> Option<SymbolId> {
        let at = self.names.iter().position(|n| n == name).unwrap_or(self.names.len());
        if at == self.names.len() {
            if at >= super::limits::MAX_SYMBOLS {
                return None;
            }
            self.names.push(name.to_owned());
        }
        SymbolId::try_from(at).ok()
    }

    /// The name of an index.
    pub(crate) fn name(&self, id: SymbolId) -> &str {
        self.names.get(usize::from(id)).map_or("", String::as_str)
    }
}
