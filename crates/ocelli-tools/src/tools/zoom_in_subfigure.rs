//! `zoom_in_subfigure`: one panel of a figure with several.

use image::imageops;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::zoom_in;
use crate::error::for_model;
use crate::{Affine, Call, ImageRef, PixelBox, Reply, Tool, ToolError, panels};

/// Find the sub-figures of a picture, and cut one of them out, enlarged where it is small. Name it by its number (1 is top
/// left, row by row) or by a text that stands in it. With neither, the list of sub-figures is answered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoomInSubfigure {
    /// Picture with several sub-figures, such as img_0.
    image: ImageRef,
    /// Number of the sub-figure, from 1, row by row.
    #[serde(default)]
    #[schemars(range(min = 1))]
    number: Option<u32>,
    /// A text that stands in the sub-figure, such as its title.
    #[serde(default)]
    text: Option<String>,
}

impl Tool for ZoomInSubfigure {
    const NAME: &'static str = "zoom_in_subfigure";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "number": 2}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let pixels = call.pixels(&self.image)?;
        let found = panels::find(&pixels);
        if found.is_empty() {
            return Err(for_model(
                "no sub-figures were found: the picture looks like one figure; use zoom_in",
            ));
        }
        let list = || {
            let each: Vec<String> =
                found.iter().enumerate().map(|(i, b)| format!("{}: {b}", i + 1)).collect();
            each.join(", ")
        };
        let boxes: Vec<[u32; 4]> = found.iter().map(|b| [b.x1, b.y1, b.x2, b.y2]).collect();
        let index = match (self.number, &self.text) {
            (Some(n), _) => (n as usize).checked_sub(1).filter(|&i| i < found.len()).ok_or_else(|| {
                for_model(format!("there is no sub-figure {n}; there are {}: {}", found.len(), list()))
            })?,
            (None, Some(text)) => by_text(call, &self.image, &found, text, &list)?,
            (None, None) => {
                let text = format!("{} sub-figures: {}.", found.len(), list());
                return Ok(Reply { text, data: json!({ "boxes": boxes }), image: None, answer: None });
            }
        };
        let area = found[index];
        let part = imageops::crop_imm(&*pixels, area.x1, area.y1, area.width(), area.height()).to_image();
        let factor = (800 / area.width().max(area.height())).clamp(1, 4);
        let large = zoom_in::enlarge(&part, factor, call)?;
        let scale = 1.0 / f64::from(factor);
        let back =
            Affine::scaling(scale, scale).then(&Affine::translation(f64::from(area.x1), f64::from(area.y1)));
        Ok(Reply {
            text: format!("Sub-figure {} of {}: {area}, enlarged {factor} times.", index + 1, found.len()),
            data: json!({"boxes": boxes, "number": index + 1, "factor": factor}),
            image: call.made(large, back)?,
            answer: None,
        })
    }
}

fn by_text(
    call: &Call<'_>,
    image: &ImageRef,
    found: &[PixelBox],
    text: &str,
    list: &dyn Fn() -> String,
) -> Result<usize, ToolError> {
    let wanted = text.trim().to_lowercase();
    let lines = call.texts(image)?;
    let holds = |area: &PixelBox| {
        lines.iter().any(|l| {
            let (x, y) = l.bbox.centre();
            let within = x >= f64::from(area.x1)
                && x < f64::from(area.x2)
                && y >= f64::from(area.y1)
                && y < f64::from(area.y2);
            within && l.text.to_lowercase().contains(&wanted)
        })
    };
    let matching: Vec<usize> = (0..found.len()).filter(|&i| holds(&found[i])).collect();
    match matching[..] {
        [one] => Ok(one),
        [] => Err(for_model(format!("no sub-figure holds the text {text:?}; they are {}", list()))),
        _ => {
            let numbers: Vec<String> = matching.iter().map(|i| (i + 1).to_string()).collect();
            Err(for_model(format!(
                "sub-figures {} all hold the text {text:?}; give the number",
                numbers.join(", ")
            )))
        }
    }
}
