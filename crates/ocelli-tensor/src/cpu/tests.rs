//! Every kernel on every instruction set present against plain loops in `f64`, on random and awkward shapes.

use half::bf16;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::gemm::{Epilogue, Out, gemm_with};
use super::pack::{Data, Mat};
use super::tile::{Lanes, Left, Store, tile};
use super::{Isa, isa, math};
use crate::tensor::Elem;

fn random(n: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The portable path, and every set of kernels this processor has what they need for.
fn all() -> Vec<Isa> {
    let all = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
    all.into_iter().filter(|&i| i <= isa()).collect()
}

/// The same numbers in both types, seen in either orientation.
struct Operand {
    wide: Vec<f32>,
    narrow: Vec<bf16>,
}

impl Operand {
    fn new(n: usize, rng: &mut ChaCha8Rng) -> Operand {
        let narrow: Vec<bf16> = random(n, rng).into_iter().map(bf16::down).collect();
        Operand { wide: narrow.iter().map(|x| x.up()).collect(), narrow }
    }

    fn mat(&self, rows: usize, cols: usize, transposed: bool, half: bool) -> Mat<'_> {
        let data = if half { Data::Bf16(&self.narrow) } else { Data::F32(&self.wide) };
        let m = |rows, cols| Mat { data, rows, cols, rs: cols, cs: 1 };
        if transposed { m(cols, rows).t() } else { m(rows, cols) }
    }

    fn at(&self, m: &Mat<'_>, i: usize, j: usize) -> f64 {
        f64::from(self.wide[i * m.rs + j * m.cs])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn products_are_sums_of_products(
        (m, n, k) in prop_oneof![
            (1usize..60, 1usize..60, 0usize..40),
            (30usize..300, 1usize..700, 1usize..9),
            (1usize..70, 1usize..90, 250usize..600),
            (60usize..130, 1usize..70, 500usize..1100),
        ],
        (ta, tb, ha, hb, hc) in any::<(bool, bool, bool, bool, bool)>(),
        (accumulate, with_bias) in any::<(bool, bool)>(),
        seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (a, b) = (Operand::new(m * k, &mut rng), Operand::new(k * n, &mut rng));
        let (am, bm) = (a.mat(m, k, ta, ha), b.mat(k, n, tb, hb));
        let bias = random(n, &mut rng);
        let old: Vec<f32> = random(m * n, &mut rng).into_iter().map(|x| bf16::down(x).up()).collect();
        let e = Epilogue { alpha: 0.7, accumulate, bias: with_bias.then_some(&bias[..]) };
        for isa in all() {
            let mut wide = old.clone();
            let mut narrow: Vec<bf16> = old.iter().map(|&x| bf16::down(x)).collect();
            let out = if hc { Out::Bf16(&mut narrow) } else { Out::F32(&mut wide) };
            gemm_with(isa, out, am, bm, e);
            for i in 0..m {
                for j in 0..n {
                    let mut want: f64 = (0..k).map(|p| a.at(&am, i, p) * b.at(&bm, p, j)).sum::<f64>() * 0.7;
                    want += if accumulate { f64::from(old[i * n + j]) } else { 0.0 };
                    want += if with_bias { f64::from(bias[j]) } else { 0.0 };
                    let got = if hc { narrow[i * n + j].up() } else { wide[i * n + j] };
                    let rounding = if hc { want.abs() / 256.0 } else { 0.0 };
                    let bound = rounding + 1e-6 * (4.0 + k as f64).sqrt();
                    prop_assert!((f64::from(got) - want).abs() <= bound, "{isa:?} ({i}, {j}): {got} not {want}");
                }
            }
        }
    }

    #[test]
    fn tiles_stay_inside_their_result(
        (m, n, k) in (1usize..20, 1usize..40, 0usize..30),
        transposed: bool,
        accumulate: bool,
        seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (lda, ldb, ldc) = (if transposed { m + 3 } else { k + 2 }, n + 5, n + 1);
        let a = random(if transposed { k * lda + m } else { m * lda + k }, &mut rng);
        let b = random(k * ldb + n, &mut rng);
        let c = random(m * ldc + 7, &mut rng);
        let left = if transposed { Left { data: &a, rs: 1, cs: lda } } else { Left { data: &a, rs: lda, cs: 1 } };
        for isa in all() {
            let mut got = c.clone();
            tile((isa, Lanes::Single), (m, n, k), left, (&b, ldb), (&mut got, ldc), Store { alpha: -1.5, accumulate });
            for (at, (&got, &old)) in got.iter().zip(&c).enumerate() {
                let (i, j) = (at / ldc, at % ldc);
                if i >= m || j >= n {
                    prop_assert_eq!(got, old, "{:?} wrote outside its tile at {}", isa, at);
                    continue;
                }
                let dot: f64 = (0..k)
                    .map(|p| f64::from(a[i * left.rs + p * left.cs]) * f64::from(b[p * ldb + j]))
                    .sum();
                let want = -1.5 * dot + if accumulate { f64::from(old) } else { 0.0 };
                prop_assert!((f64::from(got) - want).abs() < 1e-5, "{isa:?} ({i}, {j}): {got} not {want}");
            }
        }
    }
}

#[test]
fn elementary_functions_are_accurate() {
    let mut worst = [0.0f64; 4];
    for i in -90_000..=90_000 {
        let x = i as f32 * 1e-3;
        let exact = f64::from(x).exp();
        if x > -87.0 && x < 88.0 {
            worst[0] = worst[0].max((f64::from(math::exp(x)) / exact - 1.0).abs());
        }
        if x > -87.0 && x <= 0.0 {
            worst[1] = worst[1].max((f64::from(math::exp_negative(x)) / exact - 1.0).abs());
        }
        worst[2] = worst[2].max((f64::from(math::tanh(x)) - f64::from(x).tanh()).abs());
        worst[3] = worst[3].max((f64::from(math::sigmoid(x)) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs());
    }
    assert!(worst[0] < 3e-7 && worst[1] < 3e-7 && worst[2] < 4e-7 && worst[3] < 2e-7, "{worst:?}");
    for f in [math::exp, math::exp_negative] {
        assert_eq!(f(f32::NEG_INFINITY), 0.0);
        assert_eq!(f(-1000.0), 0.0);
        assert_eq!(f(0.0), 1.0);
        assert!(f(f32::NAN).is_nan());
    }
    assert_eq!(math::exp(1000.0), f32::INFINITY);
    // erf from Abramowitz and Stegun, table 7.1.
    for (x, y) in [(0.1, 0.112_462_92), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)] {
        assert!((math::erf(x) - y).abs() < 3e-7 && (math::erf(-x) + y).abs() < 3e-7, "erf {x}");
    }
    assert_eq!(math::max(&[]), f32::NEG_INFINITY);
    assert_eq!(math::max(&[1.0, f32::NAN, 3.0]), 3.0);
}

#[test]
fn rounding_to_bf16_is_the_half_crates() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..100_000 {
        let x = f32::from_bits(rng.random());
        if x.is_nan() {
            assert!(bf16::down(x).is_nan());
        } else {
            assert_eq!(bf16::down(x), bf16::from_f32(x), "{x}");
            assert_eq!(bf16::down(x).up(), bf16::from_f32(x).to_f32());
        }
    }
}
