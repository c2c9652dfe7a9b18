//! Answers in words.

use super::identity::Decision;
use crate::text::{normalise, yes_no};

/// Compares two texts. Different single words are different answers; longer texts that differ are left open.
pub(crate) fn compare(gold: &str, answer: &str) -> Decision {
    if let (Some(g), Some(a)) = (yes_no(gold), yes_no(answer)) {
        return Decision::of(g == a, "yes_no");
    }
    let (g, a) = (normalise(gold), normalise(answer));
    if g.is_empty() || a.is_empty() {
        return Decision::unknown("text", "no words to compare");
    }
    if g == a || singular(&g) == singular(&a) {
        return Decision::of(true, "text");
    }
    if let (Some(x), Some(y)) = (number_word(&g), number_word(&a)) {
        return Decision::of(x == y, "number_word");
    }
    let single = |s: &str| !s.contains(' ') && s.chars().all(char::is_alphabetic) && s.is_ascii();
    let stem = g.chars().zip(a.chars()).take_while(|(x, y)| x == y).count();
    if single(&g) && single(&a) && stem < 4 {
        return Decision::of(false, "text").noted("different words");
    }
    Decision::unknown("text", "different texts may mean the same")
}

fn singular(word: &str) -> &str {
    word.strip_suffix('s').filter(|w| w.len() > 3 && !w.ends_with('s')).unwrap_or(word)
}

/// `twelve` is 12, `三` is 3; `None` for anything but a small number in words.
pub(crate) fn number_word(text: &str) -> Option<i64> {
    const WORDS: [&str; 21] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    const TENS: [&str; 7] = ["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    const CHINESE: &str = "零一二三四五六七八九十";
    let text = normalise(text);
    let small = |w: &str| WORDS.iter().position(|x| *x == w).map(|n| n as i64);
    let tens = |w: &str| {
        TENS.iter().position(|x| *x == w).map(|n| 30 + 10 * n as i64).or((w == "twenty").then_some(20))
    };
    if let Some(n) = small(&text).or_else(|| tens(&text)) {
        return Some(n);
    }
    if let Some((a, b)) = text.split_once(['-', ' ']) {
        return Some(tens(a)? + small(b).filter(|n| (1..10).contains(n))?);
    }
    let digit = |c: char| CHINESE.chars().position(|x| x == c).map(|n| n as i64).or((c == '两').then_some(2));
    let chars: Vec<char> = text.chars().collect();
    match chars[..] {
        [c] => digit(c),
        ['十', unit] => Some(10 + digit(unit)?),
        [ten, '十'] => Some(10 * digit(ten)?),
        [ten, '十', unit] => Some(10 * digit(ten)? + digit(unit)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    #[test]
    fn words() {
        assert_eq!(number_word("Twelve."), Some(12));
        assert_eq!(number_word("forty-two"), Some(42));
        assert_eq!(number_word("二十三"), Some(23));
        assert_eq!(number_word("cat"), None);
        assert_eq!(compare("circles", "Circle.").outcome, Outcome::Equal);
        assert_eq!(compare("east", "west").outcome, Outcome::Different);
        assert_eq!(compare("increasing", "increases").outcome, Outcome::Unknown);
        assert_eq!(compare("Yes", "是").outcome, Outcome::Equal);
        assert_eq!(compare("a red square", "the square that is red").outcome, Outcome::Unknown);
    }
}
