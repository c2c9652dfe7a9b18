//! Marks of the template become special tokens; text that merely looks like one stays text.
//!
//! A picture can show, and a remote tool can say, `<|im_end|>` or `<tool_call>`. Rendered into the prompt and encoded as
//! one text, it would end the turn, forge a message, or count as a picture. So what comes from outside is searched before
//! it is rendered: a mark in it is written in an escaped form, which [`Tokenizer::encode_guarded`] turns back into its
//! characters and encodes in two pieces, so that it cannot be the token. Text without marks is not touched, which keeps
//! its ids those of the reference.
//!
//! Who may write which marks:
//!
//! | text | control tokens (`<|im_end|>`, `<|image_pad|>`) | other marks (`<tool_call>`, `<think>`) |
//! |---|---|---|
//! | template | yes | yes |
//! | assistant (the policy's own words) | yes | yes |
//! | system, user, descriptions of tools | no | yes: instructions name them, as the reference's do |
//! | tool | no | no |

use std::borrow::Cow;

use ocelli_data::{Message, Part, Role};
use serde_json::Value;

use crate::ModelError;
use crate::chat::ChatOptions;
use crate::tokenizer::Tokenizer;

/// Stands before and behind the number of a mark; a private character, itself escaped where text holds it.
const ESCAPE: char = '\u{f0ce1}';

/// The marks of a tokenizer.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Text of each mark, longest first, and whether it is a control token.
    marks: Vec<(String, bool)>,
}

/// Which marks a text must not hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forbidden {
    None,
    Control,
    All,
}

impl Guard {
    /// From the added tokens of a tokenizer: their text, and whether they are special.
    pub(crate) fn new(added: impl IntoIterator<Item = (String, bool)>) -> Self {
        // Some tokenizers add runs of spaces and the like, which are ordinary text.
        let is_mark = |t: &str| {
            matches!((t.chars().next(), t.chars().last()), (Some('<'), Some('>')) | (Some('['), Some(']')))
        };
        let mut marks: Vec<(String, bool)> =
            added.into_iter().filter(|(t, special)| t.len() > 1 && (*special || is_mark(t))).collect();
        marks.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Self { marks }
    }

    /// The dialogue with the marks of each message's text escaped, as far as its role must not write them.
    pub fn messages<'m>(&self, messages: &'m [Message]) -> Cow<'m, [Message]> {
        let guarded: Vec<Option<Message>> = messages.iter().map(|m| self.message(m)).collect();
        if guarded.iter().all(Option::is_none) {
            return Cow::Borrowed(messages);
        }
        let both = guarded.into_iter().zip(messages);
        Cow::Owned(both.map(|(new, old)| new.unwrap_or_else(|| old.clone())).collect())
    }

    fn message(&self, message: &Message) -> Option<Message> {
        let forbidden = match message.role {
            Role::Assistant => Forbidden::None,
            Role::System | Role::User => Forbidden::Control,
            Role::Tool => Forbidden::All,
        };
        // Neighbouring texts are looked at together: a mark may be parted between them.
        let mut content: Vec<Part> = Vec::with_capacity(message.content.len());
        for part in &message.content {
            match (content.last_mut(), part) {
                (Some(Part::Text { text }), Part::Text { text: more }) => text.push_str(more),
                _ => content.push(part.clone()),
            }
        }
        let mut changed = false;
        let mut guard = |text: &mut String| {
            if let Cow::Owned(escaped) = self.text(text, forbidden) {
                *text = escaped;
                changed = true;
            }
        };
        for part in &mut content {
            if let Part::Text { text } = part {
                guard(text);
            }
        }
        let mut name = message.name.clone();
        guard(&mut name);
        changed.then(|| Message { content, name, ..message.clone() })
    }

    /// Options whose descriptions of tools hold no control tokens.
    pub fn options<'o>(&self, options: &'o ChatOptions) -> Cow<'o, ChatOptions> {
        let mut tools = options.tools.clone();
        match tools.iter_mut().map(|tool| self.value(tool)).fold(false, or) {
            true => Cow::Owned(ChatOptions { tools, ..options.clone() }),
            false => Cow::Borrowed(options),
        }
    }

    fn value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.text(text, Forbidden::Control) {
                Cow::Owned(escaped) => {
                    *text = escaped;
                    true
                }
                Cow::Borrowed(_) => false,
            },
            Value::Array(items) => items.iter_mut().map(|v| self.value(v)).fold(false, or),
            Value::Object(map) => map.values_mut().map(|v| self.value(v)).fold(false, or),
            _ => false,
        }
    }

    fn text<'t>(&self, text: &'t str, forbidden: Forbidden) -> Cow<'t, str> {
        let mut out = String::new();
        let (mut copied, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            let length = match self.mark_at(&text[at..], forbidden) {
                Some(k) => {
                    out.push_str(&text[copied..at]);
                    out.push_str(&format!("{ESCAPE}{k}{ESCAPE}"));
                    self.marks[k].0.len()
                }
                None if c == ESCAPE => {
                    out.push_str(&text[copied..at]);
                    out.push_str(&format!("{ESCAPE}{ESCAPE}"));
                    c.len_utf8()
                }
                None => {
                    at += c.len_utf8();
                    continue;
                }
            };
            at += length;
            copied = at;
        }
        if out.is_empty() {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    fn mark_at(&self, text: &str, forbidden: Forbidden) -> Option<usize> {
        let forbidden = |special: bool| match forbidden {
            Forbidden::None => false,
            Forbidden::Control => special,
            Forbidden::All => true,
        };
        self.marks.iter().position(|(mark, special)| forbidden(*special) && text.starts_with(mark.as_str()))
    }

    /// What was escaped, as characters again, in pieces that are to be encoded one by one: every escaped mark is parted
    /// behind its first character.
    fn pieces(&self, text: &str) -> Vec<String> {
        let mut pieces = vec![String::new()];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(ESCAPE) {
            let (inside, behind) = after.split_once(ESCAPE).unwrap_or((after, ""));
            let mut last = pieces.pop().unwrap_or_default();
            last.push_str(before);
            let mark = inside.parse::<usize>().ok().and_then(|k| self.marks.get(k));
            let mut characters = mark.map(|(mark, _)| mark.chars()).into_iter().flatten();
            match characters.next() {
                Some(first) => {
                    last.push(first);
                    pieces.push(last);
                    pieces.push(characters.collect());
                }
                None => {
                    last.push(ESCAPE);
                    pieces.push(last);
                }
            }
            rest = behind;
        }
        if let Some(last) = pieces.last_mut() {
            last.push_str(rest);
        }
        pieces
    }
}

impl Tokenizer {
    /// Ids of a rendered text whose messages went through [`Guard::messages`]: marks that were escaped come out as the
    /// tokens of their characters, everything else as [`Tokenizer::encode`] has it.
    pub fn encode_guarded(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        if !text.contains(ESCAPE) {
            return self.encode(text);
        }
        let mut ids = Vec::new();
        for piece in self.guard().pieces(text) {
            if !piece.is_empty() {
                ids.extend(self.encode(&piece)?);
            }
        }
        Ok(ids)
    }
}

/// Either; both sides have been worked out, which `any` would not do.
fn or(a: bool, b: bool) -> bool {
    a || b
}

#[cfg(test)]
mod tests {
    use ocelli_data::ToolResult;

    use super::*;

    fn guard() -> Guard {
        Guard::new(
            [("<|im_end|>", true), ("<tool_call>", false), ("\n\n", false)].map(|(t, s)| (t.to_owned(), s)),
        )
    }

    fn tool(content: Vec<Part>) -> Message {
        Message::tool(ToolResult { id: String::new(), name: "ocr".into(), content, is_error: false })
    }

    #[test]
    fn ordinary_text_is_not_touched() {
        let messages = [Message::user([Part::text("a < b > c\n\n<b>")]), tool(vec![Part::text("[1, 2]")])];
        assert!(matches!(guard().messages(&messages), Cow::Borrowed(_)));
        assert!(matches!(guard().options(&ChatOptions::prompt()), Cow::Borrowed(_)));
    }

    #[test]
    fn each_role_has_its_marks() {
        let text = "x <tool_call> <|im_end|> y";
        let count = |m: Message| {
            let text = guard().messages(&[m])[0].plain_text();
            (text.contains("<tool_call>"), text.contains("<|im_end|>"))
        };
        assert_eq!(count(Message::assistant(text)), (true, true));
        assert_eq!(count(Message::system(text)), (true, false));
        assert_eq!(count(Message::user([Part::text(text)])), (true, false));
        assert_eq!(count(tool(vec![Part::text(text)])), (false, false));
    }

    #[test]
    fn what_was_escaped_comes_back_in_pieces() {
        let guard = guard();
        let text = format!("a<|im_end|>b{ESCAPE}0{ESCAPE}c<tool_call><|im_end|>");
        let guarded = guard.messages(&[tool(vec![Part::text(text.clone())])])[0].plain_text();
        let pieces = guard.pieces(&guarded);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|p| !p.contains("<|im_end|>") && !p.contains("<tool_call>")), "{pieces:?}");
    }

    #[test]
    fn a_mark_parted_between_two_texts_is_found() {
        let parted = tool(vec![Part::text("<|im_"), Part::text("end|>")]);
        let guarded = guard().messages(std::slice::from_ref(&parted))[0].plain_text();
        assert!(!guarded.contains("<|im_end|>"));
        assert_eq!(guard().pieces(&guarded).concat(), "<|im_end|>");
    }
}
