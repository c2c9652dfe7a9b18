//! Scalar functions written so that loops over them vectorise, and reductions with fixed lanes.

use crate::tensor::Elem;

/// `e^x` to about 1 unit in the last place; 0 below -87.3, infinity above 88.7, NaN for NaN.
///
/// Splits `x = n ln 2 + r` with `|r| <= ln 2 / 2` and evaluates the degree-6 Taylor-like polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let c = if x > 88.7 { 88.7 } else { x };
    let c = if c < -87.3 { -87.3 } else { c };
    let t = c * std::f32::consts::LOG2_E + MAGIC;
    let n = t - MAGIC;
    let p = reduced(c, n);
    // n is at most 128 = 127 + 1: scale in two steps to stay inside the exponent range.
    let n = t.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    let half = n >> 1;
    let two = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = p * two(half) * two(n - half);
    if x < -87.3 {
        0.0
    } else if x > 88.7 {
        f32::INFINITY
    } else {
        y
    }
}

/// `e^x` for `x <= 0` (softmax after its maximum is taken off): [`exp`] without the upper range. Slightly positive `x` is fine.
#[inline(always)]
pub(crate) fn exp_negative(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let c = if x < -87.3 { -87.3 } else { x };
    let t = c * std::f32::consts::LOG2_E + MAGIC;
    let n = t - MAGIC;
    let y = reduced(c, n) * f32::from_bits(t.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { y }
}

/// `e^(c - n ln 2)`, for a difference of at most half of `ln 2`.
#[inline(always)]
fn reduced(c: f32, n: f32) -> f32 {
    let r = (c - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p * (r * r) + r + 1.0
}

/// Logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, absolute error below 3e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Gauss error function, absolute error below 3e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
    let y = 1.0 - p * exp(-a * a);
    if x < 0.0 { -y } else { y }
}

const LANES: usize = 16;

/// Sums `f(i)` over `0..n` in 16 lanes, then the lanes in a fixed order.
#[inline(always)]
pub(crate) fn lanes_sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut acc = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for l in 0..LANES {
            acc[l] += f(i + l);
        }
        i += LANES;
    }
    let mut s = 0.0;
    for i in whole..n {
        s += f(i);
    }
    s + fold_lanes(acc)
}

/// Sums `f(a[i], b[i], c[i])` over all `i` in 16 lanes, then the lanes in a fixed order. Slices of equal length.
#[inline(always)]
pub(crate) fn sum_of<A: Copy, B: Copy, C: Copy>(
    a: &[A],
    b: &[B],
    c: &[C],
    f: impl Fn(A, B, C) -> f32,
) -> f32 {
    let n = a.len().min(b.len()).min(c.len());
    let (a, rest_a) = a[..n].as_chunks::<LANES>();
    let (b, rest_b) = b[..n].as_chunks::<LANES>();
    let (c, rest_c) = c[..n].as_chunks::<LANES>();
    let mut acc = [0.0f32; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for l in 0..LANES {
            acc[l] += f(a[l], b[l], c[l]);
        }
    }
    let mut s = 0.0;
    for ((a, b), c) in rest_a.iter().zip(rest_b).zip(rest_c) {
        s += f(*a, *b, *c);
    }
    s + fold_lanes(acc)
}

/// Sum over the lanes, halves first.
#[inline(always)]
fn fold_lanes(mut acc: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            acc[l] += acc[l + width];
        }
        width /= 2;
    }
    acc[0]
}

/// Dot product.
#[inline(always)]
pub(crate) fn dot<A: Elem, B: Elem>(a: &[A], b: &[B]) -> f32 {
    let n = a.len().min(b.len());
    let ((a, rest_a), (b, rest_b)) = (a[..n].as_chunks::<LANES>(), b[..n].as_chunks::<LANES>());
    let mut acc = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            acc[l] += a[l].up() * b[l].up();
        }
    }
    let mut s = 0.0;
    for (a, b) in rest_a.iter().zip(rest_b) {
        s += a.up() * b.up();
    }
    s + fold_lanes(acc)
}

/// Largest element, ignoring NaN; negative infinity for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut top = f32::NEG_INFINITY;
    for &v in rest {
        top = if v > top { v } else { top };
    }
    for c in chunks {
        for l in 0..LANES {
            acc[l] = if c[l] > acc[l] { c[l] } else { acc[l] };
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            acc[l] = if acc[l + width] > acc[l] { acc[l + width] } else { acc[l] };
        }
        width /= 2;
    }
    if acc[0] > top { acc[0] } else { top }
}

/// Sum of squares in `f64`.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut acc = [0.0f64; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for c in chunks {
        for l in 0..8 {
            acc[l] += f64::from(c[l]) * f64::from(c[l]);
        }
    }
    rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() + acc.iter().sum::<f64>()
}
