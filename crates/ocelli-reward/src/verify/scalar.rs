//! Quantities: units, per cent, bases, decimals and tolerances around the comparison of expressions.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, Zero};

use super::evaluate::{Precision, enclose, exact};
use super::expr::{Expr, Names};
use super::identity::{Decision, compare};
use super::limits::Budget;
use super::units::{NONE, Unit, is_letter_unit, lookup};
use super::value::Scalar;
use super::{Decimals, Missing, Outcome, Policy};
use crate::number::Stop;
use crate::number::ball::Ball;

/// What a comparison carries along.
pub(crate) struct Context<'a> {
    /// Names of symbols on both sides.
    pub(crate) names: &'a Names,
    /// Conventions.
    pub(crate) policy: &'a Policy,
    /// Work that is left.
    pub(crate) budget: Budget,
}

impl Context<'_> {
    /// Compares bare expressions.
    pub(crate) fn exprs(&mut self, gold: &Expr, answer: &Expr) -> Decision {
        compare(gold, answer, self.names, self.policy.positive_symbols, &mut self.budget)
    }

    /// Compares quantities; `index` is the place of the gold quantity in a list, for its tolerance.
    pub(crate) fn scalars(&mut self, gold: &Scalar, answer: &Scalar, index: usize) -> Decision {
        if gold.base.is_some() || answer.base.is_some() {
            return self.bases(gold, answer);
        }
        match (&gold.unit, &answer.unit) {
            // Beside a unit of the same dimension a letter behind a number is a unit, too: `12 cm` and `0.12 m`.
            (Some(unit), None) if let Some(a) = self.with_letter_unit(answer, unit) => {
                self.scalars(gold, &a, index)
            }
            (None, Some(unit)) if let Some(g) = self.with_letter_unit(gold, unit) => {
                self.scalars(&g, answer, index)
            }
            (None, None) => self.percents(gold, answer, index),
            (Some(g), Some(a)) => {
                let decision = self.units(gold, g, answer, a, index);
                let rule = if decision.rule == "unit" { "unit" } else { "quantity" };
                Decision { rule, ..decision }
            }
            (Some(unit), None) | (None, Some(unit)) => self.one_unit(gold, answer, unit, index),
        }
    }

    /// `0.12m` as a quantity in metres, where `like` is a length.
    fn with_letter_unit(&self, s: &Scalar, like: &Unit) -> Option<Scalar> {
        let Expr::Product(factors) = &s.expr else { return None };
        let (Expr::Symbol(id), rest) = factors.split_last()? else { return None };
        let unit = lookup(self.names.name(*id)).filter(|u| u.compatible(like))?;
        let expr = match rest {
            [one] => one.clone(),
            many => Expr::Product(many.to_vec()),
        };
        (!expr.has_symbols()).then(|| Scalar { expr, unit: Some(unit), ..s.clone() })
    }

    fn bases(&mut self, gold: &Scalar, answer: &Scalar) -> Decision {
        let same = self.exprs(&gold.expr, &answer.expr);
        let missing = |based: &Scalar, plain: &Scalar| {
            based.base.is_some_and(|(digits, _)| plain.expr.as_int() == Some(digits))
        };
        match (gold.base, answer.base) {
            (Some(_), Some(_)) => Decision { rule: "base", ..same },
            _ if missing(gold, answer) || missing(answer, gold) => {
                Decision::of(true, "base").noted("the base is stated on one side only")
            }
            _ if same.is_equal() => {
                Decision::unknown("base", "the same number, but not written in the base of the gold")
            }
            _ => Decision { rule: "base", ..same },
        }
    }

    fn units(&mut self, gold: &Scalar, g: &Unit, answer: &Scalar, a: &Unit, index: usize) -> Decision {
        if g.is_plain_count() || a.is_plain_count() {
            let values = self.percents(gold, answer, index);
            let both = g.is_plain_count() && a.is_plain_count();
            return if both || !values.is_equal() || g.compatible(a) {
                if g.thing == a.thing || !values.is_equal() {
                    values
                } else if self.policy.unit == Missing::Reject {
                    Decision::unknown("unit", "the counted things have different names")
                } else {
                    values.noted("the counted things have different names")
                }
            } else {
                Decision::unknown("unit", "one side counts things, the other measures")
            };
        }
        if !g.compatible(a) {
            return Decision::of(false, "unit").noted("units of different dimensions");
        }
        if g.factor == a.factor && g.pi_power == a.pi_power {
            return self.percents(gold, answer, index);
        }
        let (g, a) = (in_base_units(gold, g), in_base_units(answer, a));
        self.percents(&g, &a, index).noted("converted to common units")
    }

    fn one_unit(&mut self, gold: &Scalar, answer: &Scalar, unit: &Unit, index: usize) -> Decision {
        let dimensionless = unit.dimension == NONE && unit.thing.is_empty();
        if self.policy.unit == Missing::Reject && !dimensionless {
            return Decision::of(false, "unit_missing").noted("one side states a unit, the other none");
        }
        let values = self.percents(gold, answer, index);
        if values.is_equal() || unit.pi_power != 1 {
            return if values.is_equal() {
                values.noted("one side states a unit, the other none")
            } else {
                values
            };
        }
        // An angle without a unit may be in radians.
        let radians = |s: &Scalar| if s.unit.is_some() { in_base_units(s, unit) } else { s.clone() };
        let converted = self.percents(&radians(gold), &radians(answer), index);
        if converted.is_equal() { converted.noted("degrees converted to radians") } else { values }
    }

    fn percents(&mut self, gold: &Scalar, answer: &Scalar, index: usize) -> Decision {
        if gold.percent == answer.percent {
            return self.values(gold, answer, index);
        }
        let hundredth = |s: &Scalar| match (&s.expr, s.percent) {
            (_, false) => s.clone(),
            (Expr::Number(r), true) => Scalar {
                expr: Expr::Number(r / BigRational::from_integer(100.into())),
                decimal: s.decimal.map(|d| super::value::Decimal { places: d.places + 2, ..d }),
                ..s.clone()
            },
            (e, true) => Scalar { expr: e.clone().over(Expr::int(100)), decimal: None, ..s.clone() },
        };
        let exact = self.values(&hundredth(gold), &hundredth(answer), index);
        if exact.is_equal() || self.policy.percent == Missing::Reject {
            return exact;
        }
        let raw = self.values(gold, answer, index);
        if raw.is_equal() { raw.noted("a per cent sign on one side only") } else { exact }
    }

    fn values(&mut self, gold: &Scalar, answer: &Scalar, index: usize) -> Decision {
        let decision = self.exprs(&gold.expr, &answer.expr);
        if decision.is_equal() {
            return decision;
        }
        let symbolic = gold.expr.has_symbols() || answer.expr.has_symbols();
        if symbolic {
            return self.letter_unit(gold, answer).unwrap_or(decision);
        }
        if let Some(within) = self.tolerance(gold, answer, index) {
            return within;
        }
        if self.policy.decimals == Decimals::Rounded
            && let Some(rounded) = self.rounding(gold, answer)
        {
            return rounded;
        }
        decision
    }

    /// `40m` against `40`: a letter that may be a unit or a variable.
    fn letter_unit(&mut self, gold: &Scalar, answer: &Scalar) -> Option<Decision> {
        if self.policy.unit == Missing::Reject {
            return None;
        }
        let stripped = |e: &Expr| match e {
            Expr::Product(factors) => match factors.split_last() {
                Some((Expr::Symbol(s), rest)) if is_letter_unit(self.names.name(*s)) => {
                    Some(Expr::Product(rest.to_vec())).filter(|e| !e.has_symbols())
                }
                _ => None,
            },
            _ => None,
        };
        let (g, a) = match (stripped(&gold.expr), stripped(&answer.expr)) {
            (Some(g), None) => (g, answer.expr.clone()),
            (None, Some(a)) => (gold.expr.clone(), a),
            _ => return None,
        };
        let same = self.exprs(&g, &a);
        same.is_equal().then(|| Decision::unknown("letter_unit", "a letter that may be a unit or a variable"))
    }

    /// `None` where the policy allows no error.
    fn tolerance(&mut self, gold: &Scalar, answer: &Scalar, index: usize) -> Option<Decision> {
        let policy = self.policy;
        let absolute = policy.absolute.get(index).or(policy.absolute.last()).copied().unwrap_or(0.0);
        let relative = policy.relative;
        if !(absolute > 0.0 || relative > 0.0) {
            return None;
        }
        // A relative error of 1e-9 in the bound itself absorbs that a decimal such as 1e34 is no binary float.
        let slack = BigRational::new(1_000_000_001.into(), 1_000_000_000.into());
        let bound = |x: f64| BigRational::from_float(x).unwrap_or_else(BigRational::zero) * &slack;
        let mut limit = Expr::Number(bound(absolute));
        if relative > 0.0 {
            let size = Expr::Apply(super::expr::Function::Abs, Box::new(gold.expr.clone()));
            limit = limit.plus(Expr::Number(bound(relative)).times(size));
        }
        Some(match self.within(&gold.expr, &answer.expr, &limit) {
            Ok(inside) => Decision::of(inside, "tolerance"),
            Err(stop) => Decision::unknown("tolerance", super::identity::reason(stop)),
        })
    }

    /// Whether `|gold - answer| <= limit`.
    fn within(&mut self, gold: &Expr, answer: &Expr, limit: &Expr) -> Result<bool, Stop> {
        let budget = &mut self.budget;
        if let (Ok(g), Ok(a), Ok(l)) =
            (exact(gold, &[], budget), exact(answer, &[], budget), exact(limit, &[], budget))
        {
            return Ok((g - a).abs() <= l);
        }
        for bits in [256, 1024] {
            let p = Precision { bits, complex: true };
            let (g, a) = (enclose(gold, &[], p, budget)?, enclose(answer, &[], p, budget)?);
            let distance = g.add(&a.neg(), bits)?.abs(bits)?;
            let limit = enclose(limit, &[], p, budget)?;
            match limit.as_real()?.sub(&distance, bits)?.sign() {
                Some(Ordering::Less) => return Ok(false),
                Some(_) => return Ok(true),
                None => {}
            }
        }
        Err(Stop::Imprecise)
    }

    /// Decimals that state enough digits, against a value that rounds to them.
    fn rounding(&mut self, gold: &Scalar, answer: &Scalar) -> Option<Decision> {
        // The answer is known at least as finely as the gold decimal.
        if let Some(g) = gold.decimal.filter(|d| d.significant >= 3) {
            let finer = match answer.decimal {
                Some(a) => a.places > g.places,
                None => !matches!(&answer.expr, Expr::Number(r) if r.is_integer()),
            };
            if finer {
                let half = power_of_ten(-g.places) / BigRational::from_integer(2.into());
                if self.within(&gold.expr, &answer.expr, &Expr::Number(half)) == Ok(true) {
                    return Some(
                        Decision::of(true, "decimal").noted("rounds to the digits of the gold answer"),
                    );
                }
            }
        }
        // The answer approximates an exact gold value to six digits or more; truncation is allowed.
        let exact_gold = gold.decimal.is_none() && !matches!(&gold.expr, Expr::Number(r) if r.is_integer());
        let fine_gold = |a: super::value::Decimal| gold.decimal.is_some_and(|g| g.places > a.places);
        if let Some(a) = answer.decimal.filter(|d| d.significant >= 6 && (exact_gold || fine_gold(*d))) {
            let unit = power_of_ten(-a.places);
            if self.within(&gold.expr, &answer.expr, &Expr::Number(unit)) == Ok(true) {
                return Some(
                    Decision::of(true, "decimal").noted("states the gold value to six digits or more"),
                );
            }
        }
        None
    }

    /// Certain order of two symbol-free expressions.
    pub(crate) fn order(&mut self, a: &Expr, b: &Expr) -> Option<Ordering> {
        for bits in [128, 512] {
            let p = Precision { bits, complex: false };
            let value = |e: &Expr, budget: &mut Budget| -> Option<Ball> {
                enclose(e, &[], p, budget).ok()?.as_real().ok().cloned()
            };
            let (x, y) = (value(a, &mut self.budget)?, value(b, &mut self.budget)?);
            if let Some(order) = x.sub(&y, bits).ok()?.sign() {
                return Some(order);
            }
        }
        None
    }
}

fn power_of_ten(n: i32) -> BigRational {
    let power =
        BigRational::from_integer(num_traits::pow(BigInt::from(10), n.unsigned_abs().min(4096) as usize));
    if n < 0 { power.recip() } else { power }
}

fn in_base_units(s: &Scalar, unit: &Unit) -> Scalar {
    let mut expr = match &s.expr {
        Expr::Number(r) => Expr::Number(r * &unit.factor),
        e => Expr::Number(unit.factor.clone()).times(e.clone()),
    };
    if unit.pi_power != 0 {
        expr = expr.times(Expr::Pi.raised(Expr::int(unit.pi_power.into())));
    }
    Scalar { expr, decimal: None, unit: None, ..s.clone() }
}

/// Undecided only where the parts leave it open.
pub(crate) fn all(decisions: impl Iterator<Item = Decision>, rule: &'static str) -> Decision {
    let mut result = Decision::of(true, rule);
    for d in decisions {
        match d.outcome {
            Outcome::Different => return Decision { rule, ..d },
            Outcome::Unknown => result.outcome = Outcome::Unknown,
            Outcome::Equal => {}
        }
        if !d.note.is_empty() && result.note.len() < 200 && !result.note.contains(&d.note) {
            result = result.noted(&d.note);
        }
    }
    result
}
