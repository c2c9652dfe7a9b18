//! Agreement of strict verdicts with MATH-Vision's stored labels, and the rows where they differ.

mod data;

use std::collections::HashMap;

use ocelli_reward::choice::verify_choice;
use ocelli_reward::extract::LADDER;
use ocelli_reward::verify::{Outcome, Policy, verify_response};
use serde_json::Value;

#[test]
fn agreement_with_stored_labels() {
    let Some(root) = data::root() else { return };
    let items: HashMap<String, Value> = data::jsonl(&root.join("mathv/test.jsonl"))
        .into_iter()
        .map(|row| (data::text(&row, "id"), row))
        .collect();
    let (mut total, mut agree) = (0, 0);
    let (mut yes_but_no, mut no_but_yes) = (Vec::new(), Vec::new());
    for model in
        ["Gemini-Pro-CoT", "Gemini-Pro", "InternLM-XComposer2-VL-CoT", "LLaVA-v1.5-13B", "Random-Chance"]
    {
        for row in data::jsonl(&root.join(format!("mathv/outputs/{model}.jsonl"))) {
            let item = &items[&data::text(&row, "id")];
            let (gold, options) = (data::text(item, "answer"), data::texts(item, "options"));
            let response = data::text(&row, "response");
            let verdict = if options.is_empty() {
                verify_response(&gold, &response, &LADDER, &Policy::default())
            } else {
                verify_choice(std::slice::from_ref(&gold), &options, &response)
            };
            let (ours, label) = (verdict.outcome == Outcome::Equal, row["correct"] == true);
            total += 1;
            agree += usize::from(ours == label);
            if ours != label {
                let tail: String =
                    response.chars().rev().take(160).collect::<Vec<_>>().into_iter().rev().collect();
                let line = format!(
                    "{model} {} gold={gold} {options:?} ours={:?}/{:?} [{}] label={label} model_answer={} ...{tail:?}",
                    data::text(&row, "id"),
                    verdict.answer.text,
                    verdict.rung,
                    verdict.rule,
                    row["model_answer"],
                );
                if ours { yes_but_no.push(line) } else { no_but_yes.push(line) }
            }
        }
    }
    let listing = std::env::var("OCELLI_LIST").is_ok();
    if listing {
        println!("== ours right, label wrong: {}\n{}", yes_but_no.len(), yes_but_no.join("\n"));
        println!("== ours wrong, label right: {}\n{}", no_but_yes.len(), no_but_yes.join("\n"));
    }
    println!("agree {agree}/{total} yes_but_no {} no_but_yes {}", yes_but_no.len(), no_but_yes.len());
    assert!(agree * 1000 >= total * 962, "{agree} of {total}");
}
