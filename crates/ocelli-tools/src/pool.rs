//! Memory for pixels that is used again.
//!
//! A picture of some megabytes in fresh memory costs about as much for the machine's clearing of its pages as for drawing
//! on it. So buffers of tools go back here when they are done, and the next call takes them over.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;

/// Most bytes that wait for their next use.
const HELD: usize = 64 << 20;
/// Most buffers that wait.
const BUFFERS: usize = 16;

/// Buffers that wait for their next use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of any length and content: the smallest that holds `bytes`, or the largest there is.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut spare = self.spare();
        let best = spare.iter().enumerate().min_by_key(|(_, b)| match b.capacity() >= bytes {
            true => (0, b.capacity()),
            false => (1, usize::MAX - b.capacity()),
        });
        match best.map(|(k, _)| k) {
            Some(k) => spare.swap_remove(k),
            None => Vec::new(),
        }
    }

    /// Takes a buffer back.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let mut spare = self.spare();
        let held: usize = spare.iter().map(Vec::capacity).sum();
        if buffer.capacity() > 0 && spare.len() < BUFFERS && held + buffer.capacity() <= HELD {
            spare.push(buffer);
        }
    }
}

/// Pixels of one call's own, in a buffer of the pool.
#[derive(Debug)]
pub(crate) struct Canvas {
    pixels: RgbImage,
    pool: Arc<Pool>,
}

impl Canvas {
    /// From pixels in a buffer: `3 * width * height` bytes. `None` where it holds fewer.
    pub(crate) fn new(width: u32, height: u32, buffer: Vec<u8>, pool: &Arc<Pool>) -> Option<Self> {
        Some(Self { pixels: RgbImage::from_raw(width, height, buffer)?, pool: pool.clone() })
    }

    /// A copy of shared pixels.
    pub(crate) fn copy(pixels: &RgbImage, pool: &Arc<Pool>) -> Option<Self> {
        let mut buffer = pool.take(pixels.as_raw().len());
        buffer.clear();
        buffer.extend_from_slice(pixels.as_raw());
        Self::new(pixels.width(), pixels.height(), buffer, pool)
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.pixels).into_raw());
    }
}

impl Deref for Canvas {
    type Target = RgbImage;

    fn deref(&self) -> &RgbImage {
        &self.pixels
    }
}

impl DerefMut for Canvas {
    fn deref_mut(&mut self) -> &mut RgbImage {
        &mut self.pixels
    }
}

/// Pixels to read: shared ones, or a call's own.
#[derive(Debug)]
pub(crate) enum Pixels {
    /// From the cache.
    Shared(Arc<RgbImage>),
    /// Decoded for this call.
    Own(Canvas),
}

impl Deref for Pixels {
    type Target = RgbImage;

    fn deref(&self) -> &RgbImage {
        match self {
            Self::Shared(pixels) => pixels,
            Self::Own(canvas) => canvas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_the_best_fit_goes_out() {
        let pool = Arc::new(Pool::default());
        for (width, height) in [(10, 10), (40, 40), (20, 20)] {
            pool.give(vec![1; 3 * width * height]);
        }
        assert_eq!(pool.take(500).capacity(), 1200);
        assert_eq!(pool.take(1 << 20).capacity(), 4800);
        let canvas = Canvas::copy(&RgbImage::from_pixel(5, 4, image::Rgb([1, 2, 3])), &pool).unwrap();
        assert_eq!((canvas.dimensions(), canvas.as_raw().len()), ((5, 4), 60));
        assert!(pool.spare().is_empty());
        drop(canvas);
        assert_eq!(pool.take(0).capacity(), 300);
        pool.give(vec![0; HELD + 1]);
        assert!(pool.spare().is_empty());
    }
}
