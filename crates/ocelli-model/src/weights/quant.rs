//! Storage types of tensors and their decoding to f32.
//!
//! Block formats of GGUF (32 values per block, 256 for the K types; `d`, `m` are f16, little endian):
//! Q8_0 `d q` · Q4_0 `d (q - 8)` · Q4_1 `d q + m` · Q4_K `d s_j q - dmin m_j` with 6-bit `s_j`, `m_j` for eight
//! groups of 32 · Q6_K `d s_j (q - 32)` with 8-bit `s_j` for sixteen groups of 16. Low nibbles come first.
//! Source: the format description `docs/gguf.md` and the reference decoder of the Python package `gguf` (quants.py),
//! against which `tests/weights.rs` compares.

use half::{bf16, f16};

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are those of the formats
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Q8_0,
    Q4_0,
    Q4_1,
    Q4K,
    Q6K,
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        })
    }
}

impl Dtype {
    /// Values per block and bytes per block; one value per block for plain types.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::I64 | Self::U64 => (1, 8),
            Self::F32 | Self::I32 | Self::U32 => (1, 4),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => (1, 2),
            Self::I8 | Self::U8 | Self::Bool => (1, 1),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    /// True for types that decode to floating point values.
    pub fn is_float(self) -> bool {
        !matches!(
            self,
            Self::I64
                | Self::I32
                | Self::I16
                | Self::I8
                | Self::U64
                | Self::U32
                | Self::U16
                | Self::U8
                | Self::Bool
        )
    }

    /// Bytes of `numel` values, or `None` where blocks do not divide them or the product overflows.
    pub fn bytes(self, numel: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        numel.is_multiple_of(values).then(|| (numel / values).checked_mul(bytes)).flatten()
    }

    /// Decodes whole blocks; `bytes` and `out` hold the same number of values. Types that are not floating point
    /// leave `out` as it is (the caller has refused them).
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (values, size) = self.block();
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(values)) {
            match self {
                Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::F16 => out[0] = f16_at(block, 0),
                Self::BF16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                Self::F64 => {
                    let mut b = [0; 8];
                    b.copy_from_slice(block);
                    out[0] = f64::from_le_bytes(b) as f32;
                }
                Self::Q8_0 => q8_0(block, out),
                Self::Q4_0 => q4(block, 2, f16_at(block, 0), -8.0 * f16_at(block, 0), out),
                Self::Q4_1 => q4(block, 4, f16_at(block, 0), f16_at(block, 2), out),
                Self::Q4K => q4_k(block, out),
                Self::Q6K => q6_k(block, out),
                _ => {}
            }
        }
    }
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = f16_at(block, 0);
    for (x, &q) in out.iter_mut().zip(&block[2..]) {
        *x = d * f32::from(q as i8);
    }
}

/// `x = d q + m` with 32 nibbles from byte `at`: the low ones are values 0..16, the high ones 16..32.
fn q4(block: &[u8], at: usize, d: f32, m: f32, out: &mut [f32]) {
    for (i, &byte) in block[at..at + 16].iter().enumerate() {
        out[i] = d * f32::from(byte & 15) + m;
        out[i + 16] = d * f32::from(byte >> 4) + m;
    }
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let packed = &block[4..16];
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        // Scales and minima are 6 bits each: groups 0-3 in the low six bits of bytes 0-3 and 4-7, groups 4-7 in the
        // nibbles of bytes 8-11 with their two high bits in the top of bytes 0-3 and 4-7.
        let (scale, min) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            let low = packed[j + 4];
            ((low & 15) | (packed[j - 4] >> 6) << 4, (low >> 4) | (packed[j] >> 6) << 4)
        };
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        let nibbles = &block[16 + 32 * (j / 2)..][..32];
        for (x, &byte) in out.iter_mut().zip(nibbles) {
            let q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            *x = d * f32::from(q) - m;
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], f16_at(block, 208));
    for (i, x) in out.iter_mut().enumerate() {
        // Each half of 128 values takes 64 bytes of low nibbles and 32 bytes of high bit pairs.
        let (half, within) = (i / 128, i % 128);
        let (quarter, lane) = (within / 32, within % 32);
        let nibble = low[64 * half + 32 * (quarter % 2) + lane] >> (4 * (quarter / 2)) & 15;
        let pair = high[32 * half + lane] >> (2 * quarter) & 3;
        let q = i32::from(nibble | pair << 4) - 32;
        *x = d * f32::from(scales[i / 16] as i8) * q as f32;
    }
}
