//! `ocelli check-table`: are the numbers of a published table possible?

use std::path::PathBuf;
use std::process::ExitCode;

use ocelli_eval::audit::{audit, parse_table};

use crate::ui::Ui;

/// Check whether the numbers of a published table are arithmetically possible.
///
/// The table is a TOML file: `title`, `decimals`, `parts` (columns with their number of items), `rows`. Shares must be k/n, an
/// overall value the weighted mean of its parts, a macro value their mean, each up to rounding. Exit code 1 where a
/// number cannot be.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table.
    file: PathBuf,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    const MAX_TABLE: u64 = 16 << 20;
    let bytes = ocelli_data::io::read_bounded(&args.file, MAX_TABLE)?;
    let text =
        String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is not UTF-8 text", args.file.display()))?;
    let table = parse_table(&text).map_err(|e| anyhow::anyhow!("{}: {e}", args.file.display()))?;
    let findings = audit(&table)?;
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else if findings.is_empty() {
        println!("{}: {} rows, every number is possible", table.title, table.rows.len());
    } else {
        println!("{}: {} of the numbers cannot be", table.title, findings.len());
        for f in &findings {
            println!("  {}, {}: {}", ui.bold(&f.row), f.column, f.message);
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
