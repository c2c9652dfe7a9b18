//! The sample buffer: what enters, what leaves, what is drawn, and that it survives a checkpoint.

#![allow(clippy::unwrap_used)]

use ocelli_train::advantages::{Advantage, group_advantages};
use ocelli_train::buffer::*;
use ocelli_train::calibrate::{operating_points, threshold_for};
use ocelli_train::monitors::{Monitor, Monitors, Rule};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn add(buffer: &mut SampleBuffer<u32>, config: &BufferConfig, prompt: &str, rewards: &[f64], version: u64) {
    add_as(Advantage::Standardised { epsilon: 0.0 }, buffer, config, prompt, rewards, version);
}

fn add_as(
    kind: Advantage,
    buffer: &mut SampleBuffer<u32>,
    config: &BufferConfig,
    prompt: &str,
    rewards: &[f64],
    version: u64,
) {
    let (a, stats) = group_advantages(kind, rewards).unwrap();
    let members: Vec<_> = rewards
        .iter()
        .zip(a)
        .enumerate()
        .map(|(i, (r, a))| (version as u32 * 100 + i as u32, *r, a))
        .collect();
    buffer.insert(config, prompt, members, &stats, version);
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

#[test]
fn only_informative_groups_enter() {
    let (mut b, c) = (SampleBuffer::default(), BufferConfig::default());
    add(&mut b, &c, "a", &[0.95; 8], 0);
    assert!(b.is_empty());
    add(&mut b, &c, "b", &[1.0, 0.0, 0.0, 0.0], 0);
    assert_eq!(b.len(), 4);
    // A member exactly at the mean carries no gradient.
    add(&mut b, &c, "c", &[1.0, 0.5, 0.0], 0);
    assert_eq!(b.len(), 6);
}

#[test]
fn age_capacity_and_prompt_limits() {
    let c = BufferConfig { capacity: 3, max_age: 2, per_prompt: 2, ..BufferConfig::default() };
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "a", &[1.0, 0.0, 0.0, 0.0], 0); // |A| = 1.5, 0.5, 0.5, 0.5
    // Two of the prompt stay: the rare winner, and of the equal losers the youngest.
    assert_eq!(b.entries().iter().map(|e| e.item).collect::<Vec<_>>(), [0, 3]);
    add(&mut b, &c, "b", &[1.0, 1.0, 0.0, 0.0], 1); // |A| = 0.866 each
    assert_eq!(b.entries().iter().map(|e| e.item).collect::<Vec<_>>(), [0, 102, 103]);
    b.expire(&c, 2);
    assert_eq!(b.len(), 3, "age 2 may stay");
    b.expire(&c, 3);
    assert_eq!(b.entries().iter().map(|e| e.item).collect::<Vec<_>>(), [102, 103]);
}

#[test]
fn the_batch_is_filled_without_repetition() {
    let c = BufferConfig::default();
    let mut b = SampleBuffer::default();
    for (p, v) in [("a", 0), ("b", 1), ("c", 2)] {
        add(&mut b, &c, p, &[1.0, 0.0, 0.0, 0.0], v);
    }
    let (drawn, report) = b.fill(&c, 16, 8, 4, 0.0, &mut rng());
    assert_eq!((drawn.len(), report.fill, report.fresh_share), (8, 1.0, 0.5));
    let names: std::collections::BTreeSet<u32> = drawn.iter().map(|d| d.item).collect();
    assert_eq!(names.len(), 8);
    let (all, report) = b.fill(&c, 64, 8, 4, 0.0, &mut rng());
    assert_eq!((all.len(), report.fill), (12, 20.0 / 64.0));
    // Ages 4, 3, 2, four times each: the median is the sixth of twelve, the 95th percentile the twelfth.
    assert_eq!((report.age_p50, report.age_p95), (3.0, 4.0));
    let (none, report) = b.fill(&c, 8, 9, 4, 0.0, &mut rng());
    assert_eq!((none.len(), report.fill), (0, 1.0));
}

#[test]
fn frequencies_follow_the_priority() {
    // One draw from |A| = 1.5 and three times 0.5: the winner has probability 1.5 / 3.
    let mut b = SampleBuffer::default();
    let c = BufferConfig::default();
    add(&mut b, &c, "a", &[1.0, 0.0, 0.0, 0.0], 0);
    let share = |config: &BufferConfig| {
        let mut rng = rng();
        let hits = (0..4000).filter(|_| b.fill(config, 1, 0, 0, 0.0, &mut rng).0[0].item == 0).count();
        hits as f64 / 4000.0
    };
    // Standard deviation of the share is at most 0.008.
    assert!((share(&c) - 0.5).abs() < 0.03);
    assert!((share(&BufferConfig { alpha: 0.0, ..c }) - 0.25).abs() < 0.03);
    // alpha 2: 2.25 / (2.25 + 0.75).
    assert!((share(&BufferConfig { alpha: 2.0, ..c }) - 0.75).abs() < 0.03);
}

#[test]
fn age_decays_the_priority() {
    let c = BufferConfig { decay: 0.5, per_prompt: 1, ..BufferConfig::default() };
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "old", &[1.0, 0.0], 0);
    add(&mut b, &c, "new", &[1.0, 0.0], 2);
    let mut rng = rng();
    let new = (0..4000).filter(|_| b.fill(&c, 1, 0, 2, 0.0, &mut rng).0[0].prompt == "new").count();
    // Weights 1 and 0.25.
    assert!((new as f64 / 4000.0 - 0.8).abs() < 0.03, "{new}");
}

#[test]
fn whole_groups_are_drawn_together_and_prefer_even_splits() {
    let c = BufferConfig { unit: Unit::Group, ..BufferConfig::default() };
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "rare", &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0); // sum |A| = 4.95
    add(&mut b, &c, "even", &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], 0); // sum |A| = 7.48
    let mut rng = rng();
    let mut even = 0;
    for _ in 0..2000 {
        let (drawn, _) = b.fill(&c, 8, 0, 0, 0.0, &mut rng);
        assert_eq!(drawn.len(), 8);
        assert!(drawn.iter().all(|d| d.prompt == drawn[0].prompt));
        even += usize::from(drawn[0].prompt == "even");
    }
    assert!((even as f64 / 2000.0 - 7.48 / 12.43).abs() < 0.04, "{even}");
    // A group that does not fit is not cut.
    assert_eq!(b.fill(&c, 7, 0, 0, 0.0, &mut rng).0.len(), 0);
}

#[test]
fn importance_correction_by_hand() {
    // p = 1/2 and three times 1/6 of N = 4: (N p)^-1 = 0.5 and 1.5, divided by the largest.
    let c = BufferConfig { correction: Some(1.0), ..BufferConfig::default() };
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "a", &[1.0, 0.0, 0.0, 0.0], 0);
    let (drawn, _) = b.fill(&c, 4, 0, 0, 0.0, &mut rng());
    for d in drawn {
        let expected = if d.item == 0 { 1.0 / 3.0 } else { 1.0 };
        assert!((d.weight - expected).abs() < 1e-12, "{d:?}");
    }
    // b = 0 at the start of an annealed run weighs all alike.
    let c = BufferConfig { correction: Some(0.0), ..c };
    assert!(b.fill(&c, 4, 0, 0, 0.0, &mut rng()).0.iter().all(|d| d.weight == 1.0));
    assert!(b.fill(&c, 4, 0, 0, 1.0, &mut rng()).0.iter().any(|d| d.weight < 0.5));
}

#[test]
fn advantages_can_follow_the_prompt_on_their_own_scale() {
    let c = BufferConfig { refresh: Refresh::PromptMean, ..BufferConfig::default() };
    // Of rewards 1 and 0.5 (mean 0.75, deviation 0.353553); the prompt is solved by now, latest mean 1: an old winner is worth
    // nothing, the loser is -0.5 away, which is divided by nothing, by (n - 1) / n = 1/2, by the deviation, by the mean.
    for (kind, expected) in [
        (Advantage::Centred, -0.5),
        (Advantage::LeaveOneOut, -1.0),
        (Advantage::Standardised { epsilon: 0.0 }, -0.5 / 0.353_553_390_593_273_8),
        (Advantage::Standardised { epsilon: 1.0 }, -0.5 / 1.353_553_390_593_273_8),
        (Advantage::MeanScaled, -0.5 / 0.75),
    ] {
        let mut b = SampleBuffer::default();
        add_as(kind, &mut b, &c, "a", &[1.0, 0.5], 0);
        add_as(kind, &mut b, &c, "a", &[1.0, 1.0], 1);
        let (drawn, _) = b.fill(&c, 2, 0, 1, 0.0, &mut rng());
        let of = |item| drawn.iter().find(|d| d.item == item).map(|d| d.advantage).unwrap();
        assert_eq!(of(0), 0.0);
        assert!((of(1) - expected).abs() < 1e-12, "{kind:?}: {} against {expected}", of(1));
    }
}

#[test]
fn groups_enter_and_leave_whole() {
    let groups = |b: &SampleBuffer<u32>| {
        let mut sums = std::collections::BTreeMap::<u64, (usize, f64)>::new();
        for e in b.entries() {
            let sum = sums.entry(e.group).or_default();
            (sum.0, sum.1) = (sum.0 + 1, sum.1 + e.advantage);
        }
        assert!(sums.values().all(|(n, sum)| *n == 4 && sum.abs() < 1e-12), "{sums:?}");
        sums.into_keys().collect::<Vec<_>>()
    };
    // sum |A|: 3 for one of four right, 3.46 for two. Room for two groups and a half.
    let c = BufferConfig { unit: Unit::Group, capacity: 10, ..BufferConfig::default() };
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "a", &[1.0, 0.0, 0.0, 0.0], 0);
    add(&mut b, &c, "b", &[1.0, 1.0, 0.0, 0.0], 1);
    add(&mut b, &c, "c", &[1.0, 0.0, 0.0, 0.0], 2);
    // Of the equal ones the youngest stays.
    assert_eq!(groups(&b), [1, 2]);
    // Of one prompt six responses: one group.
    let c = BufferConfig { per_prompt: 6, ..c };
    add(&mut b, &c, "b", &[1.0, 1.0, 0.0, 0.0], 3);
    assert_eq!(groups(&b), [2, 3]);
    // A group that has no room at all takes none from others.
    let c = BufferConfig { per_prompt: 3, ..c };
    add(&mut b, &c, "d", &[1.0, 1.0, 0.0, 0.0], 4);
    assert_eq!(b.len(), 0, "no group of four fits three places of a prompt");
}

#[test]
fn draws_of_one_fill_are_without_replacement() {
    // Priorities 1.5 and three times 0.5. The winner is among two draws with probability 1/2 + 3 (1/6) 1.5 / 2.5 = 0.8 (with
    // replacement 0.75); the weights of the importance correction are those of the first draw.
    let c = BufferConfig { correction: Some(1.0), ..BufferConfig::default() };
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "a", &[1.0, 0.0, 0.0, 0.0], 0);
    let mut rng = rng();
    let mut hits = 0;
    for _ in 0..10_000 {
        let (drawn, _) = b.fill(&c, 2, 0, 0, 0.0, &mut rng);
        assert_ne!(drawn[0].item, drawn[1].item);
        if let Some(winner) = drawn.iter().find(|d| d.item == 0) {
            hits += 1;
            assert!((winner.weight - 1.0 / 3.0).abs() < 1e-12);
        }
    }
    // The standard deviation of the share is 0.004.
    assert!((f64::from(hits) / 10_000.0 - 0.8).abs() < 0.016, "{hits}");
}

#[test]
fn a_checkpoint_restores_it_to_the_bit() {
    let c = BufferConfig::default();
    let mut b = SampleBuffer::default();
    add(&mut b, &c, "a", &[0.1 + 0.2, 1.0 / 3.0, 0.7], 3);
    let copy: SampleBuffer<u32> = serde_json::from_str(&serde_json::to_string(&b).unwrap()).unwrap();
    assert_eq!(copy, b);
    let draw = |b: &SampleBuffer<u32>| b.fill(&c, 2, 0, 4, 0.5, &mut rng()).0;
    assert_eq!(draw(&copy), draw(&b));
}

#[test]
fn thresholds_by_hand() {
    let points = operating_points(&[1.0, 4.0, 3.0, 3.0], &[false, true, true, false]).unwrap();
    let seen: Vec<_> = points.iter().map(|p| (p.threshold, p.kept, p.precision, p.recall)).collect();
    assert_eq!(seen, [(1.0, 4, 0.5, 1.0), (3.0, 3, 2.0 / 3.0, 1.0), (4.0, 1, 1.0, 0.5)]);
    assert_eq!(threshold_for(&points, 0.6, 2).unwrap().threshold, 3.0);
    assert_eq!(threshold_for(&points, 0.9, 2), None);
    assert!(operating_points(&[f64::NAN], &[true]).is_err());
}

#[test]
fn monitors_raise_once_per_episode() {
    let monitors =
        vec![Monitor { metric: "x".into(), rule: Rule::Below(1.0), window: 2, advice: "look".into() }];
    let mut m = Monitors::default();
    let mut alarms = |step, value| m.observe(&monitors, "grpo", step, "x", value).len();
    // Means over two steps: -, 2, 1.25, 0.5!, 0.5, 1.75, 3, 1.75, 0.5!
    let seen: Vec<usize> = [2.0, 2.0, 0.5, 0.5, 0.5, 3.0, 3.0, 0.5, 0.5]
        .iter()
        .enumerate()
        .map(|(i, v)| alarms(i as u64, *v))
        .collect();
    assert_eq!(seen, [0, 0, 0, 1, 0, 0, 0, 0, 1]);
    let mut risen = Monitors::default();
    let rule =
        vec![Monitor { metric: "y".into(), rule: Rule::RisenBy(1.0), window: 1, advice: String::new() }];
    let counts: Vec<usize> =
        [5.0, 5.5, 6.5].iter().map(|v| risen.observe(&rule, "s", 0, "y", *v).len()).collect();
    assert_eq!(counts, [0, 0, 1]);
    let copy: Monitors = serde_json::from_str(&serde_json::to_string(&risen).unwrap()).unwrap();
    assert_eq!(copy, risen);
}

#[test]
fn clipped_replays_raise_an_alarm() {
    let (defaults, mut m) = (Monitor::defaults(), Monitors::default());
    let alarms: usize =
        (0..10).map(|step| m.observe(&defaults, "grpo", step, "buffer/clip_fraction", 0.4).len()).sum();
    assert_eq!(alarms, 1);
    // Every default monitor is named once.
    let names: std::collections::BTreeSet<&str> = defaults.iter().map(|m| m.metric.as_str()).collect();
    assert_eq!(names.len(), defaults.len());
}
