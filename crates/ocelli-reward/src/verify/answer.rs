//! Text to a typed answer: lists, sets, tuples, relations, ratios and quantities around the expressions of the parser.

use std::borrow::Cow;

use num_traits::ToPrimitive;

use super::expr::{Expr, Names};
use super::lexer::lex;
use super::limits::{MAX_BYTES, MAX_CELLS, MAX_ITEMS};
use super::parser::Parser;
use super::token::{Bracket, NotMath, Relation, Token};
use super::units::Unit;
use super::value::{Decimal, Scalar, Value};
use crate::normalise_unicode;

/// Reads an answer; what is no mathematics becomes [`Value::Text`], with the reason.
pub(crate) fn read(text: &str, names: &mut Names) -> (Value, Option<NotMath>) {
    let text = trim(text);
    if text.len() > MAX_BYTES {
        return (Value::Text(String::new()), Some(NotMath("longer than an answer")));
    }
    let folded = normalise_unicode(text);
    let prepared = brace_arguments(&folded);
    let read = lex(&prepared).and_then(|tokens| {
        let mut parser = Parser::new(&tokens, names);
        let value = parser.answer()?;
        if parser.at == tokens.len() { Ok(value) } else { Err(NotMath("something follows the expression")) }
    });
    match read {
        Ok(value) => (value, None),
        Err(reason) => (Value::Text(text.to_owned()), Some(reason)),
    }
}

/// Removes emphasis, surrounding quotes and final punctuation.
pub(crate) fn trim(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let before = text.len();
        text = trim_spacing(text);
        for (open, close) in [("**", "**"), ("\"", "\""), ("“", "”"), ("`", "`"), ("__", "__"), ("*", "*")]
        {
            if let Some(inner) = text.strip_prefix(open).and_then(|t| t.strip_suffix(close)) {
                text = inner.trim();
            }
        }
        for head in ["\\boxed{", "\\fbox{", "\\beginboxed{", "boxed{"] {
            if let Some(inner) = text.strip_prefix(head)
                && crate::extract::closing_brace(text, head.len()) == Some(text.len())
            {
                text = inner[..inner.len() - 1].trim();
            }
        }
        if let Some(inner) = text.strip_prefix('$').and_then(|t| t.strip_suffix('$'))
            && !inner.trim_matches('$').contains('$')
        {
            text = inner.trim_matches('$').trim();
        }
        if text.len() == before {
            return text;
        }
    }
}

/// Removes white space, LaTeX spacing and final punctuation at both ends.
fn trim_spacing(text: &str) -> &str {
    const SPACING: [&str; 8] = ["\\;", "\\,", "\\!", "\\:", "\\ ", "~", "\\quad", "\\displaystyle"];
    let mut text = text.trim();
    loop {
        let before = text.len();
        for s in SPACING {
            text = text.strip_prefix(s).unwrap_or(text);
            text = text.strip_suffix(s).unwrap_or(text).trim();
        }
        if let Some(rest) = text.strip_suffix(['.', '。', ',', '，', ';', '；', ':', '?']) {
            text = rest.trim();
        }
        if text.len() == before {
            return text;
        }
    }
}

/// Braces around one-character arguments: `\frac12` becomes `\frac{1}{2}`, `\sqrt2` becomes `\sqrt{2}`.
fn brace_arguments(text: &str) -> Cow<'_, str> {
    if !text.contains("frac") && !text.contains("\\sqrt") && !text.contains("binom") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut wanted: Vec<(usize, u8)> = Vec::new(); // brace depth and arguments still to come
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let letters = rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let len = if letters > 0 {
                1 + letters
            } else {
                1 + rest[1..].chars().next().map_or(0, char::len_utf8)
            };
            // A command as an argument, e.g. `\frac\pi2`.
            let argument = wanted.last().is_some_and(|w| w.0 == depth);
            let arity = match &rest[1..len] {
                "frac" | "dfrac" | "tfrac" | "cfrac" | "binom" | "dbinom" | "tbinom" => 2,
                "sqrt" => 1,
                _ => 0,
            };
            if argument && arity == 0 && letters > 0 {
                out.push('{');
                out.push_str(&rest[..len]);
                out.push('}');
                take_argument(&mut wanted);
            } else {
                out.push_str(&rest[..len]);
            }
            if arity > 0 && !rest[len..].trim_start().starts_with('(') {
                wanted.push((depth, arity));
            }
            rest = &rest[len..];
            continue;
        }
        let expected = wanted.last().is_some_and(|w| w.0 == depth);
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if wanted.last().is_some_and(|w| w.0 == depth) {
                    take_argument(&mut wanted);
                }
                // Whatever waited inside this group waits in vain.
                while wanted.last().is_some_and(|w| w.0 > depth) {
                    wanted.pop();
                }
            }
            '[' if expected => {
                // The index of a root.
                let end = rest.find(']').map_or(rest.len(), |i| i + 1);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            _ if expected && c.is_ascii_alphanumeric() => {
                out.push('{');
                out.push(c);
                out.push('}');
                take_argument(&mut wanted);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            _ if expected && !c.is_whitespace() => {
                wanted.pop();
            }
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

fn take_argument(wanted: &mut Vec<(usize, u8)>) {
    if let Some(last) = wanted.last_mut() {
        last.1 -= 1;
        if last.1 == 0 {
            wanted.pop();
        }
    }
}

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
    fn answer(&mut self) -> Result<Value, NotMath> {
        let mut parts = Vec::new();
        loop {
            while matches!(self.peek(), Some(Token::Semicolon | Token::Row)) {
                self.at += 1;
            }
            if self.peek().is_none() && !parts.is_empty() {
                break;
            }
            parts.push(self.list()?);
            if !matches!(self.peek(), Some(Token::Semicolon | Token::Row)) || parts.len() >= MAX_ITEMS {
                break;
            }
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Value::Sequence(parts) })
    }

    fn list(&mut self) -> Result<Value, NotMath> {
        let mut items = Vec::new();
        loop {
            while self.eat(&Token::Comma) {}
            items.extend(self.item()?);
            if self.peek() != Some(&Token::Comma) || items.len() >= MAX_ITEMS {
                break;
            }
        }
        Ok(if items.len() == 1 { items.swap_remove(0) } else { Value::List(items) })
    }

    /// One element, or two where it holds `\pm`.
    fn item(&mut self) -> Result<Vec<Value>, NotMath> {
        let start = self.at;
        (self.plus, self.saw_plus_minus) = (true, false);
        let first = self.relation()?;
        if !self.saw_plus_minus {
            return Ok(vec![first]);
        }
        self.at = start;
        self.plus = false;
        let second = self.relation()?;
        (self.plus, self.saw_plus_minus) = (true, false);
        Ok(vec![first, second])
    }

    fn relation(&mut self) -> Result<Value, NotMath> {
        self.enter()?;
        let value = self.chain();
        self.leave();
        value
    }

    fn chain(&mut self) -> Result<Value, NotMath> {
        let mut sides = Vec::new();
        let mut ops = Vec::new();
        sides.push(if matches!(self.peek(), Some(Token::Relation(_))) { Value::Blank } else { self.side()? });
        while let Some(Token::Relation(op)) = self.peek() {
            self.at += 1;
            ops.push(*op);
            sides.push(self.side()?);
            if ops.len() >= MAX_ITEMS {
                return Err(NotMath("too long a chain of relations"));
            }
        }
        Ok(if ops.is_empty() { sides.swap_remove(0) } else { Value::Relation { sides, ops } })
    }

    fn side(&mut self) -> Result<Value, NotMath> {
        let mut value = self.operand()?;
        loop {
            match self.peek() {
                Some(Token::Cup) => {
                    self.at += 1;
                    let next = self.operand()?;
                    value = match value {
                        Value::Union(mut parts) => {
                            parts.push(next);
                            Value::Union(parts)
                        }
                        first => Value::Union(vec![first, next]),
                    };
                }
                Some(op @ (Token::Cap | Token::SetMinus)) => {
                    self.at += 1;
                    let next = self.operand()?;
                    let difference = *op == Token::SetMinus;
                    value = Value::SetOperation { difference, sets: Box::new((value, next)) };
                }
                Some(Token::Colon) => return self.ratio(value),
                _ => return Ok(value),
            }
        }
    }

    fn ratio(&mut self, first: Value) -> Result<Value, NotMath> {
        let digits = |token: Option<&Token>| match token {
            Some(Token::Number(n)) if n.decimals.is_none() => Some((n.value.to_i64()?, n.whole_digits)),
            _ => None,
        };
        let mut clock = digits(self.tokens.get(self.at.wrapping_sub(1))).map(|(h, _)| vec![h]);
        let mut parts =
            vec![first.as_expr().cloned().ok_or(NotMath("a ratio of things that are no numbers"))?];
        while self.eat(&Token::Colon) {
            let minutes = digits(self.peek()).filter(|(m, d)| *d == 2 && *m < 60);
            clock = match (clock, minutes) {
                (Some(mut parts), Some((m, _))) => {
                    parts.push(m);
                    Some(parts)
                }
                _ => None,
            };
            let part = self.operand()?;
            parts.push(part.as_expr().cloned().ok_or(NotMath("a ratio of things that are no numbers"))?);
            if parts.len() > MAX_ITEMS {
                return Err(NotMath("too long a ratio"));
            }
        }
        Ok(Value::Ratio { parts, clock: clock.filter(|c| (2..=3).contains(&c.len())) })
    }

    fn operand(&mut self) -> Result<Value, NotMath> {
        match self.peek() {
            Some(Token::EmptySet) => {
                self.at += 1;
                Ok(Value::Set(Vec::new()))
            }
            Some(Token::Begin(_)) => self.matrix(),
            Some(Token::Open(kind @ (Bracket::Set | Bracket::Angle))) => self.composite(*kind),
            Some(Token::Open(kind)) => {
                let comma = self.brackets.get(self.at).copied().flatten().is_some_and(|b| b.1);
                if comma && matches!(kind, Bracket::Round | Bracket::Square | Bracket::Curly) {
                    self.composite(*kind)
                } else {
                    self.scalar()
                }
            }
            _ => self.scalar(),
        }
    }

    fn composite(&mut self, open: Bracket) -> Result<Value, NotMath> {
        self.at += 1;
        let mut items = Vec::new();
        let saved = (self.plus, self.saw_plus_minus);
        loop {
            if let Some(Token::Close(close)) = self.peek() {
                self.at += 1;
                (self.plus, self.saw_plus_minus) = saved;
                return match open {
                    Bracket::Set | Bracket::Curly if *close == open => Ok(Value::Set(items)),
                    Bracket::Set | Bracket::Curly => Err(NotMath("a set that is not closed by its brace")),
                    _ => Ok(Value::Tuple { open, close: *close, items }),
                };
            }
            items.extend(self.item()?);
            if items.len() > MAX_ITEMS {
                return Err(NotMath("too many elements"));
            }
            match self.peek() {
                Some(Token::Comma | Token::Semicolon) => self.at += 1,
                Some(Token::Close(_)) => {}
                // `{x | x > 2}`: the condition says it all.
                Some(Token::Bar | Token::Colon) if open == Bracket::Set && items.len() == 1 => {
                    self.at += 1;
                    let condition = self.list()?;
                    (self.plus, self.saw_plus_minus) = saved;
                    return if self.eat(&Token::Close(Bracket::Set)) {
                        Ok(condition)
                    } else {
                        Err(NotMath("a set that is not closed by its brace"))
                    };
                }
                _ => return Err(NotMath("a list that does not go on with a comma")),
            }
        }
    }

    fn matrix(&mut self) -> Result<Value, NotMath> {
        let Some(Token::Begin(kind)) = self.peek() else { return Err(NotMath("no matrix here")) };
        if !(kind.contains("matrix") || kind == "array") || kind == "vmatrix" {
            return Err(NotMath("an environment that is no matrix"));
        }
        self.at += 1;
        let mut rows = vec![Vec::new()];
        let mut cells = 0;
        loop {
            match self.peek() {
                Some(Token::End) => {
                    self.at += 1;
                    rows.retain(|r: &Vec<Expr>| !r.is_empty());
                    return Ok(Value::Matrix(rows));
                }
                Some(Token::Row) => {
                    self.at += 1;
                    rows.push(Vec::new());
                }
                Some(Token::Ampersand | Token::Semicolon) => self.at += 1,
                _ => {
                    let cell = self.sum()?;
                    cells += 1;
                    if cells > MAX_CELLS {
                        return Err(NotMath("too large a matrix"));
                    }
                    if let Some(row) = rows.last_mut() {
                        row.push(cell);
                    }
                }
            }
        }
    }

    /// A quantity: an expression with a per cent sign or a unit.
    fn scalar(&mut self) -> Result<Value, NotMath> {
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
        let decimal = decimal_of(&self.tokens[first..self.at]);
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
                unit = super::units::lookup("°");
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
            value = value.plus(Expr::Number(&n.value / num_rational::BigRational::from_integer(size.into())));
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

fn ten_value() -> num_rational::BigRational {
    num_rational::BigRational::from_integer(10.into())
}

/// The relation read from the other side.
pub(crate) fn flipped(op: Relation) -> Relation {
    match op {
        Relation::Less => Relation::Greater,
        Relation::LessEqual => Relation::GreaterEqual,
        Relation::Greater => Relation::Less,
        Relation::GreaterEqual => Relation::LessEqual,
        other => other,
    }
}
