//! A policy that follows a script: an oracle's plan from the sample, or a function of a test.

use std::sync::Arc;

use ocelli_data::{Message, Sample, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::formats::CallFormat;
use crate::policy::{BoxFuture, Conversation, Policy, PolicyError, Said, Start, Stop, Turn};

/// One step of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// What is said with the call.
    #[serde(default)]
    pub thought: String,
    /// The call.
    pub call: ToolCall,
}

/// How a question can be solved with tools. Procedural tasks put it into `Sample::meta` under `plan`:
///
/// ```json
/// {"plan": {"steps": [{"thought": "I look closer.", "call": {"name": "crop", "arguments": {"image": "img_0"}}}],
///           "conclusion": "The bar ends at 7.", "answer": "7"}}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Calls in order, one per turn.
    #[serde(default)]
    pub steps: Vec<PlanStep>,
    /// What follows from the results.
    #[serde(default)]
    pub conclusion: String,
    /// The final answer.
    pub answer: String,
}

impl Plan {
    /// The plan of a sample.
    pub fn of(sample: &Sample) -> Result<Self, PolicyError> {
        let plan = sample.meta.get("plan").ok_or_else(|| {
            PolicyError(format!(
                "sample {}: there is no `plan` in its meta, so no script to follow",
                sample.id
            ))
        })?;
        Self::deserialize(plan).map_err(|e| PolicyError(format!("sample {}: meta.plan: {e}", sample.id)))
    }
}

/// What a script says at turn `n`, given the dialogue so far. `None` is silence.
pub type Script = dyn Fn(&Start, usize, &[Message]) -> Result<Said, PolicyError> + Send + Sync;

/// See the module.
#[derive(Clone)]
pub struct ScriptedPolicy {
    script: Arc<Script>,
}

impl ScriptedPolicy {
    /// Says what `script` returns.
    pub fn new(
        script: impl Fn(&Start, usize, &[Message]) -> Result<Said, PolicyError> + Send + Sync + 'static,
    ) -> Self {
        Self { script: Arc::new(script) }
    }

    /// Follows the [`Plan`] of each sample, one call per turn, in `format`. The answer goes through the tool `answer`
    /// where there is one, and is plain text otherwise.
    pub fn oracle(format: CallFormat) -> Self {
        Self::new(move |start, turn, _| {
            let plan = Plan::of(&start.sample)?;
            if let Some(step) = plan.steps.into_iter().nth(turn) {
                return Ok(say(format, &step.thought, &[step.call]));
            }
            if !start.tools.iter().any(|t| t.name == "answer") {
                let blank = if plan.conclusion.is_empty() { "" } else { "\n" };
                return Ok(said(format!("{}{blank}{}", plan.conclusion, plan.answer)));
            }
            let arguments = Map::from_iter([("answer".to_owned(), Value::from(plan.answer))]);
            let call = ToolCall { id: String::new(), name: "answer".to_owned(), arguments };
            Ok(say(format, &plan.conclusion, &[call]))
        })
    }
}

/// A finished turn of plain text.
pub fn said(text: impl Into<String>) -> Said {
    Said { message: Message::assistant(text), calls: None, stop: Stop::EndOfTurn }
}

/// A finished turn with calls, as `format` has it.
pub fn say(format: CallFormat, thought: &str, calls: &[ToolCall]) -> Said {
    match format {
        CallFormat::OpenAi => {
            let mut said = said(thought);
            said.message.tool_calls = calls.to_vec();
            said.calls = Some(crate::formats::Parsed {
                calls: calls.iter().cloned().map(Ok).collect(),
                prose: thought.to_owned(),
                ..Default::default()
            });
            said
        }
        _ => said(format.render(thought, calls)),
    }
}

impl Policy for ScriptedPolicy {
    fn open(&self, start: Start) -> Result<Box<dyn Conversation>, PolicyError> {
        let history = start.heard.clone();
        Ok(Box::new(Scripted { script: self.script.clone(), history, start }))
    }
}

struct Scripted {
    script: Arc<Script>,
    history: Vec<Message>,
    start: Start,
}

impl Conversation for Scripted {
    fn turn<'a>(&'a mut self, turn: Turn<'a>) -> BoxFuture<'a, Result<Said, PolicyError>> {
        self.history.extend_from_slice(turn.new);
        let n = self.history.iter().filter(|m| m.role == ocelli_data::Role::Assistant).count();
        let said = (self.script)(&self.start, n, &self.history);
        if let Ok(said) = &said {
            self.history.push(said.message.clone());
        }
        Box::pin(std::future::ready(said))
    }
}
