//! Dialogues into contexts: messages are written by the chat template, tokenised once, and pictures take their places.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ocelli_data::{ContentHash, Message, Trajectory};

use super::{Context, Pictures, Vlm, picture_marks};
use crate::ModelError;
use crate::chat::ChatOptions;
use crate::image::{ImagePatches, decode};

impl Vlm {
    /// Decodes a picture and cuts it into patches.
    pub fn see(&self, bytes: &[u8]) -> Result<Arc<ImagePatches>, ModelError> {
        let eyes = self.eyes()?;
        let patches = decode(bytes, &self.limits).and_then(|image| eyes.preprocessor.apply(&image));
        patches.map(Arc::new).map_err(|source| ModelError::Image { hash: ContentHash::of(bytes), source })
    }

    fn see_all(
        &self,
        hashes: impl IntoIterator<Item = ContentHash>,
        pictures: &dyn Pictures,
    ) -> Result<Vec<(ContentHash, Arc<ImagePatches>)>, ModelError> {
        let mut seen: HashMap<ContentHash, Arc<ImagePatches>> = HashMap::new();
        let mut all = Vec::new();
        for hash in hashes {
            let patches = match seen.get(&hash) {
                Some(patches) => patches.clone(),
                None => self.see(&pictures.bytes(hash)?)?,
            };
            seen.insert(hash, patches.clone());
            all.push((hash, patches));
        }
        Ok(all)
    }

    /// A dialogue as the model takes it.
    ///
    /// # Errors
    /// The template prints another number of pictures than the messages have; a picture cannot be decoded.
    pub fn prompt(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        pictures: &dyn Pictures,
    ) -> Result<Context, ModelError> {
        let mut context = Context::default();
        let guard = self.tokenizer()?.guard();
        let text = self.chat()?.render(&self.for_template(messages)?, &guard.options(options))?;
        self.write(&mut context, &text, messages, pictures)?;
        Ok(context)
    }

    /// Appends what follows an assistant's turn when `new` messages come after it: the rest of the turn's end, the
    /// messages, and the beginning of the next turn. The context must end where the policy stopped speaking, its
    /// end-of-turn token not included. Returns the new rows; none of them is trained.
    pub fn continue_dialogue(
        &self,
        context: &mut Context,
        new: &[Message],
        options: &ChatOptions,
        pictures: &dyn Pictures,
    ) -> Result<Range<usize>, ModelError> {
        let guard = self.tokenizer()?.guard();
        let text = self.chat()?.continuation(&self.for_template(new)?, &guard.options(options))?;
        self.write(context, &text, new, pictures)
    }

    /// Messages as the template may have them: marks in their text escaped, pictures as text if it knows nothing else.
    fn for_template<'m>(&self, messages: &'m [Message]) -> Result<Cow<'m, [Message]>, ModelError> {
        let guarded = self.tokenizer()?.guard().messages(messages);
        Ok(match &self.picture_mark {
            Some(mark) => Cow::Owned(picture_marks::written(&guarded, mark)),
            None => guarded,
        })
    }

    fn write(
        &self,
        context: &mut Context,
        text: &str,
        messages: &[Message],
        pictures: &dyn Pictures,
    ) -> Result<Range<usize>, ModelError> {
        let ids = self.tokenizer()?.encode_guarded(text)?;
        let images = self.see_all(messages.iter().flat_map(Message::images), pictures)?;
        context.push_written(&ids, self.placeholder, &images)
    }

    /// Token ids in which every placeholder token stands for the next picture, as a context.
    pub fn context_of_ids(
        &self,
        ids: &[u32],
        images: &[ContentHash],
        pictures: &dyn Pictures,
    ) -> Result<Context, ModelError> {
        let mut context = Context::default();
        context.push_written(ids, self.placeholder, &self.see_all(images.iter().copied(), pictures)?)?;
        Ok(context)
    }

    /// The context of a finished trajectory, token for token what the policy saw and sampled.
    pub fn context_of(
        &self,
        trajectory: &Trajectory,
        pictures: &dyn Pictures,
    ) -> Result<Context, ModelError> {
        let images = self.see_all(trajectory.images.iter().copied(), pictures)?;
        Context::of_trajectory(trajectory, self.placeholder, &images)
    }
}
