//! Output layer and weighted cross-entropy in one, for losses whose weight per token is known beforehand (supervised training).
//!
//! ```text
//! loss = -sum_i w[i] lp[i]        lp as in linear_logprobs at temperature 1        h [N, D]   W [V, D]
//! dz[i, v] = w[i] (p[i, v] - [v = y_i])      dh = dz W      dW = dz^T h
//! ```
//!
//! Since d(loss)/d(lp) does not depend on anything later, gradients are computed in the forward pass while a block of logits is at hand, and the
//! backward pass only hands them on: one matrix product less than [`linear_logprobs`]. The logits held at a time are those of a block of
//! rows; with a vocabulary so large that a block would be a handful of rows, it falls back to [`linear_logprobs`].

use crate::cpu::gemm::{Epilogue, Out, gemm};
use crate::cpu::pack::Mat;
use crate::cpu::{self, Scratch, math};
use crate::error::{Result, TensorError, shape_error};
use crate::params::ParamId;
use crate::tape::{Tape, Var};
use crate::tensor::{DType, Elem, Tensor};

use super::{linear_logprobs, scale, weighted_sum};

/// Logits held at a time, in elements (32 MiB).
const BLOCK: usize = 8 << 20;
/// Fewer rows per block than this, and reading the weights once per block costs more than computing the logits twice.
const MIN_ROWS: usize = 256;

/// Result of [`linear_cross_entropy`].
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// `-sum_i weights[i] * logprob[i]`, shape `[]`.
    pub loss: Var,
    /// Log-probability of every target `[N]`, without gradient.
    pub logprob: Tensor,
}

/// Weighted cross-entropy of `targets[i]` after hidden state `h[i]` under the output layer `head [V, D]`. A mean over some tokens has weight
/// 1 / count there and 0 elsewhere.
///
/// # Errors
/// Shapes do not fit, or a target is outside the vocabulary.
pub fn linear_cross_entropy(
    tape: &mut Tape<'_>,
    h: &Var,
    head: ParamId,
    targets: &[u32],
    weights: &[f32],
) -> Result<CrossEntropy> {
    const OP: &str = "linear_cross_entropy";
    let params = tape.params();
    let weight = params.get(head)?;
    let (n, d) = (h.value().rows(), h.value().cols());
    let vocab = match *weight.value().shape() {
        [v, i] if i == d && targets.len() == n && weights.len() == n => v,
        ref s => {
            let what = format!(
                "h {:?}, head {s:?}, {} targets, {} weights",
                h.shape(),
                targets.len(),
                weights.len()
            );
            return shape_error(OP, what);
        }
    };
    if let Some((at, &t)) = targets.iter().enumerate().find(|(_, t)| **t as usize >= vocab) {
        return Err(TensorError::Index { op: OP, index: t as usize, at, limit: vocab });
    }
    let rows = (BLOCK / vocab.max(1)).max(1);
    let slot = tape.tracked(OP, h)?;
    let wants = tape.wants(head)?;
    if (slot.is_none() && !wants) || (rows < MIN_ROWS && n > rows) {
        let lp = linear_logprobs(tape, h, head, targets, 1.0)?.logprob;
        let sum = weighted_sum(tape, &lp, weights)?;
        return Ok(CrossEntropy { loss: scale(tape, &sum, -1.0)?, logprob: lp.into_value() });
    }
    let (hm, w) = (Mat::of(h.value(), n, d), weight.compute());
    let wm = Mat::of(w, vocab, d);
    let mut logprob = vec![0.0f32; n];
    let mut dh = Tensor::uninit(&[n, d], h.value().dtype());
    let mut dw = wants.then(|| Tensor::uninit(&[vocab, d], DType::F32));
    let mut z = Scratch::new(rows.min(n) * vocab);
    let mut narrow = Scratch::halves(if h.value().dtype() == DType::Bf16 { rows.min(n) * vocab } else { 0 });
    for i0 in (0..n).step_by(rows) {
        let count = (n - i0).min(rows);
        let (z, block) = (&mut z[..count * vocab], hm.row_range(i0, count));
        gemm(Out::F32(z), block, wm.t(), Epilogue::SET);
        cpu::par_zip_rows(
            &mut logprob[i0..i0 + count],
            z,
            vocab,
            #[inline(always)]
            |r, lp, z| {
                *lp = softmax_gradient(z, targets[i0 + r] as usize, weights[i0 + r]);
            },
        );
        // What is multiplied with bf16 is rounded to it, as every other gradient of a bf16 pass is.
        let dz = match h.value().dtype() {
            DType::F32 => Mat::f32(z, count, vocab),
            DType::Bf16 => {
                let narrow = &mut narrow.halves_mut()[..count * vocab];
                cpu::par_map(
                    narrow,
                    z,
                    // A closure, so that it is inlined into the loop compiled for wide vectors.
                    #[allow(clippy::redundant_closure)]
                    #[inline(always)]
                    |z| Elem::down(z),
                );
                Mat::bf16(narrow, count, vocab)
            }
        };
        if slot.is_some() {
            gemm(Out::rows_of(&mut dh, i0, count), dz, wm, Epilogue::SET);
        }
        if let Some(dw) = &mut dw {
            gemm(Out::of(dw), dz.t(), block, Epilogue::add_if(i0 > 0));
        }
    }
    if n == 0 {
        dw = None;
    }
    let loss: f64 = logprob.iter().zip(weights).map(|(l, w)| -f64::from(*l) * f64::from(*w)).sum();
    let logprob = Tensor::from_slice(&[n], &logprob)?;
    let shape = h.shape().to_vec();
    let loss = tape.record(Tensor::scalar(loss as f32), move |dy, back| {
        let dy = dy.item()?;
        if let Some(dw) = dw {
            back.add_param(head, dw, dy)?;
        }
        back.add_opt(slot, || {
            if dy != 1.0 {
                super::mul::times(&mut dh, dy);
            }
            dh.reshape(&shape)
        })
    });
    Ok(CrossEntropy { loss, logprob })
}

/// Replaces logits by `weight * (p - onehot)` and returns the target's log-probability.
#[inline(always)]
fn softmax_gradient(z: &mut [f32], target: usize, weight: f32) -> f32 {
    let top = math::max(z);
    let at = z[target] - top;
    let mut sum = 0.0f64;
    for block in z.chunks_mut(256) {
        for x in block.iter_mut() {
            *x = math::exp_negative(*x - top);
        }
        sum += f64::from(math::lanes_sum(
            block.len(),
            #[inline(always)]
            |i| block[i],
        ));
    }
    let factor = (f64::from(weight) / sum) as f32;
    for x in z.iter_mut() {
        *x *= factor;
    }
    z[target] -= weight;
    at - sum.ln() as f32
}
