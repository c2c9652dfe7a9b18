//! Charts in six styles, and questions about them: value, difference, extremum, count, comparison, trend.
//!
//! Example: a bar chart of five fruits, "How many crates does Pear show?", target `Number 35 (5 %)`, plan
//! `read_axis`, `measure`. From 128 pixels on the pictures carry ticks with numbers and names; below that, axes run
//! from 0 to 10 (0 to 8 under 64 pixels) with a grid line at every second unit, and colours name things; shares of a pie are
//! multiples of 10 percent, at the level `hard` any whole percentage from 8 on (within 5 % is right then).

mod draw;
mod question;
mod spec;

use serde::{Deserialize, Serialize};

pub use draw::draw;
pub use question::Skill;
pub use spec::{Chart, Scale, Series, Style};

use crate::World;
use crate::canvas::{Canvas, WHITE};
use crate::dice::Dice;
use crate::item::{Draft, Item, Setup, WorldError};
use crate::truth::{Rect, Truth};

/// The world of charts. Empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Charts {
    /// Styles to draw.
    pub styles: Vec<Style>,
    /// Skills to ask for. Only styles that can be asked one of them are drawn, and a chart that cannot be asked what was
    /// chosen (an extremum that is not unique) is drawn again.
    pub skills: Vec<Skill>,
    /// Name bars by their colour also where words have room, and plan one `measure` per bar: a small model finds a colour
    /// long before it reads a name, while the numbers on the axis stay beyond its eyes.
    pub by_colour: bool,
}

impl World for Charts {
    fn name(&self) -> &'static str {
        "charts"
    }

    fn generate(&self, seed: u64, index: u64, setup: &Setup) -> Result<Item, WorldError> {
        let mut dice = Dice::new(self.name(), seed, index);
        let styles: &[Style] = if self.styles.is_empty() { &Style::ALL } else { &self.styles };
        let skills: &[Skill] = if self.skills.is_empty() { &Skill::ALL } else { &self.skills };
        let fitting = |style: Style| skills.iter().copied().filter(|s| s.fits(style)).collect::<Vec<Skill>>();
        let styles: Vec<Style> = styles.iter().copied().filter(|&s| !fitting(s).is_empty()).collect();
        let unasked = || WorldError::Skills {
            skills: names(skills.iter().map(|s| s.name())),
            styles: names(self.styles.iter().map(|s| s.name())),
        };
        if styles.is_empty() {
            return Err(unasked());
        }
        let style = *dice.pick(&styles);
        let mut skill = None;
        // One draw in three has no unique extremum at the worst, so a hundred draws do not happen.
        let drawn = (0..100).find_map(|_| {
            let chart = Chart::random(&mut dice, setup, style, self.by_colour);
            let (canvas, truth) = draw(&chart, setup.width, setup.height);
            // The skill is drawn once: drawing it again would ask less often for what fits fewer charts.
            let skill = *skill.get_or_insert_with(|| *dice.pick(&fitting(style)));
            let asked = question::ask(&mut dice, &chart, &truth, skill)?;
            Some((canvas, truth, asked))
        });
        let (canvas, truth, asked) = drawn.ok_or_else(unasked)?;
        let meta = vec![("style", style.name().to_owned()), ("skill", asked.skill.name().to_owned())];
        Draft { canvas, truth, question: asked.question, target: asked.target, plan: asked.plan, meta }
            .finish(self.name(), seed, index)
    }
}

fn names(all: impl Iterator<Item = &'static str>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

/// A picture of `rows` x `columns` charts, each `panel` in size, with white gaps; the truth holds the panels' boxes.
pub fn panels(seed: u64, index: u64, rows: u32, columns: u32, panel: &Setup) -> (Canvas, Truth) {
    let mut dice = Dice::new("panels", seed, index);
    let gap = (panel.width.min(panel.height) / 14).max(4);
    let (w, h) = (columns * (panel.width + gap) + gap, rows * (panel.height + gap) + gap);
    let mut canvas = Canvas::new(w, h, WHITE);
    let mut all = Truth::default();
    for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
        let style = *dice.pick(&Style::ALL);
        let (picture, truth) =
            draw(&Chart::random(&mut dice, panel, style, false), panel.width, panel.height);
        let (left, top) = (gap + column * (panel.width + gap), gap + row * (panel.height + gap));
        canvas.paste(&picture, left, top);
        let (dx, dy) = (f64::from(left), f64::from(top));
        let truth = truth.moved(dx, dy);
        all.labels.extend(truth.labels);
        all.axes.extend(truth.axes);
        all.marks.extend(truth.marks);
        let rect = Rect { x0: 0.0, y0: 0.0, x1: f64::from(panel.width), y1: f64::from(panel.height) };
        all.panels.push(rect.moved(dx, dy));
    }
    (canvas, all)
}
