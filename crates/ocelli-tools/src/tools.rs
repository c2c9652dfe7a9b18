//! The tools, one file each. A new one is added here and nowhere else.

mod answer;
mod calculate;
mod crop;
mod draw_box;
mod draw_lines;
mod ocr;
mod zoom_in;

pub use answer::Answer;
pub use calculate::Calculate;
pub use crop::Crop;
pub use draw_box::DrawBox;
pub use draw_lines::{DrawHorizontalLineByY, DrawVerticalLineByX};
pub use ocr::Ocr;
pub use zoom_in::ZoomIn;

use crate::Registry;

/// Every tool, in the order in which prompts list them.
pub(crate) fn add_all(registry: Registry) -> Registry {
    registry
        .with::<Ocr>()
        .with::<Crop>()
        .with::<ZoomIn>()
        .with::<DrawHorizontalLineByY>()
        .with::<DrawVerticalLineByX>()
        .with::<DrawBox>()
        .with::<Calculate>()
        .with::<Answer>()
}
