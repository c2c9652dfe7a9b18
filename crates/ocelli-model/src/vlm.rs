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

mod adapters;
pub mod assembled;
mod batch;
mod context;
mod dialogue;
mod eyes;
mod generation;
mod identity;
mod internvl;
mod load;
mod names;
mod patching;
mod picture_marks;
mod pictures;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod self_test;
mod still;
pub mod tiny;
mod value_head;

use std::collections::HashMap;
use std::sync::Arc;

use ocelli_tensor::ops::{self, LogProbs};
use ocelli_tensor::{ParamId, Params, Tape, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use batch::{Batch, Group};
pub use context::{Context, ImageSpan};
pub use eyes::FeatureStats;
pub(crate) use eyes::{Projector, Tower};
pub use load::LoadOptions;
pub use pictures::{NoPictures, Pictures};
pub use self_test::Sensitivity;

use crate::ModelError;
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::image::{ImageLimits, Preprocessor};
use crate::lora::LoraConfig;
use crate::text::{Attend, DeepFeatures, Positions, TextModel};
use crate::tokenizer::Tokenizer;
use context::Placeholder;
use eyes::Eyes;
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
    /// Written for a picture where the chat template knows text alone ([`picture_marks`]).
    picture_mark: Option<String>,
    eyes: Option<Eyes>,
    placeholder: Option<Placeholder>,
    value_head: Option<ValueHead>,
    /// Settings of the adapters on the language model.
    adapters: Option<LoraConfig>,
    /// Files that are saved with the weights: `config.json`, tokenizer, templates.
    side_files: Arc<Vec<(String, Vec<u8>)>>,
    /// Shapes in the checkpoint where they differ from the shapes in memory.
    stored_shapes: Arc<HashMap<ParamId, Vec<usize>>>,
}

impl Vlm {
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

    /// How pictures are cut: `None` for a text model.
    pub fn preprocessor(&self) -> Option<&Preprocessor> {
        self.eyes.as_ref().map(|e| &e.preprocessor)
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

    fn eyes(&self) -> Result<&Eyes, ModelError> {
        self.eyes.as_ref().ok_or_else(|| {
            ModelError::Request(format!("a picture was given to `{}`, a text model", self.config.model_type))
        })
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
        self.run(tape, batch, checkpoint, None)
    }

    /// The same states of some rows only, in that order, `[len(rows), D]`: behind the last attention nothing is computed for the others, which
    /// neither a loss over answers nor a reward ever looks at. A row may be asked for several times.
    pub fn hidden_at(
        &self,
        tape: &mut Tape<'_>,
        batch: &Batch,
        rows: &[usize],
        checkpoint: bool,
    ) -> Result<Var, ModelError> {
        self.run(tape, batch, checkpoint, Some(rows))
    }

    fn run(
        &self,
        tape: &mut Tape<'_>,
        batch: &Batch,
        checkpoint: bool,
        rows: Option<&[usize]>,
    ) -> Result<Var, ModelError> {
        let (x, deep) = self.inputs(tape, batch)?;
        let rotary = self.text.rotary(&batch.positions)?;
        let attend = Attend::Packed(&batch.layout);
        Ok(self.text.forward(tape, x, &rotary, attend, deep.as_ref(), checkpoint, rows)?)
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
