//! What is known about answers beside the answers: rewards of samples, preferences between samples of one item, and what
//! people say about some answers. Each is a file of JSON lines.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ocelli_data::io::{IoError, read_jsonl};
use serde::Deserialize;

/// Rewards, preferences and verdicts of people, by item and sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Reward of a sample, for best-of-k and votes weighted by reward.
    pub rewards: HashMap<(String, u32), f64>,
    /// By item: how often the first of two samples was preferred to the second, and how often they were compared; a
    /// tie is half a win. Both orders of a pair are one entry, the lower sample first.
    pub preferences: HashMap<String, HashMap<(u32, u32), (f64, u32)>>,
    /// Whether a person calls the answer right.
    pub human: HashMap<(String, u32), bool>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExtraError {
    /// File operations and JSON.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A row that makes no sense.
    #[error("{path}: row {row}: {message}")]
    Row {
        /// The file.
        path: PathBuf,
        /// Which row, from 1.
        row: usize,
        /// What is wrong.
        message: String,
    },
}

#[derive(Deserialize)]
struct Reward {
    id: String,
    #[serde(default)]
    sample: u32,
    reward: f64,
}

#[derive(Deserialize)]
struct Preference {
    id: String,
    first: u32,
    second: u32,
    /// The preferred sample; null for a tie.
    winner: Option<u32>,
}

#[derive(Deserialize)]
struct Human {
    id: String,
    #[serde(default)]
    sample: u32,
    right: bool,
}

fn rows<T: serde::de::DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(T) -> Result<(), String>,
) -> Result<(), ExtraError> {
    for (i, row) in read_jsonl::<T>(path)?.into_iter().enumerate() {
        take(row).map_err(|message| ExtraError::Row { path: path.to_owned(), row: i + 1, message })?;
    }
    Ok(())
}

impl Extra {
    /// Adds rewards: `{"id": "x", "sample": 0, "reward": 0.7}`.
    pub fn read_rewards(&mut self, path: &Path) -> Result<(), ExtraError> {
        rows(path, |r: Reward| {
            if !r.reward.is_finite() {
                return Err(format!("the reward {} is not a finite number", r.reward));
            }
            self.rewards.insert((r.id, r.sample), r.reward);
            Ok(())
        })
    }

    /// Adds preferences: `{"id": "x", "first": 0, "second": 3, "winner": 3}`, null for a tie. A pair may be compared
    /// several times, in both orders.
    pub fn read_preferences(&mut self, path: &Path) -> Result<(), ExtraError> {
        rows(path, |p: Preference| self.prefer(p.id, p.first, p.second, p.winner))
    }

    /// Adds one preference.
    pub fn prefer(&mut self, id: String, first: u32, second: u32, winner: Option<u32>) -> Result<(), String> {
        if first == second || winner.is_some_and(|w| w != first && w != second) {
            return Err(format!(
                "samples {first} and {second} with winner {winner:?}: two different samples, and one of them or null"
            ));
        }
        let (low, high) = (first.min(second), first.max(second));
        let (wins, count) = self.preferences.entry(id).or_default().entry((low, high)).or_insert((0.0, 0));
        *wins += winner.map_or(0.5, |w| f64::from(u8::from(w == low)));
        *count += 1;
        Ok(())
    }

    /// Adds verdicts of people: `{"id": "x", "sample": 0, "right": true}`.
    pub fn read_human(&mut self, path: &Path) -> Result<(), ExtraError> {
        rows(path, |h: Human| {
            let again = self.human.insert((h.id.clone(), h.sample), h.right);
            match again {
                Some(before) if before != h.right => {
                    Err(format!("sample {} of `{}` is called both right and wrong", h.sample, h.id))
                }
                _ => Ok(()),
            }
        })
    }

    /// Probabilities that one sample of an item is preferred to another, for these samples in order; the error names a
    /// pair that was never compared.
    pub(crate) fn table(&self, item: &str, samples: &[u32]) -> Result<Vec<Vec<f64>>, String> {
        let known = self.preferences.get(item);
        let mut table = vec![vec![0.5; samples.len()]; samples.len()];
        for (j, &b) in samples.iter().enumerate() {
            for (i, &a) in samples.iter().enumerate().take(j) {
                let (low, high) = (a.min(b), a.max(b));
                let Some((wins, count)) = known.and_then(|k| k.get(&(low, high))) else {
                    return Err(format!("samples {low} and {high} of `{item}` were never compared"));
                };
                let share = wins / f64::from(*count);
                let share = if a == low { share } else { 1.0 - share };
                (table[i][j], table[j][i]) = (share, 1.0 - share);
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_a_pair_are_one() {
        let mut extra = Extra::default();
        for (first, second, winner) in
            [(0, 1, Some(0)), (1, 0, Some(1)), (1, 0, None), (0, 2, Some(2)), (1, 2, None)]
        {
            extra.prefer("x".into(), first, second, winner).unwrap();
        }
        assert_eq!(
            extra.table("x", &[0, 1, 2]).unwrap(),
            [[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [1.0, 0.5, 0.5]]
        );
        assert_eq!(extra.table("x", &[2, 0]).unwrap(), [[0.5, 1.0], [0.0, 0.5]]);
        assert!(extra.table("x", &[0, 3]).unwrap_err().contains("samples 0 and 3"));
        assert!(
            extra.prefer("x".into(), 1, 1, None).is_err() && extra.prefer("x".into(), 1, 2, Some(3)).is_err()
        );
    }

    #[test]
    fn bad_rows_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.jsonl");
        std::fs::write(&path, "{\"id\": \"x\", \"right\": true}\n{\"id\": \"x\", \"right\": false}\n")
            .unwrap();
        let message = Extra::default().read_human(&path).unwrap_err().to_string();
        assert!(message.contains("h.jsonl: row 2") && message.contains("both right and wrong"), "{message}");
        std::fs::write(&path, "{\"id\": \"x\", \"first\": 0, \"second\": 0, \"winner\": 0}\n").unwrap();
        assert!(Extra::default().read_preferences(&path).unwrap_err().to_string().contains("row 1"));
    }
}
