//! Pictures that promise too much are refused before memory is taken for them. A test binary of its own, because it
//! counts what the allocator hands out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ocelli_model::image::{ImageError, ImageLimits, decode};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one counts and passes on")]
// SAFETY: every call goes to the system allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `at` came from `alloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    file.extend_from_slice(&width.to_be_bytes());
    file.extend_from_slice(&height.to_be_bytes());
    file.extend_from_slice(&[8, 2, 0, 0, 0, 0, 0, 0, 0]);
    file.extend_from_slice(b"\0\0\0\0IDAT\0\0\0\0");
    file
}

fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend_from_slice(&width.to_le_bytes());
    file.extend_from_slice(&height.to_le_bytes());
    file.extend_from_slice(&[1, 0, 24, 0]);
    file.extend_from_slice(&[0; 24]);
    file
}

fn gif(width: u16, height: u16) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend_from_slice(&width.to_le_bytes());
    file.extend_from_slice(&height.to_le_bytes());
    file.extend_from_slice(&[
        0x80, 0, 0, 0, 0, 0, 255, 255, 255, b',', 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0, b';',
    ]);
    file
}

fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xc0, 0, 17, 8];
    file.extend_from_slice(&height.to_be_bytes());
    file.extend_from_slice(&width.to_be_bytes());
    file.extend_from_slice(&[
        3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0,
    ]);
    file.extend_from_slice(&[0x55; 64]);
    file.extend_from_slice(&[0xff, 0xd9]);
    file
}

fn webp(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"RIFF\x2e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    file.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    file.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    file.extend_from_slice(b"VP8L\x10\0\0\0\x2f");
    file.extend_from_slice(&[0xff; 15]);
    file
}

#[test]
fn promises_of_many_pixels_cost_nothing() {
    let limits = ImageLimits::default();
    let mut hostile: Vec<(String, Vec<u8>)> = Vec::new();
    for side in [100_000u32, u32::MAX] {
        hostile.push((format!("png {side}"), png(side, side)));
        hostile.push((format!("bmp {side}"), bmp(side as i32 & i32::MAX, side as i32 & i32::MAX)));
    }
    hostile.push(("png 1 x 4e9".into(), png(1, u32::MAX)));
    hostile.push(("gif".into(), gif(u16::MAX, u16::MAX)));
    hostile.push(("jpeg".into(), jpeg(u16::MAX, u16::MAX)));
    // An application segment, filling bytes and tables before the frame header; and nothing at all behind it.
    let mut late = b"\xff\xd8\xff\xe0\x00\x06JFIF\xff\xff\xff\xc4\x00\x03\x00".to_vec();
    late.extend_from_slice(&jpeg(u16::MAX, 40_000)[2..]);
    hostile.push(("jpeg with a late header".into(), late));
    hostile.push(("jpeg that ends behind its header".into(), jpeg(u16::MAX, u16::MAX)[..11].to_vec()));
    hostile.push(("webp".into(), webp(1 << 24, 1 << 24)));
    hostile.push(("webp in bounds of the format".into(), webp(16_383, 16_383)));
    for (name, file) in &hostile {
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let err = decode(file, &limits).expect_err(name);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert!(peak < 1 << 20, "{name}: {peak} bytes");
        let announced = matches!(err, ImageError::TooManyPixels { .. } | ImageError::Damaged { .. });
        assert!(announced, "{name}: {err}");
        if !name.starts_with("webp") {
            assert!(matches!(err, ImageError::TooManyPixels { .. }), "{name}: {err}");
        }
    }
}

#[test]
fn pictures_without_pixels_are_named_so() {
    for (name, file) in [
        ("png", png(0, 0)),
        ("png", png(0, 9)),
        ("bmp", bmp(0, 0)),
        ("gif", gif(0, 3)),
        ("jpeg", jpeg(0, 0)),
        ("jpeg", jpeg(7, 0)),
        ("jpeg", jpeg(0, 9)),
    ] {
        let err = decode(&file, &ImageLimits::default()).unwrap_err();
        assert!(matches!(err, ImageError::Empty { .. }), "{name}: {err}");
    }
    assert!(matches!(decode(b"", &ImageLimits::default()), Err(ImageError::UnknownFormat { .. })));
}
