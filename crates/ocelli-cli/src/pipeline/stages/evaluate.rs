//! Accuracy of every arm on the same questions, greedily.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocelli_data::io::{read_jsonl, write_atomic, write_jsonl};
use ocelli_data::run::{Arm, ItemResult};
use ocelli_data::{Message, Sample, Status, Target, ToolUse, Trajectory};
use ocelli_eval::stats;
use ocelli_reward::{Accuracy, Scorer};
use serde::{Deserialize, Serialize};

use super::{Ended, Lab};
use crate::pipeline::config::{ArmConfig, Evaluate, Stage};
use crate::watch::Watch;

/// Questions that are answered between two looks at the clock and at Ctrl-C.
const CHUNK: usize = 100;

/// An arm and its items, as `arms.json` lists them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ArmItems {
    pub(crate) arm: Arm,
    /// File name in `items/`.
    pub(crate) file: String,
}

/// A name for a file from a label: `SFT (text only)` becomes `sft-text-only`.
pub(crate) fn slug(label: &str) -> String {
    let mut out = String::new();
    for c in label.chars() {
        match c.is_ascii_alphanumeric() {
            true => out.push(c.to_ascii_lowercase()),
            false if !out.ends_with('-') && !out.is_empty() => out.push('-'),
            false => {}
        }
    }
    out.trim_end_matches('-').to_owned()
}

pub(super) fn run(
    lab: &Lab<'_>,
    name: &str,
    stage: &Evaluate,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Ended> {
    let dir = lab.store.dir(name);
    let mut arms: Vec<ArmItems> = Vec::new();
    let mut samples_of: Vec<Trajectory> = Vec::new();
    let mut said = Vec::new();
    let several = lab.config.stage.values().filter(|s| matches!(s, Stage::Evaluate(_))).count() > 1;
    for config in &stage.arms {
        for &tools in config.tools.ways() {
            let id = format!("{}{}", slug(&config.label), if tools { "-tools" } else { "" });
            let file = format!("{id}.jsonl");
            let path = dir.join("items").join(&file);
            let shown = dir.join("trajectories").join(&file);
            // An arm that an interrupted evaluation finished is not asked again.
            if !path.exists() {
                let Some((items, trajectories)) = arm(lab, stage, config, tools, watch)? else {
                    return Ok(Ended::Interrupted);
                };
                write_jsonl(&shown, &pick(&trajectories, stage.samples))?;
                write_jsonl(&path, &items)?;
            }
            let items: Vec<ItemResult> = read_jsonl(&path)?;
            let scores: Vec<f64> = items.iter().map(|i| i.score).collect();
            let accuracy = stats::proportion::<usize>(&scores, None, 0.95)?;
            let with = if tools { " + tools" } else { "" };
            watch.ui().note(&format!(
                "   {:<28} {:5.1} % [{:.1}, {:.1}]",
                format!("{}{with}", config.label),
                accuracy.mean * 100.0,
                accuracy.interval.low * 100.0,
                accuracy.interval.high * 100.0
            ));
            said.push(format!("{}{with} {:.1} %", config.label, accuracy.mean * 100.0));
            samples_of = read_jsonl(&shown)?;
            let set = if several { name.to_owned() } else { String::new() };
            arms.push(ArmItems {
                arm: Arm { id, label: config.label.clone(), tools, set, began_from: None },
                file,
            });
        }
    }
    write_jsonl(&dir.join("samples.jsonl"), &samples_of)?;
    write_atomic(&dir.join("arms.json"), serde_json::to_string_pretty(&arms)?.as_bytes())?;
    Ended::done(said.join(", "))
}

/// Trajectories to look at: right and wrong ones in turn, those with tools first.
fn pick(all: &[Trajectory], count: usize) -> Vec<Trajectory> {
    let right = |t: &&Trajectory| t.score("accuracy").is_some_and(|s| s.or_zero() >= 1.0);
    let (mut good, mut bad): (Vec<_>, Vec<_>) = all.iter().partition(right);
    good.sort_by_key(|t| t.tools.is_empty());
    bad.sort_by_key(|t| t.tools.is_empty());
    let longest = good.len().max(bad.len());
    let turns = (0..longest).flat_map(|i| [good.get(i), bad.get(i)]).flatten();
    turns.take(count).map(|t| (*t).clone()).collect()
}

type Answered = (Vec<ItemResult>, Vec<Trajectory>);

/// All items of an arm; `None` after Ctrl-C.
fn arm(
    lab: &Lab<'_>,
    stage: &Evaluate,
    config: &ArmConfig,
    tools: bool,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Option<Answered>> {
    let samples = lab.samples(config.questions.as_deref().unwrap_or(&stage.questions))?;
    let group = |s: &Sample| -> String {
        let column = stage.group_by.as_ref().and_then(|c| s.meta.get(c));
        column.map_or(String::new(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    let mut trajectories = Vec::with_capacity(samples.len());
    match &config.majority {
        Some(train) => {
            let counts = answers(lab, train, &group)?;
            trajectories.extend(
                samples.iter().map(|s| said(s, &commonest(s, counts.get(&group(s))).unwrap_or_default())),
            );
        }
        None => {
            let model = lab.model(config.model.as_deref().unwrap_or_default())?;
            let rollouts = lab.rollouts(&model)?;
            let bar = watch.ui().progress(samples.len() as u64, &config.label);
            for chunk in samples.chunks(CHUNK) {
                let ended = rollouts.run(&model, chunk, 1, lab.seed(0), 0, Some(0.0), tools)?;
                trajectories.extend(ended.into_iter().flatten().map(|e| e.trajectory));
                bar.inc(chunk.len() as u64);
                if watch.stopped() {
                    bar.finish_and_clear();
                    return Ok(None);
                }
            }
            bar.finish_and_clear();
        }
    }
    let accuracy = Accuracy::default();
    let mut items = Vec::with_capacity(samples.len());
    for (t, sample) in trajectories.iter_mut().zip(&samples) {
        t.tools.iter_mut().for_each(ToolUse::forget_times);
        let score = accuracy.score(t, &sample.target);
        items.push(ItemResult {
            id: sample.id.clone(),
            group: group(sample),
            score: score.or_zero(),
            answer: score.answer.clone().filter(|a| !a.is_empty()),
            status: serde_json::to_value(t.status)?.as_str().unwrap_or_default().to_owned(),
            tools: t.tools.iter().map(|u| u.call.name.clone()).filter(|n| !n.is_empty()).collect(),
            tokens: t.sampled_len(),
            expected: Some(sample.target.gold_text()).filter(|g| !g.is_empty()),
            chance: chance(sample),
        });
        t.scores.push((accuracy.name().to_owned(), score));
    }
    anyhow::ensure!(items.len() == samples.len(), "{} of {} questions came back", items.len(), samples.len());
    Ok(Some((items, trajectories)))
}

/// How often each answer is right, by group.
type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// Counts the right answers of each group; of multiple choice the options' texts, since letters mean nothing from one
/// question to the next.
fn answers(lab: &Lab<'_>, train: &str, group: &dyn Fn(&Sample) -> String) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for question in lab.questions(train)? {
        let right = match &question.sample.target {
            Target::Choice { letters, options } => letters
                .first()
                .and_then(|l| l.bytes().next())
                .and_then(|b| options.get(usize::from(b.wrapping_sub(b'A')))),
            _ => question.oracle.as_ref().map(|(_, answer)| answer),
        };
        let Some(right) = right else { continue };
        *counts.entry(group(&question.sample)).or_default().entry(right.clone()).or_default() += 1;
    }
    anyhow::ensure!(
        !counts.is_empty(),
        "the questions of `{train}` carry no answers to take the commonest of"
    );
    Ok(counts)
}

/// The commonest answer: of multiple choice, among the question's own options. The first where several are as common.
fn commonest(sample: &Sample, counts: Option<&BTreeMap<String, usize>>) -> Option<String> {
    let first = |best: (String, usize), next: (String, usize)| if next.1 > best.1 { next } else { best };
    if let Target::Choice { options, .. } = &sample.target {
        let count = |text: &String| counts.and_then(|c| c.get(text)).copied().unwrap_or(0);
        let lettered =
            options.iter().enumerate().map(|(i, o)| (char::from(b'A' + i as u8).to_string(), count(o)));
        return lettered.reduce(first).map(|(letter, _)| letter);
    }
    counts?.iter().map(|(text, n)| (text.clone(), *n)).reduce(first).map(|(text, _)| text)
}

/// What guessing among the options would score.
fn chance(sample: &Sample) -> Option<f64> {
    match &sample.target {
        Target::Choice { letters, options } if letters.len() == 1 && !options.is_empty() => {
            Some(1.0 / options.len() as f64)
        }
        _ => None,
    }
}

/// A trajectory that says one thing.
fn said(sample: &Arc<Sample>, text: &str) -> Trajectory {
    let mut messages = sample.messages.clone();
    messages.push(Message::assistant(text));
    Trajectory {
        sample_id: sample.id.clone(),
        attempt: 0,
        messages,
        ids: Vec::new(),
        spans: Vec::new(),
        logprobs: Vec::new(),
        weight_versions: Vec::new(),
        images: Vec::new(),
        tools: Vec::new(),
        status: Status::Answered,
        scores: Vec::new(),
    }
}
