//! What the ways of answering score: the headline, what follows from it, groups, and comparisons item by item.

use std::collections::{BTreeSet, HashMap};

use ocelli_data::run::{Arm, ItemResult};
use ocelli_eval::stats;

use super::page::{escape, section, table};
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
    let seconds: f64 = run.summary.stages.iter().map(|s| s.seconds).sum();
    let alarms = match run.alarms.len() {
        0 => "<li>no alarm</li>".to_owned(),
        1 => "<li class=bad>1 alarm</li>".to_owned(),
        n => format!("<li class=bad>{n} alarms</li>"),
    };
    let questions: usize = sets(run).iter().filter_map(|(_, arms)| arms.first().map(|(_, i)| i.len())).sum();
    let mut out = format!(
        "<header><p class=kicker>Ocelli · run report</p><h1>{}</h1><p class=lead>{}</p>\
         <ul class=chips><li>{questions} held-out questions</li><li>{} stages in {}</li><li>seed {}</li>{alarms}</ul></header>",
        escape(&run.summary.name),
        escape(&run.summary.about),
        run.summary.stages.len(),
        clock(seconds),
        run.summary.seed,
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

    fn interval(&self) -> String {
        format!("{:+.1} to {:+.1}", self.low * 100.0, self.high * 100.0)
    }
}

/// Two or three sentences: the best arm, and what each trained arm gained over the one before it.
fn findings(run: &Run) -> String {
    let mut lines = Vec::new();
    for (set, arms) in sets(run) {
        let best = arms
            .iter()
            .filter_map(|(arm, items)| Some((*arm, *items, Run::accuracy(items.iter())?)))
            .reduce(|a, b| if b.2.mean > a.2.mean { b } else { a });
        let Some((arm, items, e)) = best else { continue };
        let on = if set.is_empty() { String::new() } else { format!("{}: ", escape(set)) };
        let mut line = format!(
            "{on}<b>{}</b> does best with {} % (95 % interval {} to {})",
            escape(&arm_name(arm)),
            percent(e.mean),
            percent(e.interval.low),
            percent(e.interval.high)
        );
        let first = arms.first().filter(|(a, _)| a.id != arm.id);
        if let Some((base, d)) = first.and_then(|(b, theirs)| Some((*b, Paired::of(items, theirs)?))) {
            line += &format!(
                ", {} points against {} ({}; p {})",
                d.points(),
                escape(&arm_name(base)),
                d.interval(),
                d.p()
            );
        }
        lines.push(format!("<li>{line}.</li>"));
    }
    if lines.is_empty() { String::new() } else { format!("<ul class=findings>{}</ul>", lines.concat()) }
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
    let (mut learned, mut with_tools) = (Vec::new(), Vec::new());
    for (_, arms) in sets(run) {
        for tools in [false, true] {
            let alike: Vec<&Answered<'_>> = arms.iter().filter(|(a, _)| a.tools == tools).collect();
            for pair in alike.windows(2) {
                let ((before, theirs), (after, ours)) = (pair[0], pair[1]);
                learned.push(row(&format!("{} vs {}", arm_name(after), arm_name(before)), ours, theirs));
            }
        }
        for (arm, items) in arms.iter().filter(|(a, _)| a.tools) {
            if let Some((_, without)) = arms.iter().find(|(a, _)| !a.tools && a.label == arm.label) {
                with_tools.push(row(&arm.label, items, without));
            }
        }
    }
    let mut content = String::new();
    for (heading, rows) in
        [("Each against the one above it", learned), ("With tools against without", with_tools)]
    {
        if !rows.is_empty() {
            content += &format!("<h3>{heading}</h3>{}", table(&COLUMNS, &rows));
        }
    }
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
