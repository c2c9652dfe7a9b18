//! Published cases with expected verdicts, and golds against themselves and against mutations of themselves.

mod data;

use ocelli_reward::extract::LADDER;
use ocelli_reward::verify::{Decimals, Missing, Outcome, Policy, Verdict, verify, verify_response};
use serde_json::Value;

/// The 33 cases of inspect_ai's `math()` scorer, whole outputs against targets.
#[test]
fn inspect_cases() {
    let Some(root) = data::root() else { return };
    let cases = data::json(&root.join("inspect_math/math_cases.json"));
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 33);
    let mut wrong: Vec<(String, Verdict)> = Vec::new();
    for case in cases {
        let output = data::text(case, "output");
        let verdict = verify_response(&data::text(case, "target"), &output, &LADDER, &Policy::default());
        let expected = if case["expected"] == "C" { Outcome::Equal } else { Outcome::Different };
        if verdict.outcome != expected {
            wrong.push((output, verdict));
        }
    }
    assert!(wrong.is_empty(), "{} of 33 wrong: {wrong:#?}", wrong.len());
}

/// OlympiadBench's scoring examples, under its conventions: stated errors, units required.
#[test]
fn olympiadbench_examples() {
    let Some(root) = data::root() else { return };
    let examples = data::json(&root.join("olympiadbench/scoring_examples.json"));
    let number = |v: &Value| match v {
        Value::String(s) => s.parse().unwrap(),
        other => other.as_f64().unwrap(),
    };
    let mut wrong: Vec<Verdict> = Vec::new();
    let mut count = 0;
    for example in examples.as_array().unwrap() {
        for answer in example["Ans"].as_array().unwrap() {
            let absolute = match &answer["precision"] {
                Value::Null => Vec::new(),
                Value::Array(list) => list.iter().map(number).collect(),
                one => vec![number(one)],
            };
            let policy =
                Policy { absolute, unit: Missing::Reject, decimals: Decimals::Exact, ..Policy::default() };
            let verdict = verify(&data::text(example, "GT"), &data::text(answer, "answer"), &policy);
            let expected = if answer["equal"] == true { Outcome::Equal } else { Outcome::Different };
            count += 1;
            if verdict.outcome != expected {
                wrong.push(verdict);
            }
        }
    }
    assert!(count > 30 && wrong.is_empty(), "{} of {count} wrong: {wrong:#?}", wrong.len());
}

/// Words of scale, units of single letters, formulas, the empty set in words; each with a neighbour that differs.
#[test]
fn scale_units_and_formulas() {
    let equal = [
        ("30000", "3万"),
        ("1.5亿", "150000000"),
        ("3万元", "30000元"),
        ("2,000,000", "2 million"),
        ("$1.5 million", "1500000"),
        (r"1.5\text{ million}", "1500000"),
        ("100", "1 hundred"),
        ("5 m/s", "18 km/h"),
        ("18 km/h", "5 m/s"),
        ("9.8 N", "9.8 kg m/s^2"),
        ("2000 m", "2 km"),
        ("H_2O", "H2O"),
        (r"\mathrm{CO_2}", "CO2"),
        ("Na^+", "Na+"),
        (r"\overline{AB}", "AB"),
        (r"\emptyset", "no solution"),
        ("无解", r"\varnothing"),
    ];
    let different = [
        ("3万", "3"),
        ("3万", "3000"),
        ("2 million", "2 billion"),
        ("5 m/s", "19 km/h"),
        ("5 m/s", "5 m"),
        ("H_2O", "3"),
        (r"\{0\}", "no solution"),
        ("1.5 million", "1.5"),
    ];
    for (pairs, expected) in [(&equal[..], Outcome::Equal), (&different[..], Outcome::Different)] {
        for (gold, answer) in pairs {
            let verdict = verify(gold, answer, &Policy::default());
            assert_eq!(verdict.outcome, expected, "{verdict:#?}");
        }
    }
    // Never equal, whatever else they are.
    for (gold, answer) in [
        ("X^2", "X2"),
        ("Fe^{2+}", "Fe^{3+}"),
        ("NO", "No"),
        ("CO_2", "CO"),
        ("AB", "BC"),
        ("no solution", "0"),
    ] {
        let verdict = verify(gold, answer, &Policy::default());
        assert_ne!(verdict.outcome, Outcome::Equal, "{verdict:#?}");
    }
}

/// Pairs that Math-Verify's issues report as decided wrongly (#14, #37, #41, #60, #64, #69, #76).
#[test]
fn known_wrong_verdicts_of_others() {
    let equal = [
        (r"\sqrt{1/n}", r"1/\sqrt{n}"),
        (r"\sqrt{\frac{1}{n}}", r"\frac{1}{\sqrt n}"),
        ("73", "**73**"),
        ("13", r"\text{13}"),
        ("x^2+1", "1+x^2"),
    ];
    let different = [
        ("3x-y+13=0", "3x+4y+14=0"),
        ("4", r"4\sqrt(2)"),
        ("1/2004!", "1/2006!"),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        ("1-1/e", "1+1/e"),
        (r"1-\frac{1}{e}", r"1+\frac{1}{e}"),
        ("12:00", "1:00"),
        (r"\pm 2021", "2021"),
        (r"2^{2025}", "3^{2025}"),
        ("10^{-40}", "10^{-41}"),
    ];
    for (pairs, expected) in [(&equal[..], Outcome::Equal), (&different[..], Outcome::Different)] {
        for (gold, answer) in pairs {
            for form in ["{}", "${}$", "\\boxed{{}}"] {
                let (g, a) = (form.replace("{}", gold), form.replace("{}", answer));
                for (g, a) in [(&g, &a), (&a, &g)] {
                    let verdict = verify(g, a, &Policy::default());
                    assert_eq!(verdict.outcome, expected, "{verdict:#?}");
                }
            }
        }
    }
}

fn golds(root: &std::path::Path) -> Vec<String> {
    let mut golds = Vec::new();
    for file in ["math/gsm8k_test", "math/math500", "math/aime_2024", "math/aime_2025", "mathv/test"] {
        let rows = data::jsonl(&root.join(format!("{file}.jsonl")));
        golds.extend(rows.iter().map(|row| data::text(row, "answer")));
    }
    let k12 = data::json(&root.join("mmk12/k12.json"));
    golds.extend(k12.as_array().into_iter().flatten().map(|row| data::text(row, "answer")));
    golds
}

#[test]
fn golds_equal_themselves() {
    let Some(root) = data::root() else { return };
    let golds = golds(&root);
    // A gold with a redundant space and in a box is read anew, so that equal text alone does not decide.
    let unequal: Vec<Verdict> = golds
        .iter()
        .map(|g| verify(g, &format!("\\boxed{{ {g} }}"), &Policy::default()))
        .filter(|v| v.outcome != Outcome::Equal)
        .collect();
    assert!(golds.len() > 5000);
    assert!(unequal.len() * 1000 <= golds.len(), "{} of {}: {unequal:#?}", unequal.len(), golds.len());
}

/// Every digit replaced by each other one, and a sign put in front: none of these equals the gold.
#[test]
fn mutations_are_never_equal() {
    let Some(root) = data::root() else { return };
    let mut golds = golds(&root);
    golds.sort();
    golds.dedup();
    let (mut count, mut equal) = (0, Vec::new());
    for gold in &golds {
        // Prose golds mention numbers besides the answer; their mutations are told apart by no rule.
        if gold.len() > 120 {
            continue;
        }
        for (i, c) in gold.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
            for step in [1, 4, 7] {
                let digit = char::from(b'0' + ((c as u8 - b'0') + step) % 10);
                let mutated = format!("{}{digit}{}", &gold[..i], &gold[i + 1..]);
                count += 1;
                let verdict = verify(gold, &mutated, &Policy::default());
                if verdict.outcome == Outcome::Equal {
                    equal.push(verdict);
                }
            }
        }
        let number = gold.trim_matches('$').starts_with(|c: char| c.is_ascii_digit() || c == '\\');
        if number
            && !gold.contains([',', '\n', '=', ':'])
            && gold.trim_matches('$') != "0"
            && !gold.contains("text{(")
        {
            let sign = format!("-{}", gold.trim_matches('$'));
            count += 1;
            let verdict = verify(gold, &sign, &Policy::default());
            if verdict.outcome == Outcome::Equal {
                equal.push(verdict);
            }
        }
    }
    assert!(count > 5_000 && equal.is_empty(), "{} of {count}: {equal:#?}", equal.len());
}
