//! `samples.jsonl` of a run: the first group of every step with its scores, for reports and people; the pictures that it names
//! lie in `pictures/` of the run.

use std::path::{Path, PathBuf};

use ocelli_agent::pictures::Pictures;
use ocelli_data::Trajectory;
use ocelli_data::io::{BlobStore, JsonlWriter, read_bounded, write_atomic};
use serde::Deserialize;
use serde_json::json;

use super::batch::Scored;
use crate::error::TrainError;

/// Largest table that a resumed run goes on with, in bytes.
const MAX_TABLE: u64 = 4 << 30;

/// Writer of the table.
pub(super) struct SampleTable {
    path: PathBuf,
    blobs: BlobStore,
    open: Option<JsonlWriter>,
}

#[derive(Deserialize)]
struct Row {
    step: u64,
}

impl SampleTable {
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join("samples.jsonl"), blobs: BlobStore::new(dir.join("pictures")), open: None }
    }

    /// Appends the first group of a step.
    pub(super) fn show(
        &mut self,
        step: u64,
        groups: &[Scored],
        pictures: &Pictures,
    ) -> Result<(), TrainError> {
        let Some(group) = groups.first() else { return Ok(()) };
        if self.open.is_none() {
            cut(&self.path, step)?;
            self.open = Some(JsonlWriter::open(&self.path)?);
        }
        let Some(file) = &mut self.open else { return Ok(()) };
        for t in &group.trajectories {
            for hash in &t.images {
                let bytes = pictures.get(*hash).map_err(|e| TrainError::Data(e.to_string()))?;
                self.blobs.put(&bytes)?;
            }
            file.push(&row(step, t))?;
        }
        Ok(())
    }
}

/// What people read; the tokens stay out.
fn row(step: u64, t: &Trajectory) -> serde_json::Value {
    json!({
        "step": step, "sample": t.sample_id, "attempt": t.attempt, "status": t.status, "messages": t.messages,
        "tools": t.tools, "scores": t.scores, "tokens": t.sampled_len(),
    })
}

/// Removes rows of steps from `step` on, which a killed run left: they are written again.
fn cut(path: &Path, step: u64) -> Result<(), TrainError> {
    if !path.exists() {
        return Ok(());
    }
    // Opening for appending first removes a line that the killed process left unfinished.
    JsonlWriter::open(path)?;
    let bytes = read_bounded(path, MAX_TABLE)?;
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    let earlier = |line: &&[u8]| serde_json::from_slice::<Row>(line).is_ok_and(|row| row.step < step);
    let kept: Vec<u8> = lines.filter(earlier).flatten().copied().collect();
    Ok(write_atomic(path, &kept)?)
}
