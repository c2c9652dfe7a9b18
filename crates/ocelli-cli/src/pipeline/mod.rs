//! A pipeline: stages declared in one file, each done once, each resumable, ending in one report.
//!
//! ```text
//! runs/charts/
//!   config.toml                    the configuration as it ran
//!   environment.json               version, processor, threads, memory
//!   blobs/                         pictures by content hash
//!   stages/<stage>/done.json       key of the inputs, hash of the outputs, seconds, what came out
//!   stages/<stage>/...             questions.jsonl, trajectories.jsonl, pairs.jsonl, model/, items/, metrics.jsonl
//!   summary.json items/ samples.jsonl metrics.jsonl report.html      what people and programs read
//! ```
//!
//! A stage is skipped when its key is the one it was done with: the version of the program, its own settings, and the
//! content hash of what each stage that it names has put out. A stage that was killed goes on (training) or begins anew
//! (everything else); both give the numbers of an uninterrupted run.

mod config;
mod estimate;
mod find;
mod order;
mod stages;
mod store;
mod summary;

pub(crate) use config::Pipeline;
pub(crate) use estimate::estimate;
pub(crate) use find::find;
pub(crate) use order::check;
pub(crate) use summary::table;

use std::path::PathBuf;
use std::time::Instant;

use ocelli_data::io::write_atomic;

use crate::pipeline::stages::{Ended, Lab};
use crate::pipeline::store::{Done, State, Store};
use crate::ui::Ui;
use crate::watch::Watch;

/// How a pipeline ended.
pub(crate) enum Outcome {
    /// All stages are done; the page is there.
    Finished(PathBuf),
    /// Ctrl-C; the stage that was under way has saved what it had.
    Interrupted(String),
}

/// Runs what is not done yet, then writes summary and report.
pub(crate) fn run(config: &Pipeline, ui: &Ui, watch: &mut Watch<'_>) -> anyhow::Result<Outcome> {
    check(config)?;
    let store = Store::new(&config.out);
    write_atomic(&config.out.join("config.toml"), toml::to_string_pretty(config)?.as_bytes())?;
    write_atomic(&config.out.join("environment.json"), environment(config)?.as_bytes())?;
    let lab = Lab::new(config, &store, ui)?;
    let total = config.stage.len();
    for (n, (name, stage)) in config.stage.iter().enumerate() {
        let key = order::key(config, &store, name)?;
        let place = format!("{:>2}/{total} {name}", n + 1);
        if stage.always_runs() {
            store.begin(name, &key)?;
        } else if let State::Done(done) = store.state(name, &key)? {
            ui.note(&format!("{place}: unchanged ({})", done.outcome));
            continue;
        }
        store.begin(name, &key)?;
        ui.note(&format!("{place}: {}", stage.says()));
        let began = Instant::now();
        let ended = stages::run(&lab, name, stage, watch);
        watch.finish();
        match ended.map_err(|e| e.context(format!("in stage `{name}`")))? {
            Ended::Interrupted => return Ok(Outcome::Interrupted(name.clone())),
            Ended::Done { outcome, facts } => {
                let seconds = began.elapsed().as_secs_f64() + store.seconds_before(name)?;
                ui.note(&format!("{:>width$}  {outcome} ({seconds:.1} s)", "", width = place.len()));
                let output = store.output(name, stage)?;
                store.finish(name, &Done { key, output, seconds, outcome, facts })?;
            }
        }
        if watch.stopped() {
            return Ok(Outcome::Interrupted(name.clone()));
        }
    }
    Ok(Outcome::Finished(summary::write(config, &store)?))
}

/// What the run ran on.
fn environment(config: &Pipeline) -> anyhow::Result<String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "threads": threads,
        "seed": config.seed,
    });
    Ok(format!("{found:#}\n"))
}
