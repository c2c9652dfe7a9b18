//! Every shipped benchmark from files in its published schema: items, prompts with their pictures, gold answers, and both rules
//! on an answer that is right and one that is not. CSVQA and EMMA have tests of their own (`end_to_end.rs`).

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

mod hub_file;
mod made_data;

use std::path::Path;

use hub_file::Type::{self, *};
use hub_file::write_parquet;
use image::ImageFormat;
use made_data::picture;
use ocelli_eval::declare::{Task, shipped_names};
use ocelli_eval::evaluate::{Evaluation, Extra, rescore};
use ocelli_eval::item::{Item, items};
use ocelli_eval::load::{Pictures, load};
use ocelli_eval::stored::read_stored;
use serde_json::{Value, json};

/// What a case expects of its items, in order.
struct Expected<'a> {
    /// Gold answers.
    golds: &'a [&'a str],
    /// Pictures in the first prompt of each item.
    pictures: &'a [usize],
    /// Parts of the first item's prompt.
    prompt: &'a [&'a str],
}

fn text_of(item: &Item) -> String {
    item.prompts[0].iter().map(|m| m.plain_text()).collect::<Vec<_>>().join("\n")
}

/// Loads a task from `data`, checks its items, and scores one response per item.
fn check(
    task: &str,
    data: &Path,
    expected: Expected<'_>,
    responses: &[&str],
    credits: [f64; 2],
) -> Evaluation {
    let task = Task::parse(task).unwrap();
    let table = load(&task, data, &data.join("blobs"), Pictures::Read).unwrap_or_else(|e| panic!("{e}"));
    let items = items(&task, &table).unwrap_or_else(|e| panic!("{e}"));
    let golds: Vec<String> = items.iter().map(Item::gold_text).collect();
    assert_eq!(golds, expected.golds, "{}", task.name());
    let pictures: Vec<usize> = items.iter().map(|i| i.images().count()).collect();
    assert_eq!(pictures, expected.pictures, "{}", task.name());
    let prompt = text_of(&items[0]);
    for part in expected.prompt {
        assert!(prompt.contains(part), "{}: `{part}` is not in `{prompt}`", task.name());
    }
    let rows: String = items
        .iter()
        .zip(responses)
        .map(|(item, response)| json!({"id": item.id, "response": response}).to_string() + "\n")
        .collect();
    let path = data.join("responses.jsonl");
    std::fs::write(&path, rows).unwrap();
    let stored = read_stored(&task, &path, None, || Ok(table)).unwrap_or_else(|e| panic!("{e}"));
    let e = rescore(&task, &stored, "model", &Extra::default()).unwrap();
    let found = [e.summary.strict.credit, e.summary.reference.credit];
    assert_eq!(found, credits, "{} [strict, reference]: {:#?}", task.name(), e.records);
    e
}

fn dir_with(file: &str, columns: &[(&'static str, Type)], rows: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_parquet(&dir.path().join(file), columns, rows.as_array().unwrap());
    dir
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
}

fn labels(e: &Evaluation, group: &str) -> Vec<String> {
    let table = e.summary.groups.iter().find(|g| g.name == group).unwrap();
    table.rows.iter().map(|r| r.label.clone()).collect()
}

/// Every shipped benchmark has a test of its schema, here or where it says.
#[test]
fn no_benchmark_is_left_out() {
    let here = include_str!("schemas.rs");
    let elsewhere = ["csvqa", "emma", "emma-mini", "pandalm"]; // end_to_end.rs, and stored_outputs.rs on the real file
    for name in shipped_names().filter(|n| !elsewhere.contains(n)) {
        assert!(here.contains(&format!("check(\"{name}")), "{name} has no test of its schema");
    }
}

#[test]
fn math_vision() {
    let columns = [
        ("id", Text),
        ("question", Text),
        ("options", Texts),
        ("image", Text),
        ("decoded_image", Image),
        ("answer", Text),
        ("solution", Text),
        ("level", Int),
        ("subject", Text),
    ];
    let rows = json!([
        {"id": "1", "question": "How large is the angle?\n<image1>", "options": ["A", "B", "C", "D", "E"], "image": "images/1.jpg", "decoded_image": 1, "answer": "D", "level": 2, "subject": "metric geometry - angle"},
        {"id": "2", "question": "How many squares?\n<image1>", "options": [], "image": "images/2.jpg", "decoded_image": 2, "answer": "12", "level": 5, "subject": "counting"},
    ]);
    let dir = dir_with("mathv/data/test-00000-of-00001-3532b8d3f1b4047a.parquet", &columns, rows);
    let expected = Expected { golds: &["D", "12"], pictures: &[1, 1], prompt: &["step by step", "(D) D"] };
    let e = check("mathv", dir.path(), expected, &["\\boxed{D}", "\\boxed{13}"], [1.0, 1.0]);
    assert_eq!(labels(&e, "level"), ["2", "5"]);
}

#[test]
fn math_vista() {
    const METADATA: &[(&str, Type)] = &[
        ("category", Text),
        ("context", Text),
        ("grade", Text),
        ("img_height", Int),
        ("img_width", Int),
        ("language", Text),
        ("skills", Texts),
        ("source", Text),
        ("split", Text),
        ("task", Text),
    ];
    let columns = [
        ("pid", Text),
        ("question", Text),
        ("image", Text),
        ("decoded_image", Image),
        ("choices", Texts),
        ("unit", Text),
        ("precision", Real),
        ("answer", Text),
        ("question_type", Text),
        ("answer_type", Text),
        ("metadata", Table(METADATA)),
        ("query", Text),
    ];
    let metadata = json!({"skills": ["scientific reasoning", "numeric commonsense"], "task": "textbook question answering", "grade": "college", "source": "SciBench", "img_width": 10});
    let rows = json!([
        {"pid": "1", "question": "When will it lose contact?", "image": "images/1.jpg", "decoded_image": 1, "unit": "cm", "precision": 1.0, "answer": "1.2", "question_type": "free_form", "answer_type": "float", "metadata": metadata, "query": "Hint"},
        {"pid": "2", "question": "Which is larger?", "image": "images/2.jpg", "decoded_image": 2, "choices": ["left", "right"], "answer": "right", "question_type": "multi_choice", "answer_type": "text", "metadata": metadata, "query": "Hint"},
    ]);
    let dir = dir_with("mathvista/data/testmini-00000-of-00001-725687bf7a18d64b.parquet", &columns, rows);
    let expected = Expected {
        golds: &["1.2", "right"],
        pictures: &[1, 1],
        prompt: &["one decimal place", "(Unit: cm)"],
    };
    let e = check("mathvista", dir.path(), expected, &["1.2", "(B)"], [2.0, 2.0]);
    assert_eq!(labels(&e, "skill").len(), 2, "several labels a row");
    assert_eq!(labels(&e, "grade"), ["college"]);
}

fn seven_images() -> Vec<(&'static str, Type)> {
    ["image_1", "image_2", "image_3", "image_4", "image_5", "image_6", "image_7"].map(|n| (n, Image)).to_vec()
}

#[test]
fn mmmu() {
    let mut columns = vec![("id", Text), ("question", Text), ("options", Text), ("explanation", Text)];
    columns.extend(seven_images());
    columns.extend([
        ("img_type", Text),
        ("answer", Text),
        ("topic_difficulty", Text),
        ("question_type", Text),
        ("subfield", Text),
    ]);
    let rows = json!([
        {"id": "validation_Accounting_1", "question": "<image 1> Compare with <image 2>.", "options": "['$6', '$7', \"it's $8\"]", "image_1": 1, "image_2": 2, "img_type": "['Tables']", "answer": "B", "topic_difficulty": "Easy", "question_type": "multiple-choice", "subfield": "Managerial Accounting"},
        {"id": "validation_Accounting_2", "question": "What is the sum in <image 1>?", "options": "[]", "image_1": 3, "img_type": "['Tables']", "answer": "['8.4', '8.40']", "topic_difficulty": "Hard", "question_type": "open", "subfield": "Managerial Accounting"},
    ]);
    let dir = dir_with("mmmu/Accounting/validation-00000-of-00001.parquet", &columns, rows);
    let expected =
        Expected { golds: &["B", "8.4 or 8.40"], pictures: &[2, 1], prompt: &["C. it's $8", "directly"] };
    let e = check("mmmu", dir.path(), expected, &["(B)", "The sum is 8.4."], [2.0, 2.0]);
    assert_eq!(labels(&e, "difficulty"), ["Easy", "Hard"]);
}

#[test]
fn mmmu_pro() {
    let mut columns = vec![("id", Text), ("question", Text), ("options", Text), ("explanation", Text)];
    columns.extend(seven_images());
    columns.extend([("img_type", Text), ("answer", Text), ("topic_difficulty", Text), ("subject", Text)]);
    let row = |id: &str| json!({"id": id, "question": "See <image 1>. Which?", "options": "['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']", "image_1": 1, "answer": "J", "topic_difficulty": "Medium", "subject": "Art"});
    let dir = dir_with(
        "mmmu-pro/ten/test-00000-of-00002.parquet",
        &columns,
        json!([row("test_Art_1"), row("test_Art_2")]),
    );
    let expected = Expected { golds: &["J", "J"], pictures: &[1, 1], prompt: &["J. j"] };
    check("mmmu-pro", dir.path(), expected, &["Answer: J", "Answer: A"], [1.0, 1.0]);
    let columns = [("id", Text), ("image", Image), ("options", Text), ("answer", Text), ("subject", Text)];
    let rows =
        json!([{"id": "test_Art_1", "image": 1, "options": "['a', 'b']", "answer": "B", "subject": "Art"}]);
    let dir = dir_with("mmmu-pro/vision/test-00000-of-00002.parquet", &columns, rows);
    let expected = Expected { golds: &["B"], pictures: &[1], prompt: &["Think step by step"] };
    check("mmmu-pro:vision,cot", dir.path(), expected, &["So.\nAnswer: B"], [1.0, 1.0]);
}

#[test]
fn mmk12() {
    let columns = [("id", Text), ("question", Text), ("answer", Text), ("subject", Text), ("image", Image)];
    let rows = json!([{"id": "k1", "question": "<image>Find $x$.", "answer": "\\frac{1}{2}", "subject": "math", "image": 1}]);
    let dir = dir_with("mmk12/data/test-00000-of-00001.parquet", &columns, rows);
    let expected =
        Expected { golds: &["\\frac{1}{2}"], pictures: &[1], prompt: &["<answer></answer>", "Find $x$."] };
    // The official verdict is a judge's, and none was asked.
    check("mmk12", dir.path(), expected, &["<answer>\\boxed{0.5}</answer>"], [1.0, 0.0]);
}

#[test]
fn puzzle_vqa() {
    let dir = tempfile::tempdir().unwrap();
    let row = json!({"image": "images/color_grid/color_grid_0000.png", "question": "What is the missing color?", "options": ["red", "blue", "green", "white"], "answer": "blue", "caption": "A grid.", "explanation": "It alternates.", "deduction": "So it is blue."});
    write(dir.path(), "puzzlevqa/PuzzleVQA/data/color_grid.json", &format!("{row}\n"));
    let image = dir.path().join("puzzlevqa/PuzzleVQA/data/images/color_grid/color_grid_0000.png");
    std::fs::create_dir_all(image.parent().unwrap()).unwrap();
    std::fs::write(image, picture(1, ImageFormat::Png)).unwrap();
    let expected = Expected { golds: &["B"], pictures: &[1], prompt: &["(B) blue"] };
    let e = check("puzzlevqa", dir.path(), expected, &["\\boxed{B}"], [1.0, 1.0]);
    assert_eq!(labels(&e, "puzzle"), ["color_grid"]);
}

#[test]
fn chart_qa() {
    let columns = [("type", Text), ("question", Text), ("answer", Text), ("image", Image)];
    let rows = json!([
        {"type": "human_test", "question": "In which year?", "answer": "2014", "image": 1},
        {"type": "augmented_test", "question": "Which value?", "answer": "57.5", "image": 1},
        {"type": "augmented_test", "question": "Which is first?", "answer": "Inspired", "image": 2},
    ]);
    let dir = dir_with("chartqa/data/test-00000-of-00001-e2cd0b7a0f9eb20d.parquet", &columns, rows);
    let expected =
        Expected { golds: &["2014", "57.5", "Inspired"], pictures: &[1, 1, 1], prompt: &["single word"] };
    // Relaxed: a year within 5 % passes; strict asks for the year.
    let e = check("chartqa", dir.path(), expected, &["2010", "57.5", "inspired"], [2.0, 3.0]);
    assert_eq!(e.differences.len(), 1);
    let dir = tempfile::tempdir().unwrap();
    let row =
        |i: usize| json!([{"imgname": "a.png", "query": format!("Question {i}?"), "label": "3"}]).to_string();
    write(dir.path(), "chartqa/test/test_human.json", &row(1));
    write(dir.path(), "chartqa/test/test_augmented.json", &row(2));
    write(dir.path(), "chartqa/test/png/a.png", "");
    std::fs::write(dir.path().join("chartqa/test/png/a.png"), picture(1, ImageFormat::Png)).unwrap();
    let expected = Expected { golds: &["3", "3"], pictures: &[1, 1], prompt: &["Question 1?"] };
    let e = check("chartqa", dir.path(), expected, &["3", "4"], [1.0, 1.0]);
    assert_eq!(labels(&e, "type"), ["test_augmented", "test_human"]);
}

#[test]
fn olympiad_bench() {
    let mut columns = vec![
        ("id", Int),
        ("question", Text),
        ("solution", Texts),
        ("final_answer", Texts),
        ("context", Text),
    ];
    columns.extend(seven_images());
    columns.extend([
        ("modality", Text),
        ("difficulty", Text),
        ("is_multiple_answer", Bool),
        ("unit", Text),
        ("answer_type", Text),
        ("error", Text),
        ("question_type", Text),
        ("subfield", Text),
        ("subject", Text),
        ("language", Text),
    ]);
    let rows = json!([
        {"id": 2231, "question": "Find both roots in <image_1>.", "solution": ["s"], "final_answer": ["$2,-7$"], "image_1": 1, "modality": "Multimodal", "difficulty": "Competition", "is_multiple_answer": true, "answer_type": "Numerical", "question_type": "Open-ended", "subfield": "Algebra", "subject": "Math", "language": "English"},
        {"id": 2232, "question": "How long?", "final_answer": ["$3.14$"], "is_multiple_answer": false, "unit": "s", "answer_type": "Numerical", "error": "1e-1", "subfield": "Mechanics", "subject": "Physics", "language": "English"},
    ]);
    let dir = dir_with("olympiadbench/OE_MM_maths_en_COMP/OE_MM_maths_en_COMP.parquet", &columns, rows);
    let expected =
        Expected { golds: &["$2,-7$", "$3.14$"], pictures: &[1, 0], prompt: &["So the final answer is"] };
    check("olympiadbench", dir.path(), expected, &["\\boxed{-7, 2}", "\\boxed{3.2}"], [2.0, 2.0]);
}

#[test]
fn mathematics_in_text() {
    let none: &[usize] = &[0];
    let prompt: &[&str] = &["\\boxed{}"];
    let dir = tempfile::tempdir().unwrap();
    let row = json!({"problem": "Convert.", "solution": "s", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)", "subject": "Precalculus", "level": 2, "unique_id": "test/precalculus/807.json"});
    write(dir.path(), "math500/test.jsonl", &format!("{row}\n"));
    let expected = Expected { golds: &["\\left( 3, \\frac{\\pi}{2} \\right)"], pictures: none, prompt };
    let e = check("math500", dir.path(), expected, &["\\boxed{(3, \\pi/2)}"], [1.0, 1.0]);
    assert_eq!(
        (labels(&e, "subject"), labels(&e, "level")),
        (vec!["Precalculus".to_owned()], vec!["2".to_owned()])
    );

    let columns =
        [("id", Int), ("problem", Text), ("solution", Text), ("answer", Text), ("url", Text), ("year", Text)];
    let rows = json!([{"id": 60, "problem": "Walk.", "answer": "204", "year": "2024"}]);
    let dir = dir_with("aime24/data/train-00000-of-00001.parquet", &columns, rows);
    let expected = Expected { golds: &["204"], pictures: none, prompt };
    check("aime24", dir.path(), expected, &["\\boxed{204}"], [1.0, 1.0]);

    let dir = tempfile::tempdir().unwrap();
    for (file, answer) in [("aime2025-I", "70"), ("aime2025-II", "588")] {
        let row = json!({"question": "Bases.", "answer": answer});
        write(dir.path(), &format!("aime25/{file}.jsonl"), &format!("{row}\n"));
    }
    let expected = Expected { golds: &["70", "588"], pictures: &[0, 0], prompt };
    check("aime25", dir.path(), expected, &["\\boxed{070}", "\\boxed{7}"], [1.0, 1.0]);

    let columns = [("question", Text), ("answer", Text)];
    let rows = json!([{"question": "Eggs.", "answer": "9 * 2 = <<9*2=18>>18\n#### 18"}]);
    let dir = dir_with("gsm8k/main/test-00000-of-00001.parquet", &columns, rows);
    let expected = Expected { golds: &["18"], pictures: none, prompt };
    check("gsm8k", dir.path(), expected, &["So the answer is $18."], [1.0, 1.0]);
}

#[test]
fn hallusion_bench() {
    let dir = tempfile::tempdir().unwrap();
    let row = |question: u8, visual: &str, gold: &str| json!({"category": "VD", "subcategory": "illusion", "visual_input": visual, "set_id": "0", "figure_id": visual, "sample_note": "circle", "question_id": question.to_string(), "question": "Is the right circle the same size?", "gt_answer_details": "Yes.", "gt_answer": gold, "filename": if visual == "0" { Value::Null } else { json!("./VD/illusion/0_1.png") }});
    let rows = json!([row(0, "0", "1"), row(0, "1", "0"), row(1, "1", "1")]);
    write(dir.path(), "hallusionbench/HallusionBench.json", &rows.to_string());
    write(dir.path(), "hallusionbench/images/VD/illusion/0_1.png", "");
    std::fs::write(
        dir.path().join("hallusionbench/images/VD/illusion/0_1.png"),
        picture(1, ImageFormat::Png),
    )
    .unwrap();
    let expected = Expected { golds: &["yes", "no", "yes"], pictures: &[0, 1, 1], prompt: &["yes or no"] };
    let e = check("hallusionbench", dir.path(), expected, &["Yes.", "Yes, they are.", "yes"], [2.0, 2.0]);
    let value = |name: &str| e.summary.metrics.iter().find(|m| m.name == name).unwrap().clone();
    // Figure 0 is all right, figure 1 is not; question 1 is, question 0 is not.
    for name in ["fAcc", "qAcc"] {
        let text = format!("{:?}", value(name));
        assert!(text.contains("0.5"), "{name}: {text}");
    }
}

#[test]
fn pope() {
    let columns = [
        ("id", Text),
        ("question_id", Text),
        ("question", Text),
        ("answer", Text),
        ("image_source", Text),
        ("image", Image),
        ("category", Text),
    ];
    let row = |id: &str, answer: &str| json!({"id": id, "question_id": id, "question": "Is there a cat in the image?", "answer": answer, "image_source": "COCO_val2014_000000310196", "image": 1, "category": "random"});
    let dir = dir_with(
        "pope/Full/random-00000-of-00001.parquet",
        &columns,
        json!([row("0", "yes"), row("1", "no")]),
    );
    let expected = Expected { golds: &["yes", "no"], pictures: &[1, 1], prompt: &["a cat"] };
    check("pope", dir.path(), expected, &["Yes", "There is."], [1.0, 1.0]);
    let dir = tempfile::tempdir().unwrap();
    let row = |id: u8, label: &str| {
        json!({"question_id": id, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?", "label": label}).to_string() + "\n"
    };
    write(dir.path(), "pope/coco/coco_pope_popular.json", &(row(1, "yes") + &row(2, "no")));
    write(dir.path(), "pope/images/COCO_val2014_000000310196.jpg", "");
    std::fs::write(
        dir.path().join("pope/images/COCO_val2014_000000310196.jpg"),
        picture(1, ImageFormat::Jpeg),
    )
    .unwrap();
    let expected = Expected { golds: &["yes", "no"], pictures: &[1, 1], prompt: &["a snowboard"] };
    check("pope:popular", dir.path(), expected, &["Yes", "No"], [2.0, 2.0]);
}

#[test]
fn vl_reward_bench() {
    let columns = [
        ("id", Text),
        ("query", Text),
        ("response", Texts),
        ("image", Image),
        ("human_ranking", Ints),
        ("models", Texts),
        ("judge", Text),
        ("rationale", Text),
        ("query_source", Text),
        ("ground_truth", Text),
    ];
    let row = |id: &str, ranking: Value| json!({"id": id, "query": "What is shown?", "response": ["a cat", "a dog"], "image": 1, "human_ranking": ranking, "models": ["m", "n"], "query_source": "wildvision"});
    let rows = json!([
        row("wildvision-1", json!([0, 1])),
        row("RLAIF-V-2", json!([1, 0])),
        row("RLAIF-V-2", json!([1, 0]))
    ]);
    let dir = dir_with("vl-rewardbench/data/test-00000-of-00001.parquet", &columns, rows);
    let expected = Expected { golds: &["A", "B", "B"], pictures: &[1, 1, 1], prompt: &["Answer 1: a cat"] };
    let says = |n: u8| format!("Both try.\nOverall Judgment: Answer {n} is better.");
    let replies = [says(1), says(2), says(1)];
    let replies: Vec<&str> = replies.iter().map(String::as_str).collect();
    let e = check("vl-rewardbench", dir.path(), expected, &replies, [2.0, 2.0]);
    assert_eq!(labels(&e, "group"), ["general", "hallucination"]);
}

#[test]
fn reward_bench() {
    let columns = [
        ("prompt", Text),
        ("chosen", Text),
        ("chosen_model", Text),
        ("rejected", Text),
        ("rejected_model", Text),
        ("subset", Text),
        ("id", Int),
    ];
    let rows = json!([
        {"prompt": "Hello?", "chosen": "Hi.", "chosen_model": "m", "rejected": "No.", "rejected_model": "n", "subset": "alpacaeval-easy", "id": 0},
        {"prompt": "Sort.", "chosen": "ok", "rejected": "bad", "subset": "hep-rust", "id": 1},
    ]);
    let dir = dir_with("rewardbench/data/filtered-00000-of-00001.parquet", &columns, rows);
    let expected = Expected { golds: &["A", "A"], pictures: &[0, 0], prompt: &["[Response A]\nHi."] };
    // Nothing to read is half a point officially.
    check("rewardbench", dir.path(), expected, &["So [[A]]", "I cannot say."], [1.0, 1.5]);

    const MORE: &[(&str, Type)] = &[("category", Text), ("correct", Text)];
    let columns = [
        ("id", Text),
        ("prompt", Text),
        ("chosen", Texts),
        ("rejected", Texts),
        ("num_correct", Int),
        ("num_incorrect", Int),
        ("total_completions", Int),
        ("models", Texts),
        ("subset", Text),
        ("additional_metadata", Table(MORE)),
    ];
    let rows = json!([
        {"id": "0", "prompt": "Which?", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1, "num_incorrect": 3, "total_completions": 4, "models": ["m"], "subset": "Factuality", "additional_metadata": {"category": "x"}},
        {"id": "1", "prompt": "Which?", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math"},
    ]);
    let dir = dir_with("rewardbench2/data/test-00000-of-00001.parquet", &columns, rows);
    let expected = Expected { golds: &["A", "A"], pictures: &[0, 0], prompt: &["[Response D]\nd"] };
    check("rewardbench2", dir.path(), expected, &["[[A]]", "[[C]]"], [1.0, 1.0]);
}

#[test]
fn multimodal_reward_bench() {
    let dir = tempfile::tempdir().unwrap();
    let row = |id: u8, better: &str| json!({"ID": id, "Text": "What is it?", "Image": "images/1.png", "Output1": "a cat", "Output2": "a dog", "Better": better, "Category": "general/preference"});
    let rows = json!([row(1, "Output1"), row(2, "Output2")]);
    write(dir.path(), "multimodal-rewardbench/all_data.json", &rows.to_string());
    write(dir.path(), "multimodal-rewardbench/images/1.png", "");
    std::fs::write(dir.path().join("multimodal-rewardbench/images/1.png"), picture(1, ImageFormat::Png))
        .unwrap();
    let expected = Expected { golds: &["A", "B"], pictures: &[1, 1], prompt: &["[Response B]\na dog"] };
    let e = check("multimodal-rewardbench", dir.path(), expected, &["[[A]]", "[[A]]"], [1.0, 1.0]);
    assert_eq!(labels(&e, "category"), ["general/preference"]);
}
