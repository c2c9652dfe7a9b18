//! Properties of drawn worlds: exact truth, stable bytes, sane questions.

use std::collections::{HashMap, HashSet};

use ocelli_data::{ContentHash, Target};
use ocelli_worlds::charts::{Charts, Skill, Style, panels};
use ocelli_worlds::truth::{AxisName, LabelKind};
use ocelli_worlds::{Item, Level, Setup, WORLDS, World, world};

fn pixels(item: &Item) -> image::RgbImage {
    let decoded = image::load_from_memory(&item.pictures[0].bytes);
    decoded.expect("a drawn picture decodes").to_rgb8()
}

#[test]
fn every_world_at_every_size_and_level() {
    for name in WORLDS {
        let world = world(name).unwrap();
        for (w, h) in [(32, 32), (48, 40), (127, 300), (128, 128), (448, 336), (1024, 1024)] {
            for level in [Level::Easy, Level::Medium, Level::Hard] {
                let setup = Setup::new(w, h, level).unwrap();
                for index in 0..if w > 500 { 2 } else { 12 } {
                    let item = world.generate(3, index, &setup).unwrap();
                    let picture = pixels(&item);
                    assert_eq!(picture.dimensions(), (w, h));
                    assert_eq!(item.pictures[0].hash, ContentHash::of(&item.pictures[0].bytes));
                    assert_eq!(item.sample.messages[0].images().next(), Some(item.pictures[0].hash));
                    assert_eq!(item.plan.answer, item.sample.target.gold_text(), "{}", item.sample.id);
                    let inked = picture.pixels().filter(|p| p.0 != [255; 3]).count();
                    assert!(inked > 20, "{} is blank", item.sample.id);
                }
            }
        }
    }
    assert!(world("chart").err().unwrap().to_string().contains("charts, counting"));
    assert!(Setup::new(31, 100, Level::Easy).is_err() && Setup::new(100, 1025, Level::Easy).is_err());
}

/// Names of the pictures, so that a change of the drawing code or of the encoder is seen. The values were written by
/// this test (they have no outside reference); on every machine they must be the same.
#[test]
fn bytes_are_the_same_everywhere() {
    let setup = Setup::new(200, 150, Level::Medium).unwrap();
    let found: Vec<String> = WORLDS
        .iter()
        .map(|name| world(name).unwrap().generate(5, 5, &setup).unwrap().pictures[0].hash.short())
        .collect();
    assert_eq!(found, GOLDEN);
}
const GOLDEN: [&str; 5] = ["9cf30a88c9e6", "91b51060e62d", "76dfcdf11c09", "12321c01cee6", "a5bb9f346663"];

#[test]
fn bars_and_ticks_stand_where_the_truth_says() {
    let charts = Charts { styles: vec![Style::Bar, Style::GroupedBar, Style::Stacked], ..Charts::default() };
    for index in 0..40 {
        let item = charts.generate(11, index, &Setup::new(480, 360, Level::Hard).unwrap()).unwrap();
        let picture = pixels(&item);
        let axis = item.truth.axis(AxisName::Y).unwrap();
        for mark in &item.truth.marks {
            let (x, _) = mark.rect.centre();
            let colour = ocelli_worlds::palette::COLOURS.iter().find(|c| c.0 == mark.colour).unwrap().1;
            let at = |y: f64| picture.get_pixel(x as u32, y as u32).0;
            if mark.rect.y1 - mark.rect.y0 >= 2.0 {
                assert_eq!(at(mark.rect.y0 + 0.5), colour, "{}: first row of the bar", item.sample.id);
                assert_eq!(at(mark.rect.y1 - 0.5), colour, "{}: last row of the bar", item.sample.id);
                assert_ne!(at(mark.rect.y0 - 0.5), colour, "{}: row above the bar", item.sample.id);
            }
            // Height of the bar through the axis gives its value back within one pixel.
            let read = axis.value_at(mark.rect.y0) - axis.value_at(mark.rect.y1);
            let per_pixel = (axis.value_at(0.0) - axis.value_at(1.0)).abs();
            assert!(
                (read - mark.value).abs() <= 1.5 * per_pixel,
                "{}: {read} {}",
                item.sample.id,
                mark.value
            );
        }
        let plot = item.truth.plot.unwrap();
        for (y, _) in &axis.ticks {
            assert!(
                picture.get_pixel(plot.x0 as u32 - 3, *y as u32).0[0] < 60,
                "{}: tick at {y}",
                item.sample.id
            );
        }
    }
}

#[test]
fn label_boxes_hold_their_words_and_do_not_overlap() {
    let mut seen = 0;
    for index in 0..60 {
        let item =
            Charts::default().generate(2, index, &Setup::new(448, 336, Level::Medium).unwrap()).unwrap();
        let picture = pixels(&item);
        let labels = &item.truth.labels;
        for label in labels {
            let r = label.rect;
            assert!(
                r.x0 >= 0.0 && r.y0 >= 0.0 && r.x1 <= 448.0 && r.y1 <= 336.0,
                "{}: {label:?}",
                item.sample.id
            );
            let dark = (r.y0 as u32..r.y1 as u32)
                .flat_map(|y| (r.x0 as u32..r.x1 as u32).map(move |x| (x, y)))
                .filter(|&(x, y)| picture.get_pixel(x, y).0[0] < 120)
                .count();
            assert!(dark >= 4, "{}: no ink in {label:?}", item.sample.id);
        }
        for (i, a) in labels.iter().enumerate() {
            for b in &labels[i + 1..] {
                let apart = a.rect.x1 <= b.rect.x0
                    || b.rect.x1 <= a.rect.x0
                    || a.rect.y1 <= b.rect.y0
                    || b.rect.y1 <= a.rect.y0;
                assert!(apart, "{}: {a:?} over {b:?}", item.sample.id);
            }
        }
        seen += labels.iter().filter(|l| l.kind == LabelKind::YTick).count();
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn every_style_and_skill_is_asked_and_answers_are_spread() {
    let setup = Setup::new(64, 64, Level::Medium).unwrap();
    let mut kinds = HashSet::new();
    let mut answers: HashMap<String, usize> = HashMap::new();
    for index in 0..1500 {
        let item = Charts::default().generate(1, index, &setup).unwrap();
        let meta = |k: &str| item.sample.meta[k].as_str().unwrap().to_owned();
        kinds.insert((meta("style"), meta("skill")));
        *answers.entry(item.plan.answer.clone()).or_default() += 1;
    }
    // Six styles ask five skills each, and lines ask for trends.
    assert_eq!(kinds.len(), 31, "{kinds:?}");
    let (yes, no) = (answers["yes"] as f64, answers["no"] as f64);
    // Binomial with p = 1/2: three standard deviations.
    assert!((yes - no).abs() < 3.0 * (yes + no).sqrt(), "{yes} {no}");
    assert!(answers.values().all(|n| *n < 300), "{answers:?}");
}

#[test]
fn only_the_wanted_skill_is_asked() {
    let charts = Charts { styles: vec![Style::Bar], skills: vec![Skill::Value], by_colour: false };
    for index in 0..50 {
        let item = charts.generate(1, index, &Setup::new(400, 300, Level::Easy).unwrap()).unwrap();
        assert_eq!(item.sample.meta["skill"], "value");
        assert!(matches!(item.sample.target, Target::Number { .. }));
        let calls: Vec<&str> = item.plan.steps.iter().map(|s| s.call.name.as_str()).collect();
        assert_eq!(calls, ["read_axis", "measure"]);
    }
}

/// Where a draw cannot be asked what was wanted, another is drawn: no other question takes its place.
#[test]
fn no_other_skill_takes_the_place_of_the_wanted() {
    for (style, side) in Style::ALL.into_iter().flat_map(|s| [(s, 64), (s, 96), (s, 300)]) {
        for skill in Skill::ALL.into_iter().filter(|s| *s != Skill::Trend || style == Style::Line) {
            let charts = Charts { styles: vec![style], skills: vec![skill], by_colour: false };
            for (index, level) in (0..60).zip([Level::Easy, Level::Medium, Level::Hard].into_iter().cycle()) {
                let item = charts.generate(1, index, &Setup::new(side, side, level).unwrap()).unwrap();
                assert_eq!(item.sample.meta["skill"], skill.name(), "{} {side} {level:?}", style.name());
            }
        }
    }
}

#[test]
fn what_no_chart_can_be_asked_is_refused() {
    let charts =
        Charts { styles: vec![Style::Bar, Style::Pie], skills: vec![Skill::Trend], by_colour: false };
    let setup = Setup::new(64, 64, Level::Easy).unwrap();
    let said = charts.generate(1, 0, &setup).unwrap_err().to_string();
    assert!(said.contains("bar, pie") && said.contains("trend"), "{said}");
    // Where any style may be drawn, those are drawn that fit.
    let charts = Charts { styles: Vec::new(), skills: vec![Skill::Trend], by_colour: false };
    assert_eq!(charts.generate(1, 0, &setup).unwrap().sample.meta["style"], "line");
}

/// With two strands, about half of the paths end opposite to where they begin.
#[test]
fn easy_paths_are_to_be_followed() {
    let setup = Setup::new(200, 150, Level::Easy).unwrap();
    let straight = (0..200)
        .filter(|&i| {
            let item = world("paths").unwrap().generate(3, i, &setup).unwrap();
            // Ends carry letters from above on the left and numbers on the right.
            let labels = &item.truth.labels;
            let row = |l: &ocelli_worlds::truth::Label| (l.rect.y0 + l.rect.y1) / 2.0;
            let question = item.sample.messages[0].plain_text();
            let from = labels.iter().find(|l| question.contains(&format!("starts at {}.", l.text))).unwrap();
            let to = labels.iter().find(|l| l.text == item.plan.answer).unwrap();
            (row(from) - row(to)).abs() < 20.0
        })
        .count();
    // Binomial with p = 1/2 over 200: four standard deviations.
    assert!((72..=128).contains(&straight), "{straight}");
}

#[test]
fn panels_know_their_boxes() {
    let (canvas, truth) = panels(1, 0, 2, 3, &Setup::new(160, 128, Level::Easy).unwrap());
    assert_eq!(truth.panels.len(), 6);
    let last = truth.panels[5];
    assert!(last.x1 < f64::from(canvas.width) && last.y1 < f64::from(canvas.height));
    for (mark, plot) in truth.marks.iter().map(|m| (m, &truth.panels)) {
        let (x, y) = mark.rect.centre();
        assert!(plot.iter().any(|p| p.x0 <= x && x <= p.x1 && p.y0 <= y && y <= p.y1), "{mark:?}");
    }
}
