//! Several scorers with weights, and the whole breakdown. Training and evaluation build it from the same table.

use ocelli_data::{Score, Target, Trajectory};
use serde::{Deserialize, Serialize};

use crate::format::{Form, ToolCallFormat};
use crate::scorer::{Accuracy, Scorer};
use crate::tool_use::{ToolCost, ToolGain, ToolValidity};

/// A rubric that cannot score.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RubricError {
    /// No part has a weight.
    #[error("a rubric needs at least one part with a weight other than 0")]
    Empty,
    /// A weight is no finite number.
    #[error("the weight of `{name}` is {weight}; give a finite number")]
    Weight {
        /// Name of the part.
        name: String,
        /// Its weight.
        weight: f64,
    },
    /// Two parts would be reported under one name.
    #[error("two parts of the rubric are called `{0}`; remove one")]
    Duplicate(String),
}

/// One line of a rubric's table: `{ kind = "accuracy", weight = 0.8 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PartConfig {
    /// Weight in the total; 0 reports the part without counting it.
    pub weight: f64,
    /// Which scorer.
    #[serde(flatten)]
    pub kind: PartKind,
}

/// The scorers that a table can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PartKind {
    /// [`Accuracy`].
    Accuracy(Accuracy),
    /// [`Form::ThinkAnswer`].
    ThinkAnswer,
    /// [`Form::ThinkBox`].
    ThinkBox,
    /// [`Form::Box`].
    Box,
    /// [`ToolCallFormat`].
    ToolCallFormat,
    /// [`ToolValidity`].
    ToolValidity,
    /// [`ToolCost`].
    ToolCost {
        /// Cost of one call.
        per_call: f64,
        /// Further cost of a repeated call.
        #[serde(default)]
        per_repeat: f64,
        /// Largest cost of a trajectory.
        cap: f64,
    },
    /// [`ToolGain`] over [`Accuracy`].
    ToolGain,
}

impl PartKind {
    fn build(&self) -> Box<dyn Scorer> {
        match self {
            Self::Accuracy(accuracy) => Box::new(accuracy.clone()),
            Self::ThinkAnswer => Box::new(Form::ThinkAnswer),
            Self::ThinkBox => Box::new(Form::ThinkBox),
            Self::Box => Box::new(Form::Box),
            Self::ToolCallFormat => Box::new(ToolCallFormat),
            Self::ToolValidity => Box::new(ToolValidity),
            Self::ToolCost { per_call, per_repeat, cap } => {
                Box::new(ToolCost { per_call: *per_call, per_repeat: *per_repeat, cap: *cap })
            }
            Self::ToolGain => Box::new(ToolGain { accuracy: Accuracy::default() }),
        }
    }
}

/// Weighted scorers.
pub struct Rubric {
    parts: Vec<(f64, Box<dyn Scorer>)>,
}

/// The scores of all parts and their weighted sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breakdown {
    /// Sum of weight times score. Unscored when a part with a weight is unscored.
    pub total: Score,
    /// Name, weight and score of each part, in the order of the rubric.
    pub parts: Vec<(String, f64, Score)>,
}

impl Breakdown {
    /// The parts and the total (as `reward`) in the form in which a trajectory keeps them.
    pub fn into_scores(self) -> Vec<(String, Score)> {
        let mut scores: Vec<(String, Score)> =
            self.parts.into_iter().map(|(name, _, score)| (name, score)).collect();
        scores.push(("reward".to_owned(), self.total));
        scores
    }
}

impl std::fmt::Debug for Rubric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|(w, s)| (s.name(), w))).finish()
    }
}

impl Rubric {
    /// A rubric of weighted scorers.
    pub fn new(parts: Vec<(f64, Box<dyn Scorer>)>) -> Result<Self, RubricError> {
        for (i, (weight, scorer)) in parts.iter().enumerate() {
            let name = scorer.name().to_owned();
            if !weight.is_finite() {
                return Err(RubricError::Weight { name, weight: *weight });
            }
            if parts[..i].iter().any(|(_, s)| s.name() == name) {
                return Err(RubricError::Duplicate(name));
            }
        }
        if parts.iter().all(|(w, _)| *w == 0.0) { Err(RubricError::Empty) } else { Ok(Self { parts }) }
    }

    /// The rubric of a table.
    pub fn from_config(parts: &[PartConfig]) -> Result<Self, RubricError> {
        Self::new(parts.iter().map(|p| (p.weight, p.kind.build())).collect())
    }

    /// Names of the parts, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(_, scorer)| scorer.name())
    }

    /// Scores all parts.
    pub fn breakdown(&self, trajectory: &Trajectory, target: &Target) -> Breakdown {
        let parts: Vec<(String, f64, Score)> = self
            .parts
            .iter()
            .map(|(weight, scorer)| (scorer.name().to_owned(), *weight, scorer.score(trajectory, target)))
            .collect();
        let counted = || parts.iter().filter(|(_, w, _)| *w != 0.0);
        let total = counted().try_fold(0.0, |sum, (_, w, s)| s.value.map(|v| sum + w * v));
        let why = match counted().find(|(_, _, s)| s.value.is_none()) {
            Some((name, _, s)) => format!("`{name}` is unscored: {}", s.why),
            None => counted()
                .map(|(n, w, s)| format!("{w} x {n} {}", s.or_zero()))
                .collect::<Vec<_>>()
                .join(" + "),
        };
        let answer = parts.iter().find_map(|(_, _, s)| s.answer.clone().filter(|a| !a.is_empty()));
        Breakdown { total: Score { value: total, answer, why }, parts }
    }
}

impl Scorer for Rubric {
    fn name(&self) -> &str {
        "reward"
    }

    fn score(&self, trajectory: &Trajectory, target: &Target) -> Score {
        self.breakdown(trajectory, target).total
    }
}
