//! The table `tools` of a configuration, against a second process of our own server: rollouts, training and pipelines get
//! tools of other servers, are told of a server that is not there before anything begins, and replay a recording offline.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const TOKEN: &str = "a-secret";

struct Serving(Child, String);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ocelli() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ocelli"))
}

/// `ocelli tools serve` in a process of its own, and where it listens.
fn serve(dir: &Path) -> Serving {
    let token = dir.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut child = ocelli()
        .args(["tools", "serve", "--listen", "127.0.0.1:0", "--token-file"])
        .arg(&token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").expect("where it listens").to_owned();
    Serving(child, url)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn run(dir: &Path, args: &[&str]) -> Output {
    ocelli().current_dir(dir).args(args).env("TOOLS_TOKEN", TOKEN).output().unwrap()
}

fn rollout(dir: &Path, name: &str, tools: &str) -> Output {
    rollout_of(dir, name, 6, tools)
}

fn rollout_of(dir: &Path, name: &str, count: usize, tools: &str) -> Output {
    let config = format!(
        "out = \"{name}\"\nretry_pause_s = 0.0\n[data]\nkind = \"world\"\nname = \"charts\"\ncount = {count}\nseed = 3\nwidth = 224\nheight = 168\n\
         [policy]\nkind = \"oracle\"\n[env]\nanswer = \"tool\"\n[tools]\n{tools}\n"
    );
    std::fs::write(dir.join(format!("{name}.toml")), config).unwrap();
    run(dir, &["rollout", &format!("{name}.toml")])
}

/// The trajectories without the time that calls took.
fn trajectories(dir: &Path, name: &str) -> Vec<serde_json::Value> {
    let rows = std::fs::read_to_string(dir.join(name).join("trajectories.jsonl")).unwrap();
    let mut rows: Vec<serde_json::Value> = rows.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for row in &mut rows {
        for used in row["tools"].as_array_mut().unwrap().iter_mut().filter_map(|t| t.as_object_mut()) {
            used.remove("millis");
            used.remove("waited_ms");
        }
    }
    rows
}

#[test]
fn a_rollout_on_servers_is_recorded_and_replayed_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let here = rollout(dir, "here", "");
    assert!(here.status.success(), "{}", text(&here));
    let server = serve(dir);
    let servers = format!("servers = [{{ url = \"{}\", token_env = \"TOOLS_TOKEN\" }}]", server.1);
    let far = rollout(dir, "far", &format!("{servers}\nrecord = \"recording\""));
    assert!(far.status.success(), "{}", text(&far));
    assert_eq!(trajectories(dir, "here"), trajectories(dir, "far"));
    assert!(trajectories(dir, "far").iter().any(|t| !t["tools"].as_array().unwrap().is_empty()));
    drop(server);
    let gone = rollout(dir, "gone", &servers);
    assert!(!gone.status.success());
    let again = rollout(dir, "again", "replay = \"recording\"");
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(trajectories(dir, "far"), trajectories(dir, "again"));
}

#[test]
fn an_outage_is_told_counts_against_nobody_and_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(rollout_of(dir, "first", 6, "record = \"recording\"").status.success());
    // The seventh and eighth question were never recorded, so their tools fail.
    let short = rollout_of(dir, "run", 8, "replay = \"recording\"");
    let said = text(&short);
    assert_eq!(short.status.code(), Some(3), "{said}");
    for word in [
        "2 of 8 rollouts were given up",
        "not in the recording",
        "6 trajectories",
        "of the 6 that came to an end",
        "of 8 if the 2 given up count 0",
    ] {
        assert!(said.contains(word), "{said}\nsays nothing of {word}");
    }
    assert_eq!(trajectories(dir, "run").len(), 6);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("run/report.json")).unwrap()).unwrap();
    assert_eq!(
        (report["rewarded"].as_u64(), report["work"]["dead"].as_u64()),
        (Some(6), Some(2)),
        "{report:#}"
    );
    assert_eq!(report["given_up"].as_array().unwrap().len(), 2);
    // The same command tries again, and completes once the tools are there.
    assert_eq!(rollout_of(dir, "run", 8, "replay = \"recording\"").status.code(), Some(3));
    let mended = rollout_of(dir, "run", 8, "");
    assert!(mended.status.success() && text(&mended).contains("8 trajectories"), "{}", text(&mended));
}

#[test]
fn training_takes_remote_tools_and_is_told_first_where_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = serve(dir);
    let world = |seed, count| {
        format!(
            "{{ name = \"charts\", seed = {seed}, count = {count}, width = 64, height = 64, styles = [\"bar\"], skills = [\"value\"] }}"
        )
    };
    let write = |name: &str, tools: &str| {
        let config = format!(
            "out = \"{name}\"\ntools = {tools}\n[model]\ntiny = \"tiny-0.5m\"\n[data]\nworld = {}\n[held_out]\nworld = {}\n\
             [train]\nprompts = 1\ngroup = 2\n[train.run]\nsteps = 1\n",
            world(1, 2),
            world(2, 2)
        );
        std::fs::write(dir.join(format!("{name}.toml")), config).unwrap();
    };
    let remote = |url: &str, name: &str| {
        format!(
            "{{ names = [\"measure\", \"far_crop\"], remote = [{{ url = \"{url}/mcp\", prefix = \"far_\", only = [\"{name}\"], \
             token_env = \"TOOLS_TOKEN\" }}] }}"
        )
    };
    write("good", &remote(&server.1, "crop"));
    let good = run(dir, &["train", "grpo", "good.toml", "--dry-run"]);
    assert!(good.status.success(), "{}", text(&good));

    let refused = |name: &str, tools: &str, words: &[&str]| {
        write(name, tools);
        let output = run(dir, &["train", "grpo", &format!("{name}.toml")]);
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        words.iter().for_each(|w| assert!(said.contains(w), "{said}\nsays nothing of {w}"));
        assert!(!dir.join(name).exists(), "{said}: something was begun");
    };
    refused("unknown", &remote(&server.1, "fly"), &["fly", "does not offer"]);
    refused("misspelt", "[\"mesure\"]", &["mesure", "measure"]);
    refused("field", "{ nmaes = [] }", &["nmaes"]);
    refused("secret", &remote(&server.1, "crop").replace("TOOLS_TOKEN", "NO_SUCH_TOKEN"), &["NO_SUCH_TOKEN"]);
    let url = server.1.clone();
    drop(server);
    refused("absent", &remote(&url, "crop"), &[&url, "tools.remote"]);
}

#[test]
fn a_pipeline_takes_remote_tools_and_is_told_first_where_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = serve(dir);
    let config = format!(
        "name = \"far\"\nout = \"far\"\n[tools]\nnames = [\"far_measure\"]\nremote = [{{ url = \"{}/mcp\", prefix = \"far_\", \
         token_env = \"TOOLS_TOKEN\" }}]\n[stage.train]\nkind = \"questions\"\nfrom = {{ world = {{ name = \"charts\", seed = 1, \
         count = 3, width = 64, height = 64, styles = [\"bar\"], skills = [\"value\"] }} }}\n[stage.base]\nkind = \"model\"\n\
         tiny = \"tiny-0.5m\"\n[stage.look]\nkind = \"trajectories\"\nmodel = \"base\"\nquestions = \"train\"\ngroup = 1\n\
         tools = true\nfilters = []\n",
        server.1
    );
    std::fs::write(dir.join("far.toml"), config).unwrap();
    let good = run(dir, &["run", "far.toml"]);
    assert!(good.status.success(), "{}", text(&good));
    drop(server);
    std::fs::remove_dir_all(dir.join("far")).unwrap();
    let absent = run(dir, &["run", "far.toml"]);
    let said = text(&absent);
    assert!(!absent.status.success() && said.contains("tools.remote"), "{said}");
    assert!(!dir.join("far").join("stage").exists() && !dir.join("far").join("stages").exists(), "{said}");
}
