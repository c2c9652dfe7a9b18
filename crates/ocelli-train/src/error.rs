//! What can go wrong in training, by the boundary that it crosses.

use std::path::PathBuf;

use crate::losses::LossError;

fn holder_of(number: &str) -> String {
    if number.is_empty() { "another process".to_owned() } else { format!("process {number}") }
}

/// A failed training run, or one that was refused before it began.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting that cannot be trained with; found before anything is computed.
    #[error("configuration: {0}")]
    Config(String),
    /// Data that cannot be trained on; found before anything is computed.
    #[error("data: {0}")]
    Data(String),
    /// A loss that cannot be computed.
    #[error("step {step}: {source}")]
    Loss {
        /// Optimizer step.
        step: u64,
        /// Why.
        source: LossError,
    },
    /// The reward function gave something that is no number.
    #[error(
        "the reward `{reward}` of sample {sample} is {value}; a reward is a finite number (an undecided score counts as 0)"
    )]
    Reward {
        /// Name of the reward.
        reward: String,
        /// Sample.
        sample: String,
        /// The value.
        value: f64,
    },
    /// A checkpoint that is not what was written.
    #[error("checkpoint {path}: {what}; delete that directory to go on from the one before it")]
    Checkpoint {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The run directory belongs to another run.
    #[error(
        "{path} holds another run ({what}); go on with its own model, data and settings, or choose another directory"
    )]
    OtherRun {
        /// The run directory.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Another process trains in the run directory.
    #[error("{path} is in use: {} trains there; wait for it, stop it, or choose another directory", holder_of(.holder))]
    InUse {
        /// The run directory.
        path: PathBuf,
        /// Number of the process; empty where it is not known.
        holder: String,
    },
    /// The model.
    #[error(transparent)]
    Model(#[from] ocelli_model::ModelError),
    /// The compute layer.
    #[error(transparent)]
    Tensor(#[from] ocelli_tensor::TensorError),
    /// Files.
    #[error(transparent)]
    Io(#[from] ocelli_data::io::IoError),
}
