//! One measured training step and one measured round of rollouts, to tell what a run will take.

use std::sync::Arc;
use std::time::Instant;

use ocelli_agent::pictures::Pictures;
use ocelli_model::vlm::{Part, Vlm};
use ocelli_tensor::Grads;
use ocelli_train::responses::{Pack, Pass, TokenGrads, learn};
use ocelli_train::rollouts::{RolloutConfig, Rollouts};
use ocelli_train::sources::{DataSource, ModelSource};

/// Questions that are measured with.
const QUESTIONS: usize = 8;
/// Memory for their pictures, in bytes.
const PICTURES: usize = 64 << 20;

/// Seconds of the two things that a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// One question with its answer, forward and backward.
    pub(crate) learned: f64,
    /// One answer to a question, as long as an untrained model talks: to its limit.
    pub(crate) answered: f64,
}

/// Measures `model` on the first questions of `from`.
pub(crate) fn measure(
    model: &ModelSource,
    from: &DataSource,
    rollout: &RolloutConfig,
) -> anyhow::Result<Measured> {
    let mut from = DataSource { limit: Some(QUESTIONS), ..from.clone() };
    if let Some(world) = &mut from.world {
        world.count = world.count.min(QUESTIONS as u64);
    }
    let assembled = model.language.is_some();
    let mut model = model.load()?;
    let data = from.load()?;
    let responses = data.responses(&model, false)?;
    anyhow::ensure!(!responses.is_empty(), "the source holds no question");
    let pictures = Arc::new(Pictures::in_memory(PICTURES));
    data.share_pictures(&pictures)?;
    // An assembled model comes with its language model frozen, and is trained so.
    for part in Part::ALL.into_iter().filter(|p| !assembled || *p == Part::Projector) {
        model.set_trainable(part, true)?;
    }
    if assembled {
        model.set_trainable(Part::Tower, false)?;
    }
    let packs: Vec<Pack<'_>> = responses.iter().map(|r| vec![r]).collect();
    let step = || -> anyhow::Result<()> {
        learn(&model, &packs, Pass::default(), &mut Grads::new(), |stats| {
            let one = |n: usize| TokenGrads { d_logp: vec![-1.0; n], d_entropy: Vec::new() };
            Ok(stats.iter().map(|s| one(s.logp.len())).collect())
        })?;
        Ok(())
    };
    // The first step allocates what the second one uses.
    step()?;
    let began = Instant::now();
    step()?;
    let learned = began.elapsed().as_secs_f64() / responses.len() as f64;
    let answered = rollouts(&model, &data.samples(), rollout, pictures)?;
    Ok(Measured { learned, answered })
}

fn rollouts(
    model: &Vlm,
    samples: &[Arc<ocelli_data::Sample>],
    config: &RolloutConfig,
    pictures: Arc<Pictures>,
) -> anyhow::Result<f64> {
    let rollouts = Rollouts::new(model, config, pictures, None)?;
    let began = Instant::now();
    rollouts.run(model, samples, 2, 0, 0, None, false)?;
    Ok(began.elapsed().as_secs_f64() / (2 * samples.len().max(1)) as f64)
}
