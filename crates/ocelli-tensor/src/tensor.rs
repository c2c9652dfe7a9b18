//! [`Tensor`]: a contiguous, row-major array of `f32` or `bf16`, cheap to clone.
//!
//! There are no strides: what a model here needs of views is a reshape or a range of rows, and both stay contiguous.
//! Everything else is an operation that says so ([`crate::ops`]).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use half::bf16;
use rand::Rng;

use crate::device::{Buffer, Device};
use crate::error::{Result, TensorError, shape_error};

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of an `f32`: 8 bits of exponent, 7 of mantissa.
    Bf16,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 => 2,
        }
    }
}

/// An element type the kernels are written over: arithmetic happens in `f32`, storage in `Self`.
pub trait Elem: Pod + Send + Sync + 'static {
    /// The tag of this type.
    const DTYPE: DType;
    /// Widens to `f32` (exact).
    fn up(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn down(x: f32) -> Self;
}

impl Elem for f32 {
    const DTYPE: DType = DType::F32;
    #[inline(always)]
    fn up(self) -> f32 {
        self
    }
    #[inline(always)]
    fn down(x: f32) -> f32 {
        x
    }
}

impl Elem for bf16 {
    const DTYPE: DType = DType::Bf16;
    #[inline(always)]
    fn up(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn down(x: f32) -> bf16 {
        // Branch-free, so that loops over it vectorise; a NaN keeps its quiet bit.
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let out = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
        bf16::from_bits((out >> 16) as u16)
    }
}

/// Runs `$body` with `$t` bound to the Rust type of a [`DType`].
macro_rules! by_dtype {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::DType::Bf16 => {
                type $t = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use by_dtype;

/// A contiguous array with a shape. Cloning shares the memory; writing to a shared one copies first.
#[derive(Clone)]
pub struct Tensor {
    shape: Arc<[usize]>,
    dtype: DType,
    /// First element, in elements from the start of the buffer.
    offset: usize,
    buffer: Arc<Buffer>,
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

impl Tensor {
    /// A tensor with arbitrary contents, for an operation that writes every element.
    pub(crate) fn uninit(shape: &[usize], dtype: DType) -> Tensor {
        let bytes = count(shape) * dtype.size();
        Tensor { shape: shape.into(), dtype, offset: 0, buffer: Buffer::take(bytes) }
    }

    /// All zeros.
    pub fn zeros(shape: &[usize], dtype: DType) -> Tensor {
        let mut t = Tensor::uninit(shape, dtype);
        let n = t.len() * dtype.size();
        if let Some(b) = Arc::get_mut(&mut t.buffer) {
            b.bytes_mut()[..n].fill(0);
        }
        t
    }

    /// All equal to `value`.
    pub fn full(shape: &[usize], value: f32, dtype: DType) -> Tensor {
        let mut t = Tensor::uninit(shape, dtype);
        by_dtype!(dtype, T => t.fresh::<T>().fill(T::down(value)));
        t
    }

    /// A scalar: shape `[]`.
    pub fn scalar(value: f32) -> Tensor {
        Tensor::full(&[], value, DType::F32)
    }

    /// Copies `data` (row-major) into a tensor of the given shape.
    ///
    /// # Errors
    /// The number of elements is not the product of the shape.
    pub fn from_slice<T: Elem>(shape: &[usize], data: &[T]) -> Result<Tensor> {
        if shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b)) != Some(data.len()) {
            return shape_error("from_slice", format!("{} elements cannot fill shape {shape:?}", data.len()));
        }
        let mut t = Tensor::uninit(shape, T::DTYPE);
        t.fresh::<T>().copy_from_slice(data);
        Ok(t)
    }

    /// Normally distributed with mean 0 and the given standard deviation (Box-Muller on the passed generator).
    pub fn randn(shape: &[usize], std: f32, rng: &mut impl Rng) -> Tensor {
        let mut t = Tensor::uninit(shape, DType::F32);
        for pair in t.fresh::<f32>().chunks_mut(2) {
            let u: f64 = 1.0 - rng.random::<f64>();
            let (r, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * rng.random::<f64>());
            let both = [r * angle.cos(), r * angle.sin()];
            for (out, z) in pair.iter_mut().zip(both) {
                *out = std * z as f32;
            }
        }
        t
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        Device::Cpu
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        count(&self.shape)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the last dimension (1 for a scalar): the row length of row-wise operations.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows of [`Tensor::cols`] elements: the product of all but the last dimension.
    pub fn rows(&self) -> usize {
        count(&self.shape[..self.shape.len().saturating_sub(1)])
    }

    /// Elements as `T`.
    ///
    /// # Errors
    /// The tensor's type is not `T`.
    pub fn as_slice<T: Elem>(&self) -> Result<&[T]> {
        self.expect_dtype::<T>("as_slice")?;
        Ok(self.slice())
    }

    /// Elements as `T`, writable; copies first if the memory is shared.
    ///
    /// # Errors
    /// The tensor's type is not `T`.
    pub fn as_mut_slice<T: Elem>(&mut self) -> Result<&mut [T]> {
        self.expect_dtype::<T>("as_mut_slice")?;
        if Arc::get_mut(&mut self.buffer).is_none() {
            *self = self.copied();
        }
        Ok(self.fresh())
    }

    /// All elements as `f32`, in a new vector.
    pub fn to_vec(&self) -> Vec<f32> {
        by_dtype!(self.dtype, T => self.slice::<T>().iter().map(|x| x.up()).collect())
    }

    /// The value of a one-element tensor.
    ///
    /// # Errors
    /// There is not exactly one element.
    pub fn item(&self) -> Result<f32> {
        if self.len() != 1 {
            return shape_error("item", format!("shape {:?} does not hold exactly one element", self.shape));
        }
        Ok(by_dtype!(self.dtype, T => self.slice::<T>()[0].up()))
    }

    /// The same memory under another shape.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b)) != Some(self.len()) {
            return shape_error("reshape", format!("{:?} cannot become {shape:?}", self.shape));
        }
        Ok(Tensor { shape: shape.into(), ..self.clone() })
    }

    /// Rows `range` of the first dimension, sharing memory.
    ///
    /// # Errors
    /// The range does not lie inside the first dimension.
    pub fn slice_rows(&self, range: Range<usize>) -> Result<Tensor> {
        let Some(&first) = self.shape.first() else {
            return shape_error("slice_rows", "a scalar has no rows");
        };
        if range.start > range.end || range.end > first {
            return shape_error(
                "slice_rows",
                format!("{range:?} is not inside 0..{first} of {:?}", self.shape),
            );
        }
        let stride = count(&self.shape[1..]);
        let mut shape = self.shape.to_vec();
        shape[0] = range.len();
        Ok(Tensor { shape: shape.into(), offset: self.offset + range.start * stride, ..self.clone() })
    }

    /// Converts the element type; a cheap clone when it already fits.
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype {
            return self.clone();
        }
        let mut out = Tensor::uninit(&self.shape, dtype);
        by_dtype!(self.dtype, S => by_dtype!(dtype, D => {
            crate::cpu::par_map(out.fresh::<D>(), self.slice::<S>(), #[inline(always)] |x| D::down(x.up()));
        }));
        out
    }

    /// A copy in memory of its own.
    pub(crate) fn copied(&self) -> Tensor {
        let mut out = Tensor::uninit(&self.shape, self.dtype);
        by_dtype!(self.dtype, T => out.fresh::<T>().copy_from_slice(self.slice()));
        out
    }

    /// Whether nobody else holds this memory, so that it may be overwritten.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.buffer).is_some()
    }

    /// Elements as `T`, after the caller has checked the type.
    pub(crate) fn slice<T: Elem>(&self) -> &[T] {
        debug_assert_eq!(T::DTYPE, self.dtype);
        let all: &[T] = bytemuck::cast_slice(self.buffer.bytes());
        &all[self.offset..self.offset + self.len()]
    }

    /// Writable elements of a tensor nobody else holds yet.
    #[allow(clippy::expect_used)]
    pub(crate) fn fresh<T: Elem>(&mut self) -> &mut [T] {
        debug_assert_eq!(T::DTYPE, self.dtype);
        let (offset, len) = (self.offset, self.len());
        let buffer = Arc::get_mut(&mut self.buffer).expect("fresh() is called only on memory with one owner");
        &mut bytemuck::cast_slice_mut(buffer.bytes_mut())[offset..offset + len]
    }

    fn expect_dtype<T: Elem>(&self, op: &'static str) -> Result<()> {
        if self.dtype != T::DTYPE {
            return Err(TensorError::DType { op, expected: T::DTYPE, got: self.dtype });
        }
        Ok(())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}", self.shape, self.dtype)?;
        if self.len() <= 8 {
            write!(f, ", {:?}", self.to_vec())?;
        }
        f.write_str(")")
    }
}
