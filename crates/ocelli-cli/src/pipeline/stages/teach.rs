//! Data made by rolling out: trajectories that teach, and preference pairs.

use std::collections::HashMap;
use std::sync::Arc;

use ocelli_agent::filters::filter;
use ocelli_data::io::write_jsonl;
use ocelli_data::run::Fact;
use ocelli_data::{PreferencePair, Sample, ToolUse, Trajectory};
use ocelli_model::vlm::Vlm;
use ocelli_reward::{Accuracy, Scorer};
use ocelli_train::hybrid_reward::{Judge, RewardSpec};
use ocelli_train::pairs::corrupted;
use ocelli_train::preferences::{from_samples, without_picture};

use super::{Ended, Lab};
use crate::pipeline::config::{Pairs, Trajectories};

/// Seed of draws that a configuration does not name.
const SEED: u64 = 0x7EAC;
/// Rows of one forward pass of a judge.
const ROWS: usize = 4096;

fn judge(t: &mut Trajectory, sample: &Sample) {
    let accuracy = Accuracy::default();
    let score = accuracy.score(t, &sample.target);
    t.scores.push((accuracy.name().to_owned(), score));
}

/// `group` answers of a model to each question, scored for accuracy.
fn answers(
    lab: &Lab<'_>,
    model: &Vlm,
    samples: &[Arc<Sample>],
    group: u32,
    tools: bool,
) -> anyhow::Result<Vec<Vec<Trajectory>>> {
    let groups = lab.rollouts(model)?.run(model, samples, group, lab.seed(SEED), 0, None, tools)?;
    let scored = groups.into_iter().zip(samples).map(|(group, sample)| {
        let trajectories = group.into_iter().map(|ended| {
            let mut t = ended.trajectory;
            judge(&mut t, sample);
            t
        });
        trajectories.collect()
    });
    Ok(scored.collect())
}

/// `trajectories.jsonl`: dialogues with real tools that passed all filters.
pub(super) fn trajectories(lab: &Lab<'_>, name: &str, stage: &Trajectories) -> anyhow::Result<Ended> {
    let samples = lab.samples(&stage.questions)?;
    let model = lab.model(&stage.model)?;
    let mut made: Vec<Trajectory> = match &stage.oracle {
        None => answers(lab, &model, &samples, stage.group, stage.tools)?.into_iter().flatten().collect(),
        Some(oracle) => {
            let mut made = lab.rollouts(&model)?.oracle(&samples, oracle)?;
            // Those that came to nothing are left out, so order alone does not tell which question is which.
            let by_id: HashMap<&str, &Sample> = samples.iter().map(|s| (s.id.as_str(), s.as_ref())).collect();
            for t in &mut made {
                if let Some(sample) = by_id.get(t.sample_id.as_str()) {
                    judge(t, sample);
                }
            }
            made
        }
    };
    let accuracy = Accuracy::default();
    let (kept, report) = filter(&made, &stage.filters, accuracy.name());
    let mut kept: Vec<Trajectory> = kept.into_iter().cloned().collect();
    // How long a tool took teaches nothing, and would make the file differ from run to run.
    kept.iter_mut().flat_map(|t| &mut t.tools).for_each(ToolUse::forget_times);
    let calls: usize = kept.iter().map(|t| t.tools.len()).sum();
    let seen = samples.len() * stage.group.max(1) as usize;
    made.clear();
    anyhow::ensure!(
        !kept.is_empty(),
        "none of {seen} trajectories passed the filters; refused by each: {:?}",
        report.refused
    );
    write_jsonl(&lab.store.dir(name).join("trajectories.jsonl"), &kept)?;
    let section = format!("Trajectories: {name}");
    let refused = report.refused.iter().filter(|(_, n)| **n > 0).map(|(filter, n)| {
        let text = serde_json::to_value(filter).ok();
        let text = text.as_ref().and_then(|v| v.as_str()).unwrap_or("a filter").to_owned();
        Fact { section: section.clone(), name: format!("refused by {text}"), text: n.to_string() }
    });
    let kept_fact =
        Fact { section: section.clone(), name: "kept".into(), text: format!("{} of {seen}", kept.len()) };
    let facts = std::iter::once(kept_fact).chain(refused).collect();
    Ok(Ended::Done { outcome: format!("{} of {seen} kept, {calls} tool calls", kept.len()), facts })
}

/// `pairs.jsonl`: right against wrong answers of the model, and the oracle's against a wrong one.
pub(super) fn pairs(lab: &Lab<'_>, name: &str, stage: &Pairs) -> anyhow::Result<Ended> {
    let questions = lab.questions(&stage.questions)?;
    let samples: Vec<Arc<Sample>> = questions.iter().map(|q| Arc::new(q.sample.clone())).collect();
    let mut rows: Vec<PreferencePair> = Vec::new();
    let model = lab.model(&stage.model)?;
    if stage.group > 0 {
        let rollouts = lab.rollouts(&model)?;
        let judge = Judge::new(&RewardSpec::default(), None, ROWS)?;
        let by = (&judge, &stage.rule, "verifier");
        rows = from_samples(&model, &rollouts, &samples, stage.group, stage.tools, by, lab.seed(SEED))?;
    }
    let sampled = rows.len();
    if stage.corrupted {
        let mut pool: Vec<String> =
            questions.iter().filter_map(|q| Some(q.oracle.as_ref()?.1.clone())).collect();
        pool.sort();
        pool.dedup();
        for (i, question) in questions.iter().enumerate() {
            let Some((_, answer)) = &question.oracle else { continue };
            rows.extend(corrupted(&question.sample, answer, &pool, lab.seed(SEED) ^ i as u64));
        }
    }
    if stage.without_picture {
        let good = questions.iter().zip(&samples);
        let good: Vec<(Arc<Sample>, String)> =
            good.filter_map(|(q, s)| Some((s.clone(), q.oracle.as_ref()?.1.clone()))).collect();
        rows.extend(without_picture(&model, &good, lab.config.rollout.limits.turn_tokens)?);
    }
    anyhow::ensure!(
        !rows.is_empty(),
        "no pair came out of {} questions: the model's answers to each were all right or all wrong; \
         raise `group` or set corrupted = true",
        questions.len()
    );
    write_jsonl(&lab.store.dir(name).join("pairs.jsonl"), &rows)?;
    let made = rows.len() - sampled;
    Ended::done(format!(
        "{} pairs: {sampled} of the model's answers, {made} of the oracle's answers",
        rows.len()
    ))
}
