//! What a run directory holds for whoever reads it later: results per arm and item, tool attribution, the summary.
//!
//! ```text
//! runs/charts/
//!   config.toml            resolved configuration
//!   environment.json       version and build, processor, threads, memory, seed, hashes of the data
//!   summary.json           RunSummary; written as each stage begins, so that an interrupted run is told as such
//!   metrics.jsonl          Record rows of all stages
//!   items/<arm>.jsonl      ItemResult rows, one file an arm
//!   samples.jsonl          a few trajectories to look at; their images are in blobs/
//!   blobs/                 images by content hash
//!   stages/<stage>/        what each stage wrote, with done.json
//!   report.html
//! ```

use serde::{Deserialize, Serialize};

/// One evaluated item of one arm; the unit of paired comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemResult {
    /// Identifier of the sample; equal identifiers pair up across arms and runs.
    pub id: String,
    /// Column for grouping, e.g. the chart's style; empty where there is none.
    #[serde(default)]
    pub group: String,
    /// Score between 0 and 1; an unscored item is 0 and has `status` other than `answered`.
    pub score: f64,
    /// The answer that was read, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// How the trajectory ended, as in [`crate::Status`] (snake case).
    pub status: String,
    /// Names of the tools called, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Number of sampled tokens.
    #[serde(default)]
    pub tokens: usize,
    /// The right answer, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Accuracy of guessing among the options; absent where the question has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
}

/// One way of answering, e.g. the SFT checkpoint with tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Unique in the run and usable as a file name, e.g. `sft-tools`.
    pub id: String,
    /// Name for people, e.g. `SFT`.
    pub label: String,
    /// True where tools may be called.
    pub tools: bool,
    /// The evaluation that it belongs to, where a run has several; arms of different ones answered different questions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// Identifier of the arm whose model this one's began from, asked the same way: what the arm is to be compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_from: Option<String>,
}

/// One stage as it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRun {
    /// Name, e.g. `grpo`.
    pub name: String,
    /// Wall time in seconds of the run that did the work, interrupted attempts included.
    pub seconds: f64,
    /// One line for people: what came out.
    pub outcome: String,
}

/// A number for the summary's table of facts, e.g. the fill of the sample buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Heading under which it stands, e.g. `Selective sample buffer`.
    pub section: String,
    /// What it is.
    pub name: String,
    /// The value, with its interval and unit, as it should be read.
    pub text: String,
}

/// The result of a pipeline run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Name of the run.
    pub name: String,
    /// One sentence on what was trained on what.
    pub about: String,
    /// Seed of the run.
    pub seed: u64,
    /// Ways of answering, in the order of the table; items are in `items/<id>.jsonl`.
    pub arms: Vec<Arm>,
    /// Accuracy of guessing, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Stages in order.
    pub stages: Vec<StageRun>,
    /// Numbers worth knowing beside the accuracies.
    pub facts: Vec<Fact>,
    /// The stage that is under way; absent where the run is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
}
