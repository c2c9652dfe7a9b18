//! Test-time compute from the stored samples of a run: what k samples, a vote, a reward or a token budget would give.
//! All values are exact expectations over the stored samples; no sampling enters.

use std::collections::{BTreeMap, HashMap};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use super::CONFIDENCE;
use crate::evaluate::Extra;
use crate::item::Item;
use crate::score::{Scored, same_answer};
use crate::stats::{
    Estimate, MAX_TOURNAMENT, StatsError, VarianceSplit, Vote, best_of_k, g_pass_at_k, guess_corrected,
    majority_at_k, pass_all_k, pass_at_k, proportion, tournament_at_k, variance_split,
    weighted_majority_at_k,
};

/// Values at one k; means over items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KRow {
    /// Samples.
    pub k: usize,
    /// At least one of k is right.
    pub pass: Estimate,
    /// pass@k minus what guessing among the options reaches.
    pub pass_above_chance: f64,
    /// All k are right.
    pub pass_all: Estimate,
    /// At least half of k are right (G-pass@k at 0.5; what some harnesses call consensus).
    pub half: Estimate,
    /// The most frequent answer of k is right.
    pub majority: Estimate,
    /// The answer with the highest reward of k is right, where rewards are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_of: Option<Estimate>,
    /// The answer with the largest sum of rewards of k is right, where rewards are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighted_majority: Option<Estimate>,
    /// The winner of a knock-out tournament of k samples is right, for powers of two, where all samples of every item were
    /// compared pair by pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tournament: Option<Estimate>,
}

/// Share right within a budget of completion tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenBudget {
    /// Tokens.
    pub tokens: u64,
    /// Share of answers that are right and no longer than that.
    pub right: f64,
    /// Share of answers that are no longer than that.
    pub ended: f64,
}

/// Curves of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Over k: 1, 2, 4 ... and the number of samples.
    pub k: Vec<KRow>,
    /// Where the variance of avg@k comes from, for two or more samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<VarianceSplit>,
    /// Over token budget.
    pub tokens: Vec<TokenBudget>,
    /// Why there is no tournament although preferences were given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub no_tournament: String,
}

/// Classes of equal answers within one item.
fn votes(samples: &[&Scored]) -> Vec<Vote> {
    let mut representatives: Vec<&str> = Vec::new();
    samples
        .iter()
        .map(|s| {
            let class = s.strict.answer.as_deref().map(|answer| {
                representatives.iter().position(|r| same_answer(r, answer)).unwrap_or_else(|| {
                    representatives.push(answer);
                    representatives.len() - 1
                })
            });
            Vote { class, credit: s.strict.or_zero() }
        })
        .collect()
}

/// Makes the curves from strict verdicts. Rewards and preferences are used where every sample, or every pair of
/// samples, has one.
pub fn curves(items: &[Item], scored: &[Scored], extra: &Extra) -> Result<Curves, StatsError> {
    let mut by_item: BTreeMap<&str, Vec<&Scored>> = BTreeMap::new();
    scored.iter().for_each(|s| by_item.entry(&s.item).or_default().push(s));
    by_item.values_mut().for_each(|v| v.sort_by_key(|s| s.sample));
    let options: HashMap<&str, usize> = items.iter().map(|i| (i.id.as_str(), i.options.len())).collect();
    let samples = by_item.values().map(Vec::len).min().unwrap_or(0);
    let mut curves = Curves { tokens: token_budgets(scored), ..Curves::default() };
    if samples < 2 {
        return Ok(curves);
    }
    let credits: Vec<Vec<f64>> =
        by_item.values().map(|v| v[..samples].iter().map(|s| s.strict.or_zero()).collect()).collect();
    if credits.len() >= 2 {
        curves.variance = Some(variance_split(&credits)?);
    }
    let voted: Vec<Vec<Vote>> = by_item.values().map(|v| votes(&v[..samples])).collect();
    let scores: Option<Vec<Vec<f64>>> = by_item
        .iter()
        .map(|(id, v)| {
            v[..samples].iter().map(|s| extra.rewards.get(&((*id).to_owned(), s.sample)).copied()).collect()
        })
        .collect();
    let beats = if extra.preferences.is_empty() {
        None
    } else if samples > MAX_TOURNAMENT {
        curves.no_tournament =
            format!("{samples} samples per item; a tournament takes at most {MAX_TOURNAMENT}");
        None
    } else {
        let tables: Result<Vec<Vec<Vec<f64>>>, String> = by_item
            .iter()
            .map(|(id, v)| extra.table(id, &v[..samples].iter().map(|s| s.sample).collect::<Vec<_>>()))
            .collect();
        tables.map_err(|why| curves.no_tournament = why).ok()
    };
    let mut ks: Vec<usize> =
        std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|k| *k < samples).collect();
    ks.push(samples);
    for k in ks {
        let right = |c: &Vec<f64>| c.iter().filter(|v| **v >= 1.0).count();
        let over = |f: &dyn Fn(usize) -> Result<f64, StatsError>| -> Result<Estimate, StatsError> {
            let values: Vec<f64> = (0..credits.len()).map(f).collect::<Result<_, _>>()?;
            // Rounding may leave an expectation a hair outside the unit interval.
            let values: Vec<f64> = values.into_iter().map(|v| v.clamp(0.0, 1.0)).collect();
            proportion::<u8>(&values, None, CONFIDENCE)
        };
        let pass = over(&|i| pass_at_k(samples, right(&credits[i]), k))?;
        let chance = by_item
            .keys()
            .map(|id| match options.get(id).copied().unwrap_or(0) {
                0 | 1 => Ok(0.0),
                m => guess_corrected(0.0, m, k).map(|g| g.chance),
            })
            .sum::<Result<f64, StatsError>>()?;
        let best_of = scores.as_ref().map(|s| over(&|i| best_of_k(&credits[i], &s[i], k))).transpose()?;
        let weighted = scores
            .as_ref()
            .map(|s| {
                over(&|i| {
                    let mut rng = ChaCha8Rng::seed_from_u64(i as u64);
                    weighted_majority_at_k(&voted[i], &s[i], k, 20_000, &mut rng).map(|e| e.value)
                })
            })
            .transpose()?;
        let tournament = beats
            .as_ref()
            .filter(|_| k.is_power_of_two())
            .map(|b| over(&|i| tournament_at_k(&credits[i], &b[i], k)))
            .transpose()?;
        curves.k.push(KRow {
            k,
            pass_above_chance: pass.mean - chance / credits.len() as f64,
            pass,
            pass_all: over(&|i| pass_all_k(samples, right(&credits[i]), k))?,
            half: over(&|i| g_pass_at_k(samples, right(&credits[i]), k, 0.5))?,
            majority: over(&|i| majority_at_k(&voted[i], k))?,
            best_of,
            weighted_majority: weighted,
            tournament,
        });
    }
    Ok(curves)
}

/// Right answers within a budget: a longer one would have been cut off before its end. At most 60 points.
fn token_budgets(scored: &[Scored]) -> Vec<TokenBudget> {
    let mut lengths: Vec<(u64, bool)> =
        scored.iter().map(|s| (s.usage.completion, s.strict.or_zero() > 0.5)).collect();
    if lengths.iter().all(|(tokens, _)| *tokens == 0) {
        return Vec::new();
    }
    lengths.sort_unstable();
    let n = lengths.len() as f64;
    let longest = lengths.last().map_or(0, |l| l.0);
    let mut budgets: Vec<u64> = (0..=60).map(|i| lengths[(lengths.len() - 1) * i / 60].0).collect();
    budgets.push(longest);
    budgets.dedup();
    budgets
        .into_iter()
        .map(|tokens| {
            let ended = lengths.iter().take_while(|l| l.0 <= tokens);
            let right = ended.clone().filter(|l| l.1).count() as f64 / n;
            TokenBudget { tokens, right, ended: ended.count() as f64 / n }
        })
        .collect()
}
