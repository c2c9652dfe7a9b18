//! Procedural task worlds with exact ground truth: charts, geometry, counting, paths, patterns; and readers of real
//! sets (PuzzleVQA, easy-VQA, GSM8K) that speak the same language.
//!
//! Every drawn item is a function of `(world, seed, index, setup)` and its bytes are the same on every machine.
//!
//! ```
//! use ocelli_worlds::{Level, Setup, World, charts::Charts};
//!
//! let setup = Setup::new(448, 336, Level::Medium)?;
//! let item = Charts::default().generate(7, 0, &setup)?;
//! assert_eq!(item.sample.id, "charts/7/0");
//! assert_eq!(item.pictures[0].bytes, Charts::default().generate(7, 0, &setup)?.pictures[0].bytes);
//! assert_eq!(item.plan.answer, item.sample.target.gold_text());
//! # Ok::<(), ocelli_worlds::WorldError>(())
//! ```

pub mod canvas;
pub mod charts;
pub mod counting;
mod dice;
mod font;
pub mod geometry;
mod item;
pub mod palette;
pub mod paths;
pub mod patterns;
pub mod readings;
pub mod real;
pub mod truth;

pub use dice::Dice;
pub use item::{Item, Level, Picture, Plan, Setup, Step, WorldError, encode_png};
pub use truth::Truth;

/// A source of items.
pub trait World: Send + Sync {
    /// Name, also the first part of every sample's identifier.
    fn name(&self) -> &'static str;

    /// Makes item `index`. Different seeds give unrelated items, so that training and test sets use different seeds.
    fn generate(&self, seed: u64, index: u64, setup: &Setup) -> Result<Item, WorldError>;
}

/// Names of the drawn worlds.
pub const WORLDS: [&str; 5] = ["charts", "counting", "geometry", "paths", "patterns"];

/// The drawn world of that name with its default configuration.
pub fn world(name: &str) -> Result<Box<dyn World>, WorldError> {
    Ok(match name {
        "charts" => Box::new(charts::Charts::default()),
        "counting" => Box::new(counting::Counting),
        "geometry" => Box::new(geometry::Geometry),
        "paths" => Box::new(paths::Paths),
        "patterns" => Box::new(patterns::Patterns),
        _ => return Err(WorldError::Unknown { name: name.into(), known: WORLDS.join(", ") }),
    })
}
