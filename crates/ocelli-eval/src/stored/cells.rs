//! Cells of rows that other programs wrote: nested columns, and responses in whatever an API or a harness wrapped them.

use serde_json::{Map, Value};

/// How deep a response may be wrapped.
const MAX_WRAPS: usize = 8;

/// The cell under a name: a column, or a path of keys and places into one (`output.completion`, `choices.0.text`).
pub(super) fn cell<'a>(row: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(name) {
        return Some(value);
    }
    let (head, rest) = name.split_once('.')?;
    rest.split('.').try_fold(row.get(head)?, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Responses of a cell, one per sample; `None` for a null one. The whole is `None` where the cell holds no text: a
/// number in a list, say, or a table without a known key.
pub(super) fn responses(value: &Value) -> Option<Vec<Option<String>>> {
    wrapped(value, 0)
}

fn wrapped(value: &Value, depth: usize) -> Option<Vec<Option<String>>> {
    // In the order of trust: the text itself before what wraps it.
    const KEYS: [&str; 10] = [
        "completion",
        "text",
        "content",
        "response",
        "output",
        "generated_text",
        "message",
        "choices",
        "outputs",
        "body",
    ];
    if depth > MAX_WRAPS {
        return None;
    }
    match value {
        Value::Null => Some(vec![None]),
        Value::String(text) => Some(vec![Some(text.clone())]),
        Value::Number(number) if depth == 0 => Some(vec![Some(number.to_string())]),
        Value::Array(list) if list.is_empty() => Some(vec![None]),
        Value::Array(list) if is_dialogue(list) => said_last(list).map(|text| vec![Some(text)]),
        Value::Array(list) => parts(value).map(|text| vec![Some(text)]).or_else(|| {
            let samples: Option<Vec<_>> = list.iter().map(|v| wrapped(v, depth + 1)).collect();
            samples.map(|s| s.into_iter().flatten().collect())
        }),
        Value::Object(map) => {
            let mut found = KEYS.iter().filter_map(|key| map.get(*key)).filter(|v| !v.is_null());
            // A request that failed has its error where the answer would be.
            let failed = map.get("error").is_some_and(|e| !e.is_null())
                || matches!(key(value, "type"), Some("errored" | "expired" | "canceled"));
            found.find_map(|v| wrapped(v, depth + 1)).or_else(|| failed.then(|| vec![None]))
        }
        Value::Bool(_) | Value::Number(_) => None,
    }
}

fn key<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// Who says a message: `role` in most formats, `from` in ShareGPT's.
fn role(message: &Value) -> Option<&str> {
    key(message, "role").or_else(|| key(message, "from"))
}

fn is_dialogue(list: &[Value]) -> bool {
    list.iter().all(|message| role(message).is_some())
}

/// What a dialogue says last in the assistant's name.
fn said_last(list: &[Value]) -> Option<String> {
    const NAMES: [&str; 3] = ["assistant", "gpt", "model"];
    let last = list.iter().rev().find(|m| role(m).is_some_and(|r| NAMES.contains(&r)))?;
    let content = last.get("content").or_else(|| last.get("value"))?;
    content.as_str().map(str::to_owned).or_else(|| parts(content))
}

/// The text of a list of message parts: `[{"type": "text", "text": ..}, ..]`.
fn parts(value: &Value) -> Option<String> {
    let list = value.as_array()?;
    let part =
        |v: &Value| key(v, "type").is_some() && (v.get("text").is_some() || v.get("image_url").is_some());
    list.iter().all(part).then(|| list.iter().filter_map(|v| key(v, "text")).collect::<Vec<_>>().concat())
}

/// A published verdict: true and false, 1 and 0, words, the letters of inspect's scores.
pub(super) fn label(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => n.as_f64().filter(|x| *x == 0.0 || *x == 1.0).map(|x| x == 1.0),
        Value::String(s) => match s.trim().to_lowercase().as_str() {
            "true" | "1" | "1.0" | "correct" | "right" | "c" | "yes" => Some(true),
            "false" | "0" | "0.0" | "incorrect" | "wrong" | "i" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn responses_are_found_in_what_wraps_them() {
        let check = |value: Value, expected: &[&str]| {
            let found: Vec<String> = responses(&value).unwrap().into_iter().flatten().collect();
            assert_eq!(found, expected, "{value}");
        };
        check(json!("a"), &["a"]);
        check(json!(7), &["7"]);
        check(json!(["a", "b"]), &["a", "b"]);
        check(json!([["a"], ["b"]]), &["a", "b"]); // lm-evaluation-harness: resps
        check(
            json!({"model": "m", "choices": [{"message": {"role": "assistant", "content": "a"}}], "completion": "a"}),
            &["a"],
        );
        check(
            json!({"status_code": 200, "body": {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}}),
            &["a", "b"],
        );
        check(
            json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]),
            &["a"],
        );
        check(json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]), &["a"]);
        check(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), &["ab"]);
        check(
            json!({"type": "succeeded", "message": {"content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"}}),
            &["a"],
        );
        assert_eq!(responses(&json!(null)), Some(vec![None]));
        for failed in [
            json!({"status_code": 400, "body": {"error": {"message": "x"}}}),
            json!({"type": "errored", "error": {}}),
        ] {
            assert_eq!(responses(&failed), Some(vec![None]), "{failed}");
        }
        for none in [json!([1]), json!(true), json!({"id": 3}), json!([{"role": "user", "content": "q"}])] {
            assert_eq!(responses(&none), None, "{none}");
        }
        let mut deep = json!("a");
        (0..100).for_each(|_| deep = json!([deep]));
        assert_eq!(responses(&deep), None);
    }

    #[test]
    fn paths_lead_into_cells() {
        let row = json!({"a": {"b": [{"c": 1}, {"c": 2}]}, "a.x": 3});
        let row = row.as_object().unwrap();
        assert_eq!(cell(row, "a.b.1.c"), Some(&json!(2)));
        assert_eq!(cell(row, "a.x"), Some(&json!(3)), "a column whose name has a point");
        assert_eq!(cell(row, "a.b.2.c"), None);
        assert_eq!(cell(row, "none"), None);
    }
}
