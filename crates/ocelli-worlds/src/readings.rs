//! Readings without a picture: a number as a tool's reply writes it, to be said again. A dialogue of twenty tokens that
//! teaches a small model to copy, at a fraction of what a dialogue with picture and call costs.
//!
//! ```
//! let item = ocelli_worlds::readings::reading(1, 0);
//! assert_eq!(item.sample.messages[0].plain_text(), format!("{} %", item.plan.answer));
//! ```

use ocelli_data::{Message, Part, Sample, Target};
use serde_json::Map;

use crate::dice::Dice;
use crate::item::{Item, Plan};
use crate::truth::Truth;

/// Item `index`: a whole number from 1 to 99 with a percent sign, as `measure` replies for a share; the answer is the number.
pub fn reading(seed: u64, index: u64) -> Item {
    let mut dice = Dice::new("readings", seed, index);
    let number = dice.between(1, 99);
    let sample = Sample {
        id: format!("readings/{seed}/{index}"),
        messages: vec![Message::user([Part::text(format!("{number} %"))])],
        target: Target::Number { value: number as f64, tolerance: 0.0 },
        meta: Map::from_iter([("skill".to_owned(), "reading".into())]),
    };
    Item {
        sample,
        pictures: Vec::new(),
        truth: Truth::default(),
        plan: Plan::direct(String::new(), number.to_string()),
    }
}
