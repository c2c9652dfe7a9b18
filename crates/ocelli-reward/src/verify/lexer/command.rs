//! LaTeX commands, and what stands inside `\text`.

use super::{Lexer, lex_in};
use crate::verify::names::{command_token, named};
use crate::verify::token::{Bracket, NotMath, Token};
use crate::verify::units::lookup;

/// Commands that change looks and spacing only.
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

impl Lexer<'_> {
    pub(super) fn command(&mut self) -> Result<(), NotMath> {
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
