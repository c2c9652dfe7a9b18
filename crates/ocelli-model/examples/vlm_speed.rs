//! Speed and memory of a vision-language model: a training step, or greedy generation for a batch of questions.
//!
//! usage: vlm_speed train|generate CHECKPOINT [--bf16] [--batch 8] [--text 64] [--new 64] [--steps 8] [--warmup 2]
//!
//! Each row is one 448 x 448 picture of noise (256 tokens in the Qwen families), `<vision_start>` and `<vision_end>`, and
//! random words, `text` tokens besides the picture's. Pictures are decoded and cut outside the clock.
//! train     forward (vision tower included), loss on the words, backward, AdamW over all parameters
//! generate  prompt, vision tower included, and `new` tokens, greedy, nothing shared and nothing kept between calls

#![allow(clippy::print_stdout)] // a program, not a library

use std::collections::HashMap;
use std::error::Error;
use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use image::{ImageFormat, Rgb, RgbImage};
use ocelli_data::ContentHash;
use ocelli_model::vlm::{Context, Group, LoadOptions};
use ocelli_model::{Checkpoint, EngineLimits, Sampling, Vlm};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Grads, Tape, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Args {
    mode: String,
    checkpoint: String,
    bf16: bool,
    numbers: HashMap<String, usize>,
}

impl Args {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut args = std::env::args().skip(1);
        let usage = "usage: vlm_speed train|generate CHECKPOINT [--bf16] [--batch N] [--text N] [--new N] [--steps N] [--warmup N]";
        let (Some(mode), Some(checkpoint)) = (args.next(), args.next()) else { return Err(usage.into()) };
        let defaults = [("--batch", 8), ("--text", 64), ("--new", 64), ("--steps", 8), ("--warmup", 2)];
        let mut numbers: HashMap<String, usize> = defaults.map(|(k, v)| (k.to_owned(), v)).into();
        let mut bf16 = false;
        while let Some(key) = args.next() {
            match numbers.get_mut(&key) {
                _ if key == "--bf16" => bf16 = true,
                Some(n) => *n = args.next().ok_or(usage)?.parse()?,
                None => return Err(usage.into()),
            }
        }
        Ok(Self { mode, checkpoint, bf16, numbers })
    }
}

/// Processor seconds that this process has taken, over all threads (the clock of `/proc` ticks at 100 Hz).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn noise(rng: &mut ChaCha8Rng) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut picture = RgbImage::new(448, 448);
    picture.pixels_mut().for_each(|p| *p = Rgb(rng.random()));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

fn contexts(vlm: &Vlm, rows: usize, text: usize) -> Result<Vec<Context>, Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let token = |key: &str| {
        vlm.config.raw.get(key).and_then(|v| v.as_u64()).map(|v| v as u32).ok_or("no vision tokens")
    };
    let marks = [token("vision_start_token_id")?, token("image_token_id")?, token("vision_end_token_id")?];
    let words = marks.iter().copied().min().unwrap_or(2).min(2000);
    let row = |rng: &mut ChaCha8Rng| {
        let file = noise(rng)?;
        let hash = ContentHash::of(&file);
        let ids: Vec<u32> = marks.into_iter().chain((2..text).map(|_| rng.random_range(0..words))).collect();
        Ok(vlm.context_of_ids(&ids, &[hash], &HashMap::from([(hash, file)]))?)
    };
    (0..rows).map(|_| row(&mut rng)).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read()?;
    let n = |key: &str| args.numbers[key];
    let compute = if args.bf16 { DType::Bf16 } else { DType::F32 };
    let options = if args.mode == "generate" { LoadOptions::frozen() } else { LoadOptions::default() };
    let checkpoint = Checkpoint::open(Path::new(&args.checkpoint))?;
    let mut vlm = Vlm::load(&checkpoint, LoadOptions { compute, ..options })?;
    let contexts = contexts(&vlm, n("--batch"), n("--text"))?;
    let tokens = contexts[0].len();
    let (mut times, mut used) = (Vec::new(), Vec::new());
    let mut note = String::new();
    match args.mode.as_str() {
        "train" => {
            let batch = vlm.pack(&contexts.iter().map(Group::single).collect::<Vec<_>>())?;
            let (mut rows, mut targets) = (Vec::new(), Vec::new());
            for s in 0..contexts.len() {
                let (r, t) = batch.predictions(s, tokens - n("--text") + 2..tokens)?;
                rows.extend(r);
                targets.extend(t);
            }
            let groups = vec![AdamWGroup { lr: 1e-4, weight_decay: 0.1 }; 4];
            let mut optimizer = AdamW::new(AdamWConfig { beta2: 0.95, groups, ..AdamWConfig::default() });
            let mut losses = Vec::new();
            for _ in 0..n("--warmup") + n("--steps") {
                let (start, before) = (Instant::now(), processor_seconds());
                let mut grads = Grads::new();
                {
                    let mut tape = Tape::train(&vlm.params);
                    let hidden = vlm.hidden_at(&mut tape, &batch, &rows, false)?;
                    let every: Vec<usize> = (0..rows.len()).collect();
                    let lp = vlm.logprobs(&mut tape, &hidden, (&every, &targets), 1.0)?.logprob;
                    drop(hidden);
                    let weight = -1.0 / targets.len() as f32;
                    losses.push(lp.value().to_vec().iter().sum::<f32>() * weight);
                    let seed = Tensor::full(&[targets.len()], weight, DType::F32);
                    tape.backward_from(&[(&lp, seed)], &mut grads)?;
                }
                optimizer.step(&mut vlm.params, &grads)?;
                times.push(start.elapsed().as_secs_f64());
                used.push(processor_seconds() - before);
            }
            note = format!("loss {:.3} -> {:.3}", losses[0], losses[losses.len() - 1]);
        }
        "generate" => {
            let sampling = Sampling { max_new_tokens: n("--new"), ..Sampling::greedy() };
            for _ in 0..n("--warmup") + n("--steps") {
                vlm.forget_features();
                let (start, before) = (Instant::now(), processor_seconds());
                let mut engine =
                    vlm.engine(EngineLimits { max_active: n("--batch"), rows_per_step: 4096 })?;
                for (i, prompt) in vlm.generation_prompts(&contexts)?.into_iter().enumerate() {
                    engine.start(prompt, 1, &sampling, 0, i as u64)?;
                }
                let prefill = start.elapsed().as_secs_f64();
                let turns = engine.run(|_, _| ())?;
                times.push(start.elapsed().as_secs_f64());
                used.push(processor_seconds() - before);
                note = format!(
                    "{} new tokens, features {:.0} ms",
                    turns.iter().map(|t| t.ids.len()).sum::<usize>(),
                    prefill * 1e3
                );
            }
        }
        other => return Err(format!("`{other}` is neither train nor generate").into()),
    }
    times.drain(..n("--warmup"));
    times.sort_by(f64::total_cmp);
    used.drain(..n("--warmup"));
    used.sort_by(f64::total_cmp);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned();
    println!(
        "ocelli {compute:?} {}: batch {} x {tokens}; median {:.0} ms, best {:.0} ms, {:.2} CPU s; {note}; peak RSS {peak}",
        args.mode,
        contexts.len(),
        times[times.len() / 2] * 1e3,
        times[0] * 1e3,
        used[used.len() / 2],
    );
    Ok(())
}
