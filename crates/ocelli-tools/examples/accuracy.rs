//! How well the tools read drawn pictures whose truth is known: words of axes, axis scales, panels of figures.
//!
//!     cargo run --release -p ocelli-tools --example accuracy -- [ocr|axis|panels] [count]
//!
//! Prints one line per style and every miss. The recorded figures are in `bench/tools.md`.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{Deadline, Images, Limits, Registry, Reply, ToolError};
use ocelli_worlds::charts::{Charts, Style};
use ocelli_worlds::truth::LabelKind;
use ocelli_worlds::{Level, Setup, World};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Runs one tool on one picture.
fn run(registry: &Registry, png: &[u8], name: &str, mut arguments: Value) -> Outcome<Result<Reply, ToolError>> {
    let mut images = Images::new(registry.limits().clone());
    images.insert(png.to_vec())?;
    arguments["image"] = json!("img_0");
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let call = ToolCall { id: String::new(), name: name.into(), arguments };
    Ok(registry.run(&call, &images, &Deadline::after(Duration::from_secs(60))))
}

/// The `i`-th test picture's size and level: from small to large, from easy to hard.
fn setup(i: u64) -> Outcome<Setup> {
    let (w, h) = [(448, 336), (640, 480), (320, 240), (800, 600), (1024, 768)][(i % 5) as usize];
    let level = [Level::Easy, Level::Medium, Level::Hard][(i % 3) as usize];
    Ok(Setup::new(w, h, level)?)
}

fn ocr(registry: &Registry, count: u64) -> Outcome<()> {
    let mut tally: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for i in 0..count {
        let style = Style::ALL[(i % 6) as usize];
        let charts = Charts { styles: vec![style], skills: vec![] };
        let setup = setup(i / 6)?;
        let item = charts.generate(101, i, &setup)?;
        let reply = run(registry, &item.pictures[0].bytes, "ocr", json!({}))??;
        let lines: Vec<(String, [f64; 4])> = reply.data["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|l| {
                let side = |k: &str| l["bbox"][k].as_f64().unwrap_or(f64::NAN);
                (l["text"].as_str().unwrap_or_default().to_owned(), [side("x1"), side("y1"), side("x2"), side("y2")])
            })
            .collect();
        for label in &item.truth.labels {
            let (x, y) = label.rect.centre();
            let over: Vec<&str> = lines
                .iter()
                .filter(|(_, b)| b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3])
                .map(|(t, _)| t.as_str())
                .collect();
            let right = over.contains(&label.text.as_str());
            let axis = matches!(label.kind, LabelKind::XTick | LabelKind::YTick | LabelKind::Category);
            let mut keys = vec![format!("{:?}", label.kind), format!("{}x{}", setup.width, setup.height)];
            if axis {
                keys.push("(all axis labels)".into());
            }
            for key in keys {
                let entry = tally.entry(key).or_default();
                entry.0 += usize::from(right);
                entry.1 += 1;
            }
            if !right {
                println!("  {i} {} {}x{}: {:?} {:?} at {x:.0},{y:.0} read as {over:?}", style.name(), setup.width, setup.height, label.kind, label.text);
            }
        }
    }
    for (key, (right, all)) in tally {
        println!("{key:22} {right:5} of {all:5}  {:.2} %", 100.0 * right as f64 / all as f64);
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let registry = Registry::standard(Limits::default());
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "ocr".into());
    let count: u64 = args.next().map_or(Ok(200), |n| n.parse())?;
    match what.as_str() {
        "ocr" => ocr(&registry, count),
        other => Err(format!("`{other}` is none of ocr, axis, panels").into()),
    }
}
