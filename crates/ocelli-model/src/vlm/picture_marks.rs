//! Pictures in the messages of a model whose chat template knows text alone.
//!
//! InternVL2.5, InternVL3 and Skywork R1V are published with the template of their language model, whose content is a string. Their
//! own code (`chat` of `modeling_internvl_chat.py`, OpenGVLab/InternVL commit dd36352; Skywork R1V's `inference_with_transformers.py`)
//! writes `<image>` into the question and turns each of them, in order, into `<img>`, 256 `<IMG_CONTEXT>` for each tile, `</img>`. So do
//! we, with the placeholder token in place of `<image>`, since what a person writes must not be taken for a picture:
//!
//! ```text
//! [picture] [picture] "Which is older?"             <image>\n<image>\nWhich is older?       chat() puts `<image>\n` before a question
//! "Image-1: " [picture] "\nImage-2: " [picture] "\nWhich?"   Image-1: <image>\nImage-2: <image>\nWhich?       as it stands
//! ```
//!
//! Pictures are not numbered: `chat` does not do it, its callers write `Image-1: ` themselves. The system message is that of the template,
//! not that of `conversation.py`; pass one where it matters.

use ocelli_data::{Message, Part};

/// The messages with `mark` where their pictures stand. A picture before the first text gets a line of its own.
pub(crate) fn written(messages: &[Message], mark: &str) -> Vec<Message> {
    messages.iter().map(|m| Message { content: content(&m.content, mark), ..m.clone() }).collect()
}

fn content(parts: &[Part], mark: &str) -> Vec<Part> {
    if parts.iter().all(|p| matches!(p, Part::Text { .. })) {
        return parts.to_vec();
    }
    let mut all = String::new();
    let mut said = false;
    for (i, part) in parts.iter().enumerate() {
        match part {
            Part::Text { text } => {
                said |= !text.is_empty();
                all += text;
            }
            Part::Image { .. } => {
                all += mark;
                let next =
                    parts[i + 1..].iter().find(|p| !matches!(p, Part::Text { text } if text.is_empty()));
                let parted = match next {
                    Some(Part::Text { text }) => text.starts_with(char::is_whitespace),
                    Some(Part::Image { .. }) => false,
                    None => true,
                };
                if !said && !parted {
                    all.push('\n');
                }
            }
        }
    }
    vec![Part::text(all)]
}

#[cfg(test)]
mod tests {
    use ocelli_data::ContentHash;

    use super::*;

    #[test]
    fn pictures_are_written_where_the_references_code_writes_them() {
        let picture = || Part::image(ContentHash::of(b"x"));
        // What `chat` and the callers that are named above make of the same messages.
        let cases: [(Vec<Part>, &str); 7] = [
            (vec![picture(), Part::text("How many?")], "<image>\nHow many?"),
            (vec![picture(), picture(), Part::text("Which?")], "<image>\n<image>\nWhich?"),
            (vec![picture(), Part::text("\nHow many?")], "<image>\nHow many?"),
            (
                vec![
                    Part::text("Image-1: "),
                    picture(),
                    Part::text("\nImage-2: "),
                    picture(),
                    Part::text("\nWhich?"),
                ],
                "Image-1: <image>\nImage-2: <image>\nWhich?",
            ),
            (
                vec![Part::text("Is "), picture(), Part::text(" like "), picture(), Part::text("?")],
                "Is <image> like <image>?",
            ),
            (vec![picture()], "<image>"),
            (vec![Part::text("only "), Part::text("text")], "only text"),
        ];
        for (parts, expected) in cases {
            let message = Message::user(parts);
            assert_eq!(written(&[message], "<image>")[0].plain_text(), expected);
        }
    }
}
