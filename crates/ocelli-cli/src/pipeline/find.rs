//! Where the files that a pipeline names lie on this machine, settled before anything runs.
//!
//! A path is taken as it is where it exists; else it is looked for below `OCELLI_DATA`. A text model may also be a name on the
//! model hub, or the default model, which comes as a package.

use std::path::{Path, PathBuf};

use anyhow::bail;
use ocelli_worlds::real::{EASY_VQA_ORIGIN, PUZZLEVQA_ORIGIN};

use super::config::{Pipeline, Stage};
use crate::commands::model_source;
use crate::ui::Ui;

/// Replaces every path by one that exists.
///
/// # Errors
/// Names the stage, the places that were searched, and where the set can be had.
pub(crate) fn find(config: &mut Pipeline, ui: &Ui) -> anyhow::Result<()> {
    let data = std::env::var_os("OCELLI_DATA").map(PathBuf::from);
    for (name, stage) in &mut config.stage {
        match stage {
            Stage::Questions(q) => {
                let from = &mut q.from;
                let named = [
                    ("puzzlevqa", &mut from.puzzlevqa, PUZZLEVQA_ORIGIN),
                    ("easy_vqa", &mut from.easy_vqa, EASY_VQA_ORIGIN),
                    ("gsm8k", &mut from.gsm8k, "it is a file of JSON lines with `question` and `answer`"),
                ];
                for (setting, path, origin) in named {
                    let Some(path) = path else { continue };
                    *path = below(path, data.as_deref()).ok_or_else(|| {
                        let place = data.as_ref().map_or("not set".to_owned(), |d| d.display().to_string());
                        anyhow::anyhow!(
                            "stage `{name}`: from.{setting} names `{}`, which is neither here nor below OCELLI_DATA ({place});\n{origin}.\n\
                             Then set OCELLI_DATA to the folder around it, or say where it is: --set stage.{name}.from.{setting}=DIR",
                            path.display()
                        )
                    })?;
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
    Ok(())
}

/// `path`, or `path` below `data`; `None` where neither exists.
fn below(path: &Path, data: Option<&Path>) -> Option<PathBuf> {
    if path.exists() {
        return Some(path.to_owned());
    }
    data.map(|d| d.join(path)).filter(|p| p.exists())
}
