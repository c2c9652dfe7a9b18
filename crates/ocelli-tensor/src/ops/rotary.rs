//! Rotary position embedding (Su et al. 2021), in every variant the models here use.
//!
//! ```text
//! (a, b) -> (a cos t - b sin t, b cos t + a sin t)      t = angle of this row and pair
//! half:        pair j is elements (j, j + r/2)          (Llama, Qwen: HF `rotate_half`)
//! interleaved: pair j is elements (2j, 2j + 1)
//! x [N, heads * d]     tables [N, r/2], r <= d; elements from r on pass through
//! ```
//!
//! What differs between 1-D, multimodal 3-D (M-RoPE, Qwen2-VL section 2.1) and 2-D vision rotary is only which coordinate of a row
//! drives which pair; [`RotaryTable::new`] takes exactly that. The backward pass rotates the other way.

use crate::cpu;
use crate::error::{Result, shape_error};
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Which elements form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryStyle {
    /// Elements `j` and `j + r/2`.
    Half,
    /// Elements `2j` and `2j + 1`.
    Interleaved,
}

/// Cosines and sines for every row and pair, shared by all heads and layers.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Tensor,
    sin: Tensor,
    style: RotaryStyle,
}

impl RotaryTable {
    /// Angle of row `i`, pair `j` is `positions[axis[j]][i] * inv_freq[j]`, rounded to `f32` as the reference implementations do.
    ///
    /// ```text
    /// 1-D:            positions = [[0, 1, 2, ..]],              axis = [0; r/2]
    /// M-RoPE:         positions = [temporal, height, width],    axis = [0; 16] ++ [1; 24] ++ [2; 24]   (mrope_section)
    /// vision 2-D:     positions = [row, column],                axis = [0; r/4] ++ [1; r/4]
    /// ```
    ///
    /// # Errors
    /// Axes of different length, an axis that does not exist, or `axis` and `inv_freq` of different length.
    pub fn new(
        positions: &[Vec<f32>],
        axis: &[usize],
        inv_freq: &[f32],
        style: RotaryStyle,
    ) -> Result<RotaryTable> {
        const OP: &str = "RotaryTable";
        let rows = positions.first().map_or(0, Vec::len);
        if positions.iter().any(|p| p.len() != rows) {
            let lengths: Vec<usize> = positions.iter().map(Vec::len).collect();
            return shape_error(OP, format!("axes have different numbers of rows: {lengths:?}"));
        }
        if axis.len() != inv_freq.len() || axis.iter().any(|&a| a >= positions.len()) {
            let what = format!(
                "axis {axis:?} must name one of {} axes per pair ({})",
                positions.len(),
                inv_freq.len()
            );
            return shape_error(OP, what);
        }
        let pairs = inv_freq.len();
        let mut cos = Tensor::uninit(&[rows, pairs], crate::DType::F32);
        let mut sin = cos.copied();
        let (c, s) = (cos.fresh::<f32>(), sin.fresh::<f32>());
        for i in 0..rows {
            for j in 0..pairs {
                let angle = f64::from(positions[axis[j]][i] * inv_freq[j]);
                c[i * pairs + j] = angle.cos() as f32;
                s[i * pairs + j] = angle.sin() as f32;
            }
        }
        Ok(RotaryTable { cos, sin, style })
    }

    /// The plain 1-D table: `inv_freq[j] = theta^(-2j/dim)`.
    pub fn one_dimensional(positions: &[usize], dim: usize, theta: f32, style: RotaryStyle) -> RotaryTable {
        let inv_freq: Vec<f32> =
            (0..dim / 2).map(|j| 1.0 / theta.powf((2 * j) as f32 / dim as f32)).collect();
        let row: Vec<f32> = positions.iter().map(|&p| p as f32).collect();
        let axis = vec![0; inv_freq.len()];
        match RotaryTable::new(&[row], &axis, &inv_freq, style) {
            Ok(table) => table,
            Err(_) => unreachable!("one axis, as many axis entries as frequencies"),
        }
    }

    /// Multiplies cosines and sines (YaRN's attention factor).
    pub fn scaled(mut self, factor: f32) -> RotaryTable {
        for t in [&mut self.cos, &mut self.sin] {
            let mut copy = t.copied();
            cpu::par_update(
                copy.fresh::<f32>(),
                #[inline(always)]
                |x| *x *= factor,
            );
            *t = copy;
        }
        self
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.cos.shape()[0]
    }
}

/// Rotates all heads of `x` (`[N, heads * head_dim]`, any shape with that memory) by its rows' angles.
///
/// # Errors
/// The table has another number of rows, or rotates more elements than a head has.
pub fn rotary(tape: &mut Tape<'_>, x: &Var, head_dim: usize, table: &RotaryTable) -> Result<Var> {
    let (rows, pairs) = (table.rows(), table.cos.cols());
    let width = x.value().len().checked_div(rows).unwrap_or(0);
    if head_dim < 2 * pairs || rows * width != x.value().len() || (rows > 0 && width % head_dim.max(1) != 0) {
        let what =
            format!("x {:?} is not {rows} rows of heads of {head_dim} (table of {pairs} pairs)", x.shape());
        return shape_error("rotary", what);
    }
    let slot = tape.tracked("rotary", x)?;
    let y = rotate(x.value(), head_dim, table, 1.0);
    if slot.is_none() {
        return Ok(tape.constant(y));
    }
    let table = table.clone();
    Ok(tape.record(y, move |dy, back| back.add_opt(slot, || Ok(rotate(&dy, head_dim, &table, -1.0)))))
}

fn rotate(x: &Tensor, d: usize, table: &RotaryTable, sign: f32) -> Tensor {
    let (rows, pairs) = (table.rows(), table.cos.cols());
    let width = x.len().checked_div(rows).unwrap_or(0);
    let (cos, sin) = (table.cos.slice::<f32>(), table.sin.slice::<f32>());
    let mut y = Tensor::uninit(x.shape(), x.dtype());
    by_dtype!(x.dtype(), T => {
        let x = x.slice::<T>();
        cpu::par_rows(y.fresh::<T>(), width, #[inline(always)] |first, out| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let row = first + i;
                let (c, s) = (&cos[row * pairs..][..pairs], &sin[row * pairs..][..pairs]);
                for (y, x) in out.chunks_exact_mut(d).zip(x[row * width..][..width].chunks_exact(d)) {
                    match table.style {
                        RotaryStyle::Half => {
                            let (x1, x2) = x[..2 * pairs].split_at(pairs);
                            let (y1, y2) = y[..2 * pairs].split_at_mut(pairs);
                            for j in 0..pairs {
                                let (a, b, s) = (x1[j].up(), x2[j].up(), sign * s[j]);
                                y1[j] = T::down(a * c[j] - b * s);
                                y2[j] = T::down(b * c[j] + a * s);
                            }
                        }
                        RotaryStyle::Interleaved => {
                            for j in 0..pairs {
                                let (a, b, s) = (x[2 * j].up(), x[2 * j + 1].up(), sign * s[j]);
                                y[2 * j] = T::down(a * c[j] - b * s);
                                y[2 * j + 1] = T::down(b * c[j] + a * s);
                            }
                        }
                    }
                    y[2 * pairs..].copy_from_slice(&x[2 * pairs..]);
                }
            }
        });
    });
    y
}
