//! One struct = one TOML table: reads a configuration file, applies `--set key=value`, and answers an unknown key
//! with the nearest known one.

use std::path::Path;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

/// Largest configuration file, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Reads `path` and applies overrides such as `train.lr=1e-4`, `name="x"`.
///
/// The target type should carry `#[serde(deny_unknown_fields)]`; the error then names the nearest known key.
pub(crate) fn load<T: DeserializeOwned>(path: &Path, overrides: &[String]) -> anyhow::Result<T> {
    let bytes = ocelli_data::io::read_bounded(path, MAX_CONFIG).map_err(|e| match neighbours(path) {
        Some(there) if !path.exists() => anyhow::anyhow!("{e}\nthere are: {there}"),
        _ => e.into(),
    })?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    parse(&text, overrides).with_context(|| format!("in {}", path.display()))
}

/// The configurations where `path` was looked for, or those of `configs/`.
fn neighbours(path: &Path) -> Option<String> {
    let own = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [own, Path::new("configs")].into_iter().find_map(|dir| {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .ok()?
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                p.extension().is_some_and(|e| e == "toml") && p.file_name().is_some_and(|n| n != "Cargo.toml")
            })
            .map(|p| p.strip_prefix(".").unwrap_or(&p).display().to_string())
            .take(50)
            .collect();
        names.sort();
        (!names.is_empty()).then(|| names.join(", "))
    })
}

/// Like [`load`] on text that is already at hand.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, overrides: &[String]) -> anyhow::Result<T> {
    if overrides.is_empty() {
        // Straight from the text, so that the message shows line and column.
        return toml::from_str(text).map_err(|e| with_suggestion(&e.to_string()));
    }
    let mut root: toml::Table = toml::from_str(text).map_err(|e| with_suggestion(&e.to_string()))?;
    for item in overrides {
        set(&mut root, item)?;
    }
    toml::Value::Table(root).try_into().map_err(|e: toml::de::Error| with_suggestion(&e.to_string()))
}

fn set(root: &mut toml::Table, item: &str) -> anyhow::Result<()> {
    let Some((key, raw)) = item.split_once('=') else {
        bail!("`--set {item}`: expected key=value, e.g. --set train.lr=1e-4");
    };
    // A bare word is a string: --set name=first is friendlier than --set 'name="first"'.
    let value = toml::from_str::<toml::Table>(&format!("v = {raw}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(raw.to_owned()));
    let mut path: Vec<&str> = key.split('.').collect();
    let Some(last) = path.pop().filter(|k| !k.is_empty()) else {
        bail!("`--set {item}`: the key is empty");
    };
    let mut table = root;
    for part in path {
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = match entry {
            toml::Value::Table(t) => t,
            other => bail!("`--set {item}`: `{part}` is a {}, not a table", other.type_str()),
        };
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

/// Adds "did you mean" to serde's "unknown field `x`, expected one of `a`, `b`".
fn with_suggestion(message: &str) -> anyhow::Error {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = ["unknown field `", "unknown variant `"].iter().find_map(|k| {
        let at = message.find(k)? + k.len();
        message[at..].split('`').next()
    });
    if let Some(unknown) = unknown {
        let nearest = names
            .by_ref()
            .filter(|n| *n != unknown)
            .map(|n| (strsim::damerau_levenshtein(n, unknown), n))
            .min()
            .filter(|(distance, name)| *distance <= name.len().max(unknown.len()) / 2);
        if let Some((_, nearest)) = nearest {
            return anyhow::anyhow!("{}\ndid you mean `{nearest}`?", message.trim_end());
        }
    }
    anyhow::anyhow!("{}", message.trim_end())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        lr: f64,
        steps: u32,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        train: Inner,
    }

    const TEXT: &str = "name = \"a\"\n[train]\nlr = 0.1\nsteps = 3\n";

    #[test]
    fn overrides_reach_nested_keys_and_bare_words_are_strings() {
        let got: Outer = super::parse(TEXT, &["train.lr=1e-3".into(), "name=second".into()]).unwrap();
        assert_eq!(got, Outer { name: "second".into(), train: Inner { lr: 1e-3, steps: 3 } });
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest_known_one() {
        let text = TEXT.replace("steps", "setps");
        let message = super::parse::<Outer>(&text, &[]).unwrap_err().to_string();
        assert!(message.contains("did you mean `steps`?") && message.contains("line 4"), "{message}");
        let message = super::parse::<Outer>(TEXT, &["train.lrr=1".into()]).unwrap_err().to_string();
        assert!(message.contains("did you mean `lr`?"), "{message}");
    }

    #[test]
    fn a_file_that_is_not_there_is_answered_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("first.toml"), TEXT).unwrap();
        let message = super::load::<Outer>(&dir.path().join("frist.toml"), &[]).unwrap_err().to_string();
        assert!(message.contains("frist.toml") && message.contains("first.toml"), "{message}");
    }

    #[test]
    fn a_malformed_override_says_what_is_expected() {
        for (item, part) in [("x", "key=value"), ("=1", "key is empty"), ("name.x=1", "not a table")] {
            let message = super::parse::<Outer>(TEXT, &[item.into()]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
