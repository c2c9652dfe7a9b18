//! `ocelli rescore`: score stored outputs, or a run's log, without asking anything.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use ocelli_eval::evaluate::rescore;
use ocelli_eval::load::{Pictures, load};
use ocelli_eval::report::HtmlOptions;
use ocelli_eval::stored::{from_log, read_stored};
use serde::Deserialize;

use super::eval::{data_dir, folder_name, report, task};
use crate::ui::Ui;

/// Score stored outputs again, without a model: files of other programs, JSON lines of id and response, or a run's folder.
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
    #[arg(long)]
    rewards: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Reward {
    id: String,
    #[serde(default)]
    sample: u32,
    reward: f64,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let task = task(&args.task)?;
    let data = data_dir(args.data.as_deref());
    let blobs = args.out.join("images");
    let mut rewards = HashMap::new();
    if let Some(path) = &args.rewards {
        for (i, r) in ocelli_data::io::read_jsonl::<Reward>(path)?.into_iter().enumerate() {
            anyhow::ensure!(
                r.reward.is_finite(),
                "{}: row {} has a reward that is not a number",
                path.display(),
                i + 1
            );
            rewards.insert((r.id, r.sample), r.reward);
        }
    }
    let mut summaries = Vec::new();
    for path in &args.outputs {
        let stored = if path.is_dir() {
            from_log(&task, &load(&task, &data, &blobs, Pictures::Read)?, path)?
        } else {
            read_stored(&task, path, || load(&task, &data, &blobs, Pictures::Ignore))?
        };
        let name = path.file_stem().context("the output has no name")?.to_string_lossy().into_owned();
        let evaluation = rescore(&task, &stored, &name, &rewards)?;
        let folder = args.out.join(folder_name(&task.name())).join(folder_name(&name));
        report(&evaluation, &folder, &HtmlOptions::default(), ui)?;
        summaries.push(evaluation.summary);
    }
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&summaries)?);
    }
    Ok(ExitCode::SUCCESS)
}
