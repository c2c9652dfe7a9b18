//! Rows of results; means with 95 % intervals over seeds (Student's t), and paired differences between arms.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One number of one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) experiment: String,
    pub(crate) seed: u64,
    pub(crate) arm: String,
    pub(crate) metric: String,
    pub(crate) value: f64,
}

/// 97.5 % points of Student's t with 1..=9 degrees of freedom.
const T: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// Mean and half the width of its 95 % interval; no interval from one value.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n.max(1) as f64;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n.max(2) - 1) as f64;
    let half = (n > 1).then(|| T[(n - 2).min(T.len() - 1)] * (square / n as f64).sqrt());
    (mean, half)
}

fn shown((mean, half): (f64, Option<f64>)) -> String {
    match half {
        Some(h) => format!("{mean:8.4} +- {h:.4}"),
        None => format!("{mean:8.4}"),
    }
}

/// The table of all metrics, and of the paired differences of every arm to the first arm and to its two predecessors.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut metrics: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        metrics.entry((&row.experiment, &row.metric)).or_default().push(row);
    }
    for ((experiment, metric), rows) in metrics {
        let mut arms: Vec<&str> = Vec::new();
        for row in &rows {
            if !arms.contains(&row.arm.as_str()) {
                arms.push(&row.arm);
            }
        }
        let of = |arm: &str| -> BTreeMap<u64, f64> {
            rows.iter().filter(|r| r.arm == arm).map(|r| (r.seed, r.value)).collect()
        };
        let _ = writeln!(out, "\n{experiment}: {metric}");
        for (i, arm) in arms.iter().enumerate() {
            let own = of(arm);
            let values: Vec<f64> = own.values().copied().collect();
            let _ = write!(out, "  {arm:28} {:22} n={}", shown(mean(&values)), values.len());
            let mut others = vec![0, i.saturating_sub(2), i.saturating_sub(1)];
            others.dedup();
            for other in others.into_iter().filter(|o| *o != i) {
                let base = of(arms[other]);
                let apart: Vec<f64> = own.iter().filter_map(|(s, v)| Some(v - base.get(s)?)).collect();
                if !apart.is_empty() {
                    let _ = write!(out, "   minus {}: {}", arms[other], shown(mean(&apart)).trim());
                }
            }
            out.push('\n');
        }
    }
    out
}
