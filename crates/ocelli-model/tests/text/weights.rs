//! Readers against the reference's decoding, and against files that lie.

use std::fs;
use std::path::Path;

use ocelli_model::weights::Gguf;
use ocelli_model::{
    Checkpoint, Keep, LanguageModel, SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors,
};
use ocelli_tensor::DType;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::tiny::{fixtures, write_checkpoint};

#[test]
fn gguf_blocks_and_rotary_rows_decode_as_in_the_reference() {
    let expected = Weights::open(&fixtures().join("quants.safetensors")).unwrap();
    let found = Weights::open(&fixtures().join("quants.gguf")).unwrap();
    assert_eq!(expected.names().count(), 11);
    assert_eq!(found.names().count(), 11);
    for name in expected.names() {
        assert_eq!(found.shape(name), expected.shape(name), "{name}");
        let (want, got) = (expected.read(name).unwrap(), found.read(name).unwrap());
        let worst = want.iter().zip(&got).map(|(a, b)| (a - b).abs() / (1.0 + a.abs())).fold(0.0, f32::max);
        // Products of two f32 may be rounded in another order; the values themselves are exact.
        assert!(worst <= 2e-7, "{name}: {worst:e}");
    }
}

#[test]
fn gguf_metadata_reads() {
    let gguf = Gguf::open(&fixtures().join("quants.gguf")).unwrap();
    assert_eq!(gguf.text("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.int("llama.context_length").unwrap(), 64);
    let config = gguf.config().unwrap().text;
    assert_eq!((config.num_attention_heads, config.num_key_value_heads, config.head_dim), (2, 1, 4));
    assert_eq!(config.rms_norm_eps, 1e-5);
    let error = gguf.texts("tokenizer.ggml.tokens").unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.tokens") && error.contains("found nothing"), "{error}");
}

fn tensor<'a>(name: &str, shape: &[usize], values: &'a [f32]) -> SaveTensor<'a> {
    SaveTensor { name: name.into(), shape: shape.to_vec(), values: values.into() }
}

#[test]
fn saved_tensors_read_back_single_and_sharded() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = ([1.0, -2.5, 3.25], [0.1; 4], [7.0]);
    let tensors = [tensor("a", &[3], &a), tensor("b", &[2, 2], &b), tensor("c", &[], &c)];
    for (max, files) in [(usize::MAX, 1), (16, 4)] {
        let dir = dir.path().join(files.to_string());
        save_safetensors(&dir, "model", &tensors, SaveDtype::F32, max).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), files);
        let w = Weights::open(&dir).unwrap();
        assert_eq!(w.read("a").unwrap(), a);
        assert_eq!(w.read("b").unwrap(), b);
        assert_eq!(w.read("c").unwrap(), c);
        assert_eq!(w.shape("c").unwrap(), &[] as &[usize]);
    }
    save_safetensors(dir.path(), "half", &tensors, SaveDtype::Bf16, usize::MAX).unwrap();
    let w = Weights::open(&dir.path().join("half.safetensors")).unwrap();
    assert_eq!(w.read("a").unwrap(), a); // few bits: exact in bf16
    assert_eq!(w.read("b").unwrap(), [0.100_097_656; 4]); // 0x3dcd
}

/// A safetensors file from a header and a number of zero bytes.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn refuse(bytes: &[u8], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    fs::write(&path, bytes).unwrap();
    let error = Weights::open(&path).unwrap_err().to_string();
    for word in words.iter().chain(&["bad.safetensors"]) {
        assert!(error.contains(word), "`{error}` should say `{word}`");
    }
}

#[test]
fn hostile_safetensors_are_refused_with_names_and_numbers() {
    let row = |offsets: Value| json!({"dtype": "F32", "shape": [2], "data_offsets": offsets});
    let two = |a: Value, b: Value| json!({"a": row(a), "b": row(b)}).to_string();
    refuse(b"", &["0 bytes"]);
    refuse(b"1234567", &["7 bytes"]);
    refuse(&u64::MAX.to_le_bytes(), &["18446744073709551615"]);
    refuse(&100_000_001u64.to_le_bytes(), &["100000001", "limit 100000000"]);
    refuse(&raw("{", 0), &["header"]);
    refuse(&raw(&"[".repeat(100_000), 0), &["header"]);
    refuse(&raw("\u{0}", 0), &["header"]);
    refuse(&raw(&json!({"a": 1}).to_string(), 0), &["header"]);
    refuse(&raw(&json!({"a": row(json!([0, 16]))}).to_string(), 8), &["`a`", "[0, 16]", "8 bytes"]);
    refuse(&raw(&json!({"a": row(json!([8, 0]))}).to_string(), 8), &["`a`", "[8, 0]"]);
    refuse(&raw(&json!({"a": row(json!([0, 4]))}).to_string(), 4), &["`a`", "takes 8 bytes", "give 4"]);
    refuse(&raw(&two(json!([0, 8]), json!([4, 12])), 12), &["`b`", "[4, 12]", "overlaps", "ends at 8"]);
    refuse(&raw(&two(json!([0, 8]), json!([12, 20])), 20), &["`b`", "hole"]);
    refuse(&raw(&two(json!([0, 8]), json!([8, 16])), 20), &["end at byte", "the file at"]);
    refuse(
        &raw(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            8,
        ),
        &["`a` occurs twice"],
    );
    let huge =
        json!({"a": {"dtype": "F32", "shape": [4294967296u64, 4294967296u64], "data_offsets": [0, 0]}});
    refuse(&raw(&huge.to_string(), 0), &["`a`", "overflows"]);
    let dtype = json!({"a": {"dtype": "F3", "shape": [2], "data_offsets": [0, 8]}});
    refuse(&raw(&dtype.to_string(), 8), &["`a`", "`F3`"]);
    let negative = json!({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}});
    refuse(&raw(&negative.to_string(), 8), &["-2"]);
}

#[test]
fn a_value_that_is_no_number_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nan.safetensors");
    let mut bytes = raw(&json!({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).to_string(), 8);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = Weights::open(&path).unwrap().read("w").unwrap_err().to_string();
    assert!(error.contains("`w`") && error.contains("NaN") && error.contains("index 1"), "{error}");
}

#[test]
fn integers_are_not_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ints.safetensors");
    let header = json!({"position_ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}});
    fs::write(&path, raw(&header.to_string(), 8)).unwrap();
    let error = Weights::open(&path).unwrap().read("position_ids").unwrap_err().to_string();
    assert!(error.contains("`position_ids`") && error.contains("I64"), "{error}");
}

#[test]
fn a_missing_shard_and_a_wrong_index_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let values = [0.0; 4];
    let tensors = [tensor("a", &[4], &values), tensor("b", &[4], &values)];
    save_safetensors(dir.path(), "model", &tensors, SaveDtype::F32, 16).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    let good = fs::read_to_string(&index).unwrap();
    let open = || Weights::open(dir.path()).unwrap_err().to_string();

    fs::write(&index, good.replace("\"b\"", "\"c\"")).unwrap();
    assert!(open().contains("`c`"), "{}", open());
    fs::write(&index, good.replace("model-00002", "../model-00002")).unwrap();
    assert!(open().contains("not a plain file name"), "{}", open());
    fs::write(&index, "[]").unwrap();
    assert!(open().contains("index"), "{}", open());
    fs::write(&index, good).unwrap();
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(
        open().contains("1 of 2 shards") && open().contains("model-00002-of-00002.safetensors"),
        "{}",
        open()
    );
}

#[test]
fn all_disagreements_come_in_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let values = [0.0; 4];
    save_safetensors(
        dir.path(),
        "model",
        &[tensor("a", &[4], &values), tensor("b", &[4], &values)],
        SaveDtype::F32,
        usize::MAX,
    )
    .unwrap();
    let w = Weights::open(dir.path()).unwrap();
    let demanded = [TensorSpec::new("a", &[2, 2]), TensorSpec::new("c", &[1])];
    let error = w.check(&demanded, |_| false).unwrap_err().to_string();
    for part in [
        "1 missing, 1 unexpected, 1 with another shape",
        "missing     c",
        "unexpected  b",
        "a: expected [2, 2], found [4]",
    ] {
        assert!(error.contains(part), "{error}");
    }
    w.check(&[TensorSpec::new("a", &[4])], |n| n == "b").unwrap();
}

#[test]
fn a_config_that_does_not_fit_the_weights_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint("llama_tied", dir.path());
    let config = dir.path().join("config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["intermediate_size"] = 1_000_000.into();
    value["num_hidden_layers"] = 3.into();
    fs::write(&config, value.to_string()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let error = LanguageModel::load(&checkpoint, Keep::Trainable, DType::F32).unwrap_err().to_string();
    // A third layer has nine tensors; three tensors of each of the two real layers have another shape.
    assert!(error.contains("9 missing, 0 unexpected, 6 with another shape"), "{error}");
    assert!(error.contains("mlp.up_proj.weight: expected [1000000, 16], found [20, 16]"), "{error}");
}

#[test]
fn bad_configs_name_the_key() {
    let good = || {
        json!({"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
               "num_attention_heads": 2})
    };
    let refuse = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let mut value = good();
        change(&mut value);
        let error =
            ocelli_model::ModelConfig::from_value(value, Path::new("config.json")).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    ocelli_model::ModelConfig::from_value(good(), Path::new("config.json")).unwrap();
    refuse(&|v| v["model_type"] = "mamba".into(), &["`model_type`", "mamba"]);
    refuse(&|v| v["hidden_size"] = 0.into(), &["`hidden_size`", "found 0"]);
    refuse(&|v| v["hidden_size"] = (-8).into(), &["`hidden_size`", "found -8"]);
    refuse(&|v| v["hidden_size"] = json!(1u64 << 40), &["`hidden_size`", "1048576"]);
    refuse(&|v| v["vocab_size"] = "many".into(), &["`vocab_size`", "many"]);
    refuse(&|v| v["num_attention_heads"] = 3.into(), &["`num_attention_heads`", "8"]);
    refuse(&|v| v["num_key_value_heads"] = 3.into(), &["`num_key_value_heads`", "2 query heads"]);
    refuse(&|v| v["head_dim"] = 3.into(), &["`head_dim`", "even"]);
    refuse(&|v| v["hidden_act"] = "gelu".into(), &["`hidden_act`", "gelu"]);
    refuse(&|v| v["rope_scaling"] = json!({"type": "yarn"}), &["`rope_scaling.type`", "yarn"]);
    refuse(&|v| v["rope_parameters"] = json!({"rope_theta": -1}), &["`rope_parameters.rope_theta`"]);
    refuse(&|v| v["text_config"] = json!(3), &["`text_config`", "an object"]);
    refuse(
        &|v| v["text_config"] = json!({"hidden_size": 8}),
        &["`text_config.num_attention_heads`", "nothing"],
    );
    refuse(
        &|v| v["rope_scaling"] = json!({"type": "mrope", "mrope_section": [1, 1, 1]}),
        &["`rope_scaling.mrope_section`", "= 2"],
    );
}

#[test]
fn a_nested_text_config_is_read_and_a_window_bounds_the_context() {
    let value = json!({"model_type": "some_vl", "tie_word_embeddings": true, "text_config": {
        "model_type": "qwen2", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 100, "sliding_window": 10, "use_sliding_window": true,
        "rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}});
    let config = ocelli_model::ModelConfig::from_value(value, Path::new("config.json")).unwrap();
    assert_eq!(config.text.context(), 10);
    assert!(config.text.tie_word_embeddings && config.text.qkv_bias);
    assert_eq!(config.text.rope.theta, 1e6);
    let mrope = config.text.rope.mrope.unwrap();
    assert_eq!((0..4).map(|j| mrope.axis(j)).collect::<Vec<_>>(), [0, 0, 1, 2]);
}

fn refuse_gguf(bytes: &[u8], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.gguf");
    fs::write(&path, bytes).unwrap();
    let error = Gguf::open(&path).unwrap_err().to_string();
    for word in words.iter().chain(&["bad.gguf"]) {
        assert!(error.contains(word), "`{error}` should say `{word}`");
    }
}

/// A GGUF file: `pairs` and `infos` as raw bytes behind a header with their numbers.
fn gguf(counts: (u64, u64), rest: &[u8]) -> Vec<u8> {
    [b"GGUF".as_slice(), &3u32.to_le_bytes(), &counts.0.to_le_bytes(), &counts.1.to_le_bytes(), rest].concat()
}

fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()
}

/// A tensor info of one dimension.
fn info(name: &str, len: u64, kind: u32, offset: u64) -> Vec<u8> {
    [
        text(name),
        1u32.to_le_bytes().to_vec(),
        len.to_le_bytes().to_vec(),
        kind.to_le_bytes().to_vec(),
        offset.to_le_bytes().to_vec(),
    ]
    .concat()
}

#[test]
fn hostile_gguf_is_refused_with_names_and_numbers() {
    let max = u64::MAX;
    refuse_gguf(b"", &["magic"]);
    refuse_gguf(b"GGML\x03\0\0\0", &["magic GGUF"]);
    refuse_gguf(b"GGUF\x01\0\0\0", &["version 1"]);
    refuse_gguf(&gguf((max, 0), b""), &["18446744073709551615 tensors"]);
    refuse_gguf(&gguf((0, max), b""), &["18446744073709551615 metadata"]);
    refuse_gguf(&gguf((0, 1), &max.to_le_bytes()), &["metadata key", "18446744073709551615"]);
    refuse_gguf(&gguf((0, 1), &[text("k"), 99u32.to_le_bytes().to_vec()].concat()), &["`k`", "type 99"]);
    // An array that claims 2^61 texts, and one of arrays.
    let array = |kind: u32, n: u64| {
        [text("k"), 9u32.to_le_bytes().to_vec(), kind.to_le_bytes().to_vec(), n.to_le_bytes().to_vec()]
            .concat()
    };
    refuse_gguf(&gguf((0, 1), &array(8, 1 << 61)), &["`k`", "2305843009213693952"]);
    refuse_gguf(&gguf((0, 1), &array(4, 1_000_000)), &["`k`", "1000000 values"]);
    refuse_gguf(&gguf((0, 1), &array(9, 1)), &["`k`", "type 9"]);
    let bad_text =
        [text("k"), 8u32.to_le_bytes().to_vec(), 2u64.to_le_bytes().to_vec(), vec![0xff, 0xfe]].concat();
    refuse_gguf(&gguf((0, 1), &bad_text), &["`k`", "utf-8"].map(|w| if w == "`k`" { "k" } else { w }));
    let twice =
        [text("k"), 7u32.to_le_bytes().to_vec(), vec![1], text("k"), 7u32.to_le_bytes().to_vec(), vec![1]]
            .concat();
    refuse_gguf(&gguf((0, 2), &twice), &["`k` occurs twice"]);
    let alignment =
        [text("general.alignment"), 4u32.to_le_bytes().to_vec(), 3u32.to_le_bytes().to_vec()].concat();
    refuse_gguf(&gguf((0, 1), &alignment), &["general.alignment"]);

    refuse_gguf(&gguf((1, 0), &info("t", 8, 0, 0)), &["`t`", "takes 32 bytes"]);
    refuse_gguf(&gguf((1, 0), &info("t", 1 << 62, 0, 0)), &["`t`", "overflows"]);
    refuse_gguf(&gguf((1, 0), &info("t", 8, 7, 0)), &["`t`", "type 7"]);
    refuse_gguf(&gguf((1, 0), &info("t", 33, 3, 0)), &["`t`", "33 values", "32 values"]);
    refuse_gguf(&gguf((1, 0), &info("t", 8, 0, 5)), &["`t`", "offset 5"]);
    refuse_gguf(&gguf((1, 0), &info("t", 8, 0, max - 31)), &["`t`", "18446744073709551584"]);
    let dims = [text("t"), 5u32.to_le_bytes().to_vec()].concat();
    refuse_gguf(&gguf((1, 0), &dims), &["`t`", "5 dimensions"]);
    let mut overlap = gguf((2, 0), &[info("a", 16, 0, 0), info("b", 8, 0, 32)].concat());
    overlap.resize(overlap.len().next_multiple_of(32) + 64, 0);
    refuse_gguf(&overlap, &["`b`", "inside tensor `a`"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_gguf_never_panics(at in 0usize..2000, byte: u8, cut in 0usize..7104) {
        let mut bytes = fs::read(fixtures().join("quants.gguf")).unwrap();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        fs::write(&path, bytes).unwrap();
        if let Ok(w) = Weights::open(&path) {
            for name in w.names() {
                let _ = w.read(name);
            }
        }
    }

    #[test]
    fn damaged_safetensors_never_panic(at in 0usize..1500, byte: u8, cut in 0usize..100) {
        let mut bytes = fs::read(fixtures().join("quants.safetensors")).unwrap();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        fs::write(&path, bytes).unwrap();
        if let Ok(w) = Weights::open(&path) {
            for name in w.names() {
                let _ = w.read(name);
            }
        }
    }
}

/// Qwen2's tokenizer as older checkpoints have it: a vocabulary, merges, and added tokens apart.
#[test]
fn a_vocabulary_in_pieces_is_read_as_the_tokenizer_that_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let tokens = [
        "h", "e", "l", "o", "w", "r", "d", "1", "2", "\u{120}", "\u{10a}", "he", "ll", "hell", "hello",
        "\u{120}w", "12",
    ];
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    write("vocab.json", &serde_json::Value::from(vocab).to_string());
    write("merges.txt", "#version: 0.2\nh e\nl l\nhe ll\nhell o\n\u{120} w\n1 2\n");
    write("added_tokens.json", r#"{"<|im_end|>": 17, "<img>": 18, "<tool_call>": 19}"#);
    let config = serde_json::json!({
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            "17": {"content": "<|im_end|>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true},
            "18": {"content": "<img>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true},
        },
    });
    let config = config.as_object().unwrap();
    let tokenizer = ocelli_model::Tokenizer::from_vocabulary(dir.path(), config).unwrap().unwrap();
    // Transformers 5.23's Qwen2Tokenizer over the same files gives these ids; Qwen2 keeps digits apart.
    let ids = [14, 15, 3, 5, 2, 6, 17, 18, 7, 8, 10, 19];
    assert_eq!(tokenizer.encode("hello world<|im_end|><img>12\n<tool_call>").unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "hello world<|im_end|><img>12\n<tool_call>");
    assert_eq!(tokenizer.decode_plain(&ids).unwrap(), "hello world12\n<tool_call>");

    write("added_tokens.json", r#"{"<tool_call>": 25}"#);
    let error = ocelli_model::Tokenizer::from_vocabulary(dir.path(), config).unwrap_err().to_string();
    assert!(error.contains("<tool_call>") && error.contains("25"), "{error}");
    write("merges.txt", "#version: 0.2\nhe\n");
    let error = ocelli_model::Tokenizer::from_vocabulary(dir.path(), config).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains("line 2"), "{error}");
    // Other classes have other rules; without the files there is nothing to read.
    let other = serde_json::json!({"tokenizer_class": "CLIPTokenizer"});
    assert!(
        ocelli_model::Tokenizer::from_vocabulary(dir.path(), other.as_object().unwrap()).unwrap().is_none()
    );
    std::fs::remove_file(dir.path().join("vocab.json")).unwrap();
    assert!(ocelli_model::Tokenizer::from_vocabulary(dir.path(), config).unwrap().is_none());
}
