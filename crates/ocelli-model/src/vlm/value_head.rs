//! A scalar on the state of a token: the reward of an answer, read at its last token (Skywork-VL Reward, arXiv 2505.07263,
//! section 2), or the value of every token.
//!
//! ```text
//! value = w . h + b       h [D], after the decoder's last norm; unbounded, no sigmoid
//! ```
//!
//! Saved beside the base as `value_head.safetensors`, `weight` `[1, D]` and `bias` `[1]`, under TRL's name `v_head.summary`,
//! which is how public reward models with a value head are published. A head under another of the known names, or
//! without a bias, is read too, and saved as it was.

use std::path::Path;

use ocelli_tensor::ops::{self, Linear};
use ocelli_tensor::{DType, Params, Tape, Tensor, TensorError, Var};
use rand_chacha::ChaCha8Rng;

use super::Part;
use crate::ModelError;
use crate::weights::{SaveDtype, SaveTensor, TensorSpec, Weights, save_safetensors};

const STEM: &str = "value_head";
/// Names of the layer: TRL's, the same without its prefix, and those of heads written by other trainers.
const NAMES: [&str; 5] = ["v_head.summary", "summary", "v_head", "value_head", "score"];

/// The head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueHead {
    summary: Linear,
}

impl ValueHead {
    /// A new head for states of `width`, drawn with standard deviation `1 / sqrt(width + 1)`.
    pub(crate) fn draw(params: &mut Params, width: usize, rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let weight = Tensor::randn(&[1, width], 1.0 / ((width + 1) as f32).sqrt(), rng);
        Self::add(params, NAMES[0], weight, Some(Tensor::zeros(&[1], DType::F32)))
    }

    /// Reads `value_head.safetensors` from a checkpoint's directory; `None` where there is none.
    pub(crate) fn read(params: &mut Params, dir: &Path, width: usize) -> Result<Option<Self>, ModelError> {
        let path = dir.join(format!("{STEM}.safetensors"));
        if !path.exists() {
            return Ok(None);
        }
        let weights = Weights::open(&path)?;
        let named = |name: &&&str| weights.contains(&format!("{name}.weight"));
        let name = NAMES.iter().find(named).unwrap_or(&NAMES[0]);
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let mut specs = vec![TensorSpec::new(&weight, &[1, width])];
        if weights.contains(&bias) {
            specs.push(TensorSpec::new(&bias, &[1]));
        }
        weights.check(&specs, |_| false)?;
        let weight = Tensor::from_slice(&[1, width], &weights.read(&weight)?)?;
        let bias = match specs.get(1) {
            Some(spec) => Some(Tensor::from_slice(&[1], &weights.read(&spec.name)?)?),
            None => None,
        };
        Ok(Some(Self::add(params, name, weight, bias)?))
    }

    fn add(
        params: &mut Params,
        name: &str,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Result<Self, ModelError> {
        let mut own = |part: &str, value| {
            let id = params.add(format!("{name}.{part}"), value)?;
            params.set_group(id, Part::ValueHead.group())?;
            Ok::<_, ModelError>(id)
        };
        let summary = Linear::new(own("weight", weight)?);
        let bias = bias.map(|b| own("bias", b)).transpose()?;
        Ok(Self { summary: Linear { bias, ..summary } })
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
        for id in std::iter::once(self.summary.weight).chain(self.summary.bias) {
            let p = params.get(id)?;
            let (shape, values) = (p.value().shape().to_vec(), p.value().to_vec().into());
            tensors.push(SaveTensor { name: p.name().to_owned(), shape, values });
        }
        save_safetensors(dir, STEM, &tensors, SaveDtype::F32, usize::MAX)
    }
}

/// True for the head's parameters, which are not written with the base.
pub(crate) fn is_head(name: &str) -> bool {
    let layer = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"));
    layer.is_some_and(|l| NAMES.contains(&l))
}
