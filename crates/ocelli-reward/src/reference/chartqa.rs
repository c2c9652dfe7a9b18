//! ChartQA's relaxed accuracy (Masry et al. 2022, after Methani et al. 2020; program: google-research/pix2struct).
//!
//! Kept on purpose: years within 5 % pass (2010 for 2014); a gold value of 0 is compared as text; `62` and `62%`
//! differ by a factor of 100. The strict rule is [`crate::verify()`].

use super::python::float;

fn number(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(_) => float(text.trim_end_matches('%')).map(|x| x / 100.0),
        None => float(text),
    }
}

/// Relaxed correctness: numbers within `tolerance` (0.05) of a non-zero gold value, other texts equal but for case.
pub fn relaxed_correct(answer: &str, gold: &str, tolerance: f64) -> bool {
    match (number(answer), number(gold)) {
        (Some(a), Some(g)) if g != 0.0 => (a - g).abs() / g.abs() <= tolerance,
        _ => answer.to_lowercase() == gold.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_per_cent() {
        assert!(relaxed_correct("2010", "2014", 0.05));
        assert!(relaxed_correct("5%", "0.05", 0.05));
        assert!(!relaxed_correct("62", "62%", 0.05));
        assert!(!relaxed_correct("0.0", "0", 0.05));
        assert!(relaxed_correct("Yes", "yes", 0.05));
        assert!(!relaxed_correct("10.6", "10", 0.05));
        assert!(!relaxed_correct("nan", "10", 0.05));
    }
}
