//! The sub-figures of a picture, without a network.
//!
//! Figures are laid out in grids, and between the columns of a grid there is a band without ink from top to bottom. For
//! each number of columns the cuts must lie where an even grid has them, within a tolerance, and in such bands; the
//! largest number that fits is taken, and the same for rows. An axis, a bar or a line of text crosses any other cut.
//! Where no grid fits, framed panels (large separate pieces of ink) are taken.

use image::RgbImage;

use crate::colors::{apart, ground};
use crate::{PixelBox, regions};

/// Most columns and rows.
const MOST: u32 = 8;
/// How far a cut may lie from its even place, as a part of the cell's side.
const TOLERANCE: f64 = 0.12;
/// Least width of a band, as a part of the picture's side.
const BAND: f64 = 0.008;

/// Boxes of the sub-figures, row by row; empty where the picture is one figure.
pub(crate) fn find(pixels: &RgbImage) -> Vec<PixelBox> {
    let (w, h) = pixels.dimensions();
    let paper = ground(pixels);
    let ink: Vec<bool> = pixels.as_raw().chunks_exact(3).map(|p| apart(p, &paper) > 24).collect();
    let column_has = |x: u32, y1: u32, y2: u32| (y1..y2).any(|y| ink[(y * w + x) as usize]);
    let row_has = |y: u32| (0..w).any(|x| ink[(y * w + x) as usize]);
    let rows: Vec<bool> = (0..h).map(row_has).collect();
    let columns: Vec<bool> = (0..w).map(|x| column_has(x, 0, h)).collect();
    let (xs, ys) = (cuts(&columns), cuts(&rows));
    let mut found = Vec::new();
    for y in ys.windows(2) {
        for x in xs.windows(2) {
            let cell = PixelBox { x1: x[0], y1: y[0], x2: x[1], y2: y[1] };
            if (cell.x1..cell.x2).any(|x| column_has(x, cell.y1, cell.y2)) {
                found.push(cell);
            }
        }
    }
    match found.len() {
        0 | 1 => framed(&ink, w, h),
        _ => found,
    }
}

/// Edges of the cells along one side: the first, the cuts, the last.
fn cuts(has_ink: &[bool]) -> Vec<u32> {
    let side = has_ink.len() as u32;
    let least = ((f64::from(side) * BAND) as u32).max(2);
    let mut bands = Vec::new();
    let mut start = None;
    for (i, ink) in has_ink.iter().chain([&true]).enumerate() {
        match (ink, start) {
            (false, None) => start = Some(i as u32),
            (true, Some(from)) => {
                let to = i as u32;
                // Margins at the ends part nothing.
                if to - from >= least && from > 0 && to < side {
                    bands.push((from, to));
                }
                start = None;
            }
            _ => {}
        }
    }
    for n in (2..=MOST).rev() {
        let cell = f64::from(side) / f64::from(n);
        let places: Option<Vec<u32>> = (1..n)
            .map(|k| {
                let ideal = cell * f64::from(k);
                let off = |b: &(u32, u32)| {
                    let nearest = ideal.clamp(f64::from(b.0), f64::from(b.1));
                    (ideal - nearest).abs()
                };
                let best = bands.iter().min_by(|a, b| off(a).total_cmp(&off(b)))?;
                (off(best) <= TOLERANCE * cell).then_some((best.0 + best.1) / 2)
            })
            .collect();
        let Some(mut places) = places else { continue };
        places.insert(0, 0);
        places.push(side);
        let distinct = places.windows(2).all(|p| f64::from(p[1].saturating_sub(p[0])) > 0.6 * cell);
        if distinct {
            return places;
        }
    }
    vec![0, side]
}

/// Large separate pieces of ink, at least two, that do not overlap.
fn framed(ink: &[bool], w: u32, h: u32) -> Vec<PixelBox> {
    let large = |b: &PixelBox| 5 * b.width() >= w && 5 * b.height() >= h;
    let mut boxes: Vec<PixelBox> =
        regions::components(ink, w as usize, h as usize).into_iter().map(|c| c.bbox).filter(large).collect();
    boxes.sort_by_key(|b| (b.y1, b.x1));
    let overlap = |a: &PixelBox, b: &PixelBox| a.x1 < b.x2 && b.x1 < a.x2 && a.y1 < b.y2 && b.y1 < a.y2;
    let apart = boxes.iter().enumerate().all(|(i, a)| boxes[i + 1..].iter().all(|b| !overlap(a, b)));
    if boxes.len() >= 2 && apart { boxes } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_by_hand() {
        // Ink at 5..45 and 55..95 of 100: one band in the middle, its centre at 50.
        let ink: Vec<bool> = (0..100).map(|i| (5..45).contains(&i) || (55..95).contains(&i)).collect();
        assert_eq!(cuts(&ink), vec![0, 50, 100]);
        // A gap far from any even place is no cut of two; and no other number fits.
        let ink: Vec<bool> = (0..100).map(|i| !(8..12).contains(&i)).collect();
        assert_eq!(cuts(&ink), vec![0, 100]);
    }
}
