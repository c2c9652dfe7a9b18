//! Questions with their gold answers, and pairs of answers of which one is better.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Message, Role};

/// What a right answer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// A mathematical value or expression, e.g. `\frac{3}{4}` or `12 cm`.
    Math {
        /// Gold answer, LaTeX or plain.
        answer: String,
    },
    /// A number with a relative tolerance (0.05 is ChartQA's relaxed accuracy); 0 asks for exact equality.
    Number {
        /// Gold value.
        value: f64,
        /// Allowed `|x - value| / |value|`.
        tolerance: f64,
    },
    /// One or several options, e.g. `["B"]` of `["red", "blue", "green"]`.
    Choice {
        /// Letters of the right options, upper case.
        letters: Vec<String>,
        /// Texts of all options in the order A, B, C ...; may be empty where they are unknown.
        options: Vec<String>,
    },
    /// A short text, compared after normalisation of case, space and punctuation.
    Text {
        /// Any of these is right.
        accepted: Vec<String>,
    },
}

impl Target {
    /// A gold answer as a person would write it; the scorer of the target gives it full marks.
    pub fn gold_text(&self) -> String {
        match self {
            Self::Math { answer } => answer.clone(),
            Self::Number { value, .. } => value.to_string(),
            Self::Choice { letters, .. } => letters.join(","),
            Self::Text { accepted } => accepted.first().cloned().unwrap_or_default(),
        }
    }

    /// Checks that some answer can be right.
    ///
    /// # Errors
    /// What is missing or out of range, in words that follow the sample's name.
    pub fn check(&self) -> Result<(), String> {
        let blank = |s: &String| s.trim().is_empty();
        match self {
            Self::Math { answer } if blank(answer) => Err("target.answer is empty".into()),
            Self::Number { value, .. } if !value.is_finite() => {
                Err(format!("target.value is {value}; it must be a finite number"))
            }
            Self::Number { tolerance, .. } if !(tolerance.is_finite() && *tolerance >= 0.0) => {
                Err(format!("target.tolerance is {tolerance}; it must be a finite number, zero or more"))
            }
            Self::Choice { letters, .. } if letters.iter().all(blank) => {
                Err("target.letters names no option, so no answer would be right".into())
            }
            Self::Text { accepted } if accepted.iter().all(blank) => {
                Err("target.accepted names no answer, so no answer would be right".into())
            }
            _ => Ok(()),
        }
    }
}

/// One question: the messages that ask it and the target that an answer is scored against.
///
/// ```json
/// {"id": "charts/17", "messages": [{"role": "user", "content": [..]}], "target": {"kind": "number", "value": 12, "tolerance": 0}}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Unique within its data set and stable between runs.
    pub id: String,
    /// The dialogue up to the point where the policy speaks. Images are named by hash.
    pub messages: Vec<Message>,
    /// What a right answer is.
    pub target: Target,
    /// Columns for grouping and reports (`style`, `skill`, `category` ...).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

impl Sample {
    /// Checks that something is asked and that some answer can be right.
    ///
    /// # Errors
    /// What is missing or out of range, in words that follow the sample's name.
    pub fn check(&self) -> Result<(), String> {
        if !self.messages.iter().any(|m| m.role == Role::User) {
            let what =
                if self.messages.is_empty() { "messages is empty" } else { "no message is the user's" };
            return Err(format!("{what}; there is nothing to answer"));
        }
        self.target.check()
    }
}

/// Two answers to one question, of which the first is preferred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreferencePair {
    /// Unique within its data set.
    pub id: String,
    /// The dialogue up to the answers.
    pub prompt: Vec<Message>,
    /// Tools that the chat template lists before the dialogue, in the form of function-calling APIs; none where the answers
    /// were given without tools, or where the prompt itself describes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// The preferred answer: what the policy said and, where it called tools, what they replied.
    pub chosen: Vec<Message>,
    /// The other answer.
    pub rejected: Vec<Message>,
    /// How much better, in the units of whatever judged the pair; `None` where only the order is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// True when a judge called the two equally good; a trainer drops such pairs or gives them probability 0.5.
    #[serde(default)]
    pub tie: bool,
    /// Where the pair comes from, e.g. `verifier`, `reward_model`, `dropped_image`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}
