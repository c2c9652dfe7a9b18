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

/// Limit of summary, configuration and environment, in bytes.
const MAX_TEXT: u64 = 16 << 20;
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
    /// Reads the run at `dir`; a directory that is not a run is answered with what is missing.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("summary.json");
        if !path.exists() {
            bail!(
                "{} has no summary.json, so it is no finished run; finish it with `ocelli run CONFIG`",
                dir.display()
            );
        }
        let summary: RunSummary = serde_json::from_slice(&read_bounded(&path, MAX_TEXT)?)
            .with_context(|| format!("{} is not a run summary", path.display()))?;
        let items = summary
            .arms
            .iter()
            .map(|arm| read_jsonl(&dir.join("items").join(format!("{}.jsonl", arm.id))))
            .collect::<Result<Vec<_>, _>>()?;
        let label = match summary.seed {
            0 => summary.name.clone(),
            seed => format!("{}, seed {seed}", summary.name),
        };
        let mut run = Self {
            label,
            summary,
            items,
            alarms: Vec::new(),
            metrics: BTreeMap::new(),
            samples: optional_rows(&dir.join("samples.jsonl"))?,
            config: optional_text(&dir.join("config.toml"))?,
            environment: optional_text(&dir.join("environment.json"))?,
            blobs: BlobStore::new(dir.join("blobs")),
        };
        for record in optional_rows(&dir.join("metrics.jsonl"))? {
            match record {
                Record::Metric { stage, step, name, value } => {
                    run.metrics.entry((stage, name)).or_default().push((step as f64, value));
                }
                Record::Alarm { stage, step, monitor, message } => {
                    run.alarms.push((stage, step, monitor, message))
                }
            }
        }
        Ok(run)
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

fn optional(path: &Path) -> Option<PathBuf> {
    path.exists().then(|| path.to_owned())
}

fn optional_rows<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    Ok(optional(path).map(|p| read_jsonl(&p)).transpose()?.unwrap_or_default())
}

fn optional_text(path: &Path) -> anyhow::Result<String> {
    let bytes = optional(path).map(|p| read_bounded(&p, MAX_TEXT)).transpose()?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
