//! The parts of the page above the list: what it all comes to, accuracy by group, and where the two rules differ.

use std::fmt::Write as _;

use super::html::escape;
use super::{bracket, grouped, percent};
use crate::compare::Comparison;
use crate::stats::Estimate;
use crate::stats::PairedDifference;
use crate::summary::{GroupTable, ModeSummary, Summary};

/// Contradictions with published verdicts that the page names.
const CONTRADICTIONS: usize = 8;

/// A track from 0 to 100 % with an interval and its mean.
fn track(page: &mut String, class: &str, e: Estimate) {
    let low = 100.0 * e.interval.low.clamp(0.0, 1.0);
    let width = 100.0 * (e.interval.high - e.interval.low).clamp(0.0, 1.0);
    let _ = write!(
        page,
        "<span class=\"track {class}\"><i style=\"left:{low:.2}%;width:{width:.2}%\"></i><b style=\"left:{:.2}%\"></b></span>",
        100.0 * e.mean
    );
}

fn mode(page: &mut String, name: &str, what: &str, mode: &ModeSummary) {
    let mean = percent(mode.estimate.map(|e| e.mean));
    let _ = write!(
        page,
        "<div class=\"card {name}\"><h2>{name} <small>{what}</small></h2><p class=\"big\">{mean}</p>"
    );
    if let Some(e) = mode.estimate {
        track(page, name, e);
        let _ = write!(page, "<p>95 % interval {}</p>", bracket(e.interval));
    }
    let left_out = if mode.left_out > 0 {
        format!(", {} left out", grouped(mode.left_out as u64))
    } else {
        String::new()
    };
    let credit = (mode.credit * 100.0).round() / 100.0;
    let credit = if credit.fract() == 0.0 { grouped(credit as u64) } else { format!("{credit}") };
    let _ = write!(page, "<p>{credit} of {}{left_out}</p>", grouped(mode.n as u64));
    let bounds = if mode.best > mode.worst {
        format!(
            "if missing answers were all wrong {}, all right {}",
            percent(Some(mode.worst)),
            percent(Some(mode.best))
        )
    } else {
        "no answer is missing".to_owned()
    };
    let _ = write!(page, "<p>{bounds}</p></div>");
}

fn line(page: &mut String, name: &str, value: &str) {
    let _ = write!(page, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", escape(name), escape(value));
}

/// Both accuracies, how answers ended, tokens, published verdicts, notes.
pub(super) fn cards(page: &mut String, summary: &Summary) {
    page.push_str("<section id=\"summary\" class=\"cards\">");
    mode(page, "strict", "read and compared by meaning", &summary.strict);
    mode(page, "reference", "the official rule with its faults", &summary.reference);
    page.push_str("<div class=\"card\"><h2>answers</h2><div class=\"stack\" role=\"img\" aria-label=\"answers by how they ended\">");
    let total = summary.outcomes.values().sum::<usize>().max(1);
    for (outcome, n) in &summary.outcomes {
        let share = 100.0 * *n as f64 / total as f64;
        let _ = write!(
            page,
            "<i class=\"{0}\" style=\"width:{share:.2}%\" title=\"{0} {n}\"></i>",
            outcome.name()
        );
    }
    page.push_str("</div><table>");
    for (outcome, n) in &summary.outcomes {
        let _ = write!(
            page,
            "<tr><td><i class=\"key {0}\"></i>{0}</td><td class=\"n\">{1}</td></tr>",
            outcome.name(),
            grouped(*n as u64)
        );
    }
    if summary.undecided > 0 {
        line(page, "undecided by the strict rule", &grouped(summary.undecided as u64));
    }
    page.push_str("</table></div>");
    if summary.usage.completion > 0 {
        page.push_str("<div class=\"card\"><h2>tokens</h2><table>");
        let usage = &summary.usage;
        if usage.prompt > 0 {
            line(page, "prompt", &grouped(usage.prompt));
        }
        line(page, "completion", &grouped(usage.completion));
        line(page, "completion per answer", &format!("{:.0}", usage.completion as f64 / total as f64));
        if let Some(t) = &summary.endpoint {
            line(page, "attempts", &grouped(t.attempts));
            line(page, "most in flight", &grouped(t.max_in_flight as u64));
            if let Some(cost) = t.cost {
                line(page, "cost", &format!("{cost:.4}"));
            }
        }
        page.push_str("</table></div>");
    }
    if let Some(human) = &summary.human {
        page.push_str("<div class=\"card\"><h2>people</h2><table>");
        line(page, "answers judged", &grouped(human.seen as u64));
        line(page, "automatic verdict agrees", &grouped(human.agreed as u64));
        if let Some(c) = &human.corrected {
            line(page, "automatic accuracy", &percent(Some(c.judged)));
            line(page, "corrected", &format!("{} {}", percent(Some(c.mean)), bracket(c.interval)));
        }
        page.push_str("</table></div>");
    }
    if let Some(labels) = &summary.labels {
        page.push_str("<div class=\"card\"><h2>published verdicts</h2><table>");
        line(page, "compared", &grouped(labels.compared as u64));
        line(page, "right as published", &grouped(labels.published_right as u64));
        line(page, "right as recomputed", &grouped(labels.recomputed_right as u64));
        line(page, "contradictions", &grouped(labels.contradictions.len() as u64));
        page.push_str("</table>");
        let word = |right: bool| if right { "right" } else { "wrong" };
        for (item, published, here, answer) in labels.contradictions.iter().take(CONTRADICTIONS) {
            let short: String = answer.chars().take(40).collect();
            let _ = write!(
                page,
                "<p>{}: published {}, the rule says {} (reads <code>{}</code>)</p>",
                escape(item),
                word(*published),
                word(*here),
                escape(&short)
            );
        }
        if labels.contradictions.len() > CONTRADICTIONS {
            let _ = write!(
                page,
                "<p>and {} more in the JSON report</p>",
                labels.contradictions.len() - CONTRADICTIONS
            );
        }
        page.push_str("</div>");
    }
    page.push_str("</section>");
    if !summary.notes.is_empty() {
        page.push_str("<ul class=\"notes\">");
        summary.notes.iter().for_each(|n| {
            let _ = write!(page, "<li>{}</li>", escape(n));
        });
        page.push_str("</ul>");
    }
}

/// Accuracy by label with intervals, both modes: one block per label, which wraps on a narrow screen.
pub(super) fn forest(page: &mut String, table: &GroupTable) {
    page.push_str("<div class=\"forest\"><p class=\"axis\"><span></span><span class=\"scale\"><i>0</i><i>25</i><i>50</i><i>75</i><i>100 %</i></span><span class=\"legend\"><b class=\"strict\">strict</b> <b class=\"reference\">reference</b></span></p>");
    for row in &table.rows {
        let _ = write!(
            page,
            "<div class=\"line\"><span class=\"label\">{} <small>n {}</small></span><span class=\"tracks\">",
            escape(&row.label),
            row.strict.n
        );
        track(page, "strict", row.strict);
        if let Some(e) = row.reference {
            track(page, "reference", e);
        }
        page.push_str("</span><span class=\"numbers\">");
        let number = |page: &mut String, class: &str, e: Option<Estimate>| {
            let interval = e.map_or_else(|| "left out".into(), |e| bracket(e.interval));
            let _ = write!(
                page,
                "<span class=\"{class}\"><b>{}</b> {interval}</span>",
                percent(e.map(|e| e.mean))
            );
        };
        number(page, "strict", Some(row.strict));
        number(page, "reference", row.reference);
        page.push_str("</span></div>");
    }
    page.push_str("</div>");
}

/// Where the two rules differ, each kind a button that shows its answers in the list.
pub(super) fn rules(page: &mut String, summary: &Summary) {
    page.push_str("<details open id=\"rules\"><summary>Reference against strict</summary>");
    if summary.difference_kinds.is_empty() {
        page.push_str("<p>Both rules give every answer the same credit.</p></details>");
        return;
    }
    page.push_str("<div class=\"wide\"><table><tr><th>where they differ</th><th class=\"n\">more by reference</th><th class=\"n\">more by strict</th></tr>");
    for (kind, (reference, strict)) in &summary.difference_kinds {
        let name = escape(kind.name());
        let _ = write!(
            page,
            "<tr><td><button data-kind=\"{name}\">{name}</button></td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            grouped(*reference as u64),
            grouped(*strict as u64)
        );
    }
    page.push_str("</table></div></details>");
}

/// Paired differences by group on a scale around zero, the whole first.
pub(super) fn differences(page: &mut String, c: &Comparison) {
    for (i, group) in c.groups.iter().enumerate() {
        let whole = std::iter::once(("all", c.shared, &c.difference));
        let rows: Vec<(&str, usize, &PairedDifference)> =
            whole.chain(group.rows.iter().map(|r| (r.label.as_str(), r.n, &r.difference))).collect();
        // Symmetric, so that zero stands in the middle; wide enough for every interval, in steps of 5 points.
        let reach =
            rows.iter().map(|(_, _, d)| d.interval.low.abs().max(d.interval.high.abs())).fold(0.05, f64::max);
        let reach = ((20.0 * reach).ceil() / 20.0).min(1.0);
        let place = |v: f64| 50.0 + 50.0 * (v / reach).clamp(-1.0, 1.0);
        let overlap = if group.overlapping { " <small>labels overlap</small>" } else { "" };
        let open = if i == 0 && rows.len() <= 24 { " open" } else { "" };
        let _ = write!(
            page,
            "<details{open}><summary>Difference by {}{overlap}</summary><div class=\"forest\"><p class=\"axis\"><span></span><span class=\"scale three\"><i>{:+.0}</i><i>0</i><i>{:+.0} points</i></span><span class=\"legend\">right of the middle: {} is better</span></p>",
            escape(&group.name),
            -100.0 * reach,
            100.0 * reach,
            escape(&c.a)
        );
        for (label, n, d) in rows {
            let (low, high) = (place(d.interval.low), place(d.interval.high));
            let clear = d.interval.low > 0.0 || d.interval.high < 0.0;
            let class = if clear { "clear" } else { "open" };
            let _ = write!(
                page,
                "<div class=\"line\"><span class=\"label\">{} <small>n {n}</small></span><span class=\"tracks\"><span class=\"track difference {class}\"><i style=\"left:{low:.2}%;width:{:.2}%\"></i><b style=\"left:{:.2}%\"></b></span></span><span class=\"numbers\"><span><b>{:+.1}</b> [{:+.1}, {:+.1}]</span></span></div>",
                escape(label),
                high - low,
                place(d.difference),
                100.0 * d.difference,
                100.0 * d.interval.low,
                100.0 * d.interval.high
            );
        }
        page.push_str("</div></details>");
    }
    if !c.groups.is_empty() {
        page.push_str("<p class=\"legend\">Paired differences on the shared items with 95 % intervals, for each label by itself: among twenty labels one misses zero by chance.</p>");
    }
}
