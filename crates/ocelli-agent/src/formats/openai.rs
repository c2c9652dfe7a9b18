//! Function calls as OpenAI-compatible endpoints give and take them: `arguments` is a string that holds JSON.

use ocelli_data::ToolCall;
use serde_json::{Map, Value, json};

use super::{Complaint, MAX_CALLS_PER_TURN, MAX_TEXT, Parsed, Repair, arguments_from_value, call_from_value};

/// Reads the `tool_calls` list of a response message. `names` are the tools that may be called.
pub fn calls_from_openai(tool_calls: &Value, names: &[&str]) -> Parsed {
    let mut parsed = Parsed::default();
    let empty = Vec::new();
    let items = match tool_calls {
        Value::Array(items) => items,
        Value::Null => &empty,
        other => {
            let problem = format!("`tool_calls` should be a list, it is {}", super::kind_of(other));
            parsed.calls.push(Err(Complaint::Shape { problem, tool: None }));
            return parsed;
        }
    };
    for item in items.iter().take(MAX_CALLS_PER_TURN) {
        // In this format the wrapping in `function` and the arguments as a string are the rule, not a repair.
        let mut liberties = Vec::new();
        let call = call_from_value(item.clone(), names, &mut liberties);
        parsed.repairs.extend(liberties.into_iter().filter(|r| *r != Repair::Shape));
        parsed.calls.push(call);
    }
    if items.len() > MAX_CALLS_PER_TURN {
        parsed.calls.push(Err(Complaint::TooMany { found: items.len() }));
    }
    parsed
}

/// Reads the `arguments` string of one function call of `tool`.
pub fn read_arguments(tool: &str, text: &str) -> Result<(Map<String, Value>, Vec<Repair>), Complaint> {
    if text.len() > MAX_TEXT {
        return Err(Complaint::TooLong { bytes: text.len() });
    }
    if text.trim().is_empty() {
        return Ok((Map::new(), Vec::new()));
    }
    let tool = || Some(tool.to_owned());
    let (value, repairs) = super::read_json(text).map_err(|fault| Complaint::Json { fault, tool: tool() })?;
    let map = arguments_from_value(&value, &mut Vec::new())
        .map_err(|problem| Complaint::Shape { problem: format!("`arguments` {problem}"), tool: tool() })?;
    Ok((map, repairs))
}

/// Writes calls as the `tool_calls` of an assistant message in a request.
pub fn calls_to_openai(calls: &[ToolCall]) -> Value {
    let items: Vec<Value> = calls
        .iter()
        .enumerate()
        .map(|(i, call)| {
            let id = if call.id.is_empty() { format!("call_{i}") } else { call.id.clone() };
            let arguments = Value::Object(call.arguments.clone()).to_string();
            json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        })
        .collect();
    Value::Array(items)
}
