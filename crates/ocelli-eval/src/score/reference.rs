//! The official rules applied to items. The rules themselves are in `ocelli_reward::reference`.

use ocelli_reward::choice;
use ocelli_reward::reference::{chartqa, csvqa, emma, gsm8k, mathv, mathvista, mmmu, yes_no};

use super::{Answer, Verdict};
use crate::declare::{ReferenceRule, Scoring};
use crate::item::{Gold, Item};

/// Applies the rule; `credit` 0 with no answer means that the rule read none (the caller's policy then decides).
pub(super) fn apply(scoring: &Scoring, item: &Item, answer: &Answer<'_>, strict: &Verdict) -> Verdict {
    let Gold::Answers(golds) = &item.gold else {
        return Verdict::unread(Some(0.0), "none", "given answers are scored otherwise");
    };
    let gold = golds.first().map(String::as_str).unwrap_or_default();
    let (text, options) = (answer.text, item.options.as_slice());
    let read = |rule: &str, found: Option<String>, right: &dyn Fn(&str) -> bool| match found {
        Some(found) => Verdict::decided(right(&found), found, rule),
        None => Verdict::unread(Some(0.0), rule, "the official rule reads no answer"),
    };
    let extracted = answer.extraction.map(str::to_owned);
    let rule = if answer.by_judge { ReferenceRule::JudgeOnly } else { scoring.reference };
    match rule {
        ReferenceRule::Csvqa => {
            read("csvqa", extracted.or_else(|| csvqa::extract(text)), &|a| csvqa::correct(Some(a), gold))
        }
        ReferenceRule::Emma => {
            // A stored extraction comes from the program that made the published result files.
            let program = if extracted.is_some() { emma::Program::Stored } else { emma::Program::Released };
            let found = extracted.unwrap_or_else(|| emma::extract(text, program));
            let content = item.column("gt_content").unwrap_or_else(|| gold_content(gold, options));
            read("emma", Some(found).filter(|a| !a.is_empty()), &|a| {
                emma::correct(a, gold, &content, program)
            })
        }
        ReferenceRule::Mathv => {
            let found = extracted.unwrap_or_else(|| mathv::extract(text));
            read("mathv", Some(found), &|a| mathv::correct(a, gold, options))
        }
        ReferenceRule::Mathvista => mathvista_rule(item, text, extracted.as_deref(), gold),
        ReferenceRule::Mmmu => mmmu_rule(item, text, golds, mmmu::Version::Mmmu),
        ReferenceRule::MmmuPro => mmmu_rule(item, text, golds, mmmu::Version::MmmuPro),
        ReferenceRule::Chartqa => {
            let found = extracted.unwrap_or_else(|| text.trim().to_owned());
            read("chartqa", Some(found), &|a| chartqa::relaxed_correct(a, gold, 0.05))
        }
        ReferenceRule::Gsm8kStrict => {
            read("gsm8k strict-match", gsm8k::strict(text), &|a| a == plain_number(gold))
        }
        ReferenceRule::Gsm8kFlexible => {
            read("gsm8k flexible-extract", gsm8k::flexible(text), &|a| a == plain_number(gold))
        }
        ReferenceRule::Pope => {
            let yes = yes_no::pope(text);
            read("pope", Some(word(yes)), &|a| a.eq_ignore_ascii_case(gold.trim()))
        }
        ReferenceRule::Hallusion => {
            read("hallusion", yes_no::hallusion(text).map(word), &|a| a.eq_ignore_ascii_case(gold.trim()))
        }
        ReferenceRule::JudgeOnly => match answer.judge {
            Some(judge) => Verdict {
                note: judge.reply.chars().take(200).collect(),
                ..Verdict::decided(judge.reference, text.trim(), "judge")
            },
            None => {
                Verdict::unread(Some(0.0), "judge", "the official verdict is a judge's, and none was asked")
            }
        },
        ReferenceRule::Strict => strict.clone(),
    }
}

fn word(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn plain_number(gold: &str) -> String {
    gold.replace([',', '$'], "").trim().to_owned()
}

/// Text of the option that a gold letter names, else the gold answer itself.
fn gold_content(gold: &str, options: &[String]) -> String {
    let index = choice::read(gold, options, options.len());
    match index.as_deref() {
        Some([i]) => options.get(*i).cloned().unwrap_or_else(|| gold.to_owned()),
        _ => gold.to_owned(),
    }
}

fn mathvista_rule(item: &Item, text: &str, extracted: Option<&str>, gold: &str) -> Verdict {
    let (question_type, answer_type) =
        (item.column("question_type").unwrap_or_default(), item.column("answer_type").unwrap_or_default());
    // Precision is written as a number with or without a point.
    let precision = item.column("precision").and_then(|p| p.parse::<f64>().ok()).map(|p| p as usize);
    let mut question = mathvista::Question {
        choices: &item.options,
        question_type: &question_type,
        answer_type: &answer_type,
        // Most published result files were made by the first reading, new answers are read by the released program.
        integers: if extracted.is_some() {
            mathvista::Integers::Digits
        } else {
            mathvista::Integers::Truncated
        },
        precision,
    };
    let found = match extracted {
        Some(extraction) => Some(extraction.to_owned()),
        // Where the official program would ask a language model, our own extraction stands in.
        None => mathvista::extract(text, question).or_else(|| {
            ocelli_reward::extract::extract(text, &ocelli_reward::extract::LADDER).ok().map(|e| e.text)
        }),
    };
    let Some(found) = found else {
        return Verdict::unread(Some(0.0), "mathvista", "no answer could be extracted");
    };
    let mut prediction = mathvista::prediction(&found, question);
    if extracted.is_some() && prediction.is_none() {
        // One published file is of the released program: the prediction stored beside the extraction shows it.
        question.integers = mathvista::Integers::Truncated;
        prediction =
            mathvista::prediction(&found, question).filter(|p| item.column("prediction").as_ref() == Some(p));
    }
    let right = mathvista::correct(prediction.as_deref(), gold);
    let note = if prediction.is_none() { "the extraction is no answer of the required type" } else { "" };
    Verdict {
        note: note.into(),
        ..Verdict::decided(right, prediction.unwrap_or_else(|| "None".into()), "mathvista")
    }
}

fn mmmu_rule(item: &Item, text: &str, golds: &[String], version: mmmu::Version) -> Verdict {
    let rule = if version == mmmu::Version::Mmmu { "mmmu" } else { "mmmu-pro" };
    if item.options.is_empty() {
        let readings = mmmu::open_readings(text);
        return Verdict::decided(mmmu::open_correct(&readings, golds), format!("{readings:?}"), rule);
    }
    match mmmu::choice(text, &item.options, version) {
        Some(letter) => Verdict::decided(golds.iter().any(|g| g.trim() == letter.to_string()), letter, rule),
        None => {
            Verdict::unread(Some(0.0), rule, "the official parser finds no letter and draws one at random")
        }
    }
}
