//! Segmentation of the whole picture by region merging.
//!
//! Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 59 (2004): neighbouring pixels are
//! joined in the order of their difference, and two regions merge where that difference is no more than the largest
//! inside either plus `k / size`. Deviations: differences are the largest over the channels in 0..=255, so that sorting is
//! counting; smoothing is a 3 x 3 box filter instead of a Gaussian of 0.8, to stay with integers; small regions
//! are not swallowed afterwards, since a chart's point is small.

use image::RgbImage;

use crate::ToolError;
use crate::colors::apart;

/// Number of the region of each pixel (any number, equal within a region).
pub(crate) fn segment(
    pixels: &RgbImage,
    k: f64,
    check: &dyn Fn() -> Result<(), ToolError>,
) -> Result<Vec<u32>, ToolError> {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let smooth = smoothed(pixels);
    let at = |i: usize| &smooth[3 * i..3 * i + 3];
    let neighbours = |i: usize| {
        let (x, y) = (i % w, i / w);
        let right = (x + 1 < w).then_some(i + 1);
        let below = (y + 1 < h).then_some(i + w);
        let below_right = (x + 1 < w && y + 1 < h).then_some(i + w + 1);
        let below_left = (x > 0 && y + 1 < h).then(|| i + w - 1);
        [right, below, below_right, below_left].into_iter().flatten()
    };
    // Counting sort of the edges by their difference.
    let mut edges: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 256];
    for i in 0..w * h {
        for n in neighbours(i) {
            edges[usize::from(apart(at(i), at(n)))].push((i as u32, n as u32));
        }
    }
    let mut forest = Forest::new(w * h);
    for (difference, edges) in edges.into_iter().enumerate() {
        check()?;
        for (a, b) in edges {
            forest.join(a, b, difference as f64, k);
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
    fn a_gentle_gradient_is_one_region() {
        let p = RgbImage::from_fn(60, 20, |x, _| Rgb([x as u8 * 2, 100, 100]));
        let labels = segment(&p, 300.0, &|| Ok(())).unwrap();
        assert!(labels.iter().all(|l| *l == labels[0]));
    }
}
