//! The dialogue of one trajectory as HTML: one block per message, calls with their arguments, results and times.

use std::fmt::Write as _;

use ocelli_data::{Message, Part, Role, ToolUse, Trajectory};
use serde_json::Value;

use super::Images;
use super::escape::text;

/// Longest text of one part that is shown whole, in characters.
const LONG: usize = 12_000;

pub(super) fn dialogue(out: &mut String, t: &Trajectory, images: &mut Images<'_>) {
    let slowest = t.tools.iter().map(|u| u.millis).fold(1.0, f64::max);
    let mut turn = 0;
    for message in &t.messages {
        let (class, who) = match message.role {
            Role::System => ("system", "system"),
            Role::User => ("user", "user"),
            Role::Assistant => ("assistant", "policy"),
            Role::Tool => ("tool", "tool"),
        };
        let name = if message.name.is_empty() { String::new() } else { format!(" {}", text(&message.name)) };
        if message.role == Role::System {
            let _ = write!(out, "<details class=\"turn system\"><summary>{who}</summary>");
            parts(out, message, images);
            out.push_str("</details>");
            continue;
        }
        let _ = write!(out, "<section class=\"turn {class}\"><h4>{who}{name}</h4>");
        parts(out, message, images);
        if message.role == Role::Assistant {
            for used in t.tools.iter().filter(|u| u.turn == turn) {
                call(out, used, slowest);
            }
            turn += 1;
        }
        out.push_str("</section>");
    }
}

fn parts(out: &mut String, message: &Message, images: &mut Images<'_>) {
    for part in &message.content {
        match part {
            Part::Text { text: written } if written.trim().is_empty() => {}
            Part::Text { text: written } => {
                let cut: String = written.chars().take(LONG).collect();
                let _ = write!(out, "<div class=\"text\">{}</div>", text(cut.trim()));
                let left = written.chars().count().saturating_sub(LONG);
                if left > 0 {
                    let _ = write!(out, "<p class=\"note\">… {left} more characters</p>");
                }
            }
            Part::Image { hash } if images.embed(*hash) => {
                let short = hash.short();
                let _ = write!(out, "<figure><img data-i=\"{short}\" alt=\"image {short}\"></figure>");
            }
            Part::Image { hash } => {
                let _ = write!(out, "<p class=\"note\">image {} is not on this page</p>", hash.short());
            }
        }
    }
}

fn call(out: &mut String, used: &ToolUse, slowest: f64) {
    let name = if used.call.name.is_empty() { "unreadable call" } else { &used.call.name };
    let class = if used.result.is_error { "call bad" } else { "call" };
    let _ = write!(out, "<div class=\"{class}\"><code><b>{}</b>", text(name));
    let arguments: Vec<String> = used.call.arguments.iter().map(|(k, v)| argument(k, v)).collect();
    let _ = write!(out, "({})</code>", arguments.join(", "));
    // Bars are relative to the slowest call of the trajectory, on a root scale so that quick ones stay visible.
    let width = (used.millis / slowest).clamp(0.0, 1.0).sqrt() * 100.0;
    let verdict = if used.result.is_error { "failed, " } else { "" };
    // A call that waited less than a hundredth of a second did not wait, for people.
    let waited = match used.waited_ms >= 10.0 {
        true => format!(" (waited {})", duration(used.waited_ms)),
        false => String::new(),
    };
    let _ = write!(
        out,
        "<span class=\"bar\"><i style=\"width:{width:.0}%\"></i></span><span class=\"ms\">{verdict}{}{waited}</span></div>",
        duration(used.millis)
    );
}

fn argument(key: &str, value: &Value) -> String {
    let shown: String = value.to_string().chars().take(400).collect();
    format!("<i>{}</i>={}", text(key), text(&shown))
}

/// Milliseconds for people.
pub(super) fn duration(millis: f64) -> String {
    match millis {
        m if m < 1.0 => format!("{:.0} µs", m * 1e3),
        m if m < 10.0 => format!("{m:.1} ms"),
        m if m < 1000.0 => format!("{m:.0} ms"),
        m => format!("{:.1} s", m / 1e3),
    }
}
