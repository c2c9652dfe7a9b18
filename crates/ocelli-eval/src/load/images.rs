//! Pictures of a data set: where their bytes are, by content.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_agent::endpoint::wire::image_type;
use ocelli_data::ContentHash;
use ocelli_data::io::{BlobStore, IoError, read_bounded};
use serde_json::Value;

use super::{Cell, MAX_IMAGE, kind_of};
use crate::declare::ImageForm;

/// Pictures by content: files of the data set where they lie, embedded ones in a blob store.
#[derive(Clone, Debug)]
pub struct Images {
    files: Arc<HashMap<ContentHash, PathBuf>>,
    blobs: BlobStore,
}

/// Why a cell is no picture.
pub(super) enum ImageProblem {
    /// The cell's fault.
    Cell(String),
    /// The file that it names is not there.
    Absent(PathBuf),
    /// The disk's fault.
    Store(IoError),
}

impl Images {
    /// None yet; embedded pictures go below `blobs`.
    pub fn new(blobs: &Path) -> Self {
        Self { files: Arc::default(), blobs: BlobStore::new(blobs) }
    }

    /// Bytes of a picture. A file that changed since loading is an error.
    pub fn get(&self, hash: ContentHash) -> Result<Vec<u8>, String> {
        let Some(path) = self.files.get(&hash) else {
            return self.blobs.get(hash, MAX_IMAGE as u64).map_err(|e| e.to_string());
        };
        let bytes = read_bounded(path, MAX_IMAGE as u64).map_err(|e| e.to_string())?;
        if ContentHash::of(&bytes) == hash {
            Ok(bytes)
        } else {
            Err(format!("{} changed since the data was loaded", path.display()))
        }
    }

    /// Takes in a picture that is at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<ContentHash, IoError> {
        self.blobs.put(bytes)
    }

    /// Takes in a cell; null and empty text are no picture.
    pub(super) fn add(
        &mut self,
        form: ImageForm,
        root: &Path,
        cell: Cell,
    ) -> Result<Option<ContentHash>, ImageProblem> {
        let bytes = match (form, cell) {
            (_, Cell::Value(Value::Null)) => return Ok(None),
            (ImageForm::File | ImageForm::Base64, Cell::Value(Value::String(s))) if s.trim().is_empty() => {
                return Ok(None);
            }
            (ImageForm::File, Cell::Value(Value::String(name))) => {
                return self.add_file(root, &name).map(Some);
            }
            (ImageForm::Base64, Cell::Value(Value::String(text))) => {
                decode(&text).map_err(ImageProblem::Cell)?
            }
            (ImageForm::Bytes, Cell::Bytes(bytes)) => bytes,
            (ImageForm::Bytes, Cell::Value(Value::String(name))) if !name.is_empty() => {
                // A hub struct without bytes names a file.
                return self.add_file(root, &name).map(Some);
            }
            (form, Cell::Value(value)) => {
                let wanted = match form {
                    ImageForm::File => "the name of an image file",
                    ImageForm::Base64 => "an image in base64",
                    ImageForm::Bytes => "the bytes of an image",
                };
                return Err(ImageProblem::Cell(format!("holds {}, not {wanted}", kind_of(&value))));
            }
            (_, Cell::Bytes(_)) => return Err(ImageProblem::Cell("holds raw bytes, not text".into())),
        };
        check(&bytes).map_err(ImageProblem::Cell)?;
        self.blobs.put(&bytes).map(Some).map_err(ImageProblem::Store)
    }

    fn add_file(&mut self, root: &Path, name: &str) -> Result<ContentHash, ImageProblem> {
        let relative = Path::new(name);
        // A data file must not reach out of its folder.
        if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(ImageProblem::Cell(format!("`{name}` leaves the folder of images")));
        }
        let path = root.join(relative);
        let bytes = match read_bounded(&path, MAX_IMAGE as u64) {
            Ok(bytes) => bytes,
            Err(IoError::Os { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(ImageProblem::Absent(path));
            }
            Err(error) => return Err(ImageProblem::Cell(error.to_string())),
        };
        check(&bytes).map_err(|m| ImageProblem::Cell(format!("{}: {m}", path.display())))?;
        let hash = ContentHash::of(&bytes);
        Arc::make_mut(&mut self.files).entry(hash).or_insert(path);
        Ok(hash)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > MAX_IMAGE / 3 * 4 {
        return Err(format!(
            "{} characters of base64 are more than an image of {MAX_IMAGE} bytes",
            text.len()
        ));
    }
    let body = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").ok_or("a data URL that is not base64")?.1,
        None => text,
    };
    // Some writers fold the text at 76 characters.
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(body.as_bytes()).map_err(|e| format!("broken base64: {e}"))
}

fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > MAX_IMAGE {
        return Err(format!("an image of {} bytes, more than the limit of {MAX_IMAGE}", bytes.len()));
    }
    if image_type(bytes).is_none() {
        let head = &bytes[..bytes.len().min(8)];
        return Err(format!("neither PNG, JPEG, WebP, GIF nor BMP: it begins with {head:02x?}"));
    }
    Ok(())
}
