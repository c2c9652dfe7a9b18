//! Identities and near misses between irrational values, decided as mpmath decides them (`fixtures/balls.py`).

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use ocelli_reward::verify::{Outcome, Policy, verify};
use serde_json::Value;

fn pairs() -> Vec<(String, String, bool)> {
    let all: Value = serde_json::from_str(include_str!("../../../fixtures/balls.json")).unwrap();
    let rows = all["identities"].as_array().unwrap().clone();
    rows.iter()
        .map(|r| {
            let text = |key: &str| r[key].as_str().unwrap().to_owned();
            (text("left"), text("right"), r["equal"].as_bool().unwrap())
        })
        .collect()
}

#[test]
fn values_of_expressions() {
    let pairs = pairs();
    assert!(pairs.iter().filter(|p| p.2).count() >= 10 && pairs.iter().filter(|p| !p.2).count() >= 10);
    for (left, right, equal) in &pairs {
        let expected = if *equal { Outcome::Equal } else { Outcome::Different };
        for (gold, answer) in [(left, right), (right, left)] {
            let verdict = verify(gold, answer, &Policy::default());
            assert_eq!(verdict.outcome, expected, "{verdict:#?}");
        }
    }
}

/// Identities in symbols, and what becomes of them when one coefficient is changed.
#[test]
fn symbolic_expressions() {
    let identities = [
        ("(a+b)^3", "a^3+3a^2b+3ab^2+b^3", "a^3+3a^2b+3ab^2+2b^3"),
        (r"\sin^2 x+\cos^2 x", "1", "2"),
        (r"\sin 2x", r"2\sin x\cos x", r"3\sin x\cos x"),
        (r"\frac{1}{x-1}-\frac{1}{x+1}", r"\frac{2}{x^2-1}", r"\frac{2}{x^2+1}"),
        (r"\ln\left((x^2+1)^3\right)", r"3\ln(x^2+1)", r"2\ln(x^2+1)"),
        (r"e^{x+y}", r"e^x e^y", r"e^x + e^y"),
        (r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}", r"\binom{n}{2}"),
        (r"\sqrt{x^2+2x+1}\cdot\sqrt{x^2+2x+1}", "(x+1)^2", "(x-1)^2"),
        (r"\frac{x^4-1}{x-1}", "x^3+x^2+x+1", "x^3+x^2-x+1"),
    ];
    for (left, right, changed) in identities {
        for (gold, answer) in [(left, right), (right, left)] {
            let verdict = verify(gold, answer, &Policy::default());
            assert_eq!(verdict.outcome, Outcome::Equal, "{verdict:#?}");
        }
        let verdict = verify(left, changed, &Policy::default());
        assert_ne!(verdict.outcome, Outcome::Equal, "{verdict:#?}");
    }
}

/// Values at whole numbers only: no difference can be proved from values between them.
#[test]
fn factorials_and_binomials_of_symbols_are_left_open() {
    for (gold, answer) in
        [(r"\binom{n}{k}", r"\frac{n!}{k!(n-k)!}"), ("n!", "n(n-1)!"), (r"\binom{2n}{n}", "4^n")]
    {
        let verdict = verify(gold, answer, &Policy::default());
        assert_ne!(verdict.outcome, Outcome::Different, "{verdict:#?}");
    }
}
