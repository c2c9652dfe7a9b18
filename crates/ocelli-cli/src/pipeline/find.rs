//! Where the files that a pipeline names lie on this machine, settled before anything runs.
//!
//! A path is taken as it is where it exists; else it is looked for below `OCELLI_DATA`. A text model may also be a name on the
//! model hub, or the default model, which comes as a package.

use std::path::{Path, PathBuf};

use anyhow::bail;
use ocelli_worlds::real::{EASY_VQA_FOLDERS, EASY_VQA_ORIGIN, PUZZLEVQA_FOLDERS, PUZZLEVQA_ORIGIN};

use super::config::{Pipeline, Stage};
use crate::commands::model_source;
use crate::ui::Ui;

/// Replaces every path by one that exists.
///
/// # Errors
/// Names the stage, the places that were searched, and where the set can be had.
pub(crate) fn find(config: &mut Pipeline, ui: &Ui) -> anyhow::Result<()> {
    let data = std::env::var_os("OCELLI_DATA").map(PathBuf::from);
    // What is missing, with all the stages that ask for it: one search mends them all.
    let mut missing: Vec<(PathBuf, &'static str, Vec<String>)> = Vec::new();
    for (name, stage) in &mut config.stage {
        match stage {
            Stage::Questions(q) => {
                let from = &mut q.from;
                let named = [
                    ("puzzlevqa", &mut from.puzzlevqa, PUZZLEVQA_FOLDERS, PUZZLEVQA_ORIGIN),
                    ("easy_vqa", &mut from.easy_vqa, EASY_VQA_FOLDERS, EASY_VQA_ORIGIN),
                    (
                        "gsm8k",
                        &mut from.gsm8k,
                        &[],
                        "it is a file of JSON lines with `question` and `answer`",
                    ),
                ];
                for (setting, path, folders, origin) in named {
                    let Some(path) = path else { continue };
                    match below(path, folders, data.as_deref()) {
                        Some(there) => *path = there,
                        None => {
                            let set = format!("--set stage.{name}.from.{setting}=DIR");
                            match missing.iter_mut().find(|(wanted, ..)| wanted == path) {
                                Some((.., sets)) => sets.push(set),
                                None => missing.push((path.clone(), origin, vec![set])),
                            }
                        }
                    }
                }
            }
            Stage::Assemble(a) if !a.language.exists() => {
                let Some(wanted) = a.language.to_str() else {
                    bail!("stage `{name}`: language is not UTF-8 text: {}", a.language.display());
                };
                a.language = model_source::resolve(Some(wanted), ui)
                    .map_err(|e| e.context(format!("stage `{name}`: language names `{wanted}`")))?;
            }
            _ => {}
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let place = data.map_or("not set".to_owned(), |d| d.display().to_string());
    let told: Vec<String> = missing
        .iter()
        .map(|(path, origin, sets)| {
            format!(
                "`{}` is neither here nor below OCELLI_DATA ({place}); {origin}.\n\
                 Then set OCELLI_DATA to the folder around it, or say where it is:\n  {}",
                path.display(),
                sets.join(" ")
            )
        })
        .collect();
    bail!("{}", told.join("\n"))
}

/// `path`, or `path` below `data`, also under the other names in `folders` where it is called by one of them; `None` where nothing
/// is found.
fn below(path: &Path, folders: &[&str], data: Option<&Path>) -> Option<PathBuf> {
    let mut names = vec![path.to_owned()];
    if path.file_name().is_some_and(|n| folders.iter().any(|f| n == *f)) {
        names.extend(folders.iter().map(|f| path.with_file_name(f)));
    }
    let places = names.iter().cloned().chain(data.into_iter().flat_map(|d| names.iter().map(|n| d.join(n))));
    places.into_iter().find(|p| p.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_found_under_each_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("easy_vqa");
        std::fs::create_dir(&there).unwrap();
        let named = Path::new("easy-vqa");
        assert_eq!(below(named, EASY_VQA_FOLDERS, Some(dir.path())), Some(there));
        assert_eq!(below(named, EASY_VQA_FOLDERS, None), None);
        // A name of the user's own means that folder and no other.
        assert_eq!(below(Path::new("mine"), EASY_VQA_FOLDERS, Some(dir.path())), None);
    }
}
