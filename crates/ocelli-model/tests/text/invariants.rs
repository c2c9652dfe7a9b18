//! What must hold for every decoder, whatever its weights.

use ocelli_model::{
    Attend, Checkpoint, Keep, LanguageModel, Positions, SaveDtype, TextModel, lora, save_merged,
};
use ocelli_tensor::{DType, Grads, KvCache, Params, PrefixGroup, SeqLayout, Tape, Tensor};
use rand::SeedableRng;

use crate::tiny::{cases, distance, model, model_with_adapters, write_checkpoint};

const IDS: [u32; 9] = [3, 17, 5, 9, 30, 2, 11, 23, 8];

fn logits(model: &TextModel, params: &Params, ids: &[u32], layout: &SeqLayout) -> Vec<f32> {
    let mut tape = Tape::inference(params);
    let hidden = model.hidden(&mut tape, ids, layout, false).unwrap();
    let rows: Vec<usize> = (0..ids.len()).collect();
    model.logits(&mut tape, &hidden, &rows).unwrap().value().to_vec()
}

#[test]
fn a_later_token_does_not_change_earlier_logits() {
    for case in cases() {
        let (model, params) = model(&case);
        let layout = SeqLayout::causal(&[IDS.len()]);
        let before = logits(&model, &params, &IDS, &layout);
        let mut changed = IDS;
        changed[5] = 19;
        let after = logits(&model, &params, &changed, &layout);
        let v = before.len() / IDS.len();
        assert_eq!(before[..5 * v], after[..5 * v], "{case}");
        assert!(
            distance(&before[5 * v..], &after[5 * v..]) > 1e-3,
            "{case}: the change must be seen afterwards"
        );
    }
}

#[test]
fn a_packed_batch_equals_single_sequences() {
    for case in cases() {
        let (model, params) = model(&case);
        let packed = logits(&model, &params, &IDS, &SeqLayout::causal(&[4, 1, 4]));
        let single: Vec<f32> = [&IDS[..4], &IDS[4..5], &IDS[5..]]
            .into_iter()
            .flat_map(|s| logits(&model, &params, s, &SeqLayout::causal(&[s.len()])))
            .collect();
        assert!(distance(&packed, &single) < 1e-6, "{case}");
    }
}

#[test]
fn a_cache_gives_the_logits_of_a_whole_pass() {
    for case in cases() {
        let (model, params) = model(&case);
        let whole = logits(&model, &params, &IDS, &SeqLayout::causal(&[IDS.len()]));
        let mut cache = KvCache::new(model.kv_shape(), 4);
        let mut stepwise = Vec::new();
        // A prompt of three, then two at once, then one by one.
        for range in [0..3, 3..5, 5..6, 6..7, 7..8, 8..9] {
            let mut tape = Tape::inference(&params);
            let ids = &IDS[range.clone()];
            let x = model.embed(&mut tape, ids).unwrap();
            let rotary = model.rotary(&Positions::Linear(range.clone().collect())).unwrap();
            let new = [ids.len()];
            let attend = Attend::Cached { caches: &mut [&mut cache], new: &new };
            let hidden = model.forward(&mut tape, x, &rotary, attend, None, false, None).unwrap();
            let rows: Vec<usize> = (0..ids.len()).collect();
            stepwise.extend(model.logits(&mut tape, &hidden, &rows).unwrap().value().to_vec());
        }
        let d = distance(&whole, &stepwise);
        assert!(d < 1e-5, "{case}: {d}");
    }
}

/// Weighted sum of log-probabilities and its gradients; `rows`, `targets` and `weights` name the predictions.
fn objective(
    (model, params): (&TextModel, &Params),
    ids: &[u32],
    layout: &SeqLayout,
    predictions: &[(usize, u32, f32)],
    grads: &mut Grads,
) -> f64 {
    let rows: Vec<usize> = predictions.iter().map(|p| p.0).collect();
    let targets: Vec<u32> = predictions.iter().map(|p| p.1).collect();
    let weights: Vec<f32> = predictions.iter().map(|p| p.2).collect();
    let mut tape = Tape::train(params);
    let hidden = model.hidden(&mut tape, ids, layout, true).unwrap();
    let lp = model.logprobs(&mut tape, &hidden, &rows, &targets, 1.0).unwrap().logprob;
    let value = lp.value().to_vec().iter().zip(&weights).map(|(l, w)| f64::from(l * w)).sum();
    tape.backward_from(&[(&lp, Tensor::from_slice(&[weights.len()], &weights).unwrap())], grads).unwrap();
    value
}

#[test]
fn loss_and_gradients_do_not_depend_on_packing_or_splitting() {
    // Three answers of 3, 2 and 1 tokens to one prompt of 4; answer i has weight i + 1.
    let prompt = &IDS[..4];
    let answers: [&[u32]; 3] = [&[7, 1, 12], &[4, 4], &[20]];
    for case in cases() {
        let (model, params) = model(&case);
        let both = (&model, &params);

        let mut apart = Grads::new();
        let mut value_apart = 0.0;
        for (i, a) in answers.iter().enumerate() {
            let ids = [prompt, a].concat();
            let w = (i + 1) as f32;
            let predictions: Vec<_> = a.iter().enumerate().map(|(t, &y)| (3 + t, y, w)).collect();
            value_apart += objective(both, &ids, &SeqLayout::causal(&[ids.len()]), &predictions, &mut apart);
        }

        let mut packed = Grads::new();
        let (mut ids, mut predictions, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (i, a) in answers.iter().enumerate() {
            let start = ids.len() + 3;
            predictions.extend(a.iter().enumerate().map(|(t, &y)| (start + t, y, (i + 1) as f32)));
            ids.extend(prompt.iter().chain(*a));
            lengths.push(4 + a.len());
        }
        let value_packed = objective(both, &ids, &SeqLayout::causal(&lengths), &predictions, &mut packed);

        let mut shared = Grads::new();
        let (mut ids, mut predictions) = (prompt.to_vec(), Vec::new());
        for (i, a) in answers.iter().enumerate() {
            let start = ids.len();
            // The last prompt token predicts every answer's first token.
            predictions.extend(
                a.iter()
                    .enumerate()
                    .map(|(t, &y)| (if t == 0 { 3 } else { start + t - 1 }, y, (i + 1) as f32)),
            );
            ids.extend(*a);
        }
        let group = PrefixGroup { prefix: 4, continuations: answers.iter().map(|a| a.len()).collect() };
        let value_shared =
            objective(both, &ids, &SeqLayout::shared_prefix(&[group]), &predictions, &mut shared);

        for (name, value, grads) in [("packed", value_packed, &packed), ("shared", value_shared, &shared)] {
            let relative = ((value - value_apart) / value_apart).abs();
            assert!(relative < 1e-6, "{case} {name}: {value} and {value_apart}");
            let (mut difference, mut norm) = (0.0f64, 0.0f64);
            for (id, g) in apart.iter() {
                for (a, b) in g.to_vec().iter().zip(grads.get(id).unwrap().to_vec()) {
                    difference += f64::from(a - b).powi(2);
                    norm += f64::from(*a).powi(2);
                }
            }
            let relative = (difference / norm).sqrt();
            assert!(relative < 1e-6, "{case} {name}: gradients differ by {relative:e}");
        }
    }
}

#[test]
fn every_trainable_parameter_gets_a_gradient() {
    for case in cases() {
        let (model, params, _) = model_with_adapters(&case);
        let mut grads = Grads::new();
        let predictions: Vec<_> = (0..8).map(|t| (t, IDS[t + 1], 1.0)).collect();
        objective((&model, &params), &IDS, &SeqLayout::causal(&[9]), &predictions, &mut grads);
        for (id, p) in params.iter() {
            let g = grads.get(id).unwrap_or_else(|| panic!("{case}: {} has no gradient", p.name())).to_vec();
            assert!(g.iter().all(|x| x.is_finite()), "{case}: {}", p.name());
            assert!(g.iter().any(|x| *x != 0.0), "{case}: the gradient of {} is zero", p.name());
        }
    }
}

#[test]
fn frozen_parameters_get_none_and_adapters_train_alone() {
    let (model, mut params, _) = model_with_adapters("qwen2_untied");
    for id in params.ids() {
        let adapter = params.get(id).unwrap().name().contains("lora_");
        params.set_trainable(id, adapter).unwrap();
    }
    let mut grads = Grads::new();
    objective((&model, &params), &IDS, &SeqLayout::causal(&[9]), &[(3, 1, 1.0)], &mut grads);
    let with: Vec<bool> = params.iter().map(|(id, _)| grads.get(id).is_some()).collect();
    let adapters: Vec<bool> = params.iter().map(|(_, p)| p.name().contains("lora_")).collect();
    assert_eq!(with, adapters);
}

#[test]
fn merged_and_separate_adapters_compute_the_same() {
    let case = "qwen3_head_dim";
    let (model, params, config) = model_with_adapters(case);
    let layout = SeqLayout::causal(&[IDS.len()]);
    let want = logits(&model, &params, &IDS, &layout);
    let plain = crate::tiny::model(case);
    assert!(distance(&want, &logits(&plain.0, &plain.1, &IDS, &layout)) > 1e-2, "the adapters must matter");

    let (base, adapter, merged) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_checkpoint(case, base.path());
    lora::save_adapter(adapter.path(), &params, model.linears(), &config, "tiny").unwrap();
    let origin = Checkpoint::open(base.path()).unwrap();
    let mut loaded = LanguageModel::load(&origin, Keep::Frozen(DType::F32), DType::F32).unwrap();
    let read =
        lora::load_adapter(adapter.path(), &mut loaded.params, loaded.text.linears_mut(), Keep::Trainable)
            .unwrap();
    assert_eq!(read, config);
    assert!(distance(&logits(&loaded.text, &loaded.params, &IDS, &layout), &want) < 1e-6);

    loaded.save(merged.path(), &origin, SaveDtype::F32).unwrap();
    let merged = Checkpoint::open(merged.path()).unwrap();
    assert_eq!(merged.config.text, origin.config.text);
    let merged = LanguageModel::load(&merged, Keep::Frozen(DType::F32), DType::F32).unwrap();
    assert!(distance(&logits(&merged.text, &merged.params, &IDS, &layout), &want) < 1e-5);
    assert!(save_merged(adapter.path(), &params, model.linears(), SaveDtype::F32).is_ok());
}

#[test]
fn an_adapter_without_a_target_is_an_error() {
    let (mut model, mut params) = model("llama_tied");
    let config = ocelli_model::LoraConfig { rank: 2, alpha: 4.0, targets: vec!["query".into()] };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let error = lora::attach(&mut params, model.linears_mut(), &config, &mut rng).unwrap_err().to_string();
    assert!(error.contains("query"), "{error}");
}

#[test]
fn bf16_is_near_f32() {
    let (model, mut params) = model("qwen3_head_dim");
    let layout = SeqLayout::causal(&[IDS.len()]);
    let exact = logits(&model, &params, &IDS, &layout);
    params.set_compute_dtype(DType::Bf16);
    let d = distance(&exact, &logits(&model, &params, &IDS, &layout));
    // bf16 has 8 bits: errors of 2^-9 relative per rounding, some tens of them in a row, on logits of about 2.
    assert!(d > 0.0 && d < 0.05, "{d}");
}
