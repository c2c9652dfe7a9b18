//! One HTML page that needs nothing else: numbers, plots, comparisons, and a list of all answers.
//!
//! The list draws only the rows in view, so ten thousand answers scroll like ten. Pictures are embedded up to a budget of bytes; the
//! others are named by their hash. The page is written piece by piece: of the pictures one is in memory at a time, and
//! in the browser each stays text until it is looked at.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_agent::endpoint::wire::image_type;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer as _};
use serde_json::ser::Formatter;

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

/// The page as text.
pub fn html(evaluation: &Evaluation, options: &HtmlOptions<'_>) -> String {
    let mut page = Vec::new();
    // Neither a vector nor the serialisation of these types can fail.
    let _ = write_html(&mut page, evaluation, options);
    String::from_utf8_lossy(&page).into_owned()
}

/// Writes the page; pictures are read, encoded and written one by one.
pub fn write_html(
    out: &mut dyn io::Write,
    evaluation: &Evaluation,
    options: &HtmlOptions<'_>,
) -> io::Result<()> {
    out.write_all(above_the_list(evaluation, options).as_bytes())?;
    out.write_all(LIST.as_bytes())?;
    out.write_all(b"</main>\n<script type=\"application/json\" id=\"data\">")?;
    data(out, evaluation)?;
    out.write_all(b"</script>\n")?;
    pictures(out, &evaluation.records, options)?;
    write!(out, "<script>{SCRIPT}</script></body></html>\n")
}

/// Everything but the list: what the whole comes to, groups, curves, rules, comparisons.
fn above_the_list(evaluation: &Evaluation, options: &HtmlOptions<'_>) -> String {
    let summary = &evaluation.summary;
    let title = format!("{}: {}", summary.title, summary.model);
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    let _ = write!(page, "<title>{}</title><style>{STYLE}</style></head><body>", escape(&title));
    let samples =
        if summary.samples == 1 { "1 sample".to_owned() } else { format!("{} samples", summary.samples) };
    let _ = write!(
        page,
        "<header><h1>{}</h1><p><b>{}</b> <span>task <code>{}</code></span> <span>{} items, {samples} each</span></p><nav><a href=\"#summary\">Summary</a><a href=\"#groups\">Groups</a><a href=\"#rules\">Rules</a>{}<a href=\"#browser\">Answers</a></nav></header><main>",
        escape(&summary.title),
        escape(&summary.model),
        escape(&summary.task),
        grouped(summary.items as u64),
        if options.comparisons.is_empty() { "" } else { "<a href=\"#compared\">Compared</a>" },
    );
    cards::cards(&mut page, summary);
    if !options.comparisons.is_empty() {
        page.push_str("<section id=\"compared\">");
        options.comparisons.iter().for_each(|c| compared(&mut page, c));
        page.push_str("</section>");
    }
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
    page.push_str("<details><summary>All numbers</summary><pre>");
    page.push_str(&escape(&super::terminal(summary, usize::MAX)));
    page.push_str("</pre></details>");
    page
}

/// JSON that cannot end the script element that it stands in.
struct InScript;

impl Formatter for InScript {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        for (i, piece) in text.split('<').enumerate() {
            if i > 0 {
                out.write_all(b"\\u003c")?;
            }
            out.write_all(piece.as_bytes())?;
        }
        Ok(())
    }
}

fn json<T: Serialize + ?Sized>(out: &mut dyn io::Write, value: &T) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, InScript)).map_err(io::Error::from)
}

/// Everything that the list shows, row by row.
fn data(out: &mut dyn io::Write, evaluation: &Evaluation) -> io::Result<()> {
    let reasons: HashMap<(&str, u32), (&'static str, &str)> = evaluation
        .differences
        .iter()
        .map(|d| ((d.item.as_str(), d.sample), (d.kind.name(), d.reason.as_str())))
        .collect();
    let groups: Vec<&str> = evaluation.summary.groups.iter().map(|g| g.name.as_str()).collect();
    out.write_all(b"{\"groups\":")?;
    json(out, &groups)?;
    // Samples of one item share their prompt: it is written once.
    let (mut prompts, mut place): (Vec<&str>, HashMap<&str, usize>) = Default::default();
    out.write_all(b",\"rows\":")?;
    {
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, InScript);
        let mut rows = serializer.serialize_seq(None)?;
        for r in &evaluation.records {
            let prompt = *place.entry(&r.prompt).or_insert_with(|| {
                prompts.push(&r.prompt);
                prompts.len() - 1
            });
            rows.serialize_element(&ListRow::of(
                r,
                prompt,
                reasons.get(&(r.id.as_str(), r.sample)).copied(),
            ))?;
        }
        rows.end()?;
    }
    out.write_all(b",\"prompts\":")?;
    json(out, &prompts)?;
    out.write_all(b"}")
}

const LIST: &str = r#"<section id="browser"><h2>Answers</h2>
<div id="filters"><input id="search" type="search" placeholder="search" title="in item, prompt, response, answer; all words must occur" aria-label="search in item, prompt, response, answer">
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
    cards::differences(page, c);
    let _ = write!(
        page,
        "<details><summary>{} items on which they differ</summary><div class=\"wide\"><table><tr><th>item</th><th>gold</th><th>{}</th><th>{}</th></tr>",
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
    page.push_str("</table></div>");
    if c.items.len() > MOST {
        let _ = write!(page, "<p>The other {} are in the JSON report.</p>", c.items.len() - MOST);
    }
    page.push_str("</details></details>");
}

/// One answer as the list knows it; short names, since there may be ten thousand.
#[derive(Serialize)]
struct ListRow<'a> {
    id: &'a str,
    #[serde(rename = "s")]
    sample: u32,
    /// Place of the prompt in the list of prompts.
    #[serde(rename = "p")]
    prompt: usize,
    #[serde(rename = "g")]
    gold: &'a str,
    #[serde(rename = "t")]
    response: &'a str,
    #[serde(rename = "th", skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(rename = "o")]
    outcome: &'static str,
    #[serde(rename = "ref")]
    reference: ListVerdict<'a>,
    #[serde(rename = "st")]
    strict: ListVerdict<'a>,
    #[serde(rename = "u")]
    undecided: bool,
    #[serde(rename = "gr")]
    groups: &'a [Vec<String>],
    #[serde(rename = "im")]
    images: Vec<String>,
    #[serde(rename = "k")]
    tokens: u64,
    #[serde(rename = "j")]
    judge: &'a str,
    /// Whether the reasoning is sound, and what its judge says.
    #[serde(rename = "rs", skip_serializing_if = "Option::is_none")]
    reasoning: Option<(Option<bool>, &'a str)>,
    /// Where the answer stands in the response, in the browser's units.
    #[serde(rename = "sp")]
    span: Option<[usize; 2]>,
    kind: Option<&'static str>,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct ListVerdict<'a> {
    #[serde(rename = "c")]
    credit: Option<f64>,
    #[serde(rename = "a")]
    answer: Option<&'a str>,
    #[serde(rename = "r")]
    rule: &'a str,
    #[serde(rename = "n")]
    note: &'a str,
}

impl<'a> ListVerdict<'a> {
    fn of(v: &'a crate::score::Verdict) -> Self {
        Self { credit: v.credit, answer: v.answer.as_deref(), rule: &v.rule, note: &v.note }
    }
}

impl<'a> ListRow<'a> {
    fn of(r: &'a ItemRecord, prompt: usize, differs: Option<(&'static str, &'a str)>) -> Self {
        // Browsers count in UTF-16 units, spans are in bytes.
        let units = |at: usize| r.response.get(..at).map(|t| t.encode_utf16().count());
        Self {
            id: &r.id,
            sample: r.sample,
            prompt,
            gold: &r.gold,
            response: &r.response,
            thinking: r.reasoning.as_deref(),
            outcome: r.outcome.name(),
            reference: ListVerdict::of(&r.reference),
            strict: ListVerdict::of(&r.strict),
            undecided: r.strict.undecided,
            groups: &r.groups,
            images: r.images.iter().map(|h| h.short()).collect(),
            tokens: r.tokens,
            judge: &r.judge,
            reasoning: r.judged_reasoning.as_ref().map(|v| (v.sound, v.comment.as_str())),
            span: r.strict.span.as_ref().and_then(|s| Some([units(s.start)?, units(s.end)?])),
            kind: differs.map(|d| d.0),
            why: differs.map(|d| d.1),
        }
    }
}

/// Pictures as data URLs, each in an element of its own, in the order of items until the budget is used up. Neither
/// base64 nor a media type holds a `<`.
fn pictures(out: &mut dyn io::Write, records: &[ItemRecord], options: &HtmlOptions<'_>) -> io::Result<()> {
    let Some(images) = options.images else { return Ok(()) };
    let (mut seen, mut left) = (HashSet::new(), options.image_budget);
    for hash in records.iter().flat_map(|r| &r.images) {
        if left == 0 {
            break;
        }
        if !seen.insert(*hash) {
            continue;
        }
        // A picture that can no longer be read is named by its hash on the page.
        let Ok(bytes) = images.get(*hash) else { continue };
        let Some(kind) = image_type(&bytes).filter(|_| bytes.len() <= left) else { continue };
        left -= bytes.len();
        write!(out, "<script type=\"text/plain\" id=\"picture-{}\">data:{kind};base64,", hash.short())?;
        out.write_all(STANDARD.encode(&bytes).as_bytes())?;
        out.write_all(b"</script>\n")?;
    }
    Ok(())
}
