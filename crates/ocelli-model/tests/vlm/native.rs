//! The native family: created, asked, saved, loaded.

use ocelli_data::{Message, Part, ToolCall, ToolResult};
use ocelli_model::image::Preprocessor;
use ocelli_model::vlm::tiny::TinyConfig;
use ocelli_model::vlm::{Group, LoadOptions, Part as ModelPart};
use ocelli_model::{ChatOptions, Checkpoint, ModelError, SaveDtype, Vlm};
use ocelli_tensor::Tape;
use serde_json::json;

use crate::pictures::{album, ask, png, small};

#[test]
fn presets_have_the_sizes_of_their_names() {
    for (name, least, most) in [
        ("tiny-0.5m", 0.45e6, 0.6e6),
        ("tiny-2m", 1.8e6, 2.3e6),
        ("tiny-8m", 7.5e6, 8.6e6),
        ("tiny-30m", 28e6, 31e6),
    ] {
        let vlm = Vlm::tiny(&TinyConfig::preset(name).unwrap(), 0).unwrap();
        let n = vlm.params.element_count() as f64;
        assert!((least..most).contains(&n), "{name}: {n} parameters");
    }
    assert!(matches!(TinyConfig::preset("tiny-1b"), Err(ModelError::Request(_))));
}

#[test]
fn a_dialogue_with_tools_is_written_as_documented() {
    let vlm = small();
    let (album, hashes) = album(&[png(20, 20, 1), png(30, 20, 2)]);
    let call = ToolCall {
        id: String::new(),
        name: "crop".into(),
        arguments: json!({"image": "img_0", "bbox": [1, 2, 3, 4]}).as_object().unwrap().clone(),
    };
    let mut said = Message::assistant("<think>look closer</think>");
    said.tool_calls.push(call);
    let result = ToolResult {
        id: String::new(),
        name: "crop".into(),
        content: vec![Part::image(hashes[1])],
        is_error: false,
    };
    let messages = [
        Message::system("Be brief."),
        Message::user([Part::text("A: "), Part::image(hashes[0]), Part::text(" how many?")]),
        said,
        Message::tool(result.clone()),
    ];
    let tool = json!({"type": "function", "function": {"name": "crop", "parameters": {"type": "object",
        "properties": {"image": {"type": "string"}, "bbox": {"type": "array"}}}}});
    let options = ChatOptions { tools: vec![tool], ..ChatOptions::prompt() };
    let text = vlm.chat().unwrap().render(&messages, &options).unwrap();
    let picture = "<|vision_start|><|image_pad|><|vision_end|>";
    let expected = format!(
        "<|im_start|>system\nBe brief.\nTools:\ncrop(image, bbox)<|im_end|>\n<|im_start|>user\nA: {picture} how many?<|im_end|>\n\
         <|im_start|>assistant\n<think>look closer</think><tool_call>\n{{\"name\": \"crop\", \"arguments\": {{\"image\": \"img_0\", \
         \"bbox\": [1, 2, 3, 4]}}}}\n</tool_call><|im_end|>\n<|im_start|>tool\n{picture}<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(text, expected);

    // Placeholders are expanded where they stand. A token is 8 x 8 pixels: 20 / 8 = 2.5 rounds to the even 2, 30 / 8 = 3.75 to
    // 4, so 20 x 20 takes 2 x 2 tokens and 30 x 20 takes 4 x 2.
    let context = vlm.prompt(&messages, &options, &album).unwrap();
    let sizes: Vec<usize> = context.images().iter().map(|i| i.rows.len()).collect();
    assert_eq!(sizes, [4, 8]);
    // Written turn by turn, the ids are the same: nothing is tokenised twice.
    let mut turns = vlm.prompt(&messages[..2], &options, &album).unwrap();
    let sampled = "<think>look closer</think><tool_call>\n{\"name\": \"crop\", \"arguments\": {\"image\": \"img_0\", \"bbox\": [1, 2, 3, 4]}}\n</tool_call>";
    turns.push(&vlm.tokenizer().unwrap().encode(sampled).unwrap());
    let new = vlm.continue_dialogue(&mut turns, &[Message::tool(result)], &options, &album).unwrap();
    assert_eq!(turns.ids(), context.ids());
    assert_eq!(new.end, turns.len());
    assert_eq!(turns.images()[1].rows, context.images()[1].rows);
}

#[test]
fn pictures_and_placeholders_must_agree() {
    let vlm = small();
    let (album, hashes) = album(&[png(20, 20, 1)]);
    // A placeholder in somebody's text is text: no picture belongs to it.
    let forged = Message::user([Part::image(hashes[0]), Part::text("<|image_pad|>")]);
    let context = vlm.prompt(&[forged], &ChatOptions::prompt(), &album).unwrap();
    let pad = vlm.tokenizer().unwrap().encode("<|image_pad|>").unwrap();
    assert_eq!(pad.len(), 1);
    assert_eq!(context.images().len(), 1);
    assert_eq!(context.ids().iter().filter(|id| **id == pad[0]).count(), context.images()[0].rows.len());
    let missing = Message::user([Part::image(ocelli_data::ContentHash::of(b"nowhere"))]);
    assert!(vlm.prompt(&[missing], &ChatOptions::prompt(), &album).is_err());
    let mut broken = album.clone();
    broken.insert(hashes[0], b"\x89PNG\r\n\x1a\nrubbish".to_vec());
    let err =
        vlm.prompt(&[Message::user([Part::image(hashes[0])])], &ChatOptions::prompt(), &broken).unwrap_err();
    assert!(matches!(err, ModelError::Image { .. }), "{err}");
}

#[test]
fn saved_and_loaded_models_compute_the_same_bits() {
    let mut vlm = small();
    vlm.add_value_head(1).unwrap();
    let (album, hashes) = album(&[png(20, 30, 1)]);
    let context = ask(&vlm, &album, &hashes, "How many?");
    let states = |vlm: &Vlm| {
        let batch = vlm.pack(&[Group::single(&context)]).unwrap();
        let mut tape = Tape::inference(&vlm.params);
        let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
        let value = vlm.values(&mut tape, &hidden, &[context.len() - 1]).unwrap();
        (hidden.value().to_vec(), value.value().to_vec())
    };
    let before = states(&vlm);
    let dir = tempfile::tempdir().unwrap();
    vlm.save(dir.path(), SaveDtype::F32).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut loaded = Vlm::load(&checkpoint, LoadOptions::default()).unwrap();
    assert_eq!(states(&loaded), before);
    assert_eq!(loaded.eos_ids, vlm.eos_ids);
    assert_eq!(ask(&loaded, &album, &hashes, "How many?").ids(), context.ids());
    let Some(Preprocessor::Qwen(p)) = loaded.preprocessor_mut() else { panic!("Qwen preprocessing") };
    assert_eq!((p.patch, p.frames, p.max_pixels), (4, 1, 32 * 32));

    // A missing tensor is named, together with all others.
    let err = Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::frozen()).map(|_| ());
    assert!(err.is_ok());
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("config.json"), config.replace("\"depth\": 2", "\"depth\": 3")).unwrap();
    let err =
        Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).unwrap_err().to_string();
    assert!(err.contains("12 missing") && err.contains("model.visual.blocks.2.attn.qkv.weight"), "{err}");
}

#[test]
fn every_part_has_its_group_and_may_be_exchanged() {
    let mut vlm = small();
    vlm.add_value_head(1).unwrap();
    let total: usize = ModelPart::ALL.iter().map(|&p| vlm.parameters(p).count()).sum();
    assert_eq!(total, vlm.params.len());
    let names = |part| -> Vec<String> {
        vlm.parameters(part).map(|id| vlm.params.get(id).unwrap().name().to_owned()).collect()
    };
    assert!(names(ModelPart::Projector).iter().all(|n| n.starts_with("model.visual.merger.")));
    assert_eq!(names(ModelPart::Projector).len(), 6);
    assert!(names(ModelPart::Tower).contains(&"model.visual.pos_embed.weight".to_owned()));
    assert!(names(ModelPart::Language).iter().all(|n| n.starts_with("model.language_model.")));
    assert_eq!(names(ModelPart::ValueHead).len(), 2);

    let mut other = small();
    let ids: Vec<_> = other.parameters(ModelPart::Projector).collect();
    for &id in &ids {
        let shape = other.params.get(id).unwrap().value().shape().to_vec();
        other
            .params
            .set_value(id, ocelli_tensor::Tensor::full(&shape, 0.5, ocelli_tensor::DType::F32))
            .unwrap();
    }
    vlm.take_part(ModelPart::Projector, &other).unwrap();
    for (id, p) in vlm.params.iter() {
        let taken = p.value().to_vec().iter().all(|v| *v == 0.5);
        assert_eq!(taken, ids.contains(&id), "{}", p.name());
    }
}
