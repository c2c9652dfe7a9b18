//! MathVista's stored outputs: prediction from extraction, and label, for all 5 x 1,000 rows.

mod data;

use ocelli_reward::reference::mathvista::{Integers, Question, correct, prediction};

#[test]
fn stored_rows_are_reproduced() {
    let Some(root) = data::root() else { return };
    // Right answers per file, as stored.
    let files = [
        ("bard", 348),
        ("gpt4_2shot_solution", 292),
        ("idefics_9b_instruct", 198),
        ("llava_llama_2_13b", 261),
        ("random_guess", 179),
    ];
    for (name, expected) in files {
        let file = data::json(&root.join(format!("mathvista/results/output_{name}.json")));
        let rows = file.as_object().unwrap();
        assert_eq!(rows.len(), 1000);
        let mut wrong = Vec::new();
        let mut hits = 0;
        for (pid, row) in rows {
            let choices = data::texts(row, "choices");
            let question = Question {
                choices: &choices,
                question_type: row["question_type"].as_str().unwrap(),
                answer_type: row["answer_type"].as_str().unwrap(),
                integers: Integers::Digits,
                precision: row["precision"].as_f64().map(|p| p as usize),
            };
            let read = prediction(row["extraction"].as_str().unwrap(), question);
            let label = correct(read.as_deref(), row["answer"].as_str().unwrap());
            hits += usize::from(label);
            if read.as_deref() != row["prediction"].as_str() || Some(label) != row["true_false"].as_bool() {
                wrong.push((
                    pid,
                    row["extraction"].clone(),
                    read,
                    row["prediction"].clone(),
                    row["precision"].clone(),
                ));
            }
        }
        assert!(wrong.is_empty(), "{name}: {} rows differ: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
        assert_eq!(hits, expected, "{name}");
    }
}
