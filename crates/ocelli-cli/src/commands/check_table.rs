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
#[command(after_help = FORM)]
pub(crate) struct Args {
    /// The table.
    file: PathBuf,
}

const FORM: &str = "The file, with numbers as printed, in per cent:

  title = \"VL-RewardBench\"
  decimals = 1
  parts = [{ name = \"General\", n = 183 }, { name = \"Hallucination\", n = 749 }, { name = \"Reasoning\", n = 318 }]
  overall = \"micro\"   # the overall column is the mean over items; \"macro\": over parts; \"none\": not checked
  slack = 0.9          # points by which it may miss, where the protocol leaves items out
  rows = [
    { name = \"A\", parts = [43.4, 55.0, 62.3], overall = 55.3, macro = 53.6 },
    { name = \"B\", parts = [60.6, 44.0, nan], overall = 57.0 },
  ]";

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    const MAX_TABLE: u64 = 16 << 20;
    let bytes = ocelli_data::io::read_bounded(&args.file, MAX_TABLE)?;
    let text =
        String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is not UTF-8 text", args.file.display()))?;
    let table = parse_table(&text).map_err(|e| {
        anyhow::anyhow!(
            "{}: {e}\n`ocelli check-table --help` shows the form of the file",
            args.file.display()
        )
    })?;
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
