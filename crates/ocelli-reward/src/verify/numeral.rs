//! Numbers in words: `twelve`, `two thirds`, `二十三`, `三分之一`, `百分之二十`, `三点一四`.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

use crate::text::normalise;

/// A number in Chinese words at the beginning of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chinese {
    /// Its value; for a percentage the number before the sign.
    pub(super) value: BigRational,
    /// Digits behind 点.
    pub(super) decimals: Option<u32>,
    /// Significant digits of a decimal.
    pub(super) significant: u32,
    /// 百分之 stands before it.
    pub(super) percent: bool,
    /// Bytes of the text that it takes.
    pub(super) len: usize,
}

/// Longest numeral that is read, in characters.
const LONGEST: usize = 32;

/// Counted things and multiples: words that may follow a numeral without changing what it says.
const MEASURES: [&str; 44] = [
    "个", "個", "次", "条", "种", "只", "人", "张", "本", "名", "位", "颗", "块", "支", "枝", "件", "台",
    "辆", "朵", "头", "棵", "根", "把", "粒", "袋", "箱", "盒", "瓶", "杯", "双", "组", "道", "页", "层",
    "步", "圈", "段", "倍", "岁", "匹", "座", "艘", "架", "株",
];

/// Whether a word may follow a Chinese numeral: nothing, a word for what is counted. (Units are the caller's.)
pub(super) fn is_measure(word: &str) -> bool {
    word.is_empty() || MEASURES.contains(&word)
}

fn digit(c: char) -> Option<u64> {
    Some(match c {
        '零' | '〇' => 0,
        '一' | '壹' => 1,
        '二' | '贰' | '两' | '兩' => 2,
        '三' | '叁' => 3,
        '四' | '肆' => 4,
        '五' | '伍' => 5,
        '六' | '陆' => 6,
        '七' | '柒' => 7,
        '八' | '捌' => 8,
        '九' | '玖' => 9,
        _ => return None,
    })
}

fn place(c: char) -> Option<u64> {
    Some(match c {
        '十' | '拾' => 10,
        '百' | '佰' => 100,
        '千' | '仟' => 1000,
        _ => return None,
    })
}

fn myriad(c: char) -> Option<u64> {
    Some(match c {
        '万' | '萬' => 10_000,
        '亿' | '億' => 100_000_000,
        _ => return None,
    })
}

/// The whole number that `chars` begin with, and how many of them it takes; `None` where they begin with none for sure.
fn whole(chars: &[char]) -> Option<(u64, usize)> {
    let numeral = |c: &char| digit(*c).is_some() || place(*c).is_some() || myriad(*c).is_some();
    let len = chars.iter().take_while(|c| numeral(c)).count();
    if len == 0 || len > LONGEST {
        return None;
    }
    let chars = &chars[..len];
    // Digits side by side: `二〇二五`. Two of them without a zero are `three or four`.
    if len > 1 && chars.iter().all(|c| digit(*c).is_some()) {
        let zero = chars.iter().any(|c| digit(*c) == Some(0));
        let sequence = (len > 2 || zero) && len <= 18;
        let value = chars.iter().filter_map(|c| digit(*c)).fold(0, |n, d| 10 * n + d);
        return sequence.then_some((value, len));
    }
    let (mut total, mut section, mut pending) = (0u64, 0u64, None);
    let (mut least_place, mut last_factor, mut after_zero) = (u64::MAX, 1, false);
    for &c in chars {
        if let Some(d) = digit(c) {
            if pending.is_some() {
                return None;
            }
            after_zero |= d == 0;
            pending = (d > 0).then_some(d);
            if d == 0 && len == 1 {
                return Some((0, 1));
            }
        } else if let Some(p) = place(c) {
            // `十二` is 12; any other place needs its digit, and places descend.
            let d = match pending.take() {
                Some(d) => d,
                None if p == 10 && section == 0 => 1,
                None => return None,
            };
            if p >= least_place {
                return None;
            }
            section = section.checked_add(d.checked_mul(p)?)?;
            (least_place, last_factor, after_zero) = (p, p, false);
        } else if let Some(m) = myriad(c) {
            section = section.checked_add(pending.take().unwrap_or(0))?;
            let all = if m == 10_000 { section } else { total.checked_add(section)? };
            if all == 0 || total > 0 && m == 10_000 && total % 100_000_000 != 0 {
                return None;
            }
            total =
                if m == 10_000 { total.checked_add(section.checked_mul(m)?)? } else { all.checked_mul(m)? };
            (section, least_place, last_factor, after_zero) = (0, u64::MAX, m, false);
        }
    }
    if let Some(d) = pending {
        // `一百五` is 150, `三万五` is 35000, `一百零五` is 105.
        let short = last_factor >= 100 && !after_zero;
        section = section.checked_add(if short { d.checked_mul(last_factor / 10)? } else { d })?;
    }
    Some((total.checked_add(section)?, len))
}

fn rational(n: u64) -> BigRational {
    BigRational::from_integer(BigInt::from(n))
}

/// The number that a text begins with; without its sign.
pub(super) fn chinese(text: &str) -> Option<Chinese> {
    let chars: Vec<char> = text.chars().take(LONGEST + 2).collect();
    let bytes = |n: usize| chars[..n].iter().map(|c| c.len_utf8()).sum();
    let plain = |value, n| Chinese { value, decimals: None, significant: 1, percent: false, len: bytes(n) };
    let starts = |at: usize, word: &str| {
        let n = word.chars().count();
        chars.get(at..at + n).is_some_and(|c| c.iter().copied().eq(word.chars()))
    };
    if starts(0, "一半") {
        return Some(plain(BigRational::new(1.into(), 2.into()), 2));
    }
    if starts(0, "半") {
        return Some(plain(BigRational::new(1.into(), 2.into()), 1));
    }
    for (head, parts) in [("百分之", 100u64), ("千分之", 1000), ("万分之", 10_000)] {
        if starts(0, head) {
            let found = decimal(&chars[3..])?;
            let percent = parts == 100;
            let value = if percent { found.value } else { found.value / rational(parts) };
            let decimals = found.decimals.filter(|_| percent);
            return Some(Chinese { value, decimals, percent, len: bytes(3 + found.len), ..found });
        }
    }
    let (a, n) = whole(&chars)?;
    if starts(n, "分之") {
        let (b, m) = whole(&chars[n + 2..])?;
        return (a > 0).then(|| plain(rational(b) / rational(a), n + 2 + m));
    }
    if starts(n, "又") {
        let (below, m) = whole(&chars[n + 1..])?;
        if starts(n + 1 + m, "分之") && below > 0 {
            let (above, k) = whole(&chars[n + 3 + m..])?;
            return Some(plain(rational(a) + rational(above) / rational(below), n + 3 + m + k));
        }
        return None;
    }
    if starts(n, "成") && a <= 10 {
        return Some(Chinese { percent: true, ..plain(rational(10 * a), n + 1) });
    }
    let found = decimal(&chars)?;
    Some(Chinese { len: bytes(found.len), ..found })
}

/// A whole number or a decimal; `len` counts characters here.
fn decimal(chars: &[char]) -> Option<Chinese> {
    let (a, n) = whole(chars)?;
    let mut found = Chinese { value: rational(a), decimals: None, significant: 1, percent: false, len: n };
    if chars.get(n) == Some(&'点') {
        let digits: Vec<u64> = chars[n + 1..].iter().map_while(|c| digit(*c)).collect();
        if digits.is_empty() {
            return Some(found);
        }
        let scale = num_traits::pow(BigInt::from(10), digits.len());
        let below = digits.iter().fold(BigInt::zero(), |n, d| n * 10 + d);
        found.value += BigRational::new(below, scale);
        found.decimals = Some(digits.len() as u32);
        found.significant = (a.to_string().trim_start_matches('0').len() + digits.len()).max(1) as u32;
        found.len = n + 1 + digits.len();
    }
    Some(found)
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const PARTS: [(&str, u64); 12] = [
    ("half", 2),
    ("third", 3),
    ("quarter", 4),
    ("fourth", 4),
    ("fifth", 5),
    ("sixth", 6),
    ("seventh", 7),
    ("eighth", 8),
    ("ninth", 9),
    ("tenth", 10),
    ("hundredth", 100),
    ("thousandth", 1000),
];

/// A number in English words; `None` for anything else. `twelve`, `forty-two`, `one hundred and five`, `two thirds`.
pub(super) fn english(text: &str) -> Option<BigRational> {
    if text.len() > 80 || !text.is_ascii() {
        return None;
    }
    let text = normalise(text);
    let words: Vec<&str> = text.split([' ', '-']).filter(|w| !w.is_empty()).collect();
    let part = |w: &str| {
        let singular = if w == "halves" { "half" } else { w.strip_suffix('s').unwrap_or(w) };
        PARTS.iter().find(|p| p.0 == singular).map(|p| p.1)
    };
    match words.as_slice() {
        [] => None,
        // The article has gone: `a half`.
        [one] if part(one).is_some() && !one.ends_with('s') && matches!(*one, "half" | "quarter") => {
            part(one).map(|n| BigRational::one() / rational(n))
        }
        [above @ .., below] if !above.is_empty() && part(below).is_some() => {
            Some(rational(cardinal(above)?) / rational(part(below)?))
        }
        all => cardinal(all).map(rational),
    }
}

fn cardinal(words: &[&str]) -> Option<u64> {
    let small = |w: &str| SMALL.iter().position(|x| *x == w).map(|n| n as u64);
    let tens = |w: &str| TENS.iter().position(|x| *x == w).map(|n| 20 + 10 * n as u64);
    let (mut total, mut section, mut least) = (0u64, 0u64, u64::MAX);
    let mut seen = false;
    for (i, word) in words.iter().enumerate() {
        if *word == "and" && i > 0 && words[i - 1] == "hundred" {
            continue;
        }
        seen = true;
        if let Some(n) = small(word) {
            let fits = if n < 10 { least > 10 || least == 10 && n > 0 } else { least > 99 };
            if !fits || n == 0 && words.len() > 1 {
                return None;
            }
            section += n;
            least = 1;
        } else if let Some(n) = tens(word) {
            if least <= 99 {
                return None;
            }
            section += n;
            least = 10;
        } else if *word == "hundred" {
            if !(1..=9).contains(&section) || least != 1 {
                return None;
            }
            section *= 100;
            least = 100;
        } else if let Some(scale) =
            [("thousand", 1000u64), ("million", 1_000_000), ("billion", 1_000_000_000)]
                .iter()
                .find(|s| s.0 == *word)
        {
            if section == 0 || total > 0 && total % (scale.1 * 1000) != 0 {
                return None;
            }
            total = total.checked_add(section.checked_mul(scale.1)?)?;
            (section, least) = (0, u64::MAX);
        } else {
            return None;
        }
    }
    seen.then(|| total.checked_add(section)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fraction(a: i64, b: i64) -> BigRational {
        BigRational::new(a.into(), b.into())
    }

    #[test]
    fn english_words() {
        for (text, a, b) in [
            ("Twelve.", 12, 1),
            ("forty-two", 42, 1),
            ("one hundred and five", 105, 1),
            ("two thousand three hundred", 2300, 1),
            ("two thirds", 2, 3),
            ("one-half", 1, 2),
            ("a half", 1, 2),
            ("three quarters", 3, 4),
            ("zero", 0, 1),
        ] {
            assert_eq!(english(text), Some(fraction(a, b)), "{text}");
        }
        for text in [
            "cat",
            "two three",
            "twenty ten",
            "third",
            "one hundred hundred",
            "and",
            "",
            "fifty zero",
            "three and four",
        ] {
            assert_eq!(english(text), None, "{text}");
        }
    }

    #[test]
    fn chinese_words() {
        for (text, a, b, percent) in [
            ("十二", 12, 1, false),
            ("两", 2, 1, false),
            ("二十三", 23, 1, false),
            ("一百零五", 105, 1, false),
            ("一百五", 150, 1, false),
            ("一百二十五", 125, 1, false),
            ("三万五千", 35_000, 1, false),
            ("三万零五", 30_005, 1, false),
            ("一亿二千万", 120_000_000, 1, false),
            ("二〇二五", 2025, 1, false),
            ("三分之一", 1, 3, false),
            ("一又二分之一", 3, 2, false),
            ("一半", 1, 2, false),
            ("百分之二十", 20, 1, true),
            ("百分之十二点五", 25, 2, true),
            ("千分之三", 3, 1000, false),
            ("三点一四", 157, 50, false),
            ("三成", 30, 1, true),
            ("零", 0, 1, false),
        ] {
            let found = chinese(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (found.value, found.percent, found.len),
                (fraction(a, b), percent, text.len()),
                "{text}"
            );
        }
        for text in ["三四", "百", "十百", "二十十", "零分之一", "角", "万一", ""] {
            assert!(chinese(text).is_none_or(|c| c.len < text.len()), "{text}: {:?}", chinese(text));
        }
        // What follows is left to the caller.
        assert_eq!(chinese("三角形").map(|c| c.len), Some(3));
        assert!(!is_measure("角形") && is_measure("个"));
    }
}
