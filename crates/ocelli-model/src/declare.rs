//! The parameters of a model part, declared once by name, shape and initial value; the same declaration lists them,
//! reads them from a checkpoint, or draws them at random.

use ocelli_tensor::ops::Linear;
use ocelli_tensor::{ParamId, Params, Tensor};
use rand_chacha::ChaCha8Rng;

use crate::ModelError;
use crate::text::Keep;
use crate::weights::{TensorSpec, Weights};

/// Value of a parameter in a model that is not read from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    /// Normal with this standard deviation.
    Normal(f32),
    /// The same number everywhere.
    Value(f32),
}

/// Where values come from.
pub(crate) enum Source<'a> {
    /// Nowhere: names and shapes are wanted. Parameters are added without elements, to be thrown away.
    List(&'a mut Vec<TensorSpec>),
    /// A checkpoint, already compared with the list.
    Read(&'a Weights),
    /// A random number generator; parameters are drawn in the order of their declaration.
    Draw(&'a mut ChaCha8Rng),
}

impl Source<'_> {
    /// The same source for another part.
    pub(crate) fn again(&mut self) -> Source<'_> {
        match self {
            Self::List(list) => Source::List(list),
            Self::Read(weights) => Source::Read(weights),
            Self::Draw(rng) => Source::Draw(rng),
        }
    }
}

/// Adds the parameters of one part to a model.
pub(crate) struct Declare<'a> {
    params: &'a mut Params,
    source: Source<'a>,
    group: usize,
    prefix: String,
    keep: Keep,
}

impl<'a> Declare<'a> {
    /// A part whose parameters belong to optimiser group `group` and whose names begin with `prefix`.
    pub(crate) fn new(
        params: &'a mut Params,
        source: Source<'a>,
        group: usize,
        prefix: &str,
        keep: Keep,
    ) -> Self {
        Self { params, source, group, prefix: prefix.to_owned(), keep }
    }

    /// The same part, deeper: names begin with `{prefix}{name}.`.
    pub(crate) fn at(&mut self, name: &str) -> Declare<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Declare {
            params: self.params,
            source: self.source.again(),
            group: self.group,
            prefix,
            keep: self.keep,
        }
    }

    /// A parameter that the model keeps as `[rows, cols]` or `[len]`, whatever shape the checkpoint gives the same numbers
    /// (the kernel of a patch embedding is `[out, channels, frames, side, side]` there, and a matrix here).
    pub(crate) fn shaped(
        &mut self,
        name: &str,
        stored: &[usize],
        shape: &[usize],
        init: Init,
    ) -> Result<ParamId, ModelError> {
        let name = format!("{}{name}", self.prefix);
        let value = match &mut self.source {
            Source::List(list) => {
                list.push(TensorSpec::new(&name, stored));
                Tensor::zeros(&[0], ocelli_tensor::DType::F32)
            }
            Source::Read(weights) => Tensor::from_slice(shape, &weights.read(&name)?)?,
            Source::Draw(rng) => match init {
                Init::Normal(std) => Tensor::randn(shape, std, rng),
                Init::Value(v) => Tensor::full(shape, v, ocelli_tensor::DType::F32),
            },
        };
        let id = match self.keep {
            Keep::Trainable => self.params.add(name, value)?,
            Keep::Frozen(dtype) => self.params.add_frozen(name, value.to_dtype(dtype))?,
        };
        self.params.set_group(id, self.group)?;
        Ok(id)
    }

    /// A parameter of the checkpoint's shape.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<ParamId, ModelError> {
        self.shaped(name, shape, shape, init)
    }

    /// `{name}.weight` `[out, in]` and, if wanted, `{name}.bias` `[out]`.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        input: usize,
        output: usize,
        bias: bool,
        init: Init,
    ) -> Result<Linear, ModelError> {
        let mut at = self.at(name);
        let layer = Linear::new(at.tensor("weight", &[output, input], init)?);
        Ok(if bias { layer.with_bias(at.tensor("bias", &[output], Init::Value(0.0))?) } else { layer })
    }
}
