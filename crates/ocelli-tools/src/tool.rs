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
use tokio::sync::Semaphore;

use crate::error::for_model;
use crate::pool::{Canvas, Pixels};
use crate::{Affine, Engines, Fatal, Images, Limits, Made, Picture, PictureError, ToolError};

/// A vision tool. The doc comment of the struct is what the model is told about it; those of the fields describe the
/// arguments.
pub trait Tool: DeserializeOwned + JsonSchema + 'static {
    /// Name in snake case.
    const NAME: &'static str;
    /// Arguments of a right call, as JSON.
    const EXAMPLE: &'static str;
    /// How much work a call is.
    const EFFORT: Effort = Effort::Heavy;

    /// Does the work. Must depend on the arguments and the pictures alone, so that a call can be cached and replayed.
    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError>;
}

/// How much work a call of a tool is, and so where it runs and whom it may hold up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Next to none: it runs where it was asked for, on no other thread and at no server.
    None,
    /// Not more than decoding a picture, some drawing, and encoding it again.
    Light,
    /// Some passes over all pixels.
    Moderate,
    /// Networks, and searches over pictures.
    Heavy,
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

    /// As long as `time` from now, but not longer than this one; given up together with this one.
    pub fn within(&self, time: Duration) -> Self {
        Self { at: Self::after(time).at.min(self.at), given_up: self.given_up.clone() }
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

    /// A copy of the pixels of a picture that the model named, to be drawn on.
    pub(crate) fn canvas(&self, image: &ImageRef) -> Result<Canvas, ToolError> {
        let (_, picture) = self.images.resolve(&image.0)?;
        self.engines.canvas(picture, self.limits)
    }

    /// A rectangle of a picture that the model named, with its place, and whether it was cut off at the picture's edges.
    pub(crate) fn part(&self, image: &ImageRef, bbox: Bbox) -> Result<Part, ToolError> {
        let (_, picture) = self.images.resolve(&image.0)?;
        let (area, cut) = bbox.in_picture(picture.width(), picture.height())?;
        let pixels = self.engines.rows(picture, area.y2, self.limits)?;
        match pixels.height() >= area.y2 {
            true => Ok(Part { pixels, area, cut }),
            false => Err(Fatal::Broken { tool: self.tool.into(), why: "too few rows".into() }.into()),
        }
    }

    /// All text of a picture that the model named.
    pub(crate) fn texts(&self, image: &ImageRef) -> Result<Arc<Vec<crate::ocr::Line>>, ToolError> {
        let (_, picture) = self.images.resolve(&image.0)?;
        let pixels = self.engines.pixels(picture, self.limits)?;
        self.engines.texts(picture.hash(), &pixels, &|| self.check())
    }

    /// Encodes a picture that the tool made.
    pub fn made(&self, pixels: RgbImage, to_parent: Affine) -> Result<Option<Made>, ToolError> {
        let stride = (3 * pixels.width() as usize).max(1);
        let rows = pixels.as_raw().chunks_exact(stride).take(pixels.height() as usize);
        let made = self.made_of_rows(pixels.width(), rows, to_parent)?;
        // A large one is decoded again if anybody asks for it: most are looked at by the model alone, and to hold the
        // pixels of each costs more time in fresh memory than that decoding.
        if let Some(made) = made.as_ref().filter(|_| pixels.as_raw().len() <= KEPT) {
            self.engines.keep(made.picture.hash(), Arc::new(pixels));
        }
        Ok(made)
    }

    /// Encodes rows of pixels that the tool made or cut out; nothing is kept decoded.
    pub(crate) fn made_of_rows<'a>(
        &self,
        width: u32,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
        to_parent: Affine,
    ) -> Result<Option<Made>, ToolError> {
        let pool = self.engines.pool();
        let mut buffer = pool.take(width as usize * rows.len());
        let encoded = Picture::encode_rows(width, rows, &mut buffer);
        pool.give(buffer);
        let broken = |e: PictureError| Fatal::Broken { tool: self.tool.to_owned(), why: e.to_string() };
        Ok(Some(Made { picture: encoded.map_err(broken)?, to_parent: Some(to_parent) }))
    }

    /// Encodes a picture that was drawn on.
    pub(crate) fn drawn(&self, canvas: &Canvas) -> Result<Option<Made>, ToolError> {
        let stride = 3 * canvas.width() as usize;
        self.made_of_rows(canvas.width(), canvas.as_raw().chunks_exact(stride), Affine::IDENTITY)
    }

    /// Stops the tool where its time is up. Loops over pixels call this once a row or so.
    pub fn check(&self) -> Result<(), ToolError> {
        match self.deadline.is_over() {
            true => Err(Fatal::Deadline { tool: self.tool.to_owned() }.into()),
            false => Ok(()),
        }
    }
}

/// A rectangle of a picture.
pub(crate) struct Part {
    pixels: Pixels,
    /// Where it lies in the picture.
    pub(crate) area: PixelBox,
    /// What was asked for went beyond the picture's edges.
    pub(crate) cut: bool,
}

impl Part {
    /// Its rows, 3 bytes a pixel.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let stride = 3 * self.pixels.width() as usize;
        let (from, to) = (3 * self.area.x1 as usize, 3 * self.area.x2 as usize);
        let rows = self.pixels.as_raw().chunks_exact(stride);
        let rows = rows.skip(self.area.y1 as usize).take(self.area.height() as usize);
        rows.map(move |row| &row[from..to])
    }

    /// Its pixels as a picture of their own.
    pub(crate) fn copy(&self) -> RgbImage {
        let mut copy = RgbImage::new(self.area.width(), self.area.height());
        let stride = 3 * self.area.width() as usize;
        copy.chunks_exact_mut(stride).zip(self.rows()).for_each(|(to, from)| to.copy_from_slice(from));
        copy
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
    pub(crate) effort: Effort,
    /// Places for calls that another program works on while this one waits.
    pub(crate) room: Option<Arc<Semaphore>>,
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
        Self { spec, run: Arc::new(run), effort: T::EFFORT, room: None }
    }

    /// From a specification and a function, for tools that are not known when the program is built.
    pub fn dynamic(
        spec: ToolSpec,
        run: impl Fn(Map<String, Value>, &Call<'_>) -> Result<Reply, ToolError> + Send + Sync + 'static,
    ) -> Self {
        Self { spec, run: Arc::new(run), effort: Effort::Heavy, room: None }
    }

    /// The same for a tool whose work is done by another program: a call only waits, so that it needs no share of the
    /// processor, but one of the places of `room`, which several tools of that program may share.
    pub fn elsewhere(mut self, room: Arc<Semaphore>) -> Self {
        self.room = Some(room);
        self
    }

    /// A tool of which there is nothing but a recording ([`crate::Cache::replay`]). It complains of wrong arguments and of pictures
    /// that are not there, which have no place in a recording, and has no answer of its own.
    pub fn recorded(spec: ToolSpec) -> Self {
        let shown = spec.clone();
        Self::dynamic(spec, move |arguments, call| {
            crate::arguments::check(&shown, &arguments)?;
            if let Some(Value::String(image)) = arguments.get("image") {
                call.images.resolve(image)?;
            }
            let why = "there is only a recording of it, and it was called past that".to_owned();
            Err(Fatal::Broken { tool: call.tool.to_owned(), why }.into())
        })
    }

    /// Its specification.
    pub fn spec(&self) -> &ToolSpec {
        &self.spec
    }
}
