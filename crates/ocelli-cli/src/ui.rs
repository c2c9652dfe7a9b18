//! What people see: colours only on a terminal, JSON for machines, progress bars with the time left.

use std::io::IsTerminal;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Flags that every command shares.
#[derive(Args, Clone, Debug)]
pub(crate) struct UiArgs {
    /// Print one JSON document for machines instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    /// No progress bars.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// More of what happens inside (-v, -vv); goes to standard error.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// How to speak to whoever runs the command.
#[derive(Clone, Debug)]
pub(crate) struct Ui {
    /// True when the command must print one JSON document on standard output and nothing else there.
    pub(crate) json: bool,
    quiet: bool,
    verbose: u8,
    colour_out: bool,
    colour_err: bool,
}

impl Ui {
    pub(crate) fn new(args: &UiArgs) -> Self {
        // https://no-color.org: present and not empty means no colour.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self {
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
            colour_out: !no_colour && std::io::stdout().is_terminal(),
            colour_err: !no_colour && std::io::stderr().is_terminal(),
        }
    }

    /// Sends tracing events to standard error.
    pub(crate) fn start_log(&self) {
        let level = match self.verbose {
            // What goes wrong in the library of the tool protocol is told by those who called it, in words for people.
            0 => "warn,rmcp=off",
            1 => "info",
            _ => "debug",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("OCELLI_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(self.colour_err)
            .without_time()
            .init();
    }

    /// Prints an error with its causes.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let (on, off) = if self.colour_err { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mut shown = error.to_string();
        eprintln!("{on}error:{off} {shown}");
        for cause in error.chain().skip(1) {
            let text = cause.to_string();
            // Errors of the libraries often carry their source's text already.
            if !shown.contains(&text) {
                eprintln!("  because: {text}");
            }
            shown = text;
        }
    }

    /// A remark beside the output; goes to standard error, not when quiet or with `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            eprintln!("{text}");
        }
    }

    /// Something that must not be missed; goes to standard error always.
    pub(crate) fn warning(&self, text: &str) {
        let (on, off) = if self.colour_err { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        eprintln!("{on}{text}{off}");
    }

    /// `text` in bold on a terminal.
    pub(crate) fn bold(&self, text: &str) -> String {
        if self.colour_out { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `text` in green (good) or red (bad) on a terminal.
    pub(crate) fn verdict(&self, text: &str, good: bool) -> String {
        let colour = if good { 32 } else { 31 };
        if self.colour_out { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A bar over `total` units with rate and time left; hidden when quiet, when piped, or with `--json`.
    pub(crate) fn progress(&self, total: u64, what: &str) -> ProgressBar {
        let hidden = self.quiet || self.json || !std::io::stderr().is_terminal();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>10} [{bar:28}] {pos}/{len} {per_sec} eta {eta} {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        bar
    }
}
