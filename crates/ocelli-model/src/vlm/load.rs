//! Models into memory and back: from a checkpoint, drawn at random, put together, and saved in the checkpoint's own layout.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ocelli_tensor::{DType, ParamId, Params};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::context::Placeholder;
use super::eyes::Eyes;
use super::names::Names;
use super::value_head::{self, ValueHead};
use super::{Part, Vlm, assembled, internvl, tiny};
use crate::ModelError;
use crate::chat::ChatTemplate;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::declare::Source;
use crate::image::ImageLimits;
use crate::language_model::save_chosen;
use crate::text::{Keep, TextModel};
use crate::tokenizer::Tokenizer;
use crate::weights::{SaveDtype, TensorSpec};

/// Where a saved model keeps its adapters apart.
const ADAPTERS: &str = "adapter";

/// How a checkpoint is taken into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The tower's parameters.
    pub tower: Keep,
    /// The projector's parameters.
    pub projector: Keep,
    /// The language model's parameters.
    pub language: Keep,
    /// Type of activations and matrix products.
    pub compute: DType,
}

impl Default for LoadOptions {
    /// Everything trainable, in f32.
    fn default() -> Self {
        let keep = Keep::Trainable;
        Self { tower: keep, projector: keep, language: keep, compute: DType::F32 }
    }
}

impl LoadOptions {
    /// Everything frozen and in f32: for inference.
    pub fn frozen() -> Self {
        let keep = Keep::Frozen(DType::F32);
        Self { tower: keep, projector: keep, language: keep, compute: DType::F32 }
    }
}

impl Vlm {
    /// Loads a checkpoint: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL (both layouts), the native family, an assembled
    /// model, or a text model. A `value_head.safetensors` beside the weights is loaded too.
    ///
    /// # Errors
    /// One error that lists all missing, unexpected and misshapen tensors; a configuration that is not understood.
    pub fn load(checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self, ModelError> {
        let mut config = checkpoint.config.clone();
        let weights = &checkpoint.weights;
        let parts = Names::find(&mut config, weights)?;
        let mut specs = TextModel::specs(&config.text, &parts.text);
        if let Some(eyes) = &parts.eyes {
            eyes.declare(&mut Params::new(), &mut Source::List(&mut specs), LoadOptions::default())?;
        }
        weights.check(&specs, |name| {
            let buffer = name.ends_with("rotary_emb.inv_freq") || name.ends_with("position_ids");
            buffer || (config.text.tie_word_embeddings && name == parts.text.head)
        })?;
        let mut params = Params::new();
        params.set_compute_dtype(options.compute);
        let eyes = match &parts.eyes {
            Some(eyes) => Some(eyes.declare(&mut params, &mut Source::Read(weights), options)?),
            None => None,
        };
        let text = TextModel::load(&mut params, weights, &config.text, &parts.text, options.language)?;
        let mut this = Self::assemble(params, text, config, eyes, checkpoint.tokenizer.clone())?;
        this.stored_shapes = Arc::new(stored_shapes(&this.params, &specs));
        this.set_chat(checkpoint.chat.clone());
        this.eos_ids = checkpoint.eos_ids.clone();
        this.side_files = Arc::new(checkpoint.side_files()?);
        this.read_preprocessor()?;
        if checkpoint.path.is_dir() {
            let width = this.text.config().hidden_size;
            this.value_head = ValueHead::read(&mut this.params, &checkpoint.path, width)?;
        }
        Ok(this)
    }

    /// A new model of the native family, its parameters drawn from `seed`.
    pub fn tiny(config: &tiny::TinyConfig, seed: u64) -> Result<Self, ModelError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let files = config.files()?;
        let model_config = config.model_config()?;
        let parts = Names::canonical(&model_config)?;
        let (mut params, mut specs) = (Params::new(), Vec::new());
        let eyes = match &parts.eyes {
            Some(eyes) => {
                eyes.declare(&mut Params::new(), &mut Source::List(&mut specs), LoadOptions::default())?;
                Some(eyes.declare(&mut params, &mut Source::Draw(&mut rng), LoadOptions::default())?)
            }
            None => None,
        };
        let text = TextModel::init(&mut params, &model_config.text, &parts.text, &mut rng)?;
        let tokenizer = tiny::tokenizer()?;
        let mut this = Self::assemble(params, text, model_config, eyes, Some(tokenizer))?;
        this.stored_shapes = Arc::new(stored_shapes(&this.params, &specs));
        this.set_chat(Some(ChatTemplate::new(&tiny::chat_template(tiny::IMAGE), tiny::special_tokens())?));
        this.eos_ids = this.config.eos_ids();
        this.side_files = Arc::new(files);
        this.read_preprocessor()?;
        Ok(this)
    }

    /// Gives a text model eyes: a new tower and a new projector, drawn from `seed`. The language model is frozen; its
    /// parameters are kept as `language` says, in f32 or bf16.
    pub fn assembled(
        text: &Checkpoint,
        assembly: &assembled::Assembly,
        language: DType,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = assembly.config(text)?;
        let parts = Names::canonical(&config)?;
        text.weights.check(&TextModel::specs(&config.text, &parts.text), |name| {
            name.ends_with("rotary_emb.inv_freq")
                || (config.text.tie_word_embeddings && name == parts.text.head)
        })?;
        let (mut params, mut specs) = (Params::new(), Vec::new());
        let Some(names) = &parts.eyes else {
            return Err(ModelError::Request("an assembled model has eyes".into()));
        };
        names.declare(&mut Params::new(), &mut Source::List(&mut specs), LoadOptions::default())?;
        let eyes = names.declare(&mut params, &mut Source::Draw(&mut rng), LoadOptions::default())?;
        let keep = Keep::Frozen(language);
        let decoder = TextModel::load(&mut params, &text.weights, &config.text, &parts.text, keep)?;
        let mut files = text.side_files()?;
        files.retain(|(name, _)| {
            !["config.json", "chat_template.jinja", "chat_template.json"].contains(&name.as_str())
        });
        let pretty = |v: &serde_json::Value| format!("{v:#}\n").into_bytes();
        files.push(("config.json".into(), pretty(&config.raw.clone().into())));
        files.push(("preprocessor_config.json".into(), pretty(&assembly.preprocessor_config())));
        let chat = assembly.chat(text.special.clone())?;
        files.push(("chat_template.jinja".into(), chat.source().as_bytes().to_vec()));
        let mut this = Self::assemble(params, decoder, config, Some(eyes), text.tokenizer.clone())?;
        this.stored_shapes = Arc::new(stored_shapes(&this.params, &specs));
        this.set_chat(Some(chat));
        this.eos_ids = text.eos_ids.clone();
        this.side_files = Arc::new(files);
        this.read_preprocessor()?;
        Ok(this)
    }

    fn assemble(
        mut params: Params,
        text: TextModel,
        config: ModelConfig,
        eyes: Option<Eyes>,
        tokenizer: Option<Tokenizer>,
    ) -> Result<Self, ModelError> {
        let seen: &[&[ParamId]] = match &eyes {
            Some(e) => &[&e.tower_params, &e.projector_params],
            None => &[],
        };
        let language: Vec<ParamId> = params.ids().filter(|id| !seen.iter().any(|s| s.contains(id))).collect();
        for id in language {
            params.set_group(id, Part::Language.group())?;
        }
        let placeholder = match &eyes {
            Some(_) => Some(placeholder(&config, tokenizer.as_ref())?),
            None => None,
        };
        Ok(Self {
            params,
            text,
            config,
            eos_ids: Vec::new(),
            limits: ImageLimits::default(),
            tokenizer,
            chat: None,
            picture_mark: None,
            eyes,
            placeholder,
            value_head: None,
            adapters: None,
            side_files: Arc::default(),
            stored_shapes: Arc::default(),
        })
    }

    /// Sets the chat template, and how pictures get into a dialogue if the template of an InternVL cannot write them.
    fn set_chat(&mut self, chat: Option<ChatTemplate>) {
        let intern = internvl::MODEL_TYPES.contains(&self.config.model_type.as_str());
        let mark = self.placeholder.filter(|_| intern).and_then(|p| self.tokenizer.as_ref()?.token(p.token));
        self.picture_mark = mark.filter(|mark| chat.as_ref().is_some_and(|c| !c.writes_pictures_as(mark)));
        self.chat = chat;
    }

    /// `preprocessor_config.json`, or the part `image_processor` of `processor_config.json`.
    fn read_preprocessor(&mut self) -> Result<(), ModelError> {
        let Some(eyes) = &mut self.eyes else { return Ok(()) };
        for name in ["preprocessor_config.json", "processor_config.json"] {
            let Some((_, bytes)) = self.side_files.iter().find(|(n, _)| n == name) else { continue };
            let path = Path::new(name);
            let value: serde_json::Value = serde_json::from_slice(bytes)
                .map_err(|e| ModelError::malformed(path, format!("not JSON: {e}")))?;
            let part =
                if name == "processor_config.json" { value.get("image_processor") } else { Some(&value) };
            let Some(part) = part else { continue };
            let read = eyes.preprocessor.clone().with_config(part);
            eyes.preprocessor = read.map_err(|e| ModelError::malformed(path, e.to_string()))?;
            return Ok(());
        }
        Ok(())
    }

    /// Writes the model in its checkpoint's layout, so that what reads the original reads this: weights under their own
    /// names (adapters merged), configuration, tokenizer, templates, and the value head beside them. Adapters are also kept apart,
    /// in `adapter/` in PEFT's layout, for the checkpoint that the model was loaded from.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<(), ModelError> {
        let shape = |id: ParamId| self.stored_shapes.get(&id).cloned();
        let base = |name: &str| !value_head::is_head(name);
        save_chosen(dir, &self.params, self.text.linears(), dtype, base, shape)?;
        if let Some(head) = &self.value_head {
            head.save(&self.params, dir)?;
        }
        if let Some(config) = &self.adapters {
            self.save_adapters(&dir.join(ADAPTERS), config, "")?;
        }
        for (name, bytes) in self.side_files.iter() {
            ocelli_data::io::write_atomic(&dir.join(name), bytes)?;
        }
        Ok(())
    }
}

/// The token that stands for a picture: `image_token_id`, or InternVL's `<IMG_CONTEXT>` between `<img>` and `</img>`.
fn placeholder(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<Placeholder, ModelError> {
    let id = |token: &str| tokenizer.and_then(|t| t.id(token));
    let intern = internvl::MODEL_TYPES.contains(&config.model_type.as_str());
    let around = if intern { id("<img>").zip(id("</img>")).map(|(a, b)| [a, b]) } else { None };
    let keys = ["image_token_id", "img_context_token_id"];
    let stated = keys.into_iter().find_map(|key| config.raw.get(key).and_then(serde_json::Value::as_u64));
    let stated = stated.and_then(|v| u32::try_from(v).ok());
    let token = stated.or_else(|| id("<IMG_CONTEXT>")).filter(|&t| (t as usize) < config.text.vocab_size);
    let expected = format!("a token id below vocab_size {}", config.text.vocab_size);
    let token = token.ok_or_else(|| config.fields().bad("image_token_id", expected))?;
    Ok(Placeholder { token, around })
}

/// Shapes of the checkpoint where the model keeps the same numbers in another shape.
fn stored_shapes(params: &Params, specs: &[TensorSpec]) -> HashMap<ParamId, Vec<usize>> {
    let differs = |s: &&TensorSpec| {
        params.id(&s.name).and_then(|id| params.get(id).ok()).is_some_and(|p| p.value().shape() != s.shape)
    };
    let found = specs.iter().filter(differs);
    found.filter_map(|s| Some((params.id(&s.name)?, s.shape.clone()))).collect()
}
