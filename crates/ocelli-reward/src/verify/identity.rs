//! Whether two expressions have the same value everywhere: structure, exact numbers, residues, then balls.
//!
//! A difference found by any of these is a proof. Equality of rational numbers is a proof too; equality of rational
//! functions has the error bound of [`crate::number::residue`]; equality of other expressions means that enclosures
//! of relative width below `2^-150` overlap at every sample point. Points are fixed by a seed, so that a verdict
//! never depends on the run. Symbols are real; a point where both sides have no real value is left out.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::Outcome;
use super::evaluate::{Precision, enclose, exact, is_huge, residue};
use super::expr::{Expr, Function, Names, SymbolId};
use super::limits::Budget;
use crate::number::Stop;
use crate::number::ball::Ball;
use crate::number::complex::Complex;
use crate::number::magnitude::Mag;
use crate::number::residue::FIELDS;

/// A verdict on a part, with the rule that decided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// The verdict.
    pub(crate) outcome: Outcome,
    /// The rule.
    pub(crate) rule: &'static str,
    /// What else a person should know.
    pub(crate) note: String,
}

impl Decision {
    /// A decision without a note.
    pub(crate) fn new(outcome: Outcome, rule: &'static str) -> Self {
        Self { outcome, rule, note: String::new() }
    }

    /// Equal or different.
    pub(crate) fn of(equal: bool, rule: &'static str) -> Self {
        Self::new(if equal { Outcome::Equal } else { Outcome::Different }, rule)
    }

    /// Undecided, with the reason.
    pub(crate) fn unknown(rule: &'static str, note: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, rule, note: note.into() }
    }

    /// With a note added.
    pub(crate) fn noted(mut self, note: &str) -> Self {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
        self
    }

    /// True for equal.
    pub(crate) fn is_equal(&self) -> bool {
        self.outcome == Outcome::Equal
    }
}

/// A fixed sequence of numbers (SplitMix64, Steele et al. 2014) from which sample points are taken.
pub(super) struct Points(u64);

impl Points {
    /// The sequence of one purpose.
    pub(super) fn new(purpose: u64) -> Self {
        Self(purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A residue for each symbol.
    pub(super) fn residues(&mut self, symbols: &[SymbolId], p: u64) -> Vec<(SymbolId, u64)> {
        symbols.iter().map(|s| (*s, self.draw() % (p - 1) + 1)).collect()
    }

    /// A dyadic number between 1/4 and 4 for each symbol, of random sign if wanted.
    pub(super) fn balls(&mut self, symbols: &[SymbolId], signed: bool) -> Vec<(SymbolId, Ball)> {
        let mut one = || {
            let n = (self.draw() % ((1 << 18) - (1 << 14)) + (1 << 14)) as i64;
            let negative = signed && self.draw() & 1 == 1;
            Ball::dyadic(if negative { -n } else { n }, -16)
        };
        symbols.iter().map(|s| (*s, one())).collect()
    }
}

/// Compares two expressions.
pub(crate) fn compare(
    gold: &Expr,
    answer: &Expr,
    names: &Names,
    positive: bool,
    budget: &mut Budget,
) -> Decision {
    if gold == answer {
        let rule = match gold {
            Expr::Number(r) if r.is_integer() => "integer",
            Expr::Number(_) => "rational",
            _ => "same_expression",
        };
        return Decision::of(true, rule);
    }
    if let Some(decision) = infinite(gold, answer) {
        return decision;
    }
    let symbolic = gold.has_symbols() || answer.has_symbols();
    if !symbolic && let (Ok(g), Ok(a)) = (exact(gold, &[], budget), exact(answer, &[], budget)) {
        let rule = if g.is_integer() && a.is_integer() { "integer" } else { "rational" };
        return Decision::of(g == a, rule);
    }
    // Operators such as integrals have values that only their notation stands for here: no difference can be proved.
    let is_operator = |s: SymbolId| names.name(s).starts_with('\\');
    // Nor have factorials and binomials of symbols, whose values are those at whole numbers only.
    let discrete = |x: &Expr| match x {
        Expr::Apply(Function::Factorial, a) => a.has_symbols(),
        Expr::Binomial(n, k) => n.has_symbols() || k.has_symbols(),
        Expr::Opaque(_, args) => args.iter().any(|a| !matches!(a, Expr::Symbol(_))),
        _ => false,
    };
    let written = |e: &Expr| e.has_operator(&is_operator) || e.any(&discrete);
    let only_written = written(gold) || written(answer);
    let guard = |d: Decision| match d.outcome {
        Outcome::Different if only_written => Decision::unknown(
            "operator",
            "an integral, a sum, a function of an expression or a factorial of a symbol is not evaluated",
        ),
        _ => d,
    };
    let mut symbols = Vec::new();
    gold.symbols(&mut symbols);
    answer.symbols(&mut symbols);
    if let Some(decision) = rational_functions(gold, answer, &symbols, budget) {
        return guard(decision);
    }
    guard(if symbolic {
        at_points(gold, answer, &symbols, positive, budget)
    } else {
        at_one_point(gold, answer, budget)
    })
}

fn infinite(gold: &Expr, answer: &Expr) -> Option<Decision> {
    let sign = |e: &Expr| {
        if *e == Expr::Infinity {
            Some(1)
        } else if e.is_minus_infinity() {
            Some(-1)
        } else {
            None
        }
    };
    let holds = |e: &Expr| e.any(&|x| *x == Expr::Infinity);
    match (sign(gold), sign(answer)) {
        (Some(a), Some(b)) => Some(Decision::of(a == b, "infinity")),
        (Some(_), None) if !holds(answer) => Some(Decision::of(false, "infinity")),
        (None, Some(_)) if !holds(gold) => Some(Decision::of(false, "infinity")),
        _ if holds(gold) || holds(answer) => {
            Some(Decision::unknown("infinity", "infinity inside an expression"))
        }
        _ => None,
    }
}

fn rational_functions(
    gold: &Expr,
    answer: &Expr,
    symbols: &[SymbolId],
    budget: &mut Budget,
) -> Option<Decision> {
    let mut points = Points::new(1);
    let mut agreed = 0;
    for field in FIELDS {
        for _ in 0..2 {
            let point = points.residues(symbols, field.p);
            match (residue(gold, &point, field, budget), residue(answer, &point, field, budget)) {
                (Ok(g), Ok(a)) if g != a => return Some(Decision::of(false, "rational_function")),
                (Ok(_), Ok(_)) => agreed += 1,
                (Err(Stop::Undefined), Err(Stop::Undefined)) => {}
                (Err(Stop::Undefined), Ok(_)) | (Ok(_), Err(Stop::Undefined)) => {}
                _ => return None,
            }
        }
    }
    (agreed >= 2).then(|| {
        Decision::of(true, "rational_function")
            .noted("agrees modulo two primes near 2^61; error below (degree/2^60)^2")
    })
}

/// What two enclosures say about each other.
enum Overlap {
    Apart,
    Together,
    Vague,
}

fn overlap(g: &Complex, a: &Complex, bits: u64) -> Result<Overlap, Stop> {
    let difference = g.add(&a.clone().neg(), bits)?;
    if !difference.re.contains_zero() || !difference.im.contains_zero() {
        return Ok(Overlap::Apart);
    }
    let max = |x: Mag, y: Mag| if x.less(y) { y } else { x };
    let scale = [&g.re, &g.im, &a.re, &a.im].iter().fold(Mag::ZERO, |m, b| max(m, b.upper()));
    let width = max(difference.re.upper(), difference.im.upper());
    // Relative width, or absolute where both are zero as far as can be told.
    let near_zero = [g, a].iter().all(|z| z.re.contains_zero() && z.im.contains_zero());
    let narrow =
        width.is_zero() || width.less(scale.shift(-150)) || (near_zero && width.less(Mag::new(1, -150)));
    Ok(if narrow { Overlap::Together } else { Overlap::Vague })
}

/// Compares at one point with rising precision.
fn meet(
    gold: &Expr,
    answer: &Expr,
    point: &[(SymbolId, Ball)],
    complex: bool,
    first_bits: u64,
    budget: &mut Budget,
) -> Result<Option<bool>, Stop> {
    for bits in [first_bits, 4 * first_bits] {
        let p = Precision { bits: bits.min(crate::number::elementary::MAX_PREC), complex };
        let sides = (enclose(gold, point, p, budget), enclose(answer, point, p, budget));
        match sides {
            (Ok(g), Ok(a)) => match overlap(&g, &a, p.bits)? {
                Overlap::Apart => return Ok(Some(false)),
                Overlap::Together => return Ok(Some(true)),
                Overlap::Vague => {}
            },
            (Err(Stop::Undefined), Err(Stop::Undefined)) => return Err(Stop::Undefined),
            (Err(Stop::Imprecise), _) | (_, Err(Stop::Imprecise)) => {}
            // Defined on one side only: the point says nothing about equality where both are defined.
            (Err(Stop::Undefined), Ok(_)) | (Ok(_), Err(Stop::Undefined)) => return Ok(None),
            (Err(e), _) | (_, Err(e)) => return Err(e),
        }
    }
    Err(Stop::Imprecise)
}

fn working_bits(gold: &Expr, answer: &Expr) -> u64 {
    (256 + 2 * gold.literal_bits().max(answer.literal_bits())).min(1024)
}

fn at_one_point(gold: &Expr, answer: &Expr, budget: &mut Budget) -> Decision {
    match meet(gold, answer, &[], true, working_bits(gold, answer), budget) {
        Ok(Some(true)) => {
            Decision::of(true, "identity").noted("enclosures of relative width below 2^-150 overlap")
        }
        Ok(Some(false)) => Decision::of(false, "identity"),
        Ok(None) => Decision::of(false, "undefined").noted("one side has no value"),
        Err(Stop::Overflow) => {
            let (g, a) = (is_huge(gold, budget), is_huge(answer, budget));
            let p = Precision { bits: 64, complex: false };
            let written = |e: &Expr, budget: &mut Budget| enclose(e, &[], p, budget).is_ok();
            if (g && written(answer, budget)) || (a && written(gold, budget)) {
                return Decision::of(false, "magnitude").noted("one side is too large to be written down");
            }
            Decision::unknown("magnitude", "both sides are too large to be written down")
        }
        Err(stop) => Decision::unknown("identity", reason(stop)),
    }
}

/// Why an identity test gave up.
pub(super) fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Undefined => "neither side has a value at any sample point",
        Stop::Imprecise => "the enclosures stay too wide",
        Stop::Overflow => "a value is too large",
        Stop::Budget => "the work allowed for one comparison is spent",
        Stop::Unsupported => "an operation that is not evaluated",
    }
}

fn at_points(
    gold: &Expr,
    answer: &Expr,
    symbols: &[SymbolId],
    positive: bool,
    budget: &mut Budget,
) -> Decision {
    let complex = gold.any(&|e| *e == Expr::I) || answer.any(&|e| *e == Expr::I);
    let bits = working_bits(gold, answer);
    let mut points = Points::new(2);
    let (mut agreed, mut one_sided) = (0, 0);
    let mut last = Stop::Undefined;
    for k in 0..8 {
        let signed = k >= 4;
        if signed && positive {
            break;
        }
        let point = points.balls(symbols, signed);
        match meet(gold, answer, &point, complex, bits, budget) {
            Ok(Some(true)) => agreed += 1,
            Ok(Some(false)) if signed && agreed >= 4 => {
                return Decision::of(false, "identity").noted("equal where all symbols are positive");
            }
            Ok(Some(false)) => return Decision::of(false, "identity"),
            Ok(None) => one_sided += 1,
            Err(stop @ (Stop::Undefined | Stop::Imprecise)) => last = stop,
            Err(stop) => return Decision::unknown("identity", reason(stop)),
        }
    }
    if agreed >= 3 {
        let note = if one_sided > 0 {
            "where both sides have a real value"
        } else {
            "enclosures overlap at 8 points"
        };
        return Decision::of(true, "identity").noted(note);
    }
    if one_sided >= 4 {
        return Decision::of(false, "undefined").noted("one side has no real value where the other has");
    }
    at_integers(gold, answer, symbols, budget).unwrap_or_else(|| Decision::unknown("identity", reason(last)))
}

/// For factorials, binomial coefficients and powers of -1: exact values at small positive integers.
fn at_integers(gold: &Expr, answer: &Expr, symbols: &[SymbolId], budget: &mut Budget) -> Option<Decision> {
    let mut points = Points::new(3);
    let mut agreed = 0;
    for _ in 0..48 {
        let values: Vec<u64> = symbols.iter().map(|_| points.draw() % 24 + 1).collect();
        let rational: Vec<(SymbolId, BigRational)> =
            symbols.iter().zip(&values).map(|(s, v)| (*s, BigRational::from_integer((*v).into()))).collect();
        let same = match (exact(gold, &rational, budget), exact(answer, &rational, budget)) {
            (Ok(g), Ok(a)) => g == a,
            (Err(Stop::Unsupported), _) | (_, Err(Stop::Unsupported)) => {
                let balls: Vec<(SymbolId, Ball)> =
                    symbols.iter().zip(&values).map(|(s, v)| (*s, Ball::int(BigInt::from(*v)))).collect();
                match meet(gold, answer, &balls, true, 256, budget) {
                    Ok(Some(same)) => same,
                    Ok(None) | Err(Stop::Undefined) => continue,
                    Err(_) => return None,
                }
            }
            (Err(Stop::Budget), _) | (_, Err(Stop::Budget)) => return None,
            _ => continue,
        };
        if !same {
            return Some(Decision::of(false, "integers"));
        }
        agreed += 1;
        if agreed == 8 {
            return Some(
                Decision::of(true, "integers").noted("exact at 8 points of small positive integers"),
            );
        }
    }
    None
}
