//! The GRPO step: rollouts through the agent's engine, rewards, advantages, one training pass.

use std::sync::Arc;
use std::time::Instant;

use ocelli_agent::batching::{BatchConfig, Driver};
use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Loan, Until};
use ocelli_agent::env::{Env, EnvError, EnvFactory, Step, StepContext};
use ocelli_agent::episode::{Job, World};
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::local::LocalPolicy;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::{BoxFuture, Said};
use ocelli_agent::vlm_policy::{VlmModel, VlmRenderer};
use ocelli_data::{ContentHash, Message, Part, Sample, Status, Target, Trajectory};
use ocelli_model::generate::Sampling;
use ocelli_model::vlm::Vlm;
use ocelli_tools::ToolSpec;
use ocelli_train::TrainError;
use ocelli_train::advantages::{Advantage, group_advantages};
use ocelli_train::losses::{Normaliser, PolicyLoss, Rollout};
use ocelli_train::responses::{Pack, Pass, Response, TokenGrads, learn};
use serde_json::Value;

use crate::{Args, Result, noise};

/// A world that answers every turn but the last with a picture.
#[derive(Clone)]
struct Again {
    messages: Vec<Message>,
    picture: Option<ContentHash>,
}

impl Env for Again {
    fn init(&mut self) -> std::result::Result<Vec<Message>, EnvError> {
        Ok(std::mem::take(&mut self.messages))
    }

    fn step<'a>(&'a mut self, _: &'a Said, context: StepContext) -> BoxFuture<'a, Step> {
        let step = match self.picture.filter(|_| !context.last_turn) {
            Some(hash) => {
                let look = Message::user([Part::image(hash), Part::text("look again")]);
                Step { messages: vec![look], ..Step::default() }
            }
            None => Step::end(Status::Answered),
        };
        Box::pin(std::future::ready(step))
    }

    fn save(&self) -> Value {
        Value::Null
    }
}

struct Worlds {
    picture: Option<ContentHash>,
}

impl EnvFactory for Worlds {
    fn make(
        &self,
        sample: &Sample,
        _: Option<(&Value, &[Message])>,
    ) -> std::result::Result<Box<dyn Env>, EnvError> {
        Ok(Box::new(Again { messages: sample.messages.clone(), picture: self.picture }))
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        Arc::from([])
    }
}

/// A question with a picture of its own, sixteen words long.
fn question(args: &Args, pictures: &Pictures, number: usize) -> Result<Arc<Sample>> {
    let hash = pictures.put(noise(args.n("--side"), number as u64)?)?;
    let words: Vec<String> = (0..16).map(|j| format!("w{}", (number * 131 + j * 17) % 2000)).collect();
    let messages = vec![Message::user([Part::image(hash), Part::text(words.join(" "))])];
    let target = Target::Math { answer: "0".into() };
    Ok(Arc::new(Sample { id: format!("question {number}"), messages, target, meta: Default::default() }))
}

/// Responses of one prompt: its picture is decoded and cut once.
fn responses(model: &Vlm, group: &[Trajectory], pictures: &Pictures) -> Result<Vec<Response>> {
    let mut made: Vec<Response> = Vec::with_capacity(group.len());
    for t in group {
        let shared =
            made.first().filter(|f| t.images.len() == f.context.images().len() && t.spans.len() == 2);
        let response = match shared {
            Some(first) => {
                let mut context = first.context.clone();
                context.truncate(first.prompt)?;
                context.push(&t.ids[first.prompt..]);
                Response { trained: (first.prompt..context.len()).collect(), prompt: first.prompt, context }
            }
            None => Response::of_trajectory(model, t, pictures)?,
        };
        made.push(response);
    }
    Ok(made)
}

/// The share of even ids: deterministic, varies within a group, costs nothing.
fn even(t: &Trajectory) -> f64 {
    let mask = t.mask();
    let sampled: Vec<u32> = t.ids.iter().zip(mask).filter(|(_, m)| *m).map(|(id, _)| *id).collect();
    sampled.iter().filter(|id| *id % 2 == 0).count() as f64 / sampled.len().max(1) as f64
}

/// GRPO steps over new questions each time.
pub(crate) fn grpo<'a>(args: &Args, model: &mut Vlm) -> Result<crate::Step<'a>> {
    let (prompts, group, new, turns) =
        (args.n("--prompts"), args.n("--group"), args.n("--new"), args.n("--turns"));
    let apart = args.apart;
    let pictures = Arc::new(Pictures::in_memory(1 << 30));
    // With one turn nothing ends an answer early; with several, one token in `new` ends a turn.
    let vocabulary = model.text.config().vocab_size;
    model.eos_ids =
        if turns == 1 { Vec::new() } else { (0..(vocabulary / new.max(1)).max(1) as u32).collect() };
    // Apart, every answer has a question and a picture of its own.
    let (questions, copies) = if apart { (prompts * group, 1) } else { (prompts, group) };
    let total = questions * (args.n("--warmup") + args.n("--steps"));
    let asked: Vec<Arc<Sample>> = (0..total).map(|i| question(args, &pictures, i)).collect::<Result<_>>()?;
    let again = if turns > 1 { Some(pictures.put(noise(args.n("--side"), 1 << 40)?)?) } else { None };
    let envs = Arc::new(Worlds { picture: again });
    let renderer = Arc::new(VlmRenderer::new(model, &[])?);
    let engine = Engine::new(questions * copies)?;
    let limits = RolloutLimits {
        turns,
        turn_tokens: if turns == 1 { new } else { 4 * new },
        tokens: 4 * turns * new,
        ..RolloutLimits::default()
    };
    Ok(Box::new(move |model, step, grads, phases| {
        let mut clock = Instant::now();
        let mut lap = move || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
        let batch = BatchConfig { rows: questions * copies, ..BatchConfig::default() };
        let mut driver = Driver::new(batch);
        let world = World {
            policy: Arc::new(LocalPolicy::new(&driver, renderer.clone())),
            envs: envs.clone(),
            pictures: pictures.clone(),
            limits: limits.clone(),
        };
        let mut lent = VlmModel::new(model, Sampling::default(), step as u64, batch.rows)?;
        let loan = Loan { driver: &mut driver, model: &mut lent };
        let jobs = Job::group(&asked[step * questions..][..questions], copies as u32, step as u64);
        let report = engine.run(Some(loan), &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
        if let Some(why) = report.ended.iter().find_map(|e| e.why.as_ref()) {
            return Err(why.as_str().into());
        }
        let trajectories: Vec<Trajectory> = report.ended.into_iter().map(|e| e.trajectory).collect();
        phases.rollout = lap();

        let mut advantages = Vec::with_capacity(trajectories.len());
        for members in trajectories.chunks(group) {
            let rewards: Vec<f64> = members.iter().map(even).collect();
            advantages.extend(group_advantages(Advantage::default(), &rewards)?.0);
        }
        let mut made = Vec::with_capacity(trajectories.len());
        for members in trajectories.chunks(copies) {
            made.extend(responses(model, members, &pictures)?);
        }
        let packs: Vec<Pack<'_>> = made.chunks(copies).map(|p| p.iter().collect()).collect();
        let loss = PolicyLoss::default();
        let normaliser = Normaliser::new(loss.reduction, made.iter().map(|r| r.trained.len()))?;
        phases.prepare = lap();

        let rows = learn(model, &packs, Pass::default(), grads, |stats| {
            phases.forward = lap();
            let mut out = Vec::with_capacity(stats.len());
            for (s, a) in stats.iter().zip(&advantages) {
                let advantages = vec![*a; s.logp.len()];
                let rollout = Rollout {
                    logp: &s.logp,
                    old: &s.logp,
                    reference: None,
                    entropy: None,
                    advantages: &advantages,
                    weights: None,
                };
                let found = loss
                    .response(&rollout, &normaliser)
                    .map_err(|source| TrainError::Loss { step: step as u64, source })?;
                out.push(TokenGrads { d_logp: found.d_logp, d_entropy: Vec::new() });
            }
            Ok(out)
        })?;
        phases.backward = lap();
        Ok(rows)
    }))
}
