//! Choosing among k samples: majority, best by a reward, votes weighted by a reward. Exact over all C(n, k) subsets
//! of the stored samples and over the ways to break ties, so that no seed enters.
//!
//! Majority: Wang et al. (self-consistency), arXiv 2203.11171. The subsets with a given winner are counted class by
//! class instead of being listed: for class `j` to win with `v` votes, every other class has at most `v`, and the `t`
//! classes that also have `v` share the prize.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{StatsError, check_lengths, check_values, choose, domain};

/// One stored sample as a vote.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// Class of its answer (equal answers have equal classes); `None` abstains, e.g. for want of an answer.
    pub class: Option<usize>,
    /// Credit if this sample's answer is chosen, usually 0 or 1.
    pub credit: f64,
}

/// A mean over subsets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// The mean.
    pub value: f64,
    /// 0 where all subsets were counted; else the standard error of the drawing of subsets.
    pub drawing_se: f64,
}

const MAX_SAMPLES: usize = 1000;

fn check_k(what: &'static str, n: usize, k: usize) -> Result<(), StatsError> {
    if k == 0 || k > n || n > MAX_SAMPLES {
        return Err(domain(what, format!("k = {k} of n = {n} samples; needs 1 <= k <= n <= {MAX_SAMPLES}")));
    }
    Ok(())
}

/// Sizes and mean credits of the answer classes, and the number of abstentions.
fn classes(what: &'static str, votes: &[Vote]) -> Result<(Vec<(usize, f64)>, usize), StatsError> {
    let credits: Vec<f64> = votes.iter().map(|v| v.credit).collect();
    check_values(what, &credits)?;
    let mut names: Vec<usize> = votes.iter().filter_map(|v| v.class).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: usize| {
        let members: Vec<f64> = votes.iter().filter(|v| v.class == Some(name)).map(|v| v.credit).collect();
        (members.len(), members.iter().sum::<f64>() / members.len() as f64)
    };
    Ok((names.into_iter().map(of).collect(), votes.iter().filter(|v| v.class.is_none()).count()))
}

/// Expected credit of the plurality answer among `k` of the samples. Ties share the prize equally; where all `k`
/// abstain nothing is won.
pub fn majority_at_k(votes: &[Vote], k: usize) -> Result<f64, StatsError> {
    const WHAT: &str = "maj@k";
    check_k(WHAT, votes.len(), k)?;
    let (classes, abstentions) = classes(WHAT, votes)?;
    let mut total = 0.0;
    for (j, &(size, credit)) in classes.iter().enumerate() {
        if credit == 0.0 {
            continue;
        }
        let others: Vec<usize> =
            classes.iter().enumerate().filter(|(i, _)| *i != j).map(|(_, c)| c.0).collect();
        for v in 1..=size.min(k) {
            let share: f64 = ways_by_ties(&others, abstentions, v, k - v)
                .iter()
                .enumerate()
                .map(|(ties, ways)| ways / (ties + 1) as f64)
                .sum();
            total += credit * choose(size, v) * share;
        }
    }
    Ok(total / choose(votes.len(), k))
}

/// Ways to draw `rest` samples from the other classes and the abstentions so that no class has more than `v` votes, by
/// the number of classes that have exactly `v`.
fn ways_by_ties(others: &[usize], abstentions: usize, v: usize, rest: usize) -> Vec<f64> {
    let most_ties = rest / v;
    let width = rest + 1;
    let mut ways = vec![0.0; (most_ties + 1) * width]; // [ties][votes drawn]
    ways[0] = 1.0;
    for &size in others {
        let mut next = vec![0.0; ways.len()];
        for ties in 0..=most_ties {
            for drawn in 0..=rest {
                let so_far = ways[ties * width + drawn];
                if so_far == 0.0 {
                    continue;
                }
                for taken in 0..=size.min(v).min(rest - drawn) {
                    let ties = ties + usize::from(taken == v);
                    if ties <= most_ties {
                        next[ties * width + drawn + taken] += so_far * choose(size, taken);
                    }
                }
            }
        }
        ways = next;
    }
    (0..=most_ties)
        .map(|ties| {
            (0..=rest).map(|drawn| ways[ties * width + drawn] * choose(abstentions, rest - drawn)).sum()
        })
        .collect()
}

/// Expected credit of the sample with the highest score among `k` of the samples: groups of equal score share
/// `[C(samples up to the group, k) - C(samples below it, k)] / C(n, k)`.
pub fn best_of_k(credits: &[f64], scores: &[f64], k: usize) -> Result<f64, StatsError> {
    const WHAT: &str = "best-of-k";
    check_lengths(WHAT, credits.len(), scores.len())?;
    check_k(WHAT, credits.len(), k)?;
    check_values(WHAT, credits)?;
    check_values(WHAT, scores)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[i].total_cmp(&scores[j]));
    let (mut below, mut total) = (0, 0.0);
    for group in order.chunk_by(|&i, &j| scores[i] == scores[j]) {
        let mean = group.iter().map(|&i| credits[i]).sum::<f64>() / group.len() as f64;
        let up_to = below + group.len();
        total += mean * (choose(up_to, k) - choose(below, k));
        below = up_to;
    }
    Ok(total / choose(credits.len(), k))
}

const MAX_SUBSETS: f64 = 200_000.0;

/// Expected credit of the answer class with the largest sum of `weights` among `k` of the samples (self-consistency
/// weighted by a reward). All subsets are listed where there are at most 200,000; otherwise `drawn` random ones give
/// the value with its `drawing_se`. Ties share equally.
pub fn weighted_majority_at_k(
    votes: &[Vote],
    weights: &[f64],
    k: usize,
    drawn: usize,
    rng: &mut impl Rng,
) -> Result<Expectation, StatsError> {
    const WHAT: &str = "weighted maj@k";
    check_lengths(WHAT, votes.len(), weights.len())?;
    check_k(WHAT, votes.len(), k)?;
    check_values(WHAT, weights)?;
    classes(WHAT, votes)?;
    let n = votes.len();
    if choose(n, k) <= MAX_SUBSETS {
        let mut subset: Vec<usize> = (0..k).collect();
        let (mut sum, mut count) = (0.0, 0.0);
        loop {
            sum += weighted_winner(votes, weights, &subset);
            count += 1.0;
            if !next_subset(&mut subset, n) {
                return Ok(Expectation { value: sum / count, drawing_se: 0.0 });
            }
        }
    }
    if drawn < 100 {
        return Err(domain(WHAT, format!("{drawn} subsets to draw; 100 are the least")));
    }
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut indices: Vec<usize> = (0..n).collect();
    for _ in 0..drawn {
        for i in 0..k {
            indices.swap(i, rng.random_range(i..n));
        }
        let credit = weighted_winner(votes, weights, &indices[..k]);
        sum += credit;
        squares += credit * credit;
    }
    let (m, mean) = (drawn as f64, sum / drawn as f64);
    let variance = (squares / m - mean * mean).max(0.0) * m / (m - 1.0);
    Ok(Expectation { value: mean, drawing_se: (variance / m).sqrt() })
}

/// Next subset in lexicographic order; false after the last.
fn next_subset(subset: &mut [usize], n: usize) -> bool {
    let k = subset.len();
    for i in (0..k).rev() {
        if subset[i] < n - k + i {
            subset[i] += 1;
            for j in i + 1..k {
                subset[j] = subset[j - 1] + 1;
            }
            return true;
        }
    }
    false
}

fn weighted_winner(votes: &[Vote], weights: &[f64], subset: &[usize]) -> f64 {
    let mut sums: Vec<(usize, f64, f64, f64)> = Vec::new(); // (class, weight, credit, members)
    for &i in subset {
        let Some(class) = votes[i].class else { continue };
        match sums.iter_mut().find(|s| s.0 == class) {
            Some(s) => {
                s.1 += weights[i];
                s.2 += votes[i].credit;
                s.3 += 1.0;
            }
            None => sums.push((class, weights[i], votes[i].credit, 1.0)),
        }
    }
    let Some(best) = sums.iter().map(|s| s.1).max_by(f64::total_cmp) else { return 0.0 };
    // The same weights added in another order may differ in the last bits.
    let tied = |s: &&(usize, f64, f64, f64)| (s.1 - best).abs() <= 1e-12 * best.abs().max(1.0);
    let credits: Vec<f64> = sums.iter().filter(tied).map(|s| s.2 / s.3).collect();
    credits.iter().sum::<f64>() / credits.len() as f64
}
