//! A scalar on the state of a token: the reward of an answer, read at its last token (Skywork-VL Reward, arXiv 2505.07263,
//! section 2), or the value of every token.
//!
//! ```text
//! value = w . h + b       h [D], after the decoder's last norm; unbounded, no sigmoid
//! ```
//!
//! Saved beside the base as `value_head.safetensors` with TRL's names, `v_head.summary.weight` `[1, D]` and
//! `v_head.summary.bias` `[1]`, which is how public reward models with a value head are published.

use std::path::Path;

use ocelli_tensor::ops::{self, Linear};
use ocelli_tensor::{DType, Params, Tape, Tensor, TensorError, Var};
use rand_chacha::ChaCha8Rng;

use super::Part;
use crate::ModelError;
use crate::weights::{SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};

const STEM: &str = "value_head";
const WEIGHT: &str = "v_head.summary.weight";
const BIAS: &str = "v_head.summary.bias";

/// The head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueHead {
    summary: Linear,
}

impl ValueHead {
    /// A new head for states of `width`, drawn with standard deviation `1 / sqrt(width + 1)`.
    pub(crate) fn draw(params: &mut Params, width: usize, rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let weight = Tensor::randn(&[1, width], 1.0 / ((width + 1) as f32).sqrt(), rng);
        Self::add(params, weight, Tensor::zeros(&[1], DType::F32))
    }

    /// Reads `value_head.safetensors` from a checkpoint's directory; `None` where there is none.
    pub(crate) fn read(params: &mut Params, dir: &Path, width: usize) -> Result<Option<Self>, ModelError> {
        let path = dir.join(format!("{STEM}.safetensors"));
        if !path.exists() {
            return Ok(None);
        }
        let weights = Weights::open(&path)?;
        weights.check(&[TensorSpec::new(WEIGHT, &[1, width]), TensorSpec::new(BIAS, &[1])], |_| false)?;
        let weight = Tensor::from_slice(&[1, width], &weights.read(WEIGHT)?)?;
        let bias = Tensor::from_slice(&[1], &weights.read(BIAS)?)?;
        Ok(Some(Self::add(params, weight, bias)?))
    }

    fn add(params: &mut Params, weight: Tensor, bias: Tensor) -> Result<Self, ModelError> {
        let (weight, bias) = (params.add(WEIGHT, weight)?, params.add(BIAS, bias)?);
        for id in [weight, bias] {
            params.set_group(id, Part::ValueHead.group())?;
        }
        Ok(Self { summary: Linear::new(weight).with_bias(bias) })
    }

    /// Values of the given rows, `[n]`.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        hidden: &Var,
        rows: &[usize],
    ) -> Result<Var, TensorError> {
        let h = ops::gather_rows(tape, hidden, rows)?;
        ops::linear(tape, &h, self.summary)?.reshape(&[rows.len()])
    }

    /// Writes `value_head.safetensors`.
    pub(crate) fn save(&self, params: &Params, dir: &Path) -> Result<(), ModelError> {
        let mut tensors = Vec::new();
        for (name, id) in [(WEIGHT, Some(self.summary.weight)), (BIAS, self.summary.bias)] {
            let Some(id) = id else { continue };
            let value = params.get(id)?.value();
            let (shape, values) = (value.shape().to_vec(), value.to_vec().into());
            tensors.push(SaveTensor { name: name.into(), shape, values });
        }
        save_safetensors(dir, STEM, &tensors, SaveDtype::F32, usize::MAX)
    }
}

/// True for the head's parameters, which are not written with the base.
pub(crate) fn is_head(name: &str) -> bool {
    name == WEIGHT || name == BIAS
}
