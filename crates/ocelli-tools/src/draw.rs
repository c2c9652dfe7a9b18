//! Marks on pictures, in whole pixels and solid colours: the same bytes on every machine.

use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PixelBox;

/// An RGB colour.
pub type Color = Rgb<u8>;

/// Colours that marks can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColorName {
    /// The default: seldom the colour of data, visible on white and on black.
    #[default]
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Orange.
    Orange,
    /// Magenta.
    Magenta,
    /// Cyan.
    Cyan,
    /// Black.
    Black,
    /// White.
    White,
}

impl ColorName {
    /// Its value.
    pub fn rgb(self) -> Color {
        Rgb(match self {
            Self::Red => [230, 25, 75],
            Self::Green => [0, 140, 60],
            Self::Blue => [0, 90, 220],
            Self::Orange => [245, 130, 49],
            Self::Magenta => [220, 30, 220],
            Self::Cyan => [0, 180, 210],
            Self::Black => [0, 0, 0],
            Self::White => [255, 255, 255],
        })
    }
}

/// Line width that is visible at the picture's size and hides little: 1 pixel per 400 of the longer side, at least 1.
pub(crate) fn line_width(width: u32, height: u32) -> u32 {
    (width.max(height) / 400).clamp(1, 8)
}

/// Fills a rectangle.
pub(crate) fn fill(pixels: &mut RgbImage, area: PixelBox, color: Color) {
    let (w, h) = pixels.dimensions();
    for y in area.y1..area.y2.min(h) {
        for x in area.x1..area.x2.min(w) {
            pixels.put_pixel(x, y, color);
        }
    }
}

/// Dashes along a line: 6 widths drawn, 4 left open, so that what lies below stays readable.
fn dashes(from: u32, to: u32, width: u32) -> impl Iterator<Item = (u32, u32)> {
    let (on, period) = (6 * width, 10 * width);
    (from..to).step_by(period as usize).map(move |start| (start, (start + on).min(to)))
}

/// Dashed line of the given width across the whole picture, centred on row `y`.
pub(crate) fn horizontal_line(pixels: &mut RgbImage, y: u32, width: u32, color: Color) {
    let (w, h) = pixels.dimensions();
    let y1 = y.saturating_sub((width - 1) / 2);
    for (x1, x2) in dashes(0, w, width) {
        fill(pixels, PixelBox { x1, y1, x2, y2: (y1 + width).min(h) }, color);
    }
}

/// Dashed line of the given width across the whole picture, centred on column `x`.
pub(crate) fn vertical_line(pixels: &mut RgbImage, x: u32, width: u32, color: Color) {
    let (w, h) = pixels.dimensions();
    let x1 = x.saturating_sub((width - 1) / 2);
    for (y1, y2) in dashes(0, h, width) {
        fill(pixels, PixelBox { x1, y1, x2: (x1 + width).min(w), y2 }, color);
    }
}

/// Outline of a rectangle, drawn just inside it.
pub(crate) fn outline(pixels: &mut RgbImage, area: PixelBox, width: u32, color: Color) {
    let PixelBox { x1, y1, x2, y2 } = area;
    let t = width.min(area.width()).min(area.height());
    for side in [
        PixelBox { x1, y1, x2, y2: y1 + t },
        PixelBox { x1, y1: y2 - t, x2, y2 },
        PixelBox { x1, y1, x2: x1 + t, y2 },
        PixelBox { x1: x2 - t, y1, x2, y2 },
    ] {
        fill(pixels, side, color);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lies_where_it_should() {
        let mut p = RgbImage::new(20, 5);
        horizontal_line(&mut p, 2, 1, ColorName::Red.rgb());
        let row = |y| (0..20).filter(|&x| p.get_pixel(x, y).0 != [0; 3]).collect::<Vec<u32>>();
        assert_eq!(row(2), vec![0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]);
        assert!(row(1).is_empty() && row(3).is_empty());
    }

    #[test]
    fn an_outline_stays_inside() {
        let mut p = RgbImage::new(6, 6);
        outline(&mut p, PixelBox { x1: 1, y1: 1, x2: 5, y2: 4 }, 1, ColorName::Red.rgb());
        let red = (0..36).filter(|i| p.get_pixel(i % 6, i / 6).0 != [0; 3]).count();
        assert_eq!(red, 4 * 3 - 2); // a 4 x 3 rectangle whose inside is 2 x 1
    }
}
