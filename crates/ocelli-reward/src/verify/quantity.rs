//! Physical quantities: a numeral and the units behind it, read apart from mathematics, where `5 GHz` is a product of
//! five, a name and a unit. Single letters stay what algebra takes them for unless the other side names a unit.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::expr::{Expr, Names};
use super::identity::Decision;
use super::limits::Budget;
use super::names::{named, scale_word};
use super::scalar::Context;
use super::units::{ELECTRONVOLT, Unit, lookup, physical};
use super::value::{Decimal, Scalar, Value};
use super::{Outcome, Policy};

/// Longest text that is read as a quantity.
const LONGEST: usize = 120;

/// Spellings of the scales of temperature, in small letters and without spaces.
const SCALES: &[(&str, &[&str])] = &[
    ("celsius", &["°c", "℃", "celsius", "°celsius", "centigrade", "°centigrade", "degc"]),
    ("fahrenheit", &["°f", "℉", "fahrenheit", "°fahrenheit", "degf"]),
    ("kelvin", &["k", "kelvin", "kelvins", "°k"]),
];

/// What a side was read as.
#[allow(clippy::large_enum_variant)] // two of them live for one comparison
enum Side {
    /// A numeral with units that are all known.
    Quantity(Quantity),
    /// A numeral with letters of which none is a known unit.
    Letters,
}

struct Quantity {
    value: BigRational,
    decimal: Option<Decimal>,
    unit: Unit,
    /// The units as they are written, without layout.
    written: String,
    /// Written as no product of variables is: in roman type, apart from its numeral, as a word, or with Ω.
    clear: bool,
    /// More than one letter somewhere.
    long: bool,
    /// A unit of measured size takes part.
    measured: bool,
}

/// The verdict where both sides are quantities; `None` leaves it to `before`.
pub(super) fn compare(gold: &str, answer: &str, policy: &Policy, before: &Decision) -> Option<Decision> {
    let candidate = |s: &str| {
        s.len() <= LONGEST
            && s.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '−' | '.' | '$' | '\\'))
            && s.chars().any(char::is_alphabetic)
    };
    if !candidate(gold) || !candidate(answer) {
        return None;
    }
    let (gold, answer) = (plain(gold)?, plain(answer)?);
    if let (Some(g), Some(a)) = (scale(&gold), scale(&answer)) {
        // Zero of one scale is not zero of another, and whether a difference is meant nobody can tell.
        return (g != a).then(|| Decision::unknown("quantity", "temperatures in different scales"));
    }
    let (g, a) = match (read(&gold)?, read(&answer)?) {
        (Side::Quantity(g), Side::Quantity(a)) => (g, a),
        (Side::Quantity(q), Side::Letters) | (Side::Letters, Side::Quantity(q)) => {
            let open = q.clear && before.outcome == Outcome::Different;
            return open.then(|| Decision::unknown("quantity", "letters that may be a unit, beside a unit"));
        }
        (Side::Letters, Side::Letters) => return None,
    };
    let clear = g.clear && a.clear;
    if !clear && (g.written == a.written || !(g.long || a.long) || before.is_equal()) {
        return None;
    }
    if !g.unit.compatible(&a.unit) {
        let alike = g.unit.dimension == a.unit.dimension;
        return clear.then(|| match alike {
            true => Decision::unknown("quantity", "units of one dimension for different things"),
            false => Decision::of(false, "unit").noted("units of different dimensions"),
        });
    }
    let inexact = g.measured != a.measured;
    let names = Names::default();
    let (g, a) = (g.value(), a.value());
    let decision = Context { names: &names, policy, budget: Budget::new() }.compare(&g, &a, 0);
    if inexact && !decision.is_equal() {
        return Some(Decision::unknown("quantity", "the size of a unit is known by measurement only"));
    }
    (clear || decision.is_equal()).then_some(decision)
}

impl Quantity {
    fn value(self) -> Value {
        Value::Scalar(Scalar {
            expr: Expr::Number(self.value),
            decimal: self.decimal,
            percent: false,
            unit: Some(self.unit),
            base: None,
        })
    }
}

/// Marks the beginning and the end of roman type in a text without layout.
const ROMAN: char = '\u{1}';
const UPRIGHT_END: char = '\u{2}';

/// The text without LaTeX; `None` where a command says more than layout.
fn plain(text: &str) -> Option<String> {
    const SPACES: [&str; 9] = [",", ";", ":", "!", " ", "quad", "qquad", "left", "right"];
    const TYPES: [&str; 8] = ["text", "mathrm", "textrm", "mathsf", "textsf", "operatorname", "mbox", "rm"];
    const SIGNS: [(&str, &str); 10] = [
        ("Omega", "Ω"),
        ("mu", "μ"),
        ("textmu", "μ"),
        ("AA", "Å"),
        ("circ", "°"),
        ("degree", "°"),
        ("cdot", "*"),
        ("times", "*"),
        ("celsius", "°C"),
        ("ohm", "Ω"),
    ];
    const RAISED: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻";
    let mut out = String::new();
    let (mut rest, mut raised, mut roman) = (text, false, Vec::new());
    let mut opens_roman = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if let Some(digit) = RAISED.chars().position(|r| r == c) {
            if !raised {
                out.push('^');
            }
            out.push("0123456789-".chars().nth(digit)?);
            raised = true;
            continue;
        }
        raised = false;
        match c {
            '\\' => {
                let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                let len = if letters > 0 { letters } else { rest.chars().next()?.len_utf8() };
                let name = &rest[..len];
                rest = &rest[len..];
                if SPACES.contains(&name) {
                    out.push(' ');
                } else if TYPES.contains(&name) {
                    opens_roman = rest.trim_start().starts_with('{');
                    rest = rest.trim_start();
                } else {
                    out.push_str(SIGNS.iter().find(|s| s.0 == name)?.1);
                    rest = rest.trim_start();
                }
            }
            '{' => {
                roman.push(opens_roman);
                if opens_roman {
                    out.push(ROMAN);
                }
                opens_roman = false;
            }
            '}' => {
                if roman.pop()? {
                    out.push(UPRIGHT_END);
                }
            }
            '$' | '~' => out.push(' '),
            '\u{2126}' => out.push('Ω'),
            '\u{b5}' => out.push('μ'),
            '\u{212b}' => out.push('Å'),
            '×' | '·' | '⋅' | '∙' => out.push('*'),
            '−' => out.push('-'),
            '˚' | 'º' => out.push('°'),
            c if c.is_whitespace() => out.push(' '),
            c => out.push(c),
        }
    }
    Some(out.replace("^°", "°").trim().to_owned())
}

/// The numeral that a text begins with, how it was written as a decimal, and what follows.
fn numeral(text: &str) -> Option<(BigRational, Option<Decimal>, &str)> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(after) => (text.starts_with('-'), after.trim_start()),
        None => (false, text),
    };
    let first = digits(rest);
    let mut all = rest[..first].to_owned();
    rest = &rest[first..];
    // Groups of thousands.
    while (1..=3).contains(&first)
        && let Some(group) = rest.strip_prefix([',', ' '])
        && digits(group) == 3
    {
        all.push_str(&group[..3]);
        rest = &group[3..];
    }
    let mut places = 0;
    if let Some(after) = rest.strip_prefix('.') {
        places = digits(after);
        all.push_str(&after[..places]);
        rest = &after[places..];
    }
    let significant = all.trim_start_matches('0').len().max(1) as u32;
    let mut value = BigRational::from_integer(all.parse::<BigInt>().ok()?);
    let mut power = 0;
    let exponent = |s: &str| -> Option<(i32, usize)> {
        let sign = usize::from(s.starts_with(['-', '+']));
        let len = digits(&s[sign..]);
        let n = s[..sign + len].trim_start_matches('+').parse().ok()?;
        (1..=3).contains(&len).then_some((n, sign + len))
    };
    if let Some((n, len)) = rest.strip_prefix(['e', 'E']).and_then(exponent) {
        (power, rest) = (n, &rest[1 + len..]);
    } else if let Some(tail) = rest.trim_start().strip_prefix('*') {
        let tail = tail.trim_start().strip_prefix("10")?;
        let (n, after) = match tail.strip_prefix('^') {
            Some(raised) => exponent(raised).map(|(n, len)| (n, &raised[len..]))?,
            None => (1, tail),
        };
        (power, rest) = (n, after);
    } else if all == "10"
        && let Some((n, len)) = rest.strip_prefix('^').and_then(exponent)
    {
        (power, rest) = (n - 1, &rest[1 + len..]);
    }
    let ten = BigRational::from_integer(10.into());
    value *= num_traits::pow::Pow::pow(ten, power - i32::try_from(places).ok()?);
    let decimal = (places > 0).then(|| Decimal { places: places as i32 - power, significant });
    Some((if negative { -value } else { value }, decimal, rest))
}

/// The scale of a temperature.
fn scale(text: &str) -> Option<&'static str> {
    let (_, _, rest) = numeral(text)?;
    let name: String = rest
        .to_lowercase()
        .replace("degrees", "°")
        .replace("degree", "°")
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(*c, ROMAN | UPRIGHT_END))
        .collect();
    // A small `k` is a variable.
    let variable = name == "k" && !rest.contains('K');
    SCALES.iter().find(|s| !variable && s.1.contains(&name.as_str())).map(|s| s.0)
}

fn read(text: &str) -> Option<Side> {
    let (value, decimal, tail) = numeral(text)?;
    let apart = tail.starts_with(' ');
    let (mut unit, mut known, mut unknown) = (None::<Unit>, 0, 0);
    let (mut roman, mut inverse) = (false, false);
    let (mut clear, mut long, mut measured) = (false, false, false);
    let mut rest = tail;
    while let Some(c) = rest.chars().next() {
        if !c.is_alphabetic() {
            rest = &rest[c.len_utf8()..];
            match c {
                ROMAN => roman = true,
                UPRIGHT_END => roman = false,
                '/' => inverse = true,
                ' ' => {}
                '*' if known > 0 => {}
                _ => return None,
            }
            continue;
        }
        // A prefix in italics belongs to the roman unit behind it: `\mu\text{F}`.
        let letter = |c: char| c.is_alphabetic() || matches!(c, ROMAN | UPRIGHT_END);
        let end = rest.find(|c| !letter(c)).unwrap_or(rest.len());
        let run = &rest[..end];
        rest = &rest[end..];
        let upright = roman || run.contains(ROMAN);
        roman = (roman || run.contains(ROMAN)) && !run.ends_with(UPRIGHT_END);
        let word: String = run.chars().filter(|c| c.is_alphabetic()).collect();
        if word == "per" {
            inverse = true;
            continue;
        }
        let power = match rest.strip_prefix('^') {
            Some(raised) => {
                let sign = usize::from(raised.starts_with('-'));
                let len = sign + raised[sign..].bytes().take_while(u8::is_ascii_digit).count();
                rest = &raised[len..];
                raised[..len].parse::<i8>().ok().filter(|n| n.abs() <= 9)?
            }
            None => 1,
        };
        match physical(&word) {
            Some(one) => {
                let letters = word.chars().count();
                let sign = word.chars().any(|c| matches!(c, 'Ω' | 'Å'));
                clear |= upright || sign || letters > 3 || letters > 1 && apart;
                long |= letters > 1 || sign;
                measured |= word.ends_with(ELECTRONVOLT) || word.to_lowercase().contains("electronvolt");
                let one = one.power(if inverse { -power } else { power });
                unit = Some(match unit {
                    Some(have) => have.times(&one),
                    None => one,
                });
                known += 1;
            }
            // Numbers, functions, counted things and words of scale say something else than a unit.
            None if named(&word).is_some()
                || lookup(&word).is_some()
                || scale_word(&word).is_some()
                || word.chars().any(|c| c > '\u{2e80}')
                || matches!(word.as_str(), "e" | "i" | "π" | "and" | "or") =>
            {
                return None;
            }
            None => unknown += 1,
        }
        inverse = false;
    }
    match (unit, unknown) {
        (Some(unit), 0) => {
            let written = tail.chars().filter(|c| c.is_alphanumeric() || matches!(c, '/' | '^')).collect();
            Some(Side::Quantity(Quantity { value, decimal, unit, written, clear, long, measured }))
        }
        (None, 1..) => Some(Side::Letters),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::verify::{Outcome, Policy, verify};

    fn check(pairs: &[(&str, &str)], expected: Outcome) {
        for (gold, answer) in pairs {
            for (g, a) in [(gold, answer), (answer, gold)] {
                let verdict = verify(g, a, &Policy::default());
                assert_eq!(verdict.outcome, expected, "{verdict:#?}");
            }
        }
    }

    #[test]
    fn prefixes_and_names() {
        check(
            &[
                (r"10 \Omega", "10 ohm"),
                ("10 ohms", "10 Ω"),
                ("10 \u{2126}", "10 Ω"),
                ("10 kΩ", "10000 Ω"),
                (r"10\,\mathrm{k\Omega}", r"10000\,\Omega"),
                ("5 GHz", "5e9 Hz"),
                (r"5\,\text{GHz}", r"5000\,\text{MHz}"),
                ("1 kWh", "3.6 MJ"),
                ("1 kWh", "1000 Wh"),
                ("5 GeV", "5000 MeV"),
                ("5 MeV", "5e6 eV"),
                ("5 mJ", "0.005 J"),
                ("5 mW", "0.005 W"),
                ("5 mN", "0.005 N"),
                ("2 mT", "0.002 T"),
                ("1 nC", "1e-9 C"),
                ("5 μC", "5e-6 C"),
                ("2 \u{b5}F", "2 uF"),
                ("2 μF", "2 uF"),
                (r"3\,\mu\text{F}", r"3\times10^{-6}\,\text{F}"),
                ("2 μs", "2e-6 s"),
                ("2 μs", "2 × 10⁻⁶ s"),
                ("1 μm", "1 um"),
                ("5 pm", "5e-12 m"),
                ("5 GPa", "5e9 Pa"),
                ("5 mol", "5000 mmol"),
                ("1 F", "1 farad"),
                ("5 H", "5 henry"),
                ("5 lx", "5 lux"),
                ("5 klm", "5000 lumens"),
                ("3 kilohertz", "3000 Hz"),
                ("100 kPa", "1 bar"),
                ("5 ha", "50000 m^2"),
                ("5 Å", "0.5 nm"),
                ("5 mM", "0.005 mol/L"),
                ("5 M", "5 mol/L"),
            ],
            Outcome::Equal,
        );
    }

    #[test]
    fn other_values_and_other_units() {
        check(
            &[
                ("10 kΩ", "10001 Ω"),
                ("5 GHz", "5001 MHz"),
                ("5 GHz", "5 MHz"),
                ("5 mW", "5 MW"),
                ("5 farad", "5 henry"),
                ("1 kWh", "3.7 MJ"),
                ("5 MeV", "5e7 eV"),
                ("2 μF", "3 uF"),
                ("5 Å", "0.6 nm"),
                ("5 M", "6 mol/L"),
            ],
            Outcome::Different,
        );
    }

    #[test]
    fn open_questions() {
        check(
            &[
                ("25 °C", "77 °F"),
                ("25 °C", "25 °F"),
                (r"25^\circ\text{C}", r"25^{\circ}\text{F}"),
                ("25 degrees Celsius", "25 degrees Fahrenheit"),
                ("300 K", "300 °C"),
                ("25 celsius", "25 fahrenheit"),
                ("5 Hz", "5 Bq"),
                ("1 eV", "1.6e-19 J"),
                ("5 km", "3 Leagues"),
            ],
            Outcome::Unknown,
        );
    }

    #[test]
    fn algebra_stays_algebra() {
        check(&[("5x", "x*5"), ("2 m n", "n*2*m"), ("3T", "T3"), ("3T", "6T/2")], Outcome::Equal);
        check(
            &[
                ("5x", "5y"),
                ("2 m n", "3 m n"),
                ("3T", "4T"),
                ("3T", "3M"),
                ("5 cm", r"5\pi cm"),
                ("2km", "2xy"),
            ],
            Outcome::Different,
        );
    }

    #[test]
    fn repeating_decimals() {
        check(
            &[
                (r"0.\overline{3}", "1/3"),
                (r"0.\overline{3}", "0.333..."),
                (r"0.\dot{3}", "1/3"),
                (r"0.\dot{3}\dot{6}", "4/11"),
                (r"0.\dot{1}4285\dot{7}", "1/7"),
                (r"0.\overline{36}", "4/11"),
                ("0.3636...", "4/11"),
                (r"0.\overline{142857}", "1/7"),
                (r"1.\overline{36}", "15/11"),
                (r"0.\overline{9}", "1"),
                (r"0.1\overline{6}", "1/6"),
                (r"0.1\dot{6}", "1/6"),
            ],
            Outcome::Equal,
        );
        check(
            &[(r"0.\overline{3}", "1/4"), (r"0.\overline{36}", "5/11"), (r"1.\overline{36}", "4/11")],
            Outcome::Different,
        );
    }
}
