//! Pattern completion: a row whose colours or shapes repeat with a period, or a square in which every row and column
//! holds each kind once; one cell is missing, and the options are given in the question.
//!
//! Example: "Which option completes the pattern? A: red circle, B: ...", target `Choice B`.

use ocelli_data::Target;

use crate::World;
use crate::canvas::{Anchor, Canvas, GRID, INK, WHITE};
use crate::counting::{SHAPES, shape};
use crate::dice::Dice;
use crate::item::{Draft, Item, Level, Plan, Setup, WorldError};
use crate::palette::{self, Named};
use crate::truth::{Label, LabelKind, Object, Rect, Truth};

/// The world of patterns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patterns;

type Kind = (Named, &'static str);

impl World for Patterns {
    fn name(&self) -> &'static str {
        "patterns"
    }

    fn generate(&self, seed: u64, index: u64, setup: &Setup) -> Result<Item, WorldError> {
        let mut dice = Dice::new(self.name(), seed, index);
        let period = match setup.level {
            Level::Easy => 2,
            Level::Medium => 3,
            Level::Hard => 4,
        };
        let square = dice.chance(50);
        let (columns, rows) = if square { (period.max(3), period.max(3)) } else { (period * 2 + 1, 1) };
        let kinds = kinds(&mut dice, if square { columns } else { period });
        // A cyclic square is a Latin square: cell (r, c) holds kind (r + c) mod n.
        let cells: Vec<Kind> = (0..rows)
            .flat_map(|r| (0..columns).map(move |c| (r, c)))
            .map(|(r, c)| kinds[(r + c) % kinds.len()])
            .collect();
        let missing = dice.below(cells.len() as u32) as usize;
        let side = (f64::from(setup.width) / columns as f64).min(f64::from(setup.height) / rows as f64);
        let left = (f64::from(setup.width) - side * columns as f64) / 2.0;
        let top = (f64::from(setup.height) - side * rows as f64) / 2.0;
        let mut canvas = Canvas::new(setup.width, setup.height, WHITE);
        let mut truth = Truth::default();
        for (i, (colour, name)) in cells.iter().enumerate() {
            let (x, y) = (left + side * (i % columns) as f64, top + side * (i / columns) as f64);
            let inner = side * 0.16;
            let rect = Rect { x0: x + inner, y0: y + inner, x1: x + side - inner, y1: y + side - inner };
            if i != missing {
                shape(&mut canvas, name, rect, colour.1);
                truth.objects.push(Object { shape: (*name).into(), colour: colour.0.into(), rect });
            } else if setup.compact() {
                canvas.rect(rect, GRID);
            } else {
                let rect = canvas.text("?", rect.centre(), side * 0.7, Anchor::Middle, INK);
                truth.labels.push(Label { text: "?".into(), kind: LabelKind::Note, rect, upwards: false });
            }
        }
        let say = |k: &Kind| format!("{} {}", k.0.0, k.1);
        let mut options: Vec<String> = kinds.iter().map(say).collect();
        let spare: Vec<String> = palette::COLOURS
            .iter()
            .flat_map(|c| SHAPES.iter().map(|s| say(&(*c, *s))))
            .filter(|o| !options.contains(o))
            .collect();
        options.extend(dice.sample(&spare, 4usize.saturating_sub(options.len())));
        dice.shuffle(&mut options);
        let gold = say(&cells[missing]);
        let at = options.iter().position(|o| *o == gold).unwrap_or(0);
        let letter = |i: usize| char::from(b'A' + i as u8).to_string();
        let listed: Vec<String> =
            options.iter().enumerate().map(|(i, o)| format!("{}: {o}", letter(i))).collect();
        let question = format!("Which option completes the pattern? {}", listed.join(", "));
        let plan = Plan::direct(format!("The missing cell is a {gold}."), letter(at));
        let target = Target::Choice { letters: vec![letter(at)], options };
        let meta = vec![
            ("layout", if square { "square" } else { "row" }.to_owned()),
            ("period", period.to_string()),
        ];
        Draft { canvas, truth, question, target, plan, meta }.finish(self.name(), seed, index)
    }
}

/// `n` kinds that differ from one another, at least in colour or in shape.
fn kinds(dice: &mut Dice, n: usize) -> Vec<Kind> {
    let colours = palette::some(dice, n);
    let shapes = dice.sample(&SHAPES, n.min(SHAPES.len()));
    match dice.below(3) {
        0 => colours.into_iter().map(|c| (c, shapes[0])).collect(),
        1 if n <= SHAPES.len() => shapes.iter().map(|s| (colours[0], *s)).collect(),
        _ => colours.into_iter().enumerate().map(|(i, c)| (c, shapes[i % shapes.len()])).collect(),
    }
}
