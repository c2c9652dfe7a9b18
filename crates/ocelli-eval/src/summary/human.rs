//! What people say about some answers, beside the automatic verdicts on all.

use serde::{Deserialize, Serialize};

use super::CONFIDENCE;
use crate::stats::{Corrected, StatsError, cohen_kappa, prediction_powered};

/// Verdicts of people against the automatic ones, and the accuracy that both together give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HumanCheck {
    /// Answers that a person judged.
    pub seen: usize,
    /// Of these: the automatic verdict is the same.
    pub agreed: usize,
    /// Cohen's kappa on them; `None` where chance agreement is already perfect.
    pub kappa: Option<f64>,
    /// Accuracy over all answers, corrected by what people say (prediction-powered inference); `None` for fewer than two
    /// answers seen, or not seen, by people.
    pub corrected: Option<Corrected>,
}

/// Compares automatic credits with verdicts of people; `None` where no person saw any of the answers.
pub fn human_check(answers: &[(f64, Option<bool>)]) -> Result<Option<HumanCheck>, StatsError> {
    let credit = |right: bool| f64::from(u8::from(right));
    let seen: Vec<(f64, bool)> = answers.iter().filter_map(|(c, h)| Some((*c, (*h)?))).collect();
    if seen.is_empty() {
        return Ok(None);
    }
    let alone: Vec<f64> = answers.iter().filter(|(_, h)| h.is_none()).map(|(c, _)| *c).collect();
    let (automatic, human): (Vec<bool>, Vec<bool>) = seen.iter().map(|(c, h)| (*c > 0.5, *h)).unzip();
    let corrected = if seen.len() >= 2 && alone.len() >= 2 {
        let human: Vec<f64> = human.iter().map(|h| credit(*h)).collect();
        let shared: Vec<f64> = seen.iter().map(|(c, _)| *c).collect();
        Some(prediction_powered(&human, &shared, &alone, CONFIDENCE)?)
    } else {
        None
    };
    Ok(Some(HumanCheck {
        seen: seen.len(),
        agreed: automatic.iter().zip(&human).filter(|(a, h)| a == h).count(),
        kappa: cohen_kappa(&automatic, &human)?,
        corrected,
    }))
}
