//! Answers in words.

use super::identity::Decision;
use super::numeral::english;
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
    if let (Some(x), Some(y)) = (english(&g), english(&a)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    #[test]
    fn words() {
        assert_eq!(compare("forty two", "forty-two").outcome, Outcome::Equal);
        assert_eq!(compare("two thirds", "one third").outcome, Outcome::Different);
        assert_eq!(compare("circles", "Circle.").outcome, Outcome::Equal);
        assert_eq!(compare("east", "west").outcome, Outcome::Different);
        assert_eq!(compare("increasing", "increases").outcome, Outcome::Unknown);
        assert_eq!(compare("Yes", "是").outcome, Outcome::Equal);
        assert_eq!(compare("a red square", "the square that is red").outcome, Outcome::Unknown);
    }
}
