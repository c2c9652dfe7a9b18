//! EMMA's official fast scoring (`evaluation/evaluate.py`, `evaluation/utils.py`), faults included.
//!
//! Kept on purpose: only the letters A to H are known; text after `answer is` is cut at the first point, so that
//! `3.5` becomes `3`; values are equal when they agree after rounding to two decimals. Deviation: where the official
//! program asks SymPy whether a difference simplifies to 0, [`crate::verify()`] decides.

use super::latex_value::latex_value;
use super::python::{after_last, before_first, float, strip};
use crate::verify::{Outcome, Policy, verify};

/// Versions of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The one that made the stored result files: where no rule reads an answer it is the whole response; values are
    /// compared, neither number words nor symbolic expressions are.
    Stored,
    /// The released one: no answer is an empty text, `ten` is 10, and a difference that simplifies to 0 is equality.
    Released,
}

/// The official extraction.
pub fn extract(response: &str, program: Program) -> String {
    let response = strip(response);
    for c in ["A", "B", "C", "D", "E", "F", "G", "H"] {
        let direct = response.to_uppercase() == c || response.starts_with(&format!("{c}:"));
        if direct || (program == Program::Released && response.starts_with(&format!("{c}."))) {
            return c.to_owned();
        }
    }
    if float(response).is_some() {
        return response.to_owned();
    }
    if let Some(boxed) = last_boxed(response) {
        return strip(last_text(boxed).unwrap_or(boxed)).to_owned();
    }
    let lower = response.to_lowercase();
    let mut flags = vec!["final answer is", "correct answer is", "answer should be", "answer is"];
    if program == Program::Released {
        flags.push("answer:");
    }
    for flag in flags {
        if lower.contains(flag) {
            let tail = strip(after_last(&lower, flag));
            return before_first(before_first(tail, "\n"), ".").to_owned();
        }
    }
    match program {
        Program::Stored => response.to_owned(),
        Program::Released => String::new(),
    }
}

/// Content of the last `\boxed{...}` whose braces balance.
fn last_boxed(s: &str) -> Option<&str> {
    let mut last = None;
    let mut at = 0;
    while let Some(open) = s[at..].find("\\boxed{") {
        let start = at + open + 7;
        let mut depth = 0;
        let close = s[start..].char_indices().find_map(|(i, c)| {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => return Some(start + i),
                '}' => depth -= 1,
                _ => {}
            }
            None
        });
        // The official scan goes on behind the box, and ends where a box never closes.
        let Some(close) = close else { break };
        last = Some(&s[start..close]);
        at = close;
    }
    last
}

/// Last match of `\\text{(.*?)}`.
fn last_text(s: &str) -> Option<&str> {
    let mut last = None;
    let mut rest = s;
    while let Some(open) = rest.find("\\text{") {
        let body = &rest[open + 6..];
        let Some(close) = body.find('}') else { break };
        if !body[..close].contains('\n') {
            last = Some(&body[..close]);
        }
        rest = &body[close + 1..];
    }
    last
}

/// The official equality.
pub fn equal(answer: &str, gold: &str, program: Program) -> bool {
    let (answer, gold) = (answer.to_lowercase(), gold.to_lowercase());
    if strip(&answer) == strip(&gold) {
        return true;
    }
    match (latex_value(&answer), latex_value(&gold)) {
        (Some(a), Some(g)) if a.rounded().0 == g.rounded().0 => true,
        _ => {
            program == Program::Released && verify(&gold, &answer, &Policy::bare()).outcome == Outcome::Equal
        }
    }
}

/// The official label: equal to the gold answer or to the text of the gold option.
pub fn correct(answer: &str, gold: &str, gold_content: &str, program: Program) -> bool {
    equal(answer, gold, program) || equal(answer, gold_content, program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extraction_with_its_faults() {
        let read = |s| extract(s, Program::Stored);
        assert_eq!(read(" b \n"), "B");
        assert_eq!(read("C: because"), "C");
        assert_eq!(read("so \\boxed{\\text{(A) }}"), "(A)");
        assert_eq!(read("\\boxed{\\frac{1}{2}} and \\boxed{x"), "\\frac{1}{2}");
        assert_eq!(read("The answer is 3.5"), "3");
        assert_eq!(read("no idea"), "no idea");
        assert_eq!(extract("no idea", Program::Released), "");
        assert_eq!(extract("I. one", Program::Released), "");
    }

    #[test]
    fn two_decimals_are_enough() {
        let (stored, released) = (Program::Stored, Program::Released);
        assert!(equal("0.001", "0.004", stored) && equal("\\frac{1}{3}", "0.33", stored));
        assert!(
            correct("b", "B", "7", stored)
                && correct("7.0", "B", "7", stored)
                && !correct("c", "B", "7", released)
        );
        // Rows of the stored files that only the released program calls right.
        assert!(!equal("Ten", "10", stored) && equal("Ten", "10", released));
        assert!(!correct("(A)", "A", "A", stored));
    }
}
