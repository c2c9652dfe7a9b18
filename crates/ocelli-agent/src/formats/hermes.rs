//! `<tool_call>` tags around JSON objects, as Hermes 2 Pro introduced them and Qwen 2.5 and 3 write them.
//!
//! Accepted besides the exact form: tags in other case or with blanks, `<toolcall>` and `<function_call>`, a missing
//! end tag, code fences, several objects or a list between one pair of tags, and, where no tag is found at all, a bare
//! object or fenced block that names a known tool.

use ocelli_data::ToolCall;
use serde_json::{Value, json};

use super::lenient::{read_prefix, skip_fence};
use super::{
    Complaint, MAX_CALLS_PER_TURN, Parsed, Repair, after_thinking, call_from_value, known, meant_in,
};

const TAGS: [&str; 3] = ["tool_call", "toolcall", "function_call"];

pub(super) fn parse(text: &str, names: &[&str]) -> Parsed {
    let spoken = after_thinking(text);
    let mut parsed = Parsed::default();
    let mut prose = String::new();
    let mut rest = spoken;
    let mut tagged = false;
    while let Some((start, end, exact)) = find_tag(rest, false) {
        tagged = true;
        if parsed.calls.len() > MAX_CALLS_PER_TURN {
            break; // enough for the complaint that there are too many
        }
        if !exact {
            parsed.repairs.push(Repair::Tags);
        }
        prose.push_str(&rest[..start]);
        rest = read_body(&rest[end..], names, &mut parsed);
    }
    prose.push_str(rest);
    if !tagged {
        prose = bare_call(spoken, names, &mut parsed).unwrap_or(prose);
    }
    parsed.prose = prose.trim().to_owned();
    parsed
}

/// Reads what stands between the tags and returns the text behind the end tag.
fn read_body<'a>(body: &'a str, names: &[&str], parsed: &mut Parsed) -> &'a str {
    // The end tag is looked for behind each JSON value, so that a string may contain it.
    let mut rest = body;
    let mut values = 0;
    loop {
        if parsed.calls.len() > MAX_CALLS_PER_TURN {
            return "";
        }
        let (inner, fenced) = skip_fence(rest);
        if fenced {
            parsed.repairs.push(Repair::Fence);
        }
        if let Some((0, end, exact)) = find_tag(inner, true) {
            if !exact {
                parsed.repairs.push(Repair::Tags);
            }
            if values == 0 {
                parsed.calls.push(Err(shape("there is nothing between the tags")));
            }
            return &inner[end..];
        }
        if inner.is_empty() || matches!(find_tag(inner, false), Some((0, ..))) {
            parsed.repairs.push(Repair::Tags); // the end tag is missing
            if values == 0 {
                parsed.calls.push(Err(shape("the message ends behind the opening tag")));
            }
            return inner;
        }
        if values > 0 && !inner.starts_with(['{', '[', ',']) {
            // Something else behind a good call: text after a forgotten end tag, or a stray brace before it.
            return match find_tag(inner, true) {
                Some((start, end, _)) if !inner[..start].contains('<') => {
                    parsed.repairs.push(Repair::Garbage);
                    &inner[end..]
                }
                _ => {
                    parsed.repairs.push(Repair::Tags);
                    inner
                }
            };
        }
        let inner = if values > 0 { inner.trim_start_matches([',', ' ', '\n']) } else { inner };
        let limit = find_tag(inner, true).map_or(inner.len(), |(start, ..)| start);
        match read_prefix(inner, limit) {
            Ok((value, used, repairs)) => {
                values += 1;
                parsed.repairs.extend(repairs);
                push_calls(value, names, parsed);
                rest = &inner[used..];
            }
            Err(fault) => {
                let tool = meant_in(&inner[..limit], names);
                parsed.calls.push(Err(Complaint::Json { fault, tool }));
                return match find_tag(inner, true) {
                    Some((_, end, _)) => &inner[end..],
                    None => "",
                };
            }
        }
    }
}

fn push_calls(value: Value, names: &[&str], parsed: &mut Parsed) {
    match value {
        Value::Array(items) => {
            parsed.repairs.push(Repair::Shape);
            for item in items {
                let call = call_from_value(item, names, &mut parsed.repairs);
                parsed.calls.push(call);
            }
        }
        value => {
            let call = call_from_value(value, names, &mut parsed.repairs);
            parsed.calls.push(call);
        }
    }
}

/// A call without tags: the first `{` that opens an object with the name of a known tool. Returns the text around it.
fn bare_call(text: &str, names: &[&str], parsed: &mut Parsed) -> Option<String> {
    let start = text.find('{')?;
    let (value, used, repairs) = read_prefix(&text[start..], text.len() - start).ok()?;
    let named = value
        .get("name")
        .or_else(|| value.get("tool"))
        .and_then(Value::as_str)
        .is_some_and(|n| known(n, names).is_some());
    if !named {
        return None;
    }
    parsed.repairs.push(Repair::Tags);
    parsed.repairs.extend(repairs);
    push_calls(value, names, parsed);
    let before = text[..start].trim_end().trim_end_matches("json").trim_end_matches('`');
    let after = text[start + used..].trim_start().trim_start_matches('`');
    Some(format!("{before}{after}"))
}

/// First opening (or closing) tag in `text`: where it starts, where it ends, and whether it is written exactly.
fn find_tag(text: &str, closing: bool) -> Option<(usize, usize, bool)> {
    let mut from = 0;
    while let Some(offset) = text[from..].find('<') {
        let start = from + offset;
        from = start + 1;
        let Some(length) = text[from..].bytes().take(24).position(|b| b == b'>') else { continue };
        let inner = &text.as_bytes()[from..from + length];
        let Ok(inner) = std::str::from_utf8(inner) else { continue };
        let (name, closes) = match inner.trim().strip_prefix('/') {
            Some(name) => (name.trim(), true),
            None => (inner.trim(), false),
        };
        if closes == closing && TAGS.iter().any(|tag| name.eq_ignore_ascii_case(tag)) {
            let exact = inner == if closing { "/tool_call" } else { "tool_call" };
            return Some((start, from + length + 1, exact));
        }
    }
    None
}

fn shape(problem: &str) -> Complaint {
    Complaint::Shape { problem: problem.to_owned(), tool: None }
}

pub(super) fn render(thought: &str, calls: &[ToolCall]) -> String {
    let mut out = thought.to_owned();
    for call in calls {
        if !out.is_empty() {
            out.push('\n');
        }
        let body = json!({"name": call.name, "arguments": call.arguments});
        out.push_str(&format!("<tool_call>\n{body}\n</tool_call>"));
    }
    out
}
