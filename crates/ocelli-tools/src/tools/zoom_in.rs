//! `zoom_in`: a region, enlarged by a whole factor.
//!
//! Bilinear interpolation with integer weights, so that the result has the same bytes on every machine.

use image::RgbImage;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::error::for_model;
use crate::{Affine, Bbox, Call, Effort, ImageRef, Reply, Tool, ToolError};

/// Enlarge a region of a picture, so that small text and details can be read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoomIn {
    /// Picture to look at, such as img_0.
    image: ImageRef,
    /// Region [left, top, right, bottom] in pixels of that picture.
    bbox: Bbox,
    /// How many times larger, a whole number; left out, it is chosen so that the longer side has about 1000 pixels.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16))]
    factor: Option<u32>,
}

/// Longer side of a zoomed region where no factor is given, in pixels.
const TARGET: u32 = 1000;

impl Tool for ZoomIn {
    const NAME: &'static str = "zoom_in";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "bbox": [40, 20, 120, 60], "factor": 4}"#;
    const EFFORT: Effort = Effort::Moderate;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let part = call.part(&self.image, self.bbox)?;
        let (area, cut) = (part.area, part.cut);
        let longer = area.width().max(area.height());
        let factor = self.factor.unwrap_or((TARGET / longer).clamp(1, 8)).clamp(1, 16);
        let size = u64::from(area.width() * factor) * u64::from(area.height() * factor);
        if size > call.limits.pixels {
            return Err(for_model(format!(
                "the region {area} enlarged {factor} times has {size} pixels, more than the limit of {}; choose a \
                 smaller region or factor",
                call.limits.pixels
            )));
        }
        let large = enlarge(&part.copy(), factor, call)?;
        let scale = 1.0 / f64::from(factor);
        let back =
            Affine::scaling(scale, scale).then(&Affine::translation(f64::from(area.x1), f64::from(area.y1)));
        let note = if cut { " (limited to the picture)" } else { "" };
        Ok(Reply {
            text: format!("Enlarged {area}{note} {factor} times."),
            data: json!({"bbox": [area.x1, area.y1, area.x2, area.y2], "factor": factor}),
            image: call.made(large, back)?,
            answer: None,
        })
    }
}

/// Position in the source of target pixel `i`, as index, next index and weight of the next in 1/(2 factor).
fn source(i: u32, factor: u32, len: u32) -> (u32, u32, u32) {
    // The centre of target pixel i lies at (i + 1/2) / factor; source centres lie at k + 1/2.
    let twice = (2 * i + 1).saturating_sub(factor); // in units of 1 / (2 factor), from the first centre
    let k = (twice / (2 * factor)).min(len - 1);
    (k, (k + 1).min(len - 1), twice - k * 2 * factor)
}

/// Bilinear enlargement by a whole factor.
pub(crate) fn enlarge(small: &RgbImage, factor: u32, call: &Call<'_>) -> Result<RgbImage, ToolError> {
    if factor == 1 {
        return Ok(small.clone());
    }
    let (w, h) = small.dimensions();
    let unit = 2 * factor;
    let half = unit * unit / 2;
    let columns: Vec<(u32, u32, u32)> = (0..w * factor).map(|i| source(i, factor, w)).collect();
    let mut out = RgbImage::new(w * factor, h * factor);
    for (j, row) in out.rows_mut().enumerate() {
        call.check()?;
        let (y1, y2, wy) = source(j as u32, factor, h);
        for (pixel, &(x1, x2, wx)) in row.zip(&columns) {
            let (wx, wy) = (wx.min(unit), wy.min(unit));
            let corners = [
                (small.get_pixel(x1, y1).0, (unit - wx) * (unit - wy)),
                (small.get_pixel(x2, y1).0, wx * (unit - wy)),
                (small.get_pixel(x1, y2).0, (unit - wx) * wy),
                (small.get_pixel(x2, y2).0, wx * wy),
            ];
            for c in 0..3 {
                let sum: u32 = corners.iter().map(|(p, weight)| u32::from(p[c]) * weight).sum();
                pixel.0[c] = ((sum + half) / (unit * unit)) as u8;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn weights_by_hand() {
        // Factor 2: centres of the target at 0.25, 0.75, 1.25, 1.75; of the source at 0.5 and 1.5.
        assert_eq!(source(0, 2, 2), (0, 1, 0)); // left of the first centre: clamped
        assert_eq!(source(1, 2, 2), (0, 1, 1)); // a quarter of the way
        assert_eq!(source(2, 2, 2), (0, 1, 3));
        assert_eq!(source(3, 2, 2), (1, 1, 1)); // beyond the last centre: both neighbours are the last
    }
}
