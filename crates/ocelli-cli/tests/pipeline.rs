//! `ocelli run` from outside: a whole small pipeline, run twice, changed, killed in every stage, and given bad files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Every kind of stage, as small as it gets.
const SMALL: &str = r#"
name = "small"
tools = ["measure"]

[rollout]
limits = { turns = 3, calls = 3, turn_tokens = 48, tokens = 96, context = 640 }

[stage.train]
kind = "questions"
from = { world = { name = "charts", seed = 1, count = 6, width = 192, height = 128, level = "easy", styles = ["bar"], skills = ["value"], by_colour = true } }

[stage.test]
kind = "questions"
from = { world = { name = "charts", seed = 2, count = 4, width = 192, height = 128, level = "easy", styles = ["bar"], skills = ["value"], by_colour = true } }

[stage.base]
kind = "model"
tiny = "tiny-0.5m"
max_pixels = 3072

[stage.trajectories]
kind = "trajectories"
questions = "train"
model = "base"
oracle = { tools = true, calls = true }
filters = ["answered"]

[stage.sft]
kind = "sft"
model = "base"
data = ["trajectories", "train"]
held_out = ["test"]
train = { batch = 4, run = { steps = 4, checkpoint_every = 2 } }

[stage.pairs]
kind = "pairs"
questions = "train"
model = "sft"
group = 2
corrupted = true

[stage.reward]
kind = "reward"
model = "sft"
pairs = ["pairs"]
held_out = ["pairs"]
train = { batch = 4, run = { steps = 3, checkpoint_every = 1 } }

[stage.mpo]
kind = "mpo"
model = "sft"
pairs = ["pairs"]
train = { batch = 4, run = { steps = 3, checkpoint_every = 1 } }

[stage.grpo]
kind = "grpo"
model = "mpo"
questions = "train"
reward_model = "reward"
calibrate = "pairs"

[stage.grpo.train]
prompts = 2
group = 2
buffer = { capacity = 16, max_age = 4 }
run = { steps = 3, checkpoint_every = 1 }
reward = { rules = [{ kind = "accuracy", weight = 1.0 }], model = { weight = 0.5 } }

[stage.evaluate]
kind = "evaluate"
questions = "test"
group_by = "skill"
arms = [
  { label = "Commonest", majority = "train" },
  { label = "SFT", model = "sft", tools = "both" },
  { label = "GRPO", model = "grpo", tools = "with" },
]
"#;

fn file(dir: &Path, out: &str, text: &str) -> PathBuf {
    let path = dir.join(format!("{out}.toml"));
    std::fs::write(&path, format!("out = {:?}\n{text}", dir.join(out).display().to_string())).unwrap();
    path
}

fn ocelli(config: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    command.arg("run").arg(config).args(more).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
}

fn finished(config: &Path, more: &[&str]) -> (String, String) {
    let output = ocelli(config, more).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{err}");
    (out, err)
}

/// The numbers of a run: what each arm answered, and every metric of every step.
fn numbers(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = vec![run.join("metrics.jsonl")];
    files.extend(std::fs::read_dir(run.join("items")).unwrap().map(|e| e.unwrap().path()));
    let name = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|p| (name(p), std::fs::read(p).unwrap())).collect()
}

#[test]
fn a_pipeline_runs_is_skipped_when_unchanged_and_again_where_changed() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "first", SMALL);
    let (out, _) = finished(&config, &[]);
    for part in ["Commonest", "SFT", "GRPO", "without tools", "report.html"] {
        assert!(out.contains(part), "{part} is missing in\n{out}");
    }
    let first = numbers(&dir.path().join("first"));
    assert_eq!(first.len(), 5, "four arms and the metrics");
    let page = std::fs::read_to_string(dir.path().join("first/report.html")).unwrap();
    assert!(page.contains("Reward model: reward") && page.contains("<svg"));

    let (_, err) = finished(&config, &[]);
    assert_eq!(err.matches("unchanged").count(), 10, "{err}");
    assert_eq!(numbers(&dir.path().join("first")), first);

    // Another learning of the reward model: everything before it stands, what uses it runs again.
    let (_, err) = finished(&config, &["--set", "stage.reward.train.run.steps=2"]);
    let ran =
        |stage: &str| err.lines().any(|l| l.contains(&format!(" {stage}: ")) && !l.contains("unchanged"));
    for (stage, expected) in [
        ("sft", false),
        ("pairs", false),
        ("mpo", false),
        ("reward", true),
        ("grpo", true),
        ("evaluate", true),
    ] {
        assert_eq!(ran(stage), expected, "{stage} in\n{err}");
    }
}

#[test]
fn two_runs_give_the_same_numbers_and_another_seed_gives_others() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (file(dir.path(), "a", SMALL), file(dir.path(), "b", SMALL));
    finished(&a, &["--quiet"]);
    finished(&b, &["--quiet"]);
    assert_eq!(numbers(&dir.path().join("a")), numbers(&dir.path().join("b")));
    finished(&b, &["--quiet", "--seed", "1"]);
    assert_ne!(
        numbers(&dir.path().join("a"))["metrics.jsonl"],
        numbers(&dir.path().join("b"))["metrics.jsonl"]
    );
}

#[test]
fn killed_in_every_stage_it_ends_with_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (file(dir.path(), "whole", SMALL), file(dir.path(), "killed", SMALL));
    finished(&whole, &["--quiet"]);
    let run = dir.path().join("killed");
    let stages =
        ["train", "test", "base", "trajectories", "sft", "pairs", "reward", "mpo", "grpo", "evaluate"];
    let mut kills = 0;
    for stage in stages {
        let begun = run.join("stages").join(stage).join("key");
        let mut child =
            ocelli(&killed, &["--quiet"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        // Killed as soon as the stage has begun; a training stage may have taken a step or two.
        while !begun.exists() && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{stage} was never begun");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(40));
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills >= 5, "only {kills} of 10 runs were still alive when they were killed");
    finished(&killed, &["--quiet"]);
    assert_eq!(numbers(&dir.path().join("whole")), numbers(&run));
}

#[test]
fn files_that_cannot_run_are_answered_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let model = "[stage.base]\nkind = \"model\"\ntiny = \"tiny-0.5m\"\n";
    let cases = [
        ("name = \"x\"\n[stage]\n".to_owned(), "there is no stage"),
        (format!("name = \"x\"\nseeed = 1\n{model}"), "did you mean `seed`?"),
        (
            format!("name = \"x\"\n{model}[stage.sft]\nkind = \"sft\"\nmodel = \"bass\"\ndata = []\n"),
            "did you mean `base`?",
        ),
        (
            format!(
                "name = \"x\"\n{model}[stage.sft]\nkind = \"sft\"\nmodel = \"base\"\ndata = [\"base\"]\n"
            ),
            "gives a model; wanted: questions or trajectories",
        ),
        (
            format!("name = \"x\"\n[stage.sft]\nkind = \"sft\"\nmodel = \"base\"\ndata = []\n{model}"),
            "a stage can only use earlier ones",
        ),
        (format!("name = \"x\"\n{model}[stage.e]\nkind = \"evalute\"\n"), "did you mean `evaluate`?"),
        (format!("name = \"x\"\n{model}[stage.\"a/b\"]\nkind = \"model\"\n"), "letters, digits"),
    ];
    for (i, (text_, expected)) in cases.iter().enumerate() {
        let config = file(dir.path(), &format!("bad{i}"), text_);
        let output = ocelli(&config, &[]).output().unwrap();
        let (_, err) = text(&output);
        assert_eq!(output.status.code(), Some(2), "case {i}: {err}");
        assert!(err.contains(expected), "case {i}: {err}");
        assert!(!dir.path().join(format!("bad{i}")).exists(), "case {i} wrote something");
    }
}

#[test]
fn a_dry_run_tells_the_plan_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "dry", SMALL);
    let (out, _) = finished(&config, &["--dry-run", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 10);
    assert!(stages.iter().all(|s| s["state"] == "to do"));
    assert!(plan["seconds"].as_f64().unwrap() > 0.0);
    assert!(!dir.path().join("dry").exists());
}
