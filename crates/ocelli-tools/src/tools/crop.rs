//! `crop`: a region at native resolution.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{Affine, Bbox, Call, Effort, ImageRef, Reply, Tool, ToolError};

/// Cut a rectangle out of a picture, pixel for pixel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Picture to cut from, such as img_0.
    image: ImageRef,
    /// Rectangle [left, top, right, bottom] in pixels of that picture.
    bbox: Bbox,
}

impl Tool for Crop {
    const NAME: &'static str = "crop";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "bbox": [40, 20, 200, 120]}"#;
    const EFFORT: Effort = Effort::Light;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let part = call.part(&self.image, self.bbox)?;
        let area = part.area;
        let note = if part.cut { " (limited to the picture)" } else { "" };
        Ok(Reply {
            text: format!("Cut out {area}{note}."),
            data: json!({"bbox": [area.x1, area.y1, area.x2, area.y2]}),
            image: call.made_of_rows(
                area.width(),
                part.rows(),
                Affine::translation(f64::from(area.x1), f64::from(area.y1)),
            )?,
            answer: None,
        })
    }
}
