//! From a response to the span that is its answer.
//!
//! A ladder of rungs, tried in order inside the *final channel* (what follows the last closed thinking block). The
//! first rung that reads something wins, and within a rung the last place in the text: an answer given later
//! replaces an earlier one. Exactly one span is read; there is no search among several for one that fits the gold.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One way of finding the answer in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Inside the last `<answer>...</answer>`; the rungs below are tried inside it first.
    AnswerTag,
    /// The last balanced `\boxed{...}`, `\fbox{...}` or `\beginboxed{...}`; boxes joined by `,` or `and` are a list.
    Boxed,
    /// After the last `answer is`, `Answer:`, `答案是`, `故选` and the like, up to the end of the sentence.
    Marker,
    /// The last `$$...$$` or `\[...\]`, when it stands in the last line.
    DisplayMath,
    /// The last line: the formula in it, or what follows its last `is` or `=`, or all of it.
    LastLine,
    /// The last number of the text.
    LastNumber,
    /// The whole final channel.
    Whole,
}

/// The rungs in the order in which strict scoring tries them.
pub const LADDER: [Rung; 6] =
    [Rung::AnswerTag, Rung::Boxed, Rung::Marker, Rung::DisplayMath, Rung::LastLine, Rung::LastNumber];

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extraction {
    /// Which rung fired; a change of the shares of rungs over a run is an early sign of format drift.
    pub rung: Rung,
    /// Byte range of the answer in the response. For joined boxes, from the first box's content to the last's.
    pub span: Range<usize>,
    /// The answer's text; differs from the span only for joined boxes.
    pub text: String,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoAnswer {
    /// The response, or what follows its thinking, is empty.
    Empty,
    /// A thinking block never closes: the response was cut off before its answer.
    UnclosedThinking,
    /// No rung of the ladder found anything.
    NothingFound,
}

impl NoAnswer {
    /// The reason in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "the response holds no text after its thinking",
            Self::UnclosedThinking => "the thinking block never closes, so the response was cut off",
            Self::NothingFound => "no rung of the extraction ladder found an answer",
        }
    }
}

const THINKING: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
];

/// Byte range of the final channel.
pub fn final_channel(response: &str) -> Result<Range<usize>, NoAnswer> {
    let mut start = 0;
    if response.contains('<') {
        for (open, close) in THINKING {
            let closed = response.rfind(close).map_or(0, |at| at + close.len());
            if response[closed..].contains(open) {
                return Err(NoAnswer::UnclosedThinking);
            }
            start = start.max(closed);
        }
    }
    let range = trim(response, start..response.len());
    if range.is_empty() { Err(NoAnswer::Empty) } else { Ok(range) }
}

/// Reads the answer of `response` with the given rungs; see [`LADDER`].
pub fn extract(response: &str, ladder: &[Rung]) -> Result<Extraction, NoAnswer> {
    let scope = final_channel(response)?;
    climb(response, scope, ladder).ok_or(NoAnswer::NothingFound)
}

fn climb(response: &str, scope: Range<usize>, ladder: &[Rung]) -> Option<Extraction> {
    let text = &response[scope.clone()];
    ladder.iter().find_map(|&rung| {
        let local = match rung {
            Rung::AnswerTag => {
                let inside = answer_tag(text)?;
                let inside = trim(response, scope.start + inside.start..scope.start + inside.end);
                let finer = [Rung::Boxed, Rung::Marker];
                return climb(response, inside.clone(), &finer).or_else(|| plain(response, rung, inside));
            }
            Rung::Boxed => return boxed(response, &scope),
            Rung::Marker => marker(text)?,
            Rung::DisplayMath => display_math(text)?,
            Rung::LastLine => last_line(text)?,
            Rung::LastNumber => last_number(text)?,
            Rung::Whole => 0..text.len(),
        };
        plain(response, rung, scope.start + local.start..scope.start + local.end)
    })
}

fn plain(response: &str, rung: Rung, span: Range<usize>) -> Option<Extraction> {
    let span = trim(response, span);
    let text = response[span.clone()].to_owned();
    (!text.is_empty()).then_some(Extraction { rung, span, text })
}

fn trim(s: &str, range: Range<usize>) -> Range<usize> {
    let text = &s[range.clone()];
    let start = range.start + (text.len() - text.trim_start().len());
    start..(start + text.trim().len())
}

fn answer_tag(text: &str) -> Option<Range<usize>> {
    let open = rfind_any(text, &["<answer>", "<Answer>", "<ANSWER>"])?;
    let start = open.end;
    let close = ["</answer>", "</Answer>", "</ANSWER>"].iter().filter_map(|t| text[start..].find(t)).min();
    Some(start..close.map_or(text.len(), |c| start + c))
}

fn rfind_any(text: &str, words: &[&str]) -> Option<Range<usize>> {
    let mut found: Option<Range<usize>> = None;
    for word in words {
        // What stands before an earlier find cannot be the last.
        let from = found.as_ref().map_or(0, |r| r.start);
        if let Some(at) = rfind(&text.as_bytes()[from..], word.as_bytes()) {
            found = Some(from + at..from + at + word.len());
        }
    }
    found
}

/// The last place of a short word. Words of a marker are searched for in every response, and the general search of the
/// standard library prepares itself anew for each.
fn rfind(text: &[u8], word: &[u8]) -> Option<usize> {
    // The rarest letter of the words that are searched for: `boxed{`, `nswer`, `<answer>`.
    let anchor = word.iter().position(|b| matches!(b, b'x' | b'w' | b'W' | b'<')).unwrap_or(0);
    let (&mark, after) = (word.get(anchor)?, word.len() - anchor);
    let mut end = text.len();
    while let Some(at) = text[..end].iter().rposition(|b| *b == mark) {
        if at >= anchor && text.len() - at >= after && &text[at - anchor..at + after] == word {
            return Some(at - anchor);
        }
        end = at;
    }
    None
}

/// Index behind the `}` that closes the brace opened just before `start`.
pub(crate) fn closing_brace(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0usize;
    let bytes = text.as_bytes();
    let mut i = start;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(i + 1),
            b'}' => depth -= 1,
            _ => {}
        }
        i += 1;
    }
    None
}

const BOXES: [&str; 3] = ["boxed{", "boxed {", "fbox{"];

/// The last box of `text` that closes and is not empty, as the range of its content, with the end of the box.
fn last_box(text: &str) -> Option<(Range<usize>, usize)> {
    let mut end = text.len();
    // A bound on boxes that never close keeps the work linear.
    for _ in 0..64 {
        let open = rfind_any(&text[..end], &BOXES)?;
        let close = closing_brace(text, open.end);
        if let Some(close) = close.filter(|c| !text[open.end..c - 1].trim().is_empty()) {
            return Some((open.end..close - 1, close));
        }
        end = open.start;
    }
    None
}

/// Content of the last balanced, non-empty `\boxed{...}`.
pub fn last_boxed(text: &str) -> Option<&str> {
    last_box(text).map(|(content, _)| &text[content])
}

fn boxed(response: &str, scope: &Range<usize>) -> Option<Extraction> {
    let text = &response[scope.clone()];
    let (mut first, _) = last_box(text)?;
    let last = first.clone();
    let mut parts = vec![&text[last.clone()]];
    // Boxes before it, as long as nothing but a conjunction stands between.
    while parts.len() < 32 {
        let head = text[..first.start].rfind("\\boxed").or_else(|| text[..first.start].rfind("\\fbox"));
        let Some(head) = head else { break };
        let Some((content, end)) = last_box(&text[..head]) else { break };
        let between = text[end..head].replace(['$', ',', ' ', '\\', '(', ')', '、', ';'], "");
        if !matches!(between.trim(), "" | "and" | "or" | "和" | "或") {
            break;
        }
        // The same answer twice is one answer.
        let part = &text[content.clone()];
        if parts.iter().all(|p| p.trim() != part.trim()) {
            parts.push(part);
        }
        first = content;
    }
    parts.reverse();
    let span = scope.start + first.start..scope.start + last.end;
    Some(Extraction { rung: Rung::Boxed, span, text: parts.join(", ").trim().to_owned() })
}

/// Words that introduce an answer, matched from the end of the text; the English ones follow `answer`.
const AFTER_ANSWER: [&str; 12] = [
    " is",
    " are",
    ":",
    " would be",
    " should be",
    " must be",
    " will be",
    " =",
    "：",
    "(s):",
    " option is",
    " choice is",
];
const CHINESE: [&str; 12] = [
    "答案是",
    "答案为",
    "答案：",
    "答案:",
    "答案应为",
    "答案选",
    "故选",
    "应选",
    "因此选",
    "所以选",
    "选择",
    "综上",
];

fn marker(text: &str) -> Option<Range<usize>> {
    let english = last_english_marker(text);
    let chinese = if text.is_ascii() { None } else { rfind_any(text, &CHINESE) };
    let found = english.into_iter().chain(chinese).max_by_key(|r| r.end)?;
    let mut start = found.end;
    let lead = |c: char| c.is_whitespace() || matches!(c, ':' | '：' | '*' | '_' | '=' | '>' | '"' | '“');
    start += text[start..].len() - text[start..].trim_start_matches(lead).len();
    let tail = &text[start..];
    let end = start + sentence_end(tail);
    let range = trim_marks(text, start..end);
    (!range.is_empty()).then_some(range)
}

fn last_english_marker(text: &str) -> Option<Range<usize>> {
    let mut end = text.len();
    loop {
        let hit = rfind_any(&text[..end], &["nswer", "NSWER"])?;
        let mut at = hit.end;
        if text[at..].starts_with(['s', 'S']) {
            at += 1;
        }
        let near = &text[at..at + floor(&text[at..], 100)];
        let rest = near.trim_start_matches(['*', '_', '`', '"']);
        let skipped = near.len() - rest.len();
        // A phrase such as `to the question` may stand between, but no sentence end.
        if let Some(word) = AFTER_ANSWER.iter().find(|w| starts_with_ignoring_case(rest, w)) {
            return Some(hit.start..at + skipped + word.len());
        }
        let clause = &rest[..rest.find(['.', '\n', ',']).unwrap_or(rest.len()).min(floor(rest, 60))];
        if let Some(is) =
            clause.find(" is ").filter(|_| clause.starts_with(" to ") || clause.starts_with(" for "))
        {
            return Some(hit.start..at + skipped + is + 4);
        }
        end = hit.start;
    }
}

fn floor(s: &str, at: usize) -> usize {
    (0..=at.min(s.len())).rev().find(|i| s.is_char_boundary(*i)).unwrap_or(0)
}

fn starts_with_ignoring_case(s: &str, word: &str) -> bool {
    s.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

/// Where the sentence that starts `text` ends: at a line break, `。`, or a point followed by white space, outside `$`.
fn sentence_end(text: &str) -> usize {
    let mut math = false;
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '$' => math = !math,
            '\n' if !math => return i,
            '。' if !math => return i,
            '.' if !math && chars.peek().is_none_or(|(_, next)| next.is_whitespace()) => return i,
            _ => {}
        }
    }
    text.len()
}

fn trim_marks(text: &str, range: Range<usize>) -> Range<usize> {
    let range = trim(text, range);
    let s = &text[range.clone()];
    let t = s.trim_end_matches(['*', '_', '`', '"', '”', ',', ';', '，']);
    trim(text, range.start..range.start + t.len())
}

fn last_nonempty_line(text: &str) -> Range<usize> {
    let end = text.trim_end().len();
    let start = text[..end].rfind('\n').map_or(0, |i| i + 1);
    start..end
}

fn display_math(text: &str) -> Option<Range<usize>> {
    let end = text.trim_end_matches(|c: char| c.is_whitespace() || c == '.').len();
    let body = &text[..end];
    if let Some(kind) = body.strip_suffix('}').and_then(|b| b.rfind("\\end{").map(|i| &b[i + 5..])) {
        // An environment at the very end, e.g. a matrix.
        let open = text.rfind(&format!("\\begin{{{kind}}}"))?;
        return Some(open..end);
    }
    let (open, inner_end) = if let Some(inner) = body.strip_suffix("$$") {
        (inner.rfind("$$")? + 2, inner.len())
    } else {
        let inner = body.strip_suffix("\\]")?;
        (inner.rfind("\\[")? + 2, inner.len())
    };
    let range = trim(text, open..inner_end);
    (!range.is_empty()).then_some(range)
}

/// The formula in the last line if it has one; else what follows the last ` is ` or `=`; else the line.
fn last_line(text: &str) -> Option<Range<usize>> {
    let line = last_nonempty_line(text);
    let s = text[line.clone()].trim_end_matches('.');
    if line.start == 0 && is_bare_answer(s) {
        return Some(line);
    }
    if let Some(math) = last_inline_math(s) {
        return Some(line.start + math.start..line.start + math.end);
    }
    let tail = [" is ", " are ", " equals ", " be ", "是", "为"]
        .iter()
        .filter_map(|w| s.rfind(w).map(|i| i + w.len()))
        .max();
    let start = tail.unwrap_or(0);
    let start = start + (s[start..].len() - s[start..].trim_start_matches([':', ' ', '*', '：']).len());
    let range = trim_marks(text, line.start + start..line.start + s.len());
    // A long sentence without any of these is prose, not an answer; the next rung looks for a number.
    let words = text[range.clone()].split_whitespace().count();
    (!range.is_empty() && (words <= 6 || range.len() <= 40)).then_some(range)
}

/// True for a short text that gives an answer and does not talk about it: `odd $n$`, `3 cm`, `$x$ for some $a>0$`.
fn is_bare_answer(line: &str) -> bool {
    const VERBS: [&str; 9] = [" is ", " are ", " equals ", " be ", " get ", " have ", " has ", "是", "为"];
    const OPENERS: [&str; 14] = [
        "so",
        "thus",
        "therefore",
        "hence",
        "then",
        "we",
        "the",
        "this",
        "it",
        "since",
        "in",
        "as",
        "because",
        "let",
    ];
    let first = line.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default().to_lowercase();
    line.len() <= 240
        && line.split_whitespace().filter(|w| w.len() > 1 && w.chars().all(char::is_alphabetic)).count() <= 6
        && !VERBS.iter().any(|v| line.contains(v))
        && !OPENERS.contains(&first.as_str())
}

/// Content of the last `$...$` or `\(...\)` of a line, when no more than a few words follow it.
fn last_inline_math(line: &str) -> Option<Range<usize>> {
    let dollar =
        line.rfind('$').and_then(|close| line[..close].rfind('$').map(|open| (open + 1..close, close + 1)));
    let paren = line
        .rfind("\\)")
        .and_then(|close| line[..close].rfind("\\(").map(|open| (open + 2..close, close + 2)));
    let (range, end) = dollar.into_iter().chain(paren).max_by_key(|(r, _)| r.end)?;
    let start = if line[end..].split_whitespace().count() > 3 { return None } else { range.start };
    // A unit behind the formula belongs to it.
    let tail = line[end..].trim();
    let unit = !tail.is_empty()
        && tail.len() <= 12
        && tail.chars().all(|c| c.is_alphabetic() || "^²³°%/ ".contains(c));
    let range = if unit { start..line.len() } else { range };
    (!line[range.clone()].trim().is_empty()).then_some(range)
}

/// The last number: digits with groups, decimals, a fraction and a sign.
fn last_number(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let last = bytes.iter().rposition(u8::is_ascii_digit)?;
    let inside = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b',' | b'/');
    let mut start = last;
    while start > 0 && inside(bytes[start - 1]) {
        start -= 1;
    }
    while start < last && !(bytes[start].is_ascii_digit() || bytes[start] == b'.') {
        start += 1;
    }
    let signed =
        start > 0 && bytes[start - 1] == b'-' && (start == 1 || !bytes[start - 2].is_ascii_alphanumeric());
    let start = if signed { start - 1 } else { start };
    let end = if bytes.get(last + 1) == Some(&b'%') { last + 2 } else { last + 1 };
    Some(start..end)
}
