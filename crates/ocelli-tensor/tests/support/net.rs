//! A decoder of two blocks with every operation that a real one has, large enough that its loops are cut into pieces.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // test code; each binary uses its part

use ocelli_tensor::ops::{self, AttentionSpec, Linear, RotaryStyle, RotaryTable};
use ocelli_tensor::{
    AdamW, AdamWConfig, DType, Grads, KvCache, KvShape, ParamId, Params, PrefixGroup, SeqLayout, Tape,
    Tensor, Var,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support;

pub const VOCAB: usize = 600;
const WIDTH: usize = 96;
const HEADS: usize = 6;
const KV: usize = 2;
const HEAD: usize = 16;
const INNER: usize = 200;

struct Block {
    norms: [ParamId; 2],
    qkv: [Linear; 3],
    out: ParamId,
    gate_up: [Linear; 2],
    down: ParamId,
}

pub struct Net {
    table: ParamId,
    blocks: Vec<Block>,
    norm: ParamId,
    pub params: Params,
}

impl Net {
    pub fn new(compute: DType) -> Net {
        let mut rng = support::rng(1);
        let mut params = Params::new();
        params.set_compute_dtype(compute);
        let mut matrix = |p: &mut Params, name: &str, out: usize, inner: usize| {
            p.add(name, Tensor::randn(&[out, inner], 0.1, &mut rng)).unwrap()
        };
        let table = matrix(&mut params, "table", VOCAB, WIDTH);
        let mut blocks = Vec::new();
        for b in 0..2 {
            let mut biased = |p: &mut Params, name: &str, out: usize| {
                let w = matrix(p, &format!("{b}.{name}"), out, WIDTH);
                Linear::new(w)
                    .with_bias(p.add(format!("{b}.{name}.bias"), Tensor::zeros(&[out], DType::F32)).unwrap())
            };
            let p = &mut params;
            let qkv = [biased(p, "q", HEADS * HEAD), biased(p, "k", KV * HEAD), biased(p, "v", KV * HEAD)];
            let gate_up = ["gate", "up"].map(|n| matrix(p, &format!("{b}.{n}"), INNER, WIDTH).into());
            let out = matrix(p, &format!("{b}.out"), WIDTH, HEADS * HEAD);
            let down = matrix(p, &format!("{b}.down"), WIDTH, INNER);
            let norms = ["n1", "n2"].map(|n| p.add(format!("{b}.{n}"), support::ones(&[WIDTH])).unwrap());
            blocks.push(Block { norms, qkv, out, gate_up, down });
        }
        let norm = params.add("norm", support::ones(&[WIDTH])).unwrap();
        Net { table, blocks, norm, params }
    }

    fn block(
        &self,
        tape: &mut Tape<'_>,
        x: &Var,
        b: &Block,
        rope: &RotaryTable,
        attend: impl FnOnce(&mut Tape<'_>, &Var, &Var, &Var) -> Var,
    ) -> Var {
        let h = ops::rms_norm(tape, x, b.norms[0], 1e-6).unwrap();
        let qkv = ops::linear_many(tape, &h, &b.qkv).unwrap();
        let q = ops::rotary(tape, &qkv[0], HEAD, rope).unwrap();
        let k = ops::rotary(tape, &qkv[1], HEAD, rope).unwrap();
        let h = attend(tape, &q, &k, &qkv[2]);
        let h = ops::linear(tape, &h, b.out).unwrap();
        let x = ops::add(tape, x, &h).unwrap();
        let h = ops::rms_norm(tape, &x, b.norms[1], 1e-6).unwrap();
        let both = ops::linear_many(tape, &h, &b.gate_up).unwrap();
        let h = ops::swiglu(tape, &both[0], &both[1]).unwrap();
        let h = ops::linear(tape, &h, b.down).unwrap();
        ops::add(tape, &x, &h).unwrap()
    }

    /// Three plain sequences and a group of three answers behind one prompt.
    pub fn layout() -> SeqLayout {
        SeqLayout::shared_prefix(&[
            PrefixGroup { prefix: 0, continuations: vec![150, 97, 33] },
            PrefixGroup { prefix: 130, continuations: vec![40, 41, 64] },
        ])
    }

    /// One step on `layout`; the loss.
    pub fn train_step(&mut self, adam: &mut AdamW, layout: &SeqLayout, ids: &[u32]) -> f32 {
        let n = layout.query_rows();
        let rope = rope(&layout.positions());
        let mut grads = Grads::new();
        let loss = {
            let mut tape = Tape::train(&self.params);
            let mut x = ops::embedding(&mut tape, self.table, &ids[..n]).unwrap();
            let spec = AttentionSpec::new(HEADS, KV, HEAD);
            for b in &self.blocks {
                x = self.block(&mut tape, &x, b, &rope, |t, q, k, v| {
                    ops::attention(t, q, k, v, layout, spec).unwrap()
                });
            }
            let x = ops::rms_norm(&mut tape, &x, self.norm, 1e-6).unwrap();
            let weights = vec![1.0 / n as f32; n];
            let out = ops::linear_cross_entropy(&mut tape, &x, self.table, &ids[1..=n], &weights).unwrap();
            let loss = out.loss.value().item().unwrap();
            tape.backward(&out.loss, &mut grads).unwrap();
            loss
        };
        adam.step(&mut self.params, &grads).unwrap();
        loss
    }

    /// Logits of a prompt of 70 tokens for three sequences, and of five tokens after it.
    pub fn decode(&self) -> Vec<f32> {
        let shape = KvShape { layers: self.blocks.len(), kv_heads: KV, head_dim: HEAD };
        let spec = AttentionSpec::new(HEADS, KV, HEAD);
        let mut caches: Vec<KvCache> = (0..3).map(|_| KvCache::new(shape, 16)).collect();
        let mut all = Vec::new();
        for step in 0..6 {
            let (first, rows) = if step == 0 { (0, 70) } else { (69 + step, 1) };
            let positions: Vec<usize> = (0..3).flat_map(|_| first..first + rows).collect();
            let ids: Vec<u32> = (0..3 * rows).map(|i| ((i * 37 + step * 11) % VOCAB) as u32).collect();
            let counts = [rows; 3];
            let mut refs: Vec<&mut KvCache> = caches.iter_mut().collect();
            let mut tape = Tape::inference(&self.params);
            let mut x = ops::embedding(&mut tape, self.table, &ids).unwrap();
            for (l, b) in self.blocks.iter().enumerate() {
                x = self.block(&mut tape, &x, b, &rope(&positions), |t, q, k, v| {
                    ops::attend_cached(t, (q, k, v), (&mut refs, &counts), l, spec).unwrap()
                });
            }
            let x = ops::rms_norm(&mut tape, &x, self.norm, 1e-6).unwrap();
            all.extend(ops::linear(&mut tape, &x, self.table).unwrap().value().to_vec());
        }
        all
    }
}

fn rope(positions: &[usize]) -> RotaryTable {
    RotaryTable::one_dimensional(positions, HEAD, 10_000.0, RotaryStyle::Half)
}

pub fn adam() -> AdamW {
    AdamW::new(AdamWConfig { max_grad_norm: Some(0.5), ..AdamWConfig::default() })
}

pub fn tokens(n: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    (0..n).map(|_| rng.random_range(0..VOCAB as u32)).collect()
}
