//! One HTML file that shows trajectories with their images, calls, timings and scores. It needs no server, no network
//! and no other file; it opens on a phone and prints with everything unfolded.
//!
//! Each image is embedded once, however many trajectories show it, and is drawn when its trajectory is unfolded.

mod escape;
mod page;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_data::{ContentHash, Trajectory};

use crate::episode::Ended;

/// Bounds and title of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewerConfig {
    /// Heading.
    pub title: String,
    /// A line below it: what was run, with what.
    pub subtitle: String,
    /// Most trajectories on the page; the rest is counted and said to be left out.
    pub max_trajectories: usize,
    /// Most bytes of encoded images; later ones are replaced by a note.
    pub max_image_bytes: usize,
}

impl Default for ViewerConfig {
    fn default() -> Self {
        Self {
            title: "Trajectories".into(),
            subtitle: String::new(),
            max_trajectories: 1000,
            max_image_bytes: 48 << 20,
        }
    }
}

/// Writes the page. `image` gives the bytes of a picture, where they can be had.
pub fn render(
    rows: &[Ended],
    config: &ViewerConfig,
    image: &dyn Fn(ContentHash) -> Option<Arc<[u8]>>,
) -> String {
    let shown = &rows[..rows.len().min(config.max_trajectories)];
    let mut images = Images { bytes: 0, limit: config.max_image_bytes, data: BTreeMap::new(), load: image };
    let mut cards = String::new();
    for row in shown {
        page::card(&mut cards, row, &mut images);
    }
    let mut out = String::with_capacity(cards.len() + images.bytes * 4 / 3 + (32 << 10));
    page::head(&mut out, rows, shown.len(), config);
    out.push_str(&cards);
    page::foot(&mut out, &images.data);
    out
}

/// Images of the page, each once.
struct Images<'a> {
    bytes: usize,
    limit: usize,
    data: BTreeMap<ContentHash, String>,
    load: &'a dyn Fn(ContentHash) -> Option<Arc<[u8]>>,
}

impl Images<'_> {
    /// True where the page has the image.
    fn embed(&mut self, hash: ContentHash) -> bool {
        if self.data.contains_key(&hash) {
            return true;
        }
        let Some(bytes) = (self.load)(hash) else { return false };
        let Some(kind) = kind(&bytes) else { return false };
        if self.bytes + bytes.len() > self.limit {
            return false;
        }
        self.bytes += bytes.len();
        self.data.insert(hash, format!("data:{kind};base64,{}", STANDARD.encode(&bytes)));
        true
    }
}

/// Kind of an encoded image by its first bytes; nothing else may enter the page as an image.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [b'B', b'M', ..] => Some("image/bmp"),
        _ => None,
    }
}

/// Mean of a scorer over rows where it ran, with unscored rows as 0, and how many rows it has.
fn mean_score(rows: &[&Trajectory], name: &str) -> (f64, usize) {
    let values: Vec<f64> =
        rows.iter().filter_map(|t| t.score(name)).map(ocelli_data::Score::or_zero).collect();
    (values.iter().sum::<f64>() / values.len().max(1) as f64, values.len())
}
