//! Several comparisons at once: adjusted p-values (Holm 1979; Benjamini and Hochberg 1995).

use super::{StatsError, domain};

fn order(what: &'static str, p: &[f64]) -> Result<Vec<usize>, StatsError> {
    if let Some(i) = p.iter().position(|p| !(0.0..=1.0).contains(p)) {
        return Err(domain(what, format!("p-value {i} is {}; it lies between 0 and 1", p[i])));
    }
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    Ok(order)
}

/// Holm's step-down adjustment: controls the chance of any false alarm. Same order as the input.
pub fn holm(p: &[f64]) -> Result<Vec<f64>, StatsError> {
    let mut adjusted = vec![0.0; p.len()];
    let mut running = 0.0f64;
    for (rank, i) in order("Holm", p)?.into_iter().enumerate() {
        running = running.max(p[i] * (p.len() - rank) as f64).min(1.0);
        adjusted[i] = running;
    }
    Ok(adjusted)
}

/// Benjamini and Hochberg's step-up adjustment: controls the share of false alarms. Same order as the input.
pub fn benjamini_hochberg(p: &[f64]) -> Result<Vec<f64>, StatsError> {
    let mut adjusted = vec![0.0; p.len()];
    let mut running = 1.0f64;
    for (rank, i) in order("Benjamini-Hochberg", p)?.into_iter().enumerate().rev() {
        running = running.min(p[i] * p.len() as f64 / (rank + 1) as f64);
        adjusted[i] = running;
    }
    Ok(adjusted)
}
