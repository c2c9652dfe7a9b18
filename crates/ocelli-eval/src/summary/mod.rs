//! From verdicts to the numbers of a report. Every mean has its n and its interval; every denominator is shown with
//! what was missing and the bounds that missing answers leave open.

mod aggregate;
mod curves;
mod difference;
mod human;
mod pairs;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ocelli_agent::endpoint::{Outcome, Totals, Usage};
use serde::{Deserialize, Serialize};

use crate::judge::{JudgeAgreement, ReasoningReport};
use crate::stats::{Estimate, Interval};

pub use aggregate::{ItemCredit, Mode, ModeSummary, group_tables, item_credits, metrics, summarise};
pub use curves::{Curves, KRow, TokenBudget, curves};
pub use difference::{Difference, DifferenceKind, difference};
pub use human::{HumanCheck, human_check};
pub use pairs::{PairSummary, pair_summary};

/// Confidence of every interval in a report.
pub const CONFIDENCE: f64 = 0.95;

/// One row of a grouping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Label.
    pub label: String,
    /// Reference accuracy; `None` where the official program leaves every item out.
    pub reference: Option<Estimate>,
    /// Strict accuracy.
    pub strict: Estimate,
}

/// A grouping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupTable {
    /// Name.
    pub name: String,
    /// True where an item may stand under several labels, so that the rows do not add up.
    pub overlapping: bool,
    /// Rows sorted by label.
    pub rows: Vec<GroupRow>,
}

/// A number beside the accuracy, with its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// Name.
    pub name: String,
    /// `reference`, `strict`, or empty where the number depends on neither.
    pub mode: String,
    /// The number; `None` where it is not defined on this data.
    pub value: Option<f64>,
    /// Its interval, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// What it is made of.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parts: IndexMap<String, f64>,
    /// Why it is not defined, or what is missing from it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Comparison of recomputed verdicts with published ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelCheck {
    /// Items with a published verdict.
    pub compared: usize,
    /// Right by the published verdicts.
    pub published_right: usize,
    /// Right by the recomputed ones.
    pub recomputed_right: usize,
    /// Items on which they differ: name, published, recomputed, answer.
    pub contradictions: Vec<(String, bool, bool, String)>,
}

/// Everything about one task and one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Benchmark and variant.
    pub task: String,
    /// Title of the benchmark.
    pub title: String,
    /// Who answered.
    pub model: String,
    /// Items.
    pub items: usize,
    /// Samples per item.
    pub samples: u32,
    /// Answers by how they ended; their sum is items times samples (times orders for given answers).
    pub outcomes: BTreeMap<Outcome, usize>,
    /// Answers that the strict rule read but could not decide.
    pub undecided: usize,
    /// By the official rule.
    pub reference: ModeSummary,
    /// By ours.
    pub strict: ModeSummary,
    /// Groupings.
    pub groups: Vec<GroupTable>,
    /// Further numbers.
    pub metrics: Vec<MetricValue>,
    /// Differences between the two rules by kind, and how many go each way: (only reference right, only strict right).
    pub difference_kinds: BTreeMap<DifferenceKind, (usize, usize)>,
    /// Curves over k and over token budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<Curves>,
    /// Orders, positions and margins of given answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairSummary>,
    /// The judge against the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeAgreement>,
    /// People against the automatic verdicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human: Option<HumanCheck>,
    /// Judgement of reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningReport>,
    /// Published verdicts against recomputed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelCheck>,
    /// Tokens of all answers.
    pub usage: Usage,
    /// What the endpoint was asked in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Totals>,
    /// Hash of the declaration.
    pub declaration: String,
    /// Fingerprint of the data.
    pub data: String,
    /// What a reader should know.
    pub notes: Vec<String>,
}
