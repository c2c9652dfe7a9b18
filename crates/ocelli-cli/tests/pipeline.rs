//! `ocelli run` from outside: a whole small pipeline, run twice, changed, killed in every stage, and given bad files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ocelli_model::vlm::tiny::tokenizer;
use ocelli_model::{ModelConfig, SaveDtype, SaveTensor, TensorSpec, TextModel, TextNames, save_safetensors};

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

[stage.words]
kind = "questions"
from = { readings = { seed = 1 }, limit = 4 }

[stage.base]
kind = "model"
tiny = "tiny-0.5m"
max_pixels = 3072

[stage.eyes]
kind = "assemble"
language = "LANGUAGE"
tower = "base"
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
data = ["trajectories", "train", "words"]
held_out = ["test"]
train = { batch = 4, run = { steps = 4, checkpoint_every = 2 } }

[stage.pairs]
kind = "pairs"
questions = "train"
model = "sft"
group = 2
corrupted = true

[stage.pairs-test]
kind = "pairs"
questions = "test"
model = "sft"
group = 2
corrupted = true

[stage.reward]
kind = "reward"
model = "sft"
pairs = ["pairs"]
held_out = ["pairs-test"]
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
  { label = "Eyes", model = "eyes" },
]
"#;

/// Stages of [`SMALL`] in order.
const STAGES: [&str; 13] = [
    "train",
    "test",
    "words",
    "base",
    "eyes",
    "trajectories",
    "sft",
    "pairs",
    "pairs-test",
    "reward",
    "mpo",
    "grpo",
    "evaluate",
];

/// A random Llama with the native tokenizer, as a checkpoint.
fn text_model(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024, "tie_word_embeddings": true,
        "rms_norm_eps": 1e-5,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    // The token that stands for pictures in an assembled model.
    let tokens = tokenizer().unwrap().to_json().unwrap().replace("<|video_pad|>", "<empty_output>");
    std::fs::write(dir.join("tokenizer.json"), tokens).unwrap();
    std::fs::write(dir.join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let config = ModelConfig::read(&dir.join("config.json")).unwrap();
    let specs = TextModel::specs(&config.text, &TextNames::default());
    let tensors: Vec<SaveTensor<'_>> = specs
        .into_iter()
        .enumerate()
        .map(|(i, TensorSpec { name, shape })| {
            let n: usize = shape.iter().product();
            let one = if shape.len() == 1 { 1.0 } else { 0.0 };
            let values: Vec<f32> = (0..n).map(|k| one + ((k * 37 + i * 101) as f32).sin() * 0.2).collect();
            SaveTensor { name, shape, values: values.into() }
        })
        .collect();
    save_safetensors(dir, "model", &tensors, SaveDtype::F32, usize::MAX).unwrap();
}

fn file(dir: &Path, out: &str, text: &str) -> PathBuf {
    let path = dir.join(format!("{out}.toml"));
    let language = dir.join("language");
    if text.contains("LANGUAGE") && !language.exists() {
        text_model(&language);
    }
    let text = text.replace("\"LANGUAGE\"", &format!("{:?}", language.display().to_string()));
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
    let beside = ["Reward model: reward: pair accuracy ", "GRPO: grpo, sample buffer: ", "batch filled "];
    for part in ["Commonest", "SFT", "GRPO", "Eyes", "without tools", "report.html"].iter().chain(&beside) {
        assert!(out.contains(part), "{part} is missing in\n{out}");
    }
    let first = numbers(&dir.path().join("first"));
    assert_eq!(first.len(), 6, "five arms and the metrics");
    assert_eq!(&first, undisturbed(), "two runs give the same numbers");
    let page = std::fs::read_to_string(dir.path().join("first/report.html")).unwrap();
    assert!(page.contains("Reward model: reward") && page.contains("<svg"));
    // GRPO went on from MPO, which is not asked; so from SFT. The commonest answer is nobody's beginning.
    assert!(
        page.contains("GRPO + tools vs SFT + tools") && !page.contains("SFT vs Commonest"),
        "what is compared"
    );
    let environment = std::fs::read_to_string(dir.path().join("first/environment.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_str(&environment).unwrap();
    for key in ["version", "program", "processor", "kernels", "threads", "memory_mib", "seed"] {
        assert!(environment.get(key).is_some(), "{key} is missing in {environment}");
    }
    for stage in ["train", "test", "words"] {
        assert!(environment["data"][stage].as_str().is_some_and(|h| h.len() == 64), "{environment}");
    }

    let (_, err) = finished(&config, &[]);
    // Questions from a source that is no world are read anew.
    assert_eq!(err.matches("unchanged").count(), STAGES.len() - 1, "{err}");
    assert_eq!(numbers(&dir.path().join("first")), first);

    // Another learning of the reward model: everything before it stands, what uses it runs again, and that is said.
    let (_, err) = finished(&config, &["--set", "stage.reward.train.run.steps=2"]);
    assert_eq!(err.matches("what it had made is removed").count(), 3, "{err}");
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
    let mut kills = 0;
    for stage in STAGES {
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
    assert!(kills >= 5, "only {kills} of 13 runs were still alive when they were killed");
    finished(&killed, &["--quiet"]);
    assert_eq!(undisturbed(), &numbers(&run));
}

const QUESTIONS: &str = "[stage.train]\nkind = \"questions\"\n\
    from = { world = { name = \"counting\", seed = 1, count = 2, width = 64, height = 64 } }\n";
const FROZEN: &str = "[stage.sft]\nkind = \"sft\"\nmodel = \"base\"\ndata = [\"train\"]\n\
    train = { optimizer = { lr = { tower = 0, projector = 0, language = 0, head = 0 } } }\n";
const PAIRS: &str = "[stage.pairs]\nkind = \"pairs\"\nmodel = \"base\"\nquestions = \"train\"\n";
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
        // What single stages would refuse when they are reached.
        (format!("name = \"x\"\n{model}{QUESTIONS}{GRPO}group = 1\n"), "group is 1"),
        (format!("name = \"x\"\n{model}{QUESTIONS}{GRPO}rows = 0\n"), "rows is 0"),
        (format!("name = \"x\"\n{model}{QUESTIONS}{PAIRS}group = 0\n"), "nothing would make a pair"),
        (format!("name = \"x\"\n{model}{QUESTIONS}{PAIRS}group = 1\n"), "a pair takes two answers"),
        (format!("name = \"x\"\n[rollout]\ntemperature = -1\n{model}"), "temperature is -1"),
        (
            format!("name = \"x\"\n[rollout]\nlimits = {{ context = 5 }}\n{model}{QUESTIONS}{PAIRS}"),
            "`rollout.limits.context` is 5: no answer would fit",
        ),
        (format!("name = \"x\"\ntools = [\"mesure\"]\n{model}"), "mesure"),
        (
            "name = \"x\"\n[stage.base]\nkind = \"model\"\ntiny = \"tiny-1m\"\n".to_owned(),
            "there is no preset `tiny-1m`",
        ),
        ("name = \"x\"\n[stage.base]\nkind = \"model\"\n".to_owned(), "give one of `tiny`"),
        (format!("name = \"x\"\n{}", QUESTIONS.replace("counting", "countign")), "countign"),
        (format!("name = \"x\"\n{}", QUESTIONS.replace("count = 2", "count = 0")), "world.count is 0"),
        (
            format!("name = \"x\"\n{model}{QUESTIONS}{GRPO}reward = {{ model = {{ weight = 0.5 }} }}\n")
                .replace("tools = false", "tools = false\nreward_model = \"base\""),
            "it must be of kind `reward`",
        ),
        // A mistake deep in a stage names its key and its line.
        (format!("name = \"x\"\n{model}{QUESTIONS}{GRPO}run = {{ stps = 1 }}\n"), "did you mean `steps`?"),
        (format!("name = \"x\"\n{model}{QUESTIONS}{GRPO}run = {{ stps = 1 }}\n"), "line 15"),
        (format!("name = \"x\"\n{model}{QUESTIONS}{GRPO}prompts = \"many\"\n"), "prompts = \"many\""),
    ];
    for (i, (text_, expected)) in cases.iter().enumerate() {
        let config = file(dir.path(), &format!("bad{i}"), text_);
        for more in [&[][..], &["--dry-run"]] {
            let output = ocelli(&config, more).env_remove("OCELLI_DATA").output().unwrap();
            let (_, err) = text(&output);
            assert_eq!(output.status.code(), Some(2), "case {i} {more:?}: {err}");
            assert!(err.contains(expected), "case {i} {more:?}: {err}");
            assert!(!dir.path().join(format!("bad{i}")).exists(), "case {i} wrote something");
        }
    }
    let sound = file(dir.path(), "sound", &format!("name = \"x\"\n{QUESTIONS}{model}"));
    for (set, expected) in [
        ("stage.bsae.seed=1", "there is no `stage.bsae`; did you mean `stage.base`?"),
        ("stage.base.sede=1", "did you mean `seed`?"),
        ("stage.base.seed=one", "`--set stage.base.seed=one`"),
    ] {
        let output = ocelli(&sound, &["--check", "--set", set]).output().unwrap();
        let (_, err) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{set}: {err}");
        assert!(err.contains(expected), "{set}: {err}");
    }
}

#[test]
fn a_dry_run_tells_the_plan_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "dry", SMALL);
    let (out, _) = finished(&config, &["--dry-run", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    assert_eq!(stages.len(), STAGES.len());
    assert!(stages.iter().all(|s| s["state"] == "to do"));
    assert!(stages.iter().all(|s| s["seconds"].as_f64().is_some()), "a stage without a time: {out}");
    assert!(plan["memory_mib"].as_u64().is_some_and(|m| m > 0) || !cfg!(target_os = "linux"));
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

/// Two models and an evaluation, in a second.
const SHORT: &str = r#"
name = "short"

[rollout]
limits = { turns = 1, calls = 0, turn_tokens = 8, tokens = 8, context = 512 }

[stage.train]
kind = "questions"
from = { world = { name = "counting", seed = 1, count = 4, width = 64, height = 64 } }

[stage.base]
kind = "model"
tiny = "tiny-0.5m"
max_pixels = 3072

[stage.sft]
kind = "sft"
model = "base"
data = ["train"]
train = { batch = 2, run = { steps = 2, checkpoint_every = 1 } }

[stage.evaluate]
kind = "evaluate"
questions = "train"
arms = [{ label = "Base", model = "base" }, { label = "Taught", model = "sft" }]
"#;

/// Starts a run and kills it as soon as something has come about.
fn kill_when(config: &Path, more: &[&str], begun: impl Fn() -> bool) {
    let mut child = ocelli(config, more).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !begun() && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_was_changed_or_removed_is_noticed_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "s", SHORT);
    finished(&config, &["--quiet"]);
    let run = dir.path().join("s");
    let first = numbers(&run);
    // A copy has other times and the same content: that is no change.
    let questions = run.join("stages/train/questions.jsonl");
    let bytes = std::fs::read(&questions).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(&questions, &bytes).unwrap();
    let (_, err) = finished(&config, &[]);
    assert_eq!(err.matches("unchanged").count(), 4, "{err}");
    for (damaged, told) in [
        ("stages/train/questions.jsonl", "questions.jsonl was changed"),
        ("stages/evaluate/arms.json", "arms.json was changed"),
        ("blobs", "blobs/ with its pictures is gone"),
        ("stages/sft/model/model.safetensors", "model/model.safetensors is gone"),
        ("stages/sft/metrics.jsonl", "metrics.jsonl is gone"),
    ] {
        let path = run.join(damaged);
        match (path.is_dir(), told.ends_with("gone")) {
            (true, _) => std::fs::remove_dir_all(&path).unwrap(),
            (_, true) => std::fs::remove_file(&path).unwrap(),
            _ => std::fs::write(&path, "{}\n").unwrap(),
        }
        let (_, err) = finished(&config, &[]);
        assert!(err.contains(told) && err.contains("it is made again"), "{damaged}: {err}");
        assert_eq!(numbers(&run), first, "{damaged}");
    }
    let (_, err) = finished(&config, &["--fresh"]);
    assert!(!err.contains("unchanged") && err.contains("--fresh"), "{err}");
    assert_eq!(numbers(&run), first);
}

#[test]
fn a_stage_of_another_build_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "b", SHORT);
    finished(&config, &["--quiet"]);
    let done = dir.path().join("b/stages/sft/done.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&done).unwrap()).unwrap();
    record["build"] = "0123456789ab".into();
    std::fs::write(&done, record.to_string()).unwrap();
    let (_, err) = finished(&config, &[]);
    assert!(err.contains("made by another build of this program") && err.contains(": sft;"), "{err}");
}

#[test]
fn two_runs_do_not_work_in_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    // Long enough to be at work when the second one comes.
    let config = file(dir.path(), "one", &SHORT.replace("steps = 2", "steps = 5000"));
    let mut child = ocelli(&config, &["--quiet"]).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !dir.path().join("one/stages/sft/key").exists() {
        assert!(Instant::now() < deadline, "the first run never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = ocelli(&config, &[]).output().unwrap();
    let (_, err) = text(&output);
    let id = child.id().to_string();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("another `ocelli run` is at work") && err.contains(&id), "{err}");
}

fn report(run: &Path) -> (Output, PathBuf) {
    let page = run.with_extension("html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    let output = command.arg("report").arg(run).arg("--out").arg(&page).output().unwrap();
    (output, page)
}

#[test]
fn an_unfinished_run_is_told_as_such_with_nothing_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "u", SHORT);
    let run = dir.path().join("u");
    finished(&config, &["--quiet"]);
    let changed = ["--quiet", "--set", "stage.sft.train.run.steps=4000", "--set", "about=\"Another one.\""];
    // Until the stage begins anew, its directory is that of the run before.
    let (checkpoint, done) = (run.join("stages/sft/checkpoints"), run.join("stages/sft/done.json"));
    let in_sft = || checkpoint.exists() && !done.exists();
    kill_when(&config, &changed, in_sft);
    let (output, page) = report(&run);
    assert!(output.status.success(), "{}", text(&output).1);
    let page = std::fs::read_to_string(page).unwrap();
    for part in ["This run is not finished", "<code>sft</code> was under way", "Another one.", "steps = 4000"]
    {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(!page.contains("does best") && !page.contains("Taught</div>"), "results of the run before");
    assert!(!run.join("report.html").exists() && !run.join("items").join("taught.jsonl").exists());
    // The time of the attempt that was killed counts; the same command ends it.
    let (_, err) = finished(&config, &[]);
    assert!(err.contains("what it had made is removed"), "{err}");
    let (output, page) = report(&run);
    assert!(output.status.success());
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Taught") && !page.contains("not finished"));
}

#[test]
fn the_time_of_killed_attempts_counts() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "t", &SHORT.replace("steps = 2", "steps = 40"));
    let run = dir.path().join("t");
    kill_when(&config, &["--quiet"], || run.join("stages/sft/checkpoints").exists());
    std::fs::write(run.join("stages/sft/seconds"), "1000.5\n").unwrap();
    finished(&config, &["--quiet"]);
    let summary = std::fs::read(run.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    let stages = summary["stages"].as_array().unwrap();
    let seconds = stages.iter().find(|s| s["name"] == "sft").unwrap()["seconds"].as_f64().unwrap();
    assert!(seconds > 1000.5, "{seconds}");
}

#[test]
fn a_training_has_a_report_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("alone");
    let config = dir.path().join("sft-alone.toml");
    let text_ = format!(
        "out = {:?}\n[model]\ntiny = \"tiny-0.5m\"\nmax_pixels = 3072\n[data]\n\
         world = {{ name = \"counting\", seed = 1, count = 4, width = 64, height = 64 }}\n\
         [train]\nbatch = 2\nrun = {{ steps = 3, seed = 5 }}\n",
        run.display().to_string()
    );
    std::fs::write(&config, text_).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    let output = command.args(["train", "sft", "--quiet"]).arg(&config).output().unwrap();
    assert!(output.status.success(), "{}", text(&output).1);
    let (output, page) = report(&run);
    assert!(output.status.success(), "{}", text(&output).1);
    let html = std::fs::read_to_string(page).unwrap();
    for part in [
        "<h1>alone</h1>",
        "<code>ocelli train sft</code>: 3 steps",
        "seed 5",
        "<svg",
        "No alarm",
        "&quot;batch&quot;: 2",
    ] {
        assert!(html.contains(part), "{part} is missing");
    }
    // Under way: no outcome yet, and half a line at the end of what is being written.
    std::fs::remove_file(run.join("outcome.json")).unwrap();
    let records = run.join("metrics.jsonl");
    let mut bytes = std::fs::read(&records).unwrap();
    bytes.extend(b"{\"type\":\"alarm\",\"stage\":\"sft\",\"step\":2,\"monitor\":\"loss\",\"message\":\"too high\"}\n{\"type\":");
    std::fs::write(&records, bytes).unwrap();
    let (output, page) = report(&run);
    assert!(output.status.success(), "{}", text(&output).1);
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("not finished") && html.contains("too high") && html.contains("1 alarm"));
}

#[test]
fn what_is_no_run_is_answered_with_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "run", SHORT);
    finished(&config, &["--quiet"]);
    let run = dir.path().join("run");
    let asked = |path: &Path| {
        let (output, _) = report(path);
        assert_eq!(output.status.code(), Some(2), "{}", path.display());
        text(&output).1
    };
    let err = asked(&dir.path().join("rnu"));
    assert!(err.contains("there is no ") && err.contains(&run.display().to_string()), "{err}");
    let err = asked(&run.join("report.html"));
    assert!(err.contains("is a file") && err.contains("name the directory of its run"), "{err}");
    let err = asked(dir.path());
    assert!(
        err.contains("is no run") && err.contains("runs there: ") && err.contains("ocelli train"),
        "{err}"
    );
    std::fs::remove_file(run.join("items/taught.jsonl")).unwrap();
    let err = asked(&run);
    assert!(err.contains("arm `taught`") && err.contains("writes items/ again"), "{err}");
    // And so it does.
    finished(&config, &["--quiet"]);
    assert!(report(&run).0.status.success());
}
