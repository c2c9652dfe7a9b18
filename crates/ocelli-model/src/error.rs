//! What can go wrong between a file and a token. Messages name the file, the key or tensor, and the numbers.

use std::path::{Path, PathBuf};

use ocelli_data::ContentHash;
use ocelli_data::io::IoError;

use crate::image::ImageError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A bounded read or an atomic write failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Os {
        /// `open`, `map` ...
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A key of a JSON configuration is missing or does not fit.
    #[error("{file}: key `{key}`: expected {expected}, found {found}")]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// What would have been accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A weight file is not what its format demands.
    #[error("{path}: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with numbers.
        why: String,
    },
    /// One tensor of a weight file is not what its format demands.
    #[error("{path}: tensor `{tensor}`: {why}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong, with numbers.
        why: String,
    },
    /// Weights and configuration disagree; lists every disagreement.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A tokenizer cannot be built or used.
    #[error("tokenizer {path}: {why}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A picture cannot be used.
    #[error("picture {}: {source}", hash.short())]
    Image {
        /// Hash of the encoded file.
        hash: ContentHash,
        /// What is wrong with it.
        source: ImageError,
    },
    /// A dialogue has places for another number of pictures than it names.
    #[error(
        "{placeholders} places for pictures, but {images} pictures: the chat template must write one placeholder for each \
         picture, and text must not contain the placeholder token"
    )]
    Placeholders {
        /// Placeholder tokens written.
        placeholders: usize,
        /// Pictures named.
        images: usize,
    },
    /// The rows reserved for a picture are not as many as its features.
    #[error("picture {}: {placeholders} placeholder tokens for {features} features", hash.short())]
    ImageTokens {
        /// Hash of the encoded file.
        hash: ContentHash,
        /// Placeholder tokens found.
        placeholders: usize,
        /// Features that the picture has.
        features: usize,
    },
    /// The answer is as likely without the picture.
    #[error(
        "the model does not look: log p(answer) is {seen} with the picture and {blank} with a grey one. Its features do not \
         reach the language model"
    )]
    Blind {
        /// Log-probability with the picture.
        seen: f64,
        /// Log-probability with a grey one.
        blank: f64,
    },
    /// A chat template cannot be parsed or rendered.
    #[error("chat template: {0}")]
    Chat(String),
    /// A name does not lead to a checkpoint.
    #[error("cannot find model `{name}`: {why}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// Where it was looked for, and what to do.
        why: String,
    },
    /// The compute layer refused.
    #[error(transparent)]
    Compute(#[from] ocelli_tensor::TensorError),
    /// A request that the model cannot serve: too long, an unknown token id, an impossible setting.
    #[error("{0}")]
    Request(String),
}

impl ModelError {
    pub(crate) fn os(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Os { what, path, source }
    }

    pub(crate) fn malformed(path: &Path, why: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), why: why.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, why: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), why: why.into() }
    }
}

/// A tensor whose shape is not the one that the configuration demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape that the configuration demands.
    pub expected: Vec<usize>,
    /// Shape in the file.
    pub found: Vec<usize>,
}

/// All disagreements between a configuration and the tensors of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct Mismatch {
    /// The checkpoint.
    pub path: PathBuf,
    /// Demanded, not in the file.
    pub missing: Vec<String>,
    /// In the file, not demanded.
    pub unexpected: Vec<String>,
    /// In both, with different shapes.
    pub misshapen: Vec<Misshapen>,
}

impl Mismatch {
    fn describe(&self) -> String {
        let mut text = format!(
            "{}: the weights do not fit the configuration: {} missing, {} unexpected, {} with another shape",
            self.path.display(),
            self.missing.len(),
            self.unexpected.len(),
            self.misshapen.len()
        );
        for name in &self.missing {
            text += &format!("\n  missing     {name}");
        }
        for name in &self.unexpected {
            text += &format!("\n  unexpected  {name}");
        }
        for m in &self.misshapen {
            text += &format!("\n  shape       {}: expected {:?}, found {:?}", m.name, m.expected, m.found);
        }
        text
    }
}
