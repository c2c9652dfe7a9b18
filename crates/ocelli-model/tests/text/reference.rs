//! Templates, tokenizers and a real model against the reference; `fixtures/parity/chat.py` wrote the expectations.
//!
//! What released models bring (templates, vocabularies, weights) is read from the directory in `OCELLI_TEST_MODELS`,
//! which `.ci/fetch-test-data.sh` makes; without it these tests say so and pass.

use std::path::PathBuf;

use ocelli_data::{ContentHash, Message, Part, Role, ToolCall, ToolResult};
use ocelli_model::generate::{Engine, EngineLimits, Sampling, StopReason};
use ocelli_model::{
    ChatOptions, ChatTemplate, Checkpoint, Keep, LanguageModel, SaveDtype, SpecialTokens, TextStream,
    Tokenizer,
};
use ocelli_tensor::DType;
use serde_json::Value;

use crate::tiny::fixtures;

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("chat.json")).unwrap()).unwrap()
}

/// The directory of test models, or `None` with a message.
fn models() -> Option<PathBuf> {
    let dir = std::env::var_os("OCELLI_TEST_MODELS").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: OCELLI_TEST_MODELS is not set (run .ci/fetch-test-data.sh)");
    }
    dir
}

fn smollm2() -> Option<Checkpoint> {
    Some(Checkpoint::open(&models()?.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap())
}

fn qwen3() -> Option<(Tokenizer, ChatTemplate)> {
    let dir = models()?.join("qwen3");
    if !dir.exists() {
        eprintln!("skipped: {} is not there (fetch-test-data.sh needs npm for it)", dir.display());
        return None;
    }
    let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json")).unwrap();
    let config: Value =
        serde_json::from_slice(&std::fs::read(dir.join("tokenizer_config.json")).unwrap()).unwrap();
    let special = SpecialTokens::from_config(config.as_object().unwrap());
    assert_eq!(special.eos.as_deref(), Some("<|im_end|>"));
    let chat = ChatTemplate::new(config["chat_template"].as_str().unwrap(), special).unwrap();
    Some((tokenizer, chat))
}

/// Messages in the reference's form as ours.
fn messages(list: &Value) -> Vec<Message> {
    let message = |m: &Value| {
        let parts: Vec<Part> = match &m["content"] {
            Value::Array(parts) => parts
                .iter()
                .map(|p| match p["text"].as_str() {
                    Some(t) => Part::text(t),
                    None => Part::image(ContentHash::of(b"picture")),
                })
                .collect(),
            text => vec![Part::text(text.as_str().unwrap())],
        };
        let mut message = Message::user(parts.clone());
        message.role = serde_json::from_value(m["role"].clone()).unwrap();
        if message.role == Role::Tool {
            let name = m["name"].as_str().unwrap().to_owned();
            message = Message::tool(ToolResult { id: String::new(), name, content: parts, is_error: false });
        }
        for call in m["tool_calls"].as_array().into_iter().flatten() {
            let f = &call["function"];
            let arguments = f["arguments"].as_object().unwrap().clone();
            message.tool_calls.push(ToolCall {
                id: String::new(),
                name: f["name"].as_str().unwrap().into(),
                arguments,
            });
        }
        message
    };
    list.as_array().unwrap().iter().map(message).collect()
}

fn check_prompts(name: &str, chat: &ChatTemplate) {
    let expected = expected();
    let mut n = 0;
    for prompt in expected["prompts"].as_array().unwrap().iter().filter(|p| p["template"] == name) {
        let d = &expected["dialogues"][prompt["case"].as_str().unwrap()];
        let options = ChatOptions {
            tools: d["tools"].as_array().unwrap().clone(),
            add_generation_prompt: d["generate"].as_bool().unwrap(),
            extra: d["extra"].as_object().unwrap().clone(),
        };
        let text = chat.render(&messages(&d["messages"]), &options).unwrap();
        assert_eq!(text, prompt["text"].as_str().unwrap(), "{name} {}", prompt["case"]);
        n += 1;
    }
    assert_eq!(n, 5);
}

#[test]
fn own_templates_render_as_the_reference() {
    let expected = expected();
    let special = SpecialTokens { bos: Some("<s>".into()), ..SpecialTokens::default() };
    let tools = expected["dialogues"]["tools"].clone();
    for own in expected["own"].as_array().unwrap() {
        let chat = ChatTemplate::new(own["source"].as_str().unwrap(), special.clone()).unwrap();
        let dialogue = match own["name"].as_str() {
            Some("parts") => {
                vec![Message::user([Part::image(ContentHash::of(b"")), Part::text("How many?")])]
            }
            _ => messages(&tools["messages"]),
        };
        let options = ChatOptions { tools: vec![tools["tools"][0].clone()], ..ChatOptions::default() };
        assert_eq!(
            chat.render(&dialogue, &options).unwrap(),
            own["text"].as_str().unwrap(),
            "{}",
            own["name"]
        );
    }
}

#[test]
fn a_template_over_parts_gets_parts_for_plain_text_too() {
    let source = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    let chat = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
    assert_eq!(chat.render(&[Message::user([Part::text("hi")])], &ChatOptions::default()).unwrap(), "hi");
}

#[test]
fn smollm2_prompts_are_the_references_bytes() {
    let Some(checkpoint) = smollm2() else { return };
    check_prompts("smollm2", checkpoint.chat().unwrap());
}

#[test]
fn qwen3_prompts_are_the_references_bytes() {
    let Some((tokenizer, chat)) = qwen3() else { return };
    check_prompts("qwen3", &chat);
    // What follows an assistant turn is the same text as in the whole dialogue.
    let result = |text: &str| {
        Message::tool(ToolResult {
            id: String::new(),
            name: "crop".into(),
            content: vec![Part::text(text)],
            is_error: false,
        })
    };
    let tail = chat.continuation(&[result("first"), result("second")], &ChatOptions::prompt()).unwrap();
    let want = "<|im_end|>\n<|im_start|>user\n<tool_response>\nfirst\n</tool_response>\n<tool_response>\nsecond\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(tail, want);
    assert_eq!(tokenizer.encode(&tail).unwrap()[0], tokenizer.id("<|im_end|>").unwrap());
}

fn check_ids(name: &str, tokenizer: &Tokenizer) {
    let expected = expected();
    for (text, ids) in
        expected["texts"].as_array().unwrap().iter().zip(expected["ids"][name].as_array().unwrap())
    {
        let (text, want): (&str, Vec<u32>) =
            (text.as_str().unwrap(), serde_json::from_value(ids.clone()).unwrap());
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, want, "{name} {text:?}");
        let mut stream = TextStream::new();
        let mut streamed: String = ids.iter().map(|&id| stream.push(id, tokenizer).unwrap()).collect();
        streamed += &stream.finish(tokenizer).unwrap();
        assert_eq!(streamed, tokenizer.decode_plain(&ids).unwrap(), "{name} {text:?}");
    }
}

#[test]
fn qwen3_ids_are_the_references() {
    let Some((tokenizer, _)) = qwen3() else { return };
    assert_eq!(tokenizer.vocab_size(), 151_669);
    check_ids("qwen3", &tokenizer);
}

#[test]
fn smollm2_ids_are_the_references() {
    let Some(checkpoint) = smollm2() else { return };
    let tokenizer = checkpoint.tokenizer().unwrap();
    assert_eq!(tokenizer.vocab_size(), 49_152);
    check_ids("smollm2", tokenizer);
    let copy = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes(), "copy".as_ref()).unwrap();
    check_ids("smollm2", &copy);
}

#[test]
fn smollm2_answers_as_the_reference_in_f32() {
    let Some(checkpoint) = smollm2() else { return };
    let model = LanguageModel::load(&checkpoint, Keep::Frozen(DType::F32), DType::F32).unwrap();
    let (tokenizer, chat) = (checkpoint.tokenizer().unwrap(), checkpoint.chat().unwrap());
    let mut engine =
        Engine::new(&model.text, &model.params, Some(tokenizer), EngineLimits::default()).unwrap();
    let expected = expected();
    let greedy = expected["greedy"].as_array().unwrap();
    let sampling =
        Sampling { max_new_tokens: 48, stop_ids: checkpoint.eos_ids.clone(), ..Sampling::greedy() };
    for case in greedy {
        let question = Message::user([Part::text(case["question"].as_str().unwrap())]);
        let prompt = chat.render(&[question], &ChatOptions::prompt()).unwrap();
        engine.start(tokenizer.encode(&prompt).unwrap().into(), 1, &sampling, 0, 0).unwrap();
    }
    let mut streamed = vec![String::new(); greedy.len()];
    let turns = engine.run(|seq, text| streamed[seq.0 as usize] += text).unwrap();
    for ((turn, case), streamed) in turns.iter().zip(greedy).zip(&streamed) {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(
            (turn.ids.as_slice(), turn.text.as_str()),
            (ids.as_slice(), case["text"].as_str().unwrap())
        );
        assert_eq!(&turn.text, streamed);
    }
    assert_eq!(turns[0].text, "The capital of France is Paris.");
    assert_eq!(turns[0].reason, StopReason::Token(2));
}

#[test]
fn a_stop_string_cuts_text_but_not_ids() {
    let Some(checkpoint) = smollm2() else { return };
    let model = LanguageModel::load(&checkpoint, Keep::Frozen(DType::F32), DType::F32).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let mut engine =
        Engine::new(&model.text, &model.params, Some(tokenizer), EngineLimits::default()).unwrap();
    let question = Message::user([Part::text("What is the capital of France?")]);
    let prompt = checkpoint.chat().unwrap().render(&[question], &ChatOptions::prompt()).unwrap();
    let sampling = Sampling { stop_strings: vec!["France is".into()], ..Sampling::greedy() };
    engine.start(tokenizer.encode(&prompt).unwrap().into(), 1, &sampling, 0, 0).unwrap();
    let mut streamed = String::new();
    let turn = engine.run(|_, text| streamed += text).unwrap().remove(0);
    assert_eq!((turn.text.as_str(), streamed.as_str()), ("The capital of ", "The capital of "));
    assert_eq!(turn.reason, StopReason::Text("France is".into()));
    assert_eq!(tokenizer.decode(&turn.ids).unwrap(), "The capital of France is");
}

#[test]
fn a_gguf_file_saves_as_a_hub_checkpoint_with_the_same_weights() {
    let Some(checkpoint) = smollm2() else { return };
    let model = LanguageModel::load(&checkpoint, Keep::Frozen(DType::F32), DType::F32).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path(), &checkpoint, SaveDtype::F32).unwrap();
    let saved = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(saved.config.text, checkpoint.config.text);
    assert_eq!(saved.eos_ids, checkpoint.eos_ids);
    assert_eq!(saved.chat().unwrap().source(), checkpoint.chat().unwrap().source());
    for name in ["model.layers.29.self_attn.q_proj.weight", "model.embed_tokens.weight"] {
        assert_eq!(saved.weights.read(name).unwrap(), checkpoint.weights.read(name).unwrap());
    }
    check_ids("smollm2", saved.tokenizer().unwrap());
}
