//! Questions about charts with their targets and tool plans.
//!
//! A plan names pixel coordinates of the truth: `read_axis` gives the mapping from pixels to values, `measure` reads
//! one value, `calculate` combines them.

use ocelli_data::Target;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::charts::spec::{Chart, Style};
use crate::dice::Dice;
use crate::item::Plan;
use crate::truth::{AxisName, Mark, Truth};

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Skill {
    /// The number behind one mark.
    Value,
    /// Difference of two numbers.
    Difference,
    /// Which is largest or smallest.
    Extremum,
    /// How many lie above a threshold, or how many there are.
    Count,
    /// Whether one is larger than another.
    Compare,
    /// Whether a line rises or falls from its first to its last point.
    Trend,
}

impl Skill {
    /// All six.
    pub const ALL: [Self; 6] =
        [Self::Value, Self::Difference, Self::Extremum, Self::Count, Self::Compare, Self::Trend];

    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Difference => "difference",
            Self::Extremum => "extremum",
            Self::Count => "count",
            Self::Compare => "compare",
            Self::Trend => "trend",
        }
    }

    /// Whether charts of a style can be asked this.
    pub(super) fn fits(self, style: Style) -> bool {
        self != Self::Trend || style == Style::Line
    }
}

pub(super) struct Asked {
    pub(super) skill: Skill,
    pub(super) question: String,
    pub(super) target: Target,
    pub(super) plan: Plan,
}

/// One number of the chart: where it stands in the data and in the picture.
struct Entry<'a> {
    series: usize,
    name: String,
    value: i64,
    mark: &'a Mark,
}

fn number(chart: &Chart, value: i64) -> Target {
    // Counting a picture's pixels is exact in compact charts of round numbers; in others a reading within 5 % is right
    // (relaxed accuracy of ChartQA).
    let exact = chart.compact && !chart.fine;
    Target::Number { value: chart.real(value), tolerance: if exact { 0.0 } else { 0.05 } }
}

fn text(answer: &str) -> Target {
    Target::Text { accepted: vec![answer.to_owned()] }
}

/// The plan that reads the given marks: the axis once, then each mark.
fn reading(chart: &Chart, marks: &[(&str, &Mark)]) -> Plan {
    let mut plan = Plan::default();
    if chart.style == Style::Pie {
        for (name, mark) in marks {
            let (x, y) = mark.at;
            // Sectors of a compact chart are called by their colour, and the tool finds them by it.
            let args = if chart.compact {
                json!({"image": "img_0", "what": "share", "label": mark.colour})
            } else {
                json!({"image": "img_0", "x": x.round(), "y": y.round(), "what": "share"})
            };
            plan = plan.call(&format!("Measure the share of {name}."), "measure", args);
        }
        return plan;
    }
    if chart.by_colour && !chart.compact {
        // The tool finds the bar by its colour and reads the axis by itself.
        for (name, mark) in marks {
            let args = json!({"image": "img_0", "what": "bar", "label": mark.colour});
            plan = plan.call(&format!("Measure {name}."), "measure", args);
        }
        return plan;
    }
    plan = plan.call("Read the scale of the y axis.", "read_axis", json!({"image": "img_0", "axis": "y"}));
    for (name, mark) in marks {
        let (x, y) = (mark.at.0.round(), (mark.at.1 * 2.0).round() / 2.0);
        let stacked = chart.style == Style::Stacked;
        let args = if stacked {
            json!({"image": "img_0", "x": x, "y": ((mark.rect.y0 + mark.rect.y1) / 2.0).round(), "what": "bar"})
        } else {
            json!({"image": "img_0", "x": x, "y": y, "what": "value"})
        };
        plan = plan.call(&format!("Measure {name}."), "measure", args);
    }
    plan
}

/// A question of the given skill, or `None` where this draw cannot be asked it: an order or a difference needs two different
/// values, an extremum a single winner. Another question in its place would be data that nobody wanted.
pub(super) fn ask(dice: &mut Dice, chart: &Chart, truth: &Truth, skill: Skill) -> Option<Asked> {
    let entries = entries(chart, truth);
    // The pool of marks that a question may name: coloured points in scatter charts, one series elsewhere.
    let series = dice.below(chart.series.len() as u32) as usize;
    let pool: Vec<&Entry<'_>> = if chart.style == Style::Scatter {
        entries.iter().filter(|e| chart.series[e.series].values.len() == 1).collect()
    } else {
        entries.iter().filter(|e| e.series == series).collect()
    };
    match skill {
        Skill::Difference => difference(dice, chart, &pool),
        Skill::Extremum => extremum(dice, chart, &pool),
        Skill::Compare => compare(dice, chart, &pool),
        Skill::Count => count(dice, chart, truth, &entries, &pool),
        Skill::Trend => trend(chart, &pool),
        Skill::Value => Some(value(dice, chart, &pool)),
    }
}

fn entries<'a>(chart: &Chart, truth: &'a Truth) -> Vec<Entry<'a>> {
    let mut marks: Vec<&Mark> = truth.marks.iter().collect();
    let mut out = Vec::new();
    for (s, series) in chart.series.iter().enumerate() {
        for (c, &value) in series.values.iter().enumerate() {
            let found = marks.iter().position(|m| {
                let of_series = chart.series.len() == 1 || m.series == series.name;
                let of_category = chart.style == Style::Scatter || m.category == chart.categories[c];
                of_series && of_category
            });
            if let Some(i) = found {
                out.push(Entry { series: s, name: chart.mark_name(s, c), value, mark: marks.remove(i) });
            }
        }
    }
    out
}

fn unit(chart: &Chart) -> &'static str {
    match chart.style {
        Style::Pie => "What percentage of the whole is",
        Style::Scatter => "What is the y value of",
        _ => "What is the value of",
    }
}

fn value(dice: &mut Dice, chart: &Chart, pool: &[&Entry<'_>]) -> Asked {
    let e = *dice.pick(pool);
    let answer = chart.show(e.value);
    let mut plan = reading(chart, &[(&e.name, e.mark)]);
    plan.conclusion = format!("The value of {} is {answer}.", e.name);
    plan.answer = answer;
    Asked {
        skill: Skill::Value,
        question: format!("{} {}?", unit(chart), e.name),
        target: number(chart, e.value),
        plan,
    }
}

/// Two entries of different value, the larger first.
fn two<'a, 'b>(dice: &mut Dice, pool: &[&'b Entry<'a>]) -> Option<(&'b Entry<'a>, &'b Entry<'a>)> {
    let picked = dice.sample(pool, pool.len());
    let first = *picked.first()?;
    let second = *picked.iter().find(|e| e.value != first.value)?;
    Some(if first.value > second.value { (first, second) } else { (second, first) })
}

fn difference(dice: &mut Dice, chart: &Chart, pool: &[&Entry<'_>]) -> Option<Asked> {
    let (hi, lo) = two(dice, pool)?;
    let answer = chart.show(hi.value - lo.value);
    let (a, b) = (chart.show(hi.value), chart.show(lo.value));
    let mut plan = reading(chart, &[(&hi.name, hi.mark), (&lo.name, lo.mark)]).call(
        "Subtract.",
        "calculate",
        json!({"expression": format!("{a} - {}", if lo.value < 0 { format!("({b})") } else { b.clone() })}),
    );
    plan.conclusion = format!("{} is {a} and {} is {b}, so the difference is {answer}.", hi.name, lo.name);
    plan.answer = answer;
    let question = format!("By how much is {} larger than {}?", hi.name, lo.name);
    Some(Asked { skill: Skill::Difference, question, target: number(chart, hi.value - lo.value), plan })
}

/// The last word of the name by which a compact chart calls a mark, or the plain name.
fn short_name(chart: &Chart, e: &Entry<'_>) -> String {
    match (chart.compact, chart.style) {
        (_, Style::Scatter) | (true, Style::Pie) => e.mark.colour.clone(),
        (_, Style::Bar) if chart.by_colour => e.mark.colour.clone(),
        _ => e.mark.category.clone(),
    }
}

fn extremum(dice: &mut Dice, chart: &Chart, pool: &[&Entry<'_>]) -> Option<Asked> {
    let largest = dice.chance(50);
    let best =
        if largest { pool.iter().map(|e| e.value).max()? } else { pool.iter().map(|e| e.value).min()? };
    let mut winners = pool.iter().filter(|e| e.value == best);
    let (winner, tie) = (*winners.next()?, winners.next().is_some());
    // The one that comes closest: who measures both has decided.
    let rest = pool.iter().filter(|e| e.value != best);
    let (false, Some(second)) = (tie, rest.min_by_key(|e| e.value.abs_diff(best))) else { return None };
    let kind = match (chart.style, chart.compact) {
        (Style::Scatter, _) => "coloured point",
        (Style::Pie, _) => "sector",
        (Style::Bar, _) if chart.by_colour => "bar",
        (Style::Line, true) => "point",
        (_, true) => "group",
        (_, false) => "category",
    };
    let of = match (chart.series.len(), chart.style) {
        (1, _) | (_, Style::Scatter) => String::new(),
        _ => format!(" of {}", chart.series[winner.series].name),
    };
    let answer = short_name(chart, winner);
    let extreme = if largest { "largest" } else { "smallest" };
    let which = if chart.style == Style::Scatter { "y value" } else { "value" };
    let question = format!("Which {kind} has the {extreme} {which}{of}?");
    let mut plan = reading(chart, &[(&winner.name, winner.mark), (&second.name, second.mark)]);
    plan.conclusion = format!(
        "{} is {} and {} is {}, so the {extreme} is {answer}.",
        winner.name,
        chart.show(winner.value),
        second.name,
        chart.show(second.value)
    );
    plan.answer = answer.clone();
    Some(Asked { skill: Skill::Extremum, question, target: text(&answer), plan })
}

fn compare(dice: &mut Dice, chart: &Chart, pool: &[&Entry<'_>]) -> Option<Asked> {
    let (hi, lo) = two(dice, pool)?;
    let (a, b, answer) = if dice.chance(50) { (hi, lo, "yes") } else { (lo, hi, "no") };
    let question = format!("Is {} larger than {}? Answer yes or no.", a.name, b.name);
    let mut plan = reading(chart, &[(&a.name, a.mark), (&b.name, b.mark)]);
    plan.conclusion =
        format!("{} is {} and {} is {}.", a.name, chart.show(a.value), b.name, chart.show(b.value));
    plan.answer = answer.into();
    Some(Asked { skill: Skill::Compare, question, target: text(answer), plan })
}

fn count(
    dice: &mut Dice,
    chart: &Chart,
    truth: &Truth,
    entries: &[Entry<'_>],
    pool: &[&Entry<'_>],
) -> Option<Asked> {
    let exact = |n: usize| Target::Number { value: n as f64, tolerance: 0.0 };
    if chart.style == Style::Pie || dice.chance(30) {
        let (n, what) = match chart.style {
            Style::Pie => (entries.len(), "sectors"),
            Style::Scatter => (entries.len(), "points"),
            Style::Line => (chart.categories.len(), "points on each line"),
            Style::Bar => (entries.len(), "bars"),
            _ => (chart.categories.len(), "groups of bars"),
        };
        return Some(Asked {
            skill: Skill::Count,
            question: format!("How many {what} are there?"),
            target: exact(n),
            plan: Plan::direct(format!("There are {n}."), n.to_string()),
        });
    }
    // A threshold half a grain off any value that occurs would print badly; a tick that no value equals is clear.
    let of_all = chart.style == Style::Scatter;
    let values: Vec<i64> = if of_all {
        entries.iter().map(|e| e.value).collect()
    } else {
        pool.iter().map(|e| e.value).collect()
    };
    let ticks: Vec<i64> = (1..(chart.y.max - chart.y.min) / chart.y.step)
        .map(|i| chart.y.min + i * chart.y.step)
        .filter(|t| !values.contains(t))
        .collect();
    let &tick = ticks.get(dice.below(ticks.len() as u32) as usize)?;
    let n = values.iter().filter(|v| **v > tick).count();
    let line = chart.show(tick);
    let (things, of) = match (chart.style, chart.series.len()) {
        (Style::Scatter, _) => ("points have a y value", String::new()),
        (Style::Bar, _) | (_, 1) => ("values are", String::new()),
        _ => (
            "values",
            format!(" of {} are", pool.first().map_or("", |e| chart.series[e.series].name.as_str())),
        ),
    };
    let row = truth.axis(AxisName::Y).map_or(0.0, |a| a.pixel_of(chart.real(tick)));
    let plan = Plan::direct(format!("{n} lie above {line}."), n.to_string()).call(
        "Draw a line at the threshold.",
        "draw_horizontal_line_by_y",
        json!({"image": "img_0", "y": row.round()}),
    );
    Some(Asked {
        skill: Skill::Count,
        question: format!("How many {things}{of} above {line}?"),
        target: exact(n),
        plan,
    })
}

fn trend(chart: &Chart, pool: &[&Entry<'_>]) -> Option<Asked> {
    let (first, last) = (pool.first()?, pool.last()?);
    if first.value == last.value {
        return None;
    }
    let answer = if last.value > first.value { "rises" } else { "falls" };
    let line = &chart.series[first.series];
    let who = if chart.series.len() > 1 { format!("the {} line", line.name) } else { "the line".to_owned() };
    let question =
        format!("From its first to its last point, does {who} rise or fall? Answer rises or falls.");
    let mut plan = reading(chart, &[("the first point", first.mark), ("the last point", last.mark)]);
    plan.conclusion = format!("It goes from {} to {}.", chart.show(first.value), chart.show(last.value));
    plan.answer = answer.into();
    Some(Asked { skill: Skill::Trend, question, target: text(answer), plan })
}
