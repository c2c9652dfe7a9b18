//! Tiny decoders whose weights follow the rule of `fixtures/parity/text.py`.

use std::path::{Path, PathBuf};

use ocelli_model::{
    LoraConfig, ModelConfig, SaveDtype, SaveTensor, TextModel, TextNames, lora, save_safetensors,
};
use ocelli_tensor::{Params, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// `fixtures/parity` of the repository.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

/// `text.json`: configurations, sequences, optimizer settings.
pub(crate) fn fixture() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("text.json")).unwrap()).unwrap()
}

/// Names of all cases.
pub(crate) fn cases() -> Vec<String> {
    fixture()["configs"].as_object().unwrap().keys().cloned().collect()
}

/// The checked configuration of a case.
pub(crate) fn config(case: &str) -> ModelConfig {
    ModelConfig::from_value(fixture()["configs"][case].clone(), Path::new(case)).unwrap()
}

/// Uniform in [-0.25, 0.25) from splitmix64 of FNV-1a(name) + index, plus 1 for norms.
pub(crate) fn value(name: &str, n: usize) -> Vec<f32> {
    let seed =
        name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let one = if name.contains("norm") { 1.0 } else { 0.0 };
    (1..=n as u64)
        .map(|i| {
            let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(i));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f32 / 16_777_216.0 * 0.5 - 0.25 + one
        })
        .collect()
}

/// A decoder of the given case with trainable parameters.
pub(crate) fn model(case: &str) -> (TextModel, Params) {
    let config = config(case);
    let names = TextNames::default();
    let mut params = Params::new();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let model = TextModel::init(&mut params, &config.text, &names, &mut rng).unwrap();
    for spec in TextModel::specs(&config.text, &names) {
        let id = params.id(&spec.name).unwrap();
        let n = spec.shape.iter().product();
        params.set_value(id, Tensor::from_slice(&spec.shape, &value(&spec.name, n)).unwrap()).unwrap();
    }
    (model, params)
}

/// The same with adapters on all layers, whose B is not zero.
pub(crate) fn model_with_adapters(case: &str) -> (TextModel, Params, LoraConfig) {
    let (mut model, mut params) = model(case);
    let config = LoraConfig::all(3);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    lora::attach(&mut params, model.linears_mut(), &config, &mut rng).unwrap();
    for id in params.ids() {
        let p = params.get(id).unwrap();
        if p.name().contains("lora_B") {
            let shape = p.value().shape().to_vec();
            let b = Tensor::randn(&shape, 0.1, &mut rng);
            params.set_value(id, b).unwrap();
        }
    }
    (model, params, config)
}

/// Writes a case as a checkpoint directory without tokenizer.
pub(crate) fn write_checkpoint(case: &str, dir: &Path) {
    let config = config(case);
    std::fs::write(dir.join("config.json"), Value::Object(config.raw.clone()).to_string()).unwrap();
    let specs = TextModel::specs(&config.text, &TextNames::default());
    let tensors: Vec<SaveTensor<'_>> = specs
        .into_iter()
        .map(|s| {
            let values = value(&s.name, s.shape.iter().product()).into();
            SaveTensor { name: s.name, shape: s.shape, values }
        })
        .collect();
    save_safetensors(dir, "model", &tensors, SaveDtype::F32, usize::MAX).unwrap();
}

/// Largest absolute difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
