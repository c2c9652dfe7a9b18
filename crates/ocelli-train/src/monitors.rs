//! Watches the metrics of a run and raises alarms: once when a rule starts to hold, and again only after it stopped
//! holding for a whole window. An alarm is a record of the run, never a silent stop. A monitor whose metric a run does not
//! have never fires; which have it, of those of a reinforcement-learning run:
//!
//! ```text
//! groups/informative      every run
//! buffer/fill             with a buffer; below 1 while it has too little to stand in for uninformative groups
//! mismatch/k3             every run, over fresh tokens of the present weights: rounding, unless sampler and trainer differ
//! policy/clip_fraction    every run, but fresh tokens have ratio 1 and are never clipped: can fire only with `partial`, by
//!                         tokens that older weights sampled
//! buffer/clip_fraction    in steps that replay: ratios against the weights that sampled the replayed tokens
//! policy/entropy          every run, over fresh tokens
//! response/truncated      every run
//! response/blind          every run: phrases by which an answer admits that it does not see
//! mentions/precision      where `meta.shown` of samples lists what is in the picture, in steps with a mention
//! image/dependence        every `dependence_every` steps
//! ```

use std::collections::{BTreeMap, VecDeque};

use ocelli_data::record::Record;
use serde::{Deserialize, Serialize};

/// When a metric is alarming; compared with its mean over the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// The mean is above this.
    Above(f64),
    /// The mean is below this.
    Below(f64),
    /// The mean has risen by more than this since the first full window.
    RisenBy(f64),
    /// The mean has fallen by more than this since the first full window.
    FallenBy(f64),
}

/// One monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Name of the metric, e.g. `buffer/fill`.
    pub metric: String,
    /// When it is alarming.
    pub rule: Rule,
    /// Steps over which it is averaged.
    #[serde(default = "ten")]
    pub window: usize,
    /// What a person should do.
    #[serde(default)]
    pub advice: String,
}

fn ten() -> usize {
    10
}

impl Monitor {
    fn new(metric: &str, rule: Rule, window: usize, advice: &str) -> Self {
        Self { metric: metric.into(), rule, window, advice: advice.into() }
    }

    /// The monitors of a reinforcement-learning run.
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::new(
                "groups/informative",
                Rule::Below(0.2),
                10,
                "prompts are too easy or too hard: filter prompts, raise the group size, or turn the sample buffer on",
            ),
            Self::new(
                "buffer/fill",
                Rule::Below(0.8),
                10,
                "the buffer is too small or too young: raise capacity or max_age",
            ),
            Self::new(
                "mismatch/k3",
                Rule::Above(0.01),
                3,
                "sampler and trainer disagree: check weights, images and precision, or use a mismatch correction",
            ),
            Self::new(
                "policy/clip_fraction",
                Rule::Above(0.3),
                10,
                "rollouts that go on over several steps are far from the policy by now: lower max_staleness or the learning rate",
            ),
            Self::new(
                "policy/entropy",
                Rule::Below(0.02),
                10,
                "the policy has collapsed: add an entropy bonus, raise clip high, or stop earlier",
            ),
            Self::new(
                "response/truncated",
                Rule::Above(0.3),
                10,
                "many responses hit a limit: raise it or shape lengths",
            ),
            Self::new(
                "image/dependence",
                Rule::FallenBy(0.5),
                10,
                "answers depend less on the picture: the reward can be had without looking",
            ),
            Self::new(
                "response/blind",
                Rule::RisenBy(0.1),
                10,
                "the policy says that it sees no picture: check that pictures reach it, and what rewards such answers",
            ),
            Self::new(
                "mentions/precision",
                Rule::FallenBy(0.1),
                10,
                "the policy names things that are not there: lower the reward model's weight or raise its threshold",
            ),
            Self::new(
                "buffer/clip_fraction",
                Rule::Above(0.3),
                10,
                "replayed responses are far from the policy by now: lower max_age or the learning rate, or set max_drift",
            ),
        ]
    }
}

/// Monitors with their memory; part of every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Monitors {
    state: BTreeMap<String, State>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
struct State {
    /// Latest values, as bits.
    window: VecDeque<u64>,
    first: Option<u64>,
    /// Steps for which the rule has not held since the last alarm; `None` before the first.
    quiet: Option<usize>,
}

impl Monitors {
    /// Takes in a metric of one step; returns the alarms that it raises.
    pub fn observe(
        &mut self,
        monitors: &[Monitor],
        stage: &str,
        step: u64,
        metric: &str,
        value: f64,
    ) -> Vec<Record> {
        let mut alarms = Vec::new();
        for (i, monitor) in monitors.iter().enumerate().filter(|(_, m)| m.metric == metric) {
            let size = monitor.window.max(1);
            let state = self.state.entry(format!("{i}/{metric}")).or_default();
            state.window.push_back(value.to_bits());
            if state.window.len() > size {
                state.window.pop_front();
            }
            if state.window.len() < size {
                continue;
            }
            let mean = state.window.iter().map(|b| f64::from_bits(*b)).sum::<f64>() / size as f64;
            let first = f64::from_bits(*state.first.get_or_insert(mean.to_bits()));
            let (holds, limit) = match monitor.rule {
                Rule::Above(limit) => (mean > limit, format!("above {limit}")),
                Rule::Below(limit) => (mean < limit, format!("below {limit}")),
                Rule::RisenBy(by) => (mean - first > by, format!("risen by more than {by} from {first:.4}")),
                Rule::FallenBy(by) => {
                    (first - mean > by, format!("fallen by more than {by} from {first:.4}"))
                }
            };
            match (holds, &mut state.quiet) {
                (true, quiet) => {
                    if quiet.is_none_or(|q| q >= size) {
                        let message =
                            format!("{metric} is {mean:.4} over {size} steps, {limit}: {}", monitor.advice);
                        alarms.push(Record::Alarm {
                            stage: stage.into(),
                            step,
                            monitor: metric.into(),
                            message,
                        });
                    }
                    *quiet = Some(0);
                }
                (false, Some(q)) => *q += 1,
                (false, None) => {}
            }
        }
        alarms
    }
}
