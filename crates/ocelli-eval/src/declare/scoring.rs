//! How answers are read and compared, by the official rule and by ours, and what a judge is asked.

use indexmap::IndexMap;
use ocelli_agent::endpoint::SamplingParams;
use ocelli_reward::extract::Rung;
use serde::{Deserialize, Serialize};

/// How answers to some rows are read and compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scoring {
    /// Columns and the values (compared without regard to case) that select the rows; all rows where empty. The
    /// column `#options` is `yes` for rows with options and `no` for others, `#axis` is the value of an axis.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub when: IndexMap<String, String>,
    /// The official rule.
    pub reference: ReferenceRule,
    /// Our rule.
    pub strict: StrictRule,
    /// Judge that decides where the official rule leaves it to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
}

/// Official rules; each is a module of `ocelli_reward::reference` unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceRule {
    /// CSVQA, multiple choice: letters of the last box.
    Csvqa,
    /// A judge alone decides; without one the item is unparsed.
    JudgeOnly,
    /// EMMA's fast scoring.
    Emma,
    /// MATH-Vision.
    Mathv,
    /// MathVista, extraction by rule.
    Mathvista,
    /// MMMU, validation program.
    Mmmu,
    /// MMMU-Pro.
    MmmuPro,
    /// ChartQA's relaxed accuracy (5 %).
    Chartqa,
    /// GSM8K, `strict-match`.
    Gsm8kStrict,
    /// GSM8K, `flexible-extract`.
    Gsm8kFlexible,
    /// POPE.
    Pope,
    /// HallusionBench, without a judge.
    Hallusion,
    /// No official program is followed: the strict rule stands for it.
    Strict,
}

/// What a strict comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Exactly one option.
    Choice,
    /// One or several options, compared as sets.
    Choices,
    /// A value or expression.
    Math,
    /// A short text.
    Text,
    /// Yes or no.
    YesNo,
    /// A value or expression if the gold answer is one, else a text.
    MathOrText,
}

/// Our rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrictRule {
    /// What is compared.
    pub compare: Compare,
    /// Rungs of the extraction ladder; all of them where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Vec<Rung>>,
    /// Conventions of mathematical comparison.
    #[serde(default)]
    pub policy: ocelli_reward::Policy,
    /// Column with an allowed absolute error, where a row has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub absolute_column: String,
}

/// What becomes of an answer that is missing or unreadable in reference mode. Strict mode counts it as wrong, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Wrong, in the denominator.
    #[default]
    Wrong,
    /// Left out of the denominator.
    Dropped,
    /// The expectation of a uniform guess among the options (instead of the official program's random draw).
    Chance,
    /// Half a point.
    Half,
}

/// What the official program does with missing answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferencePolicy {
    /// After a failed, refused or empty request.
    pub failed: Missing,
    /// Where the rule reads no answer.
    pub unparsed: Missing,
}

/// A versioned judge prompt. Templates see `question`, `gold`, `answer` and `response`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgePrompt {
    /// Version; part of the key under which verdicts are stored.
    pub version: u32,
    /// Message to the judge; the variable `chinese` says whether the response is in Chinese.
    pub user: String,
    /// How the official program reads the reply.
    pub reply: ReplyRule,
    /// Sampling of the judge.
    #[serde(default)]
    pub sampling: SamplingParams,
}

/// How a policy's verdict on given answers is read in reference mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictRule {
    /// The official reading.
    pub reply: ReplyRule,
}

/// How an official program reads a judge's reply. The strict reading is tolerant of form and has an unparsed class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyRule {
    /// `{"check": 1}` or `{"check": 0}`; anything else is 0.
    CheckJson,
    /// The reply in lower case is exactly `correct`.
    CorrectWord,
    /// The reply begins with yes; anything else is no.
    YesWord,
    /// `[[A]]` or `[[B]]`.
    BracketLetter,
    /// `Overall Judgment: Answer 1 is better.`
    AnswerNumber,
}
