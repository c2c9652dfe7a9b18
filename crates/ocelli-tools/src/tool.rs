//! What a tool is: an argument struct with a comment per field, and one function.
//!
//! From that one declaration come the text of the prompt, the JSON schema, the parser of arguments and its complaints,
//! the page in the documentation, and the tool of the Model Context Protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::for_model;
use crate::{Affine, Engines, Fatal, Images, Limits, Made, Picture, ToolError};

/// A vision tool. The doc comment of the struct is what the model is told about it; those of the fields describe the
/// arguments.
pub trait Tool: DeserializeOwned + JsonSchema + 'static {
    /// Name in snake case.
    const NAME: &'static str;
    /// Arguments of a right call, as JSON.
    const EXAMPLE: &'static str;

    /// Does the work. Must depend on the arguments and the pictures alone, so that a call can be cached and replayed.
    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError>;
}

/// Name of a picture in a call, as the model writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ImageRef(pub String);

/// A rectangle as the model writes it: `[x1, y1, x2, y2]` in pixels, from the top-left corner of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Bbox(pub [f64; 4]);

/// A rectangle of whole pixels, right and bottom edges excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelBox {
    /// Left edge.
    pub x1: u32,
    /// Top edge.
    pub y1: u32,
    /// Right edge, excluded.
    pub x2: u32,
    /// Bottom edge, excluded.
    pub y2: u32,
}

impl PixelBox {
    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.x2 - self.x1
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.y2 - self.y1
    }

    /// Centre, in the continuous frame.
    pub fn centre(&self) -> (f64, f64) {
        (f64::from(self.x1 + self.x2) / 2.0, f64::from(self.y1 + self.y2) / 2.0)
    }
}

impl std::fmt::Display for PixelBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}, {}, {}]", self.x1, self.y1, self.x2, self.y2)
    }
}

impl Bbox {
    /// Whole pixels that the rectangle touches, cut off at the picture's edges; the flag says whether anything was cut.
    pub fn in_picture(&self, width: u32, height: u32) -> Result<(PixelBox, bool), ToolError> {
        let [x1, y1, x2, y2] = self.0;
        if self.0.iter().any(|v| !v.is_finite()) {
            return Err(for_model(format!("bbox {:?} holds a number that is not finite", self.0)));
        }
        if x1 >= x2 || y1 >= y2 {
            return Err(for_model(format!(
                "bbox [{x1}, {y1}, {x2}, {y2}] is empty: it must be [left, top, right, bottom] with left < right and \
                 top < bottom"
            )));
        }
        let (w, h) = (f64::from(width), f64::from(height));
        if x2 <= 0.0 || y2 <= 0.0 || x1 >= w || y1 >= h {
            return Err(for_model(format!(
                "bbox [{x1}, {y1}, {x2}, {y2}] lies outside the picture, which is {width} x {height} pixels"
            )));
        }
        let cut = x1 < 0.0 || y1 < 0.0 || x2 > w || y2 > h;
        let low = |v: f64| v.max(0.0).floor() as u32;
        let high = |v: f64, most: f64| v.min(most).ceil() as u32;
        Ok((PixelBox { x1: low(x1), y1: low(y1), x2: high(x2, w), y2: high(y2, h) }, cut))
    }
}

/// Most bytes of pixels that are kept of a picture that a tool made.
const KEPT: usize = 512 << 10;

/// Time left to a call, and whether its caller still waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Instant,
    given_up: Arc<AtomicBool>,
}

impl Deadline {
    /// Ends after `time` from now.
    pub fn after(time: Duration) -> Self {
        // A year is as good as for ever, and cannot overflow the clock.
        let at = Instant::now() + time.min(Duration::from_secs(365 * 86_400));
        Self { at, given_up: Arc::new(AtomicBool::new(false)) }
    }

    /// The moment itself.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Time left.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Nobody waits any more: the tool stops at its next check.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// True when the time is up or nobody waits.
    pub fn is_over(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || Instant::now() >= self.at
    }
}

/// What a tool may use while it runs.
#[derive(Debug)]
pub struct Call<'a> {
    /// Name of the tool, for errors.
    pub tool: &'a str,
    /// Pictures of the dialogue.
    pub images: &'a Images,
    /// Networks and decoded pictures, shared by all calls.
    pub engines: &'a Engines,
    /// Bounds.
    pub limits: &'a Limits,
    /// Time left.
    pub deadline: &'a Deadline,
}

impl Call<'_> {
    /// Decoded pixels of a picture that the model named.
    pub fn pixels(&self, image: &ImageRef) -> Result<Arc<RgbImage>, ToolError> {
        let (_, picture) = self.images.resolve(&image.0)?;
        self.engines.pixels(picture, self.limits)
    }

    /// A rectangle of a picture that the model named, pixel for pixel, with its place, and whether it was cut off at
    /// the picture's edges.
    pub(crate) fn part(&self, image: &ImageRef, bbox: Bbox) -> Result<(RgbImage, PixelBox, bool), ToolError> {
        let (_, picture) = self.images.resolve(&image.0)?;
        let (area, cut) = bbox.in_picture(picture.width(), picture.height())?;
        let pixels = self.engines.rows(picture, area.y2, self.limits)?;
        let stride = 3 * pixels.width() as usize;
        let (from, to) = (3 * area.x1 as usize, 3 * area.x2 as usize);
        let rows = pixels.as_raw().chunks_exact(stride).skip(area.y1 as usize).take(area.height() as usize);
        let mut part = Vec::with_capacity((to - from) * area.height() as usize);
        rows.for_each(|row| part.extend_from_slice(&row[from..to]));
        let part = RgbImage::from_raw(area.width(), area.height(), part);
        let part =
            part.ok_or_else(|| Fatal::Broken { tool: self.tool.into(), why: "too few rows".into() })?;
        Ok((part, area, cut))
    }

    /// All text of a picture that the model named.
    pub(crate) fn texts(&self, image: &ImageRef) -> Result<Arc<Vec<crate::ocr::Line>>, ToolError> {
        let (_, picture) = self.images.resolve(&image.0)?;
        let pixels = self.engines.pixels(picture, self.limits)?;
        self.engines.texts(picture.hash(), &pixels, &|| self.check())
    }

    /// Encodes a picture that the tool made.
    pub fn made(&self, pixels: RgbImage, to_parent: Affine) -> Result<Option<Made>, ToolError> {
        let broken = |why: String| Fatal::Broken { tool: self.tool.to_owned(), why };
        let picture = Picture::encode(&pixels).map_err(|e| broken(e.to_string()))?;
        // A large one is decoded again if anybody asks for it: most are looked at by the model alone, and to hold the
        // pixels of each costs more time in fresh memory than that decoding.
        if pixels.as_raw().len() <= KEPT {
            self.engines.keep(picture.hash(), Arc::new(pixels));
        }
        Ok(Some(Made { picture, to_parent: Some(to_parent) }))
    }

    /// Stops the tool where its time is up. Loops over pixels call this once a row or so.
    pub fn check(&self) -> Result<(), ToolError> {
        match self.deadline.is_over() {
            true => Err(Fatal::Deadline { tool: self.tool.to_owned() }.into()),
            false => Ok(()),
        }
    }
}

/// What a tool says.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// For the policy to read. Holds no picture ids: those depend on the dialogue, and a reply is cached by content.
    pub text: String,
    /// The same for programs; `Null` where the text says all.
    pub data: Value,
    /// A picture that the tool made.
    pub image: Option<Made>,
    /// Set by `answer` alone: the trajectory ends with this answer.
    pub answer: Option<String>,
}

impl Reply {
    /// Text alone.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A tool as others see it: in a prompt, an OpenAI `tools` list, or the Model Context Protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Name in snake case.
    pub name: String,
    /// What it does, one paragraph.
    pub description: String,
    /// JSON schema of the arguments: an object.
    pub parameters: Value,
    /// Arguments of a right call.
    pub example: Map<String, Value>,
}

type Run = dyn Fn(Map<String, Value>, &Call<'_>) -> Result<Reply, ToolError> + Send + Sync;

/// A tool without its type: specification and function.
#[derive(Clone)]
pub struct Declared {
    pub(crate) spec: ToolSpec,
    pub(crate) run: Arc<Run>,
}

impl std::fmt::Debug for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Declared").field(&self.spec.name).finish()
    }
}

impl Declared {
    /// From a [`Tool`].
    pub fn of<T: Tool>() -> Self {
        let spec = crate::describe::spec::<T>();
        let shown = spec.clone();
        let run = move |arguments: Map<String, Value>, call: &Call<'_>| {
            let args: T = crate::arguments::parse(&shown, arguments)?;
            args.run(call)
        };
        Self { spec, run: Arc::new(run) }
    }

    /// From a specification and a function, for tools that are not known when the program is built.
    pub fn dynamic(
        spec: ToolSpec,
        run: impl Fn(Map<String, Value>, &Call<'_>) -> Result<Reply, ToolError> + Send + Sync + 'static,
    ) -> Self {
        Self { spec, run: Arc::new(run) }
    }

    /// Its specification.
    pub fn spec(&self) -> &ToolSpec {
        &self.spec
    }
}
