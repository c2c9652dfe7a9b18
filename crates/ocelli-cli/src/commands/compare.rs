//! `ocelli compare`: two or more runs of one task, paired by item.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ocelli_eval::compare::compare;
use ocelli_eval::evaluate::Evaluation;
use ocelli_eval::report::{HtmlOptions, comparison_text, write_html};
use ocelli_eval::summary::Mode;

use crate::ui::Ui;

/// Compare runs item by item: paired differences with intervals, exact tests, corrections for several comparisons.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run that the others are compared with: its folder or its report.json.
    a: PathBuf,
    /// The other runs.
    #[arg(required = true)]
    b: Vec<PathBuf>,
    /// Compare verdicts of the official rules instead of the strict ones.
    #[arg(long)]
    reference: bool,
    /// Also write the first run's HTML report with the comparisons here.
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Largest report that is read, in bytes.
const MAX_REPORT: u64 = 4 << 30;

fn read(path: &Path) -> anyhow::Result<Evaluation> {
    let path = if path.is_dir() { path.join("report.json") } else { path.to_owned() };
    let bytes = ocelli_data::io::read_bounded(&path, MAX_REPORT)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| anyhow::anyhow!("{} is not a report of `ocelli eval`: {e}", path.display()))
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let first = read(&args.a)?;
    let others = args.b.iter().map(|p| read(p)).collect::<anyhow::Result<Vec<_>>>()?;
    let pairs: Vec<(&Evaluation, &Evaluation)> = others.iter().map(|o| (&first, o)).collect();
    let mode = if args.reference { Mode::Reference } else { Mode::Strict };
    let comparisons = compare(&pairs, mode)?;
    if let Some(path) = &args.html {
        let options = HtmlOptions { comparisons: &comparisons, ..HtmlOptions::default() };
        ocelli_data::io::write_atomic_with(path, |out| write_html(out, &first, &options))?;
    }
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&comparisons)?);
    } else {
        comparisons.iter().for_each(|c| println!("{}", comparison_text(c)));
    }
    Ok(ExitCode::SUCCESS)
}
