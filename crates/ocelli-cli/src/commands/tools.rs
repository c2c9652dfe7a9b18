//! `ocelli tools`: list the vision tools, call one, serve them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use ocelli_data::ToolCall;
use ocelli_data::io::{read_bounded, write_atomic};
use ocelli_tools::{
    Cache, Deadline, Images, Limits, Registry, Server, ServerConfig, ServiceConfig, ToolError, serve_stdio,
};
use serde_json::{Map, Value};

/// List the vision tools, call one, or serve them to other programs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
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
    /// Serve the tools over HTTP (JSON under /v1, Model Context Protocol under /mcp) or standard input and output.
    Serve {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:7070", conflicts_with = "stdio")]
        listen: SocketAddr,
        /// Speak the Model Context Protocol over standard input and output instead.
        #[arg(long)]
        stdio: bool,
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

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let registry = Registry::standard(Limits::default());
    match &args.action {
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
        Action::Serve { listen, stdio, token_file, threads, queue, cache_mib, record, replay } => {
            let mut service = ServiceConfig { queue: *queue, ..ServiceConfig::default() };
            service.threads = threads.unwrap_or(service.threads);
            let bytes = cache_mib << 20;
            let cache = match (record, replay) {
                (Some(dir), _) => Cache::record(dir, bytes)?,
                (_, Some(dir)) => Cache::replay(dir, Limits::default())?,
                _ => Cache::in_memory(bytes),
            };
            let registry = registry.with_cache(Arc::new(cache));
            let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
            if *stdio {
                runtime.block_on(serve_stdio(registry, &service))?;
                return Ok(ExitCode::SUCCESS);
            }
            let token = token_file.as_ref().map(|p| read_bounded(p, 4096)).transpose()?;
            let token = token.map(|t| String::from_utf8_lossy(&t).trim().to_owned());
            let config = ServerConfig { address: *listen, token, service, drain: Duration::from_secs(30) };
            runtime.block_on(async {
                let server = Server::bind(registry, &config).await?;
                println!("listening on http://{}", server.address());
                server
                    .run(async {
                        let _ = tokio::signal::ctrl_c().await;
                    })
                    .await
            })?;
            Ok(ExitCode::SUCCESS)
        }
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
    let mut images = Images::new(registry.limits().clone());
    for path in paths {
        let bytes = read_bounded(path, registry.limits().image_bytes as u64)?;
        images.insert(bytes).with_context(|| format!("cannot use {}", path.display()))?;
    }
    let mut arguments = Map::new();
    let takes_image =
        registry.spec(name).is_some_and(|s| s.parameters.pointer("/properties/image").is_some());
    if takes_image && !images.is_empty() {
        arguments.insert("image".into(), "img_0".into());
    }
    for arg in args {
        let (key, value) = arg.split_once('=').with_context(|| format!("--arg {arg} is not NAME=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        arguments.insert(key.to_owned(), value);
    }
    let call = ToolCall { id: String::new(), name: name.to_owned(), arguments };
    let reply = match registry.run(&call, &images, &Deadline::after(Duration::from_secs_f64(seconds))) {
        Ok(reply) => reply,
        Err(ToolError::ForModel(why)) => bail!("{why}"),
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
