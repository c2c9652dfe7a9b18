//! Which trajectories may teach. Each filter is a question with a yes; the report counts every no.

use std::collections::HashSet;

use indexmap::IndexMap;
use ocelli_data::{ContentHash, Part, Status, ToolUse, Trajectory};
use serde::{Deserialize, Serialize};

/// One condition on a trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// It ended with an answer.
    Answered,
    /// The scorer gave the answer full marks.
    AnswerRight,
    /// Every call was well formed, and no tool complained.
    CallsValid,
    /// At least one tool looked at a picture that exists, and every picture that a tool made differs from all before it
    /// and was seen by the policy before it answered.
    ImageUsed,
    /// No call was made twice with the same result, and none returned what an earlier one had returned.
    NoRedundantCall,
    /// The last thing said is not empty, and no turn is a copy of an earlier one.
    NoRepetition,
}

impl Filter {
    /// All filters, cheapest first.
    pub const ALL: [Self; 6] = [
        Self::Answered,
        Self::AnswerRight,
        Self::CallsValid,
        Self::ImageUsed,
        Self::NoRedundantCall,
        Self::NoRepetition,
    ];

    /// True where the trajectory meets the condition. `scorer` names the score that decides whether an answer is right.
    pub fn admits(self, t: &Trajectory, scorer: &str) -> bool {
        match self {
            Self::Answered => t.status == Status::Answered,
            Self::AnswerRight => t.score(scorer).and_then(|s| s.value).is_some_and(|v| v >= 1.0),
            Self::CallsValid => t.tools.iter().all(|u| !u.result.is_error),
            Self::ImageUsed => image_used(t),
            Self::NoRedundantCall => no_redundant_call(t),
            Self::NoRepetition => no_repetition(t),
        }
    }
}

fn images_of(u: &ToolUse) -> impl Iterator<Item = ContentHash> + '_ {
    u.result.content.iter().filter_map(|p| match p {
        Part::Image { hash } => Some(*hash),
        Part::Text { .. } => None,
    })
}

fn image_used(t: &Trajectory) -> bool {
    let looked = t.tools.iter().any(|u| !u.result.is_error && u.call.arguments.contains_key("image"));
    let made: HashSet<ContentHash> = t.tools.iter().flat_map(images_of).collect();
    let mut seen = HashSet::new();
    for message in &t.messages {
        for hash in message.images() {
            // A tool that gives back a picture that is already there has shown nothing.
            if !seen.insert(hash) && made.contains(&hash) {
                return false;
            }
        }
    }
    let last_turn =
        t.messages.iter().filter(|m| m.role == ocelli_data::Role::Assistant).count().saturating_sub(1);
    let unseen = t.tools.iter().any(|u| u.turn >= last_turn && images_of(u).next().is_some());
    looked && !unseen
}

fn no_redundant_call(t: &Trajectory) -> bool {
    let mut calls = HashSet::new();
    let mut results = HashSet::new();
    t.tools.iter().filter(|u| !u.result.is_error).all(|u| {
        let arguments = serde_json::Value::Object(u.call.arguments.clone()).to_string();
        // The text names the new picture by its number; what counts is the picture.
        let images: Vec<ContentHash> = images_of(u).collect();
        let fresh = images.is_empty() || results.insert(images);
        calls.insert((u.call.name.clone(), arguments)) && fresh
    })
}

fn no_repetition(t: &Trajectory) -> bool {
    let mut said = HashSet::new();
    let turns = t.messages.iter().filter(|m| m.role == ocelli_data::Role::Assistant);
    let calls = |m: &ocelli_data::Message| {
        let calls: Vec<String> =
            m.tool_calls.iter().map(|c| format!("{}{:?}", c.name, c.arguments)).collect();
        calls.join("\n")
    };
    turns.map(|m| (m.plain_text(), calls(m))).all(|turn| {
        let empty = turn.0.trim().is_empty() && turn.1.is_empty();
        !empty && said.insert(turn)
    })
}

/// What the filters did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FilterReport {
    /// Trajectories looked at.
    pub seen: usize,
    /// Trajectories that passed all filters.
    pub kept: usize,
    /// Per filter: how many it refuses, whatever the others say.
    pub refused: IndexMap<Filter, usize>,
    /// Per filter: how many it alone refuses.
    pub refused_alone: IndexMap<Filter, usize>,
    /// How trajectories ended.
    pub statuses: IndexMap<Status, usize>,
}

/// Keeps what all `filters` admit, in order, and counts the rest.
pub fn filter<'t>(
    trajectories: &'t [Trajectory],
    filters: &[Filter],
    scorer: &str,
) -> (Vec<&'t Trajectory>, FilterReport) {
    let zeros = || filters.iter().map(|f| (*f, 0)).collect();
    let mut report = FilterReport {
        seen: trajectories.len(),
        refused: zeros(),
        refused_alone: zeros(),
        ..FilterReport::default()
    };
    let mut kept = Vec::new();
    for t in trajectories {
        *report.statuses.entry(t.status).or_default() += 1;
        let refusing: Vec<Filter> = filters.iter().copied().filter(|f| !f.admits(t, scorer)).collect();
        for filter in &refusing {
            *report.refused.entry(*filter).or_default() += 1;
        }
        match refusing.as_slice() {
            [] => kept.push(t),
            [only] => *report.refused_alone.entry(*only).or_default() += 1,
            _ => {}
        }
    }
    report.kept = kept.len();
    (kept, report)
}
