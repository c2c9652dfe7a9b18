//! The reference of configuration files, from the structs that read them: keys, types, defaults and what they mean, as Markdown for
//! people and as JSON Schema for editors.

use std::collections::HashSet;
use std::fmt::Write as _;

use ocelli_train::grpo::GrpoConfig;
use ocelli_train::mpo::MpoConfig;
use ocelli_train::reward_model::RewardConfig;
use ocelli_train::sft::SftConfig;
use schemars::{Schema, schema_for};
use serde_json::{Map, Value};

use super::rollout::RolloutConfig;
use super::train::File;
use crate::pipeline::Pipeline;

/// The files: the command that reads them, their name in a directory of schemas, and their form.
pub(super) fn files() -> Vec<(&'static str, &'static str, Schema)> {
    vec![
        ("ocelli run", "run", schema_for!(Pipeline)),
        ("ocelli rollout", "rollout", schema_for!(RolloutConfig)),
        ("ocelli train sft", "train-sft", schema_for!(File<SftConfig>)),
        ("ocelli train reward", "train-reward", schema_for!(File<RewardConfig>)),
        ("ocelli train mpo", "train-mpo", schema_for!(File<MpoConfig>)),
        ("ocelli train grpo", "train-grpo", schema_for!(File<GrpoConfig>)),
    ]
}

/// The reference in Markdown. Every table stands once, where it is first needed.
pub(super) fn markdown() -> String {
    let mut out = String::from(
        "# Configuration files\n\nGenerated: `ocelli completions config > docs/config.md`. A test compares. \
         `ocelli completions schema --out DIR` writes the same as JSON Schema, for editors.\n\n\
         Unknown keys are refused with the nearest known one. Any key can be set from the command line: \
         `--set train.run.steps=100`. A key without a default has to be given.\n",
    );
    let mut seen = HashSet::new();
    for (command, _, schema) in files() {
        let root = schema.as_value();
        let _ = write!(out, "\n## `{command} FILE`\n");
        let mut wanted = Vec::new();
        describe(root, &mut out, &mut wanted);
        let mut next = 0;
        while let Some(name) = wanted.get(next).cloned() {
            next += 1;
            let Some(def) = root.get("$defs").and_then(|d| d.get(&name)) else { continue };
            if seen.insert(format!("{name} {def}")) {
                let _ = write!(out, "\n### {name}\n");
                describe(def, &mut out, &mut wanted);
            }
        }
    }
    out
}

/// Text of a schema's `description` in one line, fit for a cell.
fn meaning(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    // Links of the code's own documentation mean nothing here.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

/// What stands under a heading: text, then keys, values or variants.
fn describe(schema: &Value, out: &mut String, wanted: &mut Vec<String>) {
    let text = meaning(schema);
    if !text.is_empty() {
        let _ = write!(out, "\n{text}\n");
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        keys(schema, properties, out, wanted);
    }
    let variants: Vec<&Value> =
        ["oneOf", "anyOf"].iter().filter_map(|k| schema.get(k)?.as_array()).flatten().collect();
    let (plain, tables): (Vec<&Value>, Vec<&Value>) =
        variants.into_iter().partition(|v| v.get("properties").is_none());
    if !plain.is_empty() || schema.get("enum").is_some() {
        out.push('\n');
    }
    for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
        let _ = writeln!(out, "- `{value}`");
    }
    for value in plain {
        let kind = kind(value, wanted);
        let text = meaning(value);
        let _ = writeln!(out, "- {kind}{}{text}", if text.is_empty() { "" } else { ": " });
    }
    for table in tables {
        let Some(properties) = table.get("properties").and_then(Value::as_object) else { continue };
        let tag = properties.iter().find_map(|(k, v)| Some((k, v.get("const")?)));
        let text = meaning(table);
        let text = if text.is_empty() { text } else { format!(": {text}") };
        match tag {
            Some((key, value)) => {
                let _ = write!(out, "\n`{key} = {value}`{text}\n");
                // A variant that is a struct of its own brings its keys by reference.
                if table.get("$ref").is_some() {
                    let _ = write!(out, "\nKeys of {}.\n", kind(table, wanted));
                }
            }
            None => {
                let names: Vec<String> = properties.keys().map(|k| format!("`{k} = ...`")).collect();
                let _ = write!(out, "\n{}{text}\n", names.join(", "));
            }
        }
        // A variant that is named by its key holds its settings in a table under it.
        let inner = properties.values().filter_map(|v| Some((v, v.get("properties")?.as_object()?))).next();
        match inner.filter(|_| tag.is_none() && properties.len() == 1) {
            Some((inner, inner_keys)) => keys(inner, inner_keys, out, wanted),
            None if properties.values().any(|v| v.get("const").is_none()) => {
                keys(table, properties, out, wanted)
            }
            None => {}
        }
    }
}

/// The table of an object's keys.
fn keys(schema: &Value, properties: &Map<String, Value>, out: &mut String, wanted: &mut Vec<String>) {
    let required: HashSet<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    out.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for (key, property) in properties.iter().filter(|(_, v)| v.get("const").is_none()) {
        let default = match property.get("default") {
            _ if required.contains(key.as_str()) => String::new(),
            None | Some(Value::Null) => "none".to_owned(),
            // Tables have a section of their own, which tells their defaults.
            Some(Value::Object(_)) => "see there".to_owned(),
            Some(value) => format!("`{value}`").replace('|', "\\|"),
        };
        let _ = writeln!(out, "| `{key}` | {} | {default} | {} |", kind(property, wanted), meaning(property));
    }
}

/// The type of a value in words; types with a section of their own are linked and put on the list of what is wanted.
fn kind(schema: &Value, wanted: &mut Vec<String>) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) {
        if !wanted.iter().any(|w| w == name) {
            wanted.push(name.to_owned());
        }
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    let several = ["anyOf", "oneOf", "allOf"].iter().find_map(|k| schema.get(k)?.as_array());
    if let Some(several) = several {
        let kinds: Vec<String> =
            several.iter().filter(|s| s["type"] != "null").map(|s| kind(s, wanted)).collect();
        return kinds.join(" or ");
    }
    let items = schema.get("items").or_else(|| schema.get("additionalProperties"));
    let named = |name: &str, wanted: &mut Vec<String>| match (name, items) {
        ("array", Some(items)) => format!("list of {}", kind(items, wanted)),
        ("array", None) => "list".to_owned(),
        ("object", Some(items)) if items.is_object() => format!("table of {}", kind(items, wanted)),
        ("object", _) => "table".to_owned(),
        ("boolean", _) => "true or false".to_owned(),
        ("string", _) => "text".to_owned(),
        (other, _) => other.to_owned(),
    };
    match schema.get("type") {
        Some(Value::String(name)) => named(name, wanted),
        Some(Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).filter(|n| *n != "null").collect();
            names.iter().map(|n| named(n, wanted)).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_in_docs_is_what_the_program_reads() {
        let (written, said) = (include_str!("../../../../docs/config.md"), super::markdown());
        let differs = said.lines().zip(written.lines()).find(|(a, b)| a != b);
        assert!(
            said == written,
            "docs/config.md is out of date: `ocelli completions config > docs/config.md`; {differs:?}"
        );
    }

    /// Every key that the published files set is in the reference.
    #[test]
    fn every_key_of_the_published_files_is_described() {
        let said = super::markdown();
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut count = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let mut tables = vec![toml::from_str::<toml::Table>(&text).unwrap()];
            while let Some(table) = tables.pop() {
                for (key, value) in table {
                    let own_name = matches!(&value, toml::Value::Table(t) if t.contains_key("kind"));
                    assert!(
                        own_name
                            || said.contains(&format!("`{key}`"))
                            || said.contains(&format!("`{key} = ")),
                        "{key}"
                    );
                    count += 1;
                    match value {
                        toml::Value::Table(t) => tables.push(t),
                        toml::Value::Array(a) => {
                            tables.extend(a.into_iter().filter_map(|v| v.as_table().cloned()))
                        }
                        _ => {}
                    }
                }
            }
        }
        assert!(count > 300, "{count}");
    }
}
