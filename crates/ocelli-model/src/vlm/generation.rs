//! What a generation engine reads. Features are computed here, once for a prompt, whatever the number of answers.

use ocelli_tensor::Tape;

use super::{Context, ImageSpan, Vlm, unique_images};
use crate::ModelError;
use crate::generate::{Engine, EngineLimits, MropePositions, Prompt, Splice};
use crate::text::Positions;

impl Vlm {
    /// What a generation engine reads: the tokens of a context from `from` on, with the features of the pictures among
    /// them. 0 for a prompt; for the next turn of a sequence, the row at which what is new begins.
    ///
    /// # Errors
    /// `from` lies inside a picture or behind the end.
    pub fn generation_prompt(&self, context: &Context, from: usize) -> Result<Prompt, ModelError> {
        let mut prompts = self.read_from(&[(context, from)])?;
        prompts.pop().ok_or_else(|| ModelError::Request("no context".into()))
    }

    /// Prompts of several contexts; their pictures go through the tower together.
    pub fn generation_prompts(&self, contexts: &[Context]) -> Result<Vec<Prompt>, ModelError> {
        self.read_from(&contexts.iter().map(|c| (c, 0)).collect::<Vec<_>>())
    }

    fn read_from(&self, parts: &[(&Context, usize)]) -> Result<Vec<Prompt>, ModelError> {
        let mut images: Vec<&ImageSpan> = Vec::new();
        for (context, from) in parts {
            self.check_room(context)?;
            let inside = context.images().iter().any(|i| i.rows.start < *from && *from < i.rows.end);
            if *from > context.len() || inside {
                let why = format!("a context of {} tokens cannot be read from {from} on", context.len());
                return Err(ModelError::Request(why));
            }
            images.extend(context.images().iter().filter(|i| i.rows.start >= *from));
        }
        let (unique, first_rows) = unique_images(&images);
        let mut tape = Tape::inference(&self.params);
        let features =
            if images.is_empty() { Vec::new() } else { self.eyes()?.features(&mut tape, &unique)? };
        let mut first_rows = first_rows.into_iter();
        let mut prompts = Vec::with_capacity(parts.len());
        for (context, from) in parts {
            let mut splices = Vec::new();
            for (image, first) in
                context.images().iter().filter(|i| i.rows.start >= *from).zip(&mut first_rows)
            {
                let rows = first..first + image.patches.tokens;
                let mut levels = features.iter().map(|f| f.value().slice_rows(rows.clone()));
                let Some(own) = levels.next() else { continue };
                let deep = levels.collect::<Result<_, _>>()?;
                splices.push(Splice { at: image.rows.start - from, rows: own?, deep });
            }
            let positions = self.positions_from(context, *from);
            prompts.push(Prompt { ids: context.ids()[*from..].to_vec(), splices, positions });
        }
        Ok(prompts)
    }

    /// The dialogue leaves room for an answer; checked before any picture goes through the tower.
    fn check_room(&self, context: &Context) -> Result<(), ModelError> {
        let most = self.text.config().context();
        if context.len() < most {
            return Ok(());
        }
        let pictures = context.images().len();
        let of_pictures: usize = context.images().iter().map(|i| i.rows.len()).sum();
        let whose = match pictures {
            0 => String::new(),
            1 => format!(", {of_pictures} of them for 1 picture"),
            n => format!(", {of_pictures} of them for {n} pictures"),
        };
        Err(ModelError::Request(format!(
            "the dialogue takes {} tokens{whose}, and the model's context is {most}: there is no room for an answer. {}",
            context.len(),
            if pictures > 0 { "Show fewer or smaller pictures" } else { "Shorten it" }
        )))
    }

    /// Multimodal positions of the tokens from `from` on, counted from there.
    fn positions_from(&self, context: &Context, from: usize) -> Option<MropePositions> {
        let (positions, next) = self.positions(context);
        let Positions::Multimodal(axes) = positions else { return None };
        // Text counts alike on all axes, and so does the first token of a picture.
        let start = axes[0].get(from).copied().unwrap_or(next as f32);
        let axes = axes.map(|a| a[from..].iter().map(|p| p - start).collect());
        Some(MropePositions { axes, next: next as f32 - start })
    }

    /// An engine that samples from this model.
    pub fn engine(&self, limits: EngineLimits) -> Result<Engine<'_>, ModelError> {
        Engine::new(&self.text, &self.params, self.tokenizer.as_ref(), limits)
    }
}
