//! JSON as language models write it.
//!
//! Strict JSON is tried first (`serde_json`). Only where that fails does a small reader follow that accepts what has
//! one possible meaning: single or typographic quotes, bare keys, a comma too many or too few, Python's `True`,
//! `False`, `None`, comments, line breaks inside strings, unknown escapes (`\(`), brackets left open at the end of the
//! text. Not accepted: a string that never ends, `NaN`, two values where one is due.
//!
//! One repair applies even to strict JSON: `"\frac{1}{2}"` is legal and means a form feed followed by `rac`. Nobody
//! means that, so `\f`, `\b`, a lone `\r` before a letter, and `\t` or `\n` where they begin a well-known LaTeX command
//! are read as the backslash that they were.

use std::fmt;

use serde_json::{Map, Value};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// A liberty that the reader took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Quotes other than `"`.
    Quotes,
    /// A key without quotes.
    BareKey,
    /// A comma too many or too few.
    Comma,
    /// `True`, `False`, `None`.
    PythonLiteral,
    /// `// ..` or `# ..` or `/* .. */`.
    Comment,
    /// A control character or unknown escape inside a string, or LaTeX read as escapes.
    Escape,
    /// A number such as `+1` or `.5`.
    Number,
    /// Brackets left open at the end.
    Unclosed,
    /// Tags missing or misspelt.
    Tags,
    /// Code fences.
    Fence,
    /// Text where none belongs.
    Garbage,
    /// Another arrangement of name and arguments.
    Shape,
    /// Another spelling of the tool's name.
    ToolName,
}

/// Where and why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What should have stood there.
    pub expected: String,
    /// The text that stands there, a few characters.
    pub found: String,
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, expected, found } = self;
        write!(f, "line {line}, column {column}: expected {expected}, ")?;
        if found.is_empty() { write!(f, "but the text ends") } else { write!(f, "found `{found}`") }
    }
}

/// Reads a text that should be one JSON value and nothing else, fences and blanks aside.
pub fn read_json(text: &str) -> Result<(Value, Vec<Repair>), JsonFault> {
    let (inner, fenced) = skip_fence(text);
    let (value, used, mut repairs) = read_prefix(inner, inner.len())?;
    if fenced {
        repairs.push(Repair::Fence);
    }
    let (rest, _) = skip_fence(&inner[used..]);
    if !rest.is_empty() {
        repairs.push(Repair::Garbage);
    }
    Ok((value, repairs))
}

/// Skips blanks, and code fences with their language.
pub(super) fn skip_fence(text: &str) -> (&str, bool) {
    let trimmed = text.trim_start();
    match trimmed.strip_prefix("```") {
        Some(rest) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
            (rest.trim_start(), true)
        }
        None => (trimmed, false),
    }
}

/// Reads one value at the start of `text`. The lenient reader looks no further than `limit` bytes. Returns the value
/// and how many bytes it took.
pub(super) fn read_prefix(text: &str, limit: usize) -> Result<(Value, usize, Vec<Repair>), JsonFault> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    if let Some(Ok(mut value)) = stream.next() {
        let used = stream.byte_offset();
        let mut repairs = Vec::new();
        if restore_latex(&mut value) {
            repairs.push(Repair::Escape);
        }
        return Ok((value, used, repairs));
    }
    let limit = if text.is_char_boundary(limit) { limit.min(text.len()) } else { text.len() };
    let mut reader = Reader { text: &text[..limit], at: 0, depth: 0, repairs: Vec::new() };
    reader.blanks();
    let mut value = reader.value()?;
    if restore_latex(&mut value) {
        reader.repairs.push(Repair::Escape);
    }
    reader.repairs.sort_unstable_by_key(|r| *r as u8);
    reader.repairs.dedup();
    Ok((value, reader.at, reader.repairs))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    repairs: Vec<Repair>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let hit = self.peek() == Some(wanted);
        if hit {
            self.at += wanted.len_utf8();
        }
        hit
    }

    fn fault<T>(&self, expected: impl Into<String>) -> Result<T, JsonFault> {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        let found = self.text[self.at..].chars().take(12).collect();
        Err(JsonFault { line, column, expected: expected.into(), found })
    }

    fn blanks(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            let skipped = if trimmed.starts_with("//") || trimmed.starts_with('#') {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else if trimmed.starts_with("/*") {
                trimmed.find("*/").map_or(trimmed.len(), |end| end + 2)
            } else {
                return;
            };
            self.at += skipped;
            self.repairs.push(Repair::Comment);
        }
    }

    fn value(&mut self) -> Result<Value, JsonFault> {
        match self.peek() {
            Some('{') => self.nested(Self::object),
            Some('[') => self.nested(Self::list),
            Some(c) if closing_quote(c).is_some() => Ok(Value::String(self.string()?)),
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            Some(c) if c.is_alphabetic() => self.word(),
            _ => self.fault("a value"),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, JsonFault>) -> Result<Value, JsonFault> {
        if self.depth == MAX_DEPTH {
            return self.fault(format!("at most {MAX_DEPTH} levels of nesting"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, JsonFault> {
        self.bump();
        let mut map = Map::new();
        loop {
            self.separators(map.is_empty());
            if self.eat('}') {
                return Ok(Value::Object(map));
            }
            if self.peek().is_none() {
                self.repairs.push(Repair::Unclosed);
                return Ok(Value::Object(map));
            }
            let key = self.key()?;
            self.blanks();
            if !self.eat(':') {
                return self
                    .fault(format!("`:` after the key `{}`", key.chars().take(20).collect::<String>()));
            }
            self.blanks();
            let value = self.value()?;
            map.insert(key, value);
            self.after_item('}')?;
        }
    }

    fn list(&mut self) -> Result<Value, JsonFault> {
        self.bump();
        let mut items = Vec::new();
        loop {
            self.separators(items.is_empty());
            if self.eat(']') {
                return Ok(Value::Array(items));
            }
            if self.peek().is_none() {
                self.repairs.push(Repair::Unclosed);
                return Ok(Value::Array(items));
            }
            items.push(self.value()?);
            self.after_item(']')?;
        }
    }

    /// Skips blanks and commas before an item or the end; more than one comma, or one at either end, is a repair.
    fn separators(&mut self, first: bool) {
        let mut commas = 0;
        loop {
            self.blanks();
            if !self.eat(',') {
                break;
            }
            commas += 1;
        }
        let ends = matches!(self.peek(), Some('}' | ']') | None);
        if commas > 1 || (commas == 1 && (first || ends)) {
            self.repairs.push(Repair::Comma);
        }
    }

    /// Checks what follows an item: a comma, the end, or (a comma too few) another item on the same level.
    fn after_item(&mut self, end: char) -> Result<(), JsonFault> {
        self.blanks();
        match self.peek() {
            None | Some(',') => Ok(()),
            Some(c) if c == end => Ok(()),
            Some(c) if closing_quote(c).is_some() || (end == ']' && matches!(c, '{' | '[')) => {
                self.repairs.push(Repair::Comma);
                Ok(())
            }
            Some(_) => self.fault(format!("`,` or `{end}`")),
        }
    }

    fn key(&mut self) -> Result<String, JsonFault> {
        match self.peek() {
            Some(c) if closing_quote(c).is_some() => self.string(),
            Some(c) if c.is_alphabetic() || c == '_' => {
                self.repairs.push(Repair::BareKey);
                Ok(self.bare())
            }
            _ => self.fault("a key in double quotes"),
        }
    }

    fn bare(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    fn word(&mut self) -> Result<Value, JsonFault> {
        let start = self.at;
        let (value, python) = match self.bare().as_str() {
            "true" => (Value::Bool(true), false),
            "false" => (Value::Bool(false), false),
            "null" => (Value::Null, false),
            "True" => (Value::Bool(true), true),
            "False" => (Value::Bool(false), true),
            "None" => (Value::Null, true),
            _ => {
                self.at = start;
                return self.fault("a value (text stands in double quotes)");
            }
        };
        if python {
            self.repairs.push(Repair::PythonLiteral);
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, JsonFault> {
        let start = self.at;
        let rest = &self.text[start..];
        let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(rest.len());
        let written = &rest[..end];
        let strict: Result<Value, _> = serde_json::from_str(written);
        let value = strict.ok().or_else(|| {
            self.repairs.push(Repair::Number);
            let number: f64 = written.parse().ok()?;
            serde_json::Number::from_f64(number).map(Value::Number)
        });
        match value {
            Some(value) => {
                self.at += end;
                Ok(value)
            }
            None => self.fault("a number"),
        }
    }

    fn string(&mut self) -> Result<String, JsonFault> {
        let start = self.at;
        let quote = self.bump().unwrap_or('"');
        let end = closing_quote(quote).unwrap_or(quote);
        if quote != '"' {
            self.repairs.push(Repair::Quotes);
        }
        let mut out = String::new();
        loop {
            match self.bump() {
                None => {
                    self.at = start;
                    return self.fault(format!("a closing {end} for this string"));
                }
                Some(c) if c == end => return Ok(out),
                Some('\\') => self.escape(&mut out),
                Some(c) => {
                    if c.is_control() {
                        self.repairs.push(Repair::Escape);
                    }
                    out.push(c);
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) {
        match self.bump() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some(c @ ('"' | '\'' | '\\' | '/')) => out.push(c),
            Some('u') => match self.unicode() {
                Some(c) => out.push(c),
                None => {
                    self.repairs.push(Repair::Escape);
                    out.push_str("\\u");
                }
            },
            Some(other) => {
                self.repairs.push(Repair::Escape);
                out.push('\\');
                out.push(other);
            }
            None => {}
        }
    }

    /// Four hexadecimal digits, or two such groups that form a surrogate pair.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4(self.at)?;
        let (code, length) = match first {
            0xD800..=0xDBFF => {
                let tail = self.text.get(self.at + 4..self.at + 6)?;
                let second = if tail == "\\u" { self.hex4(self.at + 6)? } else { return None };
                let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                (0x10000 + ((first - 0xD800) << 10) + low, 10)
            }
            _ => (first, 4),
        };
        let c = char::from_u32(code)?;
        self.at += length;
        Some(c)
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }
}

fn closing_quote(open: char) -> Option<char> {
    match open {
        '"' => Some('"'),
        '\'' => Some('\''),
        '\u{201c}' => Some('\u{201d}'),
        '\u{2018}' => Some('\u{2019}'),
        _ => None,
    }
}

/// LaTeX commands whose first letter is a JSON escape, without that letter.
const AFTER_TAB: [&str; 5] = ["imes", "ext{", "heta", "frac{", "riangle"];
const AFTER_NEWLINE: [&str; 2] = ["eq", "abla"];

/// Puts back the backslashes of LaTeX commands in all strings of `value`; true where one was put back.
fn restore_latex(value: &mut Value) -> bool {
    match value {
        Value::String(text) => match restored(text) {
            Some(fixed) => {
                *text = fixed;
                true
            }
            None => false,
        },
        // `|` and not `||`: every item is looked at.
        Value::Array(items) => items.iter_mut().fold(false, |any, v| restore_latex(v) | any),
        Value::Object(map) => map.values_mut().fold(false, |any, v| restore_latex(v) | any),
        _ => false,
    }
}

fn restored(text: &str) -> Option<String> {
    if !text.contains(['\u{8}', '\u{c}', '\r', '\t', '\n']) {
        return None;
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut changed = false;
    for (i, c) in text.char_indices() {
        let rest = &text[i + c.len_utf8()..];
        let letter = rest.starts_with(|c: char| c.is_ascii_alphabetic());
        let begins = |tails: &[&str]| {
            tails.iter().any(|tail| {
                rest.strip_prefix(tail).is_some_and(|more| {
                    tail.ends_with('{') || !more.starts_with(|c: char| c.is_ascii_alphabetic())
                })
            })
        };
        let letter = match c {
            '\u{8}' if letter => 'b',
            '\u{c}' if letter => 'f',
            '\r' if letter => 'r',
            '\t' if begins(&AFTER_TAB) => 't',
            '\n' if begins(&AFTER_NEWLINE) => 'n',
            _ => {
                out.push(c);
                continue;
            }
        };
        changed = true;
        out.push('\\');
        out.push(letter);
    }
    changed.then_some(out)
}
