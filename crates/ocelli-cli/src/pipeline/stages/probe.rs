//! One measured training step and one measured round of rollouts, to tell what a run will take.

use std::sync::Arc;
use std::time::Instant;

use ocelli_agent::pictures::Pictures;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::Part as Content;
use ocelli_model::ChatOptions;
use ocelli_model::vlm::{Part, Vlm};
use ocelli_tensor::Grads;
use ocelli_tools::ToolSpec;
use ocelli_train::responses::{Pack, Pass, TokenGrads, learn, micro_batches};
use ocelli_train::rollouts::{OracleConfig, RolloutConfig, Rollouts};
use ocelli_train::sources::{DataSource, ModelSource};

/// Questions that are measured with.
const QUESTIONS: usize = 8;
/// Memory for their pictures, in bytes.
const PICTURES: usize = 64 << 20;

/// Most sequences that are extended together for it.
const MOST_SEQUENCES: usize = 256;
/// Most seconds that this may take.
const PATIENCE: f64 = 15.0;

/// What a run is made of: seconds, and memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// One question with its answer, forward and backward.
    pub(crate) learned: f64,
    /// One answer to a question, as long as an untrained model talks: to its limit.
    pub(crate) answered: f64,
    /// One question that the oracle answers with real tools, where a stage has one and the questions have plans.
    pub(crate) shown: Option<f64>,
    /// Bytes that the optimizer keeps of what is trained, and those of one more model.
    pub(crate) kept: u64,
}

/// What is measured with.
pub(crate) struct Probe<'a> {
    pub(crate) model: &'a ModelSource,
    pub(crate) from: &'a DataSource,
    pub(crate) rollout: &'a RolloutConfig,
    pub(crate) toolbox: Option<Arc<dyn Toolbox>>,
    /// The oracle of the first stage that has one.
    pub(crate) oracle: Option<OracleConfig>,
    /// Examples of a step and rows of a pass, of the stage that takes most.
    pub(crate) largest: (usize, usize),
}

/// Measures a model on the first questions of a source.
pub(crate) fn measure(probe: &Probe<'_>) -> anyhow::Result<Measured> {
    let from = first_questions(probe.from, QUESTIONS);
    let assembled = probe.model.language.is_some();
    let mut model = probe.model.load()?;
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
    let step = |packs: &[Pack<'_>]| -> anyhow::Result<()> {
        learn(&model, packs, Pass::default(), &mut Grads::new(), |stats| {
            let one = |n: usize| TokenGrads { d_logp: vec![-1.0; n], d_entropy: Vec::new() };
            Ok(stats.iter().map(|s| one(s.logp.len())).collect())
        })?;
        Ok(())
    };
    // A pass as large as the largest of the run, for its memory; it also allocates what the next one uses.
    let (examples, rows) = probe.largest;
    let many: Vec<Pack<'_>> = responses.iter().cycle().take(examples.max(1)).map(|r| vec![r]).collect();
    if let Some(largest) = micro_batches(&many, rows.max(1)).first() {
        step(largest)?;
    }
    let packs: Vec<Pack<'_>> = responses.iter().map(|r| vec![r]).collect();
    let began = Instant::now();
    step(&packs)?;
    let learned = began.elapsed().as_secs_f64() / responses.len() as f64;
    let samples = data.samples();
    let rollouts = Rollouts::new(&model, probe.rollout, pictures, probe.toolbox.clone())?;
    let began = Instant::now();
    rollouts.run(&model, &samples, 2, 0, 0, None, false)?;
    let mut answered = began.elapsed().as_secs_f64() / (2 * samples.len().max(1)) as f64;
    // As many sequences together as the run extends, for their memory and their time, where that does not take long.
    let group = probe.rollout.batch.min(MOST_SEQUENCES).div_ceil(samples.len().max(1)) as u32;
    let many = group as usize * samples.len();
    if group > 2 && many as f64 * answered < PATIENCE {
        let began = Instant::now();
        rollouts.run(&model, &samples, group, 0, 0, None, false)?;
        answered = began.elapsed().as_secs_f64() / many as f64;
    }
    let shown = probe.oracle.as_ref().and_then(|oracle| {
        let began = Instant::now();
        rollouts.oracle(&samples, oracle).ok()?;
        Some(began.elapsed().as_secs_f64() / samples.len().max(1) as f64)
    });
    // AdamW keeps two numbers of every one that is trained.
    let trained: usize =
        model.params.iter().filter(|(_, p)| p.trainable()).map(|(_, p)| p.value().len()).sum();
    let kept = 4 * (2 * trained + model.params.element_count()) as u64;
    Ok(Measured { learned, answered, shown, kept })
}

/// The first questions of a source, as few as possible drawn or read for it.
fn first_questions(from: &DataSource, count: usize) -> DataSource {
    let mut from = DataSource { limit: Some(from.limit.unwrap_or(count).min(count)), ..from.clone() };
    if let Some(world) = &mut from.world {
        world.count = world.count.min(count as u64);
    }
    from
}

/// Tokens of the first question of `from` as `model` reads it, with its picture and, where there are any, with the tools that
/// its template lists; and the question's name.
pub(crate) fn prompt(
    model: &Vlm,
    from: &DataSource,
    text_only: bool,
    toolbox: Option<&Arc<dyn Toolbox>>,
) -> anyhow::Result<Option<(String, usize)>> {
    let data = first_questions(from, 1).load()?;
    let pictures = Pictures::in_memory(PICTURES);
    data.share_pictures(&pictures)?;
    let Some((mut sample, _)) = data.questions.into_iter().next() else { return Ok(None) };
    if text_only {
        sample.messages.iter_mut().for_each(|m| m.content.retain(|p| !matches!(p, Content::Image { .. })));
    }
    let tools = toolbox.map(|t| t.specs().iter().map(ToolSpec::openai).collect()).unwrap_or_default();
    let options = ChatOptions { tools, ..ChatOptions::prompt() };
    let context = model.prompt(&sample.messages, &options, &pictures)?;
    Ok(Some((sample.id, context.len())))
}
