//! Times a training step or cached decoding of a small Qwen2-style decoder, for comparison with other stacks.
//!
//! ```text
//! step_bench train  A|B [--bf16] [--steps N] [--T N] [--batch N] [--prefix G] [--checkpoint]
//! step_bench decode A|B [--bf16] [--batch N]
//! ```
//!
//! A: width 256, 6 layers, feed-forward 768, vocabulary 2048, batch 8 x 256. B: width 512, 8 layers, feed-forward 1536, vocabulary
//! 8192, batch 4 x 512. Both: 8 query and 2 key/value heads, biases on q/k/v, tied embeddings. One JSON object on standard output:
//! median milliseconds, tokens per second, peak resident memory. `--prefix G` trains on one prompt of 1024 tokens with G answers of
//! 128 behind it.
#![allow(clippy::print_stdout)] // a program, not a library

use std::time::Instant;

use ocelli_tensor::ops::{self, AttentionSpec, Linear, RotaryStyle, RotaryTable};
use ocelli_tensor::{
    AdamW, AdamWConfig, AdamWGroup, DType, Device, Grads, KvCache, KvShape, ParamId, Params, PrefixGroup,
    Result, SeqLayout, Tape, Tensor, Var,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy)]
struct Config {
    d: usize,
    layers: usize,
    heads: usize,
    kv: usize,
    ff: usize,
    vocab: usize,
    batch: usize,
    t: usize,
}

impl Config {
    fn head(&self) -> usize {
        self.d / self.heads
    }
    fn spec(&self) -> AttentionSpec {
        AttentionSpec::new(self.heads, self.kv, self.head())
    }
}

struct Block {
    norms: [ParamId; 2],
    qkv: [Linear; 3],
    out: ParamId,
    gate_up: [Linear; 2],
    down: ParamId,
}

struct Model {
    c: Config,
    table: ParamId,
    blocks: Vec<Block>,
    norm: ParamId,
}

impl Model {
    fn new(c: Config, params: &mut Params, rng: &mut ChaCha8Rng) -> Result<Model> {
        let ones = Tensor::full(&[c.d], 1.0, DType::F32);
        let mut matrix = |p: &mut Params, name: String, out: usize, inner: usize| {
            let std = if inner == c.d && out == c.vocab { 0.02 } else { 1.0 / (3.0 * inner as f32).sqrt() };
            p.add(name, Tensor::randn(&[out, inner], std, rng))
        };
        let table = matrix(params, "embed".into(), c.vocab, c.d)?;
        let mut blocks = Vec::new();
        for l in 0..c.layers {
            let mut linear = |p: &mut Params, n: &str, out: usize, bias: bool| -> Result<Linear> {
                let w = Linear::new(matrix(p, format!("{l}.{n}"), out, c.d)?);
                Ok(match bias {
                    true => w.with_bias(p.add(format!("{l}.{n}.bias"), Tensor::zeros(&[out], DType::F32))?),
                    false => w,
                })
            };
            let (q, kv) = (c.heads * c.head(), c.kv * c.head());
            let qkv = [
                linear(params, "q", q, true)?,
                linear(params, "k", kv, true)?,
                linear(params, "v", kv, true)?,
            ];
            let gate_up = [linear(params, "gate", c.ff, false)?, linear(params, "up", c.ff, false)?];
            let out = matrix(params, format!("{l}.o"), c.d, q)?;
            let down = matrix(params, format!("{l}.down"), c.d, c.ff)?;
            let mut norm = |n: &str| params.add(format!("{l}.{n}"), ones.clone());
            blocks.push(Block { norms: [norm("n1")?, norm("n2")?], qkv, out, gate_up, down });
        }
        Ok(Model { c, table, blocks, norm: params.add("norm", ones)? })
    }

    /// One block; `attend` is packed or cached attention.
    fn block<'p>(
        &self,
        tape: &mut Tape<'p>,
        x: &Var,
        b: &Block,
        rope: &RotaryTable,
        attend: impl FnOnce(&mut Tape<'p>, &Var, &Var, &Var) -> Result<Var>,
    ) -> Result<Var> {
        let h = ops::rms_norm(tape, x, b.norms[0], 1e-6)?;
        let qkv = ops::linear_many(tape, &h, &b.qkv)?;
        drop(h);
        let q = ops::rotary(tape, &qkv[0], self.c.head(), rope)?;
        let k = ops::rotary(tape, &qkv[1], self.c.head(), rope)?;
        let h = attend(tape, &q, &k, &qkv[2])?;
        let h = ops::linear(tape, &h, b.out)?;
        let x = ops::add(tape, x, &h)?;
        let h = ops::rms_norm(tape, &x, b.norms[1], 1e-6)?;
        let gu = ops::linear_many(tape, &h, &b.gate_up)?;
        let h = ops::swiglu(tape, &gu[0], &gu[1])?;
        let h = ops::linear(tape, &h, b.down)?;
        ops::add(tape, &x, &h)
    }
}

fn rope(c: &Config, positions: &[usize]) -> RotaryTable {
    RotaryTable::one_dimensional(positions, c.head(), 10_000.0, RotaryStyle::Half)
}

/// Median and shortest time.
fn summary(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0]]
}

fn train(
    m: &Model,
    params: &mut Params,
    layout: &SeqLayout,
    steps: usize,
    checkpoint: bool,
) -> Result<([f64; 2], f64, f32)> {
    let n = layout.query_rows();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let ids: Vec<u32> = (0..=n).map(|_| rng.random_range(0..m.c.vocab as u32)).collect();
    let (inputs, targets) = (&ids[..n], &ids[1..]);
    let group = AdamWGroup { lr: 1e-3, weight_decay: 0.1 };
    let mut adam = AdamW::new(AdamWConfig { beta2: 0.95, groups: vec![group], ..AdamWConfig::default() });
    let (rope, weights) = (rope(&m.c, &layout.positions()), vec![1.0 / n as f32; n]);
    let (mut times, mut loss) = (Vec::new(), 0.0);
    for step in 0..steps + 3 {
        let start = Instant::now();
        let mut grads = Grads::new();
        {
            let mut tape = Tape::train(params);
            let mut x = ops::embedding(&mut tape, m.table, inputs)?;
            for b in &m.blocks {
                let (rope, spec) = (&rope, m.c.spec());
                let block = move |t: &mut Tape<'_>, x: &Var| {
                    m.block(t, x, b, rope, |t, q, k, v| ops::attention(t, q, k, v, layout, spec))
                };
                x = match checkpoint {
                    true => tape.checkpoint(&[&x], move |t, x| Ok(vec![block(t, &x[0])?]))?.remove(0),
                    false => block(&mut tape, &x)?,
                };
            }
            let x = ops::rms_norm(&mut tape, &x, m.norm, 1e-6)?;
            let y = ops::linear_cross_entropy(&mut tape, &x, m.table, targets, &weights)?;
            drop(x);
            loss = y.loss.value().item()?;
            tape.backward(&y.loss, &mut grads)?;
        }
        adam.step(params, &grads)?;
        drop(grads);
        if step >= 3 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let times = summary(times);
    Ok((times, n as f64 / times[0], loss))
}

fn decode(m: &Model, params: &Params, batch: usize) -> Result<([f64; 2], f64)> {
    let (prompt, new) = (64, 128);
    let shape = KvShape { layers: m.c.layers, kv_heads: m.c.kv, head_dim: m.c.head() };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let ids: Vec<u32> = (0..batch * prompt).map(|_| rng.random_range(0..m.c.vocab as u32)).collect();
    let mut times = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        let mut caches: Vec<KvCache> = (0..batch).map(|_| KvCache::new(shape, prompt + new)).collect();
        let mut input = ids.clone();
        for step in 0..new {
            let rows = input.len() / batch;
            let first = if step == 0 { 0 } else { prompt + step - 1 };
            let positions: Vec<usize> = (0..batch).flat_map(|_| first..first + rows).collect();
            let rope = rope(&m.c, &positions);
            let counts = vec![rows; batch];
            let mut refs: Vec<&mut KvCache> = caches.iter_mut().collect();
            let mut tape = Tape::inference(params);
            let mut x = ops::embedding(&mut tape, m.table, &input)?;
            for (l, b) in m.blocks.iter().enumerate() {
                x = m.block(&mut tape, &x, b, &rope, |t, q, k, v| {
                    ops::attend_cached(t, (q, k, v), (&mut refs, &counts), l, m.c.spec())
                })?;
            }
            let last: Vec<usize> = (0..batch).map(|s| (s + 1) * rows - 1).collect();
            let x = ops::gather_rows(&mut tape, &x, &last)?;
            let x = ops::rms_norm(&mut tape, &x, m.norm, 1e-6)?;
            let logits = ops::linear(&mut tape, &x, m.table)?.into_value().to_dtype(DType::F32);
            let logits = logits.as_slice::<f32>()?;
            input = logits.chunks_exact(m.c.vocab).map(argmax).collect();
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let times = summary(times.split_off(1));
    Ok((times, (batch * new) as f64 / times[0]))
}

fn argmax(row: &[f32]) -> u32 {
    let best =
        row.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &x)| if x > b.1 { (i, x) } else { b });
    best.0 as u32
}

fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|k| k.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    Ok(ocelli_tensor::on_workers(|| body().map_err(|e| e.to_string()))?)
}

fn body() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| args.iter().any(|a| a == name);
    let number =
        |name: &str| -> Option<usize> { args.iter().skip_while(|a| *a != name).nth(1)?.parse().ok() };
    let usage = "usage: step_bench train|decode A|B [--bf16] [--steps N] [--T N] [--batch N] [--prefix G] [--checkpoint]";
    let (mode, which) = (args.first().ok_or(usage)?, args.get(1).ok_or(usage)?);
    let mut c = match which.as_str() {
        "A" => Config { d: 256, layers: 6, heads: 8, kv: 2, ff: 768, vocab: 2048, batch: 8, t: 256 },
        "B" => Config { d: 512, layers: 8, heads: 8, kv: 2, ff: 1536, vocab: 8192, batch: 4, t: 512 },
        _ => return Err(usage.into()),
    };
    c.t = number("--T").unwrap_or(c.t);
    c.batch = number("--batch").unwrap_or(if mode == "decode" { 16 } else { c.batch });
    let mut params = Params::new();
    let model = Model::new(c, &mut params, &mut ChaCha8Rng::seed_from_u64(0))?;
    if flag("--bf16") {
        params.set_compute_dtype(DType::Bf16);
    }
    let dtype = if flag("--bf16") { "bf16" } else { "f32" };
    let prefix = number("--prefix");
    let layout = match prefix {
        Some(g) => SeqLayout::shared_prefix(&[PrefixGroup { prefix: 1024, continuations: vec![128; g] }]),
        None => SeqLayout::causal(&vec![c.t; c.batch]),
    };
    let (seconds, rate, loss) = match mode.as_str() {
        "train" => {
            train(&model, &mut params, &layout, number("--steps").unwrap_or(12), flag("--checkpoint"))?
        }
        "decode" => {
            let (s, r) = decode(&model, &params, c.batch)?;
            (s, r, f32::NAN)
        }
        _ => return Err(usage.into()),
    };
    let stats = Device::Cpu.pool_stats();
    println!(
        "{{\"stack\": \"ocelli\", \"mode\": \"{mode}\", \"config\": \"{which}\", \"dtype\": \"{dtype}\", \"rows\": {}, \
         \"prefix\": {}, \"ms\": {:.1}, \"best_ms\": {:.1}, \"tok_s\": {rate:.0}, \"loss\": {}, \"rss_mib\": {:.0}, \"pool_allocations\": {}}}",
        layout.query_rows(),
        prefix.unwrap_or(0),
        seconds[0] * 1e3,
        seconds[1] * 1e3,
        if loss.is_nan() { "null".to_owned() } else { format!("{loss:.3}") },
        peak_rss_mib(),
        stats.allocations,
    );
    Ok(())
}
