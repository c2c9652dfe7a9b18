//! Files: bounded reads, atomic writes, JSON lines, and images by content. Every error carries its path.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ContentHash;

/// A failed file operation.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Os {
        /// `read`, `write`, `create` ...
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is larger than the caller allows.
    #[error("{path} holds {found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A line or file is not the JSON it should be.
    #[error("{path}:{line}: {}", without_line(.source))]
    Json {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A blob's bytes do not have the hash that names them.
    #[error(
        "{path} should hold the bytes with hash {expected}, but its content hashes to {found}; delete the file and make it again"
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// The name.
        expected: ContentHash,
        /// The hash of what is there.
        found: ContentHash,
    },
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IoError {
    let path = path.to_owned();
    move |source| IoError::Os { what, path, source }
}

/// Reads a file of at most `limit` bytes; the size is checked before memory is taken, and again while reading.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, IoError> {
    let file = File::open(path).map_err(os("open", path))?;
    let found = file.metadata().map_err(os("stat", path))?.len();
    if found > limit {
        return Err(IoError::TooLarge { path: path.to_owned(), found, limit });
    }
    let mut bytes = Vec::with_capacity(found as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(os("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(IoError::TooLarge { path: path.to_owned(), found: bytes.len() as u64, limit });
    }
    Ok(bytes)
}

/// Creates a directory and its parents.
pub fn create_dir(path: &Path) -> Result<(), IoError> {
    fs::create_dir_all(path).map_err(os("create directory", path))
}

/// Writes a file so that a reader sees the old content or the new one, never a part: a temporary file beside it,
/// flushed to disk, then renamed over it. Threads and processes may write the same path at once; the last one stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// [`write_atomic`] for content that is made piece by piece and need not be in memory at once.
pub fn write_atomic_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), IoError> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        create_dir(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // No two writers share a temporary file, or one would rename it away under the other.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    name.push(format!(".tmp-{}-{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let tmp = path.with_file_name(name);
    let written = (|| {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(&tmp)?);
        fill(&mut file)?;
        file.into_inner()?.sync_all()
    })();
    if let Err(e) = written {
        let _ = fs::remove_file(&tmp);
        return Err(os("write", &tmp)(e));
    }
    fs::rename(&tmp, path).map_err(|e| {
        let _ = fs::remove_file(&tmp);
        os("rename into", path)(e)
    })
}

/// What is wrong with one line of a file. The parser saw that line alone and counts it as the first, which would contradict the
/// line's number in the file; its column is kept.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) if error.line() == 1 && error.column() > 0 => {
            format!("{message} at column {}", error.column())
        }
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

/// Longest JSON line that is read, in bytes.
pub const MAX_LINE: u64 = 256 << 20;

/// Reads a file of JSON lines. Empty lines are skipped; the first bad line is an error with its number.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, IoError> {
    Ok(read_jsonl_numbered(path)?.into_iter().map(|(_, row)| row).collect())
}

/// [`read_jsonl`] with the number of each row's line, from 1, for whoever finds a row wrong later.
pub fn read_jsonl_numbered<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>, IoError> {
    let mut reader = BufReader::new(File::open(path).map_err(os("open", path))?);
    let mut rows = Vec::new();
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        number += 1;
        let n = (&mut reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(os("read", path))?;
        if n == 0 {
            return Ok(rows);
        }
        if n as u64 > MAX_LINE {
            return Err(IoError::TooLarge { path: path.to_owned(), found: n as u64, limit: MAX_LINE });
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = serde_json::from_slice(&line).map_err(|source| IoError::Json {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        rows.push((number, row));
    }
}

/// Writes a whole file of JSON lines atomically.
pub fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), IoError> {
    let mut bytes = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        serde_json::to_writer(&mut bytes, row).map_err(|source| IoError::Json {
            path: path.to_owned(),
            line: i + 1,
            source,
        })?;
        bytes.push(b'\n');
    }
    write_atomic(path, &bytes)
}

/// Appends rows to a file of JSON lines; a row is flushed to the system before the call returns.
///
/// A process killed while it writes leaves at most one unfinished last line, which [`JsonlWriter::open`] cuts off.
#[derive(Debug)]
pub struct JsonlWriter {
    file: File,
    path: PathBuf,
    lines: usize,
}

impl JsonlWriter {
    /// Opens `path` for appending, creates it if need be, and removes an unfinished last line.
    pub fn open(path: &Path) -> Result<Self, IoError> {
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            create_dir(dir)?;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(os("open", path))?;
        let mut reader = BufReader::new(&file);
        let (mut good, mut lines, mut line) = (0u64, 0, Vec::new());
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line).map_err(os("read", path))?;
            if n == 0 || line.last() != Some(&b'\n') {
                break;
            }
            good += n as u64;
            lines += 1;
        }
        file.set_len(good).map_err(os("truncate", path))?;
        Ok(Self { file, path: path.to_owned(), lines })
    }

    /// Appends one row.
    pub fn push<T: Serialize>(&mut self, row: &T) -> Result<(), IoError> {
        let mut bytes = serde_json::to_vec(row).map_err(|source| IoError::Json {
            path: self.path.clone(),
            line: self.lines + 1,
            source,
        })?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(os("append to", &self.path))?;
        self.lines += 1;
        Ok(())
    }

    /// Number of complete rows in the file.
    pub fn len(&self) -> usize {
        self.lines
    }

    /// True when the file holds no row.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Flushes to the disk itself.
    pub fn sync(&self) -> Result<(), IoError> {
        self.file.sync_all().map_err(os("sync", &self.path))
    }
}

/// A directory of byte strings named by their content: `aa/aabbcc....png` for a PNG file, and so on for pictures of other forms;
/// `.bin` for anything else, and for all that earlier versions wrote.
#[derive(Clone, Debug)]
pub struct BlobStore {
    root: PathBuf,
}

impl BlobStore {
    /// A store below `root`, which is created on the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the blob lies; where there is none, where one of no known form would lie.
    pub fn path(&self, hash: ContentHash) -> PathBuf {
        let there = EXTENSIONS.iter().map(|e| self.place(hash, e)).find(|path| path.exists());
        there.unwrap_or_else(|| self.place(hash, OTHER))
    }

    fn place(&self, hash: ContentHash, extension: &str) -> PathBuf {
        let name = hash.to_string();
        self.root.join(&name[..2]).join(format!("{name}.{extension}"))
    }

    /// Stores `bytes` and returns their name. Storing the same bytes again writes nothing.
    pub fn put(&self, bytes: &[u8]) -> Result<ContentHash, IoError> {
        let hash = ContentHash::of(bytes);
        let path = self.place(hash, extension(bytes));
        if !path.exists() && !self.place(hash, OTHER).exists() {
            write_atomic(&path, bytes)?;
        }
        Ok(hash)
    }

    /// Reads a blob of at most `limit` bytes and checks it against its name.
    pub fn get(&self, hash: ContentHash, limit: u64) -> Result<Vec<u8>, IoError> {
        let path = self.path(hash);
        let bytes = read_bounded(&path, limit)?;
        let found = ContentHash::of(&bytes);
        if found != hash {
            return Err(IoError::Hash { path, expected: hash, found });
        }
        Ok(bytes)
    }
}

/// Extension of what is no picture of a known form.
const OTHER: &str = "bin";
/// Extensions under which blobs lie, the usual ones first.
const EXTENSIONS: [&str; 6] = ["png", OTHER, "jpg", "webp", "gif", "bmp"];

/// The extension that fits the first bytes.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "png",
        [0xff, 0xd8, 0xff, ..] => "jpg",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "gif",
        [b'B', b'M', ..] => "bmp",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/log.jsonl");
        let mut w = JsonlWriter::open(&path).unwrap();
        w.push(&1).unwrap();
        w.push(&2).unwrap();
        drop(w);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half").unwrap();
        let mut w = JsonlWriter::open(&path).unwrap();
        assert_eq!(w.len(), 2);
        w.push(&3).unwrap();
        assert_eq!(read_jsonl::<i32>(&path).unwrap(), vec![1, 2, 3]);
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        // Any finite bit patterns; a reader that rounds quickly misses some of them by one unit in the last place.
        let mut state = 7u64;
        let mut numbers = Vec::new();
        while numbers.len() < 20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = f64::from_bits(state ^ state >> 29);
            // And numbers of the size of log-probabilities and scores, where all digits count.
            numbers.extend(
                [x, (state >> 11) as f64 / (1u64 << 53) as f64].into_iter().filter(|x| x.is_finite()),
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.jsonl");
        write_jsonl(&path, &numbers).unwrap();
        let read: Vec<f64> = read_jsonl(&path).unwrap();
        let lost = numbers.iter().zip(&read).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!((read.len(), lost), (numbers.len(), 0));
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        fs::write(&path, "1\n\ntwo\n").unwrap();
        let message = read_jsonl::<i32>(&path).unwrap_err().to_string();
        assert!(message.contains("x.jsonl:3:"), "{message}");
    }

    #[test]
    fn a_failed_writer_leaves_the_old_content_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/page.html");
        write_atomic_with(&path, |out| (0..3).try_for_each(|i| write!(out, "{i} "))).unwrap();
        let failed = write_atomic_with(&path, |out| {
            out.write_all(b"half of it")?;
            Err(std::io::Error::other("no more"))
        });
        assert!(failed.unwrap_err().to_string().contains("page.html"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "0 1 2 ");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn size_is_checked_before_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        File::create(&path).unwrap().set_len(1 << 40).unwrap(); // sparse: 1 TiB on paper
        assert!(matches!(read_bounded(&path, 10), Err(IoError::TooLarge { limit: 10, .. })));
    }

    #[test]
    fn blobs_are_checked_against_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let hash = store.put(b"pixels").unwrap();
        assert_eq!(store.get(hash, 100).unwrap(), b"pixels");
        fs::write(store.path(hash), b"others").unwrap();
        assert!(matches!(store.get(hash, 100), Err(IoError::Hash { .. })));
    }

    #[test]
    fn pictures_have_their_extension_and_old_blobs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let picture = b"\x89PNG\r\n\x1a\nand so on";
        let hash = store.put(picture).unwrap();
        assert_eq!(store.path(hash).extension().unwrap(), "png");
        assert_eq!(store.get(hash, 100).unwrap(), picture);
        // As earlier versions named it.
        fs::rename(store.path(hash), store.path(hash).with_extension("bin")).unwrap();
        assert_eq!(store.get(hash, 100).unwrap(), picture);
        store.put(picture).unwrap();
        assert_eq!(
            fs::read_dir(store.path(hash).parent().unwrap()).unwrap().count(),
            1,
            "it is there already"
        );
    }
}
