//! The 512 tokens of the native family: 256 bytes, pieces of the words that our worlds and tools speak of, and marks.
//!
//! Byte-level BPE, so that every text has ids and comes back exactly. Digits stay single: a small model learns to
//! calculate on them. Nothing is trained on a corpus: words of the first list are tokens whole (`ignore_merges`, as in
//! Llama 3: what the pre-tokenizer cuts out is looked up before any merge), all others are put together from the pieces of the
//! second, each built from its first byte on, one byte at a time.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::tokenizer::{SpecialTokens, Tokenizer};

/// Rows of the embedding table; the last few are not used.
pub const VOCAB_SIZE: usize = 512;

/// Words and signs of our worlds, tools and templates that are one token each, cut as the pre-tokenizer cuts them.
const WORDS: &[&str] = &[
    "assistant",
    "user",
    "system",
    "tool",
    "Tools",
    "What",
    "Which",
    "How",
    "Is",
    "Are",
    "Does",
    "Follow",
    "Answer",
    "By",
    "From",
    "Point",
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
    " its",
    " by",
    " or",
    " no",
    " has",
    " there",
    " than",
    " that",
    " does",
    " from",
    " last",
    " first",
    " second",
    " third",
    " fourth",
    " fifth",
    " many",
    " much",
    " rise",
    " fall",
    " yes",
    " rises",
    " falls",
    " starts",
    " reach",
    " completes",
    " pattern",
    " missing",
    " number",
    " value",
    " values",
    " angle",
    " degrees",
    " area",
    " rectangle",
    " length",
    " line",
    " lines",
    " point",
    " points",
    " bar",
    " bars",
    " sector",
    " sectors",
    " group",
    " category",
    " percentage",
    " whole",
    " figure",
    " picture",
    " difference",
    " larger",
    " largest",
    " smallest",
    " more",
    " above",
    " together",
    " red",
    " green",
    " blue",
    " orange",
    " purple",
    " brown",
    " pink",
    " gray",
    " yellow",
    " black",
    " white",
    " circle",
    " circles",
    " square",
    " squares",
    " triangle",
    " triangles",
    " diamond",
    " object",
    " objects",
    " shape",
    " colour",
    " option",
    " answer",
    " image",
    " pixels",
    " label",
    " what",
    " bbox",
    " so",
    "red",
    "green",
    "blue",
    "orange",
    "purple",
    "brown",
    "pink",
    "gray",
    "yes",
    "no",
    "answer",
    "image",
    "img",
    "bbox",
    "crop",
    "zoom",
    "name",
    "arguments",
    "measure",
    "what",
    "share",
    "label",
    "bar",
    "value",
    "point",
    "read",
    "axis",
    "calculate",
    "expression",
    "rises",
    "falls",
    "triangle",
    "circle",
    "square",
    "\":",
    " \"",
    "\",",
    "{\"",
    "\":\"",
    "\",\"",
    "\":{\"",
    "\":[",
    " {\"",
    "\"}}",
    "\"}",
    "},",
    " [",
    "]}",
    " %",
    " =",
    " +",
    " *",
    " -",
    " (",
    "),",
    "\n\n",
];

/// Frequent pieces of all other words, the most important first: where two merges are possible, the earlier one is made.
const PIECES: &[&str] = &[
    "er", "in", "an", "on", "en", "re", "es", "ed", "or", "ar", "al", "th", "he", "le", "ti", "te", "ou",
    "st", "el", "it", "ch", "ma", "ea", "ll", "ra", "ce", "de", "se", "is", "as", "at", "ro", "ur", "us",
    "ve", "ig", "ow", "ee", "ly", "ge", "ne", "pe", "ing", " s", " c", " w", " p", " l", " m", " d", " f",
    " h", " n", " e", " b", " t", " g", " r", " C", " S", " T",
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
        let mut bytes = piece.bytes().map(visible);
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
    for word in WORDS {
        let shown: String = word.bytes().map(visible).collect();
        if !vocab.contains_key(&shown) {
            vocab.insert(shown, vocab.len().into());
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
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": merges,
        },
    })
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
        for one in ["<|im_end|>", "<think>", "</tool_call>", "\\boxed{", "7"].iter().chain(WORDS) {
            assert_eq!(t.encode(one).unwrap().len(), 1, "{one:?}");
        }
        assert_eq!(t.encode("1234").unwrap().len(), 4);
        let short = t.encode("How many red circles are there?").unwrap();
        assert_eq!(short.len(), 7, "{short:?}");
        // What a call costs: a small model pays for every token of it in every rollout.
        let call = r#"{"name":"measure","arguments":{"image":"img_0","what":"share","label":"red"}}"#;
        assert_eq!(t.encode(call).unwrap().len(), 21);
    }
}
