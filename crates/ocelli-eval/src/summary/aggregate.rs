//! Means over items, by mode, by group, and the declared metrics.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ocelli_agent::endpoint::Outcome;
use serde::{Deserialize, Serialize};

use super::{CONFIDENCE, GroupRow, GroupTable, MetricValue};
use crate::declare::{Benchmark, MetricKind, Section};
use crate::item::Item;
use crate::score::Scored;
use crate::stats::{Estimate, StatsError, cohen_kappa, fleiss_kappa, krippendorff_alpha, proportion};

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The official one.
    Reference,
    /// Ours.
    Strict,
}

impl Mode {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Strict => "strict",
        }
    }
}

/// Accuracy in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeSummary {
    /// Mean credit over items (avg@k for k samples); `None` where every item is left out.
    pub estimate: Option<Estimate>,
    /// Sum of credits: the k of k/n for single samples.
    pub credit: f64,
    /// Items in the denominator.
    pub n: usize,
    /// Items that the official program leaves out.
    pub left_out: usize,
    /// Mean if every missing answer were wrong, and if every one were right.
    pub worst: f64,
    /// See `worst`.
    pub best: f64,
}

/// Credits of one item: reference (`None` if left out), strict, and how much of it is missing (0 to 1).
#[derive(Clone, Debug)]
pub struct ItemCredit<'a> {
    /// The item.
    pub item: &'a Item,
    /// Mean credit by the official rule.
    pub reference: Option<f64>,
    /// Mean credit by ours.
    pub strict: f64,
    /// Share of its answers that are missing, unreadable or undecided.
    pub missing: f64,
}

impl ItemCredit<'_> {
    fn credit(&self, mode: Mode) -> Option<f64> {
        match mode {
            Mode::Reference => self.reference,
            Mode::Strict => Some(self.strict),
        }
    }
}

/// Means of an item's samples. An item without any answer counts as wrong and missing.
pub fn item_credits<'a>(items: &'a [Item], scored: &[Scored]) -> Vec<ItemCredit<'a>> {
    let mut by_item: BTreeMap<&str, Vec<&Scored>> = BTreeMap::new();
    scored.iter().for_each(|s| by_item.entry(&s.item).or_default().push(s));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    items
        .iter()
        .map(|item| {
            let Some(samples) = by_item.get(item.id.as_str()) else {
                return ItemCredit { item, reference: Some(0.0), strict: 0.0, missing: 1.0 };
            };
            let known: Vec<f64> = samples.iter().filter_map(|s| s.reference.credit).collect();
            let strict: Vec<f64> = samples.iter().map(|s| s.strict.or_zero()).collect();
            let gone = samples.iter().filter(|s| !matches!(s.outcome, Outcome::Ok) || s.strict.undecided);
            // A truncated answer that was right all the same is not missing.
            let gone = gone.filter(|s| s.strict.or_zero() == 0.0).count();
            ItemCredit {
                item,
                reference: (!known.is_empty()).then(|| mean(&known)),
                strict: mean(&strict),
                missing: gone as f64 / samples.len() as f64,
            }
        })
        .collect()
}

fn estimate(credits: &[&ItemCredit<'_>], mode: Mode) -> Result<Option<Estimate>, StatsError> {
    let kept: Vec<(f64, &Item)> = credits.iter().filter_map(|c| Some((c.credit(mode)?, c.item))).collect();
    if kept.is_empty() {
        return Ok(None);
    }
    let values: Vec<f64> = kept.iter().map(|(v, _)| *v).collect();
    let clustered = kept.iter().any(|(_, i)| i.cluster.is_some());
    let clusters: Vec<&str> = kept.iter().map(|(_, i)| i.cluster.as_deref().unwrap_or(&i.id)).collect();
    proportion(&values, clustered.then_some(clusters.as_slice()), CONFIDENCE).map(Some)
}

/// Accuracy in one mode.
pub fn summarise(credits: &[ItemCredit<'_>], mode: Mode) -> Result<ModeSummary, StatsError> {
    let all: Vec<&ItemCredit<'_>> = credits.iter().collect();
    let kept: Vec<&ItemCredit<'_>> = all.iter().copied().filter(|c| c.credit(mode).is_some()).collect();
    let credit: f64 = kept.iter().filter_map(|c| c.credit(mode)).sum();
    // Bounds are over all items, so that leaving some out does not narrow them.
    let n = credits.len().max(1) as f64;
    let sure: f64 = credits.iter().map(|c| c.credit(mode).unwrap_or(0.0).min(1.0 - c.missing)).sum();
    let open: f64 = credits.iter().map(|c| if c.credit(mode).is_none() { 1.0 } else { c.missing }).sum();
    Ok(ModeSummary {
        estimate: estimate(&all, mode)?,
        credit,
        n: kept.len(),
        left_out: credits.len() - kept.len(),
        worst: sure / n,
        best: ((sure + open) / n).min(1.0),
    })
}

/// The declared groupings.
pub fn group_tables(
    benchmark: &Benchmark,
    credits: &[ItemCredit<'_>],
) -> Result<Vec<GroupTable>, StatsError> {
    let mut tables = Vec::new();
    for (at, group) in benchmark.groups.iter().enumerate() {
        let mut members: BTreeMap<&str, Vec<&ItemCredit<'_>>> = BTreeMap::new();
        let mut overlapping = false;
        for credit in credits {
            let labels = credit.item.groups.get(at).map(Vec::as_slice).unwrap_or_default();
            overlapping |= labels.len() > 1;
            labels.iter().for_each(|l| members.entry(l).or_default().push(credit));
        }
        let mut rows = Vec::new();
        for (label, members) in members {
            let Some(strict) = estimate(&members, Mode::Strict)? else { continue };
            rows.push(GroupRow {
                label: label.to_owned(),
                reference: estimate(&members, Mode::Reference)?,
                strict,
            });
        }
        tables.push(GroupTable { name: group.name.clone(), overlapping, rows });
    }
    Ok(tables)
}

/// The declared metrics, for both modes where they depend on it.
pub fn metrics(
    benchmark: &Benchmark,
    credits: &[ItemCredit<'_>],
    tables: &[GroupTable],
    scored: &[Scored],
    scores: &BTreeMap<String, Vec<f64>>,
) -> Result<Vec<MetricValue>, StatsError> {
    let mut values = Vec::new();
    for metric in &benchmark.metrics {
        if let MetricKind::Raters { columns } = &metric.kind {
            values.push(raters(&metric.name, columns, credits)?);
            continue;
        }
        if let MetricKind::Ties { group, label } = &metric.kind {
            let at = benchmark.groups.iter().position(|g| g.name == *group);
            values.push(ties(&metric.name, at, label, credits, scores));
            continue;
        }
        for mode in [Mode::Reference, Mode::Strict] {
            let table = |name: &str| tables.iter().find(|t| t.name == name);
            let mut value = match &metric.kind {
                MetricKind::MacroMean { group } => macro_mean(table(group), mode),
                MetricKind::Sections { group, sections } => by_sections(table(group), sections, mode),
                MetricKind::AllRight { by, only } => all_right(by, only.as_ref(), credits, mode)?,
                MetricKind::YesNo => yes_no(scored, credits, mode),
                MetricKind::Ties { .. } | MetricKind::Raters { .. } => continue,
            };
            value.name = metric.name.clone();
            value.mode = mode.name().into();
            values.push(value);
        }
    }
    Ok(values)
}

fn blank() -> MetricValue {
    MetricValue {
        name: String::new(),
        mode: String::new(),
        value: None,
        interval: None,
        parts: IndexMap::new(),
        note: String::new(),
    }
}

fn row_mean(row: &GroupRow, mode: Mode) -> Option<f64> {
    match mode {
        Mode::Reference => row.reference.map(|e| e.mean),
        Mode::Strict => Some(row.strict.mean),
    }
}

fn macro_mean(table: Option<&GroupTable>, mode: Mode) -> MetricValue {
    let mut value = blank();
    for row in table.into_iter().flat_map(|t| &t.rows) {
        if let Some(mean) = row_mean(row, mode) {
            value.parts.insert(row.label.clone(), mean);
        }
    }
    value.value =
        (!value.parts.is_empty()).then(|| value.parts.values().sum::<f64>() / value.parts.len() as f64);
    value
}

fn by_sections(table: Option<&GroupTable>, sections: &[Section], mode: Mode) -> MetricValue {
    let mut value = blank();
    let mut absent = Vec::new();
    for section in sections {
        let (mut sum, mut weight) = (0.0, 0.0);
        for (label, w) in &section.weights {
            let row = table.and_then(|t| t.rows.iter().find(|r| r.label == *label));
            match row.and_then(|r| row_mean(r, mode)) {
                Some(mean) => {
                    sum += w * mean;
                    weight += w;
                }
                None => absent.push(label.as_str()),
            }
        }
        if weight > 0.0 {
            value.parts.insert(section.name.clone(), sum / weight);
        }
    }
    if value.parts.len() == sections.len() {
        value.value = Some(value.parts.values().sum::<f64>() / sections.len() as f64);
    }
    if !absent.is_empty() {
        value.note = format!("without {}", absent.join(", "));
    }
    value
}

fn all_right(
    by: &[String],
    only: Option<&(String, String)>,
    credits: &[ItemCredit<'_>],
    mode: Mode,
) -> Result<MetricValue, StatsError> {
    let mut sets: BTreeMap<Vec<String>, f64> = BTreeMap::new();
    for c in credits {
        if only.is_some_and(|(column, wanted)| c.item.column(column).as_ref() != Some(wanted)) {
            continue;
        }
        let name = by.iter().map(|column| c.item.column(column).unwrap_or_default()).collect();
        let least = sets.entry(name).or_insert(1.0);
        *least = least.min(c.credit(mode).unwrap_or(0.0));
    }
    let mut value = blank();
    if sets.is_empty() {
        value.note = "no items belong to a set".into();
        return Ok(value);
    }
    let whole: Vec<f64> = sets.into_values().map(f64::floor).collect();
    let e = proportion::<u8>(&whole, None, CONFIDENCE)?;
    value.value = Some(e.mean);
    value.interval = Some(e.interval);
    value.parts.insert("sets".into(), e.n as f64);
    Ok(value)
}

/// Precision and recall of `yes`, on the answers read; what was not read is neither and lowers the recall.
fn yes_no(scored: &[Scored], credits: &[ItemCredit<'_>], mode: Mode) -> MetricValue {
    let gold: BTreeMap<&str, bool> = credits
        .iter()
        .map(|c| (c.item.id.as_str(), c.item.gold_text().trim().eq_ignore_ascii_case("yes")))
        .collect();
    let (mut true_yes, mut said_yes, mut gold_yes, mut n) = (0.0, 0.0, 0.0, 0.0);
    for s in scored {
        let Some(&is_yes) = gold.get(s.item.as_str()) else { continue };
        let verdict = if mode == Mode::Reference { &s.reference } else { &s.strict };
        let yes = verdict.answer.as_deref().is_some_and(|a| a.eq_ignore_ascii_case("yes"));
        n += 1.0;
        gold_yes += f64::from(u8::from(is_yes));
        said_yes += f64::from(u8::from(yes));
        true_yes += f64::from(u8::from(yes && is_yes));
    }
    let mut value = blank();
    let (precision, recall) = (true_yes / said_yes, true_yes / gold_yes);
    if precision.is_finite() {
        value.parts.insert("precision".into(), precision);
    }
    if recall.is_finite() {
        value.parts.insert("recall".into(), recall);
    }
    if n > 0.0 {
        value.parts.insert("share of yes".into(), said_yes / n);
    }
    let f1 = 2.0 * true_yes / (said_yes + gold_yes);
    value.value = f1.is_finite().then_some(f1);
    if value.value.is_none() {
        value.note = "no gold answer and no response is yes".into();
    }
    value
}

fn raters(name: &str, columns: &[String], credits: &[ItemCredit<'_>]) -> Result<MetricValue, StatsError> {
    let ratings: Vec<Vec<Option<String>>> =
        credits.iter().map(|c| columns.iter().map(|column| c.item.column(column)).collect()).collect();
    let mut value = MetricValue { name: name.to_owned(), ..blank() };
    for a in 0..columns.len() {
        for b in a + 1..columns.len() {
            let both = ratings.iter().filter_map(|r| Some((r[a].as_ref()?, r[b].as_ref()?)));
            let (x, y): (Vec<&String>, Vec<&String>) = both.unzip();
            if let Some(kappa) = cohen_kappa(&x, &y)? {
                value.parts.insert(format!("Cohen {} {}", columns[a], columns[b]), kappa);
            }
        }
    }
    let mut names: Vec<&String> = ratings.iter().flatten().flatten().collect();
    names.sort();
    names.dedup();
    if ratings.iter().flatten().all(Option::is_some) {
        let count =
            |row: &Vec<Option<String>>, n: &String| row.iter().flatten().filter(|r| *r == n).count() as u64;
        let counts: Vec<Vec<u64>> =
            ratings.iter().map(|r| names.iter().map(|n| count(r, n)).collect()).collect();
        if let Some(kappa) = fleiss_kappa(&counts)? {
            value.parts.insert("Fleiss".into(), kappa);
        }
    }
    value.value = krippendorff_alpha(&ratings)?;
    value.note = "the value is Krippendorff's alpha (nominal)".into();
    Ok(value)
}

/// RewardBench 2, subset Ties: ids are `ref:n` and `tied:n`; scores of all answers are needed.
fn ties(
    name: &str,
    group: Option<usize>,
    label: &str,
    credits: &[ItemCredit<'_>],
    scores: &BTreeMap<String, Vec<f64>>,
) -> MetricValue {
    let mut value = MetricValue { name: name.to_owned(), ..blank() };
    let mut found: BTreeMap<&str, BTreeMap<&str, (bool, f64, f64)>> = BTreeMap::new();
    for c in credits {
        let here = group.and_then(|g| c.item.groups.get(g)).is_some_and(|l| l.iter().any(|l| l == label));
        let (Some((kind, prompt)), Some(s)) = (c.item.id.split_once(':'), scores.get(&c.item.id)) else {
            continue;
        };
        let crate::item::Gold::Better(right) = &c.item.gold else { continue };
        if !here || right.is_empty() || right.len() >= s.len() {
            continue;
        }
        let of = |good: bool| {
            s.iter().enumerate().filter(move |(i, _)| right.contains(i) == good).map(|(_, v)| *v)
        };
        let least = of(true).fold(f64::INFINITY, f64::min);
        let spread = of(true).fold(f64::NEG_INFINITY, f64::max) - least;
        let gap = least - of(false).fold(f64::NEG_INFINITY, f64::max);
        found.entry(prompt).or_default().insert(kind, (gap > 0.0, gap, spread));
    }
    let whole: Vec<(&(bool, f64, f64), &(bool, f64, f64))> =
        found.values().filter_map(|m| Some((m.get("ref")?, m.get("tied")?))).collect();
    if whole.is_empty() {
        value.note = "needs scores of all answers to items `ref:n` and `tied:n`".into();
        return value;
    }
    let mean = |f: &dyn Fn(&(bool, f64, f64), &(bool, f64, f64)) -> f64| {
        whole.iter().map(|(r, t)| f(r, t)).sum::<f64>() / whole.len() as f64
    };
    let truth = |b: bool| f64::from(u8::from(b));
    let parts = [
        ("accuracy on tied", mean(&|_, t| truth(t.0)), 0.30),
        ("accuracy on ref", mean(&|r, _| truth(r.0)), 0.30),
        ("gap above spread", mean(&|_, t| truth(t.1 > t.2)), 0.20),
        ("smaller gap above spread", mean(&|r, t| truth(r.1.min(t.1) > t.2)), 0.20),
        (
            "tanh of the margin",
            mean(&|r, t| {
                let x = (r.1.min(t.1) / t.2 - 1.0).tanh();
                if x.is_nan() { 0.0 } else { x }
            }),
            0.01,
        ),
    ];
    value.value = Some(parts.iter().map(|(_, v, w)| v * w).sum());
    value.parts = parts.iter().map(|(n, v, _)| ((*n).to_owned(), *v)).collect();
    value
}
