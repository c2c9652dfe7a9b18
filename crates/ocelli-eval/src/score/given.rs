//! Verdicts on given answers: by a policy that reads them in some order, or by scores.

use std::sync::LazyLock;

use ocelli_agent::endpoint::Outcome;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Verdict, missing_credit};
use crate::declare::{Better, Kind, Missing, ReplyRule, Task, Ties};
use crate::item::{Gold, Item};
use crate::prompt::option_letter;

/// One verdict of a policy on the answers in one order.
#[derive(Clone, Debug)]
pub struct Presented<'a> {
    /// Which of the item's orders.
    pub variant: u32,
    /// How the request ended.
    pub outcome: Outcome,
    /// The reply.
    pub text: &'a str,
    /// The chosen place as another program read it from the reply.
    pub read: Option<usize>,
}

/// What all verdicts on one item say together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenVerdict {
    /// Name of the item.
    pub item: String,
    /// By the official rule.
    pub reference: Verdict,
    /// Right in every order; unparsed counts as wrong.
    pub strict: Verdict,
    /// Chosen answers (original index) by verdict; `None` for a tie or an unparsed reply.
    pub chosen: Vec<Option<usize>>,
    /// Places chosen by verdict, for the bias of position.
    pub places: Vec<Option<usize>>,
    /// Verdicts that call a tie.
    pub ties: usize,
    /// Replies from which no verdict could be read.
    pub unparsed: usize,
    /// Requests without an answer.
    pub failed: usize,
    /// Scores of the answers, for scalar reward models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<f64>,
}

/// Reading of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The answer at this place.
    Place(usize),
    /// None is better.
    Tie,
    /// Nothing could be read.
    Unparsed,
}

static ANSWER_NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?:Overall Judgment|Therefore)\s*.*\s*-*\s*Answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better",
    )
    .ok()
});
static TOLERANT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let who = r"(?:answer|response|assistant|output|model|回答|答案)";
    Regex::new(&format!(
        r"(?i)\[\[\s*([A-Z]|\d+)\s*\]\]|\b(?:better|best|prefer(?:red)?|winner|verdict|judg(?:e)?ment|choose)\b[^\n]{{0,40}}?\b{who}\s*[*(\[]*([A-Z]|\d+)\b|{who}\s*[*(\[]*([A-Z]|\d+)\b[\])*]*\s*(?:is|was|更)\s*[^\n.]{{0,20}}?(?:better|best|superior|preferable|好)"
    ))
    .ok()
});
static BARE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^[\s*(\[]*([A-Za-z]|\d+)[\s*)\].]*{END}")).ok());
/// A bare verdict is the whole reply, or stands above its reason under a heading, as PandaLM's own judge writes it.
const END: &str = r"(?:$|\n\s*#+\s*(?i:reason)\b)";
static TIE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let bare = format!(r"^[\s*(\[]*tie[\s*)\].]*{END}");
    let named = r"\[\[\s*tie\s*\]\]|\b(?:it(?:'s| is) a tie|equally good|both (?:answers|responses) are equal|neither is better)\b|一样好|平局";
    Regex::new(&format!(r"(?i){bare}|{named}")).ok()
});

fn place(name: &str, count: usize) -> Choice {
    let index = match name.parse::<usize>() {
        Ok(n) => n.checked_sub(1),
        Err(_) => name.chars().next().map(|c| c.to_ascii_uppercase() as usize - 'A' as usize),
    };
    match index {
        Some(i) if i < count => Choice::Place(i),
        // The letter after the last answer is how prompts name a tie.
        Some(i) if i == count => Choice::Tie,
        _ => Choice::Unparsed,
    }
}

/// Reads a verdict: by the official rule, or tolerantly where `official` is `None`.
pub fn choice_of_reply(reply: &str, count: usize, official: Option<ReplyRule>) -> Choice {
    let first = |re: &LazyLock<Option<Regex>>, last: bool| -> Option<String> {
        let re = (**re).as_ref()?;
        let captures = if last { re.captures_iter(reply).last()? } else { re.captures(reply)? };
        captures.iter().skip(1).flatten().next().map(|m| m.as_str().to_owned())
    };
    match official {
        Some(ReplyRule::AnswerNumber) => {
            first(&ANSWER_NUMBER, false).map_or(Choice::Unparsed, |n| place(&n, count))
        }
        Some(ReplyRule::BracketLetter) => {
            let found = (0..=count.min(25)).find(|i| reply.contains(&format!("[[{}]]", option_letter(*i))));
            found.map_or(Choice::Unparsed, |i| if i < count { Choice::Place(i) } else { Choice::Tie })
        }
        Some(ReplyRule::CheckJson | ReplyRule::CorrectWord | ReplyRule::YesWord) => Choice::Unparsed,
        None => {
            let reply_is_tie = TIE.as_ref().is_some_and(|re| re.is_match(reply));
            match first(&BARE, false).or_else(|| first(&TOLERANT, true)) {
                Some(name) => place(&name, count),
                None if reply_is_tie => Choice::Tie,
                None => Choice::Unparsed,
            }
        }
    }
}

/// Reads a verdict tolerantly. Where raters say 1, 2 or 0, a bare 0 is their word for a tie; elsewhere it may be an index.
fn tolerant_choice(task: &Task, reply: &str, count: usize) -> Choice {
    let raters = task.benchmark.given.as_ref().is_some_and(|g| matches!(g.better, Better::Raters(_)));
    let bare = BARE.as_ref().and_then(|re| re.captures(reply)).and_then(|c| c.get(1));
    if raters && bare.is_some_and(|name| name.as_str() == "0") {
        return Choice::Tie;
    }
    choice_of_reply(reply, count, None)
}

/// Original index of the answer at a place of a variant: pairs are reversed, several answers are rotated.
fn original(kind: Kind, variant: u32, place: usize, count: usize) -> usize {
    match kind {
        Kind::Pair if variant % 2 == 1 => count - 1 - place,
        Kind::BestOf => (place + variant as usize) % count,
        _ => place,
    }
}

/// Scores a policy's verdicts on one item.
pub fn score_given(task: &Task, item: &Item, verdicts: &[Presented<'_>]) -> GivenVerdict {
    let benchmark = &task.benchmark;
    let count = item.answers.len().max(2);
    let Gold::Better(better) = &item.gold else {
        let none = Verdict::unread(Some(0.0), "none", "the item has no preference");
        return GivenVerdict {
            item: item.id.clone(),
            reference: none.clone(),
            strict: none,
            chosen: vec![],
            places: vec![],
            ties: 0,
            unparsed: 0,
            failed: 0,
            scores: vec![],
        };
    };
    let official = benchmark.verdict.as_ref().map(|v| v.reply);
    let policy = benchmark.reference_policy;
    let (mut chosen, mut places) = (Vec::new(), Vec::new());
    let (mut ties, mut unparsed, mut failed) = (0, 0, 0);
    let (mut credits, mut votes_for, mut votes_against) = (Vec::new(), 0usize, 0usize);
    let mut all_right = !verdicts.is_empty();
    for v in verdicts {
        let absent = matches!(v.outcome, Outcome::Failed | Outcome::Refused | Outcome::Empty);
        let right = |choice: Choice| match choice {
            Choice::Place(p) => Some(better.contains(&original(benchmark.kind, v.variant, p, count))),
            Choice::Tie => Some(better.is_empty()),
            Choice::Unparsed => None,
        };
        let (by_official, tolerant) = match (absent, v.read) {
            (true, _) => (Choice::Unparsed, Choice::Unparsed),
            (false, Some(p)) => (Choice::Place(p), Choice::Place(p)),
            (false, None) => (choice_of_reply(v.text, count, official), tolerant_choice(task, v.text, count)),
        };
        match right(by_official) {
            Some(right) => {
                credits.push(Some(f64::from(u8::from(right))));
                if right { votes_for += 1 } else { votes_against += 1 }
            }
            None => credits.push(missing_credit(if absent { policy.failed } else { policy.unparsed }, count)),
        }
        failed += usize::from(absent);
        match tolerant {
            Choice::Place(p) => {
                chosen.push(Some(original(benchmark.kind, v.variant, p, count)));
                places.push(Some(p));
            }
            other => {
                ties += usize::from(other == Choice::Tie);
                unparsed += usize::from(other == Choice::Unparsed && !absent);
                chosen.push(None);
                places.push(None);
            }
        }
        all_right &= right(tolerant) == Some(true);
    }
    let named = |c: &Option<usize>| c.map_or("-".to_owned(), option_letter);
    let answer = chosen.iter().map(named).collect::<Vec<_>>().join(" ");
    // A program that drops the undecided takes a vote; one that gives them partial credit takes the mean.
    let reference = if policy.unparsed == Missing::Dropped {
        let credit = match votes_for.cmp(&votes_against) {
            std::cmp::Ordering::Greater => Some(1.0),
            std::cmp::Ordering::Less => Some(0.0),
            std::cmp::Ordering::Equal => None,
        };
        Verdict { credit, ..Verdict::decided(false, answer.clone(), "vote") }
    } else {
        let known: Vec<f64> = credits.iter().copied().flatten().collect();
        let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        Verdict { credit: mean, ..Verdict::decided(false, answer.clone(), "mean over the orders") }
    };
    let strict = Verdict {
        answer: chosen.iter().any(Option::is_some).then_some(answer),
        ..Verdict::decided(all_right, "", "right in every order")
    };
    GivenVerdict {
        item: item.id.clone(),
        reference,
        strict,
        chosen,
        places,
        ties,
        unparsed,
        failed,
        scores: vec![],
    }
}

/// Scores a scalar reward model on one item: right where a better answer has the strictly highest score. In reference
/// mode `m` tied maxima of several answers share the credit (RewardBench 2); for pairs `ties` says what they are.
pub fn score_scalar(task: &Task, item: &Item, scores: &[f64], ties: Ties) -> GivenVerdict {
    let better: &[usize] = match &item.gold {
        Gold::Better(b) => b,
        Gold::Answers(_) => &[],
    };
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let maxima: Vec<usize> = (0..scores.len()).filter(|i| scores[*i] == best).collect();
    let wins = maxima.iter().filter(|i| better.contains(i)).count();
    let strict = maxima.len() == wins && wins > 0 && (task.benchmark.kind != Kind::Pair || maxima.len() == 1);
    let shared = if task.benchmark.kind == Kind::BestOf {
        wins as f64 / maxima.len().max(1) as f64
    } else {
        let first = ties == Ties::First && maxima.first().is_some_and(|i| better.contains(i));
        f64::from(u8::from(strict || first))
    };
    let answer = scores.iter().map(|s| format!("{s:.4}")).collect::<Vec<_>>().join(" / ");
    let chosen = if maxima.len() == 1 { Some(maxima[0]) } else { None };
    GivenVerdict {
        item: item.id.clone(),
        reference: Verdict {
            credit: Some(shared),
            ..Verdict::decided(false, answer.clone(), "highest score")
        },
        strict: Verdict::decided(strict, answer, "strictly highest score"),
        chosen: vec![chosen],
        places: vec![],
        ties: usize::from(maxima.len() > 1),
        unparsed: 0,
        failed: 0,
        scores: scores.to_vec(),
    }
}
