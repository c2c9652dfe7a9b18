//! Upper bounds of non-negative reals: 32-bit mantissas with rounding upwards.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint};
use num_traits::{ToPrimitive, Zero};

/// A number `m * 2^e` that is at least as large as what it bounds. Zero is exact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mag {
    m: u64,
    e: i64,
}

impl Mag {
    /// Zero.
    pub(crate) const ZERO: Self = Self { m: 0, e: 0 };

    /// At least `m * 2^e`.
    pub(crate) fn new(m: u64, e: i64) -> Self {
        let excess = (64 - m.leading_zeros()).saturating_sub(32);
        if excess == 0 {
            return Self { m, e };
        }
        let shifted = m >> excess;
        let up = u64::from(m & ((1 << excess) - 1) != 0);
        Self { m: shifted + up, e: e + i64::from(excess) }
    }

    /// At least `|n| * 2^e`.
    pub(crate) fn upper(n: &BigInt, e: i64) -> Self {
        let (m, shift, rest) = top(n.magnitude());
        Self::new(m + u64::from(rest), e + shift)
    }

    /// At most `|n| * 2^e`.
    pub(crate) fn lower(n: &BigInt, e: i64) -> Self {
        let (m, shift, _) = top(n.magnitude());
        Self { m, e: e + shift }
    }

    /// True for the exact zero.
    pub(crate) fn is_zero(self) -> bool {
        self.m == 0
    }

    /// At least the sum.
    pub(crate) fn add(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return if self.is_zero() { other } else { self };
        }
        let (big, small) = if self.e >= other.e { (self, other) } else { (other, self) };
        let shift = (big.e - small.e).min(40) as u32;
        // The smaller one is rounded up to a multiple of the larger one's unit.
        Self::new(big.m + (small.m >> shift) + 1, big.e)
    }

    /// At least the product.
    pub(crate) fn mul(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            Self::ZERO
        } else {
            Self::new(self.m * other.m, self.e + other.e)
        }
    }

    /// At least `self / other`, where `other` is a lower bound; `None` when it is zero.
    pub(crate) fn div_by_lower(self, other: Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        if self.is_zero() {
            return Some(Self::ZERO);
        }
        Some(Self::new((self.m << 31) / other.m + 1, self.e - other.e - 31))
    }

    /// At most `self - other`, where `self` is a lower bound and `other` an upper bound; zero when that is negative.
    pub(crate) fn sub_lower(self, other: Self) -> Self {
        if other.is_zero() {
            return self;
        }
        if self.cmp(other) != Ordering::Greater {
            return Self::ZERO;
        }
        let shift = self.e - other.e;
        if shift >= 0 {
            // Bring `self` to more bits, then round `other` up to its unit.
            let up = (64 - (64 - self.m.leading_zeros())).min(30);
            let (m, e) = (self.m << up, self.e - i64::from(up));
            let d = (e - other.e).clamp(-31, 63);
            let o = if d >= 0 { (other.m >> d) + 1 } else { other.m << -d };
            Self { m: m.saturating_sub(o), e }.shrunk()
        } else {
            let d = (-shift).min(31) as u32;
            Self { m: self.m.saturating_sub(other.m << d), e: self.e }
        }
    }

    /// Rounds down to 32 bits, for lower bounds.
    fn shrunk(self) -> Self {
        let excess = (64 - self.m.leading_zeros()).saturating_sub(32);
        Self { m: self.m >> excess, e: self.e + i64::from(excess) }
    }

    /// `self * 2^n`.
    pub(crate) fn shift(self, n: i64) -> Self {
        Self { m: self.m, e: self.e + n }
    }

    /// Compares the numbers themselves.
    pub(crate) fn cmp(self, other: Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            _ => {}
        }
        let top = |x: Self| x.e.saturating_add(64 - i64::from(x.m.leading_zeros()));
        let aligned = |x: Self| x.m << x.m.leading_zeros();
        top(self).cmp(&top(other)).then(aligned(self).cmp(&aligned(other)))
    }

    /// True when `self < other` as numbers.
    pub(crate) fn less(self, other: Self) -> bool {
        self.cmp(other) == Ordering::Less
    }

    /// `n` and an exponent with `n * 2^e` equal to this number.
    pub(crate) fn parts(self) -> (BigInt, i64) {
        (self.m.into(), self.e)
    }

    /// Exponent of the leading bit; `None` for zero.
    pub(crate) fn log2(self) -> Option<i64> {
        (!self.is_zero()).then(|| self.e + 63 - i64::from(self.m.leading_zeros()))
    }
}

/// Leading 32 bits, the shift that restores the size, and whether lower bits were lost.
fn top(n: &BigUint) -> (u64, i64, bool) {
    let bits = n.bits();
    if bits <= 32 {
        return (n.to_u64().unwrap_or(0), 0, false);
    }
    let shift = bits - 32;
    let m = (n >> shift).to_u64().unwrap_or(u64::MAX);
    let exact = n.is_zero() || n.trailing_zeros().is_some_and(|z| z >= shift);
    (m, shift as i64, !exact)
}
