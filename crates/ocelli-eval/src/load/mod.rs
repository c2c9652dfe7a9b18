//! Rows of a benchmark from files: hub parquet, TSV with base64 images, workbooks, JSON lines and JSON with image files.
//!
//! Nothing is dropped: a row that cannot be used is an error that names its file and number, and all such rows of a
//! data set are collected (up to [`MAX_PROBLEMS`]) before loading fails. A data set that is not there is answered with
//! where to get it and where to put it.

mod find;
mod images;
mod json;
mod options;
mod parquet;
mod tsv;
mod xlsx;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocelli_data::ContentHash;
use ocelli_data::io::IoError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::declare::{Format, ImageForm, Layout, Task};

pub use images::Images;
pub(crate) use json::{document, parse};
pub use options::option_list;
pub(crate) use xlsx::CELL_LIMIT;

/// Problems that are listed before the rest is only counted.
pub const MAX_PROBLEMS: usize = 20;
/// Largest cell of text, in bytes.
pub const MAX_TEXT: usize = 4 << 20;
/// Largest encoded image, in bytes.
pub const MAX_IMAGE: usize = 64 << 20;
/// Largest JSON file that is read as a whole, in bytes.
pub const MAX_JSON: u64 = 1 << 30;
/// Most rows of a data set.
pub const MAX_ROWS: usize = 5_000_000;

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// File name without its folder.
    pub file: Arc<str>,
    /// Row number from 1; for TSV and JSON lines the header is not counted.
    pub row: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} row {}", self.file, self.row)
    }
}

/// One row: its columns without the images, and the images by column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the item, unique in the table.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// Columns, renamed, without images.
    pub columns: Map<String, Value>,
    /// Images by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ContentHash>,
}

impl Row {
    /// Text of a column; a number is written out; `None` for null, for other types and where there is no such column.
    pub fn text(&self, column: &str) -> Option<String> {
        match self.columns.get(column)? {
            Value::String(s) => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }
}

/// A data set in memory; images stay on disk.
#[derive(Clone, Debug)]
pub struct Table {
    /// Rows in the order of files and of rows within them.
    pub rows: Vec<Row>,
    /// Where the images are.
    pub images: Images,
    /// Hash over all rows and images.
    pub fingerprint: ContentHash,
}

/// One row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

/// A data set that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its files are not there.
    #[error("{}", missing(.name, .url, .licence, .looked))]
    Missing {
        /// The benchmark.
        name: String,
        /// Where it is published.
        url: String,
        /// Its licence.
        licence: String,
        /// Paths that were looked for.
        looked: Vec<PathBuf>,
    },
    /// File operations.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A file is not of its format.
    #[error("{path}: {message}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the row where it is known.
        message: String,
    },
    /// Rows that cannot be used.
    #[error("{name}: {total} row(s) cannot be used{}", listed(.problems, *.total))]
    Rows {
        /// The benchmark.
        name: String,
        /// The first problems.
        problems: Vec<Problem>,
        /// Number of problems.
        total: usize,
    },
    /// Picture files that the rows name are not there.
    #[error("{}", pictures(.name, *.absent, *.total, .first, .folder, .url, .complete))]
    Pictures {
        /// The benchmark.
        name: String,
        /// Pictures that are not there.
        absent: usize,
        /// Pictures that the rows name.
        total: usize,
        /// The first of them.
        first: Vec<Problem>,
        /// Where the first was looked for.
        folder: PathBuf,
        /// Where the benchmark is published.
        url: String,
        /// Variants whose pictures are all there.
        complete: Vec<String>,
    },
    /// The columns are not those of the declaration.
    #[error("{name}: {message}")]
    Columns {
        /// The benchmark.
        name: String,
        /// Which are missing and which are there.
        message: String,
    },
}

fn missing(name: &str, url: &str, licence: &str, looked: &[PathBuf]) -> String {
    let places: String = looked.iter().map(|p| format!("\n  {}", p.display())).collect();
    format!(
        "the data of {name} is not here. Get it from {url} (licence: {licence}) and put it where one of these is found:{places}"
    )
}

fn pictures(
    name: &str,
    absent: usize,
    total: usize,
    first: &[Problem],
    folder: &Path,
    url: &str,
    complete: &[String],
) -> String {
    let rows: String = first.iter().map(|p| format!("\n  {}: {}", p.place, p.message)).collect();
    let more =
        if absent > first.len() { format!("\n  and {} more", absent - first.len()) } else { String::new() };
    let source = if url.is_empty() { String::new() } else { format!(" (published at {url})") };
    let other = match complete {
        [] => String::new(),
        all => format!("\nAll pictures are here of `{}`.", all.join("`, `")),
    };
    format!(
        "{name}: {absent} of {total} pictures are not here. Put them into {}{source}:{rows}{more}{other}",
        folder.display()
    )
}

fn listed(problems: &[Problem], total: usize) -> String {
    let mut text: String = problems.iter().map(|p| format!("\n  {}: {}", p.place, p.message)).collect();
    if total > problems.len() {
        text.push_str(&format!("\n  and {} more", total - problems.len()));
    }
    text
}

/// Collects problems of rows.
#[derive(Debug, Default)]
pub struct Problems {
    listed: Vec<Problem>,
    total: usize,
}

impl Problems {
    /// Adds one.
    pub fn push(&mut self, place: &Place, message: impl Into<String>) {
        self.total += 1;
        if self.listed.len() < MAX_PROBLEMS {
            self.listed.push(Problem { place: place.clone(), message: message.into() });
        }
    }

    /// An error where there are any.
    pub fn into_result(self, name: &str) -> Result<(), LoadError> {
        if self.total == 0 {
            return Ok(());
        }
        Err(LoadError::Rows { name: name.to_owned(), problems: self.listed, total: self.total })
    }
}

/// One cell as a file gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Anything that JSON can say.
    Value(Value),
    /// Raw bytes.
    Bytes(Vec<u8>),
}

/// What a reader hands over for each row; an error of the sink ends the reading.
pub(crate) type Sink<'a> = dyn FnMut(usize, Vec<(String, Cell)>) -> Result<(), LoadError> + 'a;

/// Reads one file row by row.
pub(crate) fn read_rows(
    path: &Path,
    format: Format,
    nested: &str,
    sink: &mut Sink<'_>,
) -> Result<(), LoadError> {
    match format {
        Format::Parquet => parquet::read(path, sink),
        Format::Tsv => tsv::read(path, b'\t', sink),
        Format::Csv => tsv::read(path, b',', sink),
        Format::Xlsx => xlsx::read(path, sink),
        Format::Jsonl => json::read_lines(path, sink),
        Format::Json => json::read_array(path, nested, sink),
        Format::JsonMap => json::read_map(path, nested, sink),
    }
}

/// What to do with the pictures of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pictures {
    /// Read and check them all: a model will see them.
    Read,
    /// Leave them alone: stored outputs are rescored without them.
    Ignore,
}

/// Reads the data of a task below `data`; embedded images are written to `blobs` (by content, so once).
pub fn load(task: &Task, data: &Path, blobs: &Path, pictures: Pictures) -> Result<Table, LoadError> {
    let mut looked = Vec::new();
    for layout in &task.benchmark.data {
        let patterns: Vec<String> = layout.files.iter().map(|f| task.resolve(f)).collect();
        let files: Vec<Vec<PathBuf>> = patterns.iter().map(|p| find::expand(data, p)).collect();
        if files.iter().all(|f| !f.is_empty()) {
            let files: Vec<PathBuf> = files.into_iter().flatten().collect();
            let mut table = Reader::new(task, layout, data, blobs, pictures).read(&files);
            if let Err(LoadError::Pictures { complete, .. }) = &mut table {
                *complete = complete_variants(task, data);
            }
            return table;
        }
        looked.extend(patterns.iter().map(|p| data.join(p)));
    }
    let source = &task.benchmark.source;
    let name = task.benchmark.title.clone();
    Err(LoadError::Missing { name, url: source.url.clone(), licence: source.licence.clone(), looked })
}

/// Whether the files of a task are below `data`, and where they would be looked for: one list of patterns per layout.
pub fn whereabouts(task: &Task, data: &Path) -> (bool, Vec<Vec<PathBuf>>) {
    let layouts: Vec<Vec<String>> =
        task.benchmark.data.iter().map(|l| l.files.iter().map(|f| task.resolve(f)).collect()).collect();
    let here = layouts.iter().any(|files| files.iter().all(|f| !find::expand(data, f).is_empty()));
    (here, layouts.iter().map(|files| files.iter().map(|f| data.join(f)).collect()).collect())
}

/// What of a task's data is below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Rows.
    pub rows: usize,
    /// Picture files that the rows name.
    pub pictures: usize,
    /// How many of them are there.
    pub pictures_here: usize,
}

/// Counts the rows of a task and its picture files, without reading the pictures. `None` where the data is absent or unreadable,
/// or holds its pictures itself.
pub fn census(task: &Task, data: &Path) -> Option<Census> {
    for layout in &task.benchmark.data {
        let files: Vec<Vec<PathBuf>> =
            layout.files.iter().map(|f| find::expand(data, &task.resolve(f))).collect();
        if files.iter().any(Vec::is_empty) {
            continue;
        }
        let text = !matches!(layout.format, Format::Parquet);
        if !text || !layout.images.is_empty() && layout.image_form != ImageForm::File {
            return None;
        }
        let mut census = Census { rows: 0, pictures: 0, pictures_here: 0 };
        for path in files.iter().flatten() {
            let root = image_root(layout, data, path);
            read_rows(path, layout.format, "", &mut |_, cells| {
                let named = |name: &str| layout.rename.get(name).map_or(name.to_owned(), String::clone);
                let columns: Map<String, Value> = cells
                    .into_iter()
                    .filter_map(|(name, cell)| match cell {
                        Cell::Value(value) => Some((named(&name), value)),
                        Cell::Bytes(_) => None,
                    })
                    .collect();
                if left_out(layout, &columns) {
                    return Ok(());
                }
                census.rows += 1;
                for name in layout.images.iter().filter_map(|c| columns.get(c)?.as_str()) {
                    if !name.trim().is_empty() {
                        census.pictures += 1;
                        census.pictures_here += usize::from(root.join(name).is_file());
                    }
                }
                Ok(())
            })
            .ok()?;
        }
        return Some(census);
    }
    None
}

/// Variants of a task that read other files and have all their pictures.
pub fn complete_variants(task: &Task, data: &Path) -> Vec<String> {
    let files = || task.benchmark.data.iter().flat_map(|l| &l.files);
    let decides = |axis: &str| files().any(|f| f.contains(&format!("{{{axis}}}")));
    let axes = task.benchmark.axes.iter().filter(|(axis, _)| decides(axis));
    let variants = axes.flat_map(|(axis, values)| {
        values.iter().filter(|v| task.axes.get(axis) != Some(v)).map(|value| {
            let mut other = task.clone();
            other.axes.insert(axis.clone(), value.clone());
            other
        })
    });
    variants
        .filter(|t| census(t, data).is_some_and(|c| c.rows > 0 && c.pictures_here == c.pictures))
        .map(|t| t.name())
        .collect()
}

/// The name of an item that several columns name together, `category/set_id`; `None` where one of them is missing.
pub(crate) fn joined(names: &str, columns: &Map<String, Value>) -> Option<String> {
    let part = |name: &str| match columns.get(name)? {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    names.split('/').map(part).collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
}

/// Folder below which the picture files of a data file lie.
fn image_root(layout: &Layout, data: &Path, path: &Path) -> PathBuf {
    match &layout.image_root {
        Some(root) => data.join(root),
        None => path.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

fn left_out(layout: &Layout, columns: &Map<String, Value>) -> bool {
    layout.only.iter().any(|(column, wanted)| {
        let found = columns.get(column);
        found.and_then(Value::as_str).is_none_or(|found| found != wanted)
    })
}

/// Picture files that are not there.
#[derive(Default)]
struct Absent {
    /// Pictures that rows name.
    named: usize,
    total: usize,
    first: Vec<Problem>,
    folder: PathBuf,
}

struct Reader<'a> {
    task: &'a Task,
    layout: &'a Layout,
    data: &'a Path,
    pictures: Pictures,
    images: Images,
    rows: Vec<Row>,
    seen: std::collections::HashMap<String, Place>,
    problems: Problems,
    absent: Absent,
}

impl<'a> Reader<'a> {
    fn new(task: &'a Task, layout: &'a Layout, data: &'a Path, blobs: &Path, pictures: Pictures) -> Self {
        Self {
            task,
            layout,
            data,
            pictures,
            images: Images::new(blobs),
            rows: Vec::new(),
            seen: Default::default(),
            problems: Problems::default(),
            absent: Absent::default(),
        }
    }

    fn read(mut self, files: &[PathBuf]) -> Result<Table, LoadError> {
        let name = self.task.benchmark.title.clone();
        let several = files.len() > 1;
        for path in files {
            let file: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let mut columns_checked = false;
            read_rows(path, self.layout.format, "", &mut |row, cells| {
                let place = Place { file: file.clone(), row };
                if self.rows.len() >= MAX_ROWS {
                    return Err(LoadError::Format {
                        path: path.clone(),
                        message: format!("more than {MAX_ROWS} rows"),
                    });
                }
                if !columns_checked {
                    self.check_columns(path, &cells)?;
                    columns_checked = true;
                }
                self.take(path, &stem, several, place, cells)
            })?;
        }
        self.problems.into_result(&name)?;
        if self.absent.total > 0 {
            let Absent { named, total, first, folder } = self.absent;
            let url = self.task.benchmark.source.url.clone();
            return Err(LoadError::Pictures {
                name,
                absent: total,
                total: named,
                first,
                folder,
                url,
                complete: Vec::new(),
            });
        }
        if self.rows.is_empty() {
            return Err(LoadError::Columns { name, message: "the files hold no rows".into() });
        }
        let fingerprint = fingerprint(&self.rows);
        Ok(Table { rows: self.rows, images: self.images, fingerprint })
    }

    /// The columns that the declaration needs must be there in the first row; later rows may leave cells out.
    fn check_columns(&self, path: &Path, cells: &[(String, Cell)]) -> Result<(), LoadError> {
        let present: Vec<&str> = cells
            .iter()
            .map(|(name, _)| self.layout.rename.get(name).map_or(name.as_str(), String::as_str))
            .chain(self.layout.add.keys().chain(self.layout.default.keys()).map(String::as_str))
            .collect();
        let benchmark = &self.task.benchmark;
        let mut needed: Vec<String> = Vec::new();
        if self.layout.id != "#" {
            needed.extend(self.layout.id.split('/').map(str::to_owned));
        }
        match &benchmark.given {
            Some(given) => needed.extend(given.answers.iter().chain([&given.query]).cloned()),
            None => {
                needed.extend(
                    [&benchmark.fields.question, &benchmark.fields.answer].map(|c| self.task.resolve(c)),
                );
            }
        }
        needed.extend(self.layout.only.keys().cloned());
        let missing: Vec<String> = needed
            .into_iter()
            .filter(|c| !c.is_empty() && !present.contains(&c.as_str()))
            .map(|c| {
                let near = present.iter().map(|p| (strsim::damerau_levenshtein(p, &c), p)).min();
                match near {
                    Some((d, near)) if d <= 2 && d < c.len() => format!("`{c}` (is `{near}` meant?)"),
                    _ => format!("`{c}`"),
                }
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(LoadError::Columns {
            name: benchmark.title.clone(),
            message: format!(
                "{} lacks the column(s) {}; it has {}",
                path.display(),
                missing.join(", "),
                present.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    fn take(
        &mut self,
        path: &Path,
        stem: &str,
        several: bool,
        place: Place,
        cells: Vec<(String, Cell)>,
    ) -> Result<(), LoadError> {
        let mut columns = Map::new();
        let mut pictures = Vec::new();
        let mut clean = true;
        for (name, cell) in cells {
            let name = self.layout.rename.get(&name).cloned().unwrap_or(name);
            if self.layout.images.contains(&name) {
                if self.pictures == Pictures::Read {
                    pictures.push((name, cell));
                }
                continue;
            }
            match cell {
                Cell::Value(Value::String(s)) if s.len() > MAX_TEXT => {
                    self.problems.push(
                        &place,
                        format!(
                            "column `{name}` holds {} bytes of text, more than the limit of {MAX_TEXT}",
                            s.len()
                        ),
                    );
                    clean = false;
                }
                Cell::Value(value) => {
                    columns.insert(name, value);
                }
                // Bytes outside the image columns (hub data has such, e.g. thumbnails) are named by their content.
                Cell::Bytes(bytes) => {
                    columns.insert(name, Value::String(ContentHash::of(&bytes).to_string()));
                }
            }
        }
        for (name, value) in &self.layout.add {
            columns.insert(name.clone(), Value::String(value.replace("{file}", stem)));
        }
        for (name, value) in &self.layout.default {
            if columns.get(name).is_none_or(Value::is_null) {
                columns.insert(name.clone(), Value::String(value.clone()));
            }
        }
        if !clean || left_out(self.layout, &columns) {
            return Ok(());
        }
        let id = match self.layout.id.as_str() {
            "#" if several => format!("{stem}:{}", place.row),
            "#" => place.row.to_string(),
            several if several.contains('/') => match joined(several, &columns) {
                Some(id) => id,
                None => {
                    self.problems
                        .push(&place, format!("the columns {several} name the item and are not all there"));
                    return Ok(());
                }
            },
            column => match columns.get(column) {
                Some(Value::String(s)) if !s.trim().is_empty() => s.clone(),
                Some(Value::Number(n)) => n.to_string(),
                other => {
                    let found = other.map_or("nothing", kind_of);
                    self.problems.push(&place, format!("column `{column}` names the item and holds {found}"));
                    return Ok(());
                }
            },
        };
        let id = match (2..).map(|n| format!("{id}#{n}")).find(|name| !self.seen.contains_key(name)) {
            Some(numbered) if self.layout.names_repeat && self.seen.contains_key(&id) => numbered,
            _ => id,
        };
        if let Some(first) = self.seen.get(&id) {
            let message = format!("the name `{id}` is already that of {first}");
            self.problems.push(&place, message);
            return Ok(());
        }
        let mut images = BTreeMap::new();
        for (name, cell) in pictures {
            let root = image_root(self.layout, self.data, path);
            match self.images.add(self.layout.image_form, &root, cell) {
                Ok(Some(hash)) => {
                    self.absent.named += 1;
                    images.insert(name, hash);
                }
                Ok(None) => {}
                Err(images::ImageProblem::Absent(file)) => {
                    const LISTED: usize = 3;
                    self.absent.named += 1;
                    self.absent.total += 1;
                    if self.absent.first.len() < LISTED {
                        let message = format!("column `{name}`: {}", file.display());
                        self.absent.first.push(Problem { place: place.clone(), message });
                    }
                    if self.absent.total == 1 {
                        self.absent.folder = file.parent().unwrap_or(Path::new("")).to_owned();
                    }
                    clean = false;
                }
                Err(images::ImageProblem::Cell(message)) => {
                    self.problems.push(&place, format!("column `{name}`: {message}"));
                    clean = false;
                }
                Err(images::ImageProblem::Store(error)) => return Err(error.into()),
            }
        }
        self.seen.insert(id.clone(), place.clone());
        if clean {
            self.rows.push(Row { id, place, columns, images });
        }
        Ok(())
    }
}

/// Kind of a JSON value, in words.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(s) if s.trim().is_empty() => "empty text",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// Hash over the rows: names, columns in order of name, images.
pub fn fingerprint(rows: &[Row]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        let columns: BTreeMap<&String, &Value> = row.columns.iter().collect();
        for part in [row.id.clone(), serde_json::to_string(&columns).unwrap_or_default()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        for (name, hash) in &row.images {
            hasher.update(name.as_bytes());
            hasher.update(hash.as_bytes());
        }
    }
    ContentHash::of(hasher.finalize().as_bytes())
}
