//! `ocelli rescore`: score stored outputs, or a run's log, without asking anything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ocelli_eval::declare::{Format, StoredFormat};
use ocelli_eval::evaluate::{Extra, rescore};
use ocelli_eval::load::{Pictures, load};
use ocelli_eval::report::{HtmlOptions, overview};
use ocelli_eval::stored::{check_folder, from_log, read_stored, sniff};

use super::eval::{data_dir, folder_name, report, task};
use crate::ui::Ui;

/// Score stored outputs again, without a model: files of other programs, rows of id and response, or a run's folder.
///
/// Files are JSON lines, a JSON list or object, CSV, tab-separated, a workbook (.xlsx) or Parquet; which is found out from the file. Published results
/// and the outputs of other harnesses are recognised by their columns; for others name the columns. Items are found by name,
/// by row number or by the text of the question, and the report says how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Benchmark with its variant, e.g. `mathvista` or `mathv:testmini`.
    task: String,
    /// Files of stored outputs, or folders of runs.
    #[arg(required = true)]
    outputs: Vec<PathBuf>,
    /// Folder of the data sets; OCELLI_DATA or ./data where absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder of the reports.
    #[arg(long, default_value = "runs/rescore")]
    out: PathBuf,
    /// Rewards of the samples (JSON lines of id, sample, reward) for best-of-k and weighted votes.
    #[arg(long, value_name = "FILE")]
    rewards: Option<PathBuf>,
    /// Preferences between samples (JSON lines of id, first, second, winner; null for a tie) for tournaments.
    #[arg(long, value_name = "FILE")]
    preferences: Option<PathBuf>,
    /// What people say about some answers (JSON lines of id, sample, right): the accuracy is corrected by it.
    #[arg(long, value_name = "FILE")]
    human: Option<PathBuf>,
    #[command(flatten)]
    columns: Columns,
}

/// Columns of a file whose format the benchmark does not know.
#[derive(clap::Args)]
#[command(next_help_heading = "Columns of other files")]
struct Columns {
    /// Column that names the item; `#key` for the keys of a JSON object of rows. Without it: found by name, row number or
    /// question.
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
    /// Column of the response.
    #[arg(long, value_name = "COLUMN")]
    response: Option<String>,
    /// Column of an answer extracted earlier, which the official rule then compares.
    #[arg(long, value_name = "COLUMN")]
    extraction: Option<String>,
    /// Column of the published verdict, which the recomputed one is compared with.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Column of a judge's reply about the answer; the official verdict then is the judge's.
    #[arg(long, value_name = "COLUMN")]
    judge_replies: Option<String>,
    /// Key of the list of rows within a JSON object.
    #[arg(long, value_name = "KEY")]
    rows: Option<String>,
    /// The file holds the columns of the data set itself.
    #[arg(long)]
    own_items: bool,
}

impl Columns {
    /// The format that the flags describe; `None` where none is given.
    fn format(&self, path: &Path) -> anyhow::Result<Option<StoredFormat>> {
        let named =
            [&self.id, &self.response, &self.extraction, &self.label, &self.judge_replies, &self.rows];
        if !self.own_items && named.iter().all(|n| n.is_none()) {
            return Ok(None);
        }
        anyhow::ensure!(
            self.response.is_some() || self.extraction.is_some(),
            "name the column of the response (--response) or of the extracted answer (--extraction)"
        );
        let text = |name: &Option<String>| name.clone().unwrap_or_default();
        Ok(Some(StoredFormat {
            name: "columns named on the command line".into(),
            format: if self.rows.is_some() { Format::Json } else { sniff(path)? },
            rows: text(&self.rows),
            // Without a name: found out as with other files. A file that is its own data set names its rows.
            id: self.id.clone().unwrap_or_else(|| if self.own_items { "id".into() } else { String::new() }),
            response: text(&self.response),
            extraction: text(&self.extraction),
            label: text(&self.label),
            judge: text(&self.judge_replies),
            own_items: self.own_items,
            ..StoredFormat::default()
        }))
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let task = task(&args.task)?;
    let data = data_dir(args.data.as_deref());
    let blobs = args.out.join("images");
    let mut extra = Extra::default();
    args.rewards.as_deref().map(|path| extra.read_rewards(path)).transpose()?;
    args.preferences.as_deref().map(|path| extra.read_preferences(path)).transpose()?;
    args.human.as_deref().map(|path| extra.read_human(path)).transpose()?;
    let several = args.outputs.len() > 1;
    let mut summaries = Vec::new();
    let mut folders = HashSet::new();
    for path in &args.outputs {
        let stored = if path.is_dir() {
            check_folder(&task, path)?;
            from_log(&task, &load(&task, &data, &blobs, Pictures::Read)?, path)?
        } else {
            let given = args.columns.format(path)?;
            read_stored(&task, path, given.as_ref(), || load(&task, &data, &blobs, Pictures::Ignore))?
        };
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = name.with_context(|| format!("{} has no name", path.display()))?.to_string_lossy();
        let evaluation = rescore(&task, &stored, &name, &extra)?;
        // Two files of one name from two folders keep a report each.
        let own = (1..).map(|n| if n == 1 { name.to_string() } else { format!("{name}-{n}") });
        let own = own.map(|n| folder_name(&n)).find(|n| folders.insert(n.clone()));
        let folder = args.out.join(folder_name(&task.name())).join(own.unwrap_or_default());
        report(&evaluation, &folder, &HtmlOptions::default(), ui, several)?;
        summaries.push(evaluation.summary);
    }
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&summaries)?);
    } else if several {
        println!("{}", overview(&summaries));
    }
    Ok(ExitCode::SUCCESS)
}
