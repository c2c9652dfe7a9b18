//! Runs of letters: functions, units, variables side by side, words of prose; names of figures.

use super::Lexer;
use crate::verify::names::{is_short_word, named, scale_word};
use crate::verify::token::{Bracket, NotMath, Token};
use crate::verify::units::lookup;

impl Lexer<'_> {
    pub(super) fn letters(&mut self) -> Result<(), NotMath> {
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
            && (self.roman && self.after_number() || self.within_unit())
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

    /// `km/h`, and inside text `N·m` and `kg m`: a letter that goes on with a unit.
    fn within_unit(&self) -> bool {
        match self.out.as_slice() {
            [.., Token::Unit(_), Token::Divide] => true,
            [.., Token::Unit(_) | Token::Caret, Token::Times | Token::Number(_)] | [.., Token::Unit(_)] => {
                self.roman
            }
            _ => false,
        }
    }

    fn after_number(&self) -> bool {
        matches!(self.out.last(), Some(Token::Number(_)))
    }

    pub(super) fn after_value(&self) -> bool {
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

    pub(super) fn foreign_word(&mut self) -> Result<(), NotMath> {
        let rest = self.rest();
        let mut word: String = rest.chars().take_while(|c| c.is_alphabetic() && !c.is_ascii()).collect();
        // `3万元`: a word of scale, then the unit; `千米` is a unit of its own.
        let scale = word.chars().next().filter(|c| scale_word(&c.to_string()).is_some());
        if let Some(scale) = scale.filter(|_| lookup(&word).is_none()) {
            word = scale.to_string();
        }
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
    pub(super) fn figure(&mut self, len: usize) -> Result<(), NotMath> {
        let mark = &self.text[self.at..self.at + len];
        let tail = self.rest()[len..].trim_start();
        let letters = tail.bytes().take_while(|b| b.is_ascii_uppercase()).count();
        let digits = if letters == 0 { tail.bytes().take_while(u8::is_ascii_digit).count() } else { 0 };
        let name = format!("{mark}{}", &tail[..letters + digits]);
        self.at = self.text.len() - tail.len() + letters + digits;
        self.out.push(Token::Symbol(name));
        Ok(())
    }
}
