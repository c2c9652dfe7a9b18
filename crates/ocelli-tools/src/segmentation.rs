//! Segmentation of the whole picture by region merging.
//!
//! Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 59 (2004): neighbouring pixels are
//! joined in the order of their difference, and two regions merge where that difference is no more than the largest
//! inside either plus `k / size`. Deviations: differences are the largest over the channels in 0..=255, so that sorting is
//! counting; smoothing is a 3 x 3 box filter instead of a Gaussian of 0.8, to stay with integers; small regions
//! are not swallowed afterwards, since a chart's point is small. It takes some 35 bytes a pixel, so large pictures are
//! parted at a whole fraction of their size.

use image::RgbImage;

use crate::ToolError;
use crate::colors::apart;

/// Most pixels that are parted as they are.
const WHOLE: u64 = 4_000_000;

/// Regions of a picture, found at `1 / step` of its size.
pub(crate) struct Regions {
    labels: Vec<u32>,
    /// Side of the squares of pixels that are in one region together: 1 up to [`WHOLE`] pixels.
    pub(crate) step: u32,
    width: u32,
}

impl Regions {
    /// Parts a picture. `k` as in [`segment`]; it counts pixels, so it shrinks with the picture. Of each square one pixel is
    /// looked at, that of the point's own place in its square, so that the point's region is that of its own colour; means
    /// would make regions of their own along every edge.
    pub(crate) fn of(
        pixels: &RgbImage,
        point: (u32, u32),
        k: f64,
        check: &dyn Fn() -> Result<(), ToolError>,
    ) -> Result<Self, ToolError> {
        let (w, h) = pixels.dimensions();
        let fits = |step: u32| u64::from(w.div_ceil(step)) * u64::from(h.div_ceil(step)) <= WHOLE;
        let step = (1..).find(|step| fits(*step)).unwrap_or(u32::MAX);
        if step == 1 {
            return Ok(Self { labels: segment(pixels, k, check)?, step, width: w });
        }
        let small = sampled(pixels, step, (point.0 % step, point.1 % step));
        let labels = segment(&small, k / f64::from(step * step), check)?;
        Ok(Self { labels, step, width: small.width() })
    }

    /// Number of the region of a pixel.
    pub(crate) fn at(&self, x: u32, y: u32) -> u32 {
        self.labels[((y / self.step) * self.width + x / self.step) as usize]
    }
}

/// Every `step`-th pixel in both directions, from `first` on; in smaller squares at the right and lower edge, the last one.
fn sampled(pixels: &RgbImage, step: u32, first: (u32, u32)) -> RgbImage {
    let (w, h) = pixels.dimensions();
    RgbImage::from_fn(w.div_ceil(step), h.div_ceil(step), |x, y| {
        *pixels.get_pixel((x * step + first.0).min(w - 1), (y * step + first.1).min(h - 1))
    })
}

/// Number of the region of each pixel (any number, equal within a region).
fn segment(
    pixels: &RgbImage,
    k: f64,
    check: &dyn Fn() -> Result<(), ToolError>,
) -> Result<Vec<u32>, ToolError> {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let smooth = smoothed(pixels);
    let at = |i: usize| &smooth[3 * i..3 * i + 3];
    // The second pixel of edge `4 i + direction` of pixel i: to the right, below, below right, below left.
    let steps = [1, w, w + 1, w.wrapping_sub(1)];
    let has = |i: usize| {
        let (right, below, left) = (i % w + 1 < w, i / w + 1 < h, !i.is_multiple_of(w));
        [right, below, right && below, left && below]
    };
    let edges_of = |i: usize| {
        let there = has(i);
        (0..4).filter(move |d| there[*d]).map(move |d| (d, i + steps[d]))
    };
    // Counting sort of the edges by their difference: how many of each, then each in its place.
    let mut ends = [0usize; 257];
    for i in 0..w * h {
        edges_of(i).for_each(|(_, n)| ends[usize::from(apart(at(i), at(n))) + 1] += 1);
    }
    (0..256).for_each(|d| ends[d + 1] += ends[d]);
    let mut edges = vec![0u32; ends[256]];
    let mut next = ends;
    for i in 0..w * h {
        for (d, n) in edges_of(i) {
            let place = &mut next[usize::from(apart(at(i), at(n)))];
            edges[*place] = (4 * i + d) as u32;
            *place += 1;
        }
    }
    let mut forest = Forest::new(w * h);
    for difference in 0..256 {
        check()?;
        for edge in &edges[ends[difference]..ends[difference + 1]] {
            let i = (edge / 4) as usize;
            forest.join(*edge / 4, (i + steps[(edge % 4) as usize]) as u32, difference as f64, k);
        }
    }
    Ok((0..(w * h) as u32).map(|i| forest.root(i)).collect())
}

/// Mean over 3 x 3 pixels, where all nine are near in colour; edges stay sharp.
fn smoothed(pixels: &RgbImage) -> Vec<u8> {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let raw = pixels.as_raw();
    let mut out = raw.clone();
    for y in 1..h.saturating_sub(1) {
        for x in 1..w.saturating_sub(1) {
            let i = y * w + x;
            let mut sum = [0u32; 3];
            let mut near = true;
            for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                let n = (y + dy - 1) * w + x + dx - 1;
                near &= apart(&raw[3 * i..3 * i + 3], &raw[3 * n..3 * n + 3]) < 48;
                (0..3).for_each(|c| sum[c] += u32::from(raw[3 * n + c]));
            }
            if near {
                (0..3).for_each(|c| out[3 * i + c] = ((sum[c] + 4) / 9) as u8);
            }
        }
    }
    out
}

/// Disjoint sets with the size of each and the largest difference inside.
struct Forest {
    parent: Vec<u32>,
    size: Vec<u32>,
    inside: Vec<f32>,
}

impl Forest {
    fn new(n: usize) -> Self {
        Self { parent: (0..n as u32).collect(), size: vec![1; n], inside: vec![0.0; n] }
    }

    fn root(&mut self, mut i: u32) -> u32 {
        while self.parent[i as usize] != i {
            let above = self.parent[self.parent[i as usize] as usize];
            self.parent[i as usize] = above;
            i = above;
        }
        i
    }

    fn join(&mut self, a: u32, b: u32, difference: f64, k: f64) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let room = |r: u32| f64::from(self.inside[r as usize]) + k / f64::from(self.size[r as usize]);
        if difference > room(a).min(room(b)) {
            return;
        }
        let (large, small) = if self.size[a as usize] >= self.size[b as usize] { (a, b) } else { (b, a) };
        self.parent[small as usize] = large;
        self.size[large as usize] += self.size[small as usize];
        self.inside[large as usize] = difference as f32; // edges come in rising order
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn two_halves_are_two_regions() {
        let p = RgbImage::from_fn(20, 10, |x, _| Rgb(if x < 8 { [200, 30, 30] } else { [30, 30, 200] }));
        let labels = segment(&p, 300.0, &|| Ok(())).unwrap();
        assert!((0..200).all(|i| (labels[i] == labels[0]) == (i % 20 < 8)));
    }

    #[test]
    fn a_large_picture_is_parted_in_squares_of_pixels() {
        // 6 megapixels: squares of 2 pixels. The edge at 1,001 lies within one.
        let p =
            RgbImage::from_fn(3000, 2000, |x, _| Rgb(if x < 1001 { [200, 30, 30] } else { [30, 30, 200] }));
        let regions = Regions::of(&p, (10, 10), 300.0, &|| Ok(())).unwrap();
        assert_eq!(regions.step, 2);
        let left = regions.at(10, 10);
        assert!((0..999).step_by(7).all(|x| regions.at(x, 1999) == left));
        assert!((1003..3000).step_by(7).all(|x| regions.at(x, 5) == regions.at(2999, 1999)));
        assert_ne!(left, regions.at(2999, 1999));
        // A point on the edge is in the region of its own colour, to the left or to the right.
        for (x, in_left) in [(1000, true), (1001, false)] {
            let regions = Regions::of(&p, (x, 900), 300.0, &|| Ok(())).unwrap();
            assert_eq!(regions.at(x, 900) == regions.at(10, 10), in_left, "{x}");
        }
    }

    #[test]
    fn a_gentle_gradient_is_one_region() {
        let p = RgbImage::from_fn(60, 20, |x, _| Rgb([x as u8 * 2, 100, 100]));
        let labels = segment(&p, 300.0, &|| Ok(())).unwrap();
        assert!(labels.iter().all(|l| *l == labels[0]));
    }
}
