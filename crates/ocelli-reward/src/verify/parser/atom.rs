//! What a product is made of: numerals, names with their subscripts and marks, brackets, calls of unknown functions.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

use super::{ENDED, Parser, fold_quotient};
use crate::verify::expr::{Expr, Function};
use crate::verify::token::{Bracket, NotMath, Relation, Token};

impl Parser<'_> {
    pub(super) fn atom(&mut self) -> Result<Expr, NotMath> {
        let token = self.peek().ok_or(ENDED)?;
        match token {
            Token::Number(n) => {
                self.at += 1;
                self.after_numeral(n.value.clone(), n.decimals.is_none())
            }
            Token::Symbol(name) => {
                self.at += 1;
                self.symbol(name)
            }
            Token::Decorated(name) => {
                self.at += 1;
                let name = self.suffixed(name);
                Ok(Expr::Symbol(self.names.id(&name).ok_or(NotMath("too many symbols"))?))
            }
            Token::Pi => self.constant(Expr::Pi),
            Token::E => self.constant(Expr::E),
            Token::I => self.constant(Expr::I),
            Token::Infinity => self.constant(Expr::Infinity),
            Token::Frac => {
                self.at += 1;
                let top = self.argument()?;
                let bottom = self.argument()?;
                Ok(fold_quotient(top, bottom))
            }
            Token::Sqrt => self.square_root(),
            Token::Binom => self.binomial(),
            Token::Function(f) => self.function(*f),
            Token::Log => self.logarithm(),
            Token::Operator(name) => self.operator(name),
            Token::Open(Bracket::Round | Bracket::Square | Bracket::Curly) => self.group(),
            Token::Open(Bracket::Abs) => Ok(Expr::Apply(Function::Abs, Box::new(self.group()?))),
            Token::Open(Bracket::Floor) => Ok(Expr::Apply(Function::Floor, Box::new(self.group()?))),
            Token::Open(Bracket::Ceil) => Ok(Expr::Apply(Function::Ceil, Box::new(self.group()?))),
            Token::Bar => {
                self.at += 1;
                self.inside += 1;
                let value = self.sum()?;
                self.inside -= 1;
                if self.eat(&Token::Bar) {
                    Ok(Expr::Apply(Function::Abs, Box::new(value)))
                } else {
                    Err(NotMath("a bar is not closed"))
                }
            }
            Token::Word(_) => Err(NotMath("prose")),
            _ => Err(NotMath("an operand is missing")),
        }
    }

    pub(super) fn constant(&mut self, value: Expr) -> Result<Expr, NotMath> {
        self.at += 1;
        Ok(value)
    }

    /// What may follow a numeral: a base, or the fraction of a mixed number.
    pub(super) fn after_numeral(&mut self, value: BigRational, whole: bool) -> Result<Expr, NotMath> {
        if !whole {
            return Ok(Expr::Number(value));
        }
        if self.peek() == Some(&Token::Under) {
            self.at += 1;
            let base = self.argument()?.as_int().filter(|b| (2..=36).contains(b));
            let base = base.ok_or(NotMath("a subscript that is no base"))?;
            let digits = value.to_integer();
            let number =
                in_base(&digits, base as u32).ok_or(NotMath("a digit that its base does not have"))?;
            self.based = digits.to_i64().map(|d| (d, base as u32));
            return Ok(Expr::Number(BigRational::from_integer(number)));
        }
        let mark = self.at;
        let fraction = match (self.peek(), self.peek_at(1), self.peek_at(2)) {
            (Some(Token::Frac), ..) => {
                self.at += 1;
                Some((self.argument()?, self.argument()?))
            }
            (Some(Token::Number(a)), Some(Token::Divide), Some(Token::Number(b))) => {
                self.at += 3;
                Some((Expr::Number(a.value.clone()), Expr::Number(b.value.clone())))
            }
            _ => None,
        };
        if let Some((Expr::Number(top), Expr::Number(bottom))) = fraction {
            let proper = top.is_integer() && bottom.is_integer() && top.is_positive() && top < bottom;
            if proper && !value.is_zero() {
                return Ok(Expr::Number(value + top / bottom));
            }
        }
        self.at = mark;
        Ok(Expr::Number(value))
    }

    /// A name with its subscript and primes.
    pub(super) fn suffixed(&mut self, name: &str) -> String {
        let mut name = name.to_owned();
        loop {
            match self.peek() {
                Some(Token::Under) => {
                    self.at += 1;
                    name.push('_');
                    name.push_str(&self.spelled());
                }
                Some(Token::Prime) => {
                    self.at += 1;
                    name.push('\'');
                }
                _ => return name,
            }
        }
    }

    /// The next token, or the content of the next brace, spelled out without spaces.
    pub(super) fn spelled(&mut self) -> String {
        let (start, end, next) = match (self.peek(), self.brackets.get(self.at)) {
            (Some(Token::Open(Bracket::Curly)), Some(Some((close, _)))) => (self.at + 1, *close, *close + 1),
            _ => {
                let end = (self.at + 1).min(self.tokens.len());
                (self.at, end, end)
            }
        };
        self.at = next;
        self.tokens[start..end].iter().map(spell).collect()
    }

    pub(super) fn symbol(&mut self, name: &str) -> Result<Expr, NotMath> {
        let name = self.suffixed(name);
        let id = self.names.id(&name).ok_or(NotMath("too many symbols"))?;
        if self.peek() == Some(&Token::Open(Bracket::Round)) && self.is_call(&name) {
            let Some((close, _)) = self.brackets.get(self.at).copied().flatten() else {
                return Err(NotMath("a bracket is not closed"));
            };
            self.at += 1;
            self.inside += 1;
            let mut arguments = vec![self.sum()?];
            while self.eat(&Token::Comma) {
                arguments.push(self.sum()?);
            }
            self.inside -= 1;
            if self.at != close {
                return Err(NotMath("the arguments of a function do not end with its bracket"));
            }
            self.at = close + 1;
            return Ok(Expr::Opaque(id, arguments));
        }
        Ok(Expr::Symbol(id))
    }

    pub(super) fn is_call(&self, name: &str) -> bool {
        let stem = name.trim_end_matches('\'').split('_').next().unwrap_or(name);
        let Some((close, comma)) = self.brackets.get(self.at).copied().flatten() else { return false };
        let head = close == self.at + 2
            && matches!(self.tokens.get(self.at + 1), Some(Token::Symbol(_)))
            && self.tokens.get(close + 1) == Some(&Token::Relation(Relation::Equal));
        comma || head || matches!(stem, "f" | "g" | "h")
    }
}

/// The number whose digits in `base` are the decimal digits of `digits`.
fn in_base(digits: &BigInt, base: u32) -> Option<BigInt> {
    let text = digits.to_string();
    if text.len() > 256 || !text.chars().all(|c| c.is_digit(base.min(10))) {
        return None;
    }
    BigInt::parse_bytes(text.as_bytes(), base)
}

/// A token as text, for names and operators.
pub(super) fn spell(token: &Token) -> String {
    match token {
        Token::Number(n) => match n.decimals {
            None => n.value.to_string(),
            Some(d) => format!("{}/{d}", n.value),
        },
        Token::Symbol(s) | Token::Word(s) | Token::Decorated(s) => s.clone(),
        Token::Unit(u) => u.written.clone(),
        Token::Operator(s) => format!("\\{s}"),
        Token::Plus => "+".into(),
        Token::Minus => "-".into(),
        Token::Comma => ",".into(),
        Token::Caret => "^".into(),
        Token::Under => "_".into(),
        Token::E => "e".into(),
        Token::I => "i".into(),
        Token::Open(Bracket::Curly) => "{".into(),
        Token::Close(Bracket::Curly) => "}".into(),
        other => format!("{other:?}"),
    }
}
