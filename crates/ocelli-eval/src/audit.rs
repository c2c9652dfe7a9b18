//! Are the numbers of a published table possible?
//!
//! A share of `n` items printed with `d` decimals is `k/n` for a whole `k`, or the table is wrong about `n`, about the
//! rule, or about the number (Brown and Heathers' GRIM test, 2017, applied to accuracies). Parts and wholes bind each other: an
//! overall accuracy is the mean of its parts weighted by their sizes, a macro score their plain mean. Everything is
//! checked over the whole interval that rounding leaves open, so a flag means: no rounding explains this.

use serde::{Deserialize, Serialize};

/// A table to audit. All numbers as printed, in per cent.
///
/// ```toml
/// title = "VL-RewardBench"
/// decimals = 1
/// parts = [ { name = "General", n = 183 }, { name = "Hallucination", n = 749 }, { name = "Reasoning", n = 318 } ]
/// overall = "micro"        # the column `overall` is the weighted mean of the parts
/// slack = 0.9              # points by which `overall` may miss (items that the protocol leaves out)
/// rows = [ { name = "A", parts = [43.4, 55.0, 62.3], overall = 55.3, macro = 53.6 } ]
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Name.
    pub title: String,
    /// Decimals as printed.
    pub decimals: u32,
    /// Columns of parts with their sizes.
    #[serde(default)]
    pub parts: Vec<PartColumn>,
    /// Size of the whole, where it is not the sum of the parts.
    #[serde(default)]
    pub n: Option<u64>,
    /// What the overall column is.
    #[serde(default)]
    pub overall: Overall,
    /// Points by which an overall value may miss its parts beyond rounding.
    #[serde(default)]
    pub slack: f64,
    /// True where the shares need not be k/n: means over samples, or items left out of the denominator.
    #[serde(default)]
    pub averaged: bool,
    /// Rows.
    pub rows: Vec<TableRow>,
}

/// A column of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartColumn {
    /// Name.
    pub name: String,
    /// Items.
    pub n: u64,
    /// Items of one part are items of no other; a part with `split = "type"` belongs to another way to cut the whole.
    #[serde(default)]
    pub split: String,
}

/// What the overall column is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Mean over items.
    #[default]
    Micro,
    /// Plain mean of the parts.
    Macro,
    /// Something else: not checked against the parts.
    None,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRow {
    /// Name.
    pub name: String,
    /// Values of the parts in order of the columns; `nan` for a gap.
    #[serde(default)]
    pub parts: Vec<f64>,
    /// Overall value.
    #[serde(default)]
    pub overall: Option<f64>,
    /// Plain mean of the parts, where a column has it.
    #[serde(default, rename = "macro")]
    pub macro_mean: Option<f64>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Row.
    pub row: String,
    /// Column.
    pub column: String,
    /// What is impossible, with the numbers that were expected.
    pub message: String,
}

/// A table that cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Not the TOML it should be.
    #[error("the table cannot be read: {0}")]
    Toml(Box<toml::de::Error>),
    /// Rows that make no sense: too few or too many parts, numbers that are no percentages. All of them, with what was found in
    /// the other rows.
    #[error("{}", rows(.faults, .findings))]
    Rows {
        /// What is wrong with which row.
        faults: Vec<Finding>,
        /// Findings in the rows that could be checked.
        findings: Vec<Finding>,
    },
}

fn rows(faults: &[Finding], findings: &[Finding]) -> String {
    let line = |f: &Finding| format!("\n  row `{}`, {}: {}", f.row, f.column, f.message);
    let mut text = format!("{} fault(s) in the table", faults.len());
    faults.iter().for_each(|f| text.push_str(&line(f)));
    if !findings.is_empty() {
        text.push_str(&format!("\nIn the other rows {} number(s) cannot be", findings.len()));
        findings.iter().for_each(|f| text.push_str(&line(f)));
    }
    text
}

/// Reads a table from TOML.
pub fn parse_table(text: &str) -> Result<Table, AuditError> {
    toml::from_str(text).map_err(|e| AuditError::Toml(Box::new(e)))
}

/// Smallest and largest whole `k` for which `100 k / n` is printed as `value`; `None` where there is none. Both ways of
/// rounding a half are allowed.
pub fn counts(value: f64, n: u64, decimals: u32) -> Option<(u64, u64)> {
    let half = 0.5 * 10f64.powi(-(decimals.min(12) as i32));
    let guard = 1e-9;
    let low = ((value - half) / 100.0 * n as f64 - guard).ceil().max(0.0);
    let high = ((value + half) / 100.0 * n as f64 + guard).floor().min(n as f64);
    (low <= high).then_some((low as u64, high as u64))
}

/// Checks a table; no findings means that the numbers are possible, not that they are true.
pub fn audit(table: &Table) -> Result<Vec<Finding>, AuditError> {
    let (mut findings, mut faults) = (Vec::new(), Vec::new());
    for row in &table.rows {
        let before = faults.len();
        let mut fault = |column: &str, message: String| {
            faults.push(Finding { row: row.name.clone(), column: column.to_owned(), message })
        };
        if row.parts.len() != table.parts.len() {
            fault("parts", format!("{} values for {} columns", row.parts.len(), table.parts.len()));
        }
        let named = table.parts.iter().map(|p| p.name.as_str()).zip(row.parts.iter().copied());
        let all =
            named.chain(row.overall.map(|v| ("overall", v))).chain(row.macro_mean.map(|v| ("macro", v)));
        for (column, value) in all {
            if !value.is_nan() && !(0.0..=100.0).contains(&value) {
                fault(column, format!("{value} is no percentage"));
            }
        }
        if faults.len() == before {
            check_row(table, row, &mut findings);
        }
    }
    if faults.is_empty() { Ok(findings) } else { Err(AuditError::Rows { faults, findings }) }
}

fn check_row(table: &Table, row: &TableRow, findings: &mut Vec<Finding>) {
    let half = 0.5 * 10f64.powi(-(table.decimals.min(12) as i32)) + 1e-9;
    let digits = table.decimals as usize;
    let mut push = |column: &str, message: String| {
        findings.push(Finding { row: row.name.clone(), column: column.to_owned(), message });
    };
    if !table.averaged {
        for (part, &value) in table.parts.iter().zip(&row.parts) {
            if !value.is_nan() && counts(value, part.n, table.decimals).is_none() {
                push(&part.name, impossible(value, part.n, digits));
            }
        }
    }
    // Each way to cut the whole is a system of its own.
    let mut splits: Vec<&str> = table.parts.iter().map(|p| p.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    for split in splits {
        let parts: Vec<(u64, f64)> = table
            .parts
            .iter()
            .zip(&row.parts)
            .filter(|(p, v)| p.split == split && !v.is_nan())
            .map(|(p, v)| (p.n, *v))
            .collect();
        if parts.is_empty() || parts.len() < table.parts.iter().filter(|p| p.split == split).count() {
            continue;
        }
        let n: u64 = parts.iter().map(|p| p.0).sum();
        let micro = parts.iter().map(|(n, v)| *n as f64 * v).sum::<f64>() / n as f64;
        let plain = parts.iter().map(|p| p.1).sum::<f64>() / parts.len() as f64;
        let cut = if split.is_empty() { "the parts".to_owned() } else { format!("the parts by {split}") };
        if let Some(overall) = row.overall {
            let (expected, how) = match table.overall {
                Overall::Micro => (Some(micro), "weighted mean"),
                Overall::Macro => (Some(plain), "mean"),
                Overall::None => (None, ""),
            };
            if let Some(expected) = expected {
                // Rounding moves the mean of the parts and the whole by half a unit each.
                if (overall - expected).abs() > 2.0 * half + table.slack {
                    push(
                        "overall",
                        format!(
                            "{overall:.digits$} is not the {how} of {cut}, which is {expected:.p$}",
                            p = digits + 1
                        ),
                    );
                } else if table.overall == Overall::Micro && !table.averaged && table.slack == 0.0 {
                    if let Some(message) = whole_counts(&parts, overall, n, table.decimals) {
                        push("overall", message);
                    }
                }
            }
        }
        if let Some(mean) = row.macro_mean {
            if (mean - plain).abs() > 2.0 * half {
                push(
                    "macro",
                    format!("{mean:.digits$} is not the mean of {cut}, which is {plain:.p$}", p = digits + 1),
                );
            }
        }
    }
    let n = table.n.unwrap_or_else(|| {
        let first = table.parts.first().map(|p| p.split.clone()).unwrap_or_default();
        table.parts.iter().filter(|p| p.split == first).map(|p| p.n).sum()
    });
    if let Some(overall) = row.overall.filter(|_| !table.averaged && table.slack == 0.0 && n > 0) {
        if table.overall == Overall::Micro && counts(overall, n, table.decimals).is_none() {
            push("overall", impossible(overall, n, digits));
        }
    }
}

fn impossible(value: f64, n: u64, digits: usize) -> String {
    let k = (value / 100.0 * n as f64).floor();
    let share = |k: f64| 100.0 * k / n as f64;
    let (low, high) = (share(k), share(k + 1.0));
    let other = (n.saturating_sub(n / 10 + 10).max(1)..n).rev().find_map(|m| {
        let (k, _) = counts(value, m, digits as u32)?;
        Some(format!("; {k}/{m} would be possible"))
    });
    format!(
        "{value:.digits$} is no k/{n}: {k}/{n} = {low:.p$}, {}/{n} = {high:.p$}{}",
        k + 1.0,
        other.unwrap_or_default(),
        p = digits + 1
    )
}

/// Whole counts: the sum of the parts' possible counts must meet the whole's.
fn whole_counts(parts: &[(u64, f64)], overall: f64, n: u64, decimals: u32) -> Option<String> {
    let (mut low, mut high) = (0, 0);
    for (size, value) in parts {
        let (l, h) = counts(*value, *size, decimals)?;
        low += l;
        high += h;
    }
    let (l, h) = counts(overall, n, decimals)?;
    (high < l || h < low)
        .then(|| format!("the parts add up to {low} to {high} right of {n}, the whole says {l} to {h}"))
}
