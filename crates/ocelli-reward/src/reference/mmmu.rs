//! MMMU's and MMMU-Pro's official parsing (MMMU-Benchmark/MMMU, `eval/eval_utils.py` and `mmmu-pro/evaluate.py`).
//!
//! Kept on purpose: the last of several letters wins; an open answer is right when the gold text occurs anywhere in
//! a key phrase. The one change: where the official program draws a letter at random, the reading is `None`, and
//! the caller decides (a seeded draw reproduces the published number only by chance anyway).

use std::sync::LazyLock;

use regex::Regex;

use super::python::{float, round, strip};

/// Which published program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MMMU: `(A)`, then ` A `, then the option's text.
    Mmmu,
    /// MMMU-Pro: `Answer: A` first; then `(A)`, `A `, `A.`, then the option's text.
    MmmuPro,
}

fn letter(i: usize) -> Option<char> {
    char::from_u32(u32::from(b'A') + u32::try_from(i).ok()?).filter(char::is_ascii_uppercase)
}

/// The letter that the official parser reads, or `None` where it draws one at random.
pub fn choice(response: &str, options: &[String], version: Version) -> Option<char> {
    let letters: Vec<char> = (0..options.len()).filter_map(letter).collect();
    if version == Version::MmmuPro
        && let Some(at) = response.rfind("Answer:")
    {
        let tail = &response[at + "Answer:".len()..];
        let mut found = letters.iter().filter(|c| tail.contains(**c));
        if let (Some(c), None) = (found.next(), found.next()) {
            return Some(*c);
        }
    }
    let mut text = response;
    for c in [',', '.', '!', '?', ';', ':', '\''] {
        text = text.trim_matches(c);
    }
    let text = format!(" {text} ");
    let forms: &[fn(char) -> String] = match version {
        Version::Mmmu => &[|c| format!("({c})"), |c| format!(" {c} ")],
        Version::MmmuPro => &[|c| format!("({c})"), |c| format!("{c} "), |c| format!("{c}.")],
    };
    for (i, form) in forms.iter().enumerate() {
        let candidates: Vec<char> = letters.iter().copied().filter(|c| text.contains(&form(*c))).collect();
        // All forms but the first are ranked by the last ` A `, which some of them never match (then -1).
        let position = |c: char| match i {
            0 => text.rfind(&form(c)),
            _ => text.rfind(&format!(" {c} ")),
        };
        if let Some(c) = first_maximum(&candidates, position) {
            return Some(c);
        }
    }
    if text.split_whitespace().count() <= 5 {
        return None;
    }
    let lower = text.to_lowercase();
    let option = |c: char| options[(u32::from(c) - u32::from('A')) as usize].to_lowercase();
    let candidates: Vec<char> = letters.iter().copied().filter(|c| lower.contains(&option(*c))).collect();
    first_maximum(&candidates, |c| lower.rfind(&option(c)))
}

/// `candidates[argmax(positions)]`, the first where several are equal.
fn first_maximum(candidates: &[char], position: impl Fn(char) -> Option<usize>) -> Option<char> {
    let mut best: Option<(char, Option<usize>)> = None;
    for &c in candidates {
        let p = position(c);
        if best.is_none_or(|(_, q)| p > q) {
            best = Some((c, p));
        }
    }
    best.map(|(c, _)| c)
}

/// One reading of an open answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A number rounded to two decimals.
    Number(f64),
    /// Lower-cased text.
    Text(String),
}

fn normalise(text: &str) -> Vec<Reading> {
    let text = strip(text);
    if let Some(x) = float(&text.replace(',', "")) {
        return vec![Reading::Number(round(x, 2))];
    }
    let lower = text.to_lowercase();
    if lower.chars().count() == 1 {
        return vec![Reading::Text(format!(" {lower}")), Reading::Text(format!("{lower} "))];
    }
    vec![Reading::Text(lower)]
}

static GROUPED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"-?\b\d{1,3}(?:,\d{3})+\b").ok());
static SCIENTIFIC: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"-?\d+(?:\.\d+)?[eE][+-]?\d+").ok());

/// Matches of `-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])`, written out because of its look-aheads.
fn simple_numbers(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let digits_end =
        |from: usize| (from..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
    let free = |end: usize| {
        let rest = &bytes[end..];
        let exponent = match rest {
            [b'e' | b'E', b'+' | b'-', d, ..] | [b'e' | b'E', d, ..] => d.is_ascii_digit(),
            _ => false,
        };
        !exponent && !matches!(rest, [b',' | b'0'..=b'9', ..])
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at + usize::from(bytes[at] == b'-');
        let whole = digits_end(start);
        let point = bytes.get(whole) == Some(&b'.');
        let decimals = if point { digits_end(whole + 1) } else { whole };
        let word = text[whole..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let end = if point && decimals > whole + 1 && free(decimals) {
            Some(decimals)
        } else if whole > start && !word && free(whole) {
            Some(whole)
        } else {
            None
        };
        match end {
            Some(end) => {
                found.push(&text[at..end]);
                at = end;
            }
            // The search restarts one character further, in the middle of a number too.
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    found
}

fn numbers(text: &str) -> Vec<&str> {
    let all =
        |re: &'static LazyLock<Option<Regex>>| re.as_ref().into_iter().flat_map(|re| re.find_iter(text));
    all(&GROUPED).chain(all(&SCIENTIFIC)).map(|m| m.as_str()).chain(simple_numbers(text)).collect()
}

/// The readings of an open response: its key phrases and the numbers in them.
pub fn open_readings(response: &str) -> Vec<Reading> {
    let response = strip(response).trim_matches('.').to_lowercase();
    // The official split at `. ` before a capital letter never fires, since the text is lower case by then.
    let lines: Vec<&str> = response.split('\n').collect();
    let mut indicators =
        vec!["could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "];
    let mut phrases: Vec<&str> = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if i + 1 == lines.len() {
            indicators.push("=");
        }
        let mut shortest: Option<&str> = None;
        for indicator in &indicators {
            let Some(at) = line.rfind(indicator) else { continue };
            let tail = strip(&line[at + indicator.len()..]);
            // An empty phrase counts as none there, so that a later indicator replaces it.
            if shortest.is_none_or(|s| s.is_empty() || tail.chars().count() < s.chars().count()) {
                shortest = Some(tail);
            }
        }
        if let Some(phrase) = shortest.filter(|s| !s.is_empty())
            && ![":", ",", ".", "!", "?", ";", "'"].contains(&phrase)
        {
            phrases.push(phrase);
        }
    }
    if phrases.is_empty() {
        phrases.push(&response);
    }
    let found: Vec<&str> = phrases.iter().flat_map(|p| numbers(p)).collect();
    phrases.iter().chain(&found).flat_map(|p| normalise(p)).collect()
}

/// The official label of an open answer: some gold text occurs in a reading, or some number is equal.
pub fn open_correct(readings: &[Reading], gold: &[String]) -> bool {
    let gold: Vec<Reading> = gold.iter().flat_map(|g| normalise(g)).collect();
    readings.iter().any(|reading| match reading {
        Reading::Text(text) => {
            gold.iter().any(|g| matches!(g, Reading::Text(want) if text.contains(want.as_str())))
        }
        Reading::Number(_) => gold.contains(reading),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Vec<String> {
        ["red", "blue paint", "green"].map(String::from).to_vec()
    }

    // Expected letters worked out by hand from the published program.
    #[test]
    fn letters() {
        let mmmu = |s| choice(s, &options(), Version::Mmmu);
        assert_eq!(mmmu("(A) or rather (B)."), Some('B'));
        assert_eq!(mmmu("I say C"), Some('C'));
        assert_eq!(mmmu("A"), Some('A'));
        assert_eq!(mmmu("It looks like the blue paint to me"), Some('B'));
        assert_eq!(mmmu("blue paint"), None);
        assert_eq!(choice("Answer: B", &options(), Version::MmmuPro), Some('B'));
        assert_eq!(choice("the answer: C.", &options(), Version::MmmuPro), Some('C'));
    }

    // Python's `re.findall` with the published pattern gives these.
    #[test]
    fn simple_pattern() {
        assert_eq!(simple_numbers("a 1.5, -2 3x .5"), ["1", "-2", ".5"]);
        assert_eq!(simple_numbers("12.55,7 1e5 8"), ["12", "7", "5", "8"]);
        assert_eq!(simple_numbers("x1 2.5cm"), ["1", "2.5"]);
    }

    #[test]
    fn open_answers() {
        let right = |response: &str, gold: &str| open_correct(&open_readings(response), &[gold.to_owned()]);
        assert!(right("The total is 1,234 dollars", "1234"));
        assert!(right("The total is 1,234.50 dollars", "234.5"), "groups and decimals together are not read");
        assert!(right("so the bond is covalent", "Covalent"));
        assert!(right("x = 3.14159", "3.14"));
        assert!(!right("The total is 12", "13"));
        assert!(right("it is uncovalent", "covalent"), "substring fault of the official rule");
    }
}
