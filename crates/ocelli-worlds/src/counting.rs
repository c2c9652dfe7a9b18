//! Counting scenes: coloured shapes that do not overlap. Ask how many of a kind, whether one is there, or which of
//! two kinds is more frequent. The truth lists every object, so that a description can be checked word by word.
//!
//! Example: "How many red circles are there?", target `Number 3`, plan `point {"label": "red circle"}`.

use ocelli_data::Target;
use serde_json::json;

use crate::World;
use crate::canvas::{Canvas, Rgb, WHITE, regular};
use crate::dice::Dice;
use crate::item::{Draft, Item, Level, Plan, Setup, WorldError};
use crate::palette::{self, Named};
use crate::truth::{Object, Rect, Truth};

/// Shapes with their names.
pub const SHAPES: [&str; 4] = ["circle", "square", "triangle", "diamond"];

/// The world of counting scenes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

/// Draws a shape that fills the box.
pub(crate) fn shape(canvas: &mut Canvas, name: &str, r: Rect, colour: Rgb) {
    let (cx, cy) = r.centre();
    let half = (r.x1 - r.x0) / 2.0;
    match name {
        "circle" => canvas.disc((cx, cy), half, colour),
        "square" => canvas.rect(r, colour),
        "triangle" => canvas.polygon(&[(cx, r.y0), (r.x1, r.y1), (r.x0, r.y1)], colour),
        "diamond" => canvas.polygon(&regular((cx, cy), half, 4, 0.0), colour),
        _ => canvas.polygon(&regular((cx, cy), half, 5, 0.0), colour),
    }
}

impl World for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn generate(&self, seed: u64, index: u64, setup: &Setup) -> Result<Item, WorldError> {
        let mut dice = Dice::new(self.name(), seed, index);
        let (low, high, colours) = match setup.level {
            Level::Easy => (1, 6, 2),
            Level::Medium => (3, 9, 3),
            Level::Hard => (6, 16, 4),
        };
        // Cells of a 4x4 (hard: 5x5) grid, one object each, with jitter inside the cell.
        let side = if setup.level == Level::Hard { 5 } else { 4 };
        let cell = f64::from(setup.width.min(setup.height)) / f64::from(side);
        let colours: Vec<Named> = palette::some(&mut dice, colours);
        let mut cells: Vec<(u32, u32)> = (0..side).flat_map(|x| (0..side).map(move |y| (x, y))).collect();
        dice.shuffle(&mut cells);
        let mut canvas = Canvas::new(setup.width, setup.height, WHITE);
        let mut truth = Truth::default();
        for (cx, cy) in cells.into_iter().take(dice.between(low, high) as usize) {
            let (colour, name) = (*dice.pick(&colours), *dice.pick(&SHAPES));
            let size = (cell * dice.between(55, 85) as f64 / 100.0).max(4.0);
            let slack = (cell - size).max(0.0);
            let jitter = |d: &mut Dice| (slack * f64::from(d.below(101)) / 100.0).round();
            let (x, y) = (f64::from(cx) * cell + jitter(&mut dice), f64::from(cy) * cell + jitter(&mut dice));
            let rect = Rect { x0: x, y0: y, x1: x + size, y1: y + size };
            shape(&mut canvas, name, rect, colour.1);
            truth.objects.push(Object { shape: name.into(), colour: colour.0.into(), rect });
        }
        let (question, target, plan, skill) = ask(&mut dice, &truth.objects, &colours);
        let meta = vec![("skill", skill.to_owned()), ("objects", truth.objects.len().to_string())];
        Draft { canvas, truth, question, target, plan, meta }.finish(self.name(), seed, index)
    }
}

fn plural(what: &str) -> String {
    format!("{what}s")
}

fn ask(dice: &mut Dice, objects: &[Object], colours: &[Named]) -> (String, Target, Plan, &'static str) {
    // Half of the questions are about a kind that is there, so that zero is not the commonest answer.
    let (colour, shape) = match objects.get(dice.below(2 * objects.len() as u32) as usize) {
        Some(o) => (o.colour.clone(), o.shape.clone()),
        None => (dice.pick(colours).0.to_owned(), (*dice.pick(&SHAPES)).to_owned()),
    };
    let of = |c: &str, s: &str| {
        objects.iter().filter(|o| (c.is_empty() || o.colour == c) && (s.is_empty() || o.shape == s)).count()
    };
    let point = |what: &str| {
        Plan::default().call("Point at each of them.", "point", json!({"image": "img_0", "label": what}))
    };
    match dice.below(4) {
        0 => {
            let (c, s) = if dice.chance(50) { (colour.as_str(), "") } else { ("", shape.as_str()) };
            let what = if c.is_empty() { s.to_owned() } else { format!("{c} object") };
            let n = of(c, s);
            let mut plan = point(&what);
            plan.conclusion = format!("There are {n}.");
            plan.answer = n.to_string();
            let target = Target::Number { value: n as f64, tolerance: 0.0 };
            (format!("How many {} are there?", plural(&what)), target, plan, "count_one")
        }
        1 => {
            let yes = of(&colour, &shape) > 0;
            let answer = if yes { "yes" } else { "no" };
            let mut plan = point(&format!("{colour} {shape}"));
            plan.conclusion = if yes { "There is one.".into() } else { "There is none.".into() };
            plan.answer = answer.into();
            let target = Target::Text { accepted: vec![answer.into()] };
            let article = if colour == "orange" { "an" } else { "a" };
            (format!("Is there {article} {colour} {shape}? Answer yes or no."), target, plan, "exists")
        }
        2 if colours.len() > 1 => {
            let pair = dice.sample(colours, 2);
            let (a, b) = (of(pair[0].0, ""), of(pair[1].0, ""));
            let answer = if a > b {
                pair[0].0
            } else if b > a {
                pair[1].0
            } else {
                "equal"
            };
            let conclusion = format!("{a} against {b}.");
            let target = Target::Text { accepted: vec![answer.into()] };
            let question = format!(
                "Are there more {} or more {} objects? Answer with the colour, or equal.",
                pair[0].0, pair[1].0
            );
            let mut plan = Plan::default();
            for (colour, _) in pair {
                let label = format!("{colour} object");
                plan = plan.call(
                    &format!("Point at each {label}."),
                    "point",
                    json!({"image": "img_0", "label": label}),
                );
            }
            plan.conclusion = conclusion;
            plan.answer = answer.into();
            (question, target, plan, "compare")
        }
        _ => {
            let n = of(&colour, &shape);
            let what = format!("{colour} {shape}");
            let mut plan = point(&what);
            plan.conclusion = format!("There are {n}.");
            plan.answer = n.to_string();
            let target = Target::Number { value: n as f64, tolerance: 0.0 };
            (format!("How many {} are there?", plural(&what)), target, plan, "count_both")
        }
    }
}
