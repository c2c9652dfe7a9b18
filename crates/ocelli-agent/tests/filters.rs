//! Each filter refuses exactly what it is for.

use ocelli_agent::filters::{Filter, filter};
use ocelli_data::{ContentHash, Message, Part, Score, Status, ToolCall, ToolResult, ToolUse, Trajectory};
use serde_json::json;

fn image(n: u8) -> ContentHash {
    ContentHash::of(&[n])
}

fn crop(turn: usize, bbox: [u32; 4], made: u8) -> ToolUse {
    let arguments = json!({"image": "img_0", "bbox": bbox});
    let content = vec![Part::text(format!("New picture img_{}", turn + 1)), Part::image(image(made))];
    ToolUse {
        turn,
        call: ToolCall {
            id: String::new(),
            name: "crop".into(),
            arguments: arguments.as_object().unwrap().clone(),
        },
        result: ToolResult { id: String::new(), name: "crop".into(), content, is_error: false },
        millis: 1.0,
        waited_ms: 0.0,
    }
}

/// Two crops, then the right answer: every filter admits it.
fn good() -> Trajectory {
    let tools = vec![crop(0, [0, 0, 9, 9], 1), crop(1, [5, 5, 9, 9], 2)];
    let mut messages = vec![Message::user([Part::image(image(0)), Part::text("What?")])];
    for (i, used) in tools.iter().enumerate() {
        messages.push(Message::assistant(format!("call {i}")));
        messages.push(Message::tool(used.result.clone()));
    }
    messages.push(Message::assistant("7"));
    Trajectory {
        sample_id: "s".into(),
        attempt: 0,
        messages,
        ids: vec![],
        spans: vec![],
        logprobs: vec![],
        weight_versions: vec![],
        images: vec![],
        tools,
        status: Status::Answered,
        scores: vec![("accuracy".into(), Score::new(1.0, "7", "equal"))],
    }
}

fn refused_by(edit: impl Fn(&mut Trajectory)) -> Vec<Filter> {
    let mut t = good();
    edit(&mut t);
    Filter::ALL.into_iter().filter(|f| !f.admits(&t, "accuracy")).collect()
}

#[test]
fn each_filter_has_its_case() {
    assert_eq!(refused_by(|_| {}), []);
    assert_eq!(refused_by(|t| t.status = Status::TruncatedTurns), [Filter::Answered]);
    assert_eq!(refused_by(|t| t.scores[0].1.value = Some(0.5)), [Filter::AnswerRight]);
    // Unscored is not right.
    assert_eq!(refused_by(|t| t.scores[0].1.value = None), [Filter::AnswerRight]);
    assert_eq!(refused_by(|t| t.scores.clear()), [Filter::AnswerRight]);
    assert_eq!(refused_by(|t| t.tools[0].result.is_error = true), [Filter::CallsValid]);
    assert_eq!(refused_by(|t| t.messages[3] = t.messages[1].clone()), [Filter::NoRepetition]);
    assert_eq!(refused_by(|t| t.messages[5] = Message::assistant(" ")), [Filter::NoRepetition]);
}

#[test]
fn an_image_is_used_when_it_is_new_and_seen() {
    // No call looks at a picture.
    assert_eq!(refused_by(|t| t.tools.clear()), [Filter::ImageUsed]);
    let blind = |t: &mut Trajectory| t.tools.iter_mut().for_each(|u| u.call.arguments.clear());
    assert!(refused_by(blind).contains(&Filter::ImageUsed));
    // The crop of everything: the picture that was there already.
    let whole = |t: &mut Trajectory| {
        t.tools[0].result.content[1] = Part::image(image(0));
        t.messages[2] = Message::tool(t.tools[0].result.clone());
    };
    assert_eq!(refused_by(whole), [Filter::ImageUsed]);
    // A picture made with the answer itself, which nobody looked at.
    assert_eq!(refused_by(|t| t.tools[1].turn = 2), [Filter::ImageUsed]);
}

#[test]
fn redundant_calls() {
    // The same arguments again, and the same picture by other arguments.
    let again = |t: &mut Trajectory| t.tools[1].call = t.tools[0].call.clone();
    assert_eq!(refused_by(again), [Filter::NoRedundantCall]);
    let same = |t: &mut Trajectory| t.tools[1].result.content[1] = Part::image(image(1));
    assert_eq!(refused_by(same), [Filter::NoRedundantCall]);
    // A call that failed may be tried again.
    let retried = |t: &mut Trajectory| {
        t.tools[1].call = t.tools[0].call.clone();
        t.tools[0].result.is_error = true;
    };
    assert_eq!(refused_by(retried), [Filter::CallsValid]);
}

#[test]
fn the_report_counts_everything() {
    let mut wrong = good();
    wrong.scores[0].1.value = Some(0.0);
    let mut worse = wrong.clone();
    worse.status = Status::Deadline;
    let rows = [good(), wrong, worse, good()];
    let (kept, report) = filter(&rows, &Filter::ALL, "accuracy");
    assert_eq!(kept.len(), 2);
    assert_eq!((report.seen, report.kept), (4, 2));
    assert_eq!((report.refused[&Filter::AnswerRight], report.refused_alone[&Filter::AnswerRight]), (2, 1));
    assert_eq!((report.refused[&Filter::Answered], report.refused_alone[&Filter::Answered]), (1, 0));
    assert_eq!(report.refused[&Filter::NoRedundantCall], 0);
    assert_eq!(report.statuses[&Status::Answered], 3);
    assert_eq!(report.statuses[&Status::Deadline], 1);
}
