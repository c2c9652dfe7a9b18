//! The patches of one picture, and the choice of how a model family makes them.

use ::image::RgbImage;
use serde_json::Value;

use super::{ImageError, QwenPreprocessor, TilePreprocessor};

/// Patches along the height and the width of one crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows of patches.
    pub h: usize,
    /// Patches in a row.
    pub w: usize,
}

impl Grid {
    /// Number of patches.
    pub fn len(&self) -> usize {
        self.h * self.w
    }

    /// True for a grid without patches, which no preprocessor makes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One picture, cut and normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePatches {
    /// `[patches, dim]`, the crops one after the other; the order inside a crop and inside a patch is the family's.
    pub pixels: Vec<f32>,
    /// Values in a patch.
    pub dim: usize,
    /// One grid for each crop: one for Qwen, one for every tile and the thumbnail for InternVL.
    pub grids: Vec<Grid>,
    /// Placeholder tokens that the language model reserves for this picture.
    pub tokens: usize,
}

impl ImagePatches {
    /// Number of patches over all crops.
    pub fn patches(&self) -> usize {
        self.grids.iter().map(Grid::len).sum()
    }
}

/// Maps a level 0..=255 of a channel to `(level / 255 - mean) / std`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalise {
    /// Mean of each channel, on the scale 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, on the scale 0..1.
    pub std: [f32; 3],
}

impl Normalise {
    /// Means and deviations of CLIP's training images: Qwen2-VL and Qwen2.5-VL.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
    /// Means and deviations of ImageNet: InternVL.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// Levels to -1..1: Qwen3-VL and the native family.
    pub const HALF: Self = Self { mean: [0.5; 3], std: [0.5; 3] };

    /// The 256 values of each channel. Rescaling is folded into mean and deviation, as the reference does.
    pub(super) fn table(&self) -> [[f32; 256]; 3] {
        let mut table = [[0.0; 256]; 3];
        for c in 0..3 {
            let (mean, std) = (self.mean[c] * 255.0, self.std[c] * 255.0);
            for (level, value) in table[c].iter_mut().enumerate() {
                *value = (level as f32 - mean) / std;
            }
        }
        table
    }

    fn from_config(config: &Value, default: Self) -> Result<Self, ImageError> {
        let three = |key: &str, default: [f32; 3]| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => serde_json::from_value(v.clone())
                .map_err(|e| ImageError::Config(format!("`{key}` should hold three numbers: {e}"))),
        };
        let this = Self { mean: three("image_mean", default.mean)?, std: three("image_std", default.std)? };
        let sane =
            this.mean.iter().all(|m| m.is_finite()) && this.std.iter().all(|s| s.is_finite() && *s > 0.0);
        if !sane {
            return Err(ImageError::Config(format!("`image_mean` and `image_std` make no sense: {this:?}")));
        }
        Ok(this)
    }
}

/// How a model family turns a picture into patches.
#[derive(Clone, Debug, PartialEq)]
pub enum Preprocessor {
    /// One crop of the picture's own shape: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, the native family.
    Qwen(QwenPreprocessor),
    /// Square tiles and a thumbnail: InternVL.
    Tiles(TilePreprocessor),
}

impl Preprocessor {
    /// Cuts a picture into patches.
    pub fn apply(&self, image: &RgbImage) -> Result<ImagePatches, ImageError> {
        match self {
            Self::Qwen(p) => p.apply(image),
            Self::Tiles(p) => Ok(p.apply(image)),
        }
    }

    /// Reads `preprocessor_config.json` over these settings; keys that are absent keep their value.
    ///
    /// # Errors
    /// A setting that this preprocessor does not know how to honour (`do_resize: false`, another resampling filter).
    pub fn with_config(mut self, config: &Value) -> Result<Self, ImageError> {
        for key in ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"] {
            if config.get(key) == Some(&Value::Bool(false)) {
                return Err(ImageError::Config(format!("`{key}: false` is not supported")));
            }
        }
        // 3 is Pillow's number for BICUBIC.
        match config.get("resample") {
            None | Some(Value::Null) => {}
            Some(v) if v.as_u64() == Some(3) => {}
            Some(v) => {
                return Err(ImageError::Config(format!("`resample: {v}`: only bicubic (3) is supported")));
            }
        }
        match &mut self {
            Self::Qwen(p) => {
                p.normalise = Normalise::from_config(config, p.normalise.clone())?;
                p.read_config(config)?;
            }
            Self::Tiles(p) => {
                p.normalise = Normalise::from_config(config, p.normalise.clone())?;
                p.read_config(config)?;
            }
        }
        Ok(self)
    }
}

/// A positive integer in a configuration; absent and `null` read as `None`.
pub(super) fn positive(config: &Value, key: &str) -> Result<Option<u64>, ImageError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => match v.as_u64() {
            Some(n) if n > 0 => Ok(Some(n)),
            _ => Err(ImageError::Config(format!("`{key}` should be a positive integer, not {v}"))),
        },
    }
}
