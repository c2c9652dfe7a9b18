//! Models put together from parts: a text model gets eyes.

use ocelli_data::{Message, Part as MessagePart};
use ocelli_model::vlm::assembled::Assembly;
use ocelli_model::vlm::tiny::{TinyVision, tokenizer};
use ocelli_model::vlm::{Group, LoadOptions, Part};
use ocelli_model::{ChatOptions, Checkpoint, SaveDtype, SaveTensor, TensorSpec, TextModel, TextNames, Vlm};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Grads, Tape, Tensor};
use serde_json::json;

use crate::pictures::{Album, album, png};

/// A random Llama with the native tokenizer, as a checkpoint.
fn text_model(dir: &std::path::Path) -> Checkpoint {
    let config = json!({
        "model_type": "llama", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "tie_word_embeddings": true,
        "rms_norm_eps": 1e-5,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.join("tokenizer.json"), tokenizer().unwrap().to_json().unwrap()).unwrap();
    std::fs::write(dir.join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let config = ocelli_model::ModelConfig::read(&dir.join("config.json")).unwrap();
    let tensors: Vec<SaveTensor<'_>> = TextModel::specs(&config.text, &TextNames::default())
        .into_iter()
        .enumerate()
        .map(|(i, TensorSpec { name, shape })| {
            let n: usize = shape.iter().product();
            let one = if shape.len() == 1 { 1.0 } else { 0.0 };
            let values: Vec<f32> = (0..n).map(|k| one + ((k * 37 + i * 101) as f32).sin() * 0.2).collect();
            SaveTensor { name, shape, values: values.into() }
        })
        .collect();
    ocelli_model::save_safetensors(dir, "model", &tensors, SaveDtype::F32, usize::MAX).unwrap();
    Checkpoint::open(dir).unwrap()
}

fn small_assembly() -> Assembly {
    let vision = TinyVision {
        patch: 4,
        width: 16,
        depth: 1,
        heads: 2,
        mlp: 16,
        side: 4,
        min_pixels: 64,
        max_pixels: 1024,
    };
    Assembly { vision, image_token: "<|video_pad|>".into() }
}

/// Log-probability of an answer of three tokens, and the gradients of its mean.
fn answer(vlm: &Vlm, album: &Album, message: Message) -> (f32, Grads) {
    let mut context = vlm.prompt(&[message], &ChatOptions::prompt(), album).unwrap();
    context.push(&[40, 41, 42]);
    let batch = vlm.pack(&[Group::single(&context)]).unwrap();
    let (rows, targets) = batch.predictions(0, context.len() - 3..context.len()).unwrap();
    let mut tape = Tape::train(&vlm.params);
    let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
    let lp = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0).unwrap().logprob;
    let total = lp.value().to_vec().iter().sum();
    let mut grads = Grads::new();
    tape.backward_from(&[(&lp, Tensor::full(&[3], -1.0 / 3.0, DType::F32))], &mut grads).unwrap();
    (total, grads)
}

#[test]
fn a_text_model_learns_to_see_and_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let text = text_model(dir.path());
    let mut vlm = Vlm::assembled(&text, &small_assembly(), DType::F32, 1).unwrap();
    let (album, hashes) = album(&[png(24, 16, 1)]);
    let shown = || Message::user([MessagePart::image(hashes[0]), MessagePart::text("What?")]);
    let language: Vec<_> = vlm.parameters(Part::Language).collect();
    let before: Vec<Vec<f32>> =
        language.iter().map(|&id| vlm.params.get(id).unwrap().value().to_vec()).collect();
    let groups = vec![AdamWGroup { lr: 1e-2, weight_decay: 0.0 }; 4];
    let mut optimizer = AdamW::new(AdamWConfig { groups, ..AdamWConfig::default() });
    let (first, grads) = answer(&vlm, &album, shown());
    assert!(language.iter().all(|&id| grads.get(id).is_none()), "the language model is frozen");
    for part in [Part::Tower, Part::Projector] {
        assert!(vlm.parameters(part).all(|id| grads.get(id).is_some()), "{part:?}");
    }
    for _ in 0..10 {
        let (_, grads) = answer(&vlm, &album, shown());
        optimizer.step(&mut vlm.params, &grads).unwrap();
    }
    let (last, _) = answer(&vlm, &album, shown());
    // The language model is drawn with a standard deviation of 0.02, so that what it sees moves it little; rounding is 1e-5.
    assert!(last > first + 5e-3, "log p from {first} to {last}");
    let after: Vec<Vec<f32>> =
        language.iter().map(|&id| vlm.params.get(id).unwrap().value().to_vec()).collect();
    assert_eq!(before, after);

    // Saved, loaded, the same; and a projector goes into another model over the same text model.
    let saved = tempfile::tempdir().unwrap();
    vlm.save(saved.path(), SaveDtype::F32).unwrap();
    let loaded = Vlm::load(&Checkpoint::open(saved.path()).unwrap(), LoadOptions::default()).unwrap();
    assert_eq!(answer(&loaded, &album, shown()).0, last);
    let mut other = Vlm::assembled(&text, &small_assembly(), DType::F32, 2).unwrap();
    assert_ne!(answer(&other, &album, shown()).0, last);
    other.take_part(Part::Tower, &vlm).unwrap();
    other.take_part(Part::Projector, &vlm).unwrap();
    assert_eq!(answer(&other, &album, shown()).0, last);

    let wrong = Assembly { image_token: "<no such token>".into(), ..small_assembly() };
    assert!(Vlm::assembled(&text, &wrong, DType::F32, 1).is_err());
}

/// SmolLM2-135M with eyes, from the directory in `OCELLI_TEST_MODELS`.
#[test]
fn smollm2_with_eyes_trains_only_its_eyes() {
    let Some(dir) = std::env::var_os("OCELLI_TEST_MODELS") else {
        eprintln!("skipped: OCELLI_TEST_MODELS is not set (run .ci/fetch-test-data.sh)");
        return;
    };
    let path = std::path::Path::new(&dir).join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let text = Checkpoint::open(&path).unwrap();
    let vlm = Vlm::assembled(&text, &Assembly::default(), DType::Bf16, 1).unwrap();
    let (album, hashes) = album(&[png(96, 64, 1)]);
    let message = Message::user([MessagePart::image(hashes[0]), MessagePart::text("What is shown?")]);
    let (total, grads) = answer(&vlm, &album, message);
    assert!(total.is_finite());
    for (id, p) in vlm.params.iter() {
        let seen = grads.get(id).is_some_and(|g| g.to_vec().iter().any(|v| *v != 0.0));
        assert_eq!(seen, p.group() != Part::Language.group(), "{}", p.name());
    }
    // Without a picture it is SmolLM2 as before.
    let plain = Vlm::load(&text, LoadOptions::frozen()).unwrap();
    assert!(!plain.sees());
    let ids = text.tokenizer().unwrap().encode("The capital of France is").unwrap();
    let mut context = ocelli_model::vlm::Context::default();
    context.push(&ids);
    let top = |vlm: &Vlm| {
        let batch = vlm.pack(&[Group::single(&context)]).unwrap();
        let mut tape = Tape::inference(&vlm.params);
        let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
        let logits = vlm.text.logits(&mut tape, &hidden, &[ids.len() - 1]).unwrap().value().to_vec();
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
    };
    assert_eq!(text.tokenizer().unwrap().decode(&[top(&plain)]).unwrap(), " Paris");
    assert_eq!(top(&vlm), top(&plain));
}
