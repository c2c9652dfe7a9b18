//! `ocelli report`: one self-contained HTML page from run directories.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::report::{Run, render};
use crate::ui::Ui;

/// Write one self-contained HTML page about a run, or comparing several.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run directories; the first is described in full, the others are compared with it item by item.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where to write the page; report.html in the first run directory unless said.
    #[arg(long, short)]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let runs = args.runs.iter().map(|dir| Run::open(dir)).collect::<anyhow::Result<Vec<_>>>()?;
    let out =
        args.out.clone().or_else(|| args.runs.first().map(|d| d.join("report.html"))).unwrap_or_default();
    let page = render(&runs);
    ocelli_data::io::write_atomic(&out, page.as_bytes())?;
    if ui.json {
        println!("{}", serde_json::json!({ "report": out, "bytes": page.len() }));
    } else {
        println!("report: {} ({} KiB)", out.display(), page.len() / 1024);
    }
    Ok(ExitCode::SUCCESS)
}
