//! The tools, one file each. A new one is added here and nowhere else.

mod answer;
mod calculate;
mod crop;
mod detect;
mod draw_box;
mod draw_lines;
mod enhance;
mod measure;
mod ocr;
mod point;
mod read_axis;
mod rotate;
mod segment;
mod zoom_in;
mod zoom_in_subfigure;

pub use answer::Answer;
pub use calculate::Calculate;
pub use crop::Crop;
pub use detect::Detect;
pub use draw_box::DrawBox;
pub use draw_lines::{DrawHorizontalLineByY, DrawVerticalLineByX};
pub use enhance::Enhance;
pub use measure::Measure;
pub use ocr::Ocr;
pub use point::Point;
pub use read_axis::ReadAxis;
pub use rotate::Rotate;
pub use segment::SegmentRegionAroundPoint;
pub use zoom_in::ZoomIn;
pub use zoom_in_subfigure::ZoomInSubfigure;

use crate::Registry;

/// Every tool but [`Detect`], whose network must be fetched, in the order in which prompts list them.
pub(crate) fn add_all(registry: Registry) -> Registry {
    registry
        .with::<Ocr>()
        .with::<Crop>()
        .with::<ZoomIn>()
        .with::<ZoomInSubfigure>()
        .with::<Point>()
        .with::<DrawHorizontalLineByY>()
        .with::<DrawVerticalLineByX>()
        .with::<DrawBox>()
        .with::<SegmentRegionAroundPoint>()
        .with::<ReadAxis>()
        .with::<Measure>()
        .with::<Rotate>()
        .with::<Enhance>()
        .with::<Calculate>()
        .with::<Answer>()
}
