//! Verdicts per second of one thread on the pairs that `bench/verifier.sh` names, the counterpart of Math-Verify's run.
//!
//!     cargo run --release -p ocelli-reward --example verify_speed -- PAIRS.jsonl [REPEATS [VERDICTS.jsonl]]
//!
//! A line of the file is `{"gold": .., "options": [..], "response": .., "correct": bool}`. Reading the file is not timed.
//! Each pair is read and compared from its texts, in turn; nothing is kept between pairs.

#![allow(clippy::print_stdout)] // an example talks to the terminal

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use ocelli_reward::choice::verify_choice;
use ocelli_reward::extract::LADDER;
use ocelli_reward::verify::{Outcome, Policy, verify_response};
use serde::Deserialize;

#[derive(Deserialize)]
struct Pair {
    gold: String,
    options: Vec<String>,
    response: String,
    correct: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: verify_speed PAIRS.jsonl [REPEATS]")?;
    let repeats: usize = arguments.next().map_or(Ok(1), |n| n.parse())?;
    let pairs: Vec<Pair> = ocelli_data::io::read_jsonl(Path::new(&path))?;
    let policy = Policy::default();
    let out = arguments.next();
    let mut verdicts = Vec::new();
    let (mut slowest, mut agree, mut unknown, mut yes_label_no, mut no_label_yes) =
        (Duration::ZERO, 0, 0, 0, 0);
    let start = Instant::now();
    for round in 0..repeats {
        for pair in &pairs {
            let begin = Instant::now();
            let verdict = if pair.options.is_empty() {
                verify_response(&pair.gold, &pair.response, &LADDER, &policy)
            } else {
                verify_choice(std::slice::from_ref(&pair.gold), &pair.options, &pair.response)
            };
            slowest = slowest.max(begin.elapsed());
            if round == 0 {
                let yes = verdict.outcome == Outcome::Equal;
                agree += usize::from(yes == pair.correct);
                unknown += usize::from(verdict.outcome == Outcome::Unknown);
                yes_label_no += usize::from(yes && !pair.correct);
                no_label_yes += usize::from(!yes && pair.correct);
                verdicts.push(verdict);
            }
        }
    }
    let wall = start.elapsed().as_secs_f64();
    if let Some(out) = out {
        ocelli_data::io::write_jsonl(Path::new(&out), &verdicts)?;
    }
    let n = pairs.len();
    println!(
        "pairs={n} repeats={repeats} wall={wall:.4}s verdicts/s={:.0} slowest={:.2}ms agree={agree} ({:.2}%) \
         yes-but-label-no={yes_label_no} no-but-label-yes={no_label_yes} unknown={unknown}",
        (n * repeats) as f64 / wall,
        slowest.as_secs_f64() * 1e3,
        100.0 * agree as f64 / n as f64,
    );
    Ok(())
}
