//! Real pictures: PuzzleVQA and easy-VQA, supervised learning and then reinforcement, on held-out instances; against the most
//! frequent answer and against a model that was trained and is asked without the picture.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ocelli_data::{Part, Sample};
use ocelli_train::grpo::Count;
use ocelli_train::responses::Response;
use ocelli_train::sources::{Data, DataSource};
use ocelli_worlds::real::Split;

use crate::Result;
use crate::task::{Arm, Lab, part};

pub(crate) fn run(lab: &Lab, seed: u64) -> Result<()> {
    let s = &lab.settings;
    for (name, root) in [("puzzlevqa", &s.puzzlevqa), ("easy-vqa", &s.easy_vqa)] {
        if root.is_empty() {
            eprintln!("{name}: left out; give its folder as {}=DIR", name.replace('-', "_"));
            continue;
        }
        let load = |split, limit| -> Result<Data> {
            let root = Some(PathBuf::from(root));
            let source = match name {
                "puzzlevqa" => DataSource { puzzlevqa: root, ..DataSource::default() },
                _ => DataSource { easy_vqa: root, limit, ..DataSource::default() },
            };
            Ok(DataSource { split: Some(split), ..source }.load()?)
        };
        let train = load(Split::Train, Some(s.lessons as usize))?;
        let test = load(Split::Test, Some(2 * s.held_out as usize))?;
        dataset(lab, seed, name, train, test)?;
    }
    Ok(())
}

/// The kind of a question, for the most frequent answer: the puzzle, or the question's text.
fn kind(sample: &Sample) -> String {
    let puzzle = sample.meta.get("puzzle").and_then(|p| p.as_str());
    puzzle.map_or_else(|| sample.messages.first().map(|m| m.plain_text()).unwrap_or_default(), str::to_owned)
}

fn majority(train: &Data, test: &Data) -> f64 {
    let mut counts: HashMap<String, HashMap<&str, usize>> = HashMap::new();
    for (sample, oracle) in &train.questions {
        let answer = oracle.as_ref().map_or("", |(_, a)| a);
        *counts.entry(kind(sample)).or_default().entry(answer).or_default() += 1;
    }
    let usual = |s: &Sample| {
        let answers = counts.get(&kind(s))?;
        answers.iter().max_by_key(|(a, n)| (**n, std::cmp::Reverse(**a))).map(|(a, _)| (*a).to_owned())
    };
    let right = test.questions.iter().filter(|(s, o)| usual(s) == o.as_ref().map(|(_, a)| a.clone())).count();
    right as f64 / test.questions.len().max(1) as f64
}

fn without_pictures(data: &Data) -> Data {
    let mut data = data.clone();
    for message in data.questions.iter_mut().flat_map(|(s, _)| &mut s.messages) {
        message.content.retain(|part| !matches!(part, Part::Image { .. }));
    }
    data
}

fn dataset(lab: &Lab, seed: u64, name: &str, train: Data, test: Data) -> Result<()> {
    let s = &lab.settings;
    lab.row(seed, &format!("{name}: most frequent"), "eval/accuracy", majority(&train, &test));
    for blind in [true, false] {
        let (train, test) = match blind {
            true => (without_pictures(&train), without_pictures(&test)),
            false => (train.clone(), test.clone()),
        };
        let base = lab.model(part(seed, 0))?;
        let samples: Vec<Arc<Sample>> = train.samples();
        let rollouts = lab.rollouts(&base, &[&train])?;
        let lessons: Vec<Response> = lab.lessons(&base, &rollouts, &samples)?;
        let sft = lab.sft(base, &lessons, (s.sft_steps, s.sft_lr), part(seed, 2))?;
        let arm = if blind { "without pictures" } else { "sft" };
        lab.accuracies(seed, &format!("{name}: {arm}"), &lab.evaluate(&sft, &test)?);
        if !blind {
            let arm = Arm { tools: false, buffer: true, count: Count::All, lr: s.rl_lr };
            let (policy, _) = lab.grpo(sft, &train, &arm, part(seed, 4))?;
            lab.accuracies(seed, &format!("{name}: sft, grpo"), &lab.evaluate(&policy, &test)?);
        }
    }
    Ok(())
}
