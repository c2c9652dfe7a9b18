//! Whether two answers mean the same, with the rule that decided.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::extract::{Rung, extract};

/// The three possible verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answers mean the same.
    Equal,
    /// They do not.
    Different,
    /// No rule could decide; a judge may.
    Unknown,
}

/// What happens where one side states something (a unit, a per cent sign) that the other leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The values decide; the verdict notes what was missing.
    Accept,
    /// The answers differ.
    Reject,
}

/// When decimals count as equal to a value that they only approximate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decimals {
    /// Never: 0.333 is not 1/3.
    Exact,
    /// Where the value rounds to the decimal, and the decimal states enough digits: three significant ones in a
    /// gold answer (a gold 3.14 is met by pi), six in an answer (0.333333 meets a gold 1/3).
    Rounded,
}

/// Conventions of a comparison. The default suits answers to school and competition mathematics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Approximation by decimals.
    pub decimals: Decimals,
    /// Allowed absolute error of numbers: none, one for all, or one per element of a gold list.
    pub absolute: Vec<f64>,
    /// Allowed `|answer - gold| / |gold|`; 0 for none.
    pub relative: f64,
    /// `10` for `10 cm`, either way round.
    pub unit: Missing,
    /// `33.5` for `33.5 %`, either way round. (0.335 for 33.5 % is always right.)
    pub percent: Missing,
    /// Lists separated by commas count as sets when false.
    pub ordered_lists: bool,
    /// Symbols stand for positive numbers, so that `\sqrt{a^2}` is `a`.
    pub positive_symbols: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            decimals: Decimals::Rounded,
            absolute: Vec::new(),
            relative: 0.0,
            unit: Missing::Accept,
            percent: Missing::Accept,
            ordered_lists: false,
            positive_symbols: false,
        }
    }
}

impl Policy {
    /// Exact values, units and per cent signs required.
    pub fn bare() -> Self {
        Self { decimals: Decimals::Exact, unit: Missing::Reject, percent: Missing::Reject, ..Self::default() }
    }
}

/// A verdict with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The verdict.
    pub outcome: Outcome,
    /// Name of the rule that decided, e.g. `rational` or `identity`.
    pub rule: &'static str,
    /// What a person should know: a missing unit, the error bound of an identity test, why nothing was decided.
    pub note: String,
    /// The gold answer as it was understood.
    pub gold: String,
    /// The answer as it was understood.
    pub answer: String,
    /// Which rung of the extraction ladder found the answer; `None` where the answer was given directly.
    pub rung: Option<Rung>,
    /// Byte range of the answer in the response.
    pub span: Option<Range<usize>>,
}

/// Compares an answer with the gold answer; both are LaTeX or plain text without surrounding prose.
pub fn verify(gold: &str, answer: &str, policy: &Policy) -> Verdict {
    let _ = policy;
    let outcome = if crate::text::same(gold, answer) { Outcome::Equal } else { Outcome::Unknown };
    Verdict {
        outcome,
        rule: "same_text",
        note: String::new(),
        gold: gold.into(),
        answer: answer.into(),
        rung: None,
        span: None,
    }
}

/// Reads the answer of a whole response and compares it.
pub fn verify_response(gold: &str, response: &str, ladder: &[Rung], policy: &Policy) -> Verdict {
    match extract(response, ladder) {
        Ok(found) => {
            let verdict = verify(gold, &found.text, policy);
            Verdict { rung: Some(found.rung), span: Some(found.span), ..verdict }
        }
        Err(none) => Verdict {
            outcome: Outcome::Different,
            rule: "no_answer",
            note: none.reason().into(),
            gold: gold.into(),
            answer: String::new(),
            rung: None,
            span: None,
        },
    }
}
