//! Complex numbers as pairs of balls. An imaginary part that is exactly zero marks a real number.

use std::cmp::Ordering;

use num_bigint::BigInt;

use super::Stop;
use super::ball::Ball;
use super::elementary::{exp, ln, pi, sin_cos};

/// `re + i im`.
#[derive(Clone, Debug)]
pub(crate) struct Complex {
    /// Real part.
    pub(crate) re: Ball,
    /// Imaginary part.
    pub(crate) im: Ball,
}

impl Complex {
    /// A real number.
    pub(crate) fn real(re: Ball) -> Self {
        Self { re, im: Ball::zero() }
    }

    /// The imaginary unit.
    pub(crate) fn i() -> Self {
        Self { re: Ball::zero(), im: Ball::int(1) }
    }

    /// True when the imaginary part is exactly zero.
    pub(crate) fn is_real(&self) -> bool {
        self.im.is_exact_zero()
    }

    /// The real part of a real number.
    pub(crate) fn as_real(&self) -> Result<&Ball, Stop> {
        if self.is_real() { Ok(&self.re) } else { Err(Stop::Unsupported) }
    }

    /// `-self`.
    pub(crate) fn neg(self) -> Self {
        Self { re: self.re.neg(), im: self.im.neg() }
    }

    /// `self + other`.
    pub(crate) fn add(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        Ok(Self { re: self.re.add(&other.re, prec)?, im: self.im.add(&other.im, prec)? })
    }

    /// `self * other`.
    pub(crate) fn mul(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        match (self.is_real(), other.is_real()) {
            (true, true) => Ok(Self::real(self.re.mul(&other.re, prec)?)),
            (true, false) => {
                Ok(Self { re: self.re.mul(&other.re, prec)?, im: self.re.mul(&other.im, prec)? })
            }
            (false, true) => other.mul(self, prec),
            (false, false) => {
                let re = self.re.mul(&other.re, prec)?.sub(&self.im.mul(&other.im, prec)?, prec)?;
                let im = self.re.mul(&other.im, prec)?.add(&self.im.mul(&other.re, prec)?, prec)?;
                Ok(Self { re, im })
            }
        }
    }

    /// `self / other`.
    pub(crate) fn div(&self, other: &Self, prec: u64) -> Result<Self, Stop> {
        if other.is_real() {
            return Ok(Self { re: self.re.div(&other.re, prec)?, im: self.im.div(&other.re, prec)? });
        }
        let norm = other.re.mul(&other.re, prec)?.add(&other.im.mul(&other.im, prec)?, prec)?;
        let conjugate = Self { re: other.re.clone(), im: other.im.clone().neg() };
        self.mul(&conjugate, prec)?.div(&Self::real(norm), prec)
    }

    /// `|self|`.
    pub(crate) fn abs(&self, prec: u64) -> Result<Ball, Stop> {
        if self.is_real() {
            return Ok(self.re.clone().abs());
        }
        self.re.mul(&self.re, prec)?.add(&self.im.mul(&self.im, prec)?, prec)?.root(2, prec)
    }

    /// `self^n`.
    pub(crate) fn powi(&self, n: &BigInt, prec: u64) -> Result<Self, Stop> {
        if self.is_real() {
            return Ok(Self::real(self.re.powi(n, prec)?));
        }
        if n.sign() == num_bigint::Sign::Minus {
            return Self::real(Ball::int(1)).div(&self.powi(&-n, prec)?, prec);
        }
        if n.bits() > 32 {
            return Err(Stop::Overflow);
        }
        let mut result = Self::real(Ball::int(1));
        for i in (0..n.bits()).rev() {
            result = result.mul(&result, prec)?;
            if n.bit(i) {
                result = result.mul(self, prec)?;
            }
        }
        Ok(result)
    }

    /// The real `n`-th root where there is one; with `complex`, `i sqrt(-x)` for the square root of a negative `x`
    /// and the principal square root of a complex number.
    pub(crate) fn root(&self, n: u32, complex: bool, prec: u64) -> Result<Self, Stop> {
        if self.is_real() {
            return match self.re.root(n, prec) {
                Err(Stop::Undefined) if complex && n == 2 => {
                    Ok(Self { re: Ball::zero(), im: self.re.clone().neg().root(2, prec)? })
                }
                other => other.map(Self::real),
            };
        }
        if n != 2 {
            return Err(Stop::Unsupported);
        }
        // sqrt(z) = a + b i with a = sqrt((|z| + re)/2) and b = im / (2 a), for z off the negative real axis.
        let a = self.abs(prec)?.add(&self.re, prec)?.shift(-1).root(2, prec)?;
        let b = self.im.div(&a.clone().shift(1), prec)?;
        Ok(Self { re: a, im: b })
    }

    /// `e^self`.
    pub(crate) fn exp(&self, prec: u64) -> Result<Self, Stop> {
        let size = exp(&self.re, prec)?;
        if self.is_real() {
            return Ok(Self::real(size));
        }
        let (s, c) = sin_cos(&self.im, prec)?;
        Ok(Self { re: size.mul(&c, prec)?, im: size.mul(&s, prec)? })
    }

    /// Principal logarithm; of negative reals only with `complex`.
    pub(crate) fn ln(&self, complex: bool, prec: u64) -> Result<Self, Stop> {
        if !self.is_real() {
            return Err(Stop::Unsupported);
        }
        match ln(&self.re, prec) {
            Err(Stop::Undefined) if complex && self.re.sign() == Some(Ordering::Less) => {
                Ok(Self { re: ln(&self.re.clone().neg(), prec)?, im: pi(prec) })
            }
            other => other.map(Self::real),
        }
    }
}
