//! Text to a typed answer: lists, sets, tuples, relations and ratios around the expressions of the parser.

mod quantity;
mod text;

use num_traits::ToPrimitive;

use super::expr::{Expr, Names};
use super::lexer::{lex, lex_units};
use super::limits::{MAX_BYTES, MAX_CELLS, MAX_ITEMS};
use super::parser::Parser;
use super::token::{Bracket, NotMath, Relation, Token};
use super::units::NONE;
use super::value::Value;
use crate::normalise_unicode;

use text::brace_arguments;
pub(crate) use text::trim;

/// Reads an answer; what is no mathematics becomes [`Value::Text`], with the reason.
pub(crate) fn read(text: &str, names: &mut Names) -> (Value, Option<NotMath>) {
    let text = trim(text);
    if text.len() > MAX_BYTES {
        return (Value::Text(String::new()), Some(NotMath("longer than an answer")));
    }
    let folded = normalise_unicode(text);
    // An empty group is layout everywhere else (`{}_2`).
    if text.len() <= 8 && text.chars().filter(|c| !c.is_whitespace()).eq("{}".chars()) {
        return (Value::Set(Vec::new()), None);
    }
    match lex(&brace_arguments(&folded)).and_then(|tokens| parse(&tokens, names)) {
        Ok(value) => (value, None),
        Err(reason) => (Value::Text(text.to_owned()), Some(reason)),
    }
}

/// The answer as a physical quantity, with every letter behind a number taken for a unit: `5 m/s`, `3 N`. `None` where it
/// is none.
pub(crate) fn read_quantity(text: &str, names: &mut Names) -> Option<Value> {
    let folded = normalise_unicode(trim(text));
    let value = parse(&lex_units(&brace_arguments(&folded)).ok()?, names).ok()?;
    match &value {
        Value::Scalar(s) if !s.expr.has_symbols() => {
            let physical = s.unit.as_ref().is_some_and(|u| u.dimension != NONE);
            physical.then_some(value)
        }
        _ => None,
    }
}

fn parse(tokens: &[Token], names: &mut Names) -> Result<Value, NotMath> {
    let mut parser = Parser::new(tokens, names);
    let value = parser.answer()?;
    if parser.at == tokens.len() { Ok(value) } else { Err(NotMath("something follows the expression")) }
}

/// Whether a text says in words that there is no solution.
pub(crate) fn says_none(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "no solution",
        "no solutions",
        "no real solution",
        "no real solutions",
        "there is no solution",
        "there are no solutions",
        "empty set",
        "the empty set",
        "无解",
        "空集",
    ];
    text.len() < 32
        && WORDS.contains(&text.to_lowercase().trim_start_matches("\\text{").trim_end_matches('}').trim())
}

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
            // `[[1, 2]]`: one row; `[[x]]` is a pair of brackets around an expression.
            Some(Token::Open(Bracket::Square))
                if self.peek_at(1) == Some(&Token::Open(Bracket::Square))
                    && self.brackets.get(self.at + 1).copied().flatten().is_some_and(|b| b.1) =>
            {
                self.composite(Bracket::Square)
            }
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
