//! Lists of options as data sets write them: a list, a table by letter, JSON text, or the text of a Python list.

use serde_json::{Map, Value};

use super::kind_of;

/// Reads a list of options; null and empty text are the empty list. The error says what the cell holds.
pub fn option_list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(option).collect(),
        Value::Object(table) => by_letter(table),
        Value::String(s) if s.trim().is_empty() => Ok(Vec::new()),
        Value::String(s) => match serde_json::from_str::<Vec<Value>>(s) {
            Ok(items) => items.iter().map(option).collect(),
            Err(_) => python_list(s)
                .or_else(|| python_list(s.trim().strip_prefix('[')?.strip_suffix(']')?))
                .ok_or_else(|| format!("`{}` is not a list", excerpt(s))),
        },
        other => Err(format!("holds {}, not a list of options", kind_of(other))),
    }
}

/// `{"A": "6", "B": "7"}`: the letters from A on, in order.
fn by_letter(table: &Map<String, Value>) -> Result<Vec<String>, String> {
    let letters = ('A'..='Z').map(String::from);
    let options: Vec<&Value> = letters.map_while(|letter| table.get(&letter)).collect();
    if options.len() != table.len() {
        return Err("is a table whose keys are not the letters from A on".into());
    }
    options.into_iter().map(option).collect()
}

fn option(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        other => Err(format!("an option is {}", kind_of(other))),
    }
}

fn excerpt(s: &str) -> String {
    let short: String = s.chars().take(60).collect();
    if short.len() < s.len() { format!("{short}...") } else { short }
}

/// Python's `repr` of a list of strings and numbers: `['a', "it's", 3.5]`.
fn python_list(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut items = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(&first) = chars.peek() else { return Some(items) };
        let mut item = String::new();
        if first == '\'' || first == '"' {
            chars.next();
            loop {
                match chars.next()? {
                    c if c == first => break,
                    '\\' => item.push(escaped(&mut chars)?),
                    c => item.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                item.push(c);
            }
            item = item.trim().to_owned();
            // Only bare words and numbers stand without quotes; anything else is another structure.
            if item.is_empty() || item.contains(['[', ']', '{', '}', '\'', '"']) {
                return None;
            }
        }
        items.push(item);
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn escaped(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    let code = |n: usize, chars: &mut dyn Iterator<Item = char>| {
        let digits: String = chars.take(n).collect();
        if digits.len() == n { char::from_u32(u32::from_str_radix(&digits, 16).ok()?) } else { None }
    };
    match chars.next()? {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'x' => code(2, chars),
        'u' => code(4, chars),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_ways_to_write_a_list() {
        let check =
            |value: Value, expected: &[&str]| assert_eq!(option_list(&value).unwrap(), expected, "{value}");
        check(json!(["a", 2, 0.5]), &["a", "2", "0.5"]);
        check(json!(null), &[]);
        check(json!({"B": "7", "A": 6}), &["6", "7"]);
        check(json!("[]"), &[]);
        check(json!("[\"a\", \"b\"]"), &["a", "b"]);
        check(json!("['6cm', '7cm']"), &["6cm", "7cm"]);
        check(json!("['it\\'s', \"a, b\", 3.5, '\\u00e9\\n\\xb0']"), &["it's", "a, b", "3.5", "é\n°"]);
        // MMMU-Pro has a list within a list.
        check(json!("[['a', 'b']]"), &["a", "b"]);
        for hostile in [
            json!(7),
            json!({"A": "x", "C": "y"}),
            json!("['a'"),
            json!("['a' 'b']"),
            json!("[['a'], ['b']]"),
            json!("{}"),
            json!([["a"]]),
        ] {
            assert!(option_list(&hostile).is_err(), "{hostile}");
        }
    }
}
