//! Separates thinking from the answer in the text of a model that writes both into one channel.

const TAGS: [(&str, &str); 3] =
    [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>")];

/// A response in its two channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// What follows the last closing tag; the whole text where there is no thinking.
    pub answer: String,
    /// The thinking without its tags; `None` where there is none.
    pub reasoning: Option<String>,
    /// A thinking block was opened and never closed: the answer is missing.
    pub unclosed: bool,
}

/// Splits `text` at the last closing tag. A closing tag without an opening one counts too, because many chat templates
/// put the opening tag into the prompt.
pub fn split(text: &str) -> Channels {
    for (open, close) in TAGS {
        if let Some(at) = text.rfind(close) {
            let tail = &text[at + close.len()..];
            if let Some(reopened) = tail.find(open) {
                let reasoning =
                    format!("{}{}", strip_tags(&text[..at], open, close), &tail[reopened + open.len()..]);
                return Channels { answer: String::new(), reasoning: Some(reasoning), unclosed: true };
            }
            return Channels {
                answer: tail.trim_start().to_owned(),
                reasoning: Some(strip_tags(&text[..at], open, close)),
                unclosed: false,
            };
        }
        if let Some(thought) = text.trim_start().strip_prefix(open) {
            return Channels {
                answer: String::new(),
                reasoning: Some(thought.trim().to_owned()),
                unclosed: true,
            };
        }
    }
    Channels { answer: text.to_owned(), reasoning: None, unclosed: false }
}

fn strip_tags(text: &str, open: &str, close: &str) -> String {
    text.replace(open, "").replace(close, "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, answer: &str, reasoning: Option<&str>, unclosed: bool) {
        let expected = Channels { answer: answer.into(), reasoning: reasoning.map(Into::into), unclosed };
        assert_eq!(split(text), expected, "{text:?}");
    }

    #[test]
    fn channels() {
        check("B", "B", None, false);
        check("<think>a < b</think>\n\nB", "B", Some("a < b"), false);
        check("long thought</think>B", "B", Some("long thought"), false);
        check("<think>one</think> no, <think>two</think> B", "B", Some("one no, two"), false);
        check("<think>never ends", "", Some("never ends"), true);
        check("<think>one</think> wait <think>two", "", Some("onetwo"), true);
        check("I write <think> in the middle", "I write <think> in the middle", None, false);
    }
}
