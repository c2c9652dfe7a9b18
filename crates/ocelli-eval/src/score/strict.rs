//! Our rule: the answer that the response gives last, compared by meaning. Never a guess; an answer that cannot be read
//! or compared earns nothing and is counted as such.

use ocelli_reward::extract::{LADDER, Rung, extract, final_channel};
use ocelli_reward::verify::{Verdict as Compared, verify_response};
use ocelli_reward::{Outcome, Policy, choice, text, verify};

use super::Verdict;
use crate::declare::{Compare, StrictRule};
use crate::item::{Gold, Item};
use crate::prompt::option_letter;

/// Scores a response by our rule.
pub fn strict_answer(rule: &StrictRule, item: &Item, response: &str) -> Verdict {
    let Gold::Answers(golds) = &item.gold else {
        return Verdict::unread(Some(0.0), "none", "given answers are scored otherwise");
    };
    let best = golds
        .iter()
        .map(|gold| one(rule, item, gold, response))
        .reduce(|a, b| if b.or_zero() > a.or_zero() { b } else { a });
    best.unwrap_or_else(|| Verdict::unread(Some(0.0), "none", "there is no gold answer"))
}

fn one(rule: &StrictRule, item: &Item, gold: &str, response: &str) -> Verdict {
    let ladder = rule.ladder.as_deref().unwrap_or(&LADDER);
    match rule.compare {
        Compare::Choice | Compare::Choices if !item.options.is_empty() => {
            choices(rule.compare, item, gold, response)
        }
        // Options that stand only in the picture: the letter is compared as text.
        Compare::Choice | Compare::Choices | Compare::Text => short_text(gold, response, ladder),
        Compare::YesNo => yes_no(gold, response, ladder),
        Compare::Math | Compare::MathOrText => {
            let mut policy = rule.policy.clone();
            if let Some(error) = item.column(&rule.absolute_column) {
                policy.absolute = error.split(',').filter_map(|e| e.trim().parse().ok()).collect();
            }
            from(verify_response(gold, response, ladder, &policy))
        }
    }
}

fn choices(compare: Compare, item: &Item, gold: &str, response: &str) -> Verdict {
    let count = item.options.len();
    let Some(gold_letters) = choice::read(gold, &item.options, count) else {
        // A gold answer that names no option (a value, though options are given) is compared by meaning.
        return from(verify_response(gold, response, &LADDER, &Policy::default()));
    };
    let Some((chosen, found)) = choice::extract_choice(response, &item.options, count) else {
        return Verdict::unread(Some(0.0), "choice", "no option is named");
    };
    let written = chosen.iter().map(|i| option_letter(*i)).collect::<Vec<_>>().join(",");
    let single = compare == Compare::Choice;
    let right =
        if single { chosen.len() == 1 && gold_letters.contains(&chosen[0]) } else { chosen == gold_letters };
    let note =
        if single && chosen.len() > 1 { "several options are named where one is asked for" } else { "" };
    Verdict {
        span: Some(found.span),
        note: note.into(),
        ..Verdict::decided(right, written, format!("choice ({:?})", found.rung))
    }
}

fn short_text(gold: &str, response: &str, ladder: &[Rung]) -> Verdict {
    match extract(response, ladder) {
        Ok(found) => Verdict {
            span: Some(found.span),
            ..Verdict::decided(text::same(gold, &found.text), found.text, "text")
        },
        Err(none) => Verdict::unread(Some(0.0), "text", none.reason()),
    }
}

fn yes_no(gold: &str, response: &str, ladder: &[Rung]) -> Verdict {
    let gold = text::yes_no(gold);
    let by_ladder = extract(response, ladder).ok().and_then(|e| Some((text::yes_no(&e.text)?, e.span)));
    let found = by_ladder.or_else(|| {
        let channel = final_channel(response).ok()?;
        Some((text::yes_no(&response[channel.clone()])?, channel))
    });
    match found {
        Some((said, span)) => Verdict {
            span: Some(span),
            ..Verdict::decided(gold == Some(said), if said { "yes" } else { "no" }, "yes/no")
        },
        None => Verdict::unread(Some(0.0), "yes/no", "neither yes nor no, or both"),
    }
}

fn from(compared: Compared) -> Verdict {
    if compared.rule == "no_answer" {
        return Verdict::unread(Some(0.0), compared.rule, compared.note);
    }
    Verdict {
        note: compared.note,
        span: compared.span,
        undecided: compared.outcome == Outcome::Unknown,
        ..Verdict::decided(compared.outcome == Outcome::Equal, compared.answer.text, compared.rule)
    }
}

/// Whether two answers to one item mean the same, for counting votes.
pub fn same_answer(a: &str, b: &str) -> bool {
    a == b || verify(a, b, &Policy::default()).outcome == Outcome::Equal
}
