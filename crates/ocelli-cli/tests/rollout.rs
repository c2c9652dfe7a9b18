//! `ocelli rollout` as a user runs it: killed at any moment it goes on, a second run changes nothing, and it speaks to an
//! endpoint.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const CONFIG: &str = r#"
out = "OUT"
seed = 1
group = 2
live = 4
[data]
kind = "world"
name = "charts"
count = 12
seed = 5
width = 320
height = 240
[policy]
kind = "oracle"
[env]
answer = "tool"
"#;

fn write_config(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("rollout.toml");
    std::fs::write(&path, text.replace("OUT", dir.join("out").to_str().unwrap())).unwrap();
    path
}

fn rollout(config: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    command.arg("rollout").arg(config).args(more).env_remove("OCELLI_API_KEY");
    command
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn names(path: &Path) -> Vec<(String, u64)> {
    lines(path)
        .iter()
        .map(|t| (t["sample_id"].as_str().unwrap().to_owned(), t["attempt"].as_u64().unwrap()))
        .collect()
}

/// Without what time does to it.
fn content(path: &Path) -> Vec<String> {
    let mut rows = lines(path);
    for row in &mut rows {
        for used in row["tools"].as_array_mut().unwrap() {
            used["millis"] = json!(0);
        }
    }
    rows.iter().map(Value::to_string).collect()
}

#[test]
fn killed_at_any_moment_it_goes_on_and_ends_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), CONFIG);
    let out = dir.path().join("out");
    let give_up = Instant::now() + Duration::from_secs(400);
    // Killed before it has drawn anything, while it works, while it writes; wherever it is by then.
    for after in [30, 150, 300, 600, 900, 1300] {
        let mut child: Child =
            rollout(&config, &["-q"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after));
        let _ = child.kill();
        let _ = child.wait();
        assert!(Instant::now() < give_up);
    }
    let report = report(&rollout(&config, &["--json"]).output().unwrap());
    assert_eq!(report["work"]["done"], 24, "{report}");
    assert_eq!(report["filters"]["statuses"]["answered"], 24, "{report}");
    let ids = names(&out.join("trajectories.jsonl"));
    assert_eq!(ids.len(), 24);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 24, "each once");

    // A run that nobody killed says the same, byte for byte, times apart.
    let other = tempfile::tempdir().unwrap();
    let calm = write_config(other.path(), CONFIG);
    assert!(rollout(&calm, &["-q"]).output().unwrap().status.success());
    let calm = other.path().join("out");
    assert_eq!(content(&out.join("trajectories.jsonl")), content(&calm.join("trajectories.jsonl")));
    assert_eq!(content(&out.join("sft.jsonl")), content(&calm.join("sft.jsonl")));

    // Every picture is there by its hash.
    for t in lines(&out.join("trajectories.jsonl")) {
        for hash in t["images"].as_array().unwrap() {
            let hash = hash.as_str().unwrap();
            let found = walk(&out.join("images")).into_iter().any(|f| f.contains(&hash[4..]));
            assert!(found, "{hash}");
        }
    }

    // The same command again has nothing to do; more questions extend the run.
    let before = std::fs::read(out.join("trajectories.jsonl")).unwrap();
    assert!(rollout(&config, &["-q"]).output().unwrap().status.success());
    assert_eq!(std::fs::read(out.join("trajectories.jsonl")).unwrap(), before);
    let more = rollout(&config, &["-q", "--set", "data.count=13"]).output().unwrap();
    assert!(more.status.success());
    assert_eq!(names(&out.join("trajectories.jsonl")).len(), 26);
    assert!(
        content(&calm.join("trajectories.jsonl"))
            .iter()
            .all(|row| { content(&out.join("trajectories.jsonl")).contains(row) })
    );
    // Other limits are another run, and the old one's trajectories are not among its results.
    let set = ["--json", "--set", "limits.turns=9", "--set", "data.count=2"];
    let other = self::report(&rollout(&config, &set).output().unwrap());
    assert_eq!((&other["filters"]["seen"], &other["work"]["done"]), (&json!(4), &json!(4)), "{other}");
}

fn walk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push(name);
        }
    }
    found
}

#[test]
fn a_dry_run_writes_nothing_and_an_unknown_key_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), CONFIG);
    let shown = report(&rollout(&config, &["--dry-run", "--json"]).output().unwrap());
    assert_eq!((&shown["units"], &shown["done"]), (&json!(24), &json!(0)), "{shown}");
    assert!(shown["first_prompt"].as_str().unwrap().contains("<tool_call>"), "{shown}");
    assert!(!dir.path().join("out").exists());
    let wrong = rollout(&config, &["--set", "data.cuont=3"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("did you mean `count`?"), "{said}");
    let none = rollout(&config, &["--set", "data.count=0"]).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("nothing to do"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), CONFIG);
    let set = ["--set", "data.count=400", "--set", "live=2", "--json"];
    let child = rollout(&config, &set).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ledger = dir.path().join("out/ledger.sqlite");
    while !ledger.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(400));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let work = &report["work"];
    // All was given back, so the next run need not wait for a lease.
    assert_eq!(work["leased"], 0, "{report}");
    assert_eq!(work["ready"].as_u64().unwrap() + work["done"].as_u64().unwrap(), 800, "{report}");
    assert_eq!(report["filters"]["seen"], work["done"]);
}

/// Answers every request on one thread each; `reply(number)` is status and body.
fn serve(reply: fn(usize) -> (u16, String)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { continue };
            std::thread::spawn(move || answer(stream, reply(n)));
        }
    });
    url
}

fn answer(mut stream: TcpStream, (status, body): (u16, String)) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut request = vec![0; length];
    let _ = stream.read_exact(&mut request);
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

fn said(text: &str) -> String {
    json!({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
    .to_string()
}

#[test]
fn an_endpoint_answers_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    // One request in five fails.
    let url = serve(|n| if n % 5 == 4 { (503, "later".into()) } else { (200, said("The answer is 7.")) });
    let endpoint = format!(
        "kind = \"endpoint\"\nbase_url = \"{url}\"\nmodel = \"mock\"\nprice = {{ input = 1.0, output = 10.0 }}\n\
         retry = {{ base_s = 0.01 }}\n"
    );
    let text =
        CONFIG.replace("kind = \"oracle\"\n", &endpoint).replace("answer = \"tool\"", "answer = \"text\"");
    let config = write_config(dir.path(), &text);
    let report = report(&rollout(&config, &["--json"]).output().unwrap());
    assert_eq!(report["filters"]["statuses"]["answered"], 24, "{report}");
    let totals = &report["endpoint"];
    assert_eq!(totals["answered"], 24);
    assert!(totals["attempts"].as_u64().unwrap() >= 28, "{totals}");
    let cost = 24.0 * (100.0 * 1.0 + 10.0 * 10.0) / 1e6;
    assert!((totals["cost"].as_f64().unwrap() - cost).abs() < 1e-9, "{totals}");
}

#[test]
fn a_wrong_key_stops_the_run_and_spends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let url = serve(|_| (401, "{\"error\": \"no such key\"}".into()));
    let endpoint = format!("kind = \"endpoint\"\nbase_url = \"{url}\"\nmodel = \"mock\"\n");
    let config = write_config(dir.path(), &CONFIG.replace("kind = \"oracle\"\n", &endpoint));
    let output = rollout(&config, &["--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("401") && error.contains("no such key") && error.contains("given back"),
        "{error}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["work"]["ready"], &report["work"]["done"]), (&json!(24), &json!(0)), "{report}");
}
