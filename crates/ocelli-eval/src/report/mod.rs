//! Reports: text for a terminal, Markdown, JSON, and one self-contained HTML page.

mod cards;
mod html;
mod plot;
mod text;

use crate::stats::{Estimate, Interval};

pub use html::{HtmlOptions, html, write_html};
pub use text::{comparison_text, markdown, overview, terminal};

/// `37.0 %` or a dash.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{:.1} %", 100.0 * v))
}

/// `[32.4, 41.8]` in per cent.
pub(crate) fn bracket(interval: Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
}

/// `37.0 % [32.4, 41.8]`.
pub(crate) fn with_interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "-".to_owned(), |e| format!("{} {}", percent(Some(e.mean)), bracket(e.interval)))
}

/// `1,378`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
