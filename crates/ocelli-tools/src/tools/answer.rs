//! `answer`: ends the trajectory.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::error::for_model;
use crate::{Call, Effort, Reply, Tool, ToolError};

/// Give the final answer and end the dialogue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The answer alone, without explanation.
    answer: Given,
}

/// An answer as text or as a number.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Given {
    Text(String),
    Number(serde_json::Number),
}

impl Tool for Answer {
    const NAME: &'static str = "answer";
    const EXAMPLE: &'static str = r#"{"answer": "42"}"#;
    const EFFORT: Effort = Effort::None;

    fn run(self, _: &Call<'_>) -> Result<Reply, ToolError> {
        let answer = match self.answer {
            Given::Text(text) => text.trim().to_owned(),
            Given::Number(number) => number.to_string(),
        };
        if answer.is_empty() {
            return Err(for_model("the answer is empty; give it as text or as a number"));
        }
        Ok(Reply {
            text: "Answer taken.".to_owned(),
            data: json!({"answer": answer}),
            image: None,
            answer: Some(answer),
        })
    }
}
