//! The reinforcement loop on a tiny model: it learns, it is exactly repeatable whatever the tools' timing, it resumes exactly,
//! and what cannot be trained is refused before anything begins.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fixture::rl::*;
use fixture::*;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::BoxFuture;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::{ContentHash, Message, Part, Sample, Target, ToolCall};
use ocelli_tools::{Images, Reply, ToolError, ToolSpec};
use ocelli_train::advantages::Advantage;
use ocelli_train::buffer::BufferConfig;
use ocelli_train::grpo::{self, Count, DynamicSampling, GrpoConfig, GrpoInputs, Partial, PromptFilter};
use ocelli_train::hybrid_reward::{ModelReward, RewardSpec};
use ocelli_train::losses::{self, Correction, Keep, Kl, Reduction, Surrogate, Weight};
use ocelli_train::monitors::{Monitor, Rule};
use ocelli_train::observe::{Observer, Silent};
use ocelli_train::responses::Response;
use ocelli_train::rollouts::{OracleConfig, Rollouts};
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::shaping::{Overlong, Truncated};
use ocelli_train::sources::{DataSource, ToolSource};

fn metrics(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("metrics.jsonl")).expect("metrics")
}

fn last(dir: &Path, name: &str) -> Option<f64> {
    curve(dir, name).last().copied()
}

/// Tools that take a different time at every call.
struct Uneven {
    inner: Arc<dyn Toolbox>,
    calls: AtomicU64,
    stride: u64,
}

impl Toolbox for Uneven {
    fn specs(&self) -> Arc<[ToolSpec]> {
        self.inner.specs()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        let n = self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(n * self.stride % 13)).await;
            self.inner.call(call, images, time).await
        })
    }
}

#[test]
fn the_reward_rises() {
    // The right answer is always 7, whatever the question: from one in ten to nearly always.
    let mut s = setup(&[]);
    let lessons: Vec<Response> = {
        let m = model(5);
        let rollouts = Rollouts::new(&m, &rollout_config(), s.pictures(), None).unwrap();
        let mut said =
            rollouts.oracle(&s.train, &OracleConfig { tools: false, ..OracleConfig::default() }).unwrap();
        // Ten answers, one after the other, each equally often.
        let all: Vec<_> = (0..10)
            .flat_map(|digit| {
                said.iter_mut().for_each(|t| {
                    if let Some(m) = t.messages.last_mut() {
                        *m = ocelli_data::Message::assistant(digit.to_string());
                    }
                });
                said.clone()
            })
            .collect();
        all.iter().map(|t| rollouts.lesson(&m, t, false).unwrap()).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    let first = SftConfig {
        run: ocelli_train::run::RunConfig { steps: 40, checkpoint_every: 0, ..Default::default() },
        optimizer: rates(3e-3),
        ..SftConfig::default()
    };
    let (m, _) = sft::run(&first, model(5), &lessons, &[], dir.path(), &mut Silent).unwrap();
    let seven = |s: &Arc<Sample>| {
        let mut s = s.as_ref().clone();
        s.target = Target::Number { value: 7.0, tolerance: 0.0 };
        Arc::new(s)
    };
    s.train = s.train.iter().map(seven).collect();
    s.held_out = s.held_out.iter().map(seven).collect();
    let dir = tempfile::tempdir().unwrap();
    let config = GrpoConfig { group: 8, prompts: 4, optimizer: rates(2e-3), ..config(40) };
    let (_, outcome) = grpo::run(&config, s.inputs(m), dir.path(), &mut Silent).unwrap();
    let rewards = curve(dir.path(), "reward");
    let mean = |r: &[f64]| r.iter().sum::<f64>() / r.len() as f64;
    assert!(mean(&rewards[..3]) < 0.4, "{rewards:?}");
    assert!(mean(&rewards[32..]) > 0.8, "{rewards:?}");
    assert_eq!(last(dir.path(), "eval/accuracy"), Some(1.0), "{outcome:?}");
    // Sampler and trainer are the same weights and kernels; what is left is rounding.
    assert!(curve(dir.path(), "mismatch/max").iter().all(|d| *d < 1e-3));
    // Alarms are records: answers that are always the same have no entropy left.
    assert!(metrics(dir.path()).contains("\"alarm\"") || outcome.alarms == 0);
}

#[test]
fn tools_are_called_in_training_and_the_same_seed_gives_the_same_numbers() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let run = |stride: u64| {
        let inner = s.toolbox.clone().unwrap();
        let mut inputs = s.inputs(m.clone());
        inputs.toolbox = Some(Arc::new(Uneven { inner, calls: AtomicU64::new(3), stride }));
        let dir = tempfile::tempdir().unwrap();
        let (after, _) = grpo::run(&config(5), inputs, dir.path(), &mut Silent).unwrap();
        let rate = curve(dir.path(), "tools/rate");
        let length = curve(dir.path(), "response/length");
        (metrics(dir.path()), values(&after), rate, length)
    };
    let (a, b) = (run(0), run(7));
    assert!(a.2.iter().sum::<f64>() > 1.0, "tools are hardly called: {:?}", a.2);
    assert!(a.3.iter().all(|l| *l > 3.0), "{:?}", a.3);
    assert_eq!(a.0, b.0, "the tools' timing changed the numbers");
    assert!(a.1 == b.1, "the tools' timing changed the weights");
}

#[test]
fn a_killed_run_goes_on_to_the_same_numbers() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let run = |dir: &Path, observer: &mut dyn Observer| {
        grpo::run(&config(7), s.inputs(m.clone()), dir, observer).unwrap().0
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = run(whole.path(), &mut Silent);
    run(parts.path(), &mut StopAfter(3));
    // What a kill leaves behind: rows after the checkpoint and a half-written line.
    for file in ["metrics.jsonl", "samples.jsonl"] {
        let path = parts.path().join(file);
        let mut text = std::fs::read(&path).unwrap();
        let (last, _) = (text.split_inclusive(|b| *b == b'\n').next_back().unwrap().to_vec(), ());
        let later = String::from_utf8(last).unwrap().replace("\"step\":2", "\"step\":3");
        text.extend_from_slice(later.as_bytes());
        text.extend_from_slice(b"{\"step\":");
        std::fs::write(&path, text).unwrap();
    }
    let b = run(parts.path(), &mut Silent);
    assert_eq!(metrics(whole.path()), metrics(parts.path()));
    assert!(values(&a) == values(&b), "the weights differ after a resumed run");
    let rows = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("samples.jsonl")).unwrap();
        let steps = |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap();
        text.lines().map(steps).collect::<Vec<_>>()
    };
    assert_eq!(rows(whole.path()), rows(parts.path()));
    assert!(last(whole.path(), "buffer/replayed").is_some(), "nothing was ever replayed");
}

#[test]
fn switches_change_what_they_say() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    let run = |config: &GrpoConfig| {
        let dir = tempfile::tempdir().unwrap();
        grpo::run(config, s.inputs(m.clone()), dir.path(), &mut Silent).unwrap();
        dir
    };
    let bare = GrpoConfig { buffer: None, ..config(3) };
    let plain = run(&bare);
    assert_eq!(curve(plain.path(), "buffer/fill"), Vec::<f64>::new());
    // The same first step with a KL term: on the reference itself it is zero, and it is measured.
    let mut kl = bare.clone();
    kl.loss.kl = Some(Kl { beta: 0.1, estimator: Default::default(), importance: false });
    let with_kl = curve(run(&kl).path(), "policy/kl");
    assert!(with_kl[0].abs() < 1e-9 && with_kl[2] > 0.0, "{with_kl:?}");
    // Resampling: more rounds, more informative groups. Groups of two are often of one mind.
    let two = GrpoConfig { group: 2, ..bare.clone() };
    let dynamic = run(&GrpoConfig { dynamic: Some(DynamicSampling { rounds: 3 }), ..two.clone() });
    let rounds = curve(dynamic.path(), "groups/rounds");
    assert!(rounds.iter().all(|r| (1.0..=3.0).contains(r)) && rounds.iter().sum::<f64>() > 3.0, "{rounds:?}");
    let informative = |d: &Path| curve(d, "groups/informative").iter().sum::<f64>();
    assert!(informative(dynamic.path()) >= informative(run(&two).path()));
    // Counting the informative only makes the same step larger.
    let norm = |d: &Path| curve(d, "optimizer/grad_norm")[0];
    let counted = run(&GrpoConfig { count: Count::Informative, ..bare.clone() });
    if curve(plain.path(), "groups/informative")[0] < 1.0 {
        assert!(norm(counted.path()) > norm(plain.path()));
    }
    // Every part of the reward is reported on its own.
    let mut parts = bare.clone();
    parts.reward = RewardSpec {
        necessity: 0.1,
        overlong: Some(Overlong { max: 60, cache: 30, factor: 0.5 }),
        ..RewardSpec::default()
    };
    parts.truncated = Truncated::Mask;
    let dir = run(&parts);
    for name in ["reward/accuracy", "reward/tool_necessity", "reward/overlong"] {
        assert_eq!(curve(dir.path(), name).len(), 3, "{name}");
    }
}

/// Pieces of a few tokens: long answers go on over several steps.
fn in_pieces(steps: u64) -> GrpoConfig {
    let partial = Some(Partial { ahead: 2, tokens: 6, max_staleness: 2 });
    GrpoConfig { partial, buffer: None, ..config(steps) }
}

#[test]
fn partial_rollouts_are_no_staler_than_allowed_and_resume_exactly() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let run = |dir: &Path, observer: &mut dyn Observer| {
        grpo::run(&in_pieces(7), s.inputs(m.clone()), dir, observer).unwrap().0
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = run(whole.path(), &mut Silent);
    let stale = curve(whole.path(), "rollout/staleness_max");
    assert!(stale.iter().all(|s| *s <= 2.0) && stale.iter().any(|s| *s > 0.0), "{stale:?}");
    assert_eq!(curve(whole.path(), "rollout/carried"), [2.0; 7]);
    // Fresh tokens are still those of the trainer; stale ones are not counted as a mismatch.
    assert!(curve(whole.path(), "mismatch/max").iter().all(|d| *d < 1e-3));
    run(parts.path(), &mut StopAfter(3));
    let b = run(parts.path(), &mut Silent);
    assert_eq!(metrics(whole.path()), metrics(parts.path()));
    assert!(values(&a) == values(&b), "the weights differ after a resumed run");
}

#[test]
fn a_piece_that_holds_every_answer_changes_nothing() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let run = |partial| {
        let dir = tempfile::tempdir().unwrap();
        let config = GrpoConfig { partial, buffer: None, ..config(2) };
        let (after, _) = grpo::run(&config, s.inputs(m.clone()), dir.path(), &mut Silent).unwrap();
        (curve(dir.path(), "loss"), curve(dir.path(), "reward"), values(&after))
    };
    assert!(run(None) == run(Some(Partial { ahead: 0, tokens: 500, max_staleness: 1 })));
}

#[test]
fn the_filter_keeps_questions_whose_answers_differ() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    let dir = tempfile::tempdir().unwrap();
    let mut c = GrpoConfig { prompt_filter: Some(PromptFilter { group: 4 }), buffer: None, ..config(2) };
    c.reward.rules[0].weight = 1.0;
    // Lengths differ, so that some groups are informative whatever the answers are worth.
    c.reward.overlong = Some(Overlong { max: 40, cache: 30, factor: 0.5 });
    grpo::run(&c, s.inputs(m.clone()), dir.path(), &mut Silent).unwrap();
    let kept = curve(dir.path(), "prompts/kept");
    assert!(kept.len() == 1 && kept[0] > 0.0 && kept[0] <= 1.0, "{kept:?}");
    // Nothing to learn from is an error that says so, before the first step.
    let same = GrpoConfig { prompt_filter: Some(PromptFilter { group: 2 }), buffer: None, ..config(2) };
    let s = Setup { train: beyond(&s.train), ..s };
    let dir = tempfile::tempdir().unwrap();
    let error = grpo::run(&same, s.inputs(m), dir.path(), &mut Silent).err().map(|e| e.to_string());
    assert!(error.as_ref().is_some_and(|e| e.contains("in each of the 6 questions")), "{error:?}");
}

#[test]
fn every_metric_of_a_run_can_be_watched() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    let dir = tempfile::tempdir().unwrap();
    let mut c = GrpoConfig { prompt_filter: Some(PromptFilter { group: 2 }), ..config(4) };
    c.loss.kl = Some(Kl { beta: 0.1, estimator: Default::default(), importance: false });
    c.reward = RewardSpec {
        necessity: 0.1,
        overlong: Some(Overlong { max: 40, cache: 30, factor: 0.5 }),
        ..RewardSpec::default()
    };
    let text = |c: &GrpoConfig, dir: &Path| {
        grpo::run(c, s.inputs(m.clone()), dir, &mut Silent).unwrap();
        metrics(dir)
    };
    let partial = GrpoConfig { prompt_filter: None, ..in_pieces(1) };
    let other = tempfile::tempdir().unwrap();
    for (config, text) in [(&c, text(&c, dir.path())), (&partial, text(&partial, other.path()))] {
        let name = |l: &str| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["name"].as_str().map(str::to_owned)
        };
        let mut found: std::collections::BTreeSet<String> = text.lines().filter_map(name).collect();
        assert!(found.contains("eval/accuracy"), "{found:?}");
        // What a policy calls that does not exist has effects too; nobody can name it before.
        found.retain(|n| !n.starts_with("eval/tool_") || n.ends_with("/measure"));
        let watch = |metric: &String| Monitor {
            metric: metric.clone(),
            rule: Rule::Above(1e300),
            window: 2,
            advice: String::new(),
        };
        let mut config = config.clone();
        config.run.monitors = Some(found.iter().map(watch).collect());
        grpo::check(&config, s.inputs(m.clone()), Path::new("nowhere")).unwrap();
    }
}

/// A header that announces a picture of 20,000 by 20,000 pixels, without the pixels.
fn huge_png() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([20_000u32, 20_000].iter().flat_map(|n| n.to_be_bytes()));
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    png
}

#[test]
fn questions_that_cannot_be_asked_are_refused_before_any_training() {
    let s = setup(&["measure"]);
    let dir = tempfile::tempdir().unwrap();
    let refuse = |change: &dyn Fn(&mut Sample), bytes: Vec<u8>, held_out: bool| {
        let mut sample = s.train[1].as_ref().clone();
        sample.id = "odd".into();
        change(&mut sample);
        let odd = [s.train[0].clone(), Arc::new(sample)];
        let mut inputs = s.inputs(model(5));
        inputs.pictures.put(bytes.into()).unwrap();
        *(if held_out { &mut inputs.held_out } else { &mut inputs.train }) = &odd;
        let rehearsed = grpo::check(&config(2), inputs, dir.path()).unwrap_err().to_string();
        let mut inputs = s.inputs(model(5));
        *(if held_out { &mut inputs.held_out } else { &mut inputs.train }) = &odd;
        assert!(grpo::run(&config(2), inputs, dir.path(), &mut Silent).is_err());
        assert!(!dir.path().join("metrics.jsonl").exists(), "training had begun: {rehearsed}");
        assert!(rehearsed.contains("sample odd: "), "{rehearsed}");
        rehearsed
    };
    for held_out in [false, true] {
        for (bytes, expected) in
            [(huge_png(), "20000x20000"), (b"no picture at all".to_vec(), "not a PNG, JPEG")]
        {
            let hash = ContentHash::of(&bytes);
            let show = |sample: &mut Sample| {
                sample.messages = vec![Message::user([Part::image(hash), Part::text("How many bars?")])];
            };
            let error = refuse(&show, bytes, held_out);
            assert!(error.contains(expected), "{error}");
        }
    }
    assert!(refuse(&|s| s.messages.clear(), vec![], false).contains("messages is empty"));
    let nothing = |s: &mut Sample| s.target = Target::Text { accepted: vec![] };
    assert!(refuse(&nothing, vec![], false).contains("target.accepted names no answer"));
    // In a file, by its line.
    let path = dir.path().join("questions.jsonl");
    let good = serde_json::to_string(&Sample {
        messages: vec![Message::user([Part::text("2 + 2?")])],
        ..s.train[0].as_ref().clone()
    });
    let good = good.unwrap();
    let source = DataSource { samples: Some(path.clone()), ..DataSource::default() };
    for (field, expected) in
        [("messages", "messages is empty"), ("target", "target.accepted names no answer")]
    {
        let mut bad: serde_json::Value = serde_json::from_str(&good).unwrap();
        bad["id"] = "odd".into();
        bad[field] = match field {
            "messages" => serde_json::json!([]),
            _ => serde_json::json!({ "kind": "text", "accepted": [] }),
        };
        std::fs::write(&path, format!("{good}\n\n{bad}\n")).unwrap();
        let error = source.load().unwrap_err().to_string();
        assert!(error.contains("questions.jsonl:3: sample odd") && error.contains(expected), "{error}");
    }
    let nobody =
        DataSource { world: None, samples: Some(path.clone()), limit: Some(0), ..DataSource::default() };
    assert!(nobody.load_as("held_out").unwrap_err().to_string().contains("held_out.limit is 0"));
    std::fs::write(&path, "\n").unwrap();
    assert!(source.load_as("held_out").unwrap_err().to_string().contains("held_out holds nothing"));
}

#[test]
fn settings_outside_their_range_are_refused_by_key_and_value() {
    let s = setup(&[]);
    let m = model(5);
    let dir = tempfile::tempdir().unwrap();
    type Change = fn(&mut GrpoConfig);
    let outside: [(Change, &str); 30] = [
        (|c| c.prompts = 100_000_000, "prompts is 100000000; it must be from 1 to 65536"),
        (|c| c.group = 60_000, "prompts * group is 180000"),
        (|c| c.run.steps = 0, "run.steps is 0"),
        (|c| c.rollout.batch = 0, "rollout.batch is 0"),
        (|c| c.rollout.temperature = f32::NAN, "rollout.temperature is NaN"),
        (|c| c.rollout.limits.tokens = 0, "rollout.limits.tokens is 0"),
        (|c| c.rollout.limits.turns = 0, "rollout.limits.turns is 0"),
        (|c| c.rollout.limits.context = 10, "rollout.limits.context is 10; it must be above "),
        (|c| c.rollout.limits.seconds = f64::NAN, "rollout.limits.seconds is NaN"),
        (|c| c.rollout.tools.call_seconds = -1.0, "rollout.tools.call_seconds is -1"),
        (|c| c.loss.surrogate = clip(2.0, None, None), "surrogate low is 2"),
        (|c| c.loss.surrogate = clip(f64::NAN, None, None), "surrogate low is NaN"),
        (|c| c.loss.surrogate = clip(0.2, Some(f64::NAN), None), "surrogate dual is NaN"),
        (|c| c.loss.surrogate = clip(0.2, None, Some(f64::NAN)), "surrogate cap is NaN"),
        (
            |c| c.loss.reduction = Reduction::Constant { length: f64::NAN },
            "loss.reduction.constant.length is NaN",
        ),
        (|c| c.loss.entropy_bonus = 1e300, "loss.entropy_bonus is 1"),
        (|c| c.advantage = Advantage::Standardised { epsilon: -1.0 }, "advantage.standardised.epsilon is -1"),
        (
            |c| c.advantage = Advantage::Standardised { epsilon: f64::NAN },
            "advantage.standardised.epsilon is NaN",
        ),
        (
            |c| c.buffer = Some(BufferConfig { correction: Some(5.0), ..Default::default() }),
            "buffer.correction is 5",
        ),
        (|c| c.buffer = Some(BufferConfig { alpha: f64::NAN, ..Default::default() }), "buffer.alpha is NaN"),
        (|c| c.buffer = Some(BufferConfig { capacity: 0, ..Default::default() }), "buffer.capacity is 0"),
        (|c| c.mismatch = kept(3.0, 2.0), "mismatch.keep.token.low is 3"),
        (|c| c.mismatch = kept(f64::NAN, 2.0), "mismatch.keep.token.low is NaN"),
        (|c| c.mismatch = kept(0.5, 0.6), "mismatch.keep.token.high is 0.6"),
        (
            |c| c.mismatch = Some(Correction { weight: Weight::Token { cap: -1.0 }, ..Default::default() }),
            "mismatch.weight.token.cap is -1",
        ),
        (
            |c| c.mismatch = Some(Correction { keep: Keep::K3 { max: f64::NAN }, ..Default::default() }),
            "mismatch.keep.k3.max is NaN",
        ),
        (|c| c.reward.rules[0].weight = 1e308, "reward.rules[0].weight is 1"),
        (|c| c.reward.necessity = f64::NAN, "reward.necessity is NaN"),
        (
            |c| c.reward.overlong = Some(Overlong { max: 40, cache: 30, factor: f64::NAN }),
            "reward.overlong.factor is NaN",
        ),
        (
            |c| {
                let watch = "buffer/fill".to_owned();
                let rule = Rule::Below(0.5);
                c.buffer = None;
                c.run.monitors =
                    Some(vec![Monitor { metric: watch, rule, window: 2, advice: String::new() }]);
            },
            "`buffer/fill`, which is measured only with train.buffer",
        ),
    ];
    for (change, expected) in outside {
        let mut config = config(2);
        change(&mut config);
        let error = grpo::check(&config, s.inputs(m.clone()), dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected} is missing in: {error}");
        let run = grpo::run(&config, s.inputs(m.clone()), dir.path(), &mut Silent).unwrap_err().to_string();
        assert_eq!(run, error);
    }
    let judge = Box::leak(Box::new(m.clone()));
    judge.add_value_head(1).unwrap();
    let mut inputs = s.inputs(m.clone());
    inputs.reward_model = Some(judge);
    let error = grpo::check(&config(2), inputs, dir.path()).unwrap_err().to_string();
    assert!(error.contains("reward.model does not weigh it"), "{error}");
    let rollouts = Rollouts::new(&m, &rollout_config(), s.pictures(), None).unwrap();
    for calling in [2.0, f64::NAN, -5.0] {
        let error = rollouts.lessons(&m, &s.train, calling, None).unwrap_err().to_string();
        assert!(error.contains(&format!("calling is {calling}")), "{error}");
    }
}

fn clip(low: f64, dual: Option<f64>, cap: Option<f64>) -> Surrogate {
    Surrogate::Clip { low, high: 0.2, level: losses::Level::Token, dual, cap }
}

fn kept(low: f64, high: f64) -> Option<Correction> {
    Some(Correction { keep: Keep::Token { low, high }, ..Correction::default() })
}

#[test]
fn impossible_runs_are_refused_before_they_begin() {
    let s = setup(&["measure"]);
    let m = model(5);
    let dir = tempfile::tempdir().unwrap();
    let refuse = |config: &GrpoConfig, change: &dyn Fn(&mut GrpoInputs<'_>)| {
        let mut inputs = s.inputs(m.clone());
        change(&mut inputs);
        let error = grpo::run(config, inputs, dir.path(), &mut Silent).expect_err("a refusal").to_string();
        assert!(!dir.path().join("metrics.jsonl").exists(), "training had begun: {error}");
        error
    };
    let good = config(2);
    let same = |_: &mut GrpoInputs<'_>| {};
    assert!(
        refuse(&GrpoConfig { group: 1, ..good.clone() }, &same).contains("group is 1; it must be from 2")
    );
    let partial = Some(Partial { ahead: 4, tokens: 9, max_staleness: 1 });
    assert!(refuse(&GrpoConfig { partial, ..good.clone() }, &same).contains("ahead 4 at most prompts (3)"));
    let filter = Some(PromptFilter { group: 1 });
    assert!(refuse(&GrpoConfig { prompt_filter: filter, ..good.clone() }, &same).contains("prompt_filter"));
    let frozen = GrpoConfig { optimizer: rates(0.0), ..good.clone() };
    assert!(refuse(&frozen, &same).contains("every part is frozen"));
    assert!(refuse(&good, &|i| i.train = &[]).contains("no question"));
    let nothing = refuse(&good, &|i| i.pictures = Arc::new(Pictures::in_memory(1 << 20)));
    assert!(nothing.contains("sample charts/1/0") && nothing.contains("no image with hash"), "{nothing}");
    let mut weighed = good.clone();
    weighed.reward.model =
        Some(ModelReward { weight: 1.0, threshold: 0.0, indicator: false, dialogue: false });
    assert!(refuse(&weighed, &same).contains("no reward model was given"));
    let headless = m.clone();
    let error = refuse(&good, &|i| i.reward_model = Some(Box::leak(Box::new(headless.clone()))));
    assert!(error.contains("no value head"), "{error}");
    let mut nan = good.clone();
    nan.reward.rules[0].weight = f64::NAN;
    let error = refuse(&nan, &same);
    assert!(error.contains("reward.rules[0].weight is NaN"), "{error}");
    let mut cold = good.clone();
    cold.rollout.temperature = 0.0;
    assert!(refuse(&cold, &same).contains("rollout.temperature is 0"));
    let unknown = serde_json::from_str::<GrpoConfig>(r#"{"promts": 3}"#).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `promts`"), "{unknown}");
    let tool = ToolSource::of(&["mesure"]).load_embedded().err().map(|e| e.to_string());
    assert!(tool.unwrap_or_default().contains("mesure"));
}
