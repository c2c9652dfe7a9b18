//! Judges: what they are asked, how their replies are read, and how far they can be trusted.
//!
//! A reply is read twice: as the official program reads it, and tolerantly with an explicit class `unparsed`. The
//! strict reading never turns an unreadable reply into a verdict.

mod reasoning;
mod reply;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::declare::{JudgePrompt, ReplyRule};
use crate::item::Item;
use crate::prompt::{PromptError, Renderer};
use crate::stats::{StatsError, cohen_kappa};

pub use reasoning::{
    ReasoningReport, ReasoningVerdict, StepVerdict, parse_steps, reasoning_report, split_steps,
};
pub use reply::{official_reply, tolerant_reply};

/// What a judge said about one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeVerdict {
    /// As the official program reads it.
    pub reference: bool,
    /// Read tolerantly; `None` is unparsed.
    pub strict: Option<bool>,
    /// The reply itself.
    pub reply: String,
}

/// Reads a judge's reply both ways.
pub fn judge_verdict(rule: ReplyRule, reply: &str) -> JudgeVerdict {
    JudgeVerdict {
        reference: official_reply(rule, reply),
        strict: tolerant_reply(reply),
        reply: reply.to_owned(),
    }
}

/// The message to a judge about one answer.
pub fn judge_message(
    renderer: &Renderer<'_>,
    prompt: &JudgePrompt,
    item: &Item,
    response: &str,
    answer: &str,
) -> Result<String, PromptError> {
    let mut variables = Map::new();
    let mut put = |name: &str, value: Value| variables.insert(name.to_owned(), value);
    put("question", Value::String(item.question.clone()));
    put("gold", Value::String(item.gold_text()));
    put("response", Value::String(response.to_owned()));
    put("answer", Value::String(if answer.is_empty() { response } else { answer }.to_owned()));
    put("chinese", Value::Bool(ocelli_reward::reference::csvqa::is_chinese(response)));
    renderer.text(&item.id, &prompt.user, &variables)
}

/// How a judge and the rule verifier agree on the answers that both decide.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JudgeAgreement {
    /// Answers that the judge saw.
    pub asked: usize,
    /// Replies from which no verdict could be read.
    pub unparsed: usize,
    /// Replies that say right as the official program reads them.
    #[serde(default)]
    pub official_right: usize,
    /// Replies that say right when read tolerantly.
    #[serde(default)]
    pub tolerant_right: usize,
    /// Answers that both decide.
    pub both: usize,
    /// Of these: same verdict.
    pub agreed: usize,
    /// Of these: the judge alone says right.
    pub only_judge: usize,
    /// Of these: the rule alone says right.
    pub only_rule: usize,
    /// Cohen's kappa; `None` where chance agreement is already perfect or nothing is decided by both.
    pub kappa: Option<f64>,
}

/// Compares a judge with the rules: pairs of (judge's tolerant verdict, the rule's verdict or `None` if undecided). The
/// count of the official reading is left to the caller.
pub fn judge_agreement(pairs: &[(Option<bool>, Option<bool>)]) -> Result<JudgeAgreement, StatsError> {
    let both: Vec<(bool, bool)> = pairs.iter().filter_map(|(j, r)| Some(((*j)?, (*r)?))).collect();
    let (judge, rule): (Vec<bool>, Vec<bool>) = both.iter().copied().unzip();
    Ok(JudgeAgreement {
        asked: pairs.len(),
        unparsed: pairs.iter().filter(|(j, _)| j.is_none()).count(),
        official_right: 0,
        tolerant_right: pairs.iter().filter(|(j, _)| *j == Some(true)).count(),
        both: both.len(),
        agreed: both.iter().filter(|(j, r)| j == r).count(),
        only_judge: both.iter().filter(|(j, r)| *j && !*r).count(),
        only_rule: both.iter().filter(|(j, r)| !*j && *r).count(),
        kappa: if both.is_empty() { None } else { cohen_kappa(&judge, &rule)? },
    })
}
