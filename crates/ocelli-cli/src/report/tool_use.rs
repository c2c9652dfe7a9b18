//! Per tool: how often it was called, and what the questions where it was called gained or lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::arms::arm_name;
use super::page::{escape, name, section, table};
use super::read::Run;

#[derive(Default)]
struct Use {
    questions: usize,
    calls: usize,
    gain: usize,
    harm: usize,
}

/// Table and diverging bars of gain and harm.
pub(super) fn tools(run: &Run) -> String {
    let mut rows = Vec::new();
    for (arm, items) in run.arms().filter(|(a, _)| a.tools) {
        let without = run.arms().find(|(a, _)| !a.tools && a.label == arm.label && a.set == arm.set);
        let base: HashMap<&str, f64> =
            without.map(|(_, i)| i.iter().map(|i| (i.id.as_str(), i.score)).collect()).unwrap_or_default();
        let mut per_tool: BTreeMap<&str, Use> = BTreeMap::new();
        for item in items {
            let distinct: BTreeSet<&str> = item.tools.iter().map(String::as_str).collect();
            for tool in distinct {
                let row = per_tool.entry(tool).or_default();
                row.questions += 1;
                row.calls += item.tools.iter().filter(|t| *t == tool).count();
                if let Some(before) = base.get(item.id.as_str()) {
                    row.gain += usize::from(item.score > *before);
                    row.harm += usize::from(item.score < *before);
                }
            }
        }
        let n = items.len().max(1);
        for (tool, u) in per_tool {
            rows.push(vec![
                escape(&arm_name(arm)),
                name(tool),
                u.calls.to_string(),
                format!("{} <span class=dim>of {n}</span>", u.questions),
                bars(&u, n),
                format!("<span class=good>{}</span>", u.gain),
                format!("<span class=bad>{}</span>", u.harm),
                format!("{:+.1}", (u.gain as f64 - u.harm as f64) / n as f64 * 100.0),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let lead = "Gain: questions right with tools and wrong without, among those where the tool was called. Harm: the reverse. \
                Net is in points of the arm's accuracy.";
    let head = ["Arm", "Tool", "Calls", "Questions", "Harm | gain", "Gain", "Harm", "Net"];
    section("tools", "What the tools did", lead, &table(&head, &rows))
}

/// Harm to the left, gain to the right of a middle line; the whole width is all questions, either way.
fn bars(u: &Use, n: usize) -> String {
    let share = |k: usize| k as f64 / n as f64 * 50.0;
    format!(
        "<div class=diverging><i style=\"right:50%;width:{:.1}%;background:var(--bad)\"></i>\
         <i style=\"left:50%;width:{:.1}%;background:var(--c)\"></i></div>",
        share(u.harm),
        share(u.gain)
    )
}
