//! Input made to exhaust stack, memory or time. Every verdict comes back within its budget, without a panic.

use ocelli_data::Target;
use ocelli_reward::choice::verify_choice;
use ocelli_reward::extract::{LADDER, extract};
use ocelli_reward::format::tool_calls;
use ocelli_reward::scorer::Accuracy;
use ocelli_reward::verify::{Outcome, Policy, verify};
use ocelli_reward::{normalise_unicode, reference};
use proptest::prelude::*;

fn corpus() -> Vec<String> {
    let big = |s: &str, n: usize| s.repeat(n);
    vec![
        big("(", 100_000),
        big("{", 100_000),
        big("\\{", 100_000),
        big("\\frac{1}{", 100_000),
        big("\\sqrt", 2_000),
        big("\\sqrt{", 600),
        big("\\frac", 700),
        big("-", 4_000),
        big("+", 4_000),
        big("!", 4_000),
        format!("5{}", big("!", 4_000)),
        big("^", 4_000),
        format!("2{}", big("^2", 1_500)),
        big("2^{", 1_000),
        big("|", 4_000),
        big("\\left|", 600),
        big("x_", 2_000),
        big("1,", 2_000),
        big("1:", 2_000),
        big("x=", 2_000),
        big("\\pm", 1_000),
        big("\\pm 1,", 500),
        big("9", 4_000),
        format!("{}^{{{}}}", big("9", 900), big("9", 900)),
        format!("0.{}1", big("0", 3_000)),
        "10^{10^{10^{10}}}".into(),
        "9^{9^{9^{9^{9}}}} + 1".into(),
        "99999!".into(),
        "(((10!)!)!)!".into(),
        "\\binom{10^9}{5 \\cdot 10^8}".into(),
        "2^{1000000000000}".into(),
        "(1+10^{-300})^{10^{300}}".into(),
        "e^{e^{e^{e^{e}}}}".into(),
        "\\sin(10^{10^{10}})".into(),
        "\\sqrt[1000000]{2}".into(),
        "1e9999".into(),
        format!("\\begin{{pmatrix}}{}\\end{{pmatrix}}", big("1&", 1_000)),
        big("\\begin{matrix}", 200),
        big("\\int", 800),
        big("f(", 1_500),
        big("\\sin", 900),
        format!("\\boxed{{{}", big("\\boxed{", 10_000)),
        big("\\boxed{1}, ", 10_000),
        big("answer is ", 20_000),
        big("<answer>", 20_000),
        big("$", 50_000),
        big("\\", 50_000),
        big("\u{0}", 1_000),
        big("½", 2_000),
        big("²", 4_000),
        big("（", 2_000),
        big("选", 20_000),
        "\u{202e}42\u{202c}".into(),
        big("a_{1}^{2}", 500),
        (0..500).map(|i| format!("x_{{{i}}}+")).collect(),
        big("x+", 1_500) + "x",
        big("(x+1)", 800),
        big("1/(1+", 600),
        big("<tool_call>{", 2_000),
        format!("<tool_call>{}</tool_call>", big("[", 60_000)),
    ]
}

#[test]
fn hostile_corpus_comes_back() {
    let options: Vec<String> = ["2", "\\frac{1}{2}", "10^{10}"].map(String::from).to_vec();
    for text in corpus() {
        for gold in ["42", "x^2+1", "\\sqrt{2}+e^{x}", &text] {
            let verdict = verify(gold, &text, &Policy::default());
            assert!(
                gold == text || verdict.outcome != Outcome::Equal,
                "{gold} and {}",
                &text[..text.len().min(40)]
            );
            verify(&text, gold, &Policy::default());
        }
        let _ = extract(&text, &LADDER);
        verify_choice(&["B".to_owned()], &options, &text);
        Accuracy::default().score_text(&text, &Target::Text { accepted: vec!["a text".into()] });
        tool_calls(&text);
        reference::mathv::equal(&reference::mathv::extract(&text), "42");
        reference::csvqa::extract(&text);
        reference::emma::extract(&text, reference::emma::Program::Released);
        reference::mmmu::open_readings(&text);
        reference::gsm8k::flexible(&text);
    }
}

#[test]
fn megabytes_come_back() {
    let text = format!("{} The answer is $42$.", "word ".repeat(1_000_000));
    let verdict = ocelli_reward::verify::verify_response("42", &text, &LADDER, &Policy::default());
    assert_eq!(verdict.outcome, Outcome::Equal);
    let text = "1+".repeat(2_000_000);
    assert_ne!(verify("42", &text, &Policy::default()).outcome, Outcome::Equal);
}

/// Pieces of mathematics in any order: most are nonsense, all must be read without a panic.
fn fragments() -> impl Strategy<Value = String> {
    let pieces = [
        "\\frac",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "1",
        "12",
        "0",
        ".5",
        "3.14",
        "x",
        "y_1",
        "\\pi",
        "e",
        "i",
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        "\\sqrt",
        "\\{",
        "\\}",
        ",",
        ";",
        ":",
        "=",
        "<",
        "\\le",
        "\\in",
        "\\cup",
        "\\infty",
        "\\pm",
        "%",
        "\\%",
        "^\\circ",
        "!",
        "|",
        "\\text{cm}",
        "\\log",
        "\\sin",
        "\\binom",
        "\\overline{3}",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "&",
        "\\\\",
        " ",
        "$",
        "m",
        "km",
        "and",
        "A",
        "(B)",
        "\\left(",
        "\\right)",
        "选",
        "½",
        "\\boxed{",
        "answer is",
        "\n",
        "'",
        "f(",
        "\\int",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..24).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_fragments_are_read(a in fragments(), b in fragments()) {
        let forth = verify(&a, &b, &Policy::default()).outcome;
        let back = verify(&b, &a, &Policy::default()).outcome;
        // Order matters only through the digits that the gold answer states.
        let contrary = forth == Outcome::Equal && back == Outcome::Different;
        prop_assert!(!contrary || a.contains('.') || b.contains('.'), "{a} | {b}");
        let _ = extract(&a, &LADDER);
    }

    #[test]
    fn any_text_is_read(text in "\\PC{0,200}") {
        verify(&text, "1", &Policy::default());
        let _ = extract(&text, &LADDER);
        normalise_unicode(&text);
        verify_choice(&["A".to_owned()], &[], &text);
        reference::mathv::extract(&text);
        reference::mmmu::open_readings(&text);
        tool_calls(&text);
    }

    #[test]
    fn a_text_equals_itself(text in "[a-zA-Z0-9+*/^(){}=,. -]{1,40}") {
        let outcome = verify(&text, &text, &Policy::default()).outcome;
        prop_assert!(outcome != Outcome::Different || text.trim_matches([' ', '.', ',']).is_empty() || text.contains('='), "{text}");
    }
}
