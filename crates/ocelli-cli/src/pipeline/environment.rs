//! What a run ran on, and which data it saw: `environment.json`.

use ocelli_data::ContentHash;
use ocelli_data::io::read_bounded;
use serde_json::{Map, Value, json};

use super::config::{Kind, Pipeline, Stage};
use super::store::Store;
use crate::machine;

/// Largest executable that is hashed, in bytes.
const MAX_PROGRAM: u64 = 4 << 30;

/// The content of this program, so that what another build has made can be told; empty where it cannot be read.
pub(super) fn build() -> String {
    let read = std::env::current_exe().ok().and_then(|path| read_bounded(&path, MAX_PROGRAM).ok());
    read.map_or_else(String::new, |bytes| ContentHash::of(&bytes).short())
}

/// The machine, the build, and the content hash of the data and of the models that the first `upto` stages began with.
pub(super) fn describe(config: &Pipeline, store: &Store, upto: usize, build: &str) -> anyhow::Result<String> {
    let (mut data, mut models) = (Map::new(), Map::new());
    for (name, stage) in config.stage.iter().take(upto) {
        let Some(done) = store.done(name)? else { continue };
        let from_outside = matches!(stage, Stage::Model(_) | Stage::Assemble(_));
        match stage.puts_out() {
            Kind::Questions => drop(data.insert(name.clone(), done.output.into())),
            Kind::Model if from_outside => drop(models.insert(name.clone(), done.output.into())),
            _ => {}
        }
    }
    let memory = machine::memory();
    // Set where a release is built. A build script that asked git would compile the program anew after every commit; which build
    // it is, `program` says in any case.
    let commit: Option<&str> = option_env!("OCELLI_COMMIT");
    let found = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit,
        "program": build,
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "processor": machine::processor(),
        "vector_units": machine::vector_units().iter().filter(|u| u.1).map(|u| u.0).collect::<Vec<_>>(),
        "kernels": ocelli_tensor::kernels(),
        "threads": machine::threads(),
        "memory_mib": memory.map(|m| m.total),
        "seed": config.seed,
        "data": Value::Object(data),
        "models": Value::Object(models),
    });
    Ok(format!("{found:#}\n"))
}
