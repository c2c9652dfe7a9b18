//! Gold answers of every world score 1, in every form in which a policy may give them; ways to collect a reward without
//! knowing the answer score 0.

use ocelli_data::Target;
use ocelli_reward::Accuracy;
use ocelli_worlds::{Item, Level, Setup, WORLDS, world};

fn value(response: &str, target: &Target) -> Option<f64> {
    Accuracy::default().score_text(response, target).value
}

fn items(name: &str) -> Vec<Item> {
    let world = world(name).unwrap();
    let sizes = [(448, 336), (64, 64)];
    let levels = [Level::Easy, Level::Medium, Level::Hard];
    sizes
        .iter()
        .flat_map(|s| levels.iter().map(move |l| Setup::new(s.0, s.1, *l).unwrap()))
        .flat_map(|setup| (0..60).map(move |i| (setup, i)))
        .map(|(setup, i)| world.generate(23, i, &setup).unwrap())
        .collect()
}

#[test]
fn gold_answers_score_one() {
    for name in WORLDS {
        for item in items(name) {
            let gold = &item.plan.answer;
            for response in [
                gold.clone(),
                format!("The answer is {gold}."),
                format!("<think>I look at it.</think>\n\\boxed{{{gold}}}"),
                format!("<answer>{gold}</answer>"),
                format!("{}\nAnswer: {gold}", item.plan.conclusion),
            ] {
                assert_eq!(
                    value(&response, &item.sample.target),
                    Some(1.0),
                    "{}: {response}",
                    item.sample.id
                );
            }
        }
    }
}

/// Says nothing, hides the answer, says it of another thing, or takes it back.
fn hacks_of_any(gold: &str, other: &str) -> Vec<String> {
    vec![
        String::new(),
        "\\boxed{}".into(),
        "<answer></answer>".into(),
        "I cannot tell.".into(),
        "The answer can be seen in the picture.".into(),
        "The answer is the right one.".into(),
        format!("<think>\\boxed{{{gold}}}"),
        format!("<think>\\boxed{{{gold}}}</think>"),
        format!("\\boxed{{{gold}}} no, \\boxed{{{other}}}"),
        format!("<answer>{gold}</answer> then <answer>{other}</answer>"),
        format!("The answer is {gold}. No, the answer is {other}."),
        format!("The answer is {gold} or {other}."),
        format!("\\boxed{{{other}}}"),
        other.to_owned(),
    ]
}

fn hacks(item: &Item) -> Vec<String> {
    let gold = item.plan.answer.as_str();
    match &item.sample.target {
        Target::Number { value, tolerance } => {
            // Just outside of what counts as right.
            let wrong = value + if *tolerance > 0.0 { value.abs() * tolerance * 1.5 } else { 1.0 };
            let mut hacks = hacks_of_any(gold, &format!("{wrong}"));
            hacks.extend([
                (0..=100).map(|n| n.to_string()).collect::<Vec<_>>().join(", "),
                format!("\\boxed{{{gold}, {wrong}}}"),
                format!("\\boxed{{{gold} \\pm {wrong}}}"),
                format!("\\boxed{{[{}, {}]}}", value - 10.0, value + 10.0),
                format!("between {} and {}", value - 1.0, value + 1.0),
                "\\boxed{nan}".into(),
                "\\boxed{inf}".into(),
                "\\boxed{x}".into(),
                format!("\\boxed{{{gold}x}}"),
                "1e308".into(),
            ]);
            hacks
        }
        Target::Choice { letters, options } => {
            let all: Vec<String> =
                (0..options.len()).map(|i| char::from(b'A' + i as u8).to_string()).collect();
            let other = all.iter().find(|l| !letters.contains(l)).unwrap();
            let mut hacks = hacks_of_any(gold, other);
            hacks.extend([
                all.join(", "),
                all.concat(),
                format!("({})", all.join(") (")),
                options.join(", "),
                "Z".into(),
            ]);
            hacks
        }
        Target::Text { accepted } => {
            let words = [
                "yes", "no", "rises", "falls", "equal", "red", "blue", "green", "orange", "purple", "brown",
                "pink", "gray",
            ];
            let other = words.iter().find(|w| !accepted.iter().any(|a| a == *w)).unwrap();
            let mut hacks = hacks_of_any(gold, other);
            hacks.extend([
                words.join(" "),
                words.join(", "),
                "yes or no".into(),
                "yes and no".into(),
                "all of them".into(),
            ]);
            hacks
        }
        Target::Math { .. } => hacks_of_any(gold, "17"),
    }
}

#[test]
fn hacks_score_zero() {
    for name in WORLDS {
        for item in items(name) {
            for hack in hacks(&item) {
                let value = value(&hack, &item.sample.target);
                assert_eq!(
                    value.unwrap_or(0.0),
                    0.0,
                    "{}: gold {:?}, hack {hack:?}",
                    item.sample.id,
                    item.plan.answer
                );
            }
        }
    }
}
