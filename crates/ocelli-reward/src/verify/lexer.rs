//! LaTeX and plain text to tokens. One lexer reads both: `\sqrt{2}` and `sqrt(2)`, `\pi` and `pi`, `30^\circ` and `30°`.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::expr::Function;
use super::limits::MAX_DIGITS;
use super::units::{Unit, lookup};

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

/// Splits a text, whose compatibility characters are folded already, into tokens.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, NotMath> {
    lex_in(text, false)
}

fn lex_in(text: &str, roman: bool) -> Result<Vec<Token>, NotMath> {
    let mut lexer = Lexer { text, at: 0, out: Vec::with_capacity(16), depth: 0, roman };
    while lexer.at < text.len() {
        lexer.step()?;
    }
    Ok(lexer.out)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    out: Vec<Token>,
    /// Open brackets, inside which a comma separates.
    depth: u32,
    /// Inside `\text`, where a letter after a number is a unit.
    roman: bool,
}

const SKIPPED: [&str; 32] = [
    ",",
    ";",
    "!",
    ":",
    " ",
    "quad",
    "qquad",
    "displaystyle",
    "textstyle",
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "biggl",
    "biggr",
    "limits",
    "nolimits",
    "boldsymbol",
    "bm",
    "mathbf",
    "bf",
    "it",
    "mathit",
    "ensuremath",
    "hfill",
    "number",
];

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, token: Token, len: usize) {
        match token {
            Token::Open(_) => self.depth += 1,
            Token::Close(_) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.out.push(token);
        self.at += len;
    }

    fn step(&mut self) -> Result<(), NotMath> {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else { return Ok(()) };
        let token = match c {
            '0'..='9' => return self.number(),
            '.' if rest[1..].starts_with(|d: char| d.is_ascii_digit()) => return self.number(),
            'a'..='z' | 'A'..='Z' => return self.letters(),
            '\\' => return self.command(),
            '$' => return self.dollar(),
            '\n' => Token::Semicolon,
            _ if c.is_whitespace() || matches!(c, '~' | '`' | '…' | '"') => {
                self.at += c.len_utf8();
                return Ok(());
            }
            '+' => Token::Plus,
            '-' => Token::Minus,
            '±' => Token::PlusMinus,
            '∓' => Token::MinusPlus,
            '*' if rest.starts_with("**") => return self.stars(),
            '*' | '×' | '·' | '⋅' | '∙' => Token::Times,
            '/' | '÷' => Token::Divide,
            '^' => return self.caret(),
            '_' => Token::Under,
            '!' if rest.starts_with("!=") => {
                self.push(Token::Relation(Relation::NotEqual), 2);
                return Ok(());
            }
            '!' => Token::Bang,
            '%' => Token::Percent,
            '°' | '˚' | 'º' if rest[c.len_utf8()..].starts_with(['C', 'F']) => {
                let name = if rest[c.len_utf8()..].starts_with('C') { "°C" } else { "°F" };
                return self.unit(name, c.len_utf8() + 1);
            }
            '°' | '˚' | 'º' => Token::Degree,
            '℃' => return self.unit("℃", c.len_utf8()),
            '\'' => Token::Prime,
            '=' => Token::Relation(Relation::Equal),
            '≈' | '≃' | '≅' => Token::Relation(Relation::Approx),
            '≠' => Token::Relation(Relation::NotEqual),
            '<' | '>' => {
                let strict = !rest[1..].starts_with('=');
                let relation = match (c, strict) {
                    ('<', true) => Relation::Less,
                    ('<', false) => Relation::LessEqual,
                    (_, true) => Relation::Greater,
                    (_, false) => Relation::GreaterEqual,
                };
                self.push(Token::Relation(relation), if strict { 1 } else { 2 });
                return Ok(());
            }
            '≤' => Token::Relation(Relation::LessEqual),
            '≥' => Token::Relation(Relation::GreaterEqual),
            '∈' => Token::Relation(Relation::In),
            '∪' => Token::Cup,
            '∩' => Token::Cap,
            '∅' => Token::EmptySet,
            '∞' => Token::Infinity,
            'π' => Token::Pi,
            '√' => Token::Sqrt,
            'ℝ' => Token::Symbol("R".into()),
            ',' | '、' => Token::Comma,
            ';' | '；' => Token::Semicolon,
            ':' => Token::Colon,
            '|' => Token::Bar,
            '(' => Token::Open(Bracket::Round),
            ')' => Token::Close(Bracket::Round),
            '[' => Token::Open(Bracket::Square),
            ']' => Token::Close(Bracket::Square),
            '{' if rest.starts_with("{}") => {
                self.at += 2;
                return Ok(());
            }
            '{' => Token::Open(Bracket::Curly),
            '}' => Token::Close(Bracket::Curly),
            '⟨' => Token::Open(Bracket::Angle),
            '⟩' => Token::Close(Bracket::Angle),
            '&' => Token::Ampersand,
            '∠' | '△' | '▲' => return self.figure(c.len_utf8()),
            '.' | '。' => {
                // A point at the end of a part is punctuation.
                self.at += c.len_utf8();
                return Ok(());
            }
            '€' | '£' | '¥' | '₹' => return self.unit(&c.to_string(), c.len_utf8()),
            _ if ('\u{370}'..='\u{3ff}').contains(&c) => Token::Symbol(greek(c).to_owned()),
            _ if c.is_alphabetic() => return self.foreign_word(),
            _ => return Err(NotMath("a character that has no mathematical meaning here")),
        };
        self.push(token, c.len_utf8());
        Ok(())
    }

    /// `**` is a power when something stands before it, and emphasis otherwise.
    fn stars(&mut self) -> Result<(), NotMath> {
        let operand =
            matches!(self.out.last(), Some(Token::Number(_) | Token::Symbol(_) | Token::Close(_) | Token::E));
        let more =
            self.rest()[2..].starts_with(|c: char| c.is_alphanumeric() || matches!(c, '(' | '-' | '{'));
        if operand && more {
            self.push(Token::Caret, 2);
        } else {
            self.at += 2;
        }
        Ok(())
    }

    fn unit(&mut self, name: &str, len: usize) -> Result<(), NotMath> {
        let unit = lookup(name).ok_or(NotMath("an unknown unit"))?;
        self.push(Token::Unit(unit), len);
        Ok(())
    }

    /// `$` delimits formulas, and is a currency where a numeral follows a single one.
    fn dollar(&mut self) -> Result<(), NotMath> {
        let run = self.rest().len() - self.rest().trim_start_matches('$').len();
        let single = self.text.matches('$').count() == 1;
        if single && self.rest()[1..].trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            return self.unit("$", 1);
        }
        self.at += run;
        // Two formulas with nothing but space between are two answers.
        let rest = self.rest();
        let gap = rest.trim_start();
        let closes = self.text[..self.at].matches('$').count().is_multiple_of(2 * run);
        if closes && gap.len() < rest.len() && gap.starts_with('$') {
            self.out.push(Token::Semicolon);
        }
        Ok(())
    }

    fn caret(&mut self) -> Result<(), NotMath> {
        const DEGREES: [&str; 8] =
            ["^{\\circ}", "^\\circ", "^{ \\circ }", "^{\\circ }", "^ \\circ", "^{\\degree}", "^°", "^{°}"];
        const PRIMES: [(&str, usize); 4] =
            [("^{\\prime}", 1), ("^\\prime", 1), ("^{\\prime\\prime}", 2), ("^{\\prime \\prime}", 2)];
        let rest = self.rest();
        if let Some(form) = DEGREES.iter().find(|f| rest.starts_with(**f)) {
            let tail = &rest[form.len()..];
            let skip = tail.len() - tail.trim_start_matches([' ', '~']).len();
            let letter = ["\\mathrm{C}", "\\text{C}", "C"].iter().find(|l| tail[skip..].starts_with(**l));
            if let Some(letter) = letter {
                return self.unit("°C", form.len() + skip + letter.len());
            }
            self.push(Token::Degree, form.len());
            return Ok(());
        }
        if let Some((form, n)) = PRIMES.iter().find(|(f, _)| rest.starts_with(f)) {
            for _ in 0..*n {
                self.out.push(Token::Prime);
            }
            self.at += form.len();
            return Ok(());
        }
        self.push(Token::Caret, 1);
        Ok(())
    }

    /// Length of a separator of thousands at `at`, when exactly three digits follow it. The flag tells a plain comma.
    fn group_separator(&self, at: usize) -> Option<(usize, bool)> {
        let rest = &self.text[at..];
        let forms = [",\\!\\!", ",\\!", "{,}", "\\,", "\\!", "\\ ", ","];
        let form = forms.iter().find(|f| rest.starts_with(**f))?;
        let tail = &rest[form.len()..];
        let space = if *form == ",\\!" { tail.len() - tail.trim_start_matches(' ').len() } else { 0 };
        let digits = tail[space..].bytes().take_while(u8::is_ascii_digit).count();
        (digits == 3).then_some((form.len() + space, *form == ","))
    }

    fn digits_end(&self, from: usize) -> usize {
        from + self.text.as_bytes()[from..].iter().take_while(|b| b.is_ascii_digit()).count()
    }

    fn number(&mut self) -> Result<(), NotMath> {
        let start = self.at;
        let mut end = self.digits_end(start);
        let mut digits = self.text[start..end].to_owned();
        let mut grouped = false;
        if (1..=3).contains(&digits.len()) && !digits.starts_with('0') {
            let (mut far, mut all, mut commas) = (end, digits.clone(), false);
            while let Some((len, comma)) = self.group_separator(far) {
                if comma && self.depth > 0 {
                    break;
                }
                commas |= comma;
                all.push_str(&self.text[far + len..far + len + 3]);
                far += len + 3;
            }
            // `1,234,5` is a list, not a number and a rest.
            let tail = &self.text[far..];
            let list = commas && tail.starts_with(',') && tail[1..].starts_with(|c: char| c.is_ascii_digit());
            if far > end && !list {
                (end, digits, grouped) = (far, all, commas);
            }
        }
        let whole_digits = digits.len() as u32;
        let mut decimals = None;
        let tail = &self.text[end..];
        if tail.starts_with('.') && tail[1..].starts_with(|c: char| c.is_ascii_digit()) {
            let stop = self.digits_end(end + 1);
            decimals = Some((stop - end - 1) as u32);
            digits.push_str(&self.text[end + 1..stop]);
            end = stop;
        }
        if digits.len() > MAX_DIGITS {
            return Err(NotMath("a number with too many digits"));
        }
        let significant = digits.trim_start_matches('0').len().max(1) as u32;
        let whole: BigInt = match digits.parse::<i64>() {
            Ok(small) => small.into(),
            Err(_) => digits.parse().map_err(|_| NotMath("a malformed number"))?,
        };
        let mut value = match decimals {
            None => BigRational::from_integer(whole),
            Some(d) => BigRational::new(whole, power_of_ten(d)),
        };
        // `0.1\overline{6}`: the repeating part divided by 9...90...0.
        let tail = &self.text[end..];
        let repeat = tail
            .strip_prefix("\\overline{")
            .or_else(|| tail.strip_prefix("\\bar{"))
            .and_then(|t| t.split_once('}'))
            .filter(|(d, _)| !d.is_empty() && d.len() < 32 && d.bytes().all(|b| b.is_ascii_digit()));
        let point = tail.starts_with(".\\overline{");
        if let (Some((block, after)), Some(d)) = (repeat, decimals.or(point.then_some(0))) {
            let nines = power_of_ten(block.len() as u32) - 1;
            let block: BigInt = block.parse().map_err(|_| NotMath("a malformed number"))?;
            value += BigRational::new(block, nines * power_of_ten(d));
            end = self.text.len() - after.len();
            decimals = None;
        }
        // `1.5e3` with digits on both sides.
        let tail = &self.text[end..];
        if let Some(exponent) = tail.strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let len = exponent[sign..].bytes().take_while(u8::is_ascii_digit).count();
            if (1..=4).contains(&len) {
                let n: i32 = exponent[..sign + len].trim_start_matches('+').parse().unwrap_or(0);
                let scale = BigRational::from_integer(power_of_ten(n.unsigned_abs()));
                value = if n < 0 { value / scale } else { value * scale };
                decimals = Some((decimals.unwrap_or(0) as i32 - n).max(0) as u32);
                end += 1 + sign + len;
            }
        }
        self.out.push(Token::Number(Numeral { value, decimals, significant, whole_digits, grouped }));
        self.at = end;
        // `3.14...`
        let dots = self.rest().len() - self.rest().trim_start_matches('.').len();
        self.at += if dots > 1 { dots } else { 0 };
        Ok(())
    }

    fn letters(&mut self) -> Result<(), NotMath> {
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let run = &rest[..len];
        self.word(run, len)
    }

    /// Tokens of a run of letters that takes `len` bytes of the text.
    fn word(&mut self, run: &str, len: usize) -> Result<(), NotMath> {
        if let Some(token) = named(run)
            && !(run == "min" && self.after_number())
        {
            self.push(token, len);
            return Ok(());
        }
        if matches!(run, "and" | "or") {
            self.push(Token::Comma, len);
            return Ok(());
        }
        if run.len() == 1
            && self.roman
            && self.after_number()
            && let Some(unit) = lookup(run)
        {
            self.push(Token::Unit(unit), len);
            return Ok(());
        }
        if run.len() == 1 {
            let token = match run {
                "e" => Token::E,
                "i" => Token::I,
                _ => Token::Symbol(run.to_owned()),
            };
            self.push(token, len);
            return Ok(());
        }
        if self.after_value()
            && let Some(unit) = lookup(run)
        {
            self.push(Token::Unit(unit), len);
            return Ok(());
        }
        // `sinx`, `lnx`
        for head in ["sin", "cos", "tan", "ln"] {
            if let Some(tail) = run.strip_prefix(head)
                && tail.len() == 1
                && let Some(token) = named(head)
            {
                self.out.push(token);
                self.out.push(Token::Symbol(tail.to_owned()));
                self.at += len;
                return Ok(());
            }
        }
        let lower = run.bytes().filter(u8::is_ascii_lowercase).count();
        if lower >= 4 || run.len() > 6 || (lower >= 3 && run.len() > lower) || is_short_word(run) {
            self.push(Token::Word(run.to_owned()), len);
            return Ok(());
        }
        // Otherwise a product of one-letter variables.
        for c in run.chars() {
            let token = match c {
                'e' if lower == run.len() => Token::E,
                _ => Token::Symbol(c.to_string()),
            };
            self.out.push(token);
        }
        self.at += len;
        Ok(())
    }

    fn after_number(&self) -> bool {
        matches!(self.out.last(), Some(Token::Number(_)))
    }

    fn after_value(&self) -> bool {
        matches!(
            self.out.last(),
            Some(
                Token::Number(_)
                    | Token::Close(_)
                    | Token::Unit(_)
                    | Token::Pi
                    | Token::Word(_)
                    | Token::Divide
                    | Token::Open(Bracket::Curly)
            )
        )
    }

    fn foreign_word(&mut self) -> Result<(), NotMath> {
        let rest = self.rest();
        let word: String = rest.chars().take_while(|c| c.is_alphabetic() && !c.is_ascii()).collect();
        let len = word.len();
        if matches!(word.as_str(), "和" | "或" | "与" | "及") {
            self.push(Token::Comma, len);
            return Ok(());
        }
        let token = match lookup(&word) {
            Some(unit) => Token::Unit(unit),
            None => Token::Word(word),
        };
        self.push(token, len);
        Ok(())
    }

    /// `\angle ABC`, `\triangle ABC`: one name.
    fn figure(&mut self, len: usize) -> Result<(), NotMath> {
        let mark = &self.text[self.at..self.at + len];
        let tail = self.rest()[len..].trim_start();
        let letters = tail.bytes().take_while(|b| b.is_ascii_uppercase()).count();
        let digits = if letters == 0 { tail.bytes().take_while(u8::is_ascii_digit).count() } else { 0 };
        let name = format!("{mark}{}", &tail[..letters + digits]);
        self.at = self.text.len() - tail.len() + letters + digits;
        self.out.push(Token::Symbol(name));
        Ok(())
    }

    /// Content of the group that starts at `at` (after spaces), and where it ends; a single character without braces.
    fn raw_group(&self, at: usize) -> Option<(&'a str, usize)> {
        let tail = self.text[at..].trim_start();
        let start = self.text.len() - tail.len();
        if tail.starts_with('{') {
            let close = crate::extract::closing_brace(self.text, start + 1)?;
            return Some((&self.text[start + 1..close - 1], close));
        }
        let c = tail.chars().next()?;
        Some((&tail[..c.len_utf8()], start + c.len_utf8()))
    }

    fn command(&mut self) -> Result<(), NotMath> {
        let rest = &self.rest()[1..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let name = if letters > 0 {
            &rest[..letters]
        } else {
            match rest.chars().next() {
                Some(c) => &rest[..c.len_utf8()],
                None => return Err(NotMath("a lone backslash")),
            }
        };
        let len = 1 + name.len();
        if matches!(name, "left" | "right") {
            let next = rest[letters..].trim_start();
            if next.starts_with('|') {
                let token =
                    if name == "left" { Token::Open(Bracket::Abs) } else { Token::Close(Bracket::Abs) };
                self.at = self.text.len() - next.len();
                self.push(token, 1);
                return Ok(());
            }
            if next.starts_with('.') {
                self.at = self.text.len() - next.len() + 1;
                return Ok(());
            }
        }
        if SKIPPED.contains(&name) || matches!(name, "(" | ")" | "[" | "]") {
            self.at += len;
            return Ok(());
        }
        if let Some(token) = command_token(name) {
            self.push(token, len);
            return Ok(());
        }
        match name {
            "text" | "mathrm" | "textbf" | "mbox" | "textrm" | "rm" | "textit" | "operatorname"
            | "mathsf" | "texttt" | "mathbb" | "mathcal" | "mathscr" | "hbox" => self.text_command(name, len),
            "$" => self.unit("$", len),
            "#" | "&" | "_" => {
                self.at += len;
                Ok(())
            }
            "overline" | "vec" | "overrightarrow" | "hat" | "bar" | "tilde" | "widehat"
            | "overleftrightarrow" | "underline" | "dot" | "ddot" | "overset" | "widetilde" => {
                let (content, end) = self.raw_group(self.at + len).ok_or(NotMath("a mark over nothing"))?;
                let content: String = content.chars().filter(|c| !c.is_whitespace()).collect();
                let mark = if matches!(name, "overrightarrow" | "vec") { "vec" } else { name };
                self.out.push(Token::Decorated(format!("{mark} {content}")));
                self.at = end;
                Ok(())
            }
            "boxed" | "fbox" | "mathop" | "mathord" | "mathbin" | "phantom" => {
                self.at += len;
                Ok(())
            }
            "beginboxed" => {
                self.at += len;
                Ok(())
            }
            "angle" | "triangle" | "odot" | "measuredangle" => self.figure(len),
            "begin" => {
                let (kind, end) = self.raw_group(self.at + len).ok_or(NotMath("\\begin without a name"))?;
                self.at = end;
                if kind == "array"
                    && let Some((_, end)) = self.raw_group(self.at)
                {
                    self.at = end;
                }
                self.push(Token::Begin(kind.to_owned()), 0);
                self.depth += 1;
                Ok(())
            }
            "end" => {
                let (_, end) = self.raw_group(self.at + len).ok_or(NotMath("\\end without a name"))?;
                self.at = end;
                self.depth = self.depth.saturating_sub(1);
                self.push(Token::End, 0);
                Ok(())
            }
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                self.push(Token::Frac, len);
                Ok(())
            }
            _ => {
                // A Greek letter or a named quantity stands for itself.
                if letters == 0 {
                    return Err(NotMath("an unknown control symbol"));
                }
                self.push(Token::Symbol(name.to_owned()), len);
                Ok(())
            }
        }
    }

    /// `\text{...}`: a numeral, a unit, a conjunction, a letter, or words.
    fn text_command(&mut self, name: &str, len: usize) -> Result<(), NotMath> {
        let Some((content, end)) = self.raw_group(self.at + len) else {
            return Err(NotMath("text without content"));
        };
        // `{\rm cm}` has no group of its own.
        if name == "rm" && !self.rest()[len..].trim_start().starts_with('{') {
            self.at += len;
            return Ok(());
        }
        let content = content.trim_matches(|c: char| c.is_whitespace() || c == '~');
        let compact: String = content.chars().filter(|c| !c.is_whitespace() && *c != '~').collect();
        let token = match compact.as_str() {
            "and" | "or" | "," => Some(Token::Comma),
            "" => None,
            _ if name == "mathbb" || name == "mathcal" => Some(Token::Symbol(compact.clone())),
            // After a value a letter in roman type is a unit; elsewhere it is a name.
            _ if compact.chars().count() > 1 || self.after_value() => {
                lookup(compact.trim_end_matches('.')).map(Token::Unit)
            }
            _ => None,
        };
        if let Some(token) = token {
            self.out.push(token);
        } else if compact.chars().count() == 1 && compact.chars().all(char::is_alphabetic) {
            self.out.push(match compact.as_str() {
                "e" => Token::E,
                "i" => Token::I,
                _ => Token::Symbol(compact),
            });
        } else if let Some(token) = named(&compact) {
            self.out.push(token);
        } else if !content.is_empty() {
            let prose = compact.chars().all(char::is_alphabetic) && compact.len() > 1;
            if prose && name != "mathbf" && !content.contains(' ') && name != "text" && compact.len() <= 4 {
                // `\mathrm{max}`-like names of quantities.
                self.out.push(Token::Symbol(compact));
            } else {
                for token in lex_in(content, true)? {
                    // Inside text, letters side by side are a word, not a product.
                    self.out.push(token);
                }
            }
        }
        self.at = end;
        Ok(())
    }
}

fn power_of_ten(n: u32) -> BigInt {
    match 10i64.checked_pow(n) {
        Some(p) => p.into(),
        None => num_traits::pow(BigInt::from(10), n as usize),
    }
}

/// Function and constant names of plain text.
fn named(run: &str) -> Option<Token> {
    Some(match run {
        "sqrt" => Token::Sqrt,
        "pi" | "Pi" => Token::Pi,
        "inf" | "infinity" | "infty" | "oo" => Token::Infinity,
        "log" | "lg" => Token::Log,
        "sin" => Token::Function(Function::Sin),
        "cos" => Token::Function(Function::Cos),
        "tan" | "tg" => Token::Function(Function::Tan),
        "cot" => Token::Function(Function::Cot),
        "sec" => Token::Function(Function::Sec),
        "csc" => Token::Function(Function::Csc),
        "arcsin" | "asin" => Token::Function(Function::Asin),
        "arccos" | "acos" => Token::Function(Function::Acos),
        "arctan" | "atan" => Token::Function(Function::Atan),
        "sinh" => Token::Function(Function::Sinh),
        "cosh" => Token::Function(Function::Cosh),
        "tanh" => Token::Function(Function::Tanh),
        "exp" => Token::Function(Function::Exp),
        "ln" => Token::Function(Function::Ln),
        "abs" => Token::Function(Function::Abs),
        "floor" => Token::Function(Function::Floor),
        "ceil" => Token::Function(Function::Ceil),
        "binom" => Token::Binom,
        "max" | "min" | "gcd" | "lcm" | "det" | "lim" | "deg" | "dim" | "ker" | "sup" => {
            Token::Operator(run.to_owned())
        }
        "theta" | "alpha" | "beta" | "gamma" | "lambda" | "omega" | "phi" | "varphi" | "mu" | "sigma"
        | "delta" | "epsilon" | "rho" | "tau" => Token::Symbol(run.to_owned()),
        _ => return None,
    })
}

/// Tokens of LaTeX commands without arguments.
fn command_token(name: &str) -> Option<Token> {
    Some(match name {
        "sqrt" => Token::Sqrt,
        "binom" | "dbinom" | "tbinom" => Token::Binom,
        "pi" => Token::Pi,
        "infty" => Token::Infinity,
        "pm" => Token::PlusMinus,
        "mp" => Token::MinusPlus,
        "times" | "cdot" | "ast" | "bullet" => Token::Times,
        "div" => Token::Divide,
        "over" => Token::Over,
        "circ" | "degree" => Token::Degree,
        "prime" => Token::Prime,
        "approx" | "simeq" | "cong" | "sim" | "doteq" => Token::Relation(Relation::Approx),
        "ne" | "neq" => Token::Relation(Relation::NotEqual),
        "lt" => Token::Relation(Relation::Less),
        "gt" => Token::Relation(Relation::Greater),
        "le" | "leq" | "leqslant" | "leqq" => Token::Relation(Relation::LessEqual),
        "ge" | "geq" | "geqslant" | "geqq" => Token::Relation(Relation::GreaterEqual),
        "in" => Token::Relation(Relation::In),
        "cup" | "bigcup" => Token::Cup,
        "cap" => Token::Cap,
        "setminus" | "backslash" => Token::SetMinus,
        "emptyset" | "varnothing" => Token::EmptySet,
        "mid" | "vert" => Token::Bar,
        "lvert" => Token::Open(Bracket::Abs),
        "rvert" => Token::Close(Bracket::Abs),
        "{" | "lbrace" => Token::Open(Bracket::Set),
        "}" | "rbrace" => Token::Close(Bracket::Set),
        "langle" => Token::Open(Bracket::Angle),
        "rangle" => Token::Close(Bracket::Angle),
        "lfloor" => Token::Open(Bracket::Floor),
        "rfloor" => Token::Close(Bracket::Floor),
        "lceil" => Token::Open(Bracket::Ceil),
        "rceil" => Token::Close(Bracket::Ceil),
        "lbrack" => Token::Open(Bracket::Square),
        "rbrack" => Token::Close(Bracket::Square),
        "%" => Token::Percent,
        "\\" | "newline" => Token::Row,
        "colon" => Token::Colon,
        "sum" | "int" | "prod" | "lim" | "max" | "min" | "gcd" | "lcm" | "det" | "iint" | "oint" | "sup"
        | "inf" => Token::Operator(name.to_owned()),
        "ldots" | "cdots" | "dots" | "dotsc" => Token::Symbol("…".to_owned()),
        _ => match named(name) {
            Some(token @ (Token::Function(_) | Token::Log)) => token,
            _ => return None,
        },
    })
}

/// Words of two and three letters that occur as answers or in prose; other short runs are products of variables.
fn is_short_word(run: &str) -> bool {
    const WORDS: [&str; 44] = [
        "no", "yes", "odd", "one", "two", "six", "ten", "red", "the", "not", "all", "for", "if", "is", "it",
        "to", "of", "as", "at", "by", "he", "she", "Tom", "Amy", "Bob", "Sam", "Ben", "Max", "Joe", "Ann",
        "day", "old", "new", "big", "low", "hot", "cat", "dog", "pig", "hen", "car", "bus", "cup", "pen",
    ];
    WORDS.contains(&run)
}

fn greek(c: char) -> &'static str {
    match c {
        'α' => "alpha",
        'β' => "beta",
        'γ' => "gamma",
        'δ' => "delta",
        'ε' => "epsilon",
        'θ' => "theta",
        'λ' => "lambda",
        'μ' => "mu",
        'ρ' => "rho",
        'σ' => "sigma",
        'τ' => "tau",
        'φ' => "phi",
        'ϕ' => "phi",
        'ψ' => "psi",
        'ω' => "omega",
        'Δ' => "Delta",
        'Ω' => "Omega",
        'Σ' => "Sigma",
        'Φ' => "Phi",
        'η' => "eta",
        'ν' => "nu",
        'ξ' => "xi",
        'κ' => "kappa",
        _ => "greek",
    }
}
