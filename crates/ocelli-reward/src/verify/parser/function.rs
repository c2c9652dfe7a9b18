//! Functions that are known: roots, binomials, sines and their like, logarithms; operators known only as they are written.

use super::atom::spell;
use super::{Parser, fold_quotient};
use crate::verify::expr::{Expr, Function};
use crate::verify::token::{Bracket, NotMath, Token};

impl Parser<'_> {
    pub(super) fn square_root(&mut self) -> Result<Expr, NotMath> {
        self.at += 1;
        let mut index = 2;
        if self.peek() == Some(&Token::Open(Bracket::Square)) {
            let n = self.group()?.as_int().filter(|n| (1..=64).contains(n));
            index = n.ok_or(NotMath("an index of a root that is not a small number"))? as u32;
        }
        let radicand = self.argument()?;
        Ok(Expr::Root(Box::new(radicand), index))
    }

    pub(super) fn binomial(&mut self) -> Result<Expr, NotMath> {
        self.at += 1;
        if self.peek() == Some(&Token::Open(Bracket::Round)) {
            self.at += 1;
            let n = self.sum()?;
            let comma = self.eat(&Token::Comma);
            let k = self.sum()?;
            if !comma || !self.eat(&Token::Close(Bracket::Round)) {
                return Err(NotMath("a binomial coefficient without two arguments"));
            }
            return Ok(Expr::binomial(n, k));
        }
        let n = self.argument()?;
        let k = self.argument()?;
        Ok(Expr::binomial(n, k))
    }

    /// The argument of a function without braces: one bracket, or a product of atoms up to the next operator.
    pub(super) fn bare_argument(&mut self) -> Result<Expr, NotMath> {
        if matches!(
            self.peek(),
            Some(Token::Open(Bracket::Round | Bracket::Curly | Bracket::Square | Bracket::Abs))
        ) {
            self.inside += 1;
            let value = self.atom();
            self.inside -= 1;
            return value;
        }
        self.inside += 1;
        let negative = self.eat(&Token::Minus);
        let mut value = self.power()?;
        while self.starts_atom()
            && !matches!(self.peek(), Some(Token::Function(_) | Token::Log | Token::Open(_)))
        {
            value = value.times(self.power()?);
        }
        if self.peek() == Some(&Token::Divide) && matches!(self.peek_at(1), Some(Token::Number(_))) {
            self.at += 1;
            let divisor = self.power()?;
            value = fold_quotient(value, divisor);
        }
        self.inside -= 1;
        Ok(if negative { value.negated() } else { value })
    }

    pub(super) fn function(&mut self, f: Function) -> Result<Expr, NotMath> {
        self.enter()?;
        self.at += 1;
        let mut exponent = None;
        if self.eat(&Token::Caret) {
            exponent = Some(self.exponent()?);
        }
        let inverse = match f {
            Function::Sin => Some(Function::Asin),
            Function::Cos => Some(Function::Acos),
            Function::Tan => Some(Function::Atan),
            _ => None,
        };
        let (f, exponent) = match (exponent.as_ref().and_then(Expr::as_int), inverse) {
            (Some(-1), Some(inverse)) => (inverse, None),
            _ => (f, exponent),
        };
        let argument = self.bare_argument()?;
        let value = Expr::Apply(f, Box::new(argument));
        self.leave();
        Ok(match exponent {
            Some(n) => value.raised(n),
            None => value,
        })
    }

    pub(super) fn logarithm(&mut self) -> Result<Expr, NotMath> {
        self.enter()?;
        self.at += 1;
        let mut base = Expr::int(10);
        if self.eat(&Token::Under) {
            base = self.argument()?;
        }
        let exponent = if self.eat(&Token::Caret) { Some(self.exponent()?) } else { None };
        let argument = self.bare_argument()?;
        let value = Expr::Log(Box::new(base), Box::new(argument));
        self.leave();
        Ok(match exponent {
            Some(n) => value.raised(n),
            None => value,
        })
    }

    /// An operator is known only by how it is written, up to the end of its term.
    pub(super) fn operator(&mut self, name: &str) -> Result<Expr, NotMath> {
        let mut text = String::new();
        let mut depth = 0usize;
        self.at += 1;
        while let Some(token) = self.peek() {
            match token {
                Token::Open(_) => depth += 1,
                Token::Close(_) if depth == 0 => break,
                Token::Close(_) => depth -= 1,
                Token::Plus | Token::Minus | Token::Comma | Token::Semicolon | Token::Relation(_)
                    if depth == 0 && !text.is_empty() =>
                {
                    break;
                }
                _ => {}
            }
            text.push_str(&spell(token));
            self.at += 1;
        }
        let operator = self.names.id(&format!("\\{name}")).ok_or(NotMath("too many symbols"))?;
        let body = self.names.id(&text).ok_or(NotMath("too many symbols"))?;
        Ok(Expr::Opaque(operator, vec![Expr::Symbol(body)]))
    }
}
