//! Parts at their own rates, adapters on the language model of a model that sees, bf16, and rows that do not match features.

use ocelli_data::{Span, SpanKind, Status, Trajectory};
use ocelli_model::vlm::{LoadOptions, Part, Vlm};
use ocelli_model::{Checkpoint, LoraConfig, ModelError, SaveDtype, text::Keep};
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
        let mut loaded = open();
        assert_eq!(loaded.load_adapters(apart.path(), Keep::Frozen(DType::F32)).unwrap(), config);
        assert_eq!(logits(&loaded, &contexts[1]), adapted, "{name}: apart");
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
