//! Image decoding and preprocessing against the reference (`fixtures/parity/image.py`), and against hostile files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocelli_model::image::{
    ImageError, ImageLimits, Normalise, Preprocessor, QwenPreprocessor, RgbImage, TilePreprocessor, decode,
    probe, smart_resize, tile_grid,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/image.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The picture that `image.py` draws under the same name.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y, w) = (u64::from(x), u64::from(y), u64::from(width));
        let level = |c: u64| {
            if (x / 8 + y / 8) % 3 == 0 {
                (x * 7919 + y * 104_729 + c * 1_299_709 + x * y * 31) % 251
            } else {
                (x * 255 / w + y * 3 + c * 40) % 256
            }
        };
        ::image::Rgb([level(0) as u8, level(1) as u8, level(2) as u8])
    })
}

fn checksum(levels: impl Iterator<Item = u64>) -> u64 {
    levels.enumerate().map(|(i, v)| v * (i as u64 % 65_521 + 1)).sum()
}

fn file(case: &Value) -> Vec<u8> {
    STANDARD.decode(case["file"].as_str().unwrap()).unwrap()
}

#[test]
fn decoding_agrees_with_pillow() {
    let fixture = fixture();
    for case in fixture["files"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let image = decode(&file(case), &ImageLimits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(json!([image.width(), image.height()]), json!([case["width"], case["height"]]), "{name}");
        match &case["pixels"] {
            Value::Number(sum) => {
                assert_eq!(
                    checksum(image.as_raw().iter().map(|v| u64::from(*v))),
                    sum.as_u64().unwrap(),
                    "{name}"
                );
            }
            pixels => {
                let expected = STANDARD.decode(pixels.as_str().unwrap()).unwrap();
                let off = image.as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                // Other inverse cosine transforms and chroma interpolations: a few levels on a smooth picture.
                assert!(off <= 4, "{name}: off by {off} levels");
            }
        }
    }
}

#[test]
fn transparency_is_composited_on_white_as_pillow_does() {
    let rgba = ::image::RgbaImage::from_fn(256, 256, |x, y| {
        let level = y as u8;
        ::image::Rgba([level, level, level, x as u8])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    rgba.write_to(&mut png, ::image::ImageFormat::Png).unwrap();
    let seen = decode(png.get_ref(), &ImageLimits::default()).unwrap();
    let sum = checksum(seen.as_raw().iter().map(|v| u64::from(*v)));
    assert_eq!(sum, fixture()["alpha"].as_u64().unwrap());
}

#[test]
fn sizes_agree_with_the_reference() {
    for row in fixture()["sizes"].as_array().unwrap() {
        let n: Vec<u32> = serde_json::from_value(row.clone()).unwrap();
        assert_eq!(smart_resize(n[0], n[1], 28, 3136, 1_003_520).unwrap(), (n[2], n[3]), "{}x{}", n[0], n[1]);
        let (columns, rows) = tile_grid(n[0], n[1], 448, 1, 12);
        assert_eq!((columns as u32, rows as u32), (n[4], n[5]), "{}x{}", n[0], n[1]);
    }
}

/// The levels 0..=255 are recovered from the values, so that the checksum compares every sample exactly.
fn check_pixels(name: &str, pixels: &[f32], dim: usize, normalise: &Normalise, case: &Value) {
    let levels = pixels.iter().enumerate().map(|(i, v)| {
        let c = i % dim / (dim / 3);
        (f64::from(*v) * f64::from(normalise.std[c]) + f64::from(normalise.mean[c])) * 255.0
    });
    assert_eq!(
        checksum(levels.map(|l| l.round() as u64)),
        case["levels"].as_u64().unwrap(),
        "{name}: levels"
    );
    for pair in case["values"].as_array().unwrap() {
        let (at, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
        // Six decimals in the file, and a few roundings of f32 at values up to 2.7.
        assert!((f64::from(pixels[at]) - expected).abs() < 2e-6, "{name}[{at}]: {} {expected}", pixels[at]);
    }
}

#[test]
fn qwen_patches_agree_with_the_reference() {
    for case in fixture()["qwen"].as_array().unwrap() {
        let (w, h) = (case["width"].as_u64().unwrap() as u32, case["height"].as_u64().unwrap() as u32);
        let config = json!({"min_pixels": case["min_pixels"], "max_pixels": case["max_pixels"]});
        let defaults = QwenPreprocessor {
            patch: 14,
            merge: 2,
            frames: 2,
            min_pixels: 1,
            max_pixels: 1,
            normalise: Normalise::CLIP,
        };
        let preprocessor = Preprocessor::Qwen(defaults).with_config(&config).unwrap();
        let patches = preprocessor.apply(&picture(w, h)).unwrap();
        let grid = patches.grids[0];
        assert_eq!(json!([1, grid.h, grid.w]), case["grid"], "{w}x{h}");
        assert_eq!(patches.tokens, grid.h * grid.w / 4);
        check_pixels(&format!("{w}x{h}"), &patches.pixels, patches.dim, &Normalise::CLIP, case);
    }
}

#[test]
fn tiles_agree_with_the_reference() {
    let defaults = TilePreprocessor {
        tile: 448,
        patch: 14,
        merge: 2,
        min_tiles: 1,
        max_tiles: 12,
        normalise: Normalise::IMAGENET,
    };
    let config = json!({"size": {"height": 112, "width": 112}});
    let preprocessor = Preprocessor::Tiles(defaults).with_config(&config).unwrap();
    for case in fixture()["tiles"].as_array().unwrap() {
        let (w, h) = (case["width"].as_u64().unwrap() as u32, case["height"].as_u64().unwrap() as u32);
        let patches = preprocessor.apply(&picture(w, h)).unwrap();
        assert_eq!(patches.grids.len() as u64, case["tiles"].as_u64().unwrap(), "{w}x{h}");
        assert_eq!(patches.tokens, patches.grids.len() * 16);
        check_pixels(&format!("{w}x{h}"), &patches.pixels, patches.dim, &Normalise::IMAGENET, case);
    }
}

#[test]
fn settings_that_cannot_be_honoured_are_refused() {
    let qwen = || {
        Preprocessor::Qwen(QwenPreprocessor {
            patch: 14,
            merge: 2,
            frames: 2,
            min_pixels: 3136,
            max_pixels: 1_003_520,
            normalise: Normalise::CLIP,
        })
    };
    for bad in [
        json!({"do_resize": false}),
        json!({"resample": 1}),
        json!({"patch_size": 0}),
        json!({"patch_size": "x"}),
        json!({"image_std": [0.0, 1.0, 1.0]}),
        json!({"image_mean": [0.5]}),
        json!({"min_pixels": 100_000_000}),
        json!({"size": {"shortest_edge": 1_000_000_000_000_000_u64, "longest_edge": 1_000_000_000_000_000_000_u64}}),
        json!({"min_pixels": (1 << 24) + 1, "max_pixels": 1_u64 << 40}),
    ] {
        assert!(matches!(qwen().with_config(&bad), Err(ImageError::Config(_))), "{bad}");
    }
    let both = qwen().with_config(&json!({"size": {"shortest_edge": 784, "longest_edge": 7840}})).unwrap();
    let Preprocessor::Qwen(p) = both else { panic!("still Qwen") };
    assert_eq!((p.min_pixels, p.max_pixels), (784, 7840));
    assert!(matches!(smart_resize(2010, 10, 28, 1, 1000), Err(ImageError::TooNarrow { .. })));
}

#[test]
fn files_cut_in_the_middle_are_errors() {
    for case in fixture()["files"].as_array().unwrap() {
        let (name, bytes) = (case["name"].as_str().unwrap(), file(case));
        // An animation's second half holds its second frame, which nobody asks for.
        let whole = if name == "gif_animated" { bytes.len() / 2 } else { bytes.len() };
        for part in [1, 2, 4, 8, 16, 31] {
            let cut = &bytes[..whole * part / 32];
            let Err(err) = decode(cut, &ImageLimits::default()) else {
                panic!("{name}: {part}/32 of the file make a picture")
            };
            assert!(
                matches!(err, ImageError::Damaged { .. } | ImageError::UnknownFormat { .. })
                    // A header of zeros and a header cut short look alike to GIF and BMP.
                    || matches!(err, ImageError::Empty { .. }),
                "{name} {part}/32: {err}"
            );
        }
    }
}

#[test]
fn a_jpeg_with_many_scans_is_refused() {
    let fixture = fixture();
    let case = fixture["files"].as_array().unwrap().iter().find(|c| c["name"] == "jpeg").unwrap();
    let bytes = file(case);
    let scan = bytes.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let mut many = bytes[..bytes.len() - 2].to_vec();
    for _ in 0..100 {
        many.extend_from_slice(&bytes[scan..bytes.len() - 2]);
    }
    many.extend_from_slice(&[0xff, 0xd9]);
    let err = decode(&many, &ImageLimits::default()).unwrap_err().to_string();
    assert!(err.contains("64 scans"), "{err}");
}

#[test]
fn limits_are_exact() {
    let fixture = fixture();
    let bytes = file(&fixture["files"][0]); // 24 x 16
    let limits = |max_bytes, max_pixels, max_side| ImageLimits { max_bytes, max_pixels, max_side };
    assert!(decode(&bytes, &limits(bytes.len(), 384, 24)).is_ok());
    assert!(matches!(
        decode(&bytes, &limits(bytes.len() - 1, 384, 24)),
        Err(ImageError::TooManyBytes { .. })
    ));
    assert!(matches!(decode(&bytes, &limits(1 << 20, 383, 24)), Err(ImageError::TooManyPixels { .. })));
    assert!(matches!(decode(&bytes, &limits(1 << 20, 384, 23)), Err(ImageError::TooManyPixels { .. })));
    assert_eq!(probe(&bytes, &ImageLimits::default()).unwrap().1, 24);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage anywhere gives a picture or an error, never a panic.
    #[test]
    fn damaged_files_never_panic(which in 0usize..64, flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..8)) {
        let fixture = fixture();
        let files = fixture["files"].as_array().unwrap();
        let mut bytes = file(&files[which % files.len()]);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let limits = ImageLimits { max_pixels: 1 << 20, ..ImageLimits::default() };
        let _ = decode(&bytes, &limits);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode(&bytes, &ImageLimits::default());
    }
}
