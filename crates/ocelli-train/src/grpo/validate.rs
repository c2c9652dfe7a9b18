//! What a reinforcement run refuses before its first step: settings out of range, questions that cannot be asked, metrics that it
//! will never have.

use std::sync::Arc;

use ocelli_data::Sample;
use ocelli_reward::rubric::{PartConfig, PartKind};

use super::{GrpoConfig, GrpoInputs};
use crate::advantages::Advantage;
use crate::error::TrainError;
use crate::hybrid_reward::Judge;
use crate::losses::{Correction, Keep, Weight};
use crate::metric_names::MetricNames;
use crate::ranges::{self, MAX_BATCH, MAX_WEIGHT};
use crate::rollouts::Rollouts;

impl GrpoConfig {
    /// Checks settings and data before any training; every question is written as the policy will read it. Returns what should
    /// be said although it is no reason not to train.
    pub fn validate(&self, inputs: &GrpoInputs<'_>) -> Result<Vec<String>, TrainError> {
        self.validate_settings()?;
        let judge = Judge::new(&self.reward, inputs.reward_model, self.rows)?;
        if inputs.train.is_empty() {
            return Err(TrainError::Data("there is no question to train on".into()));
        }
        self.run.validate(&self.metrics(inputs, &judge))?;
        let rollouts =
            Rollouts::new(&inputs.model, &self.rollout, inputs.pictures.clone(), inputs.toolbox.clone())?;
        let mut notes = Vec::new();
        for (what, samples) in [("questions", inputs.train), ("held-out questions", inputs.held_out)] {
            notes.extend(check_questions(what, samples, &rollouts, inputs)?);
        }
        Ok(notes)
    }

    /// Checks what can be checked without data and models.
    pub fn validate_settings(&self) -> Result<(), TrainError> {
        let bad = |text: String| Err(TrainError::Config(text));
        ranges::whole("run.steps", self.run.steps, 1, ranges::MAX_STEPS)?;
        ranges::batch("prompts", self.prompts, self.rows)?;
        ranges::whole("group", self.group.into(), 2, MAX_BATCH)?;
        let batch = self.prompts as u64 * u64::from(self.group);
        ranges::check("prompts * group", batch, batch <= MAX_BATCH, &format!("at most {MAX_BATCH}"))?;
        self.rollout.validate()?;
        self.validate_advantages()?;
        if let Err(e) = self.loss.validate() {
            return bad(format!("loss: {e}"));
        }
        for (key, value) in [
            ("loss.entropy_bonus", self.loss.entropy_bonus),
            ("loss.kl.beta", self.loss.kl.map_or(0.0, |kl| kl.beta)),
            ("reward_kl.beta", self.reward_kl.map_or(0.0, |kl| kl.beta)),
        ] {
            ranges::within(key, value, 0.0, MAX_WEIGHT)?;
        }
        ranges::reduction("loss.reduction", self.loss.reduction)?;
        if let Advantage::Standardised { epsilon } = self.advantage {
            ranges::within("advantage.standardised.epsilon", epsilon, 0.0, 1e3)?;
        }
        if let Some(b) = &self.buffer {
            ranges::whole("buffer.capacity", b.capacity as u64, 1, 1 << 24)?;
            ranges::whole("buffer.per_prompt", b.per_prompt as u64, 1, 1 << 24)?;
            ranges::within("buffer.alpha", b.alpha, 0.0, 100.0)?;
            ranges::within("buffer.decay", b.decay, 0.0, 1.0)?;
            // The exponent of importance sampling: 0 corrects nothing, 1 everything.
            ranges::within("buffer.correction", b.correction.unwrap_or(0.0), 0.0, 1.0)?;
            ranges::within("buffer.max_drift", b.max_drift.unwrap_or(0.0), 0.0, MAX_WEIGHT)?;
        }
        if let Some(d) = self.dynamic {
            ranges::whole("dynamic.rounds", d.rounds as u64, 1, 1000)?;
        }
        if let Some(filter) = self.prompt_filter {
            ranges::whole("prompt_filter.group", filter.group.into(), 2, MAX_BATCH)?;
        }
        if let Some(correction) = &self.mismatch {
            check_correction(correction)?;
        }
        self.validate_reward()?;
        if let Some(partial) = &self.partial {
            partial.validate(self.prompts)?;
            if self.dynamic.is_some() {
                return bad(
                    "`partial` and `dynamic` cannot be combined: resampling needs complete groups".into()
                );
            }
        }
        self.optimizer.validate()
    }

    fn validate_reward(&self) -> Result<(), TrainError> {
        let weight = |key: &str, value| ranges::within(key, value, -MAX_WEIGHT, MAX_WEIGHT);
        for (i, rule) in self.reward.rules.iter().enumerate() {
            weight(&format!("reward.rules[{i}].weight"), rule.weight)?;
            check_rule(&format!("reward.rules[{i}]"), rule)?;
        }
        if let Some(model) = &self.reward.model {
            weight("reward.model.weight", model.weight)?;
            weight("reward.model.threshold", model.threshold)?;
        }
        weight("reward.necessity", self.reward.necessity)?;
        if let Some(overlong) = &self.reward.overlong {
            ranges::within("reward.overlong.factor", overlong.factor, 0.0, MAX_WEIGHT)?;
            ranges::whole("reward.overlong.max", overlong.max as u64, 1, u32::MAX.into())?;
            let most = overlong.max as u64;
            ranges::whole("reward.overlong.cache", overlong.cache as u64, 0, most)?;
        }
        Ok(())
    }

    /// The metrics of a run, see `stage` and `evaluate`.
    fn metrics(&self, inputs: &GrpoInputs<'_>, judge: &Judge<'_>) -> MetricNames {
        const ALWAYS: [&str; 13] = [
            "reward",
            "accuracy",
            "groups/informative",
            "groups/rounds",
            "response/length",
            "response/truncated",
            "response/failed",
            "response/blind",
            "policy/entropy",
            "policy/clip_fraction",
            "mismatch/k3",
            "mismatch/max",
            "mismatch/ess",
        ];
        const BUFFER: [&str; 9] = [
            "buffer/fill",
            "buffer/fresh_share",
            "buffer/size",
            "buffer/replayed",
            "buffer/age_p50",
            "buffer/age_p95",
            "buffer/ess",
            "buffer/drifted",
            "buffer/clip_fraction",
        ];
        let tools: Vec<String> = inputs
            .toolbox
            .iter()
            .flat_map(|t| t.specs().iter().map(|s| s.name.clone()).collect::<Vec<_>>())
            .collect();
        let effects: Vec<String> = tools
            .iter()
            .flat_map(|t| [format!("eval/tool_gain/{t}"), format!("eval/tool_harm/{t}")])
            .collect();
        let (has_tools, evaluates) = (!tools.is_empty(), !inputs.held_out.is_empty());
        MetricNames::new("grpo", &ALWAYS)
            .when(true, "", &judge.part_names().map(|n| format!("reward/{n}")).collect::<Vec<_>>())
            .when(self.prompt_filter.is_some(), "train.prompt_filter", &["prompts/kept"])
            .when(
                self.partial.is_some(),
                "train.partial",
                &["rollout/staleness", "rollout/staleness_max", "rollout/carried"],
            )
            .when(has_tools, "tools", &["tools/rate", "tools/calls", "tools/error_rate"])
            .when(
                self.loss.kl.is_some() || self.reward_kl.is_some(),
                "train.loss.kl or train.reward_kl",
                &["policy/kl"],
            )
            .when(
                inputs.train.iter().any(|s| s.meta.contains_key("shown")),
                "questions whose meta.shown lists what is in the picture",
                &["mentions/absent", "mentions/precision"],
            )
            .when(self.buffer.is_some(), "train.buffer", &BUFFER)
            .when(self.dependence_every > 0, "train.dependence_every above 0", &["image/dependence"])
            .evaluated(inputs.held_out.len(), &["eval/accuracy", "eval/accuracy_plain"])
            .when(evaluates && has_tools, "held-out data and tools", &["eval/calls"])
            .when(evaluates && has_tools, "held-out data and tools", &effects)
    }
}

fn check_rule(key: &str, rule: &PartConfig) -> Result<(), TrainError> {
    if let PartKind::ToolCost { per_call, per_repeat, cap } = rule.kind {
        for (name, value) in [("per_call", per_call), ("per_repeat", per_repeat), ("cap", cap)] {
            ranges::within(&format!("{key}.{name}"), value, 0.0, MAX_WEIGHT)?;
        }
    }
    Ok(())
}

/// A correction must let through what agrees exactly: a ratio of 1.
fn check_correction(correction: &Correction) -> Result<(), TrainError> {
    let between = |kind: &str, low: f64, high: f64| {
        ranges::within(&format!("mismatch.keep.{kind}.low"), low, 0.0, 1.0)?;
        ranges::within(&format!("mismatch.keep.{kind}.high"), high, 1.0, 1e12)
    };
    match correction.keep {
        Keep::All => {}
        Keep::Token { low, high } => between("token", low, high)?,
        Keep::Sequence { low, high } => between("sequence", low, high)?,
        Keep::Geometric { low, high } => between("geometric", low, high)?,
        Keep::K3 { max } => ranges::within("mismatch.keep.k3.max", max, 0.0, 1e12)?,
    }
    match correction.weight {
        Weight::One => Ok(()),
        Weight::Token { cap } => ranges::positive("mismatch.weight.token.cap", cap, 1e12),
        Weight::Sequence { cap } => ranges::positive("mismatch.weight.sequence.cap", cap, 1e12),
    }
}

/// Every question asks something, has an answer, and can be written for the model with its pictures; some fit into the context.
fn check_questions(
    what: &str,
    samples: &[Arc<Sample>],
    rollouts: &Rollouts,
    inputs: &GrpoInputs<'_>,
) -> Result<Option<String>, TrainError> {
    let limit = rollouts.limits().context;
    let (mut shortest, mut beyond) = (usize::MAX, 0usize);
    for sample in samples {
        let bad = |why: String| TrainError::Data(format!("sample {}: {why}", sample.id));
        sample.check().map_err(bad)?;
        let tokens = rollouts.prompt_len(&inputs.model, sample).map_err(|e| bad(e.to_string()))?;
        shortest = shortest.min(tokens);
        beyond += usize::from(tokens >= limit);
    }
    if beyond == samples.len() && beyond > 0 {
        return Err(TrainError::Config(format!(
            "rollout.limits.context is {limit}; it must be above {shortest}, the tokens of the shortest of {beyond} {what}"
        )));
    }
    let said = format!(
        "{beyond} of {} {what} fill rollout.limits.context ({limit}) before an answer",
        samples.len()
    );
    Ok((beyond > 0).then_some(said))
}
