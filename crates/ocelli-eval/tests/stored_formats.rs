//! Files of stored outputs in the layouts in which they are found, and what is said about files in none of them.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ocelli_agent::endpoint::Outcome;
use ocelli_eval::declare::{Format, StoredFormat, Task};
use ocelli_eval::evaluate::{Evaluation, Extra, rescore};
use ocelli_eval::load::{Images, LoadError, Pictures, Place, Row, Table, fingerprint, load};
use ocelli_eval::stored::{read_stored, sniff};
use serde_json::{Value, json};

/// Rescores a text under a file name; the data set, where one is needed, has three items named 1, 2 and 3.
fn rescored(task: &str, name: &str, text: &str, given: Option<&StoredFormat>) -> Result<Evaluation, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let task = Task::parse(task).unwrap();
    let table = || -> Result<Table, LoadError> {
        std::fs::create_dir_all(dir.path().join("math")).unwrap();
        let rows: String = (1..=3)
            .map(|i| json!({"problem": format!("What is {i} + {i}?"), "answer": (2 * i).to_string(), "id": i.to_string()}).to_string() + "\n")
            .collect();
        for file in ["gsm8k_test.jsonl", "math500.jsonl", "aime_2024.jsonl"] {
            std::fs::write(dir.path().join("math").join(file), &rows).unwrap();
        }
        load(&task, dir.path(), dir.path(), Pictures::Ignore)
    };
    let stored = read_stored(&task, &path, given, table).map_err(|e| e.to_string())?;
    Ok(rescore(&task, &stored, name, &Extra::default()).unwrap())
}

/// EMMA's published result files, where `OCELLI_EMMA` names a folder that holds them: every stored label is recomputed.
#[test]
fn published_emma_files() {
    let Some(dir) = std::env::var_os("OCELLI_EMMA") else {
        println!("skipped: OCELLI_EMMA does not name a folder of EMMA's result files");
        return;
    };
    let mut files: Vec<std::path::PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| {
        f.extension().is_some_and(|e| e == "json") && !f.to_string_lossy().ends_with("_result.json")
    });
    assert!(!files.is_empty());
    let task = Task::parse("emma").unwrap();
    let mut wrong = Vec::new();
    for file in files {
        let stored = read_stored(&task, &file, None, || {
            load(&task, Path::new("none"), Path::new("none"), Pictures::Ignore)
        })
        .unwrap();
        let e = rescore(&task, &stored, "file", &Extra::default()).unwrap();
        let labels = e.summary.labels.unwrap();
        assert_eq!(labels.compared, e.records.len(), "{}", file.display());
        wrong.extend(labels.contradictions.into_iter().map(|c| (file.file_name().unwrap().to_owned(), c)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One EMMA item with what a program stored about it.
fn emma(pid: &str, more: Value) -> Value {
    let mut row = json!({
        "pid": pid, "question": "Which one? <image_1>", "options": "['one', 'two']", "answer": "B", "subject": "Math",
        "type": "Multiple Choice", "category": "2D Transformation", "task": "", "context": "",
    });
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

fn emma_file(rows: &[Value]) -> String {
    let map: serde_json::Map<String, Value> =
        rows.iter().map(|r| (r["pid"].as_str().unwrap().to_owned(), r.clone())).collect();
    serde_json::to_string_pretty(&map).unwrap()
}

#[test]
fn emma_with_extractions() {
    let file = emma_file(&[
        emma("m1", json!({"response": "so \\boxed{B}", "extraction": "B", "true_false": true})),
        emma("m2", json!({"response": "so \\boxed{A}", "extraction": "A", "true_false": false})),
        emma("m3", json!({"response": null, "extraction": null, "true_false": false})),
    ]);
    let e = rescored("emma-mini", "f.json", &file, None).unwrap();
    let labels = e.summary.labels.unwrap();
    assert_eq!((labels.compared, labels.published_right, labels.contradictions.len()), (3, 1, 0));
    assert_eq!((e.summary.reference.credit, e.summary.reference.n), (1.0, 3));
    assert_eq!(e.summary.outcomes[&Outcome::Failed], 1);
    assert!(e.summary.notes.iter().any(|n| n.contains("EMMA result file")), "{:?}", e.summary.notes);
}

/// Three of the replies are as the published program stored them: it counts the second and the third as wrong.
#[test]
fn emma_with_replies_of_a_judge() {
    let file = emma_file(&[
        emma("p1", json!({"response": "\\boxed{B}", "gpt_eval": "Correct", "true_false": true})),
        emma("p2", json!({"response": "\\boxed{B}", "gpt_eval": "Correct.", "true_false": false})),
        emma(
            "p3",
            json!({"response": "\\boxed{B}", "gpt_eval": "**Correct_or_not: Correct**", "true_false": false}),
        ),
        emma("p4", json!({"response": "\\boxed{A}", "gpt_eval": "Incorrect", "true_false": false})),
    ]);
    let e = rescored("emma", "f.json", &file, None).unwrap();
    assert_eq!(e.summary.labels.unwrap().contradictions, [], "reference mode reads the replies as published");
    let judge = e.summary.judge.unwrap();
    assert_eq!((judge.asked, judge.official_right, judge.tolerant_right, judge.unparsed), (4, 1, 3, 0));
    assert_eq!(e.summary.strict.credit, 3.0, "the strict rule reads the responses");
    // The same replies in a run of ours that lets the judge decide.
    assert_eq!(Task::parse("emma:judge").unwrap().axes["scoring"], "judge");
}

#[test]
fn emma_samples_rewards_votes_and_best_of() {
    let samples = |rewards: Value| {
        let mut more = json!({"response_0": "\\boxed{A}", "response_1": "\\boxed{B}", "response_2": "\\boxed{B}", "response_3": null});
        if !rewards.is_null() {
            more["score_list"] = rewards;
        }
        emma_file(&[emma("m1", more.clone()), emma("m2", more)])
    };
    let e = rescored("emma-mini", "f.json", &samples(Value::Null), None).unwrap();
    assert_eq!((e.summary.items, e.summary.samples, e.records.len()), (2, 4, 8));
    let curves = e.summary.curves.unwrap();
    // Two of four are right: pass@2 = 1 - C(2,2)/C(4,2).
    assert!((curves.k[1].pass.mean - (1.0 - 1.0 / 6.0)).abs() < 1e-12);
    assert!(curves.k[2].best_of.is_none());
    // The highest of all four rewards stands on a right answer.
    let e = rescored("emma-mini", "f.json", &samples(json!([0.5, 2, -1, 0])), None).unwrap();
    assert_eq!(e.summary.curves.unwrap().k[2].best_of.unwrap().mean, 1.0);
    let bad = samples(json!([0.5, "high", -1, 0]));
    let message = rescored("emma-mini", "f.json", &bad, None).unwrap_err();
    assert!(message.contains("row 1") && message.contains("not a finite number"), "{message}");

    let vote = json!({"response_0": "\\boxed{A}", "extraction_list": ["A", "B", "B"], "extraction": "B", "true_false": true});
    let e = rescored("emma-mini", "f.json", &emma_file(&[emma("m1", vote)]), None).unwrap();
    assert_eq!((e.summary.reference.credit, e.summary.strict.credit), (1.0, 1.0), "{:?}", e.records[0]);
    let best = json!({"response_0": "\\boxed{A}", "best_response": "\\boxed{B}", "extraction": "B", "score_list": [1, 5], "true_false": true});
    let e = rescored("emma-mini", "f.json", &emma_file(&[emma("m1", best)]), None).unwrap();
    assert_eq!((e.summary.reference.credit, e.summary.labels.unwrap().contradictions.len()), (1.0, 0));
}

#[test]
fn mmmu_files() {
    let row = |id: &str, answer: Value, response: &str| json!({"id": id, "question_type": "multiple-choice", "answer": answer, "all_choices": ["A", "B"], "index2ans": {"A": "$6", "B": "$7"}, "response": response});
    let file = serde_json::to_string_pretty(&json!([
        row("v1", json!("B"), "B"),
        row("v2", json!("A"), "The answer is (B).")
    ]))
    .unwrap();
    let e = rescored("mmmu", "output.json", &file, None).unwrap();
    assert_eq!((e.summary.reference.credit, e.summary.strict.credit, e.summary.items), (1.0, 1.0, 2));
    let row = |id: &str, right: bool| json!({"id": id, "question": "Q", "options": "['a', 'b']", "answer": "A", "subject": "History", "response": "Answer: A", "pred_indexs": "A", "if_right": right});
    let file = format!("{}\n{}\n", row("t1", true), row("t2", false));
    let e = rescored("mmmu-pro", "output.jsonl", &file, None).unwrap();
    let found = e.summary.labels.unwrap().contradictions;
    assert_eq!(found, [("t2".to_owned(), false, true, "A".to_owned())], "a wrong label is named");
}

/// Two versions of the official program read `1.5` as no integer and as 1; the stored prediction shows which it was.
#[test]
fn mathvista_files_of_both_versions() {
    let row = |pid: &str, prediction: Value, right: bool| json!({"pid": pid, "question": "How many?", "choices": null, "answer": "1", "question_type": "free_form", "answer_type": "integer", "response": "It is 1.5.", "extraction": "1.5", "prediction": prediction, "true_false": right});
    let file = json!({"1": row("1", Value::Null, false), "2": row("2", json!("1"), true)});
    let e =
        rescored("mathvista", "output.json", &serde_json::to_string_pretty(&file).unwrap(), None).unwrap();
    let labels = e.summary.labels.unwrap();
    assert_eq!((labels.compared, labels.published_right, labels.contradictions.len()), (2, 1, 0));
}

#[test]
fn any_rows_with_a_name_and_a_response() {
    let rows = |name: &str, response: &str| -> Vec<Value> {
        (1..=3)
            .map(|i| json!({name: i, response: format!("The answer is {}.", 2 * i), "correct": i != 3}))
            .collect()
    };
    let lines = |rows: &[Value]| rows.iter().map(|r| format!("{r}\n")).collect::<String>();
    let map: serde_json::Map<String, Value> =
        (1..=3).map(|i| (i.to_string(), json!({"output": format!("The answer is {}.", 2 * i)}))).collect();
    let files = [
        ("a.jsonl", lines(&rows("question_id", "output"))),
        ("a.json", serde_json::to_string_pretty(&rows("id", "response")).unwrap()),
        ("b.json", serde_json::to_string(&rows("id", "model_output")).unwrap()),
        ("c.json", serde_json::to_string_pretty(&map).unwrap()),
        ("d.json", serde_json::to_string(&map).unwrap()),
        (
            "e.tsv",
            "id\tcompletion\n1\tThe answer is 2.\n2\tThe answer is 4.\n3\tThe answer is 6.\n".to_owned(),
        ),
    ];
    for (name, text) in files {
        let e = rescored("aime24", name, &text, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((e.summary.strict.credit, e.summary.items), (3.0, 3), "{name}");
        if let Some(labels) = e.summary.labels {
            assert_eq!(
                (labels.compared, labels.published_right, labels.contradictions.len()),
                (3, 2, 1),
                "{name}"
            );
        }
    }
}

/// Layouts of other harnesses and of people's own scripts; all hold the answers 2, 4 and 6 to the three items.
#[test]
fn layouts_of_other_programs() {
    let said = |i: usize| format!("The answer is {}.", 2 * i);
    let lines = |row: &dyn Fn(usize) -> Value| (1..=3).map(|i| format!("{}\n", row(i))).collect::<String>();
    let list = |row: &dyn Fn(usize) -> Value| json!((1..=3).map(row).collect::<Vec<_>>());
    let plain = |i: usize| json!({"id": i, "response": said(i)});
    let chat = |i: usize| json!({"choices": [{"message": {"role": "assistant", "content": said(i)}}]});
    let files = [
        // lm-evaluation-harness and lmms-eval: rows counted from 0, nested lists of responses, the data set's row inside.
        ("lm-eval.jsonl", lines(&|i| json!({"doc_id": i - 1, "doc": {"problem": format!("What is {i} + {i}?"), "id": i.to_string()}, "target": (2 * i).to_string(), "resps": [[said(i)]], "filtered_resps": [said(i)], "exact_match": 1.0}))),
        // inspect's JSON log.
        ("inspect.json", json!({"version": 2, "status": "success", "eval": {"task": "t", "model": "m"}, "samples": (1..=3).map(|i| json!({"id": i, "epoch": 1, "input": "q", "target": (2 * i).to_string(), "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": said(i)}], "output": {"model": "m", "choices": [{"message": {"content": said(i)}}], "completion": said(i)}, "scores": {"match": {"value": "C", "answer": "2"}}})).collect::<Vec<_>>()}).to_string()),
        // The batch interface of OpenAI-compatible endpoints.
        ("batch.jsonl", lines(&|i| json!({"id": format!("batch_req_{i}"), "custom_id": i.to_string(), "response": {"status_code": 200, "body": chat(i)}, "error": null}))),
        ("batch-messages.jsonl", lines(&|i| json!({"custom_id": i.to_string(), "result": {"type": "succeeded", "message": {"role": "assistant", "content": [{"type": "text", "text": said(i)}], "stop_reason": "end_turn"}}}))),
        // OpenCompass: a table by row number from 0.
        ("opencompass.json", Value::Object((1..=3).map(|i| ((i - 1).to_string(), json!({"origin_prompt": "q", "prediction": said(i), "gold": (2 * i).to_string()}))).collect()).to_string()),
        // VLMEvalKit's tables.
        ("vlmeval.tsv", "index\tquestion\tanswer\tprediction\thit\n1\tq\t2\tThe answer is 2.\t1\n2\tq\t4\t\"So:\nThe answer is 4.\"\t1\n3\tq\t6\tThe answer is 6.\t1\n".to_owned()),
        // Qwen2.5-Math's evaluation.
        ("qwen.jsonl", lines(&|i| json!({"idx": i - 1, "question": "q", "gt": (2 * i).to_string(), "code": [said(i)], "pred": [(2 * i).to_string()], "score": [true]}))),
        ("r1v.json", json!({"accuracy": 100.0, "results": list(&|i| json!({"question": {"id": i}, "id": i, "ground_truth": (2 * i).to_string(), "model_output": said(i), "extracted_answer": "2", "is_correct": true}))}).to_string()),
        ("csv.csv", "\u{feff}ID,Model Output,extra\n1,\"The answer, I think, is 2.\",a\n2,The answer is 4.,b\n3,The answer is 6.,c\n".to_owned()),
        ("map-of-texts.json", Value::Object((1..=3).map(|i| (i.to_string(), json!(said(i)))).collect()).to_string()),
        ("texts.json", list(&|i| json!(said(i))).to_string()),
        ("columns.json", json!({"id": [1, 2, 3], "response": [said(1), said(2), said(3)]}).to_string()),
        ("pandas.json", json!({"id": {"0": 1, "1": 2, "2": 3}, "response": {"0": said(1), "1": said(2), "2": said(3)}}).to_string()),
        ("questions.jsonl", lines(&|i| json!({"problem": format!("What is  {i} + {i}?"), "response": said(i)}))),
        ("messages.jsonl", lines(&|i| json!({"id": i, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": said(i)}]}))),
        ("camel.jsonl", lines(&|i| json!({"questionId": i, "modelResponse": said(i)}))),
        ("nan.jsonl", lines(&|i| json!({"id": i, "response": said(i), "logprob": "X"})).replace("\"X\"", "NaN")),
        ("extra.jsonl", lines(&|i| json!({"zzz": [1, {"a": 2}], "id": i, "prompt": "q", "model": "m", "response": said(i), "usage": {"completion_tokens": 9}, "ts": 1.5}))),
        ("pretty.json", serde_json::to_string_pretty(&json!({"meta": {"model": "m"}, "rows": list(&plain)})).unwrap()),
        ("one-line.json", json!({"meta": {"model": "m"}, "outputs": list(&plain)}).to_string()),
        ("numbered.jsonl", lines(&|i| json!({"id": i, "output_1": said(i), "output_2": said(i)}))),
        ("samples.jsonl", lines(&|i| json!({"id": i, "responses": [said(i), said(i)], "correct": [true, true]}))),
    ];
    for (name, text) in files {
        let e = rescored("aime24", name, &text, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (e.summary.strict.credit, e.summary.strict.n, e.summary.items),
            (3.0, 3, 3),
            "{name}: {:?}",
            e.summary.notes
        );
        if let Some(labels) = &e.summary.labels {
            assert_eq!((labels.compared, labels.contradictions.len()), (e.records.len(), 0), "{name}");
        }
    }
}

/// Rows that could be joined to the wrong items are refused, or the reader is told how they were joined.
#[test]
fn golds_of_the_file_guard_the_join() {
    let lines = |shift: usize| -> String {
        (1..=3)
            .map(|i| {
                json!({"id": i, "response": "2", "gold": (2 * (i + shift)).to_string()}).to_string() + "\n"
            })
            .collect()
    };
    assert!(rescored("aime24", "a.jsonl", &lines(0), None).is_ok());
    let message = rescored("aime24", "a.jsonl", &lines(1), None).unwrap_err();
    assert!(
        message.contains("`gold`") && message.contains("3 of 3 differ") && message.contains("another split"),
        "{message}"
    );
    let one = lines(0).replace("\"6\"", "\"7\"");
    let e = rescored("aime24", "a.jsonl", &one, None).unwrap();
    assert!(e.summary.notes.iter().any(|n| n.contains("1 of 3 gold answers")), "{:?}", e.summary.notes);
    let short = "{\"response\": \"2\"}\n{\"response\": \"4\"}\n";
    let message = rescored("aime24", "a.jsonl", short, None).unwrap_err();
    assert!(
        message.contains("no column names the item") && message.contains("2 outputs are not the 3 items"),
        "{message}"
    );
}

/// Without the data set a file that holds gold answers is scored by those.
#[test]
fn a_file_may_stand_for_its_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.jsonl");
    let rows: String = (1..=3)
        .map(|i| json!({"qid": format!("q{i}"), "problem": "?", "answer": i.to_string(), "model_output": "It is 2."}).to_string() + "\n")
        .collect();
    std::fs::write(&path, rows).unwrap();
    let task = Task::parse("math500").unwrap();
    let absent = || load(&task, &dir.path().join("none"), dir.path(), Pictures::Ignore);
    let stored = read_stored(&task, &path, None, absent).unwrap();
    let e = rescore(&task, &stored, "m", &Extra::default()).unwrap();
    assert_eq!((e.summary.strict.credit, e.summary.items), (1.0, 3));
    assert!(e.summary.notes.iter().any(|n| n.contains("those of the file")), "{:?}", e.summary.notes);
    std::fs::write(&path, "{\"qid\": 1, \"model_output\": \"2\"}\n").unwrap();
    let message = read_stored(&task, &path, None, absent).unwrap_err().to_string();
    assert!(message.contains("is not here"), "{message}");
}

#[test]
fn columns_may_be_named() {
    let file =
        json!({"meta": {}, "runs": [{"nr": 1, "said": "2"}, {"nr": 2, "said": "5"}, {"nr": 3, "said": "6"}]})
            .to_string();
    let format = StoredFormat {
        name: "named".into(),
        format: Format::Json,
        rows: "runs".into(),
        id: "nr".into(),
        response: "said".into(),
        ..StoredFormat::default()
    };
    let e = rescored("aime24", "f.json", &file, Some(&format)).unwrap();
    assert_eq!(e.summary.strict.credit, 2.0);
    let wrong = StoredFormat { response: "says".into(), ..format };
    let message = rescored("aime24", "f.json", &file, Some(&wrong)).unwrap_err();
    assert!(message.contains("no row has `says`") && message.contains("`said`"), "{message}");
}

#[test]
fn what_does_not_fit_is_said_clearly() {
    let message = |name: &str, text: &str| rescored("aime24", name, text, None).unwrap_err();
    let unknown = message("a.jsonl", "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 77, \"response\": \"2\"}\n");
    assert!(
        unknown.contains("1 of 2 outputs") && unknown.contains("`77`") && unknown.contains("look like `1`"),
        "{unknown}"
    );
    let columns = message("a.jsonl", "{\"number\": 1, \"said\": \"2\"}\n");
    assert!(
        columns.contains("no column is the response")
            && columns.contains("`said`")
            && columns.contains("--response"),
        "{columns}"
    );
    assert!(message("a.jsonl", "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 2,\n").contains("line 2"));
    assert!(message("a.jsonl", "").contains("is empty"));
    assert!(
        message("a.json", "\u{feff}").contains("is empty")
            && message("a.jsonl", " \n\n").contains("is empty")
    );
    let broken = message("a.jsonl", "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 2, \"response\" \"2\"}\n");
    assert!(broken.contains("line 2, column 22") && !broken.contains("line 1"), "{broken}");
    assert!(message("a.txt", "answers:\n1 2 3\n").contains("neither JSON"));
    assert!(
        message("a.jsonl", "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 2, \"response\": [1]}\n")
            .contains("row 2: column `response` is a response and holds a list")
    );
    assert!(
        message("a.jsonl", "{\"id\": null, \"response\": \"2\"}\n")
            .contains("row 1: column `id` names the item and holds nothing")
    );
}

#[test]
fn items_without_output_and_doubled_outputs_are_told() {
    let text = "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 1, \"response\": \"3\"}\n{\"id\": 2, \"response\": \"4\"}\n";
    let e = rescored("aime24", "a.jsonl", text, None).unwrap();
    assert_eq!(
        (e.summary.strict.credit, e.summary.strict.n),
        (1.5, 3),
        "the mean of two samples, one item, none"
    );
    assert_eq!(e.summary.outcomes[&Outcome::Failed], 1);
    told(&e, "1 items have more than one response: read as samples (`1`)");
    for part in ["1 items have no stored output", "1 items have more outputs than the others (2 against 1)"] {
        assert!(e.summary.notes.iter().any(|n| n.contains(part)), "{part}: {:?}", e.summary.notes);
    }
}

/// Four pairs as PandaLM keeps them, of which three are decided and one is a tie; `text` is the file of outputs.
fn pandalm(text: &str) -> Evaluation {
    let dir = tempfile::tempdir().unwrap();
    let task = Task::parse("pandalm").unwrap();
    let rows: Vec<Value> = [1, 2, 0, 1]
        .iter()
        .enumerate()
        .map(|(i, gold)| json!({"idx": i, "instruction": format!("Do {i}."), "input": "", "response1": "a", "response2": "b", "annotator1": gold, "annotator2": gold, "annotator3": gold, "cmp_key": "x_y"}))
        .collect();
    std::fs::create_dir_all(dir.path().join("pandalm")).unwrap();
    std::fs::write(dir.path().join("pandalm/testset-v1.json"), json!(rows).to_string()).unwrap();
    let path = dir.path().join("o.json");
    std::fs::write(&path, text).unwrap();
    let stored =
        read_stored(&task, &path, None, || load(&task, dir.path(), dir.path(), Pictures::Ignore)).unwrap();
    rescore(&task, &stored, "m", &Extra::default()).unwrap()
}

fn told(e: &Evaluation, part: &str) {
    assert!(e.summary.notes.iter().any(|n| n.contains(part)), "{part}: {:?}", e.summary.notes);
}

/// Pairs without a verdict are failed requests, as items without an answer are.
#[test]
fn pairs_without_output_count_as_failed() {
    let e = pandalm(r#"[{"id": "0", "response": "1"}]"#);
    assert_eq!((e.summary.outcomes[&Outcome::Ok], e.summary.outcomes[&Outcome::Failed]), (1, 3));
    assert_eq!((e.summary.strict.credit, e.summary.strict.n, e.summary.reference.n), (1.0, 4, 4));
    assert_eq!((e.summary.strict.worst, e.summary.strict.best), (0.25, 1.0));
    told(&e, "3 items have no stored output");
}

#[test]
fn rows_without_a_response_are_told() {
    let text = "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 2, \"response\": null}\n{\"id\": 3}\n";
    let e = rescored("aime24", "a.jsonl", text, None).unwrap();
    assert_eq!((e.summary.strict.credit, e.summary.strict.n), (1.0, 3));
    assert_eq!(e.summary.outcomes[&Outcome::Failed], 2);
    told(&e, "2 rows hold no response (row 2, 3); they count as failed");
    let e = pandalm(r#"[{"id": "0", "response": "1"}, {"id": "1", "response": null}]"#);
    assert_eq!((e.summary.outcomes[&Outcome::Ok], e.summary.outcomes[&Outcome::Failed]), (1, 3));
    told(&e, "1 rows hold no response (row 2)");
    told(&e, "2 items have no stored output");
    let e = rescored("aime24", "a.jsonl", "{\"id\": 1, \"response\": [\"2\", null]}\n", None).unwrap();
    told(&e, "1 rows lack some of their samples (row 1)");
}

/// Samples are told where nothing but a repeated name makes them samples.
#[test]
fn repeated_names_are_told() {
    let note = "more than one response";
    let text = "{\"id\": 1, \"response\": \"2\"}\n{\"id\": 1, \"response\": \"3\"}\n";
    let e = rescored("aime24", "a.jsonl", text, None).unwrap();
    assert_eq!(e.summary.samples, 2);
    told(&e, "1 items have more than one response: read as samples (`1`)");
    let numbered =
        "{\"id\": 1, \"response\": \"2\", \"sample\": 0}\n{\"id\": 1, \"response\": \"3\", \"sample\": 1}\n";
    for quiet in [numbered, "{\"id\": 1, \"response\": [\"2\", \"3\"]}\n"] {
        let e = rescored("aime24", "a.jsonl", quiet, None).unwrap();
        assert!(!e.summary.notes.iter().any(|n| n.contains(note)), "{quiet} {:?}", e.summary.notes);
    }
    let e = pandalm(r#"[{"id": "0", "response": "1"}, {"id": "0", "response": "2"}]"#);
    told(&e, "1 items have more than one response: read as verdicts");
    assert_eq!(e.summary.strict.credit, 0.0);
}

/// A file that holds its items may hold a few of them only.
#[test]
fn a_part_of_the_data_set_is_told() {
    let row = |pid: &str| json!({"pid": pid, "question": "How many?", "choices": null, "answer": "1", "question_type": "free_form", "answer_type": "integer", "response": "1", "extraction": "1", "true_false": true});
    let file = serde_json::to_string_pretty(&json!({"1": row("1"), "2": row("2")})).unwrap();
    let e = rescored("mathvista", "output.json", &file, None).unwrap();
    told(&e, "the number of items, 2, is that of the file");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.json");
    std::fs::write(&path, &file).unwrap();
    let task = Task::parse("mathvista").unwrap();
    let some = |ids: &[&str]| -> Vec<String> {
        let table = || -> Result<Table, LoadError> {
            let place = |row: usize| Place { file: "d".into(), row };
            let rows = ids.iter().enumerate().map(|(i, id)| Row {
                id: (*id).to_owned(),
                place: place(i + 1),
                columns: Default::default(),
                images: Default::default(),
            });
            let rows: Vec<Row> = rows.collect();
            Ok(Table { fingerprint: fingerprint(&rows), rows, images: Images::new(Path::new("")) })
        };
        let stored = read_stored(&task, &path, None, table).unwrap();
        rescore(&task, &stored, "m", &Extra::default()).unwrap().summary.notes
    };
    let partial = some(&["1", "2", "3", "4", "5"]);
    assert!(
        partial.iter().any(|n| n.contains("3 of the data set's 5 items have no stored output")),
        "{partial:?}"
    );
    let whole = some(&["1", "2"]);
    assert!(!whole.iter().any(|n| n.contains("no stored output")), "{whole:?}");
}

/// PandaLM's own judge says 1, 2 or Tie and gives its reason below; its raters say 0 for a tie.
#[test]
fn verdicts_in_the_words_of_pandalm() {
    let said = ["1", "2\n\n### Reason: it is better.\n\n### Reference: c", "Tie", "0"];
    let file = |replies: &[&str]| -> String {
        let rows: Vec<Value> =
            replies.iter().enumerate().map(|(i, r)| json!({"id": i.to_string(), "response": r})).collect();
        json!(rows).to_string()
    };
    let e = pandalm(&file(&said));
    assert_eq!(e.summary.outcomes.get(&Outcome::Unparsed), None, "{:?}", e.summary.outcomes);
    assert_eq!(e.summary.strict.credit, 3.0, "the last gold is 1, not a tie");
    assert_eq!(e.summary.reference.credit, 0.0, "the official rule reads brackets only");
    let e = pandalm(&file(&["1\n\n### Reason: x", "0", "0\n\n### Reason: x", "Tie\n### Reason: x"]));
    assert_eq!((e.summary.strict.credit, e.summary.outcomes[&Outcome::Ok]), (2.0, 4));
    // A number that only begins a list is no verdict.
    let e = pandalm(&file(&["1\n\nResponse 1 is shorter.", "2", "Tie", "1"]));
    assert_eq!(e.summary.outcomes[&Outcome::Unparsed], 1);
}

#[test]
fn formats_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("a.json", "[{}]", Format::Json),
        ("b.json", "\n  [\n", Format::Json),
        ("c.json", "{\"a\": {\"id\": 1}}", Format::JsonMap),
        ("d.json", "{\n\"a\": {\"id\": 1}}", Format::JsonMap),
        ("e.json", "{\"id\": 1}\n{\"id\": 2}\n", Format::Jsonl),
        ("f.jsonl", "{\"id\": 1}\n", Format::Jsonl),
        ("g.tsv", "", Format::Tsv),
        ("g.CSV", "", Format::Csv),
        ("h.parquet", "", Format::Parquet),
    ];
    for (name, text, expected) in cases {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        assert_eq!(sniff(&path).unwrap(), expected, "{name}");
    }
    assert!(sniff(&dir.path().join("none.json")).unwrap_err().to_string().contains("none.json"));
}

/// A data set in place of outputs would score itself perfectly; each is refused with what it looks like.
#[test]
fn a_data_set_is_no_stored_output() {
    let lines = |row: &dyn Fn(usize) -> Value| (1..=3).map(|i| format!("{}\n", row(i))).collect::<String>();
    let own = |i: usize| json!({"problem": format!("What is {i} + {i}?"), "answer": (2 * i).to_string(), "id": i.to_string()});
    let pair = |i: usize| json!({"idx": i, "instruction": "q", "input": "", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 2, "annotator3": 1});
    let ranked =
        json!([{"id": "a", "query": "q", "response": ["x", "y"], "human_ranking": [0, 1]}]).to_string();
    let cases = [
        ("aime24", "d.jsonl", lines(&own), "word for word the gold answer of every item"),
        ("pandalm", "d.jsonl", lines(&pair), "it holds the answers that are to be compared"),
        ("vl-rewardbench", "d.json", ranked, "it holds the answers that are to be compared"),
        (
            "pope",
            "d.jsonl",
            lines(
                &|i| json!({"question_id": i, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}),
            ),
            "it holds its question (`text`)",
        ),
        (
            "aime24",
            "c.jsonl",
            lines(&|i| {
                let mut r = own(i);
                r["choices"] = json!(["a", "b"]);
                r
            }),
            "word for word",
        ),
        (
            "mmk12",
            "d.json",
            json!(
                (1..=3)
                    .map(own)
                    .map(|mut r| {
                        r["question"] = "q".into();
                        r
                    })
                    .collect::<Vec<_>>()
            )
            .to_string(),
            "the gold column `answer` would be the response",
        ),
    ];
    for (task, name, text, part) in cases {
        let message = rescored(task, name, &text, None).map(|e| e.summary.strict).unwrap_err();
        assert!(message.contains("looks like the data set") && message.contains(part), "{task}: {message}");
    }
    // Outputs beside the columns of the data set are outputs, and answers of a model may stand in `answer`.
    let more = lines(&|i| {
        let mut row = own(i);
        row["output"] = json!(format!("It is {}.", 2 * i));
        row
    });
    assert_eq!(rescored("aime24", "o.jsonl", &more, None).unwrap().summary.strict.credit, 3.0);
    let wrong = lines(&own).replace("\"6\"", "\"7\"");
    assert_eq!(rescored("aime24", "o.jsonl", &wrong, None).unwrap().summary.strict.credit, 2.0);
}

/// A ZIP archive of stored parts, as little of the format as a workbook needs.
fn zip(parts: &[(&str, &str)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in parts {
        let at = out.len() as u32;
        let sizes = [(text.len() as u32).to_le_bytes(), (text.len() as u32).to_le_bytes()].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        out.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        out.extend(&sizes);
        out.extend(name_len);
        out.extend([0, 0]);
        out.extend(name.as_bytes());
        out.extend(text.as_bytes());
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend(&sizes);
        directory.extend(name_len);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, len, count) = (out.len() as u32, directory.len() as u32, (parts.len() as u16).to_le_bytes());
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend(len.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

#[test]
fn workbooks_are_read() {
    let shared = "<?xml version=\"1.0\"?><sst><si><t>index</t></si><si><t>prediction</t></si><si><r><t>The answer </t></r><r><t xml:space=\"preserve\">is 2.</t></r></si><si><t>hit</t></si></sst>";
    let sheet = |rows: &str| {
        format!(
            "<worksheet><!-- c --><sheetData><row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c><c r=\"B1\" t=\"s\"><v>1</v></c><c r=\"C1\" t=\"s\"><v>3</v></c></row>{rows}</sheetData></worksheet>"
        )
    };
    let rows = "<row r=\"2\"><c r=\"A2\"><v>1</v></c><c r=\"B2\" t=\"s\"><v>2</v></c><c r=\"C2\"><v>1</v></c></row><row r=\"3\"><c r=\"A3\"><v>2</v></c><c r=\"B3\" t=\"inlineStr\"><is><t>2 &lt; 4._x000D_\nThe answer is 4.</t></is></c><c r=\"C3\"><v>1</v></c></row><row r=\"4\"><c r=\"A4\"><v>3</v></c><c r=\"C4\" t=\"b\"><v>0</v></c></row>";
    let dir = tempfile::tempdir().unwrap();
    let task = Task::parse("aime24").unwrap();
    let read = |name: &str, parts: &[(&str, &str)]| {
        let path = dir.path().join(name);
        std::fs::write(&path, zip(parts)).unwrap();
        let table = || -> Result<Table, LoadError> {
            std::fs::create_dir_all(dir.path().join("math")).unwrap();
            let rows: String = (1..=3)
                .map(|i| json!({"problem": "?", "answer": (2 * i).to_string()}).to_string() + "\n")
                .collect();
            std::fs::write(dir.path().join("math/aime_2024.jsonl"), rows).unwrap();
            load(&task, dir.path(), dir.path(), Pictures::Ignore)
        };
        read_stored(&task, &path, None, table)
    };
    let whole = sheet(rows);
    let stored = read(
        "a.xlsx",
        &[
            ("xl/workbook.xml", "<workbook/>"),
            ("xl/sharedStrings.xml", shared),
            ("xl/worksheets/sheet1.xml", &whole),
        ],
    )
    .unwrap();
    let e = rescore(&task, &stored, "m", &Extra::default()).unwrap();
    assert_eq!((e.summary.strict.credit, e.summary.outcomes[&Outcome::Failed]), (2.0, 1));
    assert_eq!(e.summary.labels.unwrap().contradictions, []);
    let book = "<x:workbook><x:sheets><x:sheet name=\"a\" r:id=\"rId7\"/></x:sheets></x:workbook>";
    let relations =
        "<Relationships><Relationship Id=\"rId7\" Target=\"worksheets/other.xml\"/></Relationships>";
    let parts = [
        ("xl/workbook.xml", book),
        ("xl/_rels/workbook.xml.rels", relations),
        ("xl/sharedStrings.xml", shared),
        ("xl/worksheets/other.xml", &whole),
    ];
    assert_eq!(read("b.xlsx", &parts).unwrap().answers.len(), 3);
    for (name, parts, part) in [
        ("c.xlsx", vec![("a.txt", "x")], "no workbook"),
        ("d.xlsx", vec![("xl/workbook.xml", "<workbook/>")], "no part xl/worksheets/sheet1.xml"),
        (
            "e.xlsx",
            vec![("xl/workbook.xml", "<workbook/>"), ("xl/worksheets/sheet1.xml", &whole)],
            "no shared text",
        ),
    ] {
        let message = read(name, &parts).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    std::fs::write(dir.path().join("f.xlsx"), b"PK\x05\x06").unwrap();
    let message =
        read_stored(&task, &dir.path().join("f.xlsx"), None, || unreachable!()).unwrap_err().to_string();
    assert!(message.contains("ZIP directory"), "{message}");
}

/// RewardBench's result files: columns beside facts about the whole, scores of the chosen and the rejected answer, no data set needed.
#[test]
fn result_files_of_reward_benchmarks() {
    let dir = tempfile::tempdir().unwrap();
    let read = |task: &str, file: Value| {
        let path = dir.path().join("r.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let task = Task::parse(task).unwrap();
        let stored =
            read_stored(&task, &path, None, || load(&task, dir.path(), dir.path(), Pictures::Ignore))
                .unwrap_or_else(|e| panic!("{e}"));
        rescore(&task, &stored, "m", &Extra::default()).unwrap()
    };
    let e = read(
        "rewardbench",
        json!({"id": [1, 2, 3], "subset": ["alpacaeval-easy", "alpacaeval-easy", "math-prm"], "results": [1, 0, 0], "scores_chosen": [2.5, -1.0, 1.0], "scores_rejected": [0.5, 3.0, 1.0], "model": "m", "model_type": "Seq. Classifier", "chat_template": null}),
    );
    assert_eq!((e.summary.strict.credit, e.summary.items), (1.0, 3), "{:?}", e.summary.notes);
    let labels = e.summary.labels.unwrap();
    assert_eq!((labels.compared, labels.published_right, labels.contradictions.len()), (3, 1, 0));
    let e = read(
        "rewardbench2",
        json!({"id": ["a", "b", "c"], "subset": ["Math", "Focus", "Ties"], "scores": [[3.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 0.0], [2.0, 3.0, 1.0, 0.5]], "num_correct": [1, 1, 2], "model": "m"}),
    );
    assert_eq!((e.summary.reference.credit, e.summary.items), (2.5, 3), "a tie of two shares the credit");
}

/// Result files of HallusionBench name an item by five columns, in an order of their own.
#[test]
fn items_named_by_several_columns() {
    let dir = tempfile::tempdir().unwrap();
    let row = |set: usize, question: usize| json!({"category": "VD", "subcategory": "illusion", "visual_input": "0", "set_id": set.to_string(), "figure_id": "0", "question_id": question.to_string(), "question": "Is it?", "filename": null});
    let with = |mut row: Value, key: &str, value: Value| {
        row[key] = value;
        row
    };
    std::fs::create_dir_all(dir.path().join("hallusionbench")).unwrap();
    let data = json!([
        with(row(0, 0), "gt_answer", "0".into()),
        with(row(0, 1), "gt_answer", "1".into()),
        with(row(1, 0), "gt_answer", "1".into())
    ]);
    std::fs::write(dir.path().join("hallusionbench/HallusionBench.json"), data.to_string()).unwrap();
    let outputs = json!([
        with(row(1, 0), "model_prediction", "Yes, it is.".into()),
        with(row(0, 0), "model_prediction", "No.".into()),
        with(row(0, 1), "model_prediction", "No.".into())
    ]);
    let path = dir.path().join("o.json");
    std::fs::write(&path, outputs.to_string()).unwrap();
    let task = Task::parse("hallusionbench").unwrap();
    let stored =
        read_stored(&task, &path, None, || load(&task, dir.path(), dir.path(), Pictures::Ignore)).unwrap();
    let e = rescore(&task, &stored, "m", &Extra::default()).unwrap();
    assert_eq!((e.summary.strict.credit, e.summary.items), (2.0, 3));
    assert_eq!(e.records[2].id, "VD/illusion/1/0/0");
}
