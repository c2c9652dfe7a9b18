//! Values of expressions: exact rationals, residues modulo primes, and balls.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::expr::{Expr, Function, SymbolId};
use super::limits::{Budget, MAX_BITS, MAX_FACTORIAL};
use crate::number::Stop;
use crate::number::ball::Ball;
use crate::number::complex::Complex;
use crate::number::elementary::{atan, exp, ln, pi, sin_cos};
use crate::number::residue::Field;

/// Values of the symbols at one point.
pub(crate) type Point<T> = [(SymbolId, T)];

fn at<T>(point: &Point<T>, id: SymbolId) -> Result<&T, Stop> {
    point.iter().find(|(s, _)| *s == id).map(|(_, v)| v).ok_or(Stop::Unsupported)
}

/// A number that depends only on how an opaque function and its arguments are written.
fn opaque_seed(expr: &Expr) -> u64 {
    let text = format!("{expr:?}");
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn bits(r: &BigRational) -> u64 {
    r.numer().bits().max(r.denom().bits())
}

/// The exact value of a rational expression at a rational point.
pub(crate) fn exact(
    expr: &Expr,
    point: &Point<BigRational>,
    budget: &mut Budget,
) -> Result<BigRational, Stop> {
    let value = match expr {
        Expr::Number(r) => r.clone(),
        Expr::Symbol(s) => at(point, *s)?.clone(),
        Expr::Sum(terms) => {
            let mut total = BigRational::zero();
            for t in terms {
                total += exact(t, point, budget)?;
            }
            total
        }
        Expr::Product(factors) => {
            let mut total = BigRational::one();
            for f in factors {
                total *= exact(f, point, budget)?;
            }
            total
        }
        Expr::Quotient(a, b) => {
            let below = exact(b, point, budget)?;
            if below.is_zero() {
                return Err(Stop::Undefined);
            }
            exact(a, point, budget)? / below
        }
        Expr::Power(a, b) => {
            let (base, exponent) = (exact(a, point, budget)?, exact(b, point, budget)?);
            return rational_power(&base, &exponent, budget);
        }
        Expr::Root(a, n) => rational_root(&exact(a, point, budget)?, *n)?,
        Expr::Apply(f, a) => {
            let x = exact(a, point, budget)?;
            match f {
                Function::Abs => x.abs(),
                Function::Floor => x.floor(),
                Function::Ceil => x.ceil(),
                Function::Factorial => BigRational::from_integer(factorial(&x, budget)?),
                _ => return Err(Stop::Unsupported),
            }
        }
        Expr::Binomial(n, k) => {
            let (n, k) = (exact(n, point, budget)?, exact(k, point, budget)?);
            BigRational::from_integer(binomial(&n, &k, budget)?)
        }
        _ => return Err(Stop::Unsupported),
    };
    let size = bits(&value);
    if size > MAX_BITS {
        return Err(Stop::Overflow);
    }
    // Reducing a fraction costs about the square of its length in words.
    let words = size / 64 + 1;
    if budget.take(words * (words / 4 + 1)) { Ok(value) } else { Err(Stop::Budget) }
}

fn rational_power(
    base: &BigRational,
    exponent: &BigRational,
    budget: &mut Budget,
) -> Result<BigRational, Stop> {
    if !exponent.is_integer() {
        let n = exponent.denom().to_u32().filter(|n| *n <= 64).ok_or(Stop::Unsupported)?;
        let root = rational_root(base, n)?;
        return rational_power(&root, &BigRational::from_integer(exponent.numer().clone()), budget);
    }
    if base.is_zero() {
        return match exponent.cmp(&BigRational::zero()) {
            Ordering::Less => Err(Stop::Undefined),
            Ordering::Equal => Ok(BigRational::one()),
            Ordering::Greater => Ok(BigRational::zero()),
        };
    }
    if base.abs().is_one() {
        let odd = exponent.to_integer().bit(0);
        return Ok(if odd { base.clone() } else { BigRational::one() });
    }
    let n = exponent.to_integer().to_i32().ok_or(Stop::Overflow)?;
    let size = bits(base).saturating_mul(u64::from(n.unsigned_abs()));
    if size > MAX_BITS {
        return Err(Stop::Overflow);
    }
    let words = size / 64 + 1;
    if !budget.take(words * (words / 4 + 1)) {
        return Err(Stop::Budget);
    }
    Ok(num_traits::pow::Pow::pow(base, n))
}

fn rational_root(x: &BigRational, n: u32) -> Result<BigRational, Stop> {
    if n == 1 {
        return Ok(x.clone());
    }
    if x.is_negative() && n.is_multiple_of(2) {
        return Err(Stop::Unsupported);
    }
    let root = BigRational::new(x.numer().nth_root(n), x.denom().nth_root(n));
    let back = num_traits::pow(root.clone(), n as usize);
    if back == *x { Ok(root) } else { Err(Stop::Unsupported) }
}

fn factorial(x: &BigRational, budget: &mut Budget) -> Result<BigInt, Stop> {
    if !x.is_integer() || x.is_negative() {
        return Err(Stop::Undefined);
    }
    let n = x.to_integer().to_u32().filter(|n| *n <= MAX_FACTORIAL).ok_or(Stop::Overflow)?;
    if !budget.take(u64::from(n) * u64::from(n) / 16 + 1) {
        return Err(Stop::Budget);
    }
    Ok(product(1, n))
}

/// `(a + 1) ... b` by halves, which keeps the factors of equal length.
fn product(a: u32, b: u32) -> BigInt {
    if b <= a {
        return BigInt::one();
    }
    if b - a < 16 {
        return (a + 1..=b).fold(BigInt::one(), |acc, k| acc * k);
    }
    let middle = a + (b - a) / 2;
    product(a, middle) * product(middle, b)
}

fn binomial(n: &BigRational, k: &BigRational, budget: &mut Budget) -> Result<BigInt, Stop> {
    if !n.is_integer() || !k.is_integer() || n.is_negative() {
        return Err(Stop::Undefined);
    }
    let (n, k) = (n.to_integer(), k.to_integer());
    if k.is_negative() || k > n {
        return Ok(BigInt::zero());
    }
    let n = n.to_u32().filter(|n| *n <= 4 * MAX_FACTORIAL).ok_or(Stop::Overflow)?;
    let k = k.to_u32().ok_or(Stop::Overflow)?.min(n);
    let k = k.min(n - k);
    if !budget.take(u64::from(k) * u64::from(k) / 16 + 1) {
        return Err(Stop::Budget);
    }
    Ok(product(n - k, n) / product(0, k))
}

/// The residue of a rational function with integer exponents; `Unsupported` for anything else.
pub(crate) fn residue(
    expr: &Expr,
    point: &Point<u64>,
    field: Field,
    budget: &mut Budget,
) -> Result<u64, Stop> {
    if !budget.take(4) {
        return Err(Stop::Budget);
    }
    let inverse = |x| field.inv(x).ok_or(Stop::Undefined);
    match expr {
        Expr::Number(r) => field.rational(r).ok_or(Stop::Undefined),
        Expr::Symbol(s) => Ok(*at(point, *s)?),
        Expr::I => Ok(field.i),
        Expr::Sum(terms) => {
            terms.iter().try_fold(0, |sum, t| Ok(field.add(sum, residue(t, point, field, budget)?)))
        }
        Expr::Product(factors) => {
            factors.iter().try_fold(1, |product, f| Ok(field.mul(product, residue(f, point, field, budget)?)))
        }
        Expr::Quotient(a, b) => {
            let below = inverse(residue(b, point, field, budget)?)?;
            Ok(field.mul(residue(a, point, field, budget)?, below))
        }
        Expr::Power(a, b) => {
            let exponent = exact(b, &[], budget)?;
            if !exponent.is_integer() {
                return Err(Stop::Unsupported);
            }
            let base = residue(a, point, field, budget)?;
            field.pow_big(base, &exponent.to_integer()).ok_or(Stop::Undefined)
        }
        Expr::Opaque(..) => Ok(opaque_seed(expr) % field.p),
        _ => Err(Stop::Unsupported),
    }
}

/// How to evaluate with balls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Precision {
    /// Bits of the midpoints.
    pub(crate) bits: u64,
    /// Even roots and logarithms of negative numbers have complex values instead of none.
    pub(crate) complex: bool,
}

/// An enclosure of the value at a point.
pub(crate) fn enclose(
    expr: &Expr,
    point: &Point<Ball>,
    p: Precision,
    budget: &mut Budget,
) -> Result<Complex, Stop> {
    let prec = p.bits;
    if !budget.take(prec / 16 + 4) {
        return Err(Stop::Budget);
    }
    match expr {
        Expr::Number(r) => Ok(Complex::real(Ball::rational(r, prec)?)),
        Expr::Symbol(s) => Ok(Complex::real(at(point, *s)?.clone())),
        Expr::Pi => Ok(Complex::real(pi(prec))),
        Expr::E => Ok(Complex::real(elementary(prec, budget, |w| exp(&Ball::int(1), w))?)),
        Expr::I => Ok(Complex::i()),
        Expr::Infinity => Err(Stop::Unsupported),
        Expr::Sum(terms) => {
            let mut total = Complex::real(Ball::zero());
            for t in terms {
                total = total.add(&enclose(t, point, p, budget)?, prec)?;
            }
            Ok(total)
        }
        Expr::Product(factors) => {
            let mut total = Complex::real(Ball::int(1));
            for f in factors {
                total = total.mul(&enclose(f, point, p, budget)?, prec)?;
            }
            Ok(total)
        }
        Expr::Quotient(a, b) => {
            let below = enclose(b, point, p, budget)?;
            enclose(a, point, p, budget)?.div(&below, prec)
        }
        Expr::Power(a, b) => power(a, b, point, p, budget),
        Expr::Root(a, n) => {
            let radicand = enclose(a, point, p, budget)?;
            if !budget.take(prec * u64::from(*n) / 8) {
                return Err(Stop::Budget);
            }
            radicand.root(*n, p.complex, prec)
        }
        Expr::Apply(f, a) => {
            let x = enclose(a, point, p, budget)?;
            apply(*f, &x, p, budget)
        }
        Expr::Log(base, a) => {
            let x = enclose(a, point, p, budget)?;
            let b = enclose(base, point, p, budget)?;
            let top = elementary(prec, budget, |w| x.ln(p.complex, w))?;
            let below = elementary(prec, budget, |w| b.ln(p.complex, w))?;
            top.div(&below, prec)
        }
        Expr::Binomial(n, k) => {
            let (n, k) = (enclose(n, point, p, budget)?, enclose(k, point, p, budget)?);
            let whole = |x: &Complex| exact_integer(x).map(BigRational::from_integer);
            Ok(Complex::real(Ball::int(binomial(&whole(&n)?, &whole(&k)?, budget)?)))
        }
        Expr::Opaque(..) => {
            let n = (opaque_seed(expr) >> 44) as i64 + (1 << 15);
            Ok(Complex::real(Ball::dyadic(n, -18)))
        }
    }
}

/// Runs a transcendental function after charging for it.
fn elementary<T>(prec: u64, budget: &mut Budget, f: impl FnOnce(u64) -> Result<T, Stop>) -> Result<T, Stop> {
    let words = prec / 64 + 2;
    if budget.take(words * words * 40) { f(prec) } else { Err(Stop::Budget) }
}

/// The integer that a real enclosure is, exactly.
fn exact_integer(x: &Complex) -> Result<BigInt, Stop> {
    let x = x.as_real()?;
    let (mid, exp) = x.midpoint();
    if !x.radius().is_zero() {
        return Err(Stop::Imprecise);
    }
    if exp >= 0 {
        return if exp < 64 { Ok(mid << exp) } else { Err(Stop::Overflow) };
    }
    let whole = mid.trailing_zeros().is_none_or(|z| z as i64 >= -exp);
    if whole { Ok(mid >> -exp) } else { Err(Stop::Undefined) }
}

fn power(
    a: &Expr,
    b: &Expr,
    point: &Point<Ball>,
    p: Precision,
    budget: &mut Budget,
) -> Result<Complex, Stop> {
    let prec = p.bits;
    // A literal exponent is exact, and a fraction in it is a root.
    if let Expr::Number(r) = b {
        let base = enclose(a, point, p, budget)?;
        let n = r.denom().to_u32().filter(|n| *n <= 64);
        if let Some(n) = n {
            if !budget.take((r.numer().bits() + u64::from(n)) * prec / 16) {
                return Err(Stop::Budget);
            }
            if base.is_real() && base.re.is_exact_zero() && !r.is_positive() {
                return if r.is_zero() { Ok(Complex::real(Ball::int(1))) } else { Err(Stop::Undefined) };
            }
            return base.root(n, p.complex, prec)?.powi(r.numer(), prec);
        }
    }
    if *a == Expr::E {
        let exponent = enclose(b, point, p, budget)?;
        return elementary(prec, budget, |w| exponent.exp(w));
    }
    let base = enclose(a, point, p, budget)?;
    let exponent = enclose(b, point, p, budget)?;
    if let Ok(n) = exact_integer(&exponent) {
        if !budget.take((n.bits() + 1) * prec / 16) {
            return Err(Stop::Budget);
        }
        return base.powi(&n, prec);
    }
    match base.as_real()?.sign() {
        Some(Ordering::Greater) => {
            let log = elementary(prec, budget, |w| ln(&base.re, w))?;
            let product = exponent.mul(&Complex::real(log), prec)?;
            elementary(prec, budget, |w| product.exp(w))
        }
        Some(Ordering::Equal) if exponent.as_real()?.sign() == Some(Ordering::Greater) => {
            Ok(Complex::real(Ball::zero()))
        }
        Some(_) => Err(Stop::Undefined),
        None => Err(Stop::Imprecise),
    }
}

fn apply(f: Function, x: &Complex, p: Precision, budget: &mut Budget) -> Result<Complex, Stop> {
    let prec = p.bits;
    let one = Ball::int(1);
    let real = |b: Ball| Ok(Complex::real(b));
    match f {
        Function::Abs => return real(x.abs(prec)?),
        Function::Floor => return real(Ball::int(x.as_real()?.floor()?)),
        Function::Ceil => return real(Ball::int(-x.as_real()?.clone().neg().floor()?)),
        Function::Factorial => {
            let n = BigRational::from_integer(exact_integer(x)?);
            return real(Ball::int(factorial(&n, budget)?));
        }
        Function::Exp => return elementary(prec, budget, |w| x.exp(w)),
        Function::Ln => return elementary(prec, budget, |w| x.ln(p.complex, w)),
        _ => {}
    }
    let x = x.as_real()?;
    elementary(prec, budget, |w| {
        let circular = || sin_cos(x, w);
        let hyperbolic = || -> Result<(Ball, Ball), Stop> {
            let up = exp(x, w)?;
            let down = exp(&x.clone().neg(), w)?;
            Ok((up.sub(&down, w)?.shift(-1), up.add(&down, w)?.shift(-1)))
        };
        let complement = || one.sub(&x.mul(x, w)?, w);
        match f {
            Function::Sin => Ok(circular()?.0),
            Function::Cos => Ok(circular()?.1),
            Function::Tan => circular().and_then(|(s, c)| s.div(&c, w)),
            Function::Cot => circular().and_then(|(s, c)| c.div(&s, w)),
            Function::Sec => circular().and_then(|(_, c)| one.div(&c, w)),
            Function::Csc => circular().and_then(|(s, _)| one.div(&s, w)),
            Function::Sinh => Ok(hyperbolic()?.0),
            Function::Cosh => Ok(hyperbolic()?.1),
            Function::Tanh => hyperbolic().and_then(|(s, c)| s.div(&c, w)),
            Function::Atan => atan(x, w),
            // asin x = atan(x / sqrt(1 - x^2)), and +-pi/2 at the ends.
            Function::Asin | Function::Acos => {
                let rest = complement()?;
                let sine = if rest.is_exact_zero() {
                    let quarter = pi(w).shift(-1);
                    if x.sign() == Some(Ordering::Less) { quarter.neg() } else { quarter }
                } else {
                    atan(&x.div(&rest.root(2, w)?, w)?, w)?
                };
                if f == Function::Asin { Ok(sine) } else { pi(w).shift(-1).sub(&sine, w) }
            }
            _ => Err(Stop::Unsupported),
        }
    })
    .map(Complex::real)
}

/// True when the expression is certainly larger than `2^(2^40)`: a power of a number above 1 with a huge exponent.
pub(crate) fn is_huge(expr: &Expr, budget: &mut Budget) -> bool {
    let Expr::Power(base, exponent) = expr else { return false };
    let p = Precision { bits: 64, complex: false };
    let above = |e: &Expr, bound: Ball, budget: &mut Budget| {
        enclose(e, &[], p, budget)
            .and_then(|x| x.as_real()?.sub(&bound, 64))
            .is_ok_and(|d| d.sign() == Some(Ordering::Greater))
    };
    let base_is_large =
        above(base, Ball::int(2), budget) || base.as_int() == Some(2) || is_huge(base, budget);
    base_is_large && (is_huge(exponent, budget) || above(exponent, Ball::dyadic(1, 40), budget))
}
