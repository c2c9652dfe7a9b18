//! Two kinds of plot as inline SVG: curves over steps, and values with their intervals.

use std::fmt::Write as _;

use super::page::escape;

/// Colours as variables of the page, so that plots follow light and dark mode.
pub(super) const COLOURS: [&str; 4] = ["var(--a)", "var(--b)", "var(--c)", "var(--d)"];

/// One line of a plot.
pub(super) struct Curve<'a> {
    pub(super) label: &'a str,
    /// Points by step; finite.
    pub(super) points: &'a [(f64, f64)],
}

/// A number with three significant digits.
pub(super) fn short(x: f64) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let magnitude = x.abs().log10().floor();
    if !(-3.0..5.0).contains(&magnitude) {
        return format!("{x:.1e}");
    }
    let digits = (2.0 - magnitude).max(0.0) as usize;
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// At most `n` points: each the mean of its bucket, so that a long run stays a small page.
fn thin(points: &[(f64, f64)], n: usize) -> Vec<(f64, f64)> {
    let per = points.len().div_ceil(n).max(1);
    let mean = |c: &[(f64, f64)]| {
        let k = c.len() as f64;
        (c.iter().map(|p| p.0).sum::<f64>() / k, c.iter().map(|p| p.1).sum::<f64>() / k)
    };
    points.chunks(per).map(mean).collect()
}

/// The mean of each point with its neighbours, a twelfth of the curve to either side.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 12;
    let around = |i: usize| {
        // As far to the left as to the right, so that a slope at an end stays what it is.
        let k = reach.min(i).min(points.len() - 1 - i);
        let near = &points[i - k..=i + k];
        (points[i].0, near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64)
    };
    (0..points.len()).map(around).collect()
}

/// Width of a character of the labels, which are 11 units high, at most.
const DIGIT: f64 = 7.0;
/// Most points of a curve that are drawn.
const POINTS: usize = 160;
/// Points from which on a running mean is drawn over the curve.
const SMOOTHED: usize = 24;

/// A small line chart with its range on the axes and the last value beside the title.
pub(super) fn curves(title: &str, curves: &[Curve<'_>]) -> String {
    const W: f64 = 300.0;
    const H: f64 = 132.0;
    const BOTTOM: f64 = 22.0;
    let all = || curves.iter().flat_map(|c| c.points.iter().copied());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)))
    };
    let (x0, x1) = range(&mut all().map(|p| p.0));
    let (mut y0, mut y1) = range(&mut all().map(|p| p.1));
    if !(x0.is_finite() && y0.is_finite()) {
        return String::new();
    }
    if y1 - y0 < 1e-12 {
        (y0, y1) = (y0 - 0.5, y1 + 0.5);
    }
    // What rounding left of a zero is written as zero.
    let near_zero = |v: f64| v.abs() < 1e-9 * (y1 - y0);
    let ticks = [y0, f64::midpoint(y0, y1), y1].map(|v| (v, short(if near_zero(v) { 0.0 } else { v })));
    // The axis stands where the widest of its numbers ends, so that none leaves the picture.
    let widest = ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
    let left = (widest as f64 * DIGIT + 8.0).ceil();
    let x = |v: f64| left + (v - x0) / (x1 - x0).max(1e-12) * (W - left - 6.0);
    let y = |v: f64| 6.0 + (y1 - v) / (y1 - y0) * (H - BOTTOM - 12.0);
    let mut svg = format!("<svg viewBox=\"0 0 {W} {H}\" role=img aria-label=\"{}\">", escape(title));
    for (v, text) in ticks {
        let at = y(v);
        let _ = write!(
            svg,
            "<line x1={left} x2={W} y1={at:.1} y2={at:.1} stroke=\"var(--line)\"/>\
             <text x={:.0} y={:.1} text-anchor=end>{text}</text>",
            left - 4.0,
            at + 4.0,
        );
    }
    // Letters reach below their line: it stands a little above the lower edge.
    let below = H - 5.0;
    let _ = write!(
        svg,
        "<text x={left} y={below}>{}</text><text x={W} y={below} text-anchor=end>step {}</text>",
        short(x0),
        short(x1)
    );
    let line = |points: &[(f64, f64)], colour: &str, style: &str| -> String {
        let path: String = points.iter().map(|&(px, py)| format!("{:.1},{:.1} ", x(px), y(py))).collect();
        format!(
            "<polyline points=\"{}\" fill=none style=\"stroke:{colour};{style}\" stroke-linejoin=round />",
            path.trim_end()
        )
    };
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = thin(curve.points, POINTS);
        match points.as_slice() {
            [(px, py)] => {
                let _ =
                    write!(svg, "<circle cx={:.1} cy={:.1} r=3 style=\"fill:{colour}\"/>", x(*px), y(*py));
            }
            all if all.len() < SMOOTHED => svg += &line(all, colour, "stroke-width:1.8"),
            all => {
                svg += &line(all, colour, "stroke-width:1;opacity:.35");
                svg += &line(&running_mean(all), colour, "stroke-width:2");
            }
        }
    }
    svg.push_str("</svg>");
    let keys: String = curves
        .iter()
        .zip(COLOURS.iter().cycle())
        .map(|(c, colour)| {
            let last = c.points.last().map_or_else(String::new, |p| short(p.1));
            let label = if curves.len() > 1 { escape(c.label) + " " } else { "last ".to_owned() };
            format!("<span><i class=key style=\"background:{colour}\"></i>{label}{last}</span>")
        })
        .collect();
    format!("<div class=card><h3>{}</h3><div class=keys>{keys}</div>{svg}</div>", escape(title))
}

/// One row of an interval plot; all values in `0..=1`.
pub(super) struct IntervalRow {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) lo: f64,
    pub(super) hi: f64,
    /// Index into [`COLOURS`].
    pub(super) colour: usize,
}

/// Values with their intervals on a common scale from 0 to 100 %; plain HTML, so that its text stays readable on a phone.
/// `mark` is drawn as a dashed line (guessing).
pub(super) fn intervals(rows: &[IntervalRow], mark: Option<f64>) -> String {
    let percent = |v: f64| format!("{:.2}%", v.clamp(0.0, 1.0) * 100.0);
    let line =
        mark.map_or_else(String::new, |m| format!("<i class=iv-mark style=\"left:{}\"></i>", percent(m)));
    let drawn: String = rows
        .iter()
        .map(|row| {
            let colour = COLOURS[row.colour % COLOURS.len()];
            format!(
                "<div class=iv-name>{}</div><div class=iv-track>{line}\
                 <i class=iv-band style=\"left:{};width:{};background:{colour}\"></i>\
                 <i class=iv-dot style=\"left:{};background:{colour}\"></i></div>\
                 <div class=iv-value><b>{:.1}</b> <span class=dim>{:.1} – {:.1}</span></div>",
                escape(&row.label),
                percent(row.lo),
                percent(row.hi - row.lo),
                percent(row.value),
                row.value * 100.0,
                row.lo * 100.0,
                row.hi * 100.0,
            )
        })
        .collect();
    // Each number stands in the middle below its line.
    let numbers: String =
        [0, 25, 50, 75, 100].map(|at| format!("<span style=\"left:{at}%\">{at}</span>")).concat();
    format!("<div class=iv>{drawn}<div class=iv-scale>{numbers}</div></div>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (x, text) in [(0.0, "0"), (0.12345, "0.123"), (12.0, "12"), (1234.5, "1234"), (1e-6, "1.0e-6")] {
            assert_eq!(short(x), text);
        }
    }

    #[test]
    fn thinning_keeps_the_mean() {
        let points: Vec<_> = (0..1000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thin = thin(&points, 100);
        assert_eq!(thin.len(), 100);
        assert!(thin.iter().all(|p| (p.1 - 0.5).abs() < 1e-12));
    }

    #[test]
    fn a_running_mean_keeps_a_straight_line() {
        let points: Vec<_> = (0..48).map(|i| (f64::from(i), 3.0 * f64::from(i))).collect();
        for (a, b) in running_mean(&points).iter().zip(&points) {
            assert!((a.1 - b.1).abs() < 1e-12, "{a:?} {b:?}");
        }
    }

    /// Places of the texts of an SVG: x, y, anchored at their end, and what they say.
    fn texts(svg: &str) -> Vec<(f64, f64, bool, String)> {
        let read = |s: &str| {
            let (tag, rest) = s.split_once('>')?;
            let number = |key: &str| tag.split(key).nth(1)?.split(' ').next()?.parse::<f64>().ok();
            let text = rest.split('<').next()?.to_owned();
            Some((number("x=")?, number("y=")?, tag.contains("anchor=end"), text))
        };
        svg.split("<text ").skip(1).filter_map(read).collect()
    }

    #[test]
    fn labels_stay_inside_the_picture() {
        for points in [
            [(0.0, -0.0123), (119.0, -0.00456)],
            [(0.0, -1.23e-7), (5.0, -1.0e-7)],
            [(0.0, 0.0), (9.0, 123_456.0)],
        ] {
            let svg = curves("x", &[Curve { label: "a", points: &points }]);
            let size = svg.split("viewBox=\"0 0 ").nth(1).and_then(|s| s.split('"').next()).unwrap();
            let (w, h) = size.split_once(' ').unwrap();
            let (w, h): (f64, f64) = (w.parse().unwrap(), h.parse().unwrap());
            let texts = texts(&svg);
            assert_eq!(texts.len(), 5, "{svg}");
            for (x, y, at_end, text) in texts {
                let width = text.chars().count() as f64 * 6.5;
                let (from, to) = if at_end { (x - width, x) } else { (x, x + width) };
                // A quarter of the height of the letters may hang below the line.
                assert!(from >= 0.0 && to <= w && y - 9.0 >= 0.0 && y + 3.0 <= h, "`{text}` at {x}, {y}");
            }
        }
    }

    #[test]
    fn the_numbers_of_a_scale_stand_under_its_lines() {
        let html = intervals(&[], None);
        for at in [0, 25, 50, 75, 100] {
            assert!(html.contains(&format!("left:{at}%\">{at}<")), "{html}");
        }
    }

    #[test]
    fn one_point_and_no_point_are_drawn_without_a_fault() {
        assert!(curves("x", &[Curve { label: "a", points: &[(0.0, 1.0)] }]).contains("<circle"));
        assert_eq!(curves("x", &[Curve { label: "a", points: &[] }]), "");
    }
}
