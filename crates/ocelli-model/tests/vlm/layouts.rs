//! The same weights under the names of InternVL's own modelling code (OpenGVLab, Skywork R1V), and value heads as public
//! reward models have them.

use std::path::Path;

use ocelli_model::vlm::{Group, LoadOptions};
use ocelli_model::{Checkpoint, SaveDtype, SaveTensor, Vlm, Weights, save_safetensors};
use ocelli_tensor::Tape;
use serde_json::{Value, json};

use crate::pictures::{album, ask, png, small};
use crate::reference::{self, distance, logits, parameters, value};

/// A name of transformers' layout in OpenGVLab's; `None` for keys and values, which go with the queries.
fn own_name(name: &str) -> Option<String> {
    if name.contains(".k_proj.") && name.starts_with("vision")
        || name.contains(".v_proj.") && name.starts_with("vision")
    {
        return None;
    }
    if name.starts_with("language_model.") {
        return Some(name.to_owned());
    }
    let pairs = [
        ("vision_tower.", "vision_model."),
        ("cls_token", "class_embedding"),
        ("patch_embeddings.projection", "patch_embedding"),
        ("position_embeddings", "position_embedding"),
        ("encoder.layer.", "encoder.layers."),
        ("attention.q_proj", "attn.qkv"),
        ("attention.projection_layer", "attn.proj"),
        ("attention.", "attn."),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("lambda_", "ls"),
        ("multi_modal_projector.layer_norm", "mlp1.0"),
        ("multi_modal_projector.linear_1", "mlp1.1"),
        ("multi_modal_projector.linear_2", "mlp1.3"),
    ];
    Some(pairs.iter().fold(name.to_owned(), |n, (from, to)| n.replace(from, to)))
}

/// The fixture's InternVL as a checkpoint of `model_type`, with the settings files of those checkpoints.
pub(crate) fn write_own(family: &Value, model_type: &str, dir: &Path) {
    let mut tensors = Vec::new();
    for (name, mut shape) in parameters(family) {
        let Some(own) = own_name(&name) else { continue };
        let mut values = value(&name, shape.iter().product());
        if own.contains(".attn.qkv.") {
            for other in ["k_proj", "v_proj"] {
                values.extend(value(&name.replace("q_proj", other), shape.iter().product()));
            }
            shape[0] *= 3;
        }
        tensors.push(SaveTensor { name: own, shape, values: values.into() });
    }
    save_safetensors(dir, "model", &tensors, SaveDtype::F32, usize::MAX).unwrap();
    let hub = &family["config"];
    let config = json!({
        "model_type": model_type,
        "downsample_ratio": 0.5, "ps_version": "v2", "select_layer": -1, "force_image_size": 16,
        "dynamic_image_size": true, "use_thumbnail": true, "min_dynamic_patch": 1, "max_dynamic_patch": 4,
        "img_context_token_id": hub["image_token_id"],
        "tie_word_embeddings": hub["tie_word_embeddings"],
        "llm_config": hub["text_config"],
        "vision_config": {
            "model_type": "intern_vit_6b", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 20, "qkv_bias": true, "qk_normalization": true, "norm_type": "rms_norm",
            "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 16, "patch_size": 4,
        },
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let preprocessing = json!({
        "crop_size": 16, "do_center_crop": true, "do_normalize": true, "do_resize": true, "size": 16, "resample": 3,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    });
    std::fs::write(dir.join("preprocessor_config.json"), preprocessing.to_string()).unwrap();
}

#[test]
fn both_layouts_of_internvl_compute_the_same_and_are_saved_as_they_came() {
    let fixture = reference::fixture();
    let family = &fixture["families"]["internvl"];
    let hub = reference::load(family);
    for model_type in ["internvl_chat", "skywork_chat"] {
        let dir = tempfile::tempdir().unwrap();
        write_own(family, model_type, dir.path());
        let own = Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).unwrap();
        let saved = tempfile::tempdir().unwrap();
        own.save(saved.path(), SaveDtype::F32).unwrap();
        let again = Vlm::load(&Checkpoint::open(saved.path()).unwrap(), LoadOptions::default()).unwrap();
        // `contexts` also compares the number of tiles with the fixture's, which max_dynamic_patch decides.
        let contexts = reference::contexts(&fixture, &own, "internvl");
        for (ours, theirs) in contexts.iter().zip(reference::contexts(&fixture, &hub, "internvl")) {
            let found = logits(&own, ours);
            let off = distance(&found, &logits(&hub, &theirs));
            assert!(off < 1e-5, "{model_type}: logits differ by {off}");
            assert_eq!(logits(&again, ours), found, "{model_type}");
        }
        let names = |dir: &Path| -> Vec<String> {
            let weights = Weights::open(&dir.join("model.safetensors")).unwrap();
            let mut names: Vec<String> = weights.names().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(names(saved.path()), names(dir.path()), "{model_type}");
        assert!(names(saved.path()).contains(&"mlp1.3.weight".to_owned()));
    }
}

#[test]
fn tiles_without_a_thumbnail_are_refused() {
    let fixture = reference::fixture();
    let dir = tempfile::tempdir().unwrap();
    write_own(&fixture["families"]["internvl"], "internvl_chat", dir.path());
    let path = dir.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("\"use_thumbnail\":true", "\"use_thumbnail\":false")).unwrap();
    let error = Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("use_thumbnail"), "{error}");
}

#[test]
fn value_heads_are_read_under_the_names_that_public_reward_models_use() {
    let base = small();
    let (album, hashes) = album(&[png(20, 20, 1)]);
    let context = ask(&base, &album, &hashes, "Good?");
    let last = context.len() - 1;
    let width = base.text.config().hidden_size;
    let weight: Vec<f32> = (0..width).map(|i| (i as f32 - 10.0) / 16.0).collect();
    let batch = base.pack(&[Group::single(&context)]).unwrap();
    let mut tape = Tape::inference(&base.params);
    let states = base.hidden(&mut tape, &batch, false).unwrap().value().to_vec();
    let dot: f32 = states[last * width..].iter().zip(&weight).map(|(h, w)| h * w).sum();
    for (name, bias) in
        [("v_head.summary", Some(0.5)), ("summary", Some(-1.0)), ("value_head", None), ("score", None)]
    {
        let dir = tempfile::tempdir().unwrap();
        base.save(dir.path(), SaveDtype::F32).unwrap();
        let mut tensors = vec![SaveTensor {
            name: format!("{name}.weight"),
            shape: vec![1, width],
            values: (&weight).into(),
        }];
        if let Some(bias) = bias {
            tensors.push(SaveTensor {
                name: format!("{name}.bias"),
                shape: vec![1],
                values: vec![bias].into(),
            });
        }
        save_safetensors(dir.path(), "value_head", &tensors, SaveDtype::F32, usize::MAX).unwrap();
        let model = Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).unwrap();
        assert!(model.has_value_head(), "{name}");
        let mut tape = Tape::inference(&model.params);
        let hidden = model.hidden(&mut tape, &batch, false).unwrap();
        let found = model.values(&mut tape, &hidden, &[last]).unwrap().value().to_vec()[0];
        let want = dot + bias.unwrap_or(0.0);
        assert!((found - want).abs() < 1e-5, "{name}: {found}, by hand {want}");

        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path(), SaveDtype::F32).unwrap();
        let head = Weights::open(&saved.path().join("value_head.safetensors")).unwrap();
        assert_eq!(head.read(&format!("{name}.weight")).unwrap(), weight);
        assert_eq!(head.contains(&format!("{name}.bias")), bias.is_some());
        let body = Weights::open(&saved.path().join("model.safetensors")).unwrap();
        assert!(!body.contains(&format!("{name}.weight")), "the head is not written with the base");
    }
    // A head of another width belongs to another base.
    let dir = tempfile::tempdir().unwrap();
    base.save(dir.path(), SaveDtype::F32).unwrap();
    let wrong =
        [SaveTensor { name: "v_head.summary.weight".into(), shape: vec![1, 3], values: vec![0.0; 3].into() }];
    save_safetensors(dir.path(), "value_head", &wrong, SaveDtype::F32, usize::MAX).unwrap();
    let error =
        Vlm::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("v_head.summary.weight"), "{error}");
}
