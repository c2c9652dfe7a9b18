//! How well the tools read drawn pictures whose truth is known: words of axes, axis scales, panels of figures.
//!
//!     cargo run --release -p ocelli-tools --example accuracy -- [ocr|axis|panels] [count] [seed]
//!
//! Prints one line per style and every miss. The recorded figures are in `bench/tools.md`.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{Deadline, Images, Limits, Registry, Reply, ToolError};
use ocelli_worlds::charts::{self, Charts, Style};
use ocelli_worlds::truth::{AxisName, LabelKind};
use ocelli_worlds::{Level, Setup, World};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Runs one tool on one picture.
fn run(
    registry: &Registry,
    png: &[u8],
    name: &str,
    mut arguments: Value,
) -> Outcome<Result<Reply, ToolError>> {
    let mut images = Images::new(registry.limits().clone());
    images.insert(png.to_vec())?;
    arguments["image"] = json!("img_0");
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let call = ToolCall { id: String::new(), name: name.into(), arguments };
    Ok(registry.run(&call, &images, &Deadline::after(Duration::from_secs(3600))))
}

/// The `i`-th test picture's size and level: from small to large, from easy to hard.
fn setup(i: u64) -> Outcome<Setup> {
    let (w, h) = [(448, 336), (640, 480), (320, 240), (800, 600), (1024, 768)][(i % 5) as usize];
    let level = [Level::Easy, Level::Medium, Level::Hard][(i % 3) as usize];
    Ok(Setup::new(w, h, level)?)
}

fn ocr(registry: &Registry, count: u64, seed: u64) -> Outcome<()> {
    let mut tally: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for i in 0..count {
        let style = Style::ALL[(i % 6) as usize];
        let charts = Charts { styles: vec![style], ..Charts::default() };
        let setup = setup(i / 6)?;
        let item = charts.generate(seed, i, &setup)?;
        let reply = run(registry, &item.pictures[0].bytes, "ocr", json!({}))??;
        let lines: Vec<(String, [f64; 4])> = reply.data["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|l| {
                let side = |k: &str| l["bbox"][k].as_f64().unwrap_or(f64::NAN);
                (
                    l["text"].as_str().unwrap_or_default().to_owned(),
                    [side("x1"), side("y1"), side("x2"), side("y2")],
                )
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
                println!(
                    "  {i} {} {}x{}: {:?} {:?} at {x:.0},{y:.0} read as {over:?}",
                    style.name(),
                    setup.width,
                    setup.height,
                    label.kind,
                    label.text
                );
            }
        }
    }
    for (key, (right, all)) in tally {
        println!("{key:22} {right:5} of {all:5}  {:.2} %", 100.0 * right as f64 / all as f64);
    }
    Ok(())
}

/// The y axis of each chart, and the x axis of scatter charts: right when every tick's pixel gives its value within 1 % of
/// the axis's length. A pie chart has no axis: right when the tool says so.
fn axis(registry: &Registry, count: u64, seed: u64) -> Outcome<()> {
    let mut tally: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for i in 0..count {
        let style = Style::ALL[(i % 6) as usize];
        let charts = Charts { styles: vec![style], ..Charts::default() };
        let item = charts.generate(seed, i, &setup(i / 6)?)?;
        let outcome = |name: AxisName| -> Outcome<usize> {
            let word = if name == AxisName::X { "x" } else { "y" };
            let read = run(registry, &item.pictures[0].bytes, "read_axis", json!({"axis": word}))?;
            Ok(match (read, item.truth.axis(name)) {
                (Err(ToolError::ForModel(_)), None) => 0,
                (Err(ToolError::ForModel(why)), Some(_)) => {
                    println!("  {i} {} {word}: {why}", style.name());
                    1
                }
                (Err(fatal), _) => return Err(fatal.into()),
                (Ok(reply), None) => {
                    println!("  {i} {} {word}: has no axis, but {}", style.name(), reply.text);
                    2
                }
                (Ok(reply), Some(truth)) => {
                    let number = |key: &str| reply.data[key].as_f64().unwrap_or(f64::NAN);
                    let span = (truth.value1 - truth.value0).abs();
                    let off = |&(pixel, value): &(f64, f64)| {
                        (number("slope") * pixel + number("intercept") - value).abs() / span
                    };
                    let worst = truth.ticks.iter().map(off).fold(0.0, f64::max);
                    let right = worst <= 0.01 && reply.data["scale"] == "linear";
                    if !right {
                        println!("  {i} {} {word}: {:.2} % off; {}", style.name(), worst * 100.0, reply.text);
                    }
                    if right { 0 } else { 2 }
                }
            })
        };
        let mut kinds = vec![outcome(AxisName::Y)?];
        if style == Style::Scatter {
            kinds.push(outcome(AxisName::X)?);
        }
        let kind = kinds.into_iter().max().unwrap_or(2);
        for key in [style.name(), "(all)"] {
            tally.entry(key.into()).or_default()[kind] += 1;
        }
    }
    for (key, [right, honest, wrong]) in tally {
        println!("{key:14} {right:4} right, {honest:3} not read and said so, {wrong:3} wrong");
    }
    Ok(())
}

/// Grids of 1 x 2 to 4 x 4 charts: right when there are as many boxes as panels and each panel's box agrees with its
/// own by an intersection over union of at least 0.75.
fn panels(registry: &Registry, count: u64, seed: u64) -> Outcome<()> {
    let mut right = 0;
    for i in 0..count {
        let shapes = (1..=4).flat_map(|r| (1..=4).map(move |c| (r, c))).filter(|s| *s != (1, 1));
        let shapes: Vec<(u32, u32)> = shapes.collect();
        let (rows, columns) = shapes[(i as usize) % shapes.len()];
        let panel = [(224, 168), (300, 300), (160, 200)][(i % 3) as usize];
        let setup =
            Setup::new(panel.0, panel.1, [Level::Easy, Level::Medium, Level::Hard][(i % 3) as usize])?;
        let (canvas, truth) = charts::panels(seed, i, rows, columns, &setup);
        let png = ocelli_worlds::encode_png(&canvas)?;
        let said = match run(registry, &png, "zoom_in_subfigure", json!({}))? {
            Ok(reply) => reply.data["boxes"].clone(),
            Err(ToolError::ForModel(why)) => json!(why),
            Err(fatal) => return Err(fatal.into()),
        };
        let boxes: Vec<[f64; 4]> = serde_json::from_value(said.clone()).unwrap_or_default();
        let good = boxes.len() == truth.panels.len()
            && truth.panels.iter().zip(&boxes).all(|(p, b)| {
                let side = |a0: f64, a1: f64, b0: f64, b1: f64| (a1.min(b1) - a0.max(b0)).max(0.0);
                let both = side(p.x0, p.x1, b[0], b[2]) * side(p.y0, p.y1, b[1], b[3]);
                let area = (p.x1 - p.x0) * (p.y1 - p.y0) + (b[2] - b[0]) * (b[3] - b[1]) - both;
                both / area >= 0.75
            });
        right += usize::from(good);
        if !good {
            println!("  {i}: {rows} x {columns} of {}x{}: {said}", panel.0, panel.1);
        }
    }
    println!("{right} of {count} grids right");
    Ok(())
}

fn main() -> Outcome<()> {
    let registry = Registry::standard(Limits::default());
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "ocr".into());
    let count: u64 = args.next().map_or(Ok(200), |n| n.parse())?;
    let seed: u64 = args.next().map_or(Ok(1), |n| n.parse())?;
    match what.as_str() {
        "ocr" => ocr(&registry, count, seed),
        "axis" => axis(&registry, count, seed),
        "panels" => panels(&registry, count, seed),
        other => Err(format!("`{other}` is none of ocr, axis, panels").into()),
    }
}
