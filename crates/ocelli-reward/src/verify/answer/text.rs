//! Text before it is split into tokens: what surrounds an answer comes off, one-character arguments get their braces.

use std::borrow::Cow;

/// Removes emphasis, surrounding quotes and final punctuation.
pub(crate) fn trim(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let before = text.len();
        text = trim_spacing(text);
        for (open, close) in [("**", "**"), ("\"", "\""), ("“", "”"), ("`", "`"), ("__", "__"), ("*", "*")]
        {
            if let Some(inner) = text.strip_prefix(open).and_then(|t| t.strip_suffix(close)) {
                text = inner.trim();
            }
        }
        for head in ["\\boxed{", "\\fbox{", "\\beginboxed{", "boxed{"] {
            if let Some(inner) = text.strip_prefix(head)
                && crate::extract::closing_brace(text, head.len()) == Some(text.len())
            {
                text = inner[..inner.len() - 1].trim();
            }
        }
        if let Some(inner) = text.strip_prefix('$').and_then(|t| t.strip_suffix('$'))
            && !inner.trim_matches('$').contains('$')
        {
            text = inner.trim_matches('$').trim();
        }
        if text.len() == before {
            return text;
        }
    }
}

/// Removes white space, LaTeX spacing and final punctuation at both ends.
fn trim_spacing(text: &str) -> &str {
    const SPACING: [&str; 8] = ["\\;", "\\,", "\\!", "\\:", "\\ ", "~", "\\quad", "\\displaystyle"];
    let mut text = text.trim();
    loop {
        let before = text.len();
        for s in SPACING {
            text = text.strip_prefix(s).unwrap_or(text);
            text = text.strip_suffix(s).unwrap_or(text).trim();
        }
        if !goes_on(text)
            && let Some(rest) = text.strip_suffix(['.', '。', ',', '，', ';', '；', ':', '?'])
        {
            text = rest.trim();
        }
        if text.len() == before {
            return text;
        }
    }
}

/// `0.333...`: the points are no punctuation, they say that the decimal goes on.
fn goes_on(text: &str) -> bool {
    let Some(number) = text.strip_suffix("...") else { return false };
    let whole = number.trim_end_matches(|c: char| c.is_ascii_digit());
    whole.len() < number.len() && whole.ends_with('.')
}

/// Braces around one-character arguments: `\frac12` becomes `\frac{1}{2}`, `\sqrt2` becomes `\sqrt{2}`.
pub(super) fn brace_arguments(text: &str) -> Cow<'_, str> {
    if !text.contains("frac") && !text.contains("\\sqrt") && !text.contains("binom") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut wanted: Vec<(usize, u8)> = Vec::new(); // brace depth and arguments still to come
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let letters = rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let len = if letters > 0 {
                1 + letters
            } else {
                1 + rest[1..].chars().next().map_or(0, char::len_utf8)
            };
            // A command as an argument, e.g. `\frac\pi2`.
            let argument = wanted.last().is_some_and(|w| w.0 == depth);
            let arity = match &rest[1..len] {
                "frac" | "dfrac" | "tfrac" | "cfrac" | "binom" | "dbinom" | "tbinom" => 2,
                "sqrt" => 1,
                _ => 0,
            };
            if argument && arity == 0 && letters > 0 {
                out.push('{');
                out.push_str(&rest[..len]);
                out.push('}');
                take_argument(&mut wanted);
            } else {
                out.push_str(&rest[..len]);
            }
            if arity > 0 && !rest[len..].trim_start().starts_with('(') {
                wanted.push((depth, arity));
            }
            rest = &rest[len..];
            continue;
        }
        let expected = wanted.last().is_some_and(|w| w.0 == depth);
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if wanted.last().is_some_and(|w| w.0 == depth) {
                    take_argument(&mut wanted);
                }
                // Whatever waited inside this group waits in vain.
                while wanted.last().is_some_and(|w| w.0 > depth) {
                    wanted.pop();
                }
            }
            '[' if expected => {
                // The index of a root.
                let end = rest.find(']').map_or(rest.len(), |i| i + 1);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            _ if expected && c.is_ascii_alphanumeric() => {
                out.push('{');
                out.push(c);
                out.push('}');
                take_argument(&mut wanted);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            _ if expected && !c.is_whitespace() => {
                wanted.pop();
            }
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

fn take_argument(wanted: &mut Vec<(usize, u8)>) {
    if let Some(last) = wanted.last_mut() {
        last.1 -= 1;
        if last.1 == 0 {
            wanted.pop();
        }
    }
}
