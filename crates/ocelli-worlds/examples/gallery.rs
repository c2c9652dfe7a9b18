//! Draws sheets of items of each world, for people to look at: `cargo run --release -p ocelli-worlds --example
//! gallery -- OUT_DIR [WIDTH HEIGHT LEVEL]`.

use ocelli_data::io::write_atomic;
use ocelli_worlds::canvas::{Canvas, WHITE};
use ocelli_worlds::charts::{Charts, Style};
use ocelli_worlds::{Level, Setup, World, encode_png, world};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let out = std::path::PathBuf::from(args.first().ok_or("usage: gallery OUT_DIR [WIDTH HEIGHT LEVEL]")?);
    let number = |i: usize, otherwise: u32| args.get(i).map_or(Ok(otherwise), |a| a.parse());
    let (width, height) = (number(1, 448)?, number(2, 336)?);
    let level: Level = serde_json::from_value(args.get(3).map_or("medium", String::as_str).into())?;
    let setup = Setup::new(width, height, level)?;
    let mut sheets: Vec<(String, Box<dyn World>)> = Vec::new();
    for style in Style::ALL {
        sheets.push((
            format!("charts-{}", style.name()),
            Box::new(Charts { styles: vec![style], ..Charts::default() }),
        ));
    }
    for name in ["counting", "geometry", "paths", "patterns"] {
        sheets.push((name.into(), world(name)?));
    }
    for (name, world) in sheets {
        let mut sheet = Canvas::new(width * 3 + 8, height * 2 + 4, [90, 90, 90]);
        for i in 0..6u32 {
            let item = world.generate(1, u64::from(i), &setup)?;
            let decoded = image::load_from_memory(&item.pictures[0].bytes)?.to_rgb8();
            let mut canvas = Canvas::new(width, height, WHITE);
            canvas.pixels = decoded.into_raw();
            sheet.paste(&canvas, (i % 3) * (width + 4), (i / 3) * (height + 4));
            let question = item.sample.messages[0].plain_text();
            #[allow(clippy::print_stdout, reason = "an example for people")]
            {
                println!("{name} {i}: {question} -> {} ({} calls)", item.plan.answer, item.plan.steps.len());
            }
        }
        write_atomic(&out.join(format!("{name}.png")), &encode_png(&sheet)?)?;
    }
    Ok(())
}
