//! Responses as the model takes them, packed behind one copy of their prompt, forward and backward.
//!
//! ```text
//! a group of G responses to one prompt p with one picture:   rows  p .. p | a a a | b b b b | c c
//! ```
//!
//! The prompt and its picture go through the model once, forward and backward, whatever G is. Rows of a response are
//! exactly those of its rollout: ids and pictures are taken from the trajectory and nothing is tokenised again. Which
//! tokens are trained follows from their provenance.

use ocelli_data::{SpanKind, Trajectory};
use ocelli_model::ModelError;
use ocelli_model::vlm::{Context, Group, Pictures, Vlm};
use ocelli_tensor::{DType, Grads, Tape, Tensor, on_workers};

use crate::error::TrainError;

/// A response in the context of its prompt.
#[derive(Clone, Debug)]
pub struct Response {
    /// The whole context: prompt, turns, observations, with pictures.
    pub context: Context,
    /// Leading tokens that other responses of the group share.
    pub prompt: usize,
    /// Places of the trained tokens in the context, ascending. `[S]`
    pub trained: Vec<usize>,
}

impl Response {
    /// The response of a trajectory: every sampled token of every turn is trained, nothing else.
    pub fn of_trajectory(
        model: &Vlm,
        trajectory: &Trajectory,
        pictures: &dyn Pictures,
    ) -> Result<Self, TrainError> {
        trajectory.validate().map_err(|e| TrainError::Data(e.to_string()))?;
        let context = model.context_of(trajectory, pictures)?;
        let mut trained = Vec::with_capacity(trajectory.logprobs.len());
        let mut at = 0;
        for span in &trajectory.spans {
            if span.kind == SpanKind::Sampled {
                trained.extend(at..at + span.len);
            }
            at += span.len;
        }
        Ok(Self { context, prompt: trajectory.prompt_len(), trained })
    }

    /// Rows that the response takes behind its prompt.
    fn own_rows(&self) -> usize {
        self.context.len() - self.prompt
    }

    /// Checks that every trained token has something before it that predicts it, and that there is one at all.
    pub fn validate(&self, name: &str) -> Result<(), TrainError> {
        if self.trained.is_empty() {
            return Err(TrainError::Data(format!("{name} has no token to train on")));
        }
        let last = self.trained.last().copied().unwrap_or(0);
        if self.trained[0] == 0 || last >= self.context.len() {
            let text =
                format!("{name}: trained tokens {:?}..={last} of {}", self.trained[0], self.context.len());
            return Err(TrainError::Data(text));
        }
        Ok(())
    }
}

/// Responses that are packed behind one prompt.
pub type Pack<'a> = Vec<&'a Response>;

/// Cuts groups into micro-batches of at most `rows` rows each. A group may be cut between responses (its prompt is
/// then computed once per piece); a single response that is larger gets a micro-batch of its own. The loss does not
/// depend on the cuts, since its denominators belong to the whole batch.
pub fn micro_batches<'a>(groups: &[Pack<'a>], rows: usize) -> Vec<Vec<Pack<'a>>> {
    let mut batches: Vec<Vec<Pack<'a>>> = Vec::new();
    let mut free = 0;
    for group in groups {
        let mut open = false;
        for response in group {
            let own = response.own_rows();
            let with_prompt = own + response.prompt;
            if open && own <= free {
                free -= own;
                if let Some(pack) = batches.last_mut().and_then(|b| b.last_mut()) {
                    pack.push(response);
                }
                continue;
            }
            if batches.is_empty() || with_prompt > free {
                batches.push(Vec::new());
                free = rows.max(with_prompt);
            }
            free -= with_prompt;
            if let Some(batch) = batches.last_mut() {
                batch.push(vec![response]);
            }
            open = true;
        }
    }
    batches
}

/// What the model says about the trained tokens of one response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenStats {
    /// Log-probabilities. `[S]`
    pub logp: Vec<f64>,
    /// Entropies of the distributions, in nats. `[S]`
    pub entropy: Vec<f64>,
}

/// Derivatives of a loss by what the model says about one response.
#[derive(Clone, Debug, Default)]
pub struct TokenGrads {
    /// By each log-probability. `[S]`
    pub d_logp: Vec<f64>,
    /// By each entropy `[S]`; empty for none.
    pub d_entropy: Vec<f64>,
}

/// How the model is run over responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// Divides the logits: the sampling temperature where the policy that sampled is meant.
    pub temperature: f32,
    /// Keep only the input of each block and compute the rest again in the backward pass.
    pub recompute: bool,
}

impl Default for Pass {
    fn default() -> Self {
        Self { temperature: 1.0, recompute: false }
    }
}

struct Packed {
    batch: ocelli_model::vlm::Batch,
    rows: Vec<usize>,
    targets: Vec<u32>,
    lengths: Vec<usize>,
}

fn pack(model: &Vlm, micro: &[Pack<'_>]) -> Result<Packed, ModelError> {
    let groups: Vec<Group<'_>> = micro
        .iter()
        .map(|pack| Group {
            contexts: pack.iter().map(|r| &r.context).collect(),
            shared: pack.first().map_or(0, |r| r.prompt),
        })
        .collect();
    let batch = model.pack(&groups)?;
    let (mut rows, mut targets, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for (s, response) in micro.iter().flatten().enumerate() {
        let (r, t) = batch.predictions(s, response.trained.iter().copied())?;
        lengths.push(r.len());
        rows.extend(r);
        targets.extend(t);
    }
    Ok(Packed { batch, rows, targets, lengths })
}

fn split(lengths: &[usize], logp: &[f32], entropy: &[f32]) -> Vec<TokenStats> {
    let mut at = 0;
    lengths
        .iter()
        .map(|n| {
            let range = at..at + n;
            at += n;
            let wide = |v: &[f32]| v[range.clone()].iter().map(|x| f64::from(*x)).collect();
            TokenStats { logp: wide(logp), entropy: wide(entropy) }
        })
        .collect()
}

/// What the model says about every response of a micro-batch, in order; nothing is recorded.
pub fn score(model: &Vlm, micro: &[Pack<'_>], pass: Pass) -> Result<Vec<TokenStats>, TrainError> {
    let packed = pack(model, micro)?;
    on_workers(|| score_packed(model, &packed, pass))
}

fn score_packed(model: &Vlm, packed: &Packed, pass: Pass) -> Result<Vec<TokenStats>, TrainError> {
    let mut tape = Tape::inference(&model.params);
    let hidden = model.hidden_at(&mut tape, &packed.batch, &packed.rows, false)?;
    let every: Vec<usize> = (0..packed.rows.len()).collect();
    let out = model.logprobs(&mut tape, &hidden, (&every, &packed.targets), pass.temperature)?;
    Ok(split(&packed.lengths, &out.logprob.value().to_vec(), &out.entropy.value().to_vec()))
}

/// One forward and backward pass over a micro-batch: `loss` gets what the model says about its responses and returns
/// the derivatives, in the same order. Returns the number of rows.
pub fn learn(
    model: &Vlm,
    micro: &[Pack<'_>],
    pass: Pass,
    grads: &mut Grads,
    loss: impl FnOnce(&[TokenStats]) -> Result<Vec<TokenGrads>, TrainError> + Send,
) -> Result<usize, TrainError> {
    let packed = pack(model, micro)?;
    on_workers(|| learn_packed(model, &packed, pass, grads, loss))?;
    Ok(packed.batch.rows())
}

fn learn_packed(
    model: &Vlm,
    packed: &Packed,
    pass: Pass,
    grads: &mut Grads,
    loss: impl FnOnce(&[TokenStats]) -> Result<Vec<TokenGrads>, TrainError>,
) -> Result<(), TrainError> {
    let mut tape = Tape::train(&model.params);
    let hidden = model.hidden_at(&mut tape, &packed.batch, &packed.rows, pass.recompute)?;
    let every: Vec<usize> = (0..packed.rows.len()).collect();
    let out = model.logprobs(&mut tape, &hidden, (&every, &packed.targets), pass.temperature)?;
    let stats = split(&packed.lengths, &out.logprob.value().to_vec(), &out.entropy.value().to_vec());
    let found = loss(&stats)?;
    let narrow = |pick: fn(&TokenGrads) -> &Vec<f64>| -> Vec<f32> {
        let padded = found.iter().zip(&packed.lengths).flat_map(|(g, n)| {
            let values = pick(g);
            (0..*n).map(move |i| values.get(i).map_or(0.0, |v| *v as f32))
        });
        padded.collect()
    };
    let n = packed.rows.len();
    let mut seeds = vec![(&out.logprob, Tensor::from_slice(&[n], &narrow(|g| &g.d_logp))?)];
    if found.iter().any(|g| !g.d_entropy.is_empty()) {
        seeds.push((&out.entropy, Tensor::from_slice(&[n], &narrow(|g| &g.d_entropy))?));
    }
    debug_assert_eq!(out.logprob.value().dtype(), DType::F32);
    tape.backward_from(&seeds, grads)?;
    Ok(())
}

fn last_rows(packed: &Packed, micro: &[Pack<'_>]) -> Result<Vec<usize>, ModelError> {
    micro.iter().flatten().enumerate().map(|(s, r)| packed.batch.row(s, r.context.len() - 1)).collect()
}

/// Scalars of the model's value head at the last token of every response of a micro-batch, in order.
pub fn score_values(model: &Vlm, micro: &[Pack<'_>]) -> Result<Vec<f64>, TrainError> {
    let packed = pack(model, micro)?;
    let rows = last_rows(&packed, micro)?;
    on_workers(|| score_values_at(model, &packed, &rows))
}

fn score_values_at(model: &Vlm, packed: &Packed, rows: &[usize]) -> Result<Vec<f64>, TrainError> {
    let mut tape = Tape::inference(&model.params);
    let hidden = model.hidden_at(&mut tape, &packed.batch, rows, false)?;
    let values = model.values(&mut tape, &hidden, &(0..rows.len()).collect::<Vec<_>>())?;
    Ok(values.value().to_vec().into_iter().map(f64::from).collect())
}

/// One forward and backward pass through the value head: `loss` gets the scalar of every response and returns the
/// derivatives, in the same order. Returns the number of rows.
pub fn learn_values(
    model: &Vlm,
    micro: &[Pack<'_>],
    recompute: bool,
    grads: &mut Grads,
    loss: impl FnOnce(&[f64]) -> Result<Vec<f64>, TrainError> + Send,
) -> Result<usize, TrainError> {
    let packed = pack(model, micro)?;
    let rows = last_rows(&packed, micro)?;
    on_workers(|| learn_values_at(model, (&packed, &rows), recompute, grads, loss))?;
    Ok(packed.batch.rows())
}

fn learn_values_at(
    model: &Vlm,
    (packed, rows): (&Packed, &[usize]),
    recompute: bool,
    grads: &mut Grads,
    loss: impl FnOnce(&[f64]) -> Result<Vec<f64>, TrainError>,
) -> Result<(), TrainError> {
    let mut tape = Tape::train(&model.params);
    let hidden = model.hidden_at(&mut tape, &packed.batch, rows, recompute)?;
    let values = model.values(&mut tape, &hidden, &(0..rows.len()).collect::<Vec<_>>())?;
    let wide: Vec<f64> = values.value().to_vec().into_iter().map(f64::from).collect();
    let seeds: Vec<f32> = loss(&wide)?.into_iter().map(|d| d as f32).collect();
    let seed = Tensor::from_slice(&[seeds.len()], &seeds)?;
    tape.backward_from(&[(&values, seed)], grads)?;
    Ok(())
}
