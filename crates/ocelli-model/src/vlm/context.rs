//! A dialogue as the model takes it: token ids, and the pictures with the rows that they fill.
//!
//! Rows of a picture are those that were reserved for it when the dialogue was written. They are never searched for
//! afterwards: a policy may sample the placeholder token itself, and that is a token like any other.

use std::ops::Range;
use std::sync::Arc;

use ocelli_data::{ContentHash, SpanKind, Trajectory};

use crate::ModelError;
use crate::image::ImagePatches;
use crate::text::Positions;

/// A picture and the rows that its features fill.
#[derive(Clone, Debug)]
pub struct ImageSpan {
    /// Hash of the encoded file.
    pub hash: ContentHash,
    /// The picture, cut and normalised.
    pub patches: Arc<ImagePatches>,
    /// Rows of the placeholders; as many as the picture has tokens.
    pub rows: Range<usize>,
}

/// Token ids with the pictures among them.
#[derive(Clone, Debug, Default)]
pub struct Context {
    ids: Vec<u32>,
    images: Vec<ImageSpan>,
}

/// The tokens that stand for a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// Repeated once for every feature.
    pub(crate) token: u32,
    /// Written before and after the run where the chat template does not do so itself (InternVL).
    pub(crate) around: Option<[u32; 2]>,
}

impl Context {
    /// Token ids, placeholders expanded.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The pictures in order.
    pub fn images(&self) -> &[ImageSpan] {
        &self.images
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True for a context without tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Appends tokens without pictures: what the policy sampled.
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
    }

    /// Forgets all tokens from `len` on.
    ///
    /// # Errors
    /// The cut goes through a picture.
    pub fn truncate(&mut self, len: usize) -> Result<(), ModelError> {
        if let Some(image) = self.images.iter().find(|i| (i.rows.start + 1..i.rows.end).contains(&len)) {
            let why = format!("a context cannot be cut at {len}, inside the picture at {:?}", image.rows);
            return Err(ModelError::Request(why));
        }
        self.ids.truncate(len);
        self.images.retain(|i| i.rows.end <= len);
        Ok(())
    }

    /// The same tokens with other pictures in the same rows.
    pub(crate) fn with_images(&self, change: impl FnMut(&ImageSpan) -> ImageSpan) -> Self {
        Self { ids: self.ids.clone(), images: self.images.iter().map(change).collect() }
    }

    /// Appends tokens in which each placeholder stands for the next picture, and expands the placeholders.
    pub(crate) fn push_written(
        &mut self,
        ids: &[u32],
        placeholder: Option<Placeholder>,
        images: &[(ContentHash, Arc<ImagePatches>)],
    ) -> Result<Range<usize>, ModelError> {
        let start = self.ids.len();
        let placeholders = ids.iter().filter(|id| placeholder.is_some_and(|p| p.token == **id)).count();
        if placeholders != images.len() {
            return Err(ModelError::Placeholders { placeholders, images: images.len() });
        }
        let mut next = images.iter();
        for &id in ids {
            match placeholder {
                Some(p) if p.token == id => {
                    let Some((hash, patches)) = next.next() else { continue };
                    self.ids.extend(p.around.map(|a| a[0]));
                    let rows = self.ids.len()..self.ids.len() + patches.tokens;
                    self.ids.resize(rows.end, id);
                    self.images.push(ImageSpan { hash: *hash, patches: patches.clone(), rows });
                    self.ids.extend(p.around.map(|a| a[1]));
                }
                _ => self.ids.push(id),
            }
        }
        Ok(start..self.ids.len())
    }

    /// The context that a trajectory was sampled in and went on with: its own ids, with its pictures where their
    /// placeholders stand outside what was sampled.
    pub(crate) fn of_trajectory(
        t: &Trajectory,
        placeholder: Option<Placeholder>,
        images: &[(ContentHash, Arc<ImagePatches>)],
    ) -> Result<Self, ModelError> {
        let mut spans = Vec::new();
        let (mut at, mut rest) = (0, images.iter());
        for span in &t.spans {
            let end = at + span.len;
            if span.kind == SpanKind::Sampled {
                at = end;
            }
            while at < end {
                let here = t.ids.get(at).copied();
                if here.is_none() || here != placeholder.map(|p| p.token) {
                    at += 1;
                    continue;
                }
                let Some((hash, patches)) = rest.next() else {
                    let placeholders = images.len() + 1;
                    return Err(ModelError::Placeholders { placeholders, images: images.len() });
                };
                let rows = at..at + patches.tokens;
                let found = t.ids[at..end.min(t.ids.len())].iter().take(patches.tokens);
                let found = found.take_while(|id| Some(**id) == here).count();
                if found != patches.tokens {
                    let features = patches.tokens;
                    return Err(ModelError::ImageTokens { hash: *hash, placeholders: found, features });
                }
                at = rows.end;
                spans.push(ImageSpan { hash: *hash, patches: patches.clone(), rows });
            }
        }
        if at != t.ids.len() {
            let why = format!("spans cover {at} tokens of {}", t.ids.len());
            return Err(ModelError::Request(format!("trajectory {}: {why}", t.sample_id)));
        }
        if rest.next().is_some() {
            return Err(ModelError::Placeholders { placeholders: spans.len(), images: images.len() });
        }
        Ok(Self { ids: t.ids.clone(), images: spans })
    }

    /// Positions of all rows. Multimodal (Qwen2-VL, section 2.1): text counts on in time, height and width alike; a
    /// picture stands still in time while its tokens count rows and columns, and takes as many positions as its longer
    /// side has tokens.
    pub(crate) fn positions(&self, merge: Option<usize>) -> Positions {
        let Some(merge) = merge else { return Positions::Linear((0..self.len()).collect()) };
        let mut axes: [Vec<f32>; 3] = std::array::from_fn(|_| Vec::with_capacity(self.len()));
        let (mut next, mut row) = (0, 0);
        let text = |axes: &mut [Vec<f32>; 3], from: usize, n: usize| {
            for axis in axes {
                axis.extend((from..from + n).map(|p| p as f32));
            }
        };
        for image in &self.images {
            text(&mut axes, next, image.rows.start - row);
            next += image.rows.start - row;
            for grid in &image.patches.grids {
                let (h, w) = (grid.h / merge, grid.w / merge);
                for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                    axes[0].push(next as f32);
                    axes[1].push((next + y) as f32);
                    axes[2].push((next + x) as f32);
                }
                next += h.max(w);
            }
            row = image.rows.end;
        }
        text(&mut axes, next, self.len() - row);
        Positions::Multimodal(axes)
    }

    /// Position of the token after the last.
    pub(crate) fn next_position(&self, merge: Option<usize>) -> usize {
        let Some(merge) = merge else { return self.len() };
        let saved = self.images.iter().map(|i| {
            let taken: usize = i.patches.grids.iter().map(|g| (g.h / merge).max(g.w / merge)).sum();
            i.rows.len() - taken
        });
        self.len() - saved.sum::<usize>()
    }
}
