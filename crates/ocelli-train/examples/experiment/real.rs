//! Real pictures: PuzzleVQA and easy-VQA, supervised learning and then reinforcement, on held-out instances; against the most
//! frequent answer and against a model that was trained and is asked without the picture.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ocelli_data::{Part, Sample, Target};
use ocelli_train::grpo::Count;
use ocelli_train::responses::Response;
use ocelli_train::sources::{Conclude, Data, DataSource};
use ocelli_worlds::real::Split;

use crate::Result;
use crate::task::{Arm, Lab, Settings, part};

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
                "puzzlevqa" => {
                    DataSource { puzzlevqa: root, conclude: conclude(s)?, ..DataSource::default() }
                }
                _ => DataSource { easy_vqa: root, limit, ..DataSource::default() },
            };
            Ok(DataSource { split: Some(split), spell: s.spell, ..source }.load()?)
        };
        let train = load(Split::Train, Some(s.lessons as usize))?;
        let test = load(Split::Test, Some(2 * s.held_out as usize))?;
        dataset(lab, seed, name, train, test)?;
    }
    Ok(())
}

/// What stands before the answer; with `none` it is not learned at all.
fn conclude(s: &Settings) -> Result<Conclude> {
    Ok(match s.conclude.as_str() {
        "none" => Conclude::default(),
        named => serde_json::from_value(named.into())?,
    })
}

/// The kind of a question, for the most frequent answer: the puzzle, or the question's text.
fn kind(sample: &Sample) -> String {
    let puzzle = sample.meta.get("puzzle").and_then(|p| p.as_str());
    puzzle.map_or_else(|| sample.messages.first().map(|m| m.plain_text()).unwrap_or_default(), str::to_owned)
}

/// Verdicts on the answer that was right most often in training: of multiple choice, among the options of the question.
fn majority(train: &Data, test: &Data) -> Vec<bool> {
    let right = |s: &Sample, oracle: &Option<(String, String)>| match &s.target {
        Target::Choice { letters, options } => {
            let index =
                letters.first().and_then(|l| l.bytes().next()).map(|b| usize::from(b.wrapping_sub(b'A')));
            index.and_then(|i| options.get(i)).cloned().unwrap_or_default()
        }
        _ => oracle.as_ref().map_or_else(String::new, |(_, a)| a.clone()),
    };
    let mut counts: HashMap<String, HashMap<String, usize>> = HashMap::new();
    for (sample, oracle) in &train.questions {
        *counts.entry(kind(sample)).or_default().entry(right(sample, oracle)).or_default() += 1;
    }
    let usual = |s: &Sample| -> Option<String> {
        let counts = counts.get(&kind(s));
        let count = |a: &String| counts.and_then(|c| c.get(a)).copied().unwrap_or(0);
        match &s.target {
            Target::Choice { options, .. } => {
                options.iter().max_by_key(|o| (count(o), std::cmp::Reverse(*o))).cloned()
            }
            _ => counts?.iter().max_by_key(|(a, n)| (**n, std::cmp::Reverse(*a))).map(|(a, _)| a.clone()),
        }
    };
    test.questions.iter().map(|(s, o)| usual(s).is_some_and(|a| a == right(s, o))).collect()
}

/// Accuracy of an arm over all questions, and of each puzzle.
fn accuracy(lab: &Lab, seed: u64, arm: &str, test: &Data, right: &[bool]) {
    let mean = |of: &[bool]| of.iter().filter(|r| **r).count() as f64 / of.len().max(1) as f64;
    lab.row(seed, arm, "eval/accuracy", mean(right));
    let mut puzzles: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    for ((sample, _), right) in test.questions.iter().zip(right) {
        let column = sample.meta.get("puzzle").or_else(|| sample.meta.get("asks"));
        puzzles.entry(column.and_then(|c| c.as_str()).unwrap_or_default()).or_default().push(*right);
    }
    for (puzzle, right) in puzzles {
        lab.row(seed, arm, &format!("by kind/{puzzle}"), mean(&right));
    }
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
    accuracy(lab, seed, &format!("{name}: most frequent"), &test, &majority(&train, &test));
    for blind in [true, false].into_iter().filter(|blind| s.blind || !blind) {
        let (train, test) = match blind {
            true => (without_pictures(&train), without_pictures(&test)),
            false => (train.clone(), test.clone()),
        };
        let base = lab.model(part(seed, 0))?;
        let lessons: Vec<Response> = train.responses(&base, s.conclude != "none" && name == "puzzlevqa")?;
        let sft = lab.sft(base, &lessons, (s.sft_steps, s.sft_lr), part(seed, 2))?;
        let arm = if blind { "without pictures" } else { "sft" };
        accuracy(lab, seed, &format!("{name}: {arm}"), &test, &lab.evaluate(&sft, &test)?.plain);
        if !blind {
            let arm = Arm { tools: false, buffer: true, count: Count::All, lr: s.rl_lr };
            let (policy, _) = lab.grpo(sft, &train, &arm, part(seed, 4))?;
            accuracy(lab, seed, &format!("{name}: sft, grpo"), &test, &lab.evaluate(&policy, &test)?.plain);
        }
    }
    Ok(())
}
