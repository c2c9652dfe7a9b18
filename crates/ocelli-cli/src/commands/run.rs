//! `ocelli run CONFIG`: a pipeline from questions to a report.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::config;
use crate::pipeline::{self, Outcome, Pipeline};
use crate::report::Run;
use crate::ui::Ui;
use crate::watch::{INTERRUPTED, Watch, stop_on_interrupt};

/// Run a pipeline of stages: data, trajectories, SFT, pairs, reward model, MPO, GRPO, evaluation, report.
///
/// Stages whose inputs have not changed are skipped. A run that was stopped or killed goes on when the same command is
/// given again, to the same numbers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The pipeline, a TOML file; configs/charts.toml is an example.
    config: PathBuf,
    /// Change a setting: --set stage.sft.train.run.steps=100. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The small form of the run, as the file's `quick` says; it goes to its own directory.
    #[arg(long = "quick")]
    small: bool,
    /// Seed of models, training and draws.
    #[arg(long)]
    seed: Option<u64>,
    /// Run directory, instead of the file's `out`.
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// Make every stage again, also those that are done.
    #[arg(long, conflicts_with_all = ["dry_run", "check"])]
    fresh: bool,
    /// Check the file and print the plan with estimated time and memory; run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Check the file alone: it is understood, and its stages fit together. Data and models are not looked for.
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
}

/// The file with everything that the command line changes.
fn load(args: &Args) -> anyhow::Result<Pipeline> {
    let mut changes = Vec::new();
    if args.small {
        let plain: Pipeline = config::load(&args.config, &args.set)?;
        anyhow::ensure!(
            !plain.quick.is_empty(),
            "{} has no `quick`, so there is no small form of it",
            args.config.display()
        );
        let _small: Pipeline =
            config::load(&args.config, &plain.quick).context("in the `quick` of the file")?;
        changes = plain.quick;
    }
    changes.extend(args.set.iter().cloned());
    let mut pipeline: Pipeline = config::load(&args.config, &changes)?;
    if args.small {
        pipeline.name += " (quick)";
        pipeline.out.as_mut_os_string().push("-quick");
        pipeline.quick.clear();
    }
    if let Some(seed) = args.seed {
        pipeline.seed = seed;
    }
    if let Some(out) = &args.out {
        pipeline.out.clone_from(out);
    }
    pipeline::check(&pipeline)?;
    Ok(pipeline)
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let mut config = load(args)?;
    if args.check {
        println!("{}: {} stages fit together", args.config.display(), config.stage.len());
        return Ok(ExitCode::SUCCESS);
    }
    pipeline::find(&mut config, ui)?;
    if args.dry_run {
        return plan(&config, ui);
    }
    let mut watch = Watch::new(ui, stop_on_interrupt());
    match pipeline::run(&config, ui, &mut watch, args.fresh)? {
        Outcome::Interrupted(stage) => {
            ui.note(&format!("stopped in stage `{stage}`; the same command goes on"));
            Ok(ExitCode::from(INTERRUPTED))
        }
        Outcome::Finished(page) => {
            let run = Run::open(&config.out)?;
            if ui.json {
                println!("{}", serde_json::to_string_pretty(&run.summary_for_machines(&page)?)?);
            } else {
                println!("{}", pipeline::table(&run));
                let beside = pipeline::results(&run);
                if !beside.is_empty() {
                    println!("{beside}");
                }
                println!("report: {}", page.display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn clock(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("about {s:.0} s"),
        s => format!("about {:.0} min", s / 60.0),
    }
}

fn plan(config: &Pipeline, ui: &Ui) -> anyhow::Result<ExitCode> {
    let plan = pipeline::estimate(config, ui)?;
    let total: f64 = plan.lines.iter().filter_map(|l| l.seconds).sum();
    if ui.json {
        let lines = plan.lines.iter().map(|l| {
            serde_json::json!({ "stage": l.stage, "what": l.says, "state": l.state, "seconds": l.seconds })
        });
        let all = serde_json::json!({
            "name": config.name,
            "out": config.out,
            "stages": lines.collect::<Vec<_>>(),
            "seconds": total,
            "memory_mib": plan.memory,
        });
        println!("{all:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", ui.bold(&format!("{} -> {}", config.name, config.out.display())));
    let width = plan.lines.iter().map(|l| l.stage.len()).max().unwrap_or(0);
    for l in &plan.lines {
        let time = l.seconds.map_or(String::new(), clock);
        println!("  {:width$}  {:<9}  {:<32}  {time}", l.stage, l.state, l.says);
    }
    println!(
        "in all {}, from one measured step; answers are counted as long as `rollout.limits` allow",
        clock(total)
    );
    if let Some(mib) = plan.memory {
        println!(
            "at least {mib} MiB of memory: what training and answering at full width took, with optimizer and a second model; \
             pictures come on top of it"
        );
    }
    Ok(ExitCode::SUCCESS)
}
