//! The environment of one question with vision tools: it writes the instructions, reads the calls, runs them, and
//! answers with text, pictures or a precise complaint. Without tools it simply takes the first turn as the answer.

use std::sync::Arc;
use std::time::Duration;

use ocelli_data::{ContentHash, Message, Part, Role, Sample, Status, ToolCall, ToolResult, ToolUse};
use ocelli_tools::{Affine, CallTime, Images, Limits, Made, Picture, Reply, ToolError, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::env::{Env, EnvError, EnvFactory, Step, StepContext};
use crate::formats::{CallFormat, Complaint};
use crate::instructions::instructions;
use crate::pictures::Pictures;
use crate::policy::{BoxFuture, Said};
use crate::toolbox::Toolbox;

/// What counts as the final answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerRule {
    /// A turn that calls no tool, or a call of `answer`.
    #[default]
    Text,
    /// Only a call of `answer`; a turn without a call is reminded.
    Tool,
}

/// How questions with tools are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolEnvConfig {
    /// How calls are written.
    pub format: CallFormat,
    /// What ends a trajectory.
    pub answer: AnswerRule,
    /// Write the tools into the system prompt; off where the policy's chat template lists them itself.
    pub instructions: bool,
    /// Seconds for one call, from when it begins to run.
    pub call_seconds: f64,
    /// How many times in a trajectory a tool that is late or cannot be reached is told to the policy, which may try
    /// another way, before the trajectory ends as `ToolFailed`.
    pub forgiven: usize,
}

impl Default for ToolEnvConfig {
    fn default() -> Self {
        Self {
            format: CallFormat::Hermes,
            answer: AnswerRule::Text,
            instructions: true,
            call_seconds: 30.0,
            forgiven: 1,
        }
    }
}

/// Makes one [`ToolEnv`] per trajectory.
#[derive(Clone)]
pub struct ToolEnvs {
    config: ToolEnvConfig,
    toolbox: Arc<dyn Toolbox>,
    specs: Arc<[ToolSpec]>,
    pictures: Arc<Pictures>,
    limits: Arc<Limits>,
}

impl ToolEnvs {
    /// Environments that call `toolbox` and keep images in `pictures`.
    pub fn new(
        config: ToolEnvConfig,
        toolbox: Arc<dyn Toolbox>,
        pictures: Arc<Pictures>,
        limits: Limits,
    ) -> Self {
        let specs = toolbox.specs();
        Self { config, toolbox, specs, pictures, limits: Arc::new(limits) }
    }
}

impl EnvFactory for ToolEnvs {
    fn make(&self, sample: &Sample, saved: Option<(&Value, &[Message])>) -> Result<Box<dyn Env>, EnvError> {
        let mut env = ToolEnv {
            shared: self.clone(),
            messages: sample.messages.clone(),
            images: Images::new(self.limits.clone()),
            given: 0,
            faults: 0,
        };
        env.load_given()?;
        if let Some((state, _)) = saved {
            env.restore(state)?;
        }
        Ok(Box::new(env))
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.specs.clone()
    }
}

/// State of a derived picture in a snapshot.
#[derive(Serialize, Deserialize)]
struct SavedImage {
    hash: ContentHash,
    parent: Option<usize>,
    /// `None` where the tool did not say how the picture lies on its parent.
    to_parent: Option<[f64; 6]>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    faults: usize,
    derived: Vec<SavedImage>,
}

/// The world of one question; see the module.
struct ToolEnv {
    shared: ToolEnvs,
    messages: Vec<Message>,
    images: Images,
    /// Pictures that came with the question; those after them were made by tools.
    given: usize,
    faults: usize,
}

impl Env for ToolEnv {
    fn init(&mut self) -> Result<Vec<Message>, EnvError> {
        let mut messages = std::mem::take(&mut self.messages);
        if self.shared.specs.is_empty() {
            return Ok(messages);
        }
        self.label(&mut messages);
        let written = instructions(self.shared.config.format, &self.shared.specs);
        if let Some(text) = written.filter(|_| self.shared.config.instructions) {
            match messages.first_mut() {
                Some(first) if first.role == Role::System => {
                    first.content.push(Part::text(format!("\n\n{text}")));
                }
                _ => messages.insert(0, Message::system(text)),
            }
        }
        Ok(messages)
    }

    fn step<'a>(&'a mut self, said: &'a Said, context: StepContext) -> BoxFuture<'a, Step> {
        Box::pin(self.answer(said, context))
    }

    fn save(&self) -> Value {
        let derived = self
            .images
            .iter()
            .skip(self.given)
            .map(|entry| SavedImage {
                hash: entry.picture.hash(),
                parent: entry.origin.map(|o| o.parent),
                to_parent: entry.origin.map(|o| o.to_parent.0),
            })
            .collect();
        json!(Saved { faults: self.faults, derived })
    }
}

impl ToolEnv {
    fn load_given(&mut self) -> Result<(), EnvError> {
        let hashes: Vec<ContentHash> =
            self.messages.iter().flat_map(|m| m.images().collect::<Vec<_>>()).collect();
        for hash in hashes {
            let bytes = self.shared.pictures.get(hash).map_err(|e| EnvError(e.to_string()))?;
            self.images.insert(bytes).map_err(|e| EnvError(format!("image {hash}: {e}")))?;
        }
        self.given = self.images.len();
        Ok(())
    }

    fn restore(&mut self, state: &Value) -> Result<(), EnvError> {
        let bad = |e: String| EnvError(format!("the saved state of the environment cannot be used: {e}"));
        let saved = Saved::deserialize(state).map_err(|e| bad(e.to_string()))?;
        self.faults = saved.faults;
        for image in saved.derived {
            let bytes = self.shared.pictures.get(image.hash).map_err(|e| bad(e.to_string()))?;
            let picture = Picture::new(bytes, &self.shared.limits).map_err(|e| bad(e.to_string()))?;
            let made = Made { picture, to_parent: image.to_parent.map(Affine) };
            let reply = Reply { image: Some(made), ..Reply::default() };
            let parent = image.parent.map(|k| format!("img_{k}"));
            let taken = self.images.accept("", "", parent.as_deref(), reply);
            if taken.is_error {
                return Err(bad(text_of(&taken)));
            }
        }
        Ok(())
    }

    /// Writes behind each given image by which name tools know it.
    fn label(&self, messages: &mut [Message]) {
        let mut k = 0;
        for message in messages {
            let mut labelled = Vec::with_capacity(message.content.len());
            for part in std::mem::take(&mut message.content) {
                let is_image = matches!(part, Part::Image { .. });
                labelled.push(part);
                if let (true, Some(entry)) = (is_image, self.images.get(k)) {
                    let (w, h) = (entry.picture.width(), entry.picture.height());
                    labelled.push(Part::text(format!("[img_{k}: {w} x {h} pixels]\n")));
                    k += 1;
                }
            }
            message.content = labelled;
        }
    }

    async fn answer(&mut self, said: &Said, context: StepContext) -> Step {
        let format = self.shared.config.format;
        let specs = self.shared.specs.clone();
        let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
        let text = said.message.plain_text();
        let parsed = match &said.calls {
            Some(beside) => beside.clone(),
            None if names.is_empty() => crate::formats::Parsed { prose: text, ..Default::default() },
            None => format.parse(&text, &names),
        };
        if parsed.calls.is_empty() {
            return self.no_call(&parsed.prose, context);
        }
        let answers = |c: &Result<ToolCall, Complaint>| matches!(c, Ok(call) if call.name == "answer");
        if context.last_turn && !parsed.calls.iter().any(answers) {
            return Step::end(Status::TruncatedTurns);
        }
        let mut step = Step::default();
        for call in parsed.calls {
            if step.tools.len() >= context.calls_left {
                step.end = Some(Status::TruncatedCalls);
                break;
            }
            self.one_call(call, &context, &mut step).await;
            if step.end.is_some() {
                break;
            }
        }
        step
    }

    fn no_call(&self, prose: &str, context: StepContext) -> Step {
        if prose.is_empty() {
            return Step::end(Status::NoAnswer);
        }
        match self.shared.config.answer {
            AnswerRule::Text => Step::end(Status::Answered),
            AnswerRule::Tool if context.last_turn => Step::end(Status::TruncatedTurns),
            AnswerRule::Tool => {
                let arguments = Map::from_iter([("answer".to_owned(), json!("..."))]);
                let example = self.shared.config.format.example("answer", arguments);
                let text =
                    format!("No tool was called. Call a tool, or give the final answer like this: {example}");
                Step { messages: vec![Message::user([Part::text(text)])], ..Step::default() }
            }
        }
    }

    async fn one_call(&mut self, call: Result<ToolCall, Complaint>, context: &StepContext, step: &mut Step) {
        let started = Instant::now();
        let mut waited = Duration::ZERO;
        let (call, result) = match call {
            Err(complaint) => {
                let name = match &complaint {
                    Complaint::UnknownTool { name, .. } => name.clone(),
                    _ => String::new(),
                };
                let call = ToolCall { id: String::new(), name, arguments: Map::new() };
                let told = complaint.told(self.shared.config.format, &self.shared.specs);
                let result = complain(&call, told);
                (call, result)
            }
            Ok(call) => {
                let left = context.deadline.saturating_duration_since(started);
                let own =
                    Duration::try_from_secs_f64(self.shared.config.call_seconds).unwrap_or(Duration::ZERO);
                let time = CallTime { run: own, whole: left };
                let timed = self.shared.toolbox.timed(&call, &self.images, time).await;
                waited = timed.waited;
                let in_time = own < left && Instant::now() < context.deadline;
                let result = self.receive(&call, timed.reply, in_time, step);
                (call, result)
            }
        };
        let message = self.observation(&result);
        let (all, waited) = (started.elapsed(), waited.as_secs_f64() * 1e3);
        let millis = (all.as_secs_f64() * 1e3 - waited).max(0.0);
        step.tools.push(ToolUse { turn: context.turn, call, result, millis, waited_ms: waited });
        step.messages.push(message);
    }

    /// Turns a reply or error into what the policy hears, and decides whether the trajectory ends.
    fn receive(
        &mut self,
        call: &ToolCall,
        reply: Result<Reply, ToolError>,
        in_time: bool,
        step: &mut Step,
    ) -> ToolResult {
        let mut fail = |status, why: String| {
            step.end = Some(status);
            step.why = Some(why.clone());
            complain(call, why)
        };
        match reply {
            Ok(reply) => {
                let image = reply.image.as_ref().map(|made| made.picture.bytes().clone());
                let answered = reply.answer.is_some();
                if let Some(bytes) = image
                    && let Err(e) = self.shared.pictures.put(bytes)
                {
                    return fail(Status::ToolFailed, e.to_string());
                }
                if answered {
                    step.end = Some(Status::Answered);
                }
                let parent = call.arguments.get("image").and_then(Value::as_str);
                self.images.accept(&call.name, &call.id, parent, reply)
            }
            Err(ToolError::ForModel(complaint)) => complain(call, complaint),
            Err(ToolError::Fatal(fatal)) => {
                let late = matches!(fatal, ocelli_tools::Fatal::Deadline { .. });
                if late && !in_time {
                    return fail(Status::Deadline, fatal.to_string());
                }
                self.faults += 1;
                if (late || fatal.is_transient()) && self.faults <= self.shared.config.forgiven {
                    return complain(call, format!("{fatal}. Try another way, or answer without it."));
                }
                fail(Status::ToolFailed, fatal.to_string())
            }
        }
    }

    fn observation(&self, result: &ToolResult) -> Message {
        match self.shared.config.format {
            CallFormat::Hermes | CallFormat::OpenAi => Message::tool(result.clone()),
            CallFormat::Actions => {
                // OpenThinkIMG has no tool role; its observation is a user turn.
                let mut content = vec![Part::text(format!("OBSERVATION:\n{} outputs: ", result.name))];
                content.extend(result.content.iter().cloned());
                Message::user(content)
            }
        }
    }
}

fn complain(call: &ToolCall, text: String) -> ToolResult {
    ToolResult {
        id: call.id.clone(),
        name: call.name.clone(),
        content: vec![Part::text(text)],
        is_error: true,
    }
}

fn text_of(result: &ToolResult) -> String {
    Message::tool(result.clone()).plain_text()
}
