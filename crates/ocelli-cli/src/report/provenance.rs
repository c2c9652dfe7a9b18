//! What ran, how long, what came of it, and with which settings.

use super::arms::clock;
use super::page::{escape, name, prose, section, table};
use super::read::Run;

/// Numbers beside the accuracies: reward model, sample buffer, and whatever else the stages reported.
pub(super) fn facts(run: &Run) -> String {
    let mut by_section: Vec<(&str, Vec<Vec<String>>)> = Vec::new();
    for fact in &run.summary.facts {
        let row = vec![name(&fact.name), escape(&fact.text)];
        match by_section.iter_mut().find(|(s, _)| *s == fact.section) {
            Some((_, rows)) => rows.push(row),
            None => by_section.push((&fact.section, vec![row])),
        }
    }
    let cards: String = by_section
        .iter()
        .map(|(name, rows)| {
            format!("<div class=\"card facts\"><h3>{}</h3>{}</div>", escape(name), table(&[], rows))
        })
        .collect();
    if cards.is_empty() {
        return cards;
    }
    let lead =
        "Reward model, sample buffer, and what else the stages measured; values at the end of each stage.";
    section("numbers", "Numbers beside the accuracy", lead, &format!("<div class=wide>{cards}</div>"))
}

/// Stages with their share of the time.
pub(super) fn stages(run: &Run) -> String {
    let longest = run.summary.stages.iter().map(|s| s.seconds).fold(0.0, f64::max).max(1e-9);
    let rows: Vec<Vec<String>> = run
        .summary
        .stages
        .iter()
        .map(|s| {
            let bar = format!(
                "<div class=cell>{}<i style=\"width:{:.1}%;background:var(--dim)\"></i></div>",
                clock(s.seconds),
                s.seconds / longest * 100.0
            );
            vec![name(&s.name), bar, prose(&s.outcome)]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    section(
        "stages",
        "Stages",
        "Wall time of the run that did the work, interrupted attempts included.",
        &table(&["Stage", "Time", "Outcome"], &rows),
    )
}

/// Configuration and environment: folded on a screen, in full on paper, where nothing can be unfolded.
pub(super) fn provenance(run: &Run) -> String {
    let fold = |name: &str, text: &str| {
        if text.is_empty() {
            return String::new();
        }
        let text = escape(text);
        format!(
            "<details class=noprint><summary>{name}</summary><pre>{text}</pre></details>\
             <div class=onpaper><h3>{name}</h3><pre>{text}</pre></div>"
        )
    };
    let content = fold("Resolved configuration", &run.config) + &fold("Environment", &run.environment);
    section("provenance", "Provenance", &format!("Seed {}.", run.summary.seed), &content)
}
