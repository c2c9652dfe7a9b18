//! Published tables with known faults (docs of CSVQA, VL-RewardBench and Skywork-VL-Reward), and tables without.

use ocelli_eval::audit::{audit, counts, parse_table};

/// CSVQA, arXiv 2505.24120, main table: overall, four subjects, open and multiple choice.
const CSVQA: &str = r#"
title = "CSVQA"
decimals = 1
parts = [
  { name = "Bio", n = 300 }, { name = "Chem", n = 341 }, { name = "Math", n = 315 }, { name = "Phys", n = 422 },
  { name = "Open", n = 100, split = "type" }, { name = "MC", n = 1278, split = "type" },
]
rows = [
  { name = "Gemma3-27B", overall = 22.9, parts = [26.0, 23.5, 27.0, 17.1, 23.0, 22.9] },
  { name = "QVQ-72B", overall = 36.6, parts = [40.7, 41.3, 33.7, 32.0, 32.0, 36.9] },
  { name = "InternVL3-78B", overall = 37.4, parts = [46.0, 41.1, 36.5, 28.9, 30.0, 38.0] },
  { name = "Qwen2.5-VL-72B", overall = 38.5, parts = [45.7, 40.8, 37.5, 32.2, 29.0, 39.2] },
  { name = "GPT-4o", overall = 23.6, parts = [28.0, 23.5, 23.5, 20.6, 18.0, 24.0] },
  { name = "o1", overall = 49.6, parts = [46.2, 45.1, 59.0, 49.1, 41.3, 50.2] },
]
"#;

/// VL-RewardBench as published by several authors; undecided pairs are left out, hence the slack.
const VL_REWARDBENCH: &str = r#"
title = "VL-RewardBench"
decimals = 1
averaged = true
slack = 0.9
parts = [{ name = "General", n = 183 }, { name = "Hallucination", n = 749 }, { name = "Reasoning", n = 318 }]
rows = [
  { name = "Gemini-1.5-Flash", parts = [47.8, 59.6, 58.4], overall = 57.6, macro = 55.3 },
  { name = "GPT-4o", parts = [49.1, 67.6, 70.5], overall = 65.8, macro = 62.4 },
  { name = "Qwen2-VL-7B", parts = [31.6, 19.1, 51.1], overall = 28.3, macro = 33.9 },
  { name = "InternVL3-8B", parts = [60.6, 44.0, 62.3], overall = 57.0, macro = 55.6 },
  { name = "InternVL3-78B", parts = [67.8, 52.5, 64.5], overall = 63.3, macro = 61.6 },
  { name = "LLaVA-Critic-8B", parts = [54.6, 38.3, 59.1], overall = 41.2, macro = 44.0 },
  { name = "Skywork-VL-Reward-7B", parts = [66.0, 80.0, 61.0], overall = 73.1, macro = 69.0 },
  { name = "Skywork-VL-Reward-7B, first version", parts = [84.5, 62.0, 62.6], overall = 73.5 },
]
"#;

fn flagged(text: &str) -> Vec<(String, String)> {
    let findings = audit(&parse_table(text).unwrap()).unwrap();
    findings.into_iter().map(|f| (f.row, f.column)).collect()
}

#[test]
fn a_row_whose_denominator_shrank_is_found() {
    let found = flagged(CSVQA);
    assert!(found.iter().all(|(row, _)| row == "o1"), "only that row: {found:?}");
    assert!(found.contains(&("o1".into(), "Open".into())), "41.3 % of 100 cannot be: {found:?}");
    let message = audit(&parse_table(CSVQA).unwrap())
        .unwrap()
        .into_iter()
        .find(|f| f.column == "Open")
        .unwrap()
        .message;
    assert!(message.contains("38/92 would be possible"), "{message}");
}

#[test]
fn rows_that_do_not_add_up_are_found() {
    let expected = [
        ("InternVL3-8B", "overall"),
        ("InternVL3-78B", "overall"),
        ("LLaVA-Critic-8B", "overall"),
        ("LLaVA-Critic-8B", "macro"),
        ("Skywork-VL-Reward-7B, first version", "overall"),
    ];
    assert_eq!(flagged(VL_REWARDBENCH), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn counts_allow_either_rounding_of_a_half() {
    // 1/8 = 12.5 %: printed without decimals as 12 (to even) or 13 (up).
    assert_eq!(counts(12.0, 8, 0), Some((1, 1)));
    assert_eq!(counts(13.0, 8, 0), Some((1, 1)));
    assert_eq!(counts(14.0, 8, 0), None);
    assert_eq!(counts(0.0, 30, 1), Some((0, 0)));
    assert_eq!(counts(100.0, 30, 1), Some((30, 30)));
    assert_eq!(counts(37.0, 400, 1), Some((148, 148)));
}

#[test]
fn every_true_table_passes() {
    // All shares of a small whole, rounded: an auditor that flags one of them would cry wolf.
    for a in 0..=7u32 {
        for b in 0..=13u32 {
            let share = |k: u32, n: u32| format!("{:.1}", 100.0 * f64::from(k) / f64::from(n));
            let text = format!(
                "title = \"t\"\ndecimals = 1\nparts = [{{ name = \"a\", n = 7 }}, {{ name = \"b\", n = 13 }}]\nrows = [{{ name = \"r\", parts = [{}, {}], overall = {} }}]",
                share(a, 7),
                share(b, 13),
                share(a + b, 20)
            );
            assert_eq!(flagged(&text), [], "{text}");
        }
    }
}

#[test]
fn senseless_tables_are_errors() {
    let base = "title = \"t\"\ndecimals = 1\nparts = [{ name = \"a\", n = 7 }]\n";
    assert!(parse_table("title = 1").is_err());
    assert!(parse_table(&format!("{base}colour = \"red\"\nrows = []")).is_err());
    assert!(audit(&parse_table(&format!("{base}rows = [{{ name = \"r\", parts = [] }}]")).unwrap()).is_err());
    assert!(
        audit(&parse_table(&format!("{base}rows = [{{ name = \"r\", parts = [140.0] }}]")).unwrap()).is_err()
    );
    assert!(
        audit(
            &parse_table(&format!("{base}rows = [{{ name = \"r\", parts = [nan], overall = 3.0 }}]"))
                .unwrap()
        )
        .is_ok()
    );
}

#[test]
fn every_fault_of_a_table_is_told() {
    let text =
        "title = \"t\"\ndecimals = 1\nparts = [{ name = \"a\", n = 7 }, { name = \"b\", n = 13 }]\nrows = [
      { name = \"short\", parts = [50.0] },
      { name = \"large\", parts = [140.0, -1.0], overall = 101.0 },
      { name = \"impossible\", parts = [50.0, 100.0] },
      { name = \"fine\", parts = [100.0, 100.0], overall = 100.0 },
    ]";
    let message = audit(&parse_table(text).unwrap()).unwrap_err().to_string();
    for part in [
        "4 fault(s)",
        "`short`, parts: 1 values for 2",
        "`large`, a: 140",
        "`large`, b: -1",
        "`large`, overall: 101",
        "1 number(s) cannot be",
        "`impossible`, a: 50.0 is no k/7",
    ] {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
    assert!(!message.contains("fine"), "{message}");
}
