//! Speed and memory of a whole training step: supervised, reward model, or GRPO with its rollouts.
//!
//! usage: train_speed sft|reward|grpo MODEL [--bf16] [--apart] [--batch 8] [--prompts 2] [--group 8] [--text 64] [--new 64]
//!                    [--turns 1] [--side 448] [--steps 3] [--warmup 1]
//!
//! MODEL is a checkpoint directory or a preset of the native family. Pictures are noise of `side` x `side` pixels.
//! sft     `batch` rows of a picture and `text` tokens, loss on all of them but the picture's marks
//! reward  `batch` pairs of such rows that differ in the last half of the text
//! grpo    `prompts` questions with a picture, `group` answers of `new` tokens each through the agent's engine (decoding and cutting
//!         of pictures included), rewards, advantages, one training pass; with several turns the world answers each
//!         turn with another picture, and turns end at random after `new` tokens on average
//! --apart nothing is shared: every row has a prompt and a picture of its own
//!
//! All parameters are trained, the vision tower included; AdamW. Medians after warm-up.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod rollouts;

use std::collections::HashMap;
use std::error::Error;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use image::{ImageFormat, RgbImage};
use ocelli_data::ContentHash;
use ocelli_model::vlm::tiny::TinyConfig;
use ocelli_model::vlm::{Context, LoadOptions, Vlm};
use ocelli_model::{Checkpoint, ModelError};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Grads};
use ocelli_train::losses::{BradleyTerry, Normaliser, PairScore, Reduction, cross_entropy, ranking_loss};
use ocelli_train::responses::{Pack, Pass, Response, TokenGrads, learn, learn_values};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is measured.
pub(crate) struct Args {
    mode: String,
    model: String,
    bf16: bool,
    pub(crate) apart: bool,
    numbers: HashMap<String, usize>,
}

impl Args {
    fn read() -> Result<Self> {
        let usage = "usage: train_speed sft|reward|grpo MODEL [--bf16] [--apart] [--batch|--prompts|--group|--text|--new|--turns|--side|--steps|--warmup N]";
        let mut args = std::env::args().skip(1);
        let (Some(mode), Some(model)) = (args.next(), args.next()) else { return Err(usage.into()) };
        let defaults = [
            ("--batch", 8),
            ("--prompts", 2),
            ("--group", 8),
            ("--text", 64),
            ("--new", 64),
            ("--turns", 1),
            ("--side", 448),
            ("--steps", 3),
            ("--warmup", 1),
        ];
        let numbers = defaults.map(|(k, v)| (k.to_owned(), v)).into();
        let mut this = Self { mode, model, bf16: false, apart: false, numbers };
        while let Some(key) = args.next() {
            match (key.as_str(), this.numbers.get_mut(&key)) {
                ("--bf16", _) => this.bf16 = true,
                ("--apart", _) => this.apart = true,
                (_, Some(n)) => *n = args.next().ok_or(usage)?.parse()?,
                (_, None) => return Err(usage.into()),
            }
        }
        Ok(this)
    }

    pub(crate) fn n(&self, key: &str) -> usize {
        self.numbers[key]
    }

    fn model(&self) -> Result<Vlm> {
        let mut model = if Path::new(&self.model).exists() {
            Vlm::load(&Checkpoint::open(Path::new(&self.model))?, LoadOptions::default())?
        } else {
            let mut config = TinyConfig::preset(&self.model)?;
            config.vision.max_pixels = (self.n("--side") * self.n("--side")) as u64;
            config.context = config.context.max(1 << 14);
            Vlm::tiny(&config, 0)?
        };
        model.params.set_compute_dtype(if self.bf16 { DType::Bf16 } else { DType::F32 });
        Ok(model)
    }
}

/// A noisy picture as a PNG, another one for every seed.
pub(crate) fn noise(side: usize, seed: u64) -> Result<Arc<[u8]>> {
    let mut picture = RgbImage::new(side as u32, side as u32);
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut picture);
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner().into())
}

/// Where the time of a step went, in seconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Phases {
    pub(crate) rollout: f64,
    pub(crate) prepare: f64,
    pub(crate) forward: f64,
    pub(crate) backward: f64,
    pub(crate) optimizer: f64,
}

impl Phases {
    fn list(&self) -> [(&'static str, f64); 5] {
        let Self { rollout, prepare, forward, backward, optimizer } = *self;
        [
            ("rollout", rollout),
            ("preparation", prepare),
            ("forward", forward),
            ("backward", backward),
            ("optimizer", optimizer),
        ]
    }
}

/// A picture between its marks, and random words behind it: `text` tokens in all besides the picture's.
fn row(model: &Vlm, picture: &[u8], text: usize, rng: &mut ChaCha8Rng) -> Result<Context> {
    let mark = |key: &str| {
        let id = model.config.raw.get(key).and_then(|v| v.as_u64());
        id.map(|v| v as u32).ok_or_else(|| format!("config.json has no {key}"))
    };
    let ids = [mark("vision_start_token_id")?, mark("image_token_id")?, mark("vision_end_token_id")?];
    let hash = ContentHash::of(picture);
    let album: HashMap<ContentHash, Vec<u8>> = [(hash, picture.to_vec())].into();
    let mut context = model.context_of_ids(&ids, &[hash], &album)?;
    context.push(&words(text - 2, rng));
    Ok(context)
}

fn words(n: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    (0..n).map(|_| rng.next_u32() % 500).collect()
}

/// A step that is repeated; it fills in how long its forward and backward passes took.
type Step<'a> = Box<dyn FnMut(&Vlm, usize, &mut Grads, &mut Phases) -> Result<usize> + 'a>;

fn sft<'a>(args: &Args, model: &Vlm) -> Result<Step<'a>> {
    let (rows, text) = (args.n("--batch"), args.n("--text"));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut examples = Vec::with_capacity(rows);
    for i in 0..rows {
        let context = row(model, &noise(args.n("--side"), i as u64)?, text, &mut rng)?;
        let trained = (context.len() - text + 2..context.len()).collect();
        examples.push(Response { context, prompt: 0, trained });
    }
    Ok(Box::new(move |model, _, grads, phases| {
        let packs: Vec<Pack<'_>> = examples.iter().map(|e| vec![e]).collect();
        let normaliser = Normaliser::new(Reduction::TokenMean, examples.iter().map(|e| e.trained.len()))?;
        let began = Instant::now();
        let rows = learn(model, &packs, Pass::default(), grads, |stats| {
            phases.forward = began.elapsed().as_secs_f64();
            let of = |s: &ocelli_train::responses::TokenStats| {
                let (_, d_logp) = cross_entropy(&s.logp, &normaliser)?;
                Ok(TokenGrads { d_logp, d_entropy: Vec::new() })
            };
            let grads: std::result::Result<_, _> = stats.iter().map(of).collect();
            grads.map_err(|source| ocelli_train::TrainError::Loss { step: 0, source })
        })?;
        phases.backward = began.elapsed().as_secs_f64() - phases.forward;
        Ok(rows)
    }))
}

fn reward<'a>(args: &Args, model: &mut Vlm) -> Result<Step<'a>> {
    let (pairs, text, apart) = (args.n("--batch"), args.n("--text"), args.apart);
    model.add_value_head(0)?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut answers = Vec::with_capacity(2 * pairs);
    for i in 0..pairs as u64 {
        let question = text / 2;
        let write = |seed: u64| -> Result<Context> {
            row(model, &noise(args.n("--side"), seed)?, question, &mut ChaCha8Rng::seed_from_u64(i))
        };
        // Apart, the two pictures of a pair differ, so that each is seen for itself.
        for context in [write(2 * i)?, write(2 * i + u64::from(apart))?] {
            let (mut context, prompt) = (context.clone(), if apart { 0 } else { context.len() });
            context.push(&words(text - question, &mut rng));
            let trained = vec![context.len() - 1];
            answers.push(Response { context, prompt, trained });
        }
    }
    Ok(Box::new(move |model, _, grads, phases| {
        let size = if apart { 1 } else { 2 };
        let packs: Vec<Pack<'_>> = answers.chunks(size).map(|p| p.iter().collect()).collect();
        let began = Instant::now();
        let rows = learn_values(model, &packs, false, grads, |values| {
            phases.forward = began.elapsed().as_secs_f64();
            let mut out = Vec::with_capacity(values.len());
            for s in values.chunks_exact(2) {
                let pair = PairScore { chosen: s[0], rejected: s[1], margin: None, tie: false };
                let (_, c, r) = ranking_loss(&BradleyTerry::default(), &pair, pairs)
                    .map_err(|source| ocelli_train::TrainError::Loss { step: 0, source })?;
                out.extend([c, r]);
            }
            Ok(out)
        })?;
        phases.backward = began.elapsed().as_secs_f64() - phases.forward;
        Ok(rows)
    }))
}

/// Processor seconds that this process has taken, over all threads (the clock of `/proc` ticks at 100 Hz).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let args = Args::read()?;
    let mut model = args.model()?;
    let mut step = match args.mode.as_str() {
        "sft" => sft(&args, &model)?,
        "reward" => reward(&args, &mut model)?,
        "grpo" => rollouts::grpo(&args, &mut model)?,
        other => return Err(format!("`{other}` is none of sft, reward and grpo").into()),
    };
    let clip = (args.mode == "grpo").then_some(1.0);
    let groups = vec![AdamWGroup { lr: 1e-5, weight_decay: 0.1 }; 4];
    let mut optimizer =
        AdamW::new(AdamWConfig { beta2: 0.95, max_grad_norm: clip, groups, ..AdamWConfig::default() });
    let (mut times, mut used, mut spent, mut rows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for i in 0..args.n("--warmup") + args.n("--steps") {
        let (began, before) = (Instant::now(), processor_seconds());
        let (mut grads, mut phases) = (Grads::new(), Phases::default());
        let n = step(&model, i, &mut grads, &mut phases)?;
        let updating = Instant::now();
        optimizer.step(&mut model.params, &grads).map_err(ModelError::from)?;
        phases.optimizer = updating.elapsed().as_secs_f64();
        if i >= args.n("--warmup") {
            times.push(began.elapsed().as_secs_f64());
            used.push(processor_seconds() - before);
            spent.push(phases);
            rows.push(n as f64);
        }
    }
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    let split: Vec<String> = (0..5)
        .map(|k| (spent[0].list()[k].0, median(spent.iter().map(|p| p.list()[k].1).collect())))
        .filter(|(_, seconds)| *seconds > 0.0)
        .map(|(name, seconds)| format!("{name} {:.0}", seconds * 1e3))
        .collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.split_whitespace().next());
    let peak = peak.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0;
    println!(
        "ocelli {} {}{}: {:.2}M parameters; {:.0} rows in the training pass; step {:.0} ms, best {:.0} ({}), {:.2} CPU s; peak RSS {peak:.0} MiB",
        if args.bf16 { "bf16" } else { "f32" },
        args.mode,
        if args.apart { " apart" } else { "" },
        model.params.element_count() as f64 / 1e6,
        median(rows),
        median(times) * 1e3,
        best * 1e3,
        split.join(", "),
        median(used),
    );
    Ok(())
}
