//! The engine: every request ends in one outcome, nothing is lost, nothing is asked twice.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

mod mock_server;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mock_server::{Asked, Say, Server};
use ocelli_agent::endpoint::{Completion, Finish, Outcome, SamplingParams, Usage};
use ocelli_data::{ContentHash, Message};
use ocelli_eval::declare::{Benchmark, Task};
use ocelli_eval::evaluate::{Evaluation, Plan, ReasoningMode, evaluate};
use ocelli_eval::load::{Pictures, Table, load};
use ocelli_eval::run::{Cache, LocalPolicy, Policy, RunReport};

const N: usize = 120;

fn task() -> Task {
    let text = r#"
name = "digits"
title = "Last digits"
source = { url = "https://example.org", licence = "none" }
[[data]]
format = "jsonl"
files = ["digits.jsonl"]
id = "id"
[fields]
question = "question"
answer = "answer"
[prompt]
user = "{{ question }}"
[sampling]
temperature = 0.0
[[score]]
reference = "gsm8k_flexible"
strict = { compare = "math" }
"#;
    Task::with_variant(Benchmark::parse("digits", text).unwrap(), "").unwrap()
}

fn table(dir: &Path) -> Table {
    let rows: String = (0..N)
        .map(|i| {
            format!("{{\"id\": {i}, \"question\": \"Give the last digit of {i}\", \"answer\": {}}}\n", i % 10)
        })
        .collect();
    std::fs::write(dir.join("digits.jsonl"), rows).unwrap();
    load(&task(), dir, dir, Pictures::Read).unwrap()
}

fn number(asked: &Asked) -> usize {
    asked.text.rsplit(' ').next().unwrap().parse().unwrap()
}

fn truth(asked: &Asked) -> Say {
    Say::Text(format!("The answer is {}.", number(asked) % 10))
}

async fn run(
    policy: &Policy,
    table: &Table,
    out: &Path,
    cache: Option<&mut Cache>,
    samples: u32,
) -> Result<(Evaluation, RunReport), String> {
    let task = task();
    let plan = Plan {
        task: &task,
        policy,
        judge: None,
        reasoning: ReasoningMode::Off,
        sampling: task.benchmark.sampling.clone(),
        samples,
        limit: None,
    };
    evaluate(&plan, table, out, cache, |_, _| {}).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn every_ending_is_counted_and_the_denominator_stays() {
    let server = Server::start(|_, asked| match number(asked) % 6 {
        1 => Say::Cut("I am still think".into()),
        2 => Say::Nothing,
        3 => Say::Refusal,
        // No box, no marker, no formula, no number, and too long for an answer: nothing can be read here.
        4 => Say::Text("I have looked at the question for a long while without coming to any result".into()),
        5 => Say::Status(400),
        _ => truth(asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let (e, report) = run(&server.policy(), &table, &dir.path().join("out"), None, 1).await.unwrap();
    let each = N / 6;
    let outcomes: BTreeMap<Outcome, usize> = Outcome::ALL.into_iter().map(|o| (o, each)).collect();
    assert_eq!(e.summary.outcomes, outcomes);
    assert_eq!((report.asked, report.failed), (N, each));
    let strict = &e.summary.strict;
    assert_eq!((strict.credit, strict.n, strict.left_out), (each as f64, N, 0));
    assert!((strict.worst - 1.0 / 6.0).abs() < 1e-12 && (strict.best - 1.0).abs() < 1e-12, "{strict:?}");
    assert_eq!(e.records.len(), N);
    assert_eq!(server.count(), N, "rejections are not repeated");
}

#[tokio::test]
async fn faults_are_repeated_until_all_is_answered() {
    // A tenth of the requests fail; each item is asked until it is answered, once.
    let server = Server::start(|n, asked| if n % 10 == 3 { Say::Status(503) } else { truth(asked) }).await;
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let (e, report) = run(&server.policy(), &table, &dir.path().join("out"), None, 1).await.unwrap();
    assert_eq!(e.summary.strict.credit, N as f64);
    assert_eq!((report.asked, report.failed), (N, 0));
    assert_eq!(e.summary.endpoint.unwrap().attempts as usize, server.count());
}

#[tokio::test]
async fn a_killed_run_goes_on_where_it_stopped() {
    let server = Server::start(|_, asked| truth(asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let (table, out) = (table(dir.path()), dir.path().join("out"));
    let (whole, _) = run(&server.policy(), &table, &out, None, 1).await.unwrap();
    // What a kill leaves: some whole lines and a half one.
    let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let kept = 47;
    std::fs::write(out.join("log.jsonl"), lines[..kept].join("\n") + "\n" + &lines[kept][..30]).unwrap();
    let before = server.count();
    let (again, report) = run(&server.policy(), &table, &out, None, 1).await.unwrap();
    assert_eq!(server.count() - before, N - kept);
    assert_eq!((report.from_log, report.asked), (kept, N - kept));
    assert_eq!(again.records, whole.records);
    let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    let mut items: Vec<String> = log
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["item"].as_str().unwrap().to_owned())
        .collect();
    items.sort();
    items.dedup();
    assert_eq!((log.lines().count(), items.len()), (N, N), "every item once");
    // A third run asks nothing.
    let (_, report) = run(&server.policy(), &table, &out, None, 1).await.unwrap();
    assert_eq!((report.from_log, report.asked), (N, 0));
}

#[tokio::test]
async fn failures_are_asked_again_by_the_next_run() {
    let server = Server::start(|n, asked| if n < N { Say::Status(400) } else { truth(asked) }).await;
    let dir = tempfile::tempdir().unwrap();
    let (table, out) = (table(dir.path()), dir.path().join("out"));
    let (e, _) = run(&server.policy(), &table, &out, None, 1).await.unwrap();
    assert_eq!(e.summary.outcomes, BTreeMap::from([(Outcome::Failed, N)]));
    let note = format!("{N} request(s) failed");
    assert!(e.summary.notes.iter().any(|n| n.contains(&note) && n.contains("400")), "{:?}", e.summary.notes);
    assert_eq!(e.summary.strict.estimate.unwrap().mean, 0.0);
    let (e, _) = run(&server.policy(), &table, &out, None, 1).await.unwrap();
    assert_eq!(e.summary.strict.estimate.unwrap().mean, 1.0);
}

#[tokio::test]
async fn the_cache_serves_other_runs() {
    let server = Server::start(|_, asked| truth(asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let mut cache = Cache::open(&dir.path().join("cache")).unwrap();
    run(&server.policy(), &table, &dir.path().join("a"), Some(&mut cache), 1).await.unwrap();
    assert_eq!(cache.len(), N);
    // A half line, as a kill leaves it, costs that one answer and no more.
    let path = dir.path().join("cache/answers.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 20]).unwrap();
    let mut cache = Cache::open(&dir.path().join("cache")).unwrap();
    let (e, report) =
        run(&server.policy(), &table, &dir.path().join("b"), Some(&mut cache), 1).await.unwrap();
    assert_eq!((report.from_cache, report.asked), (N - 1, 1));
    assert_eq!(e.summary.strict.credit, N as f64);
    assert_eq!(Cache::open(&dir.path().join("cache")).unwrap().len(), N);
    // Another sampling is another question.
    let (_, report) =
        run(&server.policy(), &table, &dir.path().join("c"), Some(&mut cache), 2).await.unwrap();
    assert_eq!((report.from_cache, report.asked), (N, N));
}

#[tokio::test]
async fn a_wrong_key_stops_the_run_at_once() {
    let server = Server::start(|_, _| Say::Status(401)).await;
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let error = run(&server.policy(), &table, &dir.path().join("out"), None, 1).await.unwrap_err();
    assert!(error.contains("stopped after 0 of 120") && error.contains("401"), "{error}");
    assert!(server.count() < 20, "{}", server.count());
}

#[tokio::test]
async fn a_folder_takes_one_run_only() {
    let server = Server::start(|_, asked| truth(asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let (mut data, out) = (table(dir.path()), dir.path().join("out"));
    run(&server.policy(), &data, &out, None, 1).await.unwrap();
    data.fingerprint = ContentHash::of(b"other data");
    let error = run(&server.policy(), &data, &out, None, 1).await.unwrap_err();
    assert!(error.contains("another run") && error.contains("fingerprint"), "{error}");
}

#[tokio::test]
async fn two_processes_do_not_write_one_log() {
    let server = Server::start(|_, asked| truth(asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let (table, out) = (table(dir.path()), dir.path().join("out"));
    run(&server.policy(), &table, &out, None, 1).await.unwrap();
    // A lock belongs to one opening of the file, so this stands for another process.
    let held = std::fs::File::open(out.join("log.jsonl")).unwrap();
    held.try_lock().unwrap();
    let error = run(&server.policy(), &table, &out, None, 1).await.unwrap_err();
    assert!(error.contains("log.jsonl") && error.contains("another process"), "{error}");
    held.unlock().unwrap();
    assert_eq!(run(&server.policy(), &table, &out, None, 1).await.unwrap().1.from_log, N);
}

#[tokio::test]
async fn samples_make_curves() {
    // Item i is right in i % 5 of 4 samples (4 at most); wrong answers scatter.
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, asked| {
        let seed = asked.body["seed"].as_u64().unwrap() as usize;
        count.fetch_add(1, Ordering::SeqCst);
        if seed < number(asked) % 5 {
            truth(asked)
        } else {
            Say::Text(format!("The answer is {}.", 100 + seed))
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let mut task = task();
    task.benchmark.sampling.seed = Some(0);
    let policy = server.policy();
    let plan = Plan {
        task: &task,
        policy: &policy,
        judge: None,
        reasoning: ReasoningMode::Off,
        sampling: task.benchmark.sampling.clone(),
        samples: 4,
        limit: None,
    };
    let (e, _) = evaluate(&plan, &table, &dir.path().join("out"), None, |_, _| {}).await.unwrap();
    let curves = e.summary.curves.unwrap();
    let ks: Vec<usize> = curves.k.iter().map(|r| r.k).collect();
    assert_eq!(ks, [1, 2, 4]);
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    // Right in 0, 1, 2, 3, 4 of 4, a fifth of the items each.
    near(curves.k[0].pass.mean, 0.5);
    near(curves.k[1].pass.mean, (0.0 + 0.5 + 5.0 / 6.0 + 1.0 + 1.0) / 5.0);
    near(curves.k[2].pass.mean, 0.8);
    near(curves.k[2].pass_all.mean, 0.2);
    // One right against three different wrong answers is a tie of four; two or more win.
    near(curves.k[2].majority.mean, (0.0 + 0.25 + 1.0 + 1.0 + 1.0) / 5.0);
    assert_eq!(e.summary.strict.estimate.unwrap().mean, 0.5);
}

struct Echo(AtomicUsize);

impl LocalPolicy for Echo {
    fn name(&self) -> String {
        "echo".into()
    }

    fn parallel(&self) -> usize {
        2
    }

    fn generate(
        &self,
        messages: &[Message],
        _: &dyn Fn(ContentHash) -> Result<Vec<u8>, String>,
        _: &SamplingParams,
        _: u64,
    ) -> Result<Completion, String> {
        let text = messages[0].plain_text();
        self.0.fetch_add(1, Ordering::SeqCst);
        if text.ends_with("7") {
            return Err("out of memory".into());
        }
        Ok(Completion {
            text: format!("The answer is {}.", &text[text.len() - 1..]),
            reasoning: None,
            unclosed_thinking: false,
            refusal: None,
            tool_calls: vec![],
            malformed_calls: vec![],
            finish: Finish::Stop,
            usage: Usage { completion: 5, ..Usage::default() },
            model: "echo".into(),
            attempts: 1,
            latency_s: 0.0,
        })
    }
}

#[tokio::test]
async fn a_local_model_is_a_policy() {
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let echo = Arc::new(Echo(AtomicUsize::new(0)));
    let (e, _) = run(&Policy::Local(echo.clone()), &table, &dir.path().join("out"), None, 1).await.unwrap();
    assert_eq!(echo.0.load(Ordering::SeqCst), N);
    assert_eq!(e.summary.strict.credit, (N - N / 10) as f64);
    assert_eq!(e.summary.outcomes[&Outcome::Failed], N / 10);
}
