//! Quantities: an expression with a per cent sign, degrees, a word of scale, or a unit.

use num_rational::BigRational;
use num_traits::ToPrimitive;

use crate::verify::expr::Expr;
use crate::verify::names::scale_word;
use crate::verify::parser::Parser;
use crate::verify::token::{Bracket, NotMath, Token};
use crate::verify::units::{Unit, lookup};
use crate::verify::value::{Decimal, Scalar, Value};

const FILLERS: [&str; 12] = [
    "approximately",
    "about",
    "roughly",
    "exactly",
    "approx",
    "equal",
    "equals",
    "around",
    "nearly",
    "only",
    "almost",
    "total",
];

impl Parser<'_> {
    /// A quantity: an expression with a per cent sign or a unit.
    pub(super) fn scalar(&mut self) -> Result<Value, NotMath> {
        while matches!(self.peek(), Some(Token::Word(w)) if FILLERS.contains(&w.to_lowercase().as_str())) {
            self.at += 1;
        }
        let start = self.at;
        let currency = match self.peek() {
            Some(Token::Unit(u)) if matches!(self.peek_at(1), Some(Token::Number(_) | Token::Minus)) => {
                self.at += 1;
                Some(u.clone())
            }
            _ => None,
        };
        let first = self.at;
        self.based = None;
        self.keep_marks = true;
        let parsed = self.sum();
        self.keep_marks = false;
        let mut expr = parsed?;
        let mut decimal = decimal_of(&self.tokens[first..self.at]);
        // `1.5 million`, `3万`: at most two words, as in `2 hundred thousand`.
        for _ in 0..2 {
            let Some(Token::Word(word)) = self.peek() else { break };
            let Some(power) = scale_word(word).filter(|_| matches!(expr, Expr::Number(_))) else { break };
            self.at += 1;
            expr = match expr {
                Expr::Number(n) => Expr::Number(n * num_traits::pow(ten_value(), power as usize)),
                other => other,
            };
            decimal = decimal.map(|d| Decimal { places: d.places - power as i32, ..d });
        }
        let base = self.based.filter(|_| matches!(expr, Expr::Number(_)));
        let (mut unit, mut percent) = (currency, false);
        match self.peek() {
            Some(Token::Percent) if unit.is_none() => {
                self.at += 1;
                percent = true;
            }
            Some(Token::Degree) if unit.is_none() => {
                self.at += 1;
                expr = self.arc_minutes(expr)?;
                unit = lookup("°");
            }
            _ => {}
        }
        if matches!(
            self.peek(),
            Some(Token::Plus | Token::Minus | Token::Times | Token::Divide | Token::Caret)
        ) {
            // The mark stands inside an expression: read it again with marks as factors.
            self.at = start;
            return Ok(Value::expr(self.sum()?));
        }
        if unit.is_none() && !percent {
            unit = self.unit_phrase()?;
            // `a proof` counts nothing.
            if expr.has_symbols() && unit.as_ref().is_some_and(Unit::is_plain_count) {
                return Err(NotMath("prose"));
            }
        }
        Ok(Value::Scalar(Scalar { expr, decimal, percent, unit, base }))
    }

    /// `30^\circ 15' 20''`
    fn arc_minutes(&mut self, degrees: Expr) -> Result<Expr, NotMath> {
        let mut value = degrees;
        for size in [60, 3600] {
            let primes = if size == 60 { 1 } else { 2 };
            let Some(Token::Number(n)) = self.peek() else { break };
            if (1..=primes).any(|i| self.peek_at(i) != Some(&Token::Prime)) {
                break;
            }
            self.at += 1 + primes;
            value = value.plus(Expr::Number(&n.value / BigRational::from_integer(size.into())));
        }
        Ok(value)
    }

    /// Units behind a value: `cm^2`, `m/s`, `square inches`, `km per hour`, or a counted thing.
    fn unit_phrase(&mut self) -> Result<Option<Unit>, NotMath> {
        let braces = self.peek() == Some(&Token::Open(Bracket::Curly))
            && matches!(self.peek_at(1), Some(Token::Unit(_) | Token::Word(_)));
        if braces {
            self.at += 1;
        }
        let mut unit: Option<Unit> = None;
        let mut words: Vec<&str> = Vec::new();
        let (mut inverse, mut next_power) = (false, 1i8);
        loop {
            match self.peek() {
                Some(Token::Unit(u)) => {
                    self.at += 1;
                    let mut power = next_power * if inverse { -1 } else { 1 };
                    next_power = 1;
                    if self.peek() == Some(&Token::Caret) {
                        self.at += 1;
                        let n = if self.peek() == Some(&Token::Open(Bracket::Curly)) {
                            self.group()?
                        } else {
                            self.unit_power()?
                        };
                        let n = n.as_int().and_then(|n| i8::try_from(n).ok()).filter(|n| n.abs() <= 9);
                        power = power
                            .saturating_mul(n.ok_or(NotMath("a unit with a power that is no small number"))?);
                    }
                    let u = u.power(power);
                    unit = Some(match unit {
                        Some(have) => have.times(&u),
                        None => u,
                    });
                    inverse = false;
                }
                Some(Token::Divide) if unit.is_some() => {
                    self.at += 1;
                    inverse = true;
                }
                Some(Token::Times) if unit.is_some() && matches!(self.peek_at(1), Some(Token::Unit(_))) => {
                    self.at += 1
                }
                Some(Token::Word(w)) => {
                    self.at += 1;
                    match w.to_lowercase().as_str() {
                        "square" | "sq" | "squared" if unit.is_none() => next_power = 2,
                        "cubic" | "cu" if unit.is_none() => next_power = 3,
                        "per" => inverse = true,
                        _ => words.push(w),
                    }
                    if words.len() > 4 {
                        return Err(NotMath("prose"));
                    }
                }
                _ => break,
            }
        }
        if braces && !self.eat(&Token::Close(Bracket::Curly)) {
            return Err(NotMath("a bracket is not closed by its like"));
        }
        Ok(match (unit, words.is_empty()) {
            (None, false) => Some(Unit::counted(&words.join(" "))),
            (unit, _) => unit,
        })
    }

    fn unit_power(&mut self) -> Result<Expr, NotMath> {
        let negative = self.eat(&Token::Minus);
        match self.peek() {
            Some(Token::Number(n)) => {
                self.at += 1;
                let value = Expr::Number(n.value.clone());
                Ok(if negative { value.negated() } else { value })
            }
            _ => Err(NotMath("a unit with a power that is no number")),
        }
    }
}

/// Digits after the point of a quantity written as one decimal, alone or times a power of ten.
fn decimal_of(tokens: &[Token]) -> Option<Decimal> {
    let tokens = match tokens {
        [Token::Minus | Token::Plus, rest @ ..] => rest,
        all => all,
    };
    match tokens {
        [Token::Number(n)] => n.decimals.map(|d| Decimal { places: d as i32, significant: n.significant }),
        [Token::Number(n), Token::Times, Token::Number(ten), Token::Caret, exponent @ ..]
            if ten.value == ten_value() =>
        {
            let (negative, digits) = match exponent {
                [Token::Number(e)]
                | [Token::Open(Bracket::Curly), Token::Number(e), Token::Close(Bracket::Curly)] => (false, e),
                [Token::Minus, Token::Number(e)]
                | [
                    Token::Open(Bracket::Curly),
                    Token::Minus,
                    Token::Number(e),
                    Token::Close(Bracket::Curly),
                ] => (true, e),
                _ => return None,
            };
            let e = digits.value.to_i32()?;
            let places = n.decimals.unwrap_or(0) as i32;
            Some(Decimal {
                places: if negative { places + e } else { places - e },
                significant: n.significant,
            })
        }
        _ => None,
    }
}

fn ten_value() -> BigRational {
    BigRational::from_integer(10.into())
}
