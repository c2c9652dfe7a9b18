//! From a tool as its server lists it to a declaration as the policy sees it.

use base64_simd::STANDARD;
use rmcp::model::Tool;
use serde_json::{Map, Value, json};

use crate::remote::{PictureAs, RemoteConfig};
use crate::{Picture, ToolSpec};

/// Marks in a tool's `_meta`: a right call, and a tool that is for programs and not for a policy.
pub(crate) const EXAMPLE: &str = "ocelli/example";
pub(crate) const PLUMBING: &str = "ocelli/plumbing";

/// Arguments that are taken for the picture, in this order.
const PICTURE_NAMES: [&str; 8] =
    ["image", "img", "picture", "image_base64", "image_b64", "image_data", "image_url", "photo"];
/// Longest description and schema, in bytes: both go into prompts.
const DESCRIPTION_BYTES: usize = 8 << 10;
const SCHEMA_BYTES: usize = 64 << 10;

/// A remote tool.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// Its name at the server.
    pub(super) name: String,
    /// What the policy sees.
    pub(super) spec: ToolSpec,
    /// The server's argument for the picture.
    pub(super) picture: Option<(String, PictureAs)>,
}

pub(super) fn is_plumbing(tool: &Tool) -> bool {
    tool.meta.as_ref().is_some_and(|m| m.get(PLUMBING).is_some_and(|v| *v == true))
}

/// Declares a tool, or says why that cannot be.
pub(super) fn declare(tool: &Tool, config: &RemoteConfig) -> Result<Remote, String> {
    let name = format!("{}{}", config.prefix, tool.name);
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_letter) {
        let shown: String = name.chars().take(64).collect();
        return Err(format!(
            "it offers a tool called `{shown}`, which is no name; take others by their names"
        ));
    }
    let mut description = tool.description.as_deref().unwrap_or_default().trim().to_owned();
    if description.len() > DESCRIPTION_BYTES {
        return Err(format!("the description of `{name}` has more than {DESCRIPTION_BYTES} bytes"));
    }
    if description.is_empty() {
        description = format!("Remote tool {}.", tool.name);
    }
    let mut parameters = Value::Object((*tool.input_schema).clone());
    let size = parameters.to_string().len();
    if size > SCHEMA_BYTES {
        return Err(format!("the schema of `{name}` has {size} bytes, more than {SCHEMA_BYTES}"));
    }
    if parameters.get("type").is_some_and(|t| t != "object") {
        return Err(format!("the arguments of `{name}` are no object"));
    }
    parameters["type"] = json!("object");
    let picture = match &config.picture {
        Some(given) => Some(given.clone()),
        None => find_picture(&parameters),
    };
    if let Some((from, _)) = &picture {
        rename_picture(&mut parameters, from);
    }
    let given = tool.meta.as_ref().and_then(|m| m.get(EXAMPLE)).and_then(Value::as_object).cloned();
    let example = given.unwrap_or_else(|| example(&parameters));
    Ok(Remote {
        name: tool.name.to_string(),
        spec: ToolSpec { name, description, parameters, example },
        picture,
    })
}

/// The argument that takes a picture: a text argument with one of the usual names.
fn find_picture(parameters: &Value) -> Option<(String, PictureAs)> {
    let properties = parameters.get("properties")?.as_object()?;
    let name = PICTURE_NAMES.into_iter().find(|n| properties.get(*n).is_some_and(takes_text))?;
    let about = properties[name].get("description").and_then(Value::as_str).unwrap_or_default();
    let about = about.to_lowercase();
    let as_url = name.ends_with("url") || about.contains("data url") || about.contains("data:");
    Some((name.to_owned(), if as_url { PictureAs::DataUrl } else { PictureAs::Base64 }))
}

fn takes_text(schema: &Value) -> bool {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    schema.get("type").is_some_and(|t| t == "string")
        || choices.is_some_and(|c| c.iter().any(|s| s.get("type").is_some_and(|t| t == "string")))
}

/// The policy writes `image`, and `img_k` into it.
fn rename_picture(parameters: &mut Value, from: &str) {
    let declared = json!({"type": "string", "description": "Picture to work on, such as img_0."});
    if let Some(properties) = parameters.get_mut("properties").and_then(Value::as_object_mut) {
        let renamed = std::mem::take(properties).into_iter().map(|(name, schema)| match name == from {
            true => ("image".to_owned(), declared.clone()),
            false => (name, schema),
        });
        *properties = renamed.collect();
    }
    for name in parameters.get_mut("required").and_then(Value::as_array_mut).into_iter().flatten() {
        if name == from {
            *name = json!("image");
        }
    }
}

/// A call with all required arguments, each with a value of its type.
fn example(parameters: &Value) -> Map<String, Value> {
    let required = parameters.get("required").and_then(Value::as_array);
    let names = required.into_iter().flatten().filter_map(Value::as_str);
    let value = |name: &str| {
        let schema = parameters.get("properties").and_then(|p| p.get(name)).unwrap_or(&Value::Null);
        let first = |key: &str| schema.get(key).and_then(Value::as_array).and_then(|v| v.first()).cloned();
        let given = first("examples").or_else(|| schema.get("default").cloned()).or_else(|| first("enum"));
        given.unwrap_or_else(|| match schema.get("type").and_then(Value::as_str) {
            Some("string") if name == "image" => json!("img_0"),
            Some("integer") => json!(1),
            Some("number") => json!(1.0),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            _ => json!("..."),
        })
    };
    names.map(|name| (name.to_owned(), value(name))).collect()
}

/// A picture as the server wants it.
pub(super) fn written(picture: &Picture, picture_as: PictureAs) -> String {
    let bytes = STANDARD.encode_to_string(picture.bytes());
    match picture_as {
        PictureAs::Base64 => bytes,
        PictureAs::DataUrl => format!("data:{};base64,{bytes}", picture.mime()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::remote::McpEndpoint;

    fn declared(schema: Value) -> Result<Remote, String> {
        let endpoint = McpEndpoint::Http { url: "http://x".into(), token: None };
        let config = RemoteConfig { prefix: "far_".into(), ..RemoteConfig::new(endpoint) };
        let schema = Arc::new(schema.as_object().unwrap().clone());
        declare(&Tool::new("find", "Finds.", schema), &config)
    }

    #[test]
    fn the_picture_is_found_renamed_and_written_as_asked_for() {
        let remote = declared(json!({
            "properties": {"prompt": {"type": "string"}, "image_base64": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["image_base64", "prompt", "n"],
        }))
        .unwrap();
        assert_eq!(remote.spec.name, "far_find");
        assert_eq!(remote.picture, Some(("image_base64".into(), PictureAs::Base64)));
        let names: Vec<&String> = remote.spec.parameters["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["prompt", "image", "n"]);
        assert_eq!(remote.spec.parameters["required"], json!(["image", "prompt", "n"]));
        assert_eq!(Value::Object(remote.spec.example), json!({"image": "img_0", "prompt": "...", "n": 1}));
        let url = json!({"properties": {"image": {"type": "string", "description": "A data URL."}}});
        assert_eq!(declared(url).unwrap().picture, Some(("image".into(), PictureAs::DataUrl)));
        let number = json!({"properties": {"image": {"type": "integer"}}});
        assert_eq!(declared(number).unwrap().picture, None);
    }

    #[test]
    fn what_cannot_be_declared_is_said() {
        assert!(declared(json!({"type": "array"})).unwrap_err().contains("no object"));
        let long = json!({"properties": {"x": {"description": "a".repeat(SCHEMA_BYTES)}}});
        assert!(declared(long).unwrap_err().contains("more than"));
        let endpoint = McpEndpoint::Http { url: "http://x".into(), token: None };
        let tool = Tool::new("rm -rf", "Bad.", Arc::new(Map::new()));
        assert!(declare(&tool, &RemoteConfig::new(endpoint)).unwrap_err().contains("no name"));
    }
}
