//! The optimiser against `torch.optim.AdamW` (numbers written by `adamw_reference.py`), and what it refuses.
#![allow(clippy::unwrap_used)] // helpers of tests

use ocelli_tensor::{
    AdamW, AdamWConfig, AdamWGroup, DType, Grads, Moments, ParamId, Params, Tensor, TensorError,
};

const SHAPES: [&[usize]; 2] = [&[3, 4], &[5]];

fn make(shape: &[usize], f: impl Fn(f64) -> f64) -> Tensor {
    let n: usize = shape.iter().product();
    let v: Vec<f32> = (0..n).map(|i| f(i as f64) as f32).collect();
    Tensor::from_slice(shape, &v).unwrap()
}

fn setup() -> (Params, [ParamId; 2], AdamW) {
    let mut params = Params::new();
    let ids =
        [0, 1].map(|k| params.add(format!("p{k}"), make(SHAPES[k], |i| (i * 0.3 + k as f64).cos())).unwrap());
    params.set_group(ids[1], 1).unwrap();
    let groups = vec![AdamWGroup { lr: 1e-2, weight_decay: 0.1 }, AdamWGroup { lr: 3e-2, weight_decay: 0.0 }];
    let config = AdamWConfig { beta2: 0.95, max_grad_norm: Some(1.0), groups, ..AdamWConfig::default() };
    (params, ids, AdamW::new(config))
}

fn grads(ids: [ParamId; 2], t: usize) -> Grads {
    let mut grads = Grads::new();
    for (k, id) in ids.into_iter().enumerate() {
        let g = make(SHAPES[k], |i| (i * 0.7 + t as f64).sin() * 0.5 * (k as f64 + 1.0));
        grads.add(id, &g).unwrap();
    }
    grads
}

#[test]
fn ten_steps_are_torchs() {
    let (mut params, ids, mut adam) = setup();
    for (t, line) in include_str!("adamw_reference.txt").lines().enumerate() {
        let want: Vec<f64> = line.split_whitespace().map(|x| x.parse().unwrap()).collect();
        if t == 5 {
            // A checkpoint in the middle changes nothing.
            let saved = ids.map(|id| adam.moments(id).unwrap().clone());
            let mut fresh = AdamW::new(adam.config().clone());
            for (id, m) in ids.into_iter().zip(saved) {
                fresh.set_moments(&params, id, m).unwrap();
            }
            adam = fresh;
        }
        let info = adam.step(&mut params, &grads(ids, t)).unwrap();
        assert!((info.grad_norm - want[0]).abs() < 1e-6 * want[0], "norm at step {t}");
        let got = ids.into_iter().flat_map(|id| params.get(id).unwrap().value().to_vec());
        for (i, (got, want)) in got.zip(&want[1..]).enumerate() {
            assert!((f64::from(got) - want).abs() < 3e-7, "step {t}, element {i}: {got} not {want}");
        }
    }
}

#[test]
fn a_bf16_copy_follows_its_master() {
    let (mut params, ids, mut adam) = setup();
    params.set_compute_dtype(DType::Bf16);
    adam.step(&mut params, &grads(ids, 0)).unwrap();
    let p = params.get(ids[0]).unwrap();
    assert_eq!(p.value().dtype(), DType::F32);
    assert_eq!(p.compute().dtype(), DType::Bf16);
    assert_eq!(p.compute().to_vec(), p.value().to_dtype(DType::Bf16).to_vec());
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let (mut params, ids, mut adam) = setup();
    for bad in [f32::NAN, f32::INFINITY] {
        let before: Vec<_> = params.iter().map(|(_, p)| p.value().to_vec()).collect();
        let mut g = grads(ids, 0);
        g.add(ids[1], &Tensor::from_slice(&[5], &[0.0, 0.0, bad, 0.0, 0.0]).unwrap()).unwrap();
        match adam.step(&mut params, &g).unwrap_err() {
            TensorError::NonFiniteGradient { name, at, .. } => assert_eq!((name.as_str(), at), ("p1", 2)),
            other => panic!("{other}"),
        }
        assert_eq!(before, params.iter().map(|(_, p)| p.value().to_vec()).collect::<Vec<_>>());
        assert!(adam.moments(ids[0]).is_none());
    }
}

#[test]
fn frozen_parameters_and_wrong_shapes() {
    let (mut params, ids, mut adam) = setup();
    params.set_trainable(ids[0], false).unwrap();
    let before = params.get(ids[0]).unwrap().value().to_vec();
    adam.step(&mut params, &grads(ids, 0)).unwrap();
    assert_eq!(before, params.get(ids[0]).unwrap().value().to_vec());
    let mut g = Grads::new();
    g.add(ids[1], &Tensor::zeros(&[4], DType::F32)).unwrap();
    assert!(matches!(adam.step(&mut params, &g), Err(TensorError::Shape { .. })));
    let zeros = Tensor::zeros(&[4], DType::F32);
    let wrong = Moments { step: 1, exp_avg: zeros.clone(), exp_avg_sq: zeros };
    assert!(adam.set_moments(&params, ids[1], wrong).is_err());
}
