//! A chart becomes pixels and the truth about them.

use crate::canvas::{Anchor, Canvas, GRID, INK, WHITE, sin_cos_turns};
use crate::charts::spec::{Chart, Scale, Style};
use crate::font;
use crate::palette::Named;
use crate::truth::{Axis, AxisName, Label, LabelKind, Mark, Rect, Truth};

struct Pen {
    canvas: Canvas,
    truth: Truth,
    /// Height of a line of text in pixels; 0 where the picture is too small for words.
    px: f64,
    /// Thickness of thin lines.
    thin: f64,
}

impl Pen {
    fn write(&mut self, text: &str, at: (f64, f64), anchor: Anchor, kind: LabelKind) {
        let rect = self.canvas.text(text, at, self.px, anchor, INK);
        self.truth.labels.push(Label { text: text.into(), kind, rect, upwards: false });
    }

    fn write_up(&mut self, text: &str, at: (f64, f64), kind: LabelKind) {
        let rect = self.canvas.text_upwards(text, at, self.px, INK);
        self.truth.labels.push(Label { text: text.into(), kind, rect, upwards: true });
    }
}

/// Draws a chart.
pub fn draw(chart: &Chart, width: u32, height: u32) -> (Canvas, Truth) {
    let (w, h) = (f64::from(width), f64::from(height));
    let px = if chart.compact { 0.0 } else { (w.min(h) / 26.0).clamp(11.0, 30.0) };
    let thin = (w.min(h) / 400.0).round().max(1.0);
    let mut pen = Pen { canvas: Canvas::new(width, height, WHITE), truth: Truth::default(), px, thin };
    let mut top = if chart.compact { 2.0 } else { px * 0.6 };
    if !chart.title.is_empty() {
        pen.px = px * 1.15;
        pen.write(&chart.title, (w / 2.0, top + px * 0.6), Anchor::Middle, LabelKind::Title);
        pen.px = px;
        top += px * 1.7;
    }
    let legend = !chart.compact && chart.series.len() > 1 && chart.style != Style::Scatter;
    if legend {
        draw_legend(&mut pen, chart, w / 2.0, top + px * 0.5);
        top += px * 1.6;
    }
    if chart.style == Style::Pie {
        draw_pie(&mut pen, chart, top, w, h);
    } else {
        let plot = draw_axes(&mut pen, chart, top, w, h);
        draw_marks(&mut pen, chart, plot);
    }
    (pen.canvas, pen.truth)
}

fn draw_legend(pen: &mut Pen, chart: &Chart, middle: f64, y: f64) {
    let px = pen.px;
    let widths: Vec<f64> = chart.series.iter().map(|s| font::width(&s.name, px) + px * 2.4).collect();
    let mut x = middle - widths.iter().sum::<f64>() / 2.0;
    for (series, width) in chart.series.iter().zip(widths) {
        let swatch = Rect { x0: x, y0: y - px * 0.35, x1: x + px * 0.9, y1: y + px * 0.35 };
        pen.canvas.rect(swatch, series.colour.1);
        pen.write(&series.name, (x + px * 1.25, y), Anchor::Left, LabelKind::Legend);
        x += width;
    }
}

/// Draws axes, ticks, their numbers and names; returns the plot area.
fn draw_axes(pen: &mut Pen, chart: &Chart, top: f64, w: f64, h: f64) -> Rect {
    let (px, thin) = (pen.px, pen.thin);
    let ticks = |s: Scale| (0..).map(move |i| s.min + i * s.step).take_while(move |v| *v <= s.max);
    let number_width = ticks(chart.y).map(|v| font::width(&chart.show(v), px)).fold(0.0, f64::max);
    let tick = if chart.compact { 2.0 } else { px * 0.35 };
    let slot = |plot: &Rect| (plot.x1 - plot.x0) / chart.categories.len().max(1) as f64;
    let mut plot = Rect { x0: tick + 2.0, y0: top + px * 0.4, x1: w - 2.0 - px * 0.8, y1: h - 2.0 - tick };
    let mut category_height = 0.0;
    let mut upwards = false;
    if !chart.compact {
        plot.x0 += number_width + px * 0.5 + if chart.y_title.is_empty() { 0.0 } else { px * 1.4 };
        let widest = chart.categories.iter().map(|c| font::width(c, px)).fold(0.0, f64::max);
        upwards = widest + px * 0.5 > slot(&plot);
        category_height = if upwards { widest } else { px };
        plot.y1 -= category_height + px * 0.5 + if chart.x_title.is_empty() { 0.0 } else { px * 1.4 };
    }
    plot = Rect { x0: plot.x0.round(), y0: plot.y0.round(), x1: plot.x1.round(), y1: plot.y1.round() };
    let y_axis = axis(chart, AxisName::Y, chart.y, plot.y1 - 0.5, plot.y0 + 0.5);
    for &(y, value) in &y_axis.ticks {
        if chart.grid {
            pen.canvas.rect(Rect { x0: plot.x0, y0: y - 0.5, x1: plot.x1, y1: y - 0.5 + thin }, GRID);
        }
        pen.canvas.rect(Rect { x0: plot.x0 - tick, y0: y - 0.5, x1: plot.x0, y1: y - 0.5 + thin }, INK);
        if !chart.compact {
            let text = chart.show((value * 10f64.powi(chart.decimals as i32)).round() as i64);
            pen.write(&text, (plot.x0 - tick - px * 0.3, y), Anchor::Right, LabelKind::YTick);
        }
    }
    if chart.style == Style::Scatter {
        let x_axis = axis(chart, AxisName::X, chart.x, plot.x0 + 0.5, plot.x1 - 0.5);
        for &(x, value) in &x_axis.ticks {
            pen.canvas.rect(Rect { x0: x - 0.5, y0: plot.y1, x1: x - 0.5 + thin, y1: plot.y1 + tick }, INK);
            if !chart.compact {
                let text = (value.round() as i64).to_string();
                pen.write(&text, (x, plot.y1 + tick + px * 0.7), Anchor::Middle, LabelKind::XTick);
            }
        }
        pen.truth.axes.push(x_axis);
    }
    let step = slot(&plot);
    for (i, name) in chart.categories.iter().enumerate().filter(|_| !chart.compact) {
        let x = plot.x0 + step * (i as f64 + 0.5);
        let xt = x.floor();
        pen.canvas.rect(Rect { x0: xt, y0: plot.y1, x1: xt + thin, y1: plot.y1 + tick }, INK);
        let below = plot.y1 + tick + px * 0.2 + category_height / 2.0;
        if upwards {
            pen.write_up(name, (x, below), LabelKind::Category);
        } else {
            pen.write(name, (x, below), Anchor::Middle, LabelKind::Category);
        }
    }
    let frame = [
        Rect { x0: plot.x0 - thin, y0: plot.y0, x1: plot.x0, y1: plot.y1 + thin },
        Rect { x0: plot.x0 - thin, y0: plot.y1, x1: plot.x1, y1: plot.y1 + thin },
        Rect { x0: plot.x1 - thin, y0: plot.y0, x1: plot.x1, y1: plot.y1 },
        Rect { x0: plot.x0, y0: plot.y0, x1: plot.x1, y1: plot.y0 + thin },
    ];
    for side in frame.iter().take(if chart.framed && !chart.compact { 4 } else { 2 }) {
        pen.canvas.rect(*side, INK);
    }
    if !chart.y_title.is_empty() {
        pen.write_up(&chart.y_title, (px * 0.9, (plot.y0 + plot.y1) / 2.0), LabelKind::AxisTitle);
    }
    if !chart.x_title.is_empty() {
        let y = h - px * 0.8;
        pen.write(&chart.x_title, ((plot.x0 + plot.x1) / 2.0, y), Anchor::Middle, LabelKind::AxisTitle);
    }
    pen.truth.axes.push(y_axis);
    pen.truth.plot = Some(plot);
    plot
}

/// An axis whose ticks sit on whole pixels, as plotting libraries snap them; the mapping stays the exact one.
fn axis(chart: &Chart, name: AxisName, s: Scale, pixel0: f64, pixel1: f64) -> Axis {
    let real = |v: i64| if name == AxisName::Y { chart.real(v) } else { v as f64 };
    let mut axis = Axis { name, pixel0, pixel1, value0: real(s.min), value1: real(s.max), ticks: Vec::new() };
    let mut v = s.min;
    while v <= s.max {
        axis.ticks.push(((axis.pixel_of(real(v)) - 0.5).round() + 0.5, real(v)));
        v += s.step;
    }
    axis
}

fn draw_marks(pen: &mut Pen, chart: &Chart, plot: Rect) {
    let Some(y_axis) = pen.truth.axis(AxisName::Y).cloned() else { return };
    let y_of = |v: i64| y_axis.pixel_of(chart.real(v));
    let slot = (plot.x1 - plot.x0) / chart.categories.len().max(1) as f64;
    let radius = if chart.compact { 1.8 } else { (pen.px * 0.28).max(3.0) };
    let mark = |s: usize, c: Option<usize>, colour: Named, value: i64, rect: Rect, at| Mark {
        series: if chart.series.len() > 1 { chart.series[s].name.clone() } else { String::new() },
        category: c.map_or(String::new(), |c| chart.categories[c].clone()),
        colour: colour.0.into(),
        value: chart.real(value),
        rect,
        at,
    };
    let around =
        |p: (f64, f64)| Rect { x0: p.0 - radius, y0: p.1 - radius, x1: p.0 + radius, y1: p.1 + radius };
    match chart.style {
        Style::Bar | Style::GroupedBar | Style::Stacked => {
            let lanes = if chart.style == Style::GroupedBar { chart.series.len() } else { 1 };
            let bar = slot * if chart.compact { 0.7 } else { 0.62 } / lanes as f64;
            for c in 0..chart.categories.len() {
                let mut below = 0;
                for (s, series) in chart.series.iter().enumerate() {
                    let lane = if lanes > 1 { s } else { 0 };
                    let left = plot.x0 + slot * (c as f64 + 0.5) + bar * (lane as f64 - lanes as f64 / 2.0);
                    let (base, value) = if chart.style == Style::Stacked {
                        (below, series.values[c])
                    } else {
                        (0, series.values[c])
                    };
                    below += value;
                    let colour = chart.category_colours.get(c).copied().unwrap_or(series.colour);
                    // The lowest bar stands on the axis line itself.
                    let y1 = if base == 0 { plot.y1 } else { y_of(base).round() };
                    let rect = Rect {
                        x0: left.round(),
                        y0: y_of(base + value).round(),
                        x1: (left + bar).round(),
                        y1,
                    };
                    pen.canvas.rect(rect, colour.1);
                    let at = (rect.centre().0, y_of(base + value));
                    pen.truth.marks.push(mark(s, Some(c), colour, value, rect, at));
                }
            }
        }
        Style::Line => {
            for (s, series) in chart.series.iter().enumerate() {
                let points: Vec<(f64, f64)> = series
                    .values
                    .iter()
                    .enumerate()
                    .map(|(c, v)| (plot.x0 + slot * (c as f64 + 0.5), y_of(*v)))
                    .collect();
                pen.canvas.polyline(
                    &points,
                    if chart.compact { 1.0 } else { pen.thin * 2.0 },
                    series.colour.1,
                );
                for (c, (&at, &v)) in points.iter().zip(&series.values).enumerate() {
                    pen.canvas.disc(at, radius, series.colour.1);
                    pen.truth.marks.push(mark(s, Some(c), series.colour, v, around(at), at));
                }
            }
        }
        Style::Scatter => {
            let Some(x_axis) = pen.truth.axis(AxisName::X).cloned() else { return };
            for (s, series) in chart.series.iter().enumerate() {
                for (&x, &v) in series.xs.iter().zip(&series.values) {
                    let at = (x_axis.pixel_of(x as f64), y_of(v));
                    pen.canvas.disc(at, radius * 1.2, series.colour.1);
                    pen.truth.marks.push(mark(s, None, series.colour, v, around(at), at));
                }
            }
        }
        Style::Pie => {}
    }
}

fn draw_pie(pen: &mut Pen, chart: &Chart, top: f64, w: f64, h: f64) {
    let px = pen.px;
    let margin = if chart.compact { 2.0 } else { px * 1.8 };
    let radius = ((w - 2.0 * margin - px * 4.0).min(h - top - 2.0 * margin) / 2.0).max(8.0);
    let centre = (w / 2.0, top + (h - top) / 2.0);
    let Some(series) = chart.series.first() else { return };
    let mut from = 0;
    for (c, &share) in series.values.iter().enumerate() {
        let turn = |v: f64| sin_cos_turns(v / 100.0);
        let place = |v: f64, r: f64| {
            let (s, c) = turn(v);
            (centre.0 + r * s, centre.1 - r * c)
        };
        let colour = chart.category_colours.get(c).copied().unwrap_or(series.colour);
        let mut outline = vec![centre];
        let arcs = share * 2;
        outline
            .extend((0..=arcs).map(|i| place(from as f64 + share as f64 * i as f64 / arcs as f64, radius)));
        pen.canvas.polygon(&outline, colour.1);
        let middle = from as f64 + share as f64 / 2.0;
        let (mut rect, at) = (Rect { x0: w, y0: h, x1: 0.0, y1: 0.0 }, place(middle, radius * 0.6));
        for (x, y) in &outline {
            rect =
                Rect { x0: rect.x0.min(*x), y0: rect.y0.min(*y), x1: rect.x1.max(*x), y1: rect.y1.max(*y) };
        }
        pen.truth.marks.push(Mark {
            series: String::new(),
            category: chart.categories[c].clone(),
            colour: colour.0.into(),
            value: share as f64,
            rect,
            at,
        });
        if !chart.compact {
            let (s, _) = turn(middle);
            let anchor = if s > 0.3 {
                Anchor::Left
            } else if s < -0.3 {
                Anchor::Right
            } else {
                Anchor::Middle
            };
            pen.write(&chart.categories[c], place(middle, radius + px * 0.8), anchor, LabelKind::Category);
        }
        from += share;
    }
    // White seams keep neighbours of like colour apart.
    let mut from = 0;
    for &share in &series.values {
        let (s, c) = sin_cos_turns(f64::from(from as i32) / 100.0);
        let edge = (centre.0 + radius * s, centre.1 - radius * c);
        pen.canvas.line(centre, edge, if chart.compact { 0.6 } else { pen.thin * 1.5 }, WHITE);
        from += share;
    }
}
