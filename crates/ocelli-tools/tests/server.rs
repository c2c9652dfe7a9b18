//! The server over real sockets: calls, limits, tokens, fail-over, replay, draining.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ocelli_data::ToolCall;
use ocelli_tools::{
    Cache, Client, Declared, Endpoint, Fatal, Images, Limits, Picture, Registry, Reply, Server, ServerConfig,
    ServiceConfig, ToolError, ToolSpec,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: String::new(), name: name.into(), arguments: arguments.as_object().unwrap().clone() }
}

fn slow(registry: Registry) -> Registry {
    let spec = ToolSpec {
        name: "slow".into(),
        description: "Takes its time.".into(),
        parameters: json!({"type": "object", "properties": {}}),
        example: Default::default(),
    };
    registry.with_declared(Declared::dynamic(spec, |_, call| {
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(10));
            call.check()?;
        }
        Ok(Reply::text("done"))
    }))
}

async fn start(
    queue: usize,
    token: Option<&str>,
) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        token: token.map(str::to_owned),
        service: ServiceConfig { threads: 1, queue, picture_bytes: 64 << 20, offered: vec![] },
        drain: Duration::from_secs(5),
    };
    let server = Server::bind(slow(Registry::standard(Limits::default())), &config).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let stopped = async move {
            let _ = stopped.await;
        };
        server.run(stopped).await.unwrap();
    });
    (address, stop, running)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { url: format!("http://{address}"), token: None }
}

fn images() -> Images {
    let mut images = Images::new(Arc::new(Limits::default()));
    let pixels = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 4, y as u8 * 5, 7]));
    images.insert_picture(Picture::encode(&pixels).unwrap()).unwrap();
    images
}

const TIME: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_call_gives_the_bytes_of_a_local_one() {
    let (address, _stop, _) = start(8, None).await;
    let client = Client::connect(&[endpoint(address)], Limits::default()).await.unwrap();
    let (images, registry) = (images(), Registry::standard(Limits::default()));
    let crop = call("crop", json!({"image": "img_0", "bbox": [3, 4, 40, 30]}));
    let local = registry.run(&crop, &images, &ocelli_tools::Deadline::after(TIME)).unwrap();
    for _ in 0..2 {
        // The second time the picture goes by its hash.
        let remote = client.call(&crop, &images, TIME).await.unwrap();
        assert_eq!(remote.text, local.text);
        assert_eq!(remote.image.unwrap().picture.hash(), local.image.as_ref().unwrap().picture.hash());
    }
    let wrong = client.call(&call("crop", json!({"image": "img_0"})), &images, TIME).await.unwrap_err();
    assert!(matches!(wrong, ToolError::ForModel(why) if why.contains("`bbox`")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_strangers_and_oversized_calls_are_refused() {
    let (address, _stop, _) = start(8, Some("secret")).await;
    let http = reqwest::Client::new();
    let url = format!("http://{address}/v1/call");
    let send = |body: Value, token: &'static str| http.post(&url).bearer_auth(token).json(&body).send();
    let crop = |image: &str| json!({"name": "crop", "arguments": {"image": image, "bbox": [0, 0, 1, 1]}});
    assert_eq!(send(crop("x"), "wrong").await.unwrap().status(), 401);
    let path = send(crop("/etc/passwd"), "secret").await.unwrap();
    assert_eq!(path.status(), 422);
    assert!(path.text().await.unwrap().contains("not opened"));
    let unknown = send(crop(&"0".repeat(64)), "secret").await.unwrap();
    assert_eq!(unknown.status(), 404);
    let huge = http
        .post(&url)
        .bearer_auth("secret")
        .header("content-type", "application/json")
        .body(vec![b'x'; 64 << 20]);
    // The server may answer 413 or close while the body is still being sent.
    assert!(huge.send().await.map_or(true, |r| r.status() == 413));
    let page = http.post(&url).bearer_auth("secret").header("origin", "http://evil.example").json(&crop("x"));
    assert_eq!(page.send().await.unwrap().status(), 403);
    let open = ServerConfig {
        address: "0.0.0.0:0".parse().unwrap(),
        token: None,
        service: ServiceConfig::default(),
        drain: TIME,
    };
    let refused = Server::bind(Registry::standard(Limits::default()), &open).await.unwrap_err();
    assert!(refused.to_string().contains("token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_busy_and_a_slow_tool_meets_its_deadline() {
    let (address, _stop, _) = start(1, None).await;
    let http = reqwest::Client::new();
    let slow = || {
        let request = http.post(format!("http://{address}/v1/call")).header("x-deadline-ms", "600");
        request.json(&json!({"name": "slow", "arguments": {}})).send()
    };
    let first = tokio::spawn(slow());
    // The others come once the first one runs, and not while it still stands in the queue.
    loop {
        let health =
            http.get(format!("http://{address}/v1/health")).send().await.unwrap().text().await.unwrap();
        if serde_json::from_str::<Value>(&health).unwrap()["running"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (b, c, d) = tokio::join!(slow(), slow(), slow());
    let all = [first.await.unwrap(), b, c, d];
    let mut statuses: Vec<u16> = all.into_iter().map(|r| r.unwrap().status().as_u16()).collect();
    statuses.sort_unstable();
    // One runs and one waits until their deadline; there is no room for the others.
    assert_eq!(statuses, vec![503, 503, 504, 504]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_takes_over() {
    let (first, stop, running) = start(8, None).await;
    let (second, _stop, _) = start(8, None).await;
    let client = Client::connect(&[endpoint(first), endpoint(second)], Limits::default()).await.unwrap();
    let images = images();
    let line = |y: u32| call("draw_horizontal_line_by_y", json!({"image": "img_0", "y": y}));
    client.call(&line(3), &images, TIME).await.unwrap();
    stop.send(()).unwrap();
    running.await.unwrap();
    for y in 4..12 {
        client.call(&line(y), &images, TIME).await.unwrap();
    }
    let nobody = Client::connect(&[endpoint(first)], Limits::default()).await.unwrap_err();
    assert!(matches!(nobody, Fatal::NoServer { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_call_ends_when_the_server_drains() {
    let (address, stop, running) = start(8, None).await;
    let client = Client::connect(&[endpoint(address)], Limits::default()).await.unwrap();
    let images = images();
    let slow = tokio::spawn(async move { client.call(&call("slow", json!({})), &images, TIME).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.send(()).unwrap();
    assert_eq!(slow.await.unwrap().unwrap().text, "done");
    running.await.unwrap();
}

#[test]
fn a_recording_is_replayed_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let images = images();
    let calls = [
        call("crop", json!({"image": "img_0", "bbox": [3, 4, 40, 30]})),
        call("crop", json!({"image": "img_0", "bbox": [9, 4, 3, 30]})),
        call("calculate", json!({"expression": "2^10"})),
    ];
    let deadline = ocelli_tools::Deadline::after(TIME);
    let outcomes = |registry: &Registry| -> Vec<String> {
        let show = |r: Result<Reply, ToolError>| match r {
            Ok(r) => format!("{} {} {:?}", r.text, r.data, r.image.map(|m| (m.picture.hash(), m.to_parent))),
            Err(e) => e.to_string(),
        };
        calls.iter().map(|c| show(registry.run(c, &images, &deadline))).collect()
    };
    let recorder = Arc::new(Cache::record(dir.path(), 0).unwrap());
    let recorded = outcomes(&Registry::standard(Limits::default()).with_cache(recorder));
    // No tool is there when it is replayed.
    let replay = Arc::new(Cache::replay(dir.path(), Limits::default()).unwrap());
    let registry = Registry::empty(Limits::default()).with_cache(replay);
    assert_eq!(outcomes(&registry), recorded);
    let other = call("calculate", json!({"expression": "2^11"}));
    let missing = registry.run(&other, &images, &deadline).unwrap_err();
    assert!(matches!(missing, ToolError::Fatal(Fatal::NotRecorded { .. })));
}

#[tokio::test]
async fn every_refusal_is_json_and_says_why() {
    let (address, stop, running) = start(4, None).await;
    let url = |path: &str| format!("http://{address}{path}");
    let http = reqwest::Client::new();
    let long = vec![b' '; 64 << 20];
    let body = json!({"name": "answer", "arguments": {"answer": "7"}});
    let picture =
        Picture::encode(&image::RgbImage::from_fn(80, 60, |x, y| image::Rgb([x as u8, y as u8, 9]))).unwrap();
    let half = picture.bytes()[..picture.bytes().len() / 2].to_vec();
    for (request, status, word) in [
        (http.get(url("/v2/call")), 404, "there is no /v2/call"),
        (http.get(url("/v1/call")), 405, "does not take GET"),
        (
            http.post(url("/v1/call")).header("content-type", "application/json").body(long),
            413,
            "longer than",
        ),
        (http.post(url("/v1/call")).header("x-deadline-ms", "soon").json(&body), 400, "x-deadline-ms"),
        (http.post(url("/v1/call")).header("x-wait-ms", "-1").json(&body), 400, "x-wait-ms"),
        (http.put(url("/v1/images")).body(half), 400, "unexpected end of file"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{word}");
        let said: Value = answer.json().await.unwrap();
        assert!(said["error"].to_string().contains(word), "{said}");
    }
    let good = http.post(url("/v1/call")).header("x-deadline-ms", "5000").json(&body).send().await.unwrap();
    assert!(good.status().is_success() && good.headers().contains_key("x-waited-ms"));
    drop(stop);
    running.abort();
}
