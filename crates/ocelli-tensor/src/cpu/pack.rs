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
    for (panel, out) in out.chunks_mut(MR * k).enumerate().take(m.div_ceil(MR)) {
        let first = i0 + panel * MR;
        let height = (i0 + m - first).min(MR);
        if a.cs == 1 && height == MR {
            let row = |i: usize| &d[(first + i) * a.rs + p0..][..k];
            let rows: [&[T]; MR] = [row(0), row(1), row(2), row(3), row(4), row(5)];
            for (p, o) in out.chunks_exact_mut(MR).enumerate().take(k) {
                for i in 0..MR {
                    o[i] = rows[i][p].up();
                }
            }
        } else if a.rs == 1 && height == MR {
            for (p, o) in out.chunks_exact_mut(MR).enumerate().take(k) {
                let src = &d[first + (p0 + p) * a.cs..][..MR];
                for i in 0..MR {
                    o[i] = src[i].up();
                }
            }
        } else {
            for p in 0..k {
                for i in 0..height {
                    out[p * MR + i] = d[(first + i) * a.rs + (p0 + p) * a.cs].up();
                }
            }
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
    } else if b.rs == 1 && width == NR {
        // Columns are contiguous: transpose in 8-deep strips, so that reads and writes both stay within a few lines.
        let col = |j: usize| &d[p0 + (j0 + j) * b.cs..][..k];
        let cols: [&[T]; NR] = std::array::from_fn(col);
        for (p, o) in out.chunks_exact_mut(NR).enumerate().take(k) {
            for j in 0..NR {
                o[j] = cols[j][p].up();
            }
        }
    } else {
        for p in 0..k {
            for j in 0..width {
                out[p * NR + j] = d[(p0 + p) * b.rs + (j0 + j) * b.cs].up();
            }
        }
    }
}
