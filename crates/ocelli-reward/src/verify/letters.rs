//! Answers that consist of letters, which mathematics reads as products of variables: options side by side (`AC` for
//! `A, C`), options in a phrase (`选A`), and words with a capital (`Cat`).

use super::Outcome;
use super::identity::Decision;
use super::text_rule;
use crate::choice::{named_letters, single_option};
use crate::text::yes_no;

/// The verdict where both sides are letters or words of one kind; `None` leaves it to what was decided before, which was
/// not `equal`.
pub(super) fn compare(gold: &str, answer: &str, before: &Decision) -> Option<Decision> {
    words(gold, answer, before).or_else(|| options(gold, answer, before))
}

/// Letters of options, compared as sets, where one side writes more than the letters.
fn options(gold: &str, answer: &str, before: &Decision) -> Option<Decision> {
    // Two runs of letters are what mathematics has compared already: `AB` and `BC` may be segments.
    let bare = |text: &str| text.bytes().all(|b| b.is_ascii_alphabetic());
    if bare(gold) && bare(answer) {
        return None;
    }
    let wanted = named_letters(gold)?;
    // What mathematics has found different stays different, unless it compared a product with a list.
    let open = before.outcome == Outcome::Unknown || matches!(before.rule, "type" | "list" | "set" | "text");
    if !open {
        return None;
    }
    let chosen = match named_letters(answer) {
        Some(letters) => letters,
        None if wanted.len() == 1 && before.outcome == Outcome::Unknown => vec![single_option(answer)?],
        None => return None,
    };
    let decision = Decision::of(wanted == chosen, "choices");
    Some(if wanted.len() == 1 {
        Decision { rule: "choice", ..decision }
    } else {
        decision.noted("letters of options, in any order")
    })
}

/// Words that differ in capitals only, and yes or no in any form.
fn words(gold: &str, answer: &str, before: &Decision) -> Option<Decision> {
    let bare =
        |text: &str| text.trim_matches(|c: char| matches!(c, '.' | '!' | '\'' | '(' | ')')).trim().to_owned();
    let (g, a) = (bare(gold), bare(answer));
    let letters = |w: &str| (1..=24).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_alphabetic());
    if !(letters(&g) && letters(&a)) || g.len().max(a.len()) < 2 {
        return None;
    }
    let small = |w: &str| w.bytes().all(|b| b.is_ascii_lowercase());
    let capital = |w: &str| w.len() > 1 && w.as_bytes()[0].is_ascii_uppercase() && small(&w[1..]);
    if let (Some(x), Some(y)) = (yes_no(&g), yes_no(&a)) {
        // `NO` and `No` are chemistry.
        let formulas = g.len() == 2 && a.len() == 2 && !small(&g) && !small(&a);
        return (!formulas).then(|| Decision::of(x == y, "yes_no"));
    }
    let word = |w: &str| w.len() >= 3 && (small(w) || capital(w));
    if g.eq_ignore_ascii_case(&a) && (word(&g) || word(&a)) {
        // `abc` and `Abc` may be products.
        return Some(if pronounceable(&g.to_ascii_lowercase()) {
            Decision::of(true, "text").noted("the same word, in other capitals")
        } else {
            Decision::unknown("text", "the same letters in other capitals: a word, or other variables")
        });
    }
    (before.outcome == Outcome::Unknown && word(&g) && word(&a)).then(|| text_rule::compare(&g, &a))
}

/// Whether letters are a word rather than names of variables or points, which are neighbours in the alphabet or have no vowel.
fn pronounceable(word: &str) -> bool {
    let vowel = word.bytes().any(|b| b"aeiouy".contains(&b));
    let neighbours = word.as_bytes().windows(2).all(|w| w[0] + 1 == w[1]);
    vowel && !neighbours
}

#[cfg(test)]
mod tests {
    use crate::verify::{Outcome, Policy, verify};

    fn outcomes(pairs: &[(&str, &str)], expected: Outcome) {
        for (gold, answer) in pairs {
            let v = verify(gold, answer, &Policy::default());
            assert_eq!(v.outcome, expected, "{v:#?}");
        }
    }

    #[test]
    fn words_in_other_capitals() {
        outcomes(
            &[
                ("yes", "Yes."),
                ("Yes", "YES"),
                ("no", "No"),
                ("yes", "Y"),
                ("cat", "Cat."),
                ("Cow", "cow"),
                ("Paris", "PARIS"),
                ("true", "True"),
            ],
            Outcome::Equal,
        );
        outcomes(&[("yes", "No."), ("Cat", "dog"), ("true", "False")], Outcome::Different);
        for (gold, answer) in
            [("NO", "No"), ("abc", "Abc"), ("ABC", "abc"), ("Co", "CO"), ("x", "X"), ("ABCD", "abcd")]
        {
            let v = verify(gold, answer, &Policy::default());
            assert_ne!(v.outcome, Outcome::Equal, "{v:#?}");
        }
    }

    #[test]
    fn letters_of_options() {
        outcomes(
            &[
                ("AC", "A, C"),
                ("AC", "A and C"),
                ("AC", "C、A"),
                ("A,C", "AC"),
                ("AC", "(A)(C)"),
                ("AC", "选AC"),
                ("B", "选B"),
                ("B", "答案：B"),
                ("B", "答案是B。"),
                ("B", "故选：B"),
                ("B", "Option B"),
                ("B", "the answer is (B)"),
                ("BD", "选项B和D"),
            ],
            Outcome::Equal,
        );
        outcomes(
            &[
                ("AC", "A, B"),
                ("AC", "A and B and C"),
                ("B", "选A"),
                ("B", "答案：C"),
                ("A,C", "AB"),
                ("B", "Option A"),
            ],
            Outcome::Different,
        );
        // Sums and products of letters are mathematics.
        for (gold, answer) in [("AC", "A+C"), ("AC", "A/C"), ("AC", "A"), ("B", "2B"), ("AB", "BC")] {
            let v = verify(gold, answer, &Policy::default());
            assert_ne!(v.outcome, Outcome::Equal, "{v:#?}");
        }
    }
}
