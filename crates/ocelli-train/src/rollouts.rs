//! Groups of rollouts with the model in this process, with or without tools.
//!
//! Sampler and trainer are the same weights and the same kernels, lent to one another in turn. Draws are made at a
//! temperature from the whole vocabulary, so that the probability that is recorded is the one that training computes;
//! filters such as top-p would break that and are not offered here.

use std::sync::Arc;

use ocelli_agent::batching::{BatchConfig, Driver, Lockstep};
use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Loan, Report, Until};
use ocelli_agent::env::EnvFactory;
use ocelli_agent::episode::{Ended, Job, World};
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::local::LocalPolicy;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::scripted::{Plan, ScriptedPolicy};
use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::{NoTools, Toolbox};
use ocelli_agent::vlm_policy::{VlmModel, VlmRenderer};
use ocelli_data::{Message, Sample, Status, Trajectory};
use ocelli_model::ChatOptions;
use ocelli_model::generate::Sampling;
use ocelli_model::vlm::Vlm;
use ocelli_tools::ToolSpec;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::examples::from_dialogue_with;
use crate::ranges;
use crate::responses::Response;

/// How rollouts are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Divides the logits.
    pub temperature: f32,
    /// Bounds of each trajectory.
    pub limits: RolloutLimits,
    /// Sequences that are extended together.
    pub batch: usize,
    /// How tools are called, where there are any. With `instructions = false` the model's own template lists them.
    pub tools: ToolEnvConfig,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            limits: RolloutLimits::default(),
            batch: 64,
            tools: ToolEnvConfig { instructions: false, ..ToolEnvConfig::default() },
        }
    }
}

impl RolloutConfig {
    /// Checks the settings before any rollout.
    pub fn validate(&self) -> Result<(), TrainError> {
        const MOST: u64 = 1_000_000_000;
        const YEAR: f64 = 365.0 * 86_400.0;
        ranges::within("rollout.temperature", self.temperature.into(), 1e-3, 1e3)?;
        ranges::whole("rollout.batch", self.batch as u64, 1, ranges::MAX_BATCH)?;
        let limits = &self.limits;
        // No call at all may be allowed; an answer takes a turn, a token and a place for it.
        ranges::whole("rollout.limits.calls", limits.calls as u64, 0, MOST)?;
        for (name, value, least) in [
            ("turns", limits.turns, 1),
            ("turn_tokens", limits.turn_tokens, 1),
            ("tokens", limits.tokens, 1),
            ("context", limits.context, 2),
        ] {
            ranges::whole(&format!("rollout.limits.{name}"), value as u64, least, MOST)?;
        }
        ranges::positive("rollout.limits.seconds", limits.seconds, YEAR)?;
        ranges::positive("rollout.tools.call_seconds", self.tools.call_seconds, YEAR)
    }
}

/// Oracles under way together.
const ORACLES: usize = 4;

/// How an oracle shows its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OracleConfig {
    /// Tools are listed and can be called, as in rollouts with tools.
    pub tools: bool,
    /// Follow the plan's calls; without them the answer comes at once.
    pub calls: bool,
    /// A plan of more calls than this is not followed: the answer comes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_calls: Option<usize>,
    /// Say the plan's thought before each call.
    pub thoughts: bool,
    /// Say the plan's conclusion before the answer.
    pub conclusion: bool,
}

impl Default for OracleConfig {
    fn default() -> Self {
        Self { tools: true, calls: true, most_calls: None, thoughts: false, conclusion: false }
    }
}

impl OracleConfig {
    /// A sample whose plan says only what is wanted.
    fn prepare(&self, sample: &Sample) -> Result<Arc<Sample>, TrainError> {
        let mut plan = Plan::of(sample).map_err(|e| TrainError::Data(e.to_string()))?;
        if !(self.tools && self.calls && self.most_calls.is_none_or(|most| plan.steps.len() <= most)) {
            plan.steps.clear();
        }
        if !self.thoughts {
            plan.steps.iter_mut().for_each(|s| s.thought.clear());
        }
        if !self.conclusion {
            plan.conclusion.clear();
        }
        let mut sample = sample.clone();
        let plan = serde_json::to_value(&plan).map_err(|e| TrainError::Data(e.to_string()))?;
        sample.meta.insert("plan".into(), plan);
        Ok(Arc::new(sample))
    }
}

/// What rollouts of one kind need: environments and a writer of dialogues.
struct Kind {
    envs: Arc<dyn EnvFactory>,
    renderer: Arc<VlmRenderer>,
    /// What the chat template is given, the listed tools among it.
    options: ChatOptions,
}

/// The engine, the pictures and the tools of a run.
pub struct Rollouts {
    engine: Engine,
    pictures: Arc<Pictures>,
    plain: Kind,
    with_tools: Option<Kind>,
    config: RolloutConfig,
}

impl Rollouts {
    /// Rollouts of models like `model` (of the same tokenizer, template and preprocessing) over `pictures`.
    pub fn new(
        model: &Vlm,
        config: &RolloutConfig,
        pictures: Arc<Pictures>,
        toolbox: Option<Arc<dyn Toolbox>>,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let engine = Engine::new(config.batch).map_err(|e| TrainError::Config(e.to_string()))?;
        let kind = |toolbox: Arc<dyn Toolbox>| -> Result<Kind, TrainError> {
            let specs = toolbox.specs();
            let listed = if config.tools.instructions { &[] } else { &specs[..] };
            let renderer = VlmRenderer::new(model, listed).map_err(|e| TrainError::Config(e.to_string()))?;
            let envs = ToolEnvs::new(config.tools.clone(), toolbox, pictures.clone(), Default::default());
            let options =
                ChatOptions { tools: listed.iter().map(ToolSpec::openai).collect(), ..ChatOptions::prompt() };
            Ok(Kind { envs: Arc::new(envs), renderer: Arc::new(renderer), options })
        };
        let (plain, with_tools) = (kind(Arc::new(NoTools))?, toolbox.map(kind).transpose()?);
        Ok(Self { engine, pictures, plain, with_tools, config: config.clone() })
    }

    /// The pictures that trajectories name.
    pub fn pictures(&self) -> &Arc<Pictures> {
        &self.pictures
    }

    /// Bounds of each rollout.
    pub fn limits(&self) -> &RolloutLimits {
        &self.config.limits
    }

    /// Tokens of a question as `model` reads it, with the tools that the chat template lists, where there are any. Its pictures
    /// are decoded and cut for that, so that one which cannot be is found here.
    pub fn prompt_len(&self, model: &Vlm, sample: &Sample) -> Result<usize, TrainError> {
        let options = &self.kind(self.has_tools()).options;
        Ok(model.prompt(&sample.messages, options, self.pictures.as_ref())?.len())
    }

    /// True where there are tools.
    pub fn has_tools(&self) -> bool {
        self.with_tools.is_some()
    }

    /// The tools that the chat template lists before a dialogue.
    pub fn listed(&self, with_tools: bool) -> &[serde_json::Value] {
        &self.kind(with_tools).options.tools
    }

    fn kind(&self, with_tools: bool) -> &Kind {
        match (&self.with_tools, with_tools) {
            (Some(kind), true) => kind,
            _ => &self.plain,
        }
    }

    /// What the oracle does with each question that carries a plan (`meta.plan`), with real tools; in the order of the
    /// samples, those left out in which a call failed (an error if that is more than a fifth). Its trajectories have messages and no tokens; [`Rollouts::lesson`] writes them for a model.
    pub fn oracle(
        &self,
        samples: &[Arc<Sample>],
        oracle: &OracleConfig,
    ) -> Result<Vec<Trajectory>, TrainError> {
        let kind = self.kind(oracle.tools);
        let world = World {
            policy: Arc::new(ScriptedPolicy::oracle(self.config.tools.format)),
            envs: kind.envs.clone(),
            pictures: self.pictures.clone(),
            limits: self.config.limits.clone(),
        };
        let samples = samples.iter().map(|s| oracle.prepare(s)).collect::<Result<Vec<_>, _>>()?;
        let jobs = Job::group(&samples, 1, 0);
        // An oracle does not think between calls: with more of them under way, calls would only queue, and be late.
        let engine = Engine::new(ORACLES).map_err(|e| TrainError::Config(e.to_string()))?;
        let report = engine.run(None, &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
        let (mut sound, mut failed) = (Vec::with_capacity(samples.len()), Vec::new());
        for Ended { trajectory, why, .. } in report.ended {
            let error = trajectory.tools.iter().find(|used| used.result.is_error);
            match error {
                None if trajectory.status == Status::Answered => sound.push(trajectory),
                _ => {
                    let said = error.map(|used| Message::tool(used.result.clone()).plain_text());
                    let status = trajectory.status;
                    failed.push(format!(
                        "{}: {status:?} {}",
                        trajectory.sample_id,
                        said.or(why).unwrap_or_default()
                    ));
                }
            }
        }
        // A call that failed is no example; where many fail, what would be learned is not what was meant.
        if failed.len() * 5 > samples.len() {
            return Err(TrainError::Data(format!(
                "the oracle failed on {} of {} questions, on the first of them so: {}",
                failed.len(),
                samples.len(),
                failed[0]
            )));
        }
        Ok(sound)
    }

    /// A trajectory as an example to learn from, token for token what a rollout of `model` would record: recorded tokens
    /// where there are any, else its messages written with the chat template, tools listed where the rollouts list them.
    pub fn lesson(&self, model: &Vlm, t: &Trajectory, with_tools: bool) -> Result<Response, TrainError> {
        if !t.ids.is_empty() {
            return Response::of_trajectory(model, t, self.pictures.as_ref());
        }
        let name = format!("trajectory {}", t.sample_id);
        let options = &self.kind(with_tools).options;
        from_dialogue_with(model, &name, &t.messages, options, self.pictures.as_ref())
    }

    /// What a supervised run learns before reinforcement with tools: the oracle's answer to every question without tools;
    /// and, where there are tools, with tools listed: to the first `calling` (a share, 0..=1) of the questions with the
    /// plan's calls where it has at most `most_calls`, to the others at once, so that reinforcement finds both ways and
    /// decides between them.
    pub fn lessons(
        &self,
        model: &Vlm,
        samples: &[Arc<Sample>],
        calling: f64,
        most_calls: Option<usize>,
    ) -> Result<Vec<Response>, TrainError> {
        ranges::within("calling", calling, 0.0, 1.0)?;
        let mut lessons = Vec::new();
        let mut learn = |samples: &[Arc<Sample>], oracle: OracleConfig| -> Result<(), TrainError> {
            for t in self.oracle(samples, &oracle)? {
                lessons.push(self.lesson(model, &t, oracle.tools)?);
            }
            Ok(())
        };
        learn(samples, OracleConfig { tools: false, calls: false, ..OracleConfig::default() })?;
        if self.has_tools() {
            let calling = (samples.len() as f64 * calling) as usize;
            learn(&samples[..calling], OracleConfig { most_calls, ..OracleConfig::default() })?;
            learn(&samples[calling..], OracleConfig { calls: false, ..OracleConfig::default() })?;
        }
        Ok(lessons)
    }

    /// `group` rollouts of each sample by `model`, whose weights have this version; `temperature` of `None` is that of the
    /// configuration, 0 takes the likeliest token. Groups in the order of the samples, every group complete, whatever became
    /// of its members.
    pub fn run(
        &self,
        model: &Vlm,
        samples: &[Arc<Sample>],
        group: u32,
        seed: u64,
        version: u64,
        temperature: Option<f32>,
        with_tools: bool,
    ) -> Result<Vec<Vec<Ended>>, TrainError> {
        let jobs = Job::group(samples, group, seed);
        let report = self.jobs(model, jobs, version, temperature, with_tools)?;
        // Chunked by number and not by name: a sample may occur twice in a batch.
        let mut ended = report.ended.into_iter();
        Ok(samples.iter().map(|_| ended.by_ref().take(group as usize).collect()).collect())
    }

    /// Rolls out `jobs`; those that used up their allowance come back in `paused`. As [`Rollouts::run`] otherwise.
    pub fn jobs(
        &self,
        model: &Vlm,
        jobs: Vec<Job>,
        version: u64,
        temperature: Option<f32>,
        with_tools: bool,
    ) -> Result<Report, TrainError> {
        // In lockstep the same seed gives the same bits, however long tools take.
        let lockstep = Lockstep { jobs: jobs.len(), live: self.config.batch };
        let batch =
            BatchConfig { rows: self.config.batch, lockstep: Some(lockstep), ..BatchConfig::default() };
        let mut driver = Driver::new(batch);
        let kind = self.kind(with_tools);
        let world = World {
            policy: Arc::new(LocalPolicy::new(&driver, kind.renderer.clone())),
            envs: kind.envs.clone(),
            pictures: self.pictures.clone(),
            limits: self.config.limits.clone(),
        };
        let temperature = temperature.unwrap_or(self.config.temperature);
        let sampling = Sampling { temperature, ..Sampling::default() };
        let mut lent = VlmModel::new(model, sampling, version, batch.rows)?;
        let loan = Loan { driver: &mut driver, model: &mut lent };
        Ok(self.engine.run(Some(loan), &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {}))
    }
}
