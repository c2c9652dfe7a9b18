//! Balls against mpmath (`fixtures/balls.py`): every enclosure holds the true value and is as narrow as asked for.

use num_bigint::BigInt;
use serde_json::Value;

use super::ball::Ball;
use super::complex::Complex;
use super::elementary::{atan, exp, ln, pi, sin_cos};

/// Precisions in bits; the fixture's values have 400.
const PRECISIONS: [u64; 4] = [64, 128, 200, 320];

fn fixture(part: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../../../fixtures/balls.json")).unwrap();
    all[part].clone()
}

/// A value of the fixture: `n * 2^e` with an error below `2^e`.
struct Reference(BigInt, i64);

impl Reference {
    fn of(value: &Value) -> Self {
        let n = BigInt::parse_bytes(value[0].as_str().unwrap().as_bytes(), 16).unwrap();
        Self(n, value[1].as_i64().unwrap())
    }
}

/// `n * 2^e` in units of `2^unit`, rounded towards minus infinity where `unit` is coarser.
fn scaled(n: &BigInt, e: i64, unit: i64) -> BigInt {
    if e >= unit { n << (e - unit) } else { n >> (unit - e) }
}

#[track_caller]
fn encloses(ball: &Ball, reference: &Reference, prec: u64, what: &str) {
    let (mid, exp) = ball.midpoint();
    let (rad, rad_exp) = ball.radius().parts();
    let Reference(value, value_exp) = reference;
    let unit = exp.min(*value_exp).min(rad_exp);
    let gap = scaled(mid, exp, unit) - scaled(value, *value_exp, unit);
    let gap = if gap < BigInt::ZERO { -gap } else { gap };
    let slack = scaled(&1.into(), *value_exp, unit);
    assert!(gap <= scaled(&rad, rad_exp, unit) + slack, "{what} at {prec} bits lies outside its ball");
    // Narrow: the radius is below 2^-(prec - 48) of the value, or of 1 for values that are small by cancellation.
    let size = (value.bits() as i64 + value_exp).max(0);
    let log = ball.radius().log2().unwrap_or(i64::MIN);
    assert!(log <= size - prec as i64 + 48, "{what} at {prec} bits has the radius 2^{log}");
}

#[test]
fn real_functions_enclose_the_true_values() {
    let cases = fixture("real");
    let mut checked = 0;
    for case in cases.as_array().unwrap() {
        let name = case["f"].as_str().unwrap();
        let x = Ball::dyadic(case["n"].as_i64().unwrap(), case["e"].as_i64().unwrap());
        let reference = Reference::of(&case["value"]);
        for prec in PRECISIONS {
            let value = match name {
                "exp" => exp(&x, prec),
                "sin" => sin_cos(&x, prec).map(|(s, _)| s),
                "cos" => sin_cos(&x, prec).map(|(_, c)| c),
                "atan" => atan(&x, prec),
                "ln" => ln(&x, prec),
                "sqrt" => x.root(2, prec),
                "cbrt" => x.root(3, prec),
                "root7" => x.root(7, prec),
                "recip" => Ball::int(1).div(&x, prec),
                other => panic!("the fixture has the unknown function {other}"),
            };
            let what = format!("{name}({} * 2^{})", case["n"], case["e"]);
            encloses(&value.unwrap_or_else(|e| panic!("{what}: {e:?}")), &reference, prec, &what);
            checked += 1;
        }
    }
    assert!(checked > 600, "{checked}");
}

#[test]
fn complex_functions_enclose_the_true_values() {
    for case in fixture("complex").as_array().unwrap() {
        let part = |name: &str| Ball::dyadic(case[name].as_i64().unwrap(), case["e"].as_i64().unwrap());
        let z = Complex { re: part("re"), im: part("im") };
        for prec in PRECISIONS {
            let value = match case["f"].as_str().unwrap() {
                "exp" => z.exp(prec),
                _ => z.root(2, true, prec),
            }
            .unwrap_or_else(|e| panic!("{case}: {e:?}"));
            let what = case["f"].as_str().unwrap();
            encloses(&value.re, &Reference::of(&case["value"][0]), prec, what);
            encloses(&value.im, &Reference::of(&case["value"][1]), prec, what);
        }
    }
}

#[test]
fn pi_is_enclosed() {
    let reference = Reference::of(&fixture("pi"));
    PRECISIONS.iter().for_each(|p| encloses(&pi(*p), &reference, *p, "pi"));
}

/// Arithmetic of wide balls: whatever the true values inside the operands are, the result holds the exact outcome.
#[test]
fn wide_operands_stay_enclosed() {
    let ends = |b: &Ball| {
        let ((mid, exp), (rad, rad_exp)) = (b.midpoint(), b.radius().parts());
        let unit = exp.min(rad_exp);
        (scaled(mid, exp, unit) - scaled(&rad, rad_exp, unit), unit)
    };
    // [3 - 2^-10, 3 + 2^-10] and [5 - 2^-12, 5 + 2^-12]
    let (x, y) = (Ball::with_error(3072.into(), -10, 1), Ball::with_error((5i64 << 12).into(), -12, 1));
    let low = |b: Ball| {
        let (n, unit) = ends(&b);
        (n, unit)
    };
    // The smallest product is (3 - 2^-10)(5 - 2^-12) = 15 - 5/1024 - 3/4096 + 2^-22.
    let (n, unit) = low(x.mul(&y, 100).unwrap());
    let least: BigInt = (BigInt::from(15) << 22) - (5 << 12) - (3 << 10) + 1;
    assert!(n <= scaled(&least, -22, unit), "the product's ball must reach its smallest value");
    // The smallest quotient y/x is (5 - 2^-12) / (3 + 2^-10) = 20479 / 12292.
    let (n, unit) = low(y.div(&x, 100).unwrap());
    assert!(n * 12292 <= scaled(&20479.into(), 0, unit), "the quotient's ball must reach its smallest value");
    assert!(
        Ball::int(1).div(&x.sub(&Ball::int(3), 100).unwrap(), 100).is_err(),
        "a divisor around zero has no bound"
    );
}
