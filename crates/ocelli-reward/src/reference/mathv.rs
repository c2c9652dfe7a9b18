//! MATH-Vision's official rule (mathllm/MATH-V, `evaluation/`, commit 1d36118), faults included.
//!
//! Known faults, kept on purpose: a response that ends in ` A.` is the letter A whatever it says before; the box is
//! read greedily from the first `oxed{` to the last `}`; everything before `=` is dropped; values are equal when
//! they agree after rounding to two decimals, so that 1/9 equals 10/91; text after a readable prefix is ignored.

use super::latex_value::latex_value;
use super::python::{after_last, before_first, float, strip};

/// Stored rows (file, id) whose label contradicts the published program, and what the program says.
///
/// `4/3` against the gold `\frac{4}{3}`: latex2sympy2 1.9.1 reads both as 1.33, yet the row is stored as wrong, so
/// that the published total of that file (537) is one less than the program's.
pub const CONTRADICTIONS: [(&str, &str, bool); 1] = [("Gemini-Pro", "3013", true)];

/// The `model_answer` that the official program reads from a response.
pub fn extract(response: &str) -> String {
    let mut answer = strip(response).to_owned();
    for c in ["A", "B", "C", "D", "E"] {
        let is_letter = answer.ends_with(&format!(" {c}."))
            || answer.ends_with(&format!(" ({c})."))
            || answer.starts_with(&format!("{c}\n"))
            || answer.starts_with(&format!("({c})\n"))
            || answer.starts_with(&format!("({c}) {c}\n"));
        if is_letter {
            answer = c.to_owned();
        }
    }
    let tail = after_last(&answer, "is ").trim_end_matches('.');
    if float(tail).is_some() {
        answer = tail.to_owned();
    }
    if !answer.contains("oxed{") {
        for flag in ["the final answer is", "the answer is", "the correct answer is", "the answer should be"]
        {
            for flag in [flag.to_owned(), flag.replace("the", "The")] {
                let found = answer.contains(&flag);
                let tail = strip(after_last(&answer, &flag));
                answer = if found { before_first(before_first(tail, "\n"), ". ") } else { tail }.to_owned();
            }
        }
    } else if answer.matches("oxed{").count() > 1 {
        answer = format!("\\boxed{{{}", after_last(&answer, "oxed{"));
    }
    let mut answer = find_math_answer(&answer);
    for c in ["a", "b", "c", "d", "e"] {
        answer = answer.replace(&format!("({c})"), c);
    }
    for c in ["a", "b", "c", "d", "e"] {
        answer = answer.replace(&format!("{{{c}}}"), c);
    }
    strip(answer.trim_end_matches('.').trim_start_matches(':')).to_owned()
}

fn find_math_answer(s: &str) -> String {
    let s = s.to_lowercase().replace("{}", "");
    let mut ans = match (s.find("oxed{"), s.rfind('}')) {
        (Some(open), Some(close)) if open + 5 <= close => &s[open + 5..close],
        _ => s.as_str(),
    };
    if let Some(close) = ans.find('}')
        && ans.find('{').is_none_or(|open| close < open)
    {
        ans = &ans[..close];
    }
    let ans = after_last(after_last(ans, "="), "\\approx");
    let replacements = [
        (" ", ""),
        ("\\,", ""),
        ("∞", "\\infty"),
        ("+\\infty", "\\infty"),
        ("\\\\", "\\"),
        ("\n", ""),
        ("\\text", ""),
        ("\\mbox", ""),
        ("bmatrix", "pmatrix"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("{m}^3", ""),
        ("m^3", ""),
        ("{units}", ""),
        ("units", ""),
        ("{km}", ""),
        ("km", ""),
    ];
    strip_string(&replace_all(ans, &replacements))
}

fn replace_all(s: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(s.to_owned(), |s, (from, to)| if s.contains(from) { s.replace(from, to) } else { s })
}

fn strip_string(s: &str) -> String {
    let s = replace_all(
        s,
        &[
            ("\n", ""),
            ("\\!", ""),
            ("\\\\", "\\"),
            ("tfrac", "frac"),
            ("dfrac", "frac"),
            ("\\left", ""),
            ("\\right", ""),
            ("^{\\circ}", ""),
            ("^\\circ", ""),
            ("\\$", ""),
            ("$", ""),
        ],
    );
    let s = before_first(&s, "\\text{ ");
    let mut s = replace_all(s, &[("\\%", ""), (" .", " 0."), ("{.", "{0.")]);
    if s.is_empty() {
        return s;
    }
    if s.starts_with('.') {
        s.insert(0, '0');
    }
    for sign in ["=", "\\approx"] {
        if s.matches(sign).count() == 1 {
            s = after_last(&s, sign).to_owned();
        }
    }
    let s = brace_roots(&s).replace(' ', "");
    let s = if s.contains("sqrt") { brace_fractions(&s) } else { s };
    let s = if s == "0.5" { "\\frac{1}{2}".to_owned() } else { s };
    slash_to_fraction(&s)
}

/// `\sqrt2` becomes `\sqrt{2}`.
fn brace_roots(s: &str) -> String {
    let mut parts = s.split("\\sqrt");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut rest = part.chars();
        match rest.next() {
            Some(c) if c != '{' => out.push_str(&format!("\\sqrt{{{c}}}{}", rest.as_str())),
            _ => out.push_str(&format!("\\sqrt{part}")),
        }
    }
    out
}

/// `\frac12` becomes `\frac{1}{2}`; a part shorter than two characters leaves the whole string as it was.
fn brace_fractions(s: &str) -> String {
    let mut parts = s.split("\\frac");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("\\frac");
        if part.starts_with('{') {
            out.push_str(part);
            continue;
        }
        let mut rest = part.chars();
        let (Some(a), Some(b)) = (rest.next(), rest.next()) else { return s.to_owned() };
        match b {
            '{' => out.push_str(&format!("{{{a}}}{{{}", rest.as_str())),
            _ => out.push_str(&format!("{{{a}}}{{{b}}}{}", rest.as_str())),
        }
    }
    out
}

fn slash_to_fraction(s: &str) -> String {
    let parts: Vec<&str> = s.split('/').collect();
    let canonical = |p: &str| p.parse::<i128>().is_ok_and(|n| n.to_string() == p);
    match parts[..] {
        [a, b] if canonical(a) && canonical(b) => format!("\\frac{{{a}}}{{{b}}}"),
        _ => s.to_owned(),
    }
}

/// The official equality of an extracted answer with a gold text.
pub fn equal(answer: &str, gold: &str) -> bool {
    let (answer, gold) = (answer.to_lowercase(), gold.to_lowercase());
    let blank = |s: &str| s.chars().all(|c| c == ' ');
    if blank(&answer) || blank(&gold) {
        return false;
    }
    if strip(&answer) == strip(&gold) {
        return true;
    }
    let (answer, gold) = (evaluate_tuple(&answer), evaluate_tuple(&gold));
    if answer == gold {
        return true;
    }
    match (latex_value(&gold), latex_value(&answer)) {
        (Some(g), Some(a)) => g.rounded().0 == a.rounded().0,
        _ => false,
    }
}

/// Elements of `(a,b)` and `[a,b]` evaluated and rounded; the text itself where one of them cannot be.
fn evaluate_tuple(s: &str) -> String {
    let brackets = match (s.chars().next(), s.chars().last()) {
        (Some('('), Some(')')) => ('(', ')'),
        (Some('['), Some(']')) => ('[', ']'),
        _ => return s.to_owned(),
    };
    if s.len() < 2 || !s[1..s.len() - 1].contains(',') {
        return s.to_owned();
    }
    let items: Option<Vec<String>> = s[1..s.len() - 1]
        .split(',')
        .map(|item| match item {
            "a" | "-a" => Some(item.to_owned()),
            _ if item.contains("infty") => Some(item.to_owned()),
            _ => latex_value(item).map(|v| v.rounded().1),
        })
        .collect();
    match items {
        Some(items) => format!("{}{}{}", brackets.0, items.join(","), brackets.1),
        None => s.to_owned(),
    }
}

/// The official label: the answer equals the gold letter or value, or the text of the gold option.
///
/// `options` is empty for a free-form question.
pub fn correct(answer: &str, gold: &str, options: &[String]) -> bool {
    let option = match gold.as_bytes() {
        [letter] => options.get(usize::from(letter.wrapping_sub(b'A'))),
        _ => None,
    };
    equal(answer, gold) || option.is_some_and(|text| equal(answer, text))
}
