//! The first sheet of an Office Open XML workbook (ECMA-376) as rows under a header, as evaluation kits write their results.
//!
//! The part of the format that tables of text and numbers use: shared and inline strings, numbers, booleans. Formulas
//! count by their stored values, error cells as empty. Sizes are bounded before anything is unpacked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use flate2::read::DeflateDecoder;
use ocelli_data::io::read_bounded;
use serde_json::Value;

use super::{Cell, LoadError, MAX_TEXT, Sink};

/// Largest workbook, packed.
const MAX_FILE: u64 = 512 << 20;
/// Largest part, unpacked.
const MAX_PART: u64 = 1 << 30;
/// Most columns.
const MAX_COLUMNS: usize = 4096;
/// Characters that the usual programs keep of a cell, in UTF-16 units; a longer text was cut when it was written.
pub(crate) const CELL_LIMIT: usize = 32_767;

pub(super) fn read(path: &Path, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    let bad = |message: String| LoadError::Format { path: path.to_owned(), message };
    let archive = Archive::open(&bytes).map_err(bad)?;
    let shared = match archive.part("xl/sharedStrings.xml").map_err(bad)? {
        Some(xml) => shared_strings(&xml).map_err(bad)?,
        None => Vec::new(),
    };
    let name = first_sheet(&archive).map_err(bad)?;
    let sheet = archive.part(&name).map_err(bad)?.ok_or_else(|| bad(format!("has no part {name}")))?;
    let mut header: Option<Vec<String>> = None;
    let mut number = 0;
    rows(&sheet, &shared, &mut |cells| {
        if cells.iter().all(Value::is_null) {
            return Ok(());
        }
        let Some(header) = &header else {
            let names: Vec<String> = cells
                .iter()
                .enumerate()
                .map(|(i, v)| match v {
                    Value::String(s) => s.trim().to_owned(),
                    Value::Null => format!("column {}", i + 1),
                    other => other.to_string(),
                })
                .collect();
            let mut sorted = names.clone();
            sorted.sort();
            if let Some(pair) = sorted.windows(2).find(|w| w[0] == w[1]) {
                return Err(bad(format!("the header names the column `{}` twice", pair[0])));
            }
            header = Some(names);
            return Ok(());
        };
        number += 1;
        if cells.len() > header.len() {
            let (found, wanted) = (cells.len(), header.len());
            return Err(bad(format!("row {number} has {found} cells, the header has {wanted}")));
        }
        let cells = cells.into_iter().chain(std::iter::repeat(Value::Null));
        sink(number, header.iter().cloned().zip(cells.map(Cell::Value)).collect())
    })
    .map_err(|e| match e {
        Fault::Xml(message) => bad(message),
        Fault::Sink(error) => error,
    })
}

/// The members of a ZIP archive.
struct Archive<'a> {
    bytes: &'a [u8],
    members: HashMap<String, Member>,
}

struct Member {
    deflated: bool,
    packed: usize,
    unpacked: u64,
    at: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let broken = || "is no workbook: its ZIP directory is missing or damaged".to_owned();
        // The end record is followed by a comment of at most 64 KiB.
        let from = bytes.len().saturating_sub(22 + 65_535);
        let end = (from..bytes.len().saturating_sub(21))
            .rev()
            .find(|at| bytes[*at..].starts_with(b"PK\x05\x06"))
            .ok_or_else(broken)?;
        let count = u16_at(bytes, end + 10).ok_or_else(broken)?;
        let mut at = u32_at(bytes, end + 16).ok_or_else(broken)?;
        let mut members = HashMap::new();
        for _ in 0..count {
            if !bytes.get(at..).is_some_and(|b| b.starts_with(b"PK\x01\x02")) {
                return Err(broken());
            }
            let field16 = |offset| u16_at(bytes, at + offset).ok_or_else(broken);
            let field32 = |offset| u32_at(bytes, at + offset).ok_or_else(broken);
            let (name_len, extra, comment) = (field16(28)?, field16(30)?, field16(32)?);
            let name = bytes.get(at + 46..at + 46 + name_len).ok_or_else(broken)?;
            let member = Member {
                deflated: match field16(10)? {
                    0 => false,
                    8 => true,
                    other => return Err(format!("packs with the method {other}, which is not read")),
                },
                packed: field32(20)?,
                unpacked: field32(24)? as u64,
                at: field32(42)?,
            };
            members.insert(String::from_utf8_lossy(name).replace('\\', "/"), member);
            at += 46 + name_len + extra + comment;
        }
        Ok(Self { bytes, members })
    }

    /// A part as text; `None` where there is none of that name.
    fn part(&self, name: &str) -> Result<Option<String>, String> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        let broken = || format!("its part {name} is damaged");
        let head = member.at;
        let skip = u16_at(self.bytes, head + 26).zip(u16_at(self.bytes, head + 28)).ok_or_else(broken)?;
        let start = head + 30 + skip.0 + skip.1;
        let packed = self.bytes.get(start..start.saturating_add(member.packed)).ok_or_else(broken)?;
        if member.unpacked > MAX_PART {
            return Err(format!("its part {name} is larger than the limit of {MAX_PART} bytes"));
        }
        let mut out = Vec::new();
        if member.deflated {
            // The size in the directory may lie.
            DeflateDecoder::new(packed).take(MAX_PART + 1).read_to_end(&mut out).map_err(|_| broken())?;
            if out.len() as u64 > MAX_PART {
                return Err(format!("its part {name} is larger than the limit of {MAX_PART} bytes"));
            }
        } else {
            out.extend_from_slice(packed);
        }
        String::from_utf8(out).map(Some).map_err(|_| format!("its part {name} is not UTF-8 text"))
    }
}

/// What a scan of XML meets.
enum Event<'a> {
    Open { name: &'a str, attributes: &'a str, closed: bool },
    Close(&'a str),
    Text(&'a str),
}

/// A scan of XML without validation: tags, text between them; declarations and comments are passed over.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn next(&mut self) -> Result<Option<Event<'a>>, String> {
        const OPEN_ENDED: &str = "its XML ends within a tag";
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let Some(body) = self.rest.strip_prefix('<') else {
                let end = self.rest.find('<').unwrap_or(self.rest.len());
                let (text, rest) = self.rest.split_at(end);
                self.rest = rest;
                return Ok(Some(Event::Text(text)));
            };
            let skip =
                [("!--", "-->"), ("?", "?>"), ("!", ">")].iter().find(|(open, _)| body.starts_with(open));
            if let Some((_, close)) = skip {
                let end = body.find(close).ok_or(OPEN_ENDED)?;
                self.rest = &body[end + close.len()..];
                continue;
            }
            // A `>` may stand in an attribute's quotes.
            let mut quote = None;
            let end = body.bytes().position(|b| match (quote, b) {
                (None, b'>') => true,
                (None, b'"' | b'\'') => {
                    quote = Some(b);
                    false
                }
                (Some(q), _) if q == b => {
                    quote = None;
                    false
                }
                _ => false,
            });
            let end = end.ok_or(OPEN_ENDED)?;
            let (tag, rest) = (&body[..end], &body[end + 1..]);
            self.rest = rest;
            let local = |name: &'a str| name.rsplit(':').next().unwrap_or(name);
            if let Some(name) = tag.strip_prefix('/') {
                return Ok(Some(Event::Close(local(name.trim()))));
            }
            let closed = tag.ends_with('/');
            let tag = tag.strip_suffix('/').unwrap_or(tag);
            let cut = tag.find(|c: char| c.is_ascii_whitespace()).unwrap_or(tag.len());
            return Ok(Some(Event::Open { name: local(&tag[..cut]), attributes: &tag[cut..], closed }));
        }
    }
}

/// The value of an attribute.
fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        let (key, tail) = rest.split_once('=')?;
        let tail = tail.trim_start();
        let quote = tail.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = tail[1..].split_once(quote)?;
        if key.trim() == name {
            return Some(value);
        }
        rest = after;
    }
}

/// Text with its entities, and the `_x000D_` by which workbooks write control characters.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') && !text.contains("_x") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['&', '_']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (found, len) = if rest.starts_with('&') {
            let end = rest.find(';').unwrap_or(0);
            let name = rest.get(1..end).unwrap_or_default();
            let code = name
                .strip_prefix("#x")
                .map(|hex| u32::from_str_radix(hex, 16))
                .or_else(|| name.strip_prefix('#').map(str::parse));
            let c = match name {
                "lt" => Some('<'),
                "gt" => Some('>'),
                "amp" => Some('&'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                _ => code.and_then(Result::ok).and_then(char::from_u32),
            };
            (c, end + 1)
        } else {
            let hex = rest.get(2..6).filter(|_| rest.starts_with("_x") && rest.get(6..7) == Some("_"));
            (hex.and_then(|h| u32::from_str_radix(h, 16).ok()).and_then(char::from_u32), 7)
        };
        match found {
            Some(c) => {
                out.push(c);
                rest = &rest[len..];
            }
            None => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn shared_strings(xml: &str) -> Result<Vec<String>, String> {
    let mut scan = Scan { rest: xml };
    let mut strings = Vec::new();
    let mut current: Option<String> = None;
    let (mut inside, mut reading_aid) = (false, false);
    while let Some(event) = scan.next()? {
        match event {
            Event::Open { name: "si", closed: true, .. } => strings.push(String::new()),
            Event::Open { name: "si", .. } => current = Some(String::new()),
            Event::Open { name: "t", closed: false, .. } => inside = true,
            Event::Open { name: "rPh", closed: false, .. } => reading_aid = true,
            Event::Close("t") => inside = false,
            Event::Close("rPh") => reading_aid = false,
            Event::Close("si") => strings.push(current.take().unwrap_or_default()),
            Event::Text(text) if inside && !reading_aid => {
                if let Some(current) = &mut current {
                    current.push_str(&unescape(text));
                }
            }
            _ => {}
        }
    }
    Ok(strings)
}

/// Name of the part of the first sheet.
fn first_sheet(archive: &Archive<'_>) -> Result<String, String> {
    let usual = "xl/worksheets/sheet1.xml".to_owned();
    let Some(book) = archive.part("xl/workbook.xml")? else {
        return Err("is a ZIP archive, but no workbook".into());
    };
    let mut scan = Scan { rest: &book };
    let mut wanted = None;
    while let Some(event) = scan.next()? {
        if let Event::Open { name: "sheet", attributes, .. } = event {
            wanted = attribute(attributes, "r:id").map(str::to_owned);
            break;
        }
    }
    let (Some(wanted), Some(relations)) = (wanted, archive.part("xl/_rels/workbook.xml.rels")?) else {
        return Ok(usual);
    };
    let mut scan = Scan { rest: &relations };
    while let Some(event) = scan.next()? {
        let Event::Open { name: "Relationship", attributes, .. } = event else { continue };
        if attribute(attributes, "Id") == Some(wanted.as_str()) {
            let target = attribute(attributes, "Target").unwrap_or_default();
            return Ok(match target.strip_prefix('/') {
                Some(whole) => whole.to_owned(),
                None => format!("xl/{target}"),
            });
        }
    }
    Ok(usual)
}

/// Place of a cell from its name: `C7` is column 2.
fn column_of(name: &str) -> Option<usize> {
    let letters = name.bytes().take_while(u8::is_ascii_uppercase);
    let (mut column, mut any) = (0usize, false);
    for letter in letters {
        column = column.checked_mul(26)?.checked_add(usize::from(letter - b'A') + 1)?;
        any = true;
    }
    (any && column <= MAX_COLUMNS).then(|| column - 1)
}

/// Why reading rows ended.
enum Fault {
    Xml(String),
    Sink(LoadError),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Xml(message)
    }
}

/// Calls `take` with the cells of each row, gaps as null.
fn rows(
    xml: &str,
    shared: &[String],
    take: &mut dyn FnMut(Vec<Value>) -> Result<(), LoadError>,
) -> Result<(), Fault> {
    let mut scan = Scan { rest: xml };
    let mut row: Vec<Value> = Vec::new();
    let (mut at, mut kind, mut text) = (0, String::new(), None::<String>);
    let mut inside = false;
    while let Some(event) = scan.next()? {
        match event {
            Event::Open { name: "row", .. } => row.clear(),
            Event::Close("row") => take(std::mem::take(&mut row)).map_err(Fault::Sink)?,
            Event::Open { name: "c", attributes, closed } => {
                at = match attribute(attributes, "r") {
                    Some(name) => {
                        column_of(name).ok_or_else(|| format!("the cell {name} is out of reach"))?
                    }
                    None => row.len(),
                };
                kind = attribute(attributes, "t").unwrap_or("n").to_owned();
                text = None;
                if closed {
                    kind.clear();
                }
            }
            Event::Open { name: "v" | "t", closed: false, .. } => inside = true,
            Event::Close("v" | "t") => inside = false,
            Event::Text(found) if inside => text.get_or_insert_default().push_str(&unescape(found)),
            Event::Close("c") => {
                if at >= MAX_COLUMNS {
                    return Err(Fault::Xml(format!("a row has more than {MAX_COLUMNS} cells")));
                }
                let value = match (kind.as_str(), text.take()) {
                    (_, None) | ("e", _) => Value::Null,
                    ("s", Some(place)) => {
                        let found = place.trim().parse().ok().and_then(|i: usize| shared.get(i));
                        let found = found.ok_or_else(|| format!("there is no shared text {place}"))?;
                        Value::String(found.clone())
                    }
                    ("b", Some(b)) => Value::Bool(b.trim() == "1"),
                    ("n", Some(n)) => number(n.trim()),
                    (_, Some(text)) => Value::String(text),
                };
                let value = match value {
                    Value::String(s) if s.is_empty() => Value::Null,
                    Value::String(s) if s.len() > MAX_TEXT => {
                        return Err(Fault::Xml(format!("a cell holds more than {MAX_TEXT} bytes")));
                    }
                    other => other,
                };
                while row.len() <= at {
                    row.push(Value::Null);
                }
                row[at] = value;
            }
            _ => {}
        }
    }
    Ok(())
}

fn number(text: &str) -> Value {
    if let Ok(n) = text.parse::<i64>() {
        return n.into();
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_entities() {
        assert_eq!([column_of("A1"), column_of("Z9"), column_of("AB12")], [Some(0), Some(25), Some(27)]);
        assert_eq!([column_of("7"), column_of("ZZZZZZZZZZZZZZZ1")], [None, None]);
        assert_eq!(unescape("a &lt; b &#x41;&#66; &amp;amp; _x000D_ _x &"), "a < b AB &amp; \r _x &");
        assert_eq!(attribute(r#" r="B2" s='1' t="s""#, "t"), Some("s"));
        assert_eq!(attribute(" broken", "t"), None);
    }
}
