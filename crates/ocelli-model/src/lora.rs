//! Low-rank adapters (Hu et al. 2021): attached beside linear layers, saved apart in the layout of PEFT, or merged.
//!
//! Parameters here carry the checkpoint's module names (`model.layers.0.self_attn.q_proj.lora_A.weight`). PEFT stores them under
//! `base_model.model.` and the name of the module in the model's class, which for models that see is not the checkpoint's: transformers 5
//! stores `model.layers.0` (Qwen2.5-VL) or `language_model.model.layers.0` (InternVL) and calls both `model.language_model.layers.0`
//! ([`Modules`]). `fixtures/parity/reload.py` has PEFT read what is written here, and the other way round.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use ocelli_data::io::{read_bounded, write_atomic};
use ocelli_tensor::ops::{Linear, Lora};
use ocelli_tensor::{DType, Params, Tensor};
use rand::Rng;
use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::config::{Fields, MAX_CONFIG_BYTES};
use crate::text::Keep;
use crate::weights::{SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};

const PREFIX: &str = "base_model.model.";
const STEM: &str = "adapter_model";
const CONFIG: &str = "adapter_config.json";

/// Which layers get adapters, and how large they are.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// r, rank of the product.
    pub rank: usize,
    /// The product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Last parts of module names: `q_proj`, `down_proj` ...
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// Adapters on all seven projections of every block, with `alpha = 2 rank`.
    pub fn all(rank: usize) -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { rank, alpha: 2.0 * rank as f32, targets: targets.map(str::to_owned).to_vec() }
    }

    fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// How the class of the model calls the modules of its language model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Modules {
    /// The prefix of their names in the checkpoint; empty where both names are the same.
    pub(crate) stored: String,
    /// The prefix in the class.
    pub(crate) class: String,
}

impl Modules {
    fn class_name(&self, module: &str) -> String {
        match module.strip_prefix(&self.stored) {
            Some(rest) => format!("{}{rest}", self.class),
            None => module.to_owned(),
        }
    }

    /// `target_modules`: last parts of names, or a pattern where a vision tower has layers of the same last parts.
    fn targets(&self, targets: &[String]) -> Value {
        if self.class.is_empty() {
            return json!(targets);
        }
        let escaped = |name: &str| name.replace('.', "\\.");
        let last: Vec<String> = targets.iter().map(|t| escaped(t)).collect();
        format!("{}.*\\.({})", escaped(&self.class), last.join("|")).into()
    }
}

/// Freezes nothing and adds trainable adapters beside the targeted layers: A uniform in `±1/sqrt(in)` (PEFT's
/// initialisation), B zero, so that the model computes the same as before. Returns how many layers were adapted.
///
/// # Errors
/// A target that is the last part of no layer's name; nothing is added then.
pub fn attach<'a>(
    params: &mut Params,
    linears: impl IntoIterator<Item = &'a mut Linear>,
    config: &LoraConfig,
    rng: &mut impl Rng,
) -> Result<usize, ModelError> {
    if config.rank == 0 {
        return Err(ModelError::Request("the rank of an adapter must be at least 1".into()));
    }
    let mut layers = Vec::new();
    for linear in linears {
        let (module, out, inner) = describe(params, linear)?;
        layers.push((linear, module, out, inner));
    }
    // Before anything is added: a target that matches nothing is a slip, and the others would be trained without it unseen.
    let last = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
    let names: BTreeSet<String> = layers.iter().map(|(_, module, ..)| last(module)).collect();
    if let Some(odd) = config.targets.iter().find(|t| !names.contains(*t)) {
        let there: Vec<&str> = names.iter().map(String::as_str).collect();
        let why =
            format!("no layer to adapt has a name that ends in `{odd}`; there are: {}", there.join(", "));
        return Err(ModelError::Request(why));
    }
    let mut adapted = 0;
    for (linear, module, out, inner) in layers {
        if !config.targets.contains(&last(&module)) {
            continue;
        }
        let bound = 1.0 / (inner as f32).sqrt();
        let a: Vec<f32> = (0..config.rank * inner).map(|_| rng.random_range(-bound..bound)).collect();
        let a = Tensor::from_slice(&[config.rank, inner], &a)?;
        let b = Tensor::zeros(&[out, config.rank], DType::F32);
        let a = params.add(format!("{module}.lora_A.weight"), a)?;
        let b = params.add(format!("{module}.lora_B.weight"), b)?;
        linear.lora = Some(Lora { a, b, scale: config.scale() });
        adapted += 1;
    }
    if adapted == 0 {
        return Err(ModelError::Request("no layer to adapt is named".into()));
    }
    Ok(adapted)
}

/// Module name, outputs and inputs of a layer.
fn describe(params: &Params, linear: &Linear) -> Result<(String, usize, usize), ModelError> {
    let p = params.get(linear.weight)?;
    let module = p.name().strip_suffix(".weight").unwrap_or(p.name()).to_owned();
    match *p.value().shape() {
        [out, inner] => Ok((module, out, inner)),
        ref shape => Err(ModelError::Request(format!("{module} is no linear layer: shape {shape:?}"))),
    }
}

/// Writes `adapter_config.json` and `adapter_model.safetensors`, which PEFT reads.
pub fn save_adapter<'a>(
    dir: &Path,
    params: &Params,
    linears: impl IntoIterator<Item = &'a Linear>,
    config: &LoraConfig,
    base_model: &str,
) -> Result<(), ModelError> {
    save_adapter_of(dir, params, linears, config, base_model, &Modules::default())
}

/// As [`save_adapter`], under the names of the model's class.
pub(crate) fn save_adapter_of<'a>(
    dir: &Path,
    params: &Params,
    linears: impl IntoIterator<Item = &'a Linear>,
    config: &LoraConfig,
    base_model: &str,
    modules: &Modules,
) -> Result<(), ModelError> {
    let mut tensors = Vec::new();
    for lora in linears.into_iter().filter_map(|l| l.lora) {
        for id in [lora.a, lora.b] {
            let p = params.get(id)?;
            let values = Cow::Owned(p.value().to_vec());
            tensors.push(SaveTensor {
                name: format!("{PREFIX}{}", modules.class_name(p.name())),
                shape: p.value().shape().to_vec(),
                values,
            });
        }
    }
    if tensors.is_empty() {
        return Err(ModelError::Request("there are no adapters to save".into()));
    }
    save_safetensors(dir, STEM, &tensors, SaveDtype::F32, usize::MAX)?;
    let json = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM",
        "base_model_name_or_path": (!base_model.is_empty()).then_some(base_model),
        "r": config.rank, "lora_alpha": config.alpha, "target_modules": modules.targets(&config.targets),
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
    });
    Ok(write_atomic(&dir.join(CONFIG), json.to_string().as_bytes())?)
}

/// Reads an adapter in PEFT's layout and attaches it. Returns its configuration.
pub fn load_adapter<'a>(
    dir: &Path,
    params: &mut Params,
    linears: impl IntoIterator<Item = &'a mut Linear>,
    keep: Keep,
) -> Result<LoraConfig, ModelError> {
    load_adapter_of(dir, params, linears, keep, &Modules::default())
}

/// As [`load_adapter`]; modules may have the names of the checkpoint (as older versions of transformers called them) or those of the class.
pub(crate) fn load_adapter_of<'a>(
    dir: &Path,
    params: &mut Params,
    linears: impl IntoIterator<Item = &'a mut Linear>,
    keep: Keep,
    modules: &Modules,
) -> Result<LoraConfig, ModelError> {
    let path = dir.join(CONFIG);
    let raw: Map<String, Value> = serde_json::from_slice(&read_bounded(&path, MAX_CONFIG_BYTES)?)
        .map_err(|e| ModelError::malformed(&path, format!("not a JSON object: {e}")))?;
    let fields = Fields::new(&path, &raw);
    let listed: Option<Vec<String>> = match fields.get("target_modules") {
        Some(Value::Array(list)) => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        // A pattern, or `all-linear`; the tensors say what it matched.
        Some(Value::String(_)) => Some(Vec::new()),
        _ => None,
    };
    let listed = listed.ok_or_else(|| {
        fields.bad("target_modules", "a list of module names, or a pattern of their names".into())
    })?;
    for unsupported in ["use_dora", "use_rslora", "fan_in_fan_out"] {
        if fields.bool_or(unsupported, false)? {
            return Err(fields.bad(unsupported, "false (plain LoRA)".into()));
        }
    }
    for unsupported in ["rank_pattern", "alpha_pattern"] {
        if fields.get(unsupported).and_then(Value::as_object).is_some_and(|map| !map.is_empty()) {
            return Err(
                fields.bad(unsupported, "an empty object (the same rank and scale in all layers)".into())
            );
        }
    }
    let mut config = LoraConfig {
        rank: fields.size("r", 1 << 16)?,
        alpha: fields.number("lora_alpha", 0.0, 1e9)? as f32,
        targets: listed,
    };
    let derived = config.targets.is_empty();
    let weights = Weights::open(&dir.join(format!("{STEM}.safetensors")))?;
    let mut specs = Vec::new();
    let mut places = Vec::new();
    for linear in linears {
        let (module, out, inner) = describe(params, linear)?;
        let names = [module.clone(), modules.class_name(&module)];
        let found = names.into_iter().find(|n| weights.contains(&format!("{PREFIX}{n}.lora_A.weight")));
        let Some(found) = found else { continue };
        specs.push(TensorSpec::new(format!("{PREFIX}{found}.lora_A.weight"), &[config.rank, inner]));
        specs.push(TensorSpec::new(format!("{PREFIX}{found}.lora_B.weight"), &[out, config.rank]));
        let last = module.rsplit('.').next().unwrap_or(&module).to_owned();
        if derived && !config.targets.contains(&last) {
            config.targets.push(last);
        }
        places.push((linear, module));
    }
    weights.check(&specs, |_| false)?;
    if places.is_empty() {
        let why = "it adapts no layer of this model's language model".to_owned();
        return Err(ModelError::malformed(&path, why));
    }
    for (pair, (linear, module)) in specs.chunks_exact(2).zip(places) {
        let mut add = |spec: &TensorSpec, part: &str| {
            let value = weights.tensor(&spec.name)?;
            let name = format!("{module}.{part}.weight");
            Ok::<_, ModelError>(match keep {
                Keep::Trainable => params.add(name, value)?,
                Keep::Frozen(dtype) => params.add_frozen(name, value.to_dtype(dtype))?,
            })
        };
        linear.lora =
            Some(Lora { a: add(&pair[0], "lora_A")?, b: add(&pair[1], "lora_B")?, scale: config.scale() });
    }
    Ok(config)
}

/// `W + s B A`, row-major.
pub(crate) fn merged(params: &Params, linear: &Linear) -> Result<Vec<f32>, ModelError> {
    let mut w = params.get(linear.weight)?.value().to_vec();
    let Some(lora) = linear.lora else { return Ok(w) };
    let (a, b) = (params.get(lora.a)?.value(), params.get(lora.b)?.value());
    let (rank, inner) = (a.rows(), a.cols());
    let (a, b) = (a.to_vec(), b.to_vec());
    for (row, b) in w.chunks_exact_mut(inner).zip(b.chunks_exact(rank)) {
        for (a, b) in a.chunks_exact(inner).zip(b) {
            let factor = lora.scale * b;
            row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
        }
    }
    Ok(w)
}
