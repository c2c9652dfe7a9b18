//! One HTML page that needs nothing else: numbers, plots, comparisons, and a list of all answers.
//!
//! The list draws only the rows in view, so ten thousand answers scroll like ten. Pictures are embedded up to a budget of bytes; the
//! others are named by their hash.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_agent::endpoint::wire::image_type;
use serde_json::{Value, json};

use super::{bracket, percent, plot};
use crate::compare::Comparison;
use crate::evaluate::{Evaluation, ItemRecord};
use crate::load::Images;
use crate::summary::ModeSummary;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// What goes into the page.
#[derive(Default)]
pub struct HtmlOptions<'a> {
    /// Where pictures come from; none are shown without.
    pub images: Option<&'a Images>,
    /// Bytes of pictures to embed.
    pub image_budget: usize,
    /// Comparisons with other runs.
    pub comparisons: &'a [Comparison],
}

/// Escapes text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
pub fn html(evaluation: &Evaluation, options: &HtmlOptions<'_>) -> String {
    let summary = &evaluation.summary;
    let title = format!("{}: {}", summary.title, summary.model);
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    let _ = write!(page, "<title>{}</title><style>{STYLE}</style></head><body>", escape(&title));
    let _ = write!(
        page,
        "<header><h1>{}</h1><p>{} &middot; task <code>{}</code> &middot; {} items &middot; {} sample(s) each</p></header><main>",
        escape(&summary.title),
        escape(&summary.model),
        escape(&summary.task),
        summary.items,
        summary.samples
    );
    page.push_str("<section class=\"cards\">");
    card(&mut page, "strict", &summary.strict);
    card(&mut page, "reference", &summary.reference);
    page.push_str("<div class=\"card\"><h2>answers</h2><table>");
    for (outcome, n) in &summary.outcomes {
        let _ = write!(page, "<tr><td>{}</td><td class=\"n\">{n}</td></tr>", outcome.name());
    }
    page.push_str("</table></div></section>");
    for table in summary.groups.iter().filter(|t| t.rows.len() > 1) {
        let overlap = if table.overlapping { " (labels overlap)" } else { "" };
        let open = if table.rows.len() <= 24 { " open" } else { "" };
        let _ = write!(page, "<details{open}><summary>By {}{overlap}</summary>", escape(&table.name));
        page.push_str("<p class=\"legend\"><span class=\"ref\">reference</span> <span class=\"strict\">strict</span>, 95 % intervals</p>");
        page.push_str(&plot::groups(table));
        page.push_str("</details>");
    }
    if let Some(curves) = &summary.curves {
        if curves.k.len() > 1 {
            page.push_str("<details open><summary>Over samples</summary>");
            page.push_str(&plot::over_k(curves));
            page.push_str("</details>");
        }
        if curves.tokens.len() > 1 {
            page.push_str("<details open><summary>Over token budget</summary>");
            page.push_str(&plot::over_tokens(&curves.tokens));
            page.push_str("</details>");
        }
    }
    for comparison in options.comparisons {
        compared(&mut page, comparison);
    }
    page.push_str("<details><summary>All numbers</summary><pre>");
    page.push_str(&escape(&super::terminal(summary, usize::MAX)));
    page.push_str("</pre></details>");
    page.push_str(LIST);
    page.push_str("</main>");
    let pictures = pictures(&evaluation.records, options);
    let reasons: BTreeMap<String, String> = evaluation
        .differences
        .iter()
        .map(|d| (format!("{}#{}", d.item, d.sample), d.reason.clone()))
        .collect();
    let groups: Vec<&str> = summary.groups.iter().map(|g| g.name.as_str()).collect();
    let data = json!({
        "groups": groups,
        "rows": evaluation.records.iter().map(|r| record(r, &reasons)).collect::<Vec<Value>>(),
        "pictures": pictures,
    });
    // `<` cannot end the script element once it is written as an escape.
    let text = data.to_string().replace('<', "\\u003c");
    let _ = write!(
        page,
        "<script type=\"application/json\" id=\"data\">{text}</script><script>{SCRIPT}</script></body></html>\n"
    );
    page
}

const LIST: &str = r#"<section id="browser"><h2>Answers</h2>
<div id="filters"><input id="search" type="search" placeholder="search in item, prompt, response, answer" aria-label="search">
<select id="verdict" aria-label="verdict"><option value="">all verdicts</option><option value="right">strict right</option><option value="wrong">strict wrong</option><option value="differ">rules differ</option><option value="undecided">undecided</option></select>
<select id="outcome" aria-label="outcome"><option value="">all outcomes</option></select>
<select id="group" aria-label="group"><option value="">all groups</option></select><output id="shown"></output></div>
<div id="columns"><div id="list" tabindex="0" role="listbox" aria-label="answers"><div id="spacer"></div></div><article id="detail"><p>Choose an answer; arrow keys move.</p></article></div></section>"#;

fn card(page: &mut String, name: &str, mode: &ModeSummary) {
    let mean = percent(mode.estimate.map(|e| e.mean));
    let interval = mode.estimate.map_or_else(String::new, |e| bracket(e.interval));
    let _ = write!(
        page,
        "<div class=\"card {name}\"><h2>{name}</h2><p class=\"big\">{mean}</p><p>{interval}</p>"
    );
    let left_out = if mode.left_out > 0 { format!(", {} left out", mode.left_out) } else { String::new() };
    let _ = write!(
        page,
        "<p>{} of {}{left_out}; with missing answers wrong {}, right {}</p></div>",
        (mode.credit * 100.0).round() / 100.0,
        mode.n,
        percent(Some(mode.worst)),
        percent(Some(mode.best))
    );
}

fn compared(page: &mut String, c: &Comparison) {
    const MOST: usize = 500;
    let _ = write!(
        page,
        "<details open><summary>{} against {}</summary><pre>{}</pre>",
        escape(&c.a),
        escape(&c.b),
        escape(&super::comparison_text(c))
    );
    let _ = write!(
        page,
        "<details><summary>{} items on which they differ</summary><table><tr><th>item</th><th>gold</th><th>{}</th><th>{}</th></tr>",
        c.items.len(),
        escape(&c.a),
        escape(&c.b)
    );
    for item in c.items.iter().take(MOST) {
        let side = |credit: f64, answer: &str| {
            let class = if credit > 0.5 { "right" } else { "wrong" };
            let short: String = answer.chars().take(80).collect();
            format!("<td class=\"{class}\">{} ({credit:.2})</td>", escape(&short))
        };
        let gold: String = item.gold.chars().take(80).collect();
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td>{}{}</tr>",
            escape(&item.item),
            escape(&gold),
            side(item.a, &item.answer_a),
            side(item.b, &item.answer_b)
        );
    }
    page.push_str("</table>");
    if c.items.len() > MOST {
        let _ = write!(page, "<p>The other {} are in the JSON report.</p>", c.items.len() - MOST);
    }
    page.push_str("</details></details>");
}

fn record(r: &ItemRecord, reasons: &BTreeMap<String, String>) -> Value {
    // Browsers count in UTF-16 units, spans are in bytes.
    let units = |at: usize| r.response.get(..at).map(|t| t.encode_utf16().count());
    let span = r.strict.span.as_ref().and_then(|s| Some([units(s.start)?, units(s.end)?]));
    let verdict = |v: &crate::score::Verdict| json!({"c": v.credit, "a": v.answer, "r": v.rule, "n": v.note});
    json!({
        "id": r.id, "s": r.sample, "p": r.prompt, "g": r.gold, "t": r.response, "th": r.reasoning,
        "o": r.outcome.name(), "ref": verdict(&r.reference), "st": verdict(&r.strict), "u": r.strict.undecided,
        "gr": r.groups, "im": r.images.iter().map(|h| h.short()).collect::<Vec<_>>(), "k": r.tokens, "j": r.judge,
        "sp": span, "why": reasons.get(&format!("{}#{}", r.id, r.sample)),
    })
}

/// Data URLs of pictures by short hash, in the order of items, until the budget is used up.
fn pictures(records: &[ItemRecord], options: &HtmlOptions<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(images) = options.images else { return found };
    let mut left = options.image_budget;
    for hash in records.iter().flat_map(|r| &r.images) {
        let name = hash.short();
        if found.contains_key(&name) || left == 0 {
            continue;
        }
        // A picture that can no longer be read is named by its hash on the page.
        let Ok(bytes) = images.get(*hash) else { continue };
        let Some(kind) = image_type(&bytes).filter(|_| bytes.len() <= left) else { continue };
        left -= bytes.len();
        found.insert(name, format!("data:{kind};base64,{}", STANDARD.encode(&bytes)));
    }
    found
}
