//! The frame of a page: style for screen, phone, dark mode and print; escaping.

/// Text made safe for HTML content and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A section with a heading.
pub(super) fn section(heading: &str, lead: &str, content: &str) -> String {
    let lead = if lead.is_empty() { String::new() } else { format!("<p class=lead>{}</p>", escape(lead)) };
    format!("<section><h2>{}</h2>{lead}{content}</section>\n", escape(heading))
}

/// A table: `head` and `rows` hold HTML.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, row: &mut dyn Iterator<Item = &str>| -> String {
        row.map(|c| format!("<{tag}>{c}</{tag}>")).collect()
    };
    let head = cells("th", &mut head.iter().copied());
    let rows: String =
        rows.iter().map(|r| format!("<tr>{}</tr>", cells("td", &mut r.iter().map(String::as_str)))).collect();
    format!("<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")
}

/// The whole page.
pub(super) fn wrap(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{} · Ocelli</title><style>{STYLE}</style></head><body><main>{body}</main>\
         <footer>Made by ocelli {} from the run directory alone.</footer></body></html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION"),
    )
}

const STYLE: &str = "
:root{--ink:#1c2430;--dim:#5f6b7a;--line:#dfe4ea;--page:#fff;--card:#f7f9fb;--a:#2563b8;--b:#c2571a;--c:#23805a;--d:#8b3fa8;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--dim:#97a3b3;--line:#2c3644;--page:#12171e;--card:#1a212b;--a:#6ea8f2;--b:#f09a5e;--c:#5fc79b;--d:#c88ae0;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.5rem 1rem}
h1{font-size:1.9rem;line-height:1.2;margin:.2rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .4rem}h3{font-size:1rem;margin:.2rem 0}
p{margin:.4rem 0}.lead,.dim,footer{color:var(--dim)}.lead{max-width:46rem}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem;break-inside:avoid}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600;font-size:.85rem}td.n,th.n{text-align:right}
svg{display:block;width:100%;height:auto}svg text{fill:var(--dim);font:11px system-ui,sans-serif}svg .name{fill:var(--ink)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:.2em;margin-right:.35em;vertical-align:-.05em}
.iv{display:grid;grid-template-columns:max-content 1fr max-content;gap:.45rem .9rem;align-items:center;margin:.6rem 0}
.iv-track{position:relative;height:1.1rem;background:linear-gradient(90deg,var(--line) 1px,transparent 1px) 0 0/25% 100%;border-right:1px solid var(--line)}
.iv-track i{position:absolute}.iv-band{top:.3rem;height:.5rem;opacity:.35;border-radius:.25rem}.iv-dot{top:.2rem;width:.7rem;height:.7rem;margin-left:-.35rem;border-radius:50%}
.iv-mark{top:-.2rem;bottom:-.2rem;border-left:2px dashed var(--dim)}.iv-value{font-variant-numeric:tabular-nums;text-align:right}
@media(max-width:34rem){.iv{grid-template-columns:1fr max-content;gap:.1rem .6rem}.iv-track{grid-column:1/3;grid-row:auto;margin-bottom:.5rem;order:0}.iv-name{grid-column:1}.iv-value{grid-column:2}.iv{grid-auto-flow:dense}}
.alarm{border-left:.3rem solid var(--bad)}
details{margin:.5rem 0}summary{cursor:pointer}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.6rem;font-size:.82rem;margin:.4rem 0}
.turn{border-left:.2rem solid var(--line);padding:.1rem .7rem;margin:.5rem 0}.turn.assistant{border-color:var(--a)}.turn.tool{border-color:var(--c)}
.turn img{max-width:100%;max-height:22rem;border:1px solid var(--line);border-radius:.3rem;image-rendering:auto;background:#fff}
.who{font-size:.78rem;color:var(--dim);text-transform:uppercase;letter-spacing:.05em}
.good{color:var(--c)}.bad{color:var(--bad)}
footer{max-width:62rem;margin:2rem auto;padding:0 1rem;font-size:.85rem}
@media print{:root{--page:#fff;--card:#fff;--ink:#000}body{font-size:11pt}details{display:block}.grid{grid-template-columns:1fr 1fr}h2{break-after:avoid}}
";

#[cfg(test)]
mod tests {
    #[test]
    fn hostile_text_cannot_leave_its_place() {
        assert_eq!(super::escape("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
    }
}
