//! A run that was recorded is replayed offline, bit by bit: same tokens, same pictures, same scores, and no tool runs.

mod toy;

use std::path::Path;
use std::sync::Arc;

use ocelli_agent::engine::Report;
use ocelli_agent::episode::Ended;
use ocelli_agent::toolbox::LocalTools;
use ocelli_data::{Status, ToolUse, Trajectory};
use ocelli_tools::{Cache, Limits, Registry};
use proptest::prelude::*;
use toy::{Run, ToyModel};

const TEXTS: [&str; 8] = [
    r#"I look. <tool_call>{"name": "crop", "arguments": {"image": "img_0", "bbox": [4, 4, 24, 24]}}</tool_call>"#,
    r#"<tool_call>{"name": "zoom_in", "arguments": {"image": "img_1", "bbox": [1, 1, 9, 9]}}</tool_call>"#,
    r#"<tool_call>{"name": "draw_box", "arguments": {"image": "img_0", "bbox": [1, 1, 9, 9]}}</tool_call>"#,
    r#"<tool_call>{"name": "point", "arguments": {"image": "img_0", "label": "blue square"}}</tool_call>"#,
    r#"<tool_call>{"name": "calculate", "arguments": {"expression": "6*7"}}</tool_call>"#,
    r#"<tool_call>{"name": "calculate", "arguments": {"expression": "6*"}}</tool_call>"#,
    r#"<tool_call>{"name": "crop", "arguments": {"image": "img_9", "bbox": [4, 4, 24, 24]}}</tool_call>"#,
    "It is a square to me.",
];

fn run(cache: Cache, texts: &[&str], seed: u64, live: usize) -> Report {
    let registry = Registry::standard(Limits::default()).with_cache(Arc::new(cache));
    let tools = Arc::new(LocalTools::new(Arc::new(registry), 2));
    Run { tools, live, ..Run::default() }.go(&mut ToyModel::new(texts), 2, 3, seed).0
}

fn record(dir: &Path, texts: &[&str], seed: u64) -> Report {
    run(Cache::record(dir, 1 << 20).unwrap(), texts, seed, 16)
}

fn replay(dir: &Path, texts: &[&str], seed: u64) -> Report {
    // Another number of live trajectories: the order of calls may not matter.
    run(Cache::replay(dir, Limits::default()).unwrap(), texts, seed, 2)
}

/// All that a trajectory says, without the time it took.
fn content(ended: &Ended) -> String {
    let mut t: Trajectory = ended.trajectory.clone();
    t.tools.iter_mut().for_each(ToolUse::forget_times);
    format!("{} {:?}", serde_json::to_string(&t).unwrap(), ended.why)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_recording_gives_the_same_bytes(
        pick in prop::collection::vec(0usize..TEXTS.len(), 2..7),
        seed in any::<u64>(),
    ) {
        let texts: Vec<&str> = pick.iter().map(|i| TEXTS[*i]).collect();
        let dir = tempfile::tempdir().unwrap();
        let first = record(dir.path(), &texts, seed);
        // The recording may have been made anywhere: it is read from another place.
        let elsewhere = tempfile::tempdir().unwrap();
        let moved = elsewhere.path().join("recording");
        std::fs::rename(dir.path(), &moved).unwrap();
        let second = replay(&moved, &texts, seed);
        let both = first.ended.iter().zip(&second.ended);
        prop_assert_eq!(first.ended.len(), second.ended.len());
        for (a, b) in both {
            prop_assert_eq!((a.trajectory.status, &a.why), (b.trajectory.status, &b.why));
            prop_assert_eq!(content(a), content(b));
        }
    }
}

#[test]
fn what_was_not_recorded_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &TEXTS[7..], 1); // no call at all
    let report = replay(dir.path(), &TEXTS[..1], 1);
    for ended in &report.ended {
        assert_eq!(ended.trajectory.status, Status::ToolFailed);
        assert!(ended.why.as_deref().unwrap().contains("not in the recording"), "{:?}", ended.why);
    }
}
