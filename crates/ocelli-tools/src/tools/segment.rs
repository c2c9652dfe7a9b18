//! `segment_region_around_point`: what hangs together with a point.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::draw_lines::inside;
use crate::draw::ColorName;
use crate::{Affine, Call, ImageRef, PixelBox, Reply, Tool, ToolError, segmentation};

/// Mark the region around a point: the bar, sector, object or area that the point lies in. Answers its area, its box and
/// a picture in which everything else is faded and the region has a red edge.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentRegionAroundPoint {
    /// Picture to segment, such as img_0.
    image: ImageRef,
    /// Point in pixels from the left.
    x: f64,
    /// Point in pixels from the top.
    y: f64,
    /// How finely to part the picture; coarse suits photographs, fine suits small drawn things. Medium if left out.
    #[serde(default)]
    detail: Detail,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Detail {
    Coarse,
    #[default]
    Medium,
    Fine,
}

impl Tool for SegmentRegionAroundPoint {
    const NAME: &'static str = "segment_region_around_point";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "x": 120, "y": 84}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let pixels = call.pixels(&self.image)?;
        let (w, h) = pixels.dimensions();
        let (x, y) = (inside("x", self.x, w)?, inside("y", self.y, h)?);
        // The paper's k: how much a region may vary for its size, here in grey levels times pixels.
        let k = match self.detail {
            Detail::Coarse => 2000.0,
            Detail::Medium => 500.0,
            Detail::Fine => 100.0,
        };
        let regions = segmentation::Regions::of(&pixels, (x, y), k, &|| call.check())?;
        let wanted = regions.at(x, y);
        // A pale region on pale ground shows by its edge alone.
        let edge = |x: u32, y: u32| {
            let inside = |x: u32, y: u32| x < w && y < h && regions.at(x, y) == wanted;
            let left = x.checked_sub(1).is_some_and(|x| inside(x, y));
            let above = y.checked_sub(1).is_some_and(|y| inside(x, y));
            !(left && above && inside(x + 1, y) && inside(x, y + 1))
        };
        let mut faded = (*pixels).clone();
        let (mut area, mut b) = (0u64, PixelBox { x1: w, y1: h, x2: 0, y2: 0 });
        for (i, pixel) in faded.pixels_mut().enumerate() {
            let (px, py) = (i as u32 % w, i as u32 / w);
            if regions.at(px, py) == wanted {
                area += 1;
                b = PixelBox {
                    x1: b.x1.min(px),
                    y1: b.y1.min(py),
                    x2: b.x2.max(px + 1),
                    y2: b.y2.max(py + 1),
                };
                if edge(px, py) {
                    *pixel = ColorName::Red.rgb();
                }
            } else {
                pixel.0 = pixel.0.map(|c| 191 + c / 4); // three quarters of the way to white
            }
        }
        let coarse = match regions.step {
            1 => String::new(),
            step => format!(" The picture is large, so its edge is known to {step} pixels."),
        };
        let part = 100.0 * area as f64 / (f64::from(w) * f64::from(h));
        Ok(Reply {
            text: format!(
                "The region has {area} pixels ({part:.2} % of the picture) in the box {b}.{coarse}"
            ),
            data: json!({"area": area, "percent": part, "bbox": [b.x1, b.y1, b.x2, b.y2]}),
            image: call.made(faded, Affine::IDENTITY)?,
            answer: None,
        })
    }
}
