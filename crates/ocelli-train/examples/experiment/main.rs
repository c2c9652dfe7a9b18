//! The experiments of `docs/experiments.md`, each one command:
//!
//! ```text
//! cargo run --release -p ocelli-train --example experiment -- tools --seeds 5
//! cargo run --release -p ocelli-train --example experiment -- ssb --seeds 5
//! cargo run --release -p ocelli-train --example experiment -- preference --seeds 5
//! cargo run --release -p ocelli-train --example experiment -- real --seeds 5 puzzlevqa=DIR easy_vqa=DIR
//! ```
//!
//! Results go to standard output, one JSON line per seed, arm and metric; progress to standard error; at the end stands a table
//! with means, 95 % intervals and paired differences. `--first S` begins at another seed, so that seeds can be run in pieces;
//! `summary FILE...` makes the table of the lines of several pieces. `key=value` changes a setting.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod preference;
mod real;
mod ssb;
mod stats;
mod task;
mod tools;

use std::error::Error;

use stats::{Row, table};
use task::{Lab, Settings};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("name an experiment: tools, ssb, preference, real, or summary FILE...")?;
    if name == "summary" {
        let mut rows = Vec::new();
        for file in args {
            for line in std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?.lines() {
                rows.push(serde_json::from_str::<Row>(line).map_err(|e| format!("{file}: {e}"))?);
            }
        }
        eprint!("{}", table(&rows));
        return Ok(());
    }
    let run: fn(&Lab, u64) -> Result<()> = match name.as_str() {
        "tools" => tools::run,
        "ssb" => ssb::run,
        "preference" => preference::run,
        "real" => real::run,
        _ => return Err(format!("there is no experiment `{name}`").into()),
    };
    let (mut seeds, mut first) = (1u64, 0u64);
    let mut settings = serde_json::to_value(Settings::of(&name))?;
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.split_once('=')) {
            ("--seeds", _) => seeds = args.next().ok_or("--seeds N")?.parse()?,
            ("--first", _) => first = args.next().ok_or("--first N")?.parse()?,
            (_, Some((key, value))) => {
                let slot = settings.get_mut(key).ok_or_else(|| format!("there is no setting `{key}`"))?;
                *slot = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            }
            _ => return Err(format!("cannot read `{arg}`").into()),
        }
    }
    let lab = Lab::new(&name, serde_json::from_value(settings)?)?;
    for seed in first..first + seeds {
        run(&lab, seed)?;
    }
    eprint!("{}", table(&lab.rows()));
    Ok(())
}
