//! MathVista's official rule (lupantech/MathVista, `evaluation/calculate_score.py`, commit 2a249bb), faults included.
//!
//! Kept on purpose: an answer that names no option becomes the option nearest in edit distance, so that every
//! multiple-choice answer is some option; `(a)` anywhere in the text wins over the text; and for integers either
//! fault of [`Integers`].

use super::python::{float, float_str, int_str, round, strip};

/// How an integer answer is read; the versions of the program differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// `int(text)`, by which the published result files were made: `3.0` is no integer.
    Digits,
    /// `int(float(text))` of the released program: `7.9` is 7.
    Truncated,
}

/// What the official program needs to know about a question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Texts of the options; empty for a free-form question.
    pub choices: &'a [String],
    /// `multi_choice` or `free_form`.
    pub question_type: &'a str,
    /// `text`, `integer`, `float` or `list`.
    pub answer_type: &'a str,
    /// The version's reading of integers.
    pub integers: Integers,
    /// Decimals of a float answer. `None` where the data set has none, which makes a float answer unreadable.
    pub precision: Option<usize>,
}

/// Normalises an extracted answer. `None` is Python's `None`: the text could not be read as the answer type.
pub fn prediction(extraction: &str, question: Question<'_>) -> Option<String> {
    if question.question_type == "multi_choice" {
        return nearest_choice(strip(extraction), question.choices);
    }
    match question.answer_type {
        "integer" if question.integers == Integers::Digits => int_str(extraction),
        "integer" => float(extraction).filter(|x| x.is_finite()).map(|x| {
            let s = format!("{:.0}", x.trunc());
            if s == "-0" { "0".into() } else { s }
        }),
        "float" => Some(float_str(round(float(extraction)?, question.precision?))),
        _ => Some(extraction.to_owned()),
    }
}

/// `true_false` of the official program.
pub fn correct(prediction: Option<&str>, gold: &str) -> bool {
    prediction == Some(gold)
}

fn nearest_choice(text: &str, choices: &[String]) -> Option<String> {
    let letter = parenthesised_letter(text);
    let text = letter.as_deref().unwrap_or(text);
    let by_letter = match text.as_bytes() {
        [c] => choices.get(usize::from(c.wrapping_sub(b'A'))),
        _ => None,
    };
    by_letter.or_else(|| choices.iter().min_by_key(|c| strsim::levenshtein(text, c))).cloned()
}

/// First match of `\(([a-zA-Z])\)`, in upper case.
fn parenthesised_letter(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let hit = bytes.windows(3).find(|w| w[0] == b'(' && w[1].is_ascii_alphabetic() && w[2] == b')')?;
    Some(char::from(hit[1].to_ascii_uppercase()).to_string())
}

/// The rule-based part of the official extraction (`evaluation/extract_answer.py`, with `quick_extract`); `None`
/// where the official program would ask GPT-4.
pub fn extract(response: &str, question: Question<'_>) -> Option<String> {
    if response.is_empty() {
        return Some(String::new());
    }
    if question.question_type == "multi_choice" && question.choices.iter().any(|c| c == response) {
        return Some(response.to_owned());
    }
    if question.answer_type == "integer"
        && let Some(n) = int_str(response)
    {
        return Some(n);
    }
    if question.answer_type == "float"
        && let Some(x) = float(response)
    {
        return Some(float_str(x));
    }
    // `The answer is "(.*)"\.` on one line, greedy.
    const HEAD: &str = "The answer is \"";
    response.lines().find_map(|line| {
        let rest = &line[line.find(HEAD)? + HEAD.len()..];
        rest.rfind("\".").map(|end| rest[..end].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_are_kept() {
        let choices: Vec<String> = ["No", "Yes"].map(String::from).to_vec();
        let mut q = Question {
            choices: &choices,
            question_type: "multi_choice",
            answer_type: "text",
            integers: Integers::Truncated,
            precision: None,
        };
        assert_eq!(prediction("(b) No", q).as_deref(), Some("Yes"));
        assert_eq!(prediction("no idea at all", q).as_deref(), Some("No"));
        q = Question { choices: &[], question_type: "free_form", answer_type: "integer", ..q };
        assert_eq!(prediction("7.9", q).as_deref(), Some("7"));
        assert_eq!(prediction("-0.05", q).as_deref(), Some("0"));
        assert_eq!(prediction("inf", q), None);
        assert_eq!(prediction("7.9", Question { integers: Integers::Digits, ..q }), None);
        q = Question { answer_type: "float", precision: Some(1), ..q };
        assert_eq!(prediction("1.25", q).as_deref(), Some("1.2"));
        assert_eq!(extract("The answer is \"a \"b\".\n", q).as_deref(), Some("a \"b"));
        assert_eq!(extract("I think so", q), None);
    }
}
