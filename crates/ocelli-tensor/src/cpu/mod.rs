//! CPU kernels: instruction-set dispatch, loops over all cores, and the mathematics that vectorises.
//!
//! Work is always cut into pieces whose size depends on the shapes alone, never on the number of threads, and sums run inside a
//! piece or over pieces in order; so results do not depend on how threads were scheduled.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod flash;
pub(crate) mod gemm;
pub(crate) mod math;
pub(crate) mod pack;
pub(crate) mod skinny;
pub(crate) mod tile;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::device::Buffer;

/// Instruction sets the kernels distinguish, each including those before it.
///
/// A matrix unit (AMX) would be a further value here: [`gemm`] is the only place that would match on it. None is present on the machines
/// this was developed on, and code that cannot be run is not shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isa {
    /// Plain Rust; the reference the others are tested against.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// [`Isa::Avx512`] and AVX512_BF16: products of bf16 without widening.
    Avx512Bf16,
}

/// What this processor has, detected once.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 && is_x86_feature_detected!("avx512bf16") {
                return Isa::Avx512Bf16;
            }
            if avx2 && avx512 {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    })
}

/// The kernels that run on this processor, for records of what a run ran on.
pub fn kernels() -> &'static str {
    match isa() {
        Isa::Portable => "portable",
        Isa::Avx2 => "avx2",
        Isa::Avx512 => "avx512",
        Isa::Avx512Bf16 => "avx512 with bf16",
    }
}

/// Runs `f` compiled for the widest vectors present: the closure is inlined into a function with those features enabled,
/// so its plain loops use them.
#[inline(always)]
pub(crate) fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[allow(unsafe_code)]
        match isa() {
            // SAFETY: isa() found these features on this processor.
            Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { with_avx512(f) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { with_avx2(f) },
            Isa::Portable => {}
        }
    }
    f()
}

/// Runs `f` on one of the threads that the parallel loops use. A loop that begins on another thread hands all of its work out and sleeps
/// until it is done; one that begins here takes part in it. A training step of some thousand loops takes 2 to 5 % less time
/// (`bench/compute.md`). `f` must not wait for a thread that may itself need the workers, nor hold a lock.
pub fn on_workers<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Elements per piece of an elementwise loop: large enough to hide the cost of handing it out, small enough for L2.
pub(crate) const PIECE: usize = 16 * 1024;

/// `out[i] = f(src[i])` on all cores.
pub(crate) fn par_map<D: Send, S: Copy + Sync>(out: &mut [D], src: &[S], f: impl Fn(S) -> D + Sync) {
    par_zip(
        out,
        src,
        #[inline(always)]
        |o, s| *o = f(s),
    );
}

/// `f(&mut out[i], src[i])` on all cores.
pub(crate) fn par_zip<D: Send, S: Copy + Sync>(out: &mut [D], src: &[S], f: impl Fn(&mut D, S) + Sync) {
    let piece = |(o, s): (&mut [D], &[S])| {
        vectorize(
            #[inline(always)]
            || {
                for (o, &s) in o.iter_mut().zip(s) {
                    f(o, s);
                }
            },
        );
    };
    if out.len() <= PIECE {
        piece((out, src));
    } else {
        out.par_chunks_mut(PIECE).zip(src.par_chunks(PIECE)).for_each(piece);
    }
}

/// `f(&mut out[i])` on all cores.
pub(crate) fn par_update<D: Send>(out: &mut [D], f: impl Fn(&mut D) + Sync) {
    let piece = |o: &mut [D]| {
        vectorize(
            #[inline(always)]
            || o.iter_mut().for_each(&f),
        )
    };
    if out.len() <= PIECE {
        piece(out);
    } else {
        out.par_chunks_mut(PIECE).for_each(piece);
    }
}

/// Rows per piece of a row-wise loop over rows of `cols` elements.
pub(crate) fn rows_per_piece(cols: usize) -> usize {
    (PIECE / cols.max(1)).max(1)
}

/// Calls `f(first_row, rows)` on pieces of whole rows of `out`, on all cores; a small array stays on this one.
pub(crate) fn par_rows<D: Send>(out: &mut [D], cols: usize, f: impl Fn(usize, &mut [D]) + Sync) {
    let per = rows_per_piece(cols);
    if cols == 0 || out.is_empty() {
        return;
    }
    let run = |(i, rows): (usize, &mut [D])| {
        vectorize(
            #[inline(always)]
            || f(i * per, rows),
        )
    };
    if out.len() <= per * cols {
        run((0, out));
    } else {
        out.par_chunks_mut(per * cols).enumerate().for_each(run);
    }
}

/// Sum of squares in `f64`, in a fixed order.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(PIECE)
        .map(|c| {
            vectorize(
                #[inline(always)]
                || math::sum_of_squares(c),
            )
        })
        .collect();
    parts.iter().sum()
}

/// Temporary `f32` memory from the pool.
pub(crate) struct Scratch {
    buffer: Arc<Buffer>,
    len: usize,
}

impl Scratch {
    /// `len` elements with arbitrary contents.
    pub(crate) fn new(len: usize) -> Scratch {
        Scratch { buffer: Buffer::take(len * size_of::<f32>()), len }
    }

    /// The elements as the 32-bit lanes that packed panels consist of.
    pub(crate) fn lanes_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut *self)
    }

    /// Memory for `len` bf16, with arbitrary contents ([`Scratch::halves_mut`]).
    pub(crate) fn halves(len: usize) -> Scratch {
        Scratch::new(len.div_ceil(2))
    }

    /// The memory as bf16, twice as many.
    pub(crate) fn halves_mut(&mut self) -> &mut [half::bf16] {
        bytemuck::cast_slice_mut(&mut *self)
    }

    pub(crate) fn zeroed(len: usize) -> Scratch {
        let mut s = Scratch::new(len);
        s.fill(0.0);
        s
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(self.buffer.bytes())[..self.len]
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        match Arc::get_mut(&mut self.buffer) {
            Some(b) => &mut bytemuck::cast_slice_mut(b.bytes_mut())[..self.len],
            // A Scratch is never cloned; an empty slice would make any misuse fail loudly at the first index.
            None => &mut [],
        }
    }
}

/// A mutable array several tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T> {
    start: *mut T,
    len: usize,
}

#[allow(unsafe_code)]
// SAFETY: a Shared is only a pointer and a length; each use of it states why the parts it touches are disjoint.
unsafe impl<T: Send> Send for Shared<T> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(all: &mut [T]) -> Shared<T> {
        Shared { start: all.as_mut_ptr(), len: all.len() }
    }

    /// Pointer to element `at`, which must exist together with the `len - 1` after it.
    pub(crate) fn ptr(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "{at}+{len} outside {}", self.len);
        self.start.wrapping_add(at)
    }

    /// Elements `at..at + len`.
    ///
    /// # Safety
    /// No other task reads or writes them while the returned slice lives, and the array outlives it.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn slice<'a>(&self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: in bounds by ptr(); exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(at, len), len) }
    }
}

/// Sums over rows: `f(first_row, rows, sums)` adds the share of a piece of whole rows of `x` to `sums`, zero at first; the shares are
/// added to `total` in the order of the rows.
pub(crate) fn par_sum_rows<S: Sync>(
    x: &[S],
    cols: usize,
    total: &mut [f32],
    f: impl Fn(usize, &[S], &mut [f32]) + Sync,
) {
    let (width, per) = (total.len(), rows_per_piece(cols));
    if x.is_empty() || width == 0 {
        return;
    }
    let mut partial = Scratch::zeroed(x.len().div_ceil(per * cols) * width);
    x.par_chunks(per * cols).zip(partial.par_chunks_mut(width)).enumerate().for_each(|(i, (rows, sums))| {
        vectorize(
            #[inline(always)]
            || f(i * per, rows, sums),
        )
    });
    for part in partial.chunks_exact(width) {
        for (a, b) in total.iter_mut().zip(part) {
            *a += b;
        }
    }
}

/// [`par_rows`] and [`par_sum_rows`] in one pass: `f(first_row, rows, sums)` writes rows of `out` and adds to `sums`.
pub(crate) fn par_rows_and_sum<D: Send>(
    out: &mut [D],
    cols: usize,
    total: &mut [f32],
    f: impl Fn(usize, &mut [D], &mut [f32]) + Sync,
) {
    let (width, per) = (total.len(), rows_per_piece(cols));
    if out.is_empty() || width == 0 {
        return;
    }
    let mut partial = Scratch::zeroed(out.len().div_ceil(per * cols) * width);
    out.par_chunks_mut(per * cols).zip(partial.par_chunks_mut(width)).enumerate().for_each(
        |(i, (rows, sums))| {
            vectorize(
                #[inline(always)]
                || f(i * per, rows, sums),
            )
        },
    );
    for part in partial.chunks_exact(width) {
        for (a, b) in total.iter_mut().zip(part) {
            *a += b;
        }
    }
}

/// `f(row, &mut state[row], &mut x[row])` for rows of `cols` elements with a state each.
pub(crate) fn par_zip_rows<S: Send>(
    state: &mut [S],
    x: &mut [f32],
    cols: usize,
    f: impl Fn(usize, &mut S, &mut [f32]) + Sync,
) {
    let per = rows_per_piece(cols);
    if cols == 0 {
        return;
    }
    state.par_chunks_mut(per).zip(x.par_chunks_mut(per * cols)).enumerate().for_each(|(i, (state, x))| {
        vectorize(
            #[inline(always)]
            || {
                for (r, (s, x)) in state.iter_mut().zip(x.chunks_exact_mut(cols)).enumerate() {
                    f(i * per + r, s, x);
                }
            },
        );
    });
}
