//! Pictures and dialogues for the tests of this binary.

use std::collections::HashMap;
use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use ocelli_data::{ContentHash, Message, Part};
use ocelli_model::vlm::tiny::{TinyConfig, TinyVision};
use ocelli_model::{ChatOptions, Vlm, vlm::Context};

pub(crate) type Album = HashMap<ContentHash, Vec<u8>>;

/// A PNG with edges, colours and some noise, different for every seed.
pub(crate) fn png(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let stripe = (x / 5 + y / 3 + seed) % 2;
        let level = |c: u32| ((x * 7 + y * 13 + c * 60 + seed * 31 + stripe * 90) % 256) as u8;
        Rgb([level(0), level(1), level(2)])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Puts pictures into an album and returns their names.
pub(crate) fn album(pictures: &[Vec<u8>]) -> (Album, Vec<ContentHash>) {
    let hashes: Vec<ContentHash> = pictures.iter().map(|p| ContentHash::of(p)).collect();
    (hashes.iter().copied().zip(pictures.iter().cloned()).collect(), hashes)
}

/// The smallest native model that has every part: two blocks each, pictures of 4 to 16 tokens.
pub(crate) fn small() -> Vlm {
    let vision = TinyVision {
        patch: 4,
        width: 16,
        depth: 2,
        heads: 2,
        mlp: 24,
        side: 4,
        min_pixels: 16 * 16,
        max_pixels: 32 * 32,
    };
    let config = TinyConfig {
        vision,
        width: 24,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 12,
        mlp: 32,
        context: 256,
    };
    Vlm::tiny(&config, 3).unwrap()
}

/// A question with pictures first.
pub(crate) fn ask(vlm: &Vlm, album: &Album, hashes: &[ContentHash], question: &str) -> Context {
    let content = hashes.iter().map(|h| Part::image(*h)).chain([Part::text(question)]);
    vlm.prompt(&[Message::user(content)], &ChatOptions::prompt(), album).unwrap()
}
