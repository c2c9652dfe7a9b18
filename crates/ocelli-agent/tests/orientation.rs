//! One pixel frame: tools, their server and the model's side turn a picture upright in the same way.

use std::io::Cursor;

use image::{Rgb, RgbImage};
use ocelli_model::image::{ImageLimits, decode};
use ocelli_tools::{Deadline, Limits, Picture, Registry, Service, ServiceConfig};
use serde_json::json;

/// 60 x 40, each quarter of its own colour.
fn pixels() -> RgbImage {
    RgbImage::from_fn(60, 40, |x, y| match (x < 30, y < 20) {
        (true, true) => Rgb([250, 10, 10]),
        (false, true) => Rgb([10, 250, 10]),
        (true, false) => Rgb([10, 10, 250]),
        (false, false) => Rgb([240, 240, 20]),
    })
}

/// A TIFF header with one entry: tag 0x0112, a short.
fn exif(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    tiff
}

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    pixels().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn jpeg(orientation: u8) -> Vec<u8> {
    let mut bytes = encoded(image::ImageFormat::Jpeg);
    let body = [b"Exif\0\0".as_slice(), &exif(orientation)].concat();
    let mut segment = vec![0xff, 0xe1];
    segment.extend((body.len() as u16 + 2).to_be_bytes());
    segment.extend(body);
    bytes.splice(2..2, segment);
    bytes
}

fn png(orientation: u8) -> Vec<u8> {
    let mut bytes = encoded(image::ImageFormat::Png);
    let mut chunk = [b"eXIf".as_slice(), &exif(orientation)].concat();
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    }
    let length = chunk.len() as u32 - 4;
    chunk.extend((!crc).to_be_bytes());
    chunk.splice(0..0, length.to_be_bytes());
    // Behind the signature and the header.
    bytes.splice(33..33, chunk);
    bytes
}

#[test]
fn tools_server_and_model_see_the_same_frame_in_all_orientations() {
    let limits = Limits::default();
    let service = Service::start(Registry::standard(limits.clone()), &ServiceConfig::default()).unwrap();
    for orientation in 1..=8 {
        for bytes in [jpeg(orientation), png(orientation)] {
            let seen = decode(&bytes, &ImageLimits::default()).unwrap();
            let size = if orientation < 5 { (60, 40) } else { (40, 60) };
            assert_eq!(seen.dimensions(), size, "orientation {orientation}");
            let picture = Picture::new(bytes.clone(), &limits).unwrap();
            assert_eq!((picture.width(), picture.height()), size, "orientation {orientation}");
            assert_eq!(picture.decode(&limits).unwrap(), seen, "orientation {orientation}");
            // By its hash, at a server: the top-left corner, which is cut out of the first rows alone where that can be.
            let uploaded = service.upload(bytes).unwrap();
            assert_eq!((uploaded.width(), uploaded.height()), size, "orientation {orientation}");
            let arguments = json!({"image": uploaded.hash().to_string(), "bbox": [0, 0, 8, 8]});
            let deadline = Deadline::after(std::time::Duration::from_secs(60));
            let reply = service.run("crop", arguments.as_object().unwrap().clone(), &deadline).unwrap();
            let cut = reply.image.unwrap().picture.decode(&limits).unwrap();
            assert_eq!(cut.get_pixel(3, 3), seen.get_pixel(3, 3), "orientation {orientation}");
        }
    }
}

#[test]
fn a_broken_block_is_taken_as_it_lies_by_both() {
    let mut bytes = jpeg(6);
    let at = bytes.windows(4).position(|w| w == b"Exif").unwrap() + 6;
    bytes[at..at + 2].copy_from_slice(b"??");
    let picture = Picture::new(bytes.clone(), &Limits::default()).unwrap();
    assert_eq!((picture.width(), picture.height()), (60, 40));
    let seen = decode(&bytes, &ImageLimits::default()).unwrap();
    assert_eq!(picture.decode(&Limits::default()).unwrap(), seen);
}
