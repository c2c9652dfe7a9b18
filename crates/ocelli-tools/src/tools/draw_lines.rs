//! `draw_horizontal_line_by_y` and `draw_vertical_line_by_x`: a ruler laid across a picture.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::draw::{self, ColorName};
use crate::error::for_model;
use crate::{Call, Effort, ImageRef, Reply, Tool, ToolError};

/// Draw a dashed horizontal line across a picture, to compare heights or read a value off the y axis.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawHorizontalLineByY {
    /// Picture to draw on, such as img_0.
    image: ImageRef,
    /// Height of the line in pixels of that picture, from the top.
    y: f64,
    /// Colour of the line; red if left out.
    #[serde(default)]
    color: ColorName,
}

impl Tool for DrawHorizontalLineByY {
    const NAME: &'static str = "draw_horizontal_line_by_y";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "y": 128}"#;
    const EFFORT: Effort = Effort::Light;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let mut pixels = call.canvas(&self.image)?;
        let (w, h) = pixels.dimensions();
        let y = inside("y", self.y, h)?;
        draw::horizontal_line(&mut pixels, y, draw::line_width(w, h), self.color.rgb());
        Ok(Reply {
            text: format!("Drew a horizontal line at y = {y}."),
            data: json!({"y": y}),
            image: call.drawn(&pixels)?,
            answer: None,
        })
    }
}

/// Draw a dashed vertical line across a picture, to compare positions or read a value off the x axis.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawVerticalLineByX {
    /// Picture to draw on, such as img_0.
    image: ImageRef,
    /// Position of the line in pixels of that picture, from the left.
    x: f64,
    /// Colour of the line; red if left out.
    #[serde(default)]
    color: ColorName,
}

impl Tool for DrawVerticalLineByX {
    const NAME: &'static str = "draw_vertical_line_by_x";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "x": 64}"#;
    const EFFORT: Effort = Effort::Light;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let mut pixels = call.canvas(&self.image)?;
        let (w, h) = pixels.dimensions();
        let x = inside("x", self.x, w)?;
        draw::vertical_line(&mut pixels, x, draw::line_width(w, h), self.color.rgb());
        Ok(Reply {
            text: format!("Drew a vertical line at x = {x}."),
            data: json!({"x": x}),
            image: call.drawn(&pixels)?,
            answer: None,
        })
    }
}

/// The pixel that holds coordinate `v` of a side of `len` pixels.
pub(crate) fn inside(name: &str, v: f64, len: u32) -> Result<u32, ToolError> {
    // A coordinate on the far edge is taken as the last pixel; models count it as part of the picture.
    match v.is_finite() && v >= 0.0 && v <= f64::from(len) {
        true => Ok((v as u32).min(len - 1)),
        false => Err(for_model(format!(
            "{name} = {v} lies outside the picture, where {name} goes from 0 to {len}"
        ))),
    }
}
