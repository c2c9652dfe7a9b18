//! Advantages against torch (`fixtures/losses.json`), algebra, and the traps of float statistics.

use ocelli_train::advantages::*;
use ocelli_train::losses::LossError;
use serde_json::Value;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/losses.json");
    serde_json::from_slice(&std::fs::read(path).expect("the fixture is part of the tree"))
        .expect("it is JSON")
}

fn close(a: &[f64], b: &Value) {
    let b: Vec<f64> = b.as_array().expect("a list").iter().filter_map(Value::as_f64).collect();
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).for_each(|(x, y)| assert!((x - y).abs() < 1e-9, "{a:?} {b:?}"));
}

#[test]
fn groups_agree_with_torch() {
    let f = &fixture()["group"];
    let rewards = [0.1, 0.9, 0.4, 0.4];
    let of = |kind| group_advantages(kind, &rewards).unwrap().0;
    close(&of(Advantage::Standardised { epsilon: 1e-4 }), &f["standardised"]);
    close(&of(Advantage::LeaveOneOut), &f["leave_one_out"]);
    close(&of(Advantage::MeanScaled), &f["mean_scaled"]);
    // Dr.GRPO is RLOO times (n - 1) / n.
    for (c, l) in of(Advantage::Centred).iter().zip(of(Advantage::LeaveOneOut)) {
        assert!((c - l * 0.75).abs() < 1e-12);
    }
}

#[test]
fn equal_rewards_give_exactly_nothing() {
    // In f32 the running sum of eight times 0.95 is off, the deviation 6e-8, and A = +0.92 for all with epsilon 1e-9.
    let sum = (0..8).fold(0f32, |s, _| s + 0.95);
    assert_ne!(sum / 8.0, 0.95f32);
    let (a, stats) = group_advantages(Advantage::Standardised { epsilon: 1e-9 }, &[0.95; 8]).unwrap();
    assert_eq!((a, stats.informative, stats.std), (vec![0.0; 8], false, 0.0));
    let nearly = [0.95, 0.95, 0.95, 0.950_000_000_000_1];
    assert!(group_stats(&nearly).unwrap().informative, "equality is exact, not within a threshold");
    let (one, stats) = group_advantages(Advantage::Standardised { epsilon: 1e-6 }, &[3.0]).unwrap();
    assert_eq!((one, stats.informative), (vec![0.0], false));
}

#[test]
fn binary_rewards_have_the_known_closed_form() {
    // k of G right, deviation with n - 1: A+ = sqrt((G-k)(G-1)/(kG)), A- = -sqrt(k(G-1)/((G-k)G)).
    let g = 8usize;
    for k in 1..g {
        let rewards: Vec<f64> = (0..g).map(|i| if i < k { 1.0 } else { 0.0 }).collect();
        let (a, _) = group_advantages(Advantage::Standardised { epsilon: 0.0 }, &rewards).unwrap();
        let (g, k) = (g as f64, k as f64);
        assert!((a[0] - ((g - k) * (g - 1.0) / (k * g)).sqrt()).abs() < 1e-12);
        assert!((a[7] + (k * (g - 1.0) / ((g - k) * g)).sqrt()).abs() < 1e-12);
    }
}

#[test]
fn nan_is_an_error_and_negative_means_cannot_scale() {
    assert!(matches!(
        group_stats(&[0.0, f64::NAN]),
        Err(LossError::NotFinite { what: "reward", index: 1, .. })
    ));
    assert!(group_advantages(Advantage::MeanScaled, &[-1.0, 0.5]).is_err());
}

#[test]
fn several_rewards() {
    let of = |group: &[Vec<f64>], weights: &[f64]| each_advantages(Advantage::Centred, group, weights);
    // Accuracy differs, format is the same for both: it falls out.
    let (a, stats) = of(&[vec![1.0, 0.3], vec![0.0, 0.3]], &[1.0, 0.5]).unwrap();
    assert_eq!((a, stats.informative), (vec![0.5, -0.5], true));
    assert!((stats.mean - 0.65).abs() < 1e-12);
    // Equal sums, but each reward tells the two apart: informative here, not under the sum.
    let even = [vec![1.0, 0.0], vec![0.0, 1.0]];
    let z = Advantage::Standardised { epsilon: 0.0 };
    let (a, stats) = each_advantages(z, &even, &[1.0, 1.0]).unwrap();
    assert_eq!((a, stats.informative, stats.std), (vec![0.0, 0.0], true, 0.0));
    // Standardised alone, a reward's scale is gone: 100 or 1 give the same z = 0.5^0.5, weighted 1 and 2.
    let (a, _) = each_advantages(z, &[vec![100.0, 0.0], vec![0.0, 1.0]], &[1.0, 2.0]).unwrap();
    assert!((a[0] + 0.5f64.sqrt()).abs() < 1e-12 && (a[1] - 0.5f64.sqrt()).abs() < 1e-12, "{a:?}");
    // A reward without weight makes no group informative.
    assert!(!of(&even, &[0.0, 0.0]).unwrap().1.informative);
    assert!(of(&even, &[1.0]).is_err());
    assert_eq!(of(&[], &[]).unwrap().0, Vec::<f64>::new());
}

#[test]
fn token_returns_agree_with_the_reference() {
    let f = fixture();
    let nums = |k: &str| -> Vec<f64> { f[k].as_array().unwrap().iter().filter_map(Value::as_f64).collect() };
    let old: Vec<f64> = nums("logp").iter().zip(nums("noise")).map(|(l, n)| l - n).collect();
    let reference: Vec<f64> = nums("logp").iter().zip(nums("ref_noise")).map(|(l, n)| l + n).collect();
    close(&token_returns(1.5, &old[..3], &reference[..3], 0.1, 0.9).unwrap(), &f["returns"]);
}

#[test]
fn whitening_leaves_uninformative_groups_alone() {
    let mut values = vec![vec![1.0, 3.0], vec![9.0], vec![5.0]];
    whiten(&mut values, &[true, false, true]).unwrap();
    // 1, 3, 5: mean 3, population variance 8/3.
    let z = 2.0 / (8.0f64 / 3.0 + 1e-8).sqrt();
    assert!(
        (values[0][0] + z).abs() < 1e-12 && values[0][1].abs() < 1e-12 && (values[2][0] - z).abs() < 1e-12
    );
    assert_eq!(values[1], [0.0]);
}
