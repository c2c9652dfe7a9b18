//! Objects by name: SSD on MobileNetV2 for 300 x 300 pictures, trained on COCO (Liu et al., "SSD: Single Shot MultiBox
//! Detector", arXiv 1512.02325; Sandler et al., arXiv 1801.04381; weights and configuration
//! `ssd_mobilenet_v2_coco_2018_03_29` of TensorFlow's model zoo).
//!
//! The network answers, for six grids of cells and 3 or 6 anchors a cell, four offsets and 91 logits. Anchors, box code and
//! suppression are those of the model's `pipeline.config`: scales 0.2 to 0.95, aspect ratios 1, 2, 1/2, 3, 1/3 and one more
//! square, a reduced lowest grid; variances 10 and 5; a sigmoid per class; IoU above 0.6 within a class is the same object.
//! Deviation: pictures are reduced with a filter, not by picking pixels, so that thin things do not vanish.

mod names;

use image::{RgbImage, imageops};
use rten::{Model, NodeId, RunOptions};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use serde::Serialize;

pub(crate) use names::{NAMES, canonical};

use crate::networks::{DETECT, Networks};
use crate::{Fatal, PixelBox};

const INPUT: &str = "FeatureExtractor/MobilenetV2/MobilenetV2/input";
/// Side of the network's input in pixels.
const SIDE: u32 = 300;
/// Cells along each side of the six grids.
const GRIDS: [usize; 6] = [19, 10, 5, 3, 2, 1];
/// Classes and the background, which is class 0.
const CLASSES: usize = 91;
/// Boxes of one class that overlap more than this are one object.
const SAME: f64 = 0.6;
/// Most objects of a picture.
const MOST: usize = 100;

/// An object found in a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Object {
    pub(crate) name: &'static str,
    /// Probability, rounded to 3 places.
    pub(crate) score: f64,
    pub(crate) bbox: PixelBox,
}

/// The network, loaded.
pub(crate) struct Detector {
    model: Model,
    input: NodeId,
    outputs: Vec<NodeId>,
    anchors: Vec<Vec<Anchor>>,
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Detector({} names)", NAMES.len())
    }
}

/// Height and width of an anchor, as parts of the picture's sides.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchor {
    h: f64,
    w: f64,
}

/// A box as parts of the picture's sides.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    y1: f64,
    x1: f64,
    y2: f64,
    x2: f64,
}

fn broken(why: impl std::fmt::Display) -> Fatal {
    Fatal::Network { name: DETECT.name.into(), why: why.to_string() }
}

impl Detector {
    /// Reads, checks and prepares the network.
    pub(crate) fn load(networks: &Networks) -> Result<Self, Fatal> {
        let part = |k: usize, what: &str| format!("BoxPredictor_{k}/{what}Predictor/BiasAdd");
        let outputs: Vec<String> =
            (0..GRIDS.len()).flat_map(|k| [part(k, "BoxEncoding"), part(k, "Class")]).collect();
        let model = networks.detector(INPUT, SIDE as usize, &outputs)?;
        let node = |name: &str| model.node_id(name).map_err(broken);
        let input = node(INPUT)?;
        let outputs = outputs.iter().map(|o| node(o)).collect::<Result<_, _>>()?;
        Ok(Self { model, input, outputs, anchors: anchors() })
    }

    /// All objects of at least this score, best first.
    pub(crate) fn detect(&self, pixels: &RgbImage, at_least: f64) -> Result<Vec<Object>, Fatal> {
        let options = RunOptions::default().with_thread_pool(Some(crate::ocr::own_pool()));
        let inputs = vec![(self.input, network_input(pixels).into())];
        let outputs = self.model.run(inputs, &self.outputs, Some(options)).map_err(broken)?;
        let mut candidates = Vec::new();
        let mut outputs = outputs.into_iter();
        for (&grid, anchors) in GRIDS.iter().zip(&self.anchors) {
            let mut map = |channels: usize| {
                let value = outputs.next().ok_or_else(|| broken("an output is missing"))?;
                let map: NdTensor<f32, 4> =
                    value.try_into().map_err(|_| broken("an output is not [1, C, H, W]"))?;
                match map.shape() == [1, channels, grid, grid] {
                    true => Ok(map.to_vec()),
                    false => Err(broken(format!("an output of {:?}", map.shape()))),
                }
            };
            let boxes = map(4 * anchors.len())?;
            let logits = map(CLASSES * anchors.len())?;
            decode(grid, anchors, &boxes, &logits, at_least, &mut candidates);
        }
        Ok(suppress(candidates, pixels.dimensions()))
    }
}

struct Candidate {
    class: usize,
    score: f64,
    area: Area,
}

/// Anchors per grid, in the order of the network's channels.
fn anchors() -> Vec<Vec<Anchor>> {
    let scale = |k: usize| if k == GRIDS.len() { 1.0 } else { 0.2 + 0.75 * k as f64 / 5.0 };
    let of = |scale: f64, ratio: f64| Anchor { h: scale / ratio.sqrt(), w: scale * ratio.sqrt() };
    let grid = |k: usize| match k {
        0 => vec![of(0.1, 1.0), of(scale(0), 2.0), of(scale(0), 0.5)],
        // 0.3333 is the number that the configuration gives.
        _ => [1.0, 2.0, 0.5, 3.0, 0.3333]
            .map(|ratio| of(scale(k), ratio))
            .into_iter()
            .chain([of((scale(k) * scale(k + 1)).sqrt(), 1.0)])
            .collect(),
    };
    (0..GRIDS.len()).map(grid).collect()
}

/// Candidates of one grid from `[4 A, n, n]` offsets and `[91 A, n, n]` logits.
fn decode(
    n: usize,
    anchors: &[Anchor],
    boxes: &[f32],
    logits: &[f32],
    at_least: f64,
    candidates: &mut Vec<Candidate>,
) {
    let cells = n * n;
    for (a, anchor) in anchors.iter().enumerate() {
        for cell in 0..cells {
            let offset = |j: usize| f64::from(boxes[(4 * a + j) * cells + cell]);
            let area = || {
                let middle = |at: usize| (at as f64 + 0.5) / n as f64;
                let y = middle(cell / n) + offset(0) / 10.0 * anchor.h;
                let x = middle(cell % n) + offset(1) / 10.0 * anchor.w;
                // Bounded, so that a wild number cannot become an infinite box.
                let h = anchor.h * (offset(2) / 5.0).min(8.0).exp() / 2.0;
                let w = anchor.w * (offset(3) / 5.0).min(8.0).exp() / 2.0;
                Area { y1: y - h, x1: x - w, y2: y + h, x2: x + w }
            };
            for class in 1..CLASSES {
                let logit = f64::from(logits[(CLASSES * a + class) * cells + cell]);
                let score = 1.0 / (1.0 + (-logit).exp());
                if score >= at_least && !NAMES[class - 1].is_empty() {
                    candidates.push(Candidate { class, score, area: area() });
                }
            }
        }
    }
}

/// The best of each heap of boxes of one class, cut to the picture.
fn suppress(mut candidates: Vec<Candidate>, (width, height): (u32, u32)) -> Vec<Object> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let same = |k: &&Candidate| k.class == candidate.class && overlap(k.area, candidate.area) > SAME;
        if kept.len() < MOST && kept.iter().find(same).is_none() {
            kept.push(candidate);
        }
    }
    let object = |c: Candidate| {
        let at = |part: f64, side: u32| (part * f64::from(side)).round().clamp(0.0, f64::from(side)) as u32;
        let bbox = PixelBox {
            x1: at(c.area.x1, width),
            y1: at(c.area.y1, height),
            x2: at(c.area.x2, width),
            y2: at(c.area.y2, height),
        };
        let score = (c.score * 1000.0).round() / 1000.0;
        (bbox.x1 < bbox.x2 && bbox.y1 < bbox.y2).then_some(Object { name: NAMES[c.class - 1], score, bbox })
    };
    kept.into_iter().filter_map(object).collect()
}

/// Intersection over union.
fn overlap(a: Area, b: Area) -> f64 {
    let size = |a: Area| (a.y2 - a.y1).max(0.0) * (a.x2 - a.x1).max(0.0);
    let common =
        size(Area { y1: a.y1.max(b.y1), x1: a.x1.max(b.x1), y2: a.y2.min(b.y2), x2: a.x2.min(b.x2) });
    let union = size(a) + size(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// `[1, 3, 300, 300]`, red, green, blue in -1..1.
fn network_input(pixels: &RgbImage) -> NdTensor<f32, 4> {
    let resized = imageops::resize(pixels, SIDE, SIDE, imageops::FilterType::Triangle);
    let cells = (SIDE * SIDE) as usize;
    let mut data = vec![0f32; 3 * cells];
    for (i, pixel) in resized.pixels().enumerate() {
        for c in 0..3 {
            data[c * cells + i] = f32::from(pixel.0[c]) / 127.5 - 1.0;
        }
    }
    NdTensor::from_data([1, 3, SIDE as usize, SIDE as usize], data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_the_configuration() {
        let anchors = anchors();
        let count: usize = anchors.iter().zip(GRIDS).map(|(a, n)| a.len() * n * n).sum();
        assert_eq!(count, 1917); // what the network's own output counts
        // By hand: scale 0.2, ratio 2, is 0.2 * sqrt 2 wide and 0.2 / sqrt 2 high.
        let wide = anchors[0][1];
        assert!((wide.w - 0.282_842_7).abs() < 1e-6 && (wide.h - 0.141_421_4).abs() < 1e-6);
        // The last grid's second square: the geometric mean of 0.95 and 1.
        let last = anchors[5][5];
        assert!((last.w - 0.974_679_4).abs() < 1e-6 && last.w == last.h);
    }

    #[test]
    fn an_anchor_without_offsets_is_its_own_box() {
        let anchor = Anchor { h: 0.5, w: 0.25 };
        let (mut boxes, mut logits) = (vec![0.0; 16], vec![-20.0; CLASSES * 4]);
        logits[17 * 4 + 3] = 0.0; // class 17, the lower right cell of 2 x 2: probability one half
        boxes[12 + 3] = 5.0 * std::f32::consts::LN_2; // twice as wide
        let mut found = Vec::new();
        decode(2, &[anchor], &boxes, &logits, 0.4, &mut found);
        let objects = suppress(found, (100, 200));
        let bbox = PixelBox { x1: 50, y1: 100, x2: 100, y2: 200 };
        assert_eq!(objects, [Object { name: "cat", score: 0.5, bbox }]);
    }

    #[test]
    fn the_best_of_a_heap_stays_and_other_classes_do_not_count() {
        let of = |class, score, x1: f64| Candidate {
            class,
            score,
            area: Area { y1: 0.0, x1, y2: 1.0, x2: x1 + 0.5 },
        };
        let found = vec![of(1, 0.6, 0.05), of(1, 0.9, 0.0), of(2, 0.5, 0.0), of(1, 0.7, 0.5)];
        let names: Vec<_> = suppress(found, (10, 10)).iter().map(|o| (o.name, o.score)).collect();
        assert_eq!(names, [("person", 0.9), ("person", 0.7), ("bicycle", 0.5)]);
    }
}
