//! Verdicts to an evaluation: summary, records and differences.

use std::collections::BTreeMap;

use ocelli_agent::endpoint::{Outcome, Usage};
use ocelli_data::Part;

use super::{EvaluateError, Evaluation, Extra, ItemRecord};
use crate::declare::{Benchmark, ReferenceRule, Task};
use crate::item::Item;
use crate::judge::{JudgeAgreement, judge_agreement};
use crate::prompt::option_letter;
use crate::score::{Answer, GivenVerdict, Presented, Scored, score};
use crate::stats::StatsError;
use crate::summary::{
    Difference, Mode, ModeSummary, PairSummary, Summary, curves, difference, group_tables, human_check,
    item_credits, metrics, pair_summary, summarise,
};

fn blank(task: &Task, benchmark: &Benchmark, items: usize) -> Result<Summary, StatsError> {
    let none = ModeSummary { estimate: None, credit: 0.0, n: 0, left_out: 0, worst: 0.0, best: 0.0 };
    Ok(Summary {
        task: task.name(),
        title: benchmark.title.clone(),
        model: String::new(),
        items,
        samples: 1,
        outcomes: BTreeMap::new(),
        undecided: 0,
        reference: none,
        strict: none,
        groups: Vec::new(),
        metrics: Vec::new(),
        difference_kinds: BTreeMap::new(),
        curves: None,
        pairs: None,
        judge: None,
        human: None,
        reasoning: None,
        labels: None,
        usage: Usage::default(),
        endpoint: None,
        declaration: benchmark.hash().to_string(),
        data: String::new(),
        notes: benchmark.source.notes.clone(),
    })
}

fn prompt_text(item: &Item) -> String {
    let Some(prompt) = item.prompts.first() else {
        let options: String =
            item.options.iter().enumerate().map(|(i, o)| format!("\n({}) {o}", option_letter(i))).collect();
        return format!("{}{options}", item.question);
    };
    let mut images = 0;
    let mut text = String::new();
    for message in prompt.iter() {
        for part in &message.content {
            match part {
                Part::Text { text: t } => text.push_str(t),
                Part::Image { .. } => {
                    images += 1;
                    text.push_str(&format!("[image {images}]"));
                }
            }
        }
        text.push('\n');
    }
    text
}

fn fill(
    summary: &mut Summary,
    task: &Task,
    items: &[Item],
    scored: &[Scored],
    scores: &BTreeMap<String, Vec<f64>>,
) -> Result<Vec<Difference>, StatsError> {
    let credits = item_credits(items, scored);
    summary.reference = summarise(&credits, Mode::Reference)?;
    summary.strict = summarise(&credits, Mode::Strict)?;
    summary.groups = group_tables(&task.benchmark, &credits)?;
    summary.metrics = metrics(&task.benchmark, &credits, &summary.groups, scored, scores)?;
    summary.undecided = scored.iter().filter(|s| s.strict.undecided).count();
    let mut differences = Vec::new();
    for s in scored {
        *summary.outcomes.entry(s.outcome).or_insert(0) += 1;
        summary.usage += s.usage;
        if let Some(d) = difference(s) {
            let count = summary.difference_kinds.entry(d.kind).or_insert((0, 0));
            if d.reference.unwrap_or(0.0) > d.strict {
                count.0 += 1
            } else {
                count.1 += 1
            }
            differences.push(d);
        }
    }
    Ok(differences)
}

pub(super) fn of_answers(
    task: &Task,
    items: &[Item],
    answers: &[(usize, Answer<'_>)],
    extra: &Extra,
) -> Result<Evaluation, EvaluateError> {
    let mut summary = blank(task, &task.benchmark, items.len())?;
    let scored: Vec<Scored> = answers.iter().map(|(at, a)| score(task, &items[*at], a)).collect();
    let differences = fill(&mut summary, task, items, &scored, &BTreeMap::new())?;
    summary.samples = answers.iter().map(|(_, a)| a.sample + 1).max().unwrap_or(1);
    summary.curves = Some(curves(items, &scored, extra)?);
    if let Some(why) = summary.curves.as_ref().map(|c| c.no_tournament.as_str()).filter(|w| !w.is_empty()) {
        summary.notes.push(format!("no tournament although preferences were given: {why}"));
    }
    // The automatic verdict is the judge's where one was asked and could be read, else the strict rule's.
    let automatic: Vec<(f64, Option<bool>)> = answers
        .iter()
        .zip(&scored)
        .map(|((_, a), s)| {
            let by_judge = a.judge.and_then(|j| j.strict).map(|right| f64::from(u8::from(right)));
            let human = extra.human.get(&(s.item.clone(), s.sample)).copied();
            (by_judge.unwrap_or_else(|| s.strict.or_zero().clamp(0.0, 1.0)), human)
        })
        .collect();
    summary.human = human_check(&automatic)?;
    if summary.human.as_ref().map_or(0, |h| h.seen) < extra.human.len() {
        let unknown = extra.human.len() - summary.human.as_ref().map_or(0, |h| h.seen);
        summary.notes.push(format!("{unknown} verdicts of people are about answers that are not here"));
    }
    let judged: Vec<(Option<bool>, Option<bool>)> = answers
        .iter()
        .zip(&scored)
        .filter_map(|((_, a), s)| {
            let rule = (!s.strict.undecided && s.strict.answer.is_some()).then(|| s.strict.or_zero() > 0.5);
            Some((a.judge?.strict, rule))
        })
        .collect();
    if !judged.is_empty() {
        let official_right = answers.iter().filter(|(_, a)| a.judge.is_some_and(|j| j.reference)).count();
        summary.judge = Some(JudgeAgreement { official_right, ..judge_agreement(&judged)? });
    }
    let left_to_judge =
        items.iter().filter(|i| task.benchmark.score[i.rule].reference == ReferenceRule::JudgeOnly).count();
    if left_to_judge > 0 && judged.is_empty() {
        summary.notes.push(format!(
            "the official verdict on {left_to_judge} items is a judge's and no judge was asked: they count as wrong in reference mode"
        ));
    }
    let records = answers
        .iter()
        .zip(scored)
        .map(|((at, answer), s)| {
            let item = &items[*at];
            ItemRecord {
                id: item.id.clone(),
                sample: s.sample,
                prompt: prompt_text(item),
                images: item.images().collect(),
                gold: item.gold_text(),
                response: answer.text.to_owned(),
                reasoning: None,
                judged_reasoning: None,
                outcome: s.outcome,
                reference: s.reference,
                strict: s.strict,
                groups: item.groups.clone(),
                cluster: item.cluster.clone(),
                tokens: s.usage.completion,
                judge: answer.judge.map(|j| j.reply.clone()).unwrap_or_default(),
            }
        })
        .collect();
    Ok(Evaluation { summary, records, differences })
}

pub(super) fn of_given(
    task: &Task,
    items: &[Item],
    verdicts: &[(GivenVerdict, &[Presented<'_>])],
) -> Result<Evaluation, EvaluateError> {
    let mut summary = blank(task, &task.benchmark, items.len())?;
    let scores: BTreeMap<String, Vec<f64>> = verdicts
        .iter()
        .filter(|(v, _)| !v.scores.is_empty())
        .map(|(v, _)| (v.item.clone(), v.scores.clone()))
        .collect();
    let as_scored = |v: &GivenVerdict| Scored {
        item: v.item.clone(),
        sample: 0,
        outcome: if v.failed > 0 {
            Outcome::Failed
        } else if v.unparsed > 0 {
            Outcome::Unparsed
        } else {
            Outcome::Ok
        },
        reference: v.reference.clone(),
        strict: v.strict.clone(),
        usage: Usage::default(),
    };
    let scored: Vec<Scored> = verdicts.iter().map(|(v, _)| as_scored(v)).collect();
    let differences = fill(&mut summary, task, items, &scored, &scores)?;
    let plain: Vec<GivenVerdict> = verdicts.iter().map(|(v, _)| v.clone()).collect();
    let pairs: PairSummary = pair_summary(items, &plain)?;
    summary.pairs = Some(pairs);
    let records = items
        .iter()
        .zip(scored)
        .zip(verdicts)
        .map(|((item, s), (_, presented))| ItemRecord {
            id: item.id.clone(),
            sample: 0,
            prompt: prompt_text(item),
            images: item.images().collect(),
            gold: item.gold_text(),
            response: presented.iter().map(|p| p.text).collect::<Vec<_>>().join("\n\n---\n\n"),
            reasoning: None,
            judged_reasoning: None,
            outcome: s.outcome,
            reference: s.reference,
            strict: s.strict,
            groups: item.groups.clone(),
            cluster: item.cluster.clone(),
            tokens: 0,
            judge: String::new(),
        })
        .collect();
    Ok(Evaluation { summary, records, differences })
}
