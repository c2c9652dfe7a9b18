//! `draw_box`: an outline around a region.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::draw::{self, ColorName};
use crate::{Bbox, Call, Effort, ImageRef, Reply, Tool, ToolError};

/// Draw the outline of a rectangle on a picture, to mark a region.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawBox {
    /// Picture to draw on, such as img_0.
    image: ImageRef,
    /// Rectangle [left, top, right, bottom] in pixels of that picture.
    bbox: Bbox,
    /// Colour of the outline; red if left out.
    #[serde(default)]
    color: ColorName,
}

impl Tool for DrawBox {
    const NAME: &'static str = "draw_box";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "bbox": [40, 20, 200, 120], "color": "blue"}"#;
    const EFFORT: Effort = Effort::Light;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let mut pixels = call.canvas(&self.image)?;
        let (w, h) = pixels.dimensions();
        let (area, cut) = self.bbox.in_picture(w, h)?;
        draw::outline(&mut pixels, area, 2 * draw::line_width(w, h), self.color.rgb());
        let note = if cut { " (limited to the picture)" } else { "" };
        Ok(Reply {
            text: format!("Drew a box around {area}{note}."),
            data: json!({"bbox": [area.x1, area.y1, area.x2, area.y2]}),
            image: call.drawn(&pixels)?,
            answer: None,
        })
    }
}
