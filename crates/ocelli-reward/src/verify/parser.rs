//! Tokens to expressions. Conventions, fixed here once:
//!
//! * `-x^2` is `-(x^2)`; powers associate to the right.
//! * `a/bc` is `a/(bc)`, but a fraction of two numerals is a coefficient: `1/2x` is `(1/2)x`.
//! * `1\frac{1}{2}` and `1 1/2` are mixed numbers when the fraction is proper.
//! * `\sin 2x` takes the whole product, `\sin(x) y` only the bracket; `\sin^{-1}` is the inverse function.
//! * `e` is Euler's number and `i` the imaginary unit; `\log` without a base is decimal.
//! * `f(x)`, `g(x)`, `h(x)` and a letter before a bracket with a comma are functions; other letters multiply.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

use super::expr::{Expr, Function, Names};
use super::limits::{MAX_DEPTH, MAX_MARKS, MAX_NODES};
use super::token::{Bracket, NotMath, Relation, Token};

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
    fn plus_minus(&mut self, upper_is_plus: bool) -> bool {
        self.saw_plus_minus = true;
        self.plus != upper_is_plus
    }

    fn product(&mut self) -> Result<Expr, NotMath> {
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
    fn divides(&self) -> bool {
        !matches!(self.peek_at(1), Some(Token::Unit(_) | Token::Word(_)))
    }

    /// Tokens that multiply without a sign, letters and numerals only.
    fn starts_plain_atom(&self) -> bool {
        matches!(self.peek(), Some(Token::Symbol(_) | Token::Pi | Token::E | Token::I | Token::Sqrt))
    }

    fn starts_atom(&self) -> bool {
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

    fn signed(&mut self) -> Result<Expr, NotMath> {
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

    fn power(&mut self) -> Result<Expr, NotMath> {
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

    fn exponent(&mut self) -> Result<Expr, NotMath> {
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
    fn argument(&mut self) -> Result<Expr, NotMath> {
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

    fn atom(&mut self) -> Result<Expr, NotMath> {
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

    fn constant(&mut self, value: Expr) -> Result<Expr, NotMath> {
        self.at += 1;
        Ok(value)
    }

    /// What may follow a numeral: a base, or the fraction of a mixed number.
    fn after_numeral(&mut self, value: BigRational, whole: bool) -> Result<Expr, NotMath> {
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
    fn suffixed(&mut self, name: &str) -> String {
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
    fn spelled(&mut self) -> String {
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

    fn symbol(&mut self, name: &str) -> Result<Expr, NotMath> {
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

    fn is_call(&self, name: &str) -> bool {
        let stem = name.trim_end_matches('\'').split('_').next().unwrap_or(name);
        let Some((close, comma)) = self.brackets.get(self.at).copied().flatten() else { return false };
        let head = close == self.at + 2
            && matches!(self.tokens.get(self.at + 1), Some(Token::Symbol(_)))
            && self.tokens.get(close + 1) == Some(&Token::Relation(Relation::Equal));
        comma || head || matches!(stem, "f" | "g" | "h")
    }

    fn square_root(&mut self) -> Result<Expr, NotMath> {
        self.at += 1;
        let mut index = 2;
        if self.peek() == Some(&Token::Open(Bracket::Square)) {
            let n = self.group()?.as_int().filter(|n| (1..=64).contains(n));
            index = n.ok_or(NotMath("an index of a root that is not a small number"))? as u32;
        }
        let radicand = self.argument()?;
        Ok(Expr::Root(Box::new(radicand), index))
    }

    fn binomial(&mut self) -> Result<Expr, NotMath> {
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
    fn bare_argument(&mut self) -> Result<Expr, NotMath> {
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

    fn function(&mut self, f: Function) -> Result<Expr, NotMath> {
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

    fn logarithm(&mut self) -> Result<Expr, NotMath> {
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
    fn operator(&mut self, name: &str) -> Result<Expr, NotMath> {
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

/// Numerals divide to a numeral, so that `3/4` and `0.75` are the same expression.
fn fold_quotient(top: Expr, bottom: Expr) -> Expr {
    match (&top, &bottom) {
        (Expr::Number(a), Expr::Number(b)) if !b.is_zero() => Expr::Number(a / b),
        _ => top.over(bottom),
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
fn spell(token: &Token) -> String {
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
