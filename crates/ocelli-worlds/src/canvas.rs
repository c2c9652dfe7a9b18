//! A picture that is drawn the same to the byte on every machine: polygons in 1/256-pixel integer coordinates with
//! four scan lines per pixel row, and text from the embedded font. Where real numbers enter they use only `+ - * /`
//! and `sqrt`, which IEEE 754 rounds correctly; sine and cosine are a polynomial of our own for the same reason.

use crate::font;
use crate::truth::Rect;

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// White.
pub const WHITE: Rgb = [255, 255, 255];
/// The near-black of text and axes.
pub const INK: Rgb = [30, 30, 34];
/// Light grey of grid lines.
pub const GRID: Rgb = [214, 214, 218];

/// Sine and cosine of `turns` full turns, to 1e-9, from Taylor polynomials after reduction to an eighth of a turn.
pub fn sin_cos_turns(turns: f64) -> (f64, f64) {
    let t = turns - turns.floor();
    let octant = (t * 8.0).floor();
    let odd = octant as i64 % 2 == 1;
    // Angle inside the octant, mirrored in odd octants so that it stays in 0..=pi/4.
    let frac = if odd { (octant + 1.0) / 8.0 - t } else { t - octant / 8.0 };
    let x = frac * std::f64::consts::TAU;
    let x2 = x * x;
    let s =
        x * (1.0 - x2 / 6.0 * (1.0 - x2 / 20.0 * (1.0 - x2 / 42.0 * (1.0 - x2 / 72.0 * (1.0 - x2 / 110.0)))));
    let c = 1.0 - x2 / 2.0 * (1.0 - x2 / 12.0 * (1.0 - x2 / 30.0 * (1.0 - x2 / 56.0 * (1.0 - x2 / 90.0))));
    match octant as i64 {
        0 => (s, c),
        1 => (c, s),
        2 => (c, -s),
        3 => (s, -c),
        4 => (-s, -c),
        5 => (-c, -s),
        6 => (-c, s),
        _ => (-s, c),
    }
}

/// Where text is anchored horizontally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The point is the left edge.
    Left,
    /// The point is the middle.
    Middle,
    /// The point is the right edge.
    Right,
}

/// An RGB picture of `width` x `height` pixels, rows from the top.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub pixels: Vec<u8>,
}

const ONE: i64 = 256;

fn fixed(v: f64) -> i64 {
    (v * ONE as f64).round() as i64
}

impl Canvas {
    /// A picture of one colour.
    pub fn new(width: u32, height: u32, colour: Rgb) -> Self {
        Self { width, height, pixels: colour.repeat((width * height) as usize) }
    }

    /// Colour of a pixel, if it lies inside.
    pub fn get(&self, x: i64, y: i64) -> Option<Rgb> {
        let i = self.offset(x, y)?;
        Some([self.pixels[i], self.pixels[i + 1], self.pixels[i + 2]])
    }

    fn offset(&self, x: i64, y: i64) -> Option<usize> {
        let inside = x >= 0 && y >= 0 && x < i64::from(self.width) && y < i64::from(self.height);
        inside.then(|| (y as usize * self.width as usize + x as usize) * 3)
    }

    /// Mixes `colour` into a pixel, `cover` of 255 parts.
    fn blend(&mut self, x: i64, y: i64, colour: Rgb, cover: u32) {
        if let Some(i) = self.offset(x, y) {
            for (p, c) in self.pixels[i..i + 3].iter_mut().zip(colour) {
                *p = ((u32::from(*p) * (255 - cover) + u32::from(c) * cover + 127) / 255) as u8;
            }
        }
    }

    /// Fills a polygon (even-odd rule), anti-aliased.
    pub fn polygon(&mut self, points: &[(f64, f64)], colour: Rgb) {
        let pts: Vec<(i64, i64)> = points.iter().map(|&(x, y)| (fixed(x), fixed(y))).collect();
        let (Some(top), Some(bottom)) = (pts.iter().map(|p| p.1).min(), pts.iter().map(|p| p.1).max()) else {
            return;
        };
        let rows = top.div_euclid(ONE).max(0)..(bottom.div_euclid(ONE) + 1).min(i64::from(self.height));
        let mut cover = vec![0i64; self.width as usize];
        let mut xs = Vec::new();
        for row in rows {
            cover.fill(0);
            for sub in 0..4 {
                let y = row * ONE + ONE / 8 + sub * (ONE / 4);
                xs.clear();
                for (i, &(x0, y0)) in pts.iter().enumerate() {
                    let (x1, y1) = pts[(i + 1) % pts.len()];
                    if (y0 <= y) != (y1 <= y) {
                        xs.push(x0 + (x1 - x0) * (y - y0) / (y1 - y0));
                    }
                }
                xs.sort_unstable();
                for pair in xs.chunks_exact(2) {
                    self.add_span(&mut cover, pair[0], pair[1]);
                }
            }
            for x in 0..self.width as usize {
                // Four sub-lines of at most 256 each make 1024.
                let c = (cover[x] * 255 / (4 * ONE)).clamp(0, 255) as u32;
                if c > 0 {
                    self.blend(x as i64, row, colour, c);
                }
            }
        }
    }

    /// Adds the part of each pixel that `from..to` (fixed point) covers on one sub-line.
    fn add_span(&self, cover: &mut [i64], from: i64, to: i64) {
        let limit = i64::from(self.width) * ONE;
        let (from, to) = (from.clamp(0, limit), to.clamp(0, limit));
        let mut x = from;
        while x < to {
            let pixel = x / ONE;
            let end = ((pixel + 1) * ONE).min(to);
            cover[pixel as usize] += end - x;
            x = end;
        }
    }

    /// Fills an axis-parallel rectangle.
    pub fn rect(&mut self, r: Rect, colour: Rgb) {
        self.polygon(&[(r.x0, r.y0), (r.x1, r.y0), (r.x1, r.y1), (r.x0, r.y1)], colour);
    }

    /// A straight line of the given thickness with butt ends.
    pub fn line(&mut self, a: (f64, f64), b: (f64, f64), thickness: f64, colour: Rgb) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let len = (dx * dx + dy * dy).sqrt();
        if len == 0.0 {
            return;
        }
        let (nx, ny) = (-dy / len * thickness / 2.0, dx / len * thickness / 2.0);
        let quad = [(a.0 + nx, a.1 + ny), (b.0 + nx, b.1 + ny), (b.0 - nx, b.1 - ny), (a.0 - nx, a.1 - ny)];
        self.polygon(&quad, colour);
    }

    /// A line through all points, with round joints.
    pub fn polyline(&mut self, points: &[(f64, f64)], thickness: f64, colour: Rgb) {
        for pair in points.windows(2) {
            self.line(pair[0], pair[1], thickness, colour);
        }
        if thickness > 1.5 {
            for &p in points {
                self.disc(p, thickness / 2.0, colour);
            }
        }
    }

    /// The outline of a closed polygon.
    pub fn outline(&mut self, points: &[(f64, f64)], thickness: f64, colour: Rgb) {
        let mut closed = points.to_vec();
        closed.extend(points.first().copied());
        self.polyline(&closed, thickness, colour);
    }

    /// A filled circle.
    pub fn disc(&mut self, centre: (f64, f64), radius: f64, colour: Rgb) {
        self.polygon(&regular(centre, radius, 40, 0.0), colour);
    }

    /// Writes text whose vertical middle (of digits and capitals) lies on `at.1`; returns the box of its ink.
    pub fn text(&mut self, text: &str, at: (f64, f64), px: f64, anchor: Anchor, colour: Rgb) -> Rect {
        let mask = font::mask(text, px);
        let width = mask.width as f64;
        let left = match anchor {
            Anchor::Left => at.0,
            Anchor::Middle => at.0 - width / 2.0,
            Anchor::Right => at.0 - width,
        };
        let (left, top) = (left.round() as i64, (at.1 - mask.middle).round() as i64);
        self.stamp(&mask, left, top, colour)
    }

    /// Writes text from bottom to top, centred on `at`; returns the box of its ink.
    pub fn text_upwards(&mut self, text: &str, at: (f64, f64), px: f64, colour: Rgb) -> Rect {
        let mask = font::mask(text, px).turned_left();
        let (left, top) = (at.0 - mask.width as f64 / 2.0, at.1 - mask.height as f64 / 2.0);
        self.stamp(&mask, left.round() as i64, top.round() as i64, colour)
    }

    fn stamp(&mut self, mask: &font::Mask, left: i64, top: i64, colour: Rgb) -> Rect {
        for y in 0..mask.height {
            for x in 0..mask.width {
                let cover = u32::from(mask.cover[y * mask.width + x]);
                if cover > 0 {
                    self.blend(left + x as i64, top + y as i64, colour, cover);
                }
            }
        }
        let ink = mask.ink();
        let (l, t) = (left as f64, top as f64);
        Rect { x0: l + ink.x0, y0: t + ink.y0, x1: l + ink.x1, y1: t + ink.y1 }
    }

    /// Copies another picture in, its top left corner at `(left, top)`.
    pub fn paste(&mut self, other: &Canvas, left: u32, top: u32) {
        for y in 0..i64::from(other.height) {
            for x in 0..i64::from(other.width) {
                if let Some(c) = other.get(x, y) {
                    self.blend(x + i64::from(left), y + i64::from(top), c, 255);
                }
            }
        }
    }
}

/// Corners of a regular polygon; `turn` of 0 puts the first corner at the top.
pub fn regular(centre: (f64, f64), radius: f64, corners: u32, turn: f64) -> Vec<(f64, f64)> {
    (0..corners)
        .map(|i| {
            let (s, c) = sin_cos_turns(f64::from(i) / f64::from(corners) + turn);
            (centre.0 + radius * s, centre.1 - radius * c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_agrees_with_the_library() {
        for i in -1000..1000 {
            let t = f64::from(i) / 333.0;
            let (s, c) = sin_cos_turns(t);
            let (es, ec) = (t * std::f64::consts::TAU).sin_cos();
            assert!((s - es).abs() < 1e-9 && (c - ec).abs() < 1e-9, "{t}: {s} {es} {c} {ec}");
        }
    }

    #[test]
    fn coverage_is_area() {
        // A rectangle from 1.5 to 3.25: half of pixel 1, all of 2, a quarter of 3, in both directions.
        let mut canvas = Canvas::new(5, 5, [0; 3]);
        canvas.rect(Rect { x0: 1.5, y0: 1.5, x1: 3.25, y1: 3.25 }, [255; 3]);
        let at = |x, y| canvas.get(x, y).unwrap()[0];
        assert_eq!((at(0, 2), at(1, 2), at(2, 2), at(3, 2), at(4, 2)), (0, 127, 255, 63, 0));
        assert_eq!((at(2, 1), at(2, 3)), (127, 63));
    }

    #[test]
    fn nothing_is_drawn_outside() {
        let mut canvas = Canvas::new(8, 8, WHITE);
        canvas.disc((-3.0, 20.0), 50.0, [1, 2, 3]);
        canvas.line((-100.0, -100.0), (100.0, 90.0), 3.0, INK);
        canvas.text("overflowing text", (4.0, 4.0), 12.0, Anchor::Middle, INK);
        assert_eq!(canvas.pixels.len(), 8 * 8 * 3);
    }
}
