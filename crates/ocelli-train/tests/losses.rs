//! Losses against torch autograd in float64 (`fixtures/losses.py` wrote `fixtures/losses.json`), and invariances.

use ocelli_train::losses::*;
use serde_json::Value;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/losses.json");
    serde_json::from_slice(&std::fs::read(path).expect("the fixture is part of the tree"))
        .expect("it is JSON")
}

fn list(v: &Value) -> Vec<f64> {
    v.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn close(what: &str, a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance * y.abs().max(1.0), "{what}[{i}]: {x} against {y}");
    }
}

/// Inputs of the fixture, as its script makes them.
struct Inputs {
    lengths: Vec<usize>,
    logp: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
    sampler: Vec<f64>,
    entropy: Vec<f64>,
    advantages: Vec<f64>,
}

impl Inputs {
    fn read(f: &Value) -> Self {
        let lengths: Vec<usize> = list(&f["lengths"]).into_iter().map(|n| n as usize).collect();
        let logp = list(&f["logp"]);
        let combine = |a: &[f64], b: &Value, sign: f64| -> Vec<f64> {
            a.iter().zip(list(b)).map(|(x, y)| x + sign * y).collect()
        };
        let old = combine(&logp, &f["noise"], -1.0);
        let advantages =
            list(&f["advantages"]).iter().zip(&lengths).flat_map(|(a, n)| vec![*a; *n]).collect();
        Self {
            reference: combine(&logp, &f["ref_noise"], 1.0),
            sampler: combine(&old, &f["sampler_noise"], -1.0),
            entropy: list(&f["entropy"]),
            advantages,
            lengths,
            logp,
            old,
        }
    }

    fn ranges(&self) -> Vec<std::ops::Range<usize>> {
        let mut at = 0;
        self.lengths.iter().map(|n| (at, at += n).0..at).collect()
    }

    fn run(&self, loss: &PolicyLoss, correction: Option<Correction>) -> (f64, Vec<f64>, Vec<f64>) {
        loss.validate().expect("a valid setting");
        let normaliser = Normaliser::new(loss.reduction, self.lengths.iter().copied()).expect("tokens");
        let (mut total, mut d_logp, mut d_entropy) = (0.0, Vec::new(), Vec::new());
        for r in self.ranges() {
            let weights = correction
                .map(|c| c.weights(&self.old[r.clone()], &self.sampler[r.clone()]).expect("finite"));
            let x = Rollout {
                logp: &self.logp[r.clone()],
                old: &self.old[r.clone()],
                reference: Some(&self.reference[r.clone()]),
                entropy: Some(&self.entropy[r.clone()]),
                advantages: &self.advantages[r.clone()],
                weights: weights.as_deref(),
            };
            let out = loss.response(&x, &normaliser).expect("finite");
            total += out.loss;
            d_logp.extend(out.d_logp);
            d_entropy.extend(out.d_entropy);
        }
        (total, d_logp, d_entropy)
    }
}

const SM: Reduction = Reduction::SequenceMeanTokenMean;

fn clip(low: f64, high: f64) -> Surrogate {
    Surrogate::Clip { low, high, level: Level::Token, dual: None, cap: None }
}

fn level(eps: f64, level: Level) -> Surrogate {
    Surrogate::Clip { low: eps, high: eps, level, dual: None, cap: None }
}

fn kl(estimator: KlEstimator, importance: bool) -> PolicyLoss {
    PolicyLoss {
        surrogate: clip(0.2, 0.2),
        kl: Some(Kl { beta: 0.3, estimator, importance }),
        ..PolicyLoss::default()
    }
}

fn policy(surrogate: Surrogate, reduction: Reduction) -> PolicyLoss {
    PolicyLoss { surrogate, reduction, ..PolicyLoss::default() }
}

#[test]
fn every_policy_loss_agrees_with_autograd() {
    let f = fixture();
    let x = Inputs::read(&f);
    let icepop = Correction { keep: Keep::Token { low: 0.8, high: 1.2 }, weight: Weight::Token { cap: 1.2 } };
    let tis = Correction { keep: Keep::All, weight: Weight::Token { cap: 1.1 } };
    let sequence_tis = Correction { keep: Keep::All, weight: Weight::Sequence { cap: 1.5 } };
    let geometric = Correction { keep: Keep::Geometric { low: 0.95, high: 1.05 }, weight: Weight::One };
    let dual = Surrogate::Clip { low: 0.2, high: 0.2, level: Level::Token, dual: Some(1.1), cap: None };
    let cap = Surrogate::Clip { low: 0.1, high: 0.1, level: Level::Token, dual: None, cap: Some(1.2) };
    let plain = policy(clip(0.2, 0.2), SM);
    let cases: Vec<(&str, PolicyLoss, Option<Correction>)> = vec![
        ("grpo", plain, None),
        ("dapo", policy(clip(0.2, 0.28), Reduction::TokenMean), None),
        ("dr_grpo", policy(clip(0.2, 0.2), Reduction::Constant { length: 8.0 }), None),
        ("token_sum", policy(clip(0.1, 0.1), Reduction::SequenceMeanTokenSum), None),
        ("dual", policy(dual, SM), None),
        ("cap", policy(cap, SM), None),
        ("gspo", policy(level(0.05, Level::SequenceMean), SM), None),
        ("rloo_sequence", policy(level(0.9, Level::SequenceSum), SM), None),
        ("cispo", policy(Surrogate::Cispo { low: 0.1, high: 0.2 }, Reduction::TokenMean), None),
        ("kl_k1", kl(KlEstimator::K1, false), None),
        ("kl_k2", kl(KlEstimator::K2, false), None),
        ("kl_k3", kl(KlEstimator::K3, false), None),
        ("kl_k3_with_k2_gradient", kl(KlEstimator::K3WithK2Gradient, false), None),
        ("kl_importance", kl(KlEstimator::K3, true), None),
        ("entropy", PolicyLoss { entropy_bonus: 0.05, ..plain }, None),
        ("tis", plain, Some(tis)),
        ("icepop", plain, Some(icepop)),
        ("sequence_tis", plain, Some(sequence_tis)),
        ("geometric", plain, Some(geometric)),
    ];
    let mut different = std::collections::BTreeSet::new();
    for (name, loss, correction) in cases {
        let expected = &f["cases"][name];
        let (total, d_logp, d_entropy) = x.run(&loss, correction);
        close(name, &[total], &[expected["loss"].as_f64().expect("a loss")], 1e-9);
        close(name, &d_logp, &list(&expected["d_logp"]), 1e-9);
        if name == "entropy" {
            close(name, &d_entropy, &list(&expected["d_entropy"]), 1e-9);
        }
        different.insert(format!("{total:.9} {d_logp:.6?}"));
    }
    // Were a parameter ignored, two cases would agree.
    assert_eq!(different.len(), 19);
    let weights: Vec<f64> = x
        .ranges()
        .into_iter()
        .flat_map(|r| icepop.weights(&x.old[r.clone()], &x.sampler[r]).expect("finite"))
        .collect();
    close("icepop weights", &weights, &list(&f["mismatch"]["weights_icepop"]), 1e-9);
    let stats = mismatch_stats(&x.old, &x.sampler).expect("finite");
    close(
        "k3, ess",
        &[stats.k3, stats.ess],
        &[f["mismatch"]["k3"].as_f64().unwrap(), f["mismatch"]["ess"].as_f64().unwrap()],
        1e-9,
    );
}

#[test]
fn cross_entropy_agrees_with_autograd() {
    let f = fixture();
    let x = Inputs::read(&f);
    for (name, reduction) in [("sft_token", Reduction::TokenMean), ("sft_sequence", SM)] {
        let normaliser = Normaliser::new(reduction, x.lengths.iter().copied()).unwrap();
        let parts: Vec<_> =
            x.ranges().into_iter().map(|r| cross_entropy(&x.logp[r], &normaliser).unwrap()).collect();
        let d: Vec<f64> = parts.iter().flat_map(|p| p.1.clone()).collect();
        close(name, &[parts.iter().map(|p| p.0).sum()], &[f["cases"][name]["loss"].as_f64().unwrap()], 1e-9);
        close(name, &d, &list(&f["cases"][name]["d_logp"]), 1e-9);
    }
}

#[test]
fn pairs_agree_with_autograd() {
    let f = fixture();
    let x = Inputs::read(&f);
    let sum = |v: &[f64], r: std::ops::Range<usize>| v[r].iter().sum::<f64>();
    let pair = PairTerms {
        chosen: sum(&x.logp, 0..3),
        chosen_reference: sum(&x.reference, 0..3),
        chosen_len: 3,
        rejected: sum(&x.logp, 3..8),
        rejected_reference: sum(&x.reference, 3..8),
        rejected_len: 5,
    };
    let config = |beta, preference, quality, generation, kind| PreferenceLoss {
        beta,
        preference,
        quality,
        generation,
        kind,
        shift: BcoShift::None,
    };
    let plain = Preference::Sigmoid { smoothing: 0.0 };
    for (name, config, shift) in [
        ("dpo", config(0.3, 1.0, 0.0, 0.0, plain), 0.0),
        ("dpo_smooth", config(0.3, 1.0, 0.0, 0.0, Preference::Sigmoid { smoothing: 0.1 }), 0.0),
        ("ipo", config(0.3, 1.0, 0.0, 0.0, Preference::Ipo), 0.0),
        ("bco", config(0.5, 0.0, 1.0, 0.0, plain), 0.2),
        ("mpo", config(0.1, 0.8, 0.2, 1.0, plain), -0.1),
    ] {
        config.validate().unwrap();
        let out = preference_loss(&config, &pair, shift, 4).unwrap();
        let e = |k: &str| f["pairs"][name][k].as_f64().unwrap();
        let found = [out.loss, out.preference, out.quality, out.generation, out.d_chosen, out.d_rejected];
        let keys = ["loss", "preference", "quality", "generation", "d_chosen", "d_rejected"];
        close(name, &found, &keys.map(e), 1e-9);
    }
}

#[test]
fn ranking_agrees_with_autograd() {
    let f = fixture();
    let score = |chosen, rejected, margin, tie| PairScore { chosen, rejected, margin, tie };
    for (name, config, x) in [
        ("plain", BradleyTerry::default(), score(0.7, 1.1, None, false)),
        (
            "margin",
            BradleyTerry { margins: true, centring: 0.01, keep_ties: false },
            score(2.0, 0.4, Some(0.5), false),
        ),
        (
            "tie",
            BradleyTerry { margins: true, centring: 0.01, keep_ties: true },
            score(0.3, -0.9, Some(9.0), true),
        ),
    ] {
        let (loss, c, r) = ranking_loss(&config, &x, 3).unwrap();
        close(name, &[loss, c, r], &list(&f["ranking"][name]), 1e-9);
    }
    assert!(ranking_loss(&BradleyTerry::default(), &score(f64::NAN, 0.0, None, false), 1).is_err());
}

#[test]
fn ranking_report_by_hand() {
    let pair =
        |chosen, rejected, lengths| (PairScore { chosen, rejected, margin: None, tie: false }, lengths);
    let tie = (PairScore { chosen: 9.0, rejected: 0.0, margin: None, tie: true }, (1, 1));
    let report =
        ranking_report(&[pair(1.0, 0.0, (5, 3)), pair(2.0, 1.0, (2, 9)), pair(0.0, 0.0, (2, 9)), tie]);
    assert_eq!((report.pairs, report.accuracy, report.margin), (3, 2.0 / 3.0, 2.0 / 3.0));
    assert_eq!((report.accuracy_chosen_longer, report.accuracy_chosen_shorter), (Some(1.0), Some(0.5)));
    // Confidences: sigma(1) = 0.731059 twice (right), sigma(0) = 0.5 (equal scores are not right).
    assert!((report.ece - (2.0 * (1.0 - 0.731_058_578_6) + 0.5) / 3.0).abs() < 1e-9, "{report:?}");
    assert_eq!(ranking_report(&[]).pairs, 0);
}

#[test]
fn batches_may_be_cut_anywhere() {
    // The same responses in one micro-batch or in three, in any order, give the same loss and derivatives: the
    // denominators belong to the whole batch. Reversing the order checks that no state is carried over.
    let f = fixture();
    let x = Inputs::read(&f);
    for reduction in
        [SM, Reduction::TokenMean, Reduction::Constant { length: 16.0 }, Reduction::SequenceMeanTokenSum]
    {
        let loss = policy(clip(0.2, 0.28), reduction);
        let (total, d, _) = x.run(&loss, None);
        let n = Normaliser::new(reduction, x.lengths.iter().copied()).unwrap();
        let (mut sum, mut reversed) = (0.0, vec![Vec::new(); 3]);
        for (i, r) in x.ranges().into_iter().enumerate().rev() {
            let slice = |v: &'_ Vec<f64>| v[r.clone()].to_vec();
            let (logp, old, adv) = (slice(&x.logp), slice(&x.old), slice(&x.advantages));
            let rollout = Rollout {
                logp: &logp,
                old: &old,
                reference: None,
                entropy: None,
                advantages: &adv,
                weights: None,
            };
            let out = loss.response(&rollout, &n).unwrap();
            sum += out.loss;
            reversed[i] = out.d_logp;
        }
        close("loss", &[sum], &[total], 1e-12);
        close("derivatives", &reversed.concat(), &d, 1e-12);
    }
}

#[test]
fn held_ratios_have_no_gradient_and_no_overflow() {
    let n = Normaliser::new(SM, [1]).unwrap();
    let loss = policy(level(1e9, Level::Token), SM);
    let run = |logp: f64, old: f64, a: f64| {
        let x = Rollout {
            logp: &[logp],
            old: &[old],
            reference: None,
            entropy: None,
            advantages: &[a],
            weights: None,
        };
        loss.response(&x, &n)
    };
    let out = run(0.0, -700.0, 1.0).unwrap();
    assert_eq!((out.loss, out.d_logp[0]), (-(20f64.exp()), 0.0));
    assert!(matches!(
        run(f64::NAN, 0.0, 1.0),
        Err(LossError::NotFinite { what: "log-probability", index: 0, .. })
    ));
    assert!(matches!(run(-1.0, f64::NEG_INFINITY, 1.0), Err(LossError::NotFinite { .. })));
    assert!(matches!(run(-1.0, -1.0, f64::INFINITY), Err(LossError::NotFinite { what: "advantage", .. })));
    assert_eq!(Normaliser::new(SM, [0, 0]), Err(LossError::Empty));
}

#[test]
fn kl_with_importance_by_hand() {
    // log pi -1, old -1.2, reference -1.5: x = -0.5, r = e^0.2 = 1.2214027581601699.
    // k1 = 0.5, slope 1:      beta r k = 0.3 r 0.5,    d = 0.3 r (1 + 0.5)
    // k2 = 0.125, slope 0.5:  beta r k = 0.3 r 0.125,  d = 0.3 r (0.5 + 0.125)
    let n = Normaliser::new(SM, [1]).unwrap();
    let run = |estimator, logp: f64| {
        let x = Rollout {
            logp: &[logp],
            old: &[-1.2],
            reference: Some(&[-1.5]),
            entropy: None,
            advantages: &[0.0],
            weights: None,
        };
        let out = kl(estimator, true).response(&x, &n).unwrap();
        (out.loss, out.d_logp[0])
    };
    for (estimator, loss, slope) in [
        (KlEstimator::K1, 0.183_210_413_724_025_5, 0.549_631_241_172_076_5),
        (KlEstimator::K2, 0.045_802_603_431_006_4, 0.229_013_017_155_031_9),
    ] {
        let found = run(estimator, -1.0);
        close("kl", &[found.0, found.1], &[loss, slope], 1e-12);
        // And the slope is that of the value.
        let h = 1e-6;
        let difference = (run(estimator, -1.0 + h).0 - run(estimator, -1.0 - h).0) / (2.0 * h);
        close("difference quotient", &[difference], &[slope], 1e-8);
    }
}

#[test]
fn kl_is_held_beyond_the_limit() {
    // x = -50 counts as -20: k1 20, k2 200, k3 e^-20 + 20 - 1. x = 59 counts as 20: k3 e^20 - 21, e^20 = 485165195.40979.
    let e = KlEstimator::K3;
    close("k1", &[kl_terms(KlEstimator::K1, -1.0, -51.0).0], &[20.0], 1e-12);
    close("k2", &[kl_terms(KlEstimator::K2, -1.0, -51.0).0], &[200.0], 1e-12);
    close(
        "k3",
        &[kl_terms(e, -1.0, -51.0).0, kl_terms(e, -60.0, -1.0).0],
        &[19.000_000_002_061, 485_165_174.409_79],
        1e-12,
    );
    for estimator in [KlEstimator::K1, KlEstimator::K2, e, KlEstimator::K3WithK2Gradient] {
        assert_eq!((kl_terms(estimator, -1.0, -51.0).1, kl_terms(estimator, -60.0, -1.0).1), (0.0, 0.0));
        assert!(kl_terms(estimator, -1.0, -20.9).1 != 0.0, "just inside");
    }
}

#[test]
fn whole_responses_are_kept_or_not_by_hand() {
    let (two, half) = (2f64.ln(), 0.5f64.ln());
    let weights = |keep, weight, logs: &[f64]| {
        Correction { keep, weight }.weights(logs, &vec![0.0; logs.len()]).unwrap()
    };
    // The product of 2 and 1/2 is 1, though each token is far off; that of 1.2 and 0.9 is 1.08.
    let sequence = |low, high| Keep::Sequence { low, high };
    assert_eq!(weights(sequence(0.9, 1.1), Weight::One, &[two, half]), [1.0, 1.0]);
    close(
        "capped",
        &weights(sequence(0.9, 1.1), Weight::Token { cap: 1.5 }, &[two, half]),
        &[1.5, 0.5],
        1e-12,
    );
    let logs = [1.2f64.ln(), 0.9f64.ln()];
    assert_eq!(weights(sequence(1.07, 1.09), Weight::One, &logs), [1.0, 1.0]);
    assert_eq!(weights(sequence(0.95, 1.07), Weight::One, &logs), [0.0, 0.0]);
    assert_eq!(weights(sequence(1.09, 1.2), Weight::One, &logs), [0.0, 0.0]);
    // rho - ln rho - 1: 0.306853 and 0.193147, mean 0.25.
    assert_eq!(weights(Keep::K3 { max: 0.250_000_1 }, Weight::One, &[two, half]), [1.0, 1.0]);
    assert_eq!(weights(Keep::K3 { max: 0.249_999_9 }, Weight::One, &[two, half]), [0.0, 0.0]);
    assert_eq!(weights(Keep::K3 { max: 0.2 }, Weight::One, &[half]), [1.0]);
}

#[test]
fn terms_may_be_means_over_different_responses() {
    // Policy term over 4 responses of 12 tokens, KL and entropy over 2 of 5; one response of 2 tokens, log-ratio 0.
    let divisors = |responses, tokens| Divisors { responses, tokens };
    let run = |reduction, main| {
        let n = Normaliser::with_divisors(reduction, main, divisors(2.0, 5.0)).unwrap();
        let loss = PolicyLoss { reduction, entropy_bonus: 0.5, ..kl(KlEstimator::K1, false) };
        let x = Rollout {
            logp: &[-1.0, -2.0],
            old: &[-1.0, -2.0],
            reference: Some(&[-2.0, -2.0]),
            entropy: Some(&[0.4, 0.6]),
            advantages: &[3.0, 3.0],
            weights: None,
        };
        loss.response(&x, &n).unwrap().loss
    };
    // beta 0.3, sum of k1 1, entropy 1: the bonus is 0.5 / 5 under every reduction.
    let found = [
        run(SM, divisors(4.0, 12.0)),
        run(Reduction::TokenMean, divisors(4.0, 12.0)),
        run(Reduction::Constant { length: 10.0 }, divisors(4.0, 12.0)),
        run(SM, divisors(0.0, 0.0)),
    ];
    let expected = [
        -6.0 / 8.0 + 0.3 / 4.0 - 0.1,
        -6.0 / 12.0 + 0.3 / 5.0 - 0.1,
        -6.0 / 40.0 + 0.3 / 20.0 - 0.1,
        0.3 / 4.0 - 0.1,
    ];
    close("loss", &found, &expected, 1e-12);
}

#[test]
fn impossible_settings_are_refused() {
    assert!(policy(level(0.1, Level::SequenceMean), Reduction::TokenMean).validate().is_err());
    assert!(policy(clip(-0.1, 0.2), SM).validate().is_err());
    let dual = Surrogate::Clip { low: 0.2, high: 0.2, level: Level::Token, dual: Some(1.0), cap: None };
    assert!(policy(dual, SM).validate().is_err());
    assert!(PreferenceLoss { beta: 0.0, ..PreferenceLoss::default() }.validate().is_err());
    let none = PreferenceLoss { preference: 0.0, quality: 0.0, generation: 0.0, ..PreferenceLoss::default() };
    assert!(none.validate().is_err());
    assert!(serde_json::from_str::<PolicyLoss>(r#"{"surogate": 1}"#).is_err());
}

#[test]
fn the_shift_is_a_running_mean_of_earlier_batches() {
    let mut state = ShiftState::default();
    state.update(BcoShift::Running, &[1.0, 3.0], &[0.0, 0.0]); // mean 1 over two pairs
    state.update(BcoShift::Running, &[4.0], &[4.0]); // mean 4 over one pair
    assert_eq!((state.value, state.seen), (2.0, 3));
    let mut ema = ShiftState::default();
    ema.update(BcoShift::Ema { keep: 0.5 }, &[2.0], &[0.0]);
    ema.update(BcoShift::Ema { keep: 0.5 }, &[3.0], &[3.0]);
    assert_eq!(ema.value, 2.0);
}
