//! Copying blocks of matrices into the order the register tiles read them in.
//!
//! ```text
//! left  panel of N rows:     a[0,p] a[1,p] .. a[N-1,p]   for p = 0, 1, ..  (rows past the edge hold something finite)
//! right panel of N columns:  b[p,0] b[p,1] .. b[p,N-1]   for p = 0, 1, ..  (columns past the edge likewise)
//! ```
//!
//! An entry is a lane of 32 bits ([`Lanes`]): an `f32`, bf16 being widened on the way, or two bf16 that follow one another along the depth. A
//! missing second one is zero.

use half::bf16;
use rayon::prelude::*;

use super::skinny::Weight;
use super::tile::{Lanes, PANEL, geometry};
use super::{Isa, Shared, vectorize};
use crate::tensor::Tensor;

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

    /// Row-major bf16 elements as `rows x cols`.
    pub(crate) fn bf16(data: &'a [bf16], rows: usize, cols: usize) -> Mat<'a> {
        assert_eq!(data.len(), rows * cols, "{} as {rows} x {cols}", data.len());
        Mat { data: Data::Bf16(data), rows, cols, rs: cols, cs: 1 }
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

    /// Whether the elements are bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self.data, Data::Bf16(_))
    }
}

/// How elements become lanes.
trait Lane: Copy + Send + Sync {
    /// Stored elements.
    type T: Weight;
    /// Elements along the depth per lane.
    const PER: usize;
    /// The lane of an element and the one that follows it along the depth.
    fn lane(first: Self::T, second: Self::T) -> u32;
    /// Up to 16 lanes from `count >= 1` elements that are contiguous along the depth, zero beyond them.
    ///
    /// # Safety
    /// `count` elements are readable; the processor has AVX-512.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    unsafe fn load16(p: *const Self::T, count: usize) -> std::arch::x86_64::__m512i;
}

#[derive(Clone, Copy)]
struct Single;
#[derive(Clone, Copy)]
struct Widened;
#[derive(Clone, Copy)]
struct Pairs;

/// The lowest `n` of `of` bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn low(n: usize, of: usize) -> u32 {
    if n >= of { u32::MAX >> (32 - of) } else { (1u32 << n) - 1 }
}

impl Lane for Single {
    type T = f32;
    const PER: usize = 1;
    #[inline(always)]
    fn lane(first: f32, _: f32) -> u32 {
        first.to_bits()
    }
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load16(p: *const f32, count: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: the mask stops at `count`.
        unsafe { std::arch::x86_64::_mm512_maskz_loadu_epi32(low(count, 16) as u16, p.cast()) }
    }
}

impl Lane for Widened {
    type T = bf16;
    const PER: usize = 1;
    #[inline(always)]
    fn lane(first: bf16, _: bf16) -> u32 {
        u32::from(first.to_bits()) << 16
    }
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load16(p: *const bf16, count: usize) -> std::arch::x86_64::__m512i {
        use std::arch::x86_64::*;
        // SAFETY: the mask stops at `count`.
        let half = unsafe { _mm256_maskz_loadu_epi16(low(count, 16) as u16, p.cast()) };
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
    }
}

impl Lane for Pairs {
    type T = bf16;
    const PER: usize = 2;
    #[inline(always)]
    fn lane(first: bf16, second: bf16) -> u32 {
        u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
    }
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load16(p: *const bf16, count: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: the mask stops at `count`.
        unsafe { std::arch::x86_64::_mm512_maskz_loadu_epi16(low(count, 32), p.cast()) }
    }
}

/// Calls `$body` with the lane type of a matrix and its elements.
macro_rules! by_lane {
    ($lanes:expr, $data:expr, $l:ident, $d:ident => $body:expr) => {
        match ($lanes, $data) {
            (_, Data::F32($d)) => {
                type $l = Single;
                $body
            }
            (Lanes::Single, Data::Bf16($d)) => {
                type $l = Widened;
                $body
            }
            (Lanes::Pairs, Data::Bf16($d)) => {
                type $l = Pairs;
                $body
            }
        }
    };
}

/// Packs rows `i0..i0 + m`, columns `p0..p0 + k` of `a` into left panels for `isa`.
pub(crate) fn left(
    (isa, lanes): (Isa, Lanes),
    a: Mat<'_>,
    (i0, m): (usize, usize),
    (p0, k): (usize, usize),
    out: &mut [u32],
) {
    by_lane!(lanes, a.data, L, d => match geometry(isa).0 {
        6 => lines::<L, 6>(d, (a.rs, a.cs), (i0, m), (p0, k), out),
        _ => lines::<L, 12>(d, (a.rs, a.cs), (i0, m), (p0, k), out),
    });
}

/// Panels a task packs side by side: it then reads whole stretches of memory where rows are contiguous.
const TOGETHER: usize = 8;

/// Packs all of `b` into right panels of `n` columns ([`geometry`], or [`PANEL`]), `depth` lanes at a time:
/// `[ceil(k / depth)][ceil(cols / n)][depth][n]`.
pub(crate) fn right(n: usize, lanes: Lanes, b: Mat<'_>, depth: usize, out: &mut [u32]) {
    let panels = b.cols.div_ceil(n);
    let (width, groups) = (panels * n, panels.div_ceil(TOGETHER));
    let rows = depth * lanes.elements();
    let shared = Shared::new(out);
    let pack = |task: usize| {
        let (block, first) = (task / groups, task % groups * TOGETHER);
        let k = (b.rows - block * rows).min(rows);
        let count = (panels - first).min(TOGETHER);
        let lanes_here = k.div_ceil(lanes.elements());
        #[allow(unsafe_code)]
        // SAFETY: every (depth block, group of panels) is a range of its own, and a task of its own.
        let o =
            unsafe { shared.slice(block * depth * width + first * lanes_here * n, count * lanes_here * n) };
        let cols = (first * n, (b.cols - first * n).min(count * n));
        by_lane!(lanes, b.data, L, d => match n {
            16 => lines::<L, 16>(d, (b.cs, b.rs), cols, (block * rows, k), o),
            _ => lines::<L, 32>(d, (b.cs, b.rs), cols, (block * rows, k), o),
        });
    };
    let tasks = b.rows.div_ceil(rows) * groups;
    if b.rows * width <= 4 * super::PIECE {
        (0..tasks).for_each(pack);
    } else {
        (0..tasks).into_par_iter().for_each(pack);
    }
}

/// Packs all of a small `b` into right panels, each through the whole depth: `[ceil(cols / n)][lanes of rows][n]`, where `n` is [`PANEL`] for single
/// lanes and twice that for pairs.
pub(crate) fn right_panels(lanes: Lanes, b: Mat<'_>, out: &mut [u32]) {
    let (cols, depth) = ((0, b.cols), (0, b.rows));
    by_lane!(lanes, b.data, L, d => match lanes {
        Lanes::Single => lines::<L, PANEL>(d, (b.cs, b.rs), cols, depth, out),
        Lanes::Pairs => lines::<L, { 2 * PANEL }>(d, (b.cs, b.rs), cols, depth, out),
    });
}

/// Panels of `N` lines each: `out[panel][p][i]` is the lane at depth `p` of line `i0 + panel * N + i`, where element `e` of a line `l` is
/// `d[l * line + e * step]`, for `n` lines and elements `p0..p0 + k`.
fn lines<L: Lane, const N: usize>(
    d: &[L::T],
    (line, step): (usize, usize),
    (i0, n): (usize, usize),
    (p0, k): (usize, usize),
    out: &mut [u32],
) {
    let depth = k.div_ceil(L::PER);
    let out = &mut out[..n.div_ceil(N) * N * depth];
    if depth == 0 {
        return;
    }
    if line == 1 {
        vectorize(
            #[inline(always)]
            || across::<L, N>(d, step, (i0, n), (p0, k), out),
        );
        return;
    }
    assert_eq!(step, 1, "one of the strides of a matrix is 1");
    for (panel, out) in out.chunks_exact_mut(N * depth).enumerate() {
        // Lines past the edge repeat the last one.
        let last = (n - panel * N).min(N) - 1;
        let lines: [&[L::T]; N] =
            std::array::from_fn(|i| &d[(i0 + panel * N + i.min(last)) * line + p0..][..k]);
        along::<L, N>(lines, out);
    }
}

/// Lines stand side by side: goes through the depth once, writing a piece of every panel.
#[inline(always)]
fn across<L: Lane, const N: usize>(
    d: &[L::T],
    step: usize,
    (i0, n): (usize, usize),
    (p0, k): (usize, usize),
    out: &mut [u32],
) {
    let depth = k.div_ceil(L::PER);
    let zero = <L::T as crate::tensor::Elem>::down(0.0);
    let zeros = [zero; N];
    for p in 0..depth {
        let e = p * L::PER;
        let first = &d[i0 + (p0 + e) * step..][..n];
        let second = if L::PER == 2 && e + 1 < k { &d[i0 + (p0 + e + 1) * step..][..n] } else { &[] };
        let (whole, rest) = first.as_chunks::<N>();
        let (whole2, rest2) = second.as_chunks::<N>();
        for (panel, first) in whole.iter().enumerate() {
            let second = whole2.get(panel).unwrap_or(&zeros);
            if let Some(o) = out[(panel * depth + p) * N..].first_chunk_mut::<N>() {
                // Through registers: stores between the loads would make it element by element.
                let mut piece = [0u32; N];
                for i in 0..N {
                    piece[i] = L::lane(first[i], second[i]);
                }
                *o = piece;
            }
        }
        if !rest.is_empty() {
            let o = &mut out[(whole.len() * depth + p) * N..][..N];
            o.fill(0);
            for (i, (o, &first)) in o.iter_mut().zip(rest).enumerate() {
                *o = L::lane(first, rest2.get(i).copied().unwrap_or(zero));
            }
        }
    }
}

/// `out[p * N + i]` is lane `p` of line `i`; all lines have the same length.
fn along<L: Lane, const N: usize>(lines: [&[L::T]; N], out: &mut [u32]) {
    let k = lines[0].len();
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if super::isa() >= Isa::Avx512 {
        #[allow(unsafe_code)]
        // SAFETY: all lines have k elements, `out` has N lanes for each of their lanes (lines()); AVX-512 was detected.
        unsafe {
            x86::turn::<L, N>(lines.map(<[L::T]>::as_ptr), k, out.as_mut_ptr());
        }
        return;
    } else if L::PER == 1 && super::isa() == Isa::Avx2 && (N == 6 || N == 16) {
        done = k / 8 * 8;
        let lines = lines.map(|l| l[..done].as_ptr());
        let out = out[..done * N].as_mut_ptr().cast::<f32>();
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
    let zero = <L::T as crate::tensor::Elem>::down(0.0);
    for p in done..k.div_ceil(L::PER) {
        for i in 0..N {
            let at = p * L::PER;
            out[p * N + i] = L::lane(lines[i][at], lines[i].get(at + 1).copied().unwrap_or(zero));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::{Lane, Weight};
    use std::arch::x86_64::*;

    /// `out[p * N + i]` is lane `p` of line `i`, for lines of `k` elements.
    ///
    /// # Safety
    /// Every line has `k` readable elements, `out` has `N` writable lanes for each lane of a line; the processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn turn<L: Lane, const N: usize>(lines: [*const L::T; N], k: usize, out: *mut u32) {
        let depth = k.div_ceil(L::PER);
        for p0 in (0..depth).step_by(16) {
            for i0 in (0..N).step_by(16) {
                let (here, at) = ((N - i0).min(16), p0 * L::PER);
                let mask = ((1u32 << here) - 1) as u16;
                let mut rows = [_mm512_setzero_si512(); 16];
                for i in 0..16 {
                    if i < here {
                        // SAFETY: k - at elements are left in every line.
                        rows[i] = unsafe { L::load16(lines[i0 + i].add(at), k - at) };
                    }
                }
                let columns = super::super::avx512::turned(rows);
                for (p, column) in columns.into_iter().enumerate().take(depth - p0) {
                    // SAFETY: lane p0 + p < depth of `here` lines from i0 on.
                    unsafe {
                        let o = out.add((p0 + p) * N + i0).cast();
                        if here == 16 {
                            _mm512_storeu_si512(o, column);
                        } else {
                            _mm512_mask_storeu_epi32(o.cast(), mask, column);
                        }
                    }
                }
            }
        }
    }

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
