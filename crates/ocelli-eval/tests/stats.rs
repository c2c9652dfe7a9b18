//! Statistics against scipy, statsmodels and brute force (`fixtures/stats.py`), and by simulation.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use ocelli_eval::stats::{self, Interval, StatsError, Vote};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const ALONE: Option<&[u32]> = None;

fn fixture(part: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../../fixtures/stats.json")).unwrap();
    all[part].clone()
}

fn rows(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    rows(value).iter().map(number).collect()
}

fn whole(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{found} is not {expected}");
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(20_261_122)
}

#[test]
fn proportions() {
    for row in rows(&fixture("proportion")) {
        let (k, n, c) = (whole(&row["k"]) as u64, whole(&row["n"]) as u64, number(&row["confidence"]));
        let expected = [numbers(&row["wilson"]), numbers(&row["clopper_pearson"])];
        for (found, e) in [stats::wilson(k, n, c), stats::clopper_pearson(k, n, c)].into_iter().zip(expected)
        {
            let found = found.unwrap();
            near(found.low, e[0], 1e-9);
            near(found.high, e[1], 1e-9);
        }
    }
    let q = fixture("quantiles");
    rows(&q["normal"])
        .iter()
        .for_each(|r| near(stats::normal_quantile(number(&r[0])).unwrap(), number(&r[1]), 1e-9));
    for r in rows(&q["student"]) {
        near(stats::student_quantile(number(&r[0]), number(&r[1])).unwrap(), number(&r[2]), 1e-6);
    }
}

#[test]
fn clustered_error() {
    let f = fixture("clustered");
    let clusters: Vec<u64> = rows(&f["clusters"]).iter().map(|v| v.as_u64().unwrap()).collect();
    let e = stats::proportion(&numbers(&f["values"]), Some(&clusters), 0.95).unwrap();
    near(e.mean, number(&f["mean"]), 1e-12);
    near(e.se, number(&f["se"]), 1e-12);
    assert_eq!((e.n, e.clusters), (40, 9));
    let split = fixture("split");
    let samples: Vec<Vec<f64>> = rows(&split["samples"]).iter().map(numbers).collect();
    let found = stats::variance_split(&samples).unwrap();
    near(found.items, number(&split["items_part"]), 1e-12);
    near(found.samples, number(&split["samples_part"]), 1e-12);
}

#[test]
fn paired_comparisons() {
    for row in rows(&fixture("mcnemar")) {
        let (b, c) = (whole(&row["b"]), whole(&row["c"]));
        let a: Vec<bool> = (0..b + c + 9).map(|i| i < b).collect();
        let other: Vec<bool> = (0..b + c + 9).map(|i| (b..b + c).contains(&i)).collect();
        let found = stats::mcnemar(&a, &other).unwrap();
        assert_eq!((found.only_a, found.only_b), (b as u64, c as u64));
        near(found.p, number(&row["p"]), 1e-10);
    }
    let f = fixture("permutation");
    let (a, b) = (numbers(&f["a"]), numbers(&f["b"]));
    let exact = stats::paired_permutation(&a, &b, ALONE, 0, &mut rng()).unwrap();
    near(exact, number(&f["p"]), 1e-12);

    let f = fixture("paired");
    let (a, b) = (numbers(&f["a"]), numbers(&f["b"]));
    let d = stats::paired_difference(&a, &b, ALONE, 0.95).unwrap();
    near(d.difference, number(&f["difference"]), 1e-12);
    near(d.se, number(&f["se"]), 1e-12);
    near(d.unpaired_se, number(&f["unpaired_se"]), 1e-12);
    near(d.sigma, number(&f["sigma"]), 1e-12);
    near(stats::spearman(&a, &b).unwrap().unwrap(), number(&f["spearman"]), 1e-12);
    let boot = stats::paired_bootstrap(&a, &b, ALONE, 50_000, 0.95, &mut rng()).unwrap();
    let e = numbers(&f["bootstrap"]);
    // Two independent draws: the standard error of a 2.5 % quantile over 50,000 replicates is about 0.01 of the width.
    let width = e[1] - e[0];
    assert!(
        (boot.low - e[0]).abs() < 0.03 * width && (boot.high - e[1]).abs() < 0.03 * width,
        "{boot:?} {e:?}"
    );
    assert_eq!(boot, stats::paired_bootstrap(&a, &b, ALONE, 50_000, 0.95, &mut rng()).unwrap(), "seeded");
}

#[test]
fn random_flips_approach_the_exact_test() {
    // 30 differences of +1 or -1, 21 against 9: the exact permutation test is then the sign test.
    let a: Vec<f64> = (0..30).map(|i| f64::from(u8::from(i < 21))).collect();
    let b: Vec<f64> = a.iter().map(|x| 1.0 - x).collect();
    let right: Vec<bool> = a.iter().map(|x| *x == 1.0).collect();
    let wrong: Vec<bool> = right.iter().map(|x| !x).collect();
    let p = stats::paired_permutation(&a, &b, ALONE, 40_000, &mut rng()).unwrap();
    near(p, stats::mcnemar(&right, &wrong).unwrap().p, 0.004);
    // Flipping whole clusters leaves fewer arrangements: three clusters of one sign give 2 of 8.
    let clusters: Vec<u32> = (0..30).map(|i| i / 10).collect();
    let zeros = vec![0.0; 30];
    let ones = vec![1.0; 30];
    near(stats::paired_permutation(&ones, &zeros, Some(&clusters), 0, &mut rng()).unwrap(), 0.25, 1e-12);
}

#[test]
fn several_tests_and_planning() {
    let f = fixture("several");
    let p = numbers(&f["p"]);
    for (found, e) in [(stats::holm(&p), &f["holm"]), (stats::benjamini_hochberg(&p), &f["bh"])] {
        found.unwrap().iter().zip(numbers(e)).for_each(|(x, y)| near(*x, y, 1e-12));
    }
    for r in rows(&fixture("power")) {
        let (s, d) = (number(&r["sigma"]), number(&r["delta"]));
        let (alpha, power) = (number(&r["alpha"]), number(&r["power"]));
        assert_eq!(stats::sample_size(s, d, alpha, power).unwrap(), r["n"].as_u64().unwrap());
        near(stats::detectable_difference(s, 400, alpha, power).unwrap(), number(&r["detectable_400"]), 1e-9);
    }
}

#[test]
fn subsets_of_samples() {
    for r in rows(&fixture("samples")) {
        let (n, c, k) = (whole(&r["n"]), whole(&r["c"]), whole(&r["k"]));
        near(stats::pass_at_k(n, c, k).unwrap(), number(&r["pass"]), 1e-10);
        near(stats::pass_all_k(n, c, k).unwrap(), number(&r["all"]), 1e-10);
        for g in rows(&r["g"]) {
            near(stats::g_pass_at_k(n, c, k, number(&g[0])).unwrap(), number(&g[1]), 1e-10);
        }
    }
    // Four options, two tries: 1 - (3/4)^2 = 7/16 is luck.
    let g = stats::guess_corrected(0.5, 4, 2).unwrap();
    assert_eq!((g.chance, g.excess), (0.4375, 0.0625));
    near(g.scaled, 0.0625 / 0.5625, 1e-12);
    assert_eq!(stats::guess_corrected(0.5, 0, 16).unwrap().excess, 0.5);
}

#[test]
fn votes() {
    for case in rows(&fixture("majority")) {
        let class = |v: &Value| v.as_u64().map(|c| c as usize);
        let votes: Vec<Vote> = rows(&case["classes"])
            .iter()
            .zip(numbers(&case["credits"]))
            .map(|(c, credit)| Vote { class: class(c), credit })
            .collect();
        let weights = numbers(&case["weights"]);
        for (i, k) in rows(&case["k"]).iter().map(whole).enumerate() {
            near(stats::majority_at_k(&votes, k).unwrap(), number(&case["majority"][i]), 1e-10);
            let weighted = stats::weighted_majority_at_k(&votes, &weights, k, 0, &mut rng()).unwrap();
            near(weighted.value, number(&case["weighted"][i]), 1e-10);
            assert_eq!(weighted.drawing_se, 0.0);
        }
    }
    let f = fixture("best_of");
    for (i, k) in rows(&f["k"]).iter().map(whole).enumerate() {
        let found = stats::best_of_k(&numbers(&f["credits"]), &numbers(&f["scores"]), k).unwrap();
        near(found, number(&f["value"][i]), 1e-12);
    }
    let f = fixture("tournament");
    let beats: Vec<Vec<f64>> = rows(&f["beats"]).iter().map(numbers).collect();
    for (i, k) in rows(&f["k"]).iter().map(whole).enumerate() {
        let found = stats::tournament_at_k(&numbers(&f["credits"]), &beats, k).unwrap();
        near(found, number(&f["value"][i]), 1e-10);
    }
}

#[test]
fn a_tournament_of_scores_is_best_of_k_and_sixteen_are_possible() {
    let mut rng = rng();
    let scores: Vec<f64> = (0..16).map(|_| rng.random()).collect();
    let credits: Vec<f64> = (0..16).map(|_| f64::from(rng.random_range(0..2u8))).collect();
    let beats: Vec<Vec<f64>> =
        scores.iter().map(|x| scores.iter().map(|y| f64::from(u8::from(x > y))).collect()).collect();
    for k in [1, 2, 4, 8, 16] {
        let found = stats::tournament_at_k(&credits, &beats, k).unwrap();
        near(found, stats::best_of_k(&credits, &scores, k).unwrap(), 1e-12);
    }
}

#[test]
fn drawn_subsets_come_with_their_error() {
    // Equal weights: the weighted vote is the plain one, whose exact value is known.
    let votes: Vec<Vote> =
        (0..40).map(|i| Vote { class: Some(i % 7), credit: f64::from(u8::from(i % 7 == 0)) }).collect();
    let exact = stats::majority_at_k(&votes, 12).unwrap();
    let drawn = stats::weighted_majority_at_k(&votes, &[1.0; 40], 12, 20_000, &mut rng()).unwrap();
    assert!(drawn.drawing_se > 0.0 && drawn.drawing_se < 0.01, "{drawn:?}");
    assert!((drawn.value - exact).abs() < 4.0 * drawn.drawing_se, "{drawn:?} against {exact}");
}

#[test]
fn agreement() {
    let f = fixture("agreement");
    let raters: Vec<Vec<i64>> =
        ["a", "b", "c"].map(|r| rows(&f[r]).iter().map(|v| v.as_i64().unwrap()).collect()).into();
    near(stats::cohen_kappa(&raters[0], &raters[1]).unwrap().unwrap(), number(&f["cohen_ab"]), 1e-12);
    let counts: Vec<Vec<u64>> = (0..50)
        .map(|i| (0..3).map(|c| raters.iter().filter(|r| r[i] == c).count() as u64).collect())
        .collect();
    near(stats::fleiss_kappa(&counts).unwrap().unwrap(), number(&f["fleiss"]), 1e-12);
    assert_eq!(stats::cohen_kappa(&[1, 1], &[1, 1]).unwrap(), None, "no chance to disagree");

    // Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: alpha = 0.743.
    let observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."];
    let units: Vec<Vec<Option<char>>> =
        (0..12).map(|u| observers.iter().map(|o| o.chars().nth(u).filter(|c| *c != '.')).collect()).collect();
    near(stats::krippendorff_alpha(&units).unwrap().unwrap(), 0.743, 0.0005);
}

#[test]
fn corrected_mean_and_ranking() {
    let f = fixture("corrected");
    let [human, shared, only] = ["human", "shared", "only"].map(|k| numbers(&f[k]));
    let found = stats::prediction_powered(&human, &shared, &only, 0.95).unwrap();
    near(found.lambda, number(&f["lambda"]), 1e-12);
    near(found.mean, number(&f["mean"]), 1e-12);
    near(found.se, number(&f["se"]), 1e-12);
    let f = fixture("auc");
    let positive: Vec<bool> = rows(&f["positive"]).iter().map(|v| v.as_bool().unwrap()).collect();
    near(stats::auc(&numbers(&f["scores"]), &positive).unwrap().unwrap(), number(&f["auc"]), 1e-12);
    // Two pairs at probability 1/2, one right: the Brier score is 1/4 and the calibration perfect.
    let c = stats::calibration(&[0.0, 0.0], &[true, false]).unwrap();
    assert_eq!((c.brier, c.ece), (0.25, 0.0));
}

/// Share of `runs` intervals that contain the truth.
fn coverage(runs: usize, mut one: impl FnMut(&mut ChaCha8Rng) -> (Interval, f64)) -> f64 {
    let mut rng = rng();
    let inside = (0..runs).filter(|_| {
        let (interval, truth) = one(&mut rng);
        interval.contains(truth)
    });
    inside.count() as f64 / runs as f64
}

#[test]
fn intervals_cover_as_they_promise() {
    for (n, p) in [(30usize, 0.1), (30, 0.5), (100, 0.97), (400, 0.37)] {
        let found = coverage(4000, |rng| {
            let k = (0..n).filter(|_| rng.random_bool(p)).count();
            (stats::wilson(k as u64, n as u64, 0.95).unwrap(), p)
        });
        assert!((0.92..=0.985).contains(&found), "Wilson n={n} p={p}: {found}");
        let found = coverage(4000, |rng| {
            let k = (0..n).filter(|_| rng.random_bool(p)).count();
            (stats::clopper_pearson(k as u64, n as u64, 0.95).unwrap(), p)
        });
        assert!(found >= 0.945, "Clopper-Pearson n={n} p={p}: {found}");
    }
    // 40 images with 5 questions each; an image is easy (0.9) or hard (0.3), so the mean is 0.6.
    let clustered = |rng: &mut ChaCha8Rng| {
        let ease: Vec<f64> = (0..40).map(|_| if rng.random_bool(0.5) { 0.9 } else { 0.3 }).collect();
        let values: Vec<f64> = (0..200).map(|i| f64::from(u8::from(rng.random_bool(ease[i / 5])))).collect();
        (values, (0..200).map(|i| i / 5).collect::<Vec<usize>>())
    };
    let honest = coverage(2000, |rng| {
        let (values, clusters) = clustered(rng);
        (stats::proportion(&values, Some(&clusters), 0.95).unwrap().interval, 0.6)
    });
    assert!((0.93..=0.97).contains(&honest), "clustered: {honest}");
    let naive =
        coverage(2000, |rng| (stats::proportion(&clustered(rng).0, ALONE, 0.95).unwrap().interval, 0.6));
    assert!(naive < 0.90, "ignoring clusters must show in this design: {naive}");
    // Two runs that share the difficulty of the items; the second is 5 points better.
    let pair = |rng: &mut ChaCha8Rng| -> (Vec<f64>, Vec<f64>) {
        (0..150)
            .map(|_| {
                let ease: f64 = rng.random_range(0.05..0.9);
                let draw = |p: f64, rng: &mut ChaCha8Rng| f64::from(u8::from(rng.random_bool(p)));
                (draw(ease + 0.05, rng), draw(ease, rng))
            })
            .unzip()
    };
    let found = coverage(1500, |rng| {
        let (a, b) = pair(rng);
        (stats::paired_difference(&a, &b, ALONE, 0.95).unwrap().interval, 0.05)
    });
    assert!((0.93..=0.97).contains(&found), "paired: {found}");
    let found = coverage(300, |rng| {
        let (a, b) = pair(rng);
        (stats::paired_bootstrap(&a, &b, ALONE, 300, 0.95, rng).unwrap(), 0.05)
    });
    assert!((0.90..=0.99).contains(&found), "bootstrap: {found}");
    // A judge that calls 20 % of the wrong answers right; people see 60 of 400.
    let found = coverage(1500, |rng| {
        let human: Vec<f64> = (0..400).map(|_| f64::from(u8::from(rng.random_bool(0.55)))).collect();
        let judge: Vec<f64> =
            human.iter().map(|h| if *h == 0.0 && rng.random_bool(0.2) { 1.0 } else { *h }).collect();
        let c = stats::prediction_powered(&human[..60], &judge[..60], &judge[60..], 0.95).unwrap();
        (c.interval, 0.55)
    });
    assert!((0.92..=0.97).contains(&found), "prediction-powered: {found}");
}

#[test]
fn under_no_difference_p_values_are_honest() {
    let mut rng = rng();
    let (mut mcnemar, mut permutation) = (0, 0);
    for _ in 0..600 {
        let mut draw =
            || -> Vec<f64> { (0..60).map(|_| f64::from(u8::from(rng.random_bool(0.5)))).collect() };
        let (a, b) = (draw(), draw());
        let right = |v: &[f64]| v.iter().map(|x| *x == 1.0).collect::<Vec<_>>();
        mcnemar += usize::from(stats::mcnemar(&right(&a), &right(&b)).unwrap().p <= 0.05);
        permutation += usize::from(stats::paired_permutation(&a, &b, ALONE, 400, &mut rng).unwrap() <= 0.05);
    }
    // 5 % of 600 is 30; four standard errors are 21.
    assert!(mcnemar <= 51 && permutation <= 51, "{mcnemar}, {permutation}");
    assert!(permutation >= 9, "a test that never rejects is no test: {permutation}");
}

#[test]
fn senseless_input_is_an_error() {
    let nan = stats::proportion(&[1.0, f64::NAN], ALONE, 0.95).unwrap_err();
    assert!(matches!(nan, StatsError::NotFinite { index: 1, .. }));
    assert!(matches!(stats::proportion(&[], ALONE, 0.95), Err(StatsError::Empty { .. })));
    assert!(stats::proportion(&[2.0], ALONE, 0.95).is_err());
    assert!(stats::wilson(3, 2, 0.95).is_err() && stats::wilson(0, 0, 0.95).is_err());
    assert!(stats::wilson(1, 2, 1.0).is_err());
    assert!(stats::mcnemar(&[true], &[]).is_err());
    assert!(
        stats::pass_at_k(4, 5, 1).is_err()
            && stats::pass_at_k(4, 1, 0).is_err()
            && stats::pass_at_k(4, 1, 5).is_err()
    );
    assert!(stats::holm(&[0.5, f64::NAN]).is_err());
    assert!(stats::best_of_k(&[1.0], &[f64::NAN], 1).is_err());
    assert!(stats::tournament_at_k(&[1.0, 0.0], &[vec![0.5, 0.9], vec![0.9, 0.5]], 2).is_err());
    assert!(stats::tournament_at_k(&[1.0; 3], &vec![vec![0.5; 3]; 3], 3).is_err());
    assert!(stats::fleiss_kappa(&[vec![2, 1], vec![1, 1]]).is_err());
    assert!(stats::sample_size(0.5, 0.0, 0.05, 0.8).is_err());
}
