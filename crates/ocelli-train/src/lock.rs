//! One process for a run directory: an advisory lock on `RUN/run.lock`, which the system gives back however the process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use ocelli_data::io::IoError;

use crate::error::TrainError;

/// File that is locked, in the run directory.
const LOCK: &str = "run.lock";

/// A run directory that no other process may write while this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    /// False where the file system knows no locks.
    pub(crate) holds: bool,
}

impl Lock {
    /// Takes the lock of a directory that exists.
    ///
    /// # Errors
    /// [`TrainError::InUse`] where another process holds it.
    pub(crate) fn take(dir: &Path) -> Result<Self, TrainError> {
        let path = dir.join(LOCK);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(|source| os("open", &path, source))?;
        let holds = try_lock(&mut file, dir, &path)?;
        // For whoever is refused; that the number is old does no harm, since only a held lock is asked for its holder.
        let written =
            file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        written.map_err(|source| os("write", &path, source))?;
        Ok(Self { _file: file, holds })
    }

    /// Fails where another process holds the lock; leaves no trace.
    pub(crate) fn is_free(dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(LOCK);
        if !path.exists() {
            return Ok(());
        }
        let mut file = File::open(&path).map_err(|source| os("open", &path, source))?;
        try_lock(&mut file, dir, &path).map(|_| ())
    }
}

fn os(what: &'static str, path: &Path, source: std::io::Error) -> TrainError {
    TrainError::Io(IoError::Os { what, path: path.to_owned(), source })
}

/// False where the file system has no locks.
fn try_lock(file: &mut File, dir: &Path, path: &Path) -> Result<bool, TrainError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Where its number cannot be read, the refusal stands without it.
            let _ = file.take(32).read_to_string(&mut holder);
            Err(TrainError::InUse { path: dir.to_owned(), holder: holder.trim().to_owned() })
        }
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(false),
        Err(TryLockError::Error(source)) => Err(os("lock", path, source)),
    }
}
