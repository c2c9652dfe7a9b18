//! The chat-completions format: messages to a request body, a response body to a [`Completion`].
//!
//! Reference: OpenAI API, "Create chat completion", with the extensions that vLLM, SGLang and llama.cpp share
//! (`reasoning_content`, `repetition_penalty`). The body is written by hand around the images, so that an image is
//! encoded once, straight into the buffer that is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_data::{ContentHash, Message, Part, Role, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Outcome, Usage, thinking};

/// How to sample. Absent fields are left to the endpoint's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingParams {
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Longest completion in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Seed, for endpoints that honour one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Penalty on repeated tokens (vLLM's extension).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Texts that end the completion.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Further fields, sent as they are.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSchema {
    /// Name, e.g. `crop`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON schema of the arguments.
    pub parameters: Value,
}

/// Where images of tool results go: many endpoints accept only text in a tool message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolImages {
    /// Into a user message that follows the tool messages.
    #[default]
    UserMessage,
    /// Into the tool message itself.
    Inline,
}

/// Why the endpoint stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The token limit.
    Length,
    /// The model wants tools to run.
    ToolCalls,
    /// The endpoint's filter.
    ContentFilter,
    /// Anything else, or nothing.
    Other(String),
}

impl Finish {
    fn from_wire(reason: Option<&str>) -> Self {
        match reason {
            Some("stop" | "eos" | "end_turn" | "stop_sequence") => Self::Stop,
            Some("length" | "max_tokens" | "model_length") => Self::Length,
            Some("tool_calls" | "function_call" | "tool_use") => Self::ToolCalls,
            Some("content_filter" | "safety") => Self::ContentFilter,
            other => Self::Other(other.unwrap_or("none given").to_owned()),
        }
    }
}

/// A tool call whose arguments are not a JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalformedCall {
    /// Identifier given by the endpoint.
    pub id: String,
    /// Name of the tool, possibly empty.
    pub name: String,
    /// The arguments as written.
    pub raw: String,
    /// What is wrong with them.
    pub error: String,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The answer without its thinking.
    pub text: String,
    /// The thinking, from its own field or from a block in the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// A thinking block was opened and never closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclosed_thinking: bool,
    /// Text with which the model declined, from the field `refusal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Calls in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Calls that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub malformed_calls: Vec<MalformedCall>,
    /// Why the endpoint stopped.
    pub finish: Finish,
    /// Tokens; zero where the endpoint does not say.
    #[serde(default)]
    pub usage: Usage,
    /// Model name that the endpoint reports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Attempts that it took, the successful one included.
    #[serde(default)]
    pub attempts: u32,
    /// Seconds from sending the successful attempt to its last byte.
    #[serde(default)]
    pub latency_s: f64,
}

impl Completion {
    /// Which of the outcomes this is: never `Unparsed` (a scorer's finding) nor `Failed` (an error).
    pub fn outcome(&self) -> Outcome {
        if self.refusal.is_some() || self.finish == Finish::ContentFilter {
            Outcome::Refused
        } else if self.finish == Finish::Length || self.unclosed_thinking {
            Outcome::Truncated
        } else if self.text.trim().is_empty() && self.tool_calls.is_empty() && self.malformed_calls.is_empty()
        {
            Outcome::Empty
        } else {
            Outcome::Ok
        }
    }

    /// The assistant message that continues the dialogue. Thinking is left out, as chat templates do.
    pub fn message(&self) -> Message {
        Message { tool_calls: self.tool_calls.clone(), ..Message::assistant(self.text.clone()) }
    }
}

/// Kind of an encoded image by its first bytes, e.g. `image/png`; `None` for anything endpoints do not take.
pub fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'B', b'M', ..] => Some("image/bmp"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Writes a request body. `image` gives the bytes of a picture; its error ends the request.
pub(crate) struct BodyWriter<'a, E> {
    pub(crate) model: &'a str,
    pub(crate) limit_field: &'a str,
    pub(crate) tool_images: ToolImages,
    pub(crate) image: &'a (dyn Fn(ContentHash) -> Result<Vec<u8>, E> + Sync),
    pub(crate) bad_image: &'a (dyn Fn(ContentHash) -> E + Sync),
}

impl<E> BodyWriter<'_, E> {
    pub(crate) fn write(
        &self,
        messages: &[Message],
        sampling: &SamplingParams,
        tools: &[ToolSchema],
    ) -> Result<Vec<u8>, E> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"{\"model\":");
        string(&mut out, self.model);
        for (name, value) in fields(sampling, self.limit_field) {
            out.push(b',');
            string(&mut out, &name);
            out.push(b':');
            out.extend_from_slice(value.to_string().as_bytes());
        }
        if !tools.is_empty() {
            let tools: Vec<Value> =
                tools.iter().map(|t| json!({"type": "function", "function": t})).collect();
            out.extend_from_slice(b",\"tools\":");
            out.extend_from_slice(Value::from(tools).to_string().as_bytes());
        }
        out.extend_from_slice(b",\"messages\":[");
        self.messages(&mut out, messages)?;
        out.extend_from_slice(b"]}");
        Ok(out)
    }

    fn messages(&self, out: &mut Vec<u8>, messages: &[Message]) -> Result<(), E> {
        let mut open_calls: Vec<(String, String)> = Vec::new(); // (id, tool name) not yet answered
        let mut held_images: Vec<Part> = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            out.extend_from_slice(format!("{{\"role\":\"{role}\"").as_bytes());
            if !message.tool_calls.is_empty() {
                let calls = wire_calls(&message.tool_calls, i);
                open_calls =
                    calls.iter().map(|c| (text_of(&c["id"]), text_of(&c["function"]["name"]))).collect();
                out.extend_from_slice(b",\"tool_calls\":");
                out.extend_from_slice(Value::from(calls).to_string().as_bytes());
            }
            let mut content = message.content.as_slice();
            let text_only: Vec<Part>;
            if message.role == Role::Tool {
                let at = open_calls.iter().position(|(_, name)| *name == message.name).unwrap_or(0);
                let id = if at < open_calls.len() { open_calls.remove(at).0 } else { format!("call_{i}") };
                out.extend_from_slice(b",\"tool_call_id\":");
                string(out, &id);
                if self.tool_images == ToolImages::UserMessage {
                    let (images, text) =
                        message.content.iter().cloned().partition(|p| matches!(p, Part::Image { .. }));
                    held_images.extend::<Vec<Part>>(images);
                    text_only = text;
                    content = &text_only;
                }
            }
            out.extend_from_slice(b",\"content\":");
            self.content(out, content)?;
            out.push(b'}');
            let tools_end = messages.get(i + 1).is_none_or(|next| next.role != Role::Tool);
            if tools_end && !held_images.is_empty() {
                out.extend_from_slice(b",{\"role\":\"user\",\"content\":");
                self.content(out, &std::mem::take(&mut held_images))?;
                out.push(b'}');
            }
        }
        Ok(())
    }

    fn content(&self, out: &mut Vec<u8>, parts: &[Part]) -> Result<(), E> {
        if parts.iter().all(|p| matches!(p, Part::Text { .. })) {
            let text: String =
                parts.iter().map(|p| if let Part::Text { text } = p { text.as_str() } else { "" }).collect();
            string(out, &text);
            return Ok(());
        }
        out.push(b'[');
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            match part {
                Part::Text { text } => {
                    out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                    string(out, text);
                    out.push(b'}');
                }
                Part::Image { hash } => {
                    let bytes = (self.image)(*hash)?;
                    let kind = image_type(&bytes).ok_or_else(|| (self.bad_image)(*hash))?;
                    out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:");
                    out.extend_from_slice(kind.as_bytes());
                    out.extend_from_slice(b";base64,");
                    let start = out.len();
                    // Standard base64 needs no escaping in JSON; 4 characters per 3 bytes, rounded up.
                    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                    let written = STANDARD.encode_slice(&bytes, &mut out[start..]).unwrap_or(0);
                    out.truncate(start + written);
                    out.extend_from_slice(b"\"}}");
                }
            }
        }
        out.push(b']');
        Ok(())
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

fn fields(sampling: &SamplingParams, limit_field: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("temperature", sampling.temperature.map(Value::from));
    put("top_p", sampling.top_p.map(Value::from));
    put(limit_field, sampling.max_tokens.map(Value::from));
    put("seed", sampling.seed.map(Value::from));
    put("repetition_penalty", sampling.repetition_penalty.map(Value::from));
    put("stop", (!sampling.stop.is_empty()).then(|| Value::from(sampling.stop.clone())));
    fields.extend(sampling.extra.clone());
    fields
}

fn wire_calls(calls: &[ToolCall], message: usize) -> Vec<Value> {
    let id =
        |i: usize, c: &ToolCall| if c.id.is_empty() { format!("call_{message}_{i}") } else { c.id.clone() };
    let arguments = |c: &ToolCall| Value::Object(c.arguments.clone()).to_string();
    calls
        .iter()
        .enumerate()
        .map(|(i, c)| {
            json!({"id": id(i, c), "type": "function",
                   "function": {"name": c.name, "arguments": arguments(c)}})
        })
        .collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Reads a response body; the error says what is missing.
pub(crate) fn parse(body: &[u8]) -> Result<Completion, String> {
    let body: Value = serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))?;
    let choice = body.get("choices").and_then(|c| c.get(0)).ok_or("there is no choices[0]")?;
    let message = choice.get("message").ok_or("there is no choices[0].message")?;
    let raw = match message.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|p| p.get("text")?.as_str()).collect(),
        Some(other) => return Err(format!("choices[0].message.content is {other}, neither text nor parts")),
    };
    let field = |name: &str| message.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    let mut channels = thinking::split(&raw);
    if let Some(apart) = field("reasoning_content").or_else(|| field("reasoning")) {
        let inside = channels.reasoning.take().map(|r| format!("\n{r}")).unwrap_or_default();
        channels.reasoning = Some(format!("{apart}{inside}"));
    }
    let (mut tool_calls, mut malformed_calls) = (Vec::new(), Vec::new());
    for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        match tool_call(call) {
            Ok(call) => tool_calls.push(call),
            Err(bad) => malformed_calls.push(bad),
        }
    }
    Ok(Completion {
        text: channels.answer,
        reasoning: channels.reasoning,
        unclosed_thinking: channels.unclosed,
        refusal: field("refusal").map(str::to_owned),
        tool_calls,
        malformed_calls,
        finish: Finish::from_wire(choice.get("finish_reason").and_then(Value::as_str)),
        usage: usage(body.get("usage")),
        model: body.get("model").map(text_of).unwrap_or_default(),
        attempts: 1,
        latency_s: 0.0,
    })
}

fn tool_call(call: &Value) -> Result<ToolCall, MalformedCall> {
    let (id, name) = (text_of(&call["id"]), text_of(&call["function"]["name"]));
    let written = &call["function"]["arguments"];
    let raw = written.as_str().map_or_else(|| written.to_string(), str::to_owned);
    let bad = |error: String| MalformedCall { id: id.clone(), name: name.clone(), raw: raw.clone(), error };
    if name.is_empty() {
        return Err(bad("the call names no tool".into()));
    }
    let text = if raw.trim().is_empty() { "{}" } else { raw.as_str() };
    match serde_json::from_str(text) {
        Ok(Value::Object(arguments)) => Ok(ToolCall { id: id.clone(), name: name.clone(), arguments }),
        Ok(other) => Err(bad(format!("arguments are {other}, not an object"))),
        Err(e) => Err(bad(format!("arguments are not JSON: {e}"))),
    }
}

fn usage(value: Option<&Value>) -> Usage {
    let number = |path: &[&str]| path.iter().try_fold(value?, |v, key| v.get(key)).and_then(Value::as_u64);
    Usage {
        prompt: number(&["prompt_tokens"]).unwrap_or(0),
        cached: number(&["prompt_tokens_details", "cached_tokens"]).unwrap_or(0),
        completion: number(&["completion_tokens"]).unwrap_or(0),
        reasoning: number(&["completion_tokens_details", "reasoning_tokens"]).unwrap_or(0),
    }
}
