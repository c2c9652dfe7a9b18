//! The checks, each a function from the tree to complaints.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Who may depend on whom. Development dependencies are free: a test may look anywhere.
const ARROWS: &[(&str, &[&str])] = &[
    ("data", &[]),
    ("tensor", &[]),
    ("model", &["data", "tensor"]),
    ("reward", &["data"]),
    ("tools", &["data"]),
    ("worlds", &["data"]),
    ("agent", &["data", "model", "reward", "tools"]),
    ("train", &["data", "tensor", "model", "reward", "tools", "agent", "worlds"]),
    ("eval", &["data", "reward", "agent"]),
    ("cli", &["data", "tensor", "model", "reward", "tools", "worlds", "agent", "train", "eval"]),
];

/// Ceiling of a source file, in lines: far beyond the 400 to aim for, so that it only stops what nobody would read.
const MAX_LINES: usize = 900;
/// Ceiling of all fixtures together, in bytes.
const MAX_FIXTURES: u64 = 1 << 20;
/// Ceiling of any other single file, in bytes.
const MAX_FILE: u64 = 512 << 10;
/// Files that may be larger: network weights that are shipped with their notice.
const LARGE: &[&str] = &["crates/ocelli-tools/models/", "Cargo.lock"];
/// Where pictures of the documentation lie, and their ceiling, in bytes: a picture that nobody waits for.
const PICTURES: (&str, u64) = ("docs/img/", 150 << 10);
/// Endings of pictures; anywhere else in the tree they are complained about, fixtures and tools' own drawings aside.
const PICTURE_ENDINGS: &[&str] = &["png", "jpg", "jpeg", "gif", "webp", "svg"];

/// All complaints about the tree at `root`; empty when it is tidy.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let files = tracked(root)?;
    let mut complaints = arrows(root)?;
    complaints.extend(codemap(root)?);
    complaints.extend(sizes(root, &files)?);
    complaints.extend(names(&files));
    complaints.extend(ci_runs_the_readme_command(root)?);
    Ok(complaints)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let out = std::process::Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("cannot run git ls-files")?;
    let names = String::from_utf8(out.stdout).context("a tracked path is not UTF-8")?;
    Ok(names
        .split('\0')
        .filter(|n| !n.is_empty())
        .map(PathBuf::from)
        .filter(|p| root.join(p).exists())
        .collect())
}

fn arrows(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for entry in fs::read_dir(root.join("crates")).context("cannot list crates/")? {
        let dir = entry?.path();
        let manifest = dir.join("Cargo.toml");
        let table: toml::Table =
            toml::from_str(&read(&manifest)?).with_context(|| format!("in {}", manifest.display()))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().replace("ocelli-", "");
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            complaints.push(format!("crate `{name}` has no row in ARROWS (xtask/src/tidy.rs)"));
            continue;
        };
        let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
        for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
            if let Some(to) = dependency.strip_prefix("ocelli-")
                && !allowed.contains(&to)
            {
                complaints.push(format!("arrow {name} -> {to} is not allowed (ARCHITECTURE.md, Arrows)"));
            }
        }
    }
    Ok(complaints)
}

/// Every `path/with/slash` in backquotes in ARCHITECTURE.md must exist.
fn codemap(root: &Path) -> Result<Vec<String>> {
    let text = read(&root.join("ARCHITECTURE.md"))?;
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|q| {
        ["crates/", "docs/", "bench/", "configs/", "fixtures/", "xtask/", ".ci/"]
            .iter()
            .any(|p| q.starts_with(p))
    });
    Ok(paths
        .filter(|p| !p.contains(['*', '{', '<', ' ']) && !root.join(p).exists())
        .map(|p| format!("ARCHITECTURE.md names `{p}`, which does not exist"))
        .collect())
}

fn sizes(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut fixtures = 0;
    for file in files {
        let name = file.to_string_lossy();
        let bytes = fs::metadata(root.join(file)).with_context(|| format!("cannot stat {name}"))?.len();
        if name.starts_with("fixtures/") {
            fixtures += bytes;
        } else if bytes > MAX_FILE && !LARGE.iter().any(|l| name.starts_with(l)) {
            complaints.push(format!("{name} holds {bytes} bytes; the ceiling is {MAX_FILE}"));
        }
        let ending = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if PICTURE_ENDINGS.contains(&ending.as_str()) && !name.starts_with("fixtures/") {
            let (place, ceiling) = PICTURES;
            if !name.starts_with(place) {
                complaints.push(format!("{name}: pictures of the documentation lie in {place}"));
            } else if bytes > ceiling {
                complaints.push(format!("{name} holds {bytes} bytes; the ceiling of a picture is {ceiling}"));
            }
        }
        if name.ends_with(".rs") {
            let lines = read(&root.join(file))?.lines().count();
            if lines > MAX_LINES {
                complaints
                    .push(format!("{name} has {lines} lines; a file beyond {MAX_LINES} wants splitting"));
            }
        }
    }
    if fixtures > MAX_FIXTURES {
        complaints.push(format!("fixtures/ holds {fixtures} bytes; the ceiling is {MAX_FIXTURES}"));
    }
    Ok(complaints)
}

fn names(files: &[PathBuf]) -> Vec<String> {
    const HOMELESS: &[&str] = &["utils", "util", "helpers", "common", "misc"];
    files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"))
        .filter(|f| f.iter().any(|part| HOMELESS.contains(&part.to_string_lossy().trim_end_matches(".rs"))))
        .map(|f| format!("{}: a module of that name wants a home", f.display()))
        .collect()
}

fn ci_runs_the_readme_command(root: &Path) -> Result<Vec<String>> {
    let readme = read(&root.join("README.md"))?;
    let ci = read(&root.join(".ci/run"))?;
    let Some(command) = readme.lines().map(str::trim).find(|l| l.starts_with("cargo test")) else {
        return Ok(vec!["README.md names no `cargo test` command on a line of its own".to_owned()]);
    };
    let runs = ci.lines().any(|l| l.trim() == command);
    Ok(if runs { vec![] } else { vec![format!(".ci/run does not run the README's `{command}`")] })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(super::check(&root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_arrow_and_a_missing_path_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("crates/ocelli-reward")).unwrap();
        std::fs::write(
            root.join("crates/ocelli-reward/Cargo.toml"),
            "[dependencies]\nocelli-data = '1'\nocelli-tensor = '1'\n",
        )
        .unwrap();
        let complaints = super::arrows(root).unwrap();
        assert_eq!(complaints, ["arrow reward -> tensor is not allowed (ARCHITECTURE.md, Arrows)"]);
        std::fs::write(root.join("ARCHITECTURE.md"), "`crates/ocelli-reward` and `docs/nothing.md`").unwrap();
        assert_eq!(
            super::codemap(root).unwrap(),
            ["ARCHITECTURE.md names `docs/nothing.md`, which does not exist"]
        );
    }
}
