//! What a run directory belongs to: the settings of the run and the content of all that it is made of.
//!
//! ```text
//! RUN/run.lock      held by the process that trains here
//! RUN/origin.json   counts and hashes of model, data and tools; the configuration as it was given, for people
//! RUN/config.json   the settings of the loop, every default filled in
//! ```
//!
//! Everything that a step depends on is compared, by content: the base weights (frozen ones are in no checkpoint) with tokenizer,
//! template and preprocessing; the examples, pairs or questions with the hashes of their pictures; the tools as the policy
//! sees them; a reward model. Where these come from may change: a directory that was moved holds the same model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocelli_data::io::{IoError, create_dir, read_bounded, write_atomic};
use ocelli_data::{ContentHash, Sample};
use ocelli_model::vlm::Vlm;
use ocelli_tools::ToolSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;
use crate::lock::Lock;
use crate::observe::Observer;
use crate::pairs::Pair;
use crate::responses::Response;

/// Largest `config.json` or `origin.json` that is read, in bytes.
const MAX_JSON: u64 = 16 << 20;
/// Differences that a refusal names.
const NAMED: usize = 3;

/// Where a run goes. A path is one; the command line adds the configuration that it was given.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Run directory.
    pub dir: &'a Path,
    /// The whole configuration, so that a refusal can name the key whose value differs; it decides nothing by itself.
    pub described: Option<&'a Value>,
}

impl<'a> From<&'a Path> for Place<'a> {
    fn from(dir: &'a Path) -> Self {
        Self { dir, described: None }
    }
}

impl<'a> From<&'a PathBuf> for Place<'a> {
    fn from(dir: &'a PathBuf) -> Self {
        Self::from(dir.as_path())
    }
}

/// One thing that a run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Material {
    /// Examples, pairs, questions, tools; absent for a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    hash: ContentHash,
}

#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    made_of: BTreeMap<String, Material>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    described: Value,
}

/// Settings and content of a run.
#[derive(Clone, Debug)]
pub struct Identity {
    settings: Value,
    made_of: BTreeMap<String, Material>,
}

/// A run directory that this process alone writes, and that belongs to the run.
#[derive(Debug)]
pub struct Opened {
    dir: PathBuf,
    _lock: Lock,
}

impl Opened {
    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Identity {
    /// A run with these settings, defaults included.
    pub fn new(settings: &impl Serialize) -> Result<Self, TrainError> {
        let settings = serde_json::to_value(settings).map_err(|e| TrainError::Config(e.to_string()))?;
        Ok(Self { settings, made_of: BTreeMap::new() })
    }

    fn with(mut self, what: &str, count: Option<usize>, hash: ContentHash) -> Self {
        self.made_of.insert(what.to_owned(), Material { count, hash });
        self
    }

    fn with_each<T>(self, what: &str, items: &[T], bytes: impl Fn(&T, &mut Vec<u8>)) -> Self {
        let (mut hashes, mut one) = (Vec::with_capacity(items.len() * 32), Vec::new());
        for item in items {
            one.clear();
            bytes(item, &mut one);
            hashes.extend_from_slice(ContentHash::of(&one).as_bytes());
        }
        self.with(what, Some(items.len()), ContentHash::of(&hashes))
    }

    /// Adds a model as it is before it is prepared for training.
    pub fn model(self, what: &str, model: &Vlm) -> Result<Self, TrainError> {
        let hash = model.content_hash()?;
        Ok(self.with(what, None, hash))
    }

    /// Adds examples: tokens, trained places, pictures.
    pub fn responses(self, what: &str, responses: &[Response]) -> Self {
        self.with_each(what, responses, write_response)
    }

    /// Adds pairs.
    pub fn pairs(self, what: &str, pairs: &[Pair]) -> Self {
        self.with_each(what, pairs, |pair, out| {
            write_response(&pair.chosen, out);
            write_response(&pair.rejected, out);
            out.extend(pair.margin.map_or(u64::MAX, f64::to_bits).to_le_bytes());
            out.push(u8::from(pair.tie));
        })
    }

    /// Adds questions: names, messages with the hashes of their pictures, targets.
    pub fn samples(self, what: &str, samples: &[Arc<Sample>]) -> Result<Self, TrainError> {
        let mut texts = Vec::with_capacity(samples.len());
        for sample in samples {
            let text = serde_json::to_vec(sample.as_ref());
            texts.push(text.map_err(|e| TrainError::Data(format!("sample {}: {e}", sample.id)))?);
        }
        Ok(self.with_each(what, &texts, |text, out| out.extend_from_slice(text)))
    }

    /// Adds tools as a policy sees them.
    pub fn tools(self, specs: &[ToolSpec]) -> Self {
        self.with_each("tools", specs, |spec, out| {
            let text = (&spec.name, &spec.description, spec.parameters.to_string());
            out.extend(format!("{text:?}").into_bytes());
        })
    }

    /// Makes the directory this run's, or finds that it is; what a killed process left half written is removed.
    ///
    /// # Errors
    /// Another process trains there; the directory belongs to another run (the refusal names what differs).
    pub fn open<'a>(
        &self,
        place: impl Into<Place<'a>>,
        observer: &mut dyn Observer,
    ) -> Result<Opened, TrainError> {
        let place = place.into();
        create_dir(place.dir)?;
        let lock = Lock::take(place.dir)?;
        if !lock.holds {
            observer.note(&format!(
                "{}: the file system has no locks; take care that no other process trains there",
                place.dir.display()
            ));
        }
        self.compare(place)?;
        let (config, origin) = (place.dir.join("config.json"), place.dir.join("origin.json"));
        if !origin.exists() {
            let described = place.described.cloned().unwrap_or(Value::Null);
            let text = serde_json::to_vec_pretty(&Origin { made_of: self.made_of.clone(), described });
            let text = text.map_err(|e| TrainError::Config(e.to_string()))?;
            write_atomic(&origin, &text)?;
        }
        // Second, so that a directory with settings always says what it was made of.
        if !config.exists() {
            write_atomic(&config, format!("{:#}\n", self.settings).as_bytes())?;
        }
        let removed = remove_left_over(place.dir)?;
        if removed > 0 {
            observer.note(&format!(
                "removed {removed} unfinished files and directories of a process that was killed"
            ));
        }
        Ok(Opened { dir: place.dir.to_owned(), _lock: lock })
    }

    /// [`Identity::open`] without touching anything.
    pub fn inspect<'a>(&self, place: impl Into<Place<'a>>) -> Result<(), TrainError> {
        let place = place.into();
        if !place.dir.exists() {
            // The nearest thing that is there must be able to hold it.
            let there = place.dir.ancestors().skip(1).find(|p| p.exists());
            if let Some(blocking) = there.filter(|p| !p.is_dir()) {
                let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
                return Err(
                    IoError::Os { what: "create a directory in", path: blocking.to_owned(), source }.into()
                );
            }
            return Ok(());
        }
        Lock::is_free(place.dir)?;
        self.compare(place)
    }

    fn compare(&self, place: Place<'_>) -> Result<(), TrainError> {
        let other = |what: String| TrainError::OtherRun { path: place.dir.to_owned(), what };
        let (config, origin) = (place.dir.join("config.json"), place.dir.join("origin.json"));
        if config.exists() {
            let found: Value = read_json(&config)?;
            let mut apart = Vec::new();
            // On the command line these settings are the table `train`.
            let table = if place.described.is_some() { "train" } else { "" };
            differences(table, &found, &self.settings, &mut apart);
            if !apart.is_empty() {
                return Err(other(named(&apart)));
            }
            if !origin.exists() {
                return Err(other(
                    "origin.json, which says what model and data it was made of, is missing; it was begun by an earlier \
                     version, or the file was removed"
                        .into(),
                ));
            }
        }
        if !origin.exists() {
            return Ok(());
        }
        let found: Origin = serde_json::from_value(read_json(&origin)?)
            .map_err(|e| other(format!("origin.json cannot be read: {e}")))?;
        if found.made_of == self.made_of {
            return Ok(());
        }
        let mut apart = Vec::new();
        if let Some(described) = place.described {
            differences("", &found.described, described, &mut apart);
            // Where the run lies does not matter, and the loop's own settings were compared before.
            apart.retain(|d| d.key != "out" && d.key != "train" && !d.key.starts_with("train."));
        }
        let materials = self.different_materials(&found.made_of).join("; ");
        Err(other(if apart.is_empty() { materials } else { format!("{}: {materials}", named(&apart)) }))
    }

    /// Everything whose content differs, in words.
    fn different_materials(&self, there: &BTreeMap<String, Material>) -> Vec<String> {
        let all: std::collections::BTreeSet<&String> = there.keys().chain(self.made_of.keys()).collect();
        let say = |m: Option<&Material>| match m {
            None => "none".to_owned(),
            Some(Material { count: Some(n), hash }) => format!("{n} with content {}", hash.short()),
            Some(Material { count: None, hash }) => format!("content {}", hash.short()),
        };
        let apart = all.into_iter().filter(|what| there.get(*what) != self.made_of.get(*what));
        apart
            .map(|w| format!("{w}: {} there, {} here", say(there.get(w)), say(self.made_of.get(w))))
            .collect()
    }
}

fn write_response(response: &Response, out: &mut Vec<u8>) {
    let mut number = |n: usize| out.extend((n as u64).to_le_bytes());
    number(response.prompt);
    number(response.context.len());
    number(response.trained.len());
    response.trained.iter().for_each(|t| number(*t));
    out.extend(response.context.ids().iter().flat_map(|id| id.to_le_bytes()));
    for image in response.context.images() {
        out.extend(image.hash.as_bytes());
        out.extend([image.rows.start, image.rows.end].iter().flat_map(|n| (*n as u64).to_le_bytes()));
    }
}

fn read_json(path: &Path) -> Result<Value, TrainError> {
    let bytes = read_bounded(path, MAX_JSON)?;
    serde_json::from_slice(&bytes).map_err(|source| {
        TrainError::Io(IoError::Json { path: path.to_owned(), line: source.line(), source })
    })
}

/// A key with its two values.
struct Difference {
    key: String,
    there: Value,
    here: Value,
}

fn named(apart: &[Difference]) -> String {
    let mut said: Vec<String> = apart
        .iter()
        .take(NAMED)
        .map(|d| format!("`{}` is {} there, {} here", d.key, d.there, d.here))
        .collect();
    if apart.len() > NAMED {
        said.push(format!("and {} more", apart.len() - NAMED));
    }
    said.join(", ")
}

fn differences(key: &str, there: &Value, here: &Value, found: &mut Vec<Difference>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for k in keys {
                let key = if key.is_empty() { k.clone() } else { format!("{key}.{k}") };
                let value = |of: &serde_json::Map<String, Value>| of.get(k).cloned().unwrap_or(Value::Null);
                differences(&key, &value(a), &value(b), found);
            }
        }
        _ if there == here => {}
        _ => found.push(Difference { key: key.to_owned(), there: there.clone(), here: here.clone() }),
    }
}

/// Removes what a process that was killed left half written: temporary files beside their targets, checkpoints that were not
/// whole. Only under the lock: another process's would look the same.
fn remove_left_over(dir: &Path) -> Result<usize, TrainError> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| TrainError::Io(IoError::Os { what, path, source })
    };
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let entry = entry.map_err(failed("list", dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().map_err(failed("stat", &path))?;
        if kind.is_dir() && name.starts_with("unfinished-step-") {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            removed += 1;
        } else if kind.is_dir() {
            removed += remove_left_over(&path)?;
        } else if kind.is_file() && is_temporary(&name) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// `NAME.tmp-PID` or `NAME.tmp-PID-N`, as files are called until they are whole.
fn is_temporary(name: &str) -> bool {
    name.rsplit_once(".tmp-").is_some_and(|(_, mark)| {
        mark.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    })
}
