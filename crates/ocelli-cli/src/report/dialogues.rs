//! Sample trajectories with their pictures, each marked right or wrong, with the answer that was read and the right one.

use std::collections::HashMap;

use ocelli_data::run::ItemResult;
use ocelli_data::{Message, Part, Role, Trajectory};

use super::arms::arm_name;
use super::page::{escape, section};
use super::plot::short;
use super::read::Run;

/// All samples of the run; the first two are open.
pub(super) fn samples(run: &Run) -> String {
    if run.samples.is_empty() {
        return String::new();
    }
    // Samples are of the last arm of an evaluation: what its items say of the same question goes with them.
    let said: HashMap<&str, &ItemResult> =
        run.arms().flat_map(|(_, items)| items.iter()).map(|i| (i.id.as_str(), i)).collect();
    let shown: String = run
        .samples
        .iter()
        .enumerate()
        .map(|(i, t)| sample(run, t, said.get(t.sample_id.as_str()).copied(), i < 2))
        .collect();
    let lead = match run.arms().last() {
        Some((arm, _)) => {
            format!("Answers of {}, right and wrong ones in turn, as the model wrote them.", arm_name(arm))
        }
        None => "Rollouts of the first question of a step, the latest steps first, as the model wrote them."
            .to_owned(),
    };
    section("samples", "Sample trajectories", &lead, &format!("<div class=samples>{shown}</div>"))
}

fn sample(run: &Run, t: &Trajectory, item: Option<&ItemResult>, open: bool) -> String {
    let accuracy = t.score("accuracy");
    let mark = match accuracy.and_then(|s| s.value) {
        Some(v) if v >= 1.0 => "<span class=\"pill good\">right</span>",
        Some(_) => "<span class=\"pill bad\">wrong</span>",
        None => "<span class=pill>unscored</span>",
    };
    let read = accuracy.and_then(|s| s.answer.clone()).filter(|a| !a.is_empty());
    let read = read.map_or_else(|| "no answer".to_owned(), |a| format!("answered <b>{}</b>", escape(&a)));
    let gold = item
        .and_then(|i| i.expected.as_ref())
        .map_or_else(String::new, |g| format!(", right: <b>{}</b>", escape(g)));
    let others: String = t
        .scores
        .iter()
        .filter(|(name, _)| name != "accuracy")
        .map(|(name, s)| {
            format!(", {} {}", escape(name), s.value.map_or_else(|| "unscored".to_owned(), short))
        })
        .collect();
    let calls = match t.tools.len() {
        0 => String::new(),
        1 => ", 1 tool call".to_owned(),
        n => format!(", {n} tool calls"),
    };
    let ended = if t.status == ocelli_data::Status::Answered {
        String::new()
    } else {
        format!(", ended: {:?}", t.status)
    };
    let turns: String = t.messages.iter().map(|m| turn(run, m)).collect();
    let open = if open { " open" } else { "" };
    format!(
        "<details class=card{open}><summary>{mark} <span class=id>{}</span> <span class=dim>{read}{gold}{calls}{others}{ended}</span></summary>{turns}</details>",
        escape(&t.sample_id),
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
                content += &match run.picture(*hash) {
                    // Small pictures are shown in their pixels, as the model meets them.
                    Some(p) => format!(
                        "<img alt=\"picture {}\" class={} width={} src=\"{}\">",
                        hash.short(),
                        if p.width < 200 { "pixels" } else { "whole" },
                        if p.width < 200 { 192 } else { p.width.min(640) },
                        p.uri
                    ),
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
