//! LaTeX and plain text to tokens. One lexer reads both: `\sqrt{2}` and `sqrt(2)`, `\pi` and `pi`, `30^\circ` and `30°`.

mod command;
mod number;
mod word;

use super::names::greek;
use super::token::{Bracket, NotMath, Relation, Token};
use super::units::lookup;

/// Splits a text, whose compatibility characters are folded already, into tokens.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, NotMath> {
    lex_in(text, false)
}

/// [`lex`], with letters behind numbers and units taken for units.
pub(crate) fn lex_units(text: &str) -> Result<Vec<Token>, NotMath> {
    lex_in(text, true)
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
}
