//! How stored outputs of other programs name things.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Format;

/// How stored outputs of other programs name things.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFormat {
    /// Name, for messages.
    pub name: String,
    /// Format of the file.
    pub format: Format,
    /// Key of the array of rows within the file, where it is nested.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rows: String,
    /// Column of the item's name, or several with `/` between, which together name it.
    pub id: String,
    /// Further columns by which this format is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Column of the response. Where it is empty, the extraction stands for the response.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub response: String,
    /// Or the beginning of the names of several such columns, one per sample: `response_` for `response_0`, `response_1` ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub samples: String,
    /// Column of a list of rewards, one per sample in order, for best-of-k and weighted votes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rewards: String,
    /// Column of a judge's reply about the answer: the official verdict then is the judge's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub judge: String,
    /// Column of an answer extracted earlier, which the reference rule then compares.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub extraction: String,
    /// Column of the published verdict: the recomputed one is compared with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Columns of the scores of given answers, in order (scalar reward models).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<String>,
    /// What the program that wrote the file makes of equal scores.
    #[serde(default)]
    pub ties: Ties,
    /// For given answers: column with the index of the better one, where the rows are their own data set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub better: String,
    /// Columns of the file's own items to rename, old name to new.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub rename: IndexMap<String, String>,
    /// True where the file holds all columns of the data set itself.
    #[serde(default)]
    pub own_items: bool,
}

/// What a program makes of equal scores of two answers. Strict mode counts a tie as wrong, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// The better answer has not won.
    #[default]
    Loss,
    /// The first answer wins, as with the index of the maximum.
    First,
}
