//! A benchmark is data: one TOML file says where its rows are, how they become a prompt, how answers are sampled, read,
//! compared and averaged. Its hash stands in every log.
//!
//! A task is a benchmark with a value for each of its axes, written `csvqa:zh,direct`; see [`Task::parse`].

mod metric;
mod scoring;
mod shipped;
mod stored_format;
mod task;

use indexmap::IndexMap;
use ocelli_agent::endpoint::SamplingParams;
use ocelli_data::ContentHash;
use serde::{Deserialize, Serialize};

pub use metric::{Metric, MetricKind, Section};
pub use scoring::{
    Compare, JudgePrompt, Missing, ReferencePolicy, ReferenceRule, ReplyRule, Scoring, StrictRule,
    VerdictRule,
};
pub use shipped::{shipped, shipped_names};
pub use stored_format::{StoredFormat, Ties};
pub use task::{Task, TaskError};

/// What a benchmark asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An answer to a question.
    #[default]
    Answer,
    /// Which of two given answers is better.
    Pair,
    /// The best of several given answers (RewardBench 2).
    BestOf,
}

/// One declaration. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// Name on the command line, e.g. `emma-mini`.
    pub name: String,
    /// Name in reports.
    pub title: String,
    /// What it asks for.
    #[serde(default)]
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
    /// Dimensions of variants with their values; the first value is the default. Every value is unique among all axes.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub axes: IndexMap<String, Vec<String>>,
    /// Possible layouts of the data below the data directory; the first whose files exist is read.
    pub data: Vec<Layout>,
    /// Which columns mean what, for benchmarks that ask for an answer.
    #[serde(default)]
    pub fields: Fields,
    /// Which columns mean what, for benchmarks of given answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
    /// How a row becomes a dialogue.
    pub prompt: Prompt,
    /// How the policy samples; the command line may override it.
    #[serde(default)]
    pub sampling: SamplingParams,
    /// Samples per item.
    #[serde(default = "one")]
    pub samples: u32,
    /// How answers are read and compared; the first entry whose condition a row meets applies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score: Vec<Scoring>,
    /// What the official program does with answers that it does not have or cannot read.
    #[serde(default)]
    pub reference_policy: ReferencePolicy,
    /// How a policy's verdict on given answers is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictRule>,
    /// Named judge prompts.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub judges: IndexMap<String, JudgePrompt>,
    /// Judgement of the reasoning against a reference explanation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Groupings of the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Items of one value are not independent: shared images, edited versions of one question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Numbers of the report beside the accuracy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Known formats of stored outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<StoredFormat>,
}

fn one() -> u32 {
    1
}

/// Origin of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Paper.
    #[serde(default)]
    pub paper: String,
    /// Where the data is published.
    pub url: String,
    /// Licence of the data as far as it is stated.
    pub licence: String,
    /// Number of rows of the published set, where it is one set; another number is reported, not refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Peculiarities of the data or of the official program that a reader of the numbers should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// File format of a layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet as data hubs write it; images are structs of `bytes` and `path`, or plain bytes.
    Parquet,
    /// Tab-separated values with a header, quoted as in CSV.
    Tsv,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// The first sheet of a workbook (.xlsx) with a header.
    Xlsx,
    /// One JSON object per line.
    #[default]
    Jsonl,
    /// One JSON array of objects.
    Json,
    /// One JSON object whose values are the rows.
    JsonMap,
}

impl Format {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Tsv => "tab-separated",
            Self::Csv => "comma-separated",
            Self::Xlsx => "a workbook",
            Self::Jsonl => "JSON lines",
            Self::Json => "a JSON list",
            Self::JsonMap => "a JSON object of rows",
        }
    }
}

/// How a column holds images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageForm {
    /// Path of a file, relative to the layout's folder and `image_root`.
    #[default]
    File,
    /// Base64 text, with or without a data URL's head.
    Base64,
    /// Encoded bytes, or a struct of `bytes` and `path`.
    Bytes,
}

/// Where rows lie and what their columns are called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Format.
    pub format: Format,
    /// Files below the data directory; `*` stands for any characters within a name, `{axis}` for the axis' value.
    pub files: Vec<String>,
    /// Column that names an item, or several with `/` between, which together do; `#` numbers the rows (`file:row` where there are several files).
    pub id: String,
    /// True where the published set itself uses a name for several rows: the second becomes `name#2`. Otherwise a
    /// repeated name is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_repeat: bool,
    /// Columns of images; a missing or null cell is no image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// How they hold them.
    #[serde(default)]
    pub image_form: ImageForm,
    /// Folder of image files, relative to the data directory; beside the data file where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_root: Option<String>,
    /// Columns to rename, old name to new.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub rename: IndexMap<String, String>,
    /// Constant columns to add; `{file}` is the stem of the row's file.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub add: IndexMap<String, String>,
    /// Text for columns that a file lacks.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub default: IndexMap<String, String>,
    /// Only rows whose columns have these values.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub only: IndexMap<String, String>,
}

/// Columns of a question. `{axis}` stands for the axis' value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// The question.
    pub question: String,
    /// True where the published set has questions that stand only in their picture: the text may be empty.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_question: bool,
    /// The gold answer.
    pub answer: String,
    /// What the gold column holds.
    pub answer_form: AnswerForm,
    /// For answers that end a longer text: what stands before them, e.g. `####`.
    pub answer_after: String,
    /// Column of the list of options.
    pub options: String,
    /// Or one column per option.
    pub option_columns: Vec<String>,
}

/// What a gold column holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// Text, number, or letters of options.
    #[default]
    Text,
    /// The text of the right option, where there are options.
    OptionText,
    /// A list of accepted answers, any of which is right.
    AnyOf,
    /// A list whose elements together are the answer.
    List,
    /// 0 for no, 1 for yes.
    ZeroOne,
}

/// Columns of given answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Column of the question.
    pub query: String,
    /// Columns of answers, or of lists of answers, in order.
    pub answers: Vec<String>,
    /// How the better one is known.
    pub better: Better,
}

/// How the better answer is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// It comes first in `answers`; all answers of the first column are right.
    FirstColumn,
    /// A column of ranks, lowest best: `[0, 1]` or `[1, 0]`.
    Ranking(String),
    /// A column with a name for each answer, e.g. `output1` and `output2`.
    Named {
        /// The column.
        column: String,
        /// Names in the order of `answers`.
        names: Vec<String>,
    },
    /// Columns of raters who say 1, 2, or 0 for a tie; the majority decides, none means a tie.
    Raters(Vec<String>),
}

/// How a row becomes a dialogue. Templates see the row's columns as `row`, the axes by their names, `question`,
/// `options` and `letters`; the rendered text is cut at the slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// System message; none where empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// User message.
    pub user: String,
    /// Places of images in the rendered text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// Asked first where the axis `input` is `caption`: its answer is the variable `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<CaptionPrompt>,
}

/// Text that stands for an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Regular expression, e.g. `<image_(\d+)>`.
    pub pattern: String,
    /// Column of the image; `$1` stands for the first group.
    pub column: String,
}

/// Prompt for a description of the image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionPrompt {
    /// User message.
    pub user: String,
    /// Longest caption in tokens.
    pub max_tokens: u32,
}

/// Explanation-driven judgement of reasoning (CSVQA, section 5.2) and its extension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reasoning {
    /// Column of the reference explanation; `{axis}` stands for the axis' value.
    pub explanation: String,
    /// Version of the prompts.
    pub version: u32,
    /// Prompt of the binary judgement. Templates see `question`, `explanation`, `response`.
    pub binary: String,
    /// Prompt of the step-wise judgement. Templates see also `steps` and `reference_steps`, numbered lists.
    pub stepwise: String,
    /// Sampling of the judge.
    #[serde(default)]
    pub sampling: SamplingParams,
}

/// A grouping of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name in reports.
    pub name: String,
    /// Columns; several are crossed.
    pub by: Vec<String>,
    /// Separator of a cell that holds several labels; the row counts under each.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub split: String,
    /// Label to label: merged or renamed, e.g. `middle` to `medium`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub alias: IndexMap<String, String>,
    /// Prefix of the cell to label, longest first: for groups that only the id shows.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub prefix: IndexMap<String, String>,
}

/// A declaration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// Not the TOML it should be.
    #[error("benchmark {name}: {source}")]
    Toml {
        /// File or shipped name.
        name: String,
        /// What is wrong, with line and column.
        source: Box<toml::de::Error>,
    },
    /// Parts that contradict one another.
    #[error("benchmark {name}: {message}")]
    Invalid {
        /// Name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

impl Benchmark {
    /// Reads and checks a declaration; `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, DeclareError> {
        let benchmark: Self = toml::from_str(text)
            .map_err(|source| DeclareError::Toml { name: name.into(), source: Box::new(source) })?;
        match benchmark.check() {
            Ok(()) => Ok(benchmark),
            Err(message) => Err(DeclareError::Invalid { name: name.into(), message }),
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut values: Vec<&String> = self.axes.values().flatten().collect();
        values.sort();
        if let Some(pair) = values.windows(2).find(|w| w[0] == w[1]) {
            return Err(format!("the axis value `{}` stands for two things", pair[0]));
        }
        if let Some((axis, _)) = self.axes.iter().find(|(_, v)| v.is_empty()) {
            return Err(format!("the axis `{axis}` has no values"));
        }
        if self.data.is_empty() || self.data.iter().any(|l| l.files.is_empty()) {
            return Err("there are no data files".into());
        }
        match self.kind {
            Kind::Answer if self.score.is_empty() => return Err("there is no [[score]]".into()),
            Kind::Answer if self.fields.question.is_empty() || self.fields.answer.is_empty() => {
                return Err("fields.question and fields.answer must name columns".into());
            }
            Kind::Pair | Kind::BestOf if self.given.is_none() || self.verdict.is_none() => {
                return Err("given answers need [given] and [verdict]".into());
            }
            _ => {}
        }
        if self.score.last().is_some_and(|s| !s.when.is_empty()) {
            return Err("the last [[score]] must have no `when`, so that every row has a rule".into());
        }
        for judge in self.score.iter().filter_map(|s| s.judge.as_ref()) {
            if !self.judges.contains_key(judge) {
                return Err(format!("[[score]] names the judge `{judge}`, which is not declared"));
            }
        }
        let special = self.score.iter().flat_map(|s| s.when.keys()).filter_map(|c| c.strip_prefix('#'));
        for name in special {
            if name != "options" && !self.axes.contains_key(name) {
                return Err(format!(
                    "[[score]] has the condition `#{name}`, which is neither `#options` nor an axis"
                ));
            }
        }
        for slot in &self.prompt.slots {
            regex::Regex::new(&slot.pattern).map_err(|e| format!("slot `{}`: {e}", slot.pattern))?;
        }
        self.metrics.iter().try_for_each(|m| m.check(&self.groups))
    }

    /// Hash of the declaration as resolved, in every log.
    pub fn hash(&self) -> ContentHash {
        // Serialising a struct of strings, numbers and lists to JSON cannot fail; the debug form is the fallback.
        let text = serde_json::to_string(self).unwrap_or_else(|_| format!("{self:?}"));
        ContentHash::of(text.as_bytes())
    }
}
