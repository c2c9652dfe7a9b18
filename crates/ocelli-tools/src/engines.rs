//! What calls share: a bounded cache of decoded pictures, and the networks, each loaded on its first use.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use image::RgbImage;
use ocelli_data::ContentHash;
use serde::{Deserialize, Serialize};

use crate::detector::Detector;
use crate::networks::{DETECT, Networks, OCR_SMALL};
use crate::ocr::{Check, Line, Ocr};
use crate::pool::{Canvas, Pixels, Pool};
use crate::{Fatal, Limits, Picture, ToolError};

/// What a registry's engines are made of.
#[derive(Clone, Debug)]
pub struct EnginesConfig {
    /// Most bytes of decoded pictures (3 a pixel) that are kept between calls.
    pub pixel_cache_bytes: usize,
    /// Where fetched networks are; without it there are the embedded ones alone.
    pub networks: Option<Networks>,
    /// Which networks read text.
    pub ocr: OcrNetwork,
}

/// Networks that read text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OcrNetwork {
    /// PP-OCRv6 tiny, part of the program.
    #[default]
    Embedded,
    /// PP-OCRv6 small, to be fetched: ten times the size.
    Small,
}

impl Default for EnginesConfig {
    fn default() -> Self {
        Self { pixel_cache_bytes: 256 << 20, networks: None, ocr: OcrNetwork::Embedded }
    }
}

/// Shared state of all calls of one registry.
#[derive(Debug)]
pub struct Engines {
    config: EnginesConfig,
    pixels: Mutex<PixelCache>,
    ocr: OnceLock<Result<Ocr, Fatal>>,
    detector: OnceLock<Result<Detector, Fatal>>,
    texts: Mutex<HashMap<ContentHash, Arc<Vec<Line>>>>,
    /// Pictures that were decoded once without being kept.
    met: Mutex<HashSet<ContentHash>>,
    pool: Arc<Pool>,
}

/// Pictures whose text is remembered.
const TEXTS: usize = 1 << 14;
/// Pictures of which it is remembered that they were met.
const MET: usize = 1 << 14;

impl Engines {
    /// Nothing is loaded yet.
    pub fn new(config: EnginesConfig) -> Self {
        let pixels = PixelCache { limit: config.pixel_cache_bytes, ..PixelCache::default() };
        Self {
            config,
            pixels: Mutex::new(pixels),
            ocr: OnceLock::new(),
            detector: OnceLock::new(),
            texts: Mutex::default(),
            met: Mutex::default(),
            pool: Arc::default(),
        }
    }

    /// What they are made of.
    pub fn config(&self) -> &EnginesConfig {
        &self.config
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

    /// Memory that is used again.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// At least the first `rows` rows of a picture. A picture that is met for the first time is decoded no further than
    /// that, one that comes again as a whole, and is kept; the pixels are the same. So is the verdict on a broken file:
    /// its good rows can be had.
    pub(crate) fn rows(&self, picture: &Picture, rows: u32, limits: &Limits) -> Result<Pixels, ToolError> {
        let hash = picture.hash();
        if let Some(found) = self.cache().get(hash) {
            return Ok(Pixels::Shared(found));
        }
        let again = {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            if met.len() >= MET {
                met.clear();
            }
            !met.insert(hash)
        };
        if again && let Ok(whole) = self.pixels(picture, limits) {
            return Ok(Pixels::Shared(whole));
        }
        let mut buffer = self.pool.take(3 * picture.width() as usize * rows as usize);
        let bad = |why: String| Fatal::BadImage { hash, why };
        match picture.decode_top(rows, limits, &mut buffer) {
            Ok(Some(rows)) => {
                let top = Canvas::new(picture.width(), rows, buffer, &self.pool);
                top.map(Pixels::Own).ok_or_else(|| bad("fewer rows than it should have".into()).into())
            }
            decoded => {
                self.pool.give(buffer);
                decoded.map_err(|e| bad(e.to_string()))?;
                self.pixels(picture, limits).map(Pixels::Shared)
            }
        }
    }

    /// The pixels of a picture, to be drawn on. As with [`Engines::rows`], one that is met for the first time is not kept.
    pub(crate) fn canvas(&self, picture: &Picture, limits: &Limits) -> Result<Canvas, ToolError> {
        match self.rows(picture, picture.height(), limits)? {
            Pixels::Own(canvas) => Ok(canvas),
            Pixels::Shared(pixels) => Canvas::copy(&pixels, &self.pool).ok_or_else(|| {
                Fatal::BadImage { hash: picture.hash(), why: "fewer pixels than it should have".into() }
                    .into()
            }),
        }
    }

    /// The text reader, loaded on the first call.
    pub fn ocr(&self) -> Result<&Ocr, Fatal> {
        let load = || match (self.config.ocr, &self.config.networks) {
            (OcrNetwork::Embedded, _) => Ocr::embedded(),
            (OcrNetwork::Small, Some(networks)) => Ocr::small(networks),
            (OcrNetwork::Small, None) => Err(no_networks(OCR_SMALL.name)),
        };
        self.ocr.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// The detector of objects, loaded on the first call.
    pub(crate) fn detector(&self) -> Result<&Detector, Fatal> {
        let load = || match &self.config.networks {
            Some(networks) => Detector::load(networks),
            None => Err(no_networks(DETECT.name)),
        };
        self.detector.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// Can objects be detected without fetching anything?
    pub fn can_detect(&self) -> bool {
        self.config.networks.as_ref().is_some_and(|n| n.has(&DETECT))
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

fn no_networks(name: &str) -> Fatal {
    Fatal::Network { name: name.into(), why: "this registry was given no directory of networks".into() }
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
        let engines = Engines::new(EnginesConfig { pixel_cache_bytes: 2 * 300, ..EnginesConfig::default() });
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
