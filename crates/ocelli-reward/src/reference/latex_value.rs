//! The number that latex2sympy2 followed by `eval` finds in a string, as MATH-Vision's and EMMA's rules use it.
//!
//! Observed from latex2sympy2 1.9.1 and kept here, because it shapes the published labels: the longest readable
//! prefix counts (`\frac{1}{2}}square` is 1/2) unless a token follows that its lexer does not know, such as `\;`,
//! `°` or `\)`; `:` divides; `6\frac{1}{4}` is a product; decimals become exact fractions; letters, `e` and `|x|`
//! end in a `NameError`; a list is no number. Integers and floats are told apart, because one rule compares prints.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};

use super::python;

const MAX_CHARS: usize = 4096;
const MAX_DEPTH: usize = 64;
const MAX_BITS: u64 = 1 << 14;

/// A value as Python holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An `int`.
    Int(BigInt),
    /// A finite `float`.
    Float(f64),
}

impl Value {
    /// Nearest float.
    pub fn to_f64(&self) -> f64 {
        match self {
            Self::Int(n) => n.to_f64().unwrap_or(f64::NAN),
            Self::Float(x) => *x,
        }
    }

    /// `round(value, 2)` as a float, and its `str`.
    pub fn rounded(&self) -> (f64, String) {
        match self {
            Self::Int(n) => (self.to_f64(), n.to_string()),
            Self::Float(x) => {
                let x = python::round(*x, 2);
                (x, python::float_str(x))
            }
        }
    }

    fn checked(self) -> Option<Self> {
        match &self {
            Self::Int(n) if n.bits() > MAX_BITS => None,
            Self::Float(x) if !x.is_finite() => None,
            _ => Some(self),
        }
    }

    fn add(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a + b),
            (a, b) => Self::Float(a.to_f64() + b.to_f64()),
        }
        .checked()
    }

    fn mul(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a * b),
            (a, b) => Self::Float(a.to_f64() * b.to_f64()),
        }
        .checked()
    }

    fn neg(self) -> Self {
        match self {
            Self::Int(n) => Self::Int(-n),
            Self::Float(x) => Self::Float(-x),
        }
    }

    fn div(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) if !b.is_zero() => Self::Float(BigRational::new(a, b).to_f64()?),
            (a, b) => Self::Float(a.to_f64() / b.to_f64()),
        }
        .checked()
    }

    fn pow(self, exponent: Self) -> Option<Self> {
        if let (Self::Int(a), Self::Int(n)) = (&self, &exponent) {
            let n = n.to_i64()?;
            if a.bits().saturating_mul(n.unsigned_abs()) > MAX_BITS {
                return None;
            }
            let power = Self::Int(num_traits::pow(a.clone(), n.unsigned_abs() as usize));
            return if n < 0 { Self::Int(BigInt::one()).div(power) } else { Some(power) };
        }
        Self::Float(self.to_f64().powf(exponent.to_f64())).checked()
    }
}

/// The value of the longest readable prefix of `s`; `None` where the official program raises an exception.
pub fn latex_value(s: &str) -> Option<Value> {
    if s.len() > MAX_CHARS {
        return None;
    }
    let mut reader = Reader { chars: s.chars().filter(|c| *c != '$').collect(), at: 0, depth: 0 };
    let value = reader.sum()?;
    reader.skip();
    let ends = match reader.rest() {
        [] | [')' | ']' | '}' | '.' | '\'' | '&' | '_', ..] | ['\\', '\\', ..] => true,
        _ => reader.command() == "to",
    };
    ends.then_some(value)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

const SPACING: [&str; 5] = ["\\displaystyle", "\\left", "\\right", "\\,", "\\quad"];

impl Reader {
    fn rest(&self) -> &[char] {
        &self.chars[self.at.min(self.chars.len())..]
    }

    fn starts(&self, word: &str) -> bool {
        let mut rest = self.rest().iter();
        word.chars().all(|c| rest.next() == Some(&c))
    }

    fn eat(&mut self, word: &str) -> bool {
        self.skip();
        let hit = self.starts(word);
        if hit {
            self.at += word.chars().count();
        }
        hit
    }

    fn skip(&mut self) {
        loop {
            match self.rest().first() {
                Some(c) if c.is_whitespace() || *c == '~' => self.at += 1,
                Some('\\') => match SPACING.iter().find(|w| self.starts(w)) {
                    Some(word) => self.at += word.chars().count(),
                    None => return,
                },
                _ => return,
            }
        }
    }

    fn command(&self) -> String {
        match self.rest().split_first() {
            Some(('\\', name)) => name.iter().take_while(|c| c.is_ascii_alphabetic()).collect(),
            _ => String::new(),
        }
    }

    fn sum(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut total = self.product()?;
        loop {
            if self.eat("+") {
                total = total.add(self.product()?)?;
            } else if self.eat("-") {
                total = total.add(self.product()?.neg())?;
            } else {
                self.depth -= 1;
                return Some(total);
            }
        }
    }

    fn product(&mut self) -> Option<Value> {
        let mut total = self.signed()?;
        loop {
            if self.eat("\\times") || self.eat("\\cdot") || self.eat("*") {
                total = total.mul(self.signed()?)?;
            } else if self.eat("\\div") || self.eat("/") || self.eat(":") {
                total = total.div(self.signed()?)?;
            } else if self.starts_atom() {
                total = total.mul(self.power()?)?;
            } else {
                return Some(total);
            }
        }
    }

    fn starts_atom(&mut self) -> bool {
        self.skip();
        match self.rest() {
            [c, ..] if c.is_ascii_alphanumeric() || matches!(c, '(' | '[' | '{' | '|') => true,
            ['.', next, ..] => next.is_ascii_digit(),
            ['\\', ..] => !matches!(self.command().as_str(), "" | "to"),
            _ => false,
        }
    }

    fn signed(&mut self) -> Option<Value> {
        let mut negative = false;
        loop {
            if self.eat("-") {
                negative = !negative;
            } else if !self.eat("+") {
                break;
            }
        }
        let value = self.power()?;
        Some(if negative { value.neg() } else { value })
    }

    fn power(&mut self) -> Option<Value> {
        let mut base = self.atom()?;
        loop {
            if self.eat("!") {
                base = factorial(&base)?;
            } else if self.eat("\\%") {
                base = base.div(Value::Int(100.into()))?;
            } else if self.eat("^") {
                let exponent = self.atom()?;
                base = base.pow(exponent)?;
            } else {
                return Some(base);
            }
        }
    }

    fn group(&mut self, open: char, close: char) -> Option<Value> {
        if !self.eat(&open.to_string()) {
            return None;
        }
        let value = self.sum()?;
        self.eat(&close.to_string()).then_some(value)
    }

    fn atom(&mut self) -> Option<Value> {
        self.skip();
        match *self.rest().first()? {
            c if c.is_ascii_digit() || c == '.' => self.number(),
            '(' => self.group('(', ')'),
            '[' => self.group('[', ']'),
            '{' => self.group('{', '}'),
            '\\' => self.function(),
            _ => None,
        }
    }

    fn function(&mut self) -> Option<Value> {
        let name = self.command();
        self.at += 1 + name.chars().count();
        match name.as_str() {
            "pi" => Some(Value::Float(std::f64::consts::PI)),
            "frac" | "dfrac" | "tfrac" => {
                let top = self.group('{', '}')?;
                top.div(self.group('{', '}')?)
            }
            "sqrt" => {
                let index = if self.starts("[") { self.group('[', ']')? } else { Value::Int(2.into()) };
                let radicand = self.group('{', '}')?.to_f64();
                Value::Float(radicand.powf(1.0 / index.to_f64())).checked()
            }
            "log" => {
                let base = if self.eat("_") { self.atom()?.to_f64() } else { 10.0 };
                Value::Float(self.power()?.to_f64().ln() / base.ln()).checked()
            }
            "sin" => Value::Float(self.power()?.to_f64().sin()).checked(),
            "cos" => Value::Float(self.power()?.to_f64().cos()).checked(),
            "tan" if self.eat("^{-1}") => Value::Float(self.power()?.to_f64().atan()).checked(),
            "tan" => Value::Float(self.power()?.to_f64().tan()).checked(),
            _ => None,
        }
    }

    /// Digits with thousands groups, and a fraction after a point.
    fn number(&mut self) -> Option<Value> {
        let mut digits = String::new();
        let mut decimals: Option<usize> = None;
        while let [c, next @ ..] = self.rest() {
            let group = *c == ','
                && decimals.is_none()
                && !digits.is_empty()
                && next.len() > 2
                && next[..3].iter().all(char::is_ascii_digit)
                && !next.get(3).is_some_and(char::is_ascii_digit);
            if c.is_ascii_digit() {
                digits.push(*c);
                decimals = decimals.map(|n| n + 1);
            } else if *c == '.' && decimals.is_none() && next.first().is_some_and(char::is_ascii_digit) {
                decimals = Some(0);
            } else if !group {
                break;
            }
            self.at += 1;
        }
        let whole: BigInt = digits.parse().ok()?;
        let value = BigRational::new(whole, num_traits::pow(BigInt::from(10), decimals.unwrap_or(0)));
        if value.is_integer() { Value::Int(value.to_integer()) } else { Value::Float(value.to_f64()?) }
            .checked()
    }
}

fn factorial(v: &Value) -> Option<Value> {
    let Value::Int(n) = v else { return None };
    let n = n.to_u32().filter(|n| *n <= 1000)?;
    Some(Value::Int((2..=n).fold(BigInt::one(), |acc, k| acc * k)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints of `round(eval(str(latex2sympy(s))), 2)` under latex2sympy2 1.9.1; `None` where it raised.
    #[test]
    fn as_the_official_parser() {
        let expected = [
            ("\\frac{12}{5}}.theansweris:\\frac{12}{5", Some("2.4")),
            ("$1: 4$", Some("0.25")),
            ("7:30", Some("0.23")),
            ("10\\%", Some("0.1")),
            ("5-2-3-4-1", Some("-5")),
            ("6\\frac{1}{4}", Some("1.5")),
            ("1,234", Some("1234")),
            ("2^10", Some("1024")),
            ("1 2", Some("2")),
            ("--3", Some("3")),
            ("-\\,4", Some("-4")),
            ("3.4.5", Some("1.7")),
            ("1.0", Some("1")),
            ("2.50", Some("2.5")),
            ("4^{1/2}", Some("2.0")),
            ("\\log_{2}8", Some("3.0")),
            ("\\pi-\\tan ^{-1}\\left(\\frac{1}{2}\\right)", Some("2.68")),
            ("\\frac{15!}{5!\\cdot4!}", Some("454053600.0")),
            ("3)", Some("3")),
            ("3\\to4", Some("3")),
            ("25\\pi\\)", None),
            ("3,5,7", None),
            ("90^\\circ", None),
            ("10 \\mathrm{~cm}", None),
            ("\\sqrt2", None),
            ("e", None),
            ("3x", None),
            ("3\\;cm", None),
            ("3+", None),
            ("|-3|", None),
            ("2^-1", None),
            ("1/0", None),
            ("(1,2)", None),
            ("3%", None),
            ("", None),
        ];
        for (s, want) in expected {
            assert_eq!(latex_value(s).map(|v| v.rounded().1).as_deref(), want, "{s}");
        }
    }

    #[test]
    fn hostile_input_ends() {
        assert_eq!(latex_value("10^{10^{10}}"), None);
        assert_eq!(latex_value(&"(".repeat(4000)), None);
        assert_eq!(latex_value(&"-".repeat(4000)), None);
        assert_eq!(latex_value(&"9".repeat(1 << 20)), None);
        assert_eq!(latex_value("9999!"), None);
    }
}
