//! The recogniser: one line of text, 48 pixels high, to characters (CTC, greedy).

use std::sync::Arc;

use image::{Rgb, RgbImage, imageops};
use rten::{RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use super::detect::Region;
use super::{Direction, Line, Ocr, broken, ink};
use crate::{Fatal, PixelBox};

/// Height of the network's input.
const HEIGHT: u32 = 48;
/// Least width of the network's input; shorter lines are padded with grey, as in training.
const LEAST_WIDTH: u32 = 320;
/// Longest line, in multiples of its height.
const LONGEST: u32 = 60;
/// Lines of a lower score are noise.
const LEAST_SCORE: f64 = 0.5;

thread_local! {
    static POOL: Arc<ThreadPool> = Arc::new(ThreadPool::with_num_threads(1));
}

/// One thread per call: many calls run side by side, and none waits for another's threads.
pub(crate) fn own_pool() -> Arc<ThreadPool> {
    POOL.with(Arc::clone)
}

impl Ocr {
    /// Reads one region; adds a line for each text in it.
    pub(super) fn read_region(
        &self,
        pixels: &RgbImage,
        region: &Region,
        lines: &mut Vec<Line>,
    ) -> Result<(), Fatal> {
        let Some((mut strip, bbox)) = cut_out(pixels, region) else { return Ok(()) };
        if f64::from(strip.height()) >= 1.5 * f64::from(strip.width()) {
            lines.extend(self.read_tall(&strip, bbox)?);
            return Ok(());
        }
        let width = f64::from(strip.width());
        for (from, to) in ink::clean(&mut strip) {
            let part = imageops::crop_imm(&strip, from, 0, to - from, strip.height()).to_image();
            let (text, score) = self.read_strip(&part)?;
            // The strip of a slanted region is longer than its box is wide; the parts share the box in proportion.
            let at = |v: u32| bbox.x1 + (f64::from(v) / width * f64::from(bbox.width())).round() as u32;
            let bbox = PixelBox { x1: at(from), x2: at(to), ..bbox };
            lines.extend(line(text, score, bbox, Direction::Right));
        }
        Ok(())
    }

    /// A tall region: one upright character, or a line that was turned.
    fn read_tall(&self, strip: &RgbImage, bbox: PixelBox) -> Result<Option<Line>, Fatal> {
        let (text, score) = self.read_strip(strip)?;
        let mut best = (text, score, Direction::Right);
        for (turned, direction) in
            [(imageops::rotate90(strip), Direction::Up), (imageops::rotate270(strip), Direction::Down)]
        {
            let (text, score) = self.read_strip(&turned)?;
            // A single upright character is likelier than a turned one, a turned line than a stack of characters.
            let characters = text.chars().filter(|c| !c.is_whitespace()).count();
            let lead = if best.0.chars().count() <= 1 { 0.3 } else { 0.0 };
            if characters > 1 && score > best.1 - lead {
                best = (text, score, direction);
            }
        }
        Ok(line(best.0, best.1, bbox, best.2))
    }

    /// Characters and their mean probability.
    fn read_strip(&self, strip: &RgbImage) -> Result<(String, f64), Fatal> {
        let input = network_input(strip);
        let options = RunOptions::default().with_thread_pool(Some(own_pool()));
        let output = self.recogniser.run_one(input.into(), Some(options)).map_err(broken)?;
        let steps: NdTensor<f32, 3> =
            output.try_into().map_err(|_| broken("the recogniser's output is not [1, T, classes]"))?;
        let [_, _, classes] = steps.shape();
        if classes != self.alphabet.len() {
            return Err(broken(format!("{classes} classes, but an alphabet of {}", self.alphabet.len())));
        }
        let (mut text, mut sum, mut n, mut last) = (String::new(), 0.0, 0, 0);
        for step in steps.to_vec().chunks_exact(classes) {
            let best =
                step.iter().enumerate().fold((0, f32::MIN), |b, (i, &p)| if p > b.1 { (i, p) } else { b });
            if best.0 != 0 && best.0 != last {
                text.push_str(&self.alphabet[best.0]);
                sum += f64::from(best.1);
                n += 1;
            }
            last = best.0;
        }
        Ok((text, if n == 0 { 0.0 } else { sum / f64::from(n) }))
    }
}

/// A line, unless it is empty or too uncertain. Squares and discs at its ends are legend keys, not text.
fn line(text: String, score: f64, bbox: PixelBox, direction: Direction) -> Option<Line> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || ('\u{25a0}'..='\u{25ff}').contains(&c));
    match text.is_empty() || score < LEAST_SCORE {
        true => None,
        false => {
            Some(Line { text: text.to_owned(), score: (score * 1000.0).round() / 1000.0, bbox, direction })
        }
    }
}

/// The pixels of a region as an upright strip, and its bounds in the picture.
fn cut_out(pixels: &RgbImage, region: &Region) -> Option<(RgbImage, PixelBox)> {
    let (w, h) = pixels.dimensions();
    let (x1, y1, x2, y2) = region.bounds();
    let bbox = PixelBox {
        x1: x1.max(0.0).round() as u32,
        y1: y1.max(0.0).round() as u32,
        x2: (x2.round() as u32).min(w),
        y2: (y2.round() as u32).min(h),
    };
    if bbox.x1 >= bbox.x2 || bbox.y1 >= bbox.y2 {
        return None;
    }
    if region.is_upright() {
        return Some((
            imageops::crop_imm(pixels, bbox.x1, bbox.y1, bbox.width(), bbox.height()).to_image(),
            bbox,
        ));
    }
    let (sw, sh) =
        ((2.0 * region.half.0).round().max(1.0) as u32, (2.0 * region.half.1).round().max(1.0) as u32);
    let (ux, uy) = region.axis;
    let strip = RgbImage::from_fn(sw, sh, |i, j| {
        let (u, v) = (f64::from(i) + 0.5 - region.half.0, f64::from(j) + 0.5 - region.half.1);
        let (x, y) = (region.centre.0 + u * ux - v * uy, region.centre.1 + u * uy + v * ux);
        bilinear(pixels, x, y)
    });
    Some((strip, bbox))
}

/// Colour at a point of the continuous frame; beyond the edge the edge goes on.
pub(crate) fn bilinear(pixels: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (w, h) = pixels.dimensions();
    let (x, y) = ((x - 0.5).clamp(0.0, f64::from(w - 1)), (y - 0.5).clamp(0.0, f64::from(h - 1)));
    let (x1, y1) = (x as u32, y as u32);
    let (x2, y2) = ((x1 + 1).min(w - 1), (y1 + 1).min(h - 1));
    let (fx, fy) = (x - f64::from(x1), y - f64::from(y1));
    let at = |x, y, c: usize| f64::from(pixels.get_pixel(x, y).0[c]);
    Rgb(std::array::from_fn(|c| {
        let top = at(x1, y1, c) * (1.0 - fx) + at(x2, y1, c) * fx;
        let bottom = at(x1, y2, c) * (1.0 - fx) + at(x2, y2, c) * fx;
        (top * (1.0 - fy) + bottom * fy).round() as u8
    }))
}

/// `[1, 3, 48, W]`, blue, green, red in -1..1; zero (grey) on the right.
fn network_input(strip: &RgbImage) -> NdTensor<f32, 4> {
    let (w, h) = strip.dimensions();
    let width = (u64::from(w) * u64::from(HEIGHT))
        .div_ceil(u64::from(h))
        .clamp(1, u64::from(HEIGHT * LONGEST)) as u32;
    let resized = imageops::resize(strip, width, HEIGHT, imageops::FilterType::Triangle);
    let padded = width.max(LEAST_WIDTH).div_ceil(8) * 8;
    let mut data = vec![0f32; (3 * HEIGHT * padded) as usize];
    for (x, y, pixel) in resized.enumerate_pixels() {
        for c in 0..3 {
            let i = (c * HEIGHT + y) * padded + x;
            data[i as usize] = f32::from(pixel.0[2 - c as usize]) / 127.5 - 1.0;
        }
    }
    NdTensor::from_data([1, 3, HEIGHT as usize, padded as usize], data)
}
