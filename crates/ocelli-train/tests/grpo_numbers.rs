//! Numbers of single steps of the reinforcement loop, against small computations of their own: divisors, whitening, rewards
//! that are normalised one by one, KL in the reward, masks, drift, and what the picture adds.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fixture::rl::*;
use fixture::*;
use image::{ImageFormat, Rgb, RgbImage};
use ocelli_agent::policy::BoxFuture;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::{ContentHash, Message, SpanKind, ToolCall};
use ocelli_model::vlm::Vlm;
use ocelli_reward::rubric::{PartConfig, PartKind};
use ocelli_tools::{Fatal, Images, Reply, ToolError, ToolSpec};
use ocelli_train::advantages::{Advantage, Combine, RewardKl};
use ocelli_train::buffer::{BufferConfig, Refresh, Unit};
use ocelli_train::grpo::{self, Count, GrpoConfig};
use ocelli_train::losses::{Kl, Reduction};
use ocelli_train::observe::Silent;
use ocelli_train::responses::{Pass, Response, score};
use ocelli_train::rollouts::{OracleConfig, Rollouts};
use ocelli_train::run::RunConfig;
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::shaping::{Overlong, Truncated};
use ocelli_worlds::palette::COLOURS;
use tempfile::TempDir;

fn run(config: &GrpoConfig, s: &Setup, m: &Vlm) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    grpo::run(config, s.inputs(m.clone()), dir.path(), &mut Silent).unwrap();
    dir
}

/// One question, twelve answers, one step; so warm that some call and some do not, and lengths make the rewards differ.
fn one_group() -> GrpoConfig {
    let mut c = GrpoConfig { prompts: 1, group: 12, buffer: None, dependence_every: 0, ..config(1) };
    c.rollout.temperature = 1.5;
    c.run.eval_every = 0;
    c.reward.overlong = Some(LENGTH);
    c.advantage = Advantage::Centred;
    c
}

const LENGTH: Overlong = Overlong { max: 110, cache: 105, factor: 0.5 };

/// What the table of samples says about a rollout of the first step.
#[derive(Debug)]
struct Row {
    reward: f64,
    tokens: f64,
    calls: f64,
    truncated: bool,
}

fn rows(dir: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(dir.join("samples.jsonl")).unwrap();
    let row = |line: &str| {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        let scores = v["scores"].as_array().unwrap();
        let reward = scores.iter().find(|s| s[0] == "reward").unwrap();
        Row {
            reward: reward[1]["value"].as_f64().unwrap(),
            tokens: v["tokens"].as_f64().unwrap(),
            calls: v["tools"].as_array().unwrap().len() as f64,
            truncated: v["status"].as_str().unwrap().starts_with("truncated"),
        }
    };
    text.lines().map(row).collect()
}

fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len() as f64
}

/// Distances from the mean.
fn centred(v: &[f64]) -> Vec<f64> {
    v.iter().map(|x| x - mean(v)).collect()
}

fn deviation(v: &[f64]) -> f64 {
    (centred(v).iter().map(|d| d * d).sum::<f64>() / (v.len() - 1) as f64).sqrt()
}

/// By its definition (DAPO, eq. 13).
fn length_term(tokens: f64) -> f64 {
    -0.5 * ((tokens - 5.0) / 105.0).clamp(0.0, 1.0)
}

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} against {b}");
}

#[test]
fn a_replay_takes_the_place_of_an_idle_response() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    let both = |config: &GrpoConfig| {
        let dir = run(config, &s, &m);
        (curve(dir.path(), "optimizer/grad_norm"), curve(dir.path(), "buffer/fill"))
    };
    // Groups of two are often of one mind, so that there are places to fill.
    let mut config = still(GrpoConfig { group: 2, prompts: 4, ..config(10) });
    config.loss.reduction = Reduction::SequenceMeanTokenMean;
    let (all, fill) = both(&config);
    let (informative, same) = both(&GrpoConfig { count: Count::Informative, ..config.clone() });
    assert_eq!(fill, same);
    assert!(fill.iter().skip(1).any(|f| *f == 1.0) && fill.iter().any(|f| 0.0 < *f && *f < 1.0), "{fill:?}");
    // The same sum of gradients, divided by B G or by the fresh and replayed ones, which are fill * B G.
    for ((a, i), f) in all.iter().zip(&informative).zip(&fill) {
        assert!((a - f * i).abs() <= 1e-6 * i, "all {all:?} informative {informative:?} fill {fill:?}");
    }
}

#[test]
fn steps_without_an_advantage_go_on_with_kl_and_entropy() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    let s = Setup { train: beyond(&s.train), ..s };
    let mut c = GrpoConfig { buffer: None, count: Count::Informative, dependence_every: 0, ..config(3) };
    c.loss.reduction = Reduction::TokenMean;
    c.loss.kl = Some(Kl { beta: 0.5, estimator: Default::default(), importance: false });
    c.loss.entropy_bonus = 0.3;
    let dir = run(&c, &s, &m);
    let of = |name| curve(dir.path(), name);
    assert_eq!(of("groups/informative"), [0.0; 3]);
    let (loss, kl, entropy) = (of("loss"), of("policy/kl"), of("policy/entropy"));
    for t in 0..3 {
        close(loss[t], 0.5 * kl[t] - 0.3 * entropy[t], 1e-9);
    }
    assert!(kl[2] > 1e-6 && of("optimizer/grad_norm")[0] > 1e-3, "{kl:?}");
    // These samples tell what their pictures show.
    assert_eq!(of("mentions/absent").len(), 3);
}

#[test]
fn the_entropy_bonus_is_the_same_mean_whatever_counts() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    for (count, reduction) in [
        (Count::All, Reduction::SequenceMeanTokenMean),
        (Count::Informative, Reduction::SequenceMeanTokenMean),
        (Count::Informative, Reduction::Constant { length: 50.0 }),
    ] {
        // Groups of two are often of one mind: some responses have no advantage.
        let mut c = GrpoConfig { group: 2, prompts: 4, buffer: None, count, ..config(3) };
        c.dependence_every = 0;
        c.loss.reduction = reduction;
        let mut c = still(c);
        let without = run(&c, &s, &m);
        c.loss.entropy_bonus = 0.3;
        let with = run(&c, &s, &m);
        assert!(curve(with.path(), "groups/informative").iter().any(|i| *i < 1.0));
        let (a, b) = (curve(with.path(), "loss"), curve(without.path(), "loss"));
        for (t, entropy) in curve(with.path(), "policy/entropy").into_iter().enumerate() {
            close(a[t] - b[t], -0.3 * entropy, 1e-5);
        }
    }
}

/// A tool that breaks at every call.
struct Broken(Arc<dyn Toolbox>);

impl Toolbox for Broken {
    fn specs(&self) -> Arc<[ToolSpec]> {
        self.0.specs()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        _: &'a Images,
        _: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        let broken = Fatal::Broken { tool: call.name.clone(), why: "it always is".into() };
        Box::pin(async move { Err(broken.into()) })
    }
}

#[test]
fn failed_rollouts_count_alike_with_and_without_kl() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let toolbox = s.toolbox.clone().map(|t| -> Arc<dyn Toolbox> { Arc::new(Broken(t)) });
    let s = Setup { toolbox, ..s };
    let mut c = still(GrpoConfig { buffer: None, dependence_every: 0, ..config(4) });
    c.run.eval_every = 0;
    c.reward.overlong = Some(LENGTH);
    let plain = run(&c, &s, &m);
    // All are run then, and the term itself is nothing.
    c.loss.kl = Some(Kl { beta: 0.0, estimator: Default::default(), importance: false });
    let with = run(&c, &s, &m);
    let failed = curve(plain.path(), "response/failed");
    let (a, b) = (curve(plain.path(), "optimizer/grad_norm"), curve(with.path(), "optimizer/grad_norm"));
    assert!((0..4).any(|t| failed[t] > 0.0 && a[t] > 0.0), "{failed:?} {a:?}");
    a.iter().zip(&b).for_each(|(x, y)| assert!((x - y).abs() <= 1e-4 * x, "{a:?} {b:?}"));
}

#[test]
fn whitened_advantages_by_hand() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let dir = run(&GrpoConfig { whiten: true, ..one_group() }, &s, &m);
    let rows = rows(dir.path());
    let a = centred(&rows.iter().map(|r| r.reward).collect::<Vec<_>>());
    // Every token has the advantage of its response: mean and (population) variance are weighted by lengths.
    let tokens: f64 = rows.iter().map(|r| r.tokens).sum();
    let weighted =
        |f: &dyn Fn(f64) -> f64| rows.iter().zip(&a).map(|(r, a)| r.tokens * f(*a)).sum::<f64>() / tokens;
    let middle = weighted(&|a| a);
    let variance = weighted(&|a| (a - middle) * (a - middle));
    assert!(variance > 1e-4 && middle.abs() > 1e-4, "the draw is too even to tell: {a:?}");
    // The ratio is 1, so that the loss is minus the mean advantage; without whitening it is zero.
    let expected = -mean(&a.iter().map(|a| (a - middle) / (variance + 1e-8).sqrt()).collect::<Vec<_>>());
    close(curve(dir.path(), "loss")[0], expected, 1e-9);
    let plain = run(&one_group(), &s, &m);
    close(curve(plain.path(), "loss")[0], 0.0, 1e-9);
}

#[test]
fn rewards_normalised_one_by_one_by_hand() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let mut c = GrpoConfig { combine: Combine::Each, ..one_group() };
    c.advantage = Advantage::Standardised { epsilon: 0.0 };
    c.loss.reduction = Reduction::TokenMean;
    let cost = PartKind::ToolCost { per_call: 0.3, per_repeat: 0.0, cap: 0.5 };
    c.reward.rules = vec![PartConfig { weight: 2.0, kind: cost }];
    let dir = run(&c, &s, &m);
    let rows = rows(dir.path());
    // The two parts of the reward, and that the table's sum is made of them.
    let cost: Vec<f64> = rows.iter().map(|r| -(0.3 * r.calls).min(0.5)).collect();
    let length: Vec<f64> = rows.iter().map(|r| length_term(r.tokens)).collect();
    for ((r, c), l) in rows.iter().zip(&cost).zip(&length) {
        close(r.reward, 2.0 * c + l, 1e-9);
    }
    let z = |v: &[f64]| centred(v).iter().map(|d| d / deviation(v)).collect::<Vec<_>>();
    let sum: Vec<f64> = z(&cost).iter().zip(z(&length)).map(|(c, l)| 2.0 * c + l).collect();
    let tokens: f64 = rows.iter().map(|r| r.tokens).sum();
    let expected = -rows.iter().zip(&sum).map(|(r, a)| r.tokens * a / deviation(&sum)).sum::<f64>() / tokens;
    assert!(expected.abs() > 1e-3);
    close(curve(dir.path(), "loss")[0], expected, 1e-9);
    // Another number than that of the sum.
    let summed = run(&GrpoConfig { combine: Combine::Sum, ..c }, &s, &m);
    assert!((curve(summed.path(), "loss")[0] - expected).abs() > 1e-3);
}

#[test]
fn kl_in_the_reward_by_hand() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    // At the first step policy and reference are the same: token t of S has the advantage times gamma^(S - 1 - t).
    let mut c = one_group();
    c.reward_kl = Some(RewardKl { beta: 0.1, gamma: 0.5 });
    let dir = run(&c, &s, &m);
    let rows = rows(dir.path());
    let a = centred(&rows.iter().map(|r| r.reward).collect::<Vec<_>>());
    let discounted = |r: &Row, a: f64| {
        (0..r.tokens as i32).map(|t| a * 0.5f64.powi(r.tokens as i32 - 1 - t)).sum::<f64>() / r.tokens
    };
    let expected = -mean(&rows.iter().zip(&a).map(|(r, a)| discounted(r, *a)).collect::<Vec<_>>());
    assert!(expected.abs() > 1e-4);
    close(curve(dir.path(), "loss")[0], expected, 1e-6);
    // With gamma 0 a token's return is its own -beta k1, the last one's the advantage beside it. Advantages of a group sum to
    // zero, so the loss, summed over tokens, is beta times the sum of k1 over the responses.
    let mut c = GrpoConfig { buffer: None, dependence_every: 0, advantage: Advantage::Centred, ..config(4) };
    c.reward.overlong = Some(LENGTH);
    c.loss.reduction = Reduction::SequenceMeanTokenSum;
    c.reward_kl = Some(RewardKl { beta: 0.2, gamma: 0.0 });
    let dir = run(&c, &s, &m);
    let of = |name| curve(dir.path(), name);
    let (loss, kl, length) = (of("loss"), of("policy/kl"), of("response/length"));
    for t in 0..4 {
        close(loss[t], 0.2 * kl[t] * length[t], 1e-9);
    }
    assert!(kl[3].abs() > 1e-5 && kl[0].abs() < 1e-5, "{kl:?}");
    // Both at once: whitening takes the returns.
    let both = run(&GrpoConfig { whiten: true, ..c.clone() }, &s, &m);
    assert!(curve(both.path(), "loss").iter().all(|l| l.is_finite()));
}

#[test]
fn settings_that_exclude_one_another_are_refused() {
    let s = setup(&[]);
    let refuse = |c: &GrpoConfig| {
        let dir = tempfile::tempdir().unwrap();
        grpo::run(c, s.inputs(model(5)), dir.path(), &mut Silent).expect_err("a refusal").to_string()
    };
    let kl = Some(RewardKl { beta: 0.1, gamma: 1.0 });
    let mut twice = GrpoConfig { reward_kl: kl, buffer: None, ..config(1) };
    twice.loss.kl = Some(Kl { beta: 0.1, estimator: Default::default(), importance: false });
    assert!(refuse(&twice).contains("punish the same distance twice"));
    assert!(refuse(&GrpoConfig { reward_kl: kl, ..config(1) }).contains("no place is free for replays"));
    let negative = Some(RewardKl { beta: 0.1, gamma: 1.5 });
    assert!(refuse(&GrpoConfig { reward_kl: negative, buffer: None, ..config(1) }).contains("gamma 1.5"));
    let buffer = |change: BufferConfig| GrpoConfig { buffer: Some(change), ..config(1) };
    let refreshed = buffer(BufferConfig { refresh: Refresh::PromptMean, ..BufferConfig::default() });
    assert!(refuse(&GrpoConfig { whiten: true, ..refreshed.clone() }).contains("prompt_mean"));
    assert!(refuse(&GrpoConfig { combine: Combine::Each, ..refreshed }).contains("prompt_mean"));
    let small = buffer(BufferConfig { unit: Unit::Group, per_prompt: 3, ..BufferConfig::default() });
    assert!(refuse(&small).contains("must be at least group (4)"));
}

#[test]
fn masked_responses_leave_the_denominator() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let mut c = GrpoConfig { truncated: Truncated::Mask, ..one_group() };
    // Calls take more tokens than answers.
    c.rollout.limits.turn_tokens = 20;
    let dir = run(&c, &s, &m);
    let rows = rows(dir.path());
    let masked = rows.iter().filter(|r| r.truncated).count();
    assert!(masked > 0 && masked < rows.len(), "{masked} of {}", rows.len());
    // The mean of the group is over all, the loss over those that are left.
    let a = centred(&rows.iter().map(|r| r.reward).collect::<Vec<_>>());
    let left: Vec<f64> = rows.iter().zip(&a).filter(|(r, _)| !r.truncated).map(|(_, a)| *a).collect();
    assert!(mean(&left).abs() > 1e-3, "{a:?}");
    close(curve(dir.path(), "loss")[0], -mean(&left), 1e-9);
    let scored = run(&GrpoConfig { truncated: Truncated::Score, ..c }, &s, &m);
    close(curve(scored.path(), "loss")[0], 0.0, 1e-9);
}

#[test]
fn replays_that_drifted_too_far_keep_their_place_and_nothing_else() {
    let s = setup(&["measure"]);
    let m = pupil(&s);
    let with = |buffer| {
        let mut c = GrpoConfig { buffer, group: 2, prompts: 4, dependence_every: 0, ..config(4) };
        c.optimizer = rates(1e-4);
        run(&c, &s, &m)
    };
    let limit = |max_drift| Some(BufferConfig { max_drift: Some(max_drift), ..BufferConfig::default() });
    let (none, far, near) = (with(None), with(limit(0.0)), with(limit(100.0)));
    let replayed = curve(far.path(), "buffer/replayed");
    assert!(replayed.iter().sum::<f64>() > 0.0);
    assert_eq!(curve(far.path(), "buffer/drifted"), replayed);
    assert!(curve(near.path(), "buffer/drifted").iter().all(|d| *d == 0.0));
    // All dropped: the gradients are those of a run without a buffer, since B G divides both.
    let norm = |d: &TempDir| curve(d.path(), "optimizer/grad_norm");
    norm(&far)
        .iter()
        .zip(norm(&none))
        .for_each(|(a, b)| assert!((a - b).abs() <= 1e-3 * b, "{a} against {b}"));
    let differ = norm(&near).iter().zip(norm(&none)).any(|(a, b)| (a - b).abs() > 0.05 * b);
    assert!(differ, "replays changed nothing");
}

#[test]
fn what_the_picture_adds_by_another_way() {
    let s = setup(&["crop", "measure"]);
    let m = pupil(&s);
    let s = Setup { train: s.train[..1].to_vec(), ..s };
    let mut c = GrpoConfig { dependence_every: 1, ..one_group() };
    // Unlikely tokens would magnify the rounding of the grey picture below.
    c.rollout.temperature = 1.0;
    let dir = run(&c, &s, &m);
    let found = curve(dir.path(), "image/dependence")[0];
    // The same rollouts; the first one's first turn before the picture and before one of the mean colour.
    let pictures = s.pictures();
    let rollouts = Rollouts::new(&m, &c.rollout, pictures.clone(), s.toolbox.clone()).unwrap();
    let group = rollouts.run(&m, &s.train, c.group, c.run.seed, 0, None, true).unwrap().remove(0);
    let t = group.into_iter().map(|e| e.trajectory).next().unwrap();
    let turn = t.spans.iter().find(|s| s.kind == SpanKind::Sampled).unwrap().len;
    let logp = |t: &ocelli_data::Trajectory| {
        let mut r = Response::of_trajectory(&m, t, pictures.as_ref()).unwrap();
        r.trained.truncate(turn);
        score(&m, &[vec![&r]], Pass::default()).unwrap()[0].logp.iter().sum::<f64>()
    };
    let seen = logp(&t);
    let mut grey = Vec::new();
    // Of the mean level that pictures are normalised with (0.481, 0.458, 0.408), in eight bits.
    RgbImage::from_pixel(160, 128, Rgb([123, 117, 104]))
        .write_to(&mut Cursor::new(&mut grey), ImageFormat::Png)
        .unwrap();
    let mut blank = t.clone();
    blank.images[0] = ContentHash::of(&grey);
    pictures.put(grey.into()).unwrap();
    let expected = seen - logp(&blank);
    assert!(expected.abs() > 0.05, "{expected}");
    // Eight bits miss zero by up to 0.004 deviations.
    close(found, expected, 0.02);
}

#[test]
fn mentions_are_held_against_the_scene() {
    // A policy that names one of two colours, whatever the picture shows: those that about half of the pictures do.
    let s = setup(&[]);
    let shows = |colour: &str| s.train.iter().filter(|q| strings(&q.meta["shown"]).contains(colour)).count();
    let mut colours = COLOURS.map(|c| c.0);
    colours.sort_by_key(|c| (2 * shows(c)).abs_diff(s.train.len()));
    let m = model(5);
    let rollouts = Rollouts::new(&m, &rollout_config(), s.pictures(), None).unwrap();
    let oracle = OracleConfig { tools: false, ..OracleConfig::default() };
    let mut said = rollouts.oracle(&s.train, &oracle).unwrap();
    let mut lessons = Vec::new();
    for colour in &colours[..2] {
        for t in &mut said {
            *t.messages.last_mut().unwrap() = Message::assistant(format!("It is {colour}."));
            lessons.push(rollouts.lesson(&m, t, false).unwrap());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let first = SftConfig {
        run: RunConfig { steps: 40, checkpoint_every: 0, ..RunConfig::default() },
        optimizer: rates(3e-3),
        ..SftConfig::default()
    };
    let (m, _) = sft::run(&first, m, &lessons, &[], dir.path(), &mut Silent).unwrap();
    // The table shows the first group of a step, so there is one.
    let mut c = still(GrpoConfig { prompts: 1, group: 6, buffer: None, dependence_every: 0, ..config(6) });
    c.run.eval_every = 0;
    let dir = run(&c, &s, &m);
    let text = std::fs::read_to_string(dir.path().join("samples.jsonl")).unwrap();
    let vocabulary: BTreeSet<String> =
        s.train.iter().chain(&s.held_out).flat_map(|q| strings(&q.meta["shown"])).collect();
    let (mut absent, mut present) = ([0.0; 6], [0.0; 6]);
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let step = row["step"].as_u64().unwrap() as usize;
        let question = s.train.iter().find(|q| row["sample"] == q.id.as_str()).unwrap();
        let asked = question.messages[0].plain_text();
        let t: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let answer = t.last().unwrap().plain_text();
        for name in &vocabulary {
            let is_name = |w: &str| w == name || w.strip_suffix('s') == Some(name);
            if answer.split(|c: char| !c.is_alphanumeric()).any(is_name) && !asked.contains(name.as_str()) {
                let there = strings(&question.meta["shown"]).contains(name);
                if there { present[step] += 1.0 } else { absent[step] += 1.0 }
            }
        }
    }
    let expected: Vec<f64> = absent.iter().map(|a| a / 6.0).collect();
    assert_eq!(curve(dir.path(), "mentions/absent"), expected, "{text}");
    let sums: Vec<(f64, f64)> = present.into_iter().zip(absent).filter(|(p, a)| p + a > 0.0).collect();
    let precision: Vec<f64> = sums.iter().map(|(p, a)| p / (p + a)).collect();
    assert_eq!(curve(dir.path(), "mentions/precision"), precision);
    let all = |pick: fn(&(f64, f64)) -> f64| sums.iter().map(pick).sum::<f64>();
    assert!(all(|s| s.0) > 0.0 && all(|s| s.1) > 0.0, "{sums:?}");
}

fn strings(list: &serde_json::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}
