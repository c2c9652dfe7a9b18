//! Readings without a picture: a number as a tool's reply writes it, or a colour as a question names it, to be said again. A
//! dialogue of fourteen tokens that teaches a small model to copy, at a fraction of what a dialogue with picture and call
//! costs.
//!
//! ```
//! for index in 0..20 {
//!     let item = ocelli_worlds::readings::reading(1, index);
//!     assert!(item.sample.messages[0].plain_text().contains(&item.plan.answer));
//! }
//! ```

use ocelli_data::{Message, Part, Sample, Target};
use serde_json::Map;

use crate::dice::Dice;
use crate::item::{Item, Plan};
use crate::palette::COLOURS;
use crate::truth::Truth;

/// Item `index`: in one of two a whole number from 1 to 99 with a percent sign, as `measure` replies for a share, else "the red
/// sector"; the answer is the number or the colour.
pub fn reading(seed: u64, index: u64) -> Item {
    let mut dice = Dice::new("readings", seed, index);
    let (text, answer, target) = if dice.chance(50) {
        let n = dice.between(1, 99);
        (format!("{n} %"), n.to_string(), Target::Number { value: n as f64, tolerance: 0.0 })
    } else {
        let colour = dice.pick(&COLOURS).0;
        let target = Target::Text { accepted: vec![colour.to_owned()] };
        (format!("the {colour} sector"), colour.to_owned(), target)
    };
    let sample = Sample {
        id: format!("readings/{seed}/{index}"),
        messages: vec![Message::user([Part::text(text)])],
        target,
        meta: Map::from_iter([("skill".to_owned(), "reading".into())]),
    };
    Item { sample, pictures: Vec::new(), truth: Truth::default(), plan: Plan::direct(String::new(), answer) }
}
