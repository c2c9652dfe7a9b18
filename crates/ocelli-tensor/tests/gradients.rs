//! Every operation's backward pass against finite differences of its forward pass, on awkward shapes.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use ocelli_tensor::ops::{self, Activation, AttentionSpec, Linear, Lora, RotaryStyle, RotaryTable, RowMix};
use ocelli_tensor::{Params, PrefixGroup, SeqLayout, Tensor};
use support::{check_gradients, check_gradients_to, param, randn, rng};

#[test]
fn embedding() {
    let mut r = rng(1);
    let mut p = Params::new();
    let table = param(&mut p, "table", &[5, 7], &mut r);
    check_gradients("embedding", &p, &[], |t, _| Ok(vec![ops::embedding(t, table, &[4, 0, 4, 4, 1])?]));
}

#[test]
fn linear_with_everything() {
    for (n, inner, out) in [(1, 1, 1), (3, 5, 7), (33, 17, 19), (40, 300, 33)] {
        let mut r = rng(2);
        let mut p = Params::new();
        let w = param(&mut p, "w", &[out, inner], &mut r);
        let b = param(&mut p, "b", &[out], &mut r);
        let lora = Lora {
            a: param(&mut p, "a", &[2, inner], &mut r),
            b: param(&mut p, "lb", &[out, 2], &mut r),
            scale: 0.5,
        };
        let full = Linear::new(w).with_bias(b).with_lora(lora);
        let x = [randn(&[n, inner], &mut r)];
        check_gradients("linear", &p, &x, |t, x| ops::linear_many(t, &x[0], &[full, w.into()]));
        p.set_trainable(w, false).unwrap();
        check_gradients("linear, frozen weight", &p, &x, |t, x| Ok(vec![ops::linear(t, &x[0], full)?]));
    }
}

#[test]
fn norms() {
    for d in [1, 3, 16, 37] {
        let mut r = rng(3);
        let mut p = Params::new();
        let w = param(&mut p, "w", &[d], &mut r);
        let b = param(&mut p, "b", &[d], &mut r);
        let x = [randn(&[5, 2 * d], &mut r)];
        check_gradients("rms_norm", &p, &x, |t, x| Ok(vec![ops::rms_norm(t, &x[0], w, 0.1)?]));
        let x = [randn(&[5, d], &mut r)];
        check_gradients("layer_norm", &p, &x, |t, x| Ok(vec![ops::layer_norm(t, &x[0], w, Some(b), 0.1)?]));
    }
}

#[test]
fn rotary() {
    let mut r = rng(4);
    let p = Params::new();
    let positions = vec![vec![0.0, 1.0, 2.0], vec![0.0, 0.0, 5.0], vec![3.0, 1.0, 9.0]];
    for style in [RotaryStyle::Half, RotaryStyle::Interleaved] {
        let table = RotaryTable::new(&positions, &[0, 1, 1, 2], &[1.0, 0.5, 0.1, 0.01], style).unwrap();
        let x = [randn(&[3, 2 * 11], &mut r)];
        check_gradients("rotary", &p, &x, |t, x| Ok(vec![ops::rotary(t, &x[0], 11, &table)?]));
    }
}

#[test]
fn attention() {
    let layouts = [
        ("causal", SeqLayout::causal(&[5, 1, 0, 70])),
        ("full", SeqLayout::full(&[3, 67])),
        ("windows", SeqLayout::windows(&[0, 4, 9, 9, 30]).unwrap()),
        (
            "shared prefix",
            SeqLayout::shared_prefix(&[
                PrefixGroup { prefix: 65, continuations: vec![3, 50, 1] },
                PrefixGroup { prefix: 0, continuations: vec![4, 2] },
            ]),
        ),
    ];
    for (name, layout) in layouts {
        for (heads, kv, d) in [(4, 2, 5), (3, 1, 16)] {
            let mut r = rng(5);
            let n = layout.query_rows();
            let x =
                [randn(&[n, heads * d], &mut r), randn(&[n, kv * d], &mut r), randn(&[n, kv * d], &mut r)];
            let spec = AttentionSpec::new(heads, kv, d);
            check_gradients(name, &Params::new(), &x, |t, x| {
                Ok(vec![ops::attention(t, &x[0], &x[1], &x[2], &layout, spec)?])
            });
        }
    }
}

#[test]
fn activations() {
    let mut r = rng(6);
    let x = [randn(&[4, 9], &mut r), randn(&[4, 9], &mut r)];
    for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
        check_gradients("activate", &Params::new(), &x[..1], |t, x| Ok(vec![ops::activate(t, &x[0], f)?]));
    }
    // Away from the kink at 0.
    let apart = Tensor::from_slice(&[4], &[-1.0f32, 2.0, 0.5, -0.5]).unwrap();
    check_gradients("relu", &Params::new(), &[apart], |t, x| {
        Ok(vec![ops::activate(t, &x[0], Activation::Relu)?])
    });
    check_gradients("swiglu", &Params::new(), &x, |t, x| Ok(vec![ops::swiglu(t, &x[0], &x[1])?]));
}

#[test]
fn sums_and_products() {
    let mut r = rng(7);
    let mut p = Params::new();
    let v = param(&mut p, "v", &[6], &mut r);
    let w = param(&mut p, "w", &[6], &mut r);
    let m = param(&mut p, "m", &[3, 6], &mut r);
    let x = [randn(&[3, 6], &mut r), randn(&[3, 6], &mut r)];
    check_gradients("add, mul, vectors", &p, &x, |t, x| {
        let y = ops::add(t, &x[0], &x[1])?;
        let y = ops::mul(t, &y, &x[0])?;
        let y = ops::add_vec(t, &y, v)?;
        let y = ops::mul_vec(t, &y, w)?;
        let table = t.param(m)?;
        let y = ops::add(t, &y, &table)?;
        let y = ops::scale_rows(t, &y, &[0.5, -1.0, 2.0])?;
        let total = ops::sum(t, &y)?;
        let parts = ops::segment_sum(t, &y, &[4, 0, 14])?;
        let some = ops::weighted_sum(t, &x[1], &[0.25; 18])?;
        Ok(vec![ops::scale(t, &y, 0.3)?, total, parts, some])
    });
}

#[test]
fn rows() {
    let mut r = rng(8);
    let p = Params::new();
    let x = [randn(&[6, 5], &mut r), randn(&[2, 5], &mut r)];
    let mix = RowMix { taps: 2, idx: vec![0, 5, 5, 1, 2, 2], weights: vec![0.5, 0.25, -1.0, 2.0, 1.0, 1.0] };
    check_gradients("rows", &p, &x, |t, x| {
        let spliced = ops::scatter_rows(t, &x[0], &[4, 1], &x[1])?;
        let gathered = ops::gather_rows(t, &spliced, &[0, 4, 4, 3, 1])?;
        let mixed = ops::mix_rows(t, &x[0], &mix)?;
        let joined = ops::concat_rows(t, &[&gathered, &mixed, &x[1]])?;
        let mut parts = ops::split_cols(t, &joined, &[2, 0, 3])?;
        let y = ops::gather_rows(t, &x[0], &ops::merge_order(2, 2, 2)?)?.reshape(&[1, 20])?;
        parts.push(y);
        let tall = ops::concat_rows(t, &[&x[0], &x[1]])?.reshape(&[4, 10])?;
        parts.push(ops::scale(t, &tall, 2.0)?);
        Ok(parts)
    });
}

#[test]
fn logprobs_and_entropy() {
    for (n, d, vocab, temperature) in [(1, 3, 2, 1.0), (7, 5, 29, 0.7), (300, 4, 70, 1.3)] {
        let mut r = rng(9);
        let mut p = Params::new();
        let w = param(&mut p, "w", &[vocab, d], &mut r);
        let b = param(&mut p, "b", &[vocab], &mut r);
        let targets: Vec<u32> = (0..n as u32).map(|i| (i * 7) % vocab as u32).collect();
        let x = [randn(&[n, d], &mut r)];
        check_gradients_to("logprobs", &p, &x, 8e-3, |t, x| {
            let y = ops::linear_logprobs(t, &x[0], Linear::new(w).with_bias(b), &targets, temperature)?;
            Ok(vec![y.logprob, y.entropy])
        });
    }
}
