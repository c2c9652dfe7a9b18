//! Does the model look? The commonest silent failure of training on pictures is a model that never sees them: features
//! dropped on the way, placeholders embedded as text, a picture of another sample. The loss falls all the same.
//!
//! The test compares the log-probability of an answer with the picture and with a grey one of the same size.

use std::ops::Range;
use std::sync::Arc;

use ocelli_data::ContentHash;
use ocelli_tensor::Tape;

use super::{Context, Group, ImageSpan, Vlm};
use crate::ModelError;
use crate::image::ImagePatches;

/// Log-probabilities of the same answer, summed over its tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sensitivity {
    /// With the pictures.
    pub seen: f64,
    /// With grey ones in their place.
    pub blank: f64,
}

impl Sensitivity {
    /// How much the pictures add to the log-probability.
    pub fn gain(&self) -> f64 {
        self.seen - self.blank
    }
}

impl Vlm {
    /// Log-probability of the tokens `answer` of a context, with its pictures and with grey ones.
    ///
    /// # Errors
    /// The context has no picture, or the answer is empty or begins at the first token.
    pub fn image_sensitivity(
        &self,
        context: &Context,
        answer: Range<usize>,
    ) -> Result<Sensitivity, ModelError> {
        if context.images().is_empty() || answer.is_empty() {
            let why = "the image-sensitivity test needs a context with a picture and an answer of at least one token";
            return Err(ModelError::Request(why.into()));
        }
        let grey = context.with_images(|image| {
            // Zero is the mean level of the family's training pictures.
            let pixels = vec![0.0; image.patches.pixels.len()];
            let patches = Arc::new(ImagePatches { pixels, ..(*image.patches).clone() });
            let hash = ContentHash::of(format!("grey picture like {}", image.hash).as_bytes());
            ImageSpan { hash, patches, rows: image.rows.clone() }
        });
        Ok(Sensitivity {
            seen: self.answer_logprob(context, &answer)?,
            blank: self.answer_logprob(&grey, &answer)?,
        })
    }

    /// As [`Vlm::image_sensitivity`], and an error when the two differ by no more than `least`: 1e-4 tells a seeing model from
    /// rounding.
    pub fn assert_sees(
        &self,
        context: &Context,
        answer: Range<usize>,
        least: f64,
    ) -> Result<Sensitivity, ModelError> {
        let found = self.image_sensitivity(context, answer)?;
        // Not `<=`: a NaN must fail.
        if found.gain().abs() > least {
            Ok(found)
        } else {
            Err(ModelError::Blind { seen: found.seen, blank: found.blank })
        }
    }

    fn answer_logprob(&self, context: &Context, answer: &Range<usize>) -> Result<f64, ModelError> {
        let batch = self.pack(&[Group::single(context)])?;
        let (rows, targets) = batch.predictions(0, answer.clone())?;
        let mut tape = Tape::inference(&self.params);
        let hidden = self.hidden(&mut tape, &batch, false)?;
        let logprobs = self.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0)?;
        Ok(logprobs.logprob.value().to_vec().into_iter().map(f64::from).sum())
    }
}
