//! Questions with their pictures: `questions.jsonl` and the run's store of pictures.

use std::io::Cursor;

use anyhow::Context;
use image::{DynamicImage, ImageFormat, Luma};
use ocelli_data::io::write_jsonl;
use ocelli_data::{ContentHash, Part, Sample};
use serde::{Deserialize, Serialize};

use super::{Ended, Lab};
use crate::pipeline::config::Questions;

/// A row of `questions.jsonl`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Question {
    pub(super) sample: Sample,
    /// The oracle's conclusion and answer, where the source has them.
    #[serde(default)]
    pub(super) oracle: Option<(String, String)>,
}

pub(super) fn run(lab: &Lab<'_>, name: &str, stage: &Questions) -> anyhow::Result<Ended> {
    let data = stage.from.load()?;
    anyhow::ensure!(
        !data.questions.is_empty(),
        "the source holds no question; `from` must name questions, not trajectories or pairs"
    );
    let mut rows = Vec::with_capacity(data.questions.len());
    for (mut sample, oracle) in data.questions {
        if stage.text_only {
            sample.messages.iter_mut().for_each(|m| m.content.retain(|p| !matches!(p, Part::Image { .. })));
        }
        for part in sample.messages.iter_mut().flat_map(|m| &mut m.content) {
            let Part::Image { hash } = part else { continue };
            let bytes = data.pictures.get(hash).with_context(|| {
                format!("sample {}: picture {} is not among those that were read", sample.id, hash.short())
            })?;
            *hash = match stage.blank {
                false => lab.blobs.put(bytes)?,
                true => lab.blobs.put(&blank(bytes, *hash)?)?,
            };
        }
        rows.push(Question { sample, oracle });
    }
    write_jsonl(&lab.store.dir(name).join("questions.jsonl"), &rows)?;
    Ended::done(format!("{} questions", rows.len()))
}

/// A grey picture of the same size, as PNG.
fn blank(bytes: &[u8], hash: ContentHash) -> anyhow::Result<Vec<u8>> {
    let size = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_dimensions();
    let (width, height) = size.with_context(|| format!("picture {} cannot be read", hash.short()))?;
    anyhow::ensure!(
        u64::from(width) * u64::from(height) <= 64 << 20,
        "picture {} has {width}x{height} pixels; blank pictures are made up to 64 million",
        hash.short()
    );
    let grey = DynamicImage::ImageLuma8(image::ImageBuffer::from_pixel(width, height, Luma([128])));
    let mut out = Cursor::new(Vec::new());
    grey.write_to(&mut out, ImageFormat::Png)?;
    Ok(out.into_inner())
}
