//! `rotate`: quarter turns exactly, other angles with bilinear interpolation.
//!
//! Sine and cosine are rounded to 1 / 2^20, so that the last bit in which mathematical libraries differ between
//! machines cannot change a pixel.

use image::{Rgb, RgbImage, imageops};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::error::for_model;
use crate::{Affine, Call, Effort, ImageRef, Reply, Tool, ToolError};

/// Turn a picture clockwise, for instance to read text that runs upwards.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Picture to turn, such as img_0.
    image: ImageRef,
    /// Angle in degrees, clockwise; negative turns the other way.
    degrees: f64,
}

impl Tool for Rotate {
    const NAME: &'static str = "rotate";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "degrees": 90}"#;
    const EFFORT: Effort = Effort::Moderate;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        if !self.degrees.is_finite() || self.degrees.abs() > 360.0 {
            return Err(for_model(format!("degrees = {} is not between -360 and 360", self.degrees)));
        }
        let pixels = call.pixels(&self.image)?;
        let (w, h) = (f64::from(pixels.width()), f64::from(pixels.height()));
        let degrees = self.degrees.rem_euclid(360.0);
        let (turned, back) = match degrees {
            0.0 => ((*pixels).clone(), Affine::IDENTITY),
            90.0 => (imageops::rotate90(&*pixels), Affine([0.0, 1.0, 0.0, -1.0, 0.0, h])),
            180.0 => (imageops::rotate180(&*pixels), Affine([-1.0, 0.0, w, 0.0, -1.0, h])),
            270.0 => (imageops::rotate270(&*pixels), Affine([0.0, -1.0, w, 1.0, 0.0, 0.0])),
            _ => turn(&pixels, degrees, call)?,
        };
        Ok(Reply {
            text: format!("Turned by {} degrees clockwise.", self.degrees),
            data: json!({"degrees": self.degrees}),
            image: call.made(turned, back)?,
            answer: None,
        })
    }
}

fn turn(pixels: &RgbImage, degrees: f64, call: &Call<'_>) -> Result<(RgbImage, Affine), ToolError> {
    const UNIT: f64 = (1 << 20) as f64;
    let fixed = |v: f64| (v * UNIT).round() / UNIT;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (sin, cos) = (fixed(sin), fixed(cos));
    let (w, h) = (f64::from(pixels.width()), f64::from(pixels.height()));
    let (tw, th) = ((w * cos.abs() + h * sin.abs()).ceil(), (w * sin.abs() + h * cos.abs()).ceil());
    if tw * th > call.limits.pixels as f64 {
        return Err(for_model(format!(
            "turned, the picture would have {tw} x {th} pixels, more than the limit"
        )));
    }
    // Clockwise on a frame whose y points down: (x, y) -> (x cos - y sin, x sin + y cos) about the centres; this is
    // the way back.
    let back = Affine::translation(-tw / 2.0, -th / 2.0)
        .then(&Affine([cos, sin, 0.0, -sin, cos, 0.0]))
        .then(&Affine::translation(w / 2.0, h / 2.0));
    let mut out = RgbImage::from_pixel(tw as u32, th as u32, Rgb([255; 3]));
    for (j, row) in out.rows_mut().enumerate() {
        call.check()?;
        for (i, pixel) in row.enumerate() {
            let (x, y) = back.apply(i as f64 + 0.5, j as f64 + 0.5);
            if (0.0..w).contains(&x) && (0.0..h).contains(&y) {
                *pixel = crate::ocr::bilinear(pixels, x, y);
            }
        }
    }
    Ok((out, back))
}
