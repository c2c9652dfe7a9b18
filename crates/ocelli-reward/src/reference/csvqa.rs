//! CSVQA's official rule for multiple choice (SkyworkAI/CSVQA, `analysis/analysis_with_vllm.py`), faults included.
//!
//! Kept on purpose: braces inside the box end it; the letters A to D that occur anywhere in the box count, in
//! alphabetical order, so that `\boxed{CA}` reads `AC` and `\boxed{DNA}` reads `AD`; no partial credit.

/// Letters read from the last `\boxed{...}`; `None` where the response has no box (wrong, or left to a judge).
pub fn extract(response: &str) -> Option<String> {
    // `re.findall(r"\\boxed\{([^}]*)\}")` scans from the left and skips a box that never closes.
    let mut last = None;
    let mut rest = response;
    while let Some(open) = rest.find("\\boxed{") {
        let body = &rest[open + 7..];
        let Some(close) = body.find('}') else { break };
        last = Some(&body[..close]);
        rest = &body[close + 1..];
    }
    last.map(|text| ["A", "B", "C", "D"].iter().filter(|c| text.contains(**c)).copied().collect())
}

/// The official label: the letters equal the gold letters as a string.
pub fn correct(letters: Option<&str>, gold: &str) -> bool {
    letters == Some(gold)
}

/// The language whose judge prompt the official program takes for a response: Chinese where a Han character occurs.
pub fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_the_last_box() {
        assert_eq!(extract("so \\boxed{C, A} then \\boxed{B,D}").as_deref(), Some("BD"));
        assert_eq!(extract("\\boxed{CA}").as_deref(), Some("AC"));
        assert_eq!(extract("\\boxed{\\text{A}, C}").as_deref(), Some("A"));
        assert_eq!(extract("\\boxed{A").as_deref(), None);
        assert_eq!(extract("A"), None);
        assert!(correct(Some("AC"), "AC") && !correct(Some("AC"), "CA") && !correct(None, ""));
        assert!(is_chinese("答案 A") && !is_chinese("answer A"));
    }
}
