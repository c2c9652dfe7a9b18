//! Where the official rule and ours differ on an answer, and why.

use serde::{Deserialize, Serialize};

use crate::score::{Scored, Verdict};

/// Kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The official program leaves the item out or gives credit for an answer that is not there.
    Missing,
    /// The official rule reads no answer, ours does.
    OnlyStrictReads,
    /// Ours reads no answer, the official rule does.
    OnlyReferenceReads,
    /// Both read an answer, from different places or in different words.
    ReadDifferently,
    /// Both read the same text and compare it differently.
    ComparedDifferently,
    /// Ours could not decide.
    Undecided,
}

impl DifferenceKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing answer counted otherwise",
            Self::OnlyStrictReads => "the official rule reads no answer",
            Self::OnlyReferenceReads => "the strict rule reads no answer",
            Self::ReadDifferently => "another answer is read",
            Self::ComparedDifferently => "the same answer is compared otherwise",
            Self::Undecided => "the strict rule cannot decide",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Name of the item.
    pub item: String,
    /// Which sample.
    pub sample: u32,
    /// Kind.
    pub kind: DifferenceKind,
    /// Credit by the official rule.
    pub reference: Option<f64>,
    /// Credit by ours.
    pub strict: f64,
    /// What was read and compared, in a sentence.
    pub reason: String,
}

/// The difference between the two verdicts on an answer, if there is one.
pub fn difference(scored: &Scored) -> Option<Difference> {
    let (r, s) = (&scored.reference, &scored.strict);
    if r.credit == s.credit {
        return None;
    }
    let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    let (kind, reason) = match (&r.answer, &s.answer) {
        (None, None) => (DifferenceKind::Missing, format!("no answer; {}; {}", r.note, s.note)),
        _ if r.credit.is_none() => {
            (DifferenceKind::Missing, format!("the official program leaves it out; {}", r.note))
        }
        (None, Some(b)) => {
            (DifferenceKind::OnlyStrictReads, format!("{}: {}; ours reads {}", r.rule, r.note, quoted(b)))
        }
        (Some(a), None) => {
            (DifferenceKind::OnlyReferenceReads, format!("{} reads {}; ours: {}", r.rule, quoted(a), s.note))
        }
        (Some(a), Some(b)) if s.undecided => (
            DifferenceKind::Undecided,
            format!("{} reads {}; ours reads {}: {}", r.rule, quoted(a), quoted(b), s.note),
        ),
        (Some(a), Some(b)) if plain(a) == plain(b) => (
            DifferenceKind::ComparedDifferently,
            format!("both read {}; {} says {}, {} says {}", quoted(a), r.rule, word(r), s.rule, word(s)),
        ),
        (Some(a), Some(b)) => (
            DifferenceKind::ReadDifferently,
            format!(
                "{} reads {} ({}), {} reads {} ({})",
                r.rule,
                quoted(a),
                word(r),
                s.rule,
                quoted(b),
                word(s)
            ),
        ),
    };
    Some(Difference {
        item: scored.item.clone(),
        sample: scored.sample,
        kind,
        reference: r.credit,
        strict: s.or_zero(),
        reason,
    })
}

fn word(verdict: &Verdict) -> &'static str {
    if verdict.or_zero() > 0.5 { "right" } else { "wrong" }
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    format!("`{short}{}`", if short.len() < text.len() { "..." } else { "" })
}
