//! Finite differences for the gradient tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // test code; each binary uses its part

pub mod net;

use ocelli_tensor::{DType, Grads, ParamId, Params, Result, Tape, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub fn randn(shape: &[usize], rng: &mut ChaCha8Rng) -> Tensor {
    Tensor::randn(shape, 1.0, rng)
}

/// Largest difference relative to the largest magnitude in `b`.
pub fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|x| x.is_finite()), "not finite");
    let top = b.iter().fold(1e-12f64, |m, x| m.max(f64::from(x.abs())));
    a.iter().zip(b).fold(0.0f64, |m, (x, y)| m.max((f64::from(*x) - f64::from(*y)).abs())) / top
}

#[track_caller]
pub fn assert_close(what: &str, a: &[f32], b: &[f32], tolerance: f64) {
    let r = relative(a, b);
    assert!(r <= tolerance, "{what}: relative difference {r:e} > {tolerance:e}");
}

/// `sum_k <c_k, y_k>` in f64, for fixed random `c`.
fn objective(ys: &[Var], cs: &[Vec<f32>]) -> f64 {
    ys.iter()
        .zip(cs)
        .map(|(y, c)| {
            y.value().to_vec().iter().zip(c).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum::<f64>()
        })
        .sum()
}

fn coefficients(ys: &[Var], rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    ys.iter().map(|y| (0..y.value().len()).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
}

/// Compares every gradient of `f` (inputs as leaves, and trainable parameters) with central differences along random
/// directions, and checks that inference gives the same bits as training. Errors count relative to the gradient's length times the
/// direction's, so that a nearly orthogonal direction does not fail for rounding.
#[track_caller]
pub fn check_gradients(
    name: &str,
    params: &Params,
    inputs: &[Tensor],
    f: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Vec<Var>>,
) {
    check_gradients_to(name, params, inputs, 4e-3, f);
}

#[track_caller]
pub fn check_gradients_to(
    name: &str,
    params: &Params,
    inputs: &[Tensor],
    tolerance: f64,
    f: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Vec<Var>>,
) {
    let mut rng = rng(77);
    let mut tape = Tape::train(params);
    let leaves: Vec<Var> = inputs.iter().map(|x| tape.leaf(x.clone())).collect();
    let ys = f(&mut tape, &leaves).unwrap();
    let mut quiet = Tape::inference(params);
    let constants: Vec<Var> = inputs.iter().map(|x| Var::constant(x.clone())).collect();
    for (a, b) in ys.iter().zip(f(&mut quiet, &constants).unwrap()) {
        assert_eq!(a.value().to_vec(), b.value().to_vec(), "{name}: inference differs from training");
    }
    assert!(quiet.is_empty(), "{name}: inference recorded something");
    let cs = coefficients(&ys, &mut rng);
    let seeds: Vec<(&Var, Tensor)> =
        ys.iter().zip(&cs).map(|(y, c)| (y, Tensor::from_slice(y.shape(), c).unwrap())).collect();
    let mut grads = Grads::new();
    let found = tape.backward_from(&seeds, &mut grads).unwrap();
    let value = |params: &Params, inputs: &[Tensor]| {
        let mut tape = Tape::inference(params);
        let xs: Vec<Var> = inputs.iter().map(|x| Var::constant(x.clone())).collect();
        objective(&f(&mut tape, &xs).unwrap(), &cs)
    };
    let mut compare = |what: &str, at: &Tensor, grad: Option<Tensor>, eval: &dyn Fn(Tensor) -> f64| {
        let grad = grad.map_or_else(|| vec![0.0; at.len()], |g| g.to_vec());
        assert!(grad.iter().all(|g| g.is_finite()), "{name}: gradient of {what} is not finite");
        let base = at.to_vec();
        for trial in 0..3 {
            let dir: Vec<f32> = (0..base.len()).map(|_| rng.random_range(-1.0f32..1.0)).collect();
            let moved = |h: f32| {
                let x: Vec<f32> = base.iter().zip(&dir).map(|(x, d)| x + h * d).collect();
                eval(Tensor::from_slice(at.shape(), &x).unwrap())
            };
            // Fourth-order central difference: a step large enough for f32 values, an error that still vanishes.
            let h = 2e-2f32;
            let d1 = moved(h) - moved(-h);
            let d2 = moved(2.0 * h) - moved(-2.0 * h);
            let numeric = (8.0 * d1 - d2) / (12.0 * f64::from(h));
            let analytic: f64 = grad.iter().zip(&dir).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            // A random direction sees about norm(grad) * norm(dir) / sqrt(n) of the gradient.
            let scale = norm(&grad) * norm(&dir) / (base.len() as f64).sqrt() + 1e-3;
            let error = (numeric - analytic).abs() / scale;
            assert!(
                error < tolerance,
                "{name}: {what}, trial {trial}: analytic {analytic}, numeric {numeric}"
            );
        }
    };
    for (i, x) in inputs.iter().enumerate() {
        compare(&format!("input {i}"), x, found.get(&leaves[i]), &|t| {
            let mut all = inputs.to_vec();
            all[i] = t;
            value(params, &all)
        });
    }
    for (id, p) in params.iter() {
        if p.trainable() {
            compare(p.name(), p.value(), grads.get(id).cloned(), &|t| {
                let mut moved = params.clone();
                moved.set_value(id, t).unwrap();
                value(&moved, inputs)
            });
        } else {
            assert!(grads.get(id).is_none(), "{name}: frozen {:?} has a gradient", p.name());
        }
    }
}

/// Adds a normal parameter.
pub fn param(params: &mut Params, name: &str, shape: &[usize], rng: &mut ChaCha8Rng) -> ParamId {
    params.add(name, Tensor::randn(shape, 0.7, rng)).unwrap()
}

pub fn ones(shape: &[usize]) -> Tensor {
    Tensor::full(shape, 1.0, DType::F32)
}
