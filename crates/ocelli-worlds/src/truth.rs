//! What is really in a picture: boxes of words, axes, marks and objects, in pixels from the top left corner.

use serde::{Deserialize, Serialize};

/// An axis-parallel box in pixels; `x1` and `y1` are the first column and row outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rect {
    /// Left edge.
    pub x0: f64,
    /// Top edge.
    pub y0: f64,
    /// Right edge.
    pub x1: f64,
    /// Bottom edge.
    pub y1: f64,
}

impl Rect {
    /// Middle of the box.
    pub fn centre(&self) -> (f64, f64) {
        ((self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0)
    }

    /// The box moved by `(dx, dy)`.
    pub fn moved(&self, dx: f64, dy: f64) -> Self {
        Self { x0: self.x0 + dx, y0: self.y0 + dy, x1: self.x1 + dx, y1: self.y1 + dy }
    }
}

/// What a word in the picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// Title of the whole.
    Title,
    /// Name of an axis.
    AxisTitle,
    /// Number at a tick of the x axis.
    XTick,
    /// Number at a tick of the y axis.
    YTick,
    /// Name of a category (at an axis or a sector).
    Category,
    /// Name of a series in the legend.
    Legend,
    /// Any other word: lengths, angles, node names.
    Note,
}

/// A word with the box of its ink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The word exactly as drawn.
    pub text: String,
    /// What it is.
    pub kind: LabelKind,
    /// Box of its visible pixels.
    pub rect: Rect,
    /// True when it reads from bottom to top.
    pub upwards: bool,
}

/// Which way an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AxisName {
    /// From left to right.
    X,
    /// From bottom to top.
    Y,
}

/// A linear axis: `value = value0 + (pixel - pixel0) * (value1 - value0) / (pixel1 - pixel0)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Direction.
    pub name: AxisName,
    /// Pixel (centre of the tick, so `row + 0.5`) of the lowest tick.
    pub pixel0: f64,
    /// Pixel of the highest tick.
    pub pixel1: f64,
    /// Value at the lowest tick.
    pub value0: f64,
    /// Value at the highest tick.
    pub value1: f64,
    /// All ticks as `(pixel, value)`.
    pub ticks: Vec<(f64, f64)>,
}

impl Axis {
    /// Value at a pixel.
    pub fn value_at(&self, pixel: f64) -> f64 {
        self.value0 + (pixel - self.pixel0) * (self.value1 - self.value0) / (self.pixel1 - self.pixel0)
    }

    /// Pixel of a value.
    pub fn pixel_of(&self, value: f64) -> f64 {
        self.pixel0 + (value - self.value0) * (self.pixel1 - self.pixel0) / (self.value1 - self.value0)
    }
}

/// A bar, point, sector or other thing that stands for a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Name of its series, empty where there is but one.
    pub series: String,
    /// Name of its category, empty for scatter points.
    pub category: String,
    /// Name of its colour.
    pub colour: String,
    /// The number that it stands for.
    pub value: f64,
    /// Its box: the bar itself, or the box around a point or sector.
    pub rect: Rect,
    /// The pixel where the value is read: top middle of a bar, centre of a point, middle of a sector.
    pub at: (f64, f64),
}

/// A drawn thing of a scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// `circle`, `square` ...
    pub shape: String,
    /// Name of its colour.
    pub colour: String,
    /// Box of its visible pixels.
    pub rect: Rect,
}

/// Everything that is in the picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// All words.
    pub labels: Vec<Label>,
    /// Axes with numbers.
    pub axes: Vec<Axis>,
    /// The area inside the axes.
    pub plot: Option<Rect>,
    /// Everything that stands for a number.
    pub marks: Vec<Mark>,
    /// Things of a scene.
    pub objects: Vec<Object>,
    /// Boxes of sub-figures, row by row.
    pub panels: Vec<Rect>,
}

impl Truth {
    /// The axis of that name.
    pub fn axis(&self, name: AxisName) -> Option<&Axis> {
        self.axes.iter().find(|a| a.name == name)
    }

    /// Everything moved by `(dx, dy)`, as when a panel is pasted into a larger picture.
    pub fn moved(mut self, dx: f64, dy: f64) -> Self {
        self.labels.iter_mut().for_each(|l| l.rect = l.rect.moved(dx, dy));
        for axis in &mut self.axes {
            let d = if axis.name == AxisName::X { dx } else { dy };
            axis.pixel0 += d;
            axis.pixel1 += d;
            axis.ticks.iter_mut().for_each(|t| t.0 += d);
        }
        self.plot = self.plot.map(|p| p.moved(dx, dy));
        for mark in &mut self.marks {
            mark.rect = mark.rect.moved(dx, dy);
            mark.at = (mark.at.0 + dx, mark.at.1 + dy);
        }
        self.objects.iter_mut().for_each(|o| o.rect = o.rect.moved(dx, dy));
        self.panels.iter_mut().for_each(|p| *p = p.moved(dx, dy));
        self
    }
}
