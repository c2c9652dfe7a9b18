//! Numerals: groups of thousands, decimals, repeating decimals, powers of ten.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::Lexer;
use crate::verify::limits::MAX_DIGITS;
use crate::verify::token::{NotMath, Numeral, Token};

impl Lexer<'_> {
    /// Length of a separator of thousands at `at`, when exactly three digits follow it. The flag tells a plain comma.
    fn group_separator(&self, at: usize) -> Option<(usize, bool)> {
        let rest = &self.text[at..];
        let forms = [",\\!\\!", ",\\!", "{,}", "\\,", "\\!", "\\ ", ","];
        let form = forms.iter().find(|f| rest.starts_with(**f))?;
        let tail = &rest[form.len()..];
        let space = if *form == ",\\!" { tail.len() - tail.trim_start_matches(' ').len() } else { 0 };
        let digits = tail[space..].bytes().take_while(u8::is_ascii_digit).count();
        (digits == 3).then_some((form.len() + space, *form == ","))
    }

    fn digits_end(&self, from: usize) -> usize {
        from + self.text.as_bytes()[from..].iter().take_while(|b| b.is_ascii_digit()).count()
    }

    pub(super) fn number(&mut self) -> Result<(), NotMath> {
        let start = self.at;
        let mut end = self.digits_end(start);
        let mut digits = self.text[start..end].to_owned();
        let mut grouped = false;
        if (1..=3).contains(&digits.len()) && !digits.starts_with('0') {
            let (mut far, mut all, mut commas) = (end, digits.clone(), false);
            while let Some((len, comma)) = self.group_separator(far) {
                if comma && self.depth > 0 {
                    break;
                }
                commas |= comma;
                all.push_str(&self.text[far + len..far + len + 3]);
                far += len + 3;
            }
            // `1,234,5` is a list, not a number and a rest.
            let tail = &self.text[far..];
            let list = commas && tail.starts_with(',') && tail[1..].starts_with(|c: char| c.is_ascii_digit());
            if far > end && !list {
                (end, digits, grouped) = (far, all, commas);
            }
        }
        let whole_digits = digits.len() as u32;
        let mut decimals = None;
        let tail = &self.text[end..];
        if tail.starts_with('.') && tail[1..].starts_with(|c: char| c.is_ascii_digit()) {
            let stop = self.digits_end(end + 1);
            decimals = Some((stop - end - 1) as u32);
            digits.push_str(&self.text[end + 1..stop]);
            end = stop;
        }
        if digits.len() > MAX_DIGITS {
            return Err(NotMath("a number with too many digits"));
        }
        let significant = digits.trim_start_matches('0').len().max(1) as u32;
        let whole: BigInt = match digits.parse::<i64>() {
            Ok(small) => small.into(),
            Err(_) => digits.parse().map_err(|_| NotMath("a malformed number"))?,
        };
        let mut value = match decimals {
            None => BigRational::from_integer(whole),
            Some(d) => BigRational::new(whole, power_of_ten(d)),
        };
        // `0.1\overline{6}`, `0.\overline{3}`: the repeating part divided by 9...90...0.
        let tail = &self.text[end..];
        let marked = match (decimals, tail.strip_prefix('.')) {
            (Some(d), _) => Some((d, tail)),
            (None, Some(behind)) => Some((0, behind)),
            (None, None) => None,
        };
        if let Some((d, tail)) = marked
            && let Some((block, len)) = repeating_block(tail)
        {
            value += repeated(&block, d)?;
            end = self.text.len() - tail.len() + len;
            decimals = None;
        } else if let Some(d) = decimals
            && tail.starts_with("..")
            && let Some(block) = visible_period(&self.text[end - d as usize..end])
        {
            // `0.333...` stays a decimal of three digits, with the value that its digits promise.
            value += repeated(block, d)?;
        }
        // `1.5e3` with digits on both sides.
        let tail = &self.text[end..];
        if let Some(exponent) = tail.strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let len = exponent[sign..].bytes().take_while(u8::is_ascii_digit).count();
            if (1..=4).contains(&len) {
                let n: i32 = exponent[..sign + len].trim_start_matches('+').parse().unwrap_or(0);
                let scale = BigRational::from_integer(power_of_ten(n.unsigned_abs()));
                value = if n < 0 { value / scale } else { value * scale };
                decimals = Some((decimals.unwrap_or(0) as i32 - n).max(0) as u32);
                end += 1 + sign + len;
            }
        }
        self.out.push(Token::Number(Numeral { value, decimals, significant, whole_digits, grouped }));
        self.at = end;
        // `3.14...`
        let dots = self.rest().len() - self.rest().trim_start_matches('.').len();
        self.at += if dots > 1 { dots } else { 0 };
        Ok(())
    }
}

/// The repeating digits that a text begins with, and how many bytes they take: `\overline{36}`, `\bar{3}`, `\dot{3}`,
/// `\dot{1}4285\dot{7}`.
fn repeating_block(text: &str) -> Option<(String, usize)> {
    const LONGEST: usize = 32;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let barred = text.strip_prefix("\\overline{").or_else(|| text.strip_prefix("\\bar{"));
    if let Some((block, after)) = barred.and_then(|t| t.split_once('}')) {
        return (digits(block) && block.len() < LONGEST)
            .then(|| (block.to_owned(), text.len() - after.len()));
    }
    let dotted = |s: &str| {
        let (digit, _) = s.strip_prefix("\\dot{")?.split_once('}')?;
        (digits(digit) && digit.len() == 1).then(|| digit.to_owned())
    };
    let dot_len = "\\dot{0}".len();
    let mut block = dotted(text)?;
    let between: String = text[dot_len..].chars().take_while(char::is_ascii_digit).take(LONGEST).collect();
    let Some(last) = dotted(&text[dot_len + between.len()..]) else { return Some((block, dot_len)) };
    block.push_str(&between);
    block.push_str(&last);
    Some((block, 2 * dot_len + between.len()))
}

/// The period that digits before an ellipsis show: three times over, or twice where they are all there is.
fn visible_period(digits: &str) -> Option<&str> {
    const LONGEST: usize = 16;
    (1..=LONGEST.min(digits.len() / 2)).find_map(|p| {
        let block = &digits[digits.len() - p..];
        let shown = digits.as_bytes().rchunks_exact(p).take_while(|c| *c == block.as_bytes()).count();
        (shown >= 3 || p > 1 && shown == 2 && digits.len() == 2 * p).then_some(block)
    })
}

/// The value of a block of digits that repeats for ever behind `d` digits after the point.
fn repeated(block: &str, d: u32) -> Result<BigRational, NotMath> {
    let nines = power_of_ten(block.len() as u32) - 1;
    let block: BigInt = block.parse().map_err(|_| NotMath("a malformed number"))?;
    Ok(BigRational::new(block, nines * power_of_ten(d)))
}

fn power_of_ten(n: u32) -> BigInt {
    match 10i64.checked_pow(n) {
        Some(p) => p.into(),
        None => num_traits::pow(BigInt::from(10), n as usize),
    }
}
