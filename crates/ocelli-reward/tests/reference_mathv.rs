//! MATH-Vision's stored outputs are reproduced row by row: extracted answer, label, and published totals. One stored
//! row of 15,200 contradicts its own program (`mathv::CONTRADICTIONS`); it is checked to be that one and no other.

mod data;

use std::collections::HashMap;

use ocelli_reward::reference::mathv;
use serde_json::Value;

#[test]
fn stored_rows_are_reproduced() {
    let Some(root) = data::root() else { return };
    let items: HashMap<String, Value> = data::jsonl(&root.join("mathv/test.jsonl"))
        .into_iter()
        .map(|row| (data::text(&row, "id"), row))
        .collect();
    let models =
        ["Gemini-Pro-CoT", "Gemini-Pro", "InternLM-XComposer2-VL-CoT", "LLaVA-v1.5-13B", "Random-Chance"];
    for model in models {
        let mut hits = 0;
        let (mut answers, mut labels) = (Vec::new(), Vec::new());
        let rows = data::jsonl(&root.join(format!("mathv/outputs/{model}.jsonl")));
        for row in &rows {
            let item = &items[&data::text(row, "id")];
            let gold = data::text(item, "answer");
            let options = data::texts(item, "options");
            let answer = mathv::extract(&data::text(row, "response"));
            if answer != data::text(row, "model_answer") {
                answers.push((answer.clone(), data::text(row, "model_answer"), data::text(row, "response")));
            }
            let correct = mathv::correct(&answer, &gold, &options);
            let id = data::text(row, "id");
            let contradicts = mathv::CONTRADICTIONS.contains(&(model, id.as_str(), correct));
            if Some(correct != contradicts) != row["correct"].as_bool() {
                labels.push((answer, gold, options, correct));
            }
            hits += usize::from(correct != contradicts);
        }
        assert!(
            answers.is_empty(),
            "{model}: {} answers differ: {:#?}",
            answers.len(),
            &answers[..answers.len().min(5)]
        );
        assert!(
            labels.is_empty(),
            "{model}: {} labels differ: {:#?}",
            labels.len(),
            &labels[..labels.len().min(9)]
        );
        let published = data::json(&root.join(format!("mathv/outputs/{model}_result.json")));
        let total = data::text(&published, "-all");
        assert!(
            total.starts_with(&format!("{hits}/{}=", rows.len())),
            "{model}: {hits} of {}, published {total}",
            rows.len()
        );
    }
}
