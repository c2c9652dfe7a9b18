//! A benchmark with a value chosen on each axis: `csvqa:zh,question,direct`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Benchmark, shipped, shipped_names};

/// A benchmark and its variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The declaration.
    pub benchmark: Benchmark,
    /// The chosen value of each axis.
    pub axes: IndexMap<String, String>,
}

/// A task that does not exist.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No such benchmark.
    #[error("there is no benchmark `{name}`{hint}; known are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Nearest known name.
        hint: String,
        /// All names.
        known: String,
    },
    /// No such variant.
    #[error("benchmark {name} has no variant `{value}`; it has {known}")]
    Variant {
        /// The benchmark.
        name: String,
        /// What was asked for.
        value: String,
        /// All values by axis.
        known: String,
    },
    /// Two values on one axis.
    #[error("benchmark {name}: `{first}` and `{second}` are both values of the axis `{axis}`")]
    Twice {
        /// The benchmark.
        name: String,
        /// The axis.
        axis: String,
        /// First value.
        first: String,
        /// Second value.
        second: String,
    },
}

impl Task {
    /// Reads `name` or `name:value,value` among the shipped benchmarks. Axes that are not named have their first value.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let (name, variant) = text.split_once(':').unwrap_or((text, ""));
        let benchmark = shipped(name).ok_or_else(|| {
            let nearest = shipped_names().map(|n| (strsim::damerau_levenshtein(n, name), n)).min();
            let hint = match nearest {
                Some((distance, near)) if distance <= 3 => format!(" (did you mean `{near}`?)"),
                _ => String::new(),
            };
            TaskError::Unknown {
                name: name.into(),
                hint,
                known: shipped_names().collect::<Vec<_>>().join(", "),
            }
        })?;
        Self::with_variant(benchmark, variant)
    }

    /// Chooses a variant, written `value,value`; empty for the defaults.
    pub fn with_variant(benchmark: Benchmark, variant: &str) -> Result<Self, TaskError> {
        let mut axes: IndexMap<String, String> = IndexMap::new();
        for value in variant.split(',').map(str::trim).filter(|v| !v.is_empty()) {
            let axis = benchmark.axes.iter().find(|(_, values)| values.iter().any(|v| v == value));
            let Some((axis, _)) = axis else {
                let known = benchmark.axes.iter().map(|(a, v)| format!("{a}: {}", v.join(" or ")));
                let known = known.collect::<Vec<_>>().join("; ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                return Err(TaskError::Variant { name: benchmark.name, value: value.into(), known });
            };
            if let Some(first) = axes.insert(axis.clone(), value.to_owned()) {
                let (axis, second) = (axis.clone(), value.to_owned());
                return Err(TaskError::Twice { name: benchmark.name, axis, first, second });
            }
        }
        let axes = benchmark
            .axes
            .iter()
            .map(|(axis, values)| {
                let value = axes.get(axis).or(values.first()).cloned().unwrap_or_default();
                (axis.clone(), value)
            })
            .collect();
        Ok(Self { benchmark, axes })
    }

    /// Name with the values that are not defaults, as [`Task::parse`] reads it.
    pub fn name(&self) -> String {
        let chosen: Vec<&str> = self
            .axes
            .iter()
            .filter(|(axis, value)| self.benchmark.axes.get(*axis).and_then(|v| v.first()) != Some(value))
            .map(|(_, value)| value.as_str())
            .collect();
        let colon = if chosen.is_empty() { "" } else { ":" };
        format!("{}{colon}{}", self.benchmark.name, chosen.join(","))
    }

    /// Replaces `{axis}` by the axis' value.
    pub fn resolve(&self, text: &str) -> String {
        self.axes.iter().fold(text.to_owned(), |t, (axis, value)| t.replace(&format!("{{{axis}}}"), value))
    }
}
