//! The interface that training rewards and evaluation metrics share, and the accuracy scorer.

use ocelli_data::{Score, Status, Target, Trajectory};
use serde::{Deserialize, Serialize};

use crate::choice::{Credit, credit, extract_choice, single_letter, verify_choice};
use crate::extract::{LADDER, extract};
use crate::text::TextRule;
use crate::verify::{Decimals, Outcome, Policy, Verdict, verify, verify_response};

/// Judges a trajectory against a target. Pure: the same input gives the same score, whoever asks.
pub trait Scorer: Send + Sync {
    /// Name under which the score is reported, e.g. `accuracy`.
    fn name(&self) -> &str;

    /// The score with its evidence. `value == None` where no verdict can be reached.
    fn score(&self, trajectory: &Trajectory, target: &Target) -> Score;
}

/// Right or wrong: the answer of the last assistant message against the target.
///
/// A trajectory that was cut off has no answer and scores 0; one that failed for reasons outside the policy is
/// unscored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Accuracy {
    /// Conventions of mathematical comparison.
    pub policy: Policy,
    /// Scoring of questions with several right options.
    pub credit: Credit,
    /// Rule for text answers; equality when absent.
    pub text: Option<TextRule>,
}

impl Accuracy {
    /// Scores the text of a response.
    pub fn score_text(&self, response: &str, target: &Target) -> Score {
        match target {
            Target::Math { answer } => score_of(&verify_response(answer, response, &LADDER, &self.policy)),
            Target::Number { value, tolerance } => self.number(response, *value, *tolerance),
            Target::Choice { letters, options } => self.choice(response, letters, options),
            Target::Text { accepted } => self.text(response, accepted),
        }
    }

    fn number(&self, response: &str, value: f64, tolerance: f64) -> Score {
        if !(value.is_finite() && tolerance >= 0.0 && tolerance.is_finite()) {
            return Score::unscored(format!(
                "the target {value} with tolerance {tolerance} is no number to compare with"
            ));
        }
        let policy = Policy { decimals: Decimals::Exact, relative: tolerance, ..self.policy.clone() };
        let verdict = verify_response(&value.to_string(), response, &LADDER, &policy);
        let right = f64::from(u8::from(verdict.outcome == Outcome::Equal));
        Score::new(right, verdict.answer.text.clone(), explain(&verdict))
    }

    fn choice(&self, response: &str, letters: &[String], options: &[String]) -> Score {
        let verdict = verify_choice(letters, options, response);
        if verdict.outcome == Outcome::Unknown || self.credit == Credit::Exact || letters.len() < 2 {
            return score_of(&verdict);
        }
        let count = if options.is_empty() { 26 } else { options.len() };
        let index = |c: char| c as usize - 'A' as usize;
        let gold: Vec<usize> = letters.iter().filter_map(|l| single_letter(l)).map(index).collect();
        let chosen = extract_choice(response, options, count).map(|(chosen, _)| chosen).unwrap_or_default();
        Score::new(
            credit(&gold, &chosen, self.credit),
            verdict.answer.text.clone(),
            "partial credit of several options",
        )
    }

    fn text(&self, response: &str, accepted: &[String]) -> Score {
        if accepted.iter().all(|a| a.trim().is_empty()) {
            return Score::unscored("the target accepts no text");
        }
        let found = match extract(response, &LADDER) {
            Ok(found) => found,
            Err(none) => return Score::new(0.0, "", none.reason()),
        };
        let rule = self.text.unwrap_or(TextRule::Equal);
        let similarity = rule.similarity(accepted, &found.text);
        if similarity < 1.0 && rule == TextRule::Equal {
            // `3` for `three`, `是` for `yes`.
            let same = accepted
                .iter()
                .map(|a| verify(a, &found.text, &Policy::bare()))
                .find(|v| v.outcome == Outcome::Equal);
            if let Some(verdict) = same {
                return Score::new(1.0, found.text, explain(&verdict));
            }
        }
        Score::new(similarity, found.text, format!("text, read by {:?}", found.rung))
    }
}

impl Scorer for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, trajectory: &Trajectory, target: &Target) -> Score {
        if let Some(score) = unanswered(trajectory.status) {
            return score;
        }
        self.score_text(&response(trajectory), target)
    }
}

/// What stands for the answer: that of the tool `answer` where it was called, else the last assistant message.
fn response(trajectory: &Trajectory) -> String {
    let given = trajectory.tools.last().filter(|u| u.call.name == "answer" && !u.result.is_error);
    match given.and_then(|u| u.call.arguments.get("answer")) {
        // The tag is the first rung of every ladder: the whole argument is the answer.
        Some(serde_json::Value::String(text)) => format!("<answer>{text}</answer>"),
        Some(value) => format!("<answer>{value}</answer>"),
        None => trajectory.final_text(),
    }
}

/// The score that an end other than an answer fixes.
fn unanswered(status: Status) -> Option<Score> {
    match status {
        Status::Answered | Status::NoAnswer => None,
        s if s.is_policy_end() => Some(Score::new(0.0, "", format!("cut off: {s:?}"))),
        s => Some(Score::unscored(format!("failed: {s:?}"))),
    }
}

fn explain(verdict: &Verdict) -> String {
    let read = verdict.rung.map_or(String::new(), |r| format!(", read by {r:?}"));
    let note = if verdict.note.is_empty() { String::new() } else { format!(": {}", verdict.note) };
    format!("{:?} by {}{read}{note}", verdict.outcome, verdict.rule)
}

/// A verdict as a score: unknown is unscored.
pub fn score_of(verdict: &Verdict) -> Score {
    let value = match verdict.outcome {
        Outcome::Equal => Some(1.0),
        Outcome::Different => Some(0.0),
        Outcome::Unknown => None,
    };
    Score { value, answer: Some(verdict.answer.text.clone()), why: explain(verdict) }
}
