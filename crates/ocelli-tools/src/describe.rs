//! One declaration, many descriptions: JSON schema, prompt text, OpenAI `tools` entry, page of documentation.

use serde_json::{Map, Value, json};

use crate::{Tool, ToolSpec};

/// Specification of a tool, from its type.
pub(crate) fn spec<T: Tool>() -> ToolSpec {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut parameters: Value = settings.into_generator().into_root_schema_for::<T>().into();
    let description = parameters.get("description").and_then(Value::as_str).map(one_line).unwrap_or_default();
    tidy(&mut parameters, true);
    let example = serde_json::from_str(T::EXAMPLE).unwrap_or_default();
    ToolSpec { name: T::NAME.to_owned(), description, parameters, example }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Removes what a model does not need: titles, number formats, the schema's own description; joins wrapped lines.
fn tidy(schema: &mut Value, root: bool) {
    if let Value::Object(map) = schema {
        map.shift_remove("format");
        if root || map.get("title").is_some_and(Value::is_string) {
            map.shift_remove("title");
        }
        if root {
            map.shift_remove("description");
        }
        if let Some(Value::String(text)) = map.get_mut("description") {
            *text = one_line(text);
        }
        map.values_mut().for_each(|v| tidy(v, false));
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(|v| tidy(v, false));
    }
}

impl ToolSpec {
    /// Entry of the `tools` list of OpenAI's chat completions, and of chat templates.
    pub fn openai(&self) -> Value {
        json!({
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        })
    }

    fn properties(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.parameters.get("properties").and_then(Value::as_object).into_iter().flatten()
    }

    fn is_required(&self, name: &str) -> bool {
        let required = self.parameters.get("required").and_then(Value::as_array);
        required.is_some_and(|r| r.iter().any(|v| v == name))
    }

    /// Paragraph for a system prompt: what it does, its arguments, a right call.
    pub fn prompt(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.description);
        for (name, schema) in self.properties() {
            let kind = kind(schema);
            let optional = if self.is_required(name) { "" } else { ", optional" };
            let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            text.push_str(&format!("  {name} ({kind}{optional}): {about}\n"));
        }
        text.push_str(&format!("  Example: {}\n", self.example_call()));
        text
    }

    /// A right call, as `{"name": .., "arguments": {..}}`.
    pub fn example_call(&self) -> String {
        json!({"name": self.name, "arguments": self.example}).to_string()
    }

    /// True where the example is a right call; tools of other servers may come without one.
    pub fn has_example(&self) -> bool {
        crate::arguments::check(self, &self.example).is_ok()
    }

    /// Section of the documentation, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("## `{}`\n\n{}\n\n", self.name, self.description);
        if self.properties().next().is_some() {
            text.push_str("| argument | type | needed | meaning |\n|---|---|---|---|\n");
        }
        for (name, schema) in self.properties() {
            let needed = if self.is_required(name) { "yes" } else { "no" };
            let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            text.push_str(&format!(
                "| `{name}` | {} | {needed} | {} |\n",
                kind(schema).replace('|', "\\|"),
                about.replace('|', "\\|")
            ));
        }
        text.push_str(&format!("\n```json\n{}\n```\n", self.example_call()));
        text
    }
}

/// Type of an argument in a few words: `number`, `array of 4 numbers`, `one of "a", "b"`.
pub(crate) fn kind(schema: &Value) -> String {
    if let Some(words) = words(schema) {
        return format!("one of {}", words.join(", "));
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => vec![],
    };
    let name = kinds.join(" or ");
    if name == "array" {
        let items = schema.get("items").or_else(|| schema.pointer("/prefixItems/0"));
        let each = items.map(kind).unwrap_or_else(|| "value".into());
        let length = schema.get("minItems").filter(|n| schema.get("maxItems") == Some(n));
        return match length {
            Some(n) => format!("array of {n} {each}s"),
            None => format!("array of {each}s"),
        };
    }
    if !name.is_empty() {
        return name;
    }
    let choices = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    let parts: Vec<String> = choices
        .into_iter()
        .flatten()
        .filter(|s| s.get("type").is_none_or(|t| t != "null"))
        .map(kind)
        .collect();
    if parts.is_empty() { "value".to_owned() } else { parts.join(" or ") }
}

/// The words that an enumeration allows, quoted.
fn words(schema: &Value) -> Option<Vec<String>> {
    let quoted = |v: &Value| (!v.is_null()).then(|| v.to_string());
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return Some(list.iter().filter_map(quoted).collect());
    }
    if let Some(one) = schema.get("const") {
        return Some(vec![one.to_string()]);
    }
    let choices = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
    let mut all = Vec::new();
    for choice in choices {
        if choice.get("type").is_some_and(|t| t == "null") {
            continue;
        }
        all.extend(words(choice)?);
    }
    (!all.is_empty()).then_some(all)
}

/// Text of a whole tool list for a system prompt.
pub(crate) fn prompt(specs: &[ToolSpec]) -> String {
    specs.iter().map(ToolSpec::prompt).collect::<Vec<_>>().join("\n")
}

/// Names of the arguments, for complaints.
pub(crate) fn argument_names(spec: &ToolSpec) -> Vec<&str> {
    spec.properties().map(|(name, _)| name.as_str()).collect()
}

/// Names of the arguments that must be there.
pub(crate) fn required_names(spec: &ToolSpec) -> Vec<&str> {
    spec.properties().map(|(name, _)| name.as_str()).filter(|n| spec.is_required(n)).collect()
}

/// Schema of one argument.
pub(crate) fn argument<'a>(spec: &'a ToolSpec, name: &str) -> Option<&'a Value> {
    spec.parameters.get("properties").and_then(Value::as_object).and_then(|p: &Map<_, _>| p.get(name))
}
