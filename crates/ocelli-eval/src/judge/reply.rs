//! Reading a judge's yes or no.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::declare::ReplyRule;

/// As the official programs read it: anything but the expected form is a no.
pub fn official_reply(rule: ReplyRule, reply: &str) -> bool {
    match rule {
        ReplyRule::CheckJson => {
            let found: Option<Value> = json_object(reply);
            found.is_some_and(|v| v.get("check").is_some_and(|c| *c == 1 || *c == "1"))
        }
        ReplyRule::CorrectWord => reply.to_lowercase() == "correct",
        ReplyRule::YesWord => reply.trim().to_lowercase().starts_with("yes"),
        ReplyRule::BracketLetter | ReplyRule::AnswerNumber => false,
    }
}

/// The first JSON object in a reply.
pub(super) fn json_object(reply: &str) -> Option<Value> {
    reply.match_indices('{').take(64).find_map(|(at, _)| {
        let mut stream = serde_json::Deserializer::from_str(&reply[at..]).into_iter::<Value>();
        stream.next()?.ok()
    })
}

static LABELLED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:correct_or_not|verdict|judg(?:e)?ment|conclusion|answer|final|结论|判断|结果)\s*[*_`]*\s*[:：]\s*[*_`\s]*(incorrect|not\s+correct|correct|wrong|right|yes|no|true|false|不正确|正确|错误|不一致|一致|是|否|对|错)").ok()
});
static FIRST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)^[\s*_`#\x22'\[\(]*(incorrect|not\s+correct|correct|wrong|right|yes|no|true|false|不正确|正确|错误|不一致|一致|不是|是|否|不对|对|错)(?:[^a-z]|$)").ok()
});

/// Read tolerantly: `Correct.`, `**Correct_or_not: Correct**`, JSON, yes and no, Chinese. `None` where the reply
/// says neither, or both.
pub fn tolerant_reply(reply: &str) -> Option<bool> {
    let text = reply.rsplit("</think>").next().unwrap_or(reply).trim();
    if let Some(Value::Object(map)) = json_object(text) {
        let said: Vec<Option<bool>> = map.values().map(json_verdict).collect();
        // One field that is a verdict; more would be ambiguous unless they agree.
        let mut known = said.into_iter().flatten();
        if let Some(first) = known.next() {
            return known.all(|v| v == first).then_some(first);
        }
    }
    let word = |re: &LazyLock<Option<Regex>>, last: bool| {
        let re = (**re).as_ref()?;
        let captures = if last { re.captures_iter(text).last()? } else { re.captures(text)? };
        Some(meaning(captures.get(1)?.as_str()))
    };
    match word(&LABELLED, true) {
        Some(verdict) => Some(verdict),
        None => word(&FIRST, false),
    }
}

fn json_verdict(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) if n.as_i64() == Some(1) => Some(true),
        Value::Number(n) if n.as_i64() == Some(0) => Some(false),
        Value::String(s) => match s.trim().to_lowercase().as_str() {
            "1" | "correct" | "yes" | "true" | "right" | "正确" | "是" | "一致" => Some(true),
            "0" | "incorrect" | "no" | "false" | "wrong" | "错误" | "否" | "不一致" | "不正确" => {
                Some(false)
            }
            _ => None,
        },
        _ => None,
    }
}

fn meaning(word: &str) -> bool {
    matches!(
        word.to_lowercase().as_str(),
        "correct" | "right" | "yes" | "true" | "正确" | "一致" | "是" | "对"
    )
}
