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

/// A raw name such as `buffer/fresh_share`, escaped; where it must be broken, it is between its words.
pub(super) fn name(text: &str) -> String {
    text.split_inclusive(['/', '_', '-']).map(escape).collect::<Vec<_>>().join("<wbr>")
}

/// A sentence, escaped; what stands in backquotes is set as code.
pub(super) fn prose(text: &str) -> String {
    let mut out = String::new();
    let parts: Vec<&str> = text.split('`').collect();
    for (i, part) in parts.iter().enumerate() {
        out += &match i % 2 {
            1 if i + 1 < parts.len() => format!("<code>{}</code>", escape(part)),
            // A quote without its end is a character like another.
            1 => format!("`{}", escape(part)),
            _ => escape(part),
        };
    }
    out
}

/// A section with a heading; `id` is its place in the page's list of contents.
pub(super) fn section(id: &str, heading: &str, lead: &str, content: &str) -> String {
    let lead = if lead.is_empty() { String::new() } else { format!("<p class=lead>{}</p>", prose(lead)) };
    format!("<section id={id}><h2>{}</h2>{lead}{content}</section>\n", escape(heading))
}

/// Links to the sections that are there, in order.
fn contents(body: &str) -> String {
    let links: String = body
        .split("<section id=")
        .skip(1)
        .filter_map(|s| {
            let (id, rest) = s.split_once("><h2>")?;
            Some(format!("<a href=\"#{id}\">{}</a>", rest.split_once("</h2>")?.0))
        })
        .collect();
    if links.is_empty() { links } else { format!("<nav>{links}</nav>") }
}

/// A table: `head` and `rows` hold HTML; no head where `head` is empty.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, row: &mut dyn Iterator<Item = &str>| -> String {
        row.map(|c| format!("<{tag}>{c}</{tag}>")).collect()
    };
    let head = match head {
        [] => String::new(),
        _ => format!("<thead><tr>{}</tr></thead>", cells("th", &mut head.iter().copied())),
    };
    let rows: String =
        rows.iter().map(|r| format!("<tr>{}</tr>", cells("td", &mut r.iter().map(String::as_str)))).collect();
    format!("<div class=scroll><table>{head}<tbody>{rows}</tbody></table></div>")
}

/// The whole page.
pub(super) fn wrap(title: &str, body: &str) -> String {
    // The list of contents stands behind the headline.
    let (headline, sections) = body.split_at(body.find("<section").unwrap_or(body.len()));
    let contents = contents(sections);
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{} · Ocelli</title><style>{STYLE}</style></head><body><main>{headline}{contents}{sections}</main>\
         <footer>Made by ocelli {} from the run directory alone.</footer></body></html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION"),
    )
}

const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    #[test]
    fn hostile_text_cannot_leave_its_place() {
        assert_eq!(super::escape("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
        assert_eq!(super::prose("a `<b>` c"), "a <code>&lt;b&gt;</code> c");
        assert_eq!(super::prose("a ` <b>"), "a ` &lt;b&gt;");
        assert_eq!(super::name("buffer/fresh_share"), "buffer/<wbr>fresh_<wbr>share");
    }
}
