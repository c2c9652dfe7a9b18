//! What experiments share: settings, drawn data, and short ways to train and measure.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::Sample;
use ocelli_model::vlm::Vlm;
use ocelli_train::advantages::Advantage;
use ocelli_train::buffer::BufferConfig;
use ocelli_train::grpo::{self, Accuracies, Count, GrpoConfig, GrpoInputs};
use ocelli_train::observe::{Go, Observer, Progress};
use ocelli_train::responses::{Pass, Response, score};
use ocelli_train::rollouts::{OracleConfig, RolloutConfig, Rollouts};
use ocelli_train::run::RunConfig;
use ocelli_train::schedule::{Schedule, Shape};
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::sources::{Data, DataSource, ModelSource, Readings, ToolSource, WorldSource};
use ocelli_train::{OptimizerConfig, PartRates};
use ocelli_worlds::Level;
use ocelli_worlds::charts::{Skill, Style};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::stats::Row;

/// Sizes and rates; the same for all seeds of an experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) preset: String,
    /// Pictures are scaled down to at most this many pixels for the model; tools see them whole.
    pub(crate) max_pixels: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) level: Level,
    pub(crate) styles: Vec<Style>,
    pub(crate) skills: Vec<Skill>,
    /// Tools that policies may call.
    pub(crate) tools: Vec<String>,
    /// Questions with oracle trajectories.
    pub(crate) lessons: u64,
    /// Share of the lessons with tools listed in which the oracle calls them; in the others it answers at once.
    pub(crate) calling: f64,
    /// Plans of more calls are answered at once.
    pub(crate) most_calls: Option<usize>,
    /// Readings without pictures per question, in both stages of supervised learning: what copying a number is.
    pub(crate) readings: f64,
    /// Steps on calling lessons alone, before the mixture: a small model learns to copy from a reply only where most of
    /// what it reads shows it.
    pub(crate) call_steps: u64,
    pub(crate) sft_steps: u64,
    pub(crate) sft_batch: usize,
    pub(crate) sft_lr: f64,
    /// Questions for reinforcement.
    pub(crate) questions: u64,
    pub(crate) rl_steps: u64,
    pub(crate) prompts: usize,
    pub(crate) group: u32,
    pub(crate) rl_lr: f64,
    /// Advantages without division by the standard deviation.
    pub(crate) centred: bool,
    /// Factors on `rl_lr` that the buffer experiment compares.
    pub(crate) rl_factors: Vec<f64>,
    pub(crate) pair_steps: u64,
    pub(crate) pair_lr: f64,
    pub(crate) reward_steps: u64,
    pub(crate) reward_lr: f64,
    pub(crate) held_out: u64,
    /// Folder of PuzzleVQA that holds `data/`; empty leaves it out.
    pub(crate) puzzlevqa: String,
    /// Folder `data` of the easy-VQA package; empty leaves it out.
    pub(crate) easy_vqa: String,
    /// Real sets: learn the option's text instead of its letter.
    pub(crate) spell: bool,
    /// PuzzleVQA: what is learned before the answer: `none`, `caption`, `explanation` or `both`.
    pub(crate) conclude: String,
    /// Real sets: also train and ask without pictures.
    pub(crate) blind: bool,
    /// Print every so many steps.
    pub(crate) every: u64,
}

impl Settings {
    pub(crate) fn of(experiment: &str) -> Self {
        let tools = Self {
            preset: "tiny-0.5m".into(),
            max_pixels: 64 * 64,
            width: 128,
            height: 96,
            level: Level::Easy,
            styles: vec![Style::Pie],
            skills: vec![Skill::Value],
            tools: vec!["measure".into()],
            lessons: 2500,
            calling: 0.1,
            most_calls: Some(1),
            readings: 2.0,
            call_steps: 120,
            sft_steps: 120,
            sft_batch: 72,
            sft_lr: 3e-3,
            questions: 2000,
            rl_steps: 20,
            prompts: 16,
            group: 8,
            rl_lr: 5e-4,
            centred: true,
            rl_factors: vec![0.5, 1.0, 2.0],
            pair_steps: 100,
            pair_lr: 3e-4,
            reward_steps: 300,
            reward_lr: 9e-4,
            held_out: 150,
            puzzlevqa: String::new(),
            easy_vqa: String::new(),
            spell: true,
            conclude: "none".into(),
            blind: true,
            every: 10,
        };
        match experiment {
            "tools" => tools,
            _ => Self {
                width: 64,
                height: 64,
                level: Level::Easy,
                styles: vec![Style::Bar],
                max_pixels: 64 * 64,
                tools: Vec::new(),
                skills: vec![Skill::Value, Skill::Extremum, Skill::Compare],
                lessons: 2000,
                held_out: 200,
                readings: 0.0,
                call_steps: 0,
                sft_steps: 300,
                sft_batch: 24,
                rl_steps: 40,
                ..tools
            },
        }
    }
}

/// Seeds of the parts of a run, far apart for all seeds of an experiment.
pub(crate) fn part(seed: u64, which: u64) -> u64 {
    1000 * (seed + 1) + which
}

pub(crate) struct Lab {
    name: String,
    pub(crate) settings: Settings,
    dir: tempfile::TempDir,
    rows: RefCell<Vec<Row>>,
    runs: RefCell<u64>,
}

/// How a policy is trained by reinforcement.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) tools: bool,
    pub(crate) buffer: bool,
    pub(crate) count: Count,
    pub(crate) lr: f64,
}

impl Lab {
    pub(crate) fn new(name: &str, settings: Settings) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { name: name.into(), settings, dir, rows: RefCell::default(), runs: RefCell::default() })
    }

    /// Writes down a result.
    pub(crate) fn row(&self, seed: u64, arm: &str, metric: &str, value: f64) {
        let row = Row { experiment: self.name.clone(), seed, arm: arm.into(), metric: metric.into(), value };
        println!("{}", serde_json::to_string(&row).unwrap_or_default());
        self.rows.borrow_mut().push(row);
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.borrow().clone()
    }

    pub(crate) fn charts(&self, count: u64, seed: u64) -> Result<Data> {
        let s = &self.settings;
        let world = WorldSource {
            name: "charts".into(),
            seed,
            count,
            width: s.width,
            height: s.height,
            level: s.level,
            styles: s.styles.clone(),
            skills: s.skills.clone(),
            by_colour: true,
        };
        Ok(DataSource { world: Some(world), ..DataSource::default() }.load()?)
    }

    pub(crate) fn model(&self, seed: u64) -> Result<Vlm> {
        let s = &self.settings;
        let source = ModelSource {
            tiny: Some(s.preset.clone()),
            seed,
            max_pixels: Some(s.max_pixels),
            ..ModelSource::default()
        };
        Ok(source.load()?)
    }

    /// Supervised learning: calling lessons and readings, where there is time for them, then the mixture and fewer readings.
    pub(crate) fn supervised(&self, base: Vlm, lessons: &Data, seed: u64) -> Result<Vlm> {
        let s = &self.settings;
        let rollouts = self.rollouts(&base, &[lessons])?;
        let samples = lessons.samples();
        let mut model = base;
        let readings = |n: usize| -> Result<Vec<Response>> {
            if n == 0 {
                return Ok(Vec::new());
            }
            let readings = Some(Readings { seed: part(seed, 11) });
            let data = DataSource { readings, limit: Some(n), ..DataSource::default() }.load()?;
            Ok(data.responses(&model, false)?)
        };
        let more = readings((samples.len() as f64 * s.readings) as usize)?;
        if s.call_steps > 0 {
            let oracle = OracleConfig { most_calls: s.most_calls, ..OracleConfig::default() };
            let mut calling = Vec::new();
            for t in rollouts.oracle(&samples, &oracle)? {
                if !t.tools.is_empty() {
                    calling.push(rollouts.lesson(&model, &t, true)?);
                }
            }
            calling.extend(more.iter().cloned());
            model = self.sft(model, &calling, (s.call_steps, s.sft_lr), part(seed, 10))?;
            self.look(&model, &calling)?;
        }
        let mut shown = self.lessons(&model, &rollouts, &samples)?;
        shown.extend(more);
        let model = self.sft(model, &shown, (s.sft_steps, s.sft_lr), part(seed, 2))?;
        self.look(&model, &shown)?;
        Ok(model)
    }

    /// Tells how sure the model is of every token of a few lessons.
    fn look(&self, model: &Vlm, lessons: &[Response]) -> Result<()> {
        let last = lessons.len().saturating_sub(1);
        for lesson in lessons
            .iter()
            .take(1)
            .chain(lessons.get(lessons.len() / 2..lessons.len() / 2 + 2).unwrap_or(&[]))
            .chain(&lessons[last..])
        {
            let stats = score(model, &[vec![lesson]], Pass::default())?;
            let ids = lesson.context.ids();
            let mut line = format!("{} tokens:", lesson.context.len());
            for (at, logp) in lesson.trained.iter().zip(&stats[0].logp) {
                line += &format!(" {:?} {:.2}", model.tokenizer()?.decode(&ids[*at..at + 1])?, -logp);
            }
            eprintln!("{line}");
        }
        Ok(())
    }

    pub(crate) fn toolbox(&self) -> Result<Option<Arc<dyn Toolbox>>> {
        Ok(ToolSource::of(&self.settings.tools).load_embedded()?)
    }

    pub(crate) fn rollout_config(&self) -> RolloutConfig {
        // A puzzle's description takes up to 200 tokens, with the explanation up to 500.
        let (turn_tokens, tokens, context) = match self.settings.conclude.as_str() {
            "none" => (64, 160, 640),
            "caption" => (256, 256, 640),
            _ => (512, 512, 1024),
        };
        let limits =
            RolloutLimits { turns: 3, calls: 3, turn_tokens, tokens, context, ..RolloutLimits::default() };
        RolloutConfig { limits, batch: 128, ..RolloutConfig::default() }
    }

    pub(crate) fn rollouts(&self, model: &Vlm, data: &[&Data]) -> Result<Rollouts> {
        Ok(Rollouts::new(model, &self.rollout_config(), self.pictures(data)?, self.toolbox()?)?)
    }

    pub(crate) fn pictures(&self, data: &[&Data]) -> Result<Arc<Pictures>> {
        let pictures = Arc::new(Pictures::in_memory(2 << 30));
        for d in data {
            d.share_pictures(&pictures)?;
        }
        Ok(pictures)
    }

    /// Oracle answers to all questions without tools, and with tools listed: some with calls, the others without.
    pub(crate) fn lessons(
        &self,
        model: &Vlm,
        rollouts: &Rollouts,
        samples: &[Arc<Sample>],
    ) -> Result<Vec<Response>> {
        Ok(rollouts.lessons(model, samples, self.settings.calling, self.settings.most_calls)?)
    }

    fn next_dir(&self) -> std::path::PathBuf {
        *self.runs.borrow_mut() += 1;
        self.dir.path().join(self.runs.borrow().to_string())
    }

    pub(crate) fn optimizer(&self, lr: f64, shape: Shape) -> OptimizerConfig {
        OptimizerConfig {
            lr: PartRates { tower: lr, projector: lr, language: lr, head: 5.0 * lr },
            schedule: Schedule { shape, warmup: 0.05, floor: 0.1 },
            ..OptimizerConfig::default()
        }
    }

    pub(crate) fn run_config(&self, steps: u64, seed: u64) -> RunConfig {
        RunConfig { steps, seed, checkpoint_every: 0, ..RunConfig::default() }
    }

    pub(crate) fn watch(&self, what: &str) -> Watch {
        Watch { what: what.into(), every: self.settings.every, began: Instant::now() }
    }

    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.next_dir()
    }

    pub(crate) fn sft(
        &self,
        model: Vlm,
        lessons: &[Response],
        (steps, lr): (u64, f64),
        seed: u64,
    ) -> Result<Vlm> {
        let config = SftConfig {
            run: self.run_config(steps, seed),
            optimizer: self.optimizer(lr, Shape::Cosine),
            batch: self.settings.sft_batch,
            ..SftConfig::default()
        };
        Ok(sft::run(&config, model, lessons, &[], &self.next_dir(), &mut self.watch("sft"))?.0)
    }

    /// Reinforcement; returns the policy and the mean of every metric over the steps.
    pub(crate) fn grpo(&self, model: Vlm, data: &Data, arm: &Arm, seed: u64) -> Result<(Vlm, Means)> {
        let s = &self.settings;
        let config = GrpoConfig {
            run: self.run_config(s.rl_steps, seed),
            optimizer: self.optimizer(arm.lr, Shape::Constant),
            rollout: self.rollout_config(),
            prompts: s.prompts,
            group: s.group,
            buffer: arm.buffer.then(|| BufferConfig {
                capacity: 4 * s.prompts * s.group as usize,
                max_age: 8,
                ..BufferConfig::default()
            }),
            count: arm.count,
            advantage: if s.centred { Advantage::Centred } else { Advantage::default() },
            dependence_every: 0,
            ..GrpoConfig::default()
        };
        let train = data.samples();
        let inputs = GrpoInputs {
            model,
            train: &train,
            held_out: &[],
            pictures: self.pictures(&[data])?,
            toolbox: if arm.tools { self.toolbox()? } else { None },
            reward_model: None,
        };
        let dir = self.next_dir();
        let mut watch = Meter { watch: self.watch("grpo"), sums: Means::default(), steps: 0.0 };
        let (model, _) = grpo::run(&config, inputs, &dir, &mut watch)?;
        watch.sums.values_mut().for_each(|v| *v /= watch.steps);
        Ok((model, watch.sums))
    }

    pub(crate) fn evaluate(&self, model: &Vlm, held_out: &Data) -> Result<Accuracies> {
        let rollouts = self.rollouts(model, &[held_out])?;
        Ok(grpo::evaluate(model, &rollouts, &held_out.samples(), 0)?)
    }

    /// Accuracies as rows.
    pub(crate) fn accuracies(&self, seed: u64, arm: &str, found: &Accuracies) {
        for (metric, value) in found.metrics() {
            self.row(seed, arm, &metric, value);
        }
    }
}

/// Number of a text's beginning.
fn leading_number(text: &str) -> &str {
    let text = text.trim();
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}

impl Lab {
    /// Accuracies by skill, how often tools were called for each, and how often an answer behind a reply repeats its number.
    pub(crate) fn by_skill(&self, seed: u64, arm: &str, held_out: &Data, found: &Accuracies) {
        let skill = |s: &Sample| s.meta.get("skill").and_then(|k| k.as_str()).unwrap_or_default().to_owned();
        let skills: Vec<String> = held_out.questions.iter().map(|(s, _)| skill(s)).collect();
        let mut names = skills.clone();
        names.sort();
        names.dedup();
        for name in names {
            let share = |metric: &str, of: &dyn Fn(usize) -> Option<bool>| {
                let of_skill = (0..skills.len()).filter(|&i| skills[i] == name).filter_map(of);
                let all: Vec<f64> = of_skill.map(|b| f64::from(u8::from(b))).collect();
                if !all.is_empty() {
                    self.row(
                        seed,
                        arm,
                        &format!("{name}/{metric}"),
                        all.iter().sum::<f64>() / all.len() as f64,
                    );
                }
            };
            share("accuracy_plain", &|i| found.plain.get(i).copied());
            share("accuracy", &|i| found.with_tools.get(i).copied());
            if found.with_tools.is_empty() {
                continue;
            }
            share("called", &|i| found.trajectories.get(i).map(|t| !t.tools.is_empty()));
            share("copied", &|i| {
                let t = found.trajectories.get(i)?;
                let result = t.tools.last().filter(|u| !u.result.is_error)?;
                let reply = ocelli_data::Message::tool(result.result.clone()).plain_text();
                Some(leading_number(&reply) == t.final_text().trim())
            });
        }
    }
}

pub(crate) type Means = std::collections::BTreeMap<String, f64>;

pub(crate) struct Watch {
    what: String,
    every: u64,
    began: Instant,
}

impl Observer for Watch {
    fn step(&mut self, p: &Progress<'_>) -> Go {
        if p.step.is_multiple_of(self.every) || p.step == p.total {
            let shown = [
                "loss",
                "token_loss",
                "reward",
                "tools/rate",
                "tools/error_rate",
                "groups/informative",
                "buffer/fill",
                "response/length",
                "policy/entropy",
                "accuracy",
                "reward/accuracy",
            ];
            let value = |n: &&str| p.metrics.iter().find(|(m, _)| m == n).map(|(m, v)| format!("{m} {v:.3}"));
            let parts: Vec<String> = shown.iter().filter_map(value).collect();
            let seconds = self.began.elapsed().as_secs_f64();
            eprintln!("{} {}/{} {seconds:.0} s: {}", self.what, p.step, p.total, parts.join(", "));
        }
        Go::On
    }
}

/// A watch that also adds up what it sees.
struct Meter {
    watch: Watch,
    sums: Means,
    steps: f64,
}

impl Observer for Meter {
    fn step(&mut self, p: &Progress<'_>) -> Go {
        self.steps += 1.0;
        for (name, value) in p.metrics {
            *self.sums.entry(name.clone()).or_default() += value;
        }
        self.watch.step(p)
    }
}
