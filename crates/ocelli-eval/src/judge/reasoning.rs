//! Explanation-driven judgement of reasoning.
//!
//! Reference mode (CSVQA, arXiv 2505.24120, section 5.2): of the items answered right that have an explanation, the
//! share whose solution a judge calls rigorous. That set depends on the model, so models are not comparable by it. The
//! extended mode therefore adds: the same share over all items with an explanation (a fixed set), the four cells of
//! right or wrong answer by sound or unsound reasoning, and a step-wise judgement whose coverage and precision say
//! where a solution leaves the reference.

use serde::{Deserialize, Serialize};

use super::reply::json_object;
use crate::stats::{Estimate, StatsError, proportion};

/// Verdict on one step of a solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepVerdict {
    /// The explanation, or plain logic, supports it.
    Supported,
    /// Neither supported nor contradicted.
    Neutral,
    /// It contradicts the explanation.
    Contradicts,
}

/// Judgement of one solution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReasoningVerdict {
    /// Name of the item.
    pub item: String,
    /// Whether the strict rule calls the answer right.
    pub answer_right: bool,
    /// Whether the official rule does.
    pub reference_right: bool,
    /// The judge's binary verdict; `None` is unparsed.
    pub sound: Option<bool>,
    /// What the judge said about flaws or strengths.
    pub comment: String,
    /// Step verdicts in order, where they were asked for and could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepVerdict>>,
    /// Steps of the explanation that the solution covers, from 1.
    #[serde(default)]
    pub covered: Vec<usize>,
    /// Steps of the explanation.
    #[serde(default)]
    pub reference_steps: usize,
    /// Labels of the item by grouping.
    #[serde(default)]
    pub groups: Vec<Vec<String>>,
}

impl ReasoningVerdict {
    /// Share of steps that are supported.
    pub fn precision(&self) -> Option<f64> {
        let steps = self.steps.as_ref().filter(|s| !s.is_empty())?;
        Some(steps.iter().filter(|s| **s == StepVerdict::Supported).count() as f64 / steps.len() as f64)
    }

    /// Share of the explanation's steps that the solution covers.
    pub fn coverage(&self) -> Option<f64> {
        self.steps.as_ref()?;
        (self.reference_steps > 0).then(|| self.covered.len() as f64 / self.reference_steps as f64)
    }

    /// First step that contradicts the explanation, from 1.
    pub fn first_error(&self) -> Option<usize> {
        self.steps.as_ref()?.iter().position(|s| *s == StepVerdict::Contradicts).map(|i| i + 1)
    }
}

/// Splits a solution or explanation into steps: numbered lines, else lines, else sentences; at most 40.
pub fn split_steps(text: &str) -> Vec<String> {
    const MOST: usize = 40;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let parts: Vec<String> =
        if lines.len() > 1 { lines.into_iter().map(str::to_owned).collect() } else { sentences(text) };
    if parts.len() <= MOST {
        return parts;
    }
    // Longer texts are joined in even runs, so that every word stays in some step.
    let run = parts.len().div_ceil(MOST);
    parts.chunks(run).map(|c| c.join(" ")).collect()
}

fn sentences(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut current = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        current.push(c);
        let ends = matches!(c, '。' | '！' | '？' | '；')
            || (matches!(c, '.' | '!' | '?' | ';') && chars.peek().is_none_or(|n| n.is_whitespace()));
        if ends && current.trim().chars().count() > 3 {
            parts.push(std::mem::take(&mut current).trim().to_owned());
        }
    }
    if !current.trim().is_empty() {
        parts.push(current.trim().to_owned());
    }
    parts
}

/// Reads a step-wise reply; `None` where it is not the JSON asked for, or has another number of steps.
pub fn parse_steps(
    reply: &str,
    steps: usize,
    reference_steps: usize,
) -> Option<(Vec<StepVerdict>, Vec<usize>)> {
    let value = json_object(reply)?;
    let verdicts: Option<Vec<StepVerdict>> = value
        .get("steps")?
        .as_array()?
        .iter()
        .map(|v| {
            // Some judges write {"i": 1, "verdict": "supported"}.
            let word = v.as_str().or_else(|| v.get("verdict")?.as_str())?;
            match word.trim().to_lowercase().as_str() {
                "supported" | "supports" | "support" => Some(StepVerdict::Supported),
                "neutral" => Some(StepVerdict::Neutral),
                "contradicts" | "contradicted" | "contradiction" => Some(StepVerdict::Contradicts),
                _ => None,
            }
        })
        .collect();
    let verdicts = verdicts.filter(|v| v.len() == steps)?;
    let mut covered: Vec<usize> = value
        .get("covered")?
        .as_array()?
        .iter()
        .filter_map(|v| v.as_u64())
        .map(|n| n as usize)
        .filter(|n| (1..=reference_steps).contains(n))
        .collect();
    covered.sort_unstable();
    covered.dedup();
    Some((verdicts, covered))
}

/// All judgements of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasoningReport {
    /// Items with an explanation that were judged.
    pub judged: usize,
    /// Binary replies that could not be read; they count as unsound.
    pub unparsed: usize,
    /// Reference mode: share sound among the items answered right by the official rule. The set depends on the model.
    pub given_right: Option<Estimate>,
    /// Share sound among all judged items: a fixed set, comparable between models.
    pub all: Option<Estimate>,
    /// Right answer and sound reasoning, on all judged items.
    pub right_and_sound: Option<Estimate>,
    /// `[answer right, answer wrong] x [sound, unsound]`.
    pub cells: [[usize; 2]; 2],
    /// Mean share of supported steps.
    pub precision: Option<Estimate>,
    /// Mean share of covered steps of the explanation.
    pub coverage: Option<Estimate>,
    /// Solutions by the step of their first error: how many have one, and its mean place.
    pub with_error: usize,
    /// Mean number of the first contradicting step, among those that have one.
    pub mean_first_error: Option<f64>,
    /// Step-wise replies that could not be read.
    pub steps_unparsed: usize,
}

/// Summarises judgements.
pub fn reasoning_report(
    verdicts: &[ReasoningVerdict],
    stepwise: bool,
) -> Result<ReasoningReport, StatsError> {
    let share = |values: Vec<f64>| -> Result<Option<Estimate>, StatsError> {
        if values.is_empty() { Ok(None) } else { proportion::<u8>(&values, None, 0.95).map(Some) }
    };
    let truth = |b: bool| f64::from(u8::from(b));
    let sound = |v: &ReasoningVerdict| v.sound == Some(true);
    let mut cells = [[0; 2]; 2];
    for v in verdicts {
        cells[usize::from(!v.answer_right)][usize::from(!sound(v))] += 1;
    }
    let errors: Vec<usize> = verdicts.iter().filter_map(ReasoningVerdict::first_error).collect();
    let mean_first_error =
        (!errors.is_empty()).then(|| errors.iter().sum::<usize>() as f64 / errors.len() as f64);
    Ok(ReasoningReport {
        judged: verdicts.len(),
        unparsed: verdicts.iter().filter(|v| v.sound.is_none()).count(),
        given_right: share(verdicts.iter().filter(|v| v.reference_right).map(|v| truth(sound(v))).collect())?,
        all: share(verdicts.iter().map(|v| truth(sound(v))).collect())?,
        right_and_sound: share(verdicts.iter().map(|v| truth(v.answer_right && sound(v))).collect())?,
        cells,
        precision: share(verdicts.iter().filter_map(ReasoningVerdict::precision).collect())?,
        coverage: share(verdicts.iter().filter_map(ReasoningVerdict::coverage).collect())?,
        with_error: errors.len(),
        mean_first_error,
        steps_unparsed: if stepwise { verdicts.iter().filter(|v| v.steps.is_none()).count() } else { 0 },
    })
}
