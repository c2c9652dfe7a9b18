//! What calls share: a bounded cache of decoded pictures, and the networks, each loaded on its first use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use image::RgbImage;
use ocelli_data::ContentHash;

use crate::ocr::{Check, Line, Ocr};
use crate::{Fatal, Limits, Picture, ToolError};

/// Shared state of all calls of one registry.
#[derive(Debug)]
pub struct Engines {
    pixels: Mutex<PixelCache>,
    ocr: OnceLock<Result<Ocr, Fatal>>,
    texts: Mutex<HashMap<ContentHash, Arc<Vec<Line>>>>,
}

/// Pictures whose text is remembered.
const TEXTS: usize = 1 << 14;

impl Engines {
    /// Holds at most `pixel_cache_bytes` of decoded pictures (3 bytes a pixel).
    pub fn new(pixel_cache_bytes: usize) -> Self {
        let pixels = PixelCache { limit: pixel_cache_bytes, ..PixelCache::default() };
        Self { pixels: Mutex::new(pixels), ocr: OnceLock::new(), texts: Mutex::default() }
    }

    /// Decoded pixels, from the cache where they are there.
    pub fn pixels(&self, picture: &Picture, limits: &Limits) -> Result<Arc<RgbImage>, ToolError> {
        if let Some(found) = self.cache().get(picture.hash()) {
            return Ok(found);
        }
        // Decoded outside the lock: two calls may decode the same picture, none waits for another's.
        let decoded = picture
            .decode(limits)
            .map_err(|e| Fatal::BadImage { hash: picture.hash(), why: e.to_string() })?;
        let decoded = Arc::new(decoded);
        self.keep(picture.hash(), decoded.clone());
        Ok(decoded)
    }

    /// The text reader, loaded on the first call.
    pub fn ocr(&self) -> Result<&Ocr, Fatal> {
        self.ocr.get_or_init(Ocr::embedded).as_ref().map_err(Clone::clone)
    }

    /// All text of a picture; read once, since several tools ask for it.
    pub(crate) fn texts(
        &self,
        hash: ContentHash,
        pixels: &RgbImage,
        check: Check<'_>,
    ) -> Result<Arc<Vec<Line>>, ToolError> {
        let texts = || self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = texts().get(&hash) {
            return Ok(found.clone());
        }
        let lines = Arc::new(self.ocr()?.read(pixels, check)?);
        let mut texts = texts();
        if texts.len() >= TEXTS {
            texts.clear();
        }
        texts.insert(hash, lines.clone());
        Ok(lines)
    }

    /// Remembers the pixels of a picture that was just made.
    pub(crate) fn keep(&self, hash: ContentHash, pixels: Arc<RgbImage>) {
        self.cache().put(hash, pixels);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, PixelCache> {
        // The cache is valid after every single operation, so a panic elsewhere cannot have broken it.
        self.pixels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Least recently used pictures leave first.
#[derive(Debug, Default)]
struct PixelCache {
    entries: HashMap<ContentHash, (u64, Arc<RgbImage>)>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

impl PixelCache {
    fn get(&mut self, hash: ContentHash) -> Option<Arc<RgbImage>> {
        self.clock += 1;
        let (used, pixels) = self.entries.get_mut(&hash)?;
        *used = self.clock;
        Some(pixels.clone())
    }

    fn put(&mut self, hash: ContentHash, pixels: Arc<RgbImage>) {
        let size = pixels.as_raw().len();
        if size > self.limit {
            return;
        }
        self.clock += 1;
        if let Some((_, old)) = self.entries.insert(hash, (self.clock, pixels)) {
            self.bytes -= old.as_raw().len();
        }
        self.bytes += size;
        while self.bytes > self.limit {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(h, _)| *h) else {
                return;
            };
            if let Some((_, gone)) = self.entries.remove(&oldest) {
                self.bytes -= gone.as_raw().len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves_first() {
        let picture = |shade| Picture::encode(&RgbImage::from_pixel(10, 10, image::Rgb([shade; 3]))).unwrap();
        let (a, b, c) = (picture(1), picture(2), picture(3));
        let engines = Engines::new(2 * 300);
        let limits = Limits::default();
        for p in [&a, &b, &a, &c] {
            engines.pixels(p, &limits).unwrap();
        }
        let mut cache = engines.cache();
        assert!(cache.get(a.hash()).is_some());
        assert!(cache.get(b.hash()).is_none());
        assert!(cache.get(c.hash()).is_some());
        assert_eq!(cache.bytes, 600);
    }
}
