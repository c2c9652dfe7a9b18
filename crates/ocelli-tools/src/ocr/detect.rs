//! The detector: a probability of text per pixel, cut into components, each made a rectangle and widened.

use image::{RgbImage, imageops};
use rten::RunOptions;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use super::{Ocr, broken};
use crate::{Fatal, regions};

/// A rectangle that may lie at an angle: centre, half sides along its own axes, direction of its long text axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Region {
    pub(crate) centre: (f64, f64),
    /// Half of the extent along `axis` and across it.
    pub(crate) half: (f64, f64),
    /// Unit vector along the rectangle's width.
    pub(crate) axis: (f64, f64),
}

impl Region {
    /// From an upright box.
    pub(crate) fn upright(x1: f64, y1: f64, x2: f64, y2: f64) -> Self {
        Self {
            centre: ((x1 + x2) / 2.0, (y1 + y2) / 2.0),
            half: ((x2 - x1) / 2.0, (y2 - y1) / 2.0),
            axis: (1.0, 0.0),
        }
    }

    pub(crate) fn is_upright(&self) -> bool {
        self.axis == (1.0, 0.0)
    }

    /// The upright box around it.
    pub(crate) fn bounds(&self) -> (f64, f64, f64, f64) {
        let (ax, ay) = (self.axis.0.abs(), self.axis.1.abs());
        let (hx, hy) = (self.half.0 * ax + self.half.1 * ay, self.half.0 * ay + self.half.1 * ax);
        (self.centre.0 - hx, self.centre.1 - hy, self.centre.0 + hx, self.centre.1 + hy)
    }
}

/// Longest side given to the network, in pixels.
const LONGEST: f64 = 1280.0;
/// Pictures are enlarged up to this factor while they stay below [`ENLARGE_TO`].
const ENLARGE: f64 = 2.0;
const ENLARGE_TO: f64 = 960.0;
/// A pixel of more probability is text. Values of the package that publishes the weights.
const PIXEL: f32 = 0.2;
/// A component of less mean probability is dropped.
const COMPONENT: f64 = 0.4;
/// Widening: area x ratio / circumference on every side.
const UNCLIP: f64 = 1.4;
/// Most components that are looked at, largest first.
const MOST: usize = 1000;

impl Ocr {
    pub(super) fn detect(&self, pixels: &RgbImage) -> Result<Vec<Region>, Fatal> {
        let (w, h) = pixels.dimensions();
        let longest = f64::from(w.max(h));
        let scale = match longest > LONGEST {
            true => LONGEST / longest,
            false => (ENLARGE_TO / longest).clamp(1.0, ENLARGE),
        };
        let round = |v: u32| ((f64::from(v) * scale / 32.0).round() as u32).max(1) * 32;
        let (dw, dh) = (round(w), round(h));
        let input = network_input(pixels, dw, dh);
        let options = RunOptions::default().with_thread_pool(Some(super::recognise::own_pool()));
        let output = self.detector.run_one(input.into(), Some(options)).map_err(broken)?;
        let map: NdTensor<f32, 4> =
            output.try_into().map_err(|_| broken("the detector's output is not [1, 1, H, W]"))?;
        let [_, _, mh, mw] = map.shape();
        let probability = map.to_vec();
        if probability.len() != mw * mh || mw == 0 || mh == 0 {
            return Err(broken("the detector's output is not [1, 1, H, W]"));
        }
        let back = (f64::from(w) / mw as f64, f64::from(h) / mh as f64);
        let text: Vec<bool> = probability.iter().map(|&p| p > PIXEL).collect();
        let mut components = regions::components(&text, mw, mh);
        components.sort_by_key(|c| std::cmp::Reverse(c.pixels.len()));
        components.truncate(MOST);
        let mut found = Vec::new();
        for component in components {
            let mean = component.pixels.iter().map(|&i| f64::from(probability[i])).sum::<f64>()
                / component.pixels.len() as f64;
            let points: Vec<(f64, f64)> =
                component.pixels.iter().map(|&i| ((i % mw) as f64 + 0.5, (i / mw) as f64 + 0.5)).collect();
            let Some(tight) = tight_rectangle(&points) else { continue };
            // Half a pixel on every side turns pixel centres into pixel areas.
            let (a, b) = (tight.half.0 + 0.5, tight.half.1 + 0.5);
            if mean < COMPONENT || a.min(b) < 1.5 {
                continue;
            }
            let widen = (2.0 * a * 2.0 * b) * UNCLIP / (4.0 * (a + b));
            let wide = Region { half: (a + widen, b + widen), ..tight };
            found.push(scaled(wide, back));
        }
        Ok(found)
    }
}

fn scaled(r: Region, (sx, sy): (f64, f64)) -> Region {
    if r.is_upright() {
        let (x1, y1, x2, y2) = r.bounds();
        return Region::upright(x1 * sx, y1 * sy, x2 * sx, y2 * sy);
    }
    // The two scales differ only by rounding to multiples of 32.
    let s = (sx * sy).sqrt();
    Region { centre: (r.centre.0 * sx, r.centre.1 * sy), half: (r.half.0 * s, r.half.1 * s), axis: r.axis }
}

/// `[1, 3, H, W]`, channels in the order blue, green, red, as the network was trained.
fn network_input(pixels: &RgbImage, w: u32, h: u32) -> NdTensor<f32, 4> {
    let resized = if pixels.dimensions() == (w, h) {
        pixels.clone()
    } else {
        imageops::resize(pixels, w, h, imageops::FilterType::Triangle)
    };
    const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
    let raw = resized.as_raw();
    let plane = (w * h) as usize;
    let mut data = Vec::with_capacity(3 * plane);
    for c in 0..3 {
        data.extend(raw.chunks_exact(3).map(|p| (f32::from(p[2 - c]) / 255.0 - MEAN[c]) / DEVIATION[c]));
    }
    NdTensor::from_data([1, 3, h as usize, w as usize], data)
}

/// Rectangle of least area around points (rotating calipers on the convex hull), upright where it nearly is.
fn tight_rectangle(points: &[(f64, f64)]) -> Option<Region> {
    let bounds = |points: &[(f64, f64)], (ux, uy): (f64, f64)| {
        let mut least = (f64::MAX, f64::MAX);
        let mut most = (f64::MIN, f64::MIN);
        for &(x, y) in points {
            let (u, v) = (x * ux + y * uy, y * ux - x * uy);
            least = (least.0.min(u), least.1.min(v));
            most = (most.0.max(u), most.1.max(v));
        }
        (least, most)
    };
    let region = |points: &[(f64, f64)], axis: (f64, f64)| {
        let (least, most) = bounds(points, axis);
        let (u, v) = ((least.0 + most.0) / 2.0, (least.1 + most.1) / 2.0);
        Region {
            centre: (u * axis.0 - v * axis.1, u * axis.1 + v * axis.0),
            half: ((most.0 - least.0) / 2.0, (most.1 - least.1) / 2.0),
            axis,
        }
    };
    let upright = region(points, (1.0, 0.0));
    if points.is_empty() {
        return None;
    }
    let hull = convex_hull(points);
    if hull.len() < 4 {
        return Some(upright);
    }
    let mut best = upright;
    for (a, b) in hull.iter().zip(hull.iter().cycle().skip(1)) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = (dx * dx + dy * dy).sqrt();
        if length < 1e-9 {
            continue;
        }
        // The same rectangle has four axes; the one that points mostly to the right is taken.
        let mut axis = (dx / length, dy / length);
        while !(axis.0 > 0.0 && axis.1.abs() <= axis.0 + 1e-12) {
            axis = (-axis.1, axis.0);
        }
        let candidate = region(&hull, axis);
        if candidate.half.0 * candidate.half.1 < best.half.0 * best.half.1 - 1e-9 {
            best = candidate;
        }
    }
    // A thin line at 4 degrees or less is upright as far as reading goes; so is a compact blob at any angle.
    let compact = best.half.0.max(best.half.1) < 2.5 * best.half.0.min(best.half.1);
    Some(if best.axis.1.abs() < 0.07 || compact { upright } else { best })
}

/// Convex hull, counter-clockwise (Andrew's monotone chain).
fn convex_hull(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.dedup();
    let turns_right = |chain: &[(f64, f64)], p: (f64, f64)| match chain {
        [.., a, b] => (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0) <= 0.0,
        _ => false,
    };
    let half = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let mut chain: Vec<(f64, f64)> = Vec::new();
        for p in points {
            while turns_right(&chain, p) {
                chain.pop();
            }
            chain.push(p);
        }
        chain.pop();
        chain
    };
    let mut hull = half(&mut sorted.iter().copied());
    hull.extend(half(&mut sorted.iter().rev().copied()));
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slanted_bar_gets_a_slanted_rectangle() {
        // Points along y = x / 2 with a little thickness: direction (2, 1) / sqrt 5.
        let points: Vec<(f64, f64)> = (0..200)
            .flat_map(|i| [(f64::from(i), f64::from(i) / 2.0), (f64::from(i), f64::from(i) / 2.0 + 4.0)])
            .collect();
        let r = tight_rectangle(&points).unwrap();
        let expected = (2.0 / 5f64.sqrt(), 1.0 / 5f64.sqrt());
        assert!((r.axis.0 - expected.0).abs() < 1e-6 && (r.axis.1 - expected.1).abs() < 1e-6, "{r:?}");
        // Across: 4 * cos(angle) / 2.
        assert!((r.half.1 - 2.0 * expected.0).abs() < 1e-6, "{r:?}");
    }

    #[test]
    fn an_upright_box_stays_upright() {
        let points: Vec<(f64, f64)> =
            (0..50).flat_map(|x| (0..6).map(move |y| (f64::from(x), f64::from(y)))).collect();
        let r = tight_rectangle(&points).unwrap();
        assert_eq!(r, Region::upright(0.0, 0.0, 49.0, 5.0));
    }
}
