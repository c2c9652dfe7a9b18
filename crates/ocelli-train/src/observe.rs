//! How a loop tells the world how it goes, and how the world tells it to stop. The library prints nothing; the command
//! line draws.

use ocelli_data::record::Record;

/// What a step did.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// `sft`, `reward`, `mpo` or `grpo`.
    pub stage: &'a str,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Tokens that went through the trained forward pass in this step.
    pub tokens: usize,
    /// Wall time of this step in seconds.
    pub seconds: f64,
    /// All metrics of the step by name, `loss` among them.
    pub metrics: &'a [(String, f64)],
}

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Go on.
    On,
    /// Write a checkpoint and return.
    Stop,
}

/// Sees what a run does. All methods do nothing by default.
pub trait Observer {
    /// After each optimizer step.
    fn step(&mut self, _progress: &Progress<'_>) -> Go {
        Go::On
    }

    /// A monitor raised an alarm.
    fn alarm(&mut self, _alarm: &Record) {}

    /// Something worth a line: resumed, evaluated, stopped early.
    fn note(&mut self, _text: &str) {}
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
