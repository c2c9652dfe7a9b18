//! Answers kept over runs, by content key: one append-only file of JSON lines, indexed in memory by key and position.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ocelli_data::ContentHash;
use ocelli_data::io::{IoError, MAX_LINE, create_dir};
use serde::Deserialize;

use super::Entry;

/// A cache of answers in a folder.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    file: File,
    end: u64,
    places: HashMap<ContentHash, (u64, usize)>,
}

#[derive(Deserialize)]
struct Key {
    key: ContentHash,
}

impl Cache {
    /// Opens the cache in `folder`. Lines that are no entries (a kill in the middle of writing) are passed over.
    pub fn open(folder: &Path) -> Result<Self, IoError> {
        create_dir(folder)?;
        let path = folder.join("answers.jsonl");
        let os = |source| IoError::Os { what: "open", path: path.clone(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(os)?;
        let mut reader = BufReader::new(&file);
        let (mut places, mut end, mut line, mut whole) = (HashMap::new(), 0u64, Vec::new(), true);
        loop {
            line.clear();
            let n = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).map_err(os)?;
            if n == 0 {
                break;
            }
            whole = line.ends_with(b"\n");
            if whole && let Ok(Key { key }) = serde_json::from_slice(&line) {
                places.insert(key, (end, n));
            }
            end += n as u64;
        }
        let mut cache = Self { path, file, end, places };
        if !whole {
            cache.append(b"\n")?;
        }
        Ok(cache)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), IoError> {
        let os = |source| IoError::Os { what: "append to", path: self.path.clone(), source };
        self.file.write_all(bytes).map_err(os)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// The answer under a key.
    pub fn get(&mut self, key: ContentHash) -> Result<Option<Entry>, IoError> {
        let Some(&(at, len)) = self.places.get(&key) else { return Ok(None) };
        let os = |source| IoError::Os { what: "read", path: self.path.clone(), source };
        let mut line = vec![0; len];
        self.file.seek(SeekFrom::Start(at)).map_err(os)?;
        self.file.read_exact(&mut line).map_err(os)?;
        let entry = serde_json::from_slice(&line);
        entry.map(Some).map_err(|source| IoError::Json { path: self.path.clone(), line: 0, source })
    }

    /// Keeps an answer.
    pub fn put(&mut self, entry: &Entry) -> Result<(), IoError> {
        if self.places.contains_key(&entry.key) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(entry).map_err(|source| IoError::Json {
            path: self.path.clone(),
            line: 0,
            source,
        })?;
        line.push(b'\n');
        let at = self.end;
        self.append(&line)?;
        self.places.insert(entry.key, (at, line.len()));
        Ok(())
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True where nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
