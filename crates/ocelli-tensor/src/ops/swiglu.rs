//! Gated linear unit with SiLU (Shazeer 2020).
//!
//! ```text
//! y = silu(g) u,   silu(g) = g s(g),   s the logistic function        g, u, y [N, F]
//! du = dy silu(g)       dg = dy u s(g) (1 + g (1 - s(g)))
//! ```

use rayon::prelude::*;

use crate::cpu::{self, math};
use crate::error::{Result, shape_error};
use crate::tape::{Recipe, Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// `silu(gate) * up`.
///
/// # Errors
/// Shapes or types differ.
pub fn swiglu(tape: &mut Tape<'_>, gate: &Var, up: &Var) -> Result<Var> {
    let slots = (tape.tracked("swiglu", gate)?, tape.tracked("swiglu", up)?);
    let (g, u) = (gate.value(), up.value());
    if g.shape() != u.shape() || g.dtype() != u.dtype() {
        return shape_error(
            "swiglu",
            format!("gate {:?} {:?} and up {:?} {:?}", g.shape(), g.dtype(), u.shape(), u.dtype()),
        );
    }
    let y = product(g, u);
    if slots == (None, None) {
        return Ok(tape.constant(y));
    }
    let (g, u) = (g.clone(), u.clone());
    let recipe = {
        let (g, u) = (g.clone(), u.clone());
        Recipe::new(move || product(&g, &u))
    };
    let out = tape.record(y, move |dy, back| {
        let (mut dg, mut du) = (Tensor::uninit(g.shape(), g.dtype()), Tensor::uninit(g.shape(), g.dtype()));
        by_dtype!(g.dtype(), T => {
            let inputs = g.slice::<T>().par_chunks(cpu::PIECE).zip(u.slice::<T>().par_chunks(cpu::PIECE));
            let outputs = dg.fresh::<T>().par_chunks_mut(cpu::PIECE).zip(du.fresh::<T>().par_chunks_mut(cpu::PIECE));
            let dys = dy.slice::<T>().par_chunks(cpu::PIECE);
            inputs.zip(outputs).zip(dys).for_each(|(((g, u), (dg, du)), dy)| {
                cpu::vectorize(#[inline(always)] || {
                    let n = g.len();
                    let (u, dg, du, dy) = (&u[..n], &mut dg[..n], &mut du[..n], &dy[..n]);
                    for i in 0..n {
                        let (g, u, dy) = (g[i].up(), u[i].up(), dy[i].up());
                        let s = math::sigmoid(g);
                        du[i] = T::down(dy * g * s);
                        dg[i] = T::down(dy * u * s * (1.0 + g * (1.0 - s)));
                    }
                });
            });
        });
        back.add_opt(slots.0, || Ok(dg))?;
        back.add_opt(slots.1, || Ok(du))
    });
    Ok(out.with_recipe(recipe))
}

fn product(g: &Tensor, u: &Tensor) -> Tensor {
    let mut y = Tensor::uninit(g.shape(), g.dtype());
    by_dtype!(g.dtype(), T => {
        let (g, u) = (g.slice::<T>(), u.slice::<T>());
        cpu::par_rows(y.fresh::<T>(), 1, #[inline(always)] |first, y| {
            for ((y, g), u) in y.iter_mut().zip(&g[first..]).zip(&u[first..]) {
                let g = g.up();
                *y = T::down(g * math::sigmoid(g) * u.up());
            }
        });
    });
    y
}
