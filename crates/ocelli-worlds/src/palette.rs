//! Colours with the names that questions use, far enough apart to be told from one another.

use crate::canvas::Rgb;
use crate::dice::Dice;

/// A colour and its name.
pub type Named = (&'static str, Rgb);

/// Eight colours for marks and objects.
pub const COLOURS: [Named; 8] = [
    ("red", [214, 39, 40]),
    ("blue", [31, 105, 190]),
    ("green", [44, 150, 60]),
    ("orange", [255, 140, 20]),
    ("purple", [140, 80, 190]),
    ("brown", [130, 82, 60]),
    ("pink", [236, 130, 190]),
    ("gray", [125, 125, 130]),
];

/// `n` different colours (at most eight) in random order.
pub fn some(dice: &mut Dice, n: usize) -> Vec<Named> {
    dice.sample(&COLOURS, n)
}
