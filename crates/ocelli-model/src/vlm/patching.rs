//! What the towers of the Qwen families have in common: how patches are embedded, and some keys of `vision_config`.

use ocelli_tensor::ops::{Activation, Linear};

use crate::ModelError;
use crate::config::Fields;
use crate::declare::{Declare, Init};
use crate::vision::STD;

/// Patches as `vision_config` describes them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Patching {
    /// Side of a patch in pixels.
    pub(crate) patch: usize,
    /// Patches along each side of a token.
    pub(crate) merge: usize,
    /// Frames in a patch.
    pub(crate) frames: usize,
    /// Base of the axial rotary frequencies.
    pub(crate) theta: f32,
}

impl Patching {
    pub(crate) fn read(f: &Fields<'_>) -> Result<Self, ModelError> {
        for key in ["in_channels", "in_chans"] {
            if f.get(key).is_some_and(|v| v.as_u64() != Some(3)) {
                return Err(f.bad(key, "3".into()));
            }
        }
        let theta = match f.get("rope_parameters") {
            Some(_) => f.object("rope_parameters")?.number_or("rope_theta", 10_000.0, 1.0, 1e12)?,
            None => 10_000.0,
        };
        Ok(Self {
            patch: f.size_or("patch_size", 14, 256)?,
            merge: f.size_or("spatial_merge_size", 2, 16)?,
            frames: f.size_or("temporal_patch_size", 2, 16)?,
            theta: theta as f32,
        })
    }

    /// Numbers in a patch.
    pub(crate) fn patch_dim(&self) -> usize {
        3 * self.frames * self.patch * self.patch
    }

    /// `num_heads`, which divides the width into heads that the axial rotary embedding can turn.
    pub(crate) fn heads(&self, f: &Fields<'_>, width: usize, default: usize) -> Result<usize, ModelError> {
        let heads = f.size_or("num_heads", default, 1 << 12)?;
        if !width.is_multiple_of(4 * heads) {
            let expected = format!("heads whose width is a multiple of 4, for a tower of width {width}");
            return Err(f.bad("num_heads", expected));
        }
        Ok(heads)
    }

    /// `proj`: a convolution whose stride is its kernel, hence a linear layer over flattened patches.
    pub(crate) fn embed(&self, d: &mut Declare<'_>, width: usize, bias: bool) -> Result<Linear, ModelError> {
        let mut d = d.at("proj");
        let stored = [width, 3, self.frames, self.patch, self.patch];
        let layer = Linear::new(d.shaped("weight", &stored, &[width, self.patch_dim()], STD)?);
        Ok(if bias { layer.with_bias(d.tensor("bias", &[width], Init::Value(0.0))?) } else { layer })
    }
}

/// An activation by its name in configurations.
pub(crate) fn activation(f: &Fields<'_>, key: &str, default: Activation) -> Result<Activation, ModelError> {
    Ok(match f.text_or(key, "")?.as_str() {
        "" => default,
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        _ => return Err(f.bad(key, "silu, gelu, gelu_pytorch_tanh, quick_gelu or relu".into())),
    })
}

/// A list of block numbers.
pub(crate) fn indices(f: &Fields<'_>, key: &str, default: &[usize]) -> Result<Vec<usize>, ModelError> {
    match f.get(key) {
        None => Ok(default.to_vec()),
        Some(v) => {
            serde_json::from_value(v.clone()).map_err(|_| f.bad(key, "a list of block numbers".into()))
        }
    }
}
