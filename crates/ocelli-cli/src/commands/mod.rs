//! One command, one file: its arguments and what it does.

mod completions;
mod doctor;
mod train;

use std::process::ExitCode;

use clap::Subcommand;

use crate::ui::Ui;

/// All commands, in the order in which help shows them.
#[derive(Subcommand)]
pub(crate) enum Command {
    Doctor(doctor::Args),
    Train(train::Args),
    Completions(completions::Args),
}

impl Command {
    pub(crate) fn run(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        match self {
            Self::Doctor(args) => doctor::run(&args, ui),
            Self::Train(args) => train::run(&args, ui),
            Self::Completions(args) => completions::run(&args),
        }
    }
}
