//! Accuracy of a policy on questions, greedily, with and without tools, and what each tool did for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocelli_data::{Sample, Trajectory};
use ocelli_model::vlm::Vlm;
use ocelli_reward::{Accuracy, Scorer};

use crate::error::TrainError;
use crate::rollouts::Rollouts;
use crate::run::Metrics;

/// What a tool did, over questions that were answered both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToolEffect {
    /// Questions in which it was called.
    pub used: usize,
    /// Wrong without tools, right with them.
    pub gain: usize,
    /// Right without tools, wrong with them.
    pub harm: usize,
}

/// Verdicts on every question, in order.
#[derive(Clone, Debug, Default)]
pub struct Accuracies {
    /// Without tools.
    pub plain: Vec<bool>,
    /// With tools; empty where there are none.
    pub with_tools: Vec<bool>,
    /// By tool.
    pub effects: BTreeMap<String, ToolEffect>,
    /// Mean calls per question.
    pub calls: f64,
    /// Trajectories with tools, or without where there are none.
    pub trajectories: Vec<Trajectory>,
}

fn mean(right: &[bool]) -> f64 {
    right.iter().filter(|r| **r).count() as f64 / right.len().max(1) as f64
}

impl Accuracies {
    /// As metrics under `eval/`.
    pub fn metrics(&self) -> Metrics {
        let mut found: Metrics = vec![("eval/accuracy_plain".into(), mean(&self.plain))];
        if self.with_tools.is_empty() {
            found.push(("eval/accuracy".into(), mean(&self.plain)));
            return found;
        }
        let n = self.plain.len().max(1) as f64;
        found.push(("eval/accuracy".into(), mean(&self.with_tools)));
        found.push(("eval/calls".into(), self.calls));
        for (tool, e) in &self.effects {
            found.push((format!("eval/tool_gain/{tool}"), e.gain as f64 / n));
            found.push((format!("eval/tool_harm/{tool}"), e.harm as f64 / n));
        }
        found
    }
}

/// Answers every question greedily. A failure of any kind is a wrong answer: the denominator is the number of questions.
pub fn evaluate(
    model: &Vlm,
    rollouts: &Rollouts,
    samples: &[Arc<Sample>],
    version: u64,
) -> Result<Accuracies, TrainError> {
    let accuracy = Accuracy::default();
    let ask = |tools: bool| -> Result<Vec<Trajectory>, TrainError> {
        let groups = rollouts.run(model, samples, 1, 0, version, Some(0.0), tools)?;
        Ok(groups.into_iter().flatten().map(|e| e.trajectory).collect())
    };
    let judge = |trajectories: &[Trajectory]| -> Vec<bool> {
        let right = |(t, s): (&Trajectory, &Arc<Sample>)| accuracy.score(t, &s.target).or_zero() >= 1.0;
        trajectories.iter().zip(samples).map(right).collect()
    };
    let plain = ask(false)?;
    let mut out = Accuracies { plain: judge(&plain), ..Accuracies::default() };
    if !rollouts.has_tools() {
        out.trajectories = plain;
        return Ok(out);
    }
    let with_tools = ask(true)?;
    out.with_tools = judge(&with_tools);
    for (i, t) in with_tools.iter().enumerate() {
        let (before, after) = (out.plain[i], out.with_tools[i]);
        let mut names: Vec<&str> = t.tools.iter().map(|u| u.call.name.as_str()).collect();
        out.calls += names.len() as f64 / samples.len().max(1) as f64;
        names.sort_unstable();
        names.dedup();
        for name in names.into_iter().filter(|n| !n.is_empty()) {
            let effect = out.effects.entry(name.to_owned()).or_default();
            effect.used += 1;
            effect.gain += usize::from(after && !before);
            effect.harm += usize::from(before && !after);
        }
    }
    out.trajectories = with_tools;
    Ok(out)
}
