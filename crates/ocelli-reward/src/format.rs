//! Whether a response keeps to the form that was asked for. Form is scored apart from content.

use ocelli_data::{Role, Score, Target, ToolCall, Trajectory};
use serde_json::{Map, Value};

use crate::extract::{final_channel, last_boxed};
use crate::scorer::Scorer;

/// Longest tool call that is parsed, in bytes.
pub const MAX_CALL_BYTES: usize = 64 << 10;

/// `<think>...</think>` once and first, then an answer: in `<answer>` tags, or in a box, or any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Thinking, then `<answer>...</answer>`, and nothing else.
    ThinkAnswer,
    /// Thinking, then text with exactly one non-empty `\boxed{...}`.
    ThinkBox,
    /// Exactly one non-empty `\boxed{...}` after the thinking, if there is any.
    Box,
}

impl Form {
    /// `Ok` when `text` has the form, else what is wrong with it.
    pub fn check(self, text: &str) -> Result<(), &'static str> {
        let text = text.trim();
        let rest = match self {
            Self::Box => final_channel(text).map(|r| &text[r]).map_err(|none| none.reason())?,
            _ => after_thinking(text)?,
        };
        match self {
            Self::ThinkAnswer => {
                let body =
                    rest.strip_prefix("<answer>").ok_or("text other than <answer> follows the thinking")?;
                let body =
                    body.strip_suffix("</answer>").ok_or("the response does not end with </answer>")?;
                if body.contains("<answer>") || body.contains("</answer>") {
                    return Err("more than one <answer>");
                }
                if body.trim().is_empty() { Err("the answer is empty") } else { Ok(()) }
            }
            Self::ThinkBox | Self::Box => match rest.matches("\\boxed{").count() {
                0 => Err("no box"),
                1 if last_boxed(rest).is_some() => Ok(()),
                1 => Err("the box is empty or does not close"),
                _ => Err("more than one box"),
            },
        }
    }
}

fn after_thinking(text: &str) -> Result<&str, &'static str> {
    let body = text.strip_prefix("<think>").ok_or("the response does not begin with <think>")?;
    let (thought, rest) = body.split_once("</think>").ok_or("the thinking never closes")?;
    if thought.trim().is_empty() {
        return Err("the thinking is empty");
    }
    if thought.contains("<think>") || rest.contains("<think>") || rest.contains("</think>") {
        return Err("more than one thinking block");
    }
    Ok(rest.trim())
}

impl Scorer for Form {
    fn name(&self) -> &str {
        "format"
    }

    fn score(&self, trajectory: &Trajectory, _: &Target) -> Score {
        let text = trajectory.final_text();
        match self.check(&text) {
            Ok(()) => Score::new(1.0, "", "the form is kept"),
            Err(why) => Score::new(0.0, "", why),
        }
    }
}

/// The tool calls that a text makes in `<tool_call>{"name": .., "arguments": {..}}</tool_call>` blocks, each as parsed
/// or with what is wrong.
pub fn tool_calls(text: &str) -> Vec<Result<ToolCall, String>> {
    let mut calls = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("<tool_call>") {
        let body = &rest[open + "<tool_call>".len()..];
        let Some(close) = body.find("</tool_call>") else {
            calls.push(Err("a <tool_call> never closes".to_owned()));
            break;
        };
        calls.push(parse_call(&body[..close]));
        rest = &body[close + "</tool_call>".len()..];
    }
    calls
}

fn parse_call(body: &str) -> Result<ToolCall, String> {
    if body.len() > MAX_CALL_BYTES {
        return Err(format!("a call of {} bytes, more than {MAX_CALL_BYTES}", body.len()));
    }
    let value: Value = serde_json::from_str(body.trim()).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut fields) = value else { return Err("a call is a JSON object".to_owned()) };
    let Some(Value::String(name)) = fields.swap_remove("name") else {
        return Err("`name` is missing or no string".to_owned());
    };
    let arguments = match fields.swap_remove("arguments") {
        Some(Value::Object(arguments)) => arguments,
        None => Map::new(),
        Some(_) => return Err("`arguments` is no object".to_owned()),
    };
    if name.is_empty() {
        Err("`name` is empty".to_owned())
    } else {
        Ok(ToolCall { id: String::new(), name, arguments })
    }
}

/// Share of the tool calls written by the policy that are well formed; 1 where it wrote none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolCallFormat;

impl Scorer for ToolCallFormat {
    fn name(&self) -> &str {
        "tool_call_format"
    }

    fn score(&self, trajectory: &Trajectory, _: &Target) -> Score {
        let assistant = trajectory.messages.iter().filter(|m| m.role == Role::Assistant);
        let calls: Vec<_> = assistant.flat_map(|m| tool_calls(&m.plain_text())).collect();
        let Some(first_error) = calls.iter().find_map(|c| c.as_ref().err()) else {
            return Score::new(1.0, "", format!("{} calls, all well formed", calls.len()));
        };
        let good = calls.iter().filter(|c| c.is_ok()).count();
        Score::new(
            good as f64 / calls.len() as f64,
            "",
            format!("{good} of {} well formed; {first_error}", calls.len()),
        )
    }
}
