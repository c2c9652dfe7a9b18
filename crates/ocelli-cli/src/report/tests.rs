//! A run directory made by hand, and what the page says about it.

use std::path::Path;

use ocelli_data::io::{BlobStore, write_atomic, write_jsonl};
use ocelli_data::record::Record;
use ocelli_data::run::{Arm, Fact, ItemResult, RunSummary, StageRun};
use ocelli_data::{Message, Part, Span, SpanKind, Status, Trajectory};

use super::{Run, render};

/// 40 items; `right` decides which are right.
fn items(right: impl Fn(usize) -> bool, tools: &[&str]) -> Vec<ItemResult> {
    (0..40)
        .map(|i| ItemResult {
            id: format!("charts/9/{i}"),
            group: if i % 2 == 0 { "bar" } else { "line" }.to_owned(),
            score: f64::from(u8::from(right(i))),
            answer: Some(i.to_string()),
            status: "answered".into(),
            tools: tools.iter().map(|t| (*t).to_owned()).collect(),
            tokens: 12,
            chance: None,
            expected: Some("gold".into()),
        })
        .collect()
}

fn write_run(dir: &Path, name: &str, with_tools: impl Fn(usize) -> bool) {
    let arm = |id: &str, tools| Arm {
        id: id.into(),
        label: "SFT".into(),
        tools,
        set: String::new(),
        began_from: None,
    };
    let summary = RunSummary {
        name: name.into(),
        about: "A model & its <charts>.".into(),
        seed: 7,
        arms: vec![arm("sft", false), arm("sft-tools", true)],
        chance: Some(0.1),
        stages: vec![StageRun { name: "sft".into(), seconds: 12.5, outcome: "loss 0.4".into() }],
        facts: vec![Fact {
            section: "Reward model".into(),
            name: "pair accuracy".into(),
            text: "0.93".into(),
        }],
        unfinished: None,
    };
    write_atomic(&dir.join("summary.json"), &serde_json::to_vec(&summary).unwrap()).unwrap();
    write_jsonl(&dir.join("items/sft.jsonl"), &items(|i| i % 4 == 0, &[])).unwrap();
    write_jsonl(&dir.join("items/sft-tools.jsonl"), &items(with_tools, &["measure"])).unwrap();
    let metric = |step| Record::Metric {
        stage: "sft".into(),
        step,
        name: "loss".into(),
        value: 1.0 / (step + 1) as f64,
    };
    let mut rows: Vec<Record> = (0..500).map(metric).collect();
    rows.push(Record::Alarm {
        stage: "sft".into(),
        step: 3,
        monitor: "image_dependence".into(),
        message: "0.01".into(),
    });
    write_jsonl(&dir.join("metrics.jsonl"), &rows).unwrap();
    let hash = BlobStore::new(dir.join("blobs")).put(b"\x89PNG not really").unwrap();
    let sample = Trajectory {
        sample_id: "charts/9/0".into(),
        attempt: 0,
        messages: vec![Message::user([Part::image(hash), Part::text("</pre><script>alert(1)</script>")])],
        ids: vec![1, 2],
        spans: vec![Span { kind: SpanKind::Prompt, len: 2 }],
        logprobs: vec![],
        weight_versions: vec![],
        images: vec![hash],
        tools: vec![],
        status: Status::NoAnswer,
        scores: vec![],
    };
    write_jsonl(&dir.join("samples.jsonl"), &[sample]).unwrap();
}

#[test]
fn the_page_tells_the_run() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), "first", |i| i % 2 == 0);
    let page = render(&[Run::open(dir.path()).unwrap()]);
    // 10 of 40 and 20 of 40; Wilson bounds of 10/40 are 14.2 and 40.2 (any Wilson calculator).
    for part in [
        "25.0",
        "50.0",
        "image_<wbr>dependence",
        "does best with 50.0 %",
        "<nav>",
        "pair accuracy",
        "data:image/png;base64,",
        "Seed 7.",
        "loss 0.4",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    // Even items right with tools, every fourth without: gain 10, harm 0.
    assert!(page.contains("<span class=good>10</span>") && page.contains("<span class=bad>0</span>"));
    assert!(!page.contains("<script>"), "hostile text must be escaped");
    assert!(!page.contains("http"), "the page must not reach for the network");
}

/// A run with these arms (identifier, label, what it began from, which items are right) and nothing else.
fn with_arms(dir: &Path, arms: &[(&str, &str, Option<&str>, usize)]) -> Run {
    let arm = |&(id, label, from, _): &(&str, &str, Option<&str>, usize)| Arm {
        id: id.into(),
        label: label.into(),
        tools: false,
        set: String::new(),
        began_from: from.map(str::to_owned),
    };
    let summary =
        RunSummary { name: "arms".into(), arms: arms.iter().map(arm).collect(), ..RunSummary::default() };
    write_atomic(&dir.join("summary.json"), &serde_json::to_vec(&summary).unwrap()).unwrap();
    for (id, _, _, right) in arms {
        write_jsonl(&dir.join(format!("items/{id}.jsonl")), &items(|i| i < *right, &[])).unwrap();
    }
    Run::open(dir).unwrap()
}

#[test]
fn a_model_is_compared_with_the_one_that_it_began_from() {
    let dir = tempfile::tempdir().unwrap();
    let arms = [
        ("commonest", "Commonest", None, 8),
        ("base", "Base", None, 0),
        ("sft", "SFT", Some("base"), 20),
        ("mpo", "MPO", Some("sft"), 19),
        ("grpo", "GRPO", Some("sft"), 40),
    ];
    let page = render(&[with_arms(dir.path(), &arms)]);
    for part in [
        "GRPO vs SFT",
        "MPO vs SFT",
        "SFT vs Base",
        "<b>GRPO</b>, which began from SFT: without tools",
        "Everything against Commonest",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    for part in ["GRPO vs MPO", "Base vs Commonest", "<b>Base</b>, which began"] {
        assert!(!page.contains(part), "{part}");
    }
    // 19 against 20 of 40: one question apart.
    assert!(page.contains("no difference shown"));
}

#[test]
fn a_tie_has_no_winner() {
    let dir = tempfile::tempdir().unwrap();
    let arms = [("a", "First", None, 10), ("b", "Second", None, 30), ("c", "Third", None, 30)];
    let page = render(&[with_arms(dir.path(), &arms)]);
    assert!(page.contains("<b>Second</b> and <b>Third</b> do equally well with 75.0 % each"), "{page}");
    assert!(!page.contains("does best"));
}

#[test]
fn the_beginning_and_the_end_of_a_watched_metric_share_no_point() {
    let dir = tempfile::tempdir().unwrap();
    with_arms(dir.path(), &[]);
    let rows: Vec<Record> = [0.5, 0.25, 0.125]
        .iter()
        .zip(0..)
        .map(|(value, step)| Record::Metric {
            stage: "grpo".into(),
            step,
            name: "policy/entropy".into(),
            value: *value,
        })
        .collect();
    write_jsonl(&dir.path().join("metrics.jsonl"), &rows).unwrap();
    let page = render(&[Run::open(dir.path()).unwrap()]);
    assert!(page.contains("<td>0.5</td><td>0.125</td><td>1 <span class=dim>of 3</span></td>"), "{page}");
}

#[test]
fn configuration_and_environment_are_there_in_print() {
    let dir = tempfile::tempdir().unwrap();
    with_arms(dir.path(), &[]);
    write_atomic(&dir.path().join("config.toml"), b"seed = 3").unwrap();
    let page = render(&[Run::open(dir.path()).unwrap()]);
    assert!(page.contains("<div class=onpaper><h3>Resolved configuration</h3><pre>seed = 3</pre>"), "{page}");
}

#[test]
fn runs_are_compared_item_by_item() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_run(a.path(), "first", |i| i % 2 == 0);
    write_run(b.path(), "second", |i| i % 2 == 1);
    let page = render(&[Run::open(a.path()).unwrap(), Run::open(b.path()).unwrap()]);
    // 20 only first, 20 only second: difference 0, p = 1.
    assert!(page.contains("20 / 20") && page.contains("1.000"), "paired counts are missing");
}

#[test]
fn a_directory_that_is_no_run_is_answered_with_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let message = Run::open(dir.path()).err().unwrap().to_string();
    assert!(message.contains("summary.json") && message.contains("ocelli run"), "{message}");
}
