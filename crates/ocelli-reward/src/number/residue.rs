//! Residues modulo two primes just below 2^61, for exact tests of rational functions.
//!
//! Two different rational functions of degree `d` agree at a random point modulo a prime `p` with probability at
//! most `d/p` (Schwartz and Zippel), so that agreement at two points modulo two primes leaves less than `(d/2^60)^4`.
//! A disagreement is a proof. Both primes are 1 modulo 4, which gives the imaginary unit a residue.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

/// A prime with a square root of -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The prime.
    pub(crate) p: u64,
    /// A number whose square is -1 modulo `p`.
    pub(crate) i: u64,
}

/// The two largest primes below 2^61 that are 1 modulo 4: 2^61 - 31 and 2^61 - 259.
pub(crate) const FIELDS: [Field; 2] = [
    Field { p: 2305843009213693921, i: 583529827753931384 },
    Field { p: 2305843009213693693, i: 966685122347009555 },
];

impl Field {
    /// `a + b`.
    pub(crate) fn add(self, a: u64, b: u64) -> u64 {
        let s = a + b;
        if s >= self.p { s - self.p } else { s }
    }

    /// `-a`.
    pub(crate) fn neg(self, a: u64) -> u64 {
        if a == 0 { 0 } else { self.p - a }
    }

    /// `a * b`.
    pub(crate) fn mul(self, a: u64, b: u64) -> u64 {
        (u128::from(a) * u128::from(b) % u128::from(self.p)) as u64
    }

    /// `a^n`.
    pub(crate) fn pow(self, mut a: u64, mut n: u64) -> u64 {
        let mut result = 1;
        while n > 0 {
            if n & 1 == 1 {
                result = self.mul(result, a);
            }
            a = self.mul(a, a);
            n >>= 1;
        }
        result
    }

    /// `1/a`; `None` for zero.
    pub(crate) fn inv(self, a: u64) -> Option<u64> {
        (a != 0).then(|| self.pow(a, self.p - 2))
    }

    /// `a^n` for an integer exponent of any size; `None` for a negative power of zero.
    pub(crate) fn pow_big(self, a: u64, n: &BigInt) -> Option<u64> {
        if a == 0 {
            return match n.sign() {
                num_bigint::Sign::NoSign => Some(1),
                num_bigint::Sign::Plus => Some(0),
                num_bigint::Sign::Minus => None,
            };
        }
        let order = BigInt::from(self.p - 1);
        let reduced = ((n % &order) + &order) % &order;
        Some(self.pow(a, reduced.to_u64()?))
    }

    /// The residue of an integer.
    pub(crate) fn int(self, n: &BigInt) -> u64 {
        let r = match n.to_i64() {
            Some(small) => small.unsigned_abs() % self.p,
            None => (n.magnitude() % self.p).to_u64().unwrap_or(0),
        };
        if n.is_negative() { self.neg(r) } else { r }
    }

    /// The residue of a rational number; `None` where the denominator vanishes.
    pub(crate) fn rational(self, r: &BigRational) -> Option<u64> {
        let top = self.int(r.numer());
        if r.is_integer() || top.is_zero() {
            return Some(top);
        }
        Some(self.mul(top, self.inv(self.int(r.denom()))?))
    }
}
