//! A vision tower with its projector: from patches to the rows that a language model reads.
//!
//! The two are separate parts. While the tower is frozen its states are computed once for every picture and kept (by the
//! hash of the picture), so that training a projector on a frozen tower costs only the projector.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use ocelli_data::ContentHash;
use ocelli_tensor::ops::{self, Linear};
use ocelli_tensor::{DType, Mode, ParamId, Params, Tape, Tensor, Var};
use rayon::prelude::*;

use super::context::ImageSpan;
use super::still::StillEmbedding;
use super::{internvl, patching::Patching, qwen2_5_vl, qwen2_vl, qwen3_vl};
use crate::ModelError;
use crate::config::Fields;
use crate::declare::Declare;
use crate::image::{Grid, ImagePatches, Normalise, Preprocessor, QwenPreprocessor, TilePreprocessor};

/// From patches `[P, C]` to states `[P, E]`, rows in merge-block order.
pub(crate) trait Tower: Debug + Send + Sync {
    /// The layer from patches `[P, C]` to what `forward` takes.
    fn patch_embed(&self) -> Linear;

    /// From embedded patches `[P, E]` to the states that the projector reads: usually one, with DeepStack several, the last of them last.
    fn forward(&self, tape: &mut Tape<'_>, embedded: Var, grids: &[Grid]) -> Result<Vec<Var>, ModelError>;
}

/// From the states of a tower to rows of the language model's width.
pub(crate) trait Projector: Debug + Send + Sync {
    /// Features `[P / merge^2, D]` for the embedding, then those that the language model adds after its first blocks.
    fn forward(&self, tape: &mut Tape<'_>, levels: &[Var]) -> Result<Vec<Var>, ModelError>;
}

/// Which eyes a configuration describes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EyesConfig {
    Qwen2(qwen2_vl::Config, Patching),
    Qwen2_5(qwen2_5_vl::Config, Patching),
    Qwen3(qwen3_vl::Config, Patching),
    Intern(internvl::Config),
}

impl EyesConfig {
    /// `None` for a text model. `output` is the width of the language model.
    pub(crate) fn read(top: &Fields<'_>, output: usize) -> Result<Option<Self>, ModelError> {
        let model_type = top.text("model_type")?;
        if top.get("vision_config").is_none() {
            return Ok(None);
        }
        let vision = top.object("vision_config")?;
        let patching = || Patching::read(&vision);
        let this = match model_type.as_str() {
            "qwen2_vl" => Self::Qwen2(qwen2_vl::Config::read(&vision)?, patching()?),
            "qwen2_5_vl" => Self::Qwen2_5(qwen2_5_vl::Config::read(&vision)?, patching()?),
            "qwen3_vl" | super::assembled::MODEL_TYPE => {
                Self::Qwen3(qwen3_vl::Config::read(&vision)?, patching()?)
            }
            known if internvl::MODEL_TYPES.contains(&known) => {
                Self::Intern(internvl::Config::read(top, output)?)
            }
            _ => {
                let known = "one of qwen2_vl, qwen2_5_vl, qwen3_vl, internvl, internvl_chat, skywork_chat, ocelli_assembled";
                return Err(top.bad("model_type", known.into()));
            }
        };
        let width = match &this {
            Self::Qwen2(c, _) => c.output,
            Self::Qwen2_5(c, _) => c.output,
            Self::Qwen3(c, _) => c.output,
            Self::Intern(_) => output,
        };
        if width != output {
            let expected = format!("{output}, the width of the language model");
            let key = if matches!(this, Self::Qwen2(..)) { "hidden_size" } else { "out_hidden_size" };
            return Err(vision.bad(key, expected));
        }
        Ok(Some(this))
    }

    /// Patches along each side of a token.
    pub(crate) fn merge(&self) -> usize {
        match self {
            Self::Qwen2(_, p) | Self::Qwen2_5(_, p) | Self::Qwen3(_, p) => p.merge,
            Self::Intern(c) => c.merge,
        }
    }

    /// The prefix of the tower's names that the family's published checkpoints have.
    pub(crate) fn prefixes(&self) -> &'static [&'static str] {
        match self {
            Self::Qwen2(..) | Self::Qwen2_5(..) => &["visual.", "model.visual."],
            Self::Qwen3(..) => &["model.visual.", "visual."],
            Self::Intern(c) if c.names == internvl::Names::OpenGvLab => &["vision_model."],
            Self::Intern(_) => &["vision_tower.", "model.vision_tower."],
        }
    }

    /// A parameter that every tower of the family has, by which a prefix is recognised.
    pub(crate) fn landmark(&self) -> &'static str {
        match self {
            Self::Qwen2(..) | Self::Qwen2_5(..) | Self::Qwen3(..) => "patch_embed.proj.weight",
            Self::Intern(c) if c.names == internvl::Names::OpenGvLab => "embeddings.patch_embedding.weight",
            Self::Intern(_) => "embeddings.patch_embeddings.projection.weight",
        }
    }

    /// Declares the tower; names in `d` begin with the prefix.
    pub(crate) fn tower(&self, d: &mut Declare<'_>) -> Result<Arc<dyn Tower>, ModelError> {
        Ok(match self {
            Self::Qwen2(c, p) => Arc::new(qwen2_vl::VisionTower::declare(d, c, p)?),
            Self::Qwen2_5(c, p) => Arc::new(qwen2_5_vl::VisionTower::declare(d, c, p)?),
            Self::Qwen3(c, p) => Arc::new(qwen3_vl::VisionTower::declare(d, c, p)?),
            Self::Intern(c) => Arc::new(internvl::VisionTower::declare(d, c)?),
        })
    }

    /// The prefix of the projector's names, given the tower's.
    pub(crate) fn projector_prefix(&self, tower: &str) -> String {
        match self {
            Self::Qwen2(..) | Self::Qwen2_5(..) => format!("{tower}merger."),
            Self::Qwen3(..) => tower.to_owned(),
            Self::Intern(c) if c.names == internvl::Names::OpenGvLab => "mlp1.".to_owned(),
            Self::Intern(_) => tower.replace("vision_tower.", "multi_modal_projector."),
        }
    }

    /// Declares the projector.
    pub(crate) fn projector(&self, d: &mut Declare<'_>) -> Result<Arc<dyn Projector>, ModelError> {
        Ok(match self {
            Self::Qwen2(c, _) => Arc::new(qwen2_vl::Merger::declare(d, c)?),
            Self::Qwen2_5(c, _) => Arc::new(qwen2_5_vl::merger(d, c)?),
            Self::Qwen3(c, _) => Arc::new(qwen3_vl::Mergers::declare(d, c)?),
            Self::Intern(c) => Arc::new(internvl::MlpProjector::declare(d, c)?),
        })
    }

    /// How pictures are cut where the checkpoint does not say otherwise.
    pub(crate) fn preprocessor(&self) -> Preprocessor {
        let qwen = |p: &Patching, normalise| {
            let token = (p.patch * p.merge) as u64;
            Preprocessor::Qwen(QwenPreprocessor {
                patch: p.patch,
                merge: p.merge,
                frames: p.frames,
                min_pixels: 4 * token * token,
                max_pixels: 1280 * token * token,
                normalise,
            })
        };
        match self {
            Self::Qwen2(_, p) | Self::Qwen2_5(_, p) => qwen(p, Normalise::CLIP),
            Self::Qwen3(_, p) => qwen(p, Normalise::HALF),
            Self::Intern(c) => Preprocessor::Tiles(TilePreprocessor {
                tile: c.tile,
                patch: c.patch,
                merge: c.merge,
                min_tiles: c.tiles[0],
                max_tiles: c.tiles[1],
                normalise: Normalise::IMAGENET,
            }),
        }
    }
}

/// Tower, projector and preprocessing.
#[derive(Clone, Debug)]
pub(crate) struct Eyes {
    pub(crate) tower: Arc<dyn Tower>,
    pub(crate) projector: Arc<dyn Projector>,
    pub(crate) preprocessor: Preprocessor,
    pub(crate) merge: usize,
    pub(crate) tower_params: Vec<ParamId>,
    pub(crate) projector_params: Vec<ParamId>,
    pub(crate) cache: Arc<Mutex<FeatureCache>>,
}

/// What the feature cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureStats {
    /// Pictures that went through the tower.
    pub computed: usize,
    /// Pictures whose states were there already.
    pub reused: usize,
    /// Bytes held.
    pub bytes: usize,
}

impl Eyes {
    /// Features of the pictures, one after another: rows for the embedding, then rows for the first blocks.
    pub(crate) fn features(
        &self,
        tape: &mut Tape<'_>,
        images: &[&ImageSpan],
    ) -> Result<Vec<Var>, ModelError> {
        let levels = if self.tower_frozen(tape.params())? {
            self.kept_states(tape, images)?
        } else {
            self.lock().stats.computed += images.len();
            match tape.mode() {
                Mode::Train => self.states(tape, images)?,
                Mode::Inference => {
                    let states = self.states_apart(tape.params(), images)?;
                    Self::levels(tape, &states.into_iter().map(Arc::new).collect::<Vec<_>>())?
                }
            }
        };
        let features = self.projector.forward(tape, &levels)?;
        let expected: usize = images.iter().map(|i| i.patches.tokens).sum();
        let found = features[0].value().rows();
        if found != expected {
            let why =
                format!("{expected} placeholders were reserved, but the projector gave {found} features");
            return Err(ModelError::Request(why));
        }
        Ok(features)
    }

    fn tower_frozen(&self, params: &Params) -> Result<bool, ModelError> {
        for &id in &self.tower_params {
            if params.get(id)?.trainable() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// States of all pictures in one pass over the tower: the way of training it.
    fn states(&self, tape: &mut Tape<'_>, images: &[&ImageSpan]) -> Result<Vec<Var>, ModelError> {
        let patches: Vec<&ImagePatches> = images.iter().map(|i| &*i.patches).collect();
        let grids: Vec<Grid> = patches.iter().flat_map(|p| p.grids.iter().copied()).collect();
        let pixels: Vec<&[f32]> = patches.iter().map(|p| p.pixels.as_slice()).collect();
        self.pass(tape, &pixels, patches.first().map_or(0, |p| p.dim), &grids)
    }

    /// States of each picture, computed without recording: crop by crop, several at once. No crop sees another, so that each
    /// is a forward pass of its own: its activations fit into a core's cache, cores do not wait for each other inside a
    /// layer, and a picture's states are the same bits whatever else is computed with it.
    fn states_apart(&self, params: &Params, images: &[&ImageSpan]) -> Result<Vec<Vec<Tensor>>, ModelError> {
        let mut crops = Vec::new();
        for image in images {
            let (patches, mut row) = (&*image.patches, 0);
            for grid in &patches.grids {
                let end = row + grid.len();
                crops.push((&patches.pixels[row * patches.dim..end * patches.dim], patches.dim, *grid));
                row = end;
            }
        }
        let still = StillEmbedding::new(params, self.tower.patch_embed(), &self.preprocessor)?;
        let one = |&(pixels, dim, grid): &(&[f32], usize, Grid)| {
            let mut tape = Tape::inference(params);
            match &still {
                Some(still) => self.tower.forward(&mut tape, still.forward(grid.len(), pixels)?, &[grid]),
                None => self.pass(&mut tape, &[pixels], dim, &[grid]),
            }
        };
        let computed: Vec<Vec<Var>> = crops.par_iter().with_max_len(1).map(one).collect::<Result<_, _>>()?;
        let mut computed = computed.into_iter();
        let join = |image: &&ImageSpan| {
            let crops: Vec<Vec<Var>> = computed.by_ref().take(image.patches.grids.len()).collect();
            let levels = crops.first().map_or(0, Vec::len);
            (0..levels)
                .map(|level| {
                    let parts: Vec<&Var> = crops.iter().map(|c| &c[level]).collect();
                    Ok(stacked(&mut Tape::inference(params), &parts)?.into_value())
                })
                .collect()
        };
        images.iter().map(join).collect()
    }

    /// One pass over the tower; `pixels` lie one after another in the rows.
    fn pass(
        &self,
        tape: &mut Tape<'_>,
        pixels: &[&[f32]],
        dim: usize,
        grids: &[Grid],
    ) -> Result<Vec<Var>, ModelError> {
        let rows: usize = grids.iter().map(Grid::len).sum();
        let values = match pixels {
            [one] => Tensor::from_slice(&[rows, dim], one)?,
            all => {
                let mut values = Tensor::zeros(&[rows, dim], DType::F32);
                let mut rest = values.as_mut_slice::<f32>()?;
                for own in all {
                    let (to, after) = rest.split_at_mut(own.len());
                    to.copy_from_slice(own);
                    rest = after;
                }
                values
            }
        };
        let patches = Var::constant(values.to_dtype(tape.params().compute_dtype()));
        drop(values);
        let embedded = ops::linear(tape, &patches, self.tower.patch_embed())?;
        drop(patches);
        self.tower.forward(tape, embedded, grids)
    }

    /// States of a frozen tower: from the cache, or computed without recording and put there.
    fn kept_states(&self, tape: &mut Tape<'_>, images: &[&ImageSpan]) -> Result<Vec<Var>, ModelError> {
        let missing: Vec<&ImageSpan> = {
            let mut cache = self.lock();
            cache.stats.reused += images.iter().filter(|i| cache.entries.contains_key(&i.hash)).count();
            images.iter().copied().filter(|i| !cache.entries.contains_key(&i.hash)).collect()
        };
        let mut fresh: HashMap<ContentHash, Arc<Vec<Tensor>>> = HashMap::new();
        if !missing.is_empty() {
            let states = self.states_apart(tape.params(), &missing)?;
            fresh.extend(missing.iter().zip(states).map(|(image, own)| (image.hash, Arc::new(own))));
        }
        let mut cache = self.lock();
        cache.stats.computed += missing.len();
        let mut states = Vec::with_capacity(images.len());
        for image in images {
            let found = fresh.get(&image.hash).or_else(|| cache.entries.get(&image.hash)).cloned();
            states.push(found.ok_or_else(|| ModelError::Request("a cached picture went away".into()))?);
        }
        for image in &missing {
            if let Some(levels) = fresh.remove(&image.hash) {
                cache.put(image.hash, levels);
            }
        }
        drop(cache);
        Self::levels(tape, &states)
    }

    /// The states of several pictures one below the other, level by level.
    fn levels(tape: &mut Tape<'_>, states: &[Arc<Vec<Tensor>>]) -> Result<Vec<Var>, ModelError> {
        let count = states.first().map_or(0, |s| s.len());
        let level = |n: usize| {
            let vars: Vec<Var> = states.iter().map(|s| Var::constant(s[n].clone())).collect();
            stacked(tape, &vars.iter().collect::<Vec<_>>())
        };
        (0..count).map(level).collect()
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, FeatureCache> {
        // The cache holds finished values only, so a panic elsewhere leaves it whole.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// States of a frozen tower by picture, the oldest dropped when they take too much.
#[derive(Debug)]
pub(crate) struct FeatureCache {
    entries: HashMap<ContentHash, Arc<Vec<Tensor>>>,
    order: VecDeque<ContentHash>,
    pub(crate) limit: usize,
    pub(crate) stats: FeatureStats,
}

impl Default for FeatureCache {
    /// Room for 1 GiB.
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            limit: 1 << 30,
            stats: FeatureStats::default(),
        }
    }
}

impl FeatureCache {
    fn put(&mut self, hash: ContentHash, levels: Arc<Vec<Tensor>>) {
        self.stats.bytes += bytes(&levels);
        self.entries.insert(hash, levels);
        self.order.push_back(hash);
        self.shrink();
    }

    pub(crate) fn shrink(&mut self) {
        while self.stats.bytes > self.limit {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(levels) = self.entries.remove(&oldest) {
                self.stats.bytes -= bytes(&levels);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.stats.bytes = 0;
    }
}

/// One below the other; a single one is not copied.
fn stacked(tape: &mut Tape<'_>, parts: &[&Var]) -> Result<Var, ModelError> {
    match parts {
        [one] => Ok((*one).clone()),
        all => Ok(ops::concat_rows(tape, all)?),
    }
}

fn bytes(levels: &[Tensor]) -> usize {
    levels.iter().map(|t| t.len() * t.dtype().size()).sum()
}
