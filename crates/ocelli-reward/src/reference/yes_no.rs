//! Official yes/no readings of POPE and HallusionBench.

/// POPE's reading (RUCAIBox/POPE `evaluate.py`): of the first sentence, `no` where a word is `No`, `not` or `no`,
/// else `yes`. A response about something else is therefore `yes`.
pub fn pope(response: &str) -> bool {
    let sentence = response.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split(' ').any(|word| matches!(word, "No" | "not" | "no"))
}

/// The common reading for HallusionBench without a judge (VLMEvalKit): the lower-cased words contain exactly one of
/// `yes` and `no`; otherwise there is no answer.
pub fn hallusion(response: &str) -> Option<bool> {
    let lower = response.to_lowercase();
    let mut words = lower.split(|c: char| c.is_whitespace() || c.is_ascii_punctuation());
    let (mut yes, mut no) = (false, false);
    for word in words.by_ref() {
        yes |= word == "yes";
        no |= word == "no";
    }
    if yes == no { None } else { Some(yes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings() {
        assert!(pope("Yes, there is a dog. No cat."));
        assert!(!pope("There is not a dog."));
        assert!(pope("A dog."));
        assert_eq!(hallusion("Yes."), Some(true));
        assert_eq!(hallusion("No, it is not"), Some(false));
        assert_eq!(hallusion("yes and no"), None);
        assert_eq!(hallusion("maybe"), None);
    }
}
