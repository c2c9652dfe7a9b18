//! `point` counts what is drawn: every colour, form and both of every scene, against the truth of who drew it.
#![allow(clippy::print_stderr)]

use std::collections::BTreeSet;
use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{Deadline, Images, Limits, Registry};
use ocelli_worlds::{Level, Setup};
use serde_json::json;

#[test]
fn pointing_counts_the_shapes_of_drawn_scenes() {
    let registry = Registry::standard(Limits::default());
    let world = ocelli_worlds::world("counting").unwrap();
    let (mut asked, mut wrong) = (0, Vec::new());
    for i in 0..90 {
        let level = [Level::Easy, Level::Medium, Level::Hard][i as usize % 3];
        let (w, h) = [(448, 336), (320, 240), (640, 640)][i as usize / 3 % 3];
        let item = world.generate(71, i, &Setup::new(w, h, level).unwrap()).unwrap();
        let mut images = Images::new(registry.limits().clone());
        images.insert(item.pictures[0].bytes.to_vec()).unwrap();
        let objects = &item.truth.objects;
        let labels: BTreeSet<(String, String, String)> = objects
            .iter()
            .flat_map(|o| {
                [
                    (format!("{} object", o.colour), o.colour.clone(), String::new()),
                    (format!("{}s", o.shape), String::new(), o.shape.clone()),
                    (format!("{} {}", o.colour, o.shape), o.colour.clone(), o.shape.clone()),
                ]
            })
            .chain([("magenta triangle".into(), "magenta".into(), "triangle".into())])
            .collect();
        for (label, colour, shape) in labels {
            let truth = objects
                .iter()
                .filter(|o| {
                    (colour.is_empty() || o.colour == colour) && (shape.is_empty() || o.shape == shape)
                })
                .count();
            let arguments = json!({"image": "img_0", "label": label});
            let arguments = arguments.as_object().unwrap().clone();
            let call = ToolCall { id: String::new(), name: "point".into(), arguments };
            let reply = registry.run(&call, &images, &Deadline::after(Duration::from_secs(20))).unwrap();
            let found = reply.data["points"].as_array().unwrap().len();
            asked += 1;
            if found != truth {
                wrong.push(format!("{i} {w}x{h} {level:?}: {label}: {found}, not {truth}"));
            }
        }
    }
    eprintln!("{} of {asked} wrong", wrong.len());
    assert!(wrong.len() * 100 <= asked, "{wrong:#?}");
}
