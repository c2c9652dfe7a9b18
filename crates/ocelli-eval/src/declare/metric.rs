//! Numbers of a report beside the plain accuracy.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Group;

/// A number with its name. Unknown keys are errors of [`MetricKind`], since a flattened field cannot deny them here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name in reports.
    pub name: String,
    /// How it is made.
    #[serde(flatten)]
    pub kind: MetricKind,
}

/// How a number is made from the verdicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum MetricKind {
    /// Unweighted mean of the accuracies of a grouping's labels.
    MacroMean {
        /// Name of the grouping.
        group: String,
    },
    /// Share of sets of items, all of which are right (HallusionBench's fAcc and qAcc).
    AllRight {
        /// Columns that name a set.
        by: Vec<String>,
        /// Only items whose column has this value, where given: `[column, value]`.
        #[serde(default)]
        only: Option<(String, String)>,
    },
    /// Precision, recall, F1 and share of `yes` (POPE).
    YesNo,
    /// Weighted means of a grouping's labels by section, and the mean of the sections (RewardBench).
    Sections {
        /// Name of the grouping.
        group: String,
        /// The sections.
        sections: Vec<Section>,
    },
    /// RewardBench 2's score of the subset of ties.
    Ties {
        /// Name of the grouping.
        group: String,
        /// Label of the subset.
        label: String,
    },
    /// Agreement of raters (Cohen pairwise, Fleiss, Krippendorff) in columns of the data.
    Raters {
        /// The columns.
        columns: Vec<String>,
    },
}

/// A section of a weighted mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Name.
    pub name: String,
    /// Weight of each label.
    pub weights: IndexMap<String, f64>,
}

impl Metric {
    pub(super) fn check(&self, groups: &[Group]) -> Result<(), String> {
        let group = match &self.kind {
            MetricKind::MacroMean { group }
            | MetricKind::Sections { group, .. }
            | MetricKind::Ties { group, .. } => group,
            MetricKind::AllRight { .. } | MetricKind::YesNo | MetricKind::Raters { .. } => return Ok(()),
        };
        if groups.iter().any(|g| g.name == *group) {
            Ok(())
        } else {
            Err(format!("the metric `{}` names the grouping `{group}`, which is not declared", self.name))
        }
    }
}
