//! The pictures of one dialogue: `img_0`, `img_1` ... in the order in which they came, each with its way back to the
//! picture that it was made from.

use std::sync::Arc;

use ocelli_data::{ContentHash, Part, ToolResult};

use crate::error::for_model;
use crate::{Affine, Limits, Picture, PictureError, Reply, ToolError};

/// Where a derived picture comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Origin {
    /// Number of the picture that the tool was given.
    pub parent: usize,
    /// Maps this picture's pixels to the parent's.
    pub to_parent: Affine,
    /// Number of the given picture at the end of the chain.
    pub root: usize,
    /// Maps this picture's pixels to the root's.
    pub to_root: Affine,
}

/// One entry of [`Images`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// The encoded picture.
    pub picture: Picture,
    /// `None` for a picture that was given with the question.
    pub origin: Option<Origin>,
}

/// Pictures of a dialogue, addressed as `img_k`. Only encoded bytes are held; clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    entries: Vec<Entry>,
    limits: Arc<Limits>,
}

impl Images {
    /// An empty collection.
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { entries: Vec::new(), limits }
    }

    /// Adds a given picture and returns its number.
    pub fn insert(&mut self, bytes: impl Into<Arc<[u8]>>) -> Result<usize, ImagesError> {
        self.insert_picture(Picture::new(bytes, &self.limits)?)
    }

    /// Adds a given picture that was checked before.
    pub fn insert_picture(&mut self, picture: Picture) -> Result<usize, ImagesError> {
        self.push(Entry { picture, origin: None })
    }

    fn push(&mut self, entry: Entry) -> Result<usize, ImagesError> {
        if self.entries.len() >= self.limits.images {
            return Err(ImagesError::TooMany { limit: self.limits.images });
        }
        self.entries.push(entry);
        Ok(self.entries.len() - 1)
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entry `k`.
    pub fn get(&self, k: usize) -> Option<&Entry> {
        self.entries.get(k)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The picture with this name, given or derived.
    pub fn by_hash(&self, hash: ContentHash) -> Option<&Picture> {
        self.entries.iter().map(|e| &e.picture).find(|p| p.hash() == hash)
    }

    /// Finds a picture by what a model writes: `img_2`, or the hash of a picture that is here.
    pub fn resolve(&self, name: &str) -> Result<(usize, &Picture), ToolError> {
        let number = name.strip_prefix("img_").and_then(|k| k.parse().ok());
        let by_number = number.and_then(|k: usize| Some((k, self.entries.get(k)?)));
        let by_hash = || {
            let hash: ContentHash = name.parse().ok()?;
            self.entries.iter().enumerate().find(|(_, e)| e.picture.hash() == hash)
        };
        by_number.or_else(by_hash).map(|(k, e)| (k, &e.picture)).ok_or_else(|| {
            let shown: String = name.chars().take(40).collect();
            for_model(match self.entries.len() {
                0 => format!("there is no picture `{shown}`: this dialogue has no picture"),
                1 => format!("there is no picture `{shown}`; the only one is img_0"),
                n => format!("there is no picture `{shown}`; there are img_0 to img_{}", n - 1),
            })
        })
    }

    /// Turns a tool's reply into the message for the policy, and takes in the picture that it made.
    ///
    /// `parent` is what the call named as its `image`. The message ends with the new picture's id and size.
    pub fn accept(&mut self, tool: &str, id: &str, parent: Option<&str>, reply: Reply) -> ToolResult {
        let mut text = reply.text;
        let mut content = Vec::new();
        let mut is_error = false;
        if let Some(made) = reply.image {
            let hash = made.picture.hash();
            let (width, height) = (made.picture.width(), made.picture.height());
            match self.adopt(parent, made) {
                Ok(k) => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&format!("New picture img_{k}: {width} x {height} pixels."));
                    content.push(Part::image(hash));
                }
                Err(why) => {
                    text = why.to_string();
                    is_error = true;
                }
            }
        }
        content.insert(0, Part::text(text));
        ToolResult { id: id.to_owned(), name: tool.to_owned(), content, is_error }
    }

    fn adopt(&mut self, parent: Option<&str>, made: Made) -> Result<usize, ImagesError> {
        let parent = parent.and_then(|name| self.resolve(name).ok()).map(|(k, _)| k);
        let origin =
            parent.zip(made.to_parent.filter(Affine::is_finite)).map(|(parent, to_parent)| {
                match self.entries[parent].origin {
                    None => Origin { parent, to_parent, root: parent, to_root: to_parent },
                    Some(above) => Origin {
                        parent,
                        to_parent,
                        root: above.root,
                        to_root: to_parent.then(&above.to_root),
                    },
                }
            });
        self.push(Entry { picture: made.picture, origin })
    }
}

/// A picture that a tool made, with the map from its pixels to those of the picture it was made from.
#[derive(Clone, Debug)]
pub struct Made {
    /// The encoded picture.
    pub picture: Picture,
    /// From the new frame to the old one; `None` where the tool did not say, as some remote tools do not.
    pub to_parent: Option<Affine>,
}

/// Why a picture was not taken in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImagesError {
    /// The bytes are no usable picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The dialogue is full.
    #[error("this dialogue holds {limit} pictures, the most allowed; go on with those that are there")]
    TooMany {
        /// Limit.
        limit: usize,
    },
}
