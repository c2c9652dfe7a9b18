//! From the numbers beside an axis to a map from pixels to values.
//!
//! Numbers that stand in one column (y axis) or row (x axis) are candidates. The map is the line through two of them
//! that most others agree with, fitted again by least squares to those that agree; a misread number then stands alone
//! and is reported. Fewer than three that agree are no axis: two points always lie on a line, so nothing would check it.

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ocr::{Direction, Line};

/// Which axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AxisName {
    /// The horizontal one.
    X,
    /// The vertical one.
    Y,
}

/// How values go with pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScaleKind {
    /// Equal distances for equal differences.
    Linear,
    /// Equal distances for equal ratios.
    Logarithmic,
}

/// A number that stands at an axis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Tick {
    /// Its pixel along the axis.
    pub pixel: f64,
    /// What it says.
    pub value: f64,
}

/// The map of an axis: `value = slope * pixel + intercept`, or 10 to that power.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Axis {
    /// Kind of scale.
    pub scale: ScaleKind,
    /// Value (or its decimal logarithm) per pixel.
    pub slope: f64,
    /// Value (or its decimal logarithm) at pixel 0.
    pub intercept: f64,
    /// Numbers that agree.
    pub ticks: Vec<Tick>,
    /// Numbers in the same column or row that do not: misread, or something else.
    pub odd: Vec<Tick>,
    /// Root mean square distance of the agreeing numbers from the line, in pixels.
    pub residual: f64,
}

impl Axis {
    /// Value at a pixel.
    pub(crate) fn value_at(&self, pixel: f64) -> f64 {
        let v = self.slope * pixel + self.intercept;
        match self.scale {
            ScaleKind::Linear => v,
            ScaleKind::Logarithmic => 10f64.powf(v),
        }
    }
}

/// Fewest numbers that must agree.
const FEWEST: usize = 3;

/// Finds the axis, or says why there is none.
pub(crate) fn find(pixels: &RgbImage, lines: &[Line], name: AxisName) -> Result<Axis, String> {
    let numbers: Vec<Number> = lines
        .iter()
        .filter(|l| l.direction == Direction::Right)
        .filter_map(|l| Number::of(pixels, l))
        .collect();
    if numbers.len() < FEWEST {
        return Err(format!(
            "only {} numbers were read in the picture; {FEWEST} are needed to find and check an axis",
            numbers.len()
        ));
    }
    let mut best: Option<Axis> = None;
    for anchor in &numbers {
        for edge in Edge::of(name) {
            let group: Vec<&Number> = numbers.iter().filter(|n| edge.aligned(anchor, n)).collect();
            let Some(axis) = fit(&group, name) else { continue };
            let better = best.as_ref().is_none_or(|b| rank(&axis) > rank(b));
            if better {
                best = Some(axis);
            }
        }
    }
    let where_ = match name {
        AxisName::X => "row",
        AxisName::Y => "column",
    };
    best.ok_or_else(|| {
        format!(
            "{} numbers were read, but no {FEWEST} of them in one {where_} lie on a common scale",
            numbers.len()
        )
    })
}

/// More agreeing numbers first, then fewer odd ones, then the smaller residual.
fn rank(axis: &Axis) -> (usize, std::cmp::Reverse<usize>, std::cmp::Reverse<u64>) {
    use std::cmp::Reverse;
    (axis.ticks.len(), Reverse(axis.odd.len()), Reverse((axis.residual * 1e6) as u64))
}

/// A number with the box of its ink.
#[derive(Clone, Debug)]
struct Number {
    value: f64,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Number {
    fn of(pixels: &RgbImage, line: &Line) -> Option<Self> {
        let value = number(&line.text)?;
        let b = line.bbox;
        let (mut left, mut top, mut right, mut bottom) = (b.x2, b.y2, b.x1, b.y1);
        let level = |x, y| {
            let [r, g, b] = pixels.get_pixel(x, y).0;
            (i32::from(r) * 299 + i32::from(g) * 587 + i32::from(b) * 114) / 1000
        };
        let mut counts = [0u32; 32];
        (b.y1..b.y2).for_each(|y| (b.x1..b.x2).for_each(|x| counts[(level(x, y) >> 3) as usize] += 1));
        let ground =
            counts.iter().enumerate().max_by_key(|(i, n)| (**n, *i)).map_or(31, |(i, _)| i as i32) * 8 + 4;
        // Rows that hold a little ink only belong to a tick beside the number; digits fill most of their height.
        for y in b.y1..b.y2 {
            for x in b.x1..b.x2 {
                if (level(x, y) - ground).abs() > 90 {
                    (left, right) = (left.min(x), right.max(x + 1));
                    (top, bottom) = (top.min(y), bottom.max(y + 1));
                }
            }
        }
        if left >= right || top >= bottom {
            (left, top, right, bottom) = (b.x1, b.y1, b.x2, b.y2);
        }
        let [left, top, right, bottom] = [left, top, right, bottom].map(f64::from);
        Some(Self { value, left, top, right, bottom })
    }

    fn height(&self) -> f64 {
        self.bottom - self.top
    }

    fn along(&self, name: AxisName) -> f64 {
        match name {
            AxisName::X => (self.left + self.right) / 2.0,
            AxisName::Y => (self.top + self.bottom) / 2.0,
        }
    }
}

/// What the numbers of one axis have in common.
#[derive(Clone, Copy)]
enum Edge {
    Left,
    Right,
    Middle,
    Row,
}

impl Edge {
    fn of(name: AxisName) -> &'static [Edge] {
        match name {
            AxisName::X => &[Edge::Row],
            AxisName::Y => &[Edge::Right, Edge::Left, Edge::Middle],
        }
    }

    fn aligned(self, a: &Number, b: &Number) -> bool {
        let slack = 0.6 * a.height().max(4.0);
        let apart = match self {
            Edge::Left => a.left - b.left,
            Edge::Right => a.right - b.right,
            Edge::Middle => (a.left + a.right - b.left - b.right) / 2.0,
            Edge::Row => (a.top + a.bottom - b.top - b.bottom) / 2.0,
        };
        let alike = a.height() < 1.7 * b.height() && b.height() < 1.7 * a.height();
        apart.abs() <= slack && alike
    }
}

fn fit(group: &[&Number], name: AxisName) -> Option<Axis> {
    let height = group.iter().map(|n| n.height()).fold(0.0, f64::max);
    let slack = (0.2 * height).clamp(1.5, 6.0);
    let ticks: Vec<Tick> = group.iter().map(|n| Tick { pixel: n.along(name), value: n.value }).collect();
    let linear = consensus(&ticks, ScaleKind::Linear, slack);
    let positive = ticks.iter().all(|t| t.value > 0.0);
    let log = if positive { consensus(&ticks, ScaleKind::Logarithmic, slack) } else { None };
    match (linear, log) {
        (Some(a), Some(b)) => Some(if b.ticks.len() > a.ticks.len() { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// The line that most ticks agree with.
fn consensus(ticks: &[Tick], scale: ScaleKind, slack: f64) -> Option<Axis> {
    let height = |t: &Tick| match scale {
        ScaleKind::Linear => t.value,
        ScaleKind::Logarithmic => t.value.log10(),
    };
    let mut best: Vec<usize> = Vec::new();
    for (i, a) in ticks.iter().enumerate() {
        for b in &ticks[i + 1..] {
            let (dv, dp) = (height(b) - height(a), b.pixel - a.pixel);
            if dv == 0.0 || dp.abs() < 4.0 {
                continue;
            }
            let agree: Vec<usize> = (0..ticks.len())
                .filter(|&k| {
                    (a.pixel + (height(&ticks[k]) - height(a)) / dv * dp - ticks[k].pixel).abs() <= slack
                })
                .collect();
            if agree.len() > best.len() {
                best = agree;
            }
        }
    }
    if best.len() < FEWEST {
        return None;
    }
    // Pixel as a function of value: the error is in where a number stands, not in what it says.
    let n = best.len() as f64;
    let mean = |f: &dyn Fn(&Tick) -> f64| best.iter().map(|&k| f(&ticks[k])).sum::<f64>() / n;
    let (mv, mp) = (mean(&height), mean(&|t| t.pixel));
    let vv = mean(&|t| (height(t) - mv).powi(2));
    let vp = mean(&|t| (height(t) - mv) * (t.pixel - mp));
    let pixels_per_unit = vp / vv;
    if !pixels_per_unit.is_finite() || pixels_per_unit.abs() < 1e-12 {
        return None;
    }
    let residual = mean(&|t| (mp + (height(t) - mv) * pixels_per_unit - t.pixel).powi(2)).sqrt();
    let slope = 1.0 / pixels_per_unit;
    let (agreeing, odd): (Vec<usize>, Vec<usize>) = (0..ticks.len()).partition(|k| best.contains(k));
    let pick = |which: Vec<usize>| {
        let mut picked: Vec<Tick> = which.into_iter().map(|k| ticks[k]).collect();
        picked.sort_by(|a, b| a.value.total_cmp(&b.value));
        picked
    };
    Some(Axis { scale, slope, intercept: mv - mp * slope, ticks: pick(agreeing), odd: pick(odd), residual })
}

/// The number that a label says: with sign, thousands separators, a currency before it or a unit behind it.
pub(crate) fn number(text: &str) -> Option<f64> {
    let text = text.trim().replace(['−', '–'], "-");
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest.trim_start()),
        None => (1.0, text.as_str()),
    };
    let text = text.trim_start_matches(['$', '€', '£', '+']).trim_start();
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | ' '))).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" | "%" | "°" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "B" | "G" => 1e9,
        _ => return None,
    };
    let digits = digits.trim();
    // A comma or space must stand before groups of three digits.
    let mut groups = digits.split([',', ' ']);
    let first = groups.next()?;
    let mut plain = first.to_owned();
    for group in groups {
        let whole = group.split('.').next().unwrap_or_default();
        if whole.len() != 3 || first.is_empty() || first.len() > 3 {
            return None;
        }
        plain.push_str(group);
    }
    if !plain.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    plain.parse::<f64>().ok().map(|v| sign * v * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_hand() {
        for (text, value) in [
            ("12", Some(12.0)),
            ("-3.5", Some(-3.5)),
            ("−4", Some(-4.0)),
            ("1,200", Some(1200.0)),
            ("$2.5k", Some(2500.0)),
            ("40 %", Some(40.0)),
            ("1,2", None),
            ("Jan", None),
            ("3 apples", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn a_misread_number_stands_alone() {
        // 0 at pixel 100, 10 at 80, 20 at 60, and 30 at 40 that was read as 80.
        let ticks: Vec<Tick> = [(100.0, 0.0), (80.0, 10.0), (60.0, 20.0), (40.0, 80.0)]
            .iter()
            .map(|&(pixel, value)| Tick { pixel, value })
            .collect();
        let axis = consensus(&ticks, ScaleKind::Linear, 2.0).unwrap();
        assert_eq!((axis.slope, axis.intercept), (-0.5, 50.0));
        assert_eq!(axis.odd, vec![Tick { pixel: 40.0, value: 80.0 }]);
        assert_eq!(axis.value_at(70.0), 15.0);
        assert!(consensus(&ticks[2..], ScaleKind::Linear, 2.0).is_none(), "two points prove nothing");
    }
}
