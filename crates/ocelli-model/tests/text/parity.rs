//! Against transformers 5.23: `fixtures/parity/text.py` wrote the expected numbers.

use ocelli_model::{Checkpoint, Keep, LanguageModel, TextModel, Weights};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Grads, Params, SeqLayout, Tape, Tensor};

use crate::tiny::{cases, distance, fixture, fixtures, model, write_checkpoint};

/// Packed ids of the fixture's sequences, their layout, and (row, target) of every prediction.
fn batch() -> (Vec<u32>, SeqLayout, Vec<usize>, Vec<u32>) {
    let sequences: Vec<Vec<u32>> = serde_json::from_value(fixture()["sequences"].clone()).unwrap();
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let (mut rows, mut targets, mut at) = (Vec::new(), Vec::new(), 0);
    for s in &sequences {
        rows.extend(at..at + s.len() - 1);
        targets.extend(&s[1..]);
        at += s.len();
    }
    (sequences.concat(), SeqLayout::causal(&lengths), rows, targets)
}

/// Mean loss and its gradients.
fn loss_and_grads(model: &TextModel, params: &Params, checkpoint: bool) -> (f32, Grads) {
    let (ids, layout, rows, targets) = batch();
    let mut tape = Tape::train(params);
    let hidden = model.hidden(&mut tape, &ids, &layout, checkpoint).unwrap();
    let lp = model.logprobs(&mut tape, &hidden, &rows, &targets, 1.0).unwrap().logprob;
    let n = targets.len() as f32;
    let loss = -lp.value().to_vec().iter().sum::<f32>() / n;
    let mut grads = Grads::new();
    tape.backward_from(&[(&lp, Tensor::full(&[targets.len()], -1.0 / n, DType::F32))], &mut grads).unwrap();
    (loss, grads)
}

#[test]
fn logits_loss_gradients_and_ten_steps() {
    let expected = Weights::open(&fixtures().join("text.safetensors")).unwrap();
    let settings = fixture();
    let float = |v: &serde_json::Value| v.as_f64().unwrap() as f32;
    let adam = &settings["adam"];
    assert_eq!(cases().len(), 5);
    for case in cases() {
        let (model, mut params) = model(&case);
        let (ids, layout, ..) = batch();
        let mut tape = Tape::inference(&params);
        let hidden = model.hidden(&mut tape, &ids, &layout, false).unwrap();
        let all: Vec<usize> = (0..ids.len()).collect();
        let logits = model.logits(&mut tape, &hidden, &all).unwrap().value().to_vec();
        drop(tape);
        let d = distance(&logits, &expected.read(&format!("{case}/logits")).unwrap());
        assert!(d < 1e-4, "{case}: logits differ by {d}");

        let mut optimizer = AdamW::new(AdamWConfig {
            beta1: float(&adam["betas"][0]),
            beta2: float(&adam["betas"][1]),
            eps: float(&adam["eps"]),
            max_grad_norm: Some(float(&settings["clip"])),
            groups: vec![AdamWGroup { lr: float(&adam["lr"]), weight_decay: float(&adam["weight_decay"]) }],
        });
        let losses = expected.read(&format!("{case}/losses")).unwrap();
        assert_eq!(losses.len(), 10);
        for (step, want) in losses.iter().enumerate() {
            // Recomputed activations must give the same numbers: every other step uses them.
            let (loss, grads) = loss_and_grads(&model, &params, step % 2 == 1);
            assert!((loss - want).abs() < 1e-4, "{case}: loss {loss} at step {step}, expected {want}");
            if step == 0 {
                for (id, p) in params.iter() {
                    let want = expected.read(&format!("{case}/grad/{}", p.name())).unwrap();
                    let d = distance(&grads.get(id).unwrap().to_vec(), &want);
                    assert!(d < 1e-5, "{case}: gradient of {} differs by {d}", p.name());
                }
            }
            optimizer.step(&mut params, &grads).unwrap();
        }
        for (_, p) in params.iter() {
            let want = expected.read(&format!("{case}/after/{}", p.name())).unwrap();
            let d = distance(&p.value().to_vec(), &want);
            assert!(d < 1e-4, "{case}: {} after ten steps differs by {d}", p.name());
        }
    }
}

#[test]
fn a_saved_checkpoint_loads_to_the_same_logits() {
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(&case, dir.path());
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let loaded = LanguageModel::load(&checkpoint, Keep::Frozen(DType::F32), DType::F32).unwrap();
        let (ids, layout, ..) = batch();
        let mut tape = Tape::inference(&loaded.params);
        let hidden = loaded.text.hidden(&mut tape, &ids, &layout, false).unwrap();
        let logits = loaded.text.logits(&mut tape, &hidden, &[0, 5, 9]).unwrap().value().to_vec();
        let expected = Weights::open(&fixtures().join("text.safetensors")).unwrap();
        let all = expected.read(&format!("{case}/logits")).unwrap();
        let want: Vec<f32> = [0, 5, 9].iter().flat_map(|&r| all[r * 32..(r + 1) * 32].to_vec()).collect();
        assert!(distance(&logits, &want) < 1e-4, "{case}");
    }
}
