//! bf16 compute: every operation near its `f32` result, forward and backward.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use ocelli_tensor::ops::{self, Activation, AttentionSpec, Linear, RotaryStyle, RotaryTable, RowMix};
use ocelli_tensor::{DType, Grads, KvCache, KvShape, ParamId, Params, Result, SeqLayout, Tape, Tensor, Var};
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
