//! Exponential, logarithm and circular functions of balls, by argument reduction and Taylor series in fixed point.
//!
//! Each routine states the error of its fixed-point computation in units of the last place (`ulp = 2^-wp`); working
//! with 64 guard bits leaves the declared bound (`2^24` ulp) far below the precision asked for.

use std::sync::OnceLock;

use num_bigint::BigInt;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::Stop;
use super::ball::Ball;
use super::magnitude::Mag;

/// Largest precision in bits.
pub(crate) const MAX_PREC: u64 = 4096;
const CONSTANT_BITS: u64 = MAX_PREC + 256;
const GUARD: u64 = 64;
/// Declared error of a fixed-point result, in ulp.
const ERROR: u64 = 1 << 24;

/// `sum over odd k of sign^((k-1)/2) z^k / k` for `z = 1/n`, at `bits` fractional bits.
fn inverse_series(n: u32, bits: u64, alternating: bool) -> BigInt {
    let mut power = (BigInt::one() << bits) / n;
    let square = n * n;
    let mut sum = BigInt::zero();
    let mut k = 1u32;
    while !power.is_zero() {
        let term = &power / k;
        if alternating && k % 4 == 3 {
            sum -= term
        } else {
            sum += term
        }
        power /= square;
        k += 2;
    }
    sum
}

/// pi at `CONSTANT_BITS + 64` bits: 16 atan(1/5) - 4 atan(1/239) (Machin).
fn pi_digits() -> &'static BigInt {
    static PI: OnceLock<BigInt> = OnceLock::new();
    PI.get_or_init(|| {
        let bits = CONSTANT_BITS + 64;
        inverse_series(5, bits, true) * 16 - inverse_series(239, bits, true) * 4
    })
}

/// ln 2 at `CONSTANT_BITS + 64` bits: 18 atanh(1/26) - 2 atanh(1/4801) + 8 atanh(1/8749).
fn ln2_digits() -> &'static BigInt {
    static LN2: OnceLock<BigInt> = OnceLock::new();
    LN2.get_or_init(|| {
        let bits = CONSTANT_BITS + 64;
        inverse_series(26, bits, false) * 18 - inverse_series(4801, bits, false) * 2
            + inverse_series(8749, bits, false) * 8
    })
}

/// A constant at `bits` fractional bits; error below 2 ulp (the series lose fewer than 2^20 of 2^64 ulp).
fn constant(digits: &BigInt, bits: u64) -> BigInt {
    digits >> (CONSTANT_BITS + 64 - bits)
}

/// pi.
pub(crate) fn pi(prec: u64) -> Ball {
    let bits = (prec + 8).min(CONSTANT_BITS);
    Ball::with_error(constant(pi_digits(), bits), -(bits as i64), 2)
}

/// The midpoint as fixed point with `bits` fractional bits, error below 1 ulp.
fn fixed(x: &Ball, bits: u64) -> BigInt {
    let (mid, exp) = x.midpoint();
    let shift = exp + bits as i64;
    if shift >= 0 { mid << shift } else { mid >> -shift }
}

/// Fails when the argument is larger than `2^bits` or spread over more than 1.
fn check(x: &Ball, bits: i64) -> Result<(), Stop> {
    if x.upper().log2().is_some_and(|b| b >= bits) {
        return Err(Stop::Overflow);
    }
    if x.radius().less(Mag::new(1, 0)) { Ok(()) } else { Err(Stop::Imprecise) }
}

/// `e^x`, for `|x| < 2^40`.
pub(crate) fn exp(x: &Ball, prec: u64) -> Result<Ball, Stop> {
    if x.is_exact_zero() {
        return Ok(Ball::int(1));
    }
    check(x, 40)?;
    let wp = prec + GUARD;
    let wide = wp + 50;
    let ln2 = constant(ln2_digits(), wide);
    let full = fixed(x, wide);
    let mut k = &full / &ln2;
    if full.is_negative() {
        k -= 1;
    }
    // 0 <= r < ln 2 with an error below 2 ulp, since |k| < 2^41 multiplies an error of 2^-wide.
    let r = (full - &k * &ln2) >> (50 + 8);
    let mut term = BigInt::one() << wp;
    let mut sum = BigInt::zero();
    let mut n = 0u32;
    while !term.is_zero() {
        sum += &term;
        n += 1;
        term = (term * &r) >> wp;
        term /= n;
    }
    // e^(r/256) to fewer than 300 ulp; eight squarings multiply that by at most 2^9.
    for _ in 0..8 {
        sum = (&sum * &sum) >> wp;
    }
    let k = k.to_i64().ok_or(Stop::Overflow)?;
    let value = Ball::with_error(sum, k - wp as i64, ERROR);
    // e^(x + d) - e^x <= e^x * 2 d for d < 1
    let spread = value.upper().mul(x.radius()).shift(1);
    Ok(value.widened(spread))
}

/// The natural logarithm of a positive number.
pub(crate) fn ln(x: &Ball, prec: u64) -> Result<Ball, Stop> {
    match x.sign() {
        Some(std::cmp::Ordering::Greater) => {}
        Some(_) => return Err(Stop::Undefined),
        None => return Err(Stop::Imprecise),
    }
    let wp = prec + GUARD;
    let (mid, exp) = x.midpoint();
    if *mid == BigInt::one() && exp == 0 && x.radius().is_zero() {
        return Ok(Ball::zero());
    }
    let bits = mid.bits() as i64;
    let e = exp + bits - 1;
    if e.abs() > 1 << 40 {
        return Err(Stop::Overflow);
    }
    // mid = t * 2^e with 1 <= t < 2
    let mut t = fixed(&Ball::dyadic(mid.clone(), 1 - bits), wp);
    for _ in 0..12 {
        t = (t << wp).sqrt();
    }
    let one = BigInt::one() << wp;
    let z: BigInt = ((&t - &one) << wp) / (&t + &one);
    let square: BigInt = (&z * &z) >> wp;
    let mut power = z;
    let mut sum = BigInt::zero();
    let mut k = 1u32;
    while !power.is_zero() {
        sum += &power / k;
        power = (power * &square) >> wp;
        k += 2;
    }
    // 2 atanh z is ln t^(1/4096) to fewer than 2^7 ulp, so that ln t is known to 2^20 ulp.
    let part = sum << 13;
    let wide = wp + 50;
    let whole = (constant(ln2_digits(), wide) * e) >> 50;
    let value = Ball::with_error(part + whole, -(wp as i64), ERROR);
    let spread = x.radius().div_by_lower(x.lower()).ok_or(Stop::Imprecise)?;
    Ok(value.widened(spread))
}

/// `(sin x, cos x)`, for `|x| < 2^40`.
pub(crate) fn sin_cos(x: &Ball, prec: u64) -> Result<(Ball, Ball), Stop> {
    if x.is_exact_zero() {
        return Ok((Ball::zero(), Ball::int(1)));
    }
    check(x, 40)?;
    let wp = prec + GUARD;
    let wide = wp + 50;
    let half_pi: BigInt = constant(pi_digits(), wide) >> 1;
    let full = fixed(x, wide);
    // Nearest multiple of pi/2.
    let shifted: BigInt = &full * 2 + &half_pi;
    let mut k: BigInt = &shifted / (&half_pi * 2);
    if shifted.is_negative() {
        k -= 1;
    }
    let r: BigInt = (full - &k * &half_pi) >> 50;
    let square: BigInt = (&r * &r) >> wp;
    let series = |first: BigInt, mut n: u32| {
        let mut term = first;
        let mut sum = BigInt::zero();
        while !term.is_zero() {
            sum += &term;
            term = -((term * &square) >> wp);
            term /= n * (n + 1);
            n += 2;
        }
        sum
    };
    // Each of fewer than 2^12 terms loses at most 3 ulp.
    let (s, c) = (series(r.clone(), 2), series(BigInt::one() << wp, 1));
    let (s, c) = match (k & BigInt::from(3)).to_u8() {
        Some(0) => (s, c),
        Some(1) => (c, -s),
        Some(2) => (-s, -c),
        _ => (-c, s),
    };
    let ball = |n| Ball::with_error(n, -(wp as i64), ERROR).widened(x.radius());
    Ok((ball(s), ball(c)))
}

/// `atan x`.
pub(crate) fn atan(x: &Ball, prec: u64) -> Result<Ball, Stop> {
    if x.is_exact_zero() {
        return Ok(Ball::zero());
    }
    let wp = prec + GUARD;
    let one = BigInt::one() << wp;
    let (mid, exp) = x.midpoint();
    let large = exp + mid.bits() as i64 > 0;
    // For |x| >= 1: atan x = +-pi/2 - atan(1/x).
    let mut t = if large {
        let inverse = Ball::int(1).div(&Ball::dyadic(mid.clone(), exp), wp)?;
        fixed(&inverse, wp)
    } else {
        fixed(x, wp)
    };
    for _ in 0..4 {
        let root: BigInt = ((&one << wp) + &t * &t).sqrt();
        t = (t << wp) / (&one + root);
    }
    let square: BigInt = (&t * &t) >> wp;
    let mut power = t;
    let mut sum = BigInt::zero();
    let mut k = 1i32;
    while !power.is_zero() {
        sum += &power / k;
        power = -((power * &square) >> wp);
        k += 2;
    }
    let mut value = sum << 4;
    if large {
        let half_pi: BigInt = constant(pi_digits(), wp) >> 1;
        value = if mid.is_negative() { -half_pi - value } else { half_pi - value };
    }
    Ok(Ball::with_error(value, -(wp as i64), ERROR).widened(x.radius()))
}
