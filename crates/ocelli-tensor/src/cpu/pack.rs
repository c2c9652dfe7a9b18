//! Copying blocks of matrices into the order the register tiles read them in, widening bf16 on the way.
//!
//! ```text
//! left  panel of 6 rows:      a[0,p] a[1,p] .. a[5,p]   for p = 0, 1, ..  (rows past the edge are not written)
//! right panel of 16 columns:  b[p,0] b[p,1] .. b[p,15]  for p = 0, 1, ..  (columns past the edge are zero)
//! ```

use half::bf16;

use super::tile::{MR, NR};
use super::{Shared, vectorize};
use crate::tensor::{Elem, Tensor};
use rayon::prelude::*;

/// Elements of a matrix operand.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// A matrix operand: element `(i, j)` is `data[i * rs + j * cs]`, and one of the strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    pub(crate) data: Data<'a>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) rs: usize,
    pub(crate) cs: usize,
}

impl<'a> Mat<'a> {
    /// A row-major tensor seen as `rows x cols`, which its length must fill.
    pub(crate) fn of(t: &'a Tensor, rows: usize, cols: usize) -> Mat<'a> {
        assert_eq!(t.len(), rows * cols, "{:?} as {rows} x {cols}", t.shape());
        let data = match t.dtype() {
            crate::DType::F32 => Data::F32(t.slice()),
            crate::DType::Bf16 => Data::Bf16(t.slice()),
        };
        Mat { data, rows, cols, rs: cols, cs: 1 }
    }

    /// Row-major `f32` elements as `rows x cols`.
    pub(crate) fn f32(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        assert_eq!(data.len(), rows * cols, "{} as {rows} x {cols}", data.len());
        Mat { data: Data::F32(data), rows, cols, rs: cols, cs: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Mat<'a> {
        Mat { rows: self.cols, cols: self.rows, rs: self.cs, cs: self.rs, ..self }
    }

    /// Rows `from..from + n`.
    pub(crate) fn row_range(self, from: usize, n: usize) -> Mat<'a> {
        assert!(from + n <= self.rows);
        let at = from * self.rs;
        let data = match self.data {
            Data::F32(d) => Data::F32(&d[at.min(d.len())..]),
            Data::Bf16(d) => Data::Bf16(&d[at.min(d.len())..]),
        };
        Mat { data, rows: n, ..self }
    }
}

/// Packs rows `i0..i0 + m`, columns `p0..p0 + k` of `a` into left panels.
pub(crate) fn left(a: Mat<'_>, (i0, m): (usize, usize), (p0, k): (usize, usize), out: &mut [f32]) {
    match a.data {
        Data::F32(d) => vectorize(
            #[inline(always)]
            || left_of(d, a, (i0, m), (p0, k), out),
        ),
        Data::Bf16(d) => vectorize(
            #[inline(always)]
            || left_of(d, a, (i0, m), (p0, k), out),
        ),
    }
}

#[inline(always)]
fn left_of<T: Elem>(d: &[T], a: Mat<'_>, (i0, m): (usize, usize), (p0, k): (usize, usize), out: &mut [f32]) {
    let whole = m / MR;
    if a.rs == 1 {
        // Columns are contiguous: go through them once, writing a piece of every panel.
        for p in 0..k {
            let src = &d[i0 + (p0 + p) * a.cs..][..m];
            for (panel, src) in src.chunks_exact(MR).enumerate() {
                let o = &mut out[panel * MR * k + p * MR..][..MR];
                for i in 0..MR {
                    o[i] = src[i].up();
                }
            }
        }
    } else {
        for (panel, out) in out.chunks_mut(MR * k).enumerate().take(whole) {
            let row = |i: usize| &d[(i0 + panel * MR + i) * a.rs..];
            interleave::<T, MR>(std::array::from_fn(row), (p0, k), a.cs, out);
        }
    }
    let rest = m - whole * MR;
    for p in 0..if rest == 0 { 0 } else { k } {
        for i in 0..rest {
            out[(whole * k + p) * MR + i] = d[(i0 + whole * MR + i) * a.rs + (p0 + p) * a.cs].up();
        }
    }
}

/// `out[p * N + i] = lines[i][(p0 + p) * step]`.
#[inline(always)]
fn interleave<T: Elem, const N: usize>(
    lines: [&[T]; N],
    (p0, k): (usize, usize),
    step: usize,
    out: &mut [f32],
) {
    if step != 1 {
        for (p, o) in out.chunks_exact_mut(N).enumerate().take(k) {
            for i in 0..N {
                o[i] = lines[i][(p0 + p) * step].up();
            }
        }
        return;
    }
    let lines: [&[T]; N] = std::array::from_fn(|i| &lines[i][p0..p0 + k]);
    // Eight steps of depth at a time through a small square, so that loads and stores are whole vectors.
    let strips = k / 8;
    for s in 0..strips {
        let mut square = [[0.0f32; 8]; N];
        for i in 0..N {
            for (x, v) in square[i].iter_mut().zip(&lines[i][s * 8..s * 8 + 8]) {
                *x = v.up();
            }
        }
        let o = &mut out[s * 8 * N..(s + 1) * 8 * N];
        for p in 0..8 {
            for i in 0..N {
                o[p * N + i] = square[i][p];
            }
        }
    }
    for p in strips * 8..k {
        for i in 0..N {
            out[p * N + i] = lines[i][p].up();
        }
    }
}

/// Packs all of `b` into right panels, `depth` rows at a time: `[ceil(k/depth)][ceil(n/16)][depth][16]`.
pub(crate) fn right(b: Mat<'_>, depth: usize, out: &mut [f32]) {
    let panels = b.cols.div_ceil(NR);
    let width = panels * NR;
    let shared = Shared::new(out);
    let pack = |panel: usize| {
        for p0 in (0..b.rows).step_by(depth) {
            let k = (b.rows - p0).min(depth);
            #[allow(unsafe_code)]
            // SAFETY: every (depth block, panel) is a range of its own, and each panel is one task.
            let o = unsafe { shared.slice(p0 * width + panel * k * NR, k * NR) };
            right_panel(b, (p0, k), panel * NR, o);
        }
    };
    if b.rows * width <= super::PIECE {
        (0..panels).for_each(pack);
    } else {
        (0..panels).into_par_iter().with_min_len((super::PIECE / (b.rows * NR)).max(1)).for_each(pack);
    }
}

/// Packs one right panel: rows `p0..p0 + k`, columns `j0..j0 + 16`.
pub(crate) fn right_panel(b: Mat<'_>, (p0, k): (usize, usize), j0: usize, out: &mut [f32]) {
    match b.data {
        Data::F32(d) => vectorize(
            #[inline(always)]
            || right_panel_of(d, b, (p0, k), j0, out),
        ),
        Data::Bf16(d) => vectorize(
            #[inline(always)]
            || right_panel_of(d, b, (p0, k), j0, out),
        ),
    }
}

#[inline(always)]
fn right_panel_of<T: Elem>(d: &[T], b: Mat<'_>, (p0, k): (usize, usize), j0: usize, out: &mut [f32]) {
    let width = (b.cols - j0).min(NR);
    if width < NR {
        out[..k * NR].fill(0.0);
    }
    if b.cs == 1 && width == NR {
        for (p, o) in out.chunks_exact_mut(NR).enumerate().take(k) {
            let src = &d[(p0 + p) * b.rs + j0..][..NR];
            for j in 0..NR {
                o[j] = src[j].up();
            }
        }
    } else if width == NR {
        interleave::<T, NR>(std::array::from_fn(|j| &d[(j0 + j) * b.cs..]), (p0, k), b.rs, out);
    } else {
        for p in 0..k {
            for j in 0..width {
                out[p * NR + j] = d[(p0 + p) * b.rs + (j0 + j) * b.cs].up();
            }
        }
    }
}
