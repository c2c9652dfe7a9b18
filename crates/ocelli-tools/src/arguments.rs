//! From JSON to an argument struct, with complaints that name the argument and show a right call.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::for_model;
use crate::{ToolError, ToolSpec, describe};

/// Parses the arguments of a call, or says precisely what is wrong with them.
pub(crate) fn parse<T: DeserializeOwned>(
    spec: &ToolSpec,
    arguments: Map<String, Value>,
) -> Result<T, ToolError> {
    check(spec, &arguments)?;
    serde_json::from_value(Value::Object(arguments)).map_err(|e| complain(spec, &e.to_string()))
}

fn complain(spec: &ToolSpec, what: &str) -> ToolError {
    for_model(format!("{what}. A right call: {}", spec.example_call()))
}

/// Checks names and outer types against the schema. Inner types are left to the parser.
pub(crate) fn check(spec: &ToolSpec, arguments: &Map<String, Value>) -> Result<(), ToolError> {
    let known = describe::argument_names(spec);
    // JSON Schema lets unnamed properties pass unless told otherwise; a model that invents one is told so, unless the
    // schema (of a remote tool) asks for them.
    let open = spec.parameters.get("additionalProperties").is_some_and(|v| v.is_object() || *v == true);
    for (name, value) in arguments {
        let Some(schema) = describe::argument(spec, name) else {
            if open {
                continue;
            }
            let shown: String = name.chars().take(40).collect();
            let takes = match known.is_empty() {
                true => "none".to_owned(),
                false => known.join(", "),
            };
            return Err(complain(
                spec,
                &format!("`{shown}` is not an argument of `{}`, which takes {takes}", spec.name),
            ));
        };
        if !fits(schema, value) {
            let shown: String = value.to_string().chars().take(80).collect();
            let wanted = beyond(schema, value).unwrap_or_else(|| describe::kind(schema));
            return Err(complain(spec, &format!("argument `{name}` must be {wanted}, not {shown}")));
        }
    }
    for name in describe::required_names(spec) {
        if !arguments.contains_key(name) {
            let kind = describe::argument(spec, name).map(describe::kind).unwrap_or_default();
            return Err(complain(spec, &format!("argument `{name}` ({kind}) is missing")));
        }
    }
    Ok(())
}

/// The bound that a number breaks, where nothing else is wrong with it.
fn beyond(schema: &Value, value: &Value) -> Option<String> {
    let number = value.as_f64()?;
    let mut unbounded = schema.clone();
    let bounds = unbounded.as_object_mut()?;
    let (least, most) = (bounds.shift_remove("minimum"), bounds.shift_remove("maximum"));
    if !fits(&unbounded, value) {
        return None;
    }
    match (least, most) {
        (Some(least), _) if least.as_f64().is_some_and(|least| number < least) => {
            Some(format!("at least {least}"))
        }
        (_, Some(most)) if most.as_f64().is_some_and(|most| number > most) => Some(format!("at most {most}")),
        _ => None,
    }
}

/// Does `value` fit `schema`, as far as type, enumeration, length and bounds go?
fn fits(schema: &Value, value: &Value) -> bool {
    if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        return choices.iter().any(|s| fits(s, value));
    }
    if let Some(one) = schema.get("const") {
        return one == value;
    }
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return list.contains(value);
    }
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    let typed = match schema.get("type") {
        Some(Value::String(kind)) => is(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(is),
        _ => true,
    };
    if !typed {
        return false;
    }
    if let Some(items) = value.as_array() {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let n = items.len() as u64;
        if bound("minItems").is_some_and(|least| n < least) || bound("maxItems").is_some_and(|most| n > most)
        {
            return false;
        }
        if let Some(each) = schema.get("items").filter(|s| s.is_object()) {
            return items.iter().all(|v| fits(each, v));
        }
    }
    if let Some(number) = value.as_f64() {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        if bound("minimum").is_some_and(|least| number < least)
            || bound("maximum").is_some_and(|m| number > m)
        {
            return false;
        }
    }
    true
}
