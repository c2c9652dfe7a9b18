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
        Some(there) if !path.exists() => anyhow::anyhow!("{e}{there}"),
        _ => e.into(),
    })?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    parse(&text, overrides).map_err(|e| match other_command(path, &text, &e.to_string()) {
        Some(hint) => anyhow::anyhow!("{}: {hint}", path.display()),
        None => e.context(format!("in {}", path.display())),
    })
}

/// The command that a file belongs to, where `error` says that it does not belong to this one.
fn other_command(path: &Path, text: &str, error: &str) -> Option<String> {
    let root: toml::Table = toml::from_str(text).ok()?;
    let unknown = error.split("unknown field `").nth(1)?.split('`').next()?;
    let top_level = root.contains_key(unknown);
    let shown = path.display();
    let of_pipeline = ["name", "about", "quick", "seed", "stage"];
    if root.contains_key("stage") && top_level && of_pipeline.contains(&unknown) {
        return Some(format!("this is a pipeline of stages; its command is\n  ocelli run {shown}"));
    }
    let of_training = ["model", "data", "held_out", "train", "reasons", "calling", "reward_model"];
    if root.contains_key("stage") || !(top_level && of_training.contains(&unknown)) {
        return None;
    }
    let name = path.file_name()?.to_string_lossy().into_owned();
    let kinds = ["sft", "reward", "mpo", "grpo"];
    let kind = kinds.into_iter().find(|k| name.starts_with(k)).map_or_else(|| kinds.join("|"), str::to_owned);
    Some(format!("this is the file of one training; its command is\n  ocelli train {kind} {shown}"))
}

/// The configurations where `path` was looked for, or those of `configs/`; the one that is most like it is proposed.
fn neighbours(path: &Path) -> Option<String> {
    let own = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = path.file_name()?.to_string_lossy().into_owned();
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
        let file = |n: &String| n.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
        let distance = |n: &String| strsim::damerau_levenshtein(&file(n), &wanted);
        let nearest = names.iter().min_by_key(|n| distance(n)).filter(|n| distance(n) <= wanted.len() / 3);
        let nearest = nearest.map_or_else(String::new, |n| format!("\ndid you mean {n}?"));
        (!names.is_empty()).then(|| format!("{nearest}\nthere are: {}", names.join(", ")))
    })
}

/// Like [`load`] on text that is already at hand.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, overrides: &[String]) -> anyhow::Result<T> {
    // Straight from the text, so that the message shows line and column.
    let plain = || toml::from_str(text).map_err(|e| with_suggestion(&e.to_string()));
    if overrides.is_empty() {
        return plain();
    }
    let begin = || toml::from_str::<toml::Table>(text).map_err(|e| with_suggestion(&e.to_string()));
    let read = |root: &toml::Table| {
        let read: Result<T, toml::de::Error> = toml::Value::Table(root.clone()).try_into();
        read.map_err(|e| with_suggestion(&e.to_string()))
    };
    let mut root = begin()?;
    for item in overrides {
        set(&mut root, item)?;
    }
    let Err(error) = read(&root) else { return read(&root) };
    // The file by itself is looked at first: there the message shows the line. Then the first change that does not fit.
    plain()?;
    let mut root = begin()?;
    for item in overrides {
        let unknown = set(&mut root, item)?;
        if let Err(why) = read(&root) {
            bail!("`--set {item}`: {}", unknown.unwrap_or_else(|| why.to_string()));
        }
    }
    Err(error)
}

/// Sets one value. Returns what to say of a table on the way that the file does not have, where it has one of a similar name.
fn set(root: &mut toml::Table, item: &str) -> anyhow::Result<Option<String>> {
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
    let mut unknown = None;
    let mut walked = String::new();
    for part in path {
        if !table.contains_key(part) && unknown.is_none() {
            unknown = similar(table, &walked, part);
        }
        walked += part;
        walked.push('.');
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = match entry {
            toml::Value::Table(t) => t,
            other => bail!("`--set {item}`: `{part}` is a {}, not a table", other.type_str()),
        };
    }
    table.insert(last.to_owned(), value);
    Ok(unknown)
}

/// What to say where `table`, which stands at `walked`, has no `part`: the tables that it has. Nothing where a table that is not
/// written may well be one that the program knows.
fn similar(table: &toml::Table, walked: &str, part: &str) -> Option<String> {
    let near = |k: &&String| strsim::damerau_levenshtein(k, part);
    let nearest = table.keys().min_by_key(near)?;
    let said = format!("there is no `{walked}{part}`");
    if near(&nearest) <= nearest.len().max(part.len()) / 2 {
        return Some(format!("{said}; did you mean `{walked}{nearest}`?"));
    }
    let all: Vec<&str> = table.keys().map(String::as_str).collect();
    (walked == "stage.").then(|| format!("{said}; there are: {}", all.join(", ")))
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
        assert!(message.contains("frist.toml") && message.contains("did you mean"), "{message}");
        assert!(message.contains("there are: ") && message.contains("first.toml"), "{message}");
    }

    #[test]
    fn a_change_that_does_not_fit_is_named() {
        let wrong = ["name=second".to_owned(), "train.steps=many".to_owned()];
        let message = super::parse::<Outer>(TEXT, &wrong).unwrap_err().to_string();
        assert!(message.contains("`--set train.steps=many`"), "{message}");
        let message = super::parse::<Outer>(TEXT, &["trian.steps=5".into()]).unwrap_err().to_string();
        assert!(message.contains("there is no `trian`; did you mean `train`?"), "{message}");
        // A mistake of the file itself shows its line, whatever is changed.
        let text = TEXT.replace("steps = 3", "steps = \"x\"");
        let message = super::parse::<Outer>(&text, &["name=second".into()]).unwrap_err().to_string();
        assert!(message.contains("line 4"), "{message}");
    }

    #[test]
    fn a_file_of_another_command_names_that_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mpo-x.toml");
        std::fs::write(&path, "name = \"a\"\n[model]\nlr = 0.1\n[data]\n").unwrap();
        let message = super::load::<Outer>(&path, &[]).unwrap_err().to_string();
        assert!(message.contains("ocelli train mpo "), "{message}");
        std::fs::write(&path, "name = \"a\"\n[stage.x]\nkind = \"y\"\n").unwrap();
        let message = super::load::<Outer>(&path, &[]).unwrap_err().to_string();
        assert!(message.contains("ocelli run "), "{message}");
    }

    #[test]
    fn a_malformed_override_says_what_is_expected() {
        for (item, part) in [("x", "key=value"), ("=1", "key is empty"), ("name.x=1", "not a table")] {
            let message = super::parse::<Outer>(TEXT, &[item.into()]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
