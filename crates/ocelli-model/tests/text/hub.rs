//! Finding a checkpoint by name: the cache, a download from a hub that lives in this test, and every way in which that hub can
//! misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ocelli_model::Checkpoint;
use ocelli_model::hub::{Fetch, Hub};
use serde_json::json;

use crate::tiny::write_checkpoint;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub on a port of this machine: answers from a table, writes down what it was asked.
struct MockHub {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl MockHub {
    fn start(files: HashMap<String, Vec<u8>>) -> MockHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let path = line.split(' ').nth(1).unwrap_or("").to_owned();
                loop {
                    let mut header = String::new();
                    if reader.read_line(&mut header).unwrap() <= 2 {
                        break;
                    }
                }
                let (status, body) = match files.get(&path) {
                    Some(body) => ("200 OK", body.clone()),
                    None => ("404 Not Found", b"no such thing".to_vec()),
                };
                log.lock().unwrap().push(path);
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                // A client that has gone away is its own affair.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        MockHub { endpoint, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// The smallest HTTP client that can talk to [`MockHub`].
struct Http;

impl Fetch for Http {
    fn fetch(&self, url: &str, to: &Path) -> Result<(), String> {
        let rest = url.strip_prefix("http://").ok_or("not http")?;
        let (host, path) = rest.split_at(rest.find('/').ok_or("no path")?);
        let mut stream = TcpStream::connect(host).map_err(|e| format!("cannot connect to {host}: {e}"))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no end of the head")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{url}: {}", head.lines().next().unwrap_or("")));
        }
        std::fs::write(to, &answer[end + 4..]).map_err(|e| e.to_string())
    }
}

/// What a hub says about a model, and its files.
fn published(name: &str, dir: &Path) -> HashMap<String, Vec<u8>> {
    let mut files = HashMap::new();
    let mut siblings = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        siblings.push(json!({"rfilename": file}));
        files.insert(format!("/{name}/resolve/{COMMIT}/{file}"), std::fs::read(dir.join(&file)).unwrap());
    }
    siblings.push(json!({"rfilename": "README.md"}));
    let info = json!({"sha": COMMIT, "siblings": siblings, "likes": 3});
    files.insert(format!("/api/models/{name}"), info.to_string().into_bytes());
    files
}

fn checkpoint() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint("llama_tied", dir.path());
    dir
}

fn leftovers(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => found.extend(leftovers(&path)),
            false if name.contains(".part-") || name.starts_with("info-") => found.push(name),
            false => {}
        }
    }
    found
}

#[test]
fn a_name_is_downloaded_once_and_then_found_in_the_cache() {
    let source = checkpoint();
    let server = MockHub::start(published("acme/tiny", source.path()));
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().to_owned(), endpoint: server.endpoint.clone() };
    let found = hub.resolve("acme/tiny", Some(&Http)).unwrap();
    assert_eq!(found, cache.path().join("models--acme--tiny/snapshots").join(COMMIT));
    let reference = std::fs::read_to_string(cache.path().join("models--acme--tiny/refs/main")).unwrap();
    assert_eq!(reference, COMMIT);
    assert_eq!(Checkpoint::open(&found).unwrap().config.model_type, "llama");
    let asked = server.asked();
    assert_eq!(asked[0], "/api/models/acme/tiny");
    assert!(asked.iter().all(|p| !p.contains("README")), "only what a checkpoint needs: {asked:?}");
    assert_eq!(leftovers(cache.path()), Vec::<String>::new());

    // From here on the network is not needed, and not touched where there is one.
    assert_eq!(hub.resolve("acme/tiny", Some(&Http)).unwrap(), found);
    assert_eq!(hub.resolve("acme/tiny", None).unwrap(), found);
    assert_eq!(server.asked(), Vec::<String>::new());
    // A path that exists is taken as it is, whatever it looks like.
    let path = found.to_str().unwrap();
    assert_eq!(hub.resolve(path, None).unwrap(), found);
}

#[test]
fn shards_are_those_that_the_index_names() {
    let source = checkpoint();
    std::fs::rename(
        source.path().join("model.safetensors"),
        source.path().join("model-00001-of-00001.safetensors"),
    )
    .unwrap();
    let weights =
        ocelli_model::Weights::open(&source.path().join("model-00001-of-00001.safetensors")).unwrap();
    let map: serde_json::Map<_, _> =
        weights.names().map(|n| (n.to_owned(), json!("model-00001-of-00001.safetensors"))).collect();
    let index = json!({"metadata": {}, "weight_map": map});
    std::fs::write(source.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let server = MockHub::start(published("acme/sharded", source.path()));
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().to_owned(), endpoint: server.endpoint.clone() };
    let found = hub.resolve("acme/sharded", Some(&Http)).unwrap();
    assert!(found.join("model-00001-of-00001.safetensors").exists());
    Checkpoint::open(&found).unwrap();
}

#[test]
fn a_download_that_broke_off_is_taken_up_again() {
    let source = checkpoint();
    let mut files = published("acme/tiny", source.path());
    let weights = files.remove(&format!("/acme/tiny/resolve/{COMMIT}/model.safetensors")).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let broken = MockHub::start(files.clone());
    let hub = |server: &MockHub| Hub { cache: cache.path().to_owned(), endpoint: server.endpoint.clone() };
    let error = hub(&broken).resolve("acme/tiny", Some(&Http)).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("404"), "{error}");
    assert!(hub(&broken).resolve("acme/tiny", None).is_err(), "half a checkpoint is none");
    assert_eq!(leftovers(cache.path()), Vec::<String>::new());

    files.insert(format!("/acme/tiny/resolve/{COMMIT}/model.safetensors"), weights);
    let whole = MockHub::start(files);
    hub(&whole).resolve("acme/tiny", Some(&Http)).unwrap();
    let asked = whole.asked();
    assert!(
        !asked.iter().any(|p| p.ends_with("/config.json")),
        "what is there is not fetched again: {asked:?}"
    );
}

#[test]
fn without_a_network_the_error_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub { cache: cache.path().to_owned(), endpoint: format!("http://{port}") };
    let error = hub.resolve("acme/tiny", Some(&Http)).unwrap_err().to_string();
    for word in ["`acme/tiny`", "models--acme--tiny", &port.to_string(), "cannot connect", "give its path"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    let off = hub.resolve("acme/tiny", None).unwrap_err().to_string();
    assert!(off.contains("downloading is off"), "{off}");
}

#[test]
fn what_is_no_name_is_not_asked_for() {
    let server = MockHub::start(HashMap::new());
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().to_owned(), endpoint: server.endpoint.clone() };
    for name in ["no-such-directory", "a/b/c", "../up", "acme/..", "acme/ti ny", "", "acme/"] {
        let error = hub.resolve(name, Some(&Http)).unwrap_err().to_string();
        assert!(error.contains("no such file or directory"), "{name}: {error}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[test]
fn a_hub_that_answers_nonsense_writes_nothing_outside_the_cache() {
    let source = checkpoint();
    let answers = [
        ("not JSON", "<html>".to_owned(), "not understood"),
        ("a commit that climbs", json!({"sha": "../../../../evil", "siblings": []}).to_string(), "a commit"),
        (
            "no weights",
            json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}).to_string(),
            "neither",
        ),
    ];
    for (what, info, words) in answers {
        let mut files = published("acme/tiny", source.path());
        files.insert("/api/models/acme/tiny".into(), info.into_bytes());
        let server = MockHub::start(files);
        let outer = tempfile::tempdir().unwrap();
        let hub = Hub { cache: outer.path().join("a/b/c/cache"), endpoint: server.endpoint.clone() };
        let error = hub.resolve("acme/tiny", Some(&Http)).unwrap_err().to_string();
        assert!(error.contains(words), "{what}: {error}");
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "{what}");
        assert!(!outer.path().join("evil").exists(), "{what}");
    }
}

#[test]
fn an_index_cannot_name_a_file_outside_its_directory() {
    let source = checkpoint();
    let index = json!({"weight_map": {"x": "../../../../../evil.safetensors"}});
    std::fs::remove_file(source.path().join("model.safetensors")).unwrap();
    std::fs::write(source.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let server = MockHub::start(published("acme/tiny", source.path()));
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().to_owned(), endpoint: server.endpoint.clone() };
    let error = hub.resolve("acme/tiny", Some(&Http)).unwrap_err().to_string();
    assert!(error.contains("evil"), "{error}");
    assert!(server.asked().iter().all(|p| !p.contains("evil")));
}
