//! Plain text and Markdown, from one list of tables.

use std::fmt::Write as _;

use super::{bracket, percent, with_interval};
use crate::compare::Comparison;
use crate::evaluate::Evaluation;
use crate::summary::{ModeSummary, Summary};

/// A table with a title; the first column is left-aligned.
struct Sheet {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

/// `148/400`, with a fraction where credits are not whole.
fn count(mode: &ModeSummary) -> String {
    // A sum over nothing may be -0.
    let mode = &ModeSummary { credit: mode.credit + 0.0, ..*mode };
    if (mode.credit - mode.credit.round()).abs() < 1e-9 {
        format!("{:.0}/{}", mode.credit, mode.n)
    } else {
        format!("{:.2}/{}", mode.credit, mode.n)
    }
}

fn sheets(summary: &Summary) -> Vec<Sheet> {
    let mut sheets = Vec::new();
    let mode = |name: &str, m: &ModeSummary| {
        vec![
            name.to_owned(),
            percent(m.estimate.map(|e| e.mean)),
            m.estimate.map_or_else(|| "-".into(), |e| bracket(e.interval)),
            count(m),
            m.left_out.to_string(),
            format!("[{:.1}, {:.1}]", 100.0 * m.worst, 100.0 * m.best),
        ]
    };
    sheets.push(Sheet {
        title: "Accuracy".into(),
        header: row(["mode", "mean", "95 % interval", "k/n", "left out", "bounds if missing"]),
        rows: vec![mode("reference", &summary.reference), mode("strict", &summary.strict)],
    });
    let outcomes = summary.outcomes.iter().map(|(o, n)| vec![o.name().to_owned(), n.to_string()]);
    let undecided = (summary.undecided > 0)
        .then(|| vec!["undecided by the strict rule".into(), summary.undecided.to_string()]);
    sheets.push(Sheet {
        title: "Outcomes".into(),
        header: row(["outcome", "answers"]),
        rows: outcomes.chain(undecided).collect(),
    });
    if !summary.metrics.is_empty() {
        let rows = summary.metrics.iter().map(|m| {
            let parts = m.parts.iter().map(|(k, v)| format!("{k} {v:.4}")).collect::<Vec<_>>().join(", ");
            let value = m.value.map_or_else(|| "-".into(), |v| format!("{v:.4}"));
            vec![
                m.name.clone(),
                m.mode.clone(),
                value,
                m.interval.map_or_else(String::new, bracket),
                parts,
                m.note.clone(),
            ]
        });
        let header = row(["metric", "mode", "value", "interval", "parts", "note"]);
        sheets.push(Sheet { title: "Metrics".into(), header, rows: rows.collect() });
    }
    for group in &summary.groups {
        let rows = group.rows.iter().map(|r| {
            vec![
                r.label.clone(),
                r.strict.n.to_string(),
                with_interval(r.reference),
                with_interval(Some(r.strict)),
            ]
        });
        let title = if group.overlapping {
            format!("By {} (labels overlap)", group.name)
        } else {
            format!("By {}", group.name)
        };
        let header = row(["label", "n", "reference", "strict"]);
        sheets.push(Sheet { title, header, rows: rows.collect() });
    }
    if !summary.difference_kinds.is_empty() {
        let rows = summary.difference_kinds.iter().map(|(kind, (reference, strict))| {
            vec![kind.name().to_owned(), reference.to_string(), strict.to_string()]
        });
        let header =
            row(["where the rules differ", "only reference gives credit", "only strict gives credit"]);
        sheets.push(Sheet { title: "Reference against strict".into(), header, rows: rows.collect() });
    }
    if let Some(labels) = &summary.labels {
        let rows = vec![
            vec!["compared".into(), labels.compared.to_string()],
            vec!["right as published".into(), labels.published_right.to_string()],
            vec!["right as recomputed".into(), labels.recomputed_right.to_string()],
            vec!["contradictions".into(), labels.contradictions.len().to_string()],
        ];
        sheets.push(Sheet { title: "Published verdicts".into(), header: row(["items", ""]), rows });
        if !labels.contradictions.is_empty() {
            sheets.push(contradictions(&labels.contradictions));
        }
    }
    if let Some(curves) = summary.curves.as_ref().filter(|c| !c.k.is_empty()) {
        let rows = curves.k.iter().map(|r| {
            let mut cells = vec![r.k.to_string()];
            let above = format!("{:+.1}", 100.0 * r.pass_above_chance);
            cells.extend([with_interval(Some(r.pass)), above, with_interval(Some(r.pass_all))]);
            cells.extend([with_interval(Some(r.majority)), percent(r.best_of.map(|e| e.mean))]);
            cells.push(percent(r.weighted_majority.map(|e| e.mean)));
            cells.push(percent(r.tournament.map(|e| e.mean)));
            cells
        });
        let header = row([
            "k",
            "pass@k",
            "above chance",
            "pass^k",
            "maj@k",
            "best-of-k",
            "weighted maj@k",
            "tournament",
        ]);
        sheets.push(Sheet {
            title: "Samples (exact expectations over the stored samples, strict)".into(),
            header,
            rows: rows.collect(),
        });
    }
    if let Some(v) = summary.curves.as_ref().and_then(|c| c.variance) {
        let rows = vec![
            vec!["items (more items help)".into(), format!("{:.2}", 100.0 * v.items.sqrt())],
            vec!["samples (more samples help)".into(), format!("{:.2}", 100.0 * v.samples.sqrt())],
        ];
        sheets.push(Sheet {
            title: "Standard error of avg@k, in points, by source".into(),
            header: row(["source", "points"]),
            rows,
        });
    }
    if let Some(p) = &summary.pairs {
        let mut rows = vec![
            vec!["right in every order".into(), with_interval(p.consistent)],
            vec!["same choice in every order".into(), with_interval(p.same_choice)],
            vec!["verdict follows the place".into(), with_interval(p.follows_place)],
            vec!["verdicts for the first place".into(), with_interval(p.first_place)],
            vec!["ties".into(), percent(Some(p.ties))],
            vec!["unparsed".into(), percent(Some(p.unparsed))],
            vec!["right where the better answer is longer".into(), with_interval(p.longer_better)],
            vec!["right where it is shorter".into(), with_interval(p.shorter_better)],
        ];
        let number = |v: Option<f64>| v.map_or_else(|| "-".into(), |v| format!("{v:.4}"));
        rows.push(vec!["kappa with the gold preference".into(), number(p.kappa)]);
        rows.push(vec!["AUC of the scores".into(), number(p.auc)]);
        if let Some(c) = p.calibration {
            rows.push(vec![
                "Brier score / calibration error of sigmoid(margin)".into(),
                format!("{:.4} / {:.4}", c.brier, c.ece),
            ]);
        }
        if let Some(m) = p.margins {
            let quantiles = m.iter().map(|v| format!("{v:.3}")).collect::<Vec<_>>().join(" ");
            rows.push(vec!["margin, quantiles 5 25 50 75 95 %".into(), quantiles]);
        }
        rows.retain(|r| r[1] != "-");
        sheets.push(Sheet { title: "Given answers".into(), header: row(["", "value"]), rows });
    }
    if let Some(j) = &summary.judge {
        let rows = vec![
            vec!["asked".into(), j.asked.to_string()],
            vec!["unparsed replies".into(), j.unparsed.to_string()],
            vec!["right as officially read".into(), j.official_right.to_string()],
            vec!["right as tolerantly read".into(), j.tolerant_right.to_string()],
            vec!["decided by judge and rule".into(), j.both.to_string()],
            vec!["agreed".into(), j.agreed.to_string()],
            vec!["only the judge says right".into(), j.only_judge.to_string()],
            vec!["only the rule says right".into(), j.only_rule.to_string()],
            vec!["Cohen's kappa".into(), j.kappa.map_or_else(|| "-".into(), |k| format!("{k:.3}"))],
        ];
        sheets.push(Sheet { title: "Judge against the strict rule".into(), header: row(["", ""]), rows });
    }
    if let Some(h) = &summary.human {
        let mut rows = vec![
            vec!["answers that people judged".into(), h.seen.to_string()],
            vec!["the automatic verdict agrees".into(), h.agreed.to_string()],
            vec!["Cohen's kappa".into(), h.kappa.map_or_else(|| "-".into(), |k| format!("{k:.3}"))],
        ];
        match &h.corrected {
            Some(c) => {
                rows.push(vec!["automatic accuracy".into(), percent(Some(c.judged))]);
                let corrected = format!("{} {}", percent(Some(c.mean)), bracket(c.interval));
                rows.push(vec!["corrected by people (prediction-powered)".into(), corrected]);
                rows.push(vec![
                    "bias of the automatic verdict, points".into(),
                    format!("{:+.1}", 100.0 * c.bias),
                ]);
            }
            None => rows.push(vec![
                "correction".into(),
                "needs two answers that people saw, and two that they did not".into(),
            ]),
        }
        sheets.push(Sheet {
            title: "People against the automatic verdicts".into(),
            header: row(["", ""]),
            rows,
        });
    }
    if let Some(r) = &summary.reasoning {
        let [[a, b], [c, d]] = r.cells;
        let mut rows = vec![
            vec!["judged items (fixed set)".into(), r.judged.to_string()],
            vec!["unparsed replies (count as unsound)".into(), r.unparsed.to_string()],
            vec![
                "sound, of the answers right by the official rule (reference mode)".into(),
                estimate_n(r.given_right),
            ],
            vec!["sound, of all judged items".into(), estimate_n(r.all)],
            vec!["right answer and sound reasoning".into(), estimate_n(r.right_and_sound)],
            vec!["right answer: sound / unsound".into(), format!("{a} / {b}")],
            vec!["wrong answer: sound / unsound".into(), format!("{c} / {d}")],
        ];
        if r.precision.is_some() || r.steps_unparsed > 0 {
            rows.push(vec!["steps supported".into(), estimate_n(r.precision)]);
            rows.push(vec!["steps of the explanation covered".into(), estimate_n(r.coverage)]);
            let place = r.mean_first_error.map_or_else(|| "-".into(), |m| format!("{m:.1}"));
            rows.push(vec![
                "solutions with a contradicting step / its mean place".into(),
                format!("{} / {place}", r.with_error),
            ]);
            rows.push(vec!["unparsed step-wise replies".into(), r.steps_unparsed.to_string()]);
        }
        sheets.push(Sheet { title: "Reasoning".into(), header: row(["", ""]), rows });
    }
    if let Some(t) = &summary.endpoint {
        let mut rows = vec![
            vec![
                "requests answered / failed / attempts".into(),
                format!("{} / {} / {}", t.answered, t.failed, t.attempts),
            ],
            vec![
                "tokens: prompt / cached / completion".into(),
                format!("{} / {} / {}", t.usage.prompt, t.usage.cached, t.usage.completion),
            ],
            vec!["most requests in flight".into(), t.max_in_flight.to_string()],
        ];
        if let Some(cost) = t.cost {
            rows.push(vec!["cost".into(), format!("{cost:.4}")]);
        }
        sheets.push(Sheet { title: "Endpoint (this run)".into(), header: row(["", ""]), rows });
    }
    sheets
}

/// Most contradictions that are listed by name.
const CONTRADICTIONS: usize = 20;

/// Published verdicts that the official rule does not give, by name.
fn contradictions(found: &[(String, bool, bool, String)]) -> Sheet {
    let word = |right: bool| if right { "right" } else { "wrong" }.to_owned();
    let short = |text: &str| {
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = one_line.chars().take(60).collect();
        if cut.len() < one_line.len() { format!("{cut}...") } else { cut }
    };
    let mut rows: Vec<Vec<String>> = found
        .iter()
        .take(CONTRADICTIONS)
        .map(|(item, published, here, answer)| {
            vec![item.clone(), word(*published), word(*here), short(answer)]
        })
        .collect();
    if found.len() > CONTRADICTIONS {
        let more = format!("and {} more", found.len() - CONTRADICTIONS);
        rows.push(vec![more, String::new(), String::new(), "see the JSON report".into()]);
    }
    Sheet {
        title: "Published verdicts that contradict the official rule".into(),
        header: row(["item", "published", "recomputed", "answer that the rule reads"]),
        rows,
    }
}

fn estimate_n(estimate: Option<crate::stats::Estimate>) -> String {
    estimate.map_or_else(|| "-".into(), |e| format!("{} (n = {})", with_interval(Some(e)), e.n))
}

/// Character columns of a text on a terminal: Han characters take two.
fn width(text: &str) -> usize {
    text.chars().map(|c| if ('\u{1100}'..='\u{ffdc}').contains(&c) { 2 } else { 1 }).sum()
}

/// Text for a terminal. Groupings of more than `most` labels are left to the other reports.
pub fn terminal(summary: &Summary, most: usize) -> String {
    let mut out = format!(
        "{}  {}  ({} items, {} sample(s) each)\n",
        summary.title, summary.model, summary.items, summary.samples
    );
    if summary.task.contains(':') {
        let _ = writeln!(out, "variant {}", summary.task);
    }
    for sheet in sheets(summary) {
        if sheet.rows.len() > most {
            let _ = writeln!(out, "\n{}: {} rows, see the report", sheet.title, sheet.rows.len());
            continue;
        }
        table(&mut out, &sheet);
    }
    for note in &summary.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// A table for a terminal, in columns.
fn table(out: &mut String, sheet: &Sheet) {
    let _ = writeln!(out, "\n{}", sheet.title);
    let columns = sheet.header.len();
    let cells = |c: usize| sheet.rows.iter().chain([&sheet.header]).map(move |r| width(&r[c]));
    let widths: Vec<usize> = (0..columns).map(|c| cells(c).max().unwrap_or(0).min(64)).collect();
    let header = std::iter::once(&sheet.header).filter(|h| h.iter().any(|c| !c.is_empty()));
    for line in header.chain(&sheet.rows) {
        let mut text = String::from(" ");
        for (c, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[c].saturating_sub(width(cell)));
            // Numbers stand right, except in the last column.
            if c == 0 || c + 1 == columns {
                let _ = write!(text, " {cell}{pad} ");
            } else {
                let _ = write!(text, " {pad}{cell} ");
            }
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The report in Markdown, with the first differences between the rules.
pub fn markdown(evaluation: &Evaluation) -> String {
    const DIFFERENCES: usize = 200;
    let summary = &evaluation.summary;
    let mut out = format!("# {}: {}\n\n", summary.title, summary.model);
    let _ = writeln!(
        out,
        "Task `{}`, {} items, {} sample(s) each.",
        summary.task, summary.items, summary.samples
    );
    let _ = writeln!(out, "Declaration `{:.12}`, data `{:.12}`.", summary.declaration, summary.data);
    for sheet in sheets(summary) {
        let _ = writeln!(out, "\n## {}\n\n| {} |", sheet.title, sheet.header.join(" | "));
        let _ = writeln!(out, "|{}", "---|".repeat(sheet.header.len()));
        for row in &sheet.rows {
            let cells: Vec<String> = row.iter().map(|c| cell(c)).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
    if !evaluation.differences.is_empty() {
        let total = evaluation.differences.len();
        let _ = writeln!(
            out,
            "\n## Items on which the rules differ ({total})\n\n| item | reference | strict | why |\n|---|---|---|---|"
        );
        for d in evaluation.differences.iter().take(DIFFERENCES) {
            let reference = d.reference.map_or_else(|| "left out".into(), |r| format!("{r}"));
            let _ = writeln!(out, "| {} | {reference} | {} | {} |", cell(&d.item), d.strict, cell(&d.reason));
        }
        if total > DIFFERENCES {
            let _ = writeln!(out, "\nThe other {} are in the JSON and HTML reports.", total - DIFFERENCES);
        }
    }
    if !summary.notes.is_empty() {
        out.push_str("\n## Notes\n\n");
        summary.notes.iter().for_each(|n| {
            let _ = writeln!(out, "- {n}");
        });
    }
    out
}

/// Several evaluations, one line each.
pub fn overview(summaries: &[Summary]) -> String {
    let header = row(["task", "model", "items", "reference", "strict", "published", "contradictions"]);
    let rows = summaries.iter().map(|s| {
        let published = |f: &dyn Fn(&crate::summary::LabelCheck) -> String| {
            s.labels.as_ref().map_or_else(|| "-".into(), f)
        };
        vec![
            s.task.clone(),
            s.model.clone(),
            s.items.to_string(),
            format!("{} ({})", percent(s.reference.estimate.map(|e| e.mean)), count(&s.reference)),
            format!("{} ({})", percent(s.strict.estimate.map(|e| e.mean)), count(&s.strict)),
            published(&|l| format!("{}/{}", l.published_right, l.compared)),
            published(&|l| l.contradictions.len().to_string()),
        ]
    });
    let mut out = String::new();
    table(&mut out, &Sheet { title: "Overview".into(), header, rows: rows.collect() });
    for s in summaries {
        let Some(labels) = s.labels.as_ref().filter(|l| !l.contradictions.is_empty()) else { continue };
        let sheet = contradictions(&labels.contradictions);
        table(&mut out, &Sheet { title: format!("{}: {}", s.model, sheet.title), ..sheet });
    }
    out
}

/// `p = 0.0312`; never `p = 0.0000`.
fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".to_owned() } else { format!("= {p:.4}") }
}

/// Groupings of more labels are left to the HTML report.
const GROUP_ROWS: usize = 12;

/// A comparison for a terminal.
pub fn comparison_text(c: &Comparison) -> String {
    let points = |v: f64| format!("{:+.2}", 100.0 * v);
    let d = &c.difference;
    let mut out = format!("{}: {} against {}\n", c.task, c.a, c.b);
    let _ = writeln!(
        out,
        "  shared items {}   only first {}   only second {}",
        c.shared, c.only_in_a, c.only_in_b
    );
    if c.data_differs {
        out.push_str("  the data of the two runs differs; only items with the same name are compared\n");
    }
    let _ = writeln!(out, "  means {} and {}", percent(Some(c.mean_a)), percent(Some(c.mean_b)));
    let _ = writeln!(
        out,
        "  difference {} points, 95 % interval [{}, {}], bootstrap [{}, {}]",
        points(d.difference),
        points(d.interval.low),
        points(d.interval.high),
        points(c.bootstrap.low),
        points(c.bootstrap.high)
    );
    let _ =
        writeln!(out, "  standard error {:.2} paired, {:.2} unpaired", 100.0 * d.se, 100.0 * d.unpaired_se);
    if let Some(m) = c.mcnemar {
        let _ = writeln!(
            out,
            "  only first right {}, only second right {}, exact McNemar p {}",
            m.only_a,
            m.only_b,
            p_value(m.p)
        );
    }
    let _ = writeln!(
        out,
        "  permutation p {}; over all comparisons: Holm p {}, Benjamini-Hochberg p {}",
        p_value(c.permutation_p),
        p_value(c.holm_p),
        p_value(c.bh_p)
    );
    for group in c.groups.iter().filter(|g| g.rows.len() <= GROUP_ROWS) {
        let _ = writeln!(
            out,
            "  difference by {}{}",
            group.name,
            if group.overlapping { " (labels overlap)" } else { "" }
        );
        let widest = group.rows.iter().map(|r| width(&r.label)).max().unwrap_or(0);
        for r in &group.rows {
            let pad = " ".repeat(widest - width(&r.label));
            let d = &r.difference;
            let _ = writeln!(
                out,
                "    {}{pad}  n {:>5}  {:>7} [{}, {}]",
                r.label,
                r.n,
                points(d.difference),
                points(d.interval.low),
                points(d.interval.high)
            );
        }
    }
    if let Some(detectable) = c.detectable {
        let needed =
            c.items_needed.map_or_else(String::new, |n| format!("; the observed one would take {n} items"));
        let _ = writeln!(
            out,
            "  with {} items a true difference of {:.1} points shows with 80 % power{needed}",
            c.shared,
            100.0 * detectable
        );
    }
    if let Some(r) = &c.reasoning {
        let mut line = |set: &str, s: &crate::compare::Soundness| {
            let _ = writeln!(
                out,
                "  sound reasoning on {} items {set}: {} and {}, exact McNemar p {}",
                s.a.n,
                with_interval(Some(s.a)),
                with_interval(Some(s.b)),
                p_value(s.mcnemar.p)
            );
        };
        line("judged in both", &r.all);
        if let Some(both) = &r.both_right {
            line("that both answer right", both);
        }
    }
    out
}
