//! Ink that the detector leaves out.
//!
//! Text detectors are trained on words and miss lone digits, which are what axes are made of. Here small dark or light
//! pieces on a plain ground, of the size of a character, are joined to short words and offered to the recogniser;
//! whatever it is not sure of is dropped there.

use image::RgbImage;

use super::detect::Region;
use super::ink;
use crate::{PixelBox, regions};

/// Heights of characters that are looked for, in pixels.
const HEIGHT: std::ops::RangeInclusive<u32> = 6..=48;
/// Most words that are offered.
const MOST: usize = 200;
/// Least difference of a character from its ground, in grey levels.
const CONTRAST: i32 = 60;

/// Adds boxes of character-like pieces that no found region covers.
pub(super) fn add_missed(pixels: &RgbImage, found: &mut Vec<Region>) {
    let (w, h) = pixels.dimensions();
    let covered: Vec<(f64, f64, f64, f64)> = found.iter().map(Region::bounds).collect();
    let is_covered = |b: &PixelBox| {
        let (x, y) = b.centre();
        covered.iter().any(|c| c.0 <= x && x <= c.2 && c.1 <= y && y <= c.3)
    };
    let mut pieces: Vec<PixelBox> = character_like(pixels).into_iter().filter(|b| !is_covered(b)).collect();
    pieces.sort_by_key(|b| (b.x1, b.y1));
    for word in words(pieces).into_iter().take(MOST) {
        // Half a character of ground on all sides, as the detector leaves around words.
        let margin = f64::from(word.height()) * 0.35;
        let (x1, y1) = (f64::from(word.x1) - margin, f64::from(word.y1) - margin);
        let (x2, y2) = (f64::from(word.x2) + margin, f64::from(word.y2) + margin);
        found.push(Region::upright(x1.max(0.0), y1.max(0.0), x2.min(f64::from(w)), y2.min(f64::from(h))));
    }
}

/// Boxes of pieces of ink that could be a character.
fn character_like(pixels: &RgbImage) -> Vec<PixelBox> {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let grey = ink::grey(pixels);
    let ground = ink::common_grey(&grey);
    let mask: Vec<bool> = grey.iter().map(|g| (g - ground).abs() > CONTRAST).collect();
    regions::components(&mask, w, h)
        .into_iter()
        .filter(|c| {
            let (cw, ch) = (c.bbox.width(), c.bbox.height());
            let filled = c.pixels.len() as f64 / (f64::from(cw) * f64::from(ch));
            // A full block is a marker or a bar, not a character; `1` and `-` are thin, so they may be full.
            HEIGHT.contains(&ch) && cw <= 2 * ch && (filled < 0.85 || cw * 3 <= ch) && c.pixels.len() >= 6
        })
        .map(|c| c.bbox)
        .collect()
}

/// Joins pieces that stand side by side at less than a character's distance.
fn words(pieces: Vec<PixelBox>) -> Vec<PixelBox> {
    let mut words: Vec<PixelBox> = Vec::new();
    for piece in pieces {
        let near = words.iter_mut().rev().find(|w| {
            let gap = i64::from(piece.x1) - i64::from(w.x2);
            let overlap = i64::from(piece.y2.min(w.y2)) - i64::from(piece.y1.max(w.y1));
            let low = i64::from(piece.height().min(w.height()));
            let high = i64::from(piece.height().max(w.height()));
            gap <= high / 2 && gap >= -high && 2 * overlap >= low
        });
        match near {
            Some(word) => {
                *word = PixelBox {
                    x1: word.x1.min(piece.x1),
                    y1: word.y1.min(piece.y1),
                    x2: word.x2.max(piece.x2),
                    y2: word.y2.max(piece.y2),
                };
            }
            None => words.push(piece),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_side_by_side_are_one_word() {
        let b = |x1, x2| PixelBox { x1, y1: 10, x2, y2: 20 };
        let joined = words(vec![b(0, 6), b(8, 14), b(40, 46)]);
        assert_eq!(joined, vec![b(0, 14), b(40, 46)]);
    }
}
