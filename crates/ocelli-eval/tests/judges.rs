//! Judge replies as they come, and verdicts on given answers.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use ocelli_agent::endpoint::Outcome;
use ocelli_eval::declare::{ReplyRule, Task, Ties};
use ocelli_eval::item::{Gold, Item};
use ocelli_eval::judge::{
    StepVerdict, judge_agreement, official_reply, parse_steps, split_steps, tolerant_reply,
};
use ocelli_eval::score::{Presented, score_given, score_scalar};
use ocelli_eval::summary::pair_summary;

#[test]
fn replies_are_read_tolerantly_and_as_published() {
    // (reply, tolerant reading, as EMMA's program reads it). The second and third are stored replies of that benchmark
    // which its program counts as wrong.
    let cases = [
        ("correct", Some(true), true),
        ("Correct.", Some(true), false),
        ("**Correct_or_not: Correct**", Some(true), false),
        ("Correct_or_not: Incorrect", Some(false), false),
        ("incorrect", Some(false), false),
        ("Not correct", Some(false), false),
        ("{\"check\": 1}", Some(true), false),
        ("```json\n{\"check\": 0}\n```", Some(false), false),
        ("Yes, both say 12.", Some(true), false),
        ("No", Some(false), false),
        ("正确", Some(true), false),
        ("不正确", Some(false), false),
        ("判断：一致", Some(true), false),
        ("<think>Yes or no?</think>No.", Some(false), false),
        ("The response gives 12.\nVerdict: correct", Some(true), false),
        ("I would need the picture to decide.", None, false),
        ("", None, false),
        ("Nothing speaks against it", None, false),
        ("{\"a\": 1, \"b\": 0}", None, false),
    ];
    for (reply, tolerant, official) in cases {
        assert_eq!(tolerant_reply(reply), tolerant, "{reply:?}");
        assert_eq!(official_reply(ReplyRule::CorrectWord, reply), official, "{reply:?}");
    }
    assert!(official_reply(ReplyRule::CheckJson, "Sure: {\"check\": 1}"));
    assert!(!official_reply(ReplyRule::CheckJson, "{\"check\": 0}"));
    assert!(official_reply(ReplyRule::YesWord, " yes."));
}

#[test]
fn agreement_leaves_out_what_either_cannot_decide() {
    let (t, f) = (Some(true), Some(false));
    let a = judge_agreement(&[(t, t), (t, f), (f, f), (f, t), (t, t), (None, t), (t, None)]).unwrap();
    assert_eq!((a.asked, a.unparsed, a.both, a.agreed, a.only_judge, a.only_rule), (7, 1, 5, 3, 1, 1));
    // Observed 3/5; by chance 3/5 * 3/5 + 2/5 * 2/5 = 13/25.
    assert!((a.kappa.unwrap() - (0.6 - 0.52) / 0.48).abs() < 1e-12);
}

#[test]
fn steps() {
    assert_eq!(split_steps("1. a\n\n2. b"), ["1. a", "2. b"]);
    assert_eq!(
        split_steps("First add 3.5 to it. Then halve. 最后减一。"),
        ["First add 3.5 to it.", "Then halve.", "最后减一。"]
    );
    assert_eq!(split_steps(&"word.\n".repeat(100)).len(), 34, "100 lines in runs of three");
    use StepVerdict::{Contradicts, Neutral, Supported};
    let reply = "{\"steps\": [\"supported\", \"neutral\", {\"verdict\": \"Contradicts\"}], \"covered\": [2, 2, 1, 7]}";
    assert_eq!(parse_steps(reply, 3, 2), Some((vec![Supported, Neutral, Contradicts], vec![1, 2])));
    for bad in [
        "{\"steps\": [\"supported\"], \"covered\": []}",
        "{\"steps\": [\"maybe\", \"neutral\", \"neutral\"], \"covered\": []}",
        "no",
    ] {
        assert_eq!(parse_steps(bad, 3, 2), None, "{bad}");
    }
}

fn pair(id: &str, better: usize) -> Item {
    Item {
        id: id.into(),
        question: String::new(),
        options: vec![],
        gold: Gold::Better(vec![better]),
        answers: vec!["short".into(), "a longer answer".into()],
        rule: 0,
        groups: vec![vec!["general".into()], vec!["s".into()]],
        cluster: None,
        prompts: vec![],
        columns: Default::default(),
        explanation: None,
    }
}

#[test]
fn both_orders_tell_merit_from_place() {
    let task = Task::parse("vl-rewardbench").unwrap();
    let official = |n: u8| format!("Both are fine. Overall Judgment: Answer {n} is better.");
    let say = |variant, text: &'static str| Presented { variant, outcome: Outcome::Ok, text, read: None };
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let (one, two) = (leak(official(1)), leak(official(2)));
    // Better is the first answer: place 1 in the first order, place 2 in the second.
    let item = pair("x", 0);
    let v = score_given(&task, &item, &[say(0, one), say(1, two)]);
    assert_eq!((v.strict.credit, v.reference.credit), (Some(1.0), Some(1.0)));
    assert_eq!((v.chosen, v.places), (vec![Some(0), Some(0)], vec![Some(0), Some(1)]));
    // A judge that always says the first place: undecided officially, wrong in ours.
    let v = score_given(&task, &item, &[say(0, one), say(1, one)]);
    assert_eq!((v.strict.credit, v.reference.credit), (Some(0.0), None));
    // Replies that the official expression misses are read tolerantly.
    let v = score_given(&task, &item, &[say(0, "[[A]]"), say(1, "I prefer Answer 2.")]);
    assert_eq!((v.strict.credit, v.reference.credit, v.unparsed), (Some(1.0), None, 0));
    let v = score_given(&task, &item, &[say(0, "Hard to say."), say(1, two)]);
    assert_eq!((v.strict.credit, v.unparsed), (Some(0.0), 1));

    let items = [pair("a", 0), pair("b", 1), pair("c", 1)];
    let verdicts = [
        score_given(&task, &items[0], &[say(0, one), say(1, two)]),
        score_given(&task, &items[1], &[say(0, one), say(1, one)]),
        score_given(&task, &items[2], &[say(0, two), say(1, one)]),
    ];
    let s = pair_summary(&items, &verdicts).unwrap();
    let mean = |e: Option<ocelli_eval::stats::Estimate>| e.unwrap().mean;
    assert!((mean(s.consistent) - 2.0 / 3.0).abs() < 1e-12);
    assert!((mean(s.follows_place) - 1.0 / 3.0).abs() < 1e-12);
    assert!((mean(s.first_place) - 4.0 / 6.0).abs() < 1e-12);
    assert_eq!(mean(s.shorter_better), 1.0);
    assert_eq!(mean(s.longer_better), 0.5);
    assert_eq!(s.kappa, Some(1.0));
}

#[test]
fn scalar_scores() {
    let pairs = Task::parse("vl-rewardbench").unwrap();
    let item = pair("x", 1);
    assert_eq!(score_scalar(&pairs, &item, &[0.1, 0.2], Ties::Loss).strict.credit, Some(1.0));
    let tie = score_scalar(&pairs, &item, &[0.2, 0.2], Ties::First);
    assert_eq!((tie.strict.credit, tie.reference.credit, tie.ties), (Some(0.0), Some(0.0), 1));
    let tie = |ties| score_scalar(&pairs, &pair("x", 0), &[0.2, 0.2], ties);
    assert_eq!((tie(Ties::First).strict.credit, tie(Ties::First).reference.credit), (Some(0.0), Some(1.0)));
    assert_eq!(tie(Ties::Loss).reference.credit, Some(0.0));
    let best_of = Task::parse("rewardbench2").unwrap();
    let mut item = pair("y", 0);
    item.answers = vec![String::new(); 4];
    let tied = score_scalar(&best_of, &item, &[1.0, 1.0, 0.0, 1.0], Ties::Loss);
    assert_eq!((tied.reference.credit, tied.strict.credit), (Some(1.0 / 3.0), Some(0.0)));
}
