//! Given answers: consistency over orders, bias of position and of length, margins of scalar models.

use serde::{Deserialize, Serialize};

use super::CONFIDENCE;
use crate::item::{Gold, Item};
use crate::score::GivenVerdict;
use crate::stats::{Calibration, Estimate, StatsError, auc, calibration, cohen_kappa, proportion};

/// Numbers about given answers beside the accuracy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairSummary {
    /// Items with verdicts on more than one order.
    pub both_orders: usize,
    /// Share of these that are right in every order.
    pub consistent: Option<Estimate>,
    /// Share of these where every order chooses the same answer, right or wrong.
    pub same_choice: Option<Estimate>,
    /// Share of these where the verdict follows the place: the first one in both orders, or the second one.
    pub follows_place: Option<Estimate>,
    /// Share of verdicts for the first place; half where place does not matter.
    pub first_place: Option<Estimate>,
    /// Verdicts that call a tie, share of all verdicts.
    pub ties: f64,
    /// Replies without a readable verdict, share of all verdicts.
    pub unparsed: f64,
    /// Cohen's kappa of the choice with the gold preference, over items with a decided choice.
    pub kappa: Option<f64>,
    /// Accuracy where the better answer is the longer one.
    pub longer_better: Option<Estimate>,
    /// Accuracy where the better answer is the shorter one.
    pub shorter_better: Option<Estimate>,
    /// Area under the ROC curve of scores of better against worse answers, over all items.
    pub auc: Option<f64>,
    /// Calibration of `sigmoid(score difference)`.
    pub calibration: Option<Calibration>,
    /// Quantiles 5, 25, 50, 75, 95 % of the margin of the better answer.
    pub margins: Option<[f64; 5]>,
}

/// Summarises verdicts on given answers.
pub fn pair_summary(items: &[Item], verdicts: &[GivenVerdict]) -> Result<PairSummary, StatsError> {
    let share = |values: Vec<f64>| -> Result<Option<Estimate>, StatsError> {
        if values.is_empty() { Ok(None) } else { proportion::<u8>(&values, None, CONFIDENCE).map(Some) }
    };
    let truth = |b: bool| f64::from(u8::from(b));
    let several: Vec<&GivenVerdict> = verdicts.iter().filter(|v| v.places.len() > 1).collect();
    let same = |list: &[Option<usize>]| list[0].is_some() && list.iter().all(|x| *x == list[0]);
    let total: usize = verdicts.iter().map(|v| v.chosen.len()).sum();
    let of_total = |n: usize| if total == 0 { 0.0 } else { n as f64 / total as f64 };
    let gold: std::collections::HashMap<&str, &Item> = items.iter().map(|i| (i.id.as_str(), i)).collect();

    let (mut chosen, mut wanted) = (Vec::new(), Vec::new());
    let (mut longer, mut shorter) = (Vec::new(), Vec::new());
    let (mut scores, mut positive, mut margins, mut first_better) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut differences = Vec::new();
    for v in verdicts {
        let Some(item) = gold.get(v.item.as_str()) else { continue };
        let Gold::Better(better) = &item.gold else { continue };
        if let (Some(first), [b]) = (v.chosen.first().copied().flatten(), better.as_slice())
            && v.chosen.iter().all(|c| *c == Some(first))
        {
            chosen.push(first);
            wanted.push(*b);
        }
        if let ([b], [x, y]) = (better.as_slice(), item.answers.as_slice()) {
            let lengths = [x.chars().count(), y.chars().count()];
            let (best, other) = (lengths[*b], lengths[1 - *b]);
            if best > other {
                longer.push(v.strict.or_zero());
            } else if best < other {
                shorter.push(v.strict.or_zero());
            }
        }
        for (i, s) in v.scores.iter().enumerate() {
            scores.push(*s);
            positive.push(better.contains(&i));
        }
        if let ([b], [x, y]) = (better.as_slice(), v.scores.as_slice()) {
            margins.push(if *b == 0 { x - y } else { y - x });
            differences.push(x - y);
            first_better.push(*b == 0);
        }
    }
    margins.sort_by(f64::total_cmp);
    let quantile = |p: f64| margins[((margins.len() - 1) as f64 * p).round() as usize];
    Ok(PairSummary {
        both_orders: several.len(),
        consistent: share(several.iter().map(|v| v.strict.or_zero()).collect())?,
        same_choice: share(several.iter().map(|v| truth(same(&v.chosen))).collect())?,
        follows_place: share(several.iter().map(|v| truth(same(&v.places))).collect())?,
        first_place: share(
            verdicts.iter().flat_map(|v| &v.places).flatten().map(|p| truth(*p == 0)).collect(),
        )?,
        ties: of_total(verdicts.iter().map(|v| v.ties).sum()),
        unparsed: of_total(verdicts.iter().map(|v| v.unparsed).sum()),
        kappa: if chosen.is_empty() { None } else { cohen_kappa(&chosen, &wanted)? },
        longer_better: share(longer)?,
        shorter_better: share(shorter)?,
        auc: if scores.is_empty() { None } else { auc(&scores, &positive)? },
        calibration: if differences.len() > 1 {
            Some(calibration(&differences, &first_better)?)
        } else {
            None
        },
        margins: (!margins.is_empty()).then(|| [0.05, 0.25, 0.5, 0.75, 0.95].map(quantile)),
    })
}
