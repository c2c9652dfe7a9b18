//! The log of a run: `run.json` says what was asked of whom, `log.jsonl` holds one line per ended request. The log is
//! only ever appended to; after a kill at any moment the complete lines are the truth and the rest is asked again: nothing
//! that is in the log is asked twice, and no request is lost. What the endpoint answered but this process did not
//! live to write (at most the requests in flight) cannot be known and is asked again.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use ocelli_agent::endpoint::{Completion, Finish, Outcome, SamplingParams, Usage};
use ocelli_data::ContentHash;
use ocelli_data::io::{IoError, JsonlWriter, read_bounded, read_jsonl, write_atomic};
use serde::{Deserialize, Serialize};

use super::Request;

/// What a run is. Two runs with equal headers may share a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Version of the program.
    pub version: String,
    /// Name of the benchmark.
    pub benchmark: String,
    /// The variant.
    pub axes: IndexMap<String, String>,
    /// Hash of the declaration.
    pub declaration: ContentHash,
    /// Hash of the rows and images.
    pub data: ContentHash,
    /// Number of items.
    pub items: usize,
    /// Who answers.
    pub model: String,
    /// Sampling.
    pub sampling: SamplingParams,
    /// Samples per item.
    pub samples: u32,
}

/// One ended request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Content key of the request.
    pub key: ContentHash,
    /// Name of the item.
    pub item: String,
    /// Which dialogue of the item.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variant: u32,
    /// Which sample.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sample: u32,
    /// How it ended; never `unparsed`, which only scoring can find.
    pub outcome: Outcome,
    /// The answer without its thinking.
    pub text: String,
    /// The thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Why the policy stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Tokens.
    #[serde(default)]
    pub usage: Usage,
    /// Attempts.
    #[serde(default)]
    pub attempts: u32,
    /// Seconds of the successful attempt.
    #[serde(default)]
    pub latency_s: f64,
    /// Why it failed or was refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Entry {
    /// From a completion.
    pub fn answered(key: ContentHash, request: &Request, completion: Completion) -> Self {
        Self {
            key,
            item: request.item.clone(),
            variant: request.variant,
            sample: request.sample,
            outcome: completion.outcome(),
            text: completion.text,
            reasoning: completion.reasoning,
            finish: Some(completion.finish),
            usage: completion.usage,
            attempts: completion.attempts,
            latency_s: completion.latency_s,
            error: completion.refusal.unwrap_or_default(),
        }
    }

    /// From a failure.
    pub fn failed(key: ContentHash, request: &Request, error: String) -> Self {
        Self {
            key,
            item: request.item.clone(),
            variant: request.variant,
            sample: request.sample,
            outcome: Outcome::Failed,
            text: String::new(),
            reasoning: None,
            finish: None,
            usage: Usage::default(),
            attempts: 0,
            latency_s: 0.0,
            error,
        }
    }
}

/// A folder that cannot take this run.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// File operations.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The folder holds another run.
    #[error(
        "{folder} holds another run: {what} is {found} there and {wanted} here; choose another folder, or delete it"
    )]
    Other {
        /// The folder.
        folder: PathBuf,
        /// Which part of the header differs.
        what: &'static str,
        /// Its value there.
        found: String,
        /// Its value here.
        wanted: String,
    },
    /// Another process writes this log.
    #[error("{path} is being written by another process; wait for it, or choose another folder")]
    Busy {
        /// The log.
        path: PathBuf,
    },
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    writer: JsonlWriter,
    entries: HashMap<ContentHash, Entry>,
    /// Held while the log is open: two runs in one folder would ask everything twice.
    _lock: File,
}

impl Log {
    /// Opens the log `name` (`log`, `judge` ...) of a run in `folder`, made if need be, and reads what it holds.
    pub fn open(folder: &Path, name: &str, header: &RunHeader) -> Result<Self, LogError> {
        let head = folder.join("run.json");
        if head.exists() {
            let found = read_header(folder)?;
            differences(&found, header).map_err(|(what, found, wanted)| LogError::Other {
                folder: folder.to_owned(),
                what,
                found,
                wanted,
            })?;
        } else {
            let text = serde_json::to_vec_pretty(header).map_err(|source| IoError::Json {
                path: head.clone(),
                line: 0,
                source,
            })?;
            write_atomic(&head, &text)?;
        }
        let path = folder.join(format!("{name}.jsonl"));
        let os = |source| IoError::Os { what: "lock", path: path.clone(), source };
        // The lock comes first: what looks like an unfinished line may be one that another process is writing.
        let lock = File::options().append(true).create(true).open(&path).map_err(os)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(LogError::Busy { path }),
            // Some file systems have no locks; a run there is the user's to watch.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Opening cuts off an unfinished last line, so that reading afterwards finds whole lines only.
        let writer = JsonlWriter::open(&path)?;
        let mut entries: HashMap<ContentHash, Entry> = HashMap::new();
        for entry in read_jsonl::<Entry>(&path)? {
            entries.insert(entry.key, entry);
        }
        Ok(Self { folder: folder.to_owned(), writer, entries, _lock: lock })
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: Entry) -> Result<(), IoError> {
        self.writer.push(&entry)?;
        self.entries.insert(entry.key, entry);
        Ok(())
    }

    /// The answer to a request, if there is one. A failed request has none: a resumed run asks it again.
    pub fn answer(&self, key: ContentHash) -> Option<&Entry> {
        self.entries.get(&key).filter(|e| e.outcome != Outcome::Failed)
    }

    /// The last entry of a request, failed or not.
    pub fn entry(&self, key: ContentHash) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// All entries, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The folder of the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Flushes to the disk itself.
    pub fn sync(&self) -> Result<(), IoError> {
        self.writer.sync()
    }
}

/// Reads the header of a run.
pub(crate) fn read_header(folder: &Path) -> Result<RunHeader, IoError> {
    let path = folder.join("run.json");
    let bytes = read_bounded(&path, 16 << 20)?;
    serde_json::from_slice(&bytes).map_err(|source| IoError::Json { path, line: source.line(), source })
}

type Difference = (&'static str, String, String);

fn differences(found: &RunHeader, wanted: &RunHeader) -> Result<(), Difference> {
    let check = |what: &'static str, a: String, b: String| if a == b { Ok(()) } else { Err((what, a, b)) };
    let json = |s: &SamplingParams| serde_json::to_string(s).unwrap_or_default();
    check("the benchmark", found.benchmark.clone(), wanted.benchmark.clone())?;
    check("the variant", format!("{:?}", found.axes), format!("{:?}", wanted.axes))?;
    check("the model", found.model.clone(), wanted.model.clone())?;
    check("the fingerprint of the data", found.data.short(), wanted.data.short())?;
    check("the hash of the declaration", found.declaration.short(), wanted.declaration.short())?;
    check("the sampling", json(&found.sampling), json(&wanted.sampling))?;
    // More samples may be added to a run; their keys carry the number of the sample.
    Ok(())
}
