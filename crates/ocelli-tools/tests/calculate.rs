//! Exact arithmetic: values by hand, complaints, and no panic on anything.

use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{Deadline, Images, Limits, Registry, ToolError};
use proptest::prelude::*;

fn calculate(expression: &str) -> Result<String, String> {
    let registry = Registry::standard(Limits::default());
    let images = Images::new(registry.limits().clone());
    let arguments = serde_json::json!({ "expression": expression }).as_object().unwrap().clone();
    let call = ToolCall { id: String::new(), name: "calculate".into(), arguments };
    match registry.run(&call, &images, &Deadline::after(Duration::from_secs(10))) {
        Ok(reply) => Ok(reply.text),
        Err(ToolError::ForModel(why)) => Err(why),
        Err(ToolError::Fatal(why)) => panic!("{why}"),
    }
}

#[test]
fn values_by_hand() {
    for (expression, value) in [
        ("0.1 + 0.2", "0.3"),
        ("1/3 + 1/6", "0.5"),
        ("2/3", "2/3 = about 0.666666666667"),
        ("-2^2", "-4"),
        ("(-2)^2", "4"),
        ("2^-3", "0.125"),
        ("2**10", "1024"),
        ("2^3^2", "512"),
        ("-7 % 3", "2"), // floored, as in mathematics: -7 = -3 * 3 + 2
        ("7 % -3", "-2"),
        ("2^100", "1267650600228229401496703205376"),
        ("sqrt(49/4)", "3.5"),
        ("sqrt(2)", "about 1.414213562373"),
        ("(4/9)^0.5", "2/3 = about 0.666666666667"),
        ("mean(1, 2, 4)", "7/3 = about 2.333333333333"),
        ("median(9, 1, 5, 3)", "4"),
        ("round(2.675, 2)", "2.68"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("1.5e3 × 2 ÷ 4 − 1", "749"),
        ("max(3, min(10, 7))", "7"),
        ("1_000 + .5", "1000.5"),
        ("0^0", "1"),
        ("(-1)^1000001", "-1"),
    ] {
        assert_eq!(calculate(expression).as_deref(), Ok(value), "{expression}");
    }
}

#[test]
fn complaints_say_where() {
    for (expression, part) in [
        ("1 +", "something is missing after `1 +`"),
        ("1 / (2 - 2)", "division by zero"),
        ("(1 + 2", "`)` is missing"),
        ("two + 2", "`two` is neither a number nor followed by `(`"),
        ("sin(3)", "there is no function `sin`"),
        ("sqrt(-1)", "not real"),
        ("9^9^9", "bits arises"),
        ("1e999999", "exponent is too large"),
        ("3 $ 4", "`$` is not expected"),
        ("", "at the start"),
        ("0^-1", "division by zero"),
    ] {
        let why = calculate(expression).unwrap_err();
        assert!(why.contains(part), "{expression}: {why}");
    }
    let deep = "(".repeat(500);
    assert!(calculate(&deep).unwrap_err().contains("nested"));
}

proptest! {
    #[test]
    fn never_panics(text in "[-+*/^%(). 0-9a-z,_eE×−]{0,60}") {
        let _ = calculate(&text);
    }

    #[test]
    fn agrees_with_integers(a in -1000i64..1000, b in -1000i64..1000, c in 1i64..1000) {
        let value = calculate(&format!("({a}) * ({b}) - {c} * ({a}) + ({b})")).unwrap();
        prop_assert_eq!(value, (a * b - c * a + b).to_string());
    }
}
