//! One encoded picture: its bytes, its name by content, its size; decoding within limits, and lossless encoding.
//!
//! All tools work on 8-bit RGB. Sixteen-bit samples are reduced to eight, transparency is laid over white (as a viewer
//! shows a chart), a colour profile is ignored. The pixel frame is the upright one: a photograph whose EXIF orientation says
//! that the camera was turned is turned, width and height included, as it is before a model sees it. A broken EXIF block is
//! no reason to refuse a picture; it is then taken as it lies. Of an animation the first frame counts.

use std::io::Cursor;
use std::sync::Arc;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat, ImageReader, RgbImage};
use ocelli_data::ContentHash;

use crate::{Limits, png_writer};

/// Why bytes are not a usable picture.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PictureError {
    /// More bytes than allowed.
    #[error("the picture has {found} bytes, more than the limit of {limit}")]
    TooManyBytes {
        /// Size.
        found: usize,
        /// Limit.
        limit: usize,
    },
    /// More pixels than allowed, as its header says.
    #[error(
        "the picture is {width} x {height} pixels; at most {pixels} pixels and {side} a side are allowed"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Limit on width x height.
        pixels: u64,
        /// Limit on each side.
        side: u32,
    },
    /// A side of no pixels.
    #[error("the picture is {width} x {height} pixels, so it holds nothing")]
    Empty {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Not PNG, JPEG, WebP, GIF or BMP.
    #[error("the bytes are none of PNG, JPEG, WebP, GIF and BMP")]
    UnknownFormat,
    /// The decoder gave up.
    #[error("broken {format} picture: {why}")]
    Broken {
        /// The format that the first bytes announce.
        format: String,
        /// The decoder's words.
        why: String,
    },
}

/// An encoded picture with its name and size. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Picture {
    hash: ContentHash,
    bytes: Arc<[u8]>,
    width: u32,
    height: u32,
}

impl Picture {
    /// Takes encoded bytes after a look at their size, format and header; pixels are decoded when a tool needs them.
    pub fn new(bytes: impl Into<Arc<[u8]>>, limits: &Limits) -> Result<Self, PictureError> {
        let bytes = bytes.into();
        let (width, height) = size_of(&bytes, limits)?;
        Ok(Self { hash: ContentHash::of(&bytes), bytes, width, height })
    }

    /// Encodes pixels as PNG, lossless.
    pub fn encode(pixels: &RgbImage) -> Result<Self, PictureError> {
        let (width, height) = pixels.dimensions();
        // A picture without width has no rows either.
        let rows = pixels.as_raw().chunks_exact((3 * width as usize).max(1)).take(height as usize);
        Self::encode_rows(width, rows, &mut Vec::new())
    }

    /// Encodes rows of `3 * width` bytes each as PNG; `buffer` is overwritten, see [`png_writer::encode`].
    pub(crate) fn encode_rows<'a>(
        width: u32,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
        buffer: &mut Vec<u8>,
    ) -> Result<Self, PictureError> {
        let height = rows.len() as u32;
        if width == 0 || height == 0 {
            return Err(PictureError::Empty { width, height });
        }
        let length = png_writer::encode(width, rows, buffer);
        let bytes: Arc<[u8]> = buffer[..length].into();
        Ok(Self { hash: ContentHash::of(&bytes), bytes, width, height })
    }

    /// Name by content.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The encoded file.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Media type of the encoded file, such as `image/png`.
    pub fn mime(&self) -> &'static str {
        image::guess_format(&self.bytes).map_or("application/octet-stream", |f| f.to_mime_type())
    }

    /// Decodes the first `rows` rows into `buffer` as 8-bit RGB, the same pixels as [`Picture::decode`] has there, and says
    /// how many rows these are; `None` where the file's form does not allow to stop in the middle.
    pub(crate) fn decode_top(
        &self,
        rows: u32,
        limits: &Limits,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<u32>, PictureError> {
        // The same limits as for the whole: what is refused as a whole is refused in part.
        let (format, mut whole) = decoder(&self.bytes, limits)?;
        if format != ImageFormat::Png || orientation(&mut whole) != Orientation::NoTransforms {
            return Ok(None);
        }
        let broken =
            |e: png::DecodingError| PictureError::Broken { format: "PNG".into(), why: e.to_string() };
        let allowed = png::Limits { bytes: 64 << 20 };
        let mut reader = png::Decoder::new_with_limits(Cursor::new(&self.bytes[..]), allowed)
            .read_info()
            .map_err(broken)?;
        let info = reader.info();
        let plain = info.color_type == png::ColorType::Rgb
            && info.bit_depth == png::BitDepth::Eight
            && !info.interlaced
            && info.trns.is_none()
            && !info.is_animated();
        if !plain {
            return Ok(None);
        }
        let rows = rows.clamp(1, self.height);
        let stride = self.width as usize * 3;
        buffer.resize(stride * rows as usize, 0);
        for row in buffer.chunks_exact_mut(stride) {
            reader.read_row(row).map_err(broken)?;
        }
        Ok(Some(rows))
    }

    /// Decodes to 8-bit RGB.
    pub fn decode(&self, limits: &Limits) -> Result<RgbImage, PictureError> {
        decode(&self.bytes, limits)
    }
}

fn broken(format: ImageFormat) -> impl FnOnce(image::ImageError) -> PictureError {
    move |e| PictureError::Broken { format: format!("{format:?}").to_uppercase(), why: e.to_string() }
}

fn decoder<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(ImageFormat, impl ImageDecoder + 'a), PictureError> {
    if bytes.len() > limits.image_bytes {
        return Err(PictureError::TooManyBytes { found: bytes.len(), limit: limits.image_bytes });
    }
    let format = image::guess_format(bytes).map_err(|_| PictureError::UnknownFormat)?;
    if !matches!(
        format,
        ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Bmp
    ) {
        return Err(PictureError::UnknownFormat);
    }
    // A decoder may refuse a header for the memory that it would take; the size says it better.
    if let (ImageFormat::Png, Some(size)) = (format, bytes.get(16..24)) {
        let four = |at: usize| u32::from_be_bytes([size[at], size[at + 1], size[at + 2], size[at + 3]]);
        check_size(four(0), four(4), limits)?;
    }
    let mut allowed = image::Limits::no_limits();
    // RGBA with 16 bits is 8 bytes a pixel; the decoder's own tables come on top.
    allowed.max_alloc = Some(limits.pixels.saturating_mul(8).saturating_add(16 << 20));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allowed);
    let decoder = reader.into_decoder().map_err(broken(format))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    Ok((format, decoder))
}

fn check_size(width: u32, height: u32, limits: &Limits) -> Result<(), PictureError> {
    if width == 0 || height == 0 {
        return Err(PictureError::Empty { width, height });
    }
    if width > limits.side || height > limits.side || u64::from(width) * u64::from(height) > limits.pixels {
        return Err(PictureError::TooLarge { width, height, pixels: limits.pixels, side: limits.side });
    }
    Ok(())
}

fn size_of(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), PictureError> {
    let (_, mut decoder) = decoder(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        orientation(&mut decoder),
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if turned { (height, width) } else { (width, height) })
}

/// How the stored pixels have to be turned to stand upright.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, PictureError> {
    let (format, mut decoder) = decoder(bytes, limits)?;
    let orientation = orientation(&mut decoder);
    let mut picture = image::DynamicImage::from_decoder(decoder).map_err(broken(format))?;
    picture.apply_orientation(orientation);
    if !picture.color().has_alpha() {
        return Ok(picture.into_rgb8());
    }
    let rgba = picture.into_rgba8();
    let over_white =
        |c: u8, a: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
    Ok(RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        image::Rgb([over_white(r, a), over_white(g, a), over_white(b, a)])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_lossless_and_stable() {
        let pixels =
            RgbImage::from_fn(37, 23, |x, y| image::Rgb([(x * 7) as u8, (y * 11) as u8, (x ^ y) as u8]));
        let a = Picture::encode(&pixels).unwrap();
        assert_eq!(a.decode(&Limits::default()).unwrap(), pixels);
        assert_eq!(Picture::encode(&pixels).unwrap().hash(), a.hash());
        assert_eq!((a.width(), a.height()), (37, 23));
    }

    #[test]
    fn the_top_is_that_of_the_whole() {
        let pixels = RgbImage::from_fn(61, 40, |x, y| image::Rgb([(x * y) as u8, (y * 6) as u8, x as u8]));
        let limits = Limits::default();
        let whole = Picture::encode(&pixels).unwrap();
        for rows in [1, 17, 40, 99] {
            let mut top = vec![7; 1000];
            assert_eq!(whole.decode_top(rows, &limits, &mut top), Ok(Some(rows.min(40))));
            assert_eq!(top, pixels.as_raw()[..61 * 3 * rows.min(40) as usize]);
        }
        // Another form is left to the other way.
        let mut bytes = Vec::new();
        image::GrayImage::new(5, 5).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        assert_eq!(Picture::new(bytes, &limits).unwrap().decode_top(2, &limits, &mut Vec::new()), Ok(None));
        // A file that is cut off below what is asked for.
        let cut = Picture::new(whole.bytes()[..whole.bytes().len() * 2 / 3].to_vec(), &limits).unwrap();
        assert!(cut.decode(&limits).is_err());
        assert!(cut.decode_top(40, &limits, &mut Vec::new()).is_err());
        assert_eq!(cut.decode_top(5, &limits, &mut Vec::new()), Ok(Some(5)));
    }

    #[test]
    fn transparency_lies_over_white() {
        let rgba = image::RgbaImage::from_pixel(1, 1, image::Rgba([255, 0, 0, 128]));
        let mut bytes = Vec::new();
        rgba.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        let p = Picture::new(bytes, &Limits::default()).unwrap();
        // (0 * 128 + 255 * 127 + 127) / 255 = 127
        assert_eq!(p.decode(&Limits::default()).unwrap().get_pixel(0, 0).0, [255, 127, 127]);
    }

    #[test]
    fn limits_hold_before_decoding() {
        let p = Picture::encode(&RgbImage::new(100, 50)).unwrap();
        let few = Limits { pixels: 4999, ..Limits::default() };
        assert!(matches!(
            Picture::new(p.bytes().clone(), &few),
            Err(PictureError::TooLarge { width: 100, .. })
        ));
        let short = Limits { image_bytes: 10, ..Limits::default() };
        assert!(matches!(Picture::new(p.bytes().clone(), &short), Err(PictureError::TooManyBytes { .. })));
        let one = Picture::new(b"hello".to_vec(), &Limits::default());
        assert!(matches!(one, Err(PictureError::UnknownFormat)));
    }
}
