//! What a run will take, before it runs: one measured step of each model that the file begins with, on the first
//! questions, scaled by the amounts that the configuration asks for.

use std::collections::HashMap;

use ocelli_train::rollouts::OracleConfig;
use ocelli_train::sources::ModelSource;

use super::config::{Pipeline, Stage};
use super::order::key;
use super::stages::Lab;
use super::stages::probe::{Measured, Probe, measure};
use super::store::{State, Store};
use crate::ui::Ui;
use crate::watch::peak_memory;

/// A pair of answers behind one prompt costs about this many single answers, and so does each further answer of a group:
/// the picture is most of a sequence and is there once.
const SECOND_ANSWER: f64 = 0.3;

/// One line of the plan.
pub(crate) struct Line {
    pub(crate) stage: String,
    pub(crate) says: &'static str,
    /// `unchanged`, `goes on` or `to do`.
    pub(crate) state: &'static str,
    /// Seconds from the beginning, where they can be told.
    pub(crate) seconds: Option<f64>,
}

/// The whole plan.
pub(crate) struct Plan {
    pub(crate) lines: Vec<Line>,
    /// Memory that the run will want in MiB, where the system tells: what a pass as large as the largest took, with the
    /// optimizer and a second model beside it.
    pub(crate) memory: Option<u64>,
}

/// Measures and scales. Stages behind one that is to do are to do themselves, unless it comes out as before.
pub(crate) fn estimate(config: &Pipeline, ui: &Ui) -> anyhow::Result<Plan> {
    let lab_store = Store::new(&config.out);
    let lab = Lab::new(config, &lab_store, ui)?;
    super::fit::check(config, lab.toolbox(), config.stage.keys().map(String::as_str))?;
    let first_data =
        config.stage.values().find_map(|s| if let Stage::Questions(q) = s { Some(q) } else { None });
    let mut measured: HashMap<&str, Measured> = HashMap::new();
    for (name, stage) in &config.stage {
        let source = match stage {
            Stage::Model(m) => m.clone(),
            // With a new tower of the usual size: the tower of a stage that has not run is not there yet, and it costs little
            // beside the language model.
            Stage::Assemble(a) => {
                ModelSource { language: Some(a.language.clone()), ..ModelSource::default() }
            }
            _ => continue,
        };
        if let Some(data) = first_data {
            let probe = Probe {
                model: &source,
                from: &data.from,
                rollout: &config.rollout,
                toolbox: lab.toolbox().cloned(),
                oracle: oracle(config, name),
                largest: largest(config, name),
            };
            measured.insert(name, measure(&probe)?);
        }
    }
    let kept = measured.values().map(|m| m.kept).max().unwrap_or(0) >> 20;
    let store = Store::new(&config.out);
    let mut lines = Vec::with_capacity(config.stage.len());
    for (name, stage) in &config.stage {
        let state = match store.state(name, stage, &key(config, &store, name)?)? {
            State::Done(_) if stage.always_runs() => "to do",
            State::Done(_) => "unchanged",
            State::Begun => "goes on",
            State::New | State::Changed | State::Altered(_) => "to do",
        };
        let seconds = seconds(config, name, &measured).filter(|_| state != "unchanged");
        lines.push(Line { stage: name.clone(), says: stage.says(), state, seconds });
    }
    Ok(Plan { lines, memory: peak_memory().map(|peak| peak + kept) })
}

/// Number of questions of a stage, where the configuration says it.
fn count(config: &Pipeline, stage: &str) -> Option<f64> {
    let Some(Stage::Questions(q)) = config.stage.get(stage) else { return None };
    let drawn = q.from.world.as_ref().map(|w| w.count as f64);
    let limit = q.from.limit.map(|l| l as f64);
    match (drawn, limit) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The oracle of the first stage that has one and speaks to the model of `name`.
fn oracle(config: &Pipeline, name: &str) -> Option<OracleConfig> {
    config.stage.iter().find_map(|(stage, s)| match s {
        Stage::Trajectories(t) if root(config, stage) == Some(name) => t.oracle,
        _ => None,
    })
}

/// Examples and rows of the largest pass among the stages that train the model of `name`.
fn largest(config: &Pipeline, name: &str) -> (usize, usize) {
    let of = |(stage, s): (&String, &Stage)| {
        let size = match s {
            Stage::Sft(s) => (s.train.batch, s.train.rows),
            Stage::Reward(r) => (2 * r.train.batch, r.train.rows),
            Stage::Mpo(m) => (2 * m.train.batch, m.train.rows),
            Stage::Grpo(g) => (g.train.prompts * g.train.group as usize, g.train.rows),
            _ => return None,
        };
        (root(config, stage) == Some(name)).then_some(size)
    };
    let all = || config.stage.iter().filter_map(of);
    (all().map(|s| s.0).max().unwrap_or(1), all().map(|s| s.1).max().unwrap_or(1))
}

/// The stage that the model of `name` was begun by.
pub(super) fn root<'a>(config: &'a Pipeline, mut name: &'a str) -> Option<&'a str> {
    // A stage only names earlier ones, so this ends.
    while let Some(before) = config.stage.get(name)?.goes_on_from() {
        name = before;
    }
    Some(name)
}

fn seconds(config: &Pipeline, name: &str, measured: &HashMap<&str, Measured>) -> Option<f64> {
    let stage = config.stage.get(name)?;
    let of = |name: &str| measured.get(root(config, name)?).copied();
    if let Stage::Evaluate(e) = stage {
        let models = e.arms.iter().filter_map(|a| Some((a.model.as_deref()?, a.tools.ways().len())));
        let per_question: Option<f64> = models.map(|(m, ways)| Some(of(m)?.answered * ways as f64)).sum();
        return Some(count(config, &e.questions)? * per_question?);
    }
    if matches!(stage, Stage::Questions(_) | Stage::Model(_) | Stage::Assemble(_)) {
        return Some(1.0);
    }
    let m = of(name)?;
    let pair = m.learned * (1.0 + SECOND_ANSWER);
    Some(match stage {
        Stage::Questions(_) | Stage::Model(_) | Stage::Assemble(_) | Stage::Evaluate(_) => return None,
        Stage::Trajectories(t) if t.oracle.is_some() => count(config, &t.questions)? * m.shown?,
        Stage::Trajectories(t) => count(config, &t.questions)? * f64::from(t.group) * m.answered,
        Stage::Pairs(p) => count(config, &p.questions)? * f64::from(p.group) * m.answered,
        Stage::Sft(s) => s.train.run.steps as f64 * s.train.batch as f64 * m.learned,
        Stage::Reward(r) => {
            let staged: u64 = r.train.stages.iter().map(|s| s.steps).sum();
            let steps = if r.train.stages.is_empty() { r.train.run.steps } else { staged };
            steps as f64 * r.train.batch as f64 * pair
        }
        Stage::Mpo(p) => p.train.run.steps as f64 * p.train.batch as f64 * pair,
        Stage::Grpo(g) => {
            let groups = g.train.run.steps as f64 * g.train.prompts as f64;
            let size = f64::from(g.train.group);
            groups * (size * m.answered + m.learned * (1.0 + SECOND_ANSWER * (size - 1.0)))
        }
    })
}
