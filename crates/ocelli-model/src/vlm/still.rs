//! The patch embedding of pictures that stand still.
//!
//! Qwen's towers embed patches of two frames, made for films; a picture is the same frame twice. Then
//!
//! ```text
//! y = W_0 x + W_1 x + b = (W_0 + W_1) x + b       W [E, 3 * frames * area], channel by channel, frame by frame
//! ```
//!
//! which is half the numbers to copy and half the product. Used where nothing is recorded; training needs the gradient of each frame's
//! weights. The sum rounds differently from the reference's in the last bit.

use ocelli_tensor::ops::{self, Linear};
use ocelli_tensor::{Params, Tape, Tensor, Var};

use crate::ModelError;
use crate::image::Preprocessor;

/// A patch embedding whose frames are added up.
pub(crate) struct StillEmbedding {
    params: Params,
    layer: Linear,
    frames: usize,
    /// Numbers in one channel of one frame of a patch.
    area: usize,
}

impl StillEmbedding {
    /// For `layer` of `params`; `None` where patches have one frame anyway.
    pub(crate) fn new(
        params: &Params,
        layer: Linear,
        preprocessor: &Preprocessor,
    ) -> Result<Option<Self>, ModelError> {
        let Preprocessor::Qwen(cut) = preprocessor else { return Ok(None) };
        let (frames, area) = (cut.frames, cut.patch * cut.patch);
        let weight = params.get(layer.weight)?.value();
        if frames < 2 || weight.cols() != 3 * frames * area {
            return Ok(None);
        }
        let mut summed = Vec::with_capacity(weight.len() / frames);
        for channel in weight.to_vec().chunks_exact(frames * area) {
            let first = summed.len();
            summed.extend_from_slice(&channel[..area]);
            for frame in channel[area..].chunks_exact(area) {
                summed[first..].iter_mut().zip(frame).for_each(|(sum, w)| *sum += w);
            }
        }
        let mut own = Params::new();
        own.set_compute_dtype(params.compute_dtype());
        let shape = [weight.rows(), 3 * area];
        let dtype = params.compute_dtype();
        let summed = own.add_frozen("weight", Tensor::from_slice(&shape, &summed)?.to_dtype(dtype))?;
        let mut still = Linear::new(summed);
        if let Some(bias) = layer.bias {
            still = still.with_bias(own.add_frozen("bias", params.get(bias)?.value().clone())?);
        }
        Ok(Some(Self { params: own, layer: still, frames, area }))
    }

    /// Embeds patches, `[rows, 3 * frames * area]` whose frames are equal, to `[rows, E]`.
    pub(crate) fn forward(&self, rows: usize, pixels: &[f32]) -> Result<Var, ModelError> {
        let mut once = Tensor::zeros(&[rows, 3 * self.area], ocelli_tensor::DType::F32);
        let channels = pixels.chunks_exact(self.frames * self.area);
        for (to, channel) in once.as_mut_slice::<f32>()?.chunks_exact_mut(self.area).zip(channels) {
            to.copy_from_slice(&channel[..self.area]);
        }
        let x = Var::constant(once.to_dtype(self.params.compute_dtype()));
        Ok(ops::linear(&mut Tape::inference(&self.params), &x, self.layer)?)
    }
}
