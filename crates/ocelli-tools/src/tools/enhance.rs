//! `enhance`: contrast, threshold, inversion, grey, sharpening. Integer arithmetic throughout.

use image::RgbImage;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{Affine, Call, Effort, ImageRef, Reply, Tool, ToolError};

/// Make a picture easier to read: stretch its contrast, turn it to black and white, invert it, remove colour, or sharpen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enhance {
    /// Picture to work on, such as img_0.
    image: ImageRef,
    /// What to do.
    operation: Operation,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Contrast,
    Threshold,
    Invert,
    Grayscale,
    Sharpen,
}

impl Tool for Enhance {
    const NAME: &'static str = "enhance";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "operation": "contrast"}"#;
    const EFFORT: Effort = Effort::Moderate;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let mut pixels = (*call.pixels(&self.image)?).clone();
        let text = match self.operation {
            Operation::Contrast => {
                let (low, high) = stretch(&mut pixels);
                format!("Stretched grey levels {low} to {high} over the whole range.")
            }
            Operation::Threshold => {
                let level = otsu(&histogram(&pixels));
                grey_out(&mut pixels, |g| if g > level { 255 } else { 0 });
                format!("Black up to grey level {level}, white above.")
            }
            Operation::Invert => {
                pixels.iter_mut().for_each(|c| *c = 255 - *c);
                "Inverted.".to_owned()
            }
            Operation::Grayscale => {
                grey_out(&mut pixels, |g| g);
                "Removed colour.".to_owned()
            }
            Operation::Sharpen => {
                pixels = sharpened(&pixels);
                "Sharpened.".to_owned()
            }
        };
        Ok(Reply { text, data: json!({}), image: call.made(pixels, Affine::IDENTITY)?, answer: None })
    }
}

fn grey(p: &[u8]) -> u8 {
    ((u32::from(p[0]) * 299 + u32::from(p[1]) * 587 + u32::from(p[2]) * 114 + 500) / 1000) as u8
}

fn histogram(pixels: &RgbImage) -> [u64; 256] {
    let mut counts = [0; 256];
    pixels.as_raw().chunks_exact(3).for_each(|p| counts[usize::from(grey(p))] += 1);
    counts
}

fn grey_out(pixels: &mut RgbImage, to: impl Fn(u8) -> u8) {
    pixels.pixels_mut().for_each(|p| p.0 = [to(grey(&p.0)); 3]);
}

/// Maps the grey levels between the 1st and 99th percentile to 0..=255, the same way in all channels.
fn stretch(pixels: &mut RgbImage) -> (u8, u8) {
    let counts = histogram(pixels);
    let total: u64 = counts.iter().sum();
    let at = |part: u64| {
        let mut seen = 0;
        counts.iter().position(|n| {
            seen += n;
            seen * 100 >= total * part
        })
    };
    let (low, high) = (at(1).unwrap_or(0) as i32, at(99).unwrap_or(255) as i32);
    let span = (high - low).max(1);
    pixels.iter_mut().for_each(|c| *c = ((i32::from(*c) - low) * 255 / span).clamp(0, 255) as u8);
    (low as u8, high as u8)
}

/// The level that parts dark from light with the largest variance between the two (Otsu, 1979).
fn otsu(counts: &[u64; 256]) -> u8 {
    let total: u64 = counts.iter().sum();
    let sum: u64 = counts.iter().enumerate().map(|(i, n)| i as u64 * n).sum();
    let (mut below, mut sum_below, mut best) = (0u64, 0u64, (0.0, 127u8));
    for (level, n) in counts.iter().enumerate() {
        below += n;
        sum_below += level as u64 * n;
        let above = total - below;
        if below == 0 || above == 0 {
            continue;
        }
        let apart = sum_below as f64 / below as f64 - (sum - sum_below) as f64 / above as f64;
        let between = below as f64 * above as f64 * apart * apart;
        if between > best.0 {
            best = (between, level as u8);
        }
    }
    best.1
}

/// Centre times five minus the four neighbours.
fn sharpened(pixels: &RgbImage) -> RgbImage {
    let (w, h) = pixels.dimensions();
    RgbImage::from_fn(w, h, |x, y| {
        let at = |x: u32, y: u32| pixels.get_pixel(x, y).0;
        let around = [
            at(x.saturating_sub(1), y),
            at((x + 1).min(w - 1), y),
            at(x, y.saturating_sub(1)),
            at(x, (y + 1).min(h - 1)),
        ];
        image::Rgb(std::array::from_fn(|c| {
            let sum: i32 = around.iter().map(|p| i32::from(p[c])).sum();
            (5 * i32::from(at(x, y)[c]) - sum).clamp(0, 255) as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::otsu;

    #[test]
    fn otsu_parts_two_peaks() {
        let mut counts = [0; 256];
        counts[20] = 100;
        counts[200] = 50;
        // Any level from 20 to 199 parts them equally; the first is taken.
        assert_eq!(otsu(&counts), 20);
    }
}
