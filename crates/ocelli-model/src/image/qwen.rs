//! Qwen's dynamic resolution: the picture keeps its shape and is rounded to whole merge blocks (Qwen2-VL paper,
//! arXiv 2409.12191, section 2.1; reference `Qwen2VLImageProcessor`, transformers 5.23).
//!
//! Patch order: merge blocks row by row; inside a block its `merge x merge` patches row by row, so that `merge^2`
//! neighbouring rows of the patch matrix become one token. Inside a patch: channel, frame, row, column. A still picture
//! is repeated for each of the `frames` that the tower's patch embedding spans.

use ::image::RgbImage;
use rayon::prelude::*;
use serde_json::Value;

use super::patches::positive;
use super::{Grid, ImageError, ImagePatches, Normalise, resize_bicubic};

/// Most pixels that a configuration may have small pictures grow to; at 10^8 one picture took 2.7 GB.
const MAX_GROWTH: u64 = 1 << 24;
/// Longest side over shortest side that the reference accepts.
const MAX_RATIO: u32 = 200;

/// Settings of the Qwen preprocessor.
#[derive(Clone, Debug, PartialEq)]
pub struct QwenPreprocessor {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Patches along each side of a token.
    pub merge: usize,
    /// Frames in a patch: 2 for the Qwen families, 1 for the native one.
    pub frames: usize,
    /// Fewest pixels after resizing.
    pub min_pixels: u64,
    /// Most pixels after resizing; this bounds the number of tokens.
    pub max_pixels: u64,
    /// Level statistics.
    pub normalise: Normalise,
}

impl QwenPreprocessor {
    /// Width and height after resizing.
    pub fn target(&self, width: u32, height: u32) -> Result<(u32, u32), ImageError> {
        smart_resize(width, height, (self.patch * self.merge) as u32, self.min_pixels, self.max_pixels)
    }

    pub(super) fn apply(&self, image: &RgbImage) -> Result<ImagePatches, ImageError> {
        let (width, height) = self.target(image.width(), image.height())?;
        let image = resize_bicubic(image, width, height);
        let grid = Grid { h: height as usize / self.patch, w: width as usize / self.patch };
        Ok(ImagePatches {
            pixels: self.cut(&image, grid),
            dim: 3 * self.frames * self.patch * self.patch,
            grids: vec![grid],
            tokens: grid.len() / (self.merge * self.merge),
        })
    }

    /// `[patches, 3 * frames * patch * patch]` in the order that the head of this file gives.
    fn cut(&self, image: &RgbImage, grid: Grid) -> Vec<f32> {
        let Self { patch, merge, frames, .. } = *self;
        let table = self.normalise.table();
        let area = patch * patch;
        let dim = 3 * frames * area;
        let row = image.width() as usize * 3;
        let source = image.as_raw();
        let mut out = vec![0.0; grid.len() * dim];
        out.par_chunks_mut(dim).enumerate().for_each(|(n, to)| {
            let (block, inside) = (n / (merge * merge), n % (merge * merge));
            let y = (block / (grid.w / merge) * merge + inside / merge) * patch;
            let x = (block % (grid.w / merge) * merge + inside % merge) * patch;
            for c in 0..3 {
                let channel = &mut to[c * frames * area..][..frames * area];
                let (first, others) = channel.split_at_mut(area);
                for (dy, line) in first.chunks_exact_mut(patch).enumerate() {
                    let from = &source[(y + dy) * row + x * 3..][..patch * 3];
                    for (value, pixel) in line.iter_mut().zip(from.chunks_exact(3)) {
                        *value = table[c][usize::from(pixel[c])];
                    }
                }
                for frame in others.chunks_exact_mut(area) {
                    frame.copy_from_slice(first);
                }
            }
        });
        out
    }

    pub(super) fn read_config(&mut self, config: &Value) -> Result<(), ImageError> {
        for (key, field) in [
            ("patch_size", &mut self.patch),
            ("merge_size", &mut self.merge),
            ("temporal_patch_size", &mut self.frames),
        ] {
            if let Some(n) = positive(config, key)? {
                *field = n as usize;
            }
        }
        // Newer files write `size: {shortest_edge, longest_edge}` for what older ones call min_pixels and max_pixels:
        // areas in both, in spite of the name.
        let size = config.get("size").unwrap_or(&Value::Null);
        for (old, new, field) in [
            ("min_pixels", "shortest_edge", &mut self.min_pixels),
            ("max_pixels", "longest_edge", &mut self.max_pixels),
        ] {
            if let Some(n) = positive(config, old)?.or(positive(size, new)?) {
                *field = n;
            }
        }
        let Self { patch, merge, frames, min_pixels, max_pixels, .. } = *self;
        if patch > 256 || merge > 16 || frames > 16 {
            return Err(ImageError::Config(format!(
                "patch_size {patch}, merge_size {merge}, temporal_patch_size {frames}; at most 256, 16 and 16 are taken"
            )));
        }
        // A small picture grows to this many pixels, whatever it measures.
        if min_pixels > MAX_GROWTH {
            return Err(ImageError::Config(format!(
                "min_pixels (size.shortest_edge) is {min_pixels}: every picture would grow to that many pixels; at most {MAX_GROWTH} are taken"
            )));
        }
        if min_pixels > max_pixels {
            return Err(ImageError::Config(format!(
                "min_pixels (size.shortest_edge) is {min_pixels}, more than max_pixels (size.longest_edge), {max_pixels}"
            )));
        }
        Ok(())
    }
}

/// Width and height nearest to the given ones that are multiples of `factor` and hold between `min_pixels` and
/// `max_pixels` pixels, the shape kept as far as possible.
///
/// # Errors
/// A side more than 200 times as long as the other, as in the reference.
///
/// ```
/// use ocelli_model::image::smart_resize;
/// // 640x480 at 28 pixels a token: 22.86 -> 23 by 17.14 -> 17 tokens.
/// assert_eq!(smart_resize(640, 480, 28, 56 * 56, 28 * 28 * 1280).unwrap(), (644, 476));
/// ```
pub fn smart_resize(
    width: u32,
    height: u32,
    factor: u32,
    min_pixels: u64,
    max_pixels: u64,
) -> Result<(u32, u32), ImageError> {
    if u64::from(width.max(height)) > u64::from(MAX_RATIO) * u64::from(width.min(height)) {
        return Err(ImageError::TooNarrow { width, height, limit: MAX_RATIO });
    }
    let (w, h, f) = (f64::from(width), f64::from(height), f64::from(factor));
    // Python's round goes to the even neighbour at a half.
    let round = |side: f64| (side / f).round_ties_even() * f;
    let (mut to_w, mut to_h) = (round(w), round(h));
    if to_w * to_h > max_pixels as f64 {
        let shrink = (h * w / max_pixels as f64).sqrt();
        to_w = f.max((w / shrink / f).floor() * f);
        to_h = f.max((h / shrink / f).floor() * f);
    } else if to_w * to_h < min_pixels as f64 {
        let grow = (min_pixels as f64 / (h * w)).sqrt();
        to_w = (w * grow / f).ceil() * f;
        to_h = (h * grow / f).ceil() * f;
    }
    Ok((to_w as u32, to_h as u32))
}
