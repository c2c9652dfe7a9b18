//! Sums: of two variables (residual connections), and of a vector to every row (biases, position embeddings).
//!
//! ```text
//! add      z = x + y                 dx = dz    dy = dz
//! add_vec  z[i] = x[i] + b           dx = dz    db = sum_rows dz        x [N, D]   b [D]
//! ```

use crate::cpu;
use crate::error::{Result, shape_error};
use crate::params::ParamId;
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// `x + y`, elementwise, in the shape of `x`.
///
/// # Errors
/// Lengths or types differ.
pub fn add(tape: &mut Tape<'_>, x: &Var, y: &Var) -> Result<Var> {
    let slots = [tape.tracked("add", x)?, tape.tracked("add", y)?];
    let (x, y) = (x.value(), y.value());
    let mut z = Tensor::uninit(x.shape(), x.dtype());
    super::same("add", x, y)?;
    by_dtype!(x.dtype(), T => {
        let (x, y) = (x.slice::<T>(), y.slice::<T>());
        cpu::par_rows(z.fresh::<T>(), 1, #[inline(always)] |first, z| {
            for ((z, x), y) in z.iter_mut().zip(&x[first..]).zip(&y[first..]) {
                *z = T::down(x.up() + y.up());
            }
        });
    });
    if slots == [None, None] {
        return Ok(tape.constant(z));
    }
    Ok(tape.record(z, move |dz, back| {
        for slot in slots.into_iter().flatten() {
            back.add(slot, dz.clone())?;
        }
        Ok(())
    }))
}

/// `x + b` for every row of `x`.
///
/// # Errors
/// `b` does not have the length of a row.
pub fn add_vec(tape: &mut Tape<'_>, x: &Var, b: ParamId) -> Result<Var> {
    let params = tape.params();
    let (slot, wants) = (tape.tracked("add_vec", x)?, tape.wants(b)?);
    let (vector, d) = (params.get(b)?.value(), x.value().cols());
    if vector.shape() != [d] {
        return shape_error("add_vec", format!("x {:?} + vector {:?}", x.shape(), vector.shape()));
    }
    let vector = vector.as_slice::<f32>()?;
    let x = x.value();
    let mut z = Tensor::uninit(x.shape(), x.dtype());
    by_dtype!(x.dtype(), T => {
        let x = x.slice::<T>();
        cpu::par_rows(z.fresh::<T>(), d, #[inline(always)] |first, rows| {
            for (z, x) in rows.chunks_exact_mut(d).zip(x[first * d..].chunks_exact(d)) {
                for i in 0..d {
                    z[i] = T::down(x[i].up() + vector[i]);
                }
            }
        });
    });
    if slot.is_none() && !wants {
        return Ok(tape.constant(z));
    }
    Ok(tape.record(z, move |dz, back| {
        if wants {
            super::linear::bias_grad(back, b, &dz, d);
        }
        back.add_opt(slot, || Ok(dz))
    }))
}
