//! Preference pairs from a model's own answers: sampled and scored by rules or a reward model, or written without the picture.
//!
//! Skywork R1V2 builds its pairs from sampled answers that a reward model scores above and below a threshold; MMPR
//! (arXiv 2411.10442) takes answers whose correctness is known, and continuations of a good answer without the picture.

use std::sync::Arc;

use ocelli_data::{Message, Part, PreferencePair, Role, Sample, Status};
use ocelli_model::ChatOptions;
use ocelli_model::generate::{EngineLimits, Sampling};
use ocelli_model::vlm::Vlm;

use crate::error::TrainError;
use crate::hybrid_reward::Judge;
use crate::pairs::{Asked, PairRule, dropped_image, first_half, from_scores};
use crate::rollouts::Rollouts;

/// Pairs of the answers that `model` samples, `attempts` to each question, scored by `judge`; with tools where `with_tools`
/// says so, and then a pair holds whole dialogues, calls and replies included: preference learning on answers without tools
/// alone unlearns the calls. `source` names the judge in the pairs.
pub fn from_samples(
    model: &Vlm,
    rollouts: &Rollouts,
    samples: &[Arc<Sample>],
    attempts: u32,
    with_tools: bool,
    (judge, rule, source): (&Judge<'_>, &PairRule, &str),
    seed: u64,
) -> Result<Vec<PreferencePair>, TrainError> {
    let groups = rollouts.run(model, samples, attempts, seed, 0, None, with_tools)?;
    let mut pairs = Vec::new();
    for (i, (sample, group)) in samples.iter().zip(groups).enumerate() {
        let mut group: Vec<_> = group.into_iter().map(|e| e.trajectory).collect();
        // An answer that is empty or cut off is no example of anything.
        group.retain(|t| t.status == Status::Answered);
        let scores = judge.group(sample, &mut group, rollouts.pictures().as_ref())?;
        let Some(first) = group.first() else { continue };
        let prompt = first.messages.iter().take_while(|m| m.role != Role::Assistant).count();
        let asked =
            Asked { id: &sample.id, prompt: &first.messages[..prompt], tools: rollouts.listed(with_tools) };
        let answers: Vec<(Vec<Message>, f64)> =
            group.iter().zip(&scores).map(|(t, r)| (t.messages[prompt..].to_vec(), r.total)).collect();
        pairs.extend(from_scores(asked, &answers, rule, source, seed ^ i as u64));
    }
    Ok(pairs)
}

/// Pairs of good answers and what `model` writes, greedily and without the picture, behind the first half of each
/// (Dropout-NTP); questions without a picture, and those where the two agree, give none.
pub fn without_picture(
    model: &Vlm,
    good: &[(Arc<Sample>, String)],
    max_tokens: usize,
) -> Result<Vec<PreferencePair>, TrainError> {
    let seen: Vec<&(Arc<Sample>, String)> =
        good.iter().filter(|(s, _)| s.messages.iter().any(|m| m.images().next().is_some())).collect();
    let mut engine = model.engine(EngineLimits { max_active: 64, rows_per_step: 2048 })?;
    let sampling = Sampling {
        temperature: 0.0,
        max_new_tokens: max_tokens,
        stop_ids: model.eos_ids.clone(),
        ..Sampling::default()
    };
    let mut started = Vec::with_capacity(seen.len());
    for (sample, answer) in &seen {
        let blind: Vec<Message> = sample.messages.iter().map(blinded).collect();
        let nothing = std::collections::HashMap::<ocelli_data::ContentHash, Vec<u8>>::new();
        let mut context = model.prompt(&blind, &ChatOptions::prompt(), &nothing)?;
        context.push(&model.tokenizer()?.encode(first_half(answer))?);
        let prompt = model.generation_prompt(&context, 0)?;
        started.extend(engine.start(prompt, 1, &sampling, 0, 0)?);
    }
    let turns = engine.run(|_, _| {})?;
    let mut pairs = Vec::new();
    for ((sample, answer), id) in seen.into_iter().zip(started) {
        let Some(turn) = turns.iter().find(|t| t.seq == id) else { continue };
        let text = model.tokenizer()?.decode_plain(&turn.ids)?;
        pairs.extend(dropped_image(sample, answer, &text));
    }
    Ok(pairs)
}

/// A message without its pictures.
fn blinded(message: &Message) -> Message {
    let mut message = message.clone();
    message.content.retain(|part| !matches!(part, Part::Image { .. }));
    message
}
