//! Results of calls by content: a bounded memory, and recordings from which a run is replayed offline, bit by bit.
//!
//! The key of a call is the hash of the tool's name, its arguments with sorted keys, and the hash of the picture that
//! it names; so the same call on the same picture is the same key in every dialogue and on every machine. Replies and
//! complaints to the model are kept; failures that stop a sample are not, since they may not happen again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ocelli_data::io::{BlobStore, JsonlWriter, read_jsonl};
use ocelli_data::{ContentHash, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Affine, Fatal, Images, Limits, Made, Picture, Reply, ToolError};

/// What a call led to, as far as it is the same every time: a reply, or a complaint to the model.
pub type Kept = Result<Reply, String>;

/// One line of a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    key: ContentHash,
    tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    complaint: Option<String>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    data: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<(ContentHash, Option<Affine>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

#[derive(Debug)]
enum Disk {
    None,
    Record { log: Mutex<JsonlWriter>, blobs: BlobStore },
    Replay { rows: HashMap<ContentHash, Row>, blobs: BlobStore, limits: Box<Limits> },
}

/// The store of results.
#[derive(Debug)]
pub struct Cache {
    memory: Mutex<Memory>,
    disk: Disk,
}

#[derive(Debug, Default)]
struct Memory {
    entries: HashMap<ContentHash, (u64, Kept)>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

impl Cache {
    /// Remembers results up to about `bytes`; the least recently used leave first.
    pub fn in_memory(bytes: usize) -> Self {
        Self { memory: Mutex::new(Memory { limit: bytes, ..Memory::default() }), disk: Disk::None }
    }

    /// Also writes every result to a directory: `calls.jsonl` and the pictures by hash.
    pub fn record(dir: &Path, bytes: usize) -> Result<Self, Fatal> {
        let log = Mutex::new(JsonlWriter::open(&log_of(dir))?);
        Ok(Self {
            disk: Disk::Record { log, blobs: BlobStore::new(dir.join("blobs")) },
            ..Self::in_memory(bytes)
        })
    }

    /// Answers from a recording alone; a call that is not in it is [`Fatal::NotRecorded`].
    pub fn replay(dir: &Path, limits: Limits) -> Result<Self, Fatal> {
        let rows: Vec<Row> = read_jsonl(&log_of(dir))?;
        let rows = rows.into_iter().map(|r| (r.key, r)).collect();
        let disk = Disk::Replay { rows, blobs: BlobStore::new(dir.join("blobs")), limits: Box::new(limits) };
        Ok(Self { disk, ..Self::in_memory(0) })
    }

    /// The key of a call; `None` where it names a picture that is not there.
    pub fn key(call: &ToolCall, images: &Images) -> Option<ContentHash> {
        let mut arguments = call.arguments.clone();
        if let Some(Value::String(name)) = arguments.get("image") {
            let (_, picture) = images.resolve(name).ok()?;
            arguments.insert("image".into(), Value::String(picture.hash().to_string()));
        }
        let text = Value::Array(vec![call.name.clone().into(), sorted(Value::Object(arguments))]).to_string();
        Some(ContentHash::of(text.as_bytes()))
    }

    /// What is known of a call.
    pub fn get(&self, tool: &str, key: ContentHash) -> Result<Option<Kept>, Fatal> {
        let Disk::Replay { rows, blobs, limits } = &self.disk else { return Ok(self.memory().get(key)) };
        let Some(row) = rows.get(&key) else {
            return Err(Fatal::NotRecorded { tool: tool.to_owned(), key });
        };
        if let Some(complaint) = &row.complaint {
            return Ok(Some(Err(complaint.clone())));
        }
        let image = match row.image {
            None => None,
            Some((hash, to_parent)) => {
                let bytes = blobs.get(hash, limits.image_bytes as u64)?;
                let picture =
                    Picture::new(bytes, limits).map_err(|e| Fatal::BadImage { hash, why: e.to_string() })?;
                Some(Made { picture, to_parent })
            }
        };
        let (text, data, answer) = (row.text.clone(), row.data.clone(), row.answer.clone());
        Ok(Some(Ok(Reply { text, data, image, answer })))
    }

    /// Remembers what a call led to.
    pub fn put(&self, tool: &str, key: ContentHash, outcome: &Result<Reply, ToolError>) -> Result<(), Fatal> {
        let kept: Kept = match outcome {
            Ok(reply) => Ok(reply.clone()),
            Err(ToolError::ForModel(why)) => Err(why.clone()),
            Err(ToolError::Fatal(_)) => return Ok(()),
        };
        if let Disk::Record { log, blobs } = &self.disk {
            let mut row = Row {
                key,
                tool: tool.to_owned(),
                complaint: kept.as_ref().err().cloned(),
                text: String::new(),
                data: Value::Null,
                image: None,
                answer: None,
            };
            if let Ok(reply) = &kept {
                row.text = reply.text.clone();
                row.data = reply.data.clone();
                row.answer = reply.answer.clone();
                if let Some(made) = &reply.image {
                    row.image = Some((blobs.put(made.picture.bytes())?, made.to_parent));
                }
            }
            log.lock().unwrap_or_else(PoisonError::into_inner).push(&row)?;
        }
        self.memory().put(key, kept);
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("calls.jsonl")
}

/// The same value with the keys of all objects in order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn weight(kept: &Kept) -> usize {
    match kept {
        Ok(r) => 256 + 3 * r.text.len() + r.image.as_ref().map_or(0, |m| m.picture.bytes().len()),
        Err(why) => 128 + why.len(),
    }
}

impl Memory {
    fn get(&mut self, key: ContentHash) -> Option<Kept> {
        self.clock += 1;
        let (used, kept) = self.entries.get_mut(&key)?;
        *used = self.clock;
        Some(kept.clone())
    }

    fn put(&mut self, key: ContentHash, kept: Kept) {
        let size = weight(&kept);
        if size > self.limit {
            return;
        }
        self.clock += 1;
        self.bytes += size;
        if let Some((_, old)) = self.entries.insert(key, (self.clock, kept)) {
            self.bytes -= weight(&old);
        }
        if self.bytes <= self.limit {
            return;
        }
        // Makes room for a quarter at once, so that the sort is paid seldom.
        let mut by_age: Vec<(u64, ContentHash)> =
            self.entries.iter().map(|(k, (used, _))| (*used, *k)).collect();
        by_age.sort_unstable();
        for (_, oldest) in by_age {
            if self.bytes <= self.limit / 4 * 3 {
                return;
            }
            if let Some((_, gone)) = self.entries.remove(&oldest) {
                self.bytes -= weight(&gone);
            }
        }
    }
}
