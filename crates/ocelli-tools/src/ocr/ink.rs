//! Ink and ground of a strip: removes what is not text at its ends, and parts words that stand far apart.
//!
//! The detector widens its boxes, so that a tick, the axis behind it or a neighbouring label gets in. A tick reads as a
//! hyphen and a neighbour becomes part of the word, which ruins a number.

use image::{Rgb, RgbImage};

use crate::{PixelBox, regions};

/// Least difference of ink from its ground, in grey levels.
const CONTRAST: i32 = 48;
/// Gap between two texts, in heights of their ink. A space between words is 0.4 to 0.6.
const GAP: f64 = 0.85;

/// Grey level of each pixel, 0 to 255.
pub(super) fn grey(pixels: &RgbImage) -> Vec<i32> {
    let luma = |p: &[u8]| (i32::from(p[0]) * 299 + i32::from(p[1]) * 587 + i32::from(p[2]) * 114) / 1000;
    pixels.as_raw().chunks_exact(3).map(luma).collect()
}

/// The commonest grey level, in steps of 8.
pub(super) fn common_grey(grey: &[i32]) -> i32 {
    let mut counts = [0usize; 32];
    grey.iter().for_each(|g| counts[(*g >> 3) as usize] += 1);
    let best = counts.iter().enumerate().max_by_key(|(i, n)| (**n, *i)).map_or(31, |(i, _)| i);
    (best as i32) * 8 + 4
}

/// Paints ticks and axis lines over, and returns the columns `[from, to)` of each text in the strip.
pub(super) fn clean(strip: &mut RgbImage) -> Vec<(u32, u32)> {
    let (w, h) = strip.dimensions();
    let whole = vec![(0, w)];
    let levels = grey(strip);
    let ground = common_grey(&levels);
    let mask: Vec<bool> = levels.iter().map(|g| (g - ground).abs() > CONTRAST).collect();
    let ink = mask.iter().filter(|m| **m).count();
    if ink == 0 || 2 * ink > mask.len() || h < 4 {
        return whole; // no plain ground: a photograph, or white on a thin band
    }
    let paint = levels
        .iter()
        .position(|g| (g - ground).abs() <= 4)
        .map(|i| *strip.get_pixel(i as u32 % w, i as u32 / w));
    let paint = paint.unwrap_or(Rgb([ground as u8; 3]));
    let mut letters: Vec<PixelBox> = Vec::new();
    for piece in regions::components(&mask, w as usize, h as usize) {
        let b = piece.bbox;
        if is_scaffold(&b, w, h) {
            piece.pixels.iter().for_each(|&i| strip.put_pixel(i as u32 % w, i as u32 / w, paint));
            paint_fringe(strip, &piece.pixels, paint, &levels, ground);
        } else {
            letters.push(b);
        }
    }
    letters.sort_by_key(|b| b.x1);
    let (Some(first), Some(height)) = (letters.first().copied(), ink_height(&letters)) else { return whole };
    let gap = (GAP * f64::from(height)).max(3.0) as u32;
    let mut runs = vec![(first.x1, first.x2)];
    for b in &letters[1..] {
        match runs.last_mut() {
            Some(run) if b.x1 < run.1 + gap => run.1 = run.1.max(b.x2),
            _ => runs.push((b.x1, b.x2)),
        }
    }
    if runs.len() == 1 {
        return whole;
    }
    let margin = height / 3;
    runs.iter().map(|r| (r.0.saturating_sub(margin), (r.1 + margin).min(w))).collect()
}

/// A line that comes in from the left or right edge, or a thin one that goes through from top to bottom.
fn is_scaffold(b: &PixelBox, w: u32, h: u32) -> bool {
    let at_side = b.x1 == 0 || b.x2 == w;
    let narrow = 3 * b.width() <= 2 * h;
    let through = b.y1 == 0 && b.y2 == h;
    let flat = 3 * b.height() <= h;
    (at_side && narrow && (flat || through))
        || (through && 6 * b.width() <= h && (b.x1 * 4 < w || b.x2 * 4 > 3 * w))
}

/// Anti-aliased neighbours of painted pixels belong to the same line.
fn paint_fringe(strip: &mut RgbImage, pixels: &[usize], paint: Rgb<u8>, levels: &[i32], ground: i32) {
    let (w, h) = strip.dimensions();
    for &i in pixels {
        let (x, y) = (i as u32 % w, i as u32 / w);
        for ny in y.saturating_sub(1)..(y + 2).min(h) {
            for nx in x.saturating_sub(1)..(x + 2).min(w) {
                if (levels[(ny * w + nx) as usize] - ground).abs() <= CONTRAST {
                    strip.put_pixel(nx, ny, paint);
                }
            }
        }
    }
}

/// Height of the tallest letter.
fn ink_height(letters: &[PixelBox]) -> Option<u32> {
    letters.iter().map(PixelBox::height).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(rows: &[&str]) -> RgbImage {
        let (w, h) = (rows[0].len() as u32, rows.len() as u32);
        RgbImage::from_fn(w, h, |x, y| {
            Rgb([if rows[y as usize].as_bytes()[x as usize] == b'#' { 0 } else { 255 }; 3])
        })
    }

    #[test]
    fn a_tick_at_the_side_goes_and_the_digit_stays() {
        let mut s = strip(&[
            "............", //
            ".###........",
            ".#.#........",
            ".#.#....####",
            ".#.#........",
            ".###........",
            "............",
        ]);
        assert_eq!(clean(&mut s), vec![(0, 12)]);
        assert_eq!(s.get_pixel(9, 3).0, [255; 3]);
        assert_eq!(s.get_pixel(1, 3).0, [0; 3]);
    }

    #[test]
    fn words_far_apart_are_parted() {
        let mut s = strip(&[
            "....................", //
            "..##............##..",
            "..##............##..",
            "..##............##..",
            "....................",
        ]);
        assert_eq!(clean(&mut s), vec![(1, 5), (15, 19)]);
    }
}
