//! GSM8K's two published readings (openai/grade-school-math; lm-evaluation-harness `gsm8k`), compared as text.

fn number_at(s: &str, dollar: bool) -> Option<(usize, &str)> {
    let body = s.strip_prefix('-').unwrap_or(s);
    let body = if dollar { body.strip_prefix('$').unwrap_or(body) } else { body };
    let head = s.len() - body.len();
    let end = body.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(body.len());
    (end > 0).then(|| (head + end, &s[..head + end]))
}

/// `strict-match`: the first number after `#### `, commas removed; `None` where there is none.
pub fn strict(response: &str) -> Option<String> {
    response.match_indices("#### ").find_map(|(at, mark)| {
        let (_, text) = number_at(&response[at + mark.len()..], false)?;
        Some(text.replace(',', ""))
    })
}

/// `flexible-extract`: the last number anywhere, `$`, commas and a final point removed.
pub fn flexible(response: &str) -> Option<String> {
    let mut last = None;
    let mut at = 0;
    while at < response.len() {
        let rest = &response[at..];
        match number_at(rest, true).filter(|(_, text)| text.contains(|c: char| c.is_ascii_digit())) {
            Some((len, text)) => {
                last = Some(text);
                at += len;
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    last.map(|text| text.replace([',', '$'], "").trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_and_marked_numbers() {
        assert_eq!(strict("so 5 #### 1,234\n").as_deref(), Some("1234"));
        assert_eq!(strict("#### -7.5 dollars").as_deref(), Some("-7.5"));
        assert_eq!(strict("the answer is 7"), None);
        assert_eq!(flexible("first 12, then $1,300.").as_deref(), Some("1300"));
        assert_eq!(flexible("no number"), None);
    }
}
