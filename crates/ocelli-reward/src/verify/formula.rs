//! Chemical formulas and names with indices: `H_2O` and `H2O`, `Ca^{2+}` and `Ca2+`, `\\overline{AB}` and `AB` are written
//! differently and mean the same. Compared by their letters, digits and signs once the layout is gone.

/// Whether two texts are the same formula. Never true for powers: an exponent counts as layout only where it is a charge.
pub(super) fn same(gold: &str, answer: &str) -> bool {
    const LONGEST: usize = 200;
    let capital = |s: &str| s.bytes().any(|b| b.is_ascii_uppercase());
    if gold.len().max(answer.len()) > LONGEST || !capital(gold) || !capital(answer) {
        return false;
    }
    match (plain(gold), plain(answer)) {
        (Some(gold), Some(answer)) => gold == answer,
        _ => false,
    }
}

/// The formula without layout; `None` where it is none.
fn plain(text: &str) -> Option<String> {
    let mut text = text.to_owned();
    for arrow in
        ["\\rightleftharpoons", "\\rightarrow", "\\longrightarrow", "\\to", "<=>", "->", "→", "⇌", "⟶"]
    {
        text = text.replace(arrow, "=");
    }
    for command in
        ["\\mathrm", "\\text", "\\ce", "\\rm", "\\overline", "\\left", "\\right", "\\,", "\\;", "$"]
    {
        text = text.replace(command, "");
    }
    let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        match c {
            '{' | '}' => {}
            // An index belongs to a letter or a bracket; behind a digit it is the base of a numeral.
            '_' if i > 0 && (chars[i - 1].is_alphabetic() || matches!(chars[i - 1], ')' | ']' | '}')) => {}
            '^' if is_charge(&chars[i + 1..]) => {}
            c if c.is_ascii_alphanumeric()
                || matches!(c, '(' | ')' | '[' | ']' | '+' | '-' | '=' | '.' | '·') =>
            {
                out.push(c);
            }
            _ => return None,
        }
    }
    out.contains(|c: char| c.is_ascii_uppercase()).then_some(out)
}

/// `2+`, `{2-}`, `+`: digits, a sign, and no more of the exponent.
fn is_charge(rest: &[char]) -> bool {
    let braced = rest.first() == Some(&'{');
    let body = if braced { &rest[1..] } else { rest };
    let digits = body.iter().take_while(|c| c.is_ascii_digit()).count();
    let sign = matches!(body.get(digits), Some('+' | '-'));
    let ends = match body.get(digits + 1) {
        None => !braced,
        Some('}') => braced,
        // `Na^+ + Cl^-`: what follows an unbraced charge is another part.
        Some(c) => !braced && !c.is_alphanumeric() && *c != '{' && *c != '(',
    };
    digits <= 2 && sign && ends
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn layout_is_no_difference() {
        for (a, b) in [
            ("H_2O", "H2O"),
            (r"\mathrm{H}_{2}\mathrm{O}", "H2O"),
            ("Ca^{2+}", "Ca2+"),
            ("Na^+", "Na+"),
            (r"\overline{AB}", "AB"),
            (r"N_2 + 3H_2 \rightleftharpoons 2NH_3", "N2+3H2=2NH3"),
            (r"\text{Fe(OH)}_3", "Fe(OH)3"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("X^2", "X2"),
            ("A^{2+B}", "A2+B"),
            ("101_2", "1012"),
            ("H_2O", "H_2O_2"),
            ("NO2", "No2"),
            ("Fe^{2+}", "Fe^{3+}"),
            ("3x_1", "3x1"),
            ("A^2+", "A2+1"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
