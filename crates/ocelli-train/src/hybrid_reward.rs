//! The reward of a rollout: rules, format, tool terms and cost from a rubric, a learned reward model, necessity of tools
//! and length, each reported on its own (Skywork R1V2, arXiv 2504.16656, section 2.3).
//!
//! ```text
//! R = sum_k weight_k rubric_k + weight_m model(x, y) + weight_n necessity + overlong(|y|)
//! model(x, y) = score - threshold, or 1[score >= threshold] with `indicator`
//! ```
//!
//! An answer that a rule cannot score counts as 0 for it (`Score::or_zero`) and stays in its group's mean and deviation.

use std::collections::BTreeMap;

use ocelli_data::{Message, Role, Sample, Score, Trajectory};
use ocelli_model::vlm::{Pictures, Vlm};
use ocelli_reward::rubric::{PartConfig, PartKind};
use ocelli_reward::tool_use::necessity;
use ocelli_reward::{Accuracy, Rubric, Scorer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;
use crate::reward_model::score_dialogues;
use crate::shaping::Overlong;

/// How a reward model's score enters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelReward {
    /// Weight in the sum.
    pub weight: f64,
    /// Subtracted from the score, or the bar that it must reach; calibrate it anew for every checkpoint.
    #[serde(default)]
    pub threshold: f64,
    /// 1 at or above the threshold and 0 below it, instead of the score itself.
    #[serde(default)]
    pub indicator: bool,
    /// The model reads the whole dialogue, calls and replies included, as pairs with tools are written; else the question and
    /// the final answer alone.
    #[serde(default)]
    pub dialogue: bool,
}

/// What is rewarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSpec {
    /// Rules.
    pub rules: Vec<PartConfig>,
    /// The reward model, where one is given.
    pub model: Option<ModelReward>,
    /// Weight of the necessity of tools: -1 for a rollout that called tools although another one of its group was right
    /// without.
    pub necessity: f64,
    /// Punishment of overlong responses.
    pub overlong: Option<Overlong>,
}

impl Default for RewardSpec {
    fn default() -> Self {
        let rules = vec![PartConfig { weight: 1.0, kind: PartKind::Accuracy(Accuracy::default()) }];
        Self { rules, model: None, necessity: 0.0, overlong: None }
    }
}

/// The parts of one rollout's reward by name, unweighted, and their weighted sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewarded {
    /// The sum.
    pub total: f64,
    /// Right or wrong by the rules (1 is right), whatever the weights say.
    pub accuracy: f64,
    /// Every part.
    pub parts: BTreeMap<String, f64>,
    /// Weight and value of every part, in the same order for all rollouts.
    pub terms: Vec<(f64, f64)>,
}

impl Rewarded {
    fn add(&mut self, name: &str, weight: f64, value: f64) {
        self.parts.insert(name.to_owned(), value);
        self.terms.push((weight, value));
        self.total += weight * value;
    }
}

/// Scores groups of rollouts.
pub struct Judge<'a> {
    spec: RewardSpec,
    rubric: Rubric,
    model: Option<&'a Vlm>,
    /// Tools that the chat template lists before a dialogue.
    tools: Vec<Value>,
    rows: usize,
}

impl<'a> Judge<'a> {
    /// A judge; `model` is the reward model, which the specification must then weigh, and the other way round.
    pub fn new(spec: &RewardSpec, model: Option<&'a Vlm>, rows: usize) -> Result<Self, TrainError> {
        let rubric =
            Rubric::from_config(&spec.rules).map_err(|e| TrainError::Config(format!("reward.rules: {e}")))?;
        match (&spec.model, model) {
            (Some(m), None) => {
                let text = format!("reward.model has weight {}, but no reward model was given", m.weight);
                return Err(TrainError::Config(text));
            }
            (Some(m), Some(_)) if !(m.weight.is_finite() && m.threshold.is_finite()) => {
                return Err(TrainError::Config("reward.model needs finite numbers".into()));
            }
            (_, Some(v)) if !v.has_value_head() => {
                return Err(TrainError::Config("the reward model has no value head".into()));
            }
            (None, Some(_)) => {
                let text = "a reward model is given, but reward.model does not weigh it; set reward.model.weight, or leave \
                            the reward model out";
                return Err(TrainError::Config(text.into()));
            }
            _ => {}
        }
        if !spec.necessity.is_finite() {
            return Err(TrainError::Config("reward.necessity must be a finite number".into()));
        }
        Ok(Self { spec: spec.clone(), rubric, model, tools: Vec::new(), rows })
    }

    /// Names of the parts that a reward is reported in.
    pub(crate) fn part_names(&self) -> impl Iterator<Item = &str> {
        let further = [
            ("overlong", self.spec.overlong.is_some()),
            ("tool_necessity", self.spec.necessity != 0.0),
            ("reward_model", self.spec.model.is_some()),
        ];
        self.rubric.names().chain(further.into_iter().filter(|(_, there)| *there).map(|(name, _)| name))
    }

    /// Names the tools that were listed in the rollouts, for a reward model that reads whole dialogues.
    pub fn with_tools(mut self, listed: &[Value]) -> Self {
        self.tools = listed.to_vec();
        self
    }

    /// Rewards of one group of rollouts of `sample`; the scores are also written into the trajectories.
    pub fn group(
        &self,
        sample: &Sample,
        group: &mut [Trajectory],
        pictures: &dyn Pictures,
    ) -> Result<Vec<Rewarded>, TrainError> {
        let accuracy = Accuracy::default();
        let mut out = Vec::with_capacity(group.len());
        let mut proof = Vec::with_capacity(group.len());
        for t in group.iter_mut() {
            let breakdown = self.rubric.breakdown(t, &sample.target);
            let right = accuracy.score(t, &sample.target);
            let mut r = Rewarded { accuracy: right.or_zero(), ..Rewarded::default() };
            for (name, weight, score) in &breakdown.parts {
                r.add(name, *weight, checked(name, sample, score.or_zero())?);
            }
            if let Some(overlong) = &self.spec.overlong {
                r.add("overlong", 1.0, overlong.reward(t.sampled_len()));
            }
            proof.push((!t.tools.is_empty(), right.value));
            t.scores = breakdown.into_scores();
            out.push(r);
        }
        if self.spec.necessity != 0.0 {
            for (r, value) in out.iter_mut().zip(necessity(&proof)) {
                r.add("tool_necessity", self.spec.necessity, value);
            }
        }
        self.learned(sample, group, pictures, &mut out)?;
        for (t, r) in group.iter_mut().zip(&out) {
            let total = checked("reward", sample, r.total)?;
            t.scores.retain(|(name, _)| name != "reward");
            t.scores.push(("reward".into(), Score::new(total, "", "weighted sum of all parts")));
        }
        Ok(out)
    }

    fn learned(
        &self,
        sample: &Sample,
        group: &[Trajectory],
        pictures: &dyn Pictures,
        out: &mut [Rewarded],
    ) -> Result<(), TrainError> {
        let (Some(spec), Some(model)) = (&self.spec.model, self.model) else { return Ok(()) };
        // A dialogue that does not end with the policy's words has no answer to judge as it stands.
        let whole =
            |t: &Trajectory| spec.dialogue && t.messages.last().is_some_and(|m| m.role == Role::Assistant);
        let dialogue = |t: &Trajectory| {
            if whole(t) {
                return t.messages.clone();
            }
            let mut messages = sample.messages.clone();
            messages.push(Message::assistant(t.final_text()));
            messages
        };
        let dialogues: Vec<Vec<Message>> = group.iter().map(dialogue).collect();
        let listed: &[Value] = if spec.dialogue { &self.tools } else { &[] };
        for (r, score) in out.iter_mut().zip(score_dialogues(model, &dialogues, listed, pictures, self.rows)?)
        {
            let score = checked("reward_model", sample, score)?;
            let value = match spec.indicator {
                true => f64::from(u8::from(score >= spec.threshold)),
                false => score - spec.threshold,
            };
            r.add("reward_model", spec.weight, value);
        }
        Ok(())
    }
}

fn checked(reward: &str, sample: &Sample, value: f64) -> Result<f64, TrainError> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(TrainError::Reward { reward: reward.to_owned(), sample: sample.id.clone(), value })
}
