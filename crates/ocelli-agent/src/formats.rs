//! Tool calls in the text of a policy: three formats, one result.
//!
//! | format | who speaks it | one call |
//! |---|---|---|
//! | [`CallFormat::Hermes`] | Hermes 2 Pro, Qwen 2.5 and 3 | `<tool_call>{"name": .., "arguments": {..}}</tool_call>` |
//! | [`CallFormat::Actions`] | OpenThinkIMG | `{"thought": "..", "actions": [{"name": .., "arguments": {..}}]}` |
//! | [`CallFormat::OpenAi`] | hosted endpoints | `tool_calls: [{"id": .., "function": {"name": .., "arguments": "{..}"}}]` |
//!
//! The reader is tolerant: what a person would understand without doubt is accepted, and each liberty taken is listed
//! as a [`Repair`], so that a reward for format can be strict while the run goes on. What cannot be understood becomes
//! a [`Complaint`], sentences written for the model: what is wrong, where, and what a right call of that tool looks like.
//! Nothing here panics or recurses without bound; text beyond [`MAX_TEXT`] is not read.

mod actions;
mod hermes;
mod lenient;
mod openai;

use std::fmt;

use ocelli_data::ToolCall;
use ocelli_tools::ToolSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use lenient::{JsonFault, Repair, read_json};
pub use openai::{calls_from_openai, calls_to_openai, read_arguments};

/// Longest assistant text that is searched for calls, in bytes; a longer one is a complaint.
pub const MAX_TEXT: usize = 64 << 10;

/// Most calls that one turn may hold; the rest is refused with a complaint.
pub const MAX_CALLS_PER_TURN: usize = 16;

/// How a policy writes its tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallFormat {
    /// `<tool_call>` tags around JSON objects.
    Hermes,
    /// One JSON object with `thought` and `actions`.
    Actions,
    /// Function calls beside the text, as endpoints give them.
    OpenAi,
}

/// What a policy said in one turn.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Parsed {
    /// One entry per call that was meant, in order.
    pub calls: Vec<Result<ToolCall, Complaint>>,
    /// Liberties that the reader took.
    pub repairs: Vec<Repair>,
    /// The text outside calls and thinking, trimmed: where an answer would stand.
    pub prose: String,
}

/// Why a call cannot be made. The policy reads it with a right call behind it, see [`Complaint::told`].
#[derive(Clone, Debug, PartialEq)]
pub enum Complaint {
    /// The JSON of the call is broken beyond repair.
    Json {
        /// What the reader met.
        fault: JsonFault,
        /// The tool that was meant, where that can be seen.
        tool: Option<String>,
    },
    /// The JSON is well formed, but is not a call.
    Shape {
        /// What is missing or of the wrong kind.
        problem: String,
        /// The tool that was meant, where that can be seen.
        tool: Option<String>,
    },
    /// No tool has this name.
    UnknownTool {
        /// The name as written.
        name: String,
        /// The most similar known name.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// More calls in one turn than [`MAX_CALLS_PER_TURN`].
    TooMany {
        /// Calls found.
        found: usize,
    },
    /// The text is longer than [`MAX_TEXT`].
    TooLong {
        /// Length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { fault, .. } => write!(f, "The tool call is not valid JSON: {fault}."),
            Self::Shape { problem, .. } => write!(f, "The tool call cannot be used: {problem}."),
            Self::UnknownTool { name, nearest, known } => {
                write!(f, "There is no tool `{name}`.")?;
                if let Some(nearest) = nearest {
                    write!(f, " Did you mean `{nearest}`?")?;
                }
                if known.is_empty() {
                    write!(f, " No tools can be called here; answer the question.")
                } else {
                    write!(f, " The tools are: {}.", known.join(", "))
                }
            }
            Self::TooMany { found } => {
                write!(
                    f,
                    "{found} tool calls in one turn; at most {MAX_CALLS_PER_TURN} are run. Make fewer calls."
                )
            }
            Self::TooLong { bytes } => {
                write!(f, "The message has {bytes} bytes; tool calls are read up to {MAX_TEXT}. Write less.")
            }
        }
    }
}

impl Complaint {
    /// What the policy reads: the complaint and, where its writing was wrong, a right call of the tool that it meant.
    pub fn told(&self, format: CallFormat, specs: &[ToolSpec]) -> String {
        let meant = match self {
            Self::Json { tool, .. } | Self::Shape { tool, .. } => tool.as_deref(),
            _ => return self.to_string(),
        };
        match format.right_call(meant, specs) {
            Some(call) => format!("{self} A right call looks like this: {call}"),
            None => self.to_string(),
        }
    }
}

impl CallFormat {
    /// Reads the calls in `text`. `names` are the tools that may be called.
    ///
    /// ```
    /// use ocelli_agent::formats::CallFormat;
    ///
    /// let text = "I look closer. <tool_call>{'name': 'crop', 'arguments': {'image': 'img_0',}}</tool_call>";
    /// let parsed = CallFormat::Hermes.parse(text, &["crop"]);
    /// assert_eq!(parsed.calls[0].as_ref().unwrap().name, "crop");
    /// assert_eq!(parsed.repairs.len(), 2); // single quotes, a comma too many
    /// assert_eq!(parsed.prose, "I look closer.");
    /// ```
    pub fn parse(self, text: &str, names: &[&str]) -> Parsed {
        if text.len() > MAX_TEXT {
            return Parsed {
                calls: vec![Err(Complaint::TooLong { bytes: text.len() })],
                ..Parsed::default()
            };
        }
        let mut parsed = match self {
            Self::Hermes => hermes::parse(text, names),
            Self::Actions => actions::parse(text, names),
            Self::OpenAi => Parsed { prose: after_thinking(text).trim().to_owned(), ..Parsed::default() },
        };
        if parsed.calls.len() > MAX_CALLS_PER_TURN {
            let found = parsed.calls.len();
            parsed.calls.truncate(MAX_CALLS_PER_TURN);
            parsed.calls.push(Err(Complaint::TooMany { found }));
        }
        parsed.repairs.dedup();
        parsed
    }

    /// Writes a turn as a well-behaved policy would: `parse` reads exactly `calls` back, without repairs.
    pub fn render(self, thought: &str, calls: &[ToolCall]) -> String {
        match self {
            Self::Hermes => hermes::render(thought, calls),
            Self::Actions => actions::render(thought, calls),
            Self::OpenAi => thought.to_owned(),
        }
    }

    /// A right call of `name` in this format, for complaints and instructions.
    pub fn example(self, name: &str, arguments: Map<String, Value>) -> String {
        let call = ToolCall { id: String::new(), name: name.to_owned(), arguments };
        match self {
            Self::OpenAi => json!({"name": call.name, "arguments": call.arguments}).to_string(),
            _ => self.render("", std::slice::from_ref(&call)),
        }
    }

    /// A call in this format that can be made as it is: of the tool `meant`, else of the first that has an example which its
    /// own arguments admit.
    pub fn right_call(self, meant: Option<&str>, specs: &[ToolSpec]) -> Option<String> {
        let first = specs.iter().filter(|s| meant == Some(s.name.as_str())).chain(specs);
        let spec = first.into_iter().find(|s| s.has_example())?;
        Some(self.example(&spec.name, spec.example.clone()))
    }
}

/// The known tool whose name stands in a text that cannot be read.
fn meant_in(text: &str, names: &[&str]) -> Option<String> {
    let at = |name: &str| {
        let quoted = |quote: char| text.find(&format!("{quote}{name}{quote}"));
        quoted('"').into_iter().chain(quoted('\'')).min()
    };
    let found = names.iter().filter_map(|name| Some((at(name)?, *name))).min();
    found.map(|(_, name)| name.to_owned())
}

/// The text behind the last `</think>`; calls that are only thought about are not made. A thought that was never
/// closed hides everything.
fn after_thinking(text: &str) -> &str {
    if let Some(at) = text.rfind("</think>") {
        return &text[at + "</think>".len()..];
    }
    match text.find("<think>") {
        Some(at) => &text[..at],
        None => text,
    }
}

/// Names under which models write the arguments object, the right one first.
const ARGUMENT_KEYS: [&str; 6] = ["arguments", "parameters", "args", "params", "input", "kwargs"];

/// Turns one JSON value into a call: `{"name", "arguments"}`, wrapped or not in `{"function": ..}`.
fn call_from_value(value: Value, names: &[&str], repairs: &mut Vec<Repair>) -> Result<ToolCall, Complaint> {
    let Value::Object(mut object) = value else {
        let problem = format!("a call is a JSON object, this is {}", kind_of(&value));
        return Err(Complaint::Shape { problem, tool: None });
    };
    let id = object.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(Value::Object(inner)) = object.get("function") {
        object = inner.clone();
        repairs.push(Repair::Shape);
    }
    let written = object.get("name").or_else(|| object.get("tool")).or_else(|| object.get("tool_name"));
    let meant = written.and_then(Value::as_str).and_then(|name| known(name.trim(), names)).map(str::to_owned);
    let shape = |problem: String| Complaint::Shape { problem, tool: meant.clone() };
    let name = match written {
        Some(Value::String(name)) => name.trim().to_owned(),
        Some(other) => return Err(shape(format!("`name` should be a string, it is {}", kind_of(other)))),
        None => match object.iter().next() {
            // {"crop": {"image": "img_0"}}
            Some((key, Value::Object(inner))) if object.len() == 1 && known(key, names).is_some() => {
                let call = json!({"name": key, "arguments": inner});
                repairs.push(Repair::Shape);
                return call_from_value(call, names, repairs);
            }
            _ => return Err(shape("`name` is missing".to_owned())),
        },
    };
    let written = ARGUMENT_KEYS.iter().find_map(|key| object.get(*key).map(|value| (*key, value)));
    let arguments = match written {
        Some((key, value)) => {
            if key != ARGUMENT_KEYS[0] {
                repairs.push(Repair::Shape);
            }
            arguments_from_value(value, repairs).map_err(|problem| shape(format!("`{key}` {problem}")))?
        }
        None => {
            // {"name": "crop", "image": "img_0"}
            repairs.push(Repair::Shape);
            let fixed = ["name", "tool", "tool_name", "id", "type"];
            object.into_iter().filter(|(key, _)| !fixed.contains(&key.as_str())).collect()
        }
    };
    known_call(ToolCall { id, name, arguments }, names, repairs)
}

/// Checks the name of a call that is otherwise well formed, and puts it right where it is only spelt differently.
pub(crate) fn known_call(
    call: ToolCall,
    names: &[&str],
    repairs: &mut Vec<Repair>,
) -> Result<ToolCall, Complaint> {
    match known(&call.name, names) {
        Some(exact) if exact == call.name => Ok(call),
        Some(exact) => {
            repairs.push(Repair::ToolName);
            Ok(ToolCall { name: exact.to_owned(), ..call })
        }
        None => Err(unknown_tool(call.name, names)),
    }
}

fn arguments_from_value(value: &Value, repairs: &mut Vec<Repair>) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map.clone()),
        Value::Null => Ok(Map::new()),
        Value::String(text) => {
            repairs.push(Repair::Shape);
            let (value, more) =
                read_json(text).map_err(|fault| format!("is a string that is not JSON: {fault}"))?;
            repairs.extend(more);
            match value {
                Value::Object(map) => Ok(map),
                other => Err(format!("should be a JSON object, it is {}", kind_of(&other))),
            }
        }
        other => Err(format!("should be a JSON object, it is {}", kind_of(other))),
    }
}

fn unknown_tool(name: String, names: &[&str]) -> Complaint {
    let nearest = names
        .iter()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), *known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned());
    let name = name.chars().take(60).collect();
    Complaint::UnknownTool { name, nearest, known: names.iter().map(|&n| n.to_owned()).collect() }
}

/// The tool that `written` means: itself, `functions.crop`, `Crop`, `ZoomInSubfigure`, or OpenThinkIMG's `Terminate`.
fn known<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let find = |wanted: &str| names.iter().copied().find(|name| *name == wanted);
    if let Some(name) = find(written) {
        return Some(name);
    }
    let bare = written.rsplit(['.', '/']).next().unwrap_or(written);
    let squeeze = |s: &str| -> String {
        s.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let wanted = squeeze(bare);
    if wanted == "terminate" {
        return find("answer");
    }
    names.iter().copied().find(|name| !wanted.is_empty() && squeeze(name) == wanted)
}

/// `a string`, `a list` ...: JSON kinds in words.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
