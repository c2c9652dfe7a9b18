//! Plane figures with their measures written beside them: angles of a triangle, area and perimeter of a rectangle,
//! the hypotenuse of a right triangle, angles on a line, corners of a polygon.
//!
//! Example: a triangle with 50° and 60°, "What is the missing angle in degrees?", target `Number 70`, plan `ocr`,
//! `calculate "180 - 50 - 60"`. Pictures too small for words show polygons whose corners are to be counted.

use ocelli_data::Target;
use serde_json::json;

use crate::World;
use crate::canvas::{Anchor, Canvas, INK, WHITE, regular, sin_cos_turns};
use crate::dice::Dice;
use crate::item::{Draft, Item, Level, Plan, Setup, WorldError};
use crate::palette;
use crate::truth::{Label, LabelKind, Object, Rect, Truth};

/// The world of plane figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Geometry;

struct Figure {
    canvas: Canvas,
    truth: Truth,
    px: f64,
    thick: f64,
}

impl Figure {
    fn note(&mut self, text: &str, at: (f64, f64)) {
        let rect = self.canvas.text(text, at, self.px, Anchor::Middle, INK);
        self.truth.labels.push(Label { text: text.into(), kind: LabelKind::Note, rect, upwards: false });
    }
}

/// What to ask: question, answer, the expression that gives it, and its name.
type Asked = (String, i64, String, &'static str);

impl World for Geometry {
    fn name(&self) -> &'static str {
        "geometry"
    }

    fn generate(&self, seed: u64, index: u64, setup: &Setup) -> Result<Item, WorldError> {
        let mut dice = Dice::new(self.name(), seed, index);
        let size = f64::from(setup.width.min(setup.height));
        let mut figure = Figure {
            canvas: Canvas::new(setup.width, setup.height, WHITE),
            truth: Truth::default(),
            px: (size / 18.0).clamp(11.0, 34.0),
            thick: (size / 160.0).max(1.2),
        };
        let frame = (f64::from(setup.width), f64::from(setup.height));
        let (question, answer, expression, skill) = if setup.compact() {
            polygon(&mut dice, &mut figure, frame)
        } else {
            match dice.below(5) {
                0 => triangle_angles(&mut dice, &mut figure, frame),
                1 => rectangle(&mut dice, &mut figure, frame, setup.level),
                2 => right_triangle(&mut dice, &mut figure, frame, setup.level),
                3 => angles_on_line(&mut dice, &mut figure, frame, setup.level),
                _ => polygon(&mut dice, &mut figure, frame),
            }
        };
        let mut plan = Plan::default();
        if !expression.is_empty() {
            plan = plan.call("Read the measures in the picture.", "ocr", json!({"image": "img_0"})).call(
                "Calculate.",
                "calculate",
                json!({"expression": expression}),
            );
        }
        plan.conclusion = format!("The result is {answer}.");
        plan.answer = answer.to_string();
        let target = Target::Number { value: answer as f64, tolerance: 0.0 };
        let meta = vec![("skill", skill.to_owned())];
        Draft { canvas: figure.canvas, truth: figure.truth, question, target, plan, meta }.finish(
            self.name(),
            seed,
            index,
        )
    }
}

/// Point at `distance` from `from` towards `to`.
fn towards(from: (f64, f64), to: (f64, f64), distance: f64) -> (f64, f64) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let len = (dx * dx + dy * dy).sqrt().max(1e-9);
    (from.0 + dx / len * distance, from.1 + dy / len * distance)
}

fn centroid(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len().max(1) as f64;
    (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
}

fn triangle_angles(dice: &mut Dice, f: &mut Figure, (w, h): (f64, f64)) -> Asked {
    let a = dice.between(6, 16) * 5;
    let b = dice.between(6, 16) * 5;
    let c = 180 - a - b;
    // Corners on a circle see the opposite sides under half the arc (inscribed angles), so the drawing is to scale.
    let (centre, r) = ((w / 2.0, h * 0.53), w.min(h) * 0.4);
    let turn = f64::from(dice.below(360)) / 360.0;
    let arcs = [0, 2 * c, 2 * c + 2 * a];
    let corners: Vec<(f64, f64)> = arcs
        .iter()
        .map(|arc| {
            let (s, c) = sin_cos_turns(*arc as f64 / 360.0 + turn);
            (centre.0 + r * s, centre.1 - r * c)
        })
        .collect();
    f.canvas.outline(&corners, f.thick, INK);
    let middle = centroid(&corners);
    // Corner 0 sees the arc from corner 1 to corner 2, which is 2a; corner 1 sees 2b; corner 2 sees 2c.
    for (corner, (angle, text)) in
        corners.iter().zip([(a, format!("{a}°")), (b, format!("{b}°")), (c, "?".to_owned())])
    {
        // The sharper the corner, the further in there is room for a word.
        let room = f.px * 1.15 / sin_cos_turns(angle as f64 / 720.0).0.max(0.2);
        f.note(&text, towards(*corner, middle, room));
    }
    (
        "What is the missing angle of the triangle in degrees?".into(),
        c,
        format!("180 - {a} - {b}"),
        "triangle_angle",
    )
}

fn rectangle(dice: &mut Dice, f: &mut Figure, (w, h): (f64, f64), level: Level) -> Asked {
    let most = if level == Level::Hard { 40 } else { 12 };
    let (a, b) = (dice.between(2, most), dice.between(2, most));
    let ratio = (b as f64 / a as f64).clamp(0.35, 1.4);
    let width = (w * 0.6).min(h * 0.6 / ratio);
    let r = Rect {
        x0: (w - width) / 2.0,
        y0: (h - width * ratio) / 2.0,
        x1: (w + width) / 2.0,
        y1: (h + width * ratio) / 2.0,
    };
    let fill = dice.pick(&palette::COLOURS).1;
    f.canvas.rect(r, fill.map(|c| c / 3 + 170));
    f.canvas.outline(&[(r.x0, r.y0), (r.x1, r.y0), (r.x1, r.y1), (r.x0, r.y1)], f.thick, INK);
    f.note(&a.to_string(), (w / 2.0, r.y1 + f.px));
    f.note(&b.to_string(), (r.x1 + f.px * 1.2, h / 2.0));
    if dice.chance(50) {
        ("What is the area of the rectangle?".into(), a * b, format!("{a} * {b}"), "rectangle_area")
    } else {
        (
            "What is the perimeter of the rectangle?".into(),
            2 * (a + b),
            format!("2 * ({a} + {b})"),
            "rectangle_perimeter",
        )
    }
}

const TRIPLES: [(i64, i64, i64); 6] =
    [(3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (9, 40, 41)];

fn right_triangle(dice: &mut Dice, f: &mut Figure, (w, h): (f64, f64), level: Level) -> Asked {
    let (a, b, c) = *dice.pick(&TRIPLES[..if level == Level::Easy { 2 } else { 6 }]);
    let k = dice.between(1, if level == Level::Hard { 5 } else { 2 });
    let (mut a, mut b, c) = (a * k, b * k, c * k);
    if dice.chance(50) {
        std::mem::swap(&mut a, &mut b);
    }
    let scale = (w * 0.6 / a as f64).min(h * 0.6 / b as f64);
    let (x0, y1) = ((w - a as f64 * scale) / 2.0, (h + b as f64 * scale) / 2.0);
    let corners = [(x0, y1), (x0 + a as f64 * scale, y1), (x0, y1 - b as f64 * scale)];
    f.canvas.outline(&corners, f.thick, INK);
    let s = f.px * 0.7;
    f.canvas.polyline(&[(x0 + s, y1), (x0 + s, y1 - s), (x0, y1 - s)], f.thick, INK);
    f.note(&a.to_string(), ((x0 + corners[1].0) / 2.0, y1 + f.px));
    f.note(&b.to_string(), (x0 - f.px * 1.3, (y1 + corners[2].1) / 2.0));
    let hyp =
        ((corners[1].0 + corners[2].0) / 2.0 + f.px * 1.2, (corners[1].1 + corners[2].1) / 2.0 - f.px * 0.8);
    f.note("?", hyp);
    (
        "How long is the longest side of the right triangle?".into(),
        c,
        format!("sqrt({a} * {a} + {b} * {b})"),
        "hypotenuse",
    )
}

fn angles_on_line(dice: &mut Dice, f: &mut Figure, (w, h): (f64, f64), level: Level) -> Asked {
    let rays = if level == Level::Easy { 1 } else { 2 };
    let mut parts: Vec<i64> =
        (0..rays).map(|_| dice.between(6, if rays == 1 { 29 } else { 13 }) * 5).collect();
    parts.push(180 - parts.iter().sum::<i64>());
    let (centre, r) = ((w / 2.0, h * 0.72), w.min(h) * 0.42);
    f.canvas.line((centre.0 - r, centre.1), (centre.0 + r, centre.1), f.thick, INK);
    let hidden = dice.below(parts.len() as u32) as usize;
    let mut from = 0;
    for (i, &part) in parts.iter().enumerate() {
        // Angles run from the left end of the line clockwise.
        let at = |degrees: f64, radius: f64| {
            let (s, c) = sin_cos_turns(degrees / 360.0);
            (centre.0 - radius * c, centre.1 - radius * s)
        };
        if i + 1 < parts.len() {
            f.canvas.line(centre, at((from + part) as f64, r), f.thick, INK);
        }
        let text = if i == hidden { "?".to_owned() } else { format!("{part}°") };
        f.note(&text, at(from as f64 + part as f64 / 2.0, r * 0.62));
        from += part;
    }
    let answer = parts.remove(hidden);
    let known: Vec<String> = parts.iter().map(i64::to_string).collect();
    (
        "What is the missing angle on the straight line in degrees?".into(),
        answer,
        format!("180 - {}", known.join(" - ")),
        "line_angle",
    )
}

fn polygon(dice: &mut Dice, f: &mut Figure, (w, h): (f64, f64)) -> Asked {
    let corners = dice.between(3, 8);
    let colour = *dice.pick(&palette::COLOURS);
    let (centre, r) = ((w / 2.0, h / 2.0), w.min(h) * 0.42);
    let points = regular(centre, r, corners as u32, f64::from(dice.below(100)) / 100.0);
    f.canvas.polygon(&points, colour.1);
    let rect = Rect { x0: centre.0 - r, y0: centre.1 - r, x1: centre.0 + r, y1: centre.1 + r };
    f.truth.objects.push(Object { shape: format!("{corners}-gon"), colour: colour.0.into(), rect });
    ("How many corners does the shape have?".into(), corners, String::new(), "corners")
}
