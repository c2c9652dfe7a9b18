//! Comparison of short texts: normalised equality, edit-distance similarity (ANLS), and overlap of words.

use serde::{Deserialize, Serialize};

use crate::unicode::normalise_unicode;

/// How a text answer is compared with the accepted texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum TextRule {
    /// Equal after [`normalise`]: full marks or none.
    Equal,
    /// Average normalised Levenshtein similarity of DocVQA (Biten et al. 2019), 0 below the threshold.
    Anls {
        /// Similarities at or below `1 - threshold` count as 0; 0.5 in the paper.
        threshold: f64,
    },
    /// Harmonic mean of precision and recall over words (SQuAD, Rajpurkar et al. 2016).
    WordF1,
}

/// Longest text that is compared, in characters; a longer one scores 0.
pub const MAX_CHARS: usize = 4096;

impl TextRule {
    /// Similarity in `[0, 1]` of `answer` to the best of the accepted texts.
    pub fn similarity(self, accepted: &[String], answer: &str) -> f64 {
        if answer.chars().take(MAX_CHARS + 1).count() > MAX_CHARS {
            return 0.0;
        }
        let one = |gold: &String| match self {
            Self::Equal => f64::from(u8::from(same(gold, answer))),
            Self::Anls { threshold } => anls(gold, answer, threshold),
            Self::WordF1 => word_f1(gold, answer),
        };
        accepted.iter().filter(|g| g.len() <= 4 * MAX_CHARS).map(one).fold(0.0, f64::max)
    }
}

/// Lower case, compatibility forms folded, LaTeX wrappers, quotes, articles and punctuation at word ends removed,
/// white space collapsed.
pub fn normalise(text: &str) -> String {
    let text = normalise_unicode(text);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let name: String = rest[at + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
        match name.as_str() {
            "text" | "mathrm" | "textbf" | "mathbf" | "mbox" | "textit" | "operatorname" | "rm" => {}
            "" => plain.push(' '),
            _ => plain.push_str(&name),
        }
        let skip = 1 + name.len().max(usize::from(name.is_empty() && rest.len() > at + 1));
        rest = rest.get(at + skip..).unwrap_or_default();
    }
    plain.push_str(rest);
    let lower = plain.to_lowercase();
    let trimmed = |w: &str| {
        w.trim_matches(|c: char| {
            matches!(
                c,
                '.' | ','
                    | ';'
                    | ':'
                    | '!'
                    | '?'
                    | '"'
                    | '\''
                    | '`'
                    | '*'
                    | '('
                    | ')'
                    | '['
                    | ']'
                    | '。'
                    | '、'
                    | '$'
            )
        })
        .to_owned()
    };
    let words: Vec<String> = lower
        .split(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | '~' | '_'))
        .map(trimmed)
        .filter(|w| !w.is_empty())
        .collect();
    let articles = ["a", "an", "the"];
    let kept: Vec<&str> = words.iter().map(String::as_str).filter(|w| !articles.contains(w)).collect();
    // `A` alone is an answer, not an article.
    if kept.is_empty() { words.join(" ") } else { kept.join(" ") }
}

/// Equality after [`normalise`]; empty texts are equal to nothing.
pub fn same(a: &str, b: &str) -> bool {
    let a = normalise(a);
    !a.is_empty() && a == normalise(b)
}

/// `1 - d/max(len)` with edit distance `d` over lower-cased characters, 0 where `d/max(len) >= threshold`.
pub fn anls(gold: &str, answer: &str, threshold: f64) -> f64 {
    let (gold, answer) = (gold.trim().to_lowercase(), answer.trim().to_lowercase());
    let longest = gold.chars().count().max(answer.chars().count());
    if longest == 0 {
        return 0.0;
    }
    let distance = strsim::levenshtein(&gold, &answer) as f64 / longest as f64;
    if distance < threshold { 1.0 - distance } else { 0.0 }
}

fn word_f1(gold: &str, answer: &str) -> f64 {
    let (gold, answer) = (normalise(gold), normalise(answer));
    let mut left: Vec<&str> = gold.split(' ').filter(|w| !w.is_empty()).collect();
    let total = left.len() + answer.split(' ').filter(|w| !w.is_empty()).count();
    let mut common = 0;
    for word in answer.split(' ') {
        if let Some(i) = left.iter().position(|w| *w == word) {
            left.swap_remove(i);
            common += 1;
        }
    }
    if common == 0 { 0.0 } else { 2.0 * f64::from(common) / total as f64 }
}

/// Reads yes or no, true or false, in English and Chinese; `None` where the text says neither or more than that.
pub fn yes_no(text: &str) -> Option<bool> {
    let normal = normalise(text);
    match normal.as_str() {
        "yes" | "y" | "true" | "t" | "correct" | "right" | "是" | "是的" | "对" | "正确" | "√" | "✓" => {
            Some(true)
        }
        "no" | "n" | "false" | "f" | "incorrect" | "wrong" | "否" | "不是" | "不对" | "错" | "错误"
        | "不正确" | "×" | "✗" => Some(false),
        _ => {
            // `Yes, because ...`: the first word decides, unless the other one follows.
            let words: Vec<&str> = normal.split(' ').collect();
            match words.first() {
                Some(&"yes") if !words.contains(&"no") => Some(true),
                Some(&"no") if !words.contains(&"yes") => Some(false),
                _ => None,
            }
        }
    }
}
