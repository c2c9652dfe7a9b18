//! Two runs on shared items: paired differences with their errors, exact tests, corrections for several tests.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::evaluate::Evaluation;
use crate::stats::{
    Estimate, Interval, McNemar, PairedDifference, StatsError, benjamini_hochberg, detectable_difference,
    holm, mcnemar, paired_bootstrap, paired_difference, paired_permutation, proportion, sample_size,
};
use crate::summary::{CONFIDENCE, Mode};

const REPLICATES: usize = 10_000;

/// An item on which two runs differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemDifference {
    /// Name of the item.
    pub item: String,
    /// Mean credit of the first run.
    pub a: f64,
    /// Mean credit of the second run.
    pub b: f64,
    /// Answer of the first run, first sample.
    pub answer_a: String,
    /// Answer of the second run, first sample.
    pub answer_b: String,
    /// Gold answer.
    pub gold: String,
}

/// Paired difference on the items of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDifference {
    /// Label.
    pub label: String,
    /// Shared items under it.
    pub n: usize,
    /// Paired difference a - b on them.
    pub difference: PairedDifference,
}

/// Paired differences by the labels of one grouping. Intervals are for each label by itself: with many labels some miss zero by
/// chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDifferences {
    /// Name of the grouping.
    pub name: String,
    /// True where an item may stand under several labels.
    pub overlapping: bool,
    /// Rows sorted by label; labels of one item are left out, since one pair has no interval.
    pub rows: Vec<GroupDifference>,
}

/// Comparison of two runs of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Benchmark and variant.
    pub task: String,
    /// First model.
    pub a: String,
    /// Second model.
    pub b: String,
    /// Items that both runs have.
    pub shared: usize,
    /// Items that only the first has.
    pub only_in_a: usize,
    /// Items that only the second has.
    pub only_in_b: usize,
    /// True where the data of the runs is not the same.
    pub data_differs: bool,
    /// Mean credit of the first on the shared items.
    pub mean_a: f64,
    /// Mean credit of the second on the shared items.
    pub mean_b: f64,
    /// Paired difference a - b.
    pub difference: PairedDifference,
    /// Bootstrap interval of the difference (10,000 replicates, seed 0).
    pub bootstrap: Interval,
    /// Permutation p-value of the difference.
    pub permutation_p: f64,
    /// Exact McNemar test, where every item has one sample worth 0 or 1.
    pub mcnemar: Option<McNemar>,
    /// p-value after Holm's correction over all comparisons made together.
    pub holm_p: f64,
    /// p-value after Benjamini and Hochberg's.
    pub bh_p: f64,
    /// Smallest true difference that this many items show with 80 % power at level 0.05.
    pub detectable: Option<f64>,
    /// Items that would show the observed difference with 80 % power.
    pub items_needed: Option<u64>,
    /// The difference by the groupings of the benchmark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupDifferences>,
    /// Items on which they differ.
    pub items: Vec<ItemDifference>,
    /// Soundness of the reasoning on the same items, where a judge saw both runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningComparison>,
}

/// Share of sound reasoning on a set of items that does not depend on the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Soundness {
    /// The first run's.
    pub a: Estimate,
    /// The second run's.
    pub b: Estimate,
    /// Exact test of the difference.
    pub mcnemar: McNemar,
}

/// Soundness of reasoning, compared. A judge sees different items of each run in the official protocol (those answered right),
/// which makes its two numbers incomparable; these two sets are the same for both runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasoningComparison {
    /// On all items judged in both runs.
    pub all: Soundness,
    /// On those of them that both runs answer right; `None` where there are none.
    pub both_right: Option<Soundness>,
}

impl Comparison {
    /// The p-value of the test that fits the data: McNemar's where it applies, else the permutation's.
    pub fn p(&self) -> f64 {
        self.mcnemar.map_or(self.permutation_p, |m| m.p)
    }
}

/// Runs that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// No items in common.
    #[error("{a} and {b} share no items")]
    Disjoint {
        /// First.
        a: String,
        /// Second.
        b: String,
    },
    /// Two different tasks.
    #[error("{a} and {b} are runs of different tasks")]
    Tasks {
        /// First.
        a: String,
        /// Second.
        b: String,
    },
    /// The numbers.
    #[error(transparent)]
    Stats(#[from] StatsError),
}

struct Credits {
    mean: f64,
    samples: usize,
    answer: String,
    gold: String,
    cluster: Option<String>,
    groups: Vec<Vec<String>>,
}

fn credits(run: &Evaluation, mode: Mode) -> BTreeMap<&str, Credits> {
    let mut by_item: BTreeMap<&str, Credits> = BTreeMap::new();
    for record in &run.records {
        let verdict = if mode == Mode::Reference { &record.reference } else { &record.strict };
        let entry = by_item.entry(&record.id).or_insert_with(|| Credits {
            mean: 0.0,
            samples: 0,
            answer: verdict.answer.clone().unwrap_or_default(),
            gold: record.gold.clone(),
            cluster: record.cluster.clone(),
            groups: record.groups.clone(),
        });
        entry.mean += (verdict.or_zero() - entry.mean) / (entry.samples + 1) as f64;
        entry.samples += 1;
    }
    by_item
}

fn reasoning(a: &Evaluation, b: &Evaluation) -> Result<Option<ReasoningComparison>, StatsError> {
    let of_b: BTreeMap<&str, (bool, bool)> = judged(b).collect();
    let both: Vec<((bool, bool), (bool, bool))> =
        judged(a).filter_map(|(id, v)| Some((v, *of_b.get(id)?))).collect();
    let over = |pairs: Vec<(bool, bool)>| -> Result<Option<Soundness>, StatsError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let (x, y): (Vec<bool>, Vec<bool>) = pairs.into_iter().unzip();
        let share = |v: &[bool]| {
            let credits: Vec<f64> = v.iter().map(|s| f64::from(u8::from(*s))).collect();
            proportion::<u8>(&credits, None, CONFIDENCE)
        };
        Ok(Some(Soundness { a: share(&x)?, b: share(&y)?, mcnemar: mcnemar(&x, &y)? }))
    };
    let both_right = both.iter().filter(|(x, y)| x.1 && y.1).map(|(x, y)| (x.0, y.0)).collect();
    let all = over(both.iter().map(|(x, y)| (x.0, y.0)).collect())?;
    let both_right = over(both_right)?;
    Ok(all.map(|all| ReasoningComparison { all, both_right }))
}

/// Items whose reasoning was judged: whether it is sound, and whether the answer is right. Unparsed is unsound.
fn judged(run: &Evaluation) -> impl Iterator<Item = (&str, (bool, bool))> {
    run.records.iter().filter_map(|r| {
        let verdict = r.judged_reasoning.as_ref()?;
        Some((r.id.as_str(), (verdict.sound == Some(true), verdict.answer_right)))
    })
}

/// Compares pairs of runs; the corrections for several tests are over all of them.
pub fn compare(pairs: &[(&Evaluation, &Evaluation)], mode: Mode) -> Result<Vec<Comparison>, CompareError> {
    let mut comparisons = pairs.iter().map(|(a, b)| one(a, b, mode)).collect::<Result<Vec<_>, _>>()?;
    let p: Vec<f64> = comparisons.iter().map(Comparison::p).collect();
    for ((c, holm), bh) in comparisons.iter_mut().zip(holm(&p)?).zip(benjamini_hochberg(&p)?) {
        c.holm_p = holm;
        c.bh_p = bh;
    }
    Ok(comparisons)
}

fn one(a: &Evaluation, b: &Evaluation, mode: Mode) -> Result<Comparison, CompareError> {
    let name = |e: &Evaluation| format!("{} on {}", e.summary.model, e.summary.task);
    if a.summary.task != b.summary.task {
        return Err(CompareError::Tasks { a: name(a), b: name(b) });
    }
    let (of_a, of_b) = (credits(a, mode), credits(b, mode));
    let shared: BTreeSet<&str> = of_a.keys().filter(|k| of_b.contains_key(*k)).copied().collect();
    if shared.is_empty() {
        return Err(CompareError::Disjoint { a: name(a), b: name(b) });
    }
    let column = |of: &BTreeMap<&str, Credits>| -> Vec<f64> {
        shared.iter().map(|id| of[id].mean.clamp(0.0, 1.0)).collect()
    };
    let (x, y) = (column(&of_a), column(&of_b));
    let clustered = shared.iter().any(|id| of_a[id].cluster.is_some());
    let names: Vec<String> =
        shared.iter().map(|id| of_a[id].cluster.clone().unwrap_or_else(|| (*id).to_owned())).collect();
    let clusters = clustered.then_some(names.as_slice());
    let difference = paired_difference(&x, &y, clusters, CONFIDENCE)?;
    let binary = |v: &[f64]| v.iter().all(|c| *c == 0.0 || *c == 1.0);
    // With clusters the items are not independent, which the exact test assumes.
    let exact = binary(&x) && binary(&y) && !clustered;
    let right = |v: &[f64]| v.iter().map(|c| *c == 1.0).collect::<Vec<bool>>();
    let power = |ok: bool, v: Result<f64, StatsError>| if ok { v.ok() } else { None };
    let items = shared
        .iter()
        .filter(|id| of_a[*id].mean != of_b[*id].mean)
        .map(|id| ItemDifference {
            item: (*id).to_owned(),
            a: of_a[id].mean,
            b: of_b[id].mean,
            answer_a: of_a[id].answer.clone(),
            answer_b: of_b[id].answer.clone(),
            gold: of_a[id].gold.clone(),
        })
        .collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    Ok(Comparison {
        task: a.summary.task.clone(),
        a: a.summary.model.clone(),
        b: b.summary.model.clone(),
        shared: shared.len(),
        only_in_a: of_a.len() - shared.len(),
        only_in_b: of_b.len() - shared.len(),
        data_differs: a.summary.data != b.summary.data,
        mean_a: mean(&x),
        mean_b: mean(&y),
        difference,
        bootstrap: paired_bootstrap(
            &x,
            &y,
            clusters,
            REPLICATES,
            CONFIDENCE,
            &mut ChaCha8Rng::seed_from_u64(0),
        )?,
        permutation_p: paired_permutation(&x, &y, clusters, REPLICATES, &mut ChaCha8Rng::seed_from_u64(0))?,
        mcnemar: if exact { Some(mcnemar(&right(&x), &right(&y))?) } else { None },
        holm_p: 1.0,
        bh_p: 1.0,
        detectable: power(
            difference.sigma > 0.0,
            detectable_difference(difference.sigma, shared.len() as u64, 0.05, 0.8),
        ),
        items_needed: if difference.sigma > 0.0 && difference.difference != 0.0 {
            sample_size(difference.sigma, difference.difference.abs(), 0.05, 0.8).ok()
        } else {
            None
        },
        groups: by_group(a, &shared, &of_a, (&x, &y), clusters)?,
        items,
        reasoning: reasoning(a, b)?,
    })
}

/// The difference by each grouping of the first run; labels are those of its records.
fn by_group(
    a: &Evaluation,
    shared: &BTreeSet<&str>,
    of_a: &BTreeMap<&str, Credits>,
    (x, y): (&[f64], &[f64]),
    clusters: Option<&[String]>,
) -> Result<Vec<GroupDifferences>, StatsError> {
    let mut tables = Vec::new();
    for (g, table) in a.summary.groups.iter().enumerate() {
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, id) in shared.iter().enumerate() {
            for label in of_a[id].groups.get(g).into_iter().flatten() {
                places.entry(label).or_default().push(i);
            }
        }
        let mut rows = Vec::new();
        for (label, at) in places.into_iter().filter(|(_, at)| at.len() > 1) {
            let pick = |v: &[f64]| at.iter().map(|i| v[*i]).collect::<Vec<f64>>();
            let names: Option<Vec<String>> = clusters.map(|c| at.iter().map(|i| c[*i].clone()).collect());
            let difference = paired_difference(&pick(x), &pick(y), names.as_deref(), CONFIDENCE);
            match difference {
                Ok(difference) => {
                    rows.push(GroupDifference { label: label.to_owned(), n: at.len(), difference })
                }
                // All items of a label may be of one cluster.
                Err(_) if clusters.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        if rows.len() > 1 {
            tables.push(GroupDifferences { name: table.name.clone(), overlapping: table.overlapping, rows });
        }
    }
    Ok(tables)
}
