//! Units of measure: dimension as powers of eight base quantities, and an exact factor to them.
//!
//! Degrees are an angle of pi/180 radians, and the factor of pi is kept apart. Currencies and counted things (`sets`,
//! `people`) are dimensions of their own.

use std::collections::HashMap;
use std::sync::LazyLock;

use num_rational::BigRational;
use num_traits::One;

/// Powers of length, mass, time, current, temperature, amount, angle and luminous flux.
pub(crate) type Dimension = [i8; 8];

const L: Dimension = [1, 0, 0, 0, 0, 0, 0, 0];
const M: Dimension = [0, 1, 0, 0, 0, 0, 0, 0];
const T: Dimension = [0, 0, 1, 0, 0, 0, 0, 0];
const A: Dimension = [0, 0, 0, 1, 0, 0, 0, 0];
const K: Dimension = [0, 0, 0, 0, 1, 0, 0, 0];
const N: Dimension = [0, 0, 0, 0, 0, 1, 0, 0];
const ANGLE: Dimension = [0, 0, 0, 0, 0, 0, 1, 0];
const LIGHT: Dimension = [0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const NONE: Dimension = [0; 8];
const VOLUME: Dimension = [3, 0, 0, 0, 0, 0, 0, 0];
const FORCE: Dimension = [1, 1, -2, 0, 0, 0, 0, 0];
const ENERGY: Dimension = [2, 1, -2, 0, 0, 0, 0, 0];
const POWER: Dimension = [2, 1, -3, 0, 0, 0, 0, 0];
const PRESSURE: Dimension = [-1, 1, -2, 0, 0, 0, 0, 0];
const CHARGE: Dimension = [0, 0, 1, 1, 0, 0, 0, 0];
const VOLTAGE: Dimension = [2, 1, -3, -1, 0, 0, 0, 0];
const RESISTANCE: Dimension = [2, 1, -3, -2, 0, 0, 0, 0];
const FREQUENCY: Dimension = [0, 0, -1, 0, 0, 0, 0, 0];
const SPEED: Dimension = [1, 0, -1, 0, 0, 0, 0, 0];
const MAGNETIC: Dimension = [0, 1, -2, -1, 0, 0, 0, 0];
const CAPACITANCE: Dimension = [-2, -1, 4, 2, 0, 0, 0, 0];
const INDUCTANCE: Dimension = [2, 1, -2, -2, 0, 0, 0, 0];
const FLUX: Dimension = [2, 1, -2, -1, 0, 0, 0, 0];
const CONDUCTANCE: Dimension = [-2, -1, 3, 2, 0, 0, 0, 0];
const ILLUMINANCE: Dimension = [-2, 0, 0, 0, 0, 0, 0, 1];
const AREA: Dimension = [2, 0, 0, 0, 0, 0, 0, 0];
const CONCENTRATION: Dimension = [-3, 0, 0, 0, 0, 1, 0, 0];

/// A unit as read: `factor * pi^pi_power` base units of a dimension, or a thing that is counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unit {
    /// Powers of the base quantities.
    pub(crate) dimension: Dimension,
    /// Size in base units.
    pub(crate) factor: BigRational,
    /// 1 for degrees, whose size is `pi/180`.
    pub(crate) pi_power: i8,
    /// A currency or a counted thing; empty for physical units.
    pub(crate) thing: String,
    /// As it was written.
    pub(crate) written: String,
}

/// Names (several spellings apart by spaces), dimension, numerator and denominator of the size.
/// Physical names in the singular also match with a final `s`.
const TABLE: &[(&str, Dimension, i64, i64)] = &[
    ("m meter metre 米", L, 1, 1),
    ("km kilometer kilometre 千米 公里", L, 1000, 1),
    ("dm decimeter decimetre 分米", L, 1, 10),
    ("cm centimeter centimetre 厘米", L, 1, 100),
    ("mm millimeter millimetre 毫米", L, 1, 1000),
    ("um μm µm micrometer micron", L, 1, 1_000_000),
    ("nm nanometer", L, 1, 1_000_000_000),
    ("in inch inches", L, 254, 10_000),
    ("ft foot feet", L, 3048, 10_000),
    ("yd yard", L, 9144, 10_000),
    ("mi mile", L, 1_609_344, 1000),
    ("kg kilogram 千克 公斤", M, 1, 1),
    ("g gram gramme 克", M, 1, 1000),
    ("mg milligram", M, 1, 1_000_000),
    ("t ton tonne 吨", M, 1000, 1),
    ("lb lbs pound", M, 45_359_237, 100_000_000),
    ("oz ounce", M, 45_359_237, 1_600_000_000),
    ("s sec second 秒", T, 1, 1),
    ("ms millisecond", T, 1, 1000),
    ("μs µs us microsecond", T, 1, 1_000_000),
    ("min minute 分 分钟", T, 60, 1),
    ("h hr hrs hour 小时 时", T, 3600, 1),
    ("day 天 日", T, 86_400, 1),
    ("week 周", T, 604_800, 1),
    ("A amp ampere", A, 1, 1),
    ("mA", A, 1, 1000),
    ("K kelvin", K, 1, 1),
    ("mol mole", N, 1, 1),
    ("rad radian 弧度", ANGLE, 1, 1),
    ("L l liter litre 升", VOLUME, 1, 1000),
    ("mL ml milliliter millilitre 毫升", VOLUME, 1, 1_000_000),
    ("N newton 牛", FORCE, 1, 1),
    ("kN", FORCE, 1000, 1),
    ("J joule 焦", ENERGY, 1, 1),
    ("kJ", ENERGY, 1000, 1),
    ("MJ", ENERGY, 1_000_000, 1),
    ("cal calorie", ENERGY, 4184, 1000),
    ("kcal", ENERGY, 4184, 1),
    ("W watt 瓦", POWER, 1, 1),
    ("kW kilowatt 千瓦", POWER, 1000, 1),
    ("MW", POWER, 1_000_000, 1),
    ("Pa pascal", PRESSURE, 1, 1),
    ("kPa", PRESSURE, 1000, 1),
    ("MPa", PRESSURE, 1_000_000, 1),
    ("atm", PRESSURE, 101_325, 1),
    ("C coulomb", CHARGE, 1, 1),
    ("V volt 伏", VOLTAGE, 1, 1),
    ("kV", VOLTAGE, 1000, 1),
    ("mV", VOLTAGE, 1, 1000),
    ("Ω ohm 欧", RESISTANCE, 1, 1),
    ("Hz hertz", FREQUENCY, 1, 1),
    ("kHz", FREQUENCY, 1000, 1),
    ("MHz", FREQUENCY, 1_000_000, 1),
    ("T tesla", MAGNETIC, 1, 1),
    ("mph", SPEED, 1_609_344, 3_600_000),
    ("kph kmh", SPEED, 1000, 3600),
    ("unit 单位", NONE, 1, 1),
];

/// Units that take prefixes: symbols, names in the singular, dimension, and the size as a numerator and a power of ten.
const PREFIXED: &[(&str, &str, Dimension, i64, i32)] = &[
    ("m", "meter metre", L, 1, 0),
    ("g", "gram gramme", M, 1, -3),
    ("s", "second", T, 1, 0),
    ("A", "ampere amp", A, 1, 0),
    ("K", "kelvin", K, 1, 0),
    ("mol", "mole", N, 1, 0),
    ("Hz", "hertz", FREQUENCY, 1, 0),
    ("N", "newton", FORCE, 1, 0),
    ("Pa", "pascal", PRESSURE, 1, 0),
    ("J", "joule", ENERGY, 1, 0),
    ("W", "watt", POWER, 1, 0),
    ("C", "coulomb", CHARGE, 1, 0),
    ("V", "volt", VOLTAGE, 1, 0),
    ("F", "farad", CAPACITANCE, 1, 0),
    ("Ω", "ohm", RESISTANCE, 1, 0),
    ("T", "tesla", MAGNETIC, 1, 0),
    ("H", "henry", INDUCTANCE, 1, 0),
    ("Wb", "weber", FLUX, 1, 0),
    ("S", "siemens", CONDUCTANCE, 1, 0),
    ("lm", "lumen", LIGHT, 1, 0),
    ("lx", "lux", ILLUMINANCE, 1, 0),
    ("Bq", "becquerel", FREQUENCY, 1, 0),
    (ELECTRONVOLT, "electronvolt", ENERGY, 1_602_176_634, -28),
    ("L l", "liter litre", VOLUME, 1, -3),
    ("Wh", "watthour", ENERGY, 3600, 0),
    ("Ah", "", CHARGE, 3600, 0),
    ("cal", "calorie", ENERGY, 4184, -3),
    ("bar", "bar", PRESSURE, 1, 5),
];

/// The unit whose size is measured, not defined by others: published conversions of it are rounded.
pub(crate) const ELECTRONVOLT: &str = "eV";

/// Units without prefixes that [`TABLE`] does not have, in the form of [`PREFIXED`].
const PLAIN: &[(&str, &str, Dimension, i64, i32)] =
    &[("Å", "angstrom ångström", L, 1, -10), ("ha", "hectare", AREA, 1, 4)];

/// Symbol, name and power of ten of a prefix.
const PREFIXES: &[(&str, &str, i32)] = &[
    ("p", "pico", -12),
    ("n", "nano", -9),
    ("u", "micro", -6),
    ("μ", "micro", -6),
    ("m", "milli", -3),
    ("c", "centi", -2),
    ("d", "deci", -1),
    ("h", "hecto", 2),
    ("k", "kilo", 3),
    ("M", "mega", 6),
    ("G", "giga", 9),
    ("T", "tera", 12),
];

/// Spellings of mol/L, apart from the rest because `M` is a prefix, too.
const MOLAR: &[(&str, i32)] = &[("M", 3), ("mM", 0), ("uM", -3), ("μM", -3), ("nM", -6), ("pM", -9)];

/// Rows of the table by name.
static ROWS: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    let names = TABLE.iter().enumerate().flat_map(|(i, row)| row.0.split(' ').map(move |name| (name, i)));
    // The first row of a name counts.
    names.collect::<Vec<_>>().into_iter().rev().collect()
});

/// Spellings of currencies, and the name that they share.
const CURRENCIES: &[(&str, &str)] = &[
    ("$", "dollar"),
    ("dollar", "dollar"),
    ("dollars", "dollar"),
    ("USD", "dollar"),
    ("€", "euro"),
    ("euro", "euro"),
    ("euros", "euro"),
    ("EUR", "euro"),
    ("£", "pound sterling"),
    ("¥", "yuan"),
    ("元", "yuan"),
    ("yuan", "yuan"),
    ("CNY", "yuan"),
    ("RMB", "yuan"),
    ("₹", "rupee"),
];

/// Single letters that are units only where the context says so.
pub(crate) fn is_letter_unit(name: &str) -> bool {
    name.chars().count() == 1 && lookup(name).is_some()
}

/// The unit of a name, e.g. `cm`, `meters`, `degrees`, `$`; `None` for anything else.
pub(crate) fn lookup(name: &str) -> Option<Unit> {
    let unit = |dimension, n: i64, d: i64, pi_power| Unit {
        dimension,
        factor: BigRational::new(n.into(), d.into()),
        pi_power,
        thing: String::new(),
        written: name.to_owned(),
    };
    match name {
        "degree" | "degrees" | "deg" | "°" | "度" => return Some(unit(ANGLE, 1, 180, 1)),
        "cent" | "cents" => return Some(Unit { thing: "dollar".into(), ..unit(NONE, 1, 100, 0) }),
        "°C" | "℃" | "celsius" | "Celsius" => {
            return Some(Unit { thing: "celsius".into(), ..unit(NONE, 1, 1, 0) });
        }
        "°F" | "℉" | "fahrenheit" | "Fahrenheit" => {
            return Some(Unit { thing: "fahrenheit".into(), ..unit(NONE, 1, 1, 0) });
        }
        _ => {}
    }
    if let Some((_, thing)) = CURRENCIES.iter().find(|c| c.0 == name) {
        return Some(Unit { thing: (*thing).to_owned(), ..unit(NONE, 1, 1, 0) });
    }
    if let Some(rest) = name.strip_prefix("square").or_else(|| name.strip_prefix("平方")) {
        return lookup(rest)
            .filter(|u| u.dimension == L)
            .map(|u| Unit { written: name.into(), ..u.power(2) });
    }
    if let Some(rest) = name.strip_prefix("cubic").or_else(|| name.strip_prefix("立方")) {
        return lookup(rest)
            .filter(|u| u.dimension == L)
            .map(|u| Unit { written: name.into(), ..u.power(3) });
    }
    let find = |name: &str| ROWS.get(name).map(|i| &TABLE[*i]);
    let lower = name.to_lowercase();
    let long = name.chars().count() > 3;
    let row = find(name)
        .or_else(|| if long { find(&lower).or_else(|| find(lower.strip_suffix('s')?)) } else { None })?;
    Some(unit(row.1, row.2, row.3, 0))
}

/// The physical unit of a name where it is known that units stand: every prefix, and single letters, too.
pub(crate) fn physical(name: &str) -> Option<Unit> {
    let lower = name.to_lowercase();
    let sized = |dimension, n: i64, power: i32| Unit {
        dimension,
        factor: BigRational::from_integer(n.into())
            * num_traits::pow::Pow::pow(BigRational::from_integer(10.into()), power),
        pi_power: 0,
        thing: String::new(),
        written: name.to_owned(),
    };
    let spelled = |names: &str, word: &str| {
        let plural = |one: &str| {
            word.strip_prefix(one).is_some_and(|end| matches!(end, "" | "s" | "es"))
                || one.strip_suffix('y').is_some_and(|stem| word.strip_prefix(stem) == Some("ies"))
        };
        names.split_whitespace().any(plural)
    };
    let symbol = |symbols: &str, word: &str| symbols.split(' ').any(|s| s == word);
    // A decay is no oscillation although both are counted per second.
    let decays = |unit: Unit, symbol: &str| match symbol {
        "Bq" => Unit { thing: "decay".into(), ..unit },
        _ => unit,
    };
    let row = PREFIXED.iter().chain(PLAIN).find(|r| symbol(r.0, name) || spelled(r.1, &lower));
    if let Some(r) = row {
        return Some(decays(sized(r.2, r.3, r.4), r.0));
    }
    if let Some(known) = lookup(name) {
        let measures = known.thing.is_empty() && known.pi_power == 0 && known.dimension != NONE;
        return measures.then_some(known);
    }
    if let Some((_, power)) = MOLAR.iter().find(|m| m.0 == name) {
        return Some(sized(CONCENTRATION, 1, *power));
    }
    PREFIXES.iter().find_map(|(short, long, power)| {
        let by_symbol = name.strip_prefix(short);
        let by_name = lower.strip_prefix(long);
        let r = PREFIXED.iter().find(|r| {
            by_symbol.is_some_and(|rest| symbol(r.0, rest)) || by_name.is_some_and(|rest| spelled(r.1, rest))
        })?;
        Some(decays(sized(r.2, r.3, r.4 + power), r.0))
    })
}

impl Unit {
    /// A counted thing, such as `sets`; singular and plural are the same.
    pub(crate) fn counted(name: &str) -> Self {
        let lower = name.to_lowercase();
        let singular = lower.strip_suffix('s').unwrap_or(&lower).to_owned();
        let factor = BigRational::one();
        Self { dimension: NONE, factor, pi_power: 0, thing: singular, written: name.to_owned() }
    }

    /// True for a thing counted that is in no table: the value decides, not the name.
    pub(crate) fn is_plain_count(&self) -> bool {
        self.dimension == NONE && !self.thing.is_empty() && lookup(&self.written).is_none()
    }

    /// The `n`-th power.
    pub(crate) fn power(&self, n: i8) -> Self {
        let factor = num_traits::pow::Pow::pow(self.factor.clone(), i32::from(n));
        let dimension = self.dimension.map(|d| d.saturating_mul(n));
        Self { dimension, factor, pi_power: self.pi_power.saturating_mul(n), ..self.clone() }
    }

    /// The product with another unit.
    pub(crate) fn times(&self, other: &Self) -> Self {
        let mut dimension = self.dimension;
        for (d, o) in dimension.iter_mut().zip(other.dimension) {
            *d = d.saturating_add(o);
        }
        Self {
            dimension,
            factor: &self.factor * &other.factor,
            pi_power: self.pi_power.saturating_add(other.pi_power),
            thing: format!("{}{}", self.thing, other.thing),
            written: format!("{} {}", self.written, other.written),
        }
    }

    /// True when values in the two units can be compared.
    pub(crate) fn compatible(&self, other: &Self) -> bool {
        self.dimension == other.dimension && self.thing == other.thing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        let cm = lookup("cm").unwrap();
        let inch = lookup("inches").unwrap();
        assert!(cm.compatible(&inch));
        assert_eq!(&inch.factor / &cm.factor, BigRational::new(254.into(), 100.into()));
        assert_eq!(lookup("squareinches").unwrap().dimension, [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lookup("Meters").unwrap(), Unit { written: "Meters".into(), ..lookup("m").unwrap() });
        assert!(lookup("people").is_none() && Unit::counted("people").is_plain_count());
        assert!(!lookup("$").unwrap().compatible(&lookup("€").unwrap()));
        // 36 km/h is 10 m/s.
        let kmh = lookup("km").unwrap().times(&lookup("h").unwrap().power(-1));
        assert_eq!(kmh.factor, BigRational::new(10.into(), 36.into()));
    }
}
