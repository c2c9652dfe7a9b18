//! What was rolled out is what will be trained: each sampled token was drawn from exactly the context, images
//! included, that stands before it in the trajectory. Over random tool dialogues, with groups, small caches, pauses and
//! weight changes.

mod toy;

use ocelli_agent::batching::{BatchConfig, Driver};
use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Loan, Report, Until};
use ocelli_agent::episode::{Ended, Job};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::tokens::Renderer;
use ocelli_agent::tool_env::ToolEnvConfig;
use ocelli_data::{ContentHash, Role, SpanKind, Status, Trajectory};
use proptest::prelude::*;
use toy::{IMAGE, Run, ToyModel, ToyRenderer, context_hash, samples};

/// Good calls, bad calls, calls of tools and pictures that do not exist, answers, silence.
const TEXTS: [&str; 12] = [
    r#"I look. <tool_call>{"name": "crop", "arguments": {"image": "img_0", "bbox": [4, 4, 24, 24]}}</tool_call>"#,
    r#"<tool_call>{"name": "crop", "arguments": {"image": "img_1", "bbox": [1, 1, 9, 9]}}</tool_call>"#,
    r#"<tool_call>{"name": "zoom_in", "arguments": {"image": "img_0", "bbox": [8, 8, 20, 20]}}</tool_call>"#,
    r#"<tool_call>{'name': 'draw_horizontal_line_by_y', 'arguments': {'image': 'img_0', 'y': 9,}}</tool_call>"#,
    r#"<tool_call>{"name": "calculate", "arguments": {"expression": "6*7"}}</tool_call>"#,
    r#"<tool_call>{"name": "crop", "arguments": {"image": "img_9", "bbox": [4, 4, 24, 24]}}</tool_call>"#,
    r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0"</tool_call>"#,
    r#"<tool_call>{"name": "fly", "arguments": {}}</tool_call>"#,
    r#"Two <tool_call>{"name": "calculate", "arguments": {"expression": "1+1"}}</tool_call>"#,
    r#"<tool_call>{"name": "answer", "arguments": {"answer": "a square"}}</tool_call>"#,
    "It is a square to me.",
    "",
];

/// The check that the file is about.
fn exact(t: &Trajectory, model: &ToyModel) {
    t.validate().unwrap();
    // Training reads trajectories from files.
    let t: Trajectory = serde_json::from_str(&serde_json::to_string(t).unwrap()).unwrap();
    assert_eq!(t.weight_versions.len(), t.sampled_len());
    let draws = model.draws.lock().unwrap();
    for (p, trained) in t.mask().into_iter().enumerate() {
        if trained {
            let shown = t.ids[..p].iter().filter(|id| **id == IMAGE).count();
            let seen = context_hash(&t.ids[..=p], &t.images[..shown]);
            assert!(draws.contains(&seen), "token {p} of {}#{} was not drawn here", t.sample_id, t.attempt);
        }
    }
    if !t.ids.is_empty() {
        // One that met its deadline before it began has no tokens.
        assert_eq!(t.ids.iter().filter(|id| **id == IMAGE).count(), t.images.len());
        messages_agree(&t);
    }
}

/// The messages, for people, say what the tokens say.
fn messages_agree(t: &Trajectory) {
    let mut at = 0;
    let mut turns = t.messages.iter().filter(|m| m.role == Role::Assistant);
    for span in &t.spans {
        let ids = &t.ids[at..at + span.len];
        at += span.len;
        if span.kind == SpanKind::Sampled {
            assert_eq!(turns.next().unwrap().plain_text(), ToyRenderer.text(ids));
        }
    }
    let in_messages: Vec<ContentHash> =
        t.messages.iter().flat_map(|m| m.images().collect::<Vec<_>>()).collect();
    let seen_by_policy = &in_messages[..t.images.len()];
    assert_eq!(seen_by_policy, t.images);
}

fn facts(report: &Report) -> Vec<(String, u32, Status, Vec<u32>, Vec<f32>, Vec<ContentHash>)> {
    let fact = |e: &Ended| {
        let t = e.trajectory.clone();
        (t.sample_id, t.attempt, t.status, t.ids, t.logprobs, t.images)
    };
    report.ended.iter().map(fact).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sampled_is_trained(
        pick in prop::collection::vec(0usize..TEXTS.len(), 2..8),
        seed in any::<u64>(),
        rows in 1usize..6,
        cached in prop::sample::select(vec![500usize, 6_000, 1 << 20]),
        share_prompts in any::<bool>(),
        can_fork in any::<bool>(),
        format in prop::sample::select(vec![CallFormat::Hermes, CallFormat::Actions]),
    ) {
        let texts: Vec<&str> = pick.iter().map(|i| TEXTS[*i]).collect();
        let batch = BatchConfig { rows, cached_tokens: cached, share_prompts, ..BatchConfig::default() };
        let env = ToolEnvConfig { format, ..ToolEnvConfig::default() };
        let mut model = ToyModel::new(&texts);
        model.can_fork = can_fork;
        let run = Run { batch, env: env.clone(), live: 3, ..Run::default() };
        let (report, _) = run.go(&mut model, 2, 3, seed);
        prop_assert_eq!(report.ended.len(), 6);
        for ended in &report.ended {
            exact(&ended.trajectory, &model);
        }
        prop_assert!(model.held.is_empty(), "caches outlive the run");

        // Neither batch, cache, sharing nor the number of live trajectories changes a single token.
        let (other, _) = Run { env, ..Run::default() }.go(&mut ToyModel::new(&texts), 2, 3, seed);
        prop_assert_eq!(facts(&report), facts(&other));
    }

    #[test]
    fn a_paused_rollout_goes_on_exactly(
        pick in prop::collection::vec(0usize..TEXTS.len(), 2..8),
        seed in any::<u64>(),
        stops in prop::collection::vec(1usize..4, 1..4),
    ) {
        let texts: Vec<&str> = pick.iter().map(|i| TEXTS[*i]).collect();
        let run = Run::default();
        let (whole, _) = run.go(&mut ToyModel::new(&texts), 3, 3, seed);

        let mut model = ToyModel::new(&texts);
        let mut driver = Driver::new(run.batch);
        let world = run.world(&driver);
        let engine = Engine::new(run.live).unwrap();
        let mut jobs = Job::group(&samples(&world, 3), 3, seed);
        let mut all = Report::default();
        for stop in stops.into_iter().map(Until::Ended).chain([Until::AllEnded]) {
            let control = Control::default(); // a pause holds for one run
            // Weights change between the pieces; the toy model says the same under each.
            model.version += 1;
            // Jobs may wait in a file in between.
            jobs.iter_mut().for_each(|j| {
                let text = serde_json::to_string(&j.resume).unwrap();
                j.resume = serde_json::from_str(&text).unwrap();
            });
            let report = engine.run(Some(Loan { driver: &mut driver, model: &mut model }), &world, &control, jobs, stop, &mut |_| {});
            all.ended.extend(report.ended);
            jobs = report.paused;
        }
        prop_assert!(jobs.is_empty());
        all.ended.sort_by_key(|e| (e.trajectory.sample_id.clone(), e.trajectory.attempt));
        prop_assert_eq!(facts(&all), facts(&whole));
        for ended in &all.ended {
            exact(&ended.trajectory, &model);
            let versions = &ended.trajectory.weight_versions;
            prop_assert!(versions.is_sorted() && versions.iter().all(|v| (2..=model.version).contains(v)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn pieces_of_a_few_tokens_make_the_same_trajectory(
        pick in prop::collection::vec(0usize..TEXTS.len(), 2..8),
        seed in any::<u64>(),
        allowance in 1usize..90,
    ) {
        let texts: Vec<&str> = pick.iter().map(|i| TEXTS[*i]).collect();
        let run = Run::default();
        let (whole, _) = run.go(&mut ToyModel::new(&texts), 2, 2, seed);

        let mut model = ToyModel::new(&texts);
        let mut driver = Driver::new(run.batch);
        let world = run.world(&driver);
        let engine = Engine::new(run.live).unwrap();
        let mut jobs = Job::group(&samples(&world, 2), 2, seed);
        let mut all = Report::default();
        let mut rounds = 0;
        while !jobs.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 10_000, "pieces that never end");
            model.version = rounds;
            jobs.iter_mut().for_each(|j| j.allowance = Some(allowance));
            let before: Vec<usize> = jobs.iter().map(sampled).collect();
            let names: Vec<_> = jobs.iter().map(|j| (j.sample.id.clone(), j.attempt)).collect();
            let loan = Loan { driver: &mut driver, model: &mut model };
            let report = engine.run(Some(loan), &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
            for job in &report.paused {
                let at = names.iter().position(|n| *n == (job.sample.id.clone(), job.attempt)).unwrap();
                prop_assert_eq!(sampled(job) - before[at], allowance, "a piece that is not full was handed back");
            }
            all.ended.extend(report.ended);
            jobs = report.paused;
        }
        all.ended.sort_by_key(|e| (e.trajectory.sample_id.clone(), e.trajectory.attempt));
        prop_assert_eq!(facts(&all), facts(&whole));
        for ended in &all.ended {
            exact(&ended.trajectory, &model);
            // Each version sampled one piece.
            let versions = &ended.trajectory.weight_versions;
            for version in 1..=rounds {
                prop_assert!(versions.iter().filter(|v| **v == version).count() <= allowance);
            }
        }
    }
}

/// Tokens that a waiting job has sampled.
fn sampled(job: &Job) -> usize {
    job.resume.as_ref().and_then(|s| s.tokens.as_ref()).map_or(0, |t| t.logprobs().len())
}

/// Turns that began under one version and ended under another.
fn mixed_turns(seed: u64) -> usize {
    // A long turn, paused after the first trajectory ended, goes on under the next version.
    let long = format!("{} It is a square.", "er".repeat(400));
    let mut model = ToyModel::new(&[&long, "a square"]);
    let run = Run { live: 8, ..Run::default() };
    let mut driver = Driver::new(run.batch);
    let world = run.world(&driver);
    let engine = Engine::new(8).unwrap();
    let jobs = Job::group(&samples(&world, 4), 2, seed);
    let first = engine.run(
        Some(Loan { driver: &mut driver, model: &mut model }),
        &world,
        &Control::default(),
        jobs,
        Until::Ended(1),
        &mut |_| {},
    );
    model.version = 9;
    let rest = engine.run(
        Some(Loan { driver: &mut driver, model: &mut model }),
        &world,
        &Control::default(),
        first.paused,
        Until::AllEnded,
        &mut |_| {},
    );
    assert_eq!(first.ended.len() + rest.ended.len(), 8);
    let mixed = rest.ended.iter().filter(|e| {
        let v = &e.trajectory.weight_versions;
        v.first() == Some(&1) && v.last() == Some(&9)
    });
    let count = mixed.count();
    rest.ended.iter().for_each(|e| exact(&e.trajectory, &model));
    count
}

#[test]
fn versions_change_inside_one_turn() {
    // On a busy machine the first trajectory may end before the others have begun; not ten times in a row.
    assert!((5..15).any(|seed| mixed_turns(seed) > 0));
}

#[test]
fn the_check_can_fail() {
    let mut model = ToyModel::new(&TEXTS);
    let (report, _) = Run::default().go(&mut model, 2, 2, 3);
    let mut t = report.ended[0].trajectory.clone();
    exact(&t, &model);
    // As a trainer that writes the text again would have it: another token for the same two letters.
    let at = t.mask().iter().rposition(|m| *m).unwrap();
    t.ids[at] ^= 1;
    assert!(std::panic::catch_unwind(|| exact(&t, &model)).is_err());
}

#[test]
fn a_group_reads_its_prompt_once() {
    let mut model = ToyModel::new(&["a square"]);
    let (report, driver) = Run::default().go(&mut model, 2, 8, 1);
    let prompts: usize = report.ended.iter().map(|e| e.trajectory.prompt_len()).sum();
    let stats = driver.stats();
    assert_eq!(stats.shared, 14); // two prompts were read, fourteen copied
    assert_eq!(stats.read as usize, prompts / 8 - 2);
    assert_eq!(stats.drawn as usize, report.ended.iter().map(|e| e.trajectory.sampled_len()).sum::<usize>());
}

#[test]
fn groups_come_back_in_order() {
    let mut model = ToyModel::new(&TEXTS);
    let (report, _) = Run { live: 5, ..Run::default() }.go(&mut model, 3, 4, 8);
    let groups = report.groups();
    assert_eq!(groups.len(), 3);
    for (i, group) in groups.iter().enumerate() {
        let seen: Vec<_> =
            group.iter().map(|e| (e.trajectory.sample_id.as_str(), e.trajectory.attempt)).collect();
        let id = format!("s{i}");
        assert_eq!(seen, (0..4).map(|k| (id.as_str(), k)).collect::<Vec<_>>());
    }
}

#[test]
fn limits_have_their_own_status() {
    let call = r#"<tool_call>{"name": "calculate", "arguments": {"expression": "6*7"}}</tool_call>"#;
    let status = |text: &str, edit: &dyn Fn(&mut Run)| {
        let mut run = Run::default();
        edit(&mut run);
        let mut model = ToyModel::new(&[text]);
        let (report, _) = run.go(&mut model, 1, 1, 0);
        exact(&report.ended[0].trajectory, &model);
        report.ended[0].trajectory.status
    };
    assert_eq!(status("a square", &|_| {}), Status::Answered);
    assert_eq!(status("", &|_| {}), Status::NoAnswer);
    assert_eq!(status("<think>I wonder", &|_| {}), Status::NoAnswer);
    assert_eq!(status(call, &|_| {}), Status::TruncatedTurns);
    assert_eq!(status(call, &|r| r.limits.calls = 2), Status::TruncatedCalls);
    assert_eq!(status("a square", &|r| r.limits.turn_tokens = 3), Status::TruncatedTokens);
    assert_eq!(status(call, &|r| r.limits.tokens = 100), Status::TruncatedTokens);
    assert_eq!(status("a square", &|r| r.limits.context = 20), Status::ContextFull);
    assert_eq!(status(call, &|r| r.limits.seconds = 0.0), Status::Deadline);
}

#[test]
fn a_row_that_fails_does_not_take_the_others_with_it() {
    let mut model = ToyModel::new(&["a square"]);
    model.poison = Some("picture of s1");
    let (report, _) = Run::default().go(&mut model, 4, 2, 0);
    for ended in &report.ended {
        let poisoned = ended.trajectory.sample_id == "s1";
        assert_eq!(ended.trajectory.status, if poisoned { Status::PolicyFailed } else { Status::Answered });
        assert_eq!(ended.why.is_some(), poisoned);
    }
}
