//! Drives a tool server over plain HTTP/1.1: calls per second, p50, p99, errors. One thread and one kept connection per
//! client, each sending its next call when the last is answered; requests are bytes made beforehand, and of an answer
//! only the status and the length are looked at, so that the client costs little beside the server.
//!
//!     cargo run --release -p ocelli-tools --example load -- URL PICTURE WHAT HOW [clients] [calls]
//!
//! URL is that of the call: `http://127.0.0.1:7070/v1/call` of `ocelli tools serve`, or `.../worker_generate` of a worker
//! of the FastAPI kind. PICTURE is a PNG. WHAT is `crop` (a square of half the shorter side) or `hline`. HOW:
//!
//! * `worker`  the worker's protocol: picture in base64 and a text parameter;
//! * `same`    our protocol, the same picture in every call;
//! * `fresh`   our protocol, a picture in every call that the server has never seen: a private chunk makes each file unlike all
//!   others;
//! * `hash`    our protocol, the picture stored once and named by its hash, the answer's picture in the answer;
//! * `hash-hash` the same, the answer's picture as its hash alone.
//!
//! The box or line moves by a pixel from call to call in our protocol. `bench/tools.sh` runs the comparison.
//!
//!     cargo run --release -p ocelli-tools --example load -- serve [threads] [address]
//!
//! is our server for it: that of `ocelli tools serve --cache-mib 0`, which computes every call anew.

#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocelli_data::ContentHash;
use ocelli_tools::{Limits, Registry, Server, ServerConfig, ServiceConfig};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Calls that are made before the clock runs.
const WARM_UP: usize = 2;

struct Target {
    host: String,
    path: String,
}

fn target(url: &str) -> Outcome<Target> {
    let rest = url.strip_prefix("http://").ok_or("the URL must begin with http://")?;
    let (host, path) = rest.split_once('/').ok_or("the URL has no path")?;
    Ok(Target { host: host.to_owned(), path: format!("/{path}") })
}

fn request(target: &Target, method: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let (host, length) = (&target.host, body.len());
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends a request and reads the answer: status and body.
fn exchange(reader: &mut BufReader<TcpStream>, request: &[u8], body: &mut Vec<u8>) -> Outcome<u16> {
    reader.get_mut().write_all(request)?;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status line")?;
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    body.resize(length.ok_or("an answer without a length")?, 0);
    reader.read_exact(body)?;
    Ok(status)
}

/// The same picture as another file: a private chunk with a number goes in behind the header.
fn relabelled(png: &[u8], number: u64) -> Vec<u8> {
    let mut chunk = b"ocNm".to_vec();
    chunk.extend(number.to_be_bytes());
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    // Signature (8) and header chunk (25) come first.
    [&png[..33], &8u32.to_be_bytes(), &chunk, &(!crc).to_be_bytes(), &png[33..]].concat()
}

fn requests(target: &Target, png: &[u8], what: &str, how: &str, calls: usize) -> Outcome<Vec<Vec<u8>>> {
    let size = |at: usize| png.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let (w, h) = size(16).zip(size(20)).ok_or("the picture is no PNG")?;
    let side = w.min(h) / 2;
    let post = |body: serde_json::Value| {
        request(target, "POST", &target.path, "application/json", body.to_string().as_bytes())
    };
    if how == "worker" {
        let param = match what {
            "crop" => format!("[100,100,{},{}]", 100 + side, 100 + side),
            _ => "y=28.5".to_owned(),
        };
        return Ok(vec![post(json!({"image": STANDARD.encode(png), "param": param}))]);
    }
    let call = |image: &str, k: u32| {
        let reply = if how == "hash-hash" { "hash" } else { "inline" };
        let (name, arguments) = match what {
            "crop" => {
                let x = k % (w - side);
                ("crop", json!({"image": image, "bbox": [x, 100, x + side, 100 + side]}))
            }
            _ => ("draw_horizontal_line_by_y", json!({"image": image, "y": k % h})),
        };
        post(json!({"name": name, "arguments": arguments, "reply": reply}))
    };
    let data_url = |png: &[u8]| format!("data:image/png;base64,{}", STANDARD.encode(png));
    Ok(match how {
        "same" => (0..8).map(|k| call(&data_url(png), k * 7)).collect(),
        "fresh" => {
            // Unlike those of an earlier run against the same server, too.
            let run = u64::from(std::process::id()) << 32;
            let picture = |k: u32| data_url(&relabelled(png, run | u64::from(k)));
            (0..(calls + WARM_UP) as u32).map(|k| call(&picture(k), k)).collect()
        }
        "hash" | "hash-hash" => {
            let upload = request(target, "PUT", "/v1/images", "image/png", png);
            let mut reader = BufReader::new(TcpStream::connect(&target.host)?);
            let mut body = Vec::new();
            if exchange(&mut reader, &upload, &mut body)? != 200 {
                return Err(format!("upload: {}", String::from_utf8_lossy(&body)).into());
            }
            let hash = ContentHash::of(png).to_string();
            (0..1000).map(|k| call(&hash, k)).collect()
        }
        other => return Err(format!("`{other}` is none of worker, same, fresh, hash, hash-hash").into()),
    })
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10) // 100 ticks a second
}

/// Our server, until it is killed.
fn serve(args: &[String]) -> Outcome<()> {
    let mut service = ServiceConfig::default();
    if let Some(threads) = args.first() {
        service.threads = threads.parse()?;
    }
    let address = args.get(1).map_or("127.0.0.1:7070", String::as_str).parse()?;
    let config = ServerConfig { address, token: None, service, drain: Duration::ZERO };
    let registry = Registry::standard(Limits::default());
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = Server::bind(registry, &config).await?;
        println!("listening on http://{}", server.address());
        server.run(std::future::pending()).await
    })?;
    Ok(())
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "serve") {
        return serve(&args[1..]);
    }
    let [url, picture, what, how, rest @ ..] = &args[..] else {
        return Err("URL PICTURE WHAT HOW [clients] [calls]".into());
    };
    let clients = rest.first().map_or(Ok(8), |n| n.parse::<usize>())?.max(1);
    let calls = rest.get(1).map_or(Ok(1000), |n| n.parse::<usize>())?.max(2 * clients);
    let target = target(url)?;
    let png = std::fs::read(picture).map_err(|e| format!("{picture}: {e}"))?;
    let requests = requests(&target, &png, what, how, calls)?;

    let connect = || -> Outcome<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&target.host)?;
        stream.set_nodelay(true)?;
        Ok(BufReader::with_capacity(1 << 18, stream))
    };
    let mut reader = connect()?;
    let mut body = Vec::new();
    for warm_up in requests.iter().take(WARM_UP) {
        let status = exchange(&mut reader, warm_up, &mut body)?;
        let text = String::from_utf8_lossy(&body);
        let error = text.contains("\"error\":") || (how == "worker" && !text.contains("\"error_code\":0"));
        if status != 200 || error {
            return Err(
                format!("warm-up: status {status}: {}", text.chars().take(300).collect::<String>()).into()
            );
        }
    }
    drop(reader);
    let least = body.len() / 4;

    let (taken, before, begun) = (AtomicUsize::new(0), cpu(), Instant::now());
    let client = || -> Outcome<(Vec<Duration>, usize)> {
        let mut reader = connect()?;
        let (mut times, mut errors, mut body) = (Vec::new(), 0, Vec::new());
        loop {
            let k = taken.fetch_add(1, Ordering::Relaxed);
            if k >= calls {
                return Ok((times, errors));
            }
            let at = Instant::now();
            let good = exchange(&mut reader, &requests[(k + WARM_UP) % requests.len()], &mut body);
            times.push(at.elapsed());
            if !matches!(good, Ok(200)) || body.len() < least {
                errors += 1;
            }
            if good.is_err() {
                reader = connect()?;
            }
        }
    };
    let results: Vec<Outcome<(Vec<Duration>, usize)>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        running.into_iter().map(|r| r.join().unwrap_or_else(|_| Err("a client fell".into()))).collect()
    });
    let wall = begun.elapsed();
    let (mut times, mut errors) = (Vec::new(), 0);
    for result in results {
        let (t, e) = result?;
        times.extend(t);
        errors += e;
    }
    times.sort_unstable();
    let at = |q: f64| times[((q * times.len() as f64) as usize).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:5} {how:9} clients={clients:<3} calls={:<6} calls/s={:9.1} p50={:9.2}ms p99={:9.2}ms errors={errors} client_cpu={:.2}s",
        times.len(),
        times.len() as f64 / wall.as_secs_f64(),
        at(0.5),
        at(0.99),
        (cpu() - before).as_secs_f64(),
    );
    Ok(())
}
