//! Group-relative policy optimisation with verifiable and learned rewards, real tools in the rollouts, and a Selective
//! Sample Buffer (DeepSeekMath arXiv 2402.03300; DAPO 2503.14476; Dr.GRPO 2503.20783; Skywork R1V2 2504.16656;
//! OpenThinkIMG / V-ToolRL 2505.08617).
//!
//! One step: roll out G answers to each of B questions; score them; advantages inside each group; fill the batch from the
//! buffer; one forward and backward pass over what carries a gradient; one optimizer step.
//!
//! Deviations:
//! 1. A multi-turn trajectory is trained in the context that it was sampled in: all turns, observations and tool pictures are
//!    there, every sampled token of every turn is trained, nothing else is (V-ToolRL's code trained the first turn only).
//! 2. A group's prompt and picture go through the model once, forward and backward.
//! 3. Whether a group is informative is exact equality of its rewards. Responses whose advantage is exactly zero are not
//!    run through the model unless a KL or entropy term needs them. They stay in the denominator until a replayed response
//!    takes their place, so that the policy term is divided by B G at every fill of the buffer (with masked responses, which
//!    have no place, by less). KL and entropy are means over the responses for which they are computed, replays included.
//! 4. Fresh responses are on-policy: their ratio is taken against the trainer's own log-probabilities of the same pass, so it
//!    is 1 and its gradient exact. The sampler's recorded log-probabilities are compared with them (mismatch) and
//!    corrected for where wanted. Replayed responses take their ratio against what they were sampled with.
//! 5. Rollouts that failed for reasons outside the policy carry no gradient and no reward, KL and entropy included; they count
//!    in the policy term's denominator, and their group is judged by its other members.
//! 6. Rollouts may go on over several steps ([`Partial`]); tokens that older weights sampled take their ratio against those.
//! 7. A response that a limit cut off is scored like any other, or masked with its share of the denominator.
//! 8. An answer that a rule cannot score counts as 0 and stays in its group's statistics (TRL leaves it out of them and gives
//!    it no advantage).
//! 9. What is taken over the whole batch (whitening, GDPO's deviation) is taken over informative groups alone; the others
//!    keep no advantage, where whitening all would hand them `-mean / std`.

mod advantages;
mod batch;
mod denominators;
mod evaluate;
mod partial;
mod stage;
mod table;
mod validate;

use std::sync::Arc;

use ocelli_agent::pictures::Pictures;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::Sample;
use ocelli_model::vlm::Vlm;
use serde::{Deserialize, Serialize};

use crate::advantages::{Advantage, Combine, RewardKl};
use crate::buffer::BufferConfig;
use crate::error::TrainError;
use crate::hybrid_reward::RewardSpec;
use crate::identity::{Identity, Place};
use crate::losses::{Correction, PolicyLoss};
use crate::observe::Observer;
use crate::optim::{OptimizerConfig, Precision, prepare};
use crate::rollouts::{RolloutConfig, Rollouts};
use crate::run::{self, Outcome, RunConfig};
use crate::shaping::Truncated;

pub use evaluate::{Accuracies, ToolEffect, evaluate};
pub use partial::Partial;

/// Resampling until enough groups are informative (DAPO's dynamic sampling).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DynamicSampling {
    /// Most rounds of rollouts in one step, the first included.
    pub rounds: usize,
}

/// Questions that teach nothing are left out before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptFilter {
    /// Answers to each question, at least 2; those whose rewards are all the same are left out.
    pub group: u32,
}

/// Which responses count in the denominator of the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// All of the batch: uninformative groups that no replay stands in for make the step smaller.
    #[default]
    All,
    /// Only those that carry a gradient: the step keeps its size (an effective learning-rate effect; compare with it).
    Informative,
}

/// Settings of a GRPO run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoConfig {
    /// Steps, checkpoints, evaluation.
    pub run: RunConfig,
    /// What is trained and how fast.
    pub optimizer: OptimizerConfig,
    /// How rollouts are made.
    pub rollout: RolloutConfig,
    /// What is rewarded.
    pub reward: RewardSpec,
    /// The loss; with a KL term the model as it comes in is the reference.
    pub loss: PolicyLoss,
    /// From rewards to advantages.
    pub advantage: Advantage,
    /// How the parts of the reward are put together.
    pub combine: Combine,
    /// Whiten advantages over all tokens of the batch's informative groups (REINFORCE++; with `advantage = "centred"` its
    /// variant with a group baseline). Tokens of other groups have no advantage then, whatever `reward_kl` says of them.
    pub whiten: bool,
    /// KL in the reward instead of the loss; the model as it comes in is the reference.
    pub reward_kl: Option<RewardKl>,
    /// Questions per step.
    pub prompts: usize,
    /// Answers per question.
    pub group: u32,
    /// Sample buffer.
    pub buffer: Option<BufferConfig>,
    /// Resampling of uninformative groups.
    pub dynamic: Option<DynamicSampling>,
    /// Rollouts that may go on over several steps.
    pub partial: Option<Partial>,
    /// Rollouts before the first step that choose the questions.
    pub prompt_filter: Option<PromptFilter>,
    /// What the denominator counts.
    pub count: Count,
    /// Responses that a limit cut off.
    pub truncated: Truncated,
    /// Correction of the sampler's mismatch.
    pub mismatch: Option<Correction>,
    /// Most rows of one forward pass.
    pub rows: usize,
    /// Type of activations and products.
    pub precision: Precision,
    /// Keep only the input of each block and compute the rest again in the backward pass.
    pub recompute: bool,
    /// Steps between measurements of how much answers depend on the picture; 0 for none.
    pub dependence_every: u64,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            run: RunConfig::default(),
            optimizer: OptimizerConfig::default(),
            rollout: RolloutConfig::default(),
            reward: RewardSpec::default(),
            loss: PolicyLoss::default(),
            advantage: Advantage::default(),
            combine: Combine::Sum,
            whiten: false,
            reward_kl: None,
            prompts: 8,
            group: 8,
            buffer: None,
            dynamic: None,
            partial: None,
            prompt_filter: None,
            count: Count::All,
            truncated: Truncated::Score,
            mismatch: None,
            rows: 4096,
            precision: Precision::F32,
            recompute: false,
            dependence_every: 10,
        }
    }
}

/// What a GRPO run works on.
pub struct GrpoInputs<'a> {
    /// The policy.
    pub model: Vlm,
    /// Questions to learn from.
    pub train: &'a [Arc<Sample>],
    /// Questions to measure on.
    pub held_out: &'a [Arc<Sample>],
    /// Pictures of all questions; those that tools make are added.
    pub pictures: Arc<Pictures>,
    /// Tools, where the policy may call any.
    pub toolbox: Option<Arc<dyn Toolbox>>,
    /// Reward model, where the reward has one.
    pub reward_model: Option<&'a Vlm>,
}

/// Trains the policy in the run directory and returns it.
pub fn run<'a>(
    config: &GrpoConfig,
    inputs: GrpoInputs<'_>,
    place: impl Into<Place<'a>>,
    observer: &mut dyn Observer,
) -> Result<(Vlm, Outcome), TrainError> {
    for note in config.validate(&inputs)? {
        observer.note(&note);
    }
    let identity = identity(config, &inputs)?;
    let at = identity.open(place, observer)?;
    let GrpoInputs { mut model, train, held_out, pictures, toolbox, reward_model } = inputs;
    // The reference shares the memory of every parameter that training leaves alone.
    let needs_reference = config.loss.kl.is_some() || config.reward_kl.is_some();
    let reference = needs_reference.then(|| model.clone());
    prepare(&mut model, &config.optimizer, config.precision, config.run.seed)?;
    let reference = match reference {
        Some(mut r) => {
            for part in ocelli_model::vlm::Part::ALL {
                r.set_trainable(part, false)?;
            }
            r.params.set_compute_dtype(model.params.compute_dtype());
            Some(r)
        }
        None => None,
    };
    let rollouts = Rollouts::new(&model, &config.rollout, pictures, toolbox)?;
    let mut stage =
        stage::Grpo::new(config, model, reference, rollouts, train, held_out, reward_model, at.dir())?;
    let outcome = run::run(&mut stage, &at, &config.run, &config.optimizer, observer)?;
    Ok((stage.model, outcome))
}

/// Everything that [`run`] checks before its first step; nothing is written. Returns what should be said although it is no
/// reason not to train.
pub fn check<'a>(
    config: &GrpoConfig,
    mut inputs: GrpoInputs<'_>,
    place: impl Into<Place<'a>>,
) -> Result<Vec<String>, TrainError> {
    let notes = config.validate(&inputs)?;
    let identity = identity(config, &inputs)?;
    let model = &mut inputs.model;
    prepare(model, &config.optimizer, config.precision, config.run.seed)?;
    run::rehearse(&mut model.params, &identity, place.into(), &config.optimizer)?;
    Ok(notes)
}

fn identity(config: &GrpoConfig, inputs: &GrpoInputs<'_>) -> Result<Identity, TrainError> {
    let identity = Identity::new(config)?
        .model("the base model", &inputs.model)?
        .samples("questions", inputs.train)?
        .samples("held-out questions", inputs.held_out)?;
    let specs = inputs.toolbox.as_ref().map(|t| t.specs());
    let identity = identity.tools(specs.as_deref().unwrap_or_default());
    match inputs.reward_model {
        Some(judge) => identity.model("the reward model", judge),
        None => Ok(identity),
    }
}
