//! From an answer to its verdicts: one by the official rule, with its faults, and one by ours; and where they differ, why.

mod given;
mod reference;
mod strict;

use std::ops::Range;

use ocelli_agent::endpoint::{Outcome, Usage};
use serde::{Deserialize, Serialize};

use crate::declare::{Kind, Missing, Task};
use crate::item::Item;
use crate::judge::JudgeVerdict;

pub use given::{GivenVerdict, Presented, choice_of_reply, score_given, score_scalar};
pub use strict::{same_answer, strict_answer};

/// One answer to score.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// How the request ended.
    pub outcome: Option<Outcome>,
    /// The response without its thinking.
    pub text: &'a str,
    /// An answer that another program extracted from the response; the reference rule compares it.
    pub extraction: Option<&'a str>,
    /// A judge's verdict on it.
    pub judge: Option<&'a JudgeVerdict>,
    /// True where the official verdict is the judge's, whatever the rule would say.
    pub by_judge: bool,
    /// Which sample.
    pub sample: u32,
    /// Tokens.
    pub usage: Usage,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Credit, usually 0 or 1; `None` where the official program leaves the item out.
    pub credit: Option<f64>,
    /// The answer as the rule read it; `None` where it read none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Name of the rule that decided.
    pub rule: String,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Byte range of the answer in the response, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Range<usize>>,
    /// True where the rule understood the answer but could not decide; credit is then 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

impl Verdict {
    pub(crate) fn decided(right: bool, answer: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            credit: Some(f64::from(u8::from(right))),
            answer: Some(answer.into()),
            rule: rule.into(),
            note: String::new(),
            span: None,
            undecided: false,
        }
    }

    pub(crate) fn unread(credit: Option<f64>, rule: impl Into<String>, note: impl Into<String>) -> Self {
        Self { credit, answer: None, rule: rule.into(), note: note.into(), span: None, undecided: false }
    }

    /// Credit with a left-out item as 0.
    pub fn or_zero(&self) -> f64 {
        self.credit.unwrap_or(0.0)
    }
}

/// One scored answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Name of the item.
    pub item: String,
    /// Which sample.
    pub sample: u32,
    /// How it ended; `unparsed` where there is text from which the strict rule reads no answer.
    pub outcome: Outcome,
    /// By the official rule.
    pub reference: Verdict,
    /// By ours.
    pub strict: Verdict,
    /// Tokens.
    pub usage: Usage,
}

/// Credit for an answer that is not there, by a policy.
pub(crate) fn missing_credit(policy: Missing, options: usize) -> Option<f64> {
    match policy {
        Missing::Wrong => Some(0.0),
        Missing::Dropped => None,
        Missing::Half => Some(0.5),
        Missing::Chance if options > 1 => Some(1.0 / options as f64),
        Missing::Chance => Some(0.0),
    }
}

/// Scores an answer to a question.
pub fn score(task: &Task, item: &Item, answer: &Answer<'_>) -> Scored {
    debug_assert_eq!(task.benchmark.kind, Kind::Answer);
    let outcome = answer.outcome.unwrap_or(Outcome::Ok);
    let policy = task.benchmark.reference_policy;
    let absent = matches!(outcome, Outcome::Failed | Outcome::Refused | Outcome::Empty)
        && answer.text.trim().is_empty()
        && answer.extraction.is_none_or(|e| e.trim().is_empty());
    if absent {
        let note = format!("the request ended {}", outcome.name());
        return Scored {
            item: item.id.clone(),
            sample: answer.sample,
            outcome,
            reference: Verdict::unread(
                missing_credit(policy.failed, item.options.len()),
                "missing",
                note.clone(),
            ),
            strict: Verdict::unread(Some(0.0), "missing", note),
            usage: answer.usage,
        };
    }
    let rule = &task.benchmark.score[item.rule];
    let strict = strict_answer(&rule.strict, item, answer.text);
    let mut reference = reference::apply(rule, item, answer, &strict);
    if reference.answer.is_none() && reference.credit == Some(0.0) {
        reference.credit = missing_credit(policy.unparsed, item.options.len());
    }
    let outcome = if outcome == Outcome::Ok && strict.answer.is_none() { Outcome::Unparsed } else { outcome };
    Scored { item: item.id.clone(), sample: answer.sample, outcome, reference, strict, usage: answer.usage }
}
