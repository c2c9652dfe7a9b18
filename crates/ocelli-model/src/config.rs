//! A checkpoint's own `config.json`, checked once: afterwards every size is known to be positive, bounded and to
//! divide what it must divide, so that model code computes with plain numbers.
//!
//! Families: Llama (Mistral is the same with a window), Qwen2/2.5 (bias on q, k, v), Qwen3 (norm on q and k). For a
//! vision-language checkpoint the decoder's keys stand under `text_config` (or `llm_config`, or, for Qwen2-VL as
//! first published, at the top); [`ModelConfig::raw`] keeps the whole file for the vision half.
//! Reference: `configuration_{llama,qwen2,qwen3}.py` of transformers 5, whose defaults are used where a key is absent.

use std::path::{Path, PathBuf};

use ocelli_data::io::read_bounded;
use serde_json::{Map, Value, json};

use crate::ModelError;

/// Largest `config.json` that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Which decoder a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RMSNorm, rotary, grouped-query attention, SwiGLU.
    Llama,
    /// Llama with biases on q, k and v.
    Qwen2,
    /// Llama with RMSNorm on each head of q and k.
    Qwen3,
}

/// How rotary frequencies are stretched for contexts longer than the model was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// As trained up to `max_position_embeddings`; beyond it the reference makes the base grow with the length (InternVL2.5 and 3).
    /// That is refused here ([`TextConfig::check_length`]): keys that are cached keep the base of the length at which they were computed,
    /// so that what the reference computes depends on how a text was cut into calls.
    Dynamic {
        /// How the base grows.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a linear blend between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context of the first training, in tokens.
        original: usize,
    },
}

/// Multimodal rotary sections: how many of the `head_dim / 2` frequencies follow time, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mrope {
    /// Frequencies for (time, height, width); they add up to `head_dim / 2`.
    pub section: [usize; 3],
    /// Qwen3-VL interleaves the three axes (T H W T H W ...) instead of laying them one after the other.
    pub interleaved: bool,
}

impl Mrope {
    /// Which of time (0), height (1) and width (2) drives pair `j` of a head.
    pub fn axis(&self, j: usize) -> usize {
        let [t, h, w] = self.section;
        match (self.interleaved, j % 3) {
            (true, 1) if j < 3 * h => 1,
            (true, 2) if j < 3 * w => 2,
            (true, _) => 0,
            (false, _) => usize::from(j >= t) + usize::from(j >= t + h),
        }
    }
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Stretching.
    pub scaling: RopeScaling,
    /// Present in decoders of the Qwen-VL families.
    pub mrope: Option<Mrope>,
}

impl Rope {
    /// Angular frequencies, `[head_dim / 2]`: `theta^(-2i / head_dim)`, stretched.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let half = head_dim / 2;
        (0..half)
            .map(|i| {
                let f = self.theta.powf(-((2 * i) as f64) / head_dim as f64);
                match self.scaling {
                    RopeScaling::None | RopeScaling::Dynamic { .. } => f,
                    RopeScaling::Linear { factor } => f / factor,
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                        let original = original as f64;
                        let wavelength = 2.0 * std::f64::consts::PI / f;
                        if wavelength < original / high_freq_factor {
                            f
                        } else if wavelength > original / low_freq_factor {
                            f / factor
                        } else {
                            let keep = (original / wavelength - low_freq_factor)
                                / (high_freq_factor - low_freq_factor);
                            (1.0 - keep) * f / factor + keep * f
                        }
                    }
                }
            })
            .collect()
    }
}

/// Sizes and switches of a text decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Which decoder.
    pub family: Family,
    /// V, rows of the embedding.
    pub vocab_size: usize,
    /// D, width of the residual stream.
    pub hidden_size: usize,
    /// F, width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Rotary embedding.
    pub rope: Rope,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// The head shares the embedding's weights.
    pub tie_word_embeddings: bool,
    /// Bias on q, k and v projections.
    pub qkv_bias: bool,
    /// Bias on the output projection of attention.
    pub o_bias: bool,
    /// Bias on the three projections of the MLP.
    pub mlp_bias: bool,
    /// Tokens that a position may look back on, itself included, in some of the layers; `None`: all of them.
    pub sliding_window: Option<usize>,
}

impl TextConfig {
    /// RMSNorm on each head of q and k (Qwen3).
    pub fn qk_norm(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// Longest sequence that can be run: the checkpoint's context, or its sliding window where that is shorter, since a
    /// window is only supported up to the length at which it begins to matter.
    pub fn context(&self) -> usize {
        self.sliding_window.map_or(self.max_position_embeddings, |w| w.min(self.max_position_embeddings))
    }

    /// Refuses sequences of `length` tokens where positions are not computed as the reference does.
    ///
    /// # Errors
    /// A `dynamic` rotary embedding beyond `max_position_embeddings`.
    pub fn check_length(&self, length: usize) -> Result<(), ModelError> {
        let most = self.max_position_embeddings;
        match self.rope.scaling {
            RopeScaling::Dynamic { factor } if length > most => Err(ModelError::Request(format!(
                "a sequence of {length} tokens: the model's rotary embedding is `dynamic` (factor {factor}), which is supported up to \
                 max_position_embeddings, {most} tokens; beyond that its frequencies depend on the length. Shorten the dialogue, or show \
                 fewer or smaller pictures"
            ))),
            _ => Ok(()),
        }
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    fn read(f: &Fields<'_>, family: Family, windowed: bool) -> Result<Self, ModelError> {
        const WIDTH: usize = 1 << 20;
        let hidden_size = f.size("hidden_size", WIDTH)?;
        let num_attention_heads = f.size("num_attention_heads", 1 << 14)?;
        let num_key_value_heads = f.size_or("num_key_value_heads", num_attention_heads, 1 << 14)?;
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            return Err(
                f.bad("num_key_value_heads", format!("a divisor of the {num_attention_heads} query heads"))
            );
        }
        let head_dim = match f.get("head_dim") {
            Some(_) => f.size("head_dim", 1 << 12)?,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(f.bad(
                    "num_attention_heads",
                    format!("a divisor of hidden_size {hidden_size}, or a key `head_dim`"),
                ));
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(f.bad("head_dim", "an even number".into()));
        }
        if let Some(act) = f.get("hidden_act").filter(|v| v.as_str() != Some("silu")) {
            return Err(f.bad("hidden_act", format!("\"silu\" (not {act})")));
        }
        let num_hidden_layers = f.size("num_hidden_layers", 4096)?;
        let max_position_embeddings = f.size_or("max_position_embeddings", 2048, 1 << 31)?;
        let attention_bias = f.bool_or("attention_bias", false)?;
        let use_window = f.bool_or("use_sliding_window", windowed)?;
        let sliding_window = match f.get("sliding_window") {
            Some(Value::Number(_)) if use_window => Some(f.size("sliding_window", 1 << 31)?),
            _ => None,
        };
        let config = Self {
            family,
            vocab_size: f.size("vocab_size", 1 << 24)?,
            hidden_size,
            intermediate_size: f.size("intermediate_size", WIDTH)?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings,
            rope: read_rope(f, head_dim, max_position_embeddings)?,
            rms_norm_eps: f.number_or("rms_norm_eps", 1e-6, 0.0, 1.0)?,
            tie_word_embeddings: f.bool_or("tie_word_embeddings", false)?,
            qkv_bias: family == Family::Qwen2 || attention_bias,
            o_bias: family != Family::Qwen2 && attention_bias,
            mlp_bias: f.bool_or("mlp_bias", false)?,
            sliding_window,
        };
        Ok(config)
    }
}

/// `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).
fn read_rope(f: &Fields<'_>, head_dim: usize, context: usize) -> Result<Rope, ModelError> {
    let section = ["rope_parameters", "rope_scaling"].into_iter().find(|k| f.get(k).is_some());
    let inner = section.map(|k| f.object(k)).transpose()?;
    let theta_at = match &inner {
        Some(r) if r.get("rope_theta").is_some() => r,
        _ => f,
    };
    let theta = theta_at.number_or("rope_theta", 10_000.0, 1.0, 1e12)?;
    let Some(r) = inner else {
        return Ok(Rope { theta, scaling: RopeScaling::None, mrope: None });
    };
    let kind_key = if r.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = r.text_or(kind_key, "default")?;
    let scaling = match kind.as_str() {
        "default" | "mrope" => RopeScaling::None,
        "dynamic" => RopeScaling::Dynamic { factor: r.number("factor", 1.0, 1e6)? },
        "linear" => RopeScaling::Linear { factor: r.number("factor", 1.0, 1e6)? },
        "llama3" => {
            let low = r.number("low_freq_factor", 1e-6, 1e6)?;
            let high = r.number("high_freq_factor", 1e-6, 1e6)?;
            if high <= low {
                return Err(r.bad("high_freq_factor", format!("a number above low_freq_factor {low}")));
            }
            RopeScaling::Llama3 {
                factor: r.number("factor", 1.0, 1e6)?,
                low_freq_factor: low,
                high_freq_factor: high,
                original: r.size_or("original_max_position_embeddings", context, 1 << 31)?,
            }
        }
        _ => return Err(r.bad(kind_key, "one of default, dynamic, linear, llama3, mrope".into())),
    };
    let mrope = match r.get("mrope_section") {
        None if kind == "mrope" => return Err(r.bad("mrope_section", "three sizes".into())),
        None => None,
        Some(v) => {
            let parts: Option<Vec<usize>> = v
                .as_array()
                .and_then(|a| a.iter().map(|x| x.as_u64().and_then(|x| usize::try_from(x).ok())).collect());
            match parts.as_deref() {
                Some(&[t, h, w]) if t.checked_add(h).and_then(|s| s.checked_add(w)) == Some(head_dim / 2) => {
                    Some(Mrope { section: [t, h, w], interleaved: r.bool_or("mrope_interleaved", false)? })
                }
                _ => {
                    let expected = format!("three sizes that add up to head_dim / 2 = {}", head_dim / 2);
                    return Err(r.bad("mrope_section", expected));
                }
            }
        }
    };
    Ok(Rope { theta, scaling, mrope })
}

/// A checked `config.json`.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Where it came from.
    pub path: PathBuf,
    /// `model_type` at the top: `llama`, `qwen2`, `qwen2_5_vl` ...
    pub model_type: String,
    /// The decoder.
    pub text: TextConfig,
    /// The whole file.
    pub raw: Map<String, Value>,
}

impl ModelConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes = read_bounded(path, MAX_CONFIG_BYTES)?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| ModelError::malformed(path, format!("not JSON: {e}")))?;
        Self::from_value(value, path)
    }

    /// Checks a configuration that is already in memory; `path` appears in errors.
    pub fn from_value(value: Value, path: &Path) -> Result<Self, ModelError> {
        let Value::Object(raw) = value else {
            return Err(ModelError::malformed(path, "expected a JSON object at the top"));
        };
        let top = Fields::new(path, &raw);
        let model_type = top.text("model_type")?;
        let nested = ["text_config", "llm_config"].into_iter().find(|k| top.get(k).is_some());
        let text_fields = nested.map(|k| top.object(k)).transpose()?;
        let fields = text_fields.as_ref().unwrap_or(&top);
        let text_type = fields.text_or("model_type", &model_type)?;
        let (family, windowed) = match text_type.as_str() {
            "llama" => (Family::Llama, false),
            "mistral" => (Family::Llama, true),
            "qwen2" | "qwen2_vl" | "qwen2_vl_text" | "qwen2_5_vl" | "qwen2_5_vl_text" => {
                (Family::Qwen2, false)
            }
            "qwen3" | "qwen3_vl_text" => (Family::Qwen3, false),
            _ => {
                let known =
                    "a decoder of the llama, mistral, qwen2, qwen2_vl, qwen2_5_vl, qwen3 or qwen3_vl family";
                return Err(fields.bad("model_type", known.into()));
            }
        };
        let mut text = TextConfig::read(fields, family, windowed)?;
        // Composite checkpoints say it at the top.
        if nested.is_some() && fields.get("tie_word_embeddings").is_none() {
            text.tie_word_embeddings = top.bool_or("tie_word_embeddings", false)?;
        }
        Ok(Self { path: path.to_owned(), model_type, text, raw })
    }

    /// Access to keys that only one model family has, with the same errors.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.path, &self.raw)
    }

    /// `eos_token_id`, a number or a list of them, at the top or in the text part.
    pub fn eos_ids(&self) -> Vec<u32> {
        let text = ["text_config", "llm_config"].into_iter().find_map(|k| self.raw.get(k));
        token_ids(self.raw.get("eos_token_id").or_else(|| text.and_then(|t| t.get("eos_token_id"))))
    }
}

/// Token ids written as one number or as a list.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(v) => id(v).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A JSON object whose every access is checked and whose errors name the dotted key.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    file: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The top of a file.
    pub fn new(file: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self { file, prefix: String::new(), map }
    }

    /// The value of a key; JSON `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// An error about a key, quoting what is there.
    pub fn bad(&self, key: &str, expected: String) -> ModelError {
        let mut found = self.get(key).map_or("nothing".to_owned(), Value::to_string);
        if found.len() > 80 {
            found = found.chars().take(77).collect::<String>() + "...";
        }
        ModelError::Config {
            file: self.file.to_owned(),
            key: format!("{}{key}", self.prefix),
            expected,
            found,
        }
    }

    /// A nested object.
    pub fn object(&self, key: &str) -> Result<Fields<'a>, ModelError> {
        match self.get(key) {
            Some(Value::Object(map)) => {
                Ok(Fields { file: self.file, prefix: format!("{}{key}.", self.prefix), map })
            }
            _ => Err(self.bad(key, "an object".into())),
        }
    }

    /// A whole number in `1..=max`.
    pub fn size(&self, key: &str, max: usize) -> Result<usize, ModelError> {
        match self.get(key).and_then(Value::as_u64).and_then(|v| usize::try_from(v).ok()) {
            Some(v) if (1..=max).contains(&v) => Ok(v),
            _ => Err(self.bad(key, format!("a whole number from 1 to {max}"))),
        }
    }

    /// A whole number in `1..=max`, or `default` where the key is absent.
    pub fn size_or(&self, key: &str, default: usize, max: usize) -> Result<usize, ModelError> {
        if self.get(key).is_none() { Ok(default) } else { self.size(key, max) }
    }

    /// A whole number in `0..=max`, or `default` where the key is absent.
    pub fn count_or(&self, key: &str, default: usize, max: usize) -> Result<usize, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => match v.as_u64().and_then(|v| usize::try_from(v).ok()) {
                Some(v) if v <= max => Ok(v),
                _ => Err(self.bad(key, format!("a whole number from 0 to {max}"))),
            },
        }
    }

    /// A number in `min..=max`.
    pub fn number(&self, key: &str, min: f64, max: f64) -> Result<f64, ModelError> {
        match self.get(key).and_then(Value::as_f64) {
            Some(v) if v >= min && v <= max => Ok(v),
            _ => Err(self.bad(key, format!("a number from {min:e} to {max:e}"))),
        }
    }

    /// A number in `min..=max`, or `default` where the key is absent.
    pub fn number_or(&self, key: &str, default: f64, min: f64, max: f64) -> Result<f64, ModelError> {
        if self.get(key).is_none() { Ok(default) } else { self.number(key, min, max) }
    }

    /// True or false, or `default` where the key is absent.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(self.bad(key, "true or false".into())),
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<String, ModelError> {
        match self.get(key) {
            Some(Value::String(s)) => Ok(s.clone()),
            _ => Err(self.bad(key, "a string".into())),
        }
    }

    /// A string, or `default` where the key is absent.
    pub fn text_or(&self, key: &str, default: &str) -> Result<String, ModelError> {
        if self.get(key).is_none() { Ok(default.to_owned()) } else { self.text(key) }
    }
}

/// The `config.json` that transformers would write for a decoder; used when a GGUF file is saved in the layout of the
/// hub, and by tests.
pub fn to_json(c: &TextConfig) -> Value {
    let (model_type, class) = match c.family {
        Family::Llama => ("llama", "LlamaForCausalLM"),
        Family::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
    };
    let mut rope = json!({"rope_theta": c.rope.theta, "rope_type": "default"});
    match c.rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Dynamic { factor } => {
            rope["rope_type"] = "dynamic".into();
            rope["factor"] = factor.into();
        }
        RopeScaling::Linear { factor } => {
            rope["rope_type"] = "linear".into();
            rope["factor"] = factor.into();
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
            rope["rope_type"] = "llama3".into();
            rope["factor"] = factor.into();
            rope["low_freq_factor"] = low_freq_factor.into();
            rope["high_freq_factor"] = high_freq_factor.into();
            rope["original_max_position_embeddings"] = original.into();
        }
    }
    if let Some(m) = c.rope.mrope {
        rope["mrope_section"] = json!(m.section);
        rope["mrope_interleaved"] = m.interleaved.into();
    }
    let mut value = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "tie_word_embeddings": c.tie_word_embeddings,
        "attention_bias": c.o_bias,
        "mlp_bias": c.mlp_bias,
        "rope_parameters": rope,
    });
    if let Some(window) = c.sliding_window {
        value["sliding_window"] = window.into();
        value["use_sliding_window"] = true.into();
    }
    value
}
