//! Forward passes against plain implementations in `f64`, and equalities that must hold between ways of computing the same thing.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use ocelli_tensor::ops::{self, AttentionSpec, Linear};
use ocelli_tensor::{
    Grads, KvCache, KvShape, Params, PrefixGroup, Segment, SeqLayout, Span, Tape, Tensor, TensorError, Var,
};
use proptest::prelude::*;
use support::{assert_close, param, randn, rng};

/// Attention by definition, `f64`, one row at a time.
fn plain_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    layout: &SeqLayout,
    s: AttentionSpec,
    d: usize,
) -> Vec<f32> {
    let (q, k, v) = (q.to_vec(), k.to_vec(), v.to_vec());
    let mut out = vec![0.0f32; q.len()];
    let group = s.heads / s.kv_heads;
    for seg in layout.segments() {
        for (i, row) in seg.query.clone().enumerate() {
            let keys: Vec<usize> = seg
                .spans
                .iter()
                .flat_map(|sp| {
                    let (len, n) = (sp.keys.len() as i64, seg.query.len() as i64);
                    let sees = move |c: i64| !sp.causal || c <= i as i64 + len - n;
                    sp.keys.clone().enumerate().filter(move |(c, _)| sees(*c as i64)).map(|(_, key)| key)
                })
                .collect();
            for h in 0..s.heads {
                let head = h / group;
                let dot = |key: usize| -> f64 {
                    (0..d)
                        .map(|e| {
                            f64::from(q[(row * s.heads + h) * d + e])
                                * f64::from(k[(key * s.kv_heads + head) * d + e])
                        })
                        .sum::<f64>()
                        * f64::from(s.scale)
                };
                let scores: Vec<f64> = keys.iter().map(|&key| dot(key)).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for e in 0..d {
                    let y: f64 = keys
                        .iter()
                        .zip(&scores)
                        .map(|(&key, z)| {
                            (z - top).exp() / total * f64::from(v[(key * s.kv_heads + head) * d + e])
                        })
                        .sum();
                    out[(row * s.heads + h) * d + e] = y as f32;
                }
            }
        }
    }
    out
}

fn run_attention(
    x: &[Tensor; 3],
    layout: &SeqLayout,
    spec: AttentionSpec,
    dy: &Tensor,
) -> (Tensor, [Tensor; 3]) {
    let params = Params::new();
    let mut tape = Tape::train(&params);
    let leaves = [0, 1, 2].map(|i| tape.leaf(x[i].clone()));
    let y = ops::attention(&mut tape, &leaves[0], &leaves[1], &leaves[2], layout, spec).unwrap();
    let g = tape.backward_from(&[(&y, dy.clone())], &mut Grads::new()).unwrap();
    (y.into_value(), leaves.map(|l| g.get(&l).unwrap()))
}

fn qkv(rows: usize, (heads, kv, d): (usize, usize, usize), seed: u64) -> [Tensor; 3] {
    let mut r = rng(seed);
    [randn(&[rows, heads * d], &mut r), randn(&[rows, kv * d], &mut r), randn(&[rows, kv * d], &mut r)]
}

fn rows_of(t: &Tensor, from: usize, n: usize) -> Tensor {
    t.slice_rows(from..from + n).unwrap()
}

fn stacked(parts: &[Tensor]) -> Tensor {
    let params = Params::new();
    let vars: Vec<Var> = parts.iter().map(|p| Var::constant(p.clone())).collect();
    ops::concat_rows(&mut Tape::inference(&params), &vars.iter().collect::<Vec<_>>()).unwrap().into_value()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_is_its_definition(
        lengths in prop::collection::vec(0usize..90, 1..4),
        (kv, group, d) in (1usize..3, 1usize..4, 1usize..40),
        causal: bool,
    ) {
        let layout = if causal { SeqLayout::causal(&lengths) } else { SeqLayout::full(&lengths) };
        let dims = (kv * group, kv, d);
        let x = qkv(layout.query_rows(), dims, 11);
        let spec = AttentionSpec::new(dims.0, kv, d);
        let dy = randn(x[0].shape(), &mut rng(3));
        let (y, _) = run_attention(&x, &layout, spec, &dy);
        assert_close("attention", &y.to_vec(), &plain_attention(&x[0], &x[1], &x[2], &layout, spec, d), 3e-6);
    }

    #[test]
    fn packed_is_separate(lengths in prop::collection::vec(1usize..80, 1..4), causal: bool) {
        let make = |l: &[usize]| if causal { SeqLayout::causal(l) } else { SeqLayout::full(l) };
        let dims = (4, 2, 8);
        let rows: usize = lengths.iter().sum();
        let x = qkv(rows, dims, 5);
        let dy = randn(x[0].shape(), &mut rng(6));
        let spec = AttentionSpec::new(4, 2, 8);
        let (y, g) = run_attention(&x, &make(&lengths), spec, &dy);
        let mut at = 0;
        for &n in &lengths {
            let part = [0, 1, 2].map(|i| rows_of(&x[i], at, n));
            let (y1, g1) = run_attention(&part, &make(&[n]), spec, &rows_of(&dy, at, n));
            assert_close("out", &rows_of(&y, at, n).to_vec(), &y1.to_vec(), 1e-6);
            for i in 0..3 {
                assert_close("gradient", &rows_of(&g[i], at, n).to_vec(), &g1[i].to_vec(), 1e-6);
            }
            at += n;
        }
    }

    #[test]
    fn shared_prefix_is_a_copy_of_the_prompt_each(
        prefix in 0usize..100,
        continuations in prop::collection::vec(1usize..60, 1..5),
    ) {
        let dims = (4, 2, 8);
        let spec = AttentionSpec::new(4, 2, 8);
        let rows = prefix + continuations.iter().sum::<usize>();
        let x = qkv(rows, dims, 7);
        let mut dy = randn(x[0].shape(), &mut rng(8));
        // Prompt outputs belong to all sequences; give them no gradient so that the comparison counts them once.
        dy.as_mut_slice::<f32>().unwrap()[..prefix * 32].fill(0.0);
        let group = PrefixGroup { prefix, continuations: continuations.clone() };
        let (y, g) = run_attention(&x, &SeqLayout::shared_prefix(&[group]), spec, &dy);
        let mut sum = vec![vec![0.0f32; prefix * 16]; 2];
        let mut at = prefix;
        for &n in &continuations {
            let with_prompt = |t: &Tensor| stacked(&[rows_of(t, 0, prefix), rows_of(t, at, n)]);
            let full = [0, 1, 2].map(|i| with_prompt(&x[i]));
            let (y1, g1) = run_attention(&full, &SeqLayout::causal(&[prefix + n]), spec, &with_prompt(&dy));
            assert_close("out", &rows_of(&y, at, n).to_vec(), &rows_of(&y1, prefix, n).to_vec(), 1e-6);
            for i in 0..3 {
                assert_close("grad", &rows_of(&g[i], at, n).to_vec(), &rows_of(&g1[i], prefix, n).to_vec(), 2e-6);
            }
            for (sum, g) in sum.iter_mut().zip(&g1[1..]) {
                sum.iter_mut().zip(rows_of(g, 0, prefix).to_vec()).for_each(|(a, b)| *a += b);
            }
            at += n;
        }
        if prefix > 0 {
            for (sum, g) in sum.iter().zip(&g[1..]) {
                assert_close("prompt gradient", &rows_of(g, 0, prefix).to_vec(), sum, 3e-6);
            }
        }
    }

    #[test]
    fn cached_is_full(
        prompt in 1usize..70,
        (kv, group) in (1usize..3, 1usize..4),
        answers in prop::collection::vec((1usize..20, 0usize..6), 1..5),
    ) {
        let (heads, d) = (kv * group, 8);
        let spec = AttentionSpec::new(heads, kv, d);
        let shape = KvShape { layers: 2, kv_heads: kv, head_dim: d };
        let layer = 1;
        let params = Params::new();
        let tape = Tape::inference(&params);
        let attend = |x: &[Tensor; 3], caches: &mut [&mut KvCache], new: &[usize]| {
            let v = [0, 1, 2].map(|i| Var::constant(x[i].clone()));
            ops::attend_cached(&tape, (&v[0], &v[1], &v[2]), (caches, new), layer, spec).unwrap().into_value()
        };
        let total: usize = prompt + answers.iter().map(|a| a.0 + a.1).sum::<usize>();
        let x = qkv(total, (heads, kv, d), 21);
        let part = |from: usize, n: usize| [0, 1, 2].map(|i| rows_of(&x[i], from, n));
        let mut first = KvCache::new(shape, 3);
        attend(&part(0, prompt), &mut [&mut first], &[prompt]);
        // Layer 0 stays empty in this test, so the length is that of the last layer.
        prop_assert_eq!(first.len(), prompt);
        let prefix = first.freeze();
        let mut caches: Vec<KvCache> = answers.iter().map(|_| KvCache::behind(&prefix, 1)).collect();
        // All first chunks in one call, then token by token, sequences dropping out as they end.
        let mut got: Vec<Vec<f32>> = vec![Vec::new(); answers.len()];
        let starts: Vec<usize> = answers.iter().scan(prompt, |at, a| { let s = *at; *at += a.0 + a.1; Some(s) }).collect();
        let chunks: Vec<[Tensor; 3]> = answers.iter().zip(&starts).map(|(a, &s)| part(s, a.0)).collect();
        let joined = [0, 1, 2].map(|i| stacked(&chunks.iter().map(|c| c[i].clone()).collect::<Vec<_>>()));
        let counts: Vec<usize> = answers.iter().map(|a| a.0).collect();
        let y = attend(&joined, &mut caches.iter_mut().collect::<Vec<_>>(), &counts).to_vec();
        let mut at = 0;
        for (g, n) in got.iter_mut().zip(&counts) {
            g.extend(&y[at * heads * d..(at + n) * heads * d]);
            at += n;
        }
        for step in 0..6 {
            let live: Vec<usize> = (0..answers.len()).filter(|&s| answers[s].1 > step).collect();
            if live.is_empty() { break }
            let tokens: Vec<[Tensor; 3]> = live.iter().map(|&s| part(starts[s] + answers[s].0 + step, 1)).collect();
            let joined = [0, 1, 2].map(|i| stacked(&tokens.iter().map(|c| c[i].clone()).collect::<Vec<_>>()));
            let mut some: Vec<&mut KvCache> =
                caches.iter_mut().enumerate().filter(|(s, _)| live.contains(s)).map(|(_, c)| c).collect();
            let y = attend(&joined, &mut some, &vec![1; live.len()]).to_vec();
            for (i, &s) in live.iter().enumerate() {
                got[s].extend(&y[i * heads * d..(i + 1) * heads * d]);
            }
        }
        for (s, &(a, b)) in answers.iter().enumerate() {
            prop_assert_eq!(caches[s].len(), prompt + a + b);
            let full = [0, 1, 2].map(|i| stacked(&[rows_of(&x[i], 0, prompt), rows_of(&x[i], starts[s], a + b)]));
            let want = plain_attention(&full[0], &full[1], &full[2], &SeqLayout::causal(&[prompt + a + b]), spec, d);
            assert_close("cached", &got[s], &want[prompt * heads * d..], 3e-6);
        }
    }
}

#[test]
fn rows_without_keys_are_zero() {
    let layout = SeqLayout::custom(
        4,
        2,
        vec![Segment { query: 1..4, spans: vec![Span { keys: 0..2, causal: true }] }],
    )
    .unwrap();
    let x = qkv(4, (2, 1, 5), 9);
    let x = [x[0].clone(), rows_of(&x[1], 0, 2), rows_of(&x[2], 0, 2)];
    let spec = AttentionSpec::new(2, 1, 5);
    let (y, g) = run_attention(&x, &layout, spec, &randn(&[4, 10], &mut rng(1)));
    assert_close("out", &y.to_vec(), &plain_attention(&x[0], &x[1], &x[2], &layout, spec, 5), 1e-6);
    // Row 0 is in no segment; row 1 comes before the first key it could see.
    assert_eq!(y.to_vec()[..20], [0.0; 20]);
    assert_eq!(g[0].to_vec()[..20], [0.0; 20]);
    assert!(g.iter().all(|g| g.to_vec().iter().all(|x| x.is_finite())));
}

#[test]
fn logprobs_are_their_definition() {
    let mut r = rng(2);
    let (n, d, vocab) = (37, 9, 53);
    let mut p = Params::new();
    let w = param(&mut p, "w", &[vocab, d], &mut r);
    let b = param(&mut p, "b", &[vocab], &mut r);
    let h = randn(&[n, d], &mut r);
    let targets: Vec<u32> = (0..n as u32).map(|i| i * 5 % vocab as u32).collect();
    let mut tape = Tape::inference(&p);
    let h_var = Var::constant(h.clone());
    let got = ops::linear_logprobs(&mut tape, &h_var, Linear::new(w).with_bias(b), &targets, 0.8).unwrap();
    let (w, b, h) = (p.get(w).unwrap().value().to_vec(), p.get(b).unwrap().value().to_vec(), h.to_vec());
    let (mut lp, mut ent) = (Vec::new(), Vec::new());
    for i in 0..n {
        let z: Vec<f64> = (0..vocab)
            .map(|v| {
                let dot: f64 = (0..d).map(|e| f64::from(h[i * d + e]) * f64::from(w[v * d + e])).sum();
                (dot + f64::from(b[v])) / 0.8
            })
            .collect();
        let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        lp.push((z[targets[i] as usize] - lse) as f32);
        ent.push(-z.iter().map(|z| (z - lse).exp() * (z - lse)).sum::<f64>() as f32);
    }
    assert_close("logprob", &got.logprob.value().to_vec(), &lp, 1e-6);
    assert_close("entropy", &got.entropy.value().to_vec(), &ent, 1e-6);
}

#[test]
fn cross_entropy_is_a_weighted_sum_of_logprobs() {
    // The second shape has several blocks of rows; the third is so wide that it falls back.
    for (n, d, vocab) in [(7, 5, 11), (400, 3, 30_000), (120, 2, 90_001)] {
        let mut r = rng(41);
        let mut p = Params::new();
        let w = param(&mut p, "w", &[vocab, d], &mut r);
        let h = randn(&[n, d], &mut r);
        let targets: Vec<u32> = (0..n as u32).map(|i| i * 7919 % vocab as u32).collect();
        let weights: Vec<f32> = (0..n).map(|i| if i % 3 == 0 { 0.0 } else { 1.0 / n as f32 }).collect();
        let run = |fused: bool| {
            let mut tape = Tape::train(&p);
            let leaf = tape.leaf(h.clone());
            let loss = if fused {
                ops::linear_cross_entropy(&mut tape, &leaf, w, &targets, &weights).unwrap().loss
            } else {
                let lp = ops::linear_logprobs(&mut tape, &leaf, w, &targets, 1.0).unwrap().logprob;
                let sum = ops::weighted_sum(&mut tape, &lp, &weights).unwrap();
                ops::scale(&mut tape, &sum, -1.0).unwrap()
            };
            let half = ops::scale(&mut tape, &loss, 0.5).unwrap();
            let mut grads = Grads::new();
            let g = tape.backward(&half, &mut grads).unwrap();
            (loss.value().to_vec(), g.get(&leaf).unwrap().to_vec(), grads.get(w).unwrap().to_vec())
        };
        let (a, b) = (run(true), run(false));
        assert_close("loss", &a.0, &b.0, 1e-6);
        assert_close("dh", &a.1, &b.1, 1e-5);
        assert_close("dW", &a.2, &b.2, 1e-5);
    }
}

#[test]
fn checkpointing_changes_nothing() {
    let mut r = rng(12);
    let mut p = Params::new();
    let a = param(&mut p, "a", &[16, 8], &mut r);
    let b = param(&mut p, "b", &[8, 16], &mut r);
    let norm = param(&mut p, "n", &[8], &mut r);
    let x = randn(&[10, 8], &mut r);
    let run = |checkpointed: bool| {
        let mut tape = Tape::train(&p);
        let leaf = tape.leaf(x.clone());
        let block = move |t: &mut Tape<'_>, x: &[Var]| {
            let h = ops::rms_norm(t, &x[0], norm, 1e-5)?;
            let h = ops::linear(t, &h, a)?;
            let h = ops::activate(t, &h, ops::Activation::Silu)?;
            let h = ops::linear(t, &h, b)?;
            Ok(vec![ops::add(t, &x[0], &h)?])
        };
        let mut h = leaf.clone();
        for _ in 0..3 {
            h = if checkpointed {
                tape.checkpoint(&[&h], block).unwrap().remove(0)
            } else {
                block(&mut tape, &[h]).unwrap().remove(0)
            };
        }
        let loss = ops::sum(&mut tape, &h).unwrap();
        let mut grads = Grads::new();
        let leaves = tape.backward(&loss, &mut grads).unwrap();
        let all: Vec<Vec<f32>> = grads.iter().map(|(_, g)| g.to_vec()).collect();
        (loss.value().to_vec(), leaves.get(&leaf).unwrap().to_vec(), all)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_variable_of_another_tape_is_refused() {
    let p = Params::new();
    let mut other = Tape::train(&p);
    let x = other.leaf(Tensor::scalar(1.0));
    let mut tape = Tape::train(&p);
    assert_eq!(ops::scale(&mut tape, &x, 2.0).unwrap_err(), TensorError::ForeignVar { op: "scale" });
    let outer = tape.leaf(Tensor::scalar(1.0));
    let captured = outer.clone();
    let y = tape.checkpoint(&[&outer], move |t, _| Ok(vec![ops::scale(t, &captured, 2.0)?]));
    assert_eq!(y.unwrap_err(), TensorError::ForeignVar { op: "scale" });
}

#[test]
fn gradients_add_up_over_backward_passes() {
    let mut r = rng(31);
    let mut p = Params::new();
    let w = param(&mut p, "w", &[5, 7], &mut r);
    let x = randn(&[12, 7], &mut r);
    let dy = randn(&[12, 5], &mut r);
    let run = |parts: &[(usize, usize)]| {
        let mut grads = Grads::new();
        for &(from, n) in parts {
            let mut tape = Tape::train(&p);
            let y = ops::linear(&mut tape, &Var::constant(rows_of(&x, from, n)), w).unwrap();
            tape.backward_from(&[(&y, rows_of(&dy, from, n))], &mut grads).unwrap();
        }
        grads.get(w).unwrap().to_vec()
    };
    assert_close("split batch", &run(&[(0, 5), (5, 7)]), &run(&[(0, 12)]), 1e-6);
}
