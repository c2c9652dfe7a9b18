//! What a world makes: a question with its pictures, the truth about them, and a plan that answers it with tools.

use std::collections::BTreeSet;
use std::io::Cursor;

use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use ocelli_data::{ContentHash, Message, Part, Sample, Target, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canvas::Canvas;
use crate::truth::{Label, LabelKind, Truth};

/// What a world cannot do.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A picture size outside the range.
    #[error("a picture of {width}x{height} pixels was asked for; worlds draw from 32x32 to 1024x1024")]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// No world of that name.
    #[error("there is no world `{name}`; the worlds are {known}")]
    Unknown {
        /// Name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// No chart can be asked what was wanted.
    #[error(
        "charts: no chart of the styles [{styles}] can be asked for any of [{skills}]; trends are asked of lines"
    )]
    Skills {
        /// The skills wanted.
        skills: String,
        /// The styles wanted.
        styles: String,
    },
    /// The PNG encoder failed.
    #[error("cannot encode the picture of {id} as PNG: {source}")]
    Encode {
        /// Item.
        id: String,
        /// The encoder's reason.
        source: image::ImageError,
    },
    /// A real data set is not where it should be.
    #[error("{set} is not in {root}: there is no {landmark}; {origin}")]
    Absent {
        /// Name of the set.
        set: &'static str,
        /// Where it was looked for.
        root: std::path::PathBuf,
        /// The file by which it is known.
        landmark: String,
        /// Where to get it.
        origin: &'static str,
    },
    /// A file of a real data set cannot be read.
    #[error(transparent)]
    Io(#[from] ocelli_data::io::IoError),
    /// A row of a real data set is not what its world expects.
    #[error("{path}: row {row}: {what}")]
    Row {
        /// File.
        path: std::path::PathBuf,
        /// Row from 1.
        row: usize,
        /// What is wrong.
        what: String,
    },
}

/// How hard an item is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Few things, round numbers.
    Easy,
    /// As in everyday pictures.
    #[default]
    Medium,
    /// Many things, finer numbers, axes that do not start at zero.
    Hard,
}

/// Size of the picture and level of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Level.
    pub level: Level,
}

impl Setup {
    /// A setup for pictures of `width` x `height`, each 32..=1024.
    pub fn new(width: u32, height: u32, level: Level) -> Result<Self, WorldError> {
        if [width, height].iter().any(|s| !(32..=1024).contains(s)) {
            return Err(WorldError::Size { width, height });
        }
        Ok(Self { width, height, level })
    }

    /// True where the picture is too small for words: colours and positions name things instead.
    pub fn compact(&self) -> bool {
        self.width.min(self.height) < 128
    }
}

/// One step of a plan: why, and the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What the policy would think before the call.
    pub thought: String,
    /// The call.
    pub call: ToolCall,
}

/// How an oracle answers the question with tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Calls in order. Coordinates are those of the truth.
    pub steps: Vec<Step>,
    /// What follows from the results.
    pub conclusion: String,
    /// The final answer; the scorer of the target gives it full marks.
    pub answer: String,
}

impl Plan {
    /// A plan with no calls.
    pub fn direct(conclusion: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { steps: Vec::new(), conclusion: conclusion.into(), answer: answer.into() }
    }

    /// Adds a call.
    pub fn call(mut self, thought: &str, name: &str, arguments: Value) -> Self {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let call = ToolCall { id: String::new(), name: name.into(), arguments };
        self.steps.push(Step { thought: thought.into(), call });
        self
    }
}

/// An encoded picture and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Hash of `bytes`.
    pub hash: ContentHash,
    /// The file as it would lie on disk (PNG for drawn worlds).
    pub bytes: Vec<u8>,
}

/// A question, its pictures, the truth, and the oracle's plan.
#[derive(Clone, Debug)]
pub struct Item {
    /// Question and target; its messages name the pictures by hash.
    pub sample: Sample,
    /// The pictures in the order in which the messages name them.
    pub pictures: Vec<Picture>,
    /// What is in the first picture.
    pub truth: Truth,
    /// How to answer with tools.
    pub plan: Plan,
}

/// What a world decides about an item before it is encoded.
pub(crate) struct Draft {
    pub(crate) canvas: Canvas,
    pub(crate) truth: Truth,
    pub(crate) question: String,
    pub(crate) target: Target,
    pub(crate) plan: Plan,
    /// Columns for reports.
    pub(crate) meta: Vec<(&'static str, String)>,
}

impl Draft {
    /// Encodes the picture and puts the sample together.
    pub(crate) fn finish(self, world: &str, seed: u64, index: u64) -> Result<Item, WorldError> {
        let id = format!("{world}/{seed}/{index}");
        let bytes =
            encode_png(&self.canvas).map_err(|source| WorldError::Encode { id: id.clone(), source })?;
        let hash = ContentHash::of(&bytes);
        let mut meta = Map::new();
        meta.insert("world".into(), world.into());
        for (key, value) in self.meta {
            meta.insert(key.into(), value.into());
        }
        meta.insert("shown".into(), shown(&self.truth).into_iter().map(Value::from).collect());
        let messages = vec![Message::user([Part::image(hash), Part::text(self.question)])];
        let sample = Sample { id, messages, target: self.target, meta };
        Ok(Item { sample, pictures: vec![Picture { hash, bytes }], truth: self.truth, plan: self.plan })
    }
}

/// Names of what is in the picture, for `meta.shown`: colours, shapes, categories and series, each once and in order.
fn shown(truth: &Truth) -> BTreeSet<&str> {
    let named = |l: &&Label| matches!(l.kind, LabelKind::Category | LabelKind::Legend);
    let labels = truth.labels.iter().filter(named).map(|l| l.text.as_str());
    let objects = truth.objects.iter().flat_map(|o| [o.shape.as_str(), o.colour.as_str()]);
    let marks = truth.marks.iter().map(|m| m.colour.as_str());
    labels.chain(objects).chain(marks).filter(|name| !name.is_empty()).collect()
}

/// PNG bytes of a picture; the encoder is part of the program, so they are the same everywhere. Drawn pictures are flat: chosen filters
/// make a chart of 448x336 20 times smaller than none (13 for 280 KB) and take a third of the time to write.
pub fn encode_png(canvas: &Canvas) -> Result<Vec<u8>, image::ImageError> {
    let mut out = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive).write_image(
        &canvas.pixels,
        canvas.width,
        canvas.height,
        image::ExtendedColorType::Rgb8,
    )?;
    Ok(out.into_inner())
}
