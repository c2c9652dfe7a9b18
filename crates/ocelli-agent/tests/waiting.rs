//! How many calls are under way decides when a call runs, and never what becomes of it.

mod toy;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use ocelli_agent::toolbox::{LocalTools, Toolbox};
use ocelli_data::ToolCall;
use ocelli_tools::{
    CallTime, Client, Declared, Endpoint, Images, Limits, Registry, Reply, Server, ServerConfig,
    ServiceConfig, Timed, ToolSpec,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

fn spec(name: &str) -> ToolSpec {
    let parameters = json!({"type": "object", "properties": {}});
    ToolSpec { name: name.into(), description: "A tool.".into(), parameters, example: Default::default() }
}

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: String::new(), name: name.into(), arguments: arguments.as_object().unwrap().clone() }
}

fn images() -> Images {
    let mut images = Images::new(Arc::new(Limits::default()));
    images.insert_picture(toy::picture(90)).unwrap();
    images
}

/// Holds its thread for 0.3 s.
fn slow() -> Declared {
    Declared::dynamic(spec("slow"), |_, call| {
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(10));
            call.check()?;
        }
        Ok(Reply::text("done"))
    })
}

/// Holds its thread until it is told.
fn held(gate: Receiver<()>) -> Declared {
    let gate = Mutex::new(gate);
    Declared::dynamic(spec("held"), move |_, _| {
        let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(60));
        Ok(Reply::text("let go"))
    })
}

const GENEROUS: CallTime = CallTime { run: Duration::from_secs(60), whole: Duration::from_secs(120) };

async fn serve(registry: Registry) -> Client {
    let service = ServiceConfig { threads: 1, ..ServiceConfig::default() };
    let address = "127.0.0.1:0".parse().unwrap();
    let config = ServerConfig { address, token: None, service, drain: Duration::from_secs(1) };
    let server = Server::bind(registry, &config).await.unwrap();
    let url = format!("http://{}", server.address());
    tokio::spawn(server.run(std::future::pending()));
    Client::connect(&[Endpoint { url, token: None }], Limits::default()).await.unwrap()
}

/// Ten calls on one thread: the last begins after 2.7 s, each may run for 2.
async fn ten(tools: Arc<dyn Toolbox>) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let tools = tools.clone();
        running.spawn(async move {
            let time = CallTime { run: Duration::from_secs(2), whole: Duration::from_secs(60) };
            tools.timed(&call("slow", json!({})), &images(), time).await
        });
    }
    let mut waits = Vec::new();
    for Timed { reply, waited } in running.join_all().await {
        reply.expect("waiting is not held against a call");
        waits.push(waited);
    }
    waits.sort();
    assert!(waits[0] < waits[9] && waits[9] > Duration::from_secs(2), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_call_begins_when_it_runs() {
    let registry = Registry::empty(Limits::default()).with_declared(slow());
    ten(Arc::new(LocalTools::new(Arc::new(registry.clone()), 1))).await;
    ten(Arc::new(serve(registry).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_trajectory_holds_over_all() {
    let (go, gate) = channel();
    let tools = LocalTools::new(Arc::new(Registry::empty(Limits::default()).with_declared(held(gate))), 1);
    let first = tools.clone();
    let first = tokio::spawn(async move { first.timed(&call("held", json!({})), &images(), GENEROUS).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let time = CallTime { run: Duration::from_secs(60), whole: Duration::from_millis(100) };
    let late = tools.timed(&call("held", json!({})), &images(), time).await;
    assert!(late.reply.unwrap_err().to_string().contains("deadline"));
    assert!(late.waited >= Duration::from_millis(100));
    go.send(()).unwrap();
    assert!(first.await.unwrap().reply.is_ok());
}

/// Light calls, and those of next to no work, while the only thread is held and others stand in line for it.
async fn light_ones(tools: Arc<dyn Toolbox>, go: std::sync::mpsc::Sender<()>) {
    let mut holding = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let tools = tools.clone();
        holding.spawn(async move { tools.timed(&call("held", json!({})), &images(), GENEROUS).await.reply });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for (name, arguments) in [
        ("answer", json!({"answer": "7"})),
        ("calculate", json!({"expression": "6 * 7"})),
        ("crop", json!({"image": "img_0", "bbox": [1, 1, 9, 9]})),
        ("zoom_in", json!({"image": "img_0", "bbox": [1, 1, 9, 9], "factor": 2})),
    ] {
        let call = call(name, arguments);
        let images = images();
        let soon = tokio::time::timeout(Duration::from_secs(20), tools.timed(&call, &images, GENEROUS)).await;
        soon.unwrap_or_else(|_| panic!("{name} stands in line")).reply.unwrap();
    }
    (0..3).for_each(|_| go.send(()).unwrap());
    assert!(holding.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn light_calls_do_not_stand_behind_heavy_ones() {
    for served in [false, true] {
        let (go, gate) = channel();
        let registry = Registry::standard(Limits::default()).with_declared(held(gate));
        match served {
            false => light_ones(Arc::new(LocalTools::new(Arc::new(registry), 1)), go).await,
            true => light_ones(Arc::new(serve(registry).await), go).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_another_program_hold_no_thread() {
    for served in [false, true] {
        // It answers once eight calls are there together.
        let all = Arc::new(Barrier::new(8));
        let tool = Declared::dynamic(spec("far"), move |_, _| {
            all.wait();
            Ok(Reply::text("done"))
        });
        let tool = tool.elsewhere(Arc::new(Semaphore::new(8)));
        let registry = Registry::empty(Limits::default()).with_declared(tool);
        let tools: Arc<dyn Toolbox> = match served {
            false => Arc::new(LocalTools::new(Arc::new(registry), 1)),
            true => Arc::new(serve(registry).await),
        };
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let tools = tools.clone();
            running
                .spawn(async move { tools.timed(&call("far", json!({})), &images(), GENEROUS).await.reply });
        }
        let together = tokio::time::timeout(Duration::from_secs(30), running.join_all()).await;
        assert!(together.expect("they wait for one another").iter().all(Result::is_ok));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_next_to_no_work_need_no_server() {
    let runtime = std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap()).join().unwrap();
    let client = runtime.spawn(serve(Registry::standard(Limits::default()))).await.unwrap();
    // Its server is gone from here on.
    runtime.shutdown_background();
    let (call, images) = (call("calculate", json!({"expression": "6 * 7"})), images());
    let timed = Toolbox::timed(&client, &call, &images, GENEROUS).await;
    assert!(timed.reply.unwrap().text.contains("42"));
}
