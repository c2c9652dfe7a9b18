//! A text model ready for use: decoder, parameters, tokenizer, chat template, stop tokens; and back to a checkpoint.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use ocelli_tensor::ops::Linear;
use ocelli_tensor::{DType, ParamId, Params};

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::lora;
use crate::text::{Keep, TextModel, TextNames};
use crate::weights::{SaveDtype, SaveTensor, save_safetensors};

/// Largest weight file that is written before a checkpoint is cut into shards, in bytes.
const MAX_SHARD: usize = 5_000_000_000;

/// A decoder with its parameters.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    /// The decoder.
    pub text: TextModel,
    /// Its parameters.
    pub params: Params,
}

impl LanguageModel {
    /// Loads the decoder of a text checkpoint; activations and matrix products are in `compute`.
    ///
    /// # Errors
    /// One error that lists all missing, unexpected and misshapen tensors.
    pub fn load(checkpoint: &Checkpoint, keep: Keep, compute: DType) -> Result<Self, ModelError> {
        let names = TextNames::default();
        let config = &checkpoint.config.text;
        let tied = config.tie_word_embeddings;
        checkpoint.weights.check(&TextModel::specs(config, &names), |name| {
            name.ends_with("rotary_emb.inv_freq") || (tied && name == names.head)
        })?;
        let mut params = Params::new();
        params.set_compute_dtype(compute);
        let text = TextModel::load(&mut params, &checkpoint.weights, config, &names, keep)?;
        Ok(Self { text, params })
    }

    /// Writes a checkpoint in the hub's layout, adapters merged into their layers.
    pub fn save(&self, dir: &Path, origin: &Checkpoint, dtype: SaveDtype) -> Result<(), ModelError> {
        save_merged(dir, &self.params, self.text.linears(), dtype)?;
        origin.save_side_files(dir)
    }
}

/// Writes all parameters under their own names as `model.safetensors`, in the order in which they were added; adapters
/// are merged into their layers and not written themselves. Works for every model made of [`Linear`]s.
pub fn save_merged<'a>(
    dir: &Path,
    params: &Params,
    linears: impl IntoIterator<Item = &'a Linear>,
    dtype: SaveDtype,
) -> Result<(), ModelError> {
    save_chosen(dir, params, linears, dtype, |_| true, |_| None)
}

/// As [`save_merged`], for the parameters whose names are `wanted` only, and with the checkpoint's own shape where the model
/// keeps the same numbers in another.
pub(crate) fn save_chosen<'a>(
    dir: &Path,
    params: &Params,
    linears: impl IntoIterator<Item = &'a Linear>,
    dtype: SaveDtype,
    wanted: impl Fn(&str) -> bool,
    stored_shape: impl Fn(ParamId) -> Option<Vec<usize>>,
) -> Result<(), ModelError> {
    let adapted: HashMap<ParamId, &Linear> =
        linears.into_iter().filter(|l| l.lora.is_some()).map(|l| (l.weight, l)).collect();
    let adapters: Vec<ParamId> = adapted.values().filter_map(|l| l.lora).flat_map(|l| [l.a, l.b]).collect();
    let mut tensors = Vec::with_capacity(params.len());
    for (id, p) in params.iter().filter(|(id, p)| !adapters.contains(id) && wanted(p.name())) {
        let values = match (adapted.get(&id), p.value().dtype()) {
            (Some(linear), _) => Cow::Owned(lora::merged(params, linear)?),
            (None, DType::F32) => Cow::Borrowed(p.value().as_slice::<f32>()?),
            (None, DType::Bf16) => Cow::Owned(p.value().to_vec()),
        };
        let shape = stored_shape(id).unwrap_or_else(|| p.value().shape().to_vec());
        tensors.push(SaveTensor { name: p.name().to_owned(), shape, values });
    }
    save_safetensors(dir, "model", &tensors, dtype, MAX_SHARD)
}
