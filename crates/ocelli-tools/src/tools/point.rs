//! `point`: where something named is: a text, or shapes of a colour.

use image::RgbImage;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::colors;
use crate::detector::canonical;
use crate::error::for_model;
use crate::regions::Component;
use crate::tools::detect::AT_LEAST;
use crate::{Call, ImageRef, PixelBox, Reply, Tool, ToolError};

/// Find things by name and answer a point in the middle of each: a text that stands in the picture, or drawn shapes by
/// colour and form, such as "red circle", "blue object", "triangle".
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Picture to search, such as img_0.
    image: ImageRef,
    /// What to point at: the text itself, or a colour, a form (circle, square, rectangle, triangle, diamond, object),
    /// or both.
    label: String,
}

/// Forms that are told apart.
const FORMS: [&str; 5] = ["circle", "square", "rectangle", "triangle", "diamond"];
/// Words for any form.
const ANY: [&str; 6] = ["object", "shape", "thing", "point", "dot", "mark"];

impl Tool for Point {
    const NAME: &'static str = "point";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "label": "red circle"}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let pixels = call.pixels(&self.image)?;
        let (kind, boxes) = locate(call, &self.image, &pixels, &self.label)?;
        // That nothing of a colour or form is there is an answer; a text that is not there is more likely misspelt.
        if boxes.is_empty() && kind == "text" {
            return Err(nothing(&self.label));
        }
        let points: Vec<_> = boxes
            .iter()
            .map(|b| {
                let (x, y) = b.centre();
                json!({"x": x, "y": y, "bbox": [b.x1, b.y1, b.x2, b.y2]})
            })
            .collect();
        let mut text = format!("{} found ({kind}){}", boxes.len(), if boxes.is_empty() { "." } else { ":" });
        for b in &boxes {
            let (x, y) = b.centre();
            text.push_str(&format!("\n({x}, {y}) in {b}"));
        }
        Ok(Reply { text, data: json!({"kind": kind, "points": points}), image: None, answer: None })
    }
}

fn nothing(label: &str) -> ToolError {
    for_model(format!(
        "found nothing for {label:?}. Texts are found as they are written (use ocr to see them); drawn things by colour \
         ({}) and form ({})",
        colors::names().join(", "),
        FORMS.join(", ")
    ))
}

/// Boxes of what a label names, and whether it named a shape, a text or an object.
fn locate(
    call: &Call<'_>,
    image: &ImageRef,
    pixels: &RgbImage,
    label: &str,
) -> Result<(&'static str, Vec<PixelBox>), ToolError> {
    let wanted = label.trim().to_lowercase();
    if wanted.is_empty() {
        return Err(for_model("the label is empty; name a text, a colour or a form"));
    }
    match description(&wanted) {
        Some((colour, form)) => Ok(("shape", shapes(pixels, colour, form))),
        None => named(call, image, pixels, &wanted),
    }
}

/// A point inside the largest thing that a label names, and whether that is a text: a box's middle may lie outside of a
/// thing that is bent.
pub(super) fn inside(
    call: &Call<'_>,
    image: &ImageRef,
    pixels: &RgbImage,
    label: &str,
) -> Result<((f64, f64), bool), ToolError> {
    if let Some((colour, form)) = description(&label.trim().to_lowercase()) {
        let largest = areas(pixels, colour, form).into_iter().max_by_key(|area| area.pixels.len());
        if let Some(area) = largest {
            let middle = area.pixels[area.pixels.len() / 2] as u32;
            let point = (f64::from(middle % pixels.width()), f64::from(middle / pixels.width()));
            return Ok((point, false));
        }
    }
    // Texts and objects, and the complaint about what is not there.
    let size = |b: &PixelBox| u64::from(b.width()) * u64::from(b.height());
    let (kind, found) = locate(call, image, pixels, label)?;
    let largest = found.iter().max_by_key(|b| size(b)).map(PixelBox::centre);
    Ok((largest.ok_or_else(|| nothing(label))?, kind == "text"))
}

/// Colour and form of a description made of such words alone; `None` for anything else, which is then a text.
fn description(wanted: &str) -> Option<(Option<&'static str>, Option<&'static str>)> {
    let (mut colour, mut form, mut any) = (None, None, false);
    for word in wanted.split_whitespace().filter(|w| !["the", "a", "an"].contains(w)) {
        // Plural, but not of words that end in s anyway.
        let word = word.strip_suffix('s').unwrap_or(word);
        if let Some(c) = colors::canonical(word) {
            colour = Some(c);
        } else if let Some(f) = FORMS.iter().find(|f| **f == word) {
            form = Some(*f);
        } else if ANY.contains(&word) {
            any = true;
        } else {
            return None;
        }
    }
    (colour.is_some() || form.is_some() || any).then_some((colour, form))
}

/// A text that is just that, else objects of that name where their network is at hand, else a text that holds it.
fn named(
    call: &Call<'_>,
    image: &ImageRef,
    pixels: &RgbImage,
    wanted: &str,
) -> Result<(&'static str, Vec<PixelBox>), ToolError> {
    let lines = call.texts(image)?;
    let that = |test: &dyn Fn(&str) -> bool| -> Vec<PixelBox> {
        lines.iter().filter(|l| test(&l.text.to_lowercase())).map(|l| l.bbox).collect()
    };
    let exact = that(&|t| t == wanted);
    if !exact.is_empty() {
        return Ok(("text", exact));
    }
    if let Some(name) = canonical(wanted).filter(|_| call.engines.can_detect()) {
        let objects = call.engines.detector()?.detect(pixels, AT_LEAST)?;
        return Ok(("object", objects.iter().filter(|o| o.name == name).map(|o| o.bbox).collect()));
    }
    Ok(("text", that(&|t| t.contains(wanted))))
}

fn shapes(pixels: &RgbImage, colour: Option<&str>, form: Option<&str>) -> Vec<PixelBox> {
    areas(pixels, colour, form).into_iter().map(|area| area.bbox).collect()
}

fn areas(pixels: &RgbImage, colour: Option<&str>, form: Option<&str>) -> Vec<Component> {
    let raw = pixels.as_raw();
    let (width, height) = pixels.dimensions();
    colors::without_fringes(colors::areas(pixels, 12, 500), width as usize, height as usize)
        .into_iter()
        .filter(|area| {
            let of_colour = colour.is_none_or(|wanted| {
                let middle = area.pixels[area.pixels.len() / 2];
                colors::name([raw[3 * middle], raw[3 * middle + 1], raw[3 * middle + 2]]) == wanted
            });
            of_colour && form.is_none_or(|wanted| is_form(area, pixels.width(), wanted))
        })
        .collect()
}

/// How full the box is, and where its rows are widest, tell the forms apart: a disc fills pi/4 of its box, a triangle
/// and a diamond half of it, a triangle being widest at one end and a diamond in the middle.
fn is_form(area: &Component, width: u32, form: &str) -> bool {
    let b = area.bbox;
    let (w, h) = (f64::from(b.width()), f64::from(b.height()));
    let fill = area.pixels.len() as f64 / (w * h);
    let square = w / h < 1.25 && h / w < 1.25;
    let mut rows = vec![0u32; b.height() as usize];
    area.pixels.iter().for_each(|&i| rows[(i as u32 / width - b.y1) as usize] += 1);
    let part = |from: f64, to: f64| {
        let (from, to) =
            ((from * h) as usize, ((to * h) as usize).max((from * h) as usize + 1).min(rows.len()));
        rows[from..to].iter().sum::<u32>() as f64 / (to - from).max(1) as f64 / w
    };
    let (top, middle, bottom) = (part(0.0, 0.15), part(0.4, 0.6), part(0.85, 1.0));
    match form {
        "circle" => {
            // A small disc can fill more of its box than pi/4: 0.901 at a radius of 6.
            square && (0.66..0.92).contains(&fill) && middle > top && middle > bottom && is_round(area, width)
        }
        "square" => square && fill >= 0.9,
        "rectangle" => fill >= 0.9,
        "triangle" => (0.38..0.68).contains(&fill) && (top > middle + 0.15 || bottom > middle + 0.15),
        "diamond" => (0.38..0.68).contains(&fill) && middle > top + 0.3 && middle > bottom + 0.3,
        _ => false,
    }
}

/// How far out an area reaches in each direction from its middle: about equally far, where it is a disc. The edge of a
/// hexagon lies between 0.87 and 1 of the way to its corners, that of an octagon between 0.92 and 1. Of shapes of less
/// than some 25 pixels across the corners cannot be told from the steps of a disc's edge.
fn is_round(area: &Component, width: u32) -> bool {
    let place = |i: &usize| (f64::from(*i as u32 % width), f64::from(*i as u32 / width));
    let n = area.pixels.len() as f64;
    let (sx, sy) = area.pixels.iter().map(place).fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (cx, cy) = (sx / n, sy / n);
    let radius = (n / std::f64::consts::PI).sqrt();
    // As many directions as the edge has some three pixels for each.
    let directions = ((2.0 * radius) as usize).clamp(12, 96);
    let mut reach = vec![0.0f64; directions];
    for (x, y) in area.pixels.iter().map(place) {
        let (dx, dy) = (x - cx, y - cy);
        let turn = dy.atan2(dx) / std::f64::consts::TAU + 0.5;
        let k = ((turn * directions as f64) as usize).min(directions - 1);
        reach[k] = reach[k].max(dx.hypot(dy));
    }
    reach.sort_by(f64::total_cmp);
    // A small bite or spur is forgiven.
    let cut = directions / 20;
    reach[directions - 1 - cut] - reach[cut] <= 0.05 * radius + 0.8
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::shapes;

    /// A filled regular polygon; with many corners, a disc.
    fn drawn(corners: u32, radius: f64, turn: f64) -> RgbImage {
        let side = (2.5 * radius) as u32 + 10;
        let centre = f64::from(side) / 2.0;
        let half = std::f64::consts::PI / f64::from(corners);
        RgbImage::from_fn(side, side, |x, y| {
            let (dx, dy) = (f64::from(x) + 0.5 - centre, f64::from(y) + 0.5 - centre);
            let angle = (dy.atan2(dx) + turn).rem_euclid(2.0 * half) - half;
            let edge = radius * half.cos() / angle.cos();
            Rgb(if dx.hypot(dy) <= edge { [31, 105, 190] } else { [255; 3] })
        })
    }

    #[test]
    fn polygons_are_no_circles_and_discs_are() {
        for radius in [13.0, 20.0, 47.5, 120.0] {
            for turn in [0.0, 0.2, 0.5] {
                for corners in [5, 6] {
                    let found = shapes(&drawn(corners, radius, turn), Some("blue"), Some("circle"));
                    assert!(found.is_empty(), "{corners} corners, radius {radius}, turned {turn}");
                }
                let found = shapes(&drawn(720, radius, turn), Some("blue"), Some("circle"));
                assert_eq!(found.len(), 1, "disc of radius {radius}");
            }
        }
        for radius in [4.0, 6.0, 9.0] {
            assert_eq!(shapes(&drawn(720, radius, 0.0), Some("blue"), Some("circle")).len(), 1, "{radius}");
        }
        assert!(shapes(&drawn(8, 60.0, 0.1), Some("blue"), Some("circle")).is_empty());
    }
}
