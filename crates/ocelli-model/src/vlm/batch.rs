//! Contexts packed into one forward pass, prompts shared.
//!
//! ```text
//! two answers a, b to one prompt p:   rows  p0 p1 p2 | a3 a4 | b3 b4 b5      (the prompt once, whatever the group's size)
//! ```
//!
//! Rows of a continuation see the whole prompt and themselves, at the positions that they would have alone, so that every
//! number is the same as without sharing; a test holds that.

use ocelli_tensor::{PrefixGroup, SeqLayout};

use super::Context;
use super::context::ImageSpan;
use crate::ModelError;
use crate::text::Positions;

/// Contexts, packed.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: Positions,
    pub(crate) layout: SeqLayout,
    pub(crate) images: Vec<ImageSpan>,
    sequences: Vec<Sequence>,
}

/// Where the tokens of a context lie in the batch.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    prefix: usize,
    prefix_row: usize,
    own_row: usize,
    len: usize,
}

/// Contexts that begin alike.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The contexts, whole.
    pub contexts: Vec<&'a Context>,
    /// Tokens at their beginning that are the same in all of them: the prompt.
    pub shared: usize,
}

impl<'a> Group<'a> {
    /// A context by itself.
    pub fn single(context: &'a Context) -> Self {
        Self { contexts: vec![context], shared: 0 }
    }
}

impl Batch {
    /// Packs groups; sequences are numbered in the order of groups and of contexts inside them. `merge` is given for
    /// multimodal positions.
    pub(crate) fn pack(groups: &[Group<'_>], merge: Option<usize>) -> Result<Self, ModelError> {
        let mut batch = Self {
            ids: Vec::new(),
            positions: if merge.is_some() {
                Positions::Multimodal(Default::default())
            } else {
                Positions::Linear(Vec::new())
            },
            layout: SeqLayout::causal(&[]),
            images: Vec::new(),
            sequences: Vec::new(),
        };
        let mut layout = Vec::with_capacity(groups.len());
        for group in groups {
            let Some(first) = group.contexts.first() else { continue };
            check_shared(group)?;
            let prefix_row = batch.ids.len();
            batch.take(first, 0..group.shared, merge);
            let mut continuations = Vec::with_capacity(group.contexts.len());
            for context in &group.contexts {
                let own_row = batch.ids.len();
                batch.take(context, group.shared..context.len(), merge);
                continuations.push(context.len() - group.shared);
                let (prefix, len) = (group.shared, context.len());
                batch.sequences.push(Sequence { prefix, prefix_row, own_row, len });
            }
            layout.push(PrefixGroup { prefix: group.shared, continuations });
        }
        batch.layout = SeqLayout::shared_prefix(&layout);
        Ok(batch)
    }

    fn take(&mut self, context: &Context, tokens: std::ops::Range<usize>, merge: Option<usize>) {
        let shift = |row: usize| row - tokens.start + self.ids.len();
        for image in context.images().iter().filter(|i| tokens.contains(&i.rows.start)) {
            let rows = shift(image.rows.start)..shift(image.rows.end);
            self.images.push(ImageSpan { rows, ..image.clone() });
        }
        self.ids.extend_from_slice(&context.ids()[tokens.clone()]);
        match (&mut self.positions, context.positions(merge)) {
            (Positions::Linear(all), Positions::Linear(new)) => all.extend_from_slice(&new[tokens]),
            (Positions::Multimodal(all), Positions::Multimodal(new)) => {
                for (all, new) in all.iter_mut().zip(new) {
                    all.extend_from_slice(&new[tokens.clone()]);
                }
            }
            // Both come from the same `merge`.
            _ => {}
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Row of token `t` of sequence `s`; the rows of a shared prompt belong to several sequences.
    ///
    /// # Errors
    /// There is no such token.
    pub fn row(&self, s: usize, t: usize) -> Result<usize, ModelError> {
        match self.sequences.get(s) {
            Some(q) if t < q.prefix => Ok(q.prefix_row + t),
            Some(q) if t < q.len => Ok(q.own_row + t - q.prefix),
            _ => Err(ModelError::Request(format!(
                "token {t} of sequence {s} is asked for; the batch has {} sequences{}",
                self.sequences.len(),
                self.sequences.get(s).map_or(String::new(), |q| format!(", this one with {} tokens", q.len))
            ))),
        }
    }

    /// Rows from which the given tokens (by their place `1..` in sequence `s`) are predicted, and the tokens: what
    /// [`super::Vlm::logprobs`] takes.
    ///
    /// # Errors
    /// A token does not exist, or is the first of its sequence, which nothing predicts.
    pub fn predictions(
        &self,
        s: usize,
        tokens: impl IntoIterator<Item = usize>,
    ) -> Result<(Vec<usize>, Vec<u32>), ModelError> {
        let mut out = (Vec::new(), Vec::new());
        for t in tokens {
            if t == 0 {
                return Err(ModelError::Request("the first token of a sequence is not predicted".into()));
            }
            out.0.push(self.row(s, t - 1)?);
            out.1.push(self.ids[self.row(s, t)?]);
        }
        Ok(out)
    }
}

/// The shared tokens and pictures are indeed the same.
fn check_shared(group: &Group<'_>) -> Result<(), ModelError> {
    let n = group.shared;
    let images = |c: &Context| -> Vec<_> {
        c.images().iter().filter(|i| i.rows.start < n).map(|i| (i.hash, i.rows.clone())).collect()
    };
    for (i, context) in group.contexts.iter().enumerate() {
        let first = group.contexts[0];
        let reaches =
            context.len() >= n && context.images().iter().all(|i| i.rows.start >= n || i.rows.end <= n);
        if !reaches || context.ids()[..n] != first.ids()[..n] || images(context) != images(first) {
            let why = format!(
                "sequence {i} of a group does not begin with the {n} tokens and pictures of the first"
            );
            return Err(ModelError::Request(why));
        }
    }
    Ok(())
}
