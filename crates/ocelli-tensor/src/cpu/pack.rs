//! Copying blocks of matrices into the order the register tiles read them in, widening bf16 on the way.
//!
//! ```text
//! left  panel of 6 rows:      a[0,p] a[1,p] .. a[5,p]   for p = 0, 1, ..  (rows past the edge are not written)
//! right panel of 16 columns:  b[p,0] b[p,1] .. b[p,15]  for p = 0, 1, ..  (columns past the edge are zero)
//! ```

use half::bf16;

use super::skinny::Weight;
use super::tile::{MR, NR};
use super::{Shared, vectorize};
use crate::tensor::Tensor;
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
fn left_of<T: Weight>(
    d: &[T],
    a: Mat<'_>,
    (i0, m): (usize, usize),
    (p0, k): (usize, usize),
    out: &mut [f32],
) {
    let whole = m / MR;
    if a.rs == 1 {
        // Columns are contiguous: go through them once, writing a piece of every panel.
        for p in 0..k {
            let src = &d[i0 + (p0 + p) * a.cs..][..m];
            for (panel, src) in src.as_chunks::<MR>().0.iter().enumerate() {
                if let Some(o) = out[panel * MR * k + p * MR..].first_chunk_mut::<MR>() {
                    // Through registers: stores between the loads would make it element by element.
                    let mut piece = [0.0f32; MR];
                    for i in 0..MR {
                        piece[i] = src[i].up();
                    }
                    *o = piece;
                }
            }
        }
    } else {
        for panel in 0..whole {
            let rows: [&[T]; MR] = std::array::from_fn(|i| &d[(i0 + panel * MR + i) * a.rs + p0 * a.cs..]);
            interleave(rows, k, a.cs, &mut out[panel * MR * k..(panel + 1) * MR * k]);
        }
    }
    let rest = m - whole * MR;
    for p in 0..if rest == 0 { 0 } else { k } {
        for i in 0..rest {
            out[(whole * k + p) * MR + i] = d[(i0 + whole * MR + i) * a.rs + (p0 + p) * a.cs].up();
        }
    }
}

/// `out[p * N + i] = lines[i][p * step]` for `p < k`.
#[inline(always)]
fn interleave<T: Weight, const N: usize>(lines: [&[T]; N], k: usize, step: usize, out: &mut [f32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if step == 1 && super::isa() != super::Isa::Portable && (N == 6 || N == 16) {
        done = k / 8 * 8;
        let lines = lines.map(|l| l[..done].as_ptr());
        let out = out[..done * N].as_mut_ptr();
        for p in (0..done).step_by(8) {
            #[allow(unsafe_code)]
            // SAFETY: every line has `done` elements and `out` has N times as many; AVX2 was detected.
            unsafe {
                if N == 6 {
                    let six = std::array::from_fn(|i| lines[i.min(5)].wrapping_add(p));
                    x86::transpose6(six, out.add(p * N));
                } else {
                    for half in [0, 8] {
                        let eight = std::array::from_fn(|i| lines[half + i].wrapping_add(p));
                        x86::transpose8(eight, out.add(p * N + half), N);
                    }
                }
            }
        }
    }
    for p in done..k {
        for i in 0..N {
            out[p * N + i] = lines[i][p * step].up();
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::Weight;
    use std::arch::x86_64::*;

    /// Eight elements of each of eight lines, turned.
    ///
    /// # Safety
    /// Eight elements of every line are readable; the processor has AVX2.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn turned<T: Weight>(lines: [*const T; 8]) -> [__m256; 8] {
        // SAFETY: the caller's contract.
        let r: [__m256; 8] = unsafe {
            [
                T::load8(lines[0]),
                T::load8(lines[1]),
                T::load8(lines[2]),
                T::load8(lines[3]),
                T::load8(lines[4]),
                T::load8(lines[5]),
                T::load8(lines[6]),
                T::load8(lines[7]),
            ]
        };
        // Pairs of lines, then quadruples within each half, then the halves.
        let (a0, a1) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
        let (a2, a3) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
        let (a4, a5) = (_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5]));
        let (a6, a7) = (_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7]));
        let (b0, b1) = (_mm256_shuffle_ps(a0, a2, 0x44), _mm256_shuffle_ps(a0, a2, 0xee));
        let (b2, b3) = (_mm256_shuffle_ps(a1, a3, 0x44), _mm256_shuffle_ps(a1, a3, 0xee));
        let (b4, b5) = (_mm256_shuffle_ps(a4, a6, 0x44), _mm256_shuffle_ps(a4, a6, 0xee));
        let (b6, b7) = (_mm256_shuffle_ps(a5, a7, 0x44), _mm256_shuffle_ps(a5, a7, 0xee));
        [
            _mm256_permute2f128_ps(b0, b4, 0x20),
            _mm256_permute2f128_ps(b1, b5, 0x20),
            _mm256_permute2f128_ps(b2, b6, 0x20),
            _mm256_permute2f128_ps(b3, b7, 0x20),
            _mm256_permute2f128_ps(b0, b4, 0x31),
            _mm256_permute2f128_ps(b1, b5, 0x31),
            _mm256_permute2f128_ps(b2, b6, 0x31),
            _mm256_permute2f128_ps(b3, b7, 0x31),
        ]
    }

    /// `out[p * ld + i] = lines[i][p]` for `i, p < 8`.
    ///
    /// # Safety
    /// Eight elements of every line are readable, eight floats from each `out + p * ld` writable; the processor has AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn transpose8<T: Weight>(lines: [*const T; 8], out: *mut f32, ld: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            for (p, v) in turned(lines).into_iter().enumerate() {
                _mm256_storeu_ps(out.add(p * ld), v);
            }
        }
    }

    /// `out[p * 6 + i] = lines[i][p]` for `i < 6, p < 8`; lines 6 and 7 are read but not used.
    ///
    /// # Safety
    /// As [`transpose8`], with 48 writable floats.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn transpose6<T: Weight>(lines: [*const T; 8], out: *mut f32) {
        // SAFETY: the caller's contract; four floats and then two are stored.
        unsafe {
            for (p, v) in turned(lines).into_iter().enumerate() {
                _mm_storeu_ps(out.add(p * 6), _mm256_castps256_ps128(v));
                _mm_storel_epi64(out.add(p * 6 + 4).cast(), _mm_castps_si128(_mm256_extractf128_ps(v, 1)));
            }
        }
    }
}

/// Panels a task packs side by side: it then reads whole stretches of memory where rows are contiguous.
const TOGETHER: usize = 8;

/// Packs all of `b` into right panels, `depth` rows at a time: `[ceil(k/depth)][ceil(n/16)][depth][16]`.
pub(crate) fn right(b: Mat<'_>, depth: usize, out: &mut [f32]) {
    let panels = b.cols.div_ceil(NR);
    let (width, groups) = (panels * NR, panels.div_ceil(TOGETHER));
    let shared = Shared::new(out);
    let pack = |task: usize| {
        let (p0, first) = (task / groups * depth, task % groups * TOGETHER);
        let (k, count) = ((b.rows - p0).min(depth), (panels - first).min(TOGETHER));
        #[allow(unsafe_code)]
        // SAFETY: every (depth block, group of panels) is a range of its own, and a task of its own.
        let o = unsafe { shared.slice(p0 * width + first * k * NR, count * k * NR) };
        right_panels(b, (p0, k), first * NR, o);
    };
    let tasks = b.rows.div_ceil(depth) * groups;
    if b.rows * width <= super::PIECE {
        (0..tasks).for_each(pack);
    } else {
        (0..tasks).into_par_iter().for_each(pack);
    }
}

/// Packs neighbouring right panels, each `k * 16` long, from column `j0` on.
fn right_panels(b: Mat<'_>, (p0, k): (usize, usize), j0: usize, out: &mut [f32]) {
    let whole = out.len() / (k * NR) * NR;
    if b.cs == 1 && j0 + whole <= b.cols {
        match b.data {
            Data::F32(d) => vectorize(
                #[inline(always)]
                || right_rows(d, b.rs, (p0, k), j0, out),
            ),
            Data::Bf16(d) => vectorize(
                #[inline(always)]
                || right_rows(d, b.rs, (p0, k), j0, out),
            ),
        }
    } else {
        for (panel, out) in out.chunks_exact_mut(k * NR).enumerate() {
            right_panel(b, (p0, k), j0 + panel * NR, out);
        }
    }
}

/// Whole panels from rows `rs` apart: goes through the rows once.
#[inline(always)]
fn right_rows<T: Weight>(d: &[T], rs: usize, (p0, k): (usize, usize), j0: usize, out: &mut [f32]) {
    let panels = out.len() / (k * NR).max(1);
    for p in 0..k {
        let src = &d[(p0 + p) * rs + j0..][..panels * NR];
        for (panel, src) in src.as_chunks::<NR>().0.iter().enumerate() {
            if let Some(o) = out[(panel * k + p) * NR..].first_chunk_mut::<NR>() {
                let mut row = [0.0f32; NR];
                for j in 0..NR {
                    row[j] = src[j].up();
                }
                *o = row;
            }
        }
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
fn right_panel_of<T: Weight>(d: &[T], b: Mat<'_>, (p0, k): (usize, usize), j0: usize, out: &mut [f32]) {
    let width = (b.cols - j0).min(NR);
    if width < NR {
        out[..k * NR].fill(0.0);
    }
    if b.cs == 1 && width == NR {
        right_rows(d, b.rs, (p0, k), j0, &mut out[..k * NR]);
    } else if width == NR {
        let columns: [&[T]; NR] = std::array::from_fn(|j| &d[(j0 + j) * b.cs + p0 * b.rs..]);
        interleave(columns, k, b.rs, out);
    } else {
        for p in 0..k {
            for j in 0..width {
                out[p * NR + j] = d[(p0 + p) * b.rs + (j0 + j) * b.cs].up();
            }
        }
    }
}
