//! Whether a question, with its picture and the tools that are listed before it, leaves room for an answer in the context that
//! rollouts may take. Looked at before the first stage begins, with models that are drawn or read from a checkpoint; one that is
//! assembled in the run itself is not there yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use anyhow::{Context, ensure};
use ocelli_agent::toolbox::Toolbox;
use ocelli_model::vlm::Vlm;

use super::config::{Pipeline, Stage};
use super::estimate::root;
use super::stages::probe::prompt;

/// What a stage rolls out: model, questions, and whether tools are listed.
fn rolled_out(stage: &Stage) -> Vec<(&str, &str, bool)> {
    match stage {
        Stage::Trajectories(t) => vec![(&t.model, &t.questions, stage.has_tools())],
        Stage::Pairs(p) if p.group > 0 => vec![(&p.model, &p.questions, p.tools)],
        Stage::Grpo(g) => vec![(&g.model, &g.questions, g.tools)],
        Stage::Evaluate(e) => e
            .arms
            .iter()
            .filter_map(|a| {
                let questions = a.questions.as_deref().unwrap_or(&e.questions);
                Some((a.model.as_deref()?, questions, a.tools.ways().contains(&true)))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Refuses a context that the first question of a stage fills by itself.
pub(super) fn check<'a>(
    config: &'a Pipeline,
    toolbox: Option<&Arc<dyn Toolbox>>,
    stages: impl Iterator<Item = &'a str>,
) -> anyhow::Result<()> {
    // With instructions the tools are told in another place; what is counted then is the least that a prompt takes.
    let listed = toolbox.filter(|_| !config.rollout.tools.instructions);
    let mut models: HashMap<&str, Vlm> = HashMap::new();
    let mut seen: HashMap<(&str, &str, bool), Option<(String, usize)>> = HashMap::new();
    for name in stages {
        let Some(stage) = config.stage.get(name) else { continue };
        for (model, questions, tools) in rolled_out(stage) {
            let Some(first) = root(config, model) else { continue };
            let (Some(Stage::Model(source)), Some(Stage::Questions(q))) =
                (config.stage.get(first), config.stage.get(questions))
            else {
                continue;
            };
            let found = match seen.entry((first, questions, tools)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let model = match models.entry(first) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(place) => {
                            let read = source.load().with_context(|| format!("stage `{first}`"))?;
                            place.insert(read)
                        }
                    };
                    let taken = prompt(model, &q.from, q.text_only, listed.filter(|_| tools))
                        .with_context(|| format!("stage `{questions}`"))?;
                    place.insert(taken)
                }
            };
            if let Some((question, tokens)) = found {
                let room = config.rollout.limits.context;
                ensure!(
                    *tokens < room,
                    "stage `{name}`: question {question} alone takes {tokens} tokens, with its picture and what stands before \
                     it, and `rollout.limits.context` is {room}: no answer would fit"
                );
            }
        }
    }
    Ok(())
}
