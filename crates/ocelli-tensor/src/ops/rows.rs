//! Moving rows: gathering, splicing, joining, mixing; and splitting columns.
//!
//! ```text
//! gather_rows   y[i] = x[idx[i]]                        dx[idx[i]] += dy[i]
//! scatter_rows  y = base; y[idx[i]] = rows[i]           dbase = dy, zero at idx;   drows[i] = dy[idx[i]]
//! concat_rows   y = x_0 above x_1 above ..
//! mix_rows      y[i] = sum_k w[i, k] x[idx[i, k]]       dx[idx[i, k]] += w[i, k] dy[i]      (interpolated position tables)
//! split_cols    y_0 | y_1 | .. = x
//! ```
//!
//! Splicing image features into text is `scatter_rows`; pixel-unshuffle and 2 x 2 patch merging are `gather_rows` by
//! [`merge_order`] followed by a reshape; patch embedding is `linear` over flattened patches (a convolution whose stride is its kernel).

use crate::cpu;
use crate::error::{Result, TensorError, shape_error};
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// `out[target(i)] += x[i]` for rows of `d`, in the order of `i` whatever the number of threads: tasks split columns, not rows.
pub(super) fn scatter_add<T: Elem>(
    out: &mut [f32],
    d: usize,
    x: &[T],
    target: impl Fn(usize) -> usize + Sync,
) {
    scatter_add_weighted(out, d, x.len() / d.max(1), |i| (target(i), i, 1.0), x);
}

/// `out[to] += weight * x[from]` for `n` triples.
fn scatter_add_weighted<T: Elem>(
    out: &mut [f32],
    d: usize,
    n: usize,
    triple: impl Fn(usize) -> (usize, usize, f32) + Sync,
    x: &[T],
) {
    use rayon::prelude::*;
    const COLS: usize = 64;
    let shared = cpu::Shared::new(out);
    let block = |c: usize| {
        let (from, width) = (c * COLS, (d - c * COLS).min(COLS));
        for i in 0..n {
            let (to, source, weight) = triple(i);
            #[allow(unsafe_code)]
            // SAFETY: tasks own disjoint columns.
            let out = unsafe { shared.slice(to * d + from, width) };
            for (o, x) in out.iter_mut().zip(&x[source * d + from..][..width]) {
                *o += weight * x.up();
            }
        }
    };
    let blocks = d.div_ceil(COLS);
    if n * d <= cpu::PIECE {
        (0..blocks).for_each(block);
    } else {
        (0..blocks).into_par_iter().for_each(block);
    }
}

fn check(op: &'static str, idx: &[usize], limit: usize) -> Result<()> {
    match idx.iter().enumerate().find(|(_, i)| **i >= limit) {
        Some((at, &index)) => Err(TensorError::Index { op, index, at, limit }),
        None => Ok(()),
    }
}

/// Converts sums made in `f32` to the type gradients have here.
fn typed(sums: Tensor, like: &Tensor) -> Tensor {
    sums.to_dtype(like.dtype())
}

fn gathered(x: &Tensor, d: usize, idx: &[usize]) -> Tensor {
    let mut y = Tensor::uninit(&[idx.len(), d], x.dtype());
    by_dtype!(x.dtype(), T => {
        let x = x.slice::<T>();
        cpu::par_rows(y.fresh::<T>(), d, #[inline(always)] |first, rows| {
            for (row, &i) in rows.chunks_exact_mut(d).zip(&idx[first..]) {
                row.copy_from_slice(&x[i * d..(i + 1) * d]);
            }
        });
    });
    y
}

/// Rows of `x` by index, `[len(idx), D]`; an index may occur several times.
///
/// # Errors
/// An index is not a row of `x`.
pub fn gather_rows(tape: &mut Tape<'_>, x: &Var, idx: &[usize]) -> Result<Var> {
    let slot = tape.tracked("gather_rows", x)?;
    let (n, d) = (x.value().rows(), x.value().cols());
    check("gather_rows", idx, n)?;
    let y = gathered(x.value(), d, idx);
    let Some(slot) = slot else { return Ok(tape.constant(y)) };
    let (shape, idx) = (x.shape().to_vec(), idx.to_vec());
    Ok(tape.record(y, move |dy, back| {
        let mut dx = Tensor::zeros(&shape, crate::DType::F32);
        by_dtype!(dy.dtype(), T => scatter_add(dx.fresh(), d, dy.slice::<T>(), |i| idx[i]));
        back.add(slot, typed(dx, &dy))
    }))
}

/// `base` with rows `idx` replaced by `rows`.
///
/// # Errors
/// Row lengths or types differ, there is not one index per row, an index repeats or is not a row of `base`.
pub fn scatter_rows(tape: &mut Tape<'_>, base: &Var, idx: &[usize], rows: &Var) -> Result<Var> {
    const OP: &str = "scatter_rows";
    let (sb, sr) = (tape.tracked(OP, base)?, tape.tracked(OP, rows)?);
    let (b, r) = (base.value(), rows.value());
    let (n, d) = (b.rows(), b.cols());
    if r.cols() != d || r.rows() != idx.len() || r.dtype() != b.dtype() {
        let what = format!(
            "{} indices, rows {:?} {:?}, base {:?} {:?}",
            idx.len(),
            r.shape(),
            r.dtype(),
            b.shape(),
            b.dtype()
        );
        return shape_error(OP, what);
    }
    check(OP, idx, n)?;
    let mut seen = vec![false; n];
    for &i in idx {
        if std::mem::replace(&mut seen[i], true) {
            return shape_error(OP, format!("row {i} is written twice"));
        }
    }
    let mut y = b.copied();
    by_dtype!(b.dtype(), T => {
        let y = y.fresh::<T>();
        for (&i, row) in idx.iter().zip(r.slice::<T>().chunks_exact(d.max(1))) {
            y[i * d..(i + 1) * d].copy_from_slice(row);
        }
    });
    if sb.is_none() && sr.is_none() {
        return Ok(tape.constant(y));
    }
    let idx = idx.to_vec();
    Ok(tape.record(y, move |mut dy, back| {
        back.add_opt(sr, || Ok(gathered(&dy, d, &idx)))?;
        back.add_opt(sb, || {
            by_dtype!(dy.dtype(), T => {
                let g = dy.as_mut_slice::<T>()?;
                for &i in &idx {
                    g[i * d..(i + 1) * d].fill(T::down(0.0));
                }
            });
            Ok(dy)
        })
    }))
}

/// The rows of all of `xs`, one after another.
///
/// # Errors
/// None given, or row lengths or types differ.
pub fn concat_rows(tape: &mut Tape<'_>, xs: &[&Var]) -> Result<Var> {
    const OP: &str = "concat_rows";
    let Some(first) = xs.first().map(|x| x.value()) else { return shape_error(OP, "nothing to join") };
    let (d, dtype) = (first.cols(), first.dtype());
    let mut slots = Vec::with_capacity(xs.len());
    for x in xs {
        if x.value().cols() != d || x.value().dtype() != dtype {
            let what = format!("{:?} {:?} below rows of {d} {dtype:?}", x.shape(), x.value().dtype());
            return shape_error(OP, what);
        }
        slots.push((tape.tracked(OP, x)?, x.value().rows()));
    }
    let total: usize = slots.iter().map(|s| s.1).sum();
    let mut y = Tensor::uninit(&[total, d], dtype);
    by_dtype!(dtype, T => {
        let mut rest = y.fresh::<T>();
        for x in xs {
            let (here, after) = rest.split_at_mut(x.value().len());
            here.copy_from_slice(x.value().slice());
            rest = after;
        }
    });
    if slots.iter().all(|s| s.0.is_none()) {
        return Ok(tape.constant(y));
    }
    Ok(tape.record(y, move |dy, back| {
        let mut row = 0;
        for (slot, n) in slots {
            back.add_opt(slot, || dy.slice_rows(row..row + n))?;
            row += n;
        }
        Ok(())
    }))
}

/// Columns of `x` in consecutive groups of the given widths: a fused q/k/v projection taken apart.
///
/// # Errors
/// The widths do not add up to the row length.
pub fn split_cols(tape: &mut Tape<'_>, x: &Var, widths: &[usize]) -> Result<Vec<Var>> {
    let slot = tape.tracked("split_cols", x)?;
    let x = x.value();
    let (n, d) = (x.rows(), x.cols());
    if widths.iter().sum::<usize>() != d {
        return shape_error(
            "split_cols",
            format!("widths {widths:?} do not add up to the last dimension of {:?}", x.shape()),
        );
    }
    let starts: Vec<usize> = widths.iter().scan(0, |at, w| Some(std::mem::replace(at, *at + w))).collect();
    let mut parts = Vec::with_capacity(widths.len());
    for (&w, &at) in widths.iter().zip(&starts) {
        let mut y = Tensor::uninit(&[n, w], x.dtype());
        by_dtype!(x.dtype(), T => {
            let x = x.slice::<T>();
            cpu::par_rows(y.fresh::<T>(), w, #[inline(always)] |first, rows| {
                for (i, row) in rows.chunks_exact_mut(w).enumerate() {
                    row.copy_from_slice(&x[(first + i) * d + at..][..w]);
                }
            });
        });
        parts.push(y);
    }
    let Some(slot) = slot else { return Ok(parts.into_iter().map(Var::constant).collect()) };
    let (shape, dtype, widths) = (x.shape().to_vec(), x.dtype(), widths.to_vec());
    Ok(tape.record_many(parts, move |dys, back| {
        let mut dx = Tensor::zeros(&shape, dtype);
        by_dtype!(dtype, T => {
            let dx = dx.fresh::<T>();
            for ((dy, &w), &at) in dys.iter().zip(&widths).zip(&starts) {
                let Some(dy) = dy else { continue };
                let dy = dy.slice::<T>();
                cpu::par_rows(dx, d, #[inline(always)] |first, rows| {
                    for (i, row) in rows.chunks_exact_mut(d).enumerate() {
                        row[at..at + w].copy_from_slice(&dy[(first + i) * w..][..w]);
                    }
                });
            }
        });
        back.add(slot, dx)
    }))
}

/// A sparse matrix of mixing weights: output row `i` is the sum of `weights[k] * x[idx[k]]` over `k` in `i * taps..(i + 1) * taps`.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMix {
    /// Source rows per output row (4 for bilinear interpolation).
    pub taps: usize,
    /// Source rows, `taps` per output row.
    pub idx: Vec<usize>,
    /// Their weights.
    pub weights: Vec<f32>,
}

/// Fixed linear combinations of rows, `[len(idx) / taps, D]`: learned position tables interpolated to another grid.
///
/// # Errors
/// `idx` and `weights` differ in length or are no multiple of `taps`; an index is not a row of `x`.
pub fn mix_rows(tape: &mut Tape<'_>, x: &Var, mix: &RowMix) -> Result<Var> {
    const OP: &str = "mix_rows";
    let slot = tape.tracked(OP, x)?;
    let (n, d, taps) = (x.value().rows(), x.value().cols(), mix.taps);
    if taps == 0 || mix.idx.len() != mix.weights.len() || !mix.idx.len().is_multiple_of(taps) {
        let what =
            format!("{} indices and {} weights for {taps} taps per row", mix.idx.len(), mix.weights.len());
        return shape_error(OP, what);
    }
    check(OP, &mix.idx, n)?;
    let x = x.value();
    let mut y = Tensor::uninit(&[mix.idx.len() / taps, d], x.dtype());
    by_dtype!(x.dtype(), T => {
        let x = x.slice::<T>();
        cpu::par_rows(y.fresh::<T>(), d, #[inline(always)] |first, rows| {
            for (i, row) in rows.chunks_exact_mut(d).enumerate() {
                let at = (first + i) * taps;
                for (c, o) in row.iter_mut().enumerate() {
                    *o = T::down((at..at + taps).map(|k| mix.weights[k] * x[mix.idx[k] * d + c].up()).sum());
                }
            }
        });
    });
    let Some(slot) = slot else { return Ok(tape.constant(y)) };
    let (shape, mix) = (x.shape().to_vec(), mix.clone());
    Ok(tape.record(y, move |dy, back| {
        let mut dx = Tensor::zeros(&shape, crate::DType::F32);
        let triple = |k: usize| (mix.idx[k], k / taps, mix.weights[k]);
        by_dtype!(dy.dtype(), T => scatter_add_weighted(dx.fresh(), d, mix.idx.len(), triple, dy.slice::<T>()));
        back.add(slot, typed(dx, &dy))
    }))
}

/// Row order that brings each `merge x merge` block of an `height x width` grid (row-major) together, blocks and rows inside a block
/// row-major: gather by it and reshape `[h * w, C]` to `[h * w / merge^2, merge^2 * C]`. This is Qwen2-VL's patch merging and
/// InternVL's pixel-unshuffle (its version 2).
///
/// # Errors
/// The grid is not made of whole blocks.
pub fn merge_order(height: usize, width: usize, merge: usize) -> Result<Vec<usize>> {
    if merge == 0 || !height.is_multiple_of(merge) || !width.is_multiple_of(merge) {
        return shape_error(
            "merge_order",
            format!("a {height} x {width} grid is not made of {merge} x {merge} blocks"),
        );
    }
    let mut out = Vec::with_capacity(height * width);
    for (by, bx) in (0..height / merge).flat_map(|y| (0..width / merge).map(move |x| (y, x))) {
        for (y, x) in (0..merge).flat_map(|y| (0..merge).map(move |x| (y, x))) {
            out.push((by * merge + y) * width + bx * merge + x);
        }
    }
    Ok(out)
}
