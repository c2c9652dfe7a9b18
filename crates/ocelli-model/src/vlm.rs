//! Models that see: a vision tower, a projector and a language model, loaded from a checkpoint, trained, saved.
//!
//! One type for all families ([`Vlm`]); text models load too, they have no eyes. What differs between the families is in
//! one file each: [`qwen2_vl`](self), `qwen2_5_vl`, `qwen3_vl`, `internvl`, [`tiny`] (the native family) and [`assembled`].
//!
//! ```text
//! messages + pictures --prompt--> Context (ids, placeholders expanded, patches)
//! Contexts --pack--> Batch (rows, positions, who sees whom, prompts shared)
//! Batch --hidden--> states [N, D] --logprobs / logits / values--> what a loss or a sampler needs
//! ```
//!
//! The number of placeholders equals the number of features by construction, and is checked again before any forward
//! pass; a picture that is named but not given, or given but not named, is an error, never a blind model.

pub mod assembled;
mod batch;
mod context;
mod eyes;
mod internvl;
mod patching;
mod pictures;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod self_test;
pub mod tiny;
mod value_head;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ocelli_data::{ContentHash, Message, Trajectory};
use ocelli_tensor::ops::{self, LogProbs};
use ocelli_tensor::{DType, ParamId, Params, Tape, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use batch::{Batch, Group};
pub use context::{Context, ImageSpan};
pub use eyes::FeatureStats;
pub(crate) use eyes::{Projector, Tower};
pub use pictures::{NoPictures, Pictures};
pub use self_test::Sensitivity;

use crate::ModelError;
use crate::chat::{ChatOptions, ChatTemplate};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::declare::{Declare, Source};
use crate::generate::{Engine, EngineLimits, MropePositions, Prompt, Splice};
use crate::image::{ImageLimits, ImagePatches, Preprocessor, decode};
use crate::language_model::save_chosen;
use crate::text::{Attend, DeepFeatures, Keep, Positions, TextModel, TextNames};
use crate::tokenizer::Tokenizer;
use crate::weights::{SaveDtype, TensorSpec, Weights};
use context::Placeholder;
use eyes::{Eyes, EyesConfig};
use value_head::ValueHead;

/// A part of a model: frozen, trained or exchanged alone; its number is the optimiser group of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The vision tower, without what maps its states to the language model.
    Tower,
    /// The projector (Qwen: the patch mergers; InternVL: the MLP).
    Projector,
    /// The language model, embedding and output layer included.
    Language,
    /// The scalar head.
    ValueHead,
}

impl Part {
    /// All parts, in the order of their groups.
    pub const ALL: [Self; 4] = [Self::Tower, Self::Projector, Self::Language, Self::ValueHead];

    /// Index into `AdamWConfig::groups`.
    pub fn group(self) -> usize {
        self as usize
    }
}

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

/// A vision-language model, or a text model.
#[derive(Clone, Debug)]
pub struct Vlm {
    /// All parameters, under the checkpoint's names.
    pub params: Params,
    /// The decoder.
    pub text: TextModel,
    /// The checked configuration.
    pub config: ModelConfig,
    /// Tokens after which generation ends.
    pub eos_ids: Vec<u32>,
    /// What pictures may cost.
    pub limits: ImageLimits,
    tokenizer: Option<Tokenizer>,
    chat: Option<ChatTemplate>,
    eyes: Option<Eyes>,
    placeholder: Option<Placeholder>,
    value_head: Option<ValueHead>,
    /// Files that are saved with the weights: `config.json`, tokenizer, templates.
    side_files: Arc<Vec<(String, Vec<u8>)>>,
    /// Shapes in the checkpoint where they differ from the shapes in memory.
    stored_shapes: Arc<HashMap<ParamId, Vec<usize>>>,
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
        this.chat = checkpoint.chat.clone();
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
        this.chat = Some(ChatTemplate::new(&tiny::chat_template(tiny::IMAGE), tiny::special_tokens())?);
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
        this.chat = Some(chat);
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
            eyes,
            placeholder,
            value_head: None,
            side_files: Arc::default(),
            stored_shapes: Arc::default(),
        })
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
    /// names (adapters merged), configuration, tokenizer, templates, and the value head beside them.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<(), ModelError> {
        let shape = |id: ParamId| self.stored_shapes.get(&id).cloned();
        let base = |name: &str| !value_head::is_head(name);
        save_chosen(dir, &self.params, self.text.linears(), dtype, base, shape)?;
        if let Some(head) = &self.value_head {
            head.save(&self.params, dir)?;
        }
        for (name, bytes) in self.side_files.iter() {
            ocelli_data::io::write_atomic(&dir.join(name), bytes)?;
        }
        Ok(())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer, ModelError> {
        self.tokenizer.as_ref().ok_or_else(|| ModelError::Tokenizer {
            path: self.config.path.with_file_name("tokenizer.json"),
            why: "the checkpoint has none; text cannot become tokens without it".into(),
        })
    }

    /// The chat template.
    pub fn chat(&self) -> Result<&ChatTemplate, ModelError> {
        self.chat.as_ref().ok_or_else(|| ModelError::Chat("the checkpoint has no chat template".into()))
    }

    /// True when the model takes pictures.
    pub fn sees(&self) -> bool {
        self.eyes.is_some()
    }

    /// How pictures are cut, for changing their size: `None` for a text model.
    pub fn preprocessor_mut(&mut self) -> Option<&mut Preprocessor> {
        self.eyes.as_mut().map(|e| &mut e.preprocessor)
    }

    /// Freezes or thaws a part. Thawing the tower forgets the features that were kept.
    pub fn set_trainable(&mut self, part: Part, trainable: bool) -> Result<(), ModelError> {
        let ids: Vec<ParamId> = self.parameters(part).collect();
        for id in ids {
            self.params.set_trainable(id, trainable)?;
        }
        if part == Part::Tower {
            self.forget_features();
        }
        Ok(())
    }

    /// Parameters of a part.
    pub fn parameters(&self, part: Part) -> impl Iterator<Item = ParamId> {
        self.params.iter().filter(move |(_, p)| p.group() == part.group()).map(|(id, _)| id)
    }

    /// Takes the values of a part from another model of the same sizes (a projector aligned with a substitute language
    /// model goes to the reasoning one).
    ///
    /// # Errors
    /// The other model has no parameter of a name, or another shape.
    pub fn take_part(&mut self, part: Part, from: &Self) -> Result<(), ModelError> {
        let ids: Vec<ParamId> = self.parameters(part).collect();
        for id in ids {
            let name = self.params.get(id)?.name().to_owned();
            let other = from
                .params
                .id(&name)
                .ok_or_else(|| ModelError::Request(format!("the other model has no parameter `{name}`")))?;
            let value = from.params.get(other)?.value().clone();
            self.params.set_value(id, value)?;
        }
        if part == Part::Tower {
            self.forget_features();
        }
        Ok(())
    }

    /// Forgets the states kept of a frozen tower. Needed after changing its values by hand.
    pub fn forget_features(&self) {
        if let Some(eyes) = &self.eyes {
            eyes.lock().clear();
        }
    }

    /// Bounds the memory for states of a frozen tower; 1 GiB unless told otherwise.
    pub fn set_feature_memory(&self, bytes: usize) {
        if let Some(eyes) = &self.eyes {
            let mut cache = eyes.lock();
            cache.limit = bytes;
            cache.shrink();
        }
    }

    /// How many pictures went through the tower, and how many did not have to.
    pub fn feature_stats(&self) -> FeatureStats {
        self.eyes.as_ref().map_or_else(FeatureStats::default, |e| e.lock().stats)
    }

    /// Decodes a picture and cuts it into patches.
    pub fn see(&self, bytes: &[u8]) -> Result<Arc<ImagePatches>, ModelError> {
        let eyes = self.eyes()?;
        let patches = decode(bytes, &self.limits).and_then(|image| eyes.preprocessor.apply(&image));
        patches.map(Arc::new).map_err(|source| ModelError::Image { hash: ContentHash::of(bytes), source })
    }

    fn eyes(&self) -> Result<&Eyes, ModelError> {
        self.eyes.as_ref().ok_or_else(|| {
            ModelError::Request(format!("a picture was given to `{}`, a text model", self.config.model_type))
        })
    }

    fn see_all(
        &self,
        hashes: impl IntoIterator<Item = ContentHash>,
        pictures: &dyn Pictures,
    ) -> Result<Vec<(ContentHash, Arc<ImagePatches>)>, ModelError> {
        let mut seen: HashMap<ContentHash, Arc<ImagePatches>> = HashMap::new();
        let mut all = Vec::new();
        for hash in hashes {
            let patches = match seen.get(&hash) {
                Some(patches) => patches.clone(),
                None => self.see(&pictures.bytes(hash)?)?,
            };
            seen.insert(hash, patches.clone());
            all.push((hash, patches));
        }
        Ok(all)
    }

    /// A dialogue as the model takes it.
    ///
    /// # Errors
    /// The template prints another number of pictures than the messages have; a picture cannot be decoded.
    pub fn prompt(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        pictures: &dyn Pictures,
    ) -> Result<Context, ModelError> {
        let mut context = Context::default();
        let text = self.chat()?.render(messages, options)?;
        self.write(&mut context, &text, messages, pictures)?;
        Ok(context)
    }

    /// Appends what follows an assistant's turn when `new` messages come after it: the rest of the turn's end, the
    /// messages, and the beginning of the next turn. The context must end where the policy stopped speaking, its
    /// end-of-turn token not included. Returns the new rows; none of them is trained.
    pub fn continue_dialogue(
        &self,
        context: &mut Context,
        new: &[Message],
        options: &ChatOptions,
        pictures: &dyn Pictures,
    ) -> Result<std::ops::Range<usize>, ModelError> {
        let text = self.chat()?.continuation(new, options)?;
        self.write(context, &text, new, pictures)
    }

    fn write(
        &self,
        context: &mut Context,
        text: &str,
        messages: &[Message],
        pictures: &dyn Pictures,
    ) -> Result<std::ops::Range<usize>, ModelError> {
        let ids = self.tokenizer()?.encode(text)?;
        let images = self.see_all(messages.iter().flat_map(Message::images), pictures)?;
        context.push_written(&ids, self.placeholder, &images)
    }

    /// Token ids in which every placeholder token stands for the next picture, as a context.
    pub fn context_of_ids(
        &self,
        ids: &[u32],
        images: &[ContentHash],
        pictures: &dyn Pictures,
    ) -> Result<Context, ModelError> {
        let mut context = Context::default();
        context.push_written(ids, self.placeholder, &self.see_all(images.iter().copied(), pictures)?)?;
        Ok(context)
    }

    /// The context of a finished trajectory, token for token what the policy saw and sampled.
    pub fn context_of(
        &self,
        trajectory: &Trajectory,
        pictures: &dyn Pictures,
    ) -> Result<Context, ModelError> {
        let images = self.see_all(trajectory.images.iter().copied(), pictures)?;
        Context::of_trajectory(trajectory, self.placeholder, &images)
    }

    /// Packs contexts for one forward pass.
    pub fn pack(&self, groups: &[Group<'_>]) -> Result<Batch, ModelError> {
        Batch::pack(groups, self.multimodal_merge())
    }

    /// `Some(merge)` when positions count time, height and width.
    fn multimodal_merge(&self) -> Option<usize> {
        let eyes = self.eyes.as_ref()?;
        self.text.config().rope.mrope.map(|_| eyes.merge)
    }

    /// Positions of the tokens of a context, and the position of the token after it.
    pub fn positions(&self, context: &Context) -> (Positions, usize) {
        let merge = self.multimodal_merge();
        (context.positions(merge), context.next_position(merge))
    }

    /// Input rows: embeddings of the ids, with the pictures' features in their places.
    pub fn inputs(
        &self,
        tape: &mut Tape<'_>,
        batch: &Batch,
    ) -> Result<(Var, Option<DeepFeatures>), ModelError> {
        let x = self.text.embed(tape, &batch.ids)?;
        if batch.images.is_empty() {
            return Ok((x, None));
        }
        let (unique, first_rows) = unique_images(&batch.images.iter().collect::<Vec<_>>());
        let rows: Vec<usize> = batch.images.iter().flat_map(|i| i.rows.clone()).collect();
        let sources =
            batch.images.iter().zip(first_rows).flat_map(|(i, first)| first..first + i.patches.tokens);
        let sources: Vec<usize> = sources.collect();
        for image in &batch.images {
            let found = batch.ids[image.rows.clone()].iter();
            let placeholders = found.filter(|id| self.placeholder.is_some_and(|p| p.token == **id)).count();
            let features = image.patches.tokens;
            if placeholders != features {
                return Err(ModelError::ImageTokens { hash: image.hash, placeholders, features });
            }
        }
        let mut features = self.eyes()?.features(tape, &unique)?;
        if sources.iter().enumerate().any(|(i, &s)| i != s) {
            for f in &mut features {
                *f = ops::gather_rows(tape, f, &sources)?;
            }
        }
        let deep = features.split_off(1);
        let x = ops::scatter_rows(tape, &x, &rows, &features[0])?;
        Ok((x, (!deep.is_empty()).then_some(DeepFeatures { rows, levels: deep })))
    }

    /// States after the decoder's last norm, `[N, D]`. With `checkpoint`, a recording tape keeps only each block's input.
    pub fn hidden(&self, tape: &mut Tape<'_>, batch: &Batch, checkpoint: bool) -> Result<Var, ModelError> {
        let (x, deep) = self.inputs(tape, batch)?;
        let rotary = self.text.rotary(&batch.positions)?;
        let attend = Attend::Packed(&batch.layout);
        Ok(self.text.forward(tape, x, &rotary, attend, deep.as_ref(), checkpoint)?)
    }

    /// Log-probability and entropy of `targets[i]` after row `rows[i]` ([`Batch::predictions`]).
    pub fn logprobs(
        &self,
        tape: &mut Tape<'_>,
        hidden: &Var,
        (rows, targets): (&[usize], &[u32]),
        temperature: f32,
    ) -> Result<LogProbs, ModelError> {
        Ok(self.text.logprobs(tape, hidden, rows, targets, temperature)?)
    }

    /// What a generation engine reads: the tokens of a context from `from` on, with the features of the pictures among
    /// them. 0 for a prompt; for the next turn of a sequence, the row at which what is new begins.
    ///
    /// # Errors
    /// `from` lies inside a picture or behind the end.
    pub fn generation_prompt(&self, context: &Context, from: usize) -> Result<Prompt, ModelError> {
        let mut prompts = self.read_from(&[(context, from)])?;
        prompts.pop().ok_or_else(|| ModelError::Request("no context".into()))
    }

    /// Prompts of several contexts; their pictures go through the tower together.
    pub fn generation_prompts(&self, contexts: &[Context]) -> Result<Vec<Prompt>, ModelError> {
        self.read_from(&contexts.iter().map(|c| (c, 0)).collect::<Vec<_>>())
    }

    fn read_from(&self, parts: &[(&Context, usize)]) -> Result<Vec<Prompt>, ModelError> {
        let mut images: Vec<&ImageSpan> = Vec::new();
        for (context, from) in parts {
            let inside = context.images().iter().any(|i| i.rows.start < *from && *from < i.rows.end);
            if *from > context.len() || inside {
                let why = format!("a context of {} tokens cannot be read from {from} on", context.len());
                return Err(ModelError::Request(why));
            }
            images.extend(context.images().iter().filter(|i| i.rows.start >= *from));
        }
        let (unique, first_rows) = unique_images(&images);
        let mut tape = Tape::inference(&self.params);
        let features =
            if images.is_empty() { Vec::new() } else { self.eyes()?.features(&mut tape, &unique)? };
        let mut first_rows = first_rows.into_iter();
        let mut prompts = Vec::with_capacity(parts.len());
        for (context, from) in parts {
            let mut splices = Vec::new();
            for (image, first) in
                context.images().iter().filter(|i| i.rows.start >= *from).zip(&mut first_rows)
            {
                let rows = first..first + image.patches.tokens;
                let mut levels = features.iter().map(|f| f.value().slice_rows(rows.clone()));
                let Some(own) = levels.next() else { continue };
                let deep = levels.collect::<Result<_, _>>()?;
                splices.push(Splice { at: image.rows.start - from, rows: own?, deep });
            }
            let positions = self.positions_from(context, *from);
            prompts.push(Prompt { ids: context.ids()[*from..].to_vec(), splices, positions });
        }
        Ok(prompts)
    }

    /// Multimodal positions of the tokens from `from` on, counted from there.
    fn positions_from(&self, context: &Context, from: usize) -> Option<MropePositions> {
        let (positions, next) = self.positions(context);
        let Positions::Multimodal(axes) = positions else { return None };
        // Text counts alike on all axes, and so does the first token of a picture.
        let start = axes[0].get(from).copied().unwrap_or(next as f32);
        let axes = axes.map(|a| a[from..].iter().map(|p| p - start).collect());
        Some(MropePositions { axes, next: next as f32 - start })
    }

    /// An engine that samples from this model.
    pub fn engine(&self, limits: EngineLimits) -> Result<Engine<'_>, ModelError> {
        Engine::new(&self.text, &self.params, self.tokenizer.as_ref(), limits)
    }

    /// Adds a new scalar head, drawn from `seed`.
    pub fn add_value_head(&mut self, seed: u64) -> Result<(), ModelError> {
        if self.value_head.is_some() {
            return Err(ModelError::Request("the model has a value head already".into()));
        }
        let width = self.text.config().hidden_size;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.value_head = Some(ValueHead::draw(&mut self.params, width, &mut rng)?);
        Ok(())
    }

    /// True when there is a scalar head.
    pub fn has_value_head(&self) -> bool {
        self.value_head.is_some()
    }

    /// Scalars at the given rows of the states, `[n]`: a reward, at the row of the last token of each answer.
    pub fn values(&self, tape: &mut Tape<'_>, hidden: &Var, rows: &[usize]) -> Result<Var, ModelError> {
        let head = self.value_head.as_ref().ok_or_else(|| {
            ModelError::Request("the model has no value head; add one, or load value_head.safetensors".into())
        })?;
        Ok(head.forward(tape, hidden, rows)?)
    }
}

/// The different pictures among `images`, and for each of `images` the first row of its features among theirs.
fn unique_images<'a>(images: &[&'a ImageSpan]) -> (Vec<&'a ImageSpan>, Vec<usize>) {
    let (mut unique, mut known, mut total) = (Vec::new(), HashMap::new(), 0);
    let first_row = |image: &&'a ImageSpan| {
        *known.entry(image.hash).or_insert_with(|| {
            unique.push(*image);
            total += image.patches.tokens;
            total - image.patches.tokens
        })
    };
    let first_rows = images.iter().map(first_row).collect();
    (unique, first_rows)
}

/// Names of the parts in a checkpoint.
struct Names {
    text: TextNames,
    eyes: Option<EyesNames>,
}

struct EyesNames {
    config: EyesConfig,
    tower: String,
    projector: String,
}

impl Names {
    /// As the family's published checkpoints have them.
    fn canonical(config: &ModelConfig) -> Result<Self, ModelError> {
        let eyes = EyesConfig::read(&config.fields(), config.text.hidden_size)?;
        let text = match &eyes {
            Some(EyesConfig::Qwen3(..)) if config.model_type == "qwen3_vl" => "model.language_model.",
            Some(EyesConfig::Intern(_)) => "language_model.model.",
            _ => "model.",
        };
        let text = TextNames { prefix: text.into(), ..TextNames::default() };
        let eyes = eyes.map(|c| EyesNames::at(c.prefixes()[0], c));
        Ok(Self { text, eyes })
    }

    /// As they are in these weights. In a composite model the top of the configuration says whether the output layer
    /// is tied; the text part may state its own default beside it.
    fn find(config: &mut ModelConfig, weights: &Weights) -> Result<Self, ModelError> {
        let mut names = Self::canonical(config)?;
        let own = names.text.prefix.clone();
        let known = [own.as_str(), "model.", "model.language_model.", "language_model.model."];
        let embedding = |prefix: &&str| weights.contains(&format!("{prefix}embed_tokens.weight"));
        if let Some(prefix) = known.into_iter().find(embedding) {
            names.text.prefix = prefix.to_owned();
        }
        if let Some(head) =
            ["lm_head.weight", "language_model.lm_head.weight"].into_iter().find(|h| weights.contains(h))
        {
            names.text.head = head.to_owned();
        }
        if let Some(eyes) = &mut names.eyes {
            let landmark = |p: &&&str| weights.contains(&format!("{p}{}", eyes.config.landmark()));
            if let Some(prefix) = eyes.config.prefixes().iter().find(landmark) {
                *eyes = EyesNames::at(prefix, eyes.config.clone());
            }
            let stated = config.fields().bool_or("tie_word_embeddings", config.text.tie_word_embeddings)?;
            config.text.tie_word_embeddings = stated;
        }
        Ok(names)
    }
}

impl EyesNames {
    fn at(prefix: &str, config: EyesConfig) -> Self {
        Self { projector: config.projector_prefix(prefix), tower: prefix.to_owned(), config }
    }

    /// Lists, reads or draws tower and projector.
    fn declare(
        &self,
        params: &mut Params,
        source: &mut Source<'_>,
        options: LoadOptions,
    ) -> Result<Eyes, ModelError> {
        let first = params.len();
        let part = |part: Part, prefix: &str| (part.group(), prefix.to_owned());
        let (group, prefix) = part(Part::Tower, &self.tower);
        let mut d = Declare::new(params, source.again(), group, &prefix, options.tower);
        let tower = self.config.tower(&mut d)?;
        let middle = params.len();
        let (group, prefix) = part(Part::Projector, &self.projector);
        let mut d = Declare::new(params, source.again(), group, &prefix, options.projector);
        let projector = self.config.projector(&mut d)?;
        let ids: Vec<ParamId> = params.ids().collect();
        Ok(Eyes {
            tower,
            projector,
            preprocessor: self.config.preprocessor(),
            merge: self.config.merge(),
            tower_params: ids[first..middle].to_vec(),
            projector_params: ids[middle..].to_vec(),
            cache: Arc::default(),
        })
    }
}

/// The token that stands for a picture: `image_token_id`, or InternVL's `<IMG_CONTEXT>` between `<img>` and `</img>`.
fn placeholder(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<Placeholder, ModelError> {
    let id = |token: &str| tokenizer.and_then(|t| t.id(token));
    let around = match config.model_type.as_str() {
        "internvl" | "internvl_chat" => id("<img>").zip(id("</img>")).map(|(a, b)| [a, b]),
        _ => None,
    };
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
