//! Text from models and tools on its way into HTML.

use std::fmt::{self, Display, Formatter, Write as _};

/// Shows a text with the characters escaped that mean something in HTML text or in a quoted attribute. Control
/// characters and those that turn the direction of writing become visible, so that no text can disguise another.
pub(super) fn text(text: &str) -> Text<'_> {
    Text(text)
}

pub(super) struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => write!(f, "[U+{:04X}]", c as u32)?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_through() {
        let hostile = "<script>\"'&\u{0}\u{202e}\n";
        assert_eq!(text(hostile).to_string(), "&lt;script&gt;&quot;&#39;&amp;\u{fffd}[U+202E]\n");
    }
}
