//! What the lexer makes of a text: numerals, symbols, functions, relations, brackets, units and words.

use num_rational::BigRational;

use super::expr::Function;
use super::units::Unit;

/// Order relations and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// `=`
    Equal,
    /// `\approx`
    Approx,
    /// `\ne`
    NotEqual,
    /// `<`
    Less,
    /// `\le`
    LessEqual,
    /// `>`
    Greater,
    /// `\ge`
    GreaterEqual,
    /// `\in`
    In,
}

/// Kinds of brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bracket {
    /// `( )`
    Round,
    /// `[ ]`
    Square,
    /// `{ }`: a group in LaTeX, a set in plain text.
    Curly,
    /// `\{ \}`
    Set,
    /// `\langle \rangle`
    Angle,
    /// `\lfloor \rfloor`
    Floor,
    /// `\lceil \rceil`
    Ceil,
    /// `\left| \right|`
    Abs,
}

/// A numeral.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numeral {
    /// Its value.
    pub(crate) value: BigRational,
    /// Digits after the point; `None` without a point.
    pub(crate) decimals: Option<u32>,
    /// Significant digits as written.
    pub(crate) significant: u32,
    /// Number of digits before the point, leading zeros included.
    pub(crate) whole_digits: u32,
    /// Commas separate groups of three, so that a list is another reading.
    pub(crate) grouped: bool,
}

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// Digits.
    Number(Numeral),
    /// A variable.
    Symbol(String),
    /// A function with one argument.
    Function(Function),
    /// `\log`, `\lg`
    Log,
    /// `\pi`
    Pi,
    /// `e`
    E,
    /// `i`
    I,
    /// `\infty`
    Infinity,
    /// A word of prose.
    Word(String),
    /// A unit written as such.
    Unit(Unit),
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `\pm`
    PlusMinus,
    /// `\mp`
    MinusPlus,
    /// `*`
    Times,
    /// `/`
    Divide,
    /// `^`
    Caret,
    /// `_`
    Under,
    /// `!`
    Bang,
    /// `%`
    Percent,
    /// `^\circ`
    Degree,
    /// `'`
    Prime,
    /// A relation.
    Relation(Relation),
    /// Union.
    Cup,
    /// Intersection.
    Cap,
    /// Set difference.
    SetMinus,
    /// `,` and conjunctions.
    Comma,
    /// Between parts whose order matters: `;`, a line break, two formulas side by side.
    Semicolon,
    /// `:`
    Colon,
    /// `|`
    Bar,
    /// Opening bracket.
    Open(Bracket),
    /// Closing bracket.
    Close(Bracket),
    /// `\frac`
    Frac,
    /// `\binom`
    Binom,
    /// `{a \over b}`
    Over,
    /// `\sqrt`
    Sqrt,
    /// `\overline`, `\vec` and the like over a quantity: the mark and what it stands over.
    Decorated(String),
    /// `\sum`, `\int`, `\lim`, `\max` ...: an operator without a computed value.
    Operator(String),
    /// `\begin{pmatrix}`
    Begin(String),
    /// `\end{pmatrix}`
    End,
    /// `&`
    Ampersand,
    /// `\\`
    Row,
    /// The empty set.
    EmptySet,
}

/// Why a text is not an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotMath(pub &'static str);
