//! The log of a run of ours as stored outputs.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use indexmap::IndexMap;
use ocelli_agent::endpoint::Outcome;
use ocelli_data::io::{IoError, read_jsonl};

use super::{Stored, StoredAnswer, StoredError};
use crate::declare::{Task, Ties};
use crate::load::{LoadError, Table};
use crate::run::{Entry, RunHeader, read_header};

/// The header of a run's folder, and that the run is one of the task; another folder is told by what it holds.
pub fn check_folder(task: &Task, folder: &Path) -> Result<RunHeader, StoredError> {
    let wrong = |message: String| StoredError::Items { path: folder.to_owned(), message };
    if !folder.join("log.jsonl").is_file() {
        let io = |source| LoadError::Io(IoError::Os { what: "list", path: folder.to_owned(), source });
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .map_err(io)?
            .flatten()
            .filter(|e| e.path().is_file())
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
        names.truncate(5);
        let holds =
            if names.is_empty() { "no files".to_owned() } else { format!("{}{more}", names.join(", ")) };
        return Err(wrong(format!(
            "is a folder without log.jsonl, so not a run of `ocelli eval` (it holds {holds}). Give the folder of a run, or files of stored outputs"
        )));
    }
    let header = read_header(folder).map_err(LoadError::Io)?;
    if header.benchmark != task.benchmark.name {
        return Err(wrong(format!("this is a run of {}, not of {}", header.benchmark, task.benchmark.name)));
    }
    Ok(header)
}

/// The answers of a run's log, with the replies of its judge, as stored outputs. Entries of items that the data lacks
/// are an error; a run of the first items only is one here, too.
pub fn from_log(task: &Task, table: &Table, folder: &Path) -> Result<Stored, StoredError> {
    let path = folder.join("log.jsonl");
    let wrong = |message: String| StoredError::Items { path: path.clone(), message };
    let header = check_folder(task, folder)?;
    let mut notes = vec![format!("rescored from the log of a run of {}", header.model)];
    if header.data != table.fingerprint {
        notes.push("the data is not that of the run: rows or pictures have changed since".into());
    }
    let entries: Vec<Entry> = read_jsonl(&path).map_err(LoadError::Io)?;
    // A later line of the same request replaces an earlier failure.
    let mut last: IndexMap<(String, u32, u32), Entry> = IndexMap::new();
    for entry in entries {
        last.insert((entry.item.clone(), entry.variant, entry.sample), entry);
    }
    let mut items = crate::item::items(task, table)?;
    if header.items < items.len() {
        notes.push(format!("the run asked only the first {} of {} items", header.items, items.len()));
        items.truncate(header.items);
    }
    let known: HashSet<&str> = items.iter().map(|i| i.id.as_str()).collect();
    if let Some(entry) = last.values().find(|e| !known.contains(e.item.as_str())) {
        return Err(wrong(format!("there is an answer to item `{}`, which the data set lacks", entry.item)));
    }
    let judged = folder.join("judge.jsonl");
    let replies: Vec<Entry> =
        if judged.exists() { read_jsonl(&judged).map_err(LoadError::Io)? } else { Vec::new() };
    let replies: HashMap<(String, u32), String> = replies
        .into_iter()
        .filter(|e| e.outcome != Outcome::Failed)
        .map(|e| ((e.item, e.sample), e.text))
        .collect();
    let answers = last.into_values().map(|e| StoredAnswer {
        judge: replies.get(&(e.item.clone(), e.sample)).cloned(),
        item: e.item,
        variant: e.variant,
        sample: e.sample,
        outcome: e.outcome,
        text: e.text,
        reasoning: e.reasoning,
        extraction: None,
        label: None,
        scores: Vec::new(),
        reward: None,
        usage: e.usage,
    });
    let answers = answers.collect();
    Ok(Stored {
        format: "log of a run".into(),
        items,
        answers,
        by_judge: false,
        ties: Ties::default(),
        data: table.fingerprint,
        notes,
    })
}
