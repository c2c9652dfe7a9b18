//! Compatibility forms of characters folded to plain ones: full width, superscripts, mathematical letters.
//!
//! The part of Unicode's NFKC that occurs in answers, written as ranges, since the whole table would be a dependency
//! for a few dozen characters. Superscripts become `^{..}`, subscripts `_{..}`, vulgar fractions `\frac{..}{..}`.

use std::borrow::Cow;

const SUPERSCRIPTS: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ";
const SUPER_PLAIN: &[u8] = b"0123456789+-=()ni";
const SUBSCRIPTS: &str = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₓₙ";
const SUB_PLAIN: &[u8] = b"0123456789+-=()aexn";

const FRACTIONS: [(char, u8, u8); 17] = [
    ('½', 1, 2),
    ('⅓', 1, 3),
    ('⅔', 2, 3),
    ('¼', 1, 4),
    ('¾', 3, 4),
    ('⅕', 1, 5),
    ('⅖', 2, 5),
    ('⅗', 3, 5),
    ('⅘', 4, 5),
    ('⅙', 1, 6),
    ('⅚', 5, 6),
    ('⅐', 1, 7),
    ('⅛', 1, 8),
    ('⅜', 3, 8),
    ('⅝', 5, 8),
    ('⅞', 7, 8),
    ('⅑', 1, 9),
];

fn script(c: char, from: &str, to: &[u8]) -> Option<char> {
    from.chars().position(|s| s == c).map(|i| char::from(to[i]))
}

/// One character folded; `None` where it is dropped.
fn fold(c: char) -> Option<char> {
    let code = u32::from(c);
    Some(match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(code - 0xfee0)?,
        '\u{3000}' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' | '\u{fe0f}' => return None,
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' | '\u{fe58}' => '-',
        '\u{2018}' | '\u{2019}' | '\u{2032}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{2033}' => '"',
        '\u{2236}' | '\u{fe55}' => ':',
        '\u{2215}' | '\u{2044}' => '/',
        '\u{2217}' => '*',
        '\u{fe50}' => ',',
        '\u{fe52}' => '.',
        '⩽' => '≤',
        '⩾' => '≥',
        '\u{1d400}'..='\u{1d6a3}' => {
            let i = ((code - 0x1d400) % 52) as u8;
            char::from(if i < 26 { b'A' + i } else { b'a' + i - 26 })
        }
        '\u{1d7ce}'..='\u{1d7ff}' => char::from(b'0' + ((code - 0x1d7ce) % 10) as u8),
        '\u{210e}' => 'h',
        '\u{2460}'..='\u{2468}' => char::from(b'1' + (code - 0x2460) as u8),
        _ => c,
    })
}

/// `text` with compatibility forms folded. Plain ASCII is returned as it is.
pub fn normalise_unicode(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii() {
            out.push(c);
        } else if let Some(first) = script(c, SUPERSCRIPTS, SUPER_PLAIN) {
            run(&mut out, &mut chars, '^', first, |c| script(c, SUPERSCRIPTS, SUPER_PLAIN));
        } else if let Some(first) = script(c, SUBSCRIPTS, SUB_PLAIN) {
            run(&mut out, &mut chars, '_', first, |c| script(c, SUBSCRIPTS, SUB_PLAIN));
        } else if let Some((_, a, b)) = FRACTIONS.iter().find(|f| f.0 == c) {
            out.push_str(&format!("\\frac{{{a}}}{{{b}}}"));
        } else if let Some(c) = fold(c) {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A run of scripts as one group.
fn run(
    out: &mut String,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    mark: char,
    first: char,
    plain: impl Fn(char) -> Option<char>,
) {
    out.push(mark);
    out.push('{');
    out.push(first);
    while let Some(c) = chars.peek().and_then(|c| plain(*c)) {
        out.push(c);
        chars.next();
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded() {
        assert_eq!(normalise_unicode("（Ａ），１２％"), "(A),12%");
        assert_eq!(normalise_unicode("x²⁺¹ − y₁₀"), "x^{2+1} - y_{10}");
        assert_eq!(normalise_unicode("3½"), "3\\frac{1}{2}");
        assert_eq!(normalise_unicode("𝑥𝟙"), "x1");
        assert!(matches!(normalise_unicode("plain"), Cow::Borrowed(_)));
    }
}
