//! Our client of the Model Context Protocol: against our own server, against one from another implementation, and
//! against servers that hang, die, or say too much.
//!
//! The other implementation is the Python SDK. Its tests run where `OCELLI_MCP_PYTHON` names an interpreter that has the
//! packages `mcp` (2.x) and `pillow`; elsewhere they are skipped with a message:
//!
//!     OCELLI_MCP_PYTHON=venv/bin/python OCELLI_BIN=target/release/ocelli cargo test --release -p ocelli-tools --test remote
#![allow(clippy::print_stderr)]

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ocelli_data::ToolCall;
use ocelli_tools::{
    Affine, Deadline, Declared, Fatal, Images, Limits, McpEndpoint, Picture, Registry, RemoteConfig,
    RemoteTools, Reply, Server, ServerConfig, ServiceConfig, ToolError, ToolSpec,
};
use serde_json::{Value, json};

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: String::new(), name: name.into(), arguments: arguments.as_object().unwrap().clone() }
}

fn pixels() -> image::RgbImage {
    image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 4, y as u8 * 5, 7]))
}

fn images() -> Images {
    let mut images = Images::new(Limits::default().into());
    images.insert_picture(Picture::encode(&pixels()).unwrap()).unwrap();
    images
}

fn within(seconds: f64) -> Deadline {
    Deadline::after(Duration::from_secs_f64(seconds))
}

/// A server of ours on a thread of its own, with a tool that takes a second, and the pictures that it offers.
fn our_server(queue: usize) -> SocketAddr {
    serve(queue, Some("secret"), vec![])
}

fn serve(queue: usize, token: Option<&str>, offered: Vec<Picture>) -> SocketAddr {
    let slow = ToolSpec {
        name: "slow".into(),
        description: "Takes its time.".into(),
        parameters: json!({"type": "object", "properties": {}}),
        example: Default::default(),
    };
    let slow = Declared::dynamic(slow, |_, call| {
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(10));
            call.check()?;
        }
        Ok(Reply::text("done"))
    });
    let registry = Registry::standard(Limits::default()).with_declared(slow);
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        token: token.map(str::to_owned),
        service: ServiceConfig { threads: 1, queue, offered, ..ServiceConfig::default() },
        drain: Duration::from_secs(1),
    };
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let server = Server::bind(registry, &config).await.unwrap();
            tell.send(server.address()).unwrap();
            server.run(std::future::pending()).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn ours(address: SocketAddr, token: &str) -> RemoteConfig {
    let url = format!("http://{address}/mcp");
    RemoteConfig::new(McpEndpoint::Http { url, token: Some(token.into()) })
}

#[test]
fn a_remote_tool_stands_beside_the_local_ones_and_answers_alike() {
    let address = our_server(64);
    let mut config = ours(address, "secret");
    config.prefix = "far_".into();
    let remote = RemoteTools::connect(&config).unwrap();
    let local = Registry::standard(Limits::default());
    let both = local.clone().with_remote(&remote);
    // The declaration is that of the local tool, but for the name and the words on the picture.
    for spec in local.specs() {
        let far = both.spec(&format!("far_{}", spec.name)).unwrap();
        assert_eq!((&far.description, &far.example), (&spec.description, &spec.example));
        let mut parameters = spec.parameters.clone();
        if let Some(image) = parameters.pointer_mut("/properties/image") {
            *image = far.parameters["properties"]["image"].clone();
        }
        assert_eq!(far.parameters, parameters);
    }
    assert!(both.spec("far_upload_image").is_none());
    assert!(both.prompt().contains("far_crop:"));
    let mut images = images();
    for arguments in
        [json!({"image": "img_0", "bbox": [3, 4, 40, 30]}), json!({"image": "img_0", "bbox": [9, 4, 3, 30]})]
    {
        let near = local.run(&call("crop", arguments.clone()), &images, &within(20.0));
        let far = both.run(&call("far_crop", arguments), &images, &within(20.0));
        match (near, far) {
            (Ok(near), Ok(far)) => {
                let (a, b) = (near.image.unwrap(), far.image.clone().unwrap());
                assert_eq!((near.text, near.data), (far.text.clone(), far.data.clone()));
                assert_eq!((a.picture.hash(), a.to_parent), (b.picture.hash(), b.to_parent));
                images.accept("far_crop", "", Some("img_0"), far);
            }
            (near, far) => assert_eq!(near.unwrap_err(), far.unwrap_err()),
        }
    }
    assert_eq!(images.get(1).unwrap().origin.unwrap().to_root, Affine::translation(3.0, 4.0));
    // The next call names the picture that the remote tool made.
    let line = call("far_draw_horizontal_line_by_y", json!({"image": "img_1", "y": 10}));
    assert!(both.run(&line, &images, &within(20.0)).unwrap().image.is_some());
    // What is wrong with a call is found here, before anything is sent.
    let wrong = both.run(&call("far_crop", json!({"image": "img_0"})), &images, &within(20.0)).unwrap_err();
    assert!(matches!(wrong, ToolError::ForModel(why) if why.contains("`bbox`") && why.contains("far_crop")));
    let answered = both.run(&call("far_answer", json!({"answer": "42"})), &images, &within(20.0)).unwrap();
    assert_eq!(answered.answer, None, "a remote tool must not end a dialogue");
}

#[test]
fn a_slow_remote_tool_meets_the_deadline_and_is_told_to_stop() {
    let address = our_server(64);
    let registry = Registry::empty(Limits::default())
        .with_remote(&RemoteTools::connect(&ours(address, "secret")).unwrap());
    let images = images();
    let begun = Instant::now();
    let late = registry.run(&call("slow", json!({})), &images, &within(0.3)).unwrap_err();
    assert!(matches!(late, ToolError::Fatal(Fatal::Deadline { .. })));
    let first = begun.elapsed();
    // The server has one thread: it can answer this only once the slow call has stopped.
    registry.run(&call("calculate", json!({"expression": "1+1"})), &images, &within(20.0)).unwrap();
    assert!(first < Duration::from_secs(5));
    // A caller that goes away is let go at once, too.
    let gone = within(60.0);
    let giving_up = gone.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        giving_up.give_up();
    });
    let late = registry.run(&call("slow", json!({})), &images, &gone).unwrap_err();
    assert!(matches!(late, ToolError::Fatal(Fatal::Deadline { .. })));
}

#[test]
fn a_busy_server_says_so_in_its_own_words() {
    let address = our_server(1);
    let registry = Registry::empty(Limits::default())
        .with_remote(&RemoteTools::connect(&ours(address, "secret")).unwrap());
    let images = images();
    let outcomes: Vec<Result<Reply, ToolError>> = std::thread::scope(|scope| {
        let slow = || registry.run(&call("slow", json!({})), &images, &within(30.0));
        let running: Vec<_> = (0..6).map(|_| scope.spawn(slow)).collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let busy = |r: &&Result<Reply, ToolError>| matches!(r, Err(ToolError::Fatal(Fatal::Busy { .. })));
    assert!(outcomes.iter().filter(busy).count() >= 3, "{outcomes:?}");
    assert!(outcomes.iter().any(|r| r.is_ok()));
}

#[test]
fn strangers_and_absent_servers_are_typed_errors() {
    let address = our_server(64);
    let wrong = RemoteTools::connect(&ours(address, "wrong")).unwrap_err();
    assert!(matches!(wrong, Fatal::Remote { .. }), "{wrong}");
    let mut absent = ours(address, "secret");
    absent.only = vec!["crop".into(), "fly".into()];
    let why = RemoteTools::connect(&absent).unwrap_err().to_string();
    assert!(why.contains("does not offer `fly`") && why.contains("crop"), "{why}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(RemoteTools::connect(&ours(nobody, "x")).unwrap_err(), Fatal::Remote { .. }));
    let missing = McpEndpoint::Process { program: "no-such-program-here".into(), args: vec![] };
    let why = RemoteTools::connect(&RemoteConfig::new(missing)).unwrap_err().to_string();
    assert!(why.contains("no-such-program-here") && why.contains("cannot be started"), "{why}");
    // A program that is no server, and one that never says anything.
    for program in ["true", "cat"] {
        let endpoint = McpEndpoint::Process { program: program.into(), args: vec![] };
        let connect = Duration::from_millis(500);
        let begun = Instant::now();
        let no = RemoteTools::connect(&RemoteConfig { connect, ..RemoteConfig::new(endpoint) }).unwrap_err();
        assert!(matches!(no, Fatal::Remote { .. }), "{no}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

/// The interpreter with the other implementation.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("OCELLI_MCP_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("skipped: set OCELLI_MCP_PYTHON to a Python that has the packages mcp and pillow");
    }
    python
}

fn script(name: &str) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp_peer").join(name);
    here.to_string_lossy().into_owned()
}

/// Its packages take their time to load on a busy machine.
const STARTING: Duration = Duration::from_secs(120);

fn peer(python: PathBuf) -> RemoteConfig {
    let endpoint = McpEndpoint::Process { program: python, args: vec![script("server.py")] };
    RemoteConfig { connect: STARTING, ..RemoteConfig::new(endpoint) }
}

/// Ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The calls of another implementation's tools, whatever the way to it.
fn call_the_peer(config: &RemoteConfig) {
    let registry = Registry::standard(Limits::default()).with_remote(&RemoteTools::connect(config).unwrap());
    let mut images = images();
    let spec = registry.spec("mirror").unwrap();
    assert_eq!(spec.parameters["required"], json!(["image"]));
    assert_eq!(Value::Object(spec.example.clone()), json!({"image": "img_0"}));
    let mirror = call("mirror", json!({"image": "img_0"}));
    let reply = registry.run(&mirror, &images, &within(20.0)).unwrap();
    assert_eq!(reply.text, "mirrored 64 x 48");
    let made = reply.image.clone().unwrap().picture.decode(&Limits::default()).unwrap();
    assert_eq!(made, image::imageops::flip_horizontal(&pixels()));
    images.accept("mirror", "", Some("img_0"), reply);
    // A local tool works on what the remote one made.
    let crop = call("crop", json!({"image": "img_1", "bbox": [0, 0, 8, 8]}));
    assert!(registry.run(&crop, &images, &within(20.0)).is_ok());
    let find = |arguments| registry.run(&call("find", arguments), &images, &within(20.0));
    let found = find(json!({"image": "img_0", "name": "cat"})).unwrap();
    assert_eq!(found.data["bbox"], json!([0, 0, 64, 48]));
    assert!(found.text.contains("cat"));
    let none = find(json!({"image": "img_0", "name": "unicorn"})).unwrap_err();
    assert!(matches!(&none, ToolError::ForModel(why) if why.contains("no unicorn")), "{none:?}");
    let wrong = find(json!({"image": "img_0", "name": 7})).unwrap_err();
    assert!(matches!(&wrong, ToolError::ForModel(why) if why.contains("`name` must be string")), "{wrong:?}");
    let late = registry.run(&call("sleep", json!({"seconds": 30})), &images, &within(0.3)).unwrap_err();
    assert!(matches!(late, ToolError::Fatal(Fatal::Deadline { .. })));
    let awake = registry.run(&call("sleep", json!({"seconds": 0.01})), &images, &within(20.0)).unwrap();
    assert_eq!(awake.text, "awake");
}

#[test]
fn tools_of_another_implementation_over_standard_input_and_output() {
    let Some(python) = python() else { return };
    call_the_peer(&peer(python));
}

#[test]
fn tools_of_another_implementation_over_http() {
    let Some(python) = python() else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(python);
    command.arg(script("server.py")).arg("--http").arg(port.to_string()).stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < STARTING, "the server does not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let url = format!("http://127.0.0.1:{port}/mcp");
    call_the_peer(&RemoteConfig::new(McpEndpoint::Http { url, token: None }));
}

#[test]
fn a_server_that_dies_in_the_middle_is_started_again() {
    let Some(python) = python() else { return };
    let registry =
        Registry::empty(Limits::default()).with_remote(&RemoteTools::connect(&peer(python)).unwrap());
    let images = images();
    let dead = registry.run(&call("die", json!({})), &images, &within(20.0)).unwrap_err();
    assert!(matches!(&dead, ToolError::Fatal(f @ Fatal::Remote { .. }) if f.is_transient()), "{dead:?}");
    let awake = registry.run(&call("sleep", json!({"seconds": 0.01})), &images, &within(120.0)).unwrap();
    assert_eq!(awake.text, "awake");
}

#[test]
fn an_answer_beyond_the_limit_is_not_taken() {
    let Some(python) = python() else { return };
    let config = RemoteConfig { message_bytes: 1 << 20, ..peer(python) };
    let registry = Registry::empty(Limits::default()).with_remote(&RemoteTools::connect(&config).unwrap());
    let images = images();
    let flood = |n| registry.run(&call("flood", json!({"mebibytes": n})), &images, &within(3.0));
    assert!(matches!(flood(2).unwrap_err(), ToolError::Fatal(_)));
    // The connection is still good, and a long text within the limit is cut to what a dialogue may hold.
    let awake = registry.run(&call("sleep", json!({"seconds": 0.01})), &images, &within(20.0)).unwrap();
    assert_eq!(awake.text, "awake");
}

/// Writes the picture that the other implementation's client works with, and runs that client.
fn run_the_peers_client(python: &Path, way: &[&OsStr]) {
    let ran = Command::new(python).arg(script("client.py")).args(way).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(said.contains("good"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_client_of_another_implementation_uses_our_server_over_http() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    let picture = Picture::encode(&pixels()).unwrap();
    std::fs::write(&path, picture.bytes()).unwrap();
    let url = format!("http://{}/mcp", serve(64, None, vec![picture]));
    run_the_peers_client(&python, &["http".as_ref(), url.as_ref(), path.as_ref()]);
}

/// The program as a second process: our client and another implementation's, over standard input and output.
#[test]
fn the_program_serves_over_standard_input_and_output() {
    let Some(program) = std::env::var_os("OCELLI_BIN") else {
        eprintln!("skipped: set OCELLI_BIN to the built `ocelli`, which this test starts as the server");
        return;
    };
    let args = ["tools", "serve", "--mcp-stdio"].map(str::to_owned).to_vec();
    let endpoint = McpEndpoint::Process { program: program.clone().into(), args };
    let remote = RemoteTools::connect(&RemoteConfig::new(endpoint)).unwrap();
    let registry = Registry::empty(Limits::default()).with_remote(&remote);
    let crop = call("crop", json!({"image": "img_0", "bbox": [3, 4, 40, 30]}));
    let reply = registry.run(&crop, &images(), &within(20.0)).unwrap();
    assert_eq!(reply.image.unwrap().to_parent, Some(Affine::translation(3.0, 4.0)));

    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    std::fs::write(&path, Picture::encode(&pixels()).unwrap().bytes()).unwrap();
    let serve = ["tools", "serve", "--mcp-stdio", "--image"].map(OsStr::new);
    let way = [&["stdio".as_ref(), path.as_os_str(), program.as_os_str()], &serve[..], &[path.as_os_str()]]
        .concat();
    run_the_peers_client(&python, &way);
}

#[test]
fn a_server_that_is_away_is_told_in_plain_words() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = RemoteConfig::new(McpEndpoint::Http { url: format!("http://{free}/mcp"), token: None });
    let error = RemoteTools::connect(&config).unwrap_err().to_string();
    assert!(error.contains(&free.to_string()) && error.contains("connection refused"), "{error}");
    assert!(!error.contains("rmcp") && error.len() < 120, "{error}");
}
