//! Real numbers that survive JSON to the last bit: written as the integer of their bits, so that a resumed run has
//! exactly the numbers of the interrupted one.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For `#[serde(with = "exact::one")]`.
pub(crate) mod one {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
        v.to_bits().serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        u64::deserialize(d).map(f64::from_bits)
    }
}
