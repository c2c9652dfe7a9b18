//! Hostile pictures through the server: mutated, cut off, spliced, lying about their size, bombs, random bytes. Every one is
//! answered in time with a status that fits, nothing panics, and memory stays flat.
//!
//! The number is small in the ordinary run; the full run is
//!
//!     OCELLI_HOSTILE=10000 cargo test --release -p ocelli-tools --test hostile -- --nocapture
#![allow(clippy::print_stderr)]

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, Rgb, RgbImage};
use ocelli_tools::{EnginesConfig, Limits, Registry, Server, ServerConfig, ServiceConfig};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Whole pictures in all formats that are read.
fn seeds() -> Vec<Vec<u8>> {
    let drawn = RgbImage::from_fn(96, 64, |x, y| {
        if (x / 16 + y / 16) % 2 == 0 {
            Rgb([255; 3])
        } else {
            Rgb([x as u8 * 2, y as u8 * 3, (x * y) as u8])
        }
    });
    let formats =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp];
    let encode = |format| {
        let mut bytes = Vec::new();
        drawn.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    };
    formats.into_iter().map(encode).collect()
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ if c & 1 == 1 { 0xedb8_8320 } else { 0 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// A PNG whose header says `w` x `h` and whose checksum is right, with the data of the small one.
fn lying_png(seed: &[u8], w: u32, h: u32) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    bytes[16..20].copy_from_slice(&w.to_be_bytes());
    bytes[20..24].copy_from_slice(&h.to_be_bytes());
    let sum = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A PNG of one colour: a few kilobytes that become megabytes.
fn bomb(side: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; (side * side) as usize]).unwrap();
    writer.finish().unwrap();
    out
}

/// The `n`-th hostile picture, and its kind.
fn hostile(rng: &mut ChaCha8Rng, n: usize, seeds: &[Vec<u8>], bombs: &[Vec<u8>]) -> (&'static str, Vec<u8>) {
    let mut bytes = seeds.choose(rng).unwrap().clone();
    match n % 8 {
        0 => {
            for _ in 0..rng.random_range(1..12) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            ("flipped bits", bytes)
        }
        1 => {
            bytes.truncate(rng.random_range(0..bytes.len()));
            ("cut off", bytes)
        }
        2 => {
            // The header region is where sizes and offsets stand.
            let end = bytes.len().min(64);
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..end);
                bytes[at] = rng.random();
            }
            ("broken header", bytes)
        }
        3 => {
            let other = seeds.choose(rng).unwrap();
            let (a, b) = (rng.random_range(0..bytes.len()), rng.random_range(0..other.len()));
            bytes.truncate(a);
            bytes.extend(&other[b..]);
            ("spliced", bytes)
        }
        4 => {
            let sides = [0, 1, 97, 5_000, 60_000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
            let (w, h) = (*sides.choose(rng).unwrap(), *sides.choose(rng).unwrap());
            ("lying about its size", lying_png(&seeds[0], w, h))
        }
        5 => ("bomb", bombs.choose(rng).unwrap().clone()),
        6 => {
            let magic = rng.random_range(0..bytes.len().min(24));
            let random = (0..rng.random_range(0..2000)).map(|_| rng.random::<u8>());
            ("random behind a signature", bytes[..magic].iter().copied().chain(random).collect())
        }
        _ => {
            let at = rng.random_range(0..bytes.len());
            let more: Vec<u8> = (0..rng.random_range(1..64)).map(|_| rng.random()).collect();
            bytes.splice(at..at, more);
            ("bytes put in", bytes)
        }
    }
}

fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap_or(0) / 1024
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_pictures_are_answered_and_leave_no_trace() {
    let count: usize = std::env::var("OCELLI_HOSTILE").map_or(320, |n| n.parse().unwrap());
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let limits = Limits { pixels: 4_000_000, call: Duration::from_secs(20), ..Limits::default() };
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        token: None,
        service: ServiceConfig { threads: 2, queue: 64, picture_bytes: 8 << 20, offered: vec![] },
        drain: Duration::from_secs(5),
    };
    let registry = Registry::standard(limits)
        .with_engines(EnginesConfig { pixel_cache_bytes: 32 << 20, ..EnginesConfig::default() });
    let server = Server::bind(registry, &config).await.unwrap();
    let url = format!("http://{}", server.address());
    tokio::spawn(server.run(std::future::pending()));

    let (seeds, bombs) = (seeds(), vec![bomb(1_900), bomb(2_100), bomb(8_000)]);
    let http = reqwest::Client::new();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut tally: std::collections::BTreeMap<(&str, u16), usize> = Default::default();
    let mut settled = 0;
    for n in 0..count {
        let (kind, bytes) = hostile(&mut rng, n, &seeds, &bombs);
        let tool = match n % 5 {
            0 => json!({"name": "crop", "arguments": {"bbox": [0, 0, 20, 20]}}),
            1 => json!({"name": "enhance", "arguments": {"operation": "threshold"}}),
            2 => json!({"name": "draw_horizontal_line_by_y", "arguments": {"y": 3}}),
            3 => json!({"name": "rotate", "arguments": {"degrees": 90}}),
            _ => json!({"name": "zoom_in_subfigure", "arguments": {}}),
        };
        let mut call = tool;
        call["arguments"]["image"] = json!(format!("data:image/png;base64,{}", STANDARD.encode(&bytes)));
        let response = http.post(format!("{url}/v1/call")).json(&call).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        match status {
            200 => assert!(body["text"].is_string(), "{kind}: {body}"),
            // A picture that cannot be read (400) or is none at all (422), or a tool that says no (422).
            400 | 422 => assert!(
                body["error"]["why"].is_string() || body["error"]["why"].is_object(),
                "{kind}: {body}"
            ),
            other => panic!("{kind}: status {other}: {body}"),
        }
        *tally.entry((kind, status)).or_default() += 1;
        // Nothing is let in by the other way either.
        if n % 4 == 0 {
            let stored = http.put(format!("{url}/v1/images")).body(bytes).send().await.unwrap();
            assert!(matches!(stored.status().as_u16(), 200 | 400), "{kind}: {}", stored.status());
        }
        if n == count / 4 {
            settled = resident_mib();
        }
        if n % 1000 == 0 || n + 1 == count {
            eprintln!("{n:6} pictures, resident {} MiB", resident_mib());
        }
    }
    eprintln!("{tally:#?}");
    let good = http.post(format!("{url}/v1/call"));
    let good =
        good.json(&json!({"name": "calculate", "arguments": {"expression": "2+2"}})).send().await.unwrap();
    assert_eq!(good.json::<Value>().await.unwrap()["text"], "4");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let grown = resident_mib().saturating_sub(settled);
    assert!(grown < 96, "memory grew by {grown} MiB after the first quarter");
}
