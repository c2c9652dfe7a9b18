//! Checks of the repository itself: `cargo xtask tidy`.
//!
//! What it holds: the dependency arrows of ARCHITECTURE.md, that every path named there exists, that fixtures stay
//! small, that no large file slips in, that no file grows beyond reading, and that CI runs the README's command.

// A checker speaks to whoever runs it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod tidy;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let complaints = tidy::check(&root)?;
            for complaint in &complaints {
                eprintln!("tidy: {complaint}");
            }
            if complaints.is_empty() {
                println!("tidy: all well");
            }
            Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        other => {
            eprintln!("unknown task {other:?}; there is one: cargo xtask tidy");
            Ok(ExitCode::from(2))
        }
    }
}
