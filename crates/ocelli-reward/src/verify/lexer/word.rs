//! Runs of letters: functions, units, variables side by side, words of prose; names of figures.

use num_traits::Zero;

use super::Lexer;
use crate::verify::names::{is_short_word, named, scale_word};
use crate::verify::numeral::{chinese, is_measure};
use crate::verify::token::{Bracket, NotMath, Numeral, Token};
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
        if self.chinese_number(&word)? {
            return Ok(());
        }
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

    /// A number in Chinese words, where nothing but a unit or a counted thing follows: `三分之一`, `百分之20`, `十二厘米`, but
    /// not the three of a triangle (`三角形`). False where there is none.
    fn chinese_number(&mut self, word: &str) -> Result<bool, NotMath> {
        let conjunction = ["和", "或", "与", "及"].into_iter().find(|c| word.starts_with(*c));
        if let Some(c) = conjunction.filter(|c| self.ends_as_number(&word[c.len()..])) {
            self.push(Token::Comma, c.len());
            return Ok(true);
        }
        let signed = ["负", "負"].into_iter().find(|c| word.starts_with(*c));
        if let Some(c) = signed.filter(|c| self.ends_as_number(&word[c.len()..])) {
            self.push(Token::Minus, c.len());
            return Ok(true);
        }
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        if word == "百分之" && digits(&self.rest()[word.len()..]) {
            self.at += word.len();
            self.number()?;
            self.push(Token::Percent, 0);
            return Ok(true);
        }
        if word == "分之" && digits(&self.rest()[word.len()..]) {
            let Some(Token::Number(below)) = self.out.last().cloned() else { return Ok(false) };
            if below.decimals.is_some() || below.value.is_zero() {
                return Ok(false);
            }
            self.at += word.len();
            self.number()?;
            if let (Some(Token::Number(above)), Some(Token::Number(_))) = (self.out.pop(), self.out.pop()) {
                let value = above.value / below.value;
                self.out.push(Token::Number(Numeral { value, decimals: None, grouped: false, ..below }));
            }
            return Ok(true);
        }
        if self.after_number() || !self.ends_as_number(word) {
            return Ok(false);
        }
        let Some(found) = chinese(word) else { return Ok(false) };
        let numeral = Numeral {
            value: found.value,
            decimals: found.decimals,
            significant: found.significant,
            whole_digits: 1,
            grouped: false,
        };
        self.push(Token::Number(numeral), found.len);
        if found.percent {
            self.push(Token::Percent, 0);
        }
        Ok(true)
    }

    /// Whether a word is a number in Chinese words, with no more behind it than a unit, a counted thing, or a conjunction and
    /// another such number.
    fn ends_as_number(&self, word: &str) -> bool {
        let mut word = word;
        loop {
            let Some(found) = chinese(word) else { return false };
            let tail = &word[found.len..];
            if is_measure(tail) || lookup(tail).is_some() {
                return true;
            }
            match ["和", "或", "与", "及"].into_iter().find_map(|c| tail.strip_prefix(c)) {
                Some(next) => word = next,
                None => return false,
            }
        }
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
