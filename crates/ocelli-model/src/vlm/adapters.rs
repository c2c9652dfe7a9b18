//! Low-rank adapters on the language model of a model that sees ([`crate::lora`]); they belong to [`Part::Language`].

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Part, Vlm};
use crate::ModelError;
use crate::lora::{self, LoraConfig, Modules};
use crate::text::Keep;

impl Vlm {
    /// Adds trainable adapters beside the targeted layers of the language model, drawn from `seed`; what the model
    /// computes does not change. Returns how many layers were adapted.
    pub fn attach_adapters(&mut self, config: &LoraConfig, seed: u64) -> Result<usize, ModelError> {
        let known = self.params.len();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let adapted = lora::attach(&mut self.params, self.text.linears_mut(), config, &mut rng)?;
        self.to_language(known)?;
        self.adapters = Some(config.clone());
        Ok(adapted)
    }

    /// Reads adapters in PEFT's layout. Returns their configuration.
    pub fn load_adapters(&mut self, dir: &Path, keep: Keep) -> Result<LoraConfig, ModelError> {
        let known = self.params.len();
        let modules = self.modules()?;
        let config = lora::load_adapter_of(dir, &mut self.params, self.text.linears_mut(), keep, &modules)?;
        self.to_language(known)?;
        self.adapters = Some(config.clone());
        Ok(config)
    }

    /// Writes the adapters alone, in PEFT's layout; `base_model` is the name of the checkpoint that they belong to, or empty.
    pub fn save_adapters(&self, dir: &Path, config: &LoraConfig, base_model: &str) -> Result<(), ModelError> {
        lora::save_adapter_of(dir, &self.params, self.text.linears(), config, base_model, &self.modules()?)
    }

    /// Names of the language model's modules in transformers' classes. Classes that come with their checkpoint (OpenGVLab,
    /// Skywork) and text models call them as the checkpoint does.
    fn modules(&self) -> Result<Modules, ModelError> {
        if !["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"].contains(&self.config.model_type.as_str()) {
            return Ok(Modules::default());
        }
        let embedding = self.params.get(self.text.embedding())?.name();
        let stored = embedding.strip_suffix("embed_tokens.weight").unwrap_or_default().to_owned();
        Ok(Modules { stored, class: "model.language_model.".into() })
    }

    /// Puts the parameters from number `known` on into the language model's group.
    fn to_language(&mut self, known: usize) -> Result<(), ModelError> {
        let added: Vec<_> = self.params.ids().skip(known).collect();
        for id in added {
            self.params.set_group(id, Part::Language.group())?;
        }
        Ok(())
    }
}
