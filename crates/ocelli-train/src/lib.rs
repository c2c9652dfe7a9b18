//! Losses, advantages, sample buffer, packing, checkpoints and the loops: SFT, reward model, MPO, GRPO.
//!
//! Losses are pure functions from log-probabilities to a number and its derivatives; the loops are short files over
//! them, each with its deviations from the paper listed on top.
//!
//! ```
//! use ocelli_train::advantages::{Advantage, group_advantages};
//! use ocelli_train::losses::{Normaliser, PolicyLoss, Reduction, Rollout};
//!
//! // Two answers to one question, two tokens each; the first is right.
//! let (advantages, stats) = group_advantages(Advantage::Centred, &[1.0, 0.0])?;
//! assert!(stats.informative);
//! let normaliser = Normaliser::new(Reduction::TokenMean, [2, 2])?;
//! let loss = PolicyLoss { reduction: Reduction::TokenMean, ..PolicyLoss::default() };
//! let logp = [-0.5, -1.0];
//! let rollout = Rollout {
//!     logp: &logp, old: &logp, reference: None, entropy: None, advantages: &[advantages[0]; 2], weights: None,
//! };
//! let out = loss.response(&rollout, &normaliser)?;
//! // On-policy the ratio is 1, so each of the four tokens contributes -A / 4.
//! assert_eq!((out.loss, out.d_logp), (-0.25, vec![-0.125, -0.125]));
//! # Ok::<(), ocelli_train::losses::LossError>(())
//! ```

pub mod advantages;
pub mod buffer;
pub mod calibrate;
pub mod checkpoint;
mod error;
mod exact;
pub mod examples;
pub mod grpo;
pub mod hybrid_reward;
pub mod identity;
mod lock;
pub mod losses;
pub mod mentions;
mod metric_names;
pub mod monitors;
pub mod mpo;
pub mod observe;
mod optim;
pub mod pairs;
pub mod preferences;
mod ranges;
pub mod responses;
pub mod reward_model;
pub mod rollouts;
pub mod run;
pub mod schedule;
pub mod sft;
pub mod shaping;
pub mod sources;
pub mod tensorboard;

pub use error::TrainError;
pub use optim::{Adapters, OptimizerConfig, PartRates, Precision};
