//! Layer normalisation (Ba et al. 2016).
//!
//! ```text
//! y = h w + b,   h = (x - mean) r,   r = 1 / sqrt(var + eps)     x, y [N, D]   w, b [D]
//! dx = r (g - mean(g) - h mean(g h)) with g = w dy     dw = sum_rows dy h     db = sum_rows dy
//! ```

use crate::cpu::{self, math};
use crate::error::{Result, shape_error};
use crate::params::ParamId;
use crate::tape::{Recipe, Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Normalises every row of `x`; `weight` and `bias` have the length of a row.
///
/// # Errors
/// Lengths differ.
pub fn layer_norm(
    tape: &mut Tape<'_>,
    x: &Var,
    weight: ParamId,
    bias: Option<ParamId>,
    eps: f32,
) -> Result<Var> {
    let params = tape.params();
    let d = x.value().cols();
    let vector = |id: ParamId| {
        let p = params.get(id)?;
        if p.value().shape() != [d] || d == 0 {
            let what = format!("{:?} {:?} needs [{d}] for x {:?}", p.name(), p.value().shape(), x.shape());
            return shape_error("layer_norm", what);
        }
        p.value().as_slice::<f32>()
    };
    let w = vector(weight)?;
    let b = bias.map(vector).transpose()?;
    let slot = tape.tracked("layer_norm", x)?;
    let wants_w = tape.wants(weight)?;
    let wants_b = bias.map_or(Ok(false), |b| tape.wants(b))?;
    let (x, y) = (x.value(), normalised(x.value(), w, b, eps));
    if slot.is_none() && !wants_w && !wants_b {
        return Ok(tape.constant(y));
    }
    let x = x.clone();
    let recipe = {
        // The vectors' tensors are shared, not copied.
        let (x, w) = (x.clone(), params.get(weight)?.value().clone());
        let b = bias.map(|b| params.get(b).map(|b| b.value().clone())).transpose()?;
        Recipe::new(move || normalised(&x, w.slice(), b.as_ref().map(Tensor::slice), eps))
    };
    let out = tape.record(y, move |dy, back| {
        let mut dx = Tensor::uninit(x.shape(), x.dtype());
        let mut sums = cpu::Scratch::zeroed(2 * d);
        by_dtype!(x.dtype(), T => {
            let (x, dy) = (x.slice::<T>(), dy.slice::<T>());
            cpu::par_rows_and_sum(dx.fresh::<T>(), d, &mut sums, #[inline(always)] |first, rows, sums| {
                let (dw, db) = sums.split_at_mut(d);
                let at = first * d;
                for ((dx, x), dy) in rows.chunks_exact_mut(d).zip(x[at..].chunks_exact(d)).zip(dy[at..].chunks_exact(d)) {
                    let (mean, r) = moments(x, eps);
                    let g_mean = math::sum_of(w, dy, x, #[inline(always)] |w, dy, _| w * dy.up()) / d as f32;
                    let gh_mean =
                        math::sum_of(w, dy, x, #[inline(always)] |w, dy, x| w * dy.up() * ((x.up() - mean) * r)) / d as f32;
                    let (dx, x, dy, w) = (&mut dx[..d], &x[..d], &dy[..d], &w[..d]);
                    let (dw, db) = (&mut dw[..d], &mut db[..d]);
                    for i in 0..d {
                        let (h, dy) = ((x[i].up() - mean) * r, dy[i].up());
                        dx[i] = T::down(r * (w[i] * dy - g_mean - h * gh_mean));
                        dw[i] += dy * h;
                        db[i] += dy;
                    }
                }
            });
        });
        for (id, wanted, sum) in [(Some(weight), wants_w, &sums[..d]), (bias, wants_b, &sums[d..])] {
            if let (Some(id), true) = (id, wanted) {
                let g = back.grads.accumulate_zeroed(id, &[d]);
                g.iter_mut().zip(sum).for_each(|(a, b)| *a += b);
            }
        }
        back.add_opt(slot, || Ok(dx))
    });
    Ok(out.with_recipe(recipe))
}

fn normalised(x: &Tensor, w: &[f32], b: Option<&[f32]>, eps: f32) -> Tensor {
    let d = w.len();
    let mut y = Tensor::uninit(x.shape(), x.dtype());
    by_dtype!(x.dtype(), T => {
        let x = x.slice::<T>();
        cpu::par_rows(y.fresh::<T>(), d, #[inline(always)] |first, rows| {
            for (row, x) in rows.chunks_exact_mut(d).zip(x[first * d..].chunks_exact(d)) {
                let (mean, r) = moments(x, eps);
                match b {
                    None => {
                        for ((y, x), w) in row.iter_mut().zip(x).zip(w) {
                            *y = T::down((x.up() - mean) * r * w);
                        }
                    }
                    Some(b) => {
                        for (((y, x), w), b) in row.iter_mut().zip(x).zip(w).zip(b) {
                            *y = T::down((x.up() - mean) * r * w + b);
                        }
                    }
                }
            }
        });
    });
    y
}

/// Mean and reciprocal standard deviation; the variance is summed around the mean, as large means would cancel otherwise.
#[inline(always)]
fn moments<T: Elem>(x: &[T], eps: f32) -> (f32, f32) {
    let d = x.len();
    let mean = math::sum_of(
        x,
        x,
        x,
        #[inline(always)]
        |x, _, _| x.up(),
    ) / d as f32;
    let var = math::sum_of(
        x,
        x,
        x,
        #[inline(always)]
        |x, _, _| (x.up() - mean) * (x.up() - mean),
    ) / d as f32;
    (mean, 1.0 / (var + eps).sqrt())
}
