//! Thresholds on a reward model's scores.
//!
//! A pairwise loss leaves the zero of the scores open, so a threshold that served one checkpoint (R1V2 used 15) says
//! nothing about the next. It is found anew from responses whose correctness a verifier knows.

use serde::Serialize;

use crate::losses::{LossError, finite, same_length};

/// One candidate threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Operating {
    /// Scores at or above it are kept.
    pub threshold: f64,
    /// Responses kept.
    pub kept: usize,
    /// Share of the kept that are right.
    pub precision: f64,
    /// Share of the right that are kept.
    pub recall: f64,
}

/// All operating points, from the lowest threshold (keeps all) to the highest.
pub fn operating_points(scores: &[f64], right: &[bool]) -> Result<Vec<Operating>, LossError> {
    same_length("scores against verdicts", scores.len(), right.len())?;
    finite("score", scores)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let all_right = right.iter().filter(|r| **r).count();
    let (mut kept, mut good) = (0, 0);
    let mut points = Vec::new();
    for (i, &at) in order.iter().enumerate() {
        kept += 1;
        good += usize::from(right[at]);
        // Equal scores cannot be told apart by a threshold.
        if order.get(i + 1).is_none_or(|&next| scores[next] != scores[at]) {
            points.push(Operating {
                threshold: scores[at],
                kept,
                precision: good as f64 / kept as f64,
                recall: good as f64 / all_right.max(1) as f64,
            });
        }
    }
    points.reverse();
    Ok(points)
}

/// The lowest threshold from which on the precision is at least `precision` and `least` responses are kept; `None`
/// where no threshold does.
pub fn threshold_for(points: &[Operating], precision: f64, least: usize) -> Option<Operating> {
    points.iter().find(|p| p.precision >= precision && p.kept >= least).copied()
}
