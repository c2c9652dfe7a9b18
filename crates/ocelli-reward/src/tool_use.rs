//! Rewards for the use of tools: did calls succeed, were they needed, what did they cost.
//!
//! Outcome rewards alone let a policy call tools for nothing or repeat a call that worked; these parts are reported
//! apart, so that such a habit shows. Necessity follows Chain-of-Focus' group-aware reward: a call is held against a
//! rollout only where another rollout of the same question was right without any.

use ocelli_data::{Part, Score, Target, Trajectory};

use crate::scorer::Scorer;

/// Share of the calls that did not end in an error; 1 where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolValidity;

impl Scorer for ToolValidity {
    fn name(&self) -> &str {
        "tool_validity"
    }

    fn score(&self, trajectory: &Trajectory, _: &Target) -> Score {
        let calls = trajectory.tools.len();
        if calls == 0 {
            return Score::new(1.0, "", "no call was made");
        }
        let good = trajectory.tools.iter().filter(|t| !t.result.is_error).count();
        Score::new(good as f64 / calls as f64, "", format!("{good} of {calls} calls succeeded"))
    }
}

/// What the calls cost: `-min(cap, per_call * calls + per_repeat * repeats)`, where a repeat has the name and the
/// arguments of an earlier call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToolCost {
    /// Cost of one call.
    pub per_call: f64,
    /// Further cost of a call that was made before.
    pub per_repeat: f64,
    /// Largest cost of a trajectory.
    pub cap: f64,
}

impl Scorer for ToolCost {
    fn name(&self) -> &str {
        "tool_cost"
    }

    fn score(&self, trajectory: &Trajectory, _: &Target) -> Score {
        let calls: Vec<_> = trajectory.tools.iter().map(|t| (&t.call.name, &t.call.arguments)).collect();
        let repeats = (1..calls.len()).filter(|i| calls[..*i].contains(&calls[*i])).count();
        let cost = self.per_call * calls.len() as f64 + self.per_repeat * repeats as f64;
        Score::new(-cost.min(self.cap), "", format!("{} calls, {repeats} repeated", calls.len()))
    }
}

/// 1 where a tool returned a picture and the answer is right, else 0 (DeepEyes' tool bonus).
#[derive(Clone, Debug)]
pub struct ToolGain<S> {
    /// Decides whether the answer is right: full marks only.
    pub accuracy: S,
}

impl<S: Scorer> Scorer for ToolGain<S> {
    fn name(&self) -> &str {
        "tool_gain"
    }

    fn score(&self, trajectory: &Trajectory, target: &Target) -> Score {
        let seen = trajectory
            .tools
            .iter()
            .any(|t| !t.result.is_error && t.result.content.iter().any(|p| matches!(p, Part::Image { .. })));
        if !seen {
            return Score::new(0.0, "", "no tool returned a picture");
        }
        let accuracy = self.accuracy.score(trajectory, target);
        match accuracy.value {
            Some(v) => Score { value: Some(f64::from(u8::from(v >= 1.0))), ..accuracy },
            None => accuracy,
        }
    }
}

/// Necessity of tools over the rollouts of one question, given for each whether it called a tool and its accuracy.
///
/// A rollout that called tools gets -1 where a rollout without tools was right (accuracy 1), else 0; rollouts without
/// tools get 0. Unscored rollouts prove nothing.
pub fn necessity(group: &[(bool, Option<f64>)]) -> Vec<f64> {
    let direct_success = group.iter().any(|(used, accuracy)| !used && accuracy.is_some_and(|a| a >= 1.0));
    group.iter().map(|(used, _)| if *used && direct_success { -1.0 } else { 0.0 }).collect()
}
