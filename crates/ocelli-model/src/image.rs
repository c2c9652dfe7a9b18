//! From the bytes of a picture to the patches that a vision tower reads: limits, decoding, resampling, cutting.
//!
//! Bytes come from outside, so their number is checked before anything is parsed, and the number of pixels that the
//! header announces is checked before memory is taken for them ([`decode`]). What comes after is arithmetic on a
//! checked picture: [`Preprocessor`] resizes it as its model family was trained to expect, and cuts it into
//! normalised patches ([`ImagePatches`]).

mod decode;
mod patches;
mod qwen;
mod resize;
mod tiles;

pub use ::image::RgbImage;
pub use decode::{ImageFormat, ImageLimits, decode, probe};
pub use patches::{Grid, ImagePatches, Normalise, Preprocessor};
pub use qwen::{QwenPreprocessor, smart_resize};
pub use resize::resize_bicubic;
pub use tiles::{TilePreprocessor, tile_grid};

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is larger than allowed.
    #[error("the image file holds {found} bytes, more than the limit of {limit}")]
    TooManyBytes {
        /// Bytes given.
        found: usize,
        /// [`ImageLimits::max_bytes`].
        limit: usize,
    },
    /// The first bytes belong to none of the formats that are read.
    #[error("not a PNG, JPEG, WebP, GIF or BMP file: it starts with {start:02x?}")]
    UnknownFormat {
        /// Up to eight bytes from the start.
        start: Vec<u8>,
    },
    /// A picture without pixels.
    #[error("the {format} header announces {width}x{height} pixels: there is nothing to see")]
    Empty {
        /// File format.
        format: ImageFormat,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// More pixels than allowed; found in the header, before decoding.
    #[error(
        "the image measures {width}x{height} pixels; at most {max_pixels} pixels and {max_side} on a side are decoded. \
         Scale it down first"
    )]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// [`ImageLimits::max_pixels`].
        max_pixels: u64,
        /// [`ImageLimits::max_side`].
        max_side: u32,
    },
    /// The file breaks the rules of its format, or ends too early.
    #[error("the {format} data is damaged or cut short: {reason}")]
    Damaged {
        /// File format.
        format: ImageFormat,
        /// What the decoder met.
        reason: String,
    },
    /// Too long and narrow for the model family.
    #[error("{width}x{height} is more than {limit} times as long as it is wide; crop the image")]
    TooNarrow {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Largest ratio of the sides.
        limit: u32,
    },
    /// `preprocessor_config.json` asks for something that is not supported, or contradicts itself.
    #[error("image preprocessing: {0}")]
    Config(String),
}
