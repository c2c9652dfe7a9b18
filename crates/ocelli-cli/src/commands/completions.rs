//! `ocelli completions`: shell completions, man pages and the Markdown reference, all from the one definition.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::config_reference;

/// Write shell completions, man pages, or the references of the command line and of configuration files.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to write.
    #[arg(value_enum)]
    what: What,
    /// Directory for man pages and schemas (default: man, schemas); the others go to standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Bash,
    Zsh,
    Fish,
    /// Man pages, one a command, into --out.
    Man,
    /// The reference of all commands in Markdown.
    Markdown,
    /// The reference of all configuration files in Markdown: keys, types, defaults, meanings.
    Config,
    /// JSON Schemas of the configuration files, into --out: editors complete and check TOML with them.
    Schema,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut command = crate::command_line();
    let mut stdout = std::io::stdout().lock();
    let shell = match args.what {
        What::Bash => clap_complete::Shell::Bash,
        What::Zsh => clap_complete::Shell::Zsh,
        What::Fish => clap_complete::Shell::Fish,
        What::Man => {
            let out = args.out.clone().unwrap_or_else(|| "man".into());
            ocelli_data::io::create_dir(&out)?;
            clap_mangen::generate_to(command, &out)?;
            writeln!(stdout, "man pages are in {}", out.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Markdown => {
            command.build();
            stdout.write_all(reference(&command).as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Config => {
            stdout.write_all(config_reference::markdown().as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Schema => {
            let out = args.out.clone().unwrap_or_else(|| "schemas".into());
            ocelli_data::io::create_dir(&out)?;
            for (_, name, schema) in config_reference::files() {
                let text = serde_json::to_string_pretty(&schema)? + "\n";
                ocelli_data::io::write_atomic(&out.join(format!("{name}.json")), text.as_bytes())?;
            }
            writeln!(stdout, "schemas are in {}", out.display())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    clap_complete::generate(shell, &mut command, "ocelli", &mut stdout);
    Ok(ExitCode::SUCCESS)
}

/// The command-line reference in Markdown: every command with its usage, arguments and options.
fn reference(command: &clap::Command) -> String {
    let mut out = String::from(
        "# Command-line reference\n\nGenerated: `ocelli completions markdown > docs/cli.md`. A test compares.\n\n\
         Exit codes: 0 done; 1 done, and the answer is \"no\" (different, not equal, check failed); 2 the request or its \
         input is wrong; 3 done in part, some work was given up; 130 interrupted; 141 nobody read what was printed (`ocelli ... | \
         head`).\n\nEvery command also takes:\n\n",
    );
    for arg in command.get_arguments().filter(|a| a.is_global_set()) {
        option(arg, &mut out);
    }
    section(command, &mut out);
    out
}

/// One line about an argument or option.
fn option(arg: &clap::Arg, out: &mut String) {
    let flag = match (arg.get_long(), arg.get_short()) {
        (Some(long), Some(short)) => format!("-{short}, --{long}"),
        (Some(long), None) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => format!("<{}>", arg.get_id().as_str().to_uppercase()),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let takes_value = arg.get_action().takes_values() && !values.is_empty();
    let default = if takes_value { format!(" (default `{}`)", values.join(",")) } else { String::new() };
    let _ = writeln!(out, "- `{flag}`: {}{default}", help.replace('\n', " "));
}

fn section(command: &clap::Command, out: &mut String) {
    if command.get_name() == "help" {
        return;
    }
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let _ = writeln!(out, "\n## `{name}`\n");
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _ = writeln!(out, "{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(out, "```text\n{}\n```\n", usage.trim());
    for arg in command.get_arguments().filter(|a| !a.is_hide_set() && !a.is_global_set()) {
        if ["help", "version"].contains(&arg.get_id().as_str()) {
            continue;
        }
        option(arg, out);
    }
    for sub in command.get_subcommands() {
        section(sub, out);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_in_docs_is_what_the_program_says() {
        let mut command = crate::command_line();
        command.build();
        let written = include_str!("../../../../docs/cli.md");
        let said = super::reference(&command);
        let differs = said.lines().zip(written.lines()).find(|(a, b)| a != b);
        assert!(
            said == written,
            "docs/cli.md is out of date: `ocelli completions markdown > docs/cli.md`; {differs:?}"
        );
    }
}
