//! Pictures by the hash of their encoded bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use ocelli_data::ContentHash;
use ocelli_data::io::BlobStore;

use crate::ModelError;
use crate::image::ImageLimits;

/// Something that has the bytes behind a hash.
pub trait Pictures {
    /// The encoded file (PNG, JPEG ...).
    ///
    /// # Errors
    /// There is no such picture, or its bytes are not those that the hash names.
    fn bytes(&self, hash: ContentHash) -> Result<Cow<'_, [u8]>, ModelError>;
}

impl Pictures for HashMap<ContentHash, Vec<u8>> {
    fn bytes(&self, hash: ContentHash) -> Result<Cow<'_, [u8]>, ModelError> {
        let bytes = self.get(&hash).ok_or_else(|| {
            ModelError::Request(format!("picture {} is named but was not given", hash.short()))
        })?;
        Ok(Cow::Borrowed(bytes))
    }
}

impl Pictures for BlobStore {
    fn bytes(&self, hash: ContentHash) -> Result<Cow<'_, [u8]>, ModelError> {
        Ok(Cow::Owned(self.get(hash, ImageLimits::default().max_bytes as u64)?))
    }
}

/// No pictures: for dialogues of text.
#[derive(Clone, Copy, Debug)]
pub struct NoPictures;

impl Pictures for NoPictures {
    fn bytes(&self, hash: ContentHash) -> Result<Cow<'_, [u8]>, ModelError> {
        Err(ModelError::Request(format!("picture {} is named, but there are none here", hash.short())))
    }
}
