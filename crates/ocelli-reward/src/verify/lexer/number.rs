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
        // `0.1\overline{6}`: the repeating part divided by 9...90...0.
        let tail = &self.text[end..];
        let repeat = tail
            .strip_prefix("\\overline{")
            .or_else(|| tail.strip_prefix("\\bar{"))
            .and_then(|t| t.split_once('}'))
            .filter(|(d, _)| !d.is_empty() && d.len() < 32 && d.bytes().all(|b| b.is_ascii_digit()));
        let point = tail.starts_with(".\\overline{");
        if let (Some((block, after)), Some(d)) = (repeat, decimals.or(point.then_some(0))) {
            let nines = power_of_ten(block.len() as u32) - 1;
            let block: BigInt = block.parse().map_err(|_| NotMath("a malformed number"))?;
            value += BigRational::new(block, nines * power_of_ten(d));
            end = self.text.len() - after.len();
            decimals = None;
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

fn power_of_ten(n: u32) -> BigInt {
    match 10i64.checked_pow(n) {
        Some(p) => p.into(),
        None => num_traits::pow(BigInt::from(10), n as usize),
    }
}
