//! Read-only memory maps of weight files.
#![allow(unsafe_code)] // mapping a file is unsafe by nature; the reason stands beside it

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::ModelError;

/// A mapped file and its path.
#[derive(Debug)]
pub(super) struct Mapped {
    path: PathBuf,
    map: Option<Mmap>,
}

impl Mapped {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::os("open", path))?;
        let meta = file.metadata().map_err(ModelError::os("stat", path))?;
        if !meta.is_file() {
            return Err(ModelError::malformed(path, "not a regular file"));
        }
        if meta.len() == 0 {
            return Ok(Self { path: path.to_owned(), map: None });
        }
        // SAFETY: the map is read-only and private, and every offset taken from the file is checked against the
        // map's length before use, which the tests in tests/weights.rs attack. What remains is another process that
        // truncates or rewrites the file while it is read; as for every program that maps weights, that is the
        // user's to avoid (the system then ends this process with SIGBUS, or values change; no pointer depends on
        // the content).
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::os("map", path))?;
        Ok(Self { path: path.to_owned(), map: Some(map) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}
