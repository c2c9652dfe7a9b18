//! Plots as inline SVG. Colours are CSS variables of the page, so that they follow light and dark.

use std::fmt::Write as _;

use super::html::escape;
use crate::stats::Estimate;
use crate::summary::{Curves, KRow, TokenBudget};

const WIDTH: f64 = 760.0;

struct Axes {
    max_x: f64,
    log: bool,
    min_x: f64,
}

const HEIGHT: f64 = 300.0;
/// Room for the scale on the left and for the names of lines on the right, in large type on narrow screens.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 140.0;

impl Axes {
    fn x(&self, v: f64) -> f64 {
        let share = if self.log {
            (v / self.min_x).ln() / (self.max_x / self.min_x).ln().max(1e-9)
        } else {
            (v - self.min_x) / (self.max_x - self.min_x).max(1e-9)
        };
        LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
    }

    fn y(v: f64) -> f64 {
        HEIGHT - 40.0 - (HEIGHT - 60.0) * v.clamp(0.0, 1.0)
    }

    fn frame(&self, title: &str, ticks: &[f64], x_name: &str) -> String {
        let mut svg = open(HEIGHT, title);
        for tick in 0..=4 {
            let v = f64::from(tick) / 4.0;
            let y = Self::y(v);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}"/>"#,
                WIDTH - RIGHT
            );
            let _ = write!(
                svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{:.0} %</text>"#,
                LEFT - 8.0,
                y + 4.0,
                100.0 * v
            );
        }
        for t in ticks {
            let _ = write!(
                svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{t:.0}</text>"#,
                self.x(*t),
                HEIGHT - 22.0
            );
        }
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{x_name}</text>"#,
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 5.0
        );
        svg
    }

    /// The area between two curves over the same places.
    fn band(&self, svg: &mut String, class: &str, points: &[(f64, f64, f64)]) {
        let low = points.iter().map(|(x, low, _)| (*x, *low));
        let high = points.iter().rev().map(|(x, _, high)| (*x, *high));
        let path: Vec<String> =
            low.chain(high).map(|(x, y)| format!("{:.1},{:.1}", self.x(x), Self::y(y))).collect();
        let _ = write!(svg, r#"<polygon class="{class} band" points="{}"/>"#, path.join(" "));
    }

    /// A dot at each point, with its value as a title.
    fn dots(&self, svg: &mut String, class: &str, name: &str, points: &[(f64, f64)]) {
        for (x, y) in points {
            let _ = write!(
                svg,
                r#"<circle class="{class} dot" cx="{:.1}" cy="{:.1}" r="3.5"><title>{name}, {x:.0}: {:.1} %</title></circle>"#,
                self.x(*x),
                Self::y(*y),
                100.0 * y
            );
        }
    }

    fn line(&self, svg: &mut String, class: &str, points: &[(f64, f64)]) {
        let path: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), Self::y(*y))).collect();
        let _ = write!(svg, r#"<polyline class="{class} line" points="{}"/>"#, path.join(" "));
    }
}

/// Names at the right end of lines, pushed apart so that they do not overlap.
fn names(svg: &mut String, ends: &mut [(f64, &str, &str)]) {
    ends.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut last = f64::NEG_INFINITY;
    for (value, class, name) in ends {
        let y = Axes::y(*value).max(last + 15.0);
        last = y;
        let _ = write!(
            svg,
            r#"<text class="{class} name" x="{:.1}" y="{:.1}">{name}</text>"#,
            WIDTH - RIGHT + 6.0,
            y + 4.0
        );
    }
}

/// pass@k, pass^k, majority and (where known) best-of-k, weighted majority and tournament over k.
pub(super) fn over_k(curves: &Curves) -> String {
    let rows = &curves.k;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return String::new() };
    let axes = Axes { min_x: first.k as f64, max_x: last.k as f64, log: true };
    let ticks: Vec<f64> = rows.iter().map(|r| r.k as f64).collect();
    let mut svg = axes.frame("Accuracy over samples", &ticks, "samples k");
    type Series<'a> = (&'a str, &'a str, fn(&KRow) -> Option<Estimate>);
    let series: [Series<'_>; 6] = [
        ("c1", "pass@k", |r| Some(r.pass)),
        ("c2", "majority", |r| Some(r.majority)),
        ("c3", "pass^k", |r| Some(r.pass_all)),
        ("c4", "best-of-k", |r| r.best_of),
        ("c5", "weighted maj.", |r| r.weighted_majority),
        ("c6", "tournament", |r| r.tournament),
    ];
    let mut ends = Vec::new();
    for (class, name, value) in &series {
        let found: Vec<(f64, Estimate)> = rows.iter().filter_map(|r| Some((r.k as f64, value(r)?))).collect();
        let points: Vec<(f64, f64)> = found.iter().map(|(k, e)| (*k, e.mean)).collect();
        if let Some((_, end)) = points.last() {
            let band: Vec<_> = found.iter().map(|(k, e)| (*k, e.interval.low, e.interval.high)).collect();
            axes.band(&mut svg, class, &band);
            axes.line(&mut svg, class, &points);
            axes.dots(&mut svg, class, name, &points);
            ends.push((*end, *class, *name));
        }
    }
    names(&mut svg, &mut ends);
    svg.push_str("</svg>");
    svg
}

/// Share right within a token budget.
pub(super) fn over_tokens(points: &[TokenBudget]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (low, high) = (first.tokens.max(1) as f64, last.tokens.max(2) as f64);
    let axes = Axes { min_x: low, max_x: high, log: high / low > 20.0 };
    let ticks: Vec<f64> = (0..=4)
        .map(|i| {
            let s = f64::from(i) / 4.0;
            if axes.log { low * (high / low).powf(s) } else { low + (high - low) * s }
        })
        .collect();
    let mut svg = axes.frame("Share right within a budget of completion tokens", &ticks, "completion tokens");
    let column = |f: &dyn Fn(&TokenBudget) -> f64| -> Vec<(f64, f64)> {
        points.iter().map(|p| (p.tokens as f64, f(p))).collect()
    };
    axes.line(&mut svg, "c3", &column(&|p| p.ended));
    axes.line(&mut svg, "c1", &column(&|p| p.right));
    names(&mut svg, &mut [(last.right, "c1", "right"), (last.ended, "c3", "ended")]);
    svg.push_str("</svg>");
    svg
}

fn open(height: f64, title: &str) -> String {
    let title = escape(title);
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" role="img" aria-label="{title}"><title>{title}</title>"#
    )
}
