//! The 512 tokens of the native family: 256 bytes, pieces of the words that our worlds and tools speak of, and marks.
//!
//! Byte-level BPE, so that every text has ids and comes back exactly. Digits stay single: a small model learns to
//! calculate on them. The merges are not trained on a corpus but follow from the list below: each entry is built from its
//! first byte on, one byte at a time, so its beginnings are tokens too.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::tokenizer::{SpecialTokens, Tokenizer};

/// Rows of the embedding table; the last few are not used.
pub const VOCAB_SIZE: usize = 512;

/// Words and pieces, the most important first: where two merges are possible, the earlier one is made.
const PIECES: &[&str] = &[
    " the",
    " is",
    " are",
    " of",
    " a",
    " and",
    " in",
    " to",
    " at",
    " on",
    " it",
    "assistant",
    "user",
    "system",
    "tool",
    "How many",
    "What",
    "Which",
    "Follow",
    " there",
    " than",
    " that",
    " does",
    " number",
    " value",
    " angle",
    " line",
    " bar",
    " red",
    " green",
    " blue",
    " orange",
    " purple",
    " brown",
    " pink",
    " gray",
    " circles",
    " squares",
    " triangles",
    " shape",
    " colour",
    " largest",
    " option",
    " answer",
    "answer",
    "image",
    "img",
    "bbox",
    "crop",
    "zoom",
    "name",
    "argum",
    "\": \"",
    "\", \"",
    "{\"",
    " {\"",
    " [",
    "\"}",
    "},",
    " =",
    " +",
    " *",
    " -",
    "\n\n",
    "er",
    "in",
    "an",
    "on",
    "en",
    "re",
    "es",
    "ed",
    "or",
    "ar",
    "al",
    "th",
    "he",
    "le",
    "ti",
    "te",
    "ou",
    "st",
    "el",
    "it",
    "ch",
    "ma",
    "ea",
    "ll",
    "ra",
    "ce",
    "de",
    " s",
    " c",
    " w",
    " p",
    " l",
    " m",
    " d",
    " f",
    " h",
    " n",
    " e",
];

/// Marks that end up as one token wherever they stand, and whether they are left out of plain text.
const MARKS: &[(&str, bool)] = &[
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<think>", false),
    ("</think>", false),
    ("<tool_call>", false),
    ("</tool_call>", false),
    ("<answer>", false),
    ("</answer>", false),
    ("\\boxed{", false),
];

/// End of turn and padding.
pub fn special_tokens() -> SpecialTokens {
    SpecialTokens {
        eos: Some("<|im_end|>".into()),
        pad: Some("<|endoftext|>".into()),
        ..SpecialTokens::default()
    }
}

/// The tokenizer of the native family.
pub fn tokenizer() -> Result<Tokenizer, ModelError> {
    Tokenizer::from_bytes(tokenizer_json().to_string().as_bytes(), Path::new("tokenizer.json"))
}

fn tokenizer_json() -> Value {
    let mut vocab = Map::new();
    for byte in 0..=255u8 {
        vocab.insert(visible(byte).to_string(), vocab.len().into());
    }
    let mut merges = Vec::new();
    for piece in PIECES {
        // The pre-tokenizer splits "How many" before the space; both halves are pieces.
        for word in words(piece) {
            let mut bytes = word.bytes().map(visible);
            let mut left: String = bytes.next().into_iter().collect();
            for next in bytes {
                let whole = format!("{left}{next}");
                if !vocab.contains_key(&whole) {
                    merges.push(json!([left, next.to_string()]));
                    vocab.insert(whole.clone(), vocab.len().into());
                }
                left = whole;
            }
        }
    }
    let marks: Vec<Value> = MARKS
        .iter()
        .enumerate()
        .map(|(i, (mark, special))| {
            json!({"id": vocab.len() + i, "content": mark, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": special})
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": marks,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            byte_level,
        ]},
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

/// A piece cut before every space that is not its first byte.
fn words(piece: &str) -> Vec<&str> {
    let mut cuts: Vec<usize> = piece.match_indices(' ').map(|(i, _)| i).filter(|&i| i > 0).collect();
    if piece.starts_with(|c: char| !c.is_alphanumeric() && c != ' ') {
        cuts.clear();
    }
    cuts.insert(0, 0);
    cuts.push(piece.len());
    cuts.windows(2).map(|w| &piece[w[0]..w[1]]).collect()
}

/// The character that stands for a byte in byte-level BPE (GPT-2): itself where it is visible, else one from 256 on.
fn visible(byte: u8) -> char {
    let shown = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if shown(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&b| !shown(b)).count() as u32;
    char::from_u32(256 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_fits_and_reads_back() {
        let t = tokenizer().unwrap();
        assert!(t.vocab_size() <= VOCAB_SIZE, "{} tokens", t.vocab_size());
        assert!(t.vocab_size() > VOCAB_SIZE - 40, "{} tokens leave room for more pieces", t.vocab_size());
        for text in [
            "How many red circles are there? <think>2 + 3 = 5</think>\\boxed{5}<|im_end|>\n",
            "<tool_call>\n{\"name\": \"crop\", \"arguments\": {\"image\": \"img_0\", \"bbox\": [10, 5, 20, 25]}}\n</tool_call>",
            "Größe: 3 \u{4e2d}\u{6587} \u{1f600}\t\u{0} end",
        ] {
            let ids = t.encode(text).unwrap();
            assert_eq!(t.decode(&ids).unwrap(), text);
            assert!(ids.iter().all(|&id| (id as usize) < VOCAB_SIZE));
        }
    }

    #[test]
    fn marks_digits_and_frequent_words_are_single_tokens() {
        let t = tokenizer().unwrap();
        for one in ["<|im_end|>", "<think>", "</tool_call>", "\\boxed{", " the", " circles", "assistant", "7"]
        {
            assert_eq!(t.encode(one).unwrap().len(), 1, "{one}");
        }
        assert_eq!(t.encode("1234").unwrap().len(), 4);
        let short = t.encode("How many red circles are there?").unwrap();
        assert_eq!(short.len(), 7, "{short:?}");
    }
}
