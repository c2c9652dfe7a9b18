//! Rewards, preferences and verdicts of people beside stored samples: tournaments, best-of-k, corrected accuracy.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use ocelli_eval::compare::compare;
use ocelli_eval::declare::Task;
use ocelli_eval::evaluate::{Evaluation, Extra, rescore};
use ocelli_eval::judge::ReasoningVerdict;
use ocelli_eval::load::{Pictures, load};
use ocelli_eval::report::{comparison_text, terminal};
use ocelli_eval::stats;
use ocelli_eval::stored::{Stored, read_stored};
use ocelli_eval::summary::Mode;
use serde_json::json;

const ITEMS: usize = 20;
const SAMPLES: u32 = 4;

/// Sample `s` of item `i` is right by this rule, and has this reward.
fn right(i: usize, s: u32) -> bool {
    (i * 5 + s as usize * 3) % 7 < 3
}

fn reward(i: usize, s: u32) -> f64 {
    ((i * 3 + s as usize * 11) % 13) as f64
}

fn stored(samples: u32) -> (Task, Stored) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("math")).unwrap();
    let rows: String = (0..ITEMS)
        .map(|i| json!({"problem": format!("Item {i}?"), "answer": i.to_string()}).to_string() + "\n")
        .collect();
    std::fs::write(dir.path().join("math/aime_2024.jsonl"), rows).unwrap();
    let task = Task::parse("aime24").unwrap();
    let says = |i: usize, s: u32| format!("\\boxed{{{}}}", if right(i, s) { i } else { 500 + s as usize });
    let rows: String = (0..ITEMS)
        .map(|i| {
            json!({"id": i + 1, "responses": (0..samples).map(|s| says(i, s)).collect::<Vec<_>>()})
                .to_string()
                + "\n"
        })
        .collect();
    let path = dir.path().join("o.jsonl");
    std::fs::write(&path, rows).unwrap();
    let stored =
        read_stored(&task, &path, None, || load(&task, dir.path(), dir.path(), Pictures::Ignore)).unwrap();
    (task, stored)
}

fn evaluated(samples: u32, extra: &Extra) -> Evaluation {
    let (task, stored) = stored(samples);
    rescore(&task, &stored, "model", extra).unwrap()
}

#[test]
fn a_tournament_by_scores_is_best_of_k() {
    let mut extra = Extra::default();
    for i in 0..ITEMS {
        let id = (i + 1).to_string();
        for s in 0..SAMPLES {
            extra.rewards.insert((id.clone(), s), reward(i, s));
            for t in 0..s {
                let (a, b) = (reward(i, s), reward(i, t));
                extra
                    .prefer(id.clone(), s, t, if a == b { None } else { Some(if a > b { s } else { t }) })
                    .unwrap();
            }
        }
    }
    let e = evaluated(SAMPLES, &extra);
    let curves = e.summary.curves.as_ref().unwrap();
    assert_eq!(curves.k.iter().map(|r| r.k).collect::<Vec<_>>(), [1, 2, 4]);
    for row in &curves.k {
        let (tournament, best) = (row.tournament.unwrap().mean, row.best_of.unwrap().mean);
        assert!((tournament - best).abs() < 1e-12, "k = {}: {tournament} is not {best}", row.k);
    }
    assert!(terminal(&e.summary, 24).contains("tournament"));
    // One pair that nobody compared: no tournament, and the reader is told which.
    extra.preferences.get_mut("7").unwrap().remove(&(1, 3));
    let e = evaluated(SAMPLES, &extra);
    assert!(e.summary.curves.as_ref().unwrap().k[1].tournament.is_none());
    assert!(e.summary.notes.iter().any(|n| n.contains("samples 1 and 3 of `7`")), "{:?}", e.summary.notes);
}

#[test]
fn people_correct_the_automatic_accuracy() {
    // People see eight answers and call one of them right that the rule calls wrong.
    let mut extra = Extra::default();
    let verdicts: Vec<bool> = (0..8).map(|i| right(i, 0) || i == 2).collect();
    assert!(!right(2, 0));
    for (i, verdict) in verdicts.iter().enumerate() {
        extra.human.insert(((i + 1).to_string(), 0), *verdict);
    }
    let e = evaluated(1, &extra);
    let human = e.summary.human.as_ref().unwrap();
    assert_eq!((human.seen, human.agreed), (8, 7));
    let credit = |right: bool| f64::from(u8::from(right));
    let people: Vec<f64> = verdicts.iter().map(|v| credit(*v)).collect();
    let rule: Vec<f64> = (0..ITEMS).map(|i| credit(right(i, 0))).collect();
    let expected = stats::prediction_powered(&people, &rule[..8], &rule[8..], 0.95).unwrap();
    assert_eq!(human.corrected, Some(expected));
    assert!(expected.bias < 0.0, "the rule is too strict here");
    assert!(terminal(&e.summary, 24).contains("corrected by people"));
    extra.human.insert(("no such item".into(), 0), true);
    let e = evaluated(1, &extra);
    assert!(
        e.summary
            .notes
            .iter()
            .any(|n| n.contains("1 verdicts of people are about answers that are not here"))
    );
}

#[test]
fn reasoning_is_compared_on_the_same_items() {
    let (mut a, mut b) = (evaluated(1, &Extra::default()), evaluated(1, &Extra::default()));
    b.summary.model = "other".into();
    // Both right on items 0 to 4, a alone on 5; a is sound on all, b on even ones. Item 9 was judged in a only.
    for (run, flaw) in [(&mut a, 0), (&mut b, 2)] {
        for (i, record) in run.records.iter_mut().enumerate().take(10 - usize::from(flaw > 0)) {
            record.judged_reasoning = Some(ReasoningVerdict {
                item: record.id.clone(),
                answer_right: i < 5 || (i == 5 && flaw == 0),
                sound: Some(flaw == 0 || i % flaw == 0),
                ..ReasoningVerdict::default()
            });
        }
    }
    let c = &compare(&[(&a, &b)], Mode::Strict).unwrap()[0];
    let reasoning = c.reasoning.as_ref().unwrap();
    assert_eq!((reasoning.all.a.n, reasoning.all.a.mean, reasoning.all.b.mean), (9, 1.0, 5.0 / 9.0));
    let both = reasoning.both_right.unwrap();
    assert_eq!((both.a.n, both.a.mean, both.b.mean, both.mcnemar.only_a), (5, 1.0, 0.6, 2));
    assert!(comparison_text(c).contains("sound reasoning on 5 items that both answer right"));
}
