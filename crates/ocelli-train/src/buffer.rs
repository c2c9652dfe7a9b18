//! Selective Sample Buffer (Skywork R1V2, arXiv 2504.16656, after VL-Rethinker's Selective Sample Replay, arXiv
//! 2504.08837): responses with a non-zero advantage are kept and fill the batch when fresh groups are all right or all
//! wrong.
//!
//! ```text
//! insert   a group only if its rewards are not all equal (exactly)
//! evict    age > max_age weight versions; then, above capacity or per-prompt limit, lowest |A| (unit group: sum |A|) first
//! need     batch size - fresh informative responses
//! draw     without replacement, weight |A|^alpha * decay^age; unit sample: one response, unit group: (sum |A|)^alpha
//! correct  optional weights (1 / (N p))^b / max, b from `correction` to 1 over the run (prioritised replay)
//! ```
//!
//! Sample-level `|A|` prefers the rare outcome of a group (1 of 8 right), group-level `sum |A|` prefers an even
//! split; the two published variants do opposite things, so both are here. With the unit group, groups enter, leave and are
//! drawn whole, so that their advantages go on summing to zero. The policy ratio of a replayed response is
//! taken against the log-probabilities with which it was sampled.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

use crate::advantages::GroupStats;
use crate::exact;

/// What is drawn at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Single responses, by their own `|A|`.
    #[default]
    Sample,
    /// Whole groups, by the sum of `|A|`.
    Group,
}

/// Which advantage a replayed response has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// The one it was stored with.
    #[default]
    Keep,
    /// `(reward - latest mean of its prompt)`, on the scale of the stored advantage: `A (reward - latest mean) / (reward - mean
    /// of its group)`. So the divisor is the one that `advantage` has: none (`centred`), the group's deviation
    /// (`standardised`), its mean (`mean_scaled`), `(n - 1) / n` (`leave_one_out`).
    PromptMean,
}

/// Settings of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// Largest number of responses.
    pub capacity: usize,
    /// Oldest weight version that may be replayed, as a distance from the present one.
    pub max_age: u64,
    /// Largest number of responses of one prompt; with the unit group at least the size of a group.
    pub per_prompt: usize,
    /// Exponent of the priority; 0 draws uniformly.
    pub alpha: f64,
    /// Factor on the priority per version of age.
    pub decay: f64,
    /// What is drawn at once.
    pub unit: Unit,
    /// Exponent `b` of the importance correction of prioritised replay at the first step; `None` for no correction.
    pub correction: Option<f64>,
    /// Which advantage a replayed response has.
    pub refresh: Refresh,
    /// Leave a replayed response out where the mean `k3` of the present policy against the stored log-probabilities
    /// is above this.
    pub max_drift: Option<f64>,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            capacity: 256,
            max_age: 8,
            per_prompt: 8,
            alpha: 1.0,
            decay: 1.0,
            unit: Unit::Sample,
            correction: None,
            refresh: Refresh::Keep,
            max_drift: None,
        }
    }
}

/// A stored response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// The response itself with the log-probabilities it was sampled with.
    pub item: T,
    /// Its prompt.
    pub prompt: String,
    /// Number of the group it belongs to, unique in a run.
    pub group: u64,
    /// Its reward.
    #[serde(with = "exact::one")]
    pub reward: f64,
    /// Its advantage when it was stored.
    #[serde(with = "exact::one")]
    pub advantage: f64,
    /// Mean reward of its group.
    #[serde(with = "exact::one")]
    pub mean: f64,
    /// Standard deviation of its group.
    #[serde(with = "exact::one")]
    pub std: f64,
    /// Version of the weights that sampled it.
    pub version: u64,
}

/// A drawn response.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn<T> {
    /// The response.
    pub item: T,
    /// Its prompt.
    pub prompt: String,
    /// The advantage to train it with.
    pub advantage: f64,
    /// Weight of prioritised replay, 1 without correction.
    pub weight: f64,
    /// Its age in versions.
    pub age: u64,
}

/// What a fill did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FillReport {
    /// Informative fresh responses in the batch.
    pub fresh: usize,
    /// Replayed responses in the batch.
    pub replayed: usize,
    /// `(fresh + replayed) / batch size`.
    pub fill: f64,
    /// `fresh / batch size`.
    pub fresh_share: f64,
    /// Median age of the replayed.
    pub age_p50: f64,
    /// 95th percentile of their age.
    pub age_p95: f64,
    /// Effective sample size of the draw's priorities as a share of the buffer: `(sum w)^2 / (N sum w^2)`.
    pub ess: f64,
}

/// The buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct SampleBuffer<T> {
    entries: Vec<Entry<T>>,
    next_group: u64,
    /// Latest mean reward of each prompt, as bits.
    prompt_means: BTreeMap<String, u64>,
}

impl<T> Default for SampleBuffer<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), next_group: 0, prompt_means: BTreeMap::new() }
    }
}

/// Uniform in `[0, 1)` from 53 random bits.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn percentile(sorted: &[u64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, |a| *a as f64)
}

impl<T: Clone> SampleBuffer<T> {
    /// Number of stored responses.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The stored responses, oldest first.
    pub fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// Takes in a group; an uninformative one only updates the mean of its prompt. Members whose advantage happens to
    /// be exactly zero carry no gradient and are not stored.
    pub fn insert(
        &mut self,
        config: &BufferConfig,
        prompt: &str,
        members: impl IntoIterator<Item = (T, f64, f64)>,
        stats: &GroupStats,
        version: u64,
    ) {
        self.prompt_means.insert(prompt.to_owned(), stats.mean.to_bits());
        if !stats.informative {
            return;
        }
        let group = self.next_group;
        self.next_group += 1;
        for (item, reward, advantage) in members {
            if advantage != 0.0 {
                let (prompt, mean, std) = (prompt.to_owned(), stats.mean, stats.std);
                self.entries.push(Entry { item, prompt, group, reward, advantage, mean, std, version });
            }
        }
        self.shrink(config);
    }

    /// Removes entries that are too old for the present version; called once per version, before the draw.
    pub fn expire(&mut self, config: &BufferConfig, now: u64) {
        self.entries.retain(|e| now.saturating_sub(e.version) <= config.max_age);
    }

    /// What is drawn, and evicted, at once: indices of entries, in order of insertion.
    fn units(&self, unit: Unit) -> Vec<Vec<usize>> {
        match unit {
            Unit::Sample => (0..self.entries.len()).map(|i| vec![i]).collect(),
            Unit::Group => {
                let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
                self.entries.iter().enumerate().for_each(|(i, e)| groups.entry(e.group).or_default().push(i));
                groups.into_values().collect()
            }
        }
    }

    /// `|A|` of a response, `sum |A|` of a group.
    fn size(&self, unit: &[usize]) -> f64 {
        unit.iter().map(|&i| self.entries[i].advantage.abs()).sum()
    }

    fn shrink(&mut self, config: &BufferConfig) {
        // Largest first; among equals the youngest, which stands last.
        let mut units: Vec<(f64, Vec<usize>)> =
            self.units(config.unit).into_iter().map(|u| (self.size(&u), u)).collect();
        units.sort_by(|(a, u), (b, v)| b.total_cmp(a).then_with(|| v.cmp(u)));
        let mut of_prompt: BTreeMap<&str, usize> = BTreeMap::new();
        let mut keep = vec![false; self.entries.len()];
        let mut kept = 0;
        for (_, unit) in units {
            let Some(first) = unit.first() else { continue };
            let n = of_prompt.entry(&self.entries[*first].prompt).or_default();
            if kept + unit.len() <= config.capacity && *n + unit.len() <= config.per_prompt {
                *n += unit.len();
                kept += unit.len();
                unit.iter().for_each(|&i| keep[i] = true);
            }
        }
        let mut flags = keep.into_iter();
        self.entries.retain(|_| flags.next().unwrap_or(false));
    }

    /// Fills a batch of `batch` responses of which `fresh` are fresh and informative. `progress` (0..=1) of the run
    /// anneals the importance correction to 1.
    pub fn fill(
        &self,
        config: &BufferConfig,
        batch: usize,
        fresh: usize,
        now: u64,
        progress: f64,
        rng: &mut ChaCha8Rng,
    ) -> (Vec<Drawn<T>>, FillReport) {
        let need = batch.saturating_sub(fresh);
        let units = self.units(config.unit);
        let weight = |unit: &Vec<usize>| {
            let age = unit.first().map_or(0, |&i| now.saturating_sub(self.entries[i].version));
            self.size(unit).powf(config.alpha) * config.decay.powf(age as f64)
        };
        let weights: Vec<f64> = units.iter().map(weight).collect();
        let (total, squares) = weights.iter().fold((0.0, 0.0), |(s, q), w| (s + w, q + w * w));
        let ess = if squares > 0.0 { total * total / (weights.len() as f64 * squares) } else { 0.0 };
        let mut open: Vec<usize> = (0..units.len()).filter(|&u| weights[u] > 0.0).collect();
        let mut drawn = Vec::new();
        let b = config.correction.map(|b| b + (1.0 - b) * progress.clamp(0.0, 1.0));
        while drawn.len() < need && !open.is_empty() {
            let left = need - drawn.len();
            open.retain(|&u| units[u].len() <= left);
            let sum: f64 = open.iter().map(|&u| weights[u]).sum();
            let mut point = uniform(rng) * sum;
            let Some(at) = open
                .iter()
                .position(|&u| {
                    point -= weights[u];
                    point < 0.0
                })
                .or(open.len().checked_sub(1))
            else {
                break;
            };
            let unit = open.remove(at);
            let probability = weights[unit] / total;
            let correction = b.map_or(1.0, |b| (1.0 / (units.len() as f64 * probability)).powf(b));
            for &i in &units[unit] {
                drawn.push(self.take(config, i, correction, now));
            }
        }
        let largest = drawn.iter().fold(0.0f64, |m, d| m.max(d.weight));
        if b.is_some() && largest > 0.0 {
            drawn.iter_mut().for_each(|d| d.weight /= largest);
        }
        let mut ages: Vec<u64> = drawn.iter().map(|d| d.age).collect();
        ages.sort_unstable();
        let size = batch.max(1) as f64;
        let report = FillReport {
            fresh,
            replayed: drawn.len(),
            fill: (fresh.min(batch) + drawn.len()) as f64 / size,
            fresh_share: fresh as f64 / size,
            age_p50: percentile(&ages, 0.5),
            age_p95: percentile(&ages, 0.95),
            ess,
        };
        (drawn, report)
    }

    fn take(&self, config: &BufferConfig, i: usize, weight: f64, now: u64) -> Drawn<T> {
        let e = &self.entries[i];
        let above = e.reward - e.mean;
        let advantage = match (config.refresh, self.prompt_means.get(&e.prompt)) {
            // A stored advantage is not zero, so neither is the distance from the mean that it was made of.
            (Refresh::PromptMean, Some(mean)) if above != 0.0 => {
                e.advantage * ((e.reward - f64::from_bits(*mean)) / above)
            }
            _ => e.advantage,
        };
        let age = now.saturating_sub(e.version);
        Drawn { item: e.item.clone(), prompt: e.prompt.clone(), advantage, weight, age }
    }
}
