//! What a chart shows, before a pixel is drawn: style, names, numbers, axis. Numbers are integers in units of
//! `10^-decimals`, so that they print and compare exactly.

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::item::{Level, Setup};
use crate::palette::{self, Named};

/// The six styles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// One bar per category.
    Bar,
    /// Several bars side by side per category.
    GroupedBar,
    /// One or several lines over categories.
    Line,
    /// Points in a plane with two numeric axes.
    Scatter,
    /// Sectors of a circle; values are percent.
    Pie,
    /// Several bars on top of one another per category.
    Stacked,
}

impl Style {
    /// All six.
    pub const ALL: [Self; 6] =
        [Self::Bar, Self::GroupedBar, Self::Line, Self::Scatter, Self::Pie, Self::Stacked];

    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bar => "bar",
            Self::GroupedBar => "grouped_bar",
            Self::Line => "line",
            Self::Scatter => "scatter",
            Self::Pie => "pie",
            Self::Stacked => "stacked",
        }
    }
}

/// The numeric axis: ticks at `min, min + step ..= max`, in units of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Lowest tick.
    pub min: i64,
    /// Distance of ticks.
    pub step: i64,
    /// Highest tick.
    pub max: i64,
    /// Data are multiples of this.
    pub grain: i64,
}

/// One series: a name, a colour, one number per category (or per point).
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Colour.
    pub colour: Named,
    /// Numbers in units of the chart.
    pub values: Vec<i64>,
    /// x positions in units of the x scale, for scatter charts only.
    pub xs: Vec<i64>,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Style.
    pub style: Style,
    /// Title, empty for none.
    pub title: String,
    /// What the numbers are.
    pub y_title: String,
    /// What the categories or x numbers are.
    pub x_title: String,
    /// Names of categories; empty for scatter.
    pub categories: Vec<String>,
    /// Colour of each category where there is but one series and the style colours by category.
    pub category_colours: Vec<Named>,
    /// At least one series.
    pub series: Vec<Series>,
    /// Scale of the numbers.
    pub y: Scale,
    /// Scale of x for scatter.
    pub x: Scale,
    /// Digits after the decimal point of y numbers.
    pub decimals: u32,
    /// Horizontal grid lines.
    pub grid: bool,
    /// A closed frame instead of two axes.
    pub framed: bool,
    /// True where the picture is too small for words.
    pub compact: bool,
    /// True where bars are named by their colour.
    pub by_colour: bool,
    /// True where numbers are finer than a small picture shows exactly.
    pub fine: bool,
}

const TOPICS: [(&str, &str, &[&str]); 8] = [
    (
        "Rainfall by month",
        "Rainfall (mm)",
        &["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct"],
    ),
    (
        "Fruit sold",
        "Crates",
        &["Apple", "Pear", "Plum", "Grape", "Mango", "Lemon", "Peach", "Melon", "Fig", "Kiwi"],
    ),
    (
        "Output per site",
        "Units",
        &["Site A", "Site B", "Site C", "Site D", "Site E", "Site F", "Site G", "Site H"],
    ),
    ("Visitors", "Visitors", &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]),
    ("Energy use", "Energy (kWh)", &["2015", "2016", "2017", "2018", "2019", "2020", "2021", "2022", "2023"]),
    ("Budget by department", "Cost", &["Sales", "Legal", "IT", "HR", "R+D", "Press", "Audit", "Plant"]),
    ("Test results", "Score", &["Anna", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jill"]),
    ("Population survey", "Count", &["Oslo", "Bern", "Rome", "Riga", "Kyiv", "Bonn", "Lyon", "Cork", "Graz"]),
];
const SERIES_NAMES: [&str; 8] = ["North", "South", "East", "West", "Alpha", "Beta", "Gamma", "Delta"];
/// Names of categories where there is no room for words.
pub(super) const ORDINALS: [&str; 6] = ["first", "second", "third", "fourth", "fifth", "sixth"];

fn scale(dice: &mut Dice, setup: &Setup, style: Style) -> (Scale, u32) {
    if setup.compact() {
        let max = if setup.width.min(setup.height) < 64 { 8 } else { 10 };
        return (Scale { min: 0, step: 2, max, grain: 1 }, 0);
    }
    let (steps, intervals, decimals): (&[i64], _, _) = match setup.level {
        Level::Easy => (&[2, 5, 10, 20], dice.between(4, 5), 0),
        Level::Medium => (&[2, 5, 10, 20, 25, 50, 100], dice.between(4, 6), 0),
        Level::Hard => (&[5, 10, 20, 25, 50, 200, 250, 500], dice.between(4, 7), u32::from(dice.chance(30))),
    };
    let step = *dice.pick(steps) * 10i64.pow(decimals);
    let parts = match setup.level {
        Level::Easy => [2, 1],
        Level::Medium => [5, 2],
        Level::Hard => [10, 5],
    };
    let grain = parts.iter().find(|p| step % **p == 0).map_or(1, |p| step / p);
    // Only point-like marks may start above zero: a bar that does not start at zero misleads.
    let lifted = setup.level == Level::Hard && matches!(style, Style::Line | Style::Scatter);
    let min = if lifted { step * dice.between(-1, 6) } else { 0 };
    (Scale { min, step, max: min + step * intervals, grain }, decimals)
}

fn values(dice: &mut Dice, s: Scale, n: usize, lowest: i64, highest: i64) -> Vec<i64> {
    let (lo, hi) = ((lowest + s.grain - 1).div_euclid(s.grain), highest.div_euclid(s.grain));
    (0..n).map(|_| dice.between(lo, hi) * s.grain).collect()
}

/// Percentages in multiples of `grain`, each at least `least`, that add up to 100. Both divide 100, or the grain is 1.
fn shares(dice: &mut Dice, n: usize, grain: i64, least: i64) -> Vec<i64> {
    // What is above the least, in grains, cut at random places; each part gets one grain more than lies between cuts.
    let free = (100 - (least - grain) * n as i64) / grain;
    let mut cuts: Vec<i64> = (1..free).collect();
    dice.shuffle(&mut cuts);
    cuts.truncate(n - 1);
    cuts.sort_unstable();
    cuts.push(free);
    let mut last = 0;
    cuts.iter().map(|c| (c - std::mem::replace(&mut last, *c)) * grain + least - grain).collect()
}

/// Grain and least share of a pie, in percent. Fine shares of a small picture are beyond a glance, and a matter of counting
/// its pixels.
fn pie_grain(setup: &Setup) -> (i64, i64) {
    match (setup.compact(), setup.level) {
        (true, Level::Hard) => (1, 8),
        (true, _) => (10, 10),
        (false, _) => (5, 5),
    }
}

impl Chart {
    /// Draws the content of a chart from the dice.
    pub fn random(dice: &mut Dice, setup: &Setup, style: Style, by_colour: bool) -> Self {
        let by_colour = style == Style::Bar && (by_colour || setup.compact());
        let compact = setup.compact();
        let (title, y_title, names) = *dice.pick(&TOPICS);
        let (low, high) = match (setup.level, compact) {
            (_, true) => (3, if setup.width < 64 { 4 } else { 5 }),
            (Level::Easy, _) => (3, 4),
            (Level::Medium, _) => (4, 6),
            (Level::Hard, _) => (6, names.len().min(8) as i64),
        };
        let n = dice.between(low, high) as usize;
        let start = dice.below((names.len() - n + 1) as u32) as usize;
        let names = if compact { &ORDINALS[..n] } else { &names[start..start + n] };
        let many = matches!(style, Style::GroupedBar | Style::Stacked)
            || (style == Style::Line && setup.level != Level::Easy && dice.chance(60));
        let count =
            if many { dice.between(2, if setup.level == Level::Hard { 3 } else { 2 }) as usize } else { 1 };
        let (y, decimals) = scale(dice, setup, style);
        let mut x = Scale { min: 0, step: 1, max: 1, grain: 1 };
        let colours = palette::some(dice, count.max(n));
        let series_names = dice.sample(&SERIES_NAMES, count);
        let mut series = Vec::new();
        for i in 0..count {
            let values = match style {
                Style::Pie => {
                    let (grain, least) = pie_grain(setup);
                    shares(dice, n, grain, least)
                }
                // A stack must not leave the axis; each part stays readable.
                Style::Stacked => values(dice, y, n, y.grain, y.max / count as i64),
                Style::Scatter => Vec::new(),
                _ => values(dice, y, n, y.min + y.grain, y.max),
            };
            let name = if compact { colours[i].0 } else { series_names[i] };
            series.push(Series { name: name.into(), colour: colours[i], values, xs: Vec::new() });
        }
        if style == Style::Scatter {
            x = if compact { y } else { scale(dice, setup, style).0 };
            x.grain = x.grain.max(1);
            series = scatter(dice, setup, (x, y), &colours);
        }
        let by_category = style == Style::Pie || by_colour || (style == Style::Bar && dice.chance(40));
        Self {
            style,
            title: if compact || dice.chance(15) { String::new() } else { title.into() },
            y_title: if compact || style == Style::Pie || dice.chance(25) {
                String::new()
            } else {
                y_title.into()
            },
            x_title: if style == Style::Scatter && !compact { "Time".into() } else { String::new() },
            categories: if style == Style::Scatter {
                Vec::new()
            } else {
                names.iter().map(|s| s.to_string()).collect()
            },
            category_colours: if by_category { colours } else { Vec::new() },
            series,
            y,
            x,
            decimals,
            grid: compact || dice.chance(60),
            framed: dice.chance(40),
            compact,
            by_colour,
            fine: style == Style::Pie && pie_grain(setup).0 == 1,
        }
    }

    /// A number of the chart as text.
    pub fn show(&self, value: i64) -> String {
        if self.decimals == 0 {
            return value.to_string();
        }
        let unit = 10i64.pow(self.decimals);
        let sign = if value < 0 { "-" } else { "" };
        format!("{sign}{}.{:0w$}", value.abs() / unit, value.abs() % unit, w = self.decimals as usize)
    }

    /// A number of the chart as a real number.
    pub fn real(&self, value: i64) -> f64 {
        value as f64 / 10i64.pow(self.decimals) as f64
    }

    /// How a question names a mark.
    pub fn mark_name(&self, series: usize, category: usize) -> String {
        let colour = self.category_colours.get(category).map(|c| c.0);
        match (self.compact, self.style) {
            (_, Style::Scatter) => format!("the {} point", self.series[series].colour.0),
            (_, Style::Bar) if self.by_colour => format!("the {} bar", colour.unwrap_or("")),
            (true, Style::Pie) => format!("the {} sector", colour.unwrap_or("")),
            (true, Style::Line) => {
                format!("the {} point of the {} line", self.categories[category], self.series[series].name)
            }
            (true, _) => {
                format!("the {} bar of the {} group", self.series[series].name, self.categories[category])
            }
            (false, _) if self.series.len() > 1 => {
                format!("{} in {}", self.series[series].name, self.categories[category])
            }
            (false, _) => self.categories[category].clone(),
        }
    }
}

/// A cloud in which every point has a different place; a few have colours of their own to be asked about.
fn scatter(dice: &mut Dice, setup: &Setup, (x, y): (Scale, Scale), colours: &[Named]) -> Vec<Series> {
    let (named, cloud) = match (setup.compact(), setup.level) {
        (true, _) => (2, dice.between(1, 4)),
        (false, Level::Easy) => (2, dice.between(2, 6)),
        (false, Level::Medium) => (3, dice.between(4, 12)),
        (false, Level::Hard) => (3, dice.between(8, 20)),
    };
    // Points stand on a grid of half ticks or coarser cells, one per cell, so that none hides another.
    let cells = |s: Scale| (s.max - s.min) / s.grain.max(1);
    let (nx, ny) = (cells(x).clamp(2, 12), cells(y).clamp(2, 12));
    let mut places: Vec<(i64, i64)> = (1..nx).flat_map(|i| (1..ny).map(move |j| (i, j))).collect();
    dice.shuffle(&mut places);
    let place = |(i, j): (i64, i64)| {
        let on = |s: Scale, k: i64, n: i64| s.min + k * cells(s) / n * s.grain;
        (on(x, i, nx), on(y, j, ny))
    };
    let mut points = places.into_iter().map(place);
    let mut series = Vec::new();
    for colour in colours.iter().take(named) {
        if let Some((px, py)) = points.next() {
            series.push(Series { name: colour.0.into(), colour: *colour, values: vec![py], xs: vec![px] });
        }
    }
    let rest: Vec<(i64, i64)> = points.take(cloud as usize).collect();
    let black: Named = ("black", [40, 40, 46]);
    series.push(Series {
        name: "black".into(),
        colour: black,
        values: rest.iter().map(|p| p.1).collect(),
        xs: rest.iter().map(|p| p.0).collect(),
    });
    series
}
