//! Which model this is: hashes of its weights and of what is saved beside them.
//!
//! A run that goes on must go on with the model that it began with. Frozen weights are in no checkpoint of a run, and how pictures
//! are cut is in none of the weights, so both are hashed. BLAKE3 reads memory about as fast as it comes: some tenths of a second
//! per GiB of weights.

use half::bf16;
use ocelli_data::ContentHash;
use ocelli_tensor::DType;

use super::Vlm;
use crate::ModelError;

impl Vlm {
    /// Hash of names, shapes and values of all parameters, and of configuration, tokenizer, templates and preprocessing.
    ///
    /// Two models of the same hash compute the same from the same dialogue. Where the model was read from does not enter.
    pub fn content_hash(&self) -> Result<ContentHash, ModelError> {
        let mut all = String::new();
        for (_, p) in self.params.iter() {
            let value = p.value();
            let hash = match value.dtype() {
                DType::F32 => ContentHash::of(bytemuck::cast_slice(value.as_slice::<f32>()?)),
                DType::Bf16 => ContentHash::of(bytemuck::cast_slice(value.as_slice::<bf16>()?)),
            };
            all += &format!("{} {:?} {:?} {hash}\n", p.name(), value.dtype(), value.shape());
        }
        for (name, bytes) in self.side_files.iter() {
            all += &format!("{name} {}\n", ContentHash::of(bytes));
        }
        // Sizes may have been changed after loading; floats are printed so that they are read back as they were.
        all += &format!("{:?} {:?} {:?}\n", self.preprocessor(), self.limits, self.eos_ids);
        if let Some(adapters) = &self.adapters {
            all += &format!("{adapters:?}\n");
        }
        Ok(ContentHash::of(all.as_bytes()))
    }
}
