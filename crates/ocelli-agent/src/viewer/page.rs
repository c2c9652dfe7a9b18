//! The page around the dialogues: summary, filters, one card per trajectory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ocelli_data::{ContentHash, Message, Role, SpanKind, Status, Trajectory};

use super::escape::text;
use super::turns::{dialogue, duration};
use super::{Images, ViewerConfig, mean_score};
use crate::episode::Ended;

const STYLE: &str = include_str!("viewer.css");
const SCRIPT: &str = include_str!("viewer.js");

fn status_name(status: Status) -> String {
    // The name that JSON uses, so that page and files agree.
    serde_json::to_value(status).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn status_class(status: Status) -> &'static str {
    match status {
        Status::Answered => "good",
        s if s.is_policy_end() => "warn",
        _ => "bad",
    }
}

pub(super) fn head(out: &mut String, rows: &[Ended], shown: usize, config: &ViewerConfig) {
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
         <title>{}</title><style>{STYLE}</style></head><body><header><h1>{}</h1><p class=\"sub\">{}</p>",
        text(&config.title),
        text(&config.title),
        text(&config.subtitle)
    );
    let all: Vec<&Trajectory> = rows.iter().map(|r| &r.trajectory).collect();
    tiles(out, rows, &all);
    let mut counts: BTreeMap<String, (usize, Status)> = BTreeMap::new();
    for t in &all {
        counts.entry(status_name(t.status)).or_insert((0, t.status)).0 += 1;
    }
    out.push_str("<nav><button data-s=\"\" class=\"on\">all</button>");
    for (name, (count, status)) in counts {
        let class = status_class(status);
        let _ = write!(out, "<button data-s=\"{name}\" class=\"{class}\">{name} {count}</button>");
    }
    out.push_str("<input type=\"search\" placeholder=\"find text\" aria-label=\"find text\"></nav>");
    if shown < rows.len() {
        let _ = write!(
            out,
            "<p class=\"note\">{} further trajectories are not on this page.</p>",
            rows.len() - shown
        );
    }
    out.push_str("</header><main>");
}

fn tiles(out: &mut String, rows: &[Ended], all: &[&Trajectory]) {
    let n = rows.len().max(1) as f64;
    let answered = all.iter().filter(|t| t.status == Status::Answered).count();
    let calls: usize = all.iter().map(|t| t.tools.len()).sum();
    let bad: usize = all.iter().flat_map(|t| &t.tools).filter(|u| u.result.is_error).count();
    let seconds: f64 = rows.iter().map(|r| r.seconds).sum();
    let mut tile = |label: &str, value: String| {
        let _ = write!(out, "<div><b>{value}</b><span>{}</span></div>", text(label));
    };
    tile("trajectories", rows.len().to_string());
    tile("answered", format!("{:.0} %", 100.0 * answered as f64 / n));
    let mut names: Vec<&String> = Vec::new();
    for name in all.iter().flat_map(|t| t.scores.iter().map(|(name, _)| name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names.into_iter().take(4) {
        let (mean, count) = mean_score(all, name);
        // Standard error of the mean over the rows that were scored.
        let square = |t: &&&Trajectory| t.score(name).map(|s| (s.or_zero() - mean).powi(2));
        let variance = all.iter().filter_map(|t| square(&t)).sum::<f64>() / (count.max(2) - 1) as f64;
        tile(name, format!("{mean:.3} <small>± {:.3}</small>", (variance / count.max(1) as f64).sqrt()));
    }
    tile("calls per trajectory", format!("{:.1}", calls as f64 / n));
    tile("calls failed", format!("{:.1} %", 100.0 * bad as f64 / calls.max(1) as f64));
    tile("mean time", duration(seconds / n * 1e3));
    let inner = std::mem::take(out);
    let split = inner.find("<div><b>").unwrap_or(inner.len());
    let _ = write!(out, "{}<div class=\"tiles\">{}</div>", &inner[..split], &inner[split..]);
}

/// Characters of a question or an answer in the line that is always visible.
const EXCERPT: usize = 160;

pub(super) fn card(out: &mut String, row: &Ended, images: &mut Images<'_>) {
    let t = &row.trajectory;
    let status = status_name(t.status);
    let class = status_class(t.status);
    let _ = write!(
        out,
        "<details class=\"card\" data-s=\"{status}\"><summary><span class=\"chip {class}\">{status}</span>\
         <span class=\"id\">{} <i>#{}</i></span>",
        text(&t.sample_id),
        t.attempt
    );
    for (name, score) in &t.scores {
        let value = score.value.map_or("unscored".to_owned(), |v| format!("{v:.2}"));
        let class = if score.or_zero() >= 1.0 { "good" } else { "plain" };
        let _ = write!(out, "<span class=\"chip {class}\">{} {value}</span>", text(name));
    }
    let failed = t.tools.iter().filter(|u| u.result.is_error).count();
    let calls = match (t.tools.len(), failed) {
        (1, 0) => "1 call".to_owned(),
        (n, 0) => format!("{n} calls"),
        (n, _) => format!("{n} calls, {failed} failed"),
    };
    let tokens = if t.ids.is_empty() { String::new() } else { format!(" · {} tokens", t.ids.len()) };
    let _ = write!(out, "<span class=\"meta\">{calls}{tokens} · {}</span>", duration(row.seconds * 1e3));
    let _ = write!(out, "<span class=\"ask\">{}", text(&excerpt(&question(t))));
    if let Some(answer) = answer(t) {
        let _ = write!(out, " <b>→ {}</b>", text(&excerpt(&answer)));
    }
    out.push_str("</span></summary>");
    if let Some(why) = &row.why {
        let _ = write!(out, "<p class=\"why\">{}</p>", text(why));
    }
    spans(out, t);
    dialogue(out, t, images);
    if !t.scores.is_empty() {
        out.push_str("<table><tr><th>score</th><th>value</th><th>read as</th><th>why</th></tr>");
        for (name, score) in &t.scores {
            let value = score.value.map_or("unscored".to_owned(), |v| format!("{v:.3}"));
            let answer = score.answer.as_deref().unwrap_or("");
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{value}</td><td>{}</td><td>{}</td></tr>",
                text(name),
                text(answer),
                text(&score.why)
            );
        }
        out.push_str("</table>");
    }
    out.push_str("</details>");
}

/// What was asked, without the lines that name the pictures.
fn question(t: &Trajectory) -> String {
    let asked = t.messages.iter().find(|m| m.role == Role::User).map(Message::plain_text);
    let lines = asked.unwrap_or_default();
    let lines: Vec<&str> = lines.lines().filter(|l| !l.starts_with("[img_")).collect();
    lines.join(" ")
}

/// What was answered: by the tool for it, by what a scorer read, or by the last words.
fn answer(t: &Trajectory) -> Option<String> {
    if t.status != Status::Answered {
        return None;
    }
    let given = t.tools.last().and_then(|u| u.call.arguments.get("answer"));
    if let Some(given) = given {
        return Some(given.as_str().map_or_else(|| given.to_string(), str::to_owned));
    }
    let read = t.scores.iter().find_map(|(_, score)| score.answer.clone().filter(|a| !a.is_empty()));
    let last = || t.messages.iter().rev().find(|m| m.role == Role::Assistant).map(Message::plain_text);
    read.or_else(last).filter(|a| !a.trim().is_empty())
}

fn excerpt(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let line = words.join(" ");
    let mut cut: String = line.chars().take(EXCERPT).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}

/// The origin of the tokens as a strip: what is prompt, sampled (and trained), observed.
fn spans(out: &mut String, t: &Trajectory) {
    if t.ids.is_empty() {
        return;
    }
    out.push_str("<div class=\"strip\" aria-hidden=\"true\">");
    for span in &t.spans {
        let class = match span.kind {
            SpanKind::Prompt => "p",
            SpanKind::Sampled => "s",
            SpanKind::Observation => "o",
        };
        let _ = write!(out, "<i class=\"{class}\" style=\"flex-grow:{}\"></i>", span.len);
    }
    let count = |kind| t.spans.iter().filter(|s| s.kind == kind).map(|s| s.len).sum::<usize>();
    let mean = t.logprobs.iter().map(|l| f64::from(*l)).sum::<f64>() / t.logprobs.len().max(1) as f64;
    let _ = write!(
        out,
        "</div><p class=\"legend\"><i class=\"p\"></i>prompt {} <i class=\"s\"></i>sampled {} <i class=\"o\"></i>observed {} \
         · mean log-probability {mean:.3}</p>",
        count(SpanKind::Prompt),
        count(SpanKind::Sampled),
        count(SpanKind::Observation)
    );
}

pub(super) fn foot(out: &mut String, images: &BTreeMap<ContentHash, String>) {
    out.push_str("</main><script>const I={");
    for (hash, data) in images {
        // Hexadecimal digits and base64 need no escaping.
        let _ = write!(out, "\"{}\":\"{data}\",", hash.short());
    }
    let _ = write!(out, "}};{SCRIPT}</script></body></html>");
}
