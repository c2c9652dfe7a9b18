//! The operations. Each file states its formula and shapes, and holds the forward and the backward pass together.
//!
//! Every operation takes the tape first and returns new variables; a leading "row" is everything but the last dimension, so
//! `[B, T, D]` and `[B * T, D]` are the same input.

mod activation;
mod add;
mod attend_cached;
mod attention;
mod cross_entropy;
mod embedding;
mod layer_norm;
mod linear;
mod logprobs;
mod mul;
mod reduce;
mod rms_norm;
mod rotary;
mod rows;
mod swiglu;

pub use activation::{Activation, activate};
pub use add::{add, add_vec};
pub use attend_cached::attend_cached;
pub use attention::{AttentionSpec, attention};
pub use cross_entropy::{CrossEntropy, linear_cross_entropy};
pub use embedding::embedding;
pub use layer_norm::layer_norm;
pub use linear::{Linear, Lora, linear, linear_f32, linear_many};
pub use logprobs::{LogProbs, linear_logprobs};
pub use mul::{mul, mul_vec, scale, scale_rows};
pub use reduce::{segment_sum, sum, weighted_sum};
pub use rms_norm::rms_norm;
pub use rotary::{RotaryStyle, RotaryTable, rotary};
pub use rows::{RowMix, concat_rows, gather_rows, merge_order, mix_rows, scatter_rows, split_cols};
pub use swiglu::swiglu;

use crate::error::{Result, shape_error};
use crate::tensor::Tensor;

/// Checks that two operands of an elementwise operation match.
fn same(op: &'static str, x: &Tensor, y: &Tensor) -> Result<()> {
    if x.len() != y.len() || x.dtype() != y.dtype() {
        let what =
            format!("{:?} {:?} and {:?} {:?} do not match", x.shape(), x.dtype(), y.shape(), y.dtype());
        return shape_error(op, what);
    }
    Ok(())
}
