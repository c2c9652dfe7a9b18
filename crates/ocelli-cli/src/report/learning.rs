//! How the learning went: curves, one small plot a quantity, and what the monitors saw.

use std::collections::BTreeSet;

use ocelli_train::monitors::{Monitor, Rule};

use super::page::{escape, name, prose, section, table};
use super::plot::{self, Curve, short};
use super::read::Run;

/// Metrics that are read together, and their heading; the others stand alone.
const TOGETHER: &[(&str, &[&str])] = &[
    ("Share of the batch that teaches", &["groups/informative", "buffer/fill", "buffer/fresh_share"]),
    ("Share of rollouts with tool calls, and of failing calls", &["tools/rate", "tools/error_rate"]),
    ("Age of replayed samples, steps", &["buffer/age_p50", "buffer/age_p95"]),
    ("Held-out accuracy, with and without tools", &["eval/accuracy", "eval/accuracy_plain"]),
];

/// Metrics that one looks at first; the others are folded.
const FIRST: &[&str] = &[
    "loss",
    "reward",
    "accuracy",
    "policy/entropy",
    "policy/kl",
    "response/length",
    "image/dependence",
    "eval/loss",
];

/// Names for people.
fn title(metric: &str) -> &str {
    match metric {
        "loss" => "Loss",
        "token_loss" => "Loss per token",
        "reward" => "Reward",
        "accuracy" => "Accuracy while learning",
        "policy/entropy" => "Entropy of the policy, nats",
        "policy/kl" => "Divergence from the reference, nats",
        "policy/clip_fraction" => "Share of clipped tokens",
        "response/length" => "Length of responses, tokens",
        "response/truncated" => "Share of truncated responses",
        "image/dependence" => "What the picture adds to the answer, nats per token",
        "eval/loss" => "Held-out loss",
        "eval/accuracy" => "Held-out accuracy",
        "eval/accuracy_plain" => "without tools",
        "groups/informative" => "informative groups",
        "buffer/fill" => "batch filled",
        "buffer/fresh_share" => "fresh samples",
        "buffer/age_p50" => "median",
        "buffer/age_p95" => "95 %",
        "tools/rate" => "with a call",
        "tools/error_rate" => "calls that failed",
        "optimizer/grad_norm" => "Norm of the gradient",
        "optimizer/lr_factor" => "Factor on the learning rate",
        other => other,
    }
}

/// Stages that have curves, in the order in which they ran.
fn stages(run: &Run) -> Vec<&str> {
    let found: BTreeSet<&str> = run.metrics.keys().map(|(s, _)| s.as_str()).collect();
    let mut found: Vec<&str> = found.into_iter().collect();
    let place = |s: &&str| run.summary.stages.iter().position(|r| r.name == **s).unwrap_or(usize::MAX);
    found.sort_by_key(place);
    found
}

fn points<'a>(run: &'a Run, stage: &str, metric: &str) -> Option<&'a [(f64, f64)]> {
    let found = run.metrics.get(&(stage.to_owned(), metric.to_owned()))?;
    (found.len() > 1).then_some(found.as_slice())
}

/// Learning curves of the first run; a quantity that other runs have too is drawn for all of them.
pub(super) fn curves(runs: &[Run]) -> String {
    let Some(run) = runs.first() else { return String::new() };
    let mut content = String::new();
    for stage in stages(run) {
        let of_stage: Vec<&str> = run
            .metrics
            .keys()
            .filter(|(s, m)| s == stage && points(run, s, m).is_some())
            .map(|(_, m)| m.as_str())
            .collect();
        let alone = |metric: &str| {
            let all = runs
                .iter()
                .filter_map(|r| Some(Curve { label: &r.label, points: points(r, stage, metric)? }));
            plot::curves(title(metric), &all.collect::<Vec<_>>())
        };
        let mut drawn: BTreeSet<&str> = BTreeSet::new();
        let (mut main, mut rest) = (String::new(), String::new());
        for metric in FIRST.iter().filter(|m| of_stage.contains(m)) {
            main += &alone(metric);
            drawn.insert(metric);
        }
        for (heading, metrics) in TOGETHER {
            let found: Vec<&str> = metrics.iter().copied().filter(|m| of_stage.contains(m)).collect();
            let curve = |m: &&'static str| Some(Curve { label: title(m), points: points(run, stage, m)? });
            match found.as_slice() {
                [] => continue,
                [one] => main += &alone(one),
                _ => main += &plot::curves(heading, &metrics.iter().filter_map(curve).collect::<Vec<_>>()),
            }
            drawn.extend(found);
        }
        let others: Vec<&&str> = of_stage.iter().filter(|m| !drawn.contains(**m)).collect();
        for metric in &others {
            rest += &alone(metric);
        }
        if main.is_empty() && rest.is_empty() {
            continue;
        }
        content += &format!("<h3>{}</h3><div class=grid>{main}</div>", escape(stage));
        if !rest.is_empty() {
            content += &format!(
                "<details class=noprint><summary>{} more of {}</summary><div class=grid>{rest}</div></details>",
                others.len(),
                escape(stage)
            );
        }
    }
    if content.is_empty() {
        return content;
    }
    let lead = if runs.len() > 1 {
        "Thin: every step. Bold: running mean. Quantities that stand alone are drawn for all runs."
    } else {
        "Thin: every step. Bold: running mean."
    };
    section("learning", "Learning curves", lead, &content)
}

/// What the monitors of reinforcement watched, where it stood at the end, and every alarm.
pub(super) fn monitors(run: &Run) -> String {
    let mut rows = Vec::new();
    for stage in stages(run) {
        for monitor in Monitor::defaults() {
            let Some(points) = points(run, stage, &monitor.metric) else { continue };
            // Two stretches that share no point, however short the run.
            let window = monitor.window.clamp(1, points.len() / 2);
            let mean = |p: &[(f64, f64)]| p.iter().map(|x| x.1).sum::<f64>() / p.len().max(1) as f64;
            let alarms = run.alarms.iter().filter(|a| a.0 == stage && a.2 == monitor.metric).count();
            let state = match alarms {
                0 => "<span class=\"pill good\">quiet</span>".to_owned(),
                n => format!("<span class=\"pill bad\">{n} alarm{}</span>", if n > 1 { "s" } else { "" }),
            };
            rows.push(vec![
                name(stage),
                name(&monitor.metric),
                short(mean(&points[..window])),
                short(mean(&points[points.len() - window..])),
                format!("{window} <span class=dim>of {}</span>", points.len()),
                rule(monitor.rule),
                state,
            ]);
        }
    }
    let cards: String = run
        .alarms
        .iter()
        .take(50)
        .map(|(stage, step, monitor, message)| {
            format!(
                "<div class=\"card alarm\"><b>{}</b> <span class=dim>{} step {step}</span><br>{}</div>",
                name(monitor),
                name(stage),
                prose(message)
            )
        })
        .collect();
    let more = run.alarms.len().saturating_sub(50);
    let more =
        if more > 0 { format!("<p class=dim>and {more} more in metrics.jsonl</p>") } else { String::new() };
    let watched = if rows.is_empty() {
        String::new()
    } else {
        table(&["Stage", "Watched", "At first", "At the end", "Mean of", "Alarm when the mean", ""], &rows)
    };
    let alarms = if run.alarms.is_empty() {
        "<p>No alarm.</p>".to_owned()
    } else {
        format!("<div class=grid>{cards}</div>{more}")
    };
    if watched.is_empty() && run.metrics.is_empty() {
        return String::new();
    }
    section("monitors", "What the monitors saw", "", &(alarms + &watched))
}

fn rule(rule: Rule) -> String {
    match rule {
        Rule::Above(x) => format!("is above {}", short(x)),
        Rule::Below(x) => format!("is below {}", short(x)),
        Rule::RisenBy(x) => format!("rose by {}", short(x)),
        Rule::FallenBy(x) => format!("fell by {}", short(x)),
    }
}
