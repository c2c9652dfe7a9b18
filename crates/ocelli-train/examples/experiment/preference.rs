//! The reward model: accuracy on held-out pairs, the control with shuffled pictures, best-of-8. MPO against DPO alone and against
//! supervised learning of the chosen answers; reinforcement behind MPO.

use std::sync::Arc;

use ocelli_data::{Message, Part, PreferencePair, Sample};
use ocelli_model::vlm::Vlm;
use ocelli_reward::{Accuracy, Scorer};
use ocelli_train::examples::from_dialogue;
use ocelli_train::grpo::Count;
use ocelli_train::hybrid_reward::{Judge, RewardSpec};
use ocelli_train::losses::PreferenceLoss;
use ocelli_train::mpo::{self, MpoConfig};
use ocelli_train::pairs::{Pair, PairRule};
use ocelli_train::preferences::from_samples;
use ocelli_train::reward_model::{self, RewardConfig, RewardStage, score_dialogues, score_pairs};
use ocelli_train::schedule::Shape;
use ocelli_train::sources::Data;

use crate::Result;
use crate::task::{Arm, Lab, part};

pub(crate) fn run(lab: &Lab, seed: u64) -> Result<()> {
    let s = &lab.settings;
    let held_out = lab.charts(s.held_out, part(seed, 9))?;
    let base = lab.model(part(seed, 0))?;
    let lessons = lab.charts(s.lessons, part(seed, 1))?;
    let rollouts = lab.rollouts(&base, &[&lessons])?;
    let shown = lab.lessons(&base, &rollouts, &lessons.samples())?;
    let sft = lab.sft(base, &shown, (s.sft_steps, s.sft_lr), part(seed, 2))?;
    lab.accuracies(seed, "sft", &lab.evaluate(&sft, &held_out)?);
    let reward = reward_model(lab, seed, sft.clone(), &held_out)?;
    best_of(lab, seed, &sft, &reward, &held_out)?;
    policies(lab, seed, &sft, &held_out)
}

/// Sums of two digits, right against the sum of another pair of digits.
fn sums(n: u64) -> Vec<PreferencePair> {
    let pair = |i: u64| {
        let (a, b, off) = (i * 7 % 10, i * 3 / 7 % 10, 1 + i % 5);
        PreferencePair {
            id: format!("sum/{i}"),
            prompt: vec![Message::user([Part::text(format!("What is {a} + {b}?"))])],
            tools: Vec::new(),
            chosen: vec![Message::assistant((a + b).to_string())],
            rejected: vec![Message::assistant(((a + b + off) % 19).to_string())],
            margin: None,
            tie: false,
            source: "sums".into(),
        }
    };
    (0..n).map(pair).collect()
}

fn accuracy(model: &Vlm, pairs: &[Pair]) -> Result<f64> {
    let scored = score_pairs(model, pairs, 4096)?;
    let right = scored.iter().filter(|(x, _)| x.chosen > x.rejected).count();
    Ok(right as f64 / pairs.len().max(1) as f64)
}

fn reward_model(lab: &Lab, seed: u64, model: Vlm, held_out: &Data) -> Result<Vlm> {
    let s = &lab.settings;
    let mut train = lab.charts(2 * s.questions, part(seed, 5))?;
    train.pairs = sums(200);
    let pairs = train.pairs(&model)?;
    let config = RewardConfig {
        run: lab.run_config(0, part(seed, 5)),
        optimizer: lab.optimizer(s.reward_lr, Shape::Cosine),
        stages: vec![
            RewardStage { steps: s.reward_steps, rate: 1.0, pictures_only: true },
            RewardStage { steps: s.reward_steps / 4, rate: 0.3, pictures_only: false },
        ],
        batch: 32,
        ..RewardConfig::default()
    };
    let reward = reward_model::run(&config, model, &pairs, &[], &lab.dir(), &mut lab.watch("reward"))?.0;
    let visual = held_out.pairs(&reward)?;
    lab.row(seed, "reward model", "pairs", accuracy(&reward, &visual)?);
    let sums_only = Data { pairs: sums(400).split_off(200), ..Data::default() };
    lab.row(seed, "reward model", "pairs/sums", accuracy(&reward, &sums_only.pairs(&reward)?)?);
    lab.row(
        seed,
        "reward model",
        "pairs/shuffled pictures",
        accuracy(&reward, &shuffled(&reward, held_out)?)?,
    );
    Ok(reward)
}

/// The held-out pairs, each with the picture of another question.
fn shuffled(model: &Vlm, held_out: &Data) -> Result<Vec<Pair>> {
    let mut data = held_out.clone();
    let hashes: Vec<_> = data
        .questions
        .iter()
        .filter_map(|(q, _)| q.messages.iter().flat_map(|m| m.images()).next())
        .collect();
    for (i, (sample, _)) in data.questions.iter_mut().enumerate() {
        for part in sample.messages.iter_mut().flat_map(|m| &mut m.content) {
            if matches!(part, Part::Image { .. }) {
                *part = Part::image(hashes[(i + hashes.len() / 2) % hashes.len()]);
            }
        }
    }
    Ok(data.pairs(model)?)
}

/// Accuracy of the answer that the reward model likes best among eight, against a drawn one and the most frequent one.
fn best_of(lab: &Lab, seed: u64, sft: &Vlm, reward: &Vlm, held_out: &Data) -> Result<()> {
    let rollouts = lab.rollouts(sft, &[held_out])?;
    let samples = held_out.samples();
    let groups = rollouts.run(sft, &samples, 8, part(seed, 6), 0, None, false)?;
    let judge = Accuracy::default();
    let (mut one, mut best, mut vote, mut any) = (0.0, 0.0, 0.0, 0.0);
    for (sample, group) in samples.iter().zip(&groups) {
        let right: Vec<f64> =
            group.iter().map(|e| judge.score(&e.trajectory, &sample.target).or_zero()).collect();
        let texts: Vec<String> = group.iter().map(|e| e.trajectory.final_text()).collect();
        let dialogue = |text: &String| {
            let mut messages = sample.messages.clone();
            messages.push(Message::assistant(text.clone()));
            messages
        };
        let dialogues: Vec<Vec<Message>> = texts.iter().map(dialogue).collect();
        let scores = score_dialogues(reward, &dialogues, &[], &held_out.pictures, 4096)?;
        let top = (0..8).max_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a))).unwrap_or(0);
        let votes = |t: &String| texts.iter().filter(|o| *o == t).count();
        let voted =
            (0..8).max_by(|a, b| votes(&texts[*a]).cmp(&votes(&texts[*b])).then(b.cmp(a))).unwrap_or(0);
        one += right.iter().sum::<f64>() / 8.0;
        best += right[top];
        vote += right[voted];
        any += right.iter().copied().fold(0.0, f64::max);
    }
    let n = samples.len() as f64;
    for (arm, sum) in
        [("one sample", one), ("most frequent of 8", vote), ("best of 8", best), ("any of 8", any)]
    {
        lab.row(seed, arm, "best-of", sum / n);
    }
    Ok(())
}

fn policies(lab: &Lab, seed: u64, sft: &Vlm, held_out: &Data) -> Result<()> {
    let s = &lab.settings;
    let data = lab.charts(s.questions, part(seed, 3))?;
    let rollouts = lab.rollouts(sft, &[&data])?;
    let judge = Judge::new(&RewardSpec::default(), None, 4096)?;
    let rule = PairRule { at_least: Some(1.0), at_most: Some(0.0), per_question: 2, ..PairRule::default() };
    let samples: Vec<Arc<Sample>> = data.samples();
    let found = from_samples(sft, &rollouts, &samples, 8, false, (&judge, &rule, "verifier"), part(seed, 7))?;
    lab.row(seed, "verifier", "pairs/found", found.len() as f64);
    let pairs: Vec<Pair> =
        found.iter().map(|p| Pair::new(sft, p, &data.pictures)).collect::<std::result::Result<_, _>>()?;
    let chosen: Vec<_> = found
        .iter()
        .map(|p| from_dialogue(sft, &p.id, &[p.prompt.as_slice(), &p.chosen].concat(), &data.pictures))
        .collect::<std::result::Result<_, _>>()?;
    let learned = lab.sft(sft.clone(), &chosen, (s.pair_steps, s.pair_lr), part(seed, 8))?;
    lab.accuracies(seed, "sft on chosen", &lab.evaluate(&learned, held_out)?);
    let whole = PreferenceLoss::default();
    let dpo = PreferenceLoss { preference: 1.0, quality: 0.0, generation: 0.0, ..whole };
    for (name, loss) in [("dpo", dpo), ("mpo", whole)] {
        let config = MpoConfig {
            run: lab.run_config(s.pair_steps, part(seed, 8)),
            optimizer: lab.optimizer(s.pair_lr, Shape::Cosine),
            loss,
            batch: s.sft_batch,
            ..MpoConfig::default()
        };
        let (policy, outcome) =
            mpo::run(&config, sft.clone(), &pairs, &[], &lab.dir(), &mut lab.watch(name))?;
        lab.accuracies(seed, name, &lab.evaluate(&policy, held_out)?);
        let drift = outcome.metrics.iter().find(|(n, _)| n == "chosen_drift");
        drift.iter().for_each(|(_, v)| lab.row(seed, name, "chosen_drift", *v));
        if name == "mpo" {
            let arm = Arm { tools: false, buffer: true, count: Count::All, lr: s.rl_lr };
            let more = lab.charts(s.questions, part(seed, 4))?;
            for (arm_name, start) in [("sft then grpo", sft.clone()), ("mpo then grpo", policy)] {
                let (policy, _) = lab.grpo(start, &more, &arm, part(seed, 4))?;
                lab.accuracies(seed, arm_name, &lab.evaluate(&policy, held_out)?);
            }
        }
    }
    Ok(())
}
