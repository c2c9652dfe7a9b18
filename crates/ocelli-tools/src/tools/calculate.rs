//! `calculate`: exact arithmetic.
//!
//! Values are fractions of big integers, so 0.1 + 0.2 is 3/10 and 2^200 has all its digits. Only a square root that is
//! not rational, and a power with a fractional exponent that is not, leave the exact numbers: that is refused with the
//! approximate value in the complaint's place (`sqrt(2)` answers `1.41421356237...`, marked as not exact).

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::error::for_model;
use crate::{Call, Effort, Reply, Tool, ToolError};

/// Compute an arithmetic expression exactly. Knows + - * / ^ % (remainder), parentheses, decimals, and the functions
/// abs, sqrt, min, max, sum, mean, median, floor, ceil, round(x, digits), gcd, lcm.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calculate {
    /// The expression, such as (12.5 - 3) * 4 / 7 or mean(3, 5, 10).
    expression: String,
}

impl Tool for Calculate {
    const NAME: &'static str = "calculate";
    const EXAMPLE: &'static str = r#"{"expression": "(12.5 - 3) * 4 / 7"}"#;
    const EFFORT: Effort = Effort::None;

    fn run(self, _: &Call<'_>) -> Result<Reply, ToolError> {
        let value = evaluate(&self.expression).map_err(for_model)?;
        let decimal = decimal(&value.number, 12);
        let fraction = value.number.to_string();
        let text = match (value.exact, value.number.is_integer()) {
            (false, _) => format!("about {decimal}"),
            (true, true) => fraction.clone(),
            (true, false) if is_decimal_of(&decimal, &value.number) => decimal.clone(),
            (true, false) => format!("{fraction} = about {decimal}"),
        };
        Ok(Reply {
            text,
            data: json!({"exact": value.exact, "fraction": fraction, "decimal": decimal}),
            image: None,
            answer: None,
        })
    }
}

/// A value, and whether it is the exact one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exact {
    pub(crate) number: BigRational,
    pub(crate) exact: bool,
}

const MAX_CHARS: usize = 1000;
const MAX_DEPTH: usize = 64;
/// Numerators and denominators of more bits are refused; 2^13 bits are some 2,500 decimal digits.
const MAX_BITS: u64 = 1 << 13;

/// Evaluates an expression, or says where it is wrong.
pub(crate) fn evaluate(text: &str) -> Result<Exact, String> {
    if text.chars().count() > MAX_CHARS {
        return Err(format!("the expression is longer than {MAX_CHARS} characters"));
    }
    let plain: Vec<char> = text
        .chars()
        .map(|c| match c {
            '×' | '·' => '*',
            '÷' => '/',
            '−' | '–' => '-',
            c => c,
        })
        .collect();
    let mut parser = Parser { chars: plain, at: 0, depth: 0 };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(c) => Err(parser.wrong(&format!("`{c}` is not expected"))),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn wrong(&self, what: &str) -> String {
        let before: String =
            self.chars[..self.at.min(self.chars.len())].iter().rev().take(30).rev().collect();
        match before.is_empty() {
            true => format!("{what} at the start of the expression"),
            false => format!("{what} after `{before}`"),
        }
    }

    fn sum(&mut self) -> Result<Exact, String> {
        let mut left = self.product()?;
        loop {
            let op = match self.peek() {
                Some(c @ ('+' | '-')) => c,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.product()?;
            let number = if op == '+' { left.number + right.number } else { left.number - right.number };
            left = bounded(number, left.exact && right.exact)?;
        }
    }

    fn product(&mut self) -> Result<Exact, String> {
        let mut left = self.signed()?;
        loop {
            let op = match self.peek() {
                Some(c @ ('*' | '/' | '%')) => c,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.signed()?;
            if op != '*' && right.number.is_zero() {
                return Err(self.wrong("division by zero"));
            }
            let number = match op {
                '*' => left.number * right.number,
                '/' => left.number / right.number,
                _ => {
                    let whole = (&left.number / &right.number).floor();
                    left.number - whole * right.number
                }
            };
            left = bounded(number, left.exact && right.exact)?;
        }
    }

    fn signed(&mut self) -> Result<Exact, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is nested more than {MAX_DEPTH} deep"));
        }
        let value = if self.take('-') {
            let v = self.signed()?;
            Exact { number: -v.number, exact: v.exact }
        } else if self.take('+') {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn power(&mut self) -> Result<Exact, String> {
        let base = self.atom()?;
        let caret = self.take('^');
        if !caret {
            // `**` is the same; a single `*` belongs to the product.
            let stars = self.peek() == Some('*') && self.chars.get(self.at + 1) == Some(&'*');
            if !stars {
                return Ok(base);
            }
            self.at += 2;
        }
        let exponent = self.signed()?;
        let exact = base.exact && exponent.exact;
        if let Some(power) = whole_power(&base.number, &exponent.number)? {
            return bounded(power, exact);
        }
        if exponent.number == BigRational::new(1.into(), 2.into()) {
            let root = square_root(&base.number)?;
            return Ok(Exact { exact: exact && root.exact, ..root });
        }
        let (b, e) = (base.number.to_f64(), exponent.number.to_f64());
        let approximate = b.zip(e).map(|(b, e)| b.powf(e)).and_then(BigRational::from_float);
        match approximate {
            Some(number) => Ok(Exact { number, exact: false }),
            None => Err(self.wrong("this power is not a real number or too large")),
        }
    }

    fn atom(&mut self) -> Result<Exact, String> {
        let Some(c) = self.peek() else { return Err(self.wrong("something is missing")) };
        if c == '(' {
            self.at += 1;
            let value = self.sum()?;
            if !self.take(')') {
                return Err(self.wrong("`)` is missing"));
            }
            return Ok(value);
        }
        if c.is_ascii_digit() || c == '.' {
            return self.number();
        }
        if c.is_alphabetic() {
            return self.function();
        }
        Err(self.wrong(&format!("`{c}` is not expected")))
    }

    fn number(&mut self) -> Result<Exact, String> {
        let start = self.at;
        let mut digits = String::new();
        let mut after_point = None;
        while let Some(&c) = self.chars.get(self.at) {
            match c {
                '0'..='9' => {
                    digits.push(c);
                    after_point = after_point.map(|n: usize| n + 1);
                }
                '.' if after_point.is_none() => after_point = Some(0),
                '_' => {}
                _ => break,
            }
            self.at += 1;
        }
        let whole: BigInt = match digits.parse() {
            Ok(n) => n,
            Err(_) => {
                self.at = start;
                return Err(self.wrong("a number has no digits"));
            }
        };
        let mut places = after_point.unwrap_or(0) as i64;
        if matches!(self.chars.get(self.at), Some('e' | 'E')) {
            let rest: String = self.chars[self.at + 1..].iter().take(6).collect();
            let length =
                rest.char_indices().take_while(|(i, c)| c.is_ascii_digit() || (*i == 0 && "+-".contains(*c)));
            let length = length.count();
            if let Ok(exponent) = rest[..length].parse::<i64>() {
                self.at += 1 + length;
                places -= exponent;
            }
        }
        let Ok(shift) = u32::try_from(places.unsigned_abs()) else {
            return Err(self.wrong("the exponent is too large"));
        };
        if u64::from(shift) > MAX_BITS / 4 {
            return Err(self.wrong("the exponent is too large"));
        }
        let scale = BigInt::from(10).pow(shift);
        let number = match places > 0 {
            true => BigRational::new(whole, scale),
            false => BigRational::from(whole * scale),
        };
        bounded(number, true)
    }

    fn function(&mut self) -> Result<Exact, String> {
        let mut name = String::new();
        while let Some(c) = self.chars.get(self.at).filter(|c| c.is_alphanumeric() || **c == '_') {
            name.extend(c.to_lowercase());
            self.at += 1;
        }
        if !self.take('(') {
            return Err(self.wrong(&format!("`{name}` is neither a number nor followed by `(`")));
        }
        let mut values = Vec::new();
        if !self.take(')') {
            loop {
                values.push(self.sum()?);
                if self.take(')') {
                    break;
                }
                if !self.take(',') {
                    return Err(self.wrong("`,` or `)` is missing"));
                }
            }
        }
        apply(&name, &values).map_err(|what| self.wrong(&what))
    }
}

/// Refuses numbers that have grown out of hand.
fn bounded(number: BigRational, exact: bool) -> Result<Exact, String> {
    match number.numer().bits() > MAX_BITS || number.denom().bits() > MAX_BITS {
        true => Err(format!("a number with more than {MAX_BITS} bits arises")),
        false => Ok(Exact { number, exact }),
    }
}

/// `base ^ exponent` for a whole exponent; `None` for another.
fn whole_power(base: &BigRational, exponent: &BigRational) -> Result<Option<BigRational>, String> {
    if !exponent.is_integer() {
        return Ok(None);
    }
    if base.is_zero() && exponent.is_negative() {
        return Err("division by zero: 0 to a negative power".to_owned());
    }
    let minus = -BigRational::one();
    if base.is_zero() || base.is_one() || *base == minus {
        let odd = (exponent.numer() % 2u32) != BigInt::zero();
        return Ok(Some(match (exponent.is_zero(), base.is_negative() && odd, base.is_zero()) {
            (true, ..) => BigRational::one(),
            (_, true, _) => minus,
            (.., true) => BigRational::zero(),
            _ => BigRational::one(),
        }));
    }
    let bits = base.numer().bits().max(base.denom().bits());
    let size = exponent.numer().abs().to_u64().unwrap_or(u64::MAX);
    // |base| is not 0 or 1, so numerator or denominator has at least 2 bits and each power adds at least one.
    if size.saturating_mul(bits.saturating_sub(1)) > MAX_BITS {
        return Err(format!("a number with more than {MAX_BITS} bits arises"));
    }
    Ok(Some(num_traits::Pow::pow(base, exponent.numer())))
}

fn square_root(number: &BigRational) -> Result<Exact, String> {
    if number.is_negative() {
        return Err("the square root of a negative number is not real".to_owned());
    }
    let root = BigRational::new(number.numer().sqrt(), number.denom().sqrt());
    if &(&root * &root) == number {
        return Ok(Exact { number: root, exact: true });
    }
    // floor(sqrt(n d) * 10^30) / (d 10^30): 30 digits after the point.
    let scale = BigInt::from(10).pow(30);
    let inner = number.numer() * number.denom() * &scale * &scale;
    Ok(Exact { number: BigRational::new(inner.sqrt(), number.denom() * scale), exact: false })
}

fn apply(name: &str, values: &[Exact]) -> Result<Exact, String> {
    let exact = values.iter().all(|v| v.exact);
    let numbers: Vec<&BigRational> = values.iter().map(|v| &v.number).collect();
    let one = || match numbers[..] {
        [x] => Ok(x),
        _ => Err(format!("`{name}` takes one value, not {}", numbers.len())),
    };
    let some = || match numbers.is_empty() {
        true => Err(format!("`{name}` needs at least one value")),
        false => Ok(()),
    };
    let sum = || numbers.iter().fold(BigRational::zero(), |a, b| a + *b);
    let number = match name {
        "abs" => one()?.abs(),
        "floor" => one()?.floor(),
        "ceil" => one()?.ceil(),
        "sqrt" => {
            let root = square_root(one()?)?;
            return Ok(Exact { exact: exact && root.exact, ..root });
        }
        "round" => match numbers[..] {
            [x] => x.round(),
            [x, digits] => {
                let digits = digits.to_i32().filter(|d| digits.is_integer() && (0..=30).contains(d));
                let digits = digits.ok_or("the digits of `round` must be a whole number from 0 to 30")?;
                let scale = BigRational::from(BigInt::from(10).pow(digits as u32));
                (x * &scale).round() / scale
            }
            _ => return Err("`round` takes a value and, if wanted, the number of digits".to_owned()),
        },
        "min" | "max" | "sum" | "mean" | "average" | "median" => {
            some()?;
            let mut sorted = numbers.clone();
            sorted.sort();
            let n = sorted.len();
            match name {
                "min" => sorted[0].clone(),
                "max" => sorted[n - 1].clone(),
                "sum" => sum(),
                "median" => (sorted[(n - 1) / 2] + sorted[n / 2]) / BigRational::from(BigInt::from(2)),
                _ => sum() / BigRational::from(BigInt::from(n)),
            }
        }
        "gcd" | "lcm" => {
            some()?;
            if numbers.iter().any(|x| !x.is_integer()) {
                return Err(format!("`{name}` takes whole numbers"));
            }
            let whole = numbers.iter().map(|x| x.numer().abs());
            let join = |a: BigInt, b: BigInt| {
                let g = gcd(a.clone(), b.clone());
                match (name, g.is_zero()) {
                    ("gcd", _) | (_, true) => g,
                    _ => a / g * b,
                }
            };
            BigRational::from(whole.reduce(join).unwrap_or_default())
        }
        _ => {
            return Err(format!(
                "there is no function `{name}`; there are abs, sqrt, min, max, sum, mean, median, floor, ceil, round, \
                 gcd, lcm, and names such as pi are not known: write the number"
            ));
        }
    };
    bounded(number, exact)
}

fn gcd(mut a: BigInt, mut b: BigInt) -> BigInt {
    while !b.is_zero() {
        (a, b) = (b.clone(), a % b);
    }
    a
}

/// Decimal notation with at most `places` digits after the point, rounded to nearest, without trailing zeros.
pub(crate) fn decimal(number: &BigRational, places: u32) -> String {
    let scale = BigInt::from(10).pow(places);
    let scaled = (number.abs() * BigRational::from(scale.clone())).round().to_integer();
    let (whole, part) = (&scaled / &scale, &scaled % &scale);
    let digits = format!("{part:0>width$}", part = part.to_string(), width = places as usize);
    let digits = digits.trim_end_matches('0');
    let sign = if number.is_negative() && !scaled.is_zero() { "-" } else { "" };
    if digits.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{digits}") }
}

fn is_decimal_of(text: &str, number: &BigRational) -> bool {
    evaluate(text).is_ok_and(|v| v.number == *number)
}
