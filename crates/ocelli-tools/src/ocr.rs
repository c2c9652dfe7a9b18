//! Reading text: PP-OCRv6 tiny (detector and recogniser, see `models/`), run by `rten` in plain Rust.
//!
//! Pre- and post-processing follow PaddleOCR as published with the weights (DB: Liao et al., "Real-time Scene Text
//! Detection with Differentiable Binarization", arXiv 1911.08947; CTC greedy decoding). Deviations:
//! 1. Small pictures are enlarged before detection, since chart labels are often 10 pixels high.
//! 2. Boxes that are nearly upright are made upright; charts have no text at one degree.
//! 3. A tall box is read upright and turned both ways, and the best score wins; there is no separate classifier.
//! 4. Small upright pieces of ink that the detector leaves out (single digits, mostly) are offered to the recogniser too.

mod detect;
mod glyphs;
mod ink;
mod recognise;

pub(crate) use recognise::{bilinear, own_pool};

use image::RgbImage;
use rten::Model;
use serde::Serialize;

use crate::networks::{Networks, OCR_SMALL};
use crate::{Fatal, PixelBox, ToolError};

static DETECTOR: &[u8] = include_bytes!("../models/PP-OCRv6_det_tiny.onnx");
static RECOGNISER: &[u8] = include_bytes!("../models/PP-OCRv6_rec_tiny.onnx");

/// Which way a line of text runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From left to right.
    Right,
    /// From bottom to top, as names of y axes are written.
    Up,
    /// From top to bottom.
    Down,
}

/// One line of text found in a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What it says.
    pub text: String,
    /// Mean probability of its characters, rounded to 3 places.
    pub score: f64,
    /// The ink and a small margin, in pixels of the picture.
    pub bbox: PixelBox,
    /// Which way it runs.
    pub direction: Direction,
}

/// The two networks, loaded.
pub struct Ocr {
    detector: Model,
    recogniser: Model,
    /// Character of each class of the recogniser; class 0 is the blank.
    alphabet: Vec<String>,
}

impl std::fmt::Debug for Ocr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ocr({} characters)", self.alphabet.len())
    }
}

/// What happens between steps that take long: a tool's check of its deadline.
pub(crate) type Check<'a> = &'a dyn Fn() -> Result<(), ToolError>;

fn broken(why: impl std::fmt::Display) -> Fatal {
    Fatal::Network { name: "PP-OCRv6".into(), why: why.to_string() }
}

impl Ocr {
    /// Loads the embedded networks.
    pub fn embedded() -> Result<Self, Fatal> {
        let detector = Model::load_static_slice(DETECTOR).map_err(broken)?;
        let recogniser = Model::load_static_slice(RECOGNISER).map_err(broken)?;
        Self::of(detector, recogniser)
    }

    /// Loads the larger networks, which were fetched.
    pub(crate) fn small(networks: &Networks) -> Result<Self, Fatal> {
        let [detector, recogniser] = [0, 1].map(|k| {
            let bytes = networks.read(&OCR_SMALL, &OCR_SMALL.files[k])?;
            Model::load(bytes).map_err(broken)
        });
        Self::of(detector?, recogniser?)
    }

    fn of(detector: Model, recogniser: Model) -> Result<Self, Fatal> {
        let characters = recogniser
            .metadata()
            .get("character")
            .ok_or_else(|| broken("the recogniser names no alphabet in its metadata"))?;
        let blank = std::iter::once(String::new());
        let space = std::iter::once(" ".to_owned());
        let alphabet = blank.chain(characters.lines().map(str::to_owned)).chain(space).collect();
        Ok(Self { detector, recogniser, alphabet })
    }

    /// Finds and reads all lines, from top to bottom and left to right.
    pub(crate) fn read(&self, pixels: &RgbImage, check: Check<'_>) -> Result<Vec<Line>, ToolError> {
        let mut boxes = self.detect(pixels)?;
        check()?;
        glyphs::add_missed(pixels, &mut boxes);
        let mut lines = Vec::new();
        for found in boxes {
            check()?;
            self.read_region(pixels, &found, &mut lines)?;
        }
        sort_for_reading(&mut lines);
        Ok(lines)
    }
}

/// Rows of lines whose centres are less than half a line apart, each from left to right.
fn sort_for_reading(lines: &mut Vec<Line>) {
    lines.sort_by(|a, b| {
        let key = |l: &Line| (l.bbox.y1 + l.bbox.y2, l.bbox.x1);
        key(a).cmp(&key(b))
    });
    let mut rows: Vec<Vec<Line>> = Vec::new();
    for line in lines.drain(..) {
        let middle = line.bbox.centre().1;
        let height = f64::from(line.bbox.height());
        match rows.last_mut() {
            Some(row)
                if row.first().is_some_and(|f| {
                    let near = 0.5 * height.min(f64::from(f.bbox.height()));
                    (middle - f.bbox.centre().1).abs() <= near
                }) =>
            {
                row.push(line)
            }
            _ => rows.push(vec![line]),
        }
    }
    for mut row in rows {
        row.sort_by_key(|l| l.bbox.x1);
        lines.extend(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_are_those_of_the_notice() {
        // SHA-256 is what the package's manifest names; BLAKE3 of the same files is what this project computes.
        let hash = |bytes| ocelli_data::ContentHash::of(bytes).short();
        assert_eq!((DETECTOR.len(), RECOGNISER.len()), (1_829_618, 1_269_595));
        assert_eq!((hash(DETECTOR).len(), hash(RECOGNISER).len()), (12, 12));
        let ocr = Ocr::embedded().unwrap();
        assert_eq!(ocr.alphabet.len(), 6906); // 6,904 characters, the blank and the space
    }

    #[test]
    fn rows_are_read_from_left_to_right() {
        let line = |text: &str, x1: u32, y1: u32| Line {
            text: text.into(),
            score: 1.0,
            bbox: PixelBox { x1, y1, x2: x1 + 10, y2: y1 + 10 },
            direction: Direction::Right,
        };
        let mut lines = vec![line("c", 5, 30), line("b", 50, 8), line("a", 5, 10)];
        sort_for_reading(&mut lines);
        let order: String = lines.iter().map(|l| l.text.as_str()).collect();
        assert_eq!(order, "abc");
    }
}
