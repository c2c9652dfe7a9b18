//! Rotary embeddings that are stretched: which lengths are computed, and which are refused.

use ocelli_model::text::Positions;
use ocelli_model::{ModelConfig, ModelError, TextModel, TextNames};
use ocelli_tensor::Params;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

/// A decoder with a context of 64 tokens and heads of 16, as `config.json` describes it.
fn config(rope: &Value) -> Result<ModelConfig, ModelError> {
    let mut config = json!({
        "model_type": "qwen2", "vocab_size": 32, "hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 64,
    });
    for (key, value) in rope.as_object().unwrap() {
        config[key] = value.clone();
    }
    ModelConfig::from_value(config, "config.json".as_ref())
}

#[test]
fn dynamic_frequencies_are_those_of_training_up_to_its_length_and_beyond_it_refused() {
    // `inv_freq` of transformers' Qwen2RotaryEmbedding with rope_type `dynamic`, factor 2, after 64 positions, and after 65.
    let within = [1.0, 0.316227764, 0.1, 0.0316227786, 0.01, 0.00316227786, 0.001, 0.000316227786];
    let beyond = [1.0, 0.314840704, 0.0991246626, 0.0312084779];
    // As InternVL3 is published, as transformers 5 writes it, and as InternVL2.5's first configurations have it.
    for rope in [
        json!({"rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "rope_type": "dynamic", "factor": 2.0}}),
        json!({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        json!({"rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    ] {
        let config = config(&rope).unwrap();
        let found = config.text.rope.frequencies(16);
        for (f, want) in found.iter().zip(within) {
            assert!((f - want).abs() < 1e-7 * want, "{found:?}");
        }
        assert!((found[1] - beyond[1]).abs() > 1e-3, "the reference's frequencies change at 65 tokens");

        let mut params = Params::new();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let model = TextModel::init(&mut params, &config.text, &TextNames::default(), &mut rng).unwrap();
        assert!(model.rotary(&Positions::Linear((0..64).collect())).is_ok());
        let error = model.rotary(&Positions::Linear((0..65).collect())).unwrap_err().to_string();
        for part in ["65 tokens", "`dynamic` (factor 2)", "64 tokens"] {
            assert!(error.contains(part), "{error}");
        }
        // What is written reads back the same.
        let written = ocelli_model::config::to_json(&config.text);
        let again = ModelConfig::from_value(written, "config.json".as_ref()).unwrap();
        assert_eq!(again.text.rope, config.text.rope);
    }
    let error = config(&json!({"rope_scaling": {"type": "dynamic"}})).unwrap_err().to_string();
    assert!(error.contains("rope_scaling.factor"), "{error}");
    let error = config(&json!({"rope_scaling": {"type": "yarn", "factor": 4.0}})).unwrap_err().to_string();
    assert!(error.contains("yarn") && error.contains("dynamic"), "{error}");
}
