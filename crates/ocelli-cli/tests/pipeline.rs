//! `ocelli run` from outside: a whole small pipeline, run twice, changed, killed in every stage, and given bad files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
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

/// The numbers of an undisturbed run, made once for all tests.
fn undisturbed() -> &'static BTreeMap<String, Vec<u8>> {
    static NUMBERS: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        finished(&file(dir.path(), "whole", SMALL), &["--quiet"]);
        numbers(&dir.path().join("whole"))
    })
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
    assert_eq!(&first, undisturbed(), "two runs give the same numbers");
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
fn another_seed_gives_other_numbers() {
    let dir = tempfile::tempdir().unwrap();
    finished(&file(dir.path(), "b", SMALL), &["--quiet", "--seed", "1"]);
    assert_ne!(undisturbed()["metrics.jsonl"], numbers(&dir.path().join("b"))["metrics.jsonl"]);
}

#[test]
fn killed_in_every_stage_it_ends_with_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let killed = file(dir.path(), "killed", SMALL);
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
    assert_eq!(undisturbed(), &numbers(&run));
}

const QUESTIONS: &str = "[stage.train]\nkind = \"questions\"\n\
    from = { world = { name = \"counting\", seed = 1, count = 2, width = 64, height = 64 } }\n";
const FROZEN: &str = "[stage.sft]\nkind = \"sft\"\nmodel = \"base\"\ndata = [\"train\"]\n\
    train = { optimizer = { lr = { tower = 0, projector = 0, language = 0, head = 0 } } }\n";
const GRPO: &str = "[stage.grpo]\nkind = \"grpo\"\nmodel = \"base\"\nquestions = \"train\"\ntools = false\n[stage.grpo.train]\n";

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
        (
            format!("name = \"x\"\n{model}[stage.sft]\nkind = \"sft\"\nmodel = \"base\"\ndata = []\n"),
            "data is empty",
        ),
        (format!("name = \"x\"\n{QUESTIONS}{model}{FROZEN}"), "every part is frozen"),
        (
            format!(
                "name = \"x\"\n{QUESTIONS}{model}{GRPO}reward = {{ rules = [{{ kind = \"accuracy\", weight = nan }}] }}\n"
            ),
            "NaN",
        ),
        (format!("name = \"x\"\n{QUESTIONS}{model}{GRPO}reward = {{ necessity = nan }}\n"), "finite number"),
        (format!("name = \"x\"\n{QUESTIONS}{model}{GRPO}run = {{ steps = 0 }}\n"), "at least one step"),
        (
            "name = \"x\"\n[stage.train]\nkind = \"questions\"\nfrom = { puzzlevqa = \"nowhere\" }\n"
                .to_owned(),
            "neither here nor below OCELLI_DATA",
        ),
        (format!("name = \"x\"\n{model}[stage.e]\nkind = \"evalute\"\n"), "did you mean `evaluate`?"),
        (format!("name = \"x\"\n{model}[stage.\"a/b\"]\nkind = \"model\"\n"), "letters, digits"),
    ];
    for (i, (text_, expected)) in cases.iter().enumerate() {
        let config = file(dir.path(), &format!("bad{i}"), text_);
        let output = ocelli(&config, &[]).env_remove("OCELLI_DATA").output().unwrap();
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

/// The example that opens the documentation of the crate, run as it stands there.
#[test]
fn the_example_of_the_documentation_is_true() {
    let docs = include_str!("../src/main.rs");
    let example = docs.split("//! ```console\n").nth(1).and_then(|d| d.split("//! ```").next()).unwrap();
    let mut lines = example.lines().map(|l| l.strip_prefix("//! ").unwrap());
    let command = lines.next().and_then(|l| l.strip_prefix("$ ocelli ")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ocelli")).args(command.split(' ')).output().unwrap();
    assert!(output.status.success());
    let (out, _) = text(&output);
    assert_eq!(out.lines().collect::<Vec<_>>(), lines.collect::<Vec<_>>());
}

/// Every shipped pipeline is read, its stages fit together, and its small form changes settings that exist.
#[test]
fn the_shipped_pipelines_are_sound() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(configs).unwrap() {
        let path = entry.unwrap().path();
        if !std::fs::read_to_string(&path).unwrap().contains("[stage.") {
            continue;
        }
        seen += 1;
        for more in [&[][..], &["--quick"]] {
            let mut command = ocelli(&path, &["--check"]);
            let output =
                command.args(more).current_dir(dir.path()).env_remove("OCELLI_DATA").output().unwrap();
            let (out, err) = text(&output);
            assert!(output.status.success(), "{}: {err}", path.display());
            assert!(out.contains("stages fit together"), "{out}");
        }
    }
    assert_eq!(seen, 3, "pipelines in configs/");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "checking wrote something");
}
