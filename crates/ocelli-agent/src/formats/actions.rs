//! OpenThinkIMG's form: one JSON object `{"thought": "..", "actions": [{"name": .., "arguments": {..}}]}` per turn.
//!
//! Deviation: OpenThinkIMG runs only the first action and drops a malformed one in silence; here each action counts and
//! each fault is answered. `Terminate` is read as `answer`, its `ans` as `answer`.

use ocelli_data::ToolCall;
use serde_json::{Value, json};

use super::lenient::read_prefix;
use super::{Complaint, Parsed, Repair, after_thinking, call_from_value, meant_in};

pub(super) fn parse(text: &str, names: &[&str]) -> Parsed {
    let spoken = after_thinking(text);
    let mut parsed = Parsed::default();
    let Some(start) = spoken.find('{') else {
        parsed.prose = spoken.trim().to_owned();
        return parsed;
    };
    let (value, used, repairs) = match read_prefix(&spoken[start..], spoken.len() - start) {
        Ok(read) => read,
        Err(_) if !spoken.contains("actions") => {
            // A brace in prose, such as a set or a LaTeX group: not an attempt to call.
            parsed.prose = spoken.trim().to_owned();
            return parsed;
        }
        Err(fault) => {
            parsed.calls.push(Err(Complaint::Json { fault, tool: meant_in(&spoken[start..], names) }));
            return parsed;
        }
    };
    let around = [spoken[..start].trim(), spoken[start + used..].trim()];
    let outside: String =
        around.iter().filter(|s| s.chars().any(|c| c != '`')).copied().collect::<Vec<_>>().join(" ");
    let Some(actions) = value.get("actions").or_else(|| value.get("action")).cloned() else {
        if value.get("name").is_some() {
            parsed.repairs.extend(repairs);
            parsed.repairs.push(Repair::Shape);
            let call = call_from_value(value, names, &mut parsed.repairs);
            parsed.calls.push(call.map(terminate));
            parsed.prose = outside;
        } else {
            parsed.prose = spoken.trim().to_owned();
        }
        return parsed;
    };
    parsed.repairs.extend(repairs);
    if !outside.is_empty() {
        parsed.repairs.push(Repair::Garbage);
    }
    let items = match actions {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        single => {
            parsed.repairs.push(Repair::Shape);
            vec![single]
        }
    };
    for item in items {
        let call = call_from_value(item, names, &mut parsed.repairs);
        parsed.calls.push(call.map(terminate));
    }
    let thought = value.get("thought").or_else(|| value.get("thoughts")).and_then(Value::as_str);
    parsed.prose = thought.map_or(outside, str::to_owned).trim().to_owned();
    parsed
}

/// OpenThinkIMG ends with `Terminate {"ans": ..}`.
fn terminate(mut call: ToolCall) -> ToolCall {
    if call.name == "answer"
        && !call.arguments.contains_key("answer")
        && let Some(ans) = call.arguments.remove("ans")
    {
        call.arguments.insert("answer".to_owned(), ans);
    }
    call
}

pub(super) fn render(thought: &str, calls: &[ToolCall]) -> String {
    let actions: Vec<Value> =
        calls.iter().map(|c| json!({"name": c.name, "arguments": c.arguments})).collect();
    json!({"thought": thought, "actions": actions}).to_string()
}
