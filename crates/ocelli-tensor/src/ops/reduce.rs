//! Sums of vectors to scalars: what losses are made of.
//!
//! ```text
//! weighted_sum   y = sum_i w[i] x[i]                    dx[i] = w[i] dy           (a mean, a masked mean: choose w)
//! segment_sum    y[s] = sum of x over segment s          dx[i] = dy[segment of i]
//! ```
//!
//! Sums run in `f64`, in order; results are `f32`.

use crate::error::{Result, shape_error};
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// `sum_i weights[i] * x[i]` over all elements, shape `[]`.
///
/// # Errors
/// There is not one weight per element.
pub fn weighted_sum(tape: &mut Tape<'_>, x: &Var, weights: &[f32]) -> Result<Var> {
    let slot = tape.tracked("weighted_sum", x)?;
    if weights.len() != x.value().len() {
        return shape_error("weighted_sum", format!("{} weights for x {:?}", weights.len(), x.shape()));
    }
    let x = x.value();
    let total: f64 = by_dtype!(x.dtype(), T => {
        x.slice::<T>().iter().zip(weights).map(|(x, w)| f64::from(x.up()) * f64::from(*w)).sum()
    });
    let y = Tensor::scalar(total as f32);
    let Some(slot) = slot else { return Ok(tape.constant(y)) };
    let (shape, dtype, weights) = (x.shape().to_vec(), x.dtype(), weights.to_vec());
    Ok(tape.record(y, move |dy, back| {
        let dy = dy.item()?;
        let dx: Vec<f32> = weights.iter().map(|w| w * dy).collect();
        back.add(slot, Tensor::from_slice(&shape, &dx)?.to_dtype(dtype))
    }))
}

/// Sum of all elements, shape `[]`.
///
/// # Errors
/// `x` belongs to another tape.
pub fn sum(tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
    weighted_sum(tape, x, &vec![1.0; x.value().len()])
}

/// Sums of consecutive runs of elements of the given lengths, shape `[len(lengths)]`.
///
/// # Errors
/// The lengths do not add up to the number of elements.
pub fn segment_sum(tape: &mut Tape<'_>, x: &Var, lengths: &[usize]) -> Result<Var> {
    let slot = tape.tracked("segment_sum", x)?;
    let x = x.value();
    if lengths.iter().sum::<usize>() != x.len() {
        return shape_error("segment_sum", format!("lengths {lengths:?} do not add up to x {:?}", x.shape()));
    }
    let all = x.to_vec();
    let mut at = 0;
    let sums: Vec<f32> = lengths
        .iter()
        .map(|&n| {
            at += n;
            all[at - n..at].iter().map(|&v| f64::from(v)).sum::<f64>() as f32
        })
        .collect();
    let y = Tensor::from_slice(&[lengths.len()], &sums)?;
    let Some(slot) = slot else { return Ok(tape.constant(y)) };
    let (shape, dtype, lengths) = (x.shape().to_vec(), x.dtype(), lengths.to_vec());
    Ok(tape.record(y, move |dy, back| {
        let dx: Vec<f32> =
            lengths.iter().zip(dy.to_vec()).flat_map(|(&n, g)| std::iter::repeat_n(g, n)).collect();
        back.add(slot, Tensor::from_slice(&shape, &dx)?.to_dtype(dtype))
    }))
}
