//! `ocelli verify`: whether two answers mean the same, which rule says so, and what was read.

use std::process::ExitCode;

use ocelli_reward::choice::{named_letters, verify_choice};
use ocelli_reward::extract::LADDER;
use ocelli_reward::verify::{Decimals, Missing, Outcome, Policy, Verdict, verify, verify_response};

use crate::ui::Ui;

/// Compare an answer with the gold answer and explain the verdict.
///
/// Both may be LaTeX or plain text: numbers, units, per cent, expressions, equations, intervals, sets, matrices,
/// choices, words. Exit code 0: equal. 1: different. 2: unknown, or the request is wrong.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ocelli verify '\\frac{3}{4}' 0.75
  ocelli verify '12 cm' '0.12 m'
  ocelli verify --response 42 \"$(cat response.txt)\"
  ocelli verify --option red --option blue B 'The answer is (B).'")]
pub(crate) struct Args {
    /// The right answer; with --option its letter, or several as in A,C or AC.
    #[arg(allow_hyphen_values = true)]
    gold: String,
    /// The answer to judge.
    #[arg(allow_hyphen_values = true)]
    answer: String,
    /// The answer is a whole response: find the answer in it first.
    #[arg(long)]
    response: bool,
    /// Text of an option, once per option in the order A, B, C ... (implies --response).
    #[arg(long = "option", value_name = "TEXT", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Allowed absolute error.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    absolute: f64,
    /// Allowed error relative to the gold value, e.g. 0.05.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    relative: f64,
    /// Nothing is rounded or filled in: 3.14 is not pi, 12 is not 12 cm, 33.5 is not 33.5 %. Other spellings of the same
    /// quantity stay equal: 120 mm for 12 cm, 0.335 for 33.5 %, 1/2 for 0.50.
    #[arg(long)]
    exact: bool,
    /// Elements of a list must stand in the order of the gold answer.
    #[arg(long)]
    ordered: bool,
    /// Symbols stand for positive numbers.
    #[arg(long)]
    positive: bool,
}

impl Args {
    fn policy(&self) -> anyhow::Result<Policy> {
        for (name, value) in [("--absolute", self.absolute), ("--relative", self.relative)] {
            anyhow::ensure!(
                value >= 0.0 && value.is_finite(),
                "{name} is {value}; give a number of at least 0"
            );
        }
        let mut policy = Policy {
            absolute: if self.absolute > 0.0 { vec![self.absolute] } else { Vec::new() },
            relative: self.relative,
            ordered_lists: self.ordered,
            positive_symbols: self.positive,
            ..Policy::default()
        };
        if self.exact {
            (policy.decimals, policy.unit, policy.percent) =
                (Decimals::Exact, Missing::Reject, Missing::Reject);
        }
        Ok(policy)
    }

    fn verdict(&self) -> anyhow::Result<Verdict> {
        let policy = self.policy()?;
        if !self.options.is_empty() {
            let named = named_letters(&self.gold).unwrap_or_default();
            let count = self.options.len();
            anyhow::ensure!(
                !named.is_empty() && named.iter().all(|c| (*c as usize) < 'A' as usize + count),
                "the gold answer `{}` names none of the {count} options; with --option it is a letter from A to {}, or several",
                self.gold,
                char::from(b'A' + (count.min(26) as u8) - 1)
            );
            let letters: Vec<String> = named.into_iter().map(String::from).collect();
            return Ok(verify_choice(&letters, &self.options, &self.answer));
        }
        Ok(if self.response {
            verify_response(&self.gold, &self.answer, &LADDER, &policy)
        } else {
            verify(&self.gold, &self.answer, &policy)
        })
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let verdict = args.verdict()?;
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        explain(&verdict, ui);
    }
    Ok(match verdict.outcome {
        Outcome::Equal => ExitCode::SUCCESS,
        Outcome::Different => ExitCode::from(1),
        Outcome::Unknown => ExitCode::from(2),
    })
}

fn explain(verdict: &Verdict, ui: &Ui) {
    let word = match verdict.outcome {
        Outcome::Equal => ui.verdict("equal", true),
        Outcome::Different => ui.verdict("different", false),
        Outcome::Unknown => ui.bold("unknown"),
    };
    println!("{word} by rule `{}`", verdict.rule);
    for (side, reading) in [("gold", &verdict.gold), ("answer", &verdict.answer)] {
        let kind = if reading.kind.is_empty() { String::new() } else { format!("  ({})", reading.kind) };
        println!("  {side:<7} {}{kind}", reading.text);
    }
    if let (Some(rung), Some(span)) = (verdict.rung, &verdict.span) {
        println!("  {:<7} {rung:?}, bytes {} to {} of the response", "read by", span.start, span.end);
    }
    if !verdict.note.is_empty() {
        println!("  {:<7} {}", "note", verdict.note);
    }
}
