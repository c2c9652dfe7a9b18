//! A run directory in memory: everything the page shows, read with limits.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ocelli_data::io::{BlobStore, read_bounded, read_jsonl};
use ocelli_data::record::Record;
use ocelli_data::run::{Arm, ItemResult, RunSummary};
use ocelli_data::{ContentHash, Trajectory};
use ocelli_eval::stats::{self, Estimate};

use super::training;

/// Limit of summary, configuration and environment, in bytes.
const MAX_TEXT: u64 = 16 << 20;
/// Limit of records that are read while they are written, in bytes.
const MAX_ROWS: u64 = 4 << 30;
/// Limit of one embedded picture, in bytes.
const MAX_IMAGE: u64 = 8 << 20;

/// One run directory.
pub(crate) struct Run {
    /// Name for comparisons: the run's, with its seed where that is not 0.
    pub(super) label: String,
    pub(crate) summary: RunSummary,
    /// Items of each arm, in the order of `summary.arms`.
    pub(super) items: Vec<Vec<ItemResult>>,
    pub(super) alarms: Vec<(String, u64, String, String)>,
    /// Points by step, by (stage, metric name).
    pub(super) metrics: BTreeMap<(String, String), Vec<(f64, f64)>>,
    pub(super) samples: Vec<Trajectory>,
    pub(super) config: String,
    pub(super) environment: String,
    blobs: BlobStore,
}

impl Run {
    /// Reads the run at `dir`, of `ocelli run` or of `ocelli train`; anything else is answered with what it is and what is
    /// wanted.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("summary.json");
        if path.is_file() {
            return Self::of_pipeline(dir, &path);
        }
        if training::is_training(dir) {
            return training::open(dir);
        }
        bail!(no_run(dir))
    }

    fn of_pipeline(dir: &Path, path: &Path) -> anyhow::Result<Self> {
        let summary: RunSummary = serde_json::from_slice(&read_bounded(path, MAX_TEXT)?)
            .with_context(|| format!("{} is not a run summary", path.display()))?;
        let mut run = Self::of(summary, dir, "blobs");
        for arm in &run.summary.arms {
            let items = dir.join("items").join(format!("{}.jsonl", arm.id));
            let rows = read_jsonl(&items).with_context(|| {
                format!(
                    "summary.json tells of the arm `{}`, and its answers cannot be read; `ocelli run CONFIG` writes items/ again \
                     from the stages that are done",
                    arm.id
                )
            })?;
            run.items.push(rows);
        }
        run.samples = optional_rows(&dir.join("samples.jsonl"))?;
        run.config = optional_text(&dir.join("config.toml"))?;
        run.environment = optional_text(&dir.join("environment.json"))?;
        run.take_records(optional_rows(&dir.join("metrics.jsonl"))?);
        // What the stage under way has measured is in its own directory alone.
        let under_way = run.summary.unfinished.clone().filter(|s| plain(s));
        if let Some(stage) = under_way {
            let mut records: Vec<Record> =
                rows_so_far(&dir.join("stages").join(&stage).join("metrics.jsonl"))?;
            for record in &mut records {
                let (Record::Metric { stage: named, .. } | Record::Alarm { stage: named, .. }) = record;
                named.clone_from(&stage);
            }
            run.take_records(records);
        }
        Ok(run)
    }

    /// A run of which nothing is read yet; its pictures are in `pictures` of `dir`.
    pub(super) fn of(summary: RunSummary, dir: &Path, pictures: &str) -> Self {
        let label = match summary.seed {
            0 => summary.name.clone(),
            seed => format!("{}, seed {seed}", summary.name),
        };
        Self {
            label,
            summary,
            items: Vec::new(),
            alarms: Vec::new(),
            metrics: BTreeMap::new(),
            samples: Vec::new(),
            config: String::new(),
            environment: String::new(),
            blobs: BlobStore::new(dir.join(pictures)),
        }
    }

    pub(super) fn take_records(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Metric { stage, step, name, value } => {
                    self.metrics.entry((stage, name)).or_default().push((step as f64, value));
                }
                Record::Alarm { stage, step, monitor, message } => {
                    self.alarms.push((stage, step, monitor, message))
                }
            }
        }
    }

    /// Arms with their items.
    pub(crate) fn arms(&self) -> impl Iterator<Item = (&Arm, &Vec<ItemResult>)> {
        self.summary.arms.iter().zip(&self.items)
    }

    /// The summary with the accuracy of every arm, and where the page is.
    pub(crate) fn summary_for_machines(&self, page: &Path) -> anyhow::Result<serde_json::Value> {
        let mut all = serde_json::to_value(&self.summary)?;
        let arms = self.arms().map(|(arm, items)| {
            let e = Self::accuracy(items.iter());
            serde_json::json!({
                "id": arm.id,
                "label": arm.label,
                "tools": arm.tools,
                "n": items.len(),
                "accuracy": e.as_ref().map(|e| e.mean),
                "interval": e.as_ref().map(|e| [e.interval.low, e.interval.high]),
                "calls": items.iter().map(|i| i.tools.len()).sum::<usize>(),
            })
        });
        all["arms"] = arms.collect();
        all["report"] = serde_json::json!(page);
        Ok(all)
    }

    /// Share of right answers of the items, with a 95 % interval; `None` where there is no item.
    pub(crate) fn accuracy<'a>(items: impl Iterator<Item = &'a ItemResult>) -> Option<Estimate> {
        let scores: Vec<f64> = items.map(|i| i.score).collect();
        stats::proportion::<usize>(&scores, None, 0.95).ok()
    }

    /// The picture for the page, or `None` where the run does not hold it.
    pub(super) fn picture(&self, hash: ContentHash) -> Option<Embedded> {
        use base64::Engine as _;
        let bytes = self.blobs.get(hash, MAX_IMAGE).ok()?;
        let kind = if bytes.starts_with(b"\x89PNG") { "png" } else { "jpeg" };
        let size = image::ImageReader::new(Cursor::new(&bytes)).with_guessed_format().ok();
        // A picture that cannot be measured is shown at its own size.
        let (width, _) = size.and_then(|r| r.into_dimensions().ok()).unwrap_or((640, 480));
        let uri =
            format!("data:image/{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes));
        Some(Embedded { uri, width })
    }
}

/// A picture inside the page.
pub(super) struct Embedded {
    pub(super) uri: String,
    /// In pixels.
    pub(super) width: u32,
}

/// A name that is one directory and no way out of it.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Why `dir` is no run, and what would be one.
fn no_run(dir: &Path) -> String {
    let shown = dir.display();
    let holds = |d: &Path| d.join("summary.json").is_file() || training::is_training(d);
    let listed = |around: &Path| -> String {
        let entries = std::fs::read_dir(around).into_iter().flatten().flatten().map(|e| e.path());
        let mut found: Vec<String> =
            entries.filter(|p| holds(p)).take(20).map(|p| p.display().to_string()).collect();
        found.sort();
        if found.is_empty() { String::new() } else { format!("\nruns there: {}", found.join(", ")) }
    };
    let around = dir.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    if !dir.exists() {
        return format!("there is no {shown}{}", around.map_or_else(String::new, listed));
    }
    if !dir.is_dir() {
        let own = around.filter(|p| holds(p)).map_or_else(
            || "name the directory of a run".to_owned(),
            |p| format!("name the directory of its run: {}", p.display()),
        );
        return format!("{shown} is a file; a report is made from a run directory, so {own}");
    }
    if dir.join("report.json").is_file() {
        return format!(
            "{shown} holds results of `ocelli eval`, which has written their page itself: {}; `ocelli compare` compares several",
            dir.join("report.html").display()
        );
    }
    if dir.join("config.json").is_file() {
        return format!("{shown} is a training that has taken no step yet (it has no metrics.jsonl)");
    }
    if dir.join("config.toml").is_file() || dir.join("stages").is_dir() {
        return format!(
            "{shown} has no summary.json: its run ended before any stage began; `ocelli run CONFIG` goes on"
        );
    }
    format!(
        "{shown} is no run: it has neither summary.json (of `ocelli run CONFIG`) nor config.json with metrics.jsonl (of \
         `ocelli train`){}",
        listed(dir)
    )
}

/// The whole lines of a file that may be written to this moment; none where there is no file.
pub(super) fn rows_so_far<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = read_bounded(path, MAX_ROWS)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(&[][..], |end| &bytes[..end]);
    let lines =
        whole.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.iter().all(u8::is_ascii_whitespace));
    lines
        .map(|(i, line)| {
            serde_json::from_slice(line).with_context(|| format!("{}, line {}", path.display(), i + 1))
        })
        .collect()
}

fn optional(path: &Path) -> Option<PathBuf> {
    path.exists().then(|| path.to_owned())
}

fn optional_rows<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    Ok(optional(path).map(|p| read_jsonl(&p)).transpose()?.unwrap_or_default())
}

pub(super) fn optional_text(path: &Path) -> anyhow::Result<String> {
    let bytes = optional(path).map(|p| read_bounded(&p, MAX_TEXT)).transpose()?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
