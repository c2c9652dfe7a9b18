//! One command, one file: its arguments and what it does.

mod check_table;
mod compare;
mod completions;
mod config_reference;
mod doctor;
mod eval;
mod generate;
mod init;
mod inspect;
mod local_policy;
pub(crate) mod model_source;
mod packages;
mod report;
mod rescore;
mod rollout;
mod run;
pub(crate) mod tool_source;
mod tools;
mod train;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use crate::ui::Ui;

/// All commands, in the order in which help shows them.
#[derive(Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    Eval(eval::Args),
    Rescore(rescore::Args),
    Compare(compare::Args),
    CheckTable(check_table::Args),
    Report(report::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Init(init::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Tools(tools::Args),
    Train(train::Args),
    Rollout(rollout::Args),
    Completions(completions::Args),
}

impl Command {
    pub(crate) fn run(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(&args, ui),
            Self::Eval(args) => eval::run(&args, ui),
            Self::Rescore(args) => rescore::run(&args, ui),
            Self::Compare(args) => compare::run(&args, ui),
            Self::CheckTable(args) => check_table::run(&args, ui),
            Self::Report(args) => report::run(&args, ui),
            Self::Doctor(args) => doctor::run(&args, ui),
            Self::Generate(args) => generate::run(&args, ui),
            Self::Init(args) => init::run(&args, ui),
            Self::Inspect(args) => inspect::run(&args, ui),
            Self::Verify(args) => verify::run(&args, ui),
            Self::Tools(args) => tools::run(&args, ui),
            Self::Train(args) => train::run(&args, ui),
            Self::Rollout(args) => rollout::run(&args, ui),
            Self::Completions(args) => completions::run(&args),
        }
    }
}
