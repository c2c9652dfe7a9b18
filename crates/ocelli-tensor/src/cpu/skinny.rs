//! Products with few rows, `y[m, n] = x[m, k] W[n, k]^T` for `m <= 64`: decoding, where every weight is used a few times and then
//! not again, so packing it would cost more than the product.
//!
//! Up to 13 rows (24 of bf16): both operands are read along `k`, 4 rows of `x` times 3 or 4 rows of `W`; a block of rows of `W` stays in L1 while all rows of
//! `x` pass by. More rows, with AVX-512: `y^T = W x^T` in register tiles, `x^T` packed (it is small), `W` read where it stands, a number of
//! it for 16 rows of `x` at once. bf16 weights are widened in registers, or multiplied as they are where `x` is bf16 too and the processor can.

use half::bf16;
use rayon::prelude::*;

use super::gemm::{Epilogue, lanes};
use super::pack::{Data, Mat};
use super::tile::Lanes;
use super::{Isa, Scratch, Shared, math, vectorize};
use crate::tensor::Elem;

/// Largest number of rows this path takes.
pub(crate) const MAX_ROWS: usize = 64;
/// Rows of `W` per task.
const BLOCK: usize = 24;
/// Multiply-adds below which a product stays on one core.
const ALONE: usize = 1 << 18;

/// `C (+)= alpha * A B (+ bias)` with `A` row-major and `B` the transpose of a row-major matrix.
pub(crate) fn product<T: Elem>(isa: Isa, c: &mut [T], a: Mat<'_>, b: Mat<'_>, e: Epilogue<'_>) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        let lanes = lanes(isa, &a, &b);
        // A lane of W is read where it stands: it must not straddle two rows.
        let whole = lanes == Lanes::Single
            || (a.cols.is_multiple_of(2) && b.cs.is_multiple_of(2) && a.rs.is_multiple_of(2));
        let direct = lanes == Lanes::Pairs || !(a.is_bf16() || b.is_bf16());
        if whole && direct {
            return wide::product(lanes, c, a, b, e);
        }
    }
    match b.data {
        Data::F32(w) => product_of(isa, c, a, w, b, e),
        Data::Bf16(w) => product_of(isa, c, a, w, b, e),
    }
}

/// Both operands in whole lanes.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::super::avx512;
    use super::super::pack;
    use super::super::tile::SET;
    use super::*;

    /// Rows of `x` from which on they are packed. Fewer leave too many of 16 lanes empty; and with 16 lanes of bf16, one broadcast serves one
    /// instruction only, which then runs at three quarters of its rate.
    fn packed_from(lanes: Lanes) -> usize {
        match lanes {
            Lanes::Single => 14,
            Lanes::Pairs => 25,
        }
    }

    /// Rows of `W` in a register tile.
    const HIGH: usize = 12;

    pub(super) fn product<T: Elem>(lanes: Lanes, c: &mut [T], a: Mat<'_>, b: Mat<'_>, e: Epilogue<'_>) {
        let (m, n, k) = (a.rows, b.cols, a.cols);
        let per = lanes.elements();
        let start = |x: &Mat<'_>, elements: usize| -> *const f32 {
            match x.data {
                Data::F32(d) => {
                    assert!(elements <= d.len());
                    d.as_ptr()
                }
                Data::Bf16(d) => {
                    assert!(elements <= d.len());
                    d.as_ptr().cast()
                }
            }
        };
        let x = start(&a, (m - 1) * a.rs + k);
        let w = start(&b, (n - 1) * b.cs + k);
        // Addresses, so that tasks may share them.
        let (x, w) = (x as usize, w as usize);
        let (ldx, ldw, depth) = (a.rs / per, b.cs / per, k / per);
        assert_eq!(c.len(), m * n);
        let out = Shared::new(c);
        // y[..][j] of row i.
        let store = |i: usize, j: usize, y: &[f32]| {
            #[allow(unsafe_code)]
            // SAFETY: tasks own disjoint ranges of columns.
            let c = unsafe { out.slice(i * n + j, y.len()) };
            for (dj, (c, y)) in c.iter_mut().zip(y).enumerate() {
                let bias = e.bias.map_or(0.0, |b| b[j + dj]);
                *c = T::down(e.alpha * y + bias + if e.accumulate { c.up() } else { 0.0 });
            }
        };
        let turned = m >= packed_from(lanes);
        let packed = if turned {
            let mut packed = Scratch::new(m.div_ceil(32) * 32 * depth);
            pack::right(32, lanes, a.t(), depth, packed.lanes_mut());
            packed
        } else {
            Scratch::new(0)
        };
        let packed = &*packed;
        let block = |j0: usize| {
            let j1 = (j0 + BLOCK).min(n);
            if !turned {
                for j in (j0..j1).step_by(4) {
                    let wide = (j1 - j).min(4);
                    for i in (0..m).step_by(4) {
                        let high = (m - i).min(4);
                        let mut y = [[0.0f32; 4]; 4];
                        #[allow(unsafe_code)]
                        // SAFETY: rows i.. of x and j.. of W exist and have k elements, as asserted above; lanes are whole.
                        unsafe {
                            let (x, w) = ((x as *const f32).add(i * ldx), (w as *const f32).add(j * ldw));
                            avx512::dots(lanes, (high, wide, depth), (x, ldx), (w, ldw), &mut y);
                        }
                        (0..high).for_each(|di| store(i + di, j, &y[di][..wide]));
                    }
                }
                return;
            }
            for j in (j0..j1).step_by(HIGH) {
                let high = (j1 - j).min(HIGH);
                for i in (0..m).step_by(32) {
                    let cols = (m - i).min(32);
                    let (mut tile, mut rows) = ([0.0f32; 16 * 32], [0.0f32; 32 * 16]);
                    #[allow(unsafe_code)]
                    // SAFETY: rows j.. of W exist; a packed panel has `depth` rows of 32 lanes; `tile` holds 16 rows of 32.
                    unsafe {
                        let w = (w as *const f32).add(j * ldw);
                        let x = packed[i * depth..].as_ptr();
                        avx512::strided(
                            lanes,
                            (high, cols, depth),
                            (w, ldw, 1),
                            (x, 32),
                            (tile.as_mut_ptr(), 32),
                            SET,
                        );
                        avx512::store_turned(&tile, (cols, high), rows.as_mut_ptr(), 16);
                    }
                    (0..cols).for_each(|di| store(i + di, j, &rows[di * 16..][..high]));
                }
            }
        };
        let blocks = n.div_ceil(BLOCK);
        if m * n * k <= ALONE {
            (0..blocks).for_each(|t| block(t * BLOCK));
        } else {
            let per = ((1 << 17) / (BLOCK * k)).max(1);
            (0..blocks).into_par_iter().with_min_len(per).for_each(|t| block(t * BLOCK));
        }
    }
}

fn product_of<T: Elem, W: Weight>(isa: Isa, c: &mut [T], a: Mat<'_>, w: &[W], b: Mat<'_>, e: Epilogue<'_>) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let widened;
    let (x, ldx) = match a.data {
        Data::F32(d) => (d, a.rs),
        Data::Bf16(d) => {
            let mut s = Scratch::new(m * k);
            for (i, row) in s.chunks_exact_mut(k).enumerate() {
                row.iter_mut().zip(&d[i * a.rs..]).for_each(|(o, v)| *o = v.up());
            }
            widened = s;
            (&*widened, k)
        }
    };
    assert!((m - 1) * ldx + k <= x.len() && (n - 1) * b.cs + k <= w.len() && c.len() == m * n);
    let out = Shared::new(c);
    let block = |j0: usize| {
        let j1 = (j0 + BLOCK).min(n);
        let mut j = j0;
        while j < j1 {
            let wide = (j1 - j).min(3);
            let mut i = 0;
            while i < m {
                let high = (m - i).min(4);
                let mut y = [[0.0f32; 3]; 4];
                dots(isa, (high, wide, k), (&x[i * ldx..], ldx), (&w[j * b.cs..], b.cs), &mut y);
                for (di, y) in y.iter().enumerate().take(high) {
                    #[allow(unsafe_code)]
                    // SAFETY: tasks own disjoint ranges of columns.
                    let c = unsafe { out.slice((i + di) * n + j, wide) };
                    for (dj, c) in c.iter_mut().enumerate() {
                        let bias = e.bias.map_or(0.0, |b| b[j + dj]);
                        *c = T::down(e.alpha * y[dj] + bias + if e.accumulate { c.up() } else { 0.0 });
                    }
                }
                i += high;
            }
            j += wide;
        }
    };
    let blocks = n.div_ceil(BLOCK);
    if m * n * k <= ALONE {
        (0..blocks).for_each(|t| block(t * BLOCK));
    } else {
        let per = ((1 << 17) / (BLOCK * k)).max(1);
        (0..blocks).into_par_iter().with_min_len(per).for_each(|t| block(t * BLOCK));
    }
}

/// `y[i][j] = sum_p x[i, p] w[j, p]` for up to 4 x 3 rows.
fn dots<W: Weight>(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    (x, ldx): (&[f32], usize),
    (w, ldw): (&[W], usize),
    y: &mut [[f32; 3]; 4],
) {
    assert!((m - 1) * ldx + k <= x.len() && (n - 1) * ldw + k <= w.len() && m <= 4 && n <= 3);
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        macro_rules! by {
            ($($m:literal $n:literal),*) => {
                match (m, n) {
                    // SAFETY: bounds asserted above; the instruction set was detected.
                    $(($m, $n) => unsafe { x86::dots::<$m, $n, W>(k, (x.as_ptr(), ldx), (w.as_ptr(), ldw), y) },)*
                    _ => {}
                }
            };
        }
        #[allow(unsafe_code)]
        {
            by!(1 1, 1 2, 1 3, 2 1, 2 2, 2 3, 3 1, 3 2, 3 3, 4 1, 4 2, 4 3);
        }
        return;
    }
    let _ = isa;
    for i in 0..m {
        for j in 0..n {
            y[i][j] = vectorize(|| math::dot(&x[i * ldx..i * ldx + k], &w[j * ldw..j * ldw + k]));
        }
    }
}

/// An element type whose vectors can be widened in a register.
pub(crate) trait Weight: Elem {
    /// Eight elements from `p` on, as `f32`.
    ///
    /// # Safety
    /// Eight elements are readable; the processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    unsafe fn load8(p: *const Self) -> std::arch::x86_64::__m256;
}

impl Weight for f32 {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load8(p: *const f32) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller's contract.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(p) }
    }
}

impl Weight for bf16 {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load8(p: *const bf16) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: eight bf16 are 16 readable bytes.
        let half = unsafe { _mm_loadu_si128(p.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::Weight;
    use std::arch::x86_64::*;

    /// # Safety
    /// `M` rows of `x` and `N` rows of `w` have `k` readable elements each; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn dots<const M: usize, const N: usize, W: Weight>(
        k: usize,
        (x, ldx): (*const f32, usize),
        (w, ldw): (*const W, usize),
        y: &mut [[f32; 3]; 4],
    ) {
        let mut acc = [[_mm256_setzero_ps(); N]; M];
        let whole = k / 8 * 8;
        let mut p = 0;
        while p < whole {
            let mut wide = [_mm256_setzero_ps(); N];
            // SAFETY: p + 8 <= k, and all rows have k elements.
            unsafe {
                for j in 0..N {
                    wide[j] = W::load8(w.add(j * ldw + p));
                }
                for i in 0..M {
                    let v = _mm256_loadu_ps(x.add(i * ldx + p));
                    for j in 0..N {
                        acc[i][j] = _mm256_fmadd_ps(v, wide[j], acc[i][j]);
                    }
                }
            }
            p += 8;
        }
        for i in 0..M {
            for j in 0..N {
                let v = acc[i][j];
                let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                let mut s = _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
                for q in whole..k {
                    // SAFETY: q < k.
                    s += unsafe { *x.add(i * ldx + q) * (*w.add(j * ldw + q)).up() };
                }
                y[i][j] = s;
            }
        }
    }
}
