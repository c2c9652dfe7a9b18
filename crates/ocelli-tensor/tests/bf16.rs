//! bf16 compute: every operation near its `f32` result, forward and backward.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use ocelli_tensor::ops::{self, Activation, AttentionSpec, Linear, RotaryStyle, RotaryTable, RowMix};
use ocelli_tensor::{
    DType, Grads, KvCache, KvShape, ParamId, Params, PrefixGroup, Result, SeqLayout, Tape, Tensor, Var,
};
use support::{assert_close, param, randn, rng};

struct Small {
    table: ParamId,
    norms: [ParamId; 3],
    qkv: [Linear; 3],
    out: ParamId,
    head: ParamId,
}

const IDS: [u32; 40] = [
    3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5, 0, 2, 8,
    8, 4, 1, 9, 7,
];

fn small(p: &mut Params) -> Small {
    let mut r = rng(50);
    let mut m = |n: &str, s: &[usize]| p.add(n, Tensor::randn(s, 0.25, &mut r)).unwrap();
    let table = m("table", &[10, 16]);
    let qkv = [("q", 16), ("k", 8), ("v", 8)]
        .map(|(n, out)| Linear::new(m(n, &[out, 16])).with_bias(m(&format!("{n}b"), &[out])));
    let (out, head) = (m("o", &[16, 16]), m("head", &[10, 16]));
    let norms = ["n1", "n2", "n3"].map(|n| p.add(n, Tensor::full(&[16], 1.0, DType::F32)).unwrap());
    Small { table, norms, qkv, out, head }
}

/// Touches every operation once; values stay near one.
fn forward(t: &mut Tape<'_>, m: &Small) -> Result<Var> {
    let layout = SeqLayout::causal(&[25, 15]);
    let rope = RotaryTable::one_dimensional(&layout.positions(), 8, 10_000.0, RotaryStyle::Half);
    let x = ops::embedding(t, m.table, &IDS)?;
    let h = ops::rms_norm(t, &x, m.norms[0], 1e-6)?;
    let qkv = ops::linear_many(t, &h, &m.qkv)?;
    let (q, k) = (ops::rotary(t, &qkv[0], 8, &rope)?, ops::rotary(t, &qkv[1], 8, &rope)?);
    let h = ops::attention(t, &q, &k, &qkv[2], &layout, AttentionSpec::new(2, 1, 8))?;
    let h = ops::linear(t, &h, m.out)?;
    let x = ops::add(t, &x, &h)?;
    let g = ops::activate(t, &x, Activation::GeluTanh)?;
    let x = ops::swiglu(t, &x, &g)?;
    let x = ops::layer_norm(t, &x, m.norms[1], Some(m.norms[2]), 1e-6)?;
    let x = ops::mul_vec(t, &x, m.norms[1])?;
    let x = ops::add_vec(t, &x, m.norms[2])?;
    let x = ops::mul(t, &x, &x)?;
    let x = ops::scale(t, &x, 0.5)?;
    let picked = ops::gather_rows(t, &x, &[0, 3, 3])?;
    let x = ops::scatter_rows(t, &x, &[7, 8, 39], &picked)?;
    let mix = RowMix { taps: 2, idx: (0..80).map(|i| i % 40).collect(), weights: vec![0.5; 80] };
    let x = ops::mix_rows(t, &x, &mix)?;
    let parts = ops::split_cols(t, &x, &[8, 8])?;
    let x = ops::concat_rows(t, &[&parts[0], &parts[1]])?.reshape(&[40, 16])?;
    ops::scale_rows(t, &x, &[0.5; 40])
}

fn run(dtype: DType) -> (Vec<f32>, Vec<(String, Vec<f32>)>) {
    let mut p = Params::new();
    let m = small(&mut p);
    p.set_compute_dtype(dtype);
    let mut t = Tape::train(&p);
    let x = forward(&mut t, &m).unwrap();
    assert_eq!(x.value().dtype(), dtype);
    let lp = ops::linear_logprobs(&mut t, &x, m.head, &IDS, 1.0).unwrap();
    let ce = ops::linear_cross_entropy(&mut t, &x, m.head, &IDS, &[0.02; 40]).unwrap();
    let mut grads = Grads::new();
    let seed = Tensor::full(&[40], -0.02, DType::F32);
    let seeds = [(&lp.logprob, seed), (&ce.loss, Tensor::scalar(1.0))];
    t.backward_from(&seeds, &mut grads).unwrap();
    let names = grads.iter().map(|(id, g)| (p.get(id).unwrap().name().to_owned(), g.to_vec())).collect();
    (lp.logprob.value().to_vec(), names)
}

#[test]
fn all_operations_are_near_their_f32_results() {
    let ((a, ga), (b, gb)) = (run(DType::Bf16), run(DType::F32));
    assert_close("logprob", &a, &b, 0.03);
    assert_eq!(ga.len(), gb.len());
    for ((name, a), (_, b)) in ga.iter().zip(&gb) {
        assert_close(name, a, b, 0.08);
    }
}

#[test]
fn cached_attention_is_near_full_attention() {
    let mut r = rng(60);
    let x = [16, 8, 8].map(|w| randn(&[33, w], &mut r).to_dtype(DType::Bf16));
    let p = Params::new();
    let mut t = Tape::inference(&p);
    let v = x.clone().map(Var::constant);
    let spec = AttentionSpec::new(2, 1, 8);
    let full = ops::attention(&mut t, &v[0], &v[1], &v[2], &SeqLayout::causal(&[33]), spec).unwrap();
    let mut cache = KvCache::new(KvShape { layers: 1, kv_heads: 1, head_dim: 8 }, 8);
    let y = ops::attend_cached(&t, (&v[0], &v[1], &v[2]), (&mut [&mut cache], &[33]), 0, spec).unwrap();
    assert_close("cached", &y.value().to_vec(), &full.value().to_vec(), 1e-2);
}

#[test]
fn frozen_matrices_stay_narrow_and_thaw_wide() {
    let mut p = Params::new();
    let mut r = rng(61);
    let narrow = randn(&[4, 4], &mut r).to_dtype(DType::Bf16);
    let id = p.add_frozen("w", narrow.clone()).unwrap();
    assert_eq!(p.get(id).unwrap().value().dtype(), DType::Bf16);
    // f32 activations over bf16 weights: the same product as over the widened ones.
    let wide = param(&mut p, "wide", &[4, 4], &mut r);
    p.set_value(wide, narrow).unwrap();
    let x = Var::constant(randn(&[3, 4], &mut r));
    let product = |w| ops::linear(&mut Tape::inference(&p), &x, w).unwrap().value().to_vec();
    let [a, b] = [id, wide].map(product);
    assert_eq!(a, b);
    p.set_trainable(id, true).unwrap();
    assert_eq!(p.get(id).unwrap().value().dtype(), DType::F32);
}

#[test]
fn attention_is_near_that_of_the_same_numbers_in_f32() {
    let prefix = |prefix, own: &[usize]| PrefixGroup { prefix, continuations: own.to_vec() };
    let layouts = [
        // A lone key has no gradient of its score, only rounding.
        SeqLayout::causal(&[3]),
        SeqLayout::causal(&[33, 1, 97]),
        SeqLayout::full(&[7, 64, 130]),
        SeqLayout::shared_prefix(&[prefix(65, &[1, 20, 49]), prefix(3, &[50])]),
    ];
    let mut r = rng(62);
    let p = Params::new();
    for (l, layout) in layouts.iter().enumerate() {
        for (heads, kv, d) in [(2, 1, 2), (3, 3, 7), (2, 2, 24), (4, 2, 40), (1, 1, 64)] {
            let n = layout.query_rows();
            // Queries that are scaled by no power of two, and gradients of them.
            let [q, k, v, dy] =
                [heads, kv, kv, heads].map(|h| randn(&[n, h * d], &mut r).to_dtype(DType::Bf16));
            let run = |dtype: DType| {
                let mut t = Tape::train(&p);
                let vars = [&q, &k, &v].map(|x| t.leaf(x.to_dtype(dtype)));
                let spec = AttentionSpec { heads, kv_heads: kv, scale: 0.3 };
                let y = ops::attention(&mut t, &vars[0], &vars[1], &vars[2], layout, spec).unwrap();
                let value = y.value().to_vec();
                let grads = t.backward_from(&[(&y, dy.to_dtype(dtype))], &mut Grads::new()).unwrap();
                let mut all = vec![value];
                all.extend(vars.iter().map(|v| grads.get(v).unwrap().to_vec()));
                all
            };
            let (narrow, wide) = (run(DType::Bf16), run(DType::F32));
            for ((a, b), what) in narrow.iter().zip(&wide).zip(["out", "dq", "dk", "dv"]) {
                assert_close(&format!("layout {l}, {heads} heads of {d}: {what}"), a, b, 0.02);
            }
        }
    }
}
