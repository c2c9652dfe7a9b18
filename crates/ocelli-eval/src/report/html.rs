//! One HTML page that needs nothing else: numbers, plots, comparisons, and a list of all answers.
//!
//! The list draws only the rows in view, so ten thousand answers scroll like ten. Pictures are embedded up to a budget of bytes; the
//! others are named by their hash.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_agent::endpoint::wire::image_type;
use serde_json::{Value, json};

use super::{cards, grouped, plot};
use crate::compare::Comparison;
use crate::evaluate::{Evaluation, ItemRecord};
use crate::load::Images;

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
    let samples =
        if summary.samples == 1 { "1 sample".to_owned() } else { format!("{} samples", summary.samples) };
    let _ = write!(
        page,
        "<header><h1>{}</h1><p><b>{}</b> <span>task <code>{}</code></span> <span>{} items, {samples} each</span></p><nav><a href=\"#summary\">Summary</a><a href=\"#groups\">Groups</a><a href=\"#rules\">Rules</a><a href=\"#browser\">Answers</a></nav></header><main>",
        escape(&summary.title),
        escape(&summary.model),
        escape(&summary.task),
        grouped(summary.items as u64),
    );
    cards::cards(&mut page, summary);
    page.push_str("<section id=\"groups\">");
    for table in summary.groups.iter().filter(|t| t.rows.len() > 1) {
        let overlap = if table.overlapping { " <small>labels overlap</small>" } else { "" };
        let open = if table.rows.len() <= 24 { " open" } else { "" };
        let _ = write!(page, "<details{open}><summary>By {}{overlap}</summary>", escape(&table.name));
        cards::forest(&mut page, table);
        page.push_str("</details>");
    }
    page.push_str("</section>");
    page.push_str("<section class=\"curves\">");
    if let Some(curves) = &summary.curves {
        if curves.k.len() > 1 {
            page.push_str("<details open><summary>Over samples</summary><div class=\"plot\">");
            page.push_str(&plot::over_k(curves));
            page.push_str("</div><p class=\"legend\">Exact expectations over the stored samples, strict verdicts.</p></details>");
        }
        if curves.tokens.len() > 1 {
            page.push_str("<details open><summary>Over token budget</summary><div class=\"plot\">");
            page.push_str(&plot::over_tokens(&curves.tokens));
            page.push_str("</div><p class=\"legend\">Share of answers that have ended, and that have ended right, within a budget of completion tokens.</p></details>");
        }
    }
    page.push_str("</section>");
    cards::rules(&mut page, summary);
    for comparison in options.comparisons {
        compared(&mut page, comparison);
    }
    page.push_str("<details><summary>All numbers</summary><pre>");
    page.push_str(&escape(&super::terminal(summary, usize::MAX)));
    page.push_str("</pre></details>");
    page.push_str(LIST);
    page.push_str("</main>");
    let _ = write!(
        page,
        "<script type=\"application/json\" id=\"data\">{}</script><script>{SCRIPT}</script></body></html>\n",
        data(evaluation, options)
    );
    page
}

/// Everything that the list shows, as JSON that cannot end its script element.
fn data(evaluation: &Evaluation, options: &HtmlOptions<'_>) -> String {
    let reasons: HashMap<(&str, u32), (&'static str, &str)> = evaluation
        .differences
        .iter()
        .map(|d| ((d.item.as_str(), d.sample), (d.kind.name(), d.reason.as_str())))
        .collect();
    // Samples of one item share their prompt: it is written once.
    let (mut prompts, mut place): (Vec<&str>, HashMap<&str, usize>) = Default::default();
    let mut rows = Vec::with_capacity(evaluation.records.len());
    for r in &evaluation.records {
        let prompt = *place.entry(&r.prompt).or_insert_with(|| {
            prompts.push(&r.prompt);
            prompts.len() - 1
        });
        rows.push(record(r, prompt, reasons.get(&(r.id.as_str(), r.sample)).copied()));
    }
    let data = json!({
        "groups": evaluation.summary.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(),
        "rows": rows,
        "prompts": prompts,
        "pictures": pictures(&evaluation.records, options),
    });
    data.to_string().replace('<', "\\u003c")
}

const LIST: &str = r#"<section id="browser"><h2>Answers</h2>
<div id="filters"><input id="search" type="search" placeholder="search in item, prompt, response, answer" aria-label="search">
<select id="verdict" aria-label="verdict"><option value="">all verdicts</option><option value="right">strict right</option><option value="wrong">strict wrong</option><option value="differ">rules differ</option><option value="undecided">undecided</option></select>
<select id="outcome" aria-label="outcome"><option value="">all outcomes</option></select>
<select id="kind" aria-label="difference"><option value="">all differences</option></select>
<select id="group" aria-label="group"><option value="">all groups</option></select><output id="shown"></output></div>
<div id="columns"><div id="list" tabindex="0" role="listbox" aria-label="answers"><div id="spacer"></div></div><article id="detail"><p>Choose an answer; arrow keys move.</p></article></div>
<noscript><p>The list of answers needs JavaScript; the numbers above do not.</p></noscript></section>"#;

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

fn record(r: &ItemRecord, prompt: usize, differs: Option<(&'static str, &str)>) -> Value {
    // Browsers count in UTF-16 units, spans are in bytes.
    let units = |at: usize| r.response.get(..at).map(|t| t.encode_utf16().count());
    let span = r.strict.span.as_ref().and_then(|s| Some([units(s.start)?, units(s.end)?]));
    let verdict = |v: &crate::score::Verdict| json!({"c": v.credit, "a": v.answer, "r": v.rule, "n": v.note});
    json!({
        "id": r.id, "s": r.sample, "p": prompt, "g": r.gold, "t": r.response, "th": r.reasoning,
        "o": r.outcome.name(), "ref": verdict(&r.reference), "st": verdict(&r.strict), "u": r.strict.undecided,
        "gr": r.groups, "im": r.images.iter().map(|h| h.short()).collect::<Vec<_>>(), "k": r.tokens, "j": r.judge,
        "sp": span, "kind": differs.map(|d| d.0), "why": differs.map(|d| d.1),
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
