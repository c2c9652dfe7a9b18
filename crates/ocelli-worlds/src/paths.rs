//! Path tracing: strands run from the left to the right side and cross; where does the one that starts at a given
//! end arrive? Ends carry letters and numbers, or colours where the picture is too small for words.
//!
//! Example: "Follow the line that starts at B. Which number does it reach?", target `Text 3`.

use ocelli_data::Target;

use crate::World;
use crate::canvas::{Anchor, Canvas, INK, WHITE};
use crate::dice::Dice;
use crate::item::{Draft, Item, Level, Plan, Setup, WorldError};
use crate::palette;
use crate::truth::{Label, LabelKind, Object, Rect, Truth};

/// The world of crossing paths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paths;

impl World for Paths {
    fn name(&self) -> &'static str {
        "paths"
    }

    fn generate(&self, seed: u64, index: u64, setup: &Setup) -> Result<Item, WorldError> {
        let mut dice = Dice::new(self.name(), seed, index);
        let (n, least) = match (setup.level, setup.compact()) {
            // Two strands cross once or twice: were it always twice, each would arrive where it set out.
            (Level::Easy, _) => (2, 1),
            (Level::Medium, true) => (3, 2),
            (Level::Medium, false) => (4, 4),
            (Level::Hard, true) => (4, 3),
            (Level::Hard, false) => (5, 6),
        };
        let layers = least + dice.below(2) as usize;
        let (w, h) = (f64::from(setup.width), f64::from(setup.height));
        let mut canvas = Canvas::new(setup.width, setup.height, WHITE);
        let mut truth = Truth::default();
        // Each layer permutes the lanes; strand i is at lane lanes[k][i] in layer k.
        let mut lanes: Vec<Vec<usize>> = vec![(0..n).collect()];
        for _ in 0..layers {
            let mut next = lanes.last().cloned().unwrap_or_default();
            let i = dice.below(n as u32 - 1) as usize;
            next.iter_mut().for_each(|l| {
                *l = if *l == i {
                    i + 1
                } else if *l == i + 1 {
                    i
                } else {
                    *l
                }
            });
            lanes.push(next);
        }
        let margin = w * 0.14;
        let y_of = |lane: usize| h * (lane as f64 + 0.5) / n as f64;
        let x_of = |layer: f64| margin + (w - 2.0 * margin) * layer / layers as f64;
        let thick = (w.min(h) / 110.0).max(1.0);
        for i in 0..n {
            let mut points = Vec::new();
            for (k, pair) in lanes.windows(2).enumerate() {
                let (y0, y1) = (y_of(pair[0][i]), y_of(pair[1][i]));
                // Smooth step, so that strands cross at an angle and do not merge.
                points.extend((0..=16).map(|s| {
                    let t = f64::from(s) / 16.0;
                    (x_of(k as f64 + t), y0 + (y1 - y0) * t * t * (3.0 - 2.0 * t))
                }));
            }
            canvas.polyline(&points, thick, INK);
        }
        let colours = palette::some(&mut dice, n);
        let mut right: Vec<usize> = (0..n).collect();
        dice.shuffle(&mut right);
        let start = dice.below(n as u32) as usize;
        let end_lane = lanes.last().map_or(0, |l| l[start]);
        let (question, answer) = if setup.compact() {
            let radius = (h / n as f64 * 0.3).min(margin * 0.42).max(2.0);
            let mut dot = |x: f64, lane: usize, colour: palette::Named| {
                let y = y_of(lane);
                canvas.disc((x, y), radius, colour.1);
                let rect = Rect { x0: x - radius, y0: y - radius, x1: x + radius, y1: y + radius };
                truth.objects.push(Object { shape: "circle".into(), colour: colour.0.into(), rect });
            };
            for lane in 0..n {
                dot(margin * 0.5, lane, colours[lane]);
                dot(w - margin * 0.5, lane, colours[right[lane]]);
            }
            let question = format!(
                "Follow the line from the {} dot on the left. What colour is the dot at its other end?",
                colours[start].0
            );
            (question, colours[right[end_lane]].0.to_owned())
        } else {
            let px = (h / 16.0).clamp(11.0, 34.0);
            let mut note = |text: String, x: f64, lane: usize| {
                let rect = canvas.text(&text, (x, y_of(lane)), px, Anchor::Middle, INK);
                truth.labels.push(Label { text, kind: LabelKind::Note, rect, upwards: false });
            };
            let letter = |i: usize| char::from(b'A' + i as u8).to_string();
            for lane in 0..n {
                note(letter(lane), margin * 0.5, lane);
                note((right[lane] + 1).to_string(), w - margin * 0.5, lane);
            }
            let question =
                format!("Follow the line that starts at {}. Which number does it reach?", letter(start));
            (question, (right[end_lane] + 1).to_string())
        };
        let plan = Plan::direct(format!("The line ends at {answer}."), answer.clone());
        let target = Target::Text { accepted: vec![answer] };
        let meta = vec![("strands", n.to_string()), ("crossings", layers.to_string())];
        Draft { canvas, truth, question, target, plan, meta }.finish(self.name(), seed, index)
    }
}
