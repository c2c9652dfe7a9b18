//! Decoding with limits: bytes first, then the header's pixel count, then the pixels.
//!
//! Result: 8-bit RGB, upright (EXIF orientation applied), transparency composited on white. This is what
//! `transformers.image_utils.load_image` followed by `convert_to_rgb` yields for 8-bit PNG, WebP (lossless), GIF and
//! BMP, to the bit. Deviations: JPEG and lossy WebP are decoded by other libraries than Pillow's, whose inverse
//! cosine transform and chroma interpolation round differently (the parity test states by how much); 16-bit samples
//! are scaled to 8 bits with rounding, where Pillow cuts the low byte off RGB and saturates grey. Of an animation the
//! first frame is taken.

use std::fmt;
use std::io::Cursor;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::ImageError;

/// File formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// Portable Network Graphics.
    Png,
    /// JPEG (JFIF or EXIF).
    Jpeg,
    /// WebP, lossy or lossless; the first frame of an animation.
    WebP,
    /// GIF; the first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
        })
    }
}

impl ImageFormat {
    /// The format by its first bytes.
    fn guess(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            _ => Err(ImageError::UnknownFormat { start: bytes[..bytes.len().min(8)].to_vec() }),
        }
    }

    fn codec(self) -> ::image::ImageFormat {
        match self {
            Self::Png => ::image::ImageFormat::Png,
            Self::Jpeg => ::image::ImageFormat::Jpeg,
            Self::WebP => ::image::ImageFormat::WebP,
            Self::Gif => ::image::ImageFormat::Gif,
            Self::Bmp => ::image::ImageFormat::Bmp,
        }
    }
}

/// What a picture from outside may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Largest encoded file in bytes.
    pub max_bytes: usize,
    /// Largest number of pixels; decoding takes at most eight bytes for each, and keeps three.
    pub max_pixels: u64,
    /// Longest side in pixels.
    pub max_side: u32,
}

impl Default for ImageLimits {
    /// 32 MiB, 50 million pixels, 32,768 on a side.
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_pixels: 50_000_000, max_side: 1 << 15 }
    }
}

impl ImageLimits {
    fn check_size(&self, format: ImageFormat, width: u32, height: u32) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { format, width, height });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels || width.max(height) > self.max_side {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                max_pixels: self.max_pixels,
                max_side: self.max_side,
            });
        }
        Ok(())
    }
}

/// Decodes a picture to upright 8-bit RGB.
///
/// # Errors
/// [`ImageError`]; a file beyond the limits is refused by its length or its header, before its pixels are decoded.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let (format, mut decoder) = open(bytes, limits)?;
    if format == ImageFormat::Jpeg {
        check_jpeg_complete(bytes)?;
    }
    let damaged = |e: ::image::ImageError| ImageError::Damaged { format, reason: e.to_string() };
    // A broken EXIF block is no reason to refuse the picture; it is then taken as it lies.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    // A decoder may learn the true size only from the data; the model's memory is planned by what comes out.
    limits.check_size(format, image.width(), image.height())?;
    Ok(if image.color().has_alpha() { on_white(&image) } else { image.into_rgb8() })
}

/// Format, width and height as the header announces them, without decoding and before EXIF orientation.
///
/// # Errors
/// As [`decode`], save damage behind the header.
pub fn probe(bytes: &[u8], limits: &ImageLimits) -> Result<(ImageFormat, u32, u32), ImageError> {
    let (format, decoder) = open(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    Ok((format, width, height))
}

/// Checks length and header; the decoder that comes back has not decoded a pixel.
fn open<'a>(
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<(ImageFormat, impl ImageDecoder + use<'a>), ImageError> {
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooManyBytes { found: bytes.len(), limit: limits.max_bytes });
    }
    let format = ImageFormat::guess(bytes)?;
    // Our own look at the header gives the same error for the same fault in every format; the decoders differ in
    // what they refuse and when.
    if let Some((width, height)) = header_size(format, bytes) {
        limits.check_size(format, width, height)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.codec());
    let mut allowed = ::image::Limits::default();
    allowed.max_image_width = Some(limits.max_side);
    allowed.max_image_height = Some(limits.max_side);
    allowed.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(1 << 20));
    reader.limits(allowed);
    let decoder = reader.into_decoder().map_err(|e| ImageError::Damaged { format, reason: e.to_string() })?;
    let (width, height) = decoder.dimensions();
    limits.check_size(format, width, height)?;
    Ok((format, decoder))
}

/// Width and height from the fixed place where PNG, GIF and BMP keep them, and from a JPEG's frame header; `None` where the
/// header is cut short, and for WebP, whose size the decoder finds (at most 16,383 on a side).
fn header_size(format: ImageFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    let four = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    let two = |at: usize| bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    match format {
        ImageFormat::Png => Some((u32::from_be_bytes(four(16)?), u32::from_be_bytes(four(20)?))),
        ImageFormat::Gif => Some((two(6)?.into(), two(8)?.into())),
        ImageFormat::Bmp if u32::from_le_bytes(four(14)?) == 12 => Some((two(18)?.into(), two(20)?.into())),
        // A negative height means top-down rows.
        ImageFormat::Bmp => {
            Some((i32::from_le_bytes(four(18)?).unsigned_abs(), i32::from_le_bytes(four(22)?).unsigned_abs()))
        }
        ImageFormat::Jpeg => jpeg_size(bytes),
        ImageFormat::WebP => None,
    }
}

/// Width and height from the first frame header (SOF0 to SOF15) of a JPEG; the segments before it are stepped over.
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let two = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let mut at = 2;
    loop {
        let marker = match bytes.get(at..at + 2)? {
            // Any number of 0xff may stand before a marker.
            [0xff, 0xff] => {
                at += 1;
                continue;
            }
            [0xff, marker] => *marker,
            _ => return None,
        };
        match marker {
            // Huffman tables, extensions and arithmetic conditioning have numbers among the frame headers.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                // Length, bits a sample, height, width.
                return Some((two(at + 7)?.into(), two(at + 5)?.into()));
            }
            0x01 | 0xd0..=0xd8 => at += 2,
            // Pixels or the end without a frame header.
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(two(at + 2)?),
        }
    }
}

/// Most scans a JPEG may have: progressive encoders write about ten, and each one walks over the whole picture.
const MAX_JPEG_SCANS: usize = 64;

/// Walks over the marker segments to the end-of-image marker. The decoder fills what is missing with grey, which the
/// model would take for a part of the picture.
fn check_jpeg_complete(bytes: &[u8]) -> Result<(), ImageError> {
    let damaged = |reason: String| ImageError::Damaged { format: ImageFormat::Jpeg, reason };
    let short = || damaged(format!("no end-of-image marker in {} bytes", bytes.len()));
    let (mut at, mut scans) = (2, 0);
    loop {
        // Entropy-coded data runs up to the next marker: 0xff followed by neither 0 (stuffing) nor a restart.
        while !matches!(bytes.get(at..at + 2), Some([0xff, m]) if !matches!(m, 0 | 0xd0..=0xd7 | 0xff)) {
            at += 1;
            if at + 2 > bytes.len() {
                return Err(short());
            }
        }
        match bytes[at + 1] {
            0xd9 => return Ok(()),
            0xd8 | 0x01 => at += 2,
            marker => {
                scans += usize::from(marker == 0xda);
                if scans > MAX_JPEG_SCANS {
                    return Err(damaged(format!("more than {MAX_JPEG_SCANS} scans")));
                }
                let length = bytes.get(at + 2..at + 4).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])));
                at += 2 + length.ok_or_else(short)?;
            }
        }
    }
}

/// `round(a * colour + (1 - a) * white)` in integers.
fn on_white(image: &DynamicImage) -> RgbImage {
    let rgba = image.to_rgba8();
    let mut out = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in out.pixels_mut().zip(rgba.pixels()) {
        let alpha = u32::from(from.0[3]);
        for c in 0..3 {
            to.0[c] = ((u32::from(from.0[c]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    out
}
