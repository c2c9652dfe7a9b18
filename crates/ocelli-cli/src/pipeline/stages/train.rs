//! The training stages: what the loops of `ocelli-train` need, from the stages before.

use ocelli_data::run::Fact;
use ocelli_eval::stats;
use ocelli_model::vlm::Vlm;
use ocelli_train::calibrate::{operating_points, threshold_for};
use ocelli_train::grpo::{self, GrpoInputs};
use ocelli_train::pairs::Pair;
use ocelli_train::reward_model::{self, score_pairs};
use ocelli_train::run::Outcome;
use ocelli_train::{mpo as mpo_loop, sft as sft_loop};

use super::{Ended, Lab};
use crate::pipeline::config::{Grpo, Mpo, Reward, Sft};
use crate::watch::Watch;

/// Rows of one forward pass when pairs are scored outside a loop.
const ROWS: usize = 4096;
/// Precision that a calibrated threshold must reach, and answers that it must keep.
const PRECISION: f64 = 0.9;
const LEAST: usize = 16;

fn metric(outcome: &Outcome, name: &str) -> Option<f64> {
    outcome.metrics.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
}

fn fact(section: &str, name: &str, text: impl Into<String>) -> Fact {
    Fact { section: section.into(), name: name.into(), text: text.into() }
}

/// A metric for people: whole numbers whole, small ones not rounded to nothing.
fn number(v: f64) -> String {
    match v {
        v if v.fract() == 0.0 && v.abs() < 1e9 => format!("{v:.0}"),
        v if v.abs() < 1e-3 => format!("{v:.1e}"),
        v => format!("{v:.4}"),
    }
}

/// An ended loop as a stage: what is said of it, and the metrics that are facts of the report.
fn ended(
    outcome: &Outcome,
    said: String,
    mut facts: Vec<Fact>,
    section: &str,
    shown: &[(&str, &str)],
) -> Ended {
    if outcome.interrupted {
        return Ended::Interrupted;
    }
    for (name, label) in shown {
        facts.extend(metric(outcome, name).map(|v| fact(section, label, number(v))));
    }
    if outcome.alarms > 0 {
        facts.push(fact(section, "alarms", outcome.alarms.to_string()));
    }
    Ended::Done { outcome: said, facts }
}

fn loss(outcome: &Outcome) -> String {
    let held_out = metric(outcome, "eval/loss").map_or(String::new(), |l| format!(", held-out loss {l:.4}"));
    let last = metric(outcome, "loss").map_or(String::new(), |l| format!(", loss {l:.4}"));
    format!("{} steps{last}{held_out}", outcome.steps)
}

pub(super) fn sft(lab: &Lab<'_>, name: &str, stage: &Sft, watch: &mut Watch<'_>) -> anyhow::Result<Ended> {
    let model = lab.model(&stage.model)?;
    let train = lab.responses(&model, &stage.data, stage.reasons)?;
    let held_out = lab.responses(&model, &stage.held_out, stage.reasons)?;
    let mut config = stage.train.clone();
    config.run.seed = lab.seed(config.run.seed);
    let (_, outcome) = sft_loop::run(&config, model, &train, &held_out, &lab.store.dir(name), watch)?;
    let shown = [("eval/loss", "held-out loss per token"), ("eval/perplexity", "held-out perplexity")];
    Ok(ended(&outcome, loss(&outcome), Vec::new(), &format!("Supervised: {name}"), &shown))
}

fn pairs(lab: &Lab<'_>, model: &Vlm, stages: &[String]) -> anyhow::Result<Vec<Pair>> {
    Ok(lab.data(stages)?.pairs(model)?)
}

pub(super) fn reward(
    lab: &Lab<'_>,
    name: &str,
    stage: &Reward,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Ended> {
    let model = lab.model(&stage.model)?;
    let train = pairs(lab, &model, &stage.pairs)?;
    let held_out = pairs(lab, &model, &stage.held_out)?;
    let mut config = stage.train.clone();
    config.run.seed = lab.seed(config.run.seed);
    let (_, outcome) = reward_model::run(&config, model, &train, &held_out, &lab.store.dir(name), watch)?;
    let section = format!("Reward model: {name}");
    let mut facts = Vec::new();
    let mut said = loss(&outcome);
    if let Some(accuracy) = metric(&outcome, "eval/accuracy") {
        let n = held_out.len();
        let interval = stats::wilson((accuracy * n as f64).round() as u64, n as u64, 0.95)?;
        let text = format!("{accuracy:.3} [{:.3}, {:.3}] of {n} held-out pairs", interval.low, interval.high);
        said += &format!(", pair accuracy {text}");
        facts.push(fact(&section, "pair accuracy", text));
    }
    let shown = [
        ("eval/margin", "mean margin"),
        ("eval/ece", "calibration error"),
        ("eval/accuracy_chosen_longer", "accuracy where the better answer is longer"),
        ("eval/accuracy_chosen_shorter", "accuracy where the better answer is shorter"),
    ];
    Ok(ended(&outcome, said, facts, &section, &shown))
}

pub(super) fn mpo(lab: &Lab<'_>, name: &str, stage: &Mpo, watch: &mut Watch<'_>) -> anyhow::Result<Ended> {
    let model = lab.model(&stage.model)?;
    let train = pairs(lab, &model, &stage.pairs)?;
    let held_out = pairs(lab, &model, &stage.held_out)?;
    let mut config = stage.train.clone();
    config.run.seed = lab.seed(config.run.seed);
    let (_, outcome) = mpo_loop::run(&config, model, &train, &held_out, &lab.store.dir(name), watch)?;
    let shown = [("eval/accuracy", "held-out implicit reward accuracy"), ("eval/loss", "held-out loss")];
    Ok(ended(&outcome, loss(&outcome), Vec::new(), &format!("MPO: {name}"), &shown))
}

pub(super) fn grpo(lab: &Lab<'_>, name: &str, stage: &Grpo, watch: &mut Watch<'_>) -> anyhow::Result<Ended> {
    let mut config = stage.train.clone();
    config.rollout = lab.config.rollout.clone();
    config.run.seed = lab.seed(config.run.seed);
    let model = lab.model(&stage.model)?;
    let reward_model = stage.reward_model.as_deref().map(|m| lab.model(m)).transpose()?;
    let section = format!("GRPO: {name}");
    let mut facts = Vec::new();
    if let (Some(judge), Some(on), Some(enters)) = (&reward_model, &stage.calibrate, &mut config.reward.model)
    {
        let (threshold, text) = calibrated(lab, judge, on)?;
        enters.threshold = threshold;
        facts.push(fact(&section, "reward threshold", text));
    }
    let train = lab.samples(&stage.questions)?;
    let held_out = stage.held_out.as_deref().map(|q| lab.samples(q)).transpose()?.unwrap_or_default();
    let inputs = GrpoInputs {
        model,
        train: &train,
        held_out: &held_out,
        pictures: lab.pictures.clone(),
        toolbox: lab.toolbox.clone().filter(|_| stage.tools),
        reward_model: reward_model.as_ref(),
    };
    let dir = lab.store.dir(name);
    let (_, outcome) = grpo::run(&config, inputs, &dir, watch)?;
    let reward = metric(&outcome, "reward").map_or(String::new(), |r| format!(", reward {r:.3}"));
    let accuracy =
        metric(&outcome, "eval/accuracy").map_or(String::new(), |a| format!(", held-out accuracy {a:.3}"));
    let shown = names_of(&outcome);
    let shown: Vec<(&str, &str)> = shown.iter().map(|n| (n.as_str(), n.as_str())).collect();
    Ok(ended(&outcome, format!("{} steps{reward}{accuracy}", outcome.steps), facts, &section, &shown))
}

/// Metrics of the buffer, the tools and the monitors, as they stand at the end.
fn names_of(outcome: &Outcome) -> Vec<String> {
    let wanted = ["buffer/", "groups/", "mismatch/", "policy/", "image/", "tools/", "eval/tool_"];
    let names = outcome.metrics.iter().map(|(n, _)| n);
    names.filter(|n| wanted.iter().any(|w| n.starts_with(w))).cloned().collect()
}

/// The threshold on a reward model's scores from which on nine of ten answers are the better of their pair; the median
/// of all scores where none does.
fn calibrated(lab: &Lab<'_>, judge: &Vlm, on: &str) -> anyhow::Result<(f64, String)> {
    let pairs = pairs(lab, judge, &[on.to_owned()])?;
    let scored = score_pairs(judge, &pairs, ROWS)?;
    let mut scores = Vec::with_capacity(scored.len() * 2);
    let mut right = Vec::with_capacity(scored.len() * 2);
    for (pair, _) in &scored {
        scores.extend([pair.chosen, pair.rejected]);
        right.extend([true, false]);
    }
    if let Some(found) = threshold_for(&operating_points(&scores, &right)?, PRECISION, LEAST) {
        let text =
            format!("{:.3} (precision {:.2}, recall {:.2})", found.threshold, found.precision, found.recall);
        return Ok((found.threshold, text));
    }
    scores.sort_by(f64::total_cmp);
    let median = scores.get(scores.len() / 2).copied().unwrap_or(0.0);
    Ok((median, format!("{median:.3} (the median: no threshold reaches precision {PRECISION})")))
}
