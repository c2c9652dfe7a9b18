//! The directories of the stages: what is done, with which key, and the hash of what came out.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context;
use ocelli_data::ContentHash;
use ocelli_data::io::{create_dir, read_bounded, write_atomic};
use ocelli_data::run::Fact;
use serde::{Deserialize, Serialize};

use super::config::{Kind, Stage};

/// Largest `done.json`, in bytes.
const MAX_DONE: u64 = 16 << 20;
/// Largest output file that is hashed, in bytes.
const MAX_OUTPUT: u64 = 64 << 30;

/// Time between two notes of how long a stage has been under way: a killed attempt loses at most so much of it.
const BEAT: Duration = Duration::from_secs(1);

/// A file of a finished stage, as it was written.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Made {
    /// Path below the stage's directory.
    file: String,
    bytes: u64,
    /// Time of its last change, in nanoseconds since 1970.
    modified: u64,
    hash: ContentHash,
}

/// What a finished stage leaves.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Done {
    /// Key that it was done with.
    pub(super) key: String,
    /// Hash of its output files.
    pub(super) output: String,
    /// Wall time in seconds, interrupted attempts included.
    pub(super) seconds: f64,
    /// One line for people.
    pub(super) outcome: String,
    /// Numbers for the report.
    pub(super) facts: Vec<Fact>,
    /// The files that later stages and the report read.
    #[serde(default)]
    pub(super) files: Vec<Made>,
    /// Which build of the program made it.
    #[serde(default)]
    pub(super) build: String,
}

/// Where a stage stands.
pub(super) enum State {
    /// Done with this key.
    Done(Done),
    /// Begun with this key and not finished.
    Begun,
    /// Done with this key, but a file of it is not what it was: which one, and what is wrong with it.
    Altered(String),
    /// Begun or done with another key.
    Changed,
    /// Never begun.
    New,
}

/// The stages' directories.
pub(super) struct Store {
    root: PathBuf,
}

impl Store {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn dir(&self, stage: &str) -> PathBuf {
        self.root.join("stages").join(stage)
    }

    /// The record of a finished stage.
    pub(super) fn done(&self, stage: &str) -> anyhow::Result<Option<Done>> {
        let path = self.dir(stage).join("done.json");
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, MAX_DONE)?;
        let done = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: remove the stage's directory to run it again", path.display()))?;
        Ok(Some(done))
    }

    /// Takes the run directory for this process until the file is dropped; `None` where the file system has no locks.
    ///
    /// # Errors
    /// Another process works there.
    pub(super) fn lock(&self) -> anyhow::Result<Option<File>> {
        create_dir(&self.root)?;
        let path = self.root.join("run.lock");
        let cannot = || format!("cannot open {}", path.display());
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).with_context(cannot)?;
                write!(file, "{}", std::process::id()).with_context(cannot)?;
                Ok(Some(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut other = String::new();
                let process = match (&mut file).take(20).read_to_string(&mut other) {
                    Ok(n) if n > 0 => format!(" (process {})", other.trim()),
                    _ => String::new(),
                };
                anyhow::bail!(
                    "another `ocelli run` is at work in {}{process}; wait until it has ended, or give this one a directory of \
                     its own with --out",
                    self.root.display()
                )
            }
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(None),
            Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    pub(super) fn state(&self, name: &str, stage: &Stage, key: &str) -> anyhow::Result<State> {
        if let Some(done) = self.done(name)?.filter(|d| d.key == key) {
            return Ok(match self.altered(name, stage, &done)? {
                Some(what) => State::Altered(what),
                None => State::Done(done),
            });
        }
        let begun = self.dir(name).join("key");
        if !begun.exists() {
            return Ok(State::New);
        }
        let same =
            read_bounded(&begun, MAX_DONE)? == key.as_bytes() && !self.dir(name).join("done.json").exists();
        Ok(if same { State::Begun } else { State::Changed })
    }

    /// The first file of a finished stage that is gone or has other content than it had. Content is read only where size or
    /// time differ: a run directory may have been copied.
    fn altered(&self, name: &str, stage: &Stage, done: &Done) -> anyhow::Result<Option<String>> {
        let dir = self.dir(name);
        for made in &done.files {
            let path = dir.join(&made.file);
            let Ok(found) = std::fs::metadata(&path) else {
                return Ok(Some(format!("{} is gone", made.file)));
            };
            let same = found.len() == made.bytes && modified(&found) == made.modified;
            if !same && (found.len() != made.bytes || hash(&path)? != made.hash) {
                return Ok(Some(format!("{} was changed", made.file)));
            }
        }
        // A record without files is of an earlier version of this program.
        let still = || self.made(name, stage).is_ok_and(|made| self.output(&made, stage) == done.output);
        if done.files.is_empty() && !still() {
            return Ok(Some("what it had put out was changed".to_owned()));
        }
        let shows = matches!(stage, Stage::Questions(q) if q.from.world.is_some() && !q.text_only);
        Ok((shows && !self.root.join("blobs").is_dir())
            .then(|| "blobs/ with its pictures is gone".to_owned()))
    }

    /// Removes the work of all stages; false where there is none.
    pub(super) fn forget(&self) -> anyhow::Result<bool> {
        let stages = self.root.join("stages");
        let there = stages.exists();
        if there {
            std::fs::remove_dir_all(&stages)
                .with_context(|| format!("cannot remove {}", stages.display()))?;
        }
        Ok(there)
    }

    /// Makes the stage's directory ready: one that was begun with this key is kept, anything else is removed.
    pub(super) fn begin(&self, stage: &str, key: &str, state: &State) -> anyhow::Result<()> {
        let dir = self.dir(stage);
        if !matches!(state, State::Begun) {
            // First out of the way in one step: half a directory must not pass for one that was begun.
            let old = self.root.join("stages").join(format!("{stage}.old"));
            let remove = |path: &Path| {
                if path.exists() { std::fs::remove_dir_all(path) } else { Ok(()) }
            };
            remove(&old)
                .and_then(|()| if dir.exists() { std::fs::rename(&dir, &old) } else { Ok(()) })
                .and_then(|()| remove(&old))
                .with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        create_dir(&dir)?;
        Ok(write_atomic(&dir.join("key"), key.as_bytes())?)
    }

    /// Seconds of attempts that were interrupted.
    pub(super) fn seconds_before(&self, stage: &str) -> anyhow::Result<f64> {
        let path = self.dir(stage).join("seconds");
        if !path.exists() {
            return Ok(0.0);
        }
        let text = String::from_utf8_lossy(&read_bounded(&path, 64)?).into_owned();
        Ok(text.trim().parse().unwrap_or(0.0))
    }

    /// Does the work of a stage while its time is noted, so that a killed attempt counts; the seconds of all attempts so far.
    pub(super) fn timed<R>(&self, stage: &str, work: impl FnOnce() -> R) -> anyhow::Result<(R, f64)> {
        let (before, began) = (self.seconds_before(stage)?, Instant::now());
        let path = self.dir(stage).join("seconds");
        let so_far = || before + began.elapsed().as_secs_f64();
        // Lost notes cost a second of a report: no reason to stop a stage.
        let note = &|| drop(std::fs::write(&path, format!("{:.3}\n", so_far())));
        let (done, watched) = channel::<()>();
        let result = std::thread::scope(|scope| {
            scope.spawn(move || {
                while watched.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    note();
                }
            });
            let result = work();
            drop(done);
            result
        });
        note();
        Ok((result, so_far()))
    }

    pub(super) fn finish(&self, stage: &str, done: &Done) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(done)?;
        Ok(write_atomic(&self.dir(stage).join("done.json"), text.as_bytes())?)
    }

    /// The files that later stages and the report read, with their hashes.
    pub(super) fn made(&self, name: &str, stage: &Stage) -> anyhow::Result<Vec<Made>> {
        let dir = self.dir(name);
        let mut files = match stage.puts_out() {
            Kind::Questions => vec![dir.join("questions.jsonl")],
            Kind::Trajectories => vec![dir.join("trajectories.jsonl")],
            Kind::Pairs => vec![dir.join("pairs.jsonl")],
            Kind::Model => list(&dir.join("model"))?,
            Kind::Items => list(&dir.join("items"))?,
        };
        files.sort();
        let beside = ["metrics.jsonl", "arms.json", "samples.jsonl"].map(|f| dir.join(f));
        files.extend(beside.into_iter().filter(|p| p.is_file()));
        files
            .iter()
            .map(|path| {
                let found =
                    std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
                let file = path.strip_prefix(&dir).unwrap_or(path).to_string_lossy().replace('\\', "/");
                Ok(Made { file, bytes: found.len(), modified: modified(&found), hash: hash(path)? })
            })
            .collect()
    }

    /// Hash of what the stage put out for other stages: names and contents of those files.
    pub(super) fn output(&self, made: &[Made], stage: &Stage) -> String {
        let put_out = |m: &&Made| match stage.puts_out() {
            Kind::Questions | Kind::Trajectories | Kind::Pairs => {
                !matches!(m.file.as_str(), "metrics.jsonl" | "arms.json" | "samples.jsonl")
            }
            Kind::Model => m.file.starts_with("model/"),
            Kind::Items => m.file.starts_with("items/"),
        };
        let name = |m: &Made| m.file.rsplit('/').next().unwrap_or_default().to_owned();
        let all: String = made.iter().filter(put_out).map(|m| format!("{} {}\n", name(m), m.hash)).collect();
        ContentHash::of(all.as_bytes()).to_string()
    }
}

fn modified(found: &std::fs::Metadata) -> u64 {
    let since = found.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |t| t.as_nanos() as u64)
}

fn hash(path: &Path) -> anyhow::Result<ContentHash> {
    Ok(ContentHash::of(&read_bounded(path, MAX_OUTPUT)?))
}

fn list(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
