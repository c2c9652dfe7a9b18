//! Agreement of raters beyond chance: Cohen 1960 (two raters), Fleiss 1971 (a fixed number), Krippendorff (any number,
//! gaps allowed; nominal data).
//!
//! Where all ratings are one and the same category, chance agreement is already perfect and the coefficients are
//! undefined (0/0): that is `None`, not 0 or 1.

use std::collections::BTreeMap;

use super::{StatsError, check_lengths, domain};

/// Cohen's kappa of two raters over the same items.
pub fn cohen_kappa<T: Ord>(a: &[T], b: &[T]) -> Result<Option<f64>, StatsError> {
    const WHAT: &str = "Cohen's kappa";
    check_lengths(WHAT, a.len(), b.len())?;
    if a.is_empty() {
        return Err(StatsError::Empty { what: WHAT });
    }
    let n = a.len() as f64;
    let mut margins: BTreeMap<&T, (f64, f64)> = BTreeMap::new();
    let mut agreed = 0.0;
    for (x, y) in a.iter().zip(b) {
        margins.entry(x).or_default().0 += 1.0;
        margins.entry(y).or_default().1 += 1.0;
        agreed += f64::from(u8::from(x == y));
    }
    let chance = margins.values().map(|(p, q)| p * q).sum::<f64>() / (n * n);
    Ok(beyond_chance(agreed / n, chance))
}

fn beyond_chance(observed: f64, chance: f64) -> Option<f64> {
    (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
}

/// Fleiss' kappa of `counts` (`[items][categories]`, the number of raters who chose a category; the same sum >= 2 in
/// every row).
pub fn fleiss_kappa(counts: &[Vec<u64>]) -> Result<Option<f64>, StatsError> {
    const WHAT: &str = "Fleiss' kappa";
    let first = counts.first().ok_or(StatsError::Empty { what: WHAT })?;
    let (categories, raters) = (first.len(), first.iter().sum::<u64>());
    if raters < 2 {
        return Err(domain(WHAT, format!("{raters} raters; at least 2 are needed")));
    }
    for (i, row) in counts.iter().enumerate() {
        if row.len() != categories || row.iter().sum::<u64>() != raters {
            return Err(domain(
                WHAT,
                format!(
                    "item {i} has {row:?}; every item needs {categories} categories that add to {raters}"
                ),
            ));
        }
    }
    let (n, r) = (counts.len() as f64, raters as f64);
    let within = |row: &Vec<u64>| (row.iter().map(|&c| (c * c) as f64).sum::<f64>() - r) / (r * (r - 1.0));
    let observed = counts.iter().map(within).sum::<f64>() / n;
    let share = |c: usize| counts.iter().map(|row| row[c] as f64).sum::<f64>() / (n * r);
    let chance = (0..categories).map(|c| share(c).powi(2)).sum::<f64>();
    Ok(beyond_chance(observed, chance))
}

/// Krippendorff's alpha for nominal ratings `[items][raters]`, `None` where a rater did not rate. Items with fewer than
/// two ratings say nothing about agreement and are passed over, as the coefficient defines.
pub fn krippendorff_alpha<T: Ord>(ratings: &[Vec<Option<T>>]) -> Result<Option<f64>, StatsError> {
    let mut totals: BTreeMap<&T, f64> = BTreeMap::new();
    let (mut agreed, mut pairable) = (0.0, 0.0);
    for row in ratings {
        let mut counts: BTreeMap<&T, f64> = BTreeMap::new();
        row.iter().flatten().for_each(|v| *counts.entry(v).or_default() += 1.0);
        let m: f64 = counts.values().sum();
        if m < 2.0 {
            continue;
        }
        agreed += counts.values().map(|c| c * (c - 1.0)).sum::<f64>() / (m - 1.0);
        pairable += m;
        counts.into_iter().for_each(|(v, c)| *totals.entry(v).or_default() += c);
    }
    if pairable == 0.0 {
        return Err(StatsError::Empty { what: "Krippendorff's alpha" });
    }
    let chance = totals.values().map(|c| c * (c - 1.0)).sum::<f64>() / (pairable - 1.0);
    Ok((chance < pairable).then(|| (agreed - chance) / (pairable - chance)))
}
