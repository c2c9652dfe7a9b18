//! Names of colours, and areas of one colour.

use image::RgbImage;

use crate::regions::{self, Component};

/// Colours that have a name, with several shades where the name is wide.
const NAMED: [(&str, [u8; 3]); 32] = [
    ("red", [214, 39, 40]),
    ("red", [255, 0, 0]),
    ("red", [150, 20, 20]),
    ("red", [234, 153, 153]),
    ("blue", [31, 105, 190]),
    ("blue", [0, 0, 255]),
    ("blue", [20, 40, 120]),
    ("blue", [110, 170, 230]),
    ("blue", [159, 197, 232]),
    ("green", [44, 150, 60]),
    ("green", [0, 255, 0]),
    ("green", [0, 100, 0]),
    ("green", [140, 200, 130]),
    ("green", [182, 215, 168]),
    ("orange", [255, 140, 20]),
    ("orange", [249, 203, 156]),
    ("purple", [140, 80, 190]),
    ("purple", [128, 0, 128]),
    ("purple", [180, 167, 214]),
    ("brown", [130, 82, 60]),
    ("pink", [236, 130, 190]),
    ("pink", [255, 192, 203]),
    ("gray", [125, 125, 130]),
    ("gray", [160, 160, 160]),
    ("gray", [190, 190, 190]),
    ("yellow", [250, 220, 40]),
    ("yellow", [255, 229, 153]),
    ("cyan", [23, 190, 207]),
    ("magenta", [230, 30, 230]),
    ("black", [10, 10, 10]),
    ("white", [250, 250, 250]),
    ("olive", [130, 130, 20]),
];

/// The word for a colour, with both spellings of grey.
pub(crate) fn canonical(word: &str) -> Option<&'static str> {
    let word = match word {
        "grey" => "gray",
        "violet" => "purple",
        other => other,
    };
    NAMED.iter().map(|(name, _)| *name).find(|name| *name == word)
}

/// All names once.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
    names.dedup(); // shades of one name stand together
    names
}

/// The nearest named colour.
pub(crate) fn name([r, g, b]: [u8; 3]) -> &'static str {
    let distance = |c: &[u8; 3]| {
        // Weighted after the "redmean" approximation to perceived difference.
        let mean = (i32::from(r) + i32::from(c[0])) / 2;
        let [dr, dg, db] =
            [i32::from(r) - i32::from(c[0]), i32::from(g) - i32::from(c[1]), i32::from(b) - i32::from(c[2])];
        (((512 + mean) * dr * dr) >> 8) + 4 * dg * dg + (((767 - mean) * db * db) >> 8)
    };
    NAMED.iter().min_by_key(|(_, c)| distance(c)).map_or("black", |(n, _)| n)
}

/// Largest difference of two colours over the channels.
pub(crate) fn apart(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0)
}

/// Areas of nearly one colour that differ from the ground, largest `most` of at least `least` pixels, in scan order.
pub(crate) fn areas(pixels: &RgbImage, least: usize, most: usize) -> Vec<Component> {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let raw = pixels.as_raw();
    let at = |i: usize| &raw[3 * i..3 * i + 3];
    let ground = ground(pixels);
    let mut found = regions::label(w, h, |i| apart(at(i), &ground) > 40, |a, b| apart(at(a), at(b)) <= 12);
    found.retain(|c| c.pixels.len() >= least);
    found.sort_by_key(|c| std::cmp::Reverse(c.pixels.len()));
    found.truncate(most);
    found.sort_by_key(|c| c.pixels[0]);
    found
}

/// Thin areas of fewer pixels are taken for parts of letters.
const STROKE: usize = 40;

/// Areas without the seams of smooth drawing: where a shape meets the ground, pixels of mixed colours form thin areas of
/// their own. Such an area has no pixel whose eight neighbours all belong to it, and touches one that has. Thin areas of
/// few pixels are strokes of letters, and are left out as well.
pub(crate) fn without_fringes(areas: Vec<Component>, width: usize, height: usize) -> Vec<Component> {
    let mut owner = vec![u32::MAX; width * height];
    for (k, area) in areas.iter().enumerate() {
        area.pixels.iter().for_each(|&i| owner[i] = k as u32);
    }
    let around = |i: usize| {
        let (x, y) = (i % width, i / width);
        let columns = x.saturating_sub(1)..(x + 2).min(width);
        (y.saturating_sub(1)..(y + 2).min(height))
            .flat_map(move |ny| columns.clone().map(move |nx| ny * width + nx))
    };
    let inner = |k: u32, i: usize| around(i).filter(|&n| owner[n] == k).count() == 9;
    let solid: Vec<bool> =
        areas.iter().enumerate().map(|(k, area)| area.pixels.iter().any(|&i| inner(k as u32, i))).collect();
    let touches_solid = |k: usize, area: &Component| {
        area.pixels.iter().any(|&i| {
            around(i).any(|n| owner[n] != k as u32 && solid.get(owner[n] as usize).is_some_and(|s| *s))
        })
    };
    let fringe: Vec<bool> = areas
        .iter()
        .enumerate()
        .map(|(k, a)| !solid[k] && (a.pixels.len() < STROKE || touches_solid(k, a)))
        .collect();
    areas.into_iter().zip(fringe).filter(|(_, fringe)| !fringe).map(|(area, _)| area).collect()
}

/// The colour behind everything else: that of the border of the picture where one colour makes up most of it, since a sector
/// of a pie can be larger than what is left of the paper. Otherwise, and where the commonest colour fills a rectangle
/// of half the picture (the inside of a chart with a margin of another colour), the commonest.
pub(crate) fn ground(pixels: &RgbImage) -> [u8; 3] {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let raw = pixels.as_raw();
    // Wide enough to see past a frame of a pixel.
    let band = (w.min(h) / 32).max(2);
    let edge = |i: usize| {
        let (x, y) = (i % w, i / w);
        x < band || y < band || x + band >= w || y + band >= h
    };
    let (mut all, mut border) = (vec![0u32; BINS], vec![0u32; BINS]);
    for (y, row) in raw.chunks_exact((3 * w).max(1)).enumerate() {
        for (x, p) in row.chunks_exact(3).enumerate() {
            all[bin(p)] += 1;
            border[bin(p)] += u32::from(edge(y * w + x));
        }
    }
    let most =
        |counts: &[u32]| counts.iter().enumerate().max_by_key(|(i, n)| (**n, *i)).map_or(0, |(i, _)| i);
    let (commonest, outer) = (most(&all), most(&border));
    let of_border = f64::from(border[outer]) / f64::from(border.iter().sum::<u32>().max(1));
    let best = match commonest == outer || of_border < 0.6 || is_sheet(pixels, commonest) {
        true => commonest,
        false => outer,
    };
    // The commonest exact colour within that bin would cost a second pass for little: its first pixel stands for it.
    raw.chunks_exact(3).find(|p| bin(p) == best).map_or([255; 3], |p| [p[0], p[1], p[2]])
}

/// Colours are counted to 4 bits a channel.
const BINS: usize = 1 << 12;

fn bin(p: &[u8]) -> usize {
    usize::from(p[0] >> 4) << 8 | usize::from(p[1] >> 4) << 4 | usize::from(p[2] >> 4)
}

/// Do the pixels of a colour reach into all four corners of a rectangle of at least half the picture?
fn is_sheet(pixels: &RgbImage, colour: usize) -> bool {
    let (w, h) = pixels.dimensions();
    let (mut x1, mut y1, mut x2, mut y2) = (w, h, 0, 0);
    for (x, y, _) in pixels.enumerate_pixels().filter(|(_, _, p)| bin(&p.0) == colour) {
        (x1, y1, x2, y2) = (x1.min(x), y1.min(y), x2.max(x), y2.max(y));
    }
    let large =
        x1 <= x2 && u64::from(x2 - x1 + 1) * u64::from(y2 - y1 + 1) * 2 >= u64::from(w) * u64::from(h);
    large
        && [(x1, y1), (x2, y1), (x1, y2), (x2, y2)]
            .iter()
            .all(|&(x, y)| bin(&pixels.get_pixel(x, y).0) == colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seam_is_part_of_no_shape() {
        // A red square of 8 x 8 with a pale seam to its right, a thin pale line elsewhere, and a stroke of a letter.
        let pixels = RgbImage::from_fn(30, 50, |x, y| {
            image::Rgb(match (x, y) {
                (2..=9, 2..=9) => [220, 20, 20],
                (10, 0..=11) => [240, 150, 150],
                (20, _) => [240, 150, 150],
                (25, 2..=9) => [40, 40, 60],
                _ => [255; 3],
            })
        });
        let found = areas(&pixels, 8, 10);
        assert_eq!(found.len(), 4);
        let kept: Vec<u32> = without_fringes(found, 30, 50).iter().map(|a| a.bbox.x1).collect();
        assert_eq!(kept, [20, 2]); // in the order of their first pixels
    }

    #[test]
    fn the_ground_is_at_the_border() {
        let white = image::Rgb([255; 3]);
        let disc = |x: u32, y: u32| (f64::from(x) - 47.5).hypot(f64::from(y) - 47.5) < 44.0;
        // A disc that is larger than what is left of the paper, with a frame of one pixel around it all.
        let frame = |x, y| x == 0 || y == 0 || x == 95 || y == 95;
        let pie = RgbImage::from_fn(96, 96, |x, y| match (disc(x, y), frame(x, y)) {
            (true, _) => image::Rgb([31, 105, 190]),
            (_, true) => image::Rgb([0; 3]),
            _ => white,
        });
        assert_eq!(ground(&pie), [255; 3]);
        // The inside of a chart with a grey margin.
        let inside = |x, y| (10..86).contains(&x) && (10..86).contains(&y);
        let chart = RgbImage::from_fn(96, 96, |x, y| match (inside(x, y), (30..50).contains(&x) && y > 40) {
            (true, true) => image::Rgb([214, 39, 40]),
            (true, false) => white,
            _ => image::Rgb([200; 3]),
        });
        assert_eq!(ground(&chart), [255; 3]);
        // No colour has most of the border.
        let halves = RgbImage::from_fn(90, 20, |x, _| if x < 50 { white } else { image::Rgb([9; 3]) });
        assert_eq!(ground(&halves), [255; 3]);
    }

    #[test]
    fn names_of_plain_colours() {
        for (rgb, expected) in [
            ([255, 0, 0], "red"),
            ([250, 250, 250], "white"),
            ([44, 150, 60], "green"),
            ([120, 120, 120], "gray"),
            ([255, 165, 0], "orange"),
            // The pale fillings of office programs and of PuzzleVQA.
            ([159, 197, 232], "blue"),
            ([249, 203, 156], "orange"),
            ([180, 167, 214], "purple"),
            ([182, 215, 168], "green"),
            ([255, 229, 153], "yellow"),
            ([234, 153, 153], "red"),
        ] {
            assert_eq!(name(rgb), expected);
        }
        assert_eq!(canonical("grey"), Some("gray"));
        assert_eq!(canonical("mauve"), None);
    }
}
