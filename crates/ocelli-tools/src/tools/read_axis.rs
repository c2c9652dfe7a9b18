//! `read_axis`: the scale of a chart's axis, from its numbers.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::axis::{self, Axis, AxisName, ScaleKind};
use crate::error::for_model;
use crate::{Call, ImageRef, Reply, Tool, ToolError};

/// Read the scale of a chart's axis: which value belongs to which pixel. Answers the formula and how well the axis's
/// numbers agree with it, or says that no axis was found.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadAxis {
    /// Picture of the chart, such as img_0.
    image: ImageRef,
    /// Which axis.
    axis: AxisName,
}

impl Tool for ReadAxis {
    const NAME: &'static str = "read_axis";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "axis": "y"}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let found = read(call, &self.image, self.axis)?;
        let (name, from) = match self.axis {
            AxisName::X => ("x", "left"),
            AxisName::Y => ("y", "top"),
        };
        let formula = format!("{} * {name} {}", shown(found.slope), signed(found.intercept));
        let formula = match found.scale {
            ScaleKind::Linear => format!("value = {formula}"),
            ScaleKind::Logarithmic => format!("value = 10 ^ ({formula})"),
        };
        let ticks: Vec<String> =
            found.ticks.iter().map(|t| format!("{} at {name} = {:.1}", t.value, t.pixel)).collect();
        let mut text = format!(
            "{name} axis: {formula}, {name} in pixels from the {from}. {} numbers agree within {:.1} pixels: {}.",
            found.ticks.len(),
            found.residual,
            ticks.join(", ")
        );
        if !found.odd.is_empty() {
            let odd: Vec<String> =
                found.odd.iter().map(|t| format!("{} at {:.1}", t.value, t.pixel)).collect();
            text.push_str(&format!(" These do not fit: {}.", odd.join(", ")));
        }
        Ok(Reply { text, data: json!(found), image: None, answer: None })
    }
}

/// Six significant digits.
fn shown(v: f64) -> String {
    let digits = (5 - v.abs().max(1e-300).log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{v:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn signed(v: f64) -> String {
    if v < 0.0 { format!("- {}", shown(-v)) } else { format!("+ {}", shown(v)) }
}

/// The axis of a picture, or a complaint that says what was looked for.
pub(crate) fn read(call: &Call<'_>, image: &ImageRef, name: AxisName) -> Result<Axis, ToolError> {
    let pixels = call.pixels(image)?;
    let lines = call.texts(image)?;
    axis::find(&pixels, &lines, name).map_err(|why| for_model(format!("no axis could be read: {why}")))
}
