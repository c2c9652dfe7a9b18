//! Which parts of a model are trained, each with its own learning rate, and how.

use ocelli_model::LoraConfig;
use ocelli_model::vlm::{Part, Vlm};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::ranges;
use crate::schedule::Schedule;

/// Learning rates by part; zero freezes the part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PartRates {
    /// Vision tower.
    pub tower: f64,
    /// Projector between tower and language model.
    pub projector: f64,
    /// Language model.
    pub language: f64,
    /// Reward head, where the model has one.
    pub head: f64,
}

/// Largest learning rate.
const MAX_RATE: f64 = 1e3;

impl Default for PartRates {
    fn default() -> Self {
        Self { tower: 1e-4, projector: 1e-4, language: 1e-4, head: 1e-4 }
    }
}

/// Low-rank adapters on the language model, whose own weights are then frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adapters {
    /// Rank r.
    pub rank: usize,
    /// The product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Last parts of module names, e.g. `q_proj`.
    pub targets: Vec<String>,
}

impl Adapters {
    fn validate(&self, rate: f64) -> Result<(), TrainError> {
        ranges::whole("optimizer.lora.rank", self.rank as u64, 1, 4096)?;
        ranges::positive("optimizer.lora.alpha", f64::from(self.alpha), 1e6)?;
        if self.targets.is_empty() {
            let text = "optimizer.lora.targets is empty; name the layers to adapt, such as \"q_proj\"";
            return Err(TrainError::Config(text.into()));
        }
        if let Some((_, twice)) =
            self.targets.iter().enumerate().find(|(i, t)| self.targets[..*i].contains(t))
        {
            return Err(TrainError::Config(format!("optimizer.lora.targets names `{twice}` twice")));
        }
        if rate == 0.0 {
            return Err(TrainError::Config(
                "optimizer.lora is given, but optimizer.lr.language is 0: adapters belong to the language model and use its \
                 learning rate; give it one, or leave the adapters out"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Optimizer settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Learning rate of each part; 0 freezes it.
    pub lr: PartRates,
    /// Adapters instead of the language model's own weights; they use its learning rate.
    pub lora: Option<Adapters>,
    /// Shape of the learning rate over the run.
    pub schedule: Schedule,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Gradients are scaled down to this norm.
    pub max_grad_norm: Option<f32>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            lr: PartRates::default(),
            lora: None,
            schedule: Schedule::default(),
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
        }
    }
}

impl OptimizerConfig {
    /// Rates in the order of the optimizer groups, which is that of [`Part::ALL`].
    pub(crate) fn rates(&self) -> [f64; 4] {
        let r = &self.lr;
        [r.tower, r.projector, r.language, r.head]
    }

    /// Checks the settings before any training.
    pub fn validate(&self) -> Result<(), TrainError> {
        for (name, rate) in ["tower", "projector", "language", "head"].iter().zip(self.rates()) {
            // As f32, in which the optimizer computes, a rate may be neither infinite nor lost.
            let holds = rate == 0.0 || rate as f32 > 0.0 && rate <= MAX_RATE;
            let allowed = format!("0 (frozen), or from 1e-45 to {MAX_RATE}");
            ranges::check(&format!("optimizer.lr.{name}"), rate, holds, &allowed)?;
        }
        if let Some(lora) = &self.lora {
            lora.validate(self.lr.language)?;
        }
        let unit = |what: &str, v: f64, range: std::ops::RangeInclusive<f64>| {
            let text = format!("optimizer.{what} is {v}; it must be in {range:?}");
            if range.contains(&v) { Ok(()) } else { Err(TrainError::Config(text)) }
        };
        unit("beta1", f64::from(self.beta1), 0.0..=0.9999)?;
        unit("beta2", f64::from(self.beta2), 0.0..=0.999_999)?;
        unit("schedule.warmup", self.schedule.warmup, 0.0..=1.0)?;
        unit("schedule.floor", self.schedule.floor, 0.0..=1.0)?;
        unit("weight_decay", f64::from(self.weight_decay), 0.0..=1.0)?;
        if let Some(norm) = self.max_grad_norm {
            unit("max_grad_norm", f64::from(norm), f64::MIN_POSITIVE..=1e9)?;
        }
        Ok(())
    }

    /// The optimizer with no history.
    pub(crate) fn adam(&self) -> AdamW {
        let group = |lr: f64| AdamWGroup { lr: lr as f32, weight_decay: self.weight_decay };
        AdamW::new(AdamWConfig {
            beta1: self.beta1,
            beta2: self.beta2,
            eps: 1e-8,
            max_grad_norm: self.max_grad_norm,
            groups: self.rates().map(group).to_vec(),
        })
    }

    /// Sets the learning rates of `step` of `total`, with the stage's own factor.
    pub(crate) fn set_rates(
        &self,
        adam: &mut AdamW,
        stage: f64,
        step: u64,
        total: u64,
    ) -> Result<f64, TrainError> {
        let factor = stage * self.schedule.factor(step, total);
        for (group, rate) in self.rates().iter().enumerate() {
            adam.set_lr(group, (rate * factor) as f32)?;
        }
        Ok(factor)
    }
}

/// Type of activations and matrix products; master weights and optimizer are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single.
    #[default]
    F32,
    /// Upper half of a single, products summed in f32.
    Bf16,
}

/// Freezes what has no learning rate, thaws the rest, attaches adapters where they are wanted, and sets the precision.
pub(crate) fn prepare(
    model: &mut Vlm,
    config: &OptimizerConfig,
    precision: Precision,
    seed: u64,
) -> Result<(), TrainError> {
    config.validate()?;
    for (part, rate) in Part::ALL.into_iter().zip(config.rates()) {
        let adapted = part == Part::Language && config.lora.is_some();
        model.set_trainable(part, rate > 0.0 && !adapted)?;
    }
    if let Some(adapters) = &config.lora {
        let settings =
            LoraConfig { rank: adapters.rank, alpha: adapters.alpha, targets: adapters.targets.clone() };
        model.attach_adapters(&settings, seed)?;
    }
    model.params.set_compute_dtype(match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::Bf16,
    });
    if model.params.iter().any(|(_, p)| p.trainable()) { Ok(()) } else { Err(all_frozen()) }
}

/// Nothing would be trained.
pub(crate) fn all_frozen() -> TrainError {
    TrainError::Config(
        "every part is frozen (all of optimizer.lr that the model has are 0); give at least one part a learning rate".into(),
    )
}
