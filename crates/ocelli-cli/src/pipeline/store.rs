//! The directories of the stages: what is done, with which key, and the hash of what came out.

use std::path::{Path, PathBuf};

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
}

/// Where a stage stands.
pub(super) enum State {
    /// Done with this key.
    Done(Done),
    /// Begun with this key and not finished.
    Begun,
    /// Never begun, or with another key.
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

    pub(super) fn state(&self, stage: &str, key: &str) -> anyhow::Result<State> {
        if let Some(done) = self.done(stage)?.filter(|d| d.key == key) {
            return Ok(State::Done(done));
        }
        let begun = self.dir(stage).join("key");
        let same = begun.exists() && read_bounded(&begun, MAX_DONE)? == key.as_bytes();
        Ok(if same { State::Begun } else { State::New })
    }

    /// Makes the stage's directory ready: one that was begun with this key is kept, anything else is removed.
    pub(super) fn begin(&self, stage: &str, key: &str) -> anyhow::Result<()> {
        let dir = self.dir(stage);
        if !matches!(self.state(stage, key)?, State::Begun) && dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
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

    pub(super) fn finish(&self, stage: &str, done: &Done) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(done)?;
        Ok(write_atomic(&self.dir(stage).join("done.json"), text.as_bytes())?)
    }

    /// Hash of what the stage put out: names and contents of its output files.
    pub(super) fn output(&self, name: &str, stage: &Stage) -> anyhow::Result<String> {
        let dir = self.dir(name);
        let mut files = match stage.puts_out() {
            Kind::Questions => vec![dir.join("questions.jsonl")],
            Kind::Trajectories => vec![dir.join("trajectories.jsonl")],
            Kind::Pairs => vec![dir.join("pairs.jsonl")],
            Kind::Model => list(&dir.join("model"))?,
            Kind::Items => list(&dir.join("items"))?,
        };
        files.sort();
        let mut all = String::new();
        for file in files {
            let hash = ContentHash::of(&read_bounded(&file, MAX_OUTPUT)?);
            all += &format!("{} {hash}\n", file.file_name().unwrap_or_default().to_string_lossy());
        }
        Ok(ContentHash::of(all.as_bytes()).to_string())
    }
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
