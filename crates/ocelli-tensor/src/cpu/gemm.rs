//! Matrix product for all linear layers: `C[m, n] (+)= alpha * A[m, k] B[k, n] (+ bias[n])`, operands in `f32` or bf16 and
//! either orientation, accumulation always in `f32`. Two bf16 operands are multiplied as bf16 where the processor can, else widened.
//!
//! The right operand is packed once (in slabs that stay in the last-level cache), then tiles of the result are computed on all cores; every tile
//! goes through the whole depth, so no element's sum is ever split between threads. With few rows (decoding) nothing is packed: see
//! [`super::skinny`].

use half::bf16;
use rayon::prelude::*;

use super::pack::{self, Mat};
use super::tile::{Lanes, Store, geometry, panels};
use super::{Isa, Scratch, Shared, isa, skinny};
use crate::tensor::{DType, Elem, Tensor};

/// Depth of a packed block in lanes: a right panel of it takes 16 KiB (AVX2) or 32 KiB (AVX-512).
const DEPTH: usize = 256;
/// Rows and columns of a tile of the result, multiples of all register tiles. In a large one the packed left block takes 96 KiB of L2 and is
/// packed once for many columns; small results are cut finer, so that every core gets its share.
const TILES: [(usize, usize); 5] = [(96, 1024), (96, 256), (48, 128), (48, 64), (24, 32)];
/// Tiles that are enough to keep all cores busy to the end.
const ENOUGH: usize = 12;
/// Multiply-adds that are worth a task of their own.
const TASK: usize = 1 << 18;
/// Lanes of the right operand packed at a time (16 MiB).
const SLAB: usize = 4 << 20;
/// Multiply-adds below which a product stays on one core: handing it out costs as much as some hundred thousand of them.
const ALONE: usize = 1 << 18;

/// What happens to the product.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub(crate) alpha: f32,
    pub(crate) accumulate: bool,
    pub(crate) bias: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    pub(crate) const SET: Epilogue<'static> = Epilogue { alpha: 1.0, accumulate: false, bias: None };

    /// Adds to the result if it `present`s something already.
    pub(crate) fn add_if(present: bool) -> Epilogue<'static> {
        Epilogue { accumulate: present, ..Epilogue::SET }
    }
}

/// Where the product goes: row-major, `n` columns.
pub(crate) enum Out<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl<'a> Out<'a> {
    /// All of a tensor nobody else holds.
    pub(crate) fn of(t: &'a mut Tensor) -> Out<'a> {
        match t.dtype() {
            DType::F32 => Out::F32(t.fresh()),
            DType::Bf16 => Out::Bf16(t.fresh()),
        }
    }
}

impl<'a> Out<'a> {
    /// `n` rows from `first` on of a matrix nobody else holds.
    pub(crate) fn rows_of(t: &'a mut Tensor, first: usize, n: usize) -> Out<'a> {
        let d = t.cols();
        match Out::of(t) {
            Out::F32(c) => Out::F32(&mut c[first * d..(first + n) * d]),
            Out::Bf16(c) => Out::Bf16(&mut c[first * d..(first + n) * d]),
        }
    }
}

/// `C (+)= alpha * A B (+ bias)`.
pub(crate) fn gemm(out: Out<'_>, a: Mat<'_>, b: Mat<'_>, epilogue: Epilogue<'_>) {
    gemm_with(isa(), out, a, b, epilogue);
}

/// [`gemm`] on a given instruction set.
pub(crate) fn gemm_with(isa: Isa, out: Out<'_>, a: Mat<'_>, b: Mat<'_>, epilogue: Epilogue<'_>) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner dimensions of {m} x {k} and {} x {n}", b.rows);
    let len = match &out {
        Out::F32(c) => c.len(),
        Out::Bf16(c) => c.len(),
    };
    assert_eq!(len, m * n, "result of {m} x {n}");
    if m == 0 || n == 0 {
        return;
    }
    match out {
        Out::F32(c) => product(isa, c, a, b, epilogue),
        Out::Bf16(c) => product(isa, c, a, b, epilogue),
    }
}

fn product<T: Elem>(isa: Isa, c: &mut [T], a: Mat<'_>, b: Mat<'_>, e: Epilogue<'_>) {
    let (m, k) = (a.rows, a.cols);
    if m <= skinny::MAX_ROWS && a.cs == 1 && b.rs == 1 && k >= 8 {
        skinny::product(isa, c, a, b, e);
    } else {
        let lanes = lanes(isa, &a, &b);
        let nr = geometry(isa).1;
        let columns = (SLAB / k.div_ceil(lanes.elements()).max(1) / nr * nr).max(nr);
        for j0 in (0..b.cols).step_by(columns) {
            slab((isa, lanes), c, a, b, (j0, (b.cols - j0).min(columns)), e);
        }
    }
}

/// Two bf16 operands are multiplied as they are where the processor can; all others in `f32`, so that one that is `f32` is never rounded.
pub(super) fn lanes(isa: Isa, a: &Mat<'_>, b: &Mat<'_>) -> Lanes {
    if isa >= Isa::Avx512Bf16 && a.is_bf16() && b.is_bf16() { Lanes::Pairs } else { Lanes::Single }
}

/// The largest tile that gives enough tasks of enough work. Depends on the shape alone, and no sum depends on it.
fn tile_size(m: usize, n: usize, k: usize) -> (usize, usize) {
    let mut size = TILES[0];
    for next in TILES {
        if m.div_ceil(size.0) * n.div_ceil(size.1) >= ENOUGH || next.0 * next.1 * k < TASK {
            break;
        }
        size = next;
    }
    size
}

/// Columns `j0..j0 + n` of the result.
fn slab<T: Elem>(
    (isa, lanes): (Isa, Lanes),
    c: &mut [T],
    a: Mat<'_>,
    b: Mat<'_>,
    (j0, n): (usize, usize),
    e: Epilogue<'_>,
) {
    let (m, k, ldc) = (a.rows, a.cols, b.cols);
    let b = columns(b, j0, n);
    let (mr, nr) = geometry(isa);
    let (width, per) = (n.div_ceil(nr) * nr, lanes.elements());
    let mut packed = Scratch::new(k.div_ceil(per) * width);
    pack::right(nr, lanes, b, DEPTH, packed.lanes_mut());
    let packed = &*packed;
    let c = Shared::new(c);
    let (tile_rows, tile_cols) = tile_size(m, n, k);
    let (row_tiles, col_tiles) = (m.div_ceil(tile_rows), n.div_ceil(tile_cols));
    let compute = |t: usize| {
        // Consecutive tasks share columns of B: its block stays in the cache while rows of A stream by.
        let (i0, jt) = ((t % row_tiles) * tile_rows, (t / row_tiles) * tile_cols);
        let (rows, cols) = ((m - i0).min(tile_rows), (n - jt).min(tile_cols));
        let row = |i: usize| {
            #[allow(unsafe_code)]
            // SAFETY: tasks own disjoint tiles of C, and only one row is borrowed at a time.
            unsafe {
                c.slice((i0 + i) * ldc + j0 + jt, cols)
            }
        };
        // An f32 result is accumulated where it belongs, a bf16 one beside it and rounded once.
        let mut beside = Scratch::new(if T::DTYPE == DType::F32 { 0 } else { rows * cols });
        let (tile, ld) = match T::DTYPE {
            DType::F32 => (c.ptr((i0 * ldc) + j0 + jt, (rows - 1) * ldc + cols).cast::<f32>(), ldc),
            DType::Bf16 => (beside.as_mut_ptr(), cols),
        };
        let sum = e.accumulate && T::DTYPE == DType::F32;
        let mut left = Scratch::new(rows.div_ceil(mr) * mr * k.div_ceil(per).min(DEPTH));
        for (block, p0) in (0..k).step_by(DEPTH * per).enumerate() {
            let elements = (k - p0).min(DEPTH * per);
            let depth = elements.div_ceil(per);
            pack::left((isa, lanes), a, (i0, rows), (p0, elements), left.lanes_mut());
            let store = Store { alpha: e.alpha, accumulate: sum || p0 > 0 };
            for j in (0..cols).step_by(nr) {
                let panel = &packed[block * DEPTH * width + (jt + j) * depth..][..depth * nr];
                for i in (0..rows).step_by(mr) {
                    let (height, wide) = ((rows - i).min(mr), (cols - j).min(nr));
                    let left = &left[i * depth..][..depth * mr];
                    #[allow(unsafe_code)]
                    // SAFETY: the left panel holds depth columns of mr rows, the right one depth rows of nr columns; the tile has `rows`
                    // rows of `cols` elements, `ld` apart: in C, as ptr() checked, where tasks own disjoint tiles, or in `beside`.
                    unsafe {
                        // The left panels of a whole tile together fetch the next right panel.
                        let next =
                            panel.as_ptr_range().end.wrapping_add(i / mr * depth * nr * mr / tile_rows);
                        let operands = (left.as_ptr(), panel.as_ptr(), next);
                        let c = (tile.add(i * ld + j), ld);
                        panels((isa, lanes), (height, wide, depth), operands, c, store);
                    }
                }
            }
        }
        let bias = e.bias.map(|b| &b[j0 + jt..][..cols]);
        match T::DTYPE {
            DType::F32 if bias.is_none() && (k > 0 || e.accumulate) => {}
            DType::F32 => (0..rows).for_each(|i| finish_in_place(row(i), bias, k == 0 && !e.accumulate)),
            DType::Bf16 => {
                if k == 0 {
                    beside.fill(0.0);
                }
                for (i, wide) in beside.chunks_exact(cols).enumerate() {
                    super::vectorize(
                        #[inline(always)]
                        || finish_rounded(row(i), wide, bias, e.accumulate),
                    );
                }
            }
        }
    };
    let tasks = row_tiles * col_tiles;
    if m * n * k <= ALONE {
        (0..tasks).for_each(compute);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(compute);
    }
}

/// Adds the bias to a finished row, while it is still in the cache; an empty product (`k = 0`) starts from zero.
fn finish_in_place<T: Elem>(row: &mut [T], bias: Option<&[f32]>, empty: bool) {
    if empty {
        row.fill(T::down(0.0));
    }
    for (c, b) in row.iter_mut().zip(bias.unwrap_or(&[])) {
        *c = T::down(c.up() + b);
    }
}

/// Rounds a finished row into place.
#[inline(always)]
fn finish_rounded<T: Elem>(row: &mut [T], wide: &[f32], bias: Option<&[f32]>, accumulate: bool) {
    match (bias, accumulate) {
        (None, false) => row.iter_mut().zip(wide).for_each(|(c, &w)| *c = T::down(w)),
        (Some(b), false) => row.iter_mut().zip(wide).zip(b).for_each(|((c, w), b)| *c = T::down(w + b)),
        (None, true) => row.iter_mut().zip(wide).for_each(|(c, w)| *c = T::down(c.up() + w)),
        (Some(b), true) => {
            row.iter_mut().zip(wide).zip(b).for_each(|((c, w), b)| *c = T::down(c.up() + w + b))
        }
    }
}

fn columns(b: Mat<'_>, j0: usize, n: usize) -> Mat<'_> {
    b.t().row_range(j0, n).t()
}
