//! Form, tool use and rubric on small trajectories whose scores are worked out by hand.

use ocelli_data::{
    ContentHash, Message, Part, Score, Status, Target, ToolCall, ToolResult, ToolUse, Trajectory,
};
use ocelli_reward::format::{Form, ToolCallFormat, tool_calls};
use ocelli_reward::rubric::{PartConfig, RubricError};
use ocelli_reward::tool_use::{ToolCost, ToolGain, ToolValidity, necessity};
use ocelli_reward::{Accuracy, Rubric, Scorer};

fn call(name: &str, x: i64) -> ToolCall {
    let arguments = [("x".to_owned(), serde_json::json!(x))].into_iter().collect();
    ToolCall { id: String::new(), name: name.into(), arguments }
}

fn tool_use(call: ToolCall, content: Vec<Part>, is_error: bool) -> ToolUse {
    let result = ToolResult { id: String::new(), name: call.name.clone(), content, is_error };
    ToolUse { turn: 0, call, result, millis: 1.0, waited_ms: 0.0 }
}

fn trajectory(answer: &str, tools: Vec<ToolUse>) -> Trajectory {
    Trajectory {
        sample_id: "s".into(),
        attempt: 0,
        messages: vec![Message::user([]), Message::assistant(answer)],
        ids: vec![],
        spans: vec![],
        logprobs: vec![],
        weight_versions: vec![],
        images: vec![],
        tools,
        status: Status::Answered,
        scores: vec![],
    }
}

fn math(answer: &str) -> Target {
    Target::Math { answer: answer.into() }
}

#[test]
fn forms() {
    let think_answer = |s| Form::ThinkAnswer.check(s).is_ok();
    assert!(think_answer("<think>a</think>\n<answer>7</answer>"));
    for bad in [
        "<answer>7</answer>",
        "<think></think><answer>7</answer>",
        "<think>a</think>7",
        "<think>a</think><answer>7</answer> more",
        "<think>a</think><answer>7</answer><answer>8</answer>",
        "<think>a</think><think>b</think><answer>7</answer>",
        "<think>a<answer>7</answer>",
        "<think>a</think><answer> </answer>",
        "text <think>a</think><answer>7</answer>",
    ] {
        assert!(!think_answer(bad), "{bad}");
    }
    assert!(Form::ThinkBox.check("<think>a</think> so \\boxed{7}").is_ok());
    assert!(Form::ThinkBox.check("<think>a \\boxed{7}</think> so 7").is_err());
    assert!(Form::Box.check("so \\boxed{7}").is_ok());
    assert!(Form::Box.check("\\boxed{6} \\boxed{7}").is_err());
    assert!(Form::Box.check("\\boxed{}").is_err());
}

#[test]
fn tool_call_blocks() {
    let text = "<tool_call>{\"name\": \"crop\", \"arguments\": {\"x\": 1}}</tool_call> \
                <tool_call>{\"name\": 5}</tool_call><tool_call>{\"name\": \"ocr\", \"arguments\": []}</tool_call><tool_call>";
    let calls = tool_calls(text);
    assert_eq!(calls.len(), 4);
    assert_eq!(calls[0], Ok(call("crop", 1)));
    assert!(calls[1..].iter().all(Result::is_err));
    assert_eq!(ToolCallFormat.score(&trajectory(text, vec![]), &math("1")).value, Some(0.25));
    assert_eq!(ToolCallFormat.score(&trajectory("7", vec![]), &math("7")).value, Some(1.0));
}

#[test]
fn tools() {
    let image = Part::image(ContentHash::of(b"pixels"));
    let good = tool_use(call("crop", 1), vec![image], false);
    let again = good.clone();
    let failed = tool_use(call("crop", 2), vec![], true);
    let t = trajectory("The answer is 7.", vec![good, again, failed]);
    assert_eq!(ToolValidity.score(&t, &math("7")).value, Some(2.0 / 3.0));
    let cost = ToolCost { per_call: 0.1, per_repeat: 0.2, cap: 0.45 };
    // 3 x 0.1 + 1 x 0.2 = 0.5, capped.
    assert_eq!(cost.score(&t, &math("7")).value, Some(-0.45));
    let gain = ToolGain { accuracy: Accuracy::default() };
    assert_eq!(gain.score(&t, &math("7")).value, Some(1.0));
    assert_eq!(gain.score(&t, &math("8")).value, Some(0.0));
    assert_eq!(gain.score(&trajectory("7", vec![]), &math("7")).value, Some(0.0));
    // Without tools one rollout was right: tools were not needed.
    assert_eq!(necessity(&[(true, Some(1.0)), (false, Some(1.0)), (false, None)]), [-1.0, 0.0, 0.0]);
    assert_eq!(necessity(&[(true, Some(1.0)), (false, Some(0.0)), (false, None)]), [0.0, 0.0, 0.0]);
}

#[test]
fn the_end_of_a_trajectory_counts() {
    let mut t = trajectory("\\boxed{7}", vec![]);
    let accuracy = Accuracy::default();
    assert_eq!(accuracy.score(&t, &math("7")).value, Some(1.0));
    t.status = Status::TruncatedTokens;
    assert_eq!(accuracy.score(&t, &math("7")).value, Some(0.0));
    t.status = Status::ToolFailed;
    assert_eq!(accuracy.score(&t, &math("7")).value, None);
}

#[test]
fn a_rubric_adds_up_and_shows_its_parts() {
    let table = r#"[{"kind": "accuracy", "weight": 0.8}, {"kind": "think_box", "weight": 0.2},
                    {"kind": "tool_cost", "weight": 0, "per_call": 0.1, "cap": 1.0}]"#;
    let parts: Vec<PartConfig> = serde_json::from_str(table).unwrap();
    let rubric = Rubric::from_config(&parts).unwrap();
    let right_but_bare = rubric.breakdown(&trajectory("\\boxed{7}", vec![]), &math("7"));
    assert_eq!(right_but_bare.total.value, Some(0.8));
    assert_eq!(right_but_bare.parts[1].2.value, Some(0.0));
    let full = rubric.breakdown(&trajectory("<think>a</think>\\boxed{7}", vec![]), &math("7"));
    assert_eq!(full.total.value, Some(1.0));
    let names: Vec<String> = full.into_scores().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["accuracy", "format", "tool_cost", "reward"]);
    // An undecided accuracy leaves the total undecided.
    let unknown =
        rubric.breakdown(&trajectory("\\boxed{some words about it}", vec![]), &math("a proof of the lemma"));
    assert_eq!(unknown.total.value, None);
    assert_eq!(unknown.parts[1].2, Score::new(0.0, "", "the response does not begin with <think>"));
}

#[test]
fn broken_rubrics_are_refused() {
    let part = |weight| PartConfig { weight, kind: ocelli_reward::rubric::PartKind::Box };
    assert_eq!(Rubric::from_config(&[]).unwrap_err(), RubricError::Empty);
    assert_eq!(Rubric::from_config(&[part(0.0)]).unwrap_err(), RubricError::Empty);
    assert_eq!(
        Rubric::from_config(&[part(1.0), part(1.0)]).unwrap_err(),
        RubricError::Duplicate("format".into())
    );
    assert!(matches!(Rubric::from_config(&[part(f64::NAN)]), Err(RubricError::Weight { .. })));
}
