//! `measure` gives the share of every sector of drawn pies, small ones with a sector larger than the paper around them too,
//! by a point and by its colour.
#![allow(clippy::print_stderr)]

use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{Deadline, Images, Limits, Registry};
use ocelli_worlds::charts::{Charts, Style};
use ocelli_worlds::{Level, Setup, World};
use serde_json::json;

#[test]
fn every_sector_has_its_share() {
    let registry = Registry::standard(Limits::default());
    let world = Charts { styles: vec![Style::Pie], ..Charts::default() };
    let (mut asked, mut wrong) = (0, Vec::new());
    for i in 0..90 {
        let (w, h) = [(96, 96), (128, 96), (448, 336)][i as usize % 3];
        let item = world.generate(72, i, &Setup::new(w, h, Level::Medium).unwrap()).unwrap();
        let mut images = Images::new(registry.limits().clone());
        images.insert(item.pictures[0].bytes.to_vec()).unwrap();
        let all: f64 = item.truth.marks.iter().map(|m| m.value).sum();
        for mark in &item.truth.marks {
            let by_point = json!({"image": "img_0", "what": "share", "x": mark.at.0, "y": mark.at.1});
            let by_colour = json!({"image": "img_0", "what": "share", "label": mark.colour});
            for arguments in [by_point, by_colour] {
                let text = arguments.to_string();
                let arguments = arguments.as_object().unwrap().clone();
                let call = ToolCall { id: String::new(), name: "measure".into(), arguments };
                let reply = registry.run(&call, &images, &Deadline::after(Duration::from_secs(20)));
                let truth = mark.value / all * 100.0;
                asked += 1;
                match reply.map(|r| r.data["percent"].as_f64().unwrap()) {
                    Ok(found) if (found - truth).abs() < 1.5 => {}
                    other => wrong.push(format!("{i} {w}x{h} {text}: {other:?}, not {truth:.1}")),
                }
            }
        }
    }
    eprintln!("{} of {asked} wrong", wrong.len());
    assert!(wrong.len() * 100 <= asked, "{wrong:#?}");
}
