//! What the ways of answering score: the headline, what follows from it, groups, and comparisons item by item.

use std::collections::{BTreeSet, HashMap};

use ocelli_data::run::{Arm, ItemResult};
use ocelli_eval::stats;

use super::page::{escape, prose, section, table};
use super::plot::{self, IntervalRow};
use super::read::Run;

/// Most groups that are drawn.
const MAX_GROUPS: usize = 24;

type Answered<'a> = (&'a Arm, &'a Vec<ItemResult>);

fn percent(x: f64) -> String {
    format!("{:.1}", x * 100.0)
}

/// The name of an arm for people.
pub(super) fn arm_name(arm: &Arm) -> String {
    format!("{}{}", arm.label, if arm.tools { " + tools" } else { "" })
}

/// The arms of each evaluation, in order.
fn sets(run: &Run) -> Vec<(&str, Vec<Answered<'_>>)> {
    let mut sets: Vec<(&str, Vec<Answered<'_>>)> = Vec::new();
    for (arm, items) in run.arms() {
        match sets.iter_mut().find(|(s, _)| *s == arm.set) {
            Some((_, arms)) => arms.push((arm, items)),
            None => sets.push((&arm.set, vec![(arm, items)])),
        }
    }
    sets
}

/// What guessing scores on these items, where every one of them tells.
fn guessing<'a>(items: impl Iterator<Item = &'a ItemResult>) -> Option<f64> {
    let known: Option<Vec<f64>> = items.map(|i| i.chance).collect();
    known.filter(|k| !k.is_empty()).map(|k| k.iter().sum::<f64>() / k.len() as f64)
}

/// Title, what was done, and accuracy of every arm with its interval.
pub(super) fn headline(run: &Run) -> String {
    let alarms = match run.alarms.len() {
        0 => "<li>no alarm</li>".to_owned(),
        1 => "<li class=bad>1 alarm</li>".to_owned(),
        n => format!("<li class=bad>{n} alarms</li>"),
    };
    let questions: usize = sets(run).iter().filter_map(|(_, arms)| arms.first().map(|(_, i)| i.len())).sum();
    let mut chips = Vec::new();
    if questions > 0 {
        chips.push(format!("<li>{questions} held-out questions</li>"));
    }
    let stages = &run.summary.stages;
    let seconds: f64 = stages.iter().map(|s| s.seconds).sum();
    if !stages.is_empty() {
        let s = if stages.len() == 1 { "" } else { "s" };
        chips.push(format!("<li>{} stage{s} in {}</li>", stages.len(), clock(seconds)));
    }
    chips.push(format!("<li>seed {}</li>", run.summary.seed));
    let unfinished = run.summary.unfinished.as_ref().map_or_else(String::new, |stage| {
        format!(
            "<div class=\"card alarm\"><b>This run is not finished.</b> <code>{}</code> was under way when this page was made; \
             what stands here is what was there then. The command that began the run goes on with it.</div>",
            escape(stage)
        )
    });
    let mut out = format!(
        "<header><p class=kicker>Ocelli · run report</p><h1>{}</h1><p class=lead>{}</p>\
         <ul class=chips>{}{alarms}</ul></header>{unfinished}",
        escape(&run.summary.name),
        prose(&run.summary.about),
        chips.concat(),
    );
    for (set, arms) in sets(run) {
        let row = |(arm, items): &Answered<'_>| {
            let e = Run::accuracy(items.iter())?;
            let label = arm_name(arm);
            Some(IntervalRow {
                label,
                value: e.mean,
                lo: e.interval.low,
                hi: e.interval.high,
                colour: usize::from(arm.tools),
            })
        };
        let rows: Vec<IntervalRow> = arms.iter().filter_map(row).collect();
        let n = arms.first().map_or(0, |(_, i)| i.len());
        let chance = arms.first().and_then(|(_, i)| guessing(i.iter())).or(run.summary.chance);
        let dashed =
            chance.map_or_else(String::new, |c| format!(" Dashed line: guessing, {} %.", percent(c)));
        let tools = if arms.iter().any(|(a, _)| a.tools) {
            "<p class=legend><span class=key style=\"background:var(--a)\"></span>without tools \
             <span class=key style=\"background:var(--b)\"></span>with tools</p>"
        } else {
            ""
        };
        let on = if set.is_empty() { String::new() } else { format!(" · {}", escape(set)) };
        out += &format!(
            "<div class=card><h3>Accuracy in %{on}</h3>{tools}{}<p class=dim>{n} questions; bands are 95 % intervals.{dashed}</p></div>",
            plot::intervals(&rows, chance),
        );
    }
    out + &findings(run)
}

/// Time for people.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Two columns of scores on the items that both answered.
struct Paired {
    n: usize,
    difference: f64,
    low: f64,
    high: f64,
    only: [u64; 2],
    p: f64,
}

impl Paired {
    fn of(a: &[ItemResult], b: &[ItemResult]) -> Option<Self> {
        let by_id: HashMap<&str, f64> = b.iter().map(|i| (i.id.as_str(), i.score)).collect();
        let (x, y): (Vec<f64>, Vec<f64>) =
            a.iter().filter_map(|i| Some((i.score, *by_id.get(i.id.as_str())?))).unzip();
        let right = |v: &[f64]| v.iter().map(|s| *s >= 1.0).collect::<Vec<_>>();
        let d = stats::paired_difference::<usize>(&x, &y, None, 0.95).ok()?;
        let t = stats::mcnemar(&right(&x), &right(&y)).ok()?;
        let (low, high) = (d.interval.low, d.interval.high);
        Some(Self { n: x.len(), difference: d.difference, low, high, only: [t.only_a, t.only_b], p: t.p })
    }

    /// A pill: what the interval allows to say.
    fn verdict(&self) -> &'static str {
        match (self.low > 0.0, self.high < 0.0) {
            (true, _) => "<span class=\"pill good\">better</span>",
            (_, true) => "<span class=\"pill bad\">worse</span>",
            _ => "<span class=pill>no difference shown</span>",
        }
    }

    fn p(&self) -> String {
        if self.p < 0.001 { "&lt; 0.001".to_owned() } else { format!("{:.3}", self.p) }
    }

    fn points(&self) -> String {
        format!("{:+.1}", self.difference * 100.0)
    }

    /// For a sentence: points with their interval, and what that allows to say where it is little.
    fn sentence(&self) -> String {
        if self.only == [0, 0] {
            return "the same on every question".to_owned();
        }
        let shown = if self.low > 0.0 || self.high < 0.0 { "" } else { ", no difference shown" };
        format!("{} points ({}; p {}{shown})", self.points(), self.interval(), self.p())
    }

    fn interval(&self) -> String {
        format!("{:+.1} to {:+.1}", self.low * 100.0, self.high * 100.0)
    }
}

/// Which arm answers best, or which ones do alike, and what each trained model gained over the one that it began from.
fn findings(run: &Run) -> String {
    let mut lines = Vec::new();
    for (set, arms) in sets(run) {
        let on = if set.is_empty() { String::new() } else { format!("{}: ", escape(set)) };
        lines.extend(best(&arms).map(|line| format!("<li>{on}{line}.</li>")));
        let mut labels: Vec<&str> = Vec::new();
        for (arm, _) in arms.iter().filter(|(a, _)| before(a, &arms).is_some()) {
            if !labels.contains(&arm.label.as_str()) {
                labels.push(&arm.label);
            }
        }
        lines.extend(labels.iter().map(|label| format!("<li>{on}{}.</li>", gained(label, &arms))));
    }
    if lines.is_empty() { String::new() } else { format!("<ul class=findings>{}</ul>", lines.concat()) }
}

/// The arm whose model this one's began from.
fn before<'a>(arm: &Arm, arms: &[Answered<'a>]) -> Option<Answered<'a>> {
    let wanted = arm.began_from.as_ref()?;
    arms.iter().find(|(a, _)| a.id == *wanted).copied()
}

/// Names as one says them: `a`, `a and b`, `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// The best of the arms; where several have the same accuracy, all of them; else how far behind the next one is.
fn best(arms: &[Answered<'_>]) -> Option<String> {
    let known: Vec<_> =
        arms.iter().filter_map(|(arm, items)| Some((*arm, *items, Run::accuracy(items.iter())?))).collect();
    let top = known.iter().map(|(_, _, e)| e.mean).max_by(f64::total_cmp)?;
    let (first, others): (Vec<_>, Vec<_>) = known.into_iter().partition(|(_, _, e)| top - e.mean < 1e-12);
    let names: Vec<String> = first.iter().map(|(a, ..)| format!("<b>{}</b>", escape(&arm_name(a)))).collect();
    let (_, items, e) = first.first()?;
    let does = if first.len() == 1 { "does best" } else { "do equally well" };
    let each = if first.len() == 1 { "" } else { " each" };
    let mut line = format!(
        "{} {does} with {} %{each} (95 % interval {} to {})",
        listed(&names),
        percent(e.mean),
        percent(e.interval.low),
        percent(e.interval.high)
    );
    let next = others.iter().reduce(|a, b| if b.2.mean > a.2.mean { b } else { a });
    let alike = |mean: f64| others.iter().filter(|o| mean - o.2.mean < 1e-12).count();
    let more = match next.map_or(0, |n| alike(n.2.mean)) {
        0 | 1 => String::new(),
        n => format!(" ({} more have its accuracy)", n - 1),
    };
    if let Some((arm, d)) = next.and_then(|(arm, theirs, _)| Some((arm, Paired::of(items, theirs)?))) {
        line += &format!("; against the next, {}{more}: {}", escape(&arm_name(arm)), d.sentence());
    }
    Some(line)
}

/// What the model of this label gained over the one that it began from, in each way of asking.
fn gained(label: &str, arms: &[Answered<'_>]) -> String {
    let mut against = String::new();
    let mut ways = Vec::new();
    for (arm, items) in arms.iter().filter(|(a, _)| a.label == label) {
        let Some((base, theirs)) = before(arm, arms) else { continue };
        against.clone_from(&base.label);
        let way = if arm.tools { "with tools" } else { "without tools" };
        ways.extend(Paired::of(items, theirs).map(|d| format!("{way} {}", d.sentence())));
    }
    let told = if ways.is_empty() { "no question answered by both".to_owned() } else { ways.join("; ") };
    format!("<b>{}</b>, which began from {}: {told}", escape(label), escape(&against))
}

fn row(what: &str, a: &[ItemResult], b: &[ItemResult]) -> Vec<String> {
    let Some(d) = Paired::of(a, b) else {
        return vec![
            escape(what),
            "no item answered by both".into(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ];
    };
    vec![
        escape(what),
        d.verdict().to_owned(),
        d.points(),
        d.interval(),
        format!("{} / {}", d.only[0], d.only[1]),
        format!("{} <span class=dim>n {}</span>", d.p(), d.n),
    ]
}

const COLUMNS: [&str; 6] = ["", "", "Points", "95 % interval", "Only first / only second right", "p"];

/// Paired comparison of the first run with the others, arm by arm, on the items that they share.
pub(super) fn comparison(runs: &[Run]) -> String {
    let mut content = String::new();
    let Some((first, others)) = runs.split_first() else { return content };
    if runs.iter().all(|r| r.summary.arms.is_empty()) {
        // Of trainings alone there are curves to compare and no answers.
        return content;
    }
    for other in others {
        let mut rows = Vec::new();
        for (arm, items) in first.arms() {
            let Some((_, theirs)) = other.arms().find(|(a, _)| a.id == arm.id) else { continue };
            let mut cells = row(&arm_name(arm), items, theirs);
            let mean =
                |i: &[ItemResult]| Run::accuracy(i.iter()).map_or_else(String::new, |e| percent(e.mean));
            cells.insert(1, format!("{} <span class=dim>vs {}</span>", mean(items), mean(theirs)));
            rows.push(cells);
        }
        content += &format!("<h3>{} against {}</h3>", escape(&first.label), escape(&other.label));
        content += &if rows.is_empty() {
            "<p>The runs have no arm in common.</p>".to_owned()
        } else {
            let columns =
                ["", "Accuracy, %", "", "Points", "95 % interval", "Only first / only second right", "p"];
            table(&columns, &rows)
        };
    }
    let lead = "Differences are first minus second, on the questions that both answered; intervals are paired, p is McNemar's \
                exact test. One run of each says nothing about other seeds.";
    section("compare", "Comparison of runs", lead, &content)
}

/// What each stage of learning adds, and what tools add, on the same questions.
pub(super) fn steps(run: &Run) -> String {
    let (mut learned, mut with_tools, mut over_first) = (Vec::new(), Vec::new(), String::new());
    for (_, arms) in sets(run) {
        for tools in [false, true] {
            for (arm, items) in arms.iter().filter(|(a, _)| a.tools == tools) {
                let Some((base, theirs)) = before(arm, &arms) else { continue };
                learned.push(row(&format!("{} vs {}", arm_name(arm), arm_name(base)), items, theirs));
            }
        }
        for (arm, items) in arms.iter().filter(|(a, _)| a.tools) {
            if let Some((_, without)) = arms.iter().find(|(a, _)| !a.tools && a.label == arm.label) {
                with_tools.push(row(&arm.label, items, without));
            }
        }
        if let Some(((first, theirs), others)) = arms.split_first() {
            let rows: Vec<_> = others.iter().map(|(arm, items)| row(&arm_name(arm), items, theirs)).collect();
            if !rows.is_empty() {
                let heading = format!("Everything against {}", escape(&arm_name(first)));
                over_first += &format!(
                    "<details class=noprint><summary>{heading}</summary>{}</details>",
                    table(&COLUMNS, &rows)
                );
            }
        }
    }
    let mut content = String::new();
    for (heading, rows) in [
        ("Each model against the one that it began from", learned),
        ("With tools against without", with_tools),
    ] {
        if !rows.is_empty() {
            content += &format!("<h3>{heading}</h3>{}", table(&COLUMNS, &rows));
        }
    }
    content += &over_first;
    if content.is_empty() {
        return content;
    }
    let lead = "Paired on the same questions: intervals of the mean difference, McNemar's exact test.";
    section("steps", "What each step adds", lead, &content)
}

/// Accuracy by group.
pub(super) fn groups(run: &Run) -> String {
    let mut content = String::new();
    for (set, arms) in sets(run) {
        let of_set = || arms.iter().flat_map(|(_, items)| items.iter());
        let names: BTreeSet<&str> = of_set().map(|i| i.group.as_str()).filter(|g| !g.is_empty()).collect();
        if names.len() < 2 {
            continue;
        }
        let guess = arms.first().is_some_and(|(_, i)| guessing(i.iter()).is_some());
        let mut head = vec!["Group".to_owned(), "n".to_owned()];
        head.extend(guess.then(|| "Guessing".to_owned()));
        head.extend(arms.iter().map(|(a, _)| escape(&arm_name(a))));
        let rows: Vec<Vec<String>> =
            names.iter().take(MAX_GROUPS).map(|g| group_row(g, guess, &arms)).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let more = names.len().saturating_sub(MAX_GROUPS);
        let more =
            if more > 0 { format!("<p class=dim>and {more} more in items/</p>") } else { String::new() };
        let on = if set.is_empty() { String::new() } else { format!("<h3>{}</h3>", escape(set)) };
        content += &format!("{on}{}{more}", table(&head, &rows));
    }
    if content.is_empty() {
        return content;
    }
    section("groups", "By kind of question", "Accuracy in %, with 95 % intervals.", &content)
}

fn group_row(group: &str, guess: bool, arms: &[Answered<'_>]) -> Vec<String> {
    let of = |items: &'_ [ItemResult]| -> Vec<ItemResult> {
        items.iter().filter(|i| i.group == group).cloned().collect()
    };
    let first = arms.first().map(|(_, i)| of(i)).unwrap_or_default();
    let mut cells = vec![escape(group), first.len().to_string()];
    if guess {
        cells.push(guessing(first.iter()).map_or_else(String::new, percent));
    }
    cells.extend(arms.iter().map(|(arm, items)| {
        Run::accuracy(of(items).iter()).map_or_else(String::new, |e| {
            let colour = plot::COLOURS[usize::from(arm.tools)];
            format!(
                "<div class=cell><b>{}</b><br><span class=dim>{}–{}</span><i style=\"width:{:.1}%;background:{colour}\"></i></div>",
                percent(e.mean),
                percent(e.interval.low),
                percent(e.interval.high),
                e.mean * 100.0
            )
        })
    }));
    cells
}
