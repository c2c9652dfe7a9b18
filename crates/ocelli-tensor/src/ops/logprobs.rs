//! Output layer, log-softmax and selection in one: per-token log-probability and entropy, without the logits of all tokens.
//!
//! ```text
//! z = h W^T / tau (+ b / tau)     lp[i] = z[i, y_i] - lse_i     H[i] = lse_i - sum_v p[i, v] z[i, v]
//! dz[i, v] = dlp[i] ([v = y_i] - p[i, v]) - dH[i] p[i, v] (log p[i, v] + H[i])
//! dh = dz W / tau      dW = dz^T h / tau            h [N, D]   W [V, D]   lp, H [N]
//! ```
//!
//! Works through slabs of the vocabulary with a running maximum, so that at most a few MiB of logits exist at any time and each weight is
//! read once per pass; the backward pass computes each slab again. Every loss of supervised, preference and reinforcement training is a
//! function of `lp` and `H`: it computes d(loss)/d(lp) itself and seeds [`Tape::backward_from`] with it.

use crate::cpu::gemm::{Epilogue, Out, gemm};
use crate::cpu::pack::Mat;
use crate::cpu::{self, Scratch, math};
use crate::error::{Result, TensorError, shape_error};
use crate::tape::{Back, Slot, Tape, Var};
use crate::tensor::{DType, Elem, Tensor};

use super::Linear;

/// Logits held at a time, in elements (16 MiB).
const SLAB: usize = 4 << 20;
/// Rows worked on at a time.
const ROWS: usize = 2048;

/// Per-token results of [`linear_logprobs`], both `[N]`, `f32`.
#[derive(Debug, Clone)]
pub struct LogProbs {
    /// Natural logarithm of the probability of the target.
    pub logprob: Var,
    /// Entropy of the distribution, in nats.
    pub entropy: Var,
}

/// Log-probability of `targets[i]` after hidden state `h[i]`, and the entropy there. `temperature` divides the logits (1 for training on
/// data; the sampling temperature when the policy that sampled is meant).
///
/// # Errors
/// Shapes do not fit, a target is outside the vocabulary, the temperature is not positive, or the head carries an adapter.
pub fn linear_logprobs(
    tape: &mut Tape<'_>,
    h: &Var,
    head: impl Into<Linear>,
    targets: &[u32],
    temperature: f32,
) -> Result<LogProbs> {
    const OP: &str = "linear_logprobs";
    let head = head.into();
    let params = tape.params();
    let slot = tape.tracked(OP, h)?;
    let h = h.value();
    let (n, d) = (h.rows(), h.cols());
    let weight = params.get(head.weight)?;
    let vocab = match *weight.value().shape() {
        [v, i] if i == d && targets.len() == n => v,
        ref s => return shape_error(OP, format!("h {:?}, head {s:?}, {} targets", h.shape(), targets.len())),
    };
    if let Some((at, &t)) = targets.iter().enumerate().find(|(_, t)| **t as usize >= vocab) {
        return Err(TensorError::Index { op: OP, index: t as usize, at, limit: vocab });
    }
    if !(temperature > 0.0 && temperature.is_finite()) || head.lora.is_some() {
        let what = format!("temperature {temperature} must be positive, and the head must have no adapter");
        return shape_error(OP, what);
    }
    let bias = match head.bias {
        Some(id) => {
            let b = params.get(id)?.value();
            if b.shape() != [vocab] {
                return shape_error(OP, format!("bias {:?} needs [{vocab}]", b.shape()));
            }
            Some(b.as_slice::<f32>()?.iter().map(|b| b / temperature).collect::<Vec<f32>>())
        }
        None => None,
    };
    let call = Call { head, vocab, d, targets: targets.to_vec(), bias, inv_t: 1.0 / temperature };
    let mut lse = vec![0.0f32; n];
    let mut entropy = vec![0.0f32; n];
    let mut logprob = vec![0.0f32; n];
    let w = weight.compute();
    for i0 in (0..n).step_by(ROWS) {
        let rows = (n - i0).min(ROWS);
        let mut stats: Vec<RowStats> = vec![RowStats::EMPTY; rows];
        call.slabs(h, w, (i0, rows), |v0, width, z| {
            cpu::par_zip_rows(
                &mut stats,
                z,
                width,
                #[inline(always)]
                |r, s, z| s.fold(z, call.target_in(i0 + r, v0, width)),
            );
        });
        for (r, s) in stats.iter().enumerate() {
            let log_l = s.l.ln();
            lse[i0 + r] = s.m + log_l;
            logprob[i0 + r] = s.target - s.m - log_l;
            entropy[i0 + r] = log_l - s.t / s.l;
        }
    }
    let outputs = vec![Tensor::from_slice(&[n], &logprob)?, Tensor::from_slice(&[n], &entropy)?];
    let wants_bias = head.bias.map_or(Ok(false), |b| tape.wants(b))?;
    let vars: Vec<Var> = if slot.is_none() && !tape.wants(head.weight)? && !wants_bias {
        outputs.into_iter().map(Var::constant).collect()
    } else {
        let h = h.clone();
        tape.record_many(outputs, move |grads, back| call.backward(back, slot, &h, (&lse, &entropy), grads))
    };
    let mut vars = vars.into_iter();
    match (vars.next(), vars.next()) {
        (Some(logprob), Some(entropy)) => Ok(LogProbs { logprob, entropy }),
        _ => unreachable!("two outputs were recorded"),
    }
}

/// Running maximum `m`, `l = sum e^(z-m)`, `t = sum e^(z-m) (z-m)` and the target's logit of one row.
#[derive(Clone, Copy)]
struct RowStats {
    m: f32,
    l: f32,
    t: f32,
    target: f32,
}

impl RowStats {
    const EMPTY: RowStats = RowStats { m: f32::NEG_INFINITY, l: 0.0, t: 0.0, target: 0.0 };

    #[inline(always)]
    fn fold(&mut self, z: &mut [f32], target: Option<usize>) {
        if let Some(t) = target {
            self.target = z[t];
        }
        let top = math::max(z).max(self.m);
        let (mut l, mut t) = (0.0f64, 0.0f64);
        for block in z.chunks_mut(256) {
            let n = block.len();
            let mut es = [0.0f32; 256];
            for (x, e) in block.iter_mut().zip(&mut es) {
                *x -= top;
                *e = math::exp_negative(*x);
            }
            l += f64::from(math::lanes_sum(
                n,
                #[inline(always)]
                |i| es[i],
            ));
            // A logit of minus infinity has no weight.
            t += f64::from(math::lanes_sum(
                n,
                #[inline(always)]
                |i| es[i] * block[i].max(-1e30),
            ));
        }
        if self.l > 0.0 {
            let shift = self.m - top;
            let scale = math::exp(shift);
            t += f64::from((self.t + self.l * shift) * scale);
            l += f64::from(self.l * scale);
        }
        (self.m, self.l, self.t) = (top, l as f32, t as f32);
    }
}

struct Call {
    head: Linear,
    vocab: usize,
    d: usize,
    targets: Vec<u32>,
    /// Already divided by the temperature.
    bias: Option<Vec<f32>>,
    inv_t: f32,
}

impl Call {
    /// Logits of rows `i0..i0 + rows`, slab by slab: `f(first_token, width, z[rows][width])`.
    fn slabs(
        &self,
        h: &Tensor,
        w: &Tensor,
        (i0, rows): (usize, usize),
        mut f: impl FnMut(usize, usize, &mut [f32]),
    ) {
        let width = (SLAB / rows.max(1) / 16 * 16).max(16).min(self.vocab.max(1));
        let mut z = Scratch::new(rows * width);
        for v0 in (0..self.vocab).step_by(width) {
            let width = (self.vocab - v0).min(width);
            let hm = Mat::of(h, h.rows(), self.d).row_range(i0, rows);
            let wm = Mat::of(w, self.vocab, self.d).row_range(v0, width).t();
            let bias = self.bias.as_ref().map(|b| &b[v0..v0 + width]);
            let z = &mut z[..rows * width];
            gemm(Out::F32(z), hm, wm, Epilogue { alpha: self.inv_t, accumulate: false, bias });
            f(v0, width, z);
        }
    }

    #[inline(always)]
    fn target_in(&self, row: usize, v0: usize, width: usize) -> Option<usize> {
        (self.targets[row] as usize).checked_sub(v0).filter(|&t| t < width)
    }

    fn backward(
        &self,
        back: &mut Back<'_, '_>,
        slot: Option<Slot>,
        h: &Tensor,
        (lse, entropy): (&[f32], &[f32]),
        grads: Vec<Option<Tensor>>,
    ) -> Result<()> {
        let (n, d, params) = (h.rows(), self.d, back.params);
        let mut seeds = grads.into_iter().map(|g| g.map_or_else(|| vec![0.0; n], |g| g.to_vec()));
        let (dlp, dent) = (seeds.next().unwrap_or_default(), seeds.next().unwrap_or_default());
        let weight = params.get(self.head.weight)?;
        let wants_bias = match self.head.bias {
            Some(b) if params.get(b)?.trainable() => Some(b),
            _ => None,
        };
        let w = weight.compute();
        let mut dh = Tensor::uninit(&[n, d], DType::F32);
        let mut fresh_weight = weight.trainable() && back.grads.get(self.head.weight).is_none();
        for i0 in (0..n).step_by(ROWS) {
            let rows = (n - i0).min(ROWS);
            self.slabs(h, w, (i0, rows), |v0, width, z| {
                cpu::par_rows(
                    z,
                    width,
                    #[inline(always)]
                    |first, z| {
                        for (r, z) in z.chunks_exact_mut(width).enumerate() {
                            let i = i0 + first + r;
                            let (lse, entropy, dlp, dent) = (lse[i], entropy[i], dlp[i], dent[i]);
                            if dent == 0.0 {
                                for z in z.iter_mut() {
                                    *z = -math::exp_negative(*z - lse) * dlp;
                                }
                            } else {
                                for z in z.iter_mut() {
                                    let logp = *z - lse;
                                    let p = math::exp_negative(logp);
                                    // A probability of zero has no weight, however far its logarithm is.
                                    let logp = if p > 0.0 { logp } else { 0.0 };
                                    *z = -p * (dlp + dent * (logp + entropy));
                                }
                            }
                            if let Some(t) = self.target_in(i, v0, width) {
                                z[t] += dlp;
                            }
                        }
                    },
                );
                // What is multiplied with bf16 is rounded to it, as every other gradient of a bf16 pass is.
                let mut narrow = Scratch::halves(if h.dtype() == DType::Bf16 { rows * width } else { 0 });
                let dz = match h.dtype() {
                    DType::F32 => Mat::f32(z, rows, width),
                    DType::Bf16 => {
                        let narrow = &mut narrow.halves_mut()[..rows * width];
                        cpu::par_map(
                            narrow,
                            z,
                            // A closure, so that it is inlined into the loop compiled for wide vectors.
                            #[allow(clippy::redundant_closure)]
                            #[inline(always)]
                            |z| Elem::down(z),
                        );
                        Mat::bf16(narrow, rows, width)
                    }
                };
                if slot.is_some() {
                    let part = &mut dh.fresh::<f32>()[i0 * d..(i0 + rows) * d];
                    let e = Epilogue { alpha: self.inv_t, ..Epilogue::add_if(v0 > 0) };
                    gemm(Out::F32(part), dz, Mat::of(w, self.vocab, d).row_range(v0, width), e);
                }
                if weight.trainable() {
                    let (g, _) = back.grads.accumulate(self.head.weight, weight.value().shape());
                    let e = Epilogue { alpha: self.inv_t, ..Epilogue::add_if(!fresh_weight) };
                    let hm = Mat::of(h, n, d).row_range(i0, rows);
                    gemm(Out::F32(&mut g[v0 * d..(v0 + width) * d]), dz.t(), hm, e);
                }
                if let Some(bias) = wants_bias {
                    let g = back.grads.accumulate_zeroed(bias, &[self.vocab]);
                    let inv_t = self.inv_t;
                    cpu::par_sum_rows(
                        z,
                        width,
                        &mut g[v0..v0 + width],
                        #[inline(always)]
                        |_, rows, sums| {
                            for row in rows.chunks_exact(width) {
                                for (s, z) in sums.iter_mut().zip(row) {
                                    *s += z * inv_t;
                                }
                            }
                        },
                    );
                }
            });
            fresh_weight = false;
        }
        if fresh_weight {
            back.grads.accumulate_zeroed(self.head.weight, weight.value().shape());
        }
        back.add_opt(slot, || dh.reshape(h.shape()).map(|g| g.to_dtype(h.dtype())))
    }
}
