//! Encoded images by content, shared by environments, policies and writers of one run.
//!
//! Without a blob store all images stay in memory until [`Pictures::clear`] (a trainer calls it after each step). With
//! one, each image is on disk before its name is given out, and memory holds only the most recent ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocelli_data::ContentHash;
use ocelli_data::io::{BlobStore, IoError};

/// Largest encoded image that is read from a blob store, in bytes.
pub const MAX_IMAGE: u64 = 64 << 20;

/// An image that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PicturesError {
    /// No such image.
    #[error("no image with hash {0} is known; put it into the run's image store first")]
    Unknown(ContentHash),
    /// Memory is full and there is no disk to fall back on.
    #[error(
        "images take {held} bytes, the limit of {limit}; clear them between steps, or give the run an image store on disk"
    )]
    Full {
        /// Bytes held.
        held: usize,
        /// Limit.
        limit: usize,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The images of a run.
#[derive(Debug)]
pub struct Pictures {
    blobs: Option<BlobStore>,
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_hash: HashMap<ContentHash, Arc<[u8]>>,
    order: VecDeque<ContentHash>,
    bytes: usize,
}

impl Pictures {
    /// In memory only, at most `limit` bytes.
    pub fn in_memory(limit: usize) -> Self {
        Self { blobs: None, limit, held: Mutex::default() }
    }

    /// On disk, with the most recent `limit` bytes in memory.
    pub fn on_disk(blobs: BlobStore, limit: usize) -> Self {
        Self { blobs: Some(blobs), limit, held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an image and returns its name.
    pub fn put(&self, bytes: Arc<[u8]>) -> Result<ContentHash, PicturesError> {
        let hash = match &self.blobs {
            Some(blobs) => blobs.put(&bytes)?,
            None => ContentHash::of(&bytes),
        };
        self.hold(hash, bytes)?;
        Ok(hash)
    }

    /// The bytes of an image.
    pub fn get(&self, hash: ContentHash) -> Result<Arc<[u8]>, PicturesError> {
        if let Some(bytes) = self.lock().by_hash.get(&hash) {
            return Ok(bytes.clone());
        }
        let Some(blobs) = &self.blobs else { return Err(PicturesError::Unknown(hash)) };
        if !blobs.path(hash).exists() {
            return Err(PicturesError::Unknown(hash));
        }
        let bytes: Arc<[u8]> = blobs.get(hash, MAX_IMAGE)?.into();
        self.hold(hash, bytes.clone())?;
        Ok(bytes)
    }

    fn hold(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<(), PicturesError> {
        let mut held = self.lock();
        if held.by_hash.contains_key(&hash) {
            return Ok(());
        }
        let wanted = held.bytes + bytes.len();
        if wanted > self.limit {
            if self.blobs.is_none() {
                return Err(PicturesError::Full { held: held.bytes, limit: self.limit });
            }
            while held.bytes + bytes.len() > self.limit {
                let Some(oldest) = held.order.pop_front() else { return Ok(()) };
                let freed = held.by_hash.remove(&oldest).map_or(0, |b| b.len());
                held.bytes -= freed;
            }
        }
        held.bytes += bytes.len();
        held.order.push_back(hash);
        held.by_hash.insert(hash, bytes);
        Ok(())
    }

    /// Forgets what memory holds.
    pub fn clear(&self) {
        *self.lock() = Held::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(byte: u8) -> Arc<[u8]> {
        vec![byte; 100].into()
    }

    #[test]
    fn memory_alone_refuses_what_does_not_fit() {
        let pictures = Pictures::in_memory(250);
        let first = pictures.put(image(1)).unwrap();
        pictures.put(image(2)).unwrap();
        pictures.put(image(2)).unwrap();
        assert!(matches!(pictures.put(image(3)), Err(PicturesError::Full { held: 200, limit: 250 })));
        assert_eq!(pictures.get(first).unwrap(), image(1));
        pictures.clear();
        assert!(matches!(pictures.get(first), Err(PicturesError::Unknown(h)) if h == first));
    }

    #[test]
    fn disk_keeps_what_memory_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let pictures = Pictures::on_disk(BlobStore::new(dir.path()), 250);
        let hashes: Vec<_> = (0..10).map(|i| pictures.put(image(i)).unwrap()).collect();
        assert_eq!(pictures.lock().bytes, 200);
        for (i, hash) in hashes.iter().enumerate() {
            assert_eq!(pictures.get(*hash).unwrap(), image(i as u8));
        }
    }
}
