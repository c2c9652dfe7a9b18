//! Text as coverage masks, from DejaVu Sans reduced to ASCII and a few signs (`assets/`, with its licence).

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};

use crate::truth::Rect;

static FONT_BYTES: &[u8] = include_bytes!("../assets/DejaVuSans-ascii.ttf");

/// Coverage of a line of text, 0..=255 per pixel, rows from the top.
pub(crate) struct Mask {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) cover: Vec<u8>,
    /// Row (from the top) of the middle of digits and capitals.
    pub(crate) middle: f64,
}

impl Mask {
    /// Turned by a quarter to the left, so that the text reads upwards.
    pub(crate) fn turned_left(&self) -> Mask {
        let (w, h) = (self.height, self.width);
        let cover =
            (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).map(|(x, y)| self.cover[x * h + (h - 1 - y)]);
        Mask { width: w, height: h, cover: cover.collect(), middle: h as f64 / 2.0 }
    }

    /// Smallest box that holds every visible pixel, relative to the mask; empty at the origin where there is none.
    pub(crate) fn ink(&self) -> Rect {
        let mut r = Rect { x0: f64::MAX, y0: f64::MAX, x1: f64::MIN, y1: f64::MIN };
        for (i, _) in self.cover.iter().enumerate().filter(|(_, c)| **c > 40) {
            let (x, y) = ((i % self.width) as f64, (i / self.width) as f64);
            r = Rect { x0: r.x0.min(x), y0: r.y0.min(y), x1: r.x1.max(x + 1.0), y1: r.y1.max(y + 1.0) };
        }
        if r.x1 > r.x0 { r } else { Rect::default() }
    }
}

/// Width in pixels of a line of text.
pub(crate) fn width(text: &str, px: f64) -> f64 {
    mask(text, px).width as f64
}

/// Draws one line of text; `px` is the height of a line. Characters outside the subset become the font's box.
pub(crate) fn mask(text: &str, px: f64) -> Mask {
    // The bytes are part of the program and a test loads them, so there is no failure to report at run time.
    let Ok(font) = FontRef::try_from_slice(FONT_BYTES) else {
        return Mask { width: 0, height: 0, cover: Vec::new(), middle: 0.0 };
    };
    let scale = PxScale::from(px as f32);
    let scaled = font.as_scaled(scale);
    let advance: f32 = text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum();
    let (width, height) = (advance.ceil() as usize, scaled.height().ceil() as usize);
    let mut cover = vec![0u8; width * height];
    let mut x = 0.0f32;
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        let glyph = id.with_scale_and_position(scale, point(x, scaled.ascent()));
        if let Some(outline) = font.outline_glyph(glyph) {
            let bounds = outline.px_bounds();
            outline.draw(|gx, gy, c| {
                let (px, py) = (bounds.min.x as i64 + i64::from(gx), bounds.min.y as i64 + i64::from(gy));
                if px >= 0 && py >= 0 && (px as usize) < width && (py as usize) < height {
                    let cell = &mut cover[py as usize * width + px as usize];
                    *cell = cell.saturating_add((c * 255.0 + 0.5) as u8);
                }
            });
        }
        x += scaled.h_advance(id);
    }
    // Capitals of DejaVu Sans are 0.729 em high; ab_glyph's scale is ascent - descent = 1.164 em.
    let capital = px * 0.729 / 1.164;
    Mask { width, height, cover, middle: f64::from(scaled.ascent()) - capital / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_holds_what_worlds_write() {
        let font = FontRef::try_from_slice(FONT_BYTES).unwrap();
        let used = (0x20..0x7f).filter_map(char::from_u32).chain("°²×€−".chars());
        let missing: Vec<char> = used.filter(|&c| font.glyph_id(c).0 == 0).collect();
        assert_eq!(missing, Vec::<char>::new());
    }

    #[test]
    fn digits_are_centred_on_the_middle() {
        let m = mask("0", 40.0);
        let ink = m.ink();
        assert!(((ink.y0 + ink.y1) / 2.0 - m.middle).abs() <= 1.0, "{ink:?} {}", m.middle);
        let t = m.turned_left();
        assert_eq!((t.width, t.height), (m.height, m.width));
        assert_eq!(t.cover.iter().filter(|c| **c > 0).count(), m.cover.iter().filter(|c| **c > 0).count());
    }
}
