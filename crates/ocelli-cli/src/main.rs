//! The binary `ocelli`: parses the command line, runs one command, turns its outcome into an exit code.
//!
//! ```console
//! $ ocelli verify 1/2 0.5
//! equal by rule `rational`
//!   gold    1/2  (number)
//!   answer  0.5  (number)
//! ```
//!
//! Exit codes: 0 done; 1 done, and the answer is "no" (different, not equal, check failed); 2 the request or its
//! input is wrong; 3 done in part, some work was given up; 130 interrupted; 141 nobody read what was printed (`ocelli ... | head`).

// The command line is the one place that talks to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod config;
mod machine;
mod pipeline;
mod report;
mod ui;
mod watch;

use std::process::ExitCode;

use clap::{FromArgMatches, Parser};

/// Post-train and examine models that reason over images.
#[derive(Parser)]
#[command(name = "ocelli", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Start with `ocelli doctor`. Every command explains itself with --help.")]
struct Cli {
    #[command(flatten)]
    ui: ui::UiArgs,
    #[command(subcommand)]
    command: commands::Command,
}

/// Exit code where nobody reads what is printed, as a shell reports it of other programs.
const CLOSED_PIPE: u8 = 141;

/// A reader that closes its end is no defect of this program: it ends quietly, as others do.
fn end_quietly_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE.into());
        }
        usual(info);
    }));
}

/// `--limit -1` is a wrong number, not an unknown flag: clap would advise `-- -1`, which is no help behind a flag.
fn numbers_may_be_negative(command: clap::Command) -> clap::Command {
    let plain = |a: &clap::Arg| !a.get_action().takes_values() || a.is_allow_hyphen_values_set();
    command
        .mut_args(|a| if plain(&a) { a } else { a.allow_negative_numbers(true) })
        .mut_subcommands(numbers_may_be_negative)
}

fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let matches = numbers_may_be_negative(command_line()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let ui = ui::Ui::new(&cli.ui);
    ui.start_log();
    match cli.command.run(&ui) {
        Ok(code) => code,
        Err(error)
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::from(CLOSED_PIPE)
        }
        Err(error) => {
            ui.error(&error);
            ExitCode::from(2)
        }
    }
}

/// The whole command line, for help, completions, man pages and the reference.
pub(crate) fn command_line() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command_line().debug_assert();
    }
}
