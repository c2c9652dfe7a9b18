//! `measure`: numbers off a chart: the value at a point, a bar, a share of a circle, a distance.

use image::RgbImage;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::draw_lines::inside;
use super::{point, read_axis};
use crate::axis::{Axis, AxisName};
use crate::colors::{self, apart};
use crate::error::for_model;
use crate::regions::{self, Component};
use crate::{Call, ImageRef, Reply, Tool, ToolError};

/// Measure a chart at a point, or at what a label names. `value` reads the axes at the point; `bar` measures the bar that
/// covers it; `share` measures the sector of a pie that covers it, in percent; `distance` goes from the point to (x2, y2).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Picture of the chart, such as img_0.
    image: ImageRef,
    /// What to measure.
    what: What,
    /// Point in pixels from the left.
    #[serde(default)]
    x: Option<f64>,
    /// Point in pixels from the top.
    #[serde(default)]
    y: Option<f64>,
    /// Instead of x and y: what to measure, as `point` finds it, such as a colour.
    #[serde(default)]
    label: Option<String>,
    /// For distance: end point in pixels from the left.
    #[serde(default)]
    x2: Option<f64>,
    /// For distance: end point in pixels from the top.
    #[serde(default)]
    y2: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum What {
    Value,
    Bar,
    Share,
    Distance,
}

impl Tool for Measure {
    const NAME: &'static str = "measure";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "what": "value", "x": 120, "y": 84}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let pixels = call.pixels(&self.image)?;
        let at = match (self.x, self.y, &self.label) {
            (Some(x), Some(y), None) => (x, y),
            (None, None, Some(label)) => self.labelled(call, &pixels, label)?,
            _ => return Err(for_model("give either the point, x and y, or a label")),
        };
        let (x, y) = (inside("x", at.0, pixels.width())?, inside("y", at.1, pixels.height())?);
        match self.what {
            What::Value => self.value(call, at),
            What::Bar => self.bar(call, &pixels, x, y),
            What::Share => share(&pixels, x, y),
            What::Distance => self.distance(call, &pixels, at),
        }
    }
}

impl Measure {
    /// A point inside the largest thing that the label names.
    fn labelled(&self, call: &Call<'_>, pixels: &RgbImage, label: &str) -> Result<(f64, f64), ToolError> {
        let (point, is_text) = point::inside(call, &self.image, pixels, label)?;
        match self.what {
            What::Bar | What::Share if is_text => Err(for_model(format!(
                "{label:?} is a text at ({}, {}), which is no bar and no sector: give x and y of a point inside the bar or \
                 sector that it belongs to, or its colour as the label",
                point.0, point.1
            ))),
            _ => Ok(point),
        }
    }

    fn axis(&self, call: &Call<'_>, name: AxisName) -> Result<Axis, ToolError> {
        read_axis::read(call, &self.image, name)
    }

    fn value(&self, call: &Call<'_>, (at_x, at_y): (f64, f64)) -> Result<Reply, ToolError> {
        let y_axis = self.axis(call, AxisName::Y);
        let x_axis = self.axis(call, AxisName::X);
        let along_y = y_axis.as_ref().ok().map(|a| a.value_at(at_y));
        let along_x = x_axis.as_ref().ok().map(|a| a.value_at(at_x));
        let text = match (along_x, along_y) {
            (Some(x), Some(y)) => format!("x value {}, y value {}.", shown(x), shown(y)),
            (None, Some(y)) => format!("y value {} (the x axis has no scale).", shown(y)),
            (Some(x), None) => format!("x value {} (the y axis has no scale).", shown(x)),
            (None, None) => return Err(y_axis.err().unwrap_or_else(|| for_model("no axis could be read"))),
        };
        Ok(Reply { text, data: json!({"x": along_x, "y": along_y}), image: None, answer: None })
    }

    fn bar(&self, call: &Call<'_>, pixels: &RgbImage, x: u32, y: u32) -> Result<Reply, ToolError> {
        let bar = area_at(pixels, x, y)?;
        let b = bar.bbox;
        let (top, bottom) = (f64::from(b.y1), f64::from(b.y2));
        let (left, right) = (f64::from(b.x1), f64::from(b.x2));
        let mut text = format!("Bar {b}, {} wide and {} high in pixels.", b.width(), b.height());
        let mut data = json!({"bbox": [b.x1, b.y1, b.x2, b.y2]});
        let y_axis = self.axis(call, AxisName::Y);
        let x_axis = if y_axis.is_err() { self.axis(call, AxisName::X).ok() } else { None };
        let (name, from, to) = match (&y_axis, &x_axis) {
            (Ok(axis), _) => ("y", axis.value_at(bottom), axis.value_at(top)),
            (_, Some(axis)) => ("x", axis.value_at(left), axis.value_at(right)),
            (Err(why), None) => {
                text.push_str(&format!(" {why}."));
                return Ok(Reply { text, data, image: None, answer: None });
            }
        };
        text.push_str(&format!(
            " On the {name} axis it goes from {} to {}, a length of {}.",
            shown(from),
            shown(to),
            shown(to - from)
        ));
        data["from"] = json!(from);
        data["to"] = json!(to);
        data["length"] = json!(to - from);
        Ok(Reply { text, data, image: None, answer: None })
    }

    fn distance(&self, call: &Call<'_>, pixels: &RgbImage, (x, y): (f64, f64)) -> Result<Reply, ToolError> {
        let (Some(x2), Some(y2)) = (self.x2, self.y2) else {
            return Err(for_model("distance needs the end point: give x2 and y2"));
        };
        inside("x2", x2, pixels.width())?;
        inside("y2", y2, pixels.height())?;
        let (dx, dy) = (x2 - x, y2 - y);
        let length = (dx * dx + dy * dy).sqrt();
        let mut text = format!("{} pixels ({} to the right, {} down).", shown(length), shown(dx), shown(dy));
        let along =
            |axis: Result<Axis, ToolError>, a, b| axis.ok().map(|axis| axis.value_at(b) - axis.value_at(a));
        let x_value = along(self.axis(call, AxisName::X), x, x2);
        let y_value = along(self.axis(call, AxisName::Y), y, y2);
        if let Some(v) = x_value {
            text.push_str(&format!(" x value changes by {}.", shown(v)));
        }
        if let Some(v) = y_value {
            text.push_str(&format!(" y value changes by {}.", shown(v)));
        }
        Ok(Reply {
            text,
            data: json!({"pixels": length, "x": x_value, "y": y_value}),
            image: None,
            answer: None,
        })
    }
}

fn shown(v: f64) -> String {
    let text = format!("{v:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The area of one colour that holds a point; the ground is none.
fn area_at(pixels: &RgbImage, x: u32, y: u32) -> Result<Component, ToolError> {
    let (w, h) = pixels.dimensions();
    let raw = pixels.as_raw();
    let at = |i: usize| &raw[3 * i..3 * i + 3];
    // A point between two bars or on an outline means the nearest area within two pixels.
    let ground = colors::ground(pixels);
    let mut near: Vec<(u32, usize)> = Vec::new();
    for ny in y.saturating_sub(2)..(y + 3).min(h) {
        for nx in x.saturating_sub(2)..(x + 3).min(w) {
            let i = (ny * w + nx) as usize;
            if apart(at(i), &ground) > 24 {
                near.push((nx.abs_diff(x) + ny.abs_diff(y), i));
            }
        }
    }
    near.sort_unstable();
    let &(_, seed) = near.first().ok_or_else(|| {
        for_model(format!("at ({x}, {y}) there is only background; name a point inside a bar or sector"))
    })?;
    let seed_colour = [raw[3 * seed], raw[3 * seed + 1], raw[3 * seed + 2]];
    let alike = |i: usize| apart(at(i), &seed_colour) <= 20;
    let areas = regions::label(w as usize, h as usize, alike, |_, _| true);
    areas
        .into_iter()
        .find(|c| c.pixels.binary_search(&seed).is_ok())
        .ok_or_else(|| for_model(format!("no area at ({x}, {y})")))
}

/// Part of the round figure that the sector fills. The whole is what hangs together when gaps of up to 4 pixels (the
/// seams between sectors) are closed; a seam belongs to the sectors beside it, each pixel to the nearer one, since seams
/// take from a small sector as much as from a large one.
fn share(pixels: &RgbImage, x: u32, y: u32) -> Result<Reply, ToolError> {
    let sector = area_at(pixels, x, y)?;
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    let ground = colors::ground(pixels);
    let raw = pixels.as_raw();
    let inked: Vec<bool> = raw.chunks_exact(3).map(|p| apart(p, &ground) > 24).collect();
    let closed = narrowed(&narrowed(&widened(&widened(&inked, w, h), w, h), w, h), w, h);
    let figure = regions::components(&closed, w, h)
        .into_iter()
        .find(|c| c.pixels.binary_search(&sector.pixels[0]).is_ok())
        .map_or_else(|| sector.pixels.clone(), |c| c.pixels);
    // A pixel whose neighbours all have its colour lies inside an area; seams and smoothed outlines have none. From these
    // cores the areas spread until the figure is full.
    const FREE: u8 = 0;
    const OTHER: u8 = 1;
    const OWN: u8 = 2;
    let core = |i: usize| {
        let (x, y) = (i % w, i / w);
        let within = x > 0 && y > 0 && x + 1 < w && y + 1 < h;
        let at = |i: usize| &raw[3 * i..3 * i + 3];
        let alike = |n: usize| apart(at(n), at(i)) <= 12;
        within && (y - 1..y + 2).all(|ny| (x - 1..x + 2).all(|nx| alike(ny * w + nx)))
    };
    let mut owner = vec![FREE; w * h];
    for &i in figure.iter().filter(|&&i| inked[i] && core(i)) {
        owner[i] = if sector.pixels.binary_search(&i).is_ok() { OWN } else { OTHER };
    }
    // A sector too thin to have a core keeps what it shows.
    if !owner.contains(&OWN) {
        sector.pixels.iter().for_each(|&i| owner[i] = OWN);
    }
    let mut inside = vec![false; w * h];
    figure.iter().for_each(|&i| inside[i] = true);
    let mut edge: Vec<usize> = figure.iter().copied().filter(|&i| owner[i] != FREE).collect();
    while !edge.is_empty() {
        let mut next = Vec::new();
        for i in edge {
            let (x, y) = (i % w, i / w);
            let beside = [
                (x > 0, i.wrapping_sub(1)),
                (x + 1 < w, i + 1),
                (y > 0, i.wrapping_sub(w)),
                (y + 1 < h, i + w),
            ];
            for (_, n) in beside.into_iter().filter(|b| b.0) {
                if inside[n] && owner[n] == FREE {
                    owner[n] = owner[i];
                    next.push(n);
                }
            }
        }
        edge = next;
    }
    let own = figure.iter().filter(|&&i| owner[i] == OWN).count();
    let part = own as f64 / figure.len().max(1) as f64 * 100.0;
    // Whole percents: the pixels of a drawn outline do not carry more.
    let text = if part < 1.0 { shown(part) } else { format!("{part:.0}") };
    Ok(Reply {
        text: format!("{text} %"),
        data: json!({"percent": part, "pixels": own, "of": figure.len()}),
        image: None,
        answer: None,
    })
}

/// The mask, one pixel narrower on all sides; the border of the picture does not count as outside.
fn narrowed(mask: &[bool], w: usize, h: usize) -> Vec<bool> {
    let outside: Vec<bool> = mask.iter().map(|m| !m).collect();
    widened(&outside, w, h).into_iter().map(|m| !m).collect()
}

/// The mask, one pixel wider on all sides.
fn widened(mask: &[bool], w: usize, h: usize) -> Vec<bool> {
    let mut out = mask.to_vec();
    for i in (0..w * h).filter(|&i| mask[i]) {
        let (x, y) = (i % w, i / w);
        for ny in y.saturating_sub(1)..(y + 2).min(h) {
            for nx in x.saturating_sub(1)..(x + 2).min(w) {
                out[ny * w + nx] = true;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    /// A disc of radius 40 whose part left of `cut` degrees from the top is red, the rest blue, with a white seam of two pixels.
    fn pie(percent: f64) -> RgbImage {
        RgbImage::from_fn(128, 96, |x, y| {
            let (dx, dy) = (f64::from(x) - 63.5, f64::from(y) - 47.5);
            if dx.hypot(dy) > 40.0 {
                return Rgb([255, 255, 255]);
            }
            let turn = |v: f64| (v / 100.0 * std::f64::consts::TAU).sin_cos();
            let seam = |v: f64| {
                let (s, c) = turn(v);
                (dx * c + dy * s).abs() < 1.0 && dx * s - dy * c > 0.0
            };
            if seam(0.0) || seam(percent) {
                return Rgb([255, 255, 255]);
            }
            let at = dx.atan2(-dy).rem_euclid(std::f64::consts::TAU) / std::f64::consts::TAU * 100.0;
            if at < percent { Rgb([214, 39, 40]) } else { Rgb([31, 105, 190]) }
        })
    }

    #[test]
    fn seams_take_nothing_from_small_sectors() {
        for percent in [8.0, 10.0, 23.0, 50.0, 77.0] {
            let turn = percent / 200.0 * std::f64::consts::TAU;
            let (x, y) = (63.5 + 25.0 * turn.sin(), 47.5 - 25.0 * turn.cos());
            let reply = share(&pie(percent), x as u32, y as u32).unwrap();
            let found = reply.data["percent"].as_f64().unwrap();
            assert!((found - percent).abs() < 0.5, "{percent}: {found}");
            assert_eq!(reply.text, format!("{percent:.0} %"));
        }
    }
}
