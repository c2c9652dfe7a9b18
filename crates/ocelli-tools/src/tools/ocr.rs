//! `ocr`: all text of a picture, with boxes and scores.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::ocr::{Direction, Line};
use crate::{Bbox, Call, ImageRef, PixelBox, Reply, Tool, ToolError};

/// Read all text in a picture or in a region of it. Answers one line per text with its box and a score.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ocr {
    /// Picture to read, such as img_0.
    image: ImageRef,
    /// Region [left, top, right, bottom] in pixels; left out, the whole picture is read.
    #[serde(default)]
    bbox: Option<Bbox>,
}

impl Tool for Ocr {
    const NAME: &'static str = "ocr";
    const EXAMPLE: &'static str = r#"{"image": "img_0"}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let lines = lines(call, &self.image, self.bbox)?;
        let mut text = match lines.len() {
            0 => "No text found.".to_owned(),
            1 => "1 text (text, box, score):".to_owned(),
            n => format!("{n} texts (text, box, score):"),
        };
        for line in &lines {
            let turned = match line.direction {
                Direction::Right => "",
                Direction::Up => ", reads upwards",
                Direction::Down => ", reads downwards",
            };
            text.push_str(&format!("\n{} {} {:.2}{turned}", json!(line.text), line.bbox, line.score));
        }
        Ok(Reply { text, data: json!({ "lines": lines }), image: None, answer: None })
    }
}

/// Lines of a picture or of a region, in the picture's own pixels.
pub(crate) fn lines(call: &Call<'_>, image: &ImageRef, region: Option<Bbox>) -> Result<Vec<Line>, ToolError> {
    let Some(region) = region else { return Ok((*call.texts(image)?).clone()) };
    let part = call.part(image, region)?;
    let area = part.area;
    let mut lines = call.engines.ocr()?.read(&part.copy(), &|| call.check())?;
    for line in &mut lines {
        let b = line.bbox;
        line.bbox =
            PixelBox { x1: b.x1 + area.x1, y1: b.y1 + area.y1, x2: b.x2 + area.x1, y2: b.y2 + area.y1 };
    }
    Ok(lines)
}
