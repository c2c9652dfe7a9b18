//! Reports: complete, safe against what answers contain, and made for ten thousand of them.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use ocelli_eval::compare::compare;
use ocelli_eval::declare::{Benchmark, Task};
use ocelli_eval::evaluate::{Evaluation, Extra, rescore};
use ocelli_eval::load::{Pictures, load};
use ocelli_eval::report::{HtmlOptions, comparison_text, html, markdown, terminal};
use ocelli_eval::stored::read_stored;
use ocelli_eval::summary::Mode;
use serde_json::{Value, json};

fn task() -> Task {
    let text = r##"
name = "made"
title = "Made up"
source = { url = "https://example.org", licence = "none" }
[[data]]
format = "jsonl"
files = ["items.jsonl"]
id = "id"
[fields]
question = "question"
answer = "answer"
options = "options"
[prompt]
user = "{{ question }}"
[[score]]
when = { "#options" = "yes" }
reference = "csvqa"
strict = { compare = "choice" }
[[score]]
reference = "gsm8k_flexible"
strict = { compare = "math" }
[[groups]]
name = "subject"
by = ["subject"]
"##;
    Task::with_variant(Benchmark::parse("made", text).unwrap(), "").unwrap()
}

/// `n` items with `samples` answers each; `skill` of ten are right.
fn evaluation(n: usize, samples: usize, skill: usize, text: &str) -> Evaluation {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: Vec<Value>| {
        let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
        std::fs::write(dir.path().join(name), text).unwrap();
    };
    write("items.jsonl", (0..n).map(|i| {
        let options: Vec<String> = if i % 2 == 0 { "abcd".chars().map(|c| format!("{c}{i}")).collect() } else { vec![] };
        let answer = if i % 2 == 0 { "B".to_owned() } else { (i + 1).to_string() };
        json!({"id": format!("item-{i}"), "question": format!("Question {i}? {text}"), "answer": answer, "options": options, "subject": (["algebra", "geometry", "计数"][i % 3])})
    }).collect());
    write("answers.jsonl", (0..n * samples).map(|j| {
        let (i, s) = (j / samples, j % samples);
        let right = (i * 7 + s * 3) % 10 < skill;
        let answer = match (i % 2, right) {
            (0, true) => "B".to_owned(),
            (0, false) => "D".to_owned(),
            (_, true) => (i + 1).to_string(),
            _ => "0".to_owned(),
        };
        let boxed = if i % 4 == 0 { format!("({answer})") } else { format!("\\boxed{{{answer}}}") };
        json!({"id": format!("item-{i}"), "sample": s, "response": format!("{text} 先想一想。 So the answer is {boxed}"), "completion_tokens": 20 + (i * 31) % 400})
    }).collect());
    let task = task();
    let stored = read_stored(&task, &dir.path().join("answers.jsonl"), None, || {
        load(&task, dir.path(), dir.path(), Pictures::Ignore)
    })
    .unwrap();
    rescore(&task, &stored, &format!("model of skill {skill}"), &Extra::default()).unwrap()
}

fn embedded(page: &str) -> Value {
    let start = page.find("id=\"data\">").unwrap() + 10;
    let end = start + page[start..].find("</script>").unwrap();
    serde_json::from_str(&page[start..end]).unwrap()
}

#[test]
fn a_page_of_ten_thousand_answers() {
    let e = evaluation(10_000, 1, 6, "word ".repeat(60).as_str());
    let page = html(&e, &HtmlOptions::default());
    let data = embedded(&page);
    assert_eq!(data["rows"].as_array().unwrap().len(), 10_000);
    assert!(page.len() < 20 << 20, "{} bytes", page.len());
    assert!(page.matches("class=\"row\"").count() == 0, "rows are drawn by the script, only those in view");
    if let Some(path) = std::env::var_os("OCELLI_REPORT_SAMPLE") {
        std::fs::write(path, &page).unwrap();
    }
}

#[test]
fn answers_cannot_break_out_of_the_page() {
    let e = evaluation(6, 1, 6, "</script><script>alert(1)</script> <!-- & \" ' \u{2028}");
    let page = html(&e, &HtmlOptions::default());
    assert_eq!(page.matches("<script").count(), 2, "the data and the program");
    assert!(embedded(&page)["rows"][0]["t"].as_str().unwrap().contains("</script>"));
    for outside in ["http://", "https://", "src=\"/", "@import"] {
        assert!(!page.contains(outside), "the page must not load `{outside}`");
    }
}

#[test]
fn spans_are_those_of_the_browser() {
    let e = evaluation(4, 1, 10, "𝔘 é");
    let row = &embedded(&html(&e, &HtmlOptions::default()))["rows"][1];
    let units: Vec<u16> = row["t"].as_str().unwrap().encode_utf16().collect();
    let (a, b) = (row["sp"][0].as_u64().unwrap() as usize, row["sp"][1].as_u64().unwrap() as usize);
    assert_eq!(String::from_utf16(&units[a..b]).unwrap(), "2");
}

/// Equal but for the last bit of a number, which serde_json's quick reader may lose.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 4.0 * f64::EPSILON * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn both_rules_and_their_differences_are_shown() {
    let e = evaluation(40, 1, 10, "");
    // Every fourth answer stands in no box: the official rule of choices reads none, ours does.
    assert_eq!(e.summary.strict.credit, 40.0);
    assert_eq!(e.summary.reference.credit, 30.0);
    assert_eq!(e.differences.len(), 10);
    let text = markdown(&e);
    assert!(
        text.contains("the official rule reads no answer") && text.contains("| item-0 | 0 | 1 |"),
        "{text}"
    );
    assert!(text.contains("| algebra | 14 |"), "{text}");
    let again: Evaluation = serde_json::from_str(&serde_json::to_string(&e).unwrap()).unwrap();
    assert!(same(&json!(again), &json!(e)), "the JSON report is complete");
}

#[test]
fn text_for_a_terminal() {
    let e = evaluation(40, 4, 5, "");
    let text = terminal(&e.summary, 24);
    for part in ["reference", "strict", "pass@k", "maj@k", "By subject", "计数", "bounds if missing"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!terminal(&e.summary, 1).contains("geometry"));
    let page = html(&e, &HtmlOptions::default());
    assert_eq!(page.matches("<svg").count(), 2, "samples, tokens");
    assert_eq!(page.matches("class=\"line\"").count(), 3, "a line for each subject");
    if let Some(path) = std::env::var_os("OCELLI_REPORT_CURVES") {
        let other = evaluation(40, 4, 7, "");
        let comparisons = compare(&[(&e, &other)], Mode::Strict).unwrap();
        std::fs::write(path, html(&e, &HtmlOptions { comparisons: &comparisons, ..HtmlOptions::default() }))
            .unwrap();
    }
}

#[test]
fn comparisons_are_paired() {
    let (a, b) = (evaluation(300, 1, 6, ""), evaluation(300, 1, 5, ""));
    let c = &compare(&[(&a, &b), (&a, &a)], Mode::Strict).unwrap();
    // Skill decides by (7 i) mod 10, so b is right on 5/10 of what a has at 6/10, and nowhere else.
    let m = c[0].mcnemar.unwrap();
    assert_eq!((c[0].shared, m.only_a, m.only_b), (300, 30, 0));
    assert!((c[0].difference.difference - 0.1).abs() < 1e-12);
    assert!(c[0].difference.se < c[0].difference.unpaired_se / 2.0, "pairing must pay here");
    assert!(c[0].p() < 1e-8 && c[0].holm_p < 2e-8 && c[0].bootstrap.low > 0.05);
    assert_eq!((c[1].items.len(), c[1].p(), c[1].holm_p), (0, 1.0, 1.0));
    assert_eq!(c[0].items.len(), 30);
    assert!(comparison_text(&c[0]).contains("exact McNemar"));
    let page = html(&a, &HtmlOptions { comparisons: c, ..HtmlOptions::default() });
    assert!(page.contains("30 items on which they differ"));
}
