//! The same bits whatever the number of threads and however they are scheduled: three training steps and a generation, in `f32` and
//! bf16, in pools of 1, 2, 3 and 4 threads.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use ocelli_tensor::DType;
use support::net::{Net, adam, tokens};

/// Losses, all parameters and some logits, as bits.
fn outcome(compute: DType) -> Vec<u32> {
    let mut net = Net::new(compute);
    let layout = Net::layout();
    let mut adam = adam();
    let mut rng = support::rng(9);
    let mut bits = Vec::new();
    for _ in 0..3 {
        let ids = tokens(layout.query_rows() + 1, &mut rng);
        bits.push(net.train_step(&mut adam, &layout, &ids).to_bits());
    }
    for (_, p) in net.params.iter() {
        bits.extend(p.value().to_vec().iter().map(|x| x.to_bits()));
    }
    bits.extend(net.decode().iter().map(|x| x.to_bits()));
    bits
}

fn with_threads(n: usize, compute: DType) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    pool.install(|| outcome(compute))
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for compute in [DType::F32, DType::Bf16] {
        let one = with_threads(1, compute);
        assert!(one.iter().all(|&b| f32::from_bits(b).is_finite()));
        for n in [2, 3, 4] {
            let other = with_threads(n, compute);
            let differing = one.iter().zip(&other).filter(|(a, b)| a != b).count();
            assert_eq!((other.len(), differing), (one.len(), 0), "{compute:?}: 1 thread and {n}");
        }
    }
}

#[test]
fn two_runs_beside_each_other_change_no_bit() {
    // Two computations share one pool: pieces of both interleave in an order that no one controls.
    let alone = with_threads(1, DType::F32);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for _ in 0..3 {
        let (a, b) = pool.install(|| rayon::join(|| outcome(DType::F32), || outcome(DType::F32)));
        assert!(a == alone && b == alone);
    }
}
