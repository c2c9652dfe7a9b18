//! The inner matrix product: `C[m, n] (+)= alpha * A[m, k] B[k, n]` on operands that are already near (packed, or a block of
//! attention), as register tiles of 6 x 16 (portable, AVX2) or 12 x 32 (AVX-512, [`super::avx512`]).
//!
//! `A` is read one element at a time with any two strides, `B` whole vectors of neighbouring columns at a time, so the same kernel
//! serves packed panels, plain rows and transposed blocks. 6 x 16 keeps 12 accumulators, two loads of `B` and one broadcast of
//! `A` in the 16 vector registers of AVX2, with more multiply-adds than loads per step.

use super::Isa;

/// Rows of a register tile of AVX2.
const MR: usize = 6;
/// Columns of a register tile of AVX2.
const NR: usize = 16;

/// Keys and values stand in panels of this many columns, whatever the processor.
pub(crate) const PANEL: usize = 16;

/// What 32 bits of an operand hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// One `f32`.
    Single,
    /// Two bf16, neighbours along the depth, the earlier one in the low half; needs [`Isa::Avx512Bf16`].
    Pairs,
}

impl Lanes {
    /// Elements along the depth in one lane.
    pub(crate) fn elements(self) -> usize {
        match self {
            Lanes::Single => 1,
            Lanes::Pairs => 2,
        }
    }
}

/// Rows and columns of a tile of packed panels.
pub(crate) fn geometry(isa: Isa) -> (usize, usize) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => (super::avx512::MR, super::avx512::NR),
        _ => (MR, NR),
    }
}

/// The left operand: element `(i, p)` is `data[i * rs + p * cs]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rs: usize,
    pub(crate) cs: usize,
}

/// What to do with the product.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    pub(crate) alpha: f32,
    /// Add to what is there instead of overwriting it.
    pub(crate) accumulate: bool,
}

pub(crate) const SET: Store = Store { alpha: 1.0, accumulate: false };
pub(crate) const ADD: Store = Store { alpha: 1.0, accumulate: true };

/// `C (+)= alpha * A B` with `B` row-major (`ldb` between rows) and `C` row-major (`ldc`). Strides and the depth `k` count lanes.
pub(crate) fn tile(
    (isa, lanes): (Isa, Lanes),
    (m, n, k): (usize, usize, usize),
    a: Left<'_>,
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    store: Store,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * ldc + n <= c.len() && (m == 1 || ldc >= n), "C {m}x{n} ld {ldc} in {}", c.len());
    if k > 0 {
        assert!((m - 1) * a.rs + (k - 1) * a.cs < a.data.len(), "A {m}x{k} in {}", a.data.len());
        assert!((k - 1) * ldb + n <= b.len(), "B {k}x{n} ld {ldb} in {}", b.len());
    }
    #[allow(unsafe_code)]
    // SAFETY: the assertions above put every element the tile touches inside its slice.
    unsafe {
        tile_raw(
            (isa, lanes),
            (m, n, k),
            (a.data.as_ptr(), a.rs, a.cs),
            (b.as_ptr(), ldb),
            (c.as_mut_ptr(), ldc),
            store,
        );
    }
}

/// [`tile`] without bounds: for callers whose `C` is a part of an array others write other parts of.
///
/// # Safety
/// All lanes of `A` and `B` are readable, all elements of `C` are writable and touched by nobody else; `isa` is present and can read `lanes`.
#[allow(unsafe_code)]
pub(crate) unsafe fn tile_raw(
    (isa, lanes): (Isa, Lanes),
    (m, n, k): (usize, usize, usize),
    (a, rs, cs): (*const f32, usize, usize),
    (b, ldb): (*const f32, usize),
    (c, ldc): (*mut f32, usize),
    store: Store,
) {
    debug_assert!(lanes == Lanes::Single || isa >= Isa::Avx512Bf16);
    let (rows, cols) = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => (super::avx512::STRIDED_ROWS, super::avx512::STRIDED_COLS),
        _ => (MR, NR),
    };
    let mut j = 0;
    while j < n {
        let width = (n - j).min(cols);
        let mut i = 0;
        while i < m {
            let height = (m - i).min(rows);
            // SAFETY: (i, j) and the extents stay inside the operands the caller vouches for.
            unsafe {
                let (a, b, c) = (a.add(i * rs), b.add(j), c.add(i * ldc + j));
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 | Isa::Avx512Bf16 => super::avx512::strided(
                        lanes,
                        (height, width, k),
                        (a, rs, cs),
                        (b, ldb),
                        (c, ldc),
                        store,
                    ),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => x86::micro((height, width, k), (a, rs, cs), (b, ldb), (c, ldc), store),
                    _ => portable((height, width, k), (a, rs, cs), (b, ldb), (c, ldc), store),
                }
            }
            i += height;
        }
        j += width;
    }
}

/// One register tile of packed panels ([`super::pack`]): `a` is `[depth][rows]`, `b` is `[depth][columns]` with the sizes of [`geometry`], of
/// which `m` and `n` count. `next` is what the caller reads soon after; a share of it (64 bytes for 16 of depth; for 4 with AVX-512) is fetched
/// into the cache on the way. Waiting for the next right panel cost up to a fifth of a large product.
///
/// # Safety
/// Both panels are readable as a whole, the `m x n` corner of `C` is writable and touched by nobody else; `isa` is present and can read
/// `lanes`. `next` is never read.
#[allow(unsafe_code)]
pub(crate) unsafe fn panels(
    (isa, lanes): (Isa, Lanes),
    (m, n, depth): (usize, usize, usize),
    (a, b, next): (*const f32, *const f32, *const f32),
    (c, ldc): (*mut f32, usize),
    store: Store,
) {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Avx512 | Isa::Avx512Bf16 => {
            // SAFETY: forwarded.
            unsafe { super::avx512::panels(lanes, (m, n, depth), (a, b, next), (c, ldc), store) };
            return;
        }
        Isa::Avx2 if m == MR && n == NR => {
            // SAFETY: forwarded.
            unsafe { x86::panels(depth, (a, b, next), (c, ldc), store) };
            return;
        }
        _ => {}
    }
    let _ = next;
    // SAFETY: forwarded: panels are operands with these strides.
    unsafe { tile_raw((isa, lanes), (m, n, depth), (a, 1, MR), (b, NR), (c, ldc), store) };
}

/// The same register tile in plain Rust.
///
/// # Safety
/// As [`tile_raw`], with `m <= MR` and `n <= NR`.
#[allow(unsafe_code)]
unsafe fn portable(
    (m, n, k): (usize, usize, usize),
    (a, rs, cs): (*const f32, usize, usize),
    (b, ldb): (*const f32, usize),
    (c, ldc): (*mut f32, usize),
    store: Store,
) {
    let mut acc = [[0.0f32; NR]; MR];
    for p in 0..k {
        let mut row = [0.0f32; NR];
        // SAFETY: row p of B has n readable elements, column p of A has m.
        unsafe {
            std::ptr::copy_nonoverlapping(b.add(p * ldb), row.as_mut_ptr(), n);
            for (i, acc) in acc.iter_mut().enumerate().take(m) {
                let x = *a.add(i * rs + p * cs);
                for j in 0..NR {
                    acc[j] += x * row[j];
                }
            }
        }
    }
    for (i, acc) in acc.iter().enumerate().take(m) {
        for (j, v) in acc.iter().enumerate().take(n) {
            // SAFETY: (i, j) lies in the m x n corner of C.
            unsafe {
                let out = c.add(i * ldc + j);
                *out = store.alpha * v + if store.accumulate { *out } else { 0.0 };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::{MR, NR, Store};
    use std::arch::x86_64::*;

    /// # Safety
    /// As [`super::tile_raw`], with `m <= 6`, `n <= 16`, on a processor with AVX2 and FMA.
    pub(super) unsafe fn micro(
        (m, n, k): (usize, usize, usize),
        a: (*const f32, usize, usize),
        b: (*const f32, usize),
        c: (*mut f32, usize),
        store: Store,
    ) {
        macro_rules! by_height {
            ($vectors:literal, $partial:literal) => {
                // SAFETY: forwarded; the const arguments restate m and n.
                unsafe {
                    match m {
                        1 => kernel::<1, $vectors, $partial>(n, k, a, b, c, store),
                        2 => kernel::<2, $vectors, $partial>(n, k, a, b, c, store),
                        3 => kernel::<3, $vectors, $partial>(n, k, a, b, c, store),
                        4 => kernel::<4, $vectors, $partial>(n, k, a, b, c, store),
                        5 => kernel::<5, $vectors, $partial>(n, k, a, b, c, store),
                        _ => kernel::<6, $vectors, $partial>(n, k, a, b, c, store),
                    }
                }
            };
        }
        match n {
            16 => by_height!(2, false),
            8 => by_height!(1, false),
            9..16 => by_height!(2, true),
            _ => by_height!(1, true),
        }
    }

    /// Depth per turn of the loop: the loop's own counting then costs nothing.
    const UNROLL: usize = 4;

    /// # Safety
    /// As [`super::panels`], with a whole tile, on a processor with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn panels(
        depth: usize,
        (mut a, mut b, mut next): (*const f32, *const f32, *const f32),
        (c, ldc): (*mut f32, usize),
        store: Store,
    ) {
        const { assert!(MR == 6 && NR == 16) };
        let mut acc = [[_mm256_setzero_ps(); 2]; MR];
        for i in 0..MR {
            let row = c.wrapping_add(i * ldc);
            _mm_prefetch::<_MM_HINT_T0>(row.cast());
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(NR - 1).cast());
        }
        macro_rules! one {
            ($p:expr) => {
                // SAFETY: p < depth, and the panels have 6 and 16 elements for each.
                unsafe {
                    let (b0, b1) = (_mm256_loadu_ps(b.add($p * NR)), _mm256_loadu_ps(b.add($p * NR + 8)));
                    for i in 0..MR {
                        let x = _mm256_broadcast_ss(&*a.add($p * MR + i));
                        acc[i][0] = _mm256_fmadd_ps(x, b0, acc[i][0]);
                        acc[i][1] = _mm256_fmadd_ps(x, b1, acc[i][1]);
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
            next = next.wrapping_add(UNROLL);
        }
        for p in 0..depth % UNROLL {
            one!(p);
        }
        let alpha = _mm256_set1_ps(store.alpha);
        for i in 0..MR {
            for v in 0..2 {
                // SAFETY: row i of C has 16 writable elements.
                unsafe {
                    let out = c.add(i * ldc + v * 8);
                    let mut y = _mm256_mul_ps(alpha, acc[i][v]);
                    if store.accumulate {
                        y = _mm256_add_ps(y, _mm256_loadu_ps(out));
                    }
                    _mm256_storeu_ps(out, y);
                }
            }
        }
    }

    /// `V` vectors of columns, the last of them masked to `n` if `PARTIAL`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn kernel<const M: usize, const V: usize, const PARTIAL: bool>(
        n: usize,
        k: usize,
        (a, rs, cs): (*const f32, usize, usize),
        (b, ldb): (*const f32, usize),
        (c, ldc): (*mut f32, usize),
        store: Store,
    ) {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((n - (V - 1) * 8) as i32), lane);
        let mut acc = [[_mm256_setzero_ps(); V]; M];
        let (mut pa, mut pb) = (a, b);
        for _ in 0..k {
            let mut row = [_mm256_setzero_ps(); V];
            // SAFETY: B's row has n readable elements (the mask stops the last vector there), A's column has M.
            unsafe {
                for v in 0..V {
                    row[v] = if PARTIAL && v == V - 1 {
                        _mm256_maskload_ps(pb.add(v * 8), mask)
                    } else {
                        _mm256_loadu_ps(pb.add(v * 8))
                    };
                }
                for i in 0..M {
                    let x = _mm256_broadcast_ss(&*pa.add(i * rs));
                    for v in 0..V {
                        acc[i][v] = _mm256_fmadd_ps(x, row[v], acc[i][v]);
                    }
                }
            }
            pa = pa.wrapping_add(cs);
            pb = pb.wrapping_add(ldb);
        }
        let alpha = _mm256_set1_ps(store.alpha);
        for i in 0..M {
            for v in 0..V {
                // SAFETY: row i of C has n writable elements, and the mask stops the last vector there.
                unsafe {
                    let out = c.add(i * ldc + v * 8);
                    let partial = PARTIAL && v == V - 1;
                    let mut y = _mm256_mul_ps(alpha, acc[i][v]);
                    if store.accumulate {
                        let old = if partial { _mm256_maskload_ps(out, mask) } else { _mm256_loadu_ps(out) };
                        y = _mm256_add_ps(y, old);
                    }
                    if partial {
                        _mm256_maskstore_ps(out, mask, y);
                    } else {
                        _mm256_storeu_ps(out, y);
                    }
                }
            }
        }
    }
}
