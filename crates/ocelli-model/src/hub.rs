//! From a name to files: a directory, a `.gguf` file, or `org/name` in the hub's standard cache, filled by download
//! when the caller brings a way to download.
//!
//! The cache has the layout of the hub's own clients (`models--org--name/refs/main`, `snapshots/<commit>/...`), so a
//! model that another program fetched is found, and the other way round. This crate opens no connection: [`Fetch`] is
//! implemented by the command line, which also knows the environment.

use std::fs;
use std::path::{Path, PathBuf};

use ocelli_data::io::{create_dir, read_bounded, write_atomic};
use serde::Deserialize;

use crate::ModelError;
use crate::weights::shard_names;

/// A way to download.
pub trait Fetch {
    /// Downloads `url` into the new file `to`. The error says why it could not, e.g. that there is no network.
    fn fetch(&self, url: &str, to: &Path) -> Result<(), String>;
}

/// Where the cache lies and where it is filled from.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The directory with `models--org--name` folders; by convention `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// By convention `https://huggingface.co`.
    pub endpoint: String,
}

/// Files other than weights that a checkpoint may have; all are small.
pub(crate) const SIDE_FILES: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Largest answer of the hub about one model.
const MAX_INFO: u64 = 64 << 20;

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// Finds a checkpoint: an existing path, else `org/name` in the cache, else by download.
    pub fn resolve(&self, name: &str, fetch: Option<&dyn Fetch>) -> Result<PathBuf, ModelError> {
        let path = Path::new(name);
        if path.exists() {
            return Ok(path.to_owned());
        }
        let not_found = |why: String| ModelError::NotFound { name: name.to_owned(), why };
        let Some((org, model)) = name.split_once('/').filter(|(o, m)| plain(o) && plain(m)) else {
            return Err(not_found(
                "there is no such file or directory, and it is not of the form org/name".into(),
            ));
        };
        let dir = self.cache.join(format!("models--{org}--{model}"));
        if let Some(found) = cached(&dir) {
            return Ok(found);
        }
        let Some(fetch) = fetch else {
            return Err(not_found(format!(
                "it is not in the cache {}, and downloading is off",
                dir.display()
            )));
        };
        self.download(name, &dir, fetch).map_err(|e| {
            let advice = format!(
                "it is not in the cache {} and could not be downloaded from {}: {e}. Without a network, copy a \
                 directory with config.json, tokenizer.json and *.safetensors (or a .gguf file) to this machine and \
                 give its path",
                dir.display(),
                self.endpoint
            );
            not_found(advice)
        })
    }

    fn download(&self, name: &str, dir: &Path, fetch: &dyn Fetch) -> Result<PathBuf, String> {
        create_dir(dir).map_err(|e| e.to_string())?;
        let info_path = dir.join(format!("info-{}.json", std::process::id()));
        let fetched = fetch.fetch(&format!("{}/api/models/{name}", self.endpoint), &info_path);
        let bytes = fetched.and_then(|()| read_bounded(&info_path, MAX_INFO).map_err(|e| e.to_string()));
        let _ = fs::remove_file(&info_path);
        let info: Info = serde_json::from_slice(&bytes?)
            .map_err(|e| format!("the answer about {name} is not understood: {e}"))?;
        if info.sha.is_empty() || !info.sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("the hub answers with a commit `{}` that is not one", info.sha));
        }
        let has = |file: &str| info.siblings.iter().any(|s| s.rfilename == file);
        let snapshot = dir.join("snapshots").join(&info.sha);
        let get = |file: &str| -> Result<(), String> {
            let to = snapshot.join(file);
            if to.exists() {
                return Ok(());
            }
            create_dir(&snapshot).map_err(|e| e.to_string())?;
            let part = snapshot.join(format!("{file}.part-{}", std::process::id()));
            let url = format!("{}/{name}/resolve/{}/{file}", self.endpoint, info.sha);
            let done =
                fetch.fetch(&url, &part).and_then(|()| fs::rename(&part, &to).map_err(|e| e.to_string()));
            if done.is_err() {
                let _ = fs::remove_file(&part);
            }
            done.map_err(|e| format!("{file}: {e}"))
        };
        // The vocabulary in pieces is only wanted where it is not there whole.
        let pieces = ["vocab.json", "merges.txt", "added_tokens.json"];
        let wanted = |f: &&str| has(f) && !(has("tokenizer.json") && pieces.contains(f));
        for file in SIDE_FILES.into_iter().filter(wanted) {
            get(file)?;
        }
        if has(WEIGHTS) {
            get(WEIGHTS)?;
        } else if has(INDEX) {
            get(INDEX)?;
            for shard in shard_names(&snapshot.join(INDEX)).map_err(|e| e.to_string())? {
                get(&shard)?;
            }
        } else {
            return Err(format!("{name} has neither {WEIGHTS} nor {INDEX}"));
        }
        write_atomic(&dir.join("refs").join("main"), info.sha.as_bytes()).map_err(|e| e.to_string())?;
        cached(dir).ok_or_else(|| format!("{name} has no config.json"))
    }
}

/// A name that is one component of a path and nothing else.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The snapshot of `refs/main`, if it is complete.
fn cached(dir: &Path) -> Option<PathBuf> {
    let commit = String::from_utf8(read_bounded(&dir.join("refs").join("main"), 256).ok()?).ok()?;
    let commit = commit.trim();
    if !plain(commit) {
        return None;
    }
    let snapshot = dir.join("snapshots").join(commit);
    let here = |file: &str| snapshot.join(file).exists();
    let weights = here(WEIGHTS)
        || (here(INDEX)
            && shard_names(&snapshot.join(INDEX)).is_ok_and(|names| names.iter().all(|n| here(n))));
    (here("config.json") && weights).then_some(snapshot)
}
