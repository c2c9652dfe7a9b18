//! Tab-separated and comma-separated values with a header. A field that begins with `"` ends at the next lone `"`, may
//! hold separators and line breaks, and writes a quote as `""` (RFC 4180, with tabs as pandas writes it). Read in one pass,
//! one row in memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ocelli_data::io::IoError;
use serde_json::Value;

use super::{Cell, LoadError, MAX_IMAGE, Sink};

/// Longest field: an image in base64.
const MAX_FIELD: usize = MAX_IMAGE / 3 * 4;

pub(super) fn read(path: &Path, separator: u8, sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let os = |source| IoError::Os { what: "read", path: path.to_owned(), source };
    let bad = |message: String| LoadError::Format { path: path.to_owned(), message };
    let file = File::open(path).map_err(os)?;
    let mut fields = Splitter::new(BufReader::with_capacity(1 << 16, file), separator);
    let mut header: Option<Vec<String>> = None;
    let mut row = 0;
    loop {
        let record = match fields.record() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            Err(Fault::Io(source)) => return Err(os(source).into()),
            Err(Fault::Bad(message)) => return Err(bad(format!("row {}: {message}", row + 1))),
        };
        if record.len() == 1 && record[0].is_empty() {
            continue; // an empty line
        }
        let mut texts = Vec::with_capacity(record.len());
        for (i, bytes) in record.into_iter().enumerate() {
            let text = String::from_utf8(bytes)
                .map_err(|_| bad(format!("row {}, field {}: not UTF-8 text", row + 1, i + 1)))?;
            texts.push(text);
        }
        let Some(header) = &header else {
            let first = texts[0].trim_start_matches('\u{feff}').to_owned();
            texts[0] = first;
            let mut sorted = texts.clone();
            sorted.sort();
            if let Some(pair) = sorted.windows(2).find(|w| w[0] == w[1]) {
                return Err(bad(format!("the header names the column `{}` twice", pair[0])));
            }
            header = Some(texts);
            continue;
        };
        row += 1;
        if texts.len() != header.len() {
            let (found, wanted) = (texts.len(), header.len());
            return Err(bad(format!("row {row} has {found} fields, the header has {wanted}")));
        }
        let cell = |text: String| if text.is_empty() { Value::Null } else { Value::String(text) };
        sink(row, header.iter().cloned().zip(texts.into_iter().map(|t| Cell::Value(cell(t)))).collect())?;
    }
}

enum Fault {
    Io(std::io::Error),
    Bad(String),
}

struct Splitter<R> {
    bytes: std::io::Bytes<R>,
    peeked: Option<u8>,
    separator: u8,
}

impl<R: BufRead> Splitter<R> {
    fn new(reader: R, separator: u8) -> Self {
        Self { bytes: reader.bytes(), peeked: None, separator }
    }

    fn next(&mut self) -> Result<Option<u8>, Fault> {
        match self.peeked.take() {
            Some(b) => Ok(Some(b)),
            None => self.bytes.next().transpose().map_err(Fault::Io),
        }
    }

    /// The fields of one row; `None` at the end of the file.
    fn record(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        let Some(first) = self.next()? else { return Ok(None) };
        self.peeked = Some(first);
        let mut record = Vec::new();
        loop {
            let mut field = Vec::new();
            let mut quoted = false;
            let end = loop {
                let byte = self.next()?;
                match byte {
                    Some(b'"') if quoted => match self.next()? {
                        Some(b'"') => field.push(b'"'),
                        other => {
                            quoted = false;
                            self.peeked = other;
                            if !matches!(other, None | Some(b'\n' | b'\r')) && other != Some(self.separator) {
                                let message =
                                    format!("field {}: text after the closing quote", record.len() + 1);
                                return Err(Fault::Bad(message));
                            }
                        }
                    },
                    Some(b'"') if field.is_empty() => quoted = true,
                    Some(b) if quoted => field.push(b),
                    Some(b'\r') => match self.next()? {
                        Some(b'\n') => break Some(b'\n'),
                        other => {
                            field.push(b'\r');
                            self.peeked = other;
                        }
                    },
                    Some(b'\n') => break byte,
                    Some(b) if b == self.separator => break byte,
                    Some(b) => field.push(b),
                    None if quoted => {
                        return Err(Fault::Bad(format!(
                            "field {}: the quote is never closed",
                            record.len() + 1
                        )));
                    }
                    None => break None,
                }
                if field.len() > MAX_FIELD {
                    let message =
                        format!("field {} is longer than the limit of {MAX_FIELD} bytes", record.len() + 1);
                    return Err(Fault::Bad(message));
                }
            };
            record.push(field);
            if end != Some(self.separator) {
                return Ok(Some(record));
            }
        }
    }
}
