//! Readers of real sets, on small files of the same form, and on the real files where `OCELLI_DATA` says they lie.

use ocelli_data::Target;
use ocelli_worlds::real::{PUZZLES, Split, easy_vqa, gsm8k, puzzlevqa};

#[test]
fn gsm8k_in_both_layouts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.jsonl");
    std::fs::write(
        &path,
        "{\"question\": \"q\", \"answer\": \"a b\\n#### 1,250\"}\n{\"problem\": \"p\", \"solution\": \"s\", \"answer\": \"18\"}\n",
    )
    .unwrap();
    let items = gsm8k(&path).unwrap();
    assert_eq!(items[0].sample.target, Target::Math { answer: "1250".into() });
    assert_eq!((items[0].plan.conclusion.as_str(), items[1].plan.conclusion.as_str()), ("a b", "s"));
    std::fs::write(&path, "{\"question\": \"q\", \"answer\": \"#### \"}\n").unwrap();
    assert!(gsm8k(&path).unwrap_err().to_string().contains("row 1: the answer is empty"));
}

#[test]
fn easy_vqa_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("train/images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("0.png"), b"bytes").unwrap();
    let questions = dir.path().join("train/questions.json");
    std::fs::write(&questions, r#"[["what shape is it?", "circle", 0]]"#).unwrap();
    let items = easy_vqa(dir.path(), Split::Train, 10).unwrap();
    assert_eq!(items[0].plan.answer, "circle");
    assert_eq!(items[0].sample.meta["asks"], "shape");
    std::fs::write(&questions, r#"[["no image", "circle", 7]]"#).unwrap();
    assert!(easy_vqa(dir.path(), Split::Train, 10).unwrap_err().to_string().contains("7.png"));
    std::fs::write(&questions, r#"{"a": 1}"#).unwrap();
    assert!(easy_vqa(dir.path(), Split::Train, 10).unwrap_err().to_string().contains("questions.json"));
}

#[test]
fn real_files() {
    let Some(data) = std::env::var_os("OCELLI_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: set OCELLI_DATA to the folder with puzzlevqa/ and math/");
        return;
    };
    let root = data.join("puzzlevqa/PuzzleVQA");
    let (train, test) = (puzzlevqa(&root, Split::Train).unwrap(), puzzlevqa(&root, Split::Test).unwrap());
    assert_eq!((train.len(), test.len()), (PUZZLES.len() * 80, PUZZLES.len() * 20));
    let names: std::collections::HashSet<_> = train.iter().map(|i| &i.sample.id).collect();
    assert!(test.iter().all(|i| !names.contains(&i.sample.id)));
    assert!(test.iter().all(|i| i.plan.answer == i.sample.target.gold_text() && i.pictures.len() == 1));
    // As published, the right option of `grid_number` always stands last; here no place is right more than half of the time.
    let grid: Vec<&str> = train
        .iter()
        .filter(|i| i.sample.meta["puzzle"] == "grid_number")
        .map(|i| i.plan.answer.as_str())
        .collect();
    for letter in ["A", "B", "C", "D"] {
        let n = grid.iter().filter(|a| **a == letter).count();
        assert!((8..40).contains(&n), "{letter} is right {n} times of 80");
    }
    assert_eq!(gsm8k(&data.join("math/gsm8k_test.jsonl")).unwrap().len(), 1319);
}

#[test]
fn an_absent_set_says_where_it_can_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let error = puzzlevqa(dir.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("no data/color_grid.json") && error.contains("LLM-PuzzleTest"), "{error}");
    let error = easy_vqa(dir.path(), Split::Train, 1).unwrap_err().to_string();
    assert!(error.contains("no train/questions.json") && error.contains("pip download"), "{error}");
}
