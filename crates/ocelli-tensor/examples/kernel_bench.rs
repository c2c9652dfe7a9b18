//! Rates of the parts a training step is made of: linear layers (forward, input gradient, weight gradient), attention forward and
//! backward, and few-row products of decoding. One JSON object per line.
//!
//! ```text
//! kernel_bench [--bf16] [linear|attention]
//! ```
#![allow(clippy::print_stdout)] // a program, not a library

use std::time::Instant;

use ocelli_tensor::ops::{self, AttentionSpec};
use ocelli_tensor::{DType, Grads, Params, Result, SeqLayout, Tape, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Median and shortest seconds of `f`, after a warm-up.
fn time(mut f: impl FnMut() -> Result<()>) -> Result<[f64; 2]> {
    f()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || (start.elapsed().as_secs_f64() < 0.7 && times.len() < 200) {
        let one = Instant::now();
        f()?;
        times.push(one.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], times[0]])
}

/// What is left of `all` without `part`.
fn less(all: [f64; 2], part: [f64; 2]) -> [f64; 2] {
    [all[0] - part[0], all[1] - part[1]]
}

fn report(what: &str, shape: &str, flop: f64, [median, best]: [f64; 2]) {
    let rate = |s: f64| flop / s / 1e9;
    println!(
        "{{\"kernel\": \"{what}\", \"shape\": \"{shape}\", \"us\": {:.1}, \"gflop_s\": {:.1}, \"best_gflop_s\": {:.1}}}",
        median * 1e6,
        rate(median),
        rate(best),
    );
}

fn main() -> Result<()> {
    let given = |flag: &str| std::env::args().any(|a| a == flag);
    let wanted = |part: &str| given(part) || !(given("linear") || given("attention"));
    let dtype = if given("--bf16") { DType::Bf16 } else { DType::F32 };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let shapes = [
        (2048, 768, 256),
        (2048, 512, 512),
        (2048, 1536, 512),
        (2048, 512, 1536),
        (2048, 8192, 512),
        (2048, 2048, 2048),
        (1, 1536, 512),
        (16, 1536, 512),
        (16, 8192, 512),
    ];
    for (n, out, inner) in shapes.into_iter().filter(|_| wanted("linear")) {
        let flop = 2.0 * (n * out * inner) as f64;
        let shape = format!("{n}x{out}x{inner}");
        let x = Tensor::randn(&[n, inner], 1.0, &mut rng).to_dtype(dtype);
        let w = Tensor::randn(&[out, inner], 1.0, &mut rng);
        let mut params = Params::new();
        let id = params.add("w", w)?;
        params.set_compute_dtype(dtype);
        let s = time(|| {
            let mut tape = Tape::inference(&params);
            ops::linear(&mut tape, &Var::constant(x.clone()), id).map(drop)
        })?;
        report("linear forward", &shape, flop, s);
        if n < 64 {
            continue;
        }
        let dy = Tensor::randn(&[n, out], 1.0, &mut rng).to_dtype(dtype);
        let mut grads = Grads::new();
        let weight = time(|| {
            let mut tape = Tape::train(&params);
            let y = ops::linear(&mut tape, &Var::constant(x.clone()), id)?;
            tape.backward_from(&[(&y, dy.clone())], &mut grads).map(drop)
        })?;
        report("linear weight gradient", &shape, flop, less(weight, s));
        params.set_trainable(id, false)?;
        let input = time(|| {
            let mut tape = Tape::train(&params);
            let leaf = tape.leaf(x.clone());
            let y = ops::linear(&mut tape, &leaf, id)?;
            tape.backward_from(&[(&y, dy.clone())], &mut grads).map(drop)
        })?;
        report("linear input gradient", &shape, flop, less(input, s));
        params.set_trainable(id, true)?;
    }
    let shapes = [(8, 256, 8, 2, 32), (4, 512, 8, 2, 64), (1, 4096, 8, 2, 64)];
    for (batch, t, heads, kv, d) in shapes.into_iter().filter(|_| wanted("attention")) {
        let n = batch * t;
        let layout = SeqLayout::causal(&vec![t; batch]);
        let mut rows = |h: usize| Tensor::randn(&[n, h * d], 1.0, &mut rng).to_dtype(dtype);
        let (q, k, v, dy) = (rows(heads), rows(kv), rows(kv), rows(heads));
        let spec = AttentionSpec::new(heads, kv, d);
        let params = Params::new();
        // Half of the score matrix is visible.
        let flop = 2.0 * (batch * heads * t * t * d) as f64;
        let shape = format!("{batch}x{t} heads {heads}/{kv} of {d}");
        let forward = time(|| {
            let mut tape = Tape::inference(&params);
            let [q, k, v] = [&q, &k, &v].map(|t| Var::constant(t.clone()));
            ops::attention(&mut tape, &q, &k, &v, &layout, spec).map(drop)
        })?;
        report("attention forward", &shape, flop, forward);
        let both = time(|| {
            let mut tape = Tape::train(&params);
            let [q, k, v] = [&q, &k, &v].map(|t| tape.leaf(t.clone()));
            let y = ops::attention(&mut tape, &q, &k, &v, &layout, spec)?;
            tape.backward_from(&[(&y, dy.clone())], &mut Grads::new()).map(drop)
        })?;
        report("attention backward", &shape, 2.5 * flop, less(both, forward));
    }
    Ok(())
}
