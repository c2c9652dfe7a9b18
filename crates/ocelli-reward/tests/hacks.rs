//! Ways to collect a reward without the answer. Each was tried by some policy or is an obvious next try. Gold answers
//! score 1, all of these 0.

use ocelli_data::Target;
use ocelli_reward::scorer::Accuracy;

fn value(response: &str, target: &Target) -> Option<f64> {
    Accuracy::default().score_text(response, target).value
}

fn targets() -> Vec<Target> {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    vec![
        Target::Math { answer: "42".into() },
        Target::Math { answer: r"\frac{3}{4}".into() },
        Target::Math { answer: r"x \in [-2,7]".into() },
        Target::Math { answer: "y = 2x + 3".into() },
        Target::Number { value: 12.5, tolerance: 0.05 },
        Target::Number { value: 2014.0, tolerance: 0.0 },
        Target::Choice { letters: strings(&["B"]), options: strings(&["red", "blue", "green"]) },
        Target::Choice { letters: strings(&["A", "C"]), options: strings(&["1", "2", "3", "4"]) },
        Target::Text { accepted: strings(&["Eiffel Tower", "the tower of Eiffel"]) },
    ]
}

#[test]
fn gold_answers_score_one() {
    for target in targets() {
        let gold = target.gold_text();
        let forms = [
            "{}",
            "The answer is {}.",
            "<think>hm</think>\n\\boxed{{}}",
            "<answer>{}</answer>",
            "Answer: {}",
        ];
        for form in forms {
            let response = form.replacen("{}", &gold, 1);
            assert_eq!(value(&response, &target), Some(1.0), "{response} for {target:?}");
        }
    }
}

#[test]
fn hacks_on_numbers_score_zero() {
    let target = Target::Math { answer: "42".into() };
    let hacks = [
        "",
        "   ",
        "\\boxed{}",
        "<answer></answer>",
        // Several answers at once.
        "\\boxed{41}, \\boxed{42}",
        "\\boxed{41} or \\boxed{42}",
        "The answer is 41, 42 or 43.",
        "\\boxed{41, 42, 43}",
        "\\boxed{\\{40, 41, 42\\}}",
        "\\boxed{42 \\pm 1}",
        "\\boxed{(41, 43)}",
        "\\boxed{41 < x < 43}",
        // An earlier guess that the response takes back.
        "The answer is 42. No, the answer is 17.",
        "\\boxed{42} wait, \\boxed{17}",
        "<answer>42</answer> then <answer>17</answer>",
        // The answer where it does not count.
        "<think>The answer is \\boxed{42}.",
        "<think>\\boxed{42}</think>",
        "<think>\\boxed{42}</think>\n\\boxed{17}",
        // Statements that are true or false whatever the answer is.
        "\\boxed{x}",
        "\\boxed{x = x}",
        "\\boxed{17 = 42}",
        "\\boxed{42 = 17}",
        "\\boxed{\\infty}",
        "\\boxed{nan}",
        "\\boxed{0/0}",
        "\\boxed{1/0}",
        "\\boxed{42 + c}",
        "\\boxed{42x}",
        "\\boxed{-42}",
        "\\boxed{42.5}",
        "\\boxed{420}",
        "\\boxed{4.2}",
        "\\boxed{42\\%}\\boxed{17}",
        "\\boxed{42i}",
        "\\boxed{42!}",
        "\\boxed{10^{10^{10^{10}}}}",
    ];
    for hack in hacks {
        let value = value(hack, &target);
        assert_ne!(value, Some(1.0), "{hack}");
        assert!(value.unwrap_or(0.0) == 0.0, "{hack}");
    }
}

#[test]
fn hacks_on_other_targets_score_zero() {
    let all = targets();
    let choice = &all[6];
    for hack in [
        "A, B, C",
        "ABC",
        "(A) (B) (C)",
        "The answer is A or B or C.",
        "B or C",
        "red blue green",
        "(B) red",
        "D",
        "none",
        "\\boxed{A}\\boxed{B}",
    ] {
        assert_eq!(value(hack, choice), Some(0.0), "{hack}");
    }
    for hack in ["A", "C", "ABC", "A, B, C, D", "BD"] {
        assert_eq!(value(hack, &all[7]), Some(0.0), "{hack}");
    }
    for hack in ["13.2", "11.8", "12.5 or 100", "nan", "inf", "1e308", "12..5"] {
        assert_eq!(value(hack, &all[4]), Some(0.0), "{hack}");
    }
    for hack in ["2015", "2013.9", "2014 or 2015", "201", "20140"] {
        assert_eq!(value(hack, &all[5]), Some(0.0), "{hack}");
    }
    for hack in ["Eiffel Tower or Big Ben", "Eiffel", "tower", "Eiffel Tower, Louvre, Big Ben, Colosseum"] {
        assert_eq!(value(hack, &all[8]), Some(0.0), "{hack}");
    }
    for hack in ["[-2,7)", "(-2,7)", "x", "(-\\infty,\\infty)", "[-2,8]", "-2,7,8"] {
        assert_ne!(value(hack, &all[2]), Some(1.0), "{hack}");
    }
    for hack in ["y = 2x + 4", "y = y", "0 = 0", "y - y = 0", "2x", "x = 2y + 3", "z = 2x + 3"] {
        assert_ne!(value(hack, &all[3]), Some(1.0), "{hack}");
    }
}
