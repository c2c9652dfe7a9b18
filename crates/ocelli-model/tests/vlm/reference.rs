//! Against transformers 5.23: `fixtures/parity/vlm.py` wrote the expected numbers.
//!
//! Every model is loaded from a checkpoint that the test writes, and every picture is decoded and cut by this crate, so
//! that the whole way from files to gradients is compared.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use ocelli_data::ContentHash;
use ocelli_model::vlm::{Context, Group, LoadOptions};
use ocelli_model::{Checkpoint, SaveDtype, SaveTensor, Vlm, Weights, save_safetensors};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Grads, ParamId, Tape, Tensor};
use serde_json::Value;

use crate::pictures::Album;

pub(crate) const FAMILIES: [&str; 4] = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"];
const CASES: [&str; 3] = ["one", "two", "text"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

pub(crate) fn fixture() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("vlm.json")).unwrap()).unwrap()
}

/// `value` of `text.py`: uniform in [-0.25, 0.25) from splitmix64 of FNV-1a(name) + index, plus 1 for norms.
pub(crate) fn value(name: &str, n: usize) -> Vec<f32> {
    let seed =
        name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let one = if name.contains("norm") { 1.0 } else { 0.0 };
    let at = |i: u64| {
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(i));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / 16_777_216.0 * 0.5 - 0.25 + one
    };
    (1..=n as u64).map(at).collect()
}

/// `digest` of `vlm.py`.
fn digest(name: &str, values: &[f32]) -> [f64; 2] {
    let fixed = value(&format!("digest.{name}"), values.len());
    let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    [norm, values.iter().zip(fixed).map(|(v, f)| f64::from(*v) * f64::from(f)).sum()]
}

/// `picture` of `image.py`, as a PNG.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let drawn = RgbImage::from_fn(width, height, |x, y| {
        let (x, y, w) = (u64::from(x), u64::from(y), u64::from(width));
        let level = |c: u64| {
            let noise = (x * 7919 + y * 104_729 + c * 1_299_709 + x * y * 31) % 251;
            let smooth = (x * 255 / w + y * 3 + c * 40) % 256;
            (if (x / 8 + y / 8) % 3 == 0 { noise } else { smooth }) as u8
        };
        Rgb([level(0), level(1), level(2)])
    });
    let mut file = Cursor::new(Vec::new());
    drawn.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Writes the checkpoint of a family: configuration, preprocessing, weights by the rule.
pub(crate) fn write_checkpoint(family: &Value, dir: &Path) {
    std::fs::write(dir.join("config.json"), family["config"].to_string()).unwrap();
    std::fs::write(dir.join("preprocessor_config.json"), family["preprocessor"].to_string()).unwrap();
    let tensors: Vec<SaveTensor<'_>> = parameters(family)
        .into_iter()
        .map(|(name, shape)| {
            let values = value(&name, shape.iter().product()).into();
            SaveTensor { name, shape, values }
        })
        .collect();
    save_safetensors(dir, "model", &tensors, SaveDtype::F32, usize::MAX).unwrap();
}

pub(crate) fn parameters(family: &Value) -> Vec<(String, Vec<usize>)> {
    serde_json::from_value(family["parameters"].clone()).unwrap()
}

pub(crate) fn load(family: &Value) -> Vlm {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(family, dir.path());
    Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).unwrap()
}

/// The contexts of the three cases.
pub(crate) fn contexts(fixture: &Value, vlm: &Vlm, name: &str) -> Vec<Context> {
    let token = |key: &str| fixture["tokens"][key].as_u64().unwrap() as u32;
    CASES
        .iter()
        .map(|case| {
            let (mut ids, mut album, mut hashes) = (Vec::new(), Album::new(), Vec::new());
            for t in fixture["cases"][case].as_array().unwrap() {
                let Some(letter) = t.as_str() else {
                    ids.push(t.as_u64().unwrap() as u32);
                    continue;
                };
                let size: [u32; 2] = serde_json::from_value(fixture["sizes"][letter].clone()).unwrap();
                let file = picture(size[0], size[1]);
                hashes.push(ContentHash::of(&file));
                album.insert(ContentHash::of(&file), file);
                ids.extend([token("start"), token("image"), token("end")]);
            }
            let context = vlm.context_of_ids(&ids, &hashes, &album).unwrap();
            let expected: Vec<u32> =
                serde_json::from_value(fixture["families"][name]["ids"][case].clone()).unwrap();
            assert_eq!(context.ids(), expected, "{name} {case}");
            context
        })
        .collect()
}

/// Mean loss over all next tokens of the contexts, and its gradients.
pub(crate) fn loss_and_grads(vlm: &Vlm, contexts: &[Context], checkpoint: bool) -> (f32, Grads) {
    let batch = vlm.pack(&contexts.iter().map(Group::single).collect::<Vec<_>>()).unwrap();
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (s, context) in contexts.iter().enumerate() {
        let (r, t) = batch.predictions(s, 1..context.len()).unwrap();
        rows.extend(r);
        targets.extend(t);
    }
    let mut tape = Tape::train(&vlm.params);
    let hidden = vlm.hidden(&mut tape, &batch, checkpoint).unwrap();
    let lp = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0).unwrap().logprob;
    let n = targets.len() as f32;
    let loss = -lp.value().to_vec().iter().sum::<f32>() / n;
    let mut grads = Grads::new();
    let seed = Tensor::full(&[targets.len()], -1.0 / n, DType::F32);
    tape.backward_from(&[(&lp, seed)], &mut grads).unwrap();
    (loss, grads)
}

pub(crate) fn logits(vlm: &Vlm, context: &Context) -> Vec<f32> {
    let batch = vlm.pack(&[Group::single(context)]).unwrap();
    let mut tape = Tape::inference(&vlm.params);
    let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
    let rows: Vec<usize> = (0..context.len()).collect();
    vlm.text.logits(&mut tape, &hidden, &rows).unwrap().value().to_vec()
}

pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

#[test]
fn logits_loss_and_gradients() {
    let (fixture, expected) = (fixture(), Weights::open(&fixtures().join("vlm.safetensors")).unwrap());
    for name in FAMILIES {
        let family = &fixture["families"][name];
        let vlm = load(family);
        let contexts = contexts(&fixture, &vlm, name);
        for (case, context) in CASES.iter().zip(&contexts) {
            let d =
                distance(&logits(&vlm, context), &expected.read(&format!("{name}/{case}/logits")).unwrap());
            assert!(d < 1e-4, "{name} {case}: logits differ by {d}");
            let (loss, grads) = loss_and_grads(&vlm, std::slice::from_ref(context), false);
            let want = family["losses"][case].as_f64().unwrap();
            assert!((f64::from(loss) - want).abs() < 1e-5, "{name} {case}: loss {loss}, expected {want}");
            let digests = expected.read(&format!("{name}/{case}/digests")).unwrap();
            for ((parameter, _), want) in parameters(family).iter().zip(digests.chunks(2)) {
                let id: ParamId = vlm.params.id(parameter).unwrap();
                let zero = || vec![0.0; vlm.params.get(id).unwrap().value().len()];
                let grad = grads.get(id).map_or_else(zero, Tensor::to_vec);
                let found = digest(parameter, &grad);
                let scale = f64::from(want[0]).max(1.0);
                for (f, w) in found.iter().zip(want) {
                    assert!(
                        (f - f64::from(*w)).abs() < 2e-5 * scale,
                        "{name} {case}: gradient of {parameter} has digest {found:?}, expected {want:?}"
                    );
                }
                if *case == "two" {
                    let want = expected.read(&format!("{name}/two/grad/{parameter}")).unwrap();
                    let d = distance(&grad, &want);
                    assert!(d < 1e-5, "{name}: gradient of {parameter} differs by {d}");
                }
            }
        }
    }
}

#[test]
fn ten_steps() {
    let (fixture, expected) = (fixture(), Weights::open(&fixtures().join("vlm.safetensors")).unwrap());
    let float = |v: &Value| v.as_f64().unwrap() as f32;
    let adam = &fixture["adam"];
    for name in FAMILIES {
        let family = &fixture["families"][name];
        let mut vlm = load(family);
        let contexts = contexts(&fixture, &vlm, name);
        let group = AdamWGroup { lr: float(&adam["lr"]), weight_decay: float(&adam["weight_decay"]) };
        let mut optimizer = AdamW::new(AdamWConfig {
            beta1: float(&adam["betas"][0]),
            beta2: float(&adam["betas"][1]),
            eps: float(&adam["eps"]),
            max_grad_norm: Some(float(&fixture["clip"])),
            groups: vec![group; 4],
        });
        let losses = expected.read(&format!("{name}/losses")).unwrap();
        assert_eq!(losses.len(), 10);
        for (step, want) in losses.iter().enumerate() {
            let (loss, grads) = loss_and_grads(&vlm, &contexts, step % 2 == 1);
            assert!((loss - want).abs() < 2e-4, "{name}: loss {loss} at step {step}, expected {want}");
            optimizer.step(&mut vlm.params, &grads).unwrap();
        }
        let after = expected.read(&format!("{name}/after")).unwrap();
        for ((parameter, _), want) in parameters(family).iter().zip(after.chunks(2)) {
            let id = vlm.params.id(parameter).unwrap();
            let found = digest(parameter, &vlm.params.get(id).unwrap().value().to_vec());
            for (f, w) in found.iter().zip(want) {
                let off = (f - f64::from(*w)).abs();
                assert!(
                    off < 2e-3,
                    "{name}: {parameter} after ten steps has digest {found:?}, expected {want:?}"
                );
            }
        }
    }
}
