//! Root-mean-square normalisation (Zhang & Sennrich 2019).
//!
//! ```text
//! y = x r w,   r = 1 / sqrt(mean(x^2) + eps)         x, y [N, D]   w [D]
//! dx = r (w dy - x r^2 mean(w dy x))    dw = sum_rows dy x r
//! ```
//!
//! `D` is the length of `w`, so per-head norms of q and k (Qwen3) are the same call with `w [head_dim]` on `[N, heads * head_dim]`.

use crate::cpu::{self, math};
use crate::error::{Result, shape_error};
use crate::params::ParamId;
use crate::tape::{Recipe, Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Normalises every run of `D` elements of `x`, where `D` is the length of `weight`.
///
/// # Errors
/// The last dimension of `x` is not a multiple of `D`.
pub fn rms_norm(tape: &mut Tape<'_>, x: &Var, weight: ParamId, eps: f32) -> Result<Var> {
    let params = tape.params();
    let w = params.get(weight)?.value();
    let d = w.len();
    if d == 0 || !x.value().cols().is_multiple_of(d) {
        return shape_error("rms_norm", format!("x {:?} is not made of runs of the weight's {d}", x.shape()));
    }
    let slot = tape.tracked("rms_norm", x)?;
    let wants = tape.wants(weight)?;
    let w = w.as_slice::<f32>()?;
    let (x, y) = (x.value(), normalised(x.value(), w, eps));
    if slot.is_none() && !wants {
        return Ok(tape.constant(y));
    }
    let x = x.clone();
    let recipe = {
        // The weight's tensor is shared, not copied.
        let (x, w) = (x.clone(), params.get(weight)?.value().clone());
        Recipe::new(move || normalised(&x, w.slice(), eps))
    };
    let out = tape.record(y, move |dy, back| {
        let mut dx = Tensor::uninit(x.shape(), x.dtype());
        let mut dw = cpu::Scratch::zeroed(d);
        by_dtype!(x.dtype(), T => {
            let (x, dy) = (x.slice::<T>(), dy.slice::<T>());
            cpu::par_rows_and_sum(dx.fresh::<T>(), d, &mut dw, #[inline(always)] |first, rows, dw| {
                let at = first * d;
                for ((dx, x), dy) in rows.chunks_exact_mut(d).zip(x[at..].chunks_exact(d)).zip(dy[at..].chunks_exact(d)) {
                    let r = inverse_rms(x, eps);
                    let dot = math::sum_of(w, dy, x, #[inline(always)] |w, dy, x| w * dy.up() * x.up());
                    let c = r * r * dot / d as f32;
                    let (dx, x, dy, w, dw) = (&mut dx[..d], &x[..d], &dy[..d], &w[..d], &mut dw[..d]);
                    for i in 0..d {
                        let (x, dy) = (x[i].up(), dy[i].up());
                        dx[i] = T::down(r * (w[i] * dy - x * c));
                        dw[i] += dy * x * r;
                    }
                }
            });
        });
        if wants {
            let g = back.grads.accumulate_zeroed(weight, &[d]);
            g.iter_mut().zip(dw.iter()).for_each(|(a, b)| *a += b);
        }
        back.add_opt(slot, || Ok(dx))
    });
    Ok(out.with_recipe(recipe))
}

fn normalised(x: &Tensor, w: &[f32], eps: f32) -> Tensor {
    let d = w.len();
    let mut y = Tensor::uninit(x.shape(), x.dtype());
    by_dtype!(x.dtype(), T => {
        let x = x.slice::<T>();
        cpu::par_rows(y.fresh::<T>(), d, #[inline(always)] |first, rows| {
            for (row, x) in rows.chunks_exact_mut(d).zip(x[first * d..].chunks_exact(d)) {
                let r = inverse_rms(x, eps);
                for ((y, x), w) in row.iter_mut().zip(x).zip(w) {
                    *y = T::down(x.up() * r * w);
                }
            }
        });
    });
    y
}

#[inline(always)]
fn inverse_rms<T: Elem>(x: &[T], eps: f32) -> f32 {
    1.0 / (math::dot(x, x) / x.len() as f32 + eps).sqrt()
}
