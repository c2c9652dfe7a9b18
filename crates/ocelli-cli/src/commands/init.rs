//! `ocelli init`: a new model of the native family, written as a checkpoint that every other command reads.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::builder::PossibleValuesParser;
use ocelli_model::vlm::tiny::TinyConfig;
use ocelli_model::{SaveDtype, Vlm};
use serde_json::json;

use crate::ui::Ui;

/// Write a new small model that sees, with random weights.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Size of the model.
    #[arg(value_parser = PossibleValuesParser::new(TinyConfig::PRESETS))]
    preset: String,
    /// Directory of the checkpoint; it must not hold one yet.
    out: PathBuf,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    if args.out.join("config.json").exists() {
        bail!("{} holds a checkpoint already; name another directory", args.out.display());
    }
    let model = Vlm::tiny(&TinyConfig::preset(&args.preset)?, args.seed)?;
    model.save(&args.out, SaveDtype::F32)?;
    let n = model.params.element_count();
    if ui.json {
        println!(
            "{:#}",
            json!({"model": args.out, "preset": args.preset, "seed": args.seed, "parameters": n})
        );
    } else {
        println!("{}: {:.2} million parameters, not trained", args.out.display(), n as f64 / 1e6);
    }
    Ok(ExitCode::SUCCESS)
}
