//! Checkpoints of a run: everything that the next step depends on, to the bit.
//!
//! ```text
//! step-00000120/
//!   params.safetensors      trainable parameters, f32
//!   optimizer.safetensors   first and second moments (`NAME/m`, `NAME/v`), f32
//!   state.json              step, counters, generators, data order, buffer, monitors
//!   manifest.json           BLAKE3 and length of the three
//! ```
//!
//! A checkpoint is written under another name and renamed when it is whole, so that a run killed at any moment leaves
//! only whole ones; every file is checked against the manifest when it is read. Frozen parameters are not stored:
//! they are those of the model that the configuration names, and the names of the trainable ones are compared.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use ocelli_data::ContentHash;
use ocelli_data::io::{create_dir, read_bounded, write_atomic};
use ocelli_model::{SaveDtype, SaveTensor, Weights, save_safetensors};
use ocelli_tensor::{AdamW, DType, Moments, ParamId, Params, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;

/// Largest file of a checkpoint that is read, in bytes.
const MAX_FILE: u64 = 64 << 30;
const FILES: [&str; 3] = ["params.safetensors", "optimizer.safetensors", "state.json"];

#[derive(Serialize, Deserialize)]
struct Manifest {
    files: Vec<(String, u64, ContentHash)>,
}

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    /// Steps that each parameter's moments have seen.
    moments: Vec<(String, u64)>,
    run: Value,
}

fn bad(path: &Path, what: impl Into<String>) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), what: what.into() }
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_owned();
    move |source| TrainError::Io(ocelli_data::io::IoError::Os { what, path, source })
}

/// Name of the checkpoint after `step` optimizer steps.
fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Steps of all whole checkpoints in `dir`, ascending.
pub fn list(dir: &Path) -> Result<Vec<u64>, TrainError> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    for entry in fs::read_dir(dir).map_err(os("list", dir))? {
        let entry = entry.map_err(os("list", dir))?;
        let found: Option<u64> =
            entry.file_name().to_str().and_then(|n| n.strip_prefix("step-")?.parse().ok());
        steps.extend(found);
    }
    steps.sort_unstable();
    Ok(steps)
}

fn trainable(params: &Params) -> Vec<(ParamId, String)> {
    params.iter().filter(|(_, p)| p.trainable()).map(|(id, p)| (id, p.name().to_owned())).collect()
}

/// Writes the checkpoint after `step` steps into `dir` and removes older ones but the latest `keep` and `best`.
pub fn save(
    dir: &Path,
    step: u64,
    params: &Params,
    adam: &AdamW,
    run: Value,
    keep: usize,
    best: Option<u64>,
) -> Result<PathBuf, TrainError> {
    let unfinished = dir.join(format!("unfinished-{}", name(step)));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(os("remove", &unfinished))?;
    }
    create_dir(&unfinished)?;
    let named = trainable(params);
    let mut values = Vec::with_capacity(named.len());
    let mut moments = Vec::new();
    let mut steps = Vec::new();
    for (id, name) in &named {
        let p = params.get(*id)?.value();
        let shape = p.shape().to_vec();
        values.push(SaveTensor {
            name: name.clone(),
            shape: shape.clone(),
            values: Cow::Borrowed(p.as_slice()?),
        });
        if let Some(m) = adam.moments(*id) {
            steps.push((name.clone(), m.step));
            for (part, t) in [("m", &m.exp_avg), ("v", &m.exp_avg_sq)] {
                let values = Cow::Borrowed(t.as_slice()?);
                moments.push(SaveTensor { name: format!("{name}/{part}"), shape: shape.clone(), values });
            }
        }
    }
    save_safetensors(&unfinished, "params", &values, SaveDtype::F32, usize::MAX)?;
    save_safetensors(&unfinished, "optimizer", &moments, SaveDtype::F32, usize::MAX)?;
    let state = State { step, moments: steps, run };
    let json =
        serde_json::to_vec(&state).map_err(|e| bad(&unfinished, format!("its state is no JSON: {e}")))?;
    write_atomic(&unfinished.join("state.json"), &json)?;
    let mut manifest = Manifest { files: Vec::new() };
    for file in FILES {
        let bytes = read_bounded(&unfinished.join(file), MAX_FILE)?;
        manifest.files.push((file.to_owned(), bytes.len() as u64, ContentHash::of(&bytes)));
    }
    let json = serde_json::to_vec_pretty(&manifest).map_err(|e| bad(&unfinished, e.to_string()))?;
    write_atomic(&unfinished.join("manifest.json"), &json)?;
    let path = dir.join(name(step));
    if path.exists() {
        fs::remove_dir_all(&path).map_err(os("remove", &path))?;
    }
    fs::rename(&unfinished, &path).map_err(os("rename into", &path))?;
    prune(dir, keep, best)?;
    Ok(path)
}

fn prune(dir: &Path, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
    let steps = list(dir)?;
    let old = steps.len().saturating_sub(keep.max(1));
    for &step in steps[..old].iter().filter(|s| Some(**s) != best) {
        let path = dir.join(name(step));
        fs::remove_dir_all(&path).map_err(os("remove", &path))?;
    }
    Ok(())
}

/// Reads the checkpoint after `step` steps into `params` and `adam`; returns the run's state.
pub fn load(dir: &Path, step: u64, params: &mut Params, adam: &mut AdamW) -> Result<Value, TrainError> {
    let path = dir.join(name(step));
    let json = read_bounded(&path.join("manifest.json"), 1 << 20)?;
    let manifest: Manifest =
        serde_json::from_slice(&json).map_err(|e| bad(&path, format!("manifest.json is damaged: {e}")))?;
    for file in FILES {
        let Some((_, length, hash)) = manifest.files.iter().find(|f| f.0 == file) else {
            return Err(bad(&path, format!("the manifest does not name {file}")));
        };
        let bytes = read_bounded(&path.join(file), MAX_FILE)?;
        if bytes.len() as u64 != *length || ContentHash::of(&bytes) != *hash {
            return Err(bad(
                &path,
                format!("{file} is not the file that was written ({length} bytes, {hash})"),
            ));
        }
    }
    let json = read_bounded(&path.join("state.json"), MAX_FILE)?;
    let state: State = serde_json::from_slice(&json).map_err(|e| bad(&path, format!("state.json: {e}")))?;
    if state.step != step {
        return Err(bad(&path, format!("its state is that of step {}", state.step)));
    }
    let named = trainable(params);
    let values = Weights::open(&path.join("params.safetensors"))?;
    let stored: Vec<&str> = values.names().collect();
    let wanted = |name: &str| named.iter().any(|(_, n)| n == name);
    if stored.len() != named.len() || !stored.iter().all(|n| wanted(n)) {
        let odd = stored.iter().find(|n| !wanted(n)).map_or_else(
            || named.iter().find(|(_, n)| !stored.contains(&n.as_str())).map(|(_, n)| n.clone()),
            |n| Some((*n).to_owned()),
        );
        let what = format!("other parameters are trained now ({})", odd.unwrap_or_default());
        return Err(bad(&path, what));
    }
    for (id, name) in &named {
        params.set_value(*id, values.tensor(name)?)?;
    }
    let optimizer = Weights::open(&path.join("optimizer.safetensors"))?;
    for (name, steps) in &state.moments {
        let Some((id, _)) = named.iter().find(|(_, n)| n == name) else {
            return Err(bad(&path, format!("it has moments of {name}, which is not trained")));
        };
        let moment = |part: &str| -> Result<Tensor, TrainError> {
            Ok(optimizer.tensor(&format!("{name}/{part}"))?.to_dtype(DType::F32))
        };
        let moments = Moments { step: *steps, exp_avg: moment("m")?, exp_avg_sq: moment("v")? };
        adam.set_moments(params, *id, moments)?;
    }
    Ok(state.run)
}
