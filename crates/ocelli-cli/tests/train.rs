//! `ocelli train` from outside: what belongs to another run, to another kind of training or to nobody is refused by name, by a dry
//! run too; two processes do not meet in one directory; a run that is asked to end saves and says how to go on.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ocelli_data::io::write_jsonl;
use ocelli_data::{Message, Part, Status, Trajectory};

const WORLD: &str = r#"world = { name = "charts", seed = 1, count = 4, width = 192, height = 128, level = "easy", styles = ["bar"], skills = ["value"], by_colour = true }"#;

/// A small run of two steps over `data`, with `more` lines before its tables.
fn file(dir: &Path, more: &str, data: &str) -> PathBuf {
    let path = dir.join("train.toml");
    let text = format!(
        "out = {:?}\n{more}\n[model]\ntiny = \"tiny-0.5m\"\nseed = 1\nmax_pixels = 3072\n[data]\n{data}\n[train]\nrun = {{ steps = 2 }}\n",
        dir.join("run").display().to_string()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn ocelli(kind: &str, config: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    command.args(["train", kind]).arg(config).args(more).stdin(Stdio::null());
    command
}

/// Whether it ended well, and all that it said.
fn said(kind: &str, config: &Path, more: &[&str]) -> (bool, String) {
    let output = ocelli(kind, config, more).output().unwrap();
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.success(), text)
}

fn refused(kind: &str, config: &Path, more: &[&str], parts: &[&str]) {
    // A dry run finds what the run finds.
    for dry in [&["--dry-run"][..], &[]] {
        let (ok, text) = said(kind, config, &[more, dry].concat());
        assert!(!ok, "`train {kind} {more:?} {dry:?}` was not refused:\n{text}");
        for part in parts {
            assert!(text.contains(part), "{part} is missing with {dry:?} in:\n{text}");
        }
    }
}

const SHORT: [&str; 2] = ["--set", "train.batch=2"];

#[test]
fn a_directory_is_not_anothers_run() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "", WORLD);
    let (ok, text) = said("sft", &config, &SHORT);
    assert!(ok && text.contains("done after 2 steps"), "{text}");
    let with = |set| [&SHORT[..], &["--set", set]].concat();
    refused(
        "sft",
        &config,
        &with("data.world.seed=99"),
        &["holds another run", "`data.world.seed` is 1 there, 99 here"],
    );
    refused("sft", &config, &with("model.seed=99"), &["`model.seed` is 1 there, 99 here"]);
    refused("sft", &config, &with("train.run.steps=3"), &["`train.run.steps` is 2 there, 3 here"]);
    refused("mpo", &config, &SHORT, &["holds another run"]);
    let (ok, text) = said("sft", &config, &[&SHORT[..], &["--dry-run"]].concat());
    assert!(ok && text.contains("the configuration is sound"), "{text}");
}

#[test]
fn what_would_change_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "", WORLD);
    let set = |kind: &str, sets: &[&str], parts: &[&str]| {
        let more: Vec<&str> = sets.iter().flat_map(|s| ["--set", s]).collect();
        refused(kind, &config, &more, parts);
    };
    set("mpo", &["reasons=true"], &["`reasons` is set, but `ocelli train mpo` does not use it", "`sft`"]);
    set("reward", &["tools=[\"measure\"]"], &["`tools` is set", "`sft` and `grpo`"]);
    set("grpo", &["rollout.batch=4"], &["`rollout` is set", "`train.rollout`"]);
    set("sft", &["reward_model.tiny=tiny-0.5m"], &["`reward_model` is set", "`grpo`"]);
    set("sft", &["calling=0.5"], &["`calling` is set, but there are no tools"]);
    set("sft", &["reasons=true", "tools=[\"measure\"]"], &["`reasons` and `tools` cannot be combined"]);
    set("sft", &["calling=nan", "tools=[\"measure\"]"], &["calling is NaN; it must be from 0 to 1"]);
    set("sft", &["data.pictures=here"], &["data.pictures is set, but it changes nothing"]);
    set("sft", &["model.eyes=here"], &["model.eyes is set, but it changes nothing"]);
    set("sft", &["data.world.count=0"], &["data.world.count is 0"]);
    set("grpo", &["train.prompts=100000000"], &["prompts is 100000000; it must be from 1 to 65536"]);
    set("sft", &["train.batch=1000000000000"], &["batch is 1000000000000"]);
    let lora = r#"train.optimizer.lora={ rank = 2, alpha = 4.0, targets = ["q_proj", "v_projj"] }"#;
    set("sft", &[lora], &["`v_projj`; there are:", "v_proj"]);
    assert!(!dir.path().join("run").exists(), "a refusal left a directory");
}

#[test]
fn recorded_trajectories_are_learned_with_tools_and_refused_by_name_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [Trajectory {
        sample_id: "by-hand".into(),
        attempt: 0,
        messages: vec![Message::user([Part::text("How many bars are there?")]), Message::assistant("Three.")],
        ids: vec![],
        spans: vec![],
        logprobs: vec![],
        weight_versions: vec![],
        images: vec![],
        tools: vec![],
        status: Status::Answered,
        scores: vec![],
    }];
    let path = dir.path().join("rows.jsonl");
    write_jsonl(&path, &rows).unwrap();
    let config = file(dir.path(), "", &format!("trajectories = {:?}", path.display().to_string()));
    for tools in ["tools=[]", "tools=[\"measure\"]"] {
        let (ok, text) = said("sft", &config, &["--dry-run", "--set", tools]);
        assert!(ok && text.contains("1 examples"), "{text}");
    }
    refused(
        "grpo",
        &config,
        &[],
        &["1 recorded trajectories, which only a supervised run learns from", "questions"],
    );
    refused(
        "mpo",
        &config,
        &[],
        &["1 recorded trajectories, which only a supervised run learns from", "pairs"],
    );
}

#[cfg(unix)]
#[test]
fn asked_to_end_it_saves_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "", WORLD);
    let long = ["--set", "train.batch=1", "--set", "train.run.steps=100000"];
    let mut first =
        ocelli("sft", &config, &long).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (began, metrics) = (Instant::now(), dir.path().join("run/metrics.jsonl"));
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(
            began.elapsed() < Duration::from_secs(300) && first.try_wait().unwrap().is_none(),
            "it did not begin"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let process = format!("process {} trains there", first.id());
    refused("sft", &config, &long, &["is in use", &process]);
    let kill = Command::new("kill").args(["-TERM", &first.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = first.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted after") && text.contains("everything is saved"), "{text}");
    let command = format!(
        "go on with: ocelli train sft {} --set train.batch=1 --set train.run.steps=100000",
        config.display()
    );
    assert!(text.contains(&command) && !text.contains("done after"), "{text}");
    assert!(std::fs::read_dir(dir.path().join("run/checkpoints")).unwrap().next().is_some());
}
