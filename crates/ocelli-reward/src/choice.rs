//! Multiple choice: which options an answer names, in English and Chinese, by letter or by text.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::extract::{Extraction, LADDER, Rung, extract, final_channel};
use crate::verify::{Outcome, Policy, Reading, Verdict, verify};
use crate::{normalise_unicode, text};

/// The letter that a text consists of: `B`, `(B)`, `B.`, `\text{(B)}`, `**B**`.
pub fn single_letter(answer: &str) -> Option<char> {
    if answer.len() > 64 {
        return None;
    }
    let bare = strip_marks(answer);
    let mut chars = bare.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii_uppercase() => Some(c),
        _ => None,
    }
}

/// Removes brackets, emphasis and LaTeX text commands around a letter.
fn strip_marks(s: &str) -> String {
    let mut s = s.trim().to_owned();
    if s.contains('\\') {
        for command in ["\\textbf", "\\mathbf", "\\mathrm", "\\text", "\\mbox", "\\boxed", "\\rm"] {
            if s.contains(command) {
                s = s.replace(command, "");
            }
        }
    }
    let marks = |c: char| {
        c.is_whitespace()
            || matches!(
                c,
                '(' | ')'
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | '.'
                    | ':'
                    | ','
                    | '*'
                    | '$'
                    | '"'
                    | '\''
                    | '`'
                    | '~'
                    | '。'
                    | '、'
                    | '<'
                    | '>'
                    | ';'
            )
    };
    s.trim_matches(marks).to_owned()
}

fn letter_index(c: char, options: usize) -> Option<usize> {
    let i = (c.to_ascii_uppercase() as usize).checked_sub('A' as usize)?;
    (c.is_ascii_alphabetic() && i < options).then_some(i)
}

/// The options that an extracted answer names, as indices in ascending order; `None` where it names none for sure.
///
/// `count` is the number of options; `options` their texts, which may be empty.
pub fn read(answer: &str, options: &[String], count: usize) -> Option<Vec<usize>> {
    if answer.len() > 4096 {
        return None;
    }
    let folded = normalise_unicode(answer);
    let answer = folded.trim();
    if let Some(letters) = letters_only(answer, count) {
        return Some(letters);
    }
    if let Some((letter, tail)) = leading_letter(answer, count) {
        // `B. 12 cm`: the text may contradict the letter.
        let named = matching_options(tail, options);
        return if named.is_empty() || named.contains(&letter) { Some(vec![letter]) } else { None };
    }
    let named = matching_options(answer, options);
    if named.len() == 1 {
        return Some(named);
    }
    let bracketed = bracketed_letters(answer, count);
    if bracketed.len() == 1 { Some(bracketed) } else { None }
}

/// `A`, `AC`, `A, C`, `A and C`, `(B)`, `option b`, `选A`.
fn letters_only(answer: &str, count: usize) -> Option<Vec<usize>> {
    let mut s = strip_marks(answer);
    // The words that may stand around letters, and letters themselves, are no longer together.
    if s.is_empty() || s.len() > 128 {
        return None;
    }
    if s.len() > 1 {
        for word in ["Option", "option", "Choice", "choice", "Answer", "answer", "选项", "选择", "选", "答案"]
        {
            if s.contains(word) {
                s = s.replace(word, " ");
            }
        }
        s = strip_marks(&s);
    }
    if s.is_empty() || s.len() > 64 {
        return None;
    }
    let single = s.chars().count() == 1;
    let mut found = Vec::new();
    for part in s.split(|c: char| {
        c.is_whitespace() || matches!(c, ',' | ';' | '、' | '&' | '+' | '(' | ')' | '/' | '{' | '}')
    }) {
        match part {
            "" | "and" | "or" | "和" | "与" | "及" => {}
            _ => {
                // Capitals side by side are several options; one small letter is one.
                let plain = part.chars().all(|c| c.is_ascii_uppercase())
                    || (single || part.len() == 1 && s.len() > 1 && found.is_empty() && s.ends_with(part))
                        && part.len() == 1;
                if !plain {
                    return None;
                }
                for c in part.chars() {
                    let i = letter_index(c, count)?;
                    if found.contains(&i) {
                        return None;
                    }
                    found.push(i);
                }
            }
        }
    }
    found.sort_unstable();
    (!found.is_empty()).then_some(found)
}

/// Letters that stand for options by themselves: those of at most twelve options.
const OPTION_LETTERS: std::ops::RangeInclusive<char> = 'A'..='L';

/// The options that a text names by capital letters and nothing else, sorted: `AC`, `A, C`, `A and C`, `(A)(C)`, `选AC`,
/// `答案：B`, `Option B`. `None` for any other text, and where a letter stands twice.
pub fn named_letters(text: &str) -> Option<Vec<char>> {
    if text.len() > 64 {
        return None;
    }
    let folded = normalise_unicode(text);
    let mut rest = strip_marks(&folded);
    const HEADS: [&str; 18] = [
        "the answers are",
        "the answer is",
        "the correct answer is",
        "options",
        "option",
        "choices",
        "choice",
        "answers",
        "answer",
        "正确答案",
        "所以",
        "答案",
        "故选",
        "应选",
        "选项",
        "选择",
        "选",
        "故",
    ];
    const LINKS: [&str; 5] = ["是", "为", ":", "is", "are"];
    loop {
        let before = rest.len();
        let lower = rest.to_ascii_lowercase();
        let head = HEADS.iter().find(|h| lower.starts_with(**h));
        if let Some(head) = head {
            rest = strip_marks(&rest[head.len()..]);
        }
        if (before < folded.trim().len() || head.is_some())
            && let Some(tail) = LINKS.iter().find_map(|l| rest.strip_prefix(l))
        {
            rest = strip_marks(tail);
        }
        if rest.len() == before {
            break;
        }
    }
    let mut letters: Vec<char> = Vec::new();
    for part in rest.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '、' | '&' | '(' | ')')) {
        if matches!(part, "" | "and" | "和" | "与" | "及") {
            continue;
        }
        for part in part.split(['和', '与', '及']).filter(|p| !p.is_empty()) {
            for c in part.chars() {
                if !OPTION_LETTERS.contains(&c) || letters.contains(&c) {
                    return None;
                }
                letters.push(c);
            }
        }
    }
    letters.sort_unstable();
    (!letters.is_empty()).then_some(letters)
}

/// The one option that a short text names by its letter, in whatever it says besides: `B. 12 cm`, `so it is (B)`.
pub(crate) fn single_option(text: &str) -> Option<char> {
    match read(text, &[], 12)?.as_slice() {
        [one] => Some(char::from(b'A' + *one as u8)),
        _ => None,
    }
}

/// `B. text`, `(B) text`, `B: text`, `B) text`, `Option B ...`.
fn leading_letter(answer: &str, count: usize) -> Option<(usize, &str)> {
    let s =
        answer.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '$' | '"' | '`' | '\\'));
    let s = ["option ", "Option ", "choice ", "Choice ", "选项", "选择", "选", "text{", "textbf{", "letter "]
        .iter()
        .find_map(|w| s.strip_prefix(w))
        .unwrap_or(s)
        .trim_start_matches([' ', '*', '$']);
    let (open, s) = match s.strip_prefix('(') {
        Some(rest) => (true, rest),
        None => (false, s),
    };
    let c = s.chars().next()?;
    let tail = &s[c.len_utf8()..];
    let i = letter_index(c, count).filter(|_| c.is_ascii_uppercase() || open)?;
    let named = answer.len() - s.len() > 1 && !open && !tail.starts_with(|c: char| c.is_alphanumeric());
    let rest = if open {
        tail.strip_prefix(')')?
    } else {
        tail.strip_prefix(['.', ':', ')', '、', '*', '}']).or(if named { Some(tail) } else { None })?
    };
    // `A.5` or `C:D` is something else.
    if !open
        && !named
        && rest.starts_with(|c: char| c.is_alphanumeric())
        && !rest.starts_with(' ')
        && rest.chars().next().is_none_or(|c| c.is_ascii())
    {
        return None;
    }
    Some((i, rest.trim_start_matches([')', '*', '}', '$', ' ', ':', '.']).trim()))
}

/// A letter followed by the text of another option.
fn contradicts(answer: &str, options: &[String], count: usize) -> bool {
    leading_letter(answer, count).is_some_and(|(letter, tail)| {
        let named = matching_options(tail, options);
        !named.is_empty() && !named.contains(&letter)
    })
}

fn bracketed_letters(answer: &str, count: usize) -> Vec<usize> {
    let bytes = answer.as_bytes();
    let mut found: Vec<usize> = bytes
        .windows(3)
        .filter(|w| w[0] == b'(' && w[2] == b')' && w[1].is_ascii_uppercase())
        .filter_map(|w| letter_index(char::from(w[1]), count))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Options whose text means the same as `answer`.
fn matching_options(answer: &str, options: &[String]) -> Vec<usize> {
    let answer = answer.trim();
    if answer.is_empty() {
        return Vec::new();
    }
    // `E` names the fifth option first of all; only a letter beyond the options can be an option's text.
    let is_label = |o: &str| {
        single_letter(o).is_some()
            && single_letter(answer).is_some_and(|c| letter_index(c, options.len()).is_some())
    };
    let same = |want: &dyn Fn(&str) -> bool| -> Vec<usize> {
        options.iter().enumerate().filter(|(_, o)| !is_label(o) && want(o)).map(|(i, _)| i).collect()
    };
    let normal = text::normalise(answer);
    let by_text = same(&|o| !normal.is_empty() && text::normalise(o) == normal);
    if !by_text.is_empty() {
        return by_text;
    }
    let policy = Policy::default();
    same(&|o| verify(o, answer, &policy).outcome == Outcome::Equal)
}

/// Finds the answer of a response to a multiple-choice question: the ladder, then a letter alone in the first line,
/// then the only bracketed letter of the response.
pub fn extract_choice(response: &str, options: &[String], count: usize) -> Option<(Vec<usize>, Extraction)> {
    let found = extract(response, &LADDER).ok();
    if let Some(e) = &found {
        if let Some(read) = read(&e.text, options, count) {
            return Some((read, e.clone()));
        }
        if contradicts(&e.text, options, count) {
            return None;
        }
    }
    // A statement after a box that names no option replaces it.
    if let Some(e) = found.as_ref().filter(|e| e.rung == Rung::Boxed) {
        let later = extract(&response[e.span.end..], &[Rung::Marker]).ok()?;
        let read = read(&later.text, options, count)?;
        let span = e.span.end + later.span.start..e.span.end + later.span.end;
        return Some((read, Extraction { span, ..later }));
    }
    let scope = final_channel(response).ok()?;
    let text = &response[scope.clone()];
    let whole = |range: Range<usize>, rung| Extraction {
        rung,
        text: response[range.clone()].to_owned(),
        span: range,
    };
    // Only where the ladder found nothing better than a line or a number.
    if found.as_ref().is_some_and(|e| e.rung == Rung::AnswerTag) {
        return None;
    }
    let first = text.lines().next().unwrap_or_default();
    let line_read = letters_only(first, count).or_else(|| leading_letter(first, count).map(|(i, _)| vec![i]));
    if let Some(letters) = line_read.filter(|l| l.len() == 1) {
        return Some((letters, whole(scope.start..scope.start + first.len(), Rung::Whole)));
    }
    let bracketed = bracketed_letters(text, count);
    (bracketed.len() == 1).then(|| (bracketed, whole(scope, Rung::Whole)))
}

/// How a selection of several options is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// All right options and no wrong one.
    #[default]
    Exact,
    /// The share of right options when no wrong one is chosen (Chinese college entrance examination).
    Partial,
}

/// Credit in `[0, 1]` of the chosen options.
pub fn credit(gold: &[usize], chosen: &[usize], rule: Credit) -> f64 {
    let right = chosen.iter().filter(|c| gold.contains(c)).count();
    let all = right == gold.len() && right == chosen.len();
    match rule {
        Credit::Exact => f64::from(u8::from(all)),
        Credit::Partial if right == chosen.len() && !gold.is_empty() => right as f64 / gold.len() as f64,
        Credit::Partial => 0.0,
    }
}

/// Compares the options named in a response with the gold letters (`["A", "C"]`).
///
/// A response whose answer names no option is `Different`: an answer was asked for among the options. A gold letter beyond
/// the options leaves every answer `Unknown`.
pub fn verify_choice(gold: &[String], options: &[String], response: &str) -> Verdict {
    let count = if options.is_empty() { 26 } else { options.len() };
    let mut wanted: Vec<usize> =
        gold.iter().filter_map(|g| single_letter(g)).filter_map(|c| letter_index(c, count)).collect();
    wanted.sort_unstable();
    let letters = |indices: &[usize]| indices.iter().map(|i| char::from(b'A' + *i as u8)).collect::<String>();
    let gold_reading = Reading { text: letters(&wanted), kind: "choice" };
    let verdict = |outcome, rule, note: &str, answer, rung, span| Verdict {
        outcome,
        rule,
        note: note.to_owned(),
        gold: gold_reading.clone(),
        answer,
        rung,
        span,
    };
    if wanted.is_empty() || wanted.len() != gold.len() {
        let beyond = gold.iter().filter_map(|g| single_letter(g)).find(|c| letter_index(*c, count).is_none());
        let why = match beyond {
            Some(letter) => format!("the gold answer {letter} is none of the {count} options"),
            None => "the gold answer is not a list of letters".to_owned(),
        };
        return verdict(Outcome::Unknown, "choice", &why, Reading::default(), None, None);
    }
    match extract_choice(response, options, count) {
        Some((chosen, e)) => {
            let outcome = if chosen == wanted { Outcome::Equal } else { Outcome::Different };
            let answer = Reading { text: letters(&chosen), kind: "choice" };
            verdict(outcome, "choice", "", answer, Some(e.rung), Some(e.span))
        }
        None => {
            let (rung, span, answer, note) = match extract(response, &LADDER) {
                Ok(e) => (Some(e.rung), Some(e.span), e.text, "the answer names no option"),
                Err(none) => (None, None, String::new(), none.reason()),
            };
            verdict(Outcome::Different, "choice", note, Reading { text: answer, kind: "text" }, rung, span)
        }
    }
}
