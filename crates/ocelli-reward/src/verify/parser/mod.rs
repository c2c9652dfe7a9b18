//! Tokens to expressions: sums, products, powers and groups here, numerals and names in `atom`, functions in `function`.
//! Conventions, fixed here once:
//!
//! * `-x^2` is `-(x^2)`; powers associate to the right.
//! * `a/bc` is `a/(bc)`, but a fraction of two numerals is a coefficient: `1/2x` is `(1/2)x`.
//! * `1\frac{1}{2}` and `1 1/2` are mixed numbers when the fraction is proper.
//! * `\sin 2x` takes the whole product, `\sin(x) y` only the bracket; `\sin^{-1}` is the inverse function.
//! * `e` is Euler's number and `i` the imaginary unit; `\log` without a base is decimal.
//! * `f(x)`, `g(x)`, `h(x)` and a letter before a bracket with a comma are functions; other letters multiply.

use num_traits::Zero;

mod atom;
mod function;

use super::expr::{Expr, Function, Names};
use super::limits::{MAX_DEPTH, MAX_MARKS, MAX_NODES};
use super::token::{Bracket, NotMath, Token};

/// A reader of one token sequence.
pub(crate) struct Parser<'t> {
    pub(super) tokens: &'t [Token],
    pub(super) at: usize,
    pub(super) names: &'t mut Names,
    /// What `\pm` stands for in this reading.
    pub(super) plus: bool,
    /// `\pm` occurred.
    pub(super) saw_plus_minus: bool,
    /// A degree or per cent sign at the outermost level is left for the caller, as a unit.
    pub(super) keep_marks: bool,
    /// Digits read as decimal, and the base, of the last number with a base.
    pub(super) based: Option<(i64, u32)>,
    /// For each opening bracket the index of its closing one, and whether a comma stands directly inside.
    pub(super) brackets: Vec<Option<(usize, bool)>>,
    depth: usize,
    nodes: usize,
    /// Brackets and function arguments that are open.
    inside: usize,
}

const ENDED: NotMath = NotMath("the expression ends too early");

impl<'t> Parser<'t> {
    /// A reader at the first token.
    pub(crate) fn new(tokens: &'t [Token], names: &'t mut Names) -> Self {
        let mut brackets = vec![None; tokens.len()];
        let mut open: Vec<(usize, bool)> = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            match token {
                Token::Open(_) | Token::Begin(_) => open.push((i, false)),
                Token::Comma | Token::Semicolon => {
                    if let Some(last) = open.last_mut() {
                        last.1 = true;
                    }
                }
                Token::Close(_) | Token::End => {
                    if let Some((start, comma)) = open.pop() {
                        brackets[start] = Some((i, comma));
                    }
                }
                _ => {}
            }
        }
        Self {
            tokens,
            at: 0,
            names,
            plus: true,
            saw_plus_minus: false,
            keep_marks: false,
            based: None,
            brackets,
            depth: 0,
            nodes: 0,
            inside: 0,
        }
    }

    /// The token here.
    pub(super) fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at)
    }

    /// The token `n` places further.
    pub(super) fn peek_at(&self, n: usize) -> Option<&'t Token> {
        self.tokens.get(self.at + n)
    }

    /// Steps over `token` if it is here.
    pub(super) fn eat(&mut self, token: &Token) -> bool {
        let hit = self.peek() == Some(token);
        self.at += usize::from(hit);
        hit
    }

    /// Counts a level of nesting; every recursion of the reader passes here, so that its stack is bounded.
    pub(super) fn enter(&mut self) -> Result<(), NotMath> {
        self.depth += 1;
        self.nodes += 1;
        if self.depth > MAX_DEPTH {
            return Err(NotMath("nested too deeply"));
        }
        if self.nodes > MAX_NODES { Err(NotMath("too many parts")) } else { Ok(()) }
    }

    /// A sum.
    pub(super) fn sum(&mut self) -> Result<Expr, NotMath> {
        self.enter()?;
        let mut terms = vec![self.product()?];
        loop {
            let negative = match self.peek() {
                Some(Token::Plus) => false,
                Some(Token::Minus) => true,
                Some(Token::PlusMinus) => self.plus_minus(true),
                Some(Token::MinusPlus) => self.plus_minus(false),
                _ => break,
            };
            self.at += 1;
            let term = self.product()?;
            terms.push(if negative { term.negated() } else { term });
        }
        self.leave();
        Ok(if terms.len() == 1 { terms.swap_remove(0) } else { Expr::Sum(terms) })
    }

    /// Whether this reading of `\pm` (or `\mp`) is a minus.
    pub(super) fn plus_minus(&mut self, upper_is_plus: bool) -> bool {
        self.saw_plus_minus = true;
        self.plus != upper_is_plus
    }

    pub(super) fn product(&mut self) -> Result<Expr, NotMath> {
        self.enter()?;
        let mut value = self.signed()?;
        loop {
            if self.eat(&Token::Times) {
                value = value.times(self.signed()?);
            } else if self.peek() == Some(&Token::Divide) && self.divides() {
                self.at += 1;
                let mut divisor = self.signed()?;
                let coefficient = matches!((&value, &divisor), (Expr::Number(_), Expr::Number(_)));
                while !coefficient && self.starts_plain_atom() {
                    divisor = divisor.times(self.power()?);
                }
                value = fold_quotient(value, divisor);
            } else if self.starts_atom() {
                value = value.times(self.power()?);
            } else {
                self.leave();
                return Ok(value);
            }
        }
    }

    /// False where `/` belongs to a unit (`5 m/s`).
    pub(super) fn divides(&self) -> bool {
        !matches!(self.peek_at(1), Some(Token::Unit(_) | Token::Word(_)))
    }

    /// Tokens that multiply without a sign, letters and numerals only.
    pub(super) fn starts_plain_atom(&self) -> bool {
        matches!(self.peek(), Some(Token::Symbol(_) | Token::Pi | Token::E | Token::I | Token::Sqrt))
    }

    pub(super) fn starts_atom(&self) -> bool {
        match self.peek() {
            Some(Token::Open(Bracket::Curly)) => {
                !matches!(self.peek_at(1), Some(Token::Unit(_) | Token::Word(_)))
            }
            Some(Token::Open(Bracket::Set | Bracket::Angle)) => false,
            Some(Token::Open(_)) => !self.brackets.get(self.at).copied().flatten().is_some_and(|b| b.1),
            Some(
                Token::Symbol(_)
                | Token::Pi
                | Token::E
                | Token::I
                | Token::Infinity
                | Token::Function(_)
                | Token::Log
                | Token::Frac
                | Token::Binom
                | Token::Sqrt
                | Token::Decorated(_)
                | Token::Operator(_),
            ) => true,
            // Two numerals side by side are not a product.
            Some(Token::Number(_)) => {
                !matches!(self.tokens.get(self.at.wrapping_sub(1)), Some(Token::Number(_)))
            }
            _ => false,
        }
    }

    pub(super) fn signed(&mut self) -> Result<Expr, NotMath> {
        let mut negative = false;
        loop {
            match self.peek() {
                Some(Token::Minus) => negative = !negative,
                Some(Token::Plus) => {}
                Some(Token::PlusMinus) => negative ^= self.plus_minus(true),
                Some(Token::MinusPlus) => negative ^= self.plus_minus(false),
                _ => break,
            }
            self.at += 1;
        }
        let value = self.power()?;
        Ok(if negative { value.negated() } else { value })
    }

    pub(super) fn power(&mut self) -> Result<Expr, NotMath> {
        self.enter()?;
        let mut base = self.atom()?;
        // Marks behind an atom nest it, too.
        for marks in 0.. {
            if marks > MAX_MARKS {
                return Err(NotMath("too many marks behind one number"));
            }
            match self.peek() {
                Some(Token::Bang) => {
                    self.at += 1;
                    base = Expr::Apply(Function::Factorial, Box::new(base));
                }
                Some(Token::Percent) if !(self.keep_marks && self.inside == 0) => {
                    self.at += 1;
                    base = base.over(Expr::int(100));
                }
                Some(Token::Degree) if !(self.keep_marks && self.inside == 0) => {
                    self.at += 1;
                    base = Expr::Product(vec![base, Expr::Pi]).over(Expr::int(180));
                }
                Some(Token::Caret) => {
                    self.at += 1;
                    let exponent = self.exponent()?;
                    base = base.raised(exponent);
                }
                // `v^2_0` is the square of `v_0`.
                Some(Token::Under) => {
                    let Expr::Power(symbol, exponent) = base else {
                        return Err(NotMath("a subscript of an expression"));
                    };
                    let Expr::Symbol(id) = *symbol else {
                        return Err(NotMath("a subscript of an expression"));
                    };
                    let stem = self.names.name(id).to_owned();
                    let name = self.suffixed(&stem);
                    let id = self.names.id(&name).ok_or(NotMath("too many symbols"))?;
                    base = Expr::Power(Box::new(Expr::Symbol(id)), exponent);
                }
                _ => break,
            }
        }
        self.leave();
        Ok(base)
    }

    pub(super) fn exponent(&mut self) -> Result<Expr, NotMath> {
        if self.peek() == Some(&Token::Open(Bracket::Curly)) {
            return self.group();
        }
        // The subscript of `v^2_0` belongs to `v`.
        if let (Some(Token::Number(n)), Some(Token::Under)) = (self.peek(), self.peek_at(1)) {
            self.at += 1;
            return Ok(Expr::Number(n.value.clone()));
        }
        self.inside += 1;
        let exponent = self.signed();
        self.inside -= 1;
        exponent
    }

    /// A bracket that holds one expression; closes with the kind that opened.
    pub(super) fn group(&mut self) -> Result<Expr, NotMath> {
        let Some(Token::Open(kind)) = self.peek() else { return Err(NotMath("a bracket is missing")) };
        self.at += 1;
        self.inside += 1;
        let mut value = self.sum()?;
        if self.eat(&Token::Over) {
            let below = self.sum()?;
            value = fold_quotient(value, below);
        }
        self.inside -= 1;
        if self.eat(&Token::Close(*kind)) {
            Ok(value)
        } else {
            Err(NotMath("a bracket is not closed by its like"))
        }
    }

    /// Ends a level of nesting.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// An argument in braces or brackets, or a single atom.
    pub(super) fn argument(&mut self) -> Result<Expr, NotMath> {
        if matches!(self.peek(), Some(Token::Open(Bracket::Curly | Bracket::Round))) {
            return self.group();
        }
        self.enter()?;
        self.inside += 1;
        let value = self.atom();
        self.inside -= 1;
        self.leave();
        value
    }
}

/// Numerals divide to a numeral, so that `3/4` and `0.75` are the same expression.
fn fold_quotient(top: Expr, bottom: Expr) -> Expr {
    match (&top, &bottom) {
        (Expr::Number(a), Expr::Number(b)) if !b.is_zero() => Expr::Number(a / b),
        _ => top.over(bottom),
    }
}
