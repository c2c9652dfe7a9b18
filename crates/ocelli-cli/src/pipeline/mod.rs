//! A pipeline: stages declared in one file, each done once, each resumable, ending in one report.
//!
//! ```text
//! runs/charts/
//!   config.toml                    the configuration as it ran
//!   environment.json               version and build, processor, threads, memory, hashes of the data
//!   run.lock                       held by the process at work
//!   blobs/                         pictures by content hash
//!   stages/<stage>/done.json       key of the inputs, hash of the outputs, seconds, what came out
//!   stages/<stage>/...             questions.jsonl, trajectories.jsonl, pairs.jsonl, model/, items/, metrics.jsonl
//!   summary.json items/ samples.jsonl metrics.jsonl report.html      what people and programs read
//! ```
//!
//! A stage is skipped when its key is the one it was done with: the version of the program, its own settings, and the
//! content hash of what each stage that it names has put out; and when its files are still what they were. A stage that was
//! killed goes on (training) or begins anew (everything else); both give the numbers of an uninterrupted run. One that another
//! build of the same version has made is used, and told of.

mod config;
mod environment;
mod estimate;
mod find;
mod fit;
mod order;
mod settings;
mod stages;
mod store;
mod summary;

pub(crate) use config::Pipeline;
pub(crate) use estimate::estimate;
pub(crate) use find::find;
pub(crate) use order::check;
pub(crate) use summary::{results, table};

use std::path::PathBuf;

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

/// Runs what is not done yet, or with `fresh` everything, then writes summary and report.
pub(crate) fn run(config: &Pipeline, ui: &Ui, watch: &mut Watch<'_>, fresh: bool) -> anyhow::Result<Outcome> {
    check(config)?;
    let store = Store::new(&config.out);
    let lab = Lab::new(config, &store, ui)?;
    let mut to_do = Vec::new();
    for (name, stage) in &config.stage {
        if !matches!(store.state(name, stage, &order::key(config, &store, name)?)?, State::Done(_)) {
            to_do.push(name.as_str());
        }
    }
    fit::check(config, lab.toolbox(), to_do.into_iter())?;
    let lock = store.lock()?;
    if lock.is_none() {
        let place = config.out.display();
        ui.note(&format!(
            "{place}: the file system has no locks; take care that no other `ocelli run` works there"
        ));
    }
    if fresh && store.forget()? {
        ui.note("everything that was done before is removed, as --fresh asks");
    }
    let build = environment::build();
    begin(config, &store, &build)?;
    let total = config.stage.len();
    let mut foreign = Vec::new();
    for (n, (name, stage)) in config.stage.iter().enumerate() {
        let key = order::key(config, &store, name)?;
        let place = format!("{:>2}/{total} {name}", n + 1);
        let state = store.state(name, stage, &key)?;
        match &state {
            State::Done(done) if !stage.always_runs() => {
                ui.note(&format!("{place}: unchanged ({})", done.outcome));
                if done.build != build {
                    foreign.push(name.as_str());
                }
                continue;
            }
            State::Changed if !stage.always_runs() => ui.note(&format!(
                "{place}: its settings, or what it uses, are not what they were; what it had made is removed"
            )),
            State::Altered(what) => ui.note(&format!("{place}: {what} since it was made; it is made again")),
            _ => {}
        }
        let before = if let State::Done(done) = &state { Some(done.output.clone()) } else { None };
        // Results of an earlier run do not stand beside stages that are made anew.
        if before.is_none() {
            summary::unfinished(config, &store, n, &build)?;
        }
        store.begin(name, &key, &state)?;
        ui.note(&format!("{place}: {}", stage.says()));
        let (ended, seconds) = store.timed(name, || stages::run(&lab, name, stage, watch))?;
        watch.finish();
        match ended.map_err(|e| e.context(format!("in stage `{name}`")))? {
            Ended::Interrupted => return Ok(Outcome::Interrupted(name.clone())),
            Ended::Done { outcome, facts } => {
                ui.note(&format!("{:>width$}  {outcome} ({seconds:.1} s)", "", width = place.len()));
                let files = store.made(name, stage)?;
                let output = store.output(&files, stage);
                let other = before.is_some_and(|b| b != output);
                let done = Done { key, output, seconds, outcome, facts, files, build: build.clone() };
                store.finish(name, &done)?;
                if other {
                    summary::unfinished(config, &store, n, &build)?;
                }
            }
        }
        if watch.stopped() && n + 1 < total {
            return Ok(Outcome::Interrupted(name.clone()));
        }
    }
    if !foreign.is_empty() {
        ui.note(&format!(
            "made by another build of this program, with the same settings: {}; --fresh makes everything again",
            foreign.join(", ")
        ));
    }
    Ok(Outcome::Finished(summary::write(config, &store, &build)?))
}

/// Writes the configuration; where the directory holds another one, its results go first.
fn begin(config: &Pipeline, store: &Store, build: &str) -> anyhow::Result<()> {
    let path = config.out.join("config.toml");
    let text = toml::to_string_pretty(config)?;
    if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    summary::unfinished(config, store, 0, build)?;
    Ok(write_atomic(&path, text.as_bytes())?)
}
