//! Stored outputs of published systems, recomputed exactly in reference mode. Needs the data folder in `OCELLI_DATA`.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use ocelli_eval::declare::Task;
use ocelli_eval::evaluate::{Evaluation, Extra, rescore};
use ocelli_eval::load::{Pictures, load};
use ocelli_eval::stored::read_stored;
use serde_json::Value;

fn data() -> Option<PathBuf> {
    let dir = std::env::var_os("OCELLI_DATA").map(PathBuf::from).filter(|d| d.is_dir());
    if dir.is_none() {
        println!("skipped: OCELLI_DATA does not name a folder");
    }
    dir
}

fn rescored(task: &str, file: &str) -> Option<Evaluation> {
    let data = data()?;
    let task = Task::parse(task).unwrap();
    let blobs = tempfile::tempdir().unwrap();
    let stored =
        read_stored(&task, &data.join(file), None, || load(&task, &data, blobs.path(), Pictures::Ignore))
            .unwrap();
    Some(rescore(&task, &stored, file, &Extra::default()).unwrap())
}

/// Sum of the strict credits and of the reference credits as whole numbers, and n.
fn totals(e: &Evaluation) -> (f64, usize) {
    (e.summary.reference.credit, e.summary.reference.n)
}

#[test]
fn math_vision_totals_and_tables() {
    // One row of Gemini-Pro is stored as wrong although the published program calls it right; see the reward crate.
    let files = [
        ("Gemini-Pro", 537, 1),
        ("Gemini-Pro-CoT", 436, 0),
        ("InternLM-XComposer2-VL-CoT", 437, 0),
        ("LLaVA-v1.5-13B", 338, 0),
        ("Random-Chance", 218, 0),
    ];
    for (name, total, contradictions) in files {
        let Some(e) = rescored("mathv", &format!("mathv/outputs/{name}.jsonl")) else { return };
        let labels = e.summary.labels.as_ref().unwrap();
        assert_eq!((labels.compared, labels.published_right), (3040, total), "{name}");
        assert_eq!(labels.contradictions.len(), contradictions, "{name}: {:?}", labels.contradictions);
        assert_eq!(totals(&e), ((total + contradictions) as f64, 3040), "{name}");
        // The published tables by level and by subject.
        let path = data().unwrap().join(format!("mathv/outputs/{name}_result.json"));
        let published: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut compared = 0;
        for (group, prefix) in [("level", "-level"), ("subject", "")] {
            let table = e.summary.groups.iter().find(|g| g.name == group).unwrap();
            for row in &table.rows {
                let wanted = published[format!("{prefix}{}", row.label)].as_str().unwrap();
                let reference = row.reference.unwrap();
                let right = (reference.mean * reference.n as f64).round();
                let (k, n) = wanted.split('=').next().unwrap().split_once('/').unwrap();
                let off = right - k.parse::<f64>().unwrap();
                assert!(
                    off == 0.0 || (contradictions == 1 && off == 1.0),
                    "{name} {}: {right} of {wanted}",
                    row.label
                );
                assert_eq!(n.parse::<usize>().unwrap(), reference.n, "{name} {}", row.label);
                compared += 1;
            }
        }
        assert_eq!(compared, 5 + 16, "{name}");
        assert!(e.summary.strict.estimate.is_some() && !e.differences.is_empty(), "{name}");
    }
}

#[test]
fn math_vista_predictions() {
    let files = ["bard", "gpt4_2shot_solution", "idefics_9b_instruct", "llava_llama_2_13b", "random_guess"];
    for name in files {
        let Some(e) = rescored("mathvista", &format!("mathvista/results/output_{name}.json")) else { return };
        let labels = e.summary.labels.as_ref().unwrap();
        assert_eq!(
            (labels.compared, labels.contradictions.len()),
            (1000, 0),
            "{name}: {:?}",
            labels.contradictions
        );
        assert_eq!(totals(&e), (labels.published_right as f64, 1000), "{name}");
    }
    assert_eq!(totals(&rescored("mathvista", "mathvista/results/output_bard.json").unwrap()).0, 348.0);
}

#[test]
fn vl_reward_bench_accuracies_and_parts() {
    // The scalar model gives four pairs equal scores; its program calls the first answer, here the right one, better.
    for (file, accuracy, strict) in [
        ("scalar_rm_qwen2vl7b", 0.665_597_433_841_218_9, 826.0),
        ("judge_qwen2vl7b", 0.431_435_445_068_163_6, 538.0),
    ] {
        let Some(e) = rescored("vl-rewardbench", &format!("vlrewardbench/{file}.json")) else { return };
        let reference = e.summary.reference.estimate.unwrap();
        assert_eq!((reference.n, e.summary.reference.left_out), (1247, 0), "{file}");
        assert!((reference.mean - accuracy).abs() < 1e-12, "{file}: {}", reference.mean);
        assert_eq!(e.summary.strict.credit, strict, "{file}");
        assert!(e.summary.labels.as_ref().unwrap().contradictions.is_empty(), "{file}");
        let path = data().unwrap().join(format!("vlrewardbench/{file}.json"));
        let published: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let by_source = published["summary"]["by_source"].as_object().unwrap();
        let table = e.summary.groups.iter().find(|g| g.name == "source").unwrap();
        assert_eq!(table.rows.len(), by_source.len());
        for row in &table.rows {
            let part = &by_source[if row.label == "(none)" { "" } else { row.label.as_str() }];
            let found = row.reference.unwrap();
            assert_eq!(found.n as u64, part["num_examples"].as_u64().unwrap(), "{file} {}", row.label);
            assert!((found.mean - part["accuracy"].as_f64().unwrap()).abs() < 1e-12, "{file} {}", row.label);
        }
        // The benchmark's own groups: general 181, hallucination 749, reasoning 317.
        let table = e.summary.groups.iter().find(|g| g.name == "group").unwrap();
        let sizes: Vec<(&str, usize)> = table.rows.iter().map(|r| (r.label.as_str(), r.strict.n)).collect();
        assert_eq!(sizes, [("general", 181), ("hallucination", 749), ("reasoning", 317)]);
    }
    let scalar = rescored("vl-rewardbench", "vlrewardbench/scalar_rm_qwen2vl7b.json").unwrap();
    let pairs = scalar.summary.pairs.as_ref().unwrap();
    assert!(pairs.auc.is_some() && pairs.calibration.is_some() && pairs.margins.is_some());
    let judge = rescored("vl-rewardbench", "vlrewardbench/judge_qwen2vl7b.json").unwrap();
    assert!(judge.summary.pairs.as_ref().unwrap().first_place.is_some());
}

#[test]
fn pandalm_annotators_agree() {
    // Cohen's kappa from its definition, computed apart in Python over the 999 rows and three labels.
    let Some(data) = data() else { return };
    let task = Task::parse("pandalm").unwrap();
    let blobs = tempfile::tempdir().unwrap();
    let table = load(&task, &data, blobs.path(), Pictures::Ignore).unwrap();
    let items = ocelli_eval::item::items_to_rescore(&task, &table).unwrap();
    assert_eq!(items.len(), 999);
    let credits = ocelli_eval::summary::item_credits(&items, &[]);
    let found =
        ocelli_eval::summary::metrics(&task.benchmark, &credits, &[], &[], &Default::default()).unwrap();
    let kappas = ["1 annotator2", "1 annotator3", "2 annotator3"]
        .map(|p| found[0].parts[&format!("Cohen annotator{p}")]);
    for (found, expected) in kappas.iter().zip([0.8520, 0.8789, 0.8617]) {
        assert!((found - expected).abs() <= 0.000_05, "{kappas:?}");
    }
}
