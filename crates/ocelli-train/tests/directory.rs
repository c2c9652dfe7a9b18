//! A run directory belongs to one run and to one process, and says so: other data, another model or other settings are refused by
//! name; what a kill left is cleared away; what was lost is told; a run that has ended has ended.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::Path;

use fixture::*;
use ocelli_model::vlm::Vlm;
use ocelli_train::identity::Place;
use ocelli_train::mpo::{self, MpoConfig};
use ocelli_train::observe::{Go, Observer, Progress, Silent};
use ocelli_train::responses::Response;
use ocelli_train::run::{EarlyStop, Outcome};
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::{PartRates, TrainError, checkpoint};
use serde_json::json;

fn config(steps: u64) -> SftConfig {
    SftConfig { run: run_config(steps), optimizer: rates(3e-3), batch: 4, rows: 120, ..SftConfig::default() }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// Keeps what a run says.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn a_directory_belongs_to_its_model_its_data_and_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let (train, held_out) = (examples(&m, 6, 1), examples(&m, 2, 2));
    let described = |seed: u64| json!({ "out": "a", "data": { "world": { "seed": seed } }, "train": {} });
    let go = |m: &Vlm, train: &[Response], held_out: &[Response], config: &SftConfig, seed: u64| {
        let described = described(seed);
        let place = Place { dir: dir.path(), described: Some(&described) };
        let checked = sft::check(config, m.clone(), train, held_out, place);
        let done = sft::run(config, m.clone(), train, held_out, place, &mut StopAfter(2));
        let done = done.map(|(_, outcome)| outcome.steps).map_err(|e| e.to_string());
        // A rehearsal says what the run says.
        assert_eq!(checked.err().map(|e| e.to_string()), done.clone().err());
        done
    };
    assert_eq!(go(&m, &train, &held_out, &config(9), 1), Ok(2));
    let before = read(dir.path().join("metrics.jsonl"));
    let refused = |found: Result<u64, String>, parts: &[&str]| {
        let error = found.expect_err("a refusal");
        for part in parts.iter().chain(&["holds another run"]) {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    };
    // The key is named where the configuration says it, the content where it does not.
    let others = examples(&m, 6, 99);
    refused(
        go(&m, &others, &held_out, &config(9), 99),
        &["`data.world.seed` is 1 there, 99 here", "training examples"],
    );
    refused(go(&m, &others, &held_out, &config(9), 1), &["training examples: 6 with content"]);
    refused(go(&m, &train[..5], &held_out, &config(9), 1), &["6 with content", "5 with content"]);
    refused(go(&m, &train, &train[..2], &config(9), 1), &["held-out examples"]);
    refused(go(&model(99), &train, &held_out, &config(9), 1), &["the base model"]);
    refused(go(&m, &train, &held_out, &config(10), 1), &["`train.run.steps` is 9 there, 10 here"]);
    assert_eq!(read(dir.path().join("metrics.jsonl")), before, "a refused run wrote into the directory");
    // Where the same content comes from does not matter.
    assert_eq!(go(&m, &train, &held_out, &config(9), 7), Ok(3));
    // A directory that does not say what it was made of is nobody's.
    std::fs::remove_file(dir.path().join("origin.json")).unwrap();
    refused(go(&m, &train, &held_out, &config(9), 1), &["origin.json"]);
}

#[test]
fn frozen_weights_are_part_of_what_a_run_is() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(2);
    let train = pairs(&m, 6, 1);
    let mut config = MpoConfig { run: run_config(7), batch: 3, ..MpoConfig::default() };
    // Only the projector is trained, so that checkpoints hold nothing of the language model.
    config.optimizer.lr = PartRates { tower: 0.0, projector: 1e-3, language: 0.0, head: 0.0 };
    mpo::run(&config, m.clone(), &train, &train, dir.path(), &mut StopAfter(3)).unwrap();
    let mut other = m.clone();
    let (id, value) = other
        .params
        .iter()
        .find(|(_, p)| p.name().contains("layers.1"))
        .map(|(id, p)| (id, p.value().clone()))
        .unwrap();
    let mut value = value;
    value.as_mut_slice::<f32>().unwrap()[0] += 1e-3;
    other.params.set_value(id, value).unwrap();
    let error = mpo::run(&config, other, &train, &train, dir.path(), &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::OtherRun { .. }), "{error}");
    assert!(error.to_string().contains("the base model: content"), "{error}");
    mpo::run(&config, m, &train, &train, dir.path(), &mut Silent).unwrap();
}

#[test]
fn a_run_that_stopped_early_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let (train, held_out) = (examples(&m, 4, 1), examples(&m, 4, 2));
    let mut c = config(200);
    c.run.eval_every = 2;
    c.run.early_stop = Some(EarlyStop { metric: "eval/loss".into(), larger: false, patience: 2 });
    let go = || sft::run(&c, m.clone(), &train, &held_out, dir.path(), &mut Silent).unwrap();
    let (first, outcome) = go();
    assert!(outcome.stopped_early && outcome.steps < 200, "{outcome:?}");
    let files = ["metrics.jsonl", "outcome.json", "model/model.safetensors", "events.out.tfevents.0.ocelli"];
    let before: Vec<Vec<u8>> = files.iter().map(|f| read(dir.path().join(f))).collect();
    // Called again, and again after a kill between the last checkpoint and the model.
    for killed in [false, true] {
        if killed {
            std::fs::remove_file(dir.path().join("outcome.json")).unwrap();
            std::fs::remove_dir_all(dir.path().join("model")).unwrap();
        }
        let (again, same) = go();
        assert_eq!(same, outcome);
        assert_eq!(values(&again), values(&first));
        for (file, before) in files.iter().zip(&before) {
            assert!(read(dir.path().join(file)) == *before, "{file} changed");
        }
    }
}

#[test]
fn one_process_at_a_time() {
    struct Second<'a>(&'a dyn Fn() -> String, Vec<String>);
    impl Observer for Second<'_> {
        fn step(&mut self, _: &Progress<'_>) -> Go {
            self.1.push((self.0)());
            Go::Stop
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let train = examples(&m, 4, 1);
    let second = || {
        let checked = sft::check(&config(3), m.clone(), &train, &[], dir.path()).unwrap_err().to_string();
        let error = sft::run(&config(3), m.clone(), &train, &[], dir.path(), &mut Silent).unwrap_err();
        assert!(matches!(error, TrainError::InUse { .. }), "{error}");
        assert_eq!(checked, error.to_string());
        checked
    };
    let mut watch = Second(&second, Vec::new());
    sft::run(&config(3), m.clone(), &train, &[], dir.path(), &mut watch).unwrap();
    let process = format!("process {} trains there", std::process::id());
    assert!(watch.1.len() == 1 && watch.1[0].contains(&process), "{:?}", watch.1);
    // Given back when it ended.
    sft::run(&config(3), m.clone(), &train, &[], dir.path(), &mut Silent).unwrap();
}

#[test]
fn what_a_kill_left_half_written_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let m = model(1);
    let train = examples(&m, 4, 1);
    sft::run(&config(4), m.clone(), &train, &[], dir.path(), &mut StopAfter(2)).unwrap();
    let left = [
        "model/model.safetensors.tmp-4242",
        "metrics.jsonl.tmp-4242-7",
        "checkpoints/unfinished-step-00000003/params.safetensors",
    ];
    for file in left {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"half").unwrap();
    }
    // Names that only look alike are somebody's.
    let own = dir.path().join("notes.tmp-old");
    std::fs::write(&own, b"mine").unwrap();
    let mut notes = Notes::default();
    sft::run(&config(4), m, &train, &[], dir.path(), &mut notes).unwrap();
    assert!(left.iter().all(|f| !dir.path().join(f).exists()) && own.exists());
    assert!(!dir.path().join("checkpoints/unfinished-step-00000003").exists());
    assert!(notes.0.iter().any(|n| n.contains("removed 3 unfinished")), "{:?}", notes.0);
}

#[test]
fn lost_records_are_told_and_the_outcome_stays() {
    let m = model(1);
    let (train, held_out) = (examples(&m, 4, 1), examples(&m, 2, 2));
    let go = |dir: &Path, stop: u64| -> (Outcome, Vec<String>) {
        struct Both(StopAfter, Notes);
        impl Observer for Both {
            fn step(&mut self, progress: &Progress<'_>) -> Go {
                self.0.step(progress)
            }
            fn note(&mut self, text: &str) {
                self.1.note(text);
            }
        }
        let mut watch = Both(StopAfter(stop), Notes::default());
        let (_, outcome) = sft::run(&config(6), m.clone(), &train, &held_out, dir, &mut watch).unwrap();
        (outcome, watch.1.0)
    };
    // Of a run that has ended: what was summed up is kept, and the records say that they are lost.
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _) = go(dir.path(), 99);
    let (ended, events) =
        (read(dir.path().join("outcome.json")), read(dir.path().join("events.out.tfevents.0.ocelli")));
    std::fs::remove_file(dir.path().join("metrics.jsonl")).unwrap();
    let (again, notes) = go(dir.path(), 99);
    assert_eq!(again, outcome);
    assert!(notes.iter().any(|n| n.contains("holds 0 of the 6 steps")), "{notes:?}");
    assert_eq!(read(dir.path().join("outcome.json")), ended);
    assert_eq!(read(dir.path().join("events.out.tfevents.0.ocelli")), events);
    let said = String::from_utf8(read(dir.path().join("metrics.jsonl"))).unwrap();
    assert!(said.contains("\"alarm\"") && said.contains("holds 0 of the 6 steps"), "{said}");
    // Half way: it goes on, and says it once in the records.
    let dir = tempfile::tempdir().unwrap();
    go(dir.path(), 3);
    std::fs::remove_file(dir.path().join("metrics.jsonl")).unwrap();
    let (_, notes) = go(dir.path(), 4);
    assert!(notes.iter().any(|n| n.contains("holds 0 of the 3 steps")), "{notes:?}");
    let (outcome, _) = go(dir.path(), 99);
    assert_eq!((outcome.steps, outcome.alarms), (6, 1));
    assert_eq!(curve(dir.path(), "loss").len(), 3);
}

#[test]
fn a_perplexity_that_is_no_number_does_not_end_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = model(1);
    // The norm before the output layer, a thousand times larger: losses beyond what exp() can say.
    let norms =
        m.params.iter().filter(|(_, p)| p.name().ends_with("norm.weight") && !p.name().contains("layers"));
    let found: Vec<_> = norms.map(|(id, p)| (id, p.value().clone())).collect();
    for (id, mut value) in found {
        value.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|x| *x *= 3e4);
        m.params.set_value(id, value).unwrap();
    }
    let (train, held_out) = (examples(&m, 4, 1), examples(&m, 2, 2));
    let mut c = SftConfig { optimizer: rates(1e-9), ..config(4) };
    c.run.early_stop = Some(EarlyStop { metric: "eval/perplexity".into(), larger: false, patience: 0 });
    let mut notes = Notes::default();
    let (_, outcome) = sft::run(&c, m, &train, &held_out, dir.path(), &mut notes).unwrap();
    assert_eq!(outcome.steps, 4);
    assert!(curve(dir.path(), "eval/loss")[0] > 710.0, "{:?}", curve(dir.path(), "eval/loss"));
    assert!(curve(dir.path(), "eval/perplexity").is_empty());
    assert!(notes.0.iter().any(|n| n.contains("eval/perplexity is left out")), "{:?}", notes.0);
    assert_eq!(checkpoint::list(&dir.path().join("checkpoints")).unwrap(), [3, 4]);
}
