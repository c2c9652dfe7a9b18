//! Rows of a run directory. Each is one JSON line with a `type`, so that one reader serves training and evaluation.

use serde::{Deserialize, Serialize};

/// One row of `metrics.jsonl`.
///
/// ```json
/// {"type": "metric", "stage": "grpo", "step": 12, "name": "reward/accuracy", "value": 0.41}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// A number at a step.
    Metric {
        /// Stage of the pipeline: `sft`, `reward`, `mpo`, `grpo`, `eval` ...
        stage: String,
        /// Optimizer step, from 0.
        step: u64,
        /// Name with `/` between group and quantity.
        name: String,
        /// Always finite.
        value: f64,
    },
    /// A monitor saw something that a person should know.
    Alarm {
        /// Stage of the pipeline.
        stage: String,
        /// Optimizer step.
        step: u64,
        /// Which monitor, e.g. `image_dependence`.
        monitor: String,
        /// What it saw, with numbers, and what to do.
        message: String,
    },
}
