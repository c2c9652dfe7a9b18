//! The loops learn, do not depend on how a batch is cut, and can be stopped, killed and resumed to the bit.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fixture::*;
use ocelli_tensor::{Grads, ParamId};
use ocelli_train::losses::Reduction;
use ocelli_train::monitors::{Monitor, Rule};
use ocelli_train::mpo::{self, MpoConfig};
use ocelli_train::observe::Silent;
use ocelli_train::responses::{Pack, Pass, Response, TokenGrads, learn, micro_batches};
use ocelli_train::reward_model::{self, RewardConfig, RewardStage};
use ocelli_train::run::EarlyStop;
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::{Adapters, PartRates, Precision, TrainError, checkpoint};

fn metrics(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("metrics.jsonl")).expect("metrics")
}

fn sft_config(steps: u64) -> SftConfig {
    SftConfig { run: run_config(steps), optimizer: rates(3e-3), batch: 4, rows: 120, ..SftConfig::default() }
}

#[test]
fn sft_learns_and_the_same_seed_gives_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let m = model(1);
    let (train, held_out) = (examples(&m, 8, 1), examples(&m, 4, 2));
    let config = sft_config(24);
    let (a, outcome) = sft::run(&config, m.clone(), &train, &held_out, first.path(), &mut Silent).unwrap();
    let (b, _) = sft::run(&config, m.clone(), &train, &held_out, second.path(), &mut Silent).unwrap();
    assert_eq!(metrics(first.path()), metrics(second.path()));
    assert_eq!(values(&a), values(&b));
    let losses = curve(first.path(), "loss");
    assert_eq!(losses.len(), 24);
    assert!(losses[23] < 0.5 * losses[0], "{losses:?}");
    assert!(outcome.metrics.iter().any(|(n, _)| n == "eval/perplexity"));
    let events = std::fs::read(first.path().join("events.out.tfevents.0.ocelli")).unwrap();
    assert!(events.len() > 24 * 30);
    // The written model is the trained one.
    let written = ocelli_model::Checkpoint::open(&outcome.model.unwrap()).unwrap();
    let loaded = ocelli_model::vlm::Vlm::load(&written, ocelli_model::vlm::LoadOptions::default()).unwrap();
    let by_name = |v: &ocelli_model::vlm::Vlm| {
        let mut all: Vec<(String, Vec<u32>)> = v
            .params
            .iter()
            .map(|(_, p)| (p.name().to_owned(), p.value().to_vec().into_iter().map(f32::to_bits).collect()))
            .collect();
        all.sort();
        all
    };
    assert_eq!(by_name(&loaded), by_name(&a));
}

#[test]
fn a_stopped_run_goes_on_to_the_same_numbers() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let m = model(1);
    let (train, held_out) = (examples(&m, 6, 1), examples(&m, 2, 2));
    let config = sft_config(11);
    let (a, _) = sft::run(&config, m.clone(), &train, &held_out, whole.path(), &mut Silent).unwrap();
    for stop in [2, 7] {
        let (_, outcome) =
            sft::run(&config, m.clone(), &train, &held_out, parts.path(), &mut StopAfter(stop)).unwrap();
        assert!(outcome.interrupted && outcome.steps == stop && outcome.model.is_none());
    }
    let (b, outcome) = sft::run(&config, m.clone(), &train, &held_out, parts.path(), &mut Silent).unwrap();
    assert!(!outcome.interrupted);
    assert_eq!(metrics(whole.path()), metrics(parts.path()));
    assert_eq!(values(&a), values(&b));
    // Two checkpoints are kept.
    assert_eq!(checkpoint::list(&parts.path().join("checkpoints")).unwrap(), [9, 11]);
    // Another configuration does not continue this run.
    let other = SftConfig { batch: 5, ..config };
    let error = sft::run(&other, m, &train, &held_out, parts.path(), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("batch"), "{error}");
}

const CHILD: &str = "OCELLI_TRAIN_KILLED_RUN";

/// Not a test of its own: the process that `a_killed_run_goes_on_to_the_same_numbers` kills.
#[test]
fn killed_run() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let m = model(1);
    let (train, held_out) = (examples(&m, 6, 1), examples(&m, 2, 2));
    sft::run(&sft_config(60), m, &train, &held_out, Path::new(&dir), &mut Silent).unwrap();
}

#[test]
fn a_killed_run_goes_on_to_the_same_numbers() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = || {
        let exe = std::env::current_exe().unwrap();
        Command::new(exe).args(["killed_run", "--exact"]).env(CHILD, killed.path()).spawn().unwrap()
    };
    let rows = || {
        std::fs::read(killed.path().join("metrics.jsonl"))
            .map_or(0, |b| b.iter().filter(|c| **c == b'\n').count())
    };
    // Killed whenever it has written a few more rows, wherever it is: in a step, in a checkpoint, in a row.
    let mut kills = 0;
    loop {
        let before = rows();
        let mut child = start();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break true;
            }
            if rows() > before + 40 || (rows() < before && rows() > 10) {
                child.kill().unwrap(); // SIGKILL
                child.wait().unwrap();
                break false;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if ended {
            break;
        }
        kills += 1;
        assert!(kills < 60, "the run does not get on");
    }
    assert!(kills >= 2, "the run was killed {kills} times only");
    let m = model(1);
    let (train, held_out) = (examples(&m, 6, 1), examples(&m, 2, 2));
    let (a, _) = sft::run(&sft_config(60), m.clone(), &train, &held_out, whole.path(), &mut Silent).unwrap();
    assert!(metrics(whole.path()) == metrics(killed.path()), "the curves differ");
    // The run is over: calling it again only loads its last checkpoint.
    let (b, _) = sft::run(&sft_config(60), m, &train, &held_out, killed.path(), &mut Silent).unwrap();
    assert_eq!(values(&a), values(&b));
}

#[test]
fn a_damaged_checkpoint_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let train = examples(&m, 4, 1);
    sft::run(&sft_config(4), m.clone(), &train, &[], dir.path(), &mut StopAfter(3)).unwrap();
    let file = dir.path().join("checkpoints/step-00000003/params.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = sft::run(&sft_config(4), m, &train, &[], dir.path(), &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
    assert!(error.to_string().contains("params.safetensors is not the file that was written"), "{error}");
}

/// Gradient of a loss with a different weight on every token, and that loss.
fn gradient(m: &ocelli_model::vlm::Vlm, batches: &[Vec<Pack<'_>>]) -> (f64, Vec<(ParamId, Vec<f32>)>) {
    let (mut grads, mut loss) = (Grads::new(), 0.0);
    for micro in batches {
        learn(m, micro, Pass::default(), &mut grads, |stats| {
            let grads_of = |s: &ocelli_train::responses::TokenStats| {
                let w = |t: usize| 0.1 + 0.07 * t as f64;
                loss += s.logp.iter().enumerate().map(|(t, l)| w(t) * l).sum::<f64>();
                loss += s.entropy.iter().enumerate().map(|(t, h)| 0.3 * w(t) * h).sum::<f64>();
                TokenGrads {
                    d_logp: (0..s.logp.len()).map(w).collect(),
                    d_entropy: (0..s.logp.len()).map(|t| 0.3 * w(t)).collect(),
                }
            };
            Ok(stats.iter().map(grads_of).collect())
        })
        .unwrap();
    }
    (loss, grads.iter().map(|(id, g)| (id, g.to_vec())).collect())
}

fn same(a: &(f64, Vec<(ParamId, Vec<f32>)>), b: &(f64, Vec<(ParamId, Vec<f32>)>)) {
    assert!((a.0 - b.0).abs() <= 1e-6 * a.0.abs(), "{} {}", a.0, b.0);
    assert_eq!(a.1.len(), b.1.len());
    let norm = |g: &[f32]| g.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let whole = a.1.iter().map(|(_, g)| norm(g).powi(2)).sum::<f64>().sqrt();
    for ((id, x), (other, y)) in a.1.iter().zip(&b.1) {
        assert_eq!(id, other);
        let apart: Vec<f32> = x.iter().zip(y).map(|(p, q)| p - q).collect();
        assert!(norm(&apart) <= 1e-6 * whole, "parameter {}: {} of {whole}", id.index(), norm(&apart));
    }
}

#[test]
fn the_gradient_does_not_depend_on_cuts_or_on_sharing() {
    let m = model(3);
    let (items, bytes) = items(2, 5);
    let answer = |i: usize, text: &str| {
        let messages = ocelli_train::examples::answered(&items[i].sample, text);
        ocelli_train::examples::from_dialogue(&m, "x", &messages, &bytes).unwrap()
    };
    let group: Vec<Response> =
        ["7", "the value is 12", "3 and a bit more", "I say 4"].iter().map(|t| answer(0, t)).collect();
    let other = [answer(1, "eleven"), answer(1, "2")];
    let groups: Vec<Pack<'_>> = vec![group.iter().collect(), other.iter().collect()];
    let together = gradient(&m, &micro_batches(&groups, 100_000));
    assert_eq!(micro_batches(&groups, 100_000).len(), 1);
    for rows in [1, 30, 50] {
        let cut = micro_batches(&groups, rows);
        assert!(cut.len() > 1);
        assert_eq!(cut.iter().flatten().map(Vec::len).sum::<usize>(), 6);
        same(&together, &gradient(&m, &cut));
    }
    // Every response behind its own copy of prompt and picture.
    let alone: Vec<Vec<Pack<'_>>> = vec![group.iter().chain(&other).map(|r| vec![r]).collect()];
    same(&together, &gradient(&m, &alone));
    // Recomputed blocks give the same numbers.
    let (mut kept, mut again) = (Grads::new(), Grads::new());
    for (recompute, grads) in [(false, &mut kept), (true, &mut again)] {
        let pass = Pass { temperature: 0.7, recompute };
        let ones = |s: &[ocelli_train::responses::TokenStats]| {
            Ok(s.iter().map(|s| TokenGrads { d_logp: vec![1.0; s.logp.len()], d_entropy: vec![] }).collect())
        };
        learn(&m, &groups, pass, grads, ones).unwrap();
    }
    for ((_, a), (_, b)) in kept.iter().zip(again.iter()) {
        assert_eq!(a.to_vec(), b.to_vec());
    }
}

#[test]
fn parts_are_frozen_and_adapters_learn() {
    let m = model(1);
    let train = examples(&m, 4, 1);
    let changed = |config: &SftConfig| {
        let dir = tempfile::tempdir().unwrap();
        let (after, _) = sft::run(config, m.clone(), &train, &[], dir.path(), &mut Silent).unwrap();
        let moved = |(_, p): (ParamId, &ocelli_tensor::Param)| {
            let before = m.params.id(p.name()).and_then(|id| m.params.get(id).ok());
            let moved = before.is_none_or(|b| b.value().to_vec() != p.value().to_vec());
            moved.then(|| p.name().to_owned())
        };
        after.params.iter().filter_map(moved).collect::<Vec<String>>()
    };
    let mut config = sft_config(2);
    config.optimizer.lr = PartRates { tower: 0.0, projector: 1e-3, language: 0.0, head: 0.0 };
    let projector = changed(&config);
    assert!(!projector.is_empty() && projector.iter().all(|n| n.contains("merger")), "{projector:?}");
    config.optimizer.lr = PartRates { tower: 0.0, projector: 0.0, language: 1e-3, head: 0.0 };
    let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
    config.optimizer.lora = Some(Adapters { rank: 2, alpha: 4.0, targets });
    let adapters = changed(&config);
    // Two layers with two adapted projections of two matrices each.
    assert_eq!(adapters.len(), 8, "{adapters:?}");
    assert!(adapters.iter().all(|n| n.contains("lora_")), "{adapters:?}");
}

#[test]
fn bf16_learns_too() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let train = examples(&m, 8, 1);
    let config = SftConfig { precision: Precision::Bf16, ..sft_config(24) };
    sft::run(&config, m, &train, &[], dir.path(), &mut Silent).unwrap();
    let losses = curve(dir.path(), "loss");
    assert!(losses[23] < 0.6 * losses[0], "{losses:?}");
}

#[test]
fn early_stop_hands_on_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let (train, held_out) = (examples(&m, 4, 1), examples(&m, 4, 2));
    let mut config = sft_config(200);
    config.run.eval_every = 2;
    config.run.early_stop = Some(EarlyStop { metric: "eval/loss".into(), larger: false, patience: 2 });
    let (best, outcome) = sft::run(&config, m, &train, &held_out, dir.path(), &mut Silent).unwrap();
    let (step, value) = outcome.best.unwrap();
    assert!(outcome.stopped_early && outcome.steps < 200 && step < outcome.steps, "{outcome:?}");
    let evals = curve(dir.path(), "eval/loss");
    assert_eq!(evals.iter().copied().fold(f64::MAX, f64::min), value);
    // The model that comes back scores what the best evaluation said.
    let again = tempfile::tempdir().unwrap();
    let mut check = sft_config(1);
    check.optimizer = rates(1e-12);
    sft::run(&check, best, &train, &held_out, again.path(), &mut Silent).unwrap();
    assert!((curve(again.path(), "eval/loss")[0] - value).abs() < 1e-5);
}

#[test]
fn reward_model_learns_pairs_in_stages() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(2);
    let mut train = pairs(&m, 12, 1);
    train[3].tie = true;
    let config = RewardConfig {
        run: run_config(1),
        optimizer: rates(3e-3),
        stages: vec![
            RewardStage { steps: 20, rate: 1.0, pictures_only: true },
            RewardStage { steps: 10, rate: 0.1, pictures_only: false },
        ],
        batch: 6,
        ..RewardConfig::default()
    };
    let (trained, outcome) =
        reward_model::run(&config, m, &train, &train[4..], dir.path(), &mut Silent).unwrap();
    assert_eq!(outcome.steps, 30);
    let factors = curve(dir.path(), "optimizer/lr_factor");
    assert_eq!((factors[19], factors[20]), (1.0, 0.1));
    let last = |name: &str| outcome.metrics.iter().find(|(n, _)| n == name).unwrap().1;
    assert!(last("eval/accuracy") == 1.0 && last("eval/margin") > 0.5, "{outcome:?}");
    // The scorer gives what the pairs' scores are, also when answers are scored in another company.
    let scored = reward_model::score_pairs(&trained, &train, 4096).unwrap();
    let (items, bytes) = items(2, 1);
    let dialogues: Vec<_> =
        items.iter().map(|i| ocelli_train::examples::answered(&i.sample, &i.plan.answer)).collect();
    let direct = reward_model::score_dialogues(&trained, &dialogues, &[], &bytes, 64).unwrap();
    for (d, (s, _)) in direct.iter().zip(&scored) {
        assert!((d - s.chosen).abs() < 1e-4, "{d} {}", s.chosen);
    }
}

#[test]
fn mpo_prefers_the_chosen_and_holds_its_likelihood() {
    let m = model(2);
    let train = pairs(&m, 8, 1);
    let run = |loss: ocelli_train::losses::PreferenceLoss| {
        let dir = tempfile::tempdir().unwrap();
        let config =
            MpoConfig { run: run_config(40), optimizer: rates(1e-3), loss, batch: 4, ..MpoConfig::default() };
        mpo::run(&config, m.clone(), &train, &train, dir.path(), &mut Silent).unwrap();
        let last = |name: &str| curve(dir.path(), name).last().copied().unwrap();
        (curve(dir.path(), "loss")[0], last("eval/reward/margin"), last("eval/chosen_drift"))
    };
    let plain = ocelli_train::losses::PreferenceLoss::default();
    let (first, margin, drift) = run(plain);
    // At the start policy and reference agree: 0.8 ln 2 + 0.2 * 2 ln 2, and the generation term on top.
    assert!(first > 1.2 * std::f64::consts::LN_2, "{first}");
    assert!(margin > 0.1 && drift > 0.0, "{margin} {drift}");
    let dpo =
        ocelli_train::losses::PreferenceLoss { preference: 1.0, quality: 0.0, generation: 0.0, ..plain };
    let (first, _, dpo_drift) = run(dpo);
    assert!((first - std::f64::consts::LN_2).abs() < 1e-4, "{first}");
    assert!(dpo_drift < drift, "{dpo_drift} {drift}");
}

#[test]
fn mpo_resumes_with_its_shift() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let m = model(2);
    let train = pairs(&m, 6, 1);
    let config =
        MpoConfig { run: run_config(7), optimizer: rates(1e-3), batch: 3, rows: 90, ..MpoConfig::default() };
    mpo::run(&config, m.clone(), &train, &train, whole.path(), &mut Silent).unwrap();
    mpo::run(&config, m.clone(), &train, &train, parts.path(), &mut StopAfter(4)).unwrap();
    mpo::run(&config, m, &train, &train, parts.path(), &mut Silent).unwrap();
    assert_eq!(metrics(whole.path()), metrics(parts.path()));
}

fn adapters(targets: &[&str], alpha: f32) -> Option<Adapters> {
    Some(Adapters { rank: 2, alpha, targets: targets.iter().map(|t| (*t).to_owned()).collect() })
}

fn stop(metric: &str, patience: u64) -> Option<EarlyStop> {
    Some(EarlyStop { metric: metric.into(), larger: false, patience })
}

fn monitor(metric: &str, window: usize) -> Monitor {
    Monitor { metric: metric.into(), rule: Rule::Above(1e300), window, advice: String::new() }
}

#[test]
fn every_metric_of_a_run_can_be_watched() {
    let m = model(2);
    let (train, pairs) = (examples(&m, 4, 1), pairs(&m, 4, 1));
    let names = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let name = |l: &str| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["name"].as_str().map(str::to_owned)
        };
        let found: std::collections::BTreeSet<String> = text.lines().filter_map(name).collect();
        assert!(found.iter().any(|n| n.starts_with("eval/")), "{found:?}");
        Some(found.iter().map(|n| monitor(n, 2)).collect::<Vec<_>>())
    };
    let (dirs, run) = (["a", "b", "c"].map(|_| tempfile::tempdir().unwrap()), run_config(2));
    let mut c = sft_config(2);
    sft::run(&c, m.clone(), &train, &train, dirs[0].path(), &mut Silent).unwrap();
    c.run.monitors = names(dirs[0].path());
    sft::check(&c, m.clone(), &train, &train, Path::new("nowhere")).unwrap();
    let mut c = MpoConfig { run: run.clone(), batch: 2, ..MpoConfig::default() };
    mpo::run(&c, m.clone(), &pairs, &pairs, dirs[1].path(), &mut Silent).unwrap();
    c.run.monitors = names(dirs[1].path());
    mpo::check(&c, m.clone(), &pairs, &pairs, Path::new("nowhere")).unwrap();
    let mut c = RewardConfig { run, batch: 2, ..RewardConfig::default() };
    reward_model::run(&c, m.clone(), &pairs, &pairs, dirs[2].path(), &mut Silent).unwrap();
    c.run.monitors = names(dirs[2].path());
    reward_model::check(&c, m, &pairs, &pairs, Path::new("nowhere")).unwrap();
}

#[test]
fn impossible_runs_are_refused_before_they_begin() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let train = examples(&m, 2, 1);
    let refuse = |config: &SftConfig, data: &[Response]| {
        let error = sft::run(config, m.clone(), data, &[], dir.path(), &mut Silent).unwrap_err().to_string();
        assert!(!dir.path().join("metrics.jsonl").exists(), "training had begun: {error}");
        error
    };
    assert!(refuse(&sft_config(3), &[]).contains("no example"));
    assert!(refuse(&SftConfig { batch: 0, ..sft_config(3) }, &train).contains("batch"));
    let mut frozen = sft_config(3);
    frozen.optimizer = rates(0.0);
    assert!(refuse(&frozen, &train).contains("every part is frozen"));
    let mut wrong = sft_config(3);
    wrong.optimizer.lr.tower = f64::NAN;
    assert!(refuse(&wrong, &train).contains("optimizer.lr.tower is NaN"));
    assert!(refuse(&sft_config(0), &train).contains("run.steps is 0"));
    let silent = Response { trained: vec![], ..train[0].clone() };
    assert!(refuse(&sft_config(3), &[silent]).contains("example 0 has no token to train on"));
    // A picture that is named and not there is found when the example is written.
    let (items, _) = items(1, 1);
    let messages = ocelli_train::examples::answered(&items[0].sample, "1");
    let missing =
        ocelli_train::examples::from_dialogue(&m, "x", &messages, &Bytes::new()).unwrap_err().to_string();
    assert!(missing.contains("named but was not given"), "{missing}");
    let mut pairs = pairs(&m, 1, 1);
    pairs[0].tie = true;
    let error = reward_model::run(&RewardConfig::default(), m.clone(), &pairs, &[], dir.path(), &mut Silent)
        .unwrap_err();
    assert!(error.to_string().contains("1 ties are left out"), "{error}");
    // Every setting with a range refuses what lies outside, NaN above all, by its key and value.
    type Change = fn(&mut SftConfig);
    let outside: [(Change, &str); 19] = [
        (|c| c.batch = 1_000_000_000_000, "batch is 1000000000000; it must be from 1 to 65536"),
        (|c| c.rows = 0, "rows is 0"),
        (|c| c.run.steps = u64::MAX, "run.steps is 18446744073709551615"),
        (|c| c.reduction = Reduction::Constant { length: 0.0 }, "reduction.constant.length is 0"),
        (|c| c.reduction = Reduction::Constant { length: f64::NAN }, "reduction.constant.length is NaN"),
        (|c| c.optimizer.lr.language = 1e39, "optimizer.lr.language is 1"),
        (|c| c.optimizer.lr.language = 1e-60, "optimizer.lr.language is 0.000"),
        (|c| c.optimizer.lr.language = -1.0, "optimizer.lr.language is -1"),
        (|c| c.optimizer.weight_decay = f32::NAN, "optimizer.weight_decay is NaN"),
        (|c| c.optimizer.lora = adapters(&["q_proj"], f32::NAN), "optimizer.lora.alpha is NaN"),
        (|c| c.optimizer.lora = adapters(&[], 1.0), "optimizer.lora.targets is empty"),
        (|c| c.optimizer.lora = adapters(&["q_proj", "q_proj"], 1.0), "names `q_proj` twice"),
        (|c| c.optimizer.lora = adapters(&["q_proj", "v_projj"], 1.0), "ends in `v_projj`; there are: "),
        (
            |c| {
                c.optimizer.lora = adapters(&["q_proj"], 1.0);
                c.optimizer.lr.language = 0.0;
            },
            "optimizer.lr.language is 0: adapters belong",
        ),
        (
            |c| c.run.early_stop = stop("eval/loss", 2),
            "run.early_stop.metric is `eval/loss`, which is measured only with held-out",
        ),
        (|c| c.run.monitors = Some(vec![monitor("token_los", 3)]), "did you mean `token_loss`?"),
        (|c| c.run.monitors = Some(vec![monitor("reward", 3)]), "is no metric of this sft run"),
        (|c| c.run.monitors = Some(vec![monitor("loss", 0)]), "run.monitors[0].window is 0"),
        (
            |c| c.run.monitors = Some(vec![Monitor { rule: Rule::Above(f64::NAN), ..monitor("loss", 3) }]),
            "rule is NaN",
        ),
    ];
    for (change, expected) in outside {
        let mut config = sft_config(3);
        change(&mut config);
        let error = refuse(&config, &train);
        assert!(error.contains(expected), "{expected} is missing in: {error}");
        let rehearsed = sft::check(&config, m.clone(), &train, &[], dir.path()).unwrap_err().to_string();
        assert_eq!(rehearsed, error);
    }
    let mut early = sft_config(3);
    for (metric, every, expected) in [
        ("eval/los", 1, "did you mean `eval/loss`?"),
        ("loss", 1, "is no evaluation metric"),
        ("eval/loss", 0, "run.eval_every is 0"),
    ] {
        (early.run.early_stop, early.run.eval_every) = (stop(metric, 2), every);
        let error = sft::check(&early, m.clone(), &train, &train, dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected} is missing in: {error}");
    }
    let unknown = serde_json::from_str::<SftConfig>(r#"{"bacth": 3}"#).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `bacth`"), "{unknown}");
}
