//! Whether two answers mean the same, with the rule that decided.

mod answer;
mod compare;
mod evaluate;
mod expr;
mod formula;
mod identity;
mod letters;
mod lexer;
mod limits;
mod names;
mod numeral;
mod parser;
mod quantity;
mod relation;
mod scalar;
mod text_rule;
mod token;
mod units;
mod value;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::extract::{Rung, extract};
use expr::Names;
use identity::Decision;
use limits::Budget;
use scalar::Context;
use value::Value;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The values decide; the verdict notes what was missing.
    Accept,
    /// The answers differ.
    Reject,
}

/// When decimals count as equal to a value that they only approximate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decimals {
    /// Never: 0.333 is not 1/3.
    Exact,
    /// Where the value rounds to the decimal, and the decimal states enough digits: three significant ones in a
    /// gold answer (a gold 3.14 is met by pi), six in an answer (0.333333 meets a gold 1/3).
    Rounded,
}

/// Conventions of a comparison. The default suits answers to school and competition mathematics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Approximation by decimals.
    pub decimals: Decimals,
    /// Allowed absolute error of numbers: none, one for all, or one per element of a gold list.
    pub absolute: Vec<f64>,
    /// Allowed `|answer - gold| / |gold|`; 0 for none.
    pub relative: f64,
    /// `10` for `10 cm`, either way round. (`100 mm` for `10 cm` is always right.)
    pub unit: Missing,
    /// `33.5` for `33.5 %`, either way round. (`0.335` for `33.5 %` is always right.)
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
    /// The gold answer and what it was taken for.
    pub gold: Reading,
    /// The answer and what it was taken for.
    pub answer: Reading,
    /// Which rung of the extraction ladder found the answer; `None` where the answer was given directly.
    pub rung: Option<Rung>,
    /// Byte range of the answer in the response.
    pub span: Option<Range<usize>>,
}

/// One side of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The text that was read.
    pub text: String,
    /// What it was taken for: `number`, `expression`, `interval`, `choice`, `text` ...
    pub kind: &'static str,
}

/// Compares an answer with the gold answer; both are LaTeX or plain text without surrounding prose.
///
/// ```
/// use ocelli_reward::verify::{Outcome, Policy, verify};
///
/// let verdict = verify(r"\frac{3}{4}", "0.75", &Policy::default());
/// assert_eq!((verdict.outcome, verdict.rule), (Outcome::Equal, "rational"));
/// assert_eq!(verify("1-1/e", "1+1/e", &Policy::default()).outcome, Outcome::Different);
/// ```
pub fn verify(gold: &str, answer: &str, policy: &Policy) -> Verdict {
    let (gold, answer) = (answer::trim(gold), answer::trim(answer));
    let (decision, gold_kind, answer_kind) = decide(gold, answer, policy);
    Verdict {
        outcome: decision.outcome,
        rule: decision.rule,
        note: decision.note,
        gold: Reading { text: gold.to_owned(), kind: gold_kind },
        answer: Reading { text: answer.to_owned(), kind: answer_kind },
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
            gold: Reading { text: gold.into(), kind: "" },
            answer: Reading::default(),
            rung: None,
            span: None,
        },
    }
}

fn decide(gold: &str, answer: &str, policy: &Policy) -> (Decision, &'static str, &'static str) {
    if gold.is_empty() {
        return (Decision::unknown("empty_gold", "the gold answer is empty"), "", "");
    }
    if answer.is_empty() {
        return (Decision::of(false, "empty_answer"), "", "");
    }
    // Most answers are plain integers.
    if let (Some(g), Some(a)) = (small_integer(gold), small_integer(answer))
        && (g == a || policy.absolute.is_empty() && policy.relative == 0.0)
    {
        return (Decision::of(g == a, "integer"), "number", "number");
    }
    if let Some(letter) = crate::choice::single_letter(gold)
        && let Some(read) = crate::choice::single_letter(answer)
    {
        return (Decision::of(letter == read, "choice"), "choice", "choice");
    }
    if gold.len().max(answer.len()) > limits::MAX_BYTES {
        let decision = if gold == answer {
            Decision::of(true, "same_text")
        } else {
            Decision::unknown("too_long", "longer than the longest answer that is parsed")
        };
        return (decision, "text", "text");
    }
    let mut names = Names::default();
    let (gold_value, _) = answer::read(gold, &mut names);
    let (answer_value, _) = answer::read(answer, &mut names);
    let mut kinds = (gold_value.kind(), answer_value.kind());
    let mut cx = Context { names: &names, policy, budget: Budget::new() };
    let mut decision = cx.compare(&gold_value, &answer_value, 0);
    if decision.rule == "quantity" {
        kinds = ("quantity", "quantity");
    }
    if let Some(other) = quantity::compare(gold, answer, policy, &decision) {
        return (other, "quantity", "quantity");
    }
    if !decision.is_equal() {
        let alternative = other_commas(gold, &gold_value, answer, &answer_value, policy);
        if let Some(other) = alternative {
            decision = other;
        } else if without_space(gold) == without_space(answer) {
            decision = Decision::of(true, "same_text");
        } else if says_none(gold, &answer_value) || says_none(answer, &gold_value) {
            decision = Decision::of(true, "empty_set");
        } else if formula::same(gold, answer) {
            decision = Decision::of(true, "formula").noted("the same letters, digits and signs");
        } else if let Some(other) = as_quantities(gold, answer, policy) {
            decision = other;
            kinds = ("quantity", "quantity");
        } else if let Some(other) = letters::compare(gold, answer, &decision) {
            decision = other;
        }
    }
    (decision, kinds.0, kinds.1)
}

/// `no solution` against the empty set.
fn says_none(text: &str, other: &Value) -> bool {
    answer::says_none(text) && matches!(other, Value::Set(items) if items.is_empty())
}

/// The verdict on two physical quantities whose units are single letters on a side: `5 m/s` against `18 km/h`.
fn as_quantities(gold: &str, answer: &str, policy: &Policy) -> Option<Decision> {
    let named = |s: &str| s.bytes().any(|b| b.is_ascii_alphabetic() || !b.is_ascii());
    if !named(gold) || !named(answer) {
        return None;
    }
    let mut names = Names::default();
    let gold = answer::read_quantity(gold, &mut names)?;
    let answer = answer::read_quantity(answer, &mut names)?;
    let decision = Context { names: &names, policy, budget: Budget::new() }.compare(&gold, &answer, 0);
    (decision.outcome != Outcome::Unknown).then(|| decision.noted("letters behind numbers are units"))
}

/// Digits with at most a sign, short enough for a machine word.
fn small_integer(s: &str) -> Option<i64> {
    let digits = s.strip_prefix('-').unwrap_or(s);
    let plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { s.parse().ok() } else { None }
}

/// The text without white space and without the marks of a formula; a single `$` is a currency.
fn without_space(s: &str) -> String {
    let formula = s.bytes().filter(|b| *b == b'$').count().is_multiple_of(2);
    s.chars().filter(|c| !(c.is_whitespace() || (formula && *c == '$'))).collect()
}

/// Other readings of commas: `1,234` as a list where the other side is one, `3,14` as a decimal where it is one.
fn other_commas(
    gold: &str,
    gold_value: &Value,
    answer: &str,
    answer_value: &Value,
    policy: &Policy,
) -> Option<Decision> {
    let many =
        |v: &Value| matches!(v, Value::List(_) | Value::Sequence(_) | Value::Tuple { .. } | Value::Set(_));
    let number = |v: &Value| matches!(v, Value::Scalar(s) if !s.expr.has_symbols());
    let again = |gold: &str, answer: &str, note: &str| {
        let mut names = Names::default();
        let (g, _) = answer::read(gold, &mut names);
        let (a, _) = answer::read(answer, &mut names);
        let decision = Context { names: &names, policy, budget: Budget::new() }.compare(&g, &a, 0);
        decision.is_equal().then(|| decision.noted(note))
    };
    let listed = |s: &str| s.replace(',', ", ");
    if many(gold_value) && number(answer_value) && answer.contains(',') {
        return again(gold, &listed(answer), "commas separate elements");
    }
    if number(gold_value) && many(answer_value) && gold.contains(',') {
        return again(&listed(gold), answer, "commas separate elements");
    }
    let decimal_comma = |s: &str| {
        let digits = s.strip_prefix('-').unwrap_or(s);
        digits.split_once(',').is_some_and(|(a, b)| {
            !a.is_empty() && !b.is_empty() && a.bytes().chain(b.bytes()).all(|c| c.is_ascii_digit())
        })
    };
    if number(gold_value) && gold.contains('.') && decimal_comma(answer) {
        return again(gold, &answer.replace(',', "."), "a decimal comma");
    }
    None
}
