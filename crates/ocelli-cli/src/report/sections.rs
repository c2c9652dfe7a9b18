//! The sections of the page, each a function from the run to HTML.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ocelli_data::run::{Arm, ItemResult};
use ocelli_data::{Message, Part, Role, Trajectory};
use ocelli_eval::stats;

use super::page::{escape, section, table};
use super::plot::{self, Curve, IntervalRow, short};
use super::read::Run;

/// Most groups that are drawn.
const MAX_GROUPS: usize = 24;

fn percent(x: f64) -> String {
    format!("{:.1}", x * 100.0)
}

fn arm_name(arm: &Arm) -> String {
    format!("{}{}", arm.label, if arm.tools { " + tools" } else { "" })
}

fn arms(run: &Run) -> impl Iterator<Item = (&Arm, &Vec<ItemResult>)> {
    run.arms()
}

/// Title, what was done, and accuracy of every arm with its interval.
pub(super) fn headline(run: &Run) -> String {
    let rows: Vec<IntervalRow> = arms(run)
        .filter_map(|(arm, items)| {
            let e = Run::accuracy(items.iter())?;
            let label = arm_name(arm);
            Some(IntervalRow {
                label,
                value: e.mean,
                lo: e.interval.low,
                hi: e.interval.high,
                colour: usize::from(arm.tools),
            })
        })
        .collect();
    let n = run.items.iter().map(Vec::len).max().unwrap_or(0);
    let chance =
        run.summary.chance.map_or_else(String::new, |c| format!(" Dashed: guessing, {} %.", percent(c)));
    format!(
        "<h1>{}</h1><p class=lead>{}</p>\
         <div class=card><h3>Accuracy, % of {n} held-out questions</h3>{}<p class=dim>Bars are 95 % intervals.{chance}</p></div>",
        escape(&run.summary.name),
        escape(&run.summary.about),
        plot::intervals(&rows, run.summary.chance),
    )
}

/// What the monitors saw; absent when they saw nothing, which is said.
pub(super) fn alarms(run: &Run) -> String {
    if run.alarms.is_empty() {
        return section("Monitors", "", "<p>No alarm.</p>");
    }
    let cards: String = run
        .alarms
        .iter()
        .take(50)
        .map(|(stage, step, monitor, message)| {
            format!(
                "<div class=\"card alarm\"><b>{}</b> <span class=dim>{} step {step}</span><br>{}</div>",
                escape(monitor),
                escape(stage),
                escape(message)
            )
        })
        .collect();
    let more = run.alarms.len().saturating_sub(50);
    let more =
        if more > 0 { format!("<p class=dim>and {more} more in metrics.jsonl</p>") } else { String::new() };
    section("Monitors", "", &format!("<div class=grid>{cards}</div>{more}"))
}

/// Paired comparison of the first run with the others, arm by arm, on the items that they share.
pub(super) fn comparison(runs: &[Run]) -> String {
    let mut rows = Vec::new();
    let Some((first, others)) = runs.split_first() else { return String::new() };
    for other in others {
        for (arm, items) in arms(first) {
            let Some((_, theirs)) = arms(other).find(|(a, _)| a.id == arm.id) else { continue };
            rows.push(paired_row(
                &format!("{}: {} vs {}", arm_name(arm), first.summary.name, other.summary.name),
                items,
                theirs,
            ));
        }
    }
    let lead =
        "Differences are first minus second, on the items that both answered; p is McNemar's exact test.";
    section("Comparison of runs", lead, &paired_table(&rows))
}

fn paired_row(what: &str, a: &[ItemResult], b: &[ItemResult]) -> Vec<String> {
    let by_id: HashMap<&str, f64> = b.iter().map(|i| (i.id.as_str(), i.score)).collect();
    let (x, y): (Vec<f64>, Vec<f64>) =
        a.iter().filter_map(|i| Some((i.score, *by_id.get(i.id.as_str())?))).unzip();
    let right = |v: &[f64]| v.iter().map(|s| *s >= 1.0).collect::<Vec<_>>();
    let difference = stats::paired_difference::<usize>(&x, &y, None, 0.95);
    let test = stats::mcnemar(&right(&x), &right(&y));
    match (difference, test) {
        (Ok(d), Ok(t)) => vec![
            escape(what),
            x.len().to_string(),
            format!("{:+.1}", d.difference * 100.0),
            format!("{:+.1} to {:+.1}", d.interval.low * 100.0, d.interval.high * 100.0),
            format!("{} / {}", t.only_a, t.only_b),
            if t.p < 0.001 { "&lt; 0.001".to_owned() } else { format!("{:.3}", t.p) },
        ],
        _ => vec![
            escape(what),
            x.len().to_string(),
            "no shared items".into(),
            String::new(),
            String::new(),
            String::new(),
        ],
    }
}

fn paired_table(rows: &[Vec<String>]) -> String {
    table(
        &["Arms", "Items", "Difference, points", "95 % interval", "Only first / only second right", "p"],
        rows,
    )
}

/// Accuracy by group, and the paired steps from each arm to the next.
pub(super) fn groups(run: &Run) -> String {
    let steps: Vec<Vec<String>> = arms(run)
        .zip(arms(run).skip(1))
        .map(|((a, x), (b, y))| paired_row(&format!("{} vs {}", arm_name(b), arm_name(a)), y, x))
        .collect();
    let lead = "Each way of answering against the one before it, on the same questions.";
    let mut out =
        if steps.is_empty() { String::new() } else { section("Step by step", lead, &paired_table(&steps)) };
    let names: BTreeSet<&str> =
        run.items.iter().flatten().map(|i| i.group.as_str()).filter(|g| !g.is_empty()).collect();
    if names.len() < 2 {
        return out;
    }
    let head: Vec<String> = std::iter::once("Group".to_owned())
        .chain(run.summary.arms.iter().map(|a| escape(&arm_name(a))))
        .collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .take(MAX_GROUPS)
        .map(|group| {
            let cell = |items: &Vec<ItemResult>| {
                let of_group = Run::accuracy(items.iter().filter(|i| i.group == *group));
                of_group.map_or_else(String::new, |e| {
                    let (low, high) = (percent(e.interval.low), percent(e.interval.high));
                    format!("{} <span class=dim>[{low}, {high}] n {}</span>", percent(e.mean), e.n)
                })
            };
            std::iter::once(escape(group)).chain(run.items.iter().map(cell)).collect()
        })
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    out += &section("By group", "Accuracy in % with 95 % intervals.", &table(&head, &rows));
    out
}

/// Numbers beside the accuracies: reward model, sample buffer, and whatever else the stages reported.
pub(super) fn facts(run: &Run) -> String {
    let mut by_section: Vec<(&str, Vec<Vec<String>>)> = Vec::new();
    for fact in &run.summary.facts {
        let row = vec![escape(&fact.name), escape(&fact.text)];
        match by_section.iter_mut().find(|(s, _)| *s == fact.section) {
            Some((_, rows)) => rows.push(row),
            None => by_section.push((&fact.section, vec![row])),
        }
    }
    let cards: String = by_section
        .iter()
        .map(|(name, rows)| {
            format!("<div class=card><h3>{}</h3>{}</div>", escape(name), table(&["", ""], rows))
        })
        .collect();
    if cards.is_empty() {
        cards
    } else {
        section("Numbers beside the accuracy", "", &format!("<div class=grid>{cards}</div>"))
    }
}

/// Per tool: how often it was called, and what the questions where it was called gained or lost.
pub(super) fn tools(run: &Run) -> String {
    let mut rows = Vec::new();
    for (arm, items) in arms(run).filter(|(a, _)| a.tools) {
        let without = arms(run).find(|(a, _)| !a.tools && a.label == arm.label);
        let base: HashMap<&str, f64> =
            without.map(|(_, i)| i.iter().map(|i| (i.id.as_str(), i.score)).collect()).unwrap_or_default();
        let mut per_tool: BTreeMap<&str, (usize, usize, usize, usize)> = BTreeMap::new();
        for item in items {
            let distinct: BTreeSet<&str> = item.tools.iter().map(String::as_str).collect();
            for tool in distinct {
                let row = per_tool.entry(tool).or_default();
                row.0 += 1;
                row.1 += item.tools.iter().filter(|t| *t == tool).count();
                if let Some(before) = base.get(item.id.as_str()) {
                    row.2 += usize::from(item.score > *before);
                    row.3 += usize::from(item.score < *before);
                }
            }
        }
        for (tool, (questions, calls, gain, harm)) in per_tool {
            rows.push(vec![
                escape(&arm_name(arm)),
                escape(tool),
                calls.to_string(),
                questions.to_string(),
                format!("<span class=good>{gain}</span>"),
                format!("<span class=bad>{harm}</span>"),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let lead = "Gain: questions right with tools and wrong without, among those where the tool was called. Harm: the reverse.";
    section("Tools", lead, &table(&["Arm", "Tool", "Calls", "Questions", "Gain", "Harm"], &rows))
}

/// Learning curves, one small plot a quantity.
pub(super) fn curves(run: &Run) -> String {
    let stages: BTreeSet<&str> = run.metrics.keys().map(|(s, _)| s.as_str()).collect();
    // In the order in which the stages ran; stages that are not in the summary come last.
    let mut stages: Vec<&str> = stages.into_iter().collect();
    let place = |s: &&str| run.summary.stages.iter().position(|r| r.name == **s).unwrap_or(usize::MAX);
    stages.sort_by_key(place);
    let mut content = String::new();
    for stage in stages {
        let of_stage = || run.metrics.iter().filter(move |((s, _), points)| s == stage && points.len() > 1);
        let draw = |main: bool| -> String {
            of_stage()
                .filter(|((_, name), _)| is_main(name) == main)
                .map(|((_, name), points)| plot::curves(name, &[Curve { label: name, points }]))
                .collect()
        };
        let (main, rest) = (draw(true), draw(false));
        if main.is_empty() && rest.is_empty() {
            continue;
        }
        content += &format!("<h3>{}</h3><div class=grid>{main}</div>", escape(stage));
        if !rest.is_empty() {
            content += &format!(
                "<details><summary>more of {}</summary><div class=grid>{rest}</div></details>",
                escape(stage)
            );
        }
    }
    if content.is_empty() {
        content
    } else {
        section("Learning curves", "Long curves are shown as means of buckets.", &content)
    }
}

/// True for the curves that one looks at first; the others are folded.
fn is_main(name: &str) -> bool {
    const FIRST: [&str; 6] = ["loss", "reward", "accuracy", "entropy", "groups/informative", "buffer/fill"];
    FIRST.contains(&name) || name.starts_with("eval/accuracy") || name == "eval/loss"
}

/// Trajectories to look at, with their pictures.
pub(super) fn samples(run: &Run) -> String {
    let shown: String = run.samples.iter().enumerate().map(|(i, t)| sample(run, t, i == 0)).collect();
    if shown.is_empty() { shown } else { section("Sample trajectories", "", &shown) }
}

fn sample(run: &Run, t: &Trajectory, open: bool) -> String {
    let scores: String = t
        .scores
        .iter()
        .map(|(name, s)| {
            format!(" {} {}", escape(name), s.value.map_or_else(|| "unscored".to_owned(), short))
        })
        .collect();
    let turns: String = t.messages.iter().map(|m| turn(run, m)).collect();
    let status = format!("{:?}", t.status);
    let open = if open { " open" } else { "" };
    format!(
        "<details class=card{open}><summary><b>{}</b> <span class=dim>{status}, {} tool calls,{scores}</span></summary>{turns}</details>",
        escape(&t.sample_id),
        t.tools.len(),
    )
}

fn turn(run: &Run, message: &Message) -> String {
    let who = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut content = String::new();
    for part in &message.content {
        match part {
            Part::Text { text } if text.trim().is_empty() => {}
            Part::Text { text } => content += &format!("<pre>{}</pre>", escape(text.trim())),
            Part::Image { hash } => {
                content += &match run.data_uri(*hash) {
                    Some(uri) => format!("<img alt=\"picture {}\" src=\"{uri}\">", hash.short()),
                    None => format!("<p class=dim>picture {} is not in the run directory</p>", hash.short()),
                }
            }
        }
    }
    for call in &message.tool_calls {
        let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
        content += &format!("<pre>{}({})</pre>", escape(&call.name), escape(&arguments));
    }
    let name = if message.name.is_empty() { String::new() } else { format!(" {}", escape(&message.name)) };
    format!("<div class=\"turn {who}\"><div class=who>{who}{name}</div>{content}</div>")
}

/// What ran, how long, and what came of it.
pub(super) fn stages(run: &Run) -> String {
    let rows: Vec<Vec<String>> = run
        .summary
        .stages
        .iter()
        .map(|s| vec![escape(&s.name), format!("{:.1} s", s.seconds), escape(&s.outcome)])
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        section("Stages", "", &table(&["Stage", "Time", "Outcome"], &rows))
    }
}

/// Configuration and environment, folded.
pub(super) fn provenance(run: &Run) -> String {
    let fold = |name: &str, text: &str| {
        if text.is_empty() {
            return String::new();
        }
        format!("<details><summary>{name}</summary><pre>{}</pre></details>", escape(text))
    };
    let content = fold("Resolved configuration", &run.config) + &fold("Environment", &run.environment);
    section("Provenance", &format!("Seed {}.", run.summary.seed), &content)
}
