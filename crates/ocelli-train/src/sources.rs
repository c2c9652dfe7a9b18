//! Where models and data come from, as tables of a configuration: `[model]`, `[data]`, `[held_out]`.
//!
//! ```toml
//! [model]
//! tiny = "tiny-0.5m"          # a new native model; or  path = "runs/sft/model"
//! # or  language = "SmolLM2.gguf", eyes = "runs/eyes/model": a frozen text model behind the tower of a small one
//!
//! [data]
//! world = { name = "charts", seed = 1, count = 512, width = 64, height = 64, styles = ["bar"], skills = ["value"] }
//! # or  trajectories = "sft.jsonl"   pairs = "pairs.jsonl"   samples = "questions.jsonl", with  pictures = "blobs"
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocelli_agent::pictures::Pictures;
pub use ocelli_agent::tool_source::ToolSource;
use ocelli_data::io::{BlobStore, read_jsonl, read_jsonl_numbered};
use ocelli_data::{ContentHash, Message, PreferencePair, Sample, Target, Trajectory};
use ocelli_model::Checkpoint;
use ocelli_model::vlm::assembled::Assembly;
use ocelli_model::vlm::tiny::{TinyConfig, TinyVision};
use ocelli_model::vlm::{LoadOptions, Part, Vlm};
use ocelli_tensor::DType;
use ocelli_worlds::charts::{Charts, Skill, Style};
use ocelli_worlds::readings::reading;
use ocelli_worlds::real::{Split, easy_vqa, gsm8k, puzzlevqa};
use ocelli_worlds::{Item, Level, Setup, World, world};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::examples::{answered, from_dialogue};
use crate::pairs::{Pair, corrupted};
use crate::ranges;
use crate::responses::Response;

/// A model to begin with: exactly one of `tiny`, `path` and `language`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSource {
    /// A preset of the native family, drawn from `seed`.
    pub tiny: Option<String>,
    /// A checkpoint directory.
    pub path: Option<PathBuf>,
    /// A text model (a checkpoint directory or a GGUF file) that is given eyes: a new projector, and a new tower or that of
    /// `eyes`. The language model comes frozen (Skywork R1V, arXiv 2504.05599, section 2.1).
    pub language: Option<PathBuf>,
    /// With `language`: a checkpoint of the native family whose vision tower is taken over, sizes and weights.
    pub eyes: Option<PathBuf>,
    /// Seed of a new model.
    pub seed: u64,
    /// Pictures are scaled down to at most this many pixels (native and assembled models only).
    pub max_pixels: Option<u64>,
}

impl ModelSource {
    /// Draws or loads the model.
    pub fn load(&self) -> Result<Vlm, TrainError> {
        for (key, given, used, whose) in [
            ("eyes", self.eyes.is_some(), self.language.is_some(), "`language`"),
            ("max_pixels", self.max_pixels.is_some(), self.path.is_none(), "`tiny` and `language`"),
        ] {
            if given && !used {
                let text = format!("model.{key} is set, but it changes nothing here; it belongs to {whose}");
                return Err(TrainError::Config(text));
            }
        }
        match (&self.tiny, &self.path, &self.language) {
            (Some(preset), None, None) => {
                let mut config = TinyConfig::preset(preset)?;
                if let Some(pixels) = self.max_pixels {
                    config.vision.max_pixels = pixels;
                    config.vision.min_pixels = config.vision.min_pixels.min(pixels);
                }
                Ok(Vlm::tiny(&config, self.seed)?)
            }
            (None, Some(path), None) => Ok(Vlm::load(&Checkpoint::open(path)?, LoadOptions::default())?),
            (None, None, Some(text)) => self.assembled(text),
            _ => Err(TrainError::Config(
                "model: give one of `tiny` (a preset), `path` (a checkpoint) and `language` (a text model that gets eyes)"
                    .into(),
            )),
        }
    }

    /// The text model at `text` with a new projector behind the tower of `eyes`, or behind a new one.
    fn assembled(&self, text: &Path) -> Result<Vlm, TrainError> {
        let text = Checkpoint::open(text)?;
        let eyes = match &self.eyes {
            Some(path) => Some(Vlm::load(&Checkpoint::open(path)?, LoadOptions::frozen())?),
            None => None,
        };
        let mut assembly = Assembly::default();
        if let Some(eyes) = &eyes {
            assembly.vision = TinyVision::of(eyes)?;
        }
        if let Some(pixels) = self.max_pixels {
            assembly.vision.max_pixels = pixels;
            assembly.vision.min_pixels = assembly.vision.min_pixels.min(pixels);
        }
        let mut model = Vlm::assembled(&text, &assembly, DType::F32, self.seed)?;
        if let Some(eyes) = &eyes {
            model.take_part(Part::Tower, eyes)?;
        }
        Ok(model)
    }
}

/// Items of a drawn world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorldSource {
    /// `charts`, `counting`, `geometry`, `paths` or `patterns`.
    pub name: String,
    /// Seed; training and test data must have different ones.
    pub seed: u64,
    /// Number of items.
    pub count: u64,
    /// Width of the pictures.
    pub width: u32,
    /// Height of the pictures.
    pub height: u32,
    /// Level.
    #[serde(default)]
    pub level: Level,
    /// Styles of charts; all where empty.
    #[serde(default)]
    pub styles: Vec<Style>,
    /// Skills asked about charts; all where empty.
    #[serde(default)]
    pub skills: Vec<Skill>,
    /// Charts name bars by their colour, see [`Charts::by_colour`].
    #[serde(default)]
    pub by_colour: bool,
}

impl WorldSource {
    /// Draws the items.
    pub fn items(&self) -> Result<Vec<Item>, TrainError> {
        let setup = Setup::new(self.width, self.height, self.level).map_err(world_error)?;
        let charts = self.name == "charts";
        let named = self.by_colour || !self.styles.is_empty() || !self.skills.is_empty();
        if named && !charts {
            return Err(TrainError::Config(format!(
                "data.world: `{}` has no styles, skills or colours to name; charts have",
                self.name
            )));
        }
        let world: Box<dyn World> = match charts {
            true => Box::new(Charts {
                styles: self.styles.clone(),
                skills: self.skills.clone(),
                by_colour: self.by_colour,
            }),
            false => world(&self.name).map_err(world_error)?,
        };
        (0..self.count).map(|i| world.generate(self.seed, i, &setup).map_err(world_error)).collect()
    }
}

fn world_error(e: ocelli_worlds::WorldError) -> TrainError {
    TrainError::Data(e.to_string())
}

/// Readings without pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Readings {
    /// Seed.
    pub seed: u64,
}

/// Memory for the pictures of a run, given ones and those that tools make, in bytes.
pub const PICTURE_MEMORY: usize = 4 << 30;

/// Largest number of items of a drawn world.
const MAX_ITEMS: u64 = 10_000_000;

/// Data of a stage: exactly one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSource {
    /// A drawn world.
    pub world: Option<WorldSource>,
    /// Readings, numbers without a picture to be said again; `limit` says how many (1,000 where it is not set).
    pub readings: Option<Readings>,
    /// PuzzleVQA: the folder that holds `data/`.
    pub puzzlevqa: Option<PathBuf>,
    /// easy-VQA: the package's `data` folder.
    pub easy_vqa: Option<PathBuf>,
    /// GSM8K: a file of JSON lines.
    pub gsm8k: Option<PathBuf>,
    /// Questions, one `Sample` per line.
    pub samples: Option<PathBuf>,
    /// Recorded trajectories, one per line.
    pub trajectories: Option<PathBuf>,
    /// Preference pairs, one per line.
    pub pairs: Option<PathBuf>,
    /// Directory of pictures by hash, for the last three.
    pub pictures: Option<PathBuf>,
    /// Part of a real set.
    pub split: Option<Split>,
    /// At most this many items.
    pub limit: Option<usize>,
    /// easy-VQA: only questions that ask for these, of `colour`, `shape` and `yes or no`; all where empty.
    pub asks: Vec<String>,
    /// Multiple choice: what is learned as the answer is the option's text, not its letter.
    pub spell: bool,
    /// PuzzleVQA: what the conclusion is, which `reasons` learns before the answer.
    pub conclude: Conclude,
}

/// What stands before the answer to a PuzzleVQA puzzle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Conclude {
    /// The explanation and the deduction.
    #[default]
    Explanation,
    /// What is to be seen.
    Caption,
    /// What is to be seen, then explanation and deduction.
    Both,
}

/// Loaded data.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// Questions, with the oracle's conclusion and answer where the source has one.
    pub questions: Vec<(Sample, Option<(String, String)>)>,
    /// Recorded trajectories.
    pub trajectories: Vec<Trajectory>,
    /// Preference pairs.
    pub pairs: Vec<PreferencePair>,
    /// Pictures by hash.
    pub pictures: HashMap<ContentHash, Vec<u8>>,
}

impl DataSource {
    /// True where nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads or draws everything, pictures included.
    pub fn load(&self) -> Result<Data, TrainError> {
        self.load_as("data")
    }

    /// [`DataSource::load`]; `table` is what the configuration calls this source.
    ///
    /// # Errors
    /// A file that cannot be read, a picture that is not there, a question that asks nothing or that no answer could be right
    /// for, by its line; a source of no items.
    pub fn load_as(&self, table: &str) -> Result<Data, TrainError> {
        if let Some(w) = &self.world {
            ranges::whole(&format!("{table}.world.count"), w.count, 1, MAX_ITEMS)?;
        }
        let most = if self.readings.is_some() { MAX_ITEMS } else { u64::MAX };
        ranges::whole(&format!("{table}.limit"), self.limit.unwrap_or(1) as u64, 1, most)?;
        let recorded = self.samples.is_some() || self.trajectories.is_some() || self.pairs.is_some();
        for (key, given, used, whose) in [
            ("asks", !self.asks.is_empty(), self.easy_vqa.is_some(), "easy_vqa"),
            ("conclude", self.conclude != Conclude::default(), self.puzzlevqa.is_some(), "puzzlevqa"),
            (
                "split",
                self.split.is_some(),
                self.puzzlevqa.is_some() || self.easy_vqa.is_some(),
                "puzzlevqa and easy_vqa",
            ),
            ("pictures", self.pictures.is_some(), recorded, "samples, trajectories and pairs"),
        ] {
            if given && !used {
                let text =
                    format!("{table}.{key} is set, but it changes nothing here; it belongs to {whose}");
                return Err(TrainError::Config(text));
            }
        }
        let data = self.read(table)?;
        if data.questions.is_empty() && data.trajectories.is_empty() && data.pairs.is_empty() {
            return Err(TrainError::Data(format!(
                "{table} holds nothing: no question, no trajectory and no pair"
            )));
        }
        Ok(data)
    }

    fn read(&self, table: &str) -> Result<Data, TrainError> {
        let split = self.split.unwrap_or(Split::Train);
        let limit = self.limit.unwrap_or(usize::MAX);
        let named = [
            self.world.is_some(),
            self.readings.is_some(),
            self.puzzlevqa.is_some(),
            self.easy_vqa.is_some(),
            self.gsm8k.is_some(),
            self.samples.is_some(),
            self.trajectories.is_some(),
            self.pairs.is_some(),
        ];
        if named.iter().filter(|n| **n).count() != 1 {
            let text = "name exactly one of world, readings, puzzlevqa, easy_vqa, gsm8k, samples, trajectories, pairs";
            return Err(TrainError::Config(format!("{table}: {text}")));
        }
        let mut data = Data::default();
        let items = match self {
            Self { world: Some(w), .. } => Some(w.items()?),
            Self { readings: Some(r), .. } => {
                let count = self.limit.unwrap_or(1000) as u64;
                Some((0..count).map(|i| reading(r.seed, i)).collect())
            }
            Self { puzzlevqa: Some(root), .. } => Some(puzzlevqa(root, split).map_err(world_error)?),
            Self { easy_vqa: Some(root), .. } => Some(self.easy_vqa(root, split, limit)?),
            Self { gsm8k: Some(path), .. } => Some(gsm8k(path).map_err(world_error)?),
            _ => None,
        };
        if let Some(items) = items {
            for mut item in items.into_iter().take(limit) {
                self.reword(&mut item);
                data.pictures.extend(item.pictures.into_iter().map(|p| (p.hash, p.bytes)));
                let plan = serde_json::to_value(&item.plan).map_err(|e| TrainError::Data(e.to_string()))?;
                item.sample.meta.insert("plan".into(), plan);
                data.questions.push((item.sample, Some((item.plan.conclusion, item.plan.answer))));
            }
            return Ok(data);
        }
        if let Some(path) = &self.samples {
            for (line, sample) in read_jsonl_numbered::<Sample>(path)?.into_iter().take(limit) {
                sample.check().map_err(|why| {
                    TrainError::Data(format!("{}:{line}: sample {}: {why}", path.display(), sample.id))
                })?;
                data.questions.push((sample, None));
            }
        }
        if let Some(path) = &self.trajectories {
            data.trajectories = read_jsonl(path)?;
            data.trajectories.truncate(limit);
        }
        if let Some(path) = &self.pairs {
            data.pairs = read_jsonl(path)?;
            data.pairs.truncate(limit);
        }
        let of = |messages: &[Message]| {
            messages.iter().flat_map(|m| m.images().collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let mut wanted: Vec<ContentHash> = data.questions.iter().flat_map(|(s, _)| of(&s.messages)).collect();
        wanted.extend(data.trajectories.iter().flat_map(|t| t.images.iter().copied()));
        wanted
            .extend(data.pairs.iter().flat_map(|p| [of(&p.prompt), of(&p.chosen), of(&p.rejected)].concat()));
        self.read_pictures(wanted, &mut data)?;
        Ok(data)
    }

    /// The questions of easy-VQA that `asks` lets through, at most `limit` of them.
    fn easy_vqa(&self, root: &Path, split: Split, limit: usize) -> Result<Vec<Item>, TrainError> {
        const KINDS: [&str; 3] = ["colour", "shape", "yes or no"];
        if let Some(odd) = self.asks.iter().find(|a| !KINDS.contains(&a.as_str())) {
            return Err(TrainError::Config(format!("data.asks: `{odd}` is none of {}", KINDS.join(", "))));
        }
        if self.asks.is_empty() {
            return easy_vqa(root, split, limit).map_err(world_error);
        }
        let wanted = |item: &Item| {
            let asks = item.sample.meta.get("asks").and_then(|a| a.as_str());
            self.asks.iter().any(|a| Some(a.as_str()) == asks)
        };
        let all = easy_vqa(root, split, usize::MAX).map_err(world_error)?;
        Ok(all.into_iter().filter(wanted).take(limit).collect())
    }

    /// What `spell` and `conclude` change.
    fn reword(&self, item: &mut Item) {
        if let (true, Target::Choice { letters, options }) = (self.spell, &item.sample.target) {
            let index = |l: &String| l.bytes().next().map(|b| usize::from(b.wrapping_sub(b'A')));
            let right = letters.first().and_then(index).and_then(|i| options.get(i));
            item.plan.answer = right.cloned().unwrap_or_else(|| item.plan.answer.clone());
        }
        let caption = item.sample.meta.get("caption").and_then(|c| c.as_str()).unwrap_or_default();
        item.plan.conclusion = match self.conclude {
            Conclude::Explanation => return,
            Conclude::Caption => caption.to_owned(),
            Conclude::Both => format!("{caption} {}", item.plan.conclusion),
        };
    }

    fn read_pictures(&self, wanted: Vec<ContentHash>, data: &mut Data) -> Result<(), TrainError> {
        let store = self.pictures.as_deref().map(BlobStore::new);
        for hash in wanted {
            if data.pictures.contains_key(&hash) {
                continue;
            }
            let Some(store) = &store else {
                let text =
                    format!("the data name picture {}, but data.pictures names no directory", hash.short());
                return Err(TrainError::Data(text));
            };
            let bytes = store.get(hash, 64 << 20).map_err(|e| {
                TrainError::Data(format!("the data name picture {}, which cannot be had: {e}", hash.short()))
            })?;
            data.pictures.insert(hash, bytes);
        }
        Ok(())
    }
}

impl Data {
    /// What a supervised run learns: recorded trajectories as they are, and questions with their oracle's answer, behind its
    /// conclusion where `reasons` says so.
    pub fn responses(&self, model: &Vlm, reasons: bool) -> Result<Vec<Response>, TrainError> {
        self.no_pairs("trajectories, or questions with an answer")?;
        let mut out = Vec::with_capacity(self.trajectories.len() + self.questions.len());
        for t in &self.trajectories {
            if !t.ids.is_empty() {
                out.push(Response::of_trajectory(model, t, &self.pictures)?);
            } else {
                out.push(from_dialogue(
                    model,
                    &format!("trajectory {}", t.sample_id),
                    &t.messages,
                    &self.pictures,
                )?);
            }
        }
        for (sample, oracle) in &self.questions {
            let Some((conclusion, answer)) = oracle else {
                return Err(TrainError::Data(format!(
                    "sample {} has no answer text to learn from",
                    sample.id
                )));
            };
            let text = match reasons && !conclusion.is_empty() {
                true => format!("{conclusion} The answer is {answer}."),
                false => answer.clone(),
            };
            out.push(from_dialogue(model, &sample.id, &answered(sample, &text), &self.pictures)?);
        }
        Ok(out)
    }

    /// The pairs as the model takes them; questions with an oracle's answer are paired with a wrong one of the same kind.
    pub fn pairs(&self, model: &Vlm) -> Result<Vec<Pair>, TrainError> {
        self.no_trajectories("pairs, or questions with an answer to make pairs of")?;
        // Answers to the same kind of question (value, comparison ...) can stand in for one another.
        let kind = |s: &Sample| s.meta.get("skill").and_then(|k| k.as_str()).unwrap_or_default().to_owned();
        let mut pools: HashMap<String, Vec<String>> = HashMap::new();
        for (sample, oracle) in &self.questions {
            pools.entry(kind(sample)).or_default().extend(oracle.iter().map(|(_, answer)| answer.clone()));
        }
        let made = self.questions.iter().enumerate().filter_map(|(i, (sample, oracle))| {
            corrupted(sample, &oracle.as_ref()?.1, &pools[&kind(sample)], i as u64)
        });
        let all: Vec<PreferencePair> = self.pairs.iter().cloned().chain(made).collect();
        all.iter().map(|p| Pair::new(model, p, &self.pictures)).collect()
    }

    /// Refuses recorded trajectories where what is trained on is something else, which `wanted` says.
    pub fn no_trajectories(&self, wanted: &str) -> Result<(), TrainError> {
        match self.trajectories.len() {
            0 => Ok(()),
            n => Err(TrainError::Data(format!(
                "the data are {n} recorded trajectories, which only a supervised run learns from; this one takes {wanted}"
            ))),
        }
    }

    /// Refuses preference pairs where what is trained on is something else, which `wanted` says.
    pub fn no_pairs(&self, wanted: &str) -> Result<(), TrainError> {
        match self.pairs.len() {
            0 => Ok(()),
            n => Err(TrainError::Data(format!(
                "the data are {n} preference pairs, which only `mpo` and `reward` learn from; this run takes {wanted}"
            ))),
        }
    }

    /// The questions, as rollouts take them; drawn ones carry their oracle's plan in `meta.plan`.
    pub fn samples(&self) -> Vec<Arc<Sample>> {
        self.questions.iter().map(|(sample, _)| Arc::new(sample.clone())).collect()
    }

    /// Puts the pictures into the store that rollouts share.
    pub fn share_pictures(&self, store: &Pictures) -> Result<(), TrainError> {
        for bytes in self.pictures.values() {
            store.put(bytes.as_slice().into()).map_err(|e| TrainError::Data(e.to_string()))?;
        }
        Ok(())
    }

    /// Writes the pictures into a store, for runs that read them from disk.
    pub fn store_pictures(&self, dir: &Path) -> Result<(), TrainError> {
        let store = BlobStore::new(dir);
        for bytes in self.pictures.values() {
            store.put(bytes)?;
        }
        Ok(())
    }
}
