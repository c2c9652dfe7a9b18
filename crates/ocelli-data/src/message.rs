//! What is said in a dialogue: by the system, a person, the policy, or a tool.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ContentHash;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that frame the dialogue.
    System,
    /// The person who asks.
    User,
    /// The policy: the only role whose tokens are ever trained.
    Assistant,
    /// The answer of a tool to a call.
    Tool,
}

/// One piece of a message. Images stand where they stand in the dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text itself.
        text: String,
    },
    /// A picture, by the hash of its encoded bytes.
    Image {
        /// Hash of the encoded file.
        hash: ContentHash,
    },
}

impl Part {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// An image part.
    pub fn image(hash: ContentHash) -> Self {
        Self::Image { hash }
    }
}

/// A call that the policy made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Identifier given by an endpoint, empty for text formats that have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the tool, e.g. `crop`.
    pub name: String,
    /// Arguments by name, in the order in which they were written.
    pub arguments: Map<String, Value>,
}

/// What a tool said to the policy: text, images, or an error that the policy can read and act on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// Identifier of the call that this answers; empty where the format has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// Text and images, in order.
    pub content: Vec<Part>,
    /// True when the call failed in a way that the policy may correct.
    #[serde(default)]
    pub is_error: bool,
}

/// One message: a role, its parts in order, and the calls it makes.
///
/// ```json
/// {"role": "user", "content": [{"type": "image", "hash": "af13.."}, {"type": "text", "text": "How many bars?"}]}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Text and images, in order.
    pub content: Vec<Part>,
    /// Calls made by an assistant message, in order; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For a tool message: the name of the tool that answers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Message {
    fn new(role: Role, content: impl IntoIterator<Item = Part>) -> Self {
        Self { role, content: content.into_iter().collect(), tool_calls: Vec::new(), name: String::new() }
    }

    /// A system message of plain text.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, [Part::text(text)])
    }

    /// A user message.
    pub fn user(content: impl IntoIterator<Item = Part>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message of plain text.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, [Part::text(text)])
    }

    /// The message that carries a tool's result back to the policy.
    pub fn tool(result: ToolResult) -> Self {
        Self { role: Role::Tool, content: result.content, tool_calls: Vec::new(), name: result.name }
    }

    /// All text parts joined without separator; images are left out.
    pub fn plain_text(&self) -> String {
        self.content
            .iter()
            .filter_map(|p| match p {
                Part::Text { text } => Some(text.as_str()),
                Part::Image { .. } => None,
            })
            .collect()
    }

    /// Hashes of the images, in the order in which they stand.
    pub fn images(&self) -> impl Iterator<Item = ContentHash> + '_ {
        self.content.iter().filter_map(|p| match p {
            Part::Image { hash } => Some(*hash),
            Part::Text { .. } => None,
        })
    }
}
