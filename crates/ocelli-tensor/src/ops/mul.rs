//! Products: of two variables, with a constant, with a vector per row (layer scale) or a number per row.
//!
//! ```text
//! mul         z = x y                 dx = y dz       dy = x dz
//! scale       z = c x                 dx = c dz
//! mul_vec     z[i] = x[i] w           dx = w dz       dw = sum_rows x dz       x [N, D]   w [D]
//! scale_rows  z[i] = c[i] x[i]        dx = c dz       (c is constant)          c [N]
//! ```

use crate::cpu;
use crate::error::{Result, shape_error};
use crate::params::ParamId;
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

fn product(x: &Tensor, y: &Tensor) -> Tensor {
    let mut z = x.copied();
    by_dtype!(x.dtype(), T => cpu::par_zip(z.fresh::<T>(), y.slice::<T>(), #[inline(always)] |z, y| *z = T::down(z.up() * y.up())));
    z
}

/// `x * y`, elementwise, in the shape of `x`.
///
/// # Errors
/// Lengths or types differ.
pub fn mul(tape: &mut Tape<'_>, x: &Var, y: &Var) -> Result<Var> {
    let (sx, sy) = (tape.tracked("mul", x)?, tape.tracked("mul", y)?);
    super::same("mul", x.value(), y.value())?;
    let z = product(x.value(), y.value());
    if sx.is_none() && sy.is_none() {
        return Ok(tape.constant(z));
    }
    let (x, y) = (x.value().clone(), y.value().clone());
    Ok(tape.record(z, move |dz, back| {
        back.add_opt(sx, || Ok(product(&dz, &y)))?;
        back.add_opt(sy, || Ok(product(&dz, &x)))
    }))
}

/// `x *= factor` on memory nobody else holds.
pub(super) fn times(x: &mut Tensor, factor: f32) {
    by_dtype!(x.dtype(), T => cpu::par_update(x.fresh::<T>(), #[inline(always)] |x| *x = T::down(x.up() * factor)));
}

/// `factor * x`.
///
/// # Errors
/// `x` belongs to another tape.
pub fn scale(tape: &mut Tape<'_>, x: &Var, factor: f32) -> Result<Var> {
    let slot = tape.tracked("scale", x)?;
    let copy = move |x: &Tensor| {
        let mut z = x.copied();
        times(&mut z, factor);
        z
    };
    let z = copy(x.value());
    match slot {
        None => Ok(tape.constant(z)),
        Some(slot) => Ok(tape.record(z, move |dz, back| back.add(slot, copy(&dz)))),
    }
}

/// Multiplies rows by numbers from `f(row)(column)`.
fn rows_times<T: Elem>(x: &[T], z: &mut [T], d: usize, f: impl Fn(usize, usize) -> f32 + Sync) {
    cpu::par_rows(
        z,
        d,
        #[inline(always)]
        |first, rows| {
            for (r, (z, x)) in rows.chunks_exact_mut(d).zip(x[first * d..].chunks_exact(d)).enumerate() {
                for i in 0..d {
                    z[i] = T::down(x[i].up() * f(first + r, i));
                }
            }
        },
    );
}

/// `x * w` for every row of `x` (layer scale).
///
/// # Errors
/// `w` does not have the length of a row.
pub fn mul_vec(tape: &mut Tape<'_>, x: &Var, w: ParamId) -> Result<Var> {
    let params = tape.params();
    let (slot, wants) = (tape.tracked("mul_vec", x)?, tape.wants(w)?);
    let (vector, d) = (params.get(w)?.value(), x.value().cols());
    if vector.shape() != [d] {
        return shape_error("mul_vec", format!("x {:?} * vector {:?}", x.shape(), vector.shape()));
    }
    let vector = vector.as_slice::<f32>()?;
    let x = x.value();
    let mut z = Tensor::uninit(x.shape(), x.dtype());
    by_dtype!(x.dtype(), T => rows_times(x.slice::<T>(), z.fresh(), d, |_, i| vector[i]));
    if slot.is_none() && !wants {
        return Ok(tape.constant(z));
    }
    let x = x.clone();
    Ok(tape.record(z, move |dz, back| {
        if wants {
            let g = back.grads.accumulate_zeroed(w, &[d]);
            by_dtype!(x.dtype(), T => {
                let dz = dz.slice::<T>();
                cpu::par_sum_rows(x.slice::<T>(), d, g, #[inline(always)] |first, rows, sums| {
                    for (x, dz) in rows.chunks_exact(d).zip(dz[first * d..].chunks_exact(d)) {
                        for i in 0..d {
                            sums[i] += x[i].up() * dz[i].up();
                        }
                    }
                });
            });
        }
        back.add_opt(slot, || {
            let mut dx = Tensor::uninit(dz.shape(), dz.dtype());
            by_dtype!(dz.dtype(), T => rows_times(dz.slice::<T>(), dx.fresh(), d, |_, i| vector[i]));
            Ok(dx)
        })
    }))
}

/// `factors[i] * x[i]` for every row `i`.
///
/// # Errors
/// There is not one factor per row.
pub fn scale_rows(tape: &mut Tape<'_>, x: &Var, factors: &[f32]) -> Result<Var> {
    let slot = tape.tracked("scale_rows", x)?;
    let (rows, d) = (x.value().rows(), x.value().cols());
    if factors.len() != rows {
        return shape_error("scale_rows", format!("{} factors for x {:?}", factors.len(), x.shape()));
    }
    let times = move |x: &Tensor, factors: &[f32]| {
        let mut z = Tensor::uninit(x.shape(), x.dtype());
        by_dtype!(x.dtype(), T => rows_times(x.slice::<T>(), z.fresh(), d, |r, _| factors[r]));
        z
    };
    let z = times(x.value(), factors);
    let Some(slot) = slot else { return Ok(tape.constant(z)) };
    let factors = factors.to_vec();
    Ok(tape.record(z, move |dz, back| back.add(slot, times(&dz, &factors))))
}
