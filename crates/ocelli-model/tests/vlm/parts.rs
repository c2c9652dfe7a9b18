//! Parts at their own rates, adapters on the language model of a model that sees, bf16, and rows that do not match features.

use ocelli_data::{Span, SpanKind, Status, Trajectory};
use ocelli_model::vlm::{LoadOptions, Part, Vlm};
use ocelli_model::{
    Checkpoint, LoraConfig, ModelError, SaveDtype, SaveTensor, Weights, save_safetensors, text::Keep,
};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::pictures::{album, ask, png, small};
use crate::reference::{
    self, FAMILIES, contexts, distance, fixture, logits, loss_and_grads, write_checkpoint,
};

#[test]
fn every_part_learns_at_its_own_rate() {
    let mut vlm = small();
    let (album, hashes) = album(&[png(20, 20, 1)]);
    let context = ask(&vlm, &album, &hashes, "How many?");
    let values = |vlm: &Vlm, part| -> Vec<Vec<f32>> {
        vlm.parameters(part).map(|id| vlm.params.get(id).unwrap().value().to_vec()).collect()
    };
    let parts = [Part::Tower, Part::Projector, Part::Language];
    let before = parts.map(|p| values(&vlm, p));
    let rates = [0.0, 1e-2, 1e-3, 0.0];
    let groups = rates.map(|lr| AdamWGroup { lr, weight_decay: 0.0 }).to_vec();
    let (_, grads) = loss_and_grads(&vlm, &[context], false);
    AdamW::new(AdamWConfig { groups, max_grad_norm: None, ..AdamWConfig::default() })
        .step(&mut vlm.params, &grads)
        .unwrap();
    for (part, before) in parts.into_iter().zip(before) {
        let after = values(&vlm, part);
        let moved = before.iter().zip(&after).map(|(a, b)| distance(a, b)).fold(0.0, f32::max);
        // The first step of Adam is lr * g / (|g| + eps): the rate itself wherever the gradient is not tiny.
        let rate = rates[part.group()];
        assert!((moved - rate).abs() <= 0.01 * rate, "{part:?} moved by {moved} at a rate of {rate}");
    }
}

#[test]
fn rows_that_do_not_match_the_features_are_found_before_any_forward_pass() {
    let vlm = small();
    let (album, hashes) = album(&[png(20, 30, 1)]);
    let context = ask(&vlm, &album, &hashes, "How many?");
    let rows = context.images()[0].rows.clone();
    let recorded = |ids: Vec<u32>| Trajectory {
        sample_id: "s".into(),
        attempt: 0,
        messages: Vec::new(),
        spans: vec![Span { kind: SpanKind::Prompt, len: ids.len() }],
        ids,
        logprobs: Vec::new(),
        weight_versions: Vec::new(),
        images: hashes.clone(),
        tools: Vec::new(),
        status: Status::Answered,
        scores: Vec::new(),
    };
    assert_eq!(vlm.context_of(&recorded(context.ids().to_vec()), &album).unwrap().ids(), context.ids());
    let mut short = context.ids().to_vec();
    short.remove(rows.start);
    match vlm.context_of(&recorded(short), &album).unwrap_err() {
        ModelError::ImageTokens { hash, placeholders, features } => {
            assert_eq!((hash, placeholders, features), (hashes[0], rows.len() - 1, rows.len()));
        }
        other => panic!("{other}"),
    }
    let blind: Vec<u32> =
        context.ids().iter().enumerate().filter(|(i, _)| !rows.contains(i)).map(|(_, id)| *id).collect();
    let error = vlm.context_of(&recorded(blind), &album).unwrap_err();
    assert!(matches!(error, ModelError::Placeholders { placeholders: 0, images: 1 }), "{error}");
    assert_eq!(vlm.feature_stats().computed, 0, "nothing went through the tower");
}

#[test]
fn adapters_on_a_model_that_sees_train_alone_and_are_saved_merged_or_apart() {
    let fixture = fixture();
    for name in FAMILIES {
        let base = tempfile::tempdir().unwrap();
        write_checkpoint(&fixture["families"][name], base.path());
        let open = || Vlm::load(&Checkpoint::open(base.path()).unwrap(), LoadOptions::default()).unwrap();
        let mut vlm = open();
        let contexts = contexts(&fixture, &vlm, name);
        let plain = logits(&vlm, &contexts[1]);
        for part in [Part::Tower, Part::Projector, Part::Language] {
            vlm.set_trainable(part, false).unwrap();
        }
        let (known, config) = (vlm.params.len(), LoraConfig::all(2));
        let blocks = vlm.text.config().num_hidden_layers;
        assert_eq!(
            vlm.attach_adapters(&config, 5).unwrap(),
            7 * blocks,
            "{name}: seven layers in each block"
        );
        assert_eq!(logits(&vlm, &contexts[1]), plain, "{name}: a new adapter changes nothing");
        let added: Vec<_> = vlm.params.ids().skip(known).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for &id in &added {
            let p = vlm.params.get(id).unwrap();
            assert_eq!(p.group(), Part::Language.group(), "{name}: {}", p.name());
            let shape = p.value().shape().to_vec();
            vlm.params.set_value(id, Tensor::randn(&shape, 0.2, &mut rng)).unwrap();
        }
        let (_, grads) = loss_and_grads(&vlm, &contexts, true);
        for id in vlm.params.ids() {
            assert_eq!(
                grads.get(id).is_some(),
                added.contains(&id),
                "{name}: {}",
                vlm.params.get(id).unwrap().name()
            );
        }
        let adapted = logits(&vlm, &contexts[1]);
        assert!(distance(&adapted, &plain) > 1e-2, "{name}: the adapters must matter");

        let (merged, apart) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        vlm.save(merged.path(), SaveDtype::F32).unwrap();
        let loaded = Vlm::load(&Checkpoint::open(merged.path()).unwrap(), LoadOptions::frozen()).unwrap();
        assert_eq!(loaded.params.len(), known, "{name}: merged adapters are not written themselves");
        let off = distance(&logits(&loaded, &contexts[1]), &adapted);
        assert!(off < 5e-5, "{name}: merged, the logits are off by {off}");

        vlm.save_adapters(apart.path(), &config, "base").unwrap();
        // What a saved model keeps apart is the same, and names no base.
        let read = |path: &std::path::Path, file: &str| std::fs::read(path.join(file)).unwrap();
        let beside = merged.path().join("adapter");
        let file = "adapter_model.safetensors";
        assert_eq!(read(&beside, file), read(apart.path(), file), "{name}");
        let settings: serde_json::Value =
            serde_json::from_slice(&read(&beside, "adapter_config.json")).unwrap();
        assert!(settings["base_model_name_or_path"].is_null(), "{name}");
        // The names that PEFT gives the modules of transformers' classes (printed by PEFT 0.21 over transformers 5.23).
        let weights = Weights::open(&apart.path().join(file)).unwrap();
        let first = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight";
        assert!(weights.contains(first), "{name}: {:?}", weights.names().next());
        assert_eq!(
            settings["target_modules"],
            "model\\.language_model\\..*\\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
        );
        let mut loaded = open();
        assert_eq!(loaded.load_adapters(apart.path(), Keep::Frozen(DType::F32)).unwrap(), config);
        assert_eq!(logits(&loaded, &contexts[1]), adapted, "{name}: apart");

        // Under the checkpoint's names, as with older versions of transformers, and with a list of last parts.
        let old = tempfile::tempdir().unwrap();
        let tensors: Vec<SaveTensor<'_>> = added
            .iter()
            .map(|&id| {
                let p = vlm.params.get(id).unwrap();
                let values = p.value().to_vec().into();
                SaveTensor {
                    name: format!("base_model.model.{}", p.name()),
                    shape: p.value().shape().to_vec(),
                    values,
                }
            })
            .collect();
        save_safetensors(old.path(), "adapter_model", &tensors, SaveDtype::F32, usize::MAX).unwrap();
        let mut settings = settings;
        settings["target_modules"] = serde_json::json!(config.targets);
        let path = old.path().join("adapter_config.json");
        std::fs::write(&path, settings.to_string()).unwrap();
        let mut loaded = open();
        assert_eq!(loaded.load_adapters(old.path(), Keep::Frozen(DType::F32)).unwrap(), config);
        assert_eq!(logits(&loaded, &contexts[1]), adapted, "{name}: older names");

        // Settings that would change the numbers are not passed over, and neither are layers that the model does not have.
        settings["alpha_pattern"] = serde_json::json!({"q_proj": 1});
        std::fs::write(&path, settings.to_string()).unwrap();
        let error = open().load_adapters(old.path(), Keep::Trainable).unwrap_err().to_string();
        assert!(error.contains("alpha_pattern"), "{name}: {error}");
        settings["alpha_pattern"] = serde_json::json!({});
        std::fs::write(&path, settings.to_string()).unwrap();
        let mut stray = tensors;
        stray[0].name = "base_model.model.nowhere.lora_A.weight".into();
        save_safetensors(old.path(), "adapter_model", &stray, SaveDtype::F32, usize::MAX).unwrap();
        let error = open().load_adapters(old.path(), Keep::Trainable).unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{name}: {error}");
    }
}

#[test]
fn pictures_that_do_not_fit_the_context_are_refused_before_the_tower() {
    let vlm = small();
    let pictures: Vec<Vec<u8>> = (0..20).map(|seed| png(32, 32, seed)).collect();
    let (album, hashes) = album(&pictures);
    let context = ask(&vlm, &album, &hashes, "How many?");
    // 32 x 32 pixels are 16 tokens; the context has 256.
    let error = vlm.generation_prompt(&context, 0).unwrap_err().to_string();
    let tokens = context.len();
    for part in [&format!("takes {tokens} tokens"), "320 of them for 20 pictures", "context is 256"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(vlm.feature_stats().computed, 0);
    assert!(vlm.generation_prompt(&ask(&vlm, &album, &hashes[..9], "How many?"), 0).is_ok());
}

#[test]
fn features_of_a_picture_are_the_same_bits_whatever_is_computed_with_it() {
    let fixture = fixture();
    for name in FAMILIES {
        let load = || {
            let mut vlm = reference::load(&fixture["families"][name]);
            vlm.set_trainable(Part::Tower, false).unwrap();
            vlm
        };
        let vlm = load();
        let contexts = contexts(&fixture, &vlm, name);
        // Together, then the second one alone in a model whose cache is empty: log-probabilities are computed from kept states.
        let both = logits(&vlm, &contexts[1]);
        let again = logits(&vlm, &contexts[1]);
        assert_eq!(both, again, "{name}: from the cache");
        assert_eq!(vlm.feature_stats().computed, 2, "{name}");
        let fresh = load();
        logits(&fresh, &contexts[0]);
        assert_eq!(logits(&fresh, &contexts[1]), both, "{name}: one picture was there already");
        // One pass over both pictures, as training it computes them, gives the same to rounding.
        let trained = reference::load(&fixture["families"][name]);
        let (a, _) = loss_and_grads(&trained, &contexts, false);
        let (b, _) = loss_and_grads(&vlm, &contexts, false);
        assert!((a - b).abs() < 1e-6, "{name}: {a} {b}");
    }
}

#[test]
fn bf16_is_near_f32_in_all_families() {
    let fixture = fixture();
    for name in FAMILIES {
        let mut vlm = reference::load(&fixture["families"][name]);
        let contexts = contexts(&fixture, &vlm, name);
        let exact = logits(&vlm, &contexts[1]);
        let (loss, grads) = loss_and_grads(&vlm, &contexts, false);
        vlm.params.set_compute_dtype(DType::Bf16);
        let rounded = logits(&vlm, &contexts[1]);
        let scale = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let off = distance(&exact, &rounded);
        assert!(
            off > 0.0 && off < 0.06 * scale,
            "{name}: bf16 logits are off by {off}, the largest is {scale}"
        );
        let (near, rounded) = loss_and_grads(&vlm, &contexts, false);
        assert!((loss - near).abs() < 0.01 * loss, "{name}: loss {near} in bf16, {loss} in f32");
        let (mut dot, mut a2, mut b2) = (0.0f64, 0.0f64, 0.0f64);
        for id in vlm.params.ids() {
            let (Some(a), Some(b)) = (grads.get(id), rounded.get(id)) else { continue };
            for (a, b) in a.to_vec().into_iter().zip(b.to_vec()) {
                let (a, b) = (f64::from(a), f64::from(b));
                (dot, a2, b2) = (dot + a * b, a2 + a * a, b2 + b * b);
            }
        }
        let cosine = dot / (a2 * b2).sqrt();
        assert!(cosine > 0.995, "{name}: cosine of the gradients {cosine}");
    }
}
