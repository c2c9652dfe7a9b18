//! Real numbers as balls: a dyadic midpoint and a radius that bounds the distance to the true value.
//!
//! Midpoint-radius arithmetic in the manner of F. Johansson, "Arb: efficient arbitrary-precision midpoint-radius
//! interval arithmetic" (IEEE Trans. Comput. 66, 2017). Every operation encloses the exact result for every choice
//! of true values inside its operands.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::Stop;
use super::magnitude::Mag;

/// Largest exponent in size; beyond it a value counts as too large to be written down.
const MAX_EXPONENT: i64 = 1 << 48;

/// The set `[mid * 2^exp - rad, mid * 2^exp + rad]`.
#[derive(Clone, Debug)]
pub(crate) struct Ball {
    mid: BigInt,
    exp: i64,
    rad: Mag,
}

impl Ball {
    /// The exact zero.
    pub(crate) fn zero() -> Self {
        Self { mid: BigInt::zero(), exp: 0, rad: Mag::ZERO }
    }

    /// The exact integer.
    pub(crate) fn int(n: impl Into<BigInt>) -> Self {
        Self { mid: n.into(), exp: 0, rad: Mag::ZERO }
    }

    /// `n * 2^exp`, exactly.
    pub(crate) fn dyadic(n: impl Into<BigInt>, exp: i64) -> Self {
        Self { mid: n.into(), exp, rad: Mag::ZERO }
    }

    /// `mid * 2^exp` with an error of at most `error * 2^exp`.
    pub(crate) fn with_error(mid: BigInt, exp: i64, error: u64) -> Self {
        Self { mid, exp, rad: Mag::new(error, exp) }
    }

    /// A rational number, to `prec` bits.
    pub(crate) fn rational(r: &BigRational, prec: u64) -> Result<Self, Stop> {
        Self::int(r.numer().clone()).div(&Self::int(r.denom().clone()), prec)
    }

    /// Midpoint as `(n, e)` for `n * 2^e`.
    pub(crate) fn midpoint(&self) -> (&BigInt, i64) {
        (&self.mid, self.exp)
    }

    /// The radius.
    pub(crate) fn radius(&self) -> Mag {
        self.rad
    }

    /// The same ball with a radius larger by `extra`.
    pub(crate) fn widened(mut self, extra: Mag) -> Self {
        self.rad = self.rad.add(extra);
        self
    }

    /// True for the exact zero.
    pub(crate) fn is_exact_zero(&self) -> bool {
        self.mid.is_zero() && self.rad.is_zero()
    }

    /// Upper bound of the absolute value.
    pub(crate) fn upper(&self) -> Mag {
        Mag::upper(&self.mid, self.exp).add(self.rad)
    }

    /// Lower bound of the absolute value; zero when the ball contains zero.
    pub(crate) fn lower(&self) -> Mag {
        Mag::lower(&self.mid, self.exp).sub_lower(self.rad)
    }

    /// True when zero may be the value.
    pub(crate) fn contains_zero(&self) -> bool {
        self.lower().is_zero()
    }

    /// The certain order relative to zero; `None` when the bounds allow more than one.
    pub(crate) fn sign(&self) -> Option<Ordering> {
        if self.is_exact_zero() {
            return Some(Ordering::Equal);
        }
        match self.mid.sign() {
            _ if self.contains_zero() => None,
            Sign::Plus => Some(Ordering::Greater),
            Sign::Minus => Some(Ordering::Less),
            Sign::NoSign => None,
        }
    }

    /// Rounds the midpoint to `prec` bits and checks the exponent.
    fn rounded(mut self, prec: u64) -> Result<Self, Stop> {
        let excess = self.mid.bits().saturating_sub(prec);
        if excess > 0 {
            let inexact = self.mid.trailing_zeros().is_some_and(|z| z < excess);
            self.mid >>= excess;
            self.exp += excess as i64;
            if inexact {
                self.rad = self.rad.add(Mag::new(1, self.exp));
            }
        }
        if self.mid.is_zero() {
            self.exp = 0;
        }
        if self.exp.abs() > MAX_EXPONENT { Err(Stop::Overflow) } else { Ok(self) }
    }

    /// `-self`.
    pub(crate) fn neg(mut self) -> Self {
        self.mid = -self.mid;
        self
    }

    /// `|self|`.
    pub(crate) fn abs(mut self) -> Self {
        // The radius stays an enclosure: | |x| - |m| | <= |x - m|.
        self.mid = self.mid.abs();
        self
    }

    /// `self * 2^n`.
    pub(crate) fn shift(mut self, n: i64) -> Self {
        self.exp += n;
        self.rad = self.rad.shift(n);
        self
    }

    /// `self + other`.
    pub(crate) fn add(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        let rad = self.rad.add(other.rad);
        if self.mid.is_zero() || other.mid.is_zero() {
            let (mid, exp) = if self.mid.is_zero() { (&other.mid, other.exp) } else { (&self.mid, self.exp) };
            return Self { mid: mid.clone(), exp, rad }.rounded(prec);
        }
        let top = |b: &Self| b.exp + b.mid.bits() as i64;
        let (big, small) = if top(self) >= top(other) { (self, other) } else { (other, self) };
        if top(big) - top(small) > prec as i64 + 64 {
            // Too small to matter: it becomes part of the radius.
            let rad = rad.add(Mag::upper(&small.mid, small.exp));
            return Self { mid: big.mid.clone(), exp: big.exp, rad }.rounded(prec);
        }
        let exp = self.exp.min(other.exp);
        let mid = (&self.mid << (self.exp - exp)) + (&other.mid << (other.exp - exp));
        Self { mid, exp, rad }.rounded(prec)
    }

    /// `self - other`.
    pub(crate) fn sub(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        self.add(&other.clone().neg(), prec)
    }

    /// `self * other`.
    pub(crate) fn mul(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        let (a, b) = (Mag::upper(&self.mid, self.exp), Mag::upper(&other.mid, other.exp));
        let rad = a.mul(other.rad).add(b.mul(self.rad)).add(self.rad.mul(other.rad));
        Self { mid: &self.mid * &other.mid, exp: self.exp + other.exp, rad }.rounded(prec)
    }

    /// `self / other`.
    pub(crate) fn div(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        if other.is_exact_zero() {
            return Err(Stop::Undefined);
        }
        let lower = other.lower();
        if lower.is_zero() {
            return Err(Stop::Imprecise);
        }
        let shift = (prec + other.mid.bits()).saturating_sub(self.mid.bits()) + 2;
        let top = &self.mid << shift;
        let mid = &top / &other.mid;
        let exact = (&mid * &other.mid) == top;
        let exp = self.exp - other.exp - shift as i64;
        // |x/y - a/b| <= (|x - a| + |a/b| |y - b|) / |y|
        let quotient = Mag::upper(&mid, exp).add(Mag::new(1, exp));
        let spread = self.rad.add(quotient.mul(other.rad)).div_by_lower(lower).ok_or(Stop::Imprecise)?;
        let rad = if exact { spread } else { spread.add(Mag::new(1, exp)) };
        Self { mid, exp, rad }.rounded(prec)
    }

    /// The real `n`-th root, `n >= 1`; of a negative number for odd `n` only.
    pub(crate) fn root(&self, n: u32, prec: u64) -> Result<Self, Stop> {
        if self.is_exact_zero() || n == 1 {
            return Ok(self.clone());
        }
        match self.sign() {
            Some(Ordering::Less) if n % 2 == 1 => return Ok(self.clone().neg().root(n, prec)?.neg()),
            Some(Ordering::Less) => return Err(Stop::Undefined),
            None => return Err(Stop::Imprecise),
            _ => {}
        }
        let wanted = u64::from(n) * (prec + 2);
        let mut shift = wanted.saturating_sub(self.mid.bits()) as i64;
        shift += (self.exp - shift).rem_euclid(i64::from(n));
        let radicand = &self.mid << shift;
        let mid = if n == 2 { radicand.sqrt() } else { radicand.nth_root(n) };
        let exp = (self.exp - shift) / i64::from(n);
        let exact = num_traits::pow(mid.clone(), n as usize) == radicand;
        // |x^(1/n) - m^(1/n)| <= |x - m| m^(1/n) / (n * min(x, m)) <= |x - m| root / lower
        let root = Mag::upper(&mid, exp).add(Mag::new(1, exp));
        let spread = self.rad.mul(root).div_by_lower(self.lower()).ok_or(Stop::Imprecise)?;
        let rad = if exact { spread } else { spread.add(Mag::new(1, exp)) };
        Self { mid, exp, rad }.rounded(prec)
    }

    /// `self^n` by repeated squaring.
    pub(crate) fn powi(&self, n: &BigInt, prec: u64) -> Result<Self, Stop> {
        if n.is_negative() {
            return Self::int(1).div(&self.powi(&-n, prec)?, prec);
        }
        if n.bits() > 64 {
            return Err(Stop::Overflow);
        }
        let mut result = Self { mid: BigInt::one(), exp: 0, rad: Mag::ZERO };
        for i in (0..n.bits()).rev() {
            result = result.mul(&result, prec)?;
            if n.bit(i) {
                result = result.mul(self, prec)?;
            }
        }
        Ok(result)
    }

    /// The integer part towards minus infinity, when the bounds leave only one.
    pub(crate) fn floor(&self) -> Result<BigInt, Stop> {
        if self.exp > 4096 || !self.rad.less(Mag::new(1, -1)) {
            return Err(Stop::Imprecise);
        }
        let (radius, scale) = self.rad.parts();
        let exp = self.exp.min(scale).min(0);
        if exp < -(1 << 16) {
            return Err(Stop::Imprecise);
        }
        let mid = &self.mid << (self.exp - exp);
        let radius = radius << (scale - exp).max(0);
        let unit = BigInt::one() << -exp;
        let floor = |n: BigInt| num_integer_floor(&n, &unit);
        let (low, high) = (floor(&mid - &radius), floor(&mid + &radius));
        if low == high { Ok(low) } else { Err(Stop::Imprecise) }
    }
}

fn num_integer_floor(n: &BigInt, d: &BigInt) -> BigInt {
    let q = n / d;
    if n.is_negative() && &q * d != *n { q - 1 } else { q }
}
