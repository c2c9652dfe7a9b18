//! Register tiles for AVX-512, in `f32` and, with AVX512_BF16, on pairs of bf16.
//!
//! Both are one kernel over 32-bit lanes: a lane holds one `f32`, or two bf16 that are neighbours along the depth, of which `vdpbf16ps`
//! adds both products to an `f32` sum. 12 x 32 keeps 24 accumulators, two loads of the right operand and one broadcast of the left in the 32
//! registers; one broadcast serves two multiply-adds, without which the bf16 instruction runs at three quarters of its rate.
//!
//! `vdpbf16ps` takes denormals for zero and rounds once per product, to nearest even.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::tile::{Lanes, Store};

/// Rows of a tile of packed panels.
pub(super) const MR: usize = 12;
/// Columns of a tile of packed panels.
pub(super) const NR: usize = 32;
/// Depth per turn of the loop over packed panels.
const UNROLL: usize = 4;

/// Stores the `m x n` corner of a tile: `acc` in registers, so a macro and not a function.
macro_rules! finish {
    ($acc:ident, $rows:ident, $vectors:ident, ($m:expr, $n:expr), ($c:ident, $ldc:ident), $store:ident) => {
        let alpha = _mm512_set1_ps($store.alpha);
        let last = last_mask($n, $vectors);
        for i in 0..$rows {
            if i < $m {
                for v in 0..$vectors {
                    let mask = if v == $vectors - 1 { last } else { 0xffff };
                    // SAFETY: row i of C has n writable elements, and the mask stops the last vector there.
                    unsafe {
                        let out = $c.add(i * $ldc + v * 16);
                        let mut y = _mm512_mul_ps(alpha, $acc[i][v]);
                        if $store.accumulate {
                            y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, out));
                        }
                        _mm512_mask_storeu_ps(out, mask, y);
                    }
                }
            }
        }
    };
}

macro_rules! kernels {
    ($module:ident, $features:literal, $multiply_add:expr) => {
        mod $module {
            use super::*;

            /// A whole or partial tile of packed panels, `[depth][12]` and `[depth][32]`: `M` rows are computed, `m` of them and `n` columns
            /// stored. `next` is fetched, 64 bytes per 4 of depth.
            ///
            /// # Safety
            /// Both panels are readable as a whole, the `m x n` corner of `C` is writable, the processor has the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn panels<const M: usize, const V: usize>(
                (m, n, depth): (usize, usize, usize),
                (mut a, mut b, mut next): (*const f32, *const f32, *const f32),
                (c, ldc): (*mut f32, usize),
                store: Store,
            ) {
                let mut acc = [[_mm512_setzero_ps(); V]; M];
                for i in 0..m {
                    let row = c.wrapping_add(i * ldc);
                    _mm_prefetch::<_MM_HINT_T0>(row.cast());
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(16).cast());
                }
                macro_rules! one {
                    ($p:expr) => {
                        // SAFETY: p < depth, and the panels have 12 and 32 lanes for each.
                        unsafe {
                            let mut row = [_mm512_setzero_ps(); V];
                            for v in 0..V {
                                row[v] = _mm512_loadu_ps(b.add($p * NR + v * 16));
                            }
                            for i in 0..M {
                                let x = _mm512_set1_ps(*a.add($p * MR + i));
                                for v in 0..V {
                                    acc[i][v] = $multiply_add(x, row[v], acc[i][v]);
                                }
                            }
                        }
                    };
                }
                for _ in 0..depth / UNROLL {
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                    one!(0);
                    one!(1);
                    one!(2);
                    one!(3);
                    a = a.wrapping_add(UNROLL * MR);
                    b = b.wrapping_add(UNROLL * NR);
                    next = next.wrapping_add(16);
                }
                for p in 0..depth % UNROLL {
                    one!(p);
                }
                finish!(acc, M, V, (m, n), (c, ldc), store);
            }

            /// A tile of operands with strides, `M x 16 V` at most.
            ///
            /// # Safety
            /// All lanes of `A` (`M` rows) and `B` (`n` columns) are readable, the `M x n` corner of `C` is writable, the processor has the
            /// features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn strided<const M: usize, const V: usize>(
                (n, k): (usize, usize),
                (mut a, rs, cs): (*const f32, usize, usize),
                (mut b, ldb): (*const f32, usize),
                (c, ldc): (*mut f32, usize),
                store: Store,
            ) {
                let last = last_mask(n, V);
                let mut acc = [[_mm512_setzero_ps(); V]; M];
                for _ in 0..k {
                    // SAFETY: B's row has n readable lanes (the mask stops the last vector there), A's column has M.
                    unsafe {
                        let mut row = [_mm512_setzero_ps(); V];
                        for v in 0..V - 1 {
                            row[v] = _mm512_loadu_ps(b.add(v * 16));
                        }
                        row[V - 1] = _mm512_maskz_loadu_ps(last, b.add((V - 1) * 16));
                        for i in 0..M {
                            let x = _mm512_set1_ps(*a.add(i * rs));
                            for v in 0..V {
                                acc[i][v] = $multiply_add(x, row[v], acc[i][v]);
                            }
                        }
                    }
                    a = a.wrapping_add(cs);
                    b = b.wrapping_add(ldb);
                }
                finish!(acc, M, V, (M, n), (c, ldc), store);
            }

            /// `y[i][j] = sum_p x[i, p] w[j, p]` over lanes: products along contiguous rows.
            ///
            /// # Safety
            /// `M` rows of `x` and `N` rows of `w` have `k` readable lanes each; the processor has the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn dots<const M: usize, const N: usize>(
                k: usize,
                (x, ldx): (*const f32, usize),
                (w, ldw): (*const f32, usize),
                y: &mut [[f32; 4]; 4],
            ) {
                let mut acc = [[_mm512_setzero_ps(); N]; M];
                let mut p = 0;
                while p < k {
                    let mask = last_mask(k - p, 1);
                    // SAFETY: the mask stops at lane k of every row.
                    unsafe {
                        let mut wide = [_mm512_setzero_ps(); N];
                        for j in 0..N {
                            wide[j] = _mm512_maskz_loadu_ps(mask, w.add(j * ldw + p));
                        }
                        for i in 0..M {
                            let v = _mm512_maskz_loadu_ps(mask, x.add(i * ldx + p));
                            for j in 0..N {
                                acc[i][j] = $multiply_add(v, wide[j], acc[i][j]);
                            }
                        }
                    }
                    p += 16;
                }
                for i in 0..M {
                    let mut four = [_mm512_setzero_ps(); 4];
                    for j in 0..N {
                        four[j] = acc[i][j];
                    }
                    // SAFETY: a row of y has four elements.
                    unsafe { _mm_storeu_ps(y[i].as_mut_ptr(), lane_sums(four)) };
                }
            }
        }
    };
}

kernels!(single, "avx512f,avx512bw,avx512vl", |x, b, c| _mm512_fmadd_ps(x, b, c));
kernels!(pairs, "avx512f,avx512bw,avx512vl,avx512bf16", |x, b, c| _mm512_dpbf16_ps(c, bf16s(x), bf16s(b)));

/// The same 512 bits as 32 bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16s(x: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(x) }
}

/// The sums over all lanes of four vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn lane_sums(v: [__m512; 4]) -> __m128 {
    let pair = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (ab, cd) = (_mm512_castps_pd(pair(v[0], v[1])), _mm512_castps_pd(pair(v[2], v[3])));
    // Every 128 bits now hold sums of a, b, c, d.
    let all = _mm512_add_ps(
        _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
    );
    let half = _mm256_add_ps(
        _mm512_castps512_ps256(all),
        _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(all))),
    );
    _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half))
}

/// The lanes of the last of `vectors` vectors that belong to `n` columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn last_mask(n: usize, vectors: usize) -> __mmask16 {
    let n = n - (vectors - 1) * 16;
    if n >= 16 { 0xffff } else { (1 << n) - 1 }
}

/// # Safety
/// As [`super::tile::panels`], on a processor with AVX-512 (and AVX512_BF16 for pairs).
pub(super) unsafe fn panels(
    lanes: Lanes,
    (m, n, depth): (usize, usize, usize),
    operands: (*const f32, *const f32, *const f32),
    c: (*mut f32, usize),
    store: Store,
) {
    let size = (m, n, depth);
    macro_rules! run {
        ($module:ident, $v:literal) => {
            // SAFETY: forwarded; at least m rows and n columns are computed.
            unsafe {
                match m {
                    1..=4 => $module::panels::<4, $v>(size, operands, c, store),
                    5..=8 => $module::panels::<8, $v>(size, operands, c, store),
                    _ => $module::panels::<12, $v>(size, operands, c, store),
                }
            }
        };
    }
    match (lanes, n > 16) {
        (Lanes::Single, false) => run!(single, 1),
        (Lanes::Single, true) => run!(single, 2),
        (Lanes::Pairs, false) => run!(pairs, 1),
        (Lanes::Pairs, true) => run!(pairs, 2),
    }
}

/// Rows that [`strided`] takes at a time.
pub(super) const STRIDED_ROWS: usize = 12;
/// Columns that [`strided`] takes at a time.
pub(super) const STRIDED_COLS: usize = 32;

/// A tile of operands with strides.
///
/// # Safety
/// As [`super::tile::tile_raw`], with `m <= 12`, `n <= 32`, on a processor with AVX-512 (and AVX512_BF16 for pairs).
pub(super) unsafe fn strided(
    lanes: Lanes,
    (m, n, k): (usize, usize, usize),
    a: (*const f32, usize, usize),
    b: (*const f32, usize),
    c: (*mut f32, usize),
    store: Store,
) {
    macro_rules! run {
        ($module:ident, $v:literal, $($m:literal)*) => {
            match m {
                // SAFETY: forwarded; the const arguments restate m and n.
                $($m => unsafe { $module::strided::<$m, $v>((n, k), a, b, c, store) },)*
                _ => {}
            }
        };
    }
    match (lanes, n > 16) {
        (Lanes::Single, false) => run!(single, 1, 1 2 3 4 5 6 7 8 9 10 11 12),
        (Lanes::Single, true) => run!(single, 2, 1 2 3 4 5 6 7 8 9 10 11 12),
        (Lanes::Pairs, false) => run!(pairs, 1, 1 2 3 4 5 6 7 8 9 10 11 12),
        (Lanes::Pairs, true) => run!(pairs, 2, 1 2 3 4 5 6 7 8 9 10 11 12),
    }
}

/// Dot products of up to 4 x 4 rows over `k` lanes.
///
/// # Safety
/// `m` rows of `x` and `n` rows of `w` have `k` readable lanes; the processor has AVX-512 (and AVX512_BF16 for pairs).
pub(super) unsafe fn dots(
    lanes: Lanes,
    (m, n, k): (usize, usize, usize),
    x: (*const f32, usize),
    w: (*const f32, usize),
    y: &mut [[f32; 4]; 4],
) {
    macro_rules! by {
        ($module:ident, $($m:literal $n:literal),*) => {
            match (m, n) {
                // SAFETY: forwarded.
                $(($m, $n) => unsafe { $module::dots::<$m, $n>(k, x, w, y) },)*
                _ => {}
            }
        };
    }
    match lanes {
        Lanes::Single => {
            by!(single, 1 1, 1 2, 1 3, 1 4, 2 1, 2 2, 2 3, 2 4, 3 1, 3 2, 3 3, 3 4, 4 1, 4 2, 4 3, 4 4)
        }
        Lanes::Pairs => {
            by!(pairs, 1 1, 1 2, 1 3, 1 4, 2 1, 2 2, 2 3, 2 4, 3 1, 3 2, 3 3, 3 4, 4 1, 4 2, 4 3, 4 4)
        }
    }
}

/// Turns 16 vectors of 16 lanes: lane `i` of result `p` is lane `p` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn turned(r: [__m512i; 16]) -> [__m512i; 16] {
    // Four rows at a time: afterwards the 128-bit lane L of u[g][c] holds column 4 L + c of rows 4 g .. 4 g + 3.
    let mut u = [[_mm512_setzero_si512(); 4]; 4];
    for g in 0..4 {
        let (r0, r1, r2, r3) = (r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]);
        let (a, b) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (c, d) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        u[g] = [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ];
    }
    let mut out = [_mm512_setzero_si512(); 16];
    for c in 0..4 {
        let (a, b) =
            (_mm512_shuffle_i32x4::<0x44>(u[0][c], u[1][c]), _mm512_shuffle_i32x4::<0xee>(u[0][c], u[1][c]));
        let (d, e) =
            (_mm512_shuffle_i32x4::<0x44>(u[2][c], u[3][c]), _mm512_shuffle_i32x4::<0xee>(u[2][c], u[3][c]));
        out[c] = _mm512_shuffle_i32x4::<0x88>(a, d);
        out[4 + c] = _mm512_shuffle_i32x4::<0xdd>(a, d);
        out[8 + c] = _mm512_shuffle_i32x4::<0x88>(b, e);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(b, e);
    }
    out
}

/// `out[i * ld + j] = c[j * 32 + i]` for `i < m`, `j < n`: a tile of a product written the other way round.
///
/// # Safety
/// `n` elements from each of `m` rows of `out` are writable; `n <= 16`, `m <= 32`; the processor has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store_turned(c: &[f32; 16 * 32], (m, n): (usize, usize), out: *mut f32, ld: usize) {
    let mask = last_mask(n, 1);
    for i0 in (0..m).step_by(16) {
        let mut rows = [_mm512_setzero_si512(); 16];
        for j in 0..16 {
            // SAFETY: c has 16 rows of 32 elements.
            rows[j] = unsafe { _mm512_loadu_si512(c.as_ptr().add(j * 32 + i0).cast()) };
        }
        for (i, row) in turned(rows).into_iter().enumerate().take(m - i0) {
            // SAFETY: row i0 + i < m of out has n writable elements.
            unsafe { _mm512_mask_storeu_ps(out.add((i0 + i) * ld), mask, _mm512_castsi512_ps(row)) };
        }
    }
}
