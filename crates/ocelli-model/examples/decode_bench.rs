//! Tokens per second of greedy generation with a real checkpoint: `N` sequences, each with a prompt of its own, through the same engine as
//! `ocelli generate`. One JSON object per run; `bench/decode_llamacpp.py` runs it beside llama.cpp.
//!
//! ```text
//! decode_bench MODEL [--sequences N] [--prompt P] [--new T] [--bf16] [--runs R]
//! ```
#![allow(clippy::print_stdout)] // a program, not a library

use std::path::Path;
use std::time::Instant;

use ocelli_model::generate::{Engine, EngineLimits, Sampling};
use ocelli_model::{Checkpoint, Keep, LanguageModel};
use ocelli_tensor::DType;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| -> Result<usize, std::num::ParseIntError> {
        args.iter().skip_while(|a| *a != name).nth(1).map_or(Ok(default), |a| a.parse())
    };
    let path = args
        .first()
        .ok_or("usage: decode_bench MODEL [--sequences N] [--prompt P] [--new T] [--bf16] [--runs R]")?;
    let (n, prompt, new) = (number("--sequences", 1)?, number("--prompt", 64)?, number("--new", 128)?);
    let dtype = if args.iter().any(|a| a == "--bf16") { DType::Bf16 } else { DType::F32 };
    let checkpoint = Checkpoint::open(Path::new(path))?;
    let model = LanguageModel::load(&checkpoint, Keep::Frozen(dtype), dtype)?;
    let sampling = Sampling { max_new_tokens: new, ..Sampling::greedy() };
    let mut seconds = Vec::new();
    for run in 0..=number("--runs", 3)? {
        let limits = EngineLimits { max_active: n.max(1), rows_per_step: 2048 };
        let mut engine = Engine::new(&model.text, &model.params, checkpoint.tokenizer.as_ref(), limits)?;
        let start = Instant::now();
        for s in 0..n {
            // The rule by which the peer's prompts are made: any ids will do, all sequences differ.
            let ids: Vec<u32> =
                (0..prompt).map(|i| (1000 + (s * 7919 + i * 104_729) % 40_000) as u32).collect();
            engine.start(ids.into(), 1, &sampling, 0, 0)?;
        }
        let tokens: usize = engine.run(|_, _| {})?.iter().map(|t| t.ids.len()).sum();
        if tokens != n * new {
            return Err(format!("{tokens} tokens instead of {}", n * new).into());
        }
        // The first run warms up.
        if run > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let values: usize = model.params.element_count();
    println!(
        "{{\"stack\": \"ocelli\", \"sequences\": {n}, \"prompt\": {prompt}, \"new\": {new}, \"seconds\": {median:.3}, \
         \"tok_s\": {:.1}, \"weights_mib\": {:.0}, \"rss_mib\": {:.0}}}",
        (n * new) as f64 / median,
        (values * dtype.size()) as f64 / f64::from(1 << 20),
        peak_rss_mib(),
    );
    Ok(())
}

fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|k| k.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
