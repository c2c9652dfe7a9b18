//! Linear layers, with bias and low-rank adapters; several over one input.
//!
//! ```text
//! y = x W^T + b + s (x A^T) B^T       x [N, in]   W [out, in]   b [out]   A [r, in]   B [out, r]   y [N, out]
//! dx = dy W + s (dy B) A    dW = dy^T x    db = sum_rows dy    dB = s dy^T (x A^T)    dA = s (dy B)^T x
//! ```
//!
//! Weights are stored as checkpoints store them. A frozen weight costs no weight gradient, and the input is kept only if some weight
//! gradient needs it; the result of a norm or an activation is made again instead. Hu et al. 2021 ("LoRA") for the adapter; `s = alpha / r` there.

use crate::cpu::gemm::{Epilogue, Out, gemm};
use crate::cpu::pack::Mat;
use crate::cpu::{self};
use crate::error::{Result, TensorError, shape_error};
use crate::params::ParamId;
use crate::tape::{Back, Slot, Tape, Var};
use crate::tensor::{DType, Elem, Tensor, by_dtype};

/// A low-rank addition to a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lora {
    /// `[r, in]`.
    pub a: ParamId,
    /// `[out, r]`.
    pub b: ParamId,
    /// Factor on the product, usually alpha / r.
    pub scale: f32,
}

/// The parameters of one linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: ParamId,
    /// `[out]`.
    pub bias: Option<ParamId>,
    /// Adapter beside the weight.
    pub lora: Option<Lora>,
}

impl Linear {
    /// A layer without bias or adapter.
    pub fn new(weight: ParamId) -> Linear {
        Linear { weight, bias: None, lora: None }
    }
    /// The same layer with a bias.
    pub fn with_bias(self, bias: ParamId) -> Linear {
        Linear { bias: Some(bias), ..self }
    }
    /// The same layer with an adapter.
    pub fn with_lora(self, lora: Lora) -> Linear {
        Linear { lora: Some(lora), ..self }
    }
}

impl From<ParamId> for Linear {
    fn from(weight: ParamId) -> Linear {
        Linear::new(weight)
    }
}

/// `x W^T` with everything in `layer`. The last dimension of `x` becomes `out`.
///
/// # Errors
/// The shapes of the layer's parameters do not fit each other or `x`.
pub fn linear(tape: &mut Tape<'_>, x: &Var, layer: impl Into<Linear>) -> Result<Var> {
    let layer = layer.into();
    let mut all = linear_many(tape, x, &[layer])?;
    all.pop().ok_or(TensorError::UnknownParam(layer.weight))
}

/// `x W^T` in `f32` whatever the type of `x`: logits to sample from. A constant.
///
/// # Errors
/// As [`linear`].
pub fn linear_f32(tape: &Tape<'_>, x: &Var, layer: impl Into<Linear>) -> Result<Tensor> {
    Ok(forward(tape, x.value(), &layer.into(), DType::F32)?.0)
}

/// Several layers over the same input (q, k, v; gate, up): the input is kept once and its gradient is summed in place.
///
/// # Errors
/// As [`linear`].
pub fn linear_many(tape: &mut Tape<'_>, x: &Var, layers: &[Linear]) -> Result<Vec<Var>> {
    let slot = tape.tracked("linear", x)?;
    let mut keep = slot.is_some();
    let mut keep_x = false;
    let mut values = Vec::with_capacity(layers.len());
    let mut lows = Vec::with_capacity(layers.len());
    for layer in layers {
        let (y, low) = forward(tape, x.value(), layer, x.value().dtype())?;
        values.push(y);
        lows.push(low);
        let wants_weight = tape.wants(layer.weight)?;
        let wants_bias = layer.bias.map_or(Ok(false), |b| tape.wants(b))?;
        let wants_a = layer.lora.map_or(Ok(false), |l| tape.wants(l.a))?;
        let wants_b = layer.lora.map_or(Ok(false), |l| tape.wants(l.b))?;
        keep |= wants_weight || wants_bias || wants_a || wants_b;
        keep_x |= wants_weight || wants_a;
    }
    if !keep {
        return Ok(values.into_iter().map(Var::constant).collect());
    }
    let input = Input { rows: x.value().rows(), shape: x.shape().to_vec(), dtype: x.value().dtype(), slot };
    let kept = keep_x.then(|| x.keep());
    let layers = layers.to_vec();
    Ok(tape.record_many(values, move |dys, back| {
        let kept = kept.map(|k| k.get());
        let mut dx = input.slot.and_then(|s| back.take_sum(s, &input.shape, input.dtype));
        for ((layer, dy), low) in layers.iter().zip(dys).zip(lows) {
            if let Some(dy) = dy {
                backward(back, layer, &input, kept.as_ref(), low, &dy, &mut dx)?;
            }
        }
        match (input.slot, dx) {
            (Some(slot), Some(dx)) => back.put(slot, dx),
            _ => Ok(()),
        }
    }))
}

struct Input {
    rows: usize,
    shape: Vec<usize>,
    dtype: DType,
    slot: Option<Slot>,
}

/// The output in the given type, and `x A^T` if there is an adapter.
fn forward(tape: &Tape<'_>, x: &Tensor, layer: &Linear, dtype: DType) -> Result<(Tensor, Option<Tensor>)> {
    let params = tape.params();
    let param = params.get(layer.weight)?;
    let w = param.compute();
    let (rows, inner) = (x.rows(), x.cols());
    let out = match *w.shape() {
        [out, i] if i == inner => out,
        _ => {
            let what = format!(
                "weight {:?} {:?} needs [out, {inner}] for x {:?}",
                param.name(),
                w.shape(),
                x.shape()
            );
            return shape_error("linear", what);
        }
    };
    let bias = match layer.bias {
        Some(id) => {
            let p = params.get(id)?;
            if p.value().shape() != [out] {
                return shape_error(
                    "linear",
                    format!("bias {:?} {:?} needs [{out}]", p.name(), p.value().shape()),
                );
            }
            Some(p.value().as_slice::<f32>()?)
        }
        None => None,
    };
    let mut shape = x.shape().to_vec();
    match shape.last_mut() {
        Some(last) => *last = out,
        None => return shape_error("linear", "x is a scalar; it needs a last dimension"),
    }
    let mut y = Tensor::uninit(&shape, dtype);
    let xm = Mat::of(x, rows, inner);
    gemm(Out::of(&mut y), xm, Mat::of(w, out, inner).t(), Epilogue { bias, ..Epilogue::SET });
    let Some(lora) = layer.lora else { return Ok((y, None)) };
    let (a, b) = (params.get(lora.a)?, params.get(lora.b)?);
    let rank = match (a.value().shape(), b.value().shape()) {
        (&[r, i], &[o, r2]) if i == inner && o == out && r == r2 => r,
        (sa, sb) => {
            let what = format!(
                "adapter {:?} {sa:?} x {:?} {sb:?} needs [r, {inner}] x [{out}, r]",
                a.name(),
                b.name()
            );
            return shape_error("linear", what);
        }
    };
    let mut low = Tensor::uninit(&[rows, rank], x.dtype());
    gemm(Out::of(&mut low), xm, Mat::of(a.compute(), rank, inner).t(), Epilogue::SET);
    let add = Epilogue { alpha: lora.scale, accumulate: true, bias: None };
    gemm(Out::of(&mut y), Mat::of(&low, rows, rank), Mat::of(b.compute(), out, rank).t(), add);
    Ok((y, Some(low)))
}

fn backward(
    back: &mut Back<'_, '_>,
    layer: &Linear,
    input: &Input,
    x: Option<&Tensor>,
    low: Option<Tensor>,
    dy: &Tensor,
    dx: &mut Option<Tensor>,
) -> Result<()> {
    let params = back.params;
    let (weight, inner) = (params.get(layer.weight)?, input.shape.last().copied().unwrap_or(1));
    let (rows, out) = (input.rows, weight.value().shape()[0]);
    let dym = Mat::of(dy, rows, out);
    let mut into_dx = |a: Mat<'_>, w: &Tensor, k: usize| {
        let present = dx.is_some();
        let dx = dx.get_or_insert_with(|| Tensor::uninit(&input.shape, input.dtype));
        gemm(Out::of(dx), a, Mat::of(w, k, inner), Epilogue::add_if(present));
    };
    if input.slot.is_some() {
        into_dx(dym, weight.compute(), out);
    }
    if let (true, Some(x)) = (weight.trainable(), x) {
        let (g, present) = back.grads.accumulate(layer.weight, weight.value().shape());
        gemm(Out::F32(g), dym.t(), Mat::of(x, rows, inner), Epilogue::add_if(present));
    }
    if let Some(bias) = layer.bias
        && params.get(bias)?.trainable()
    {
        bias_grad(back, bias, dy, out);
    }
    if let (Some(lora), Some(low)) = (layer.lora, low) {
        let (a, b) = (params.get(lora.a)?, params.get(lora.b)?);
        let rank = a.value().shape()[0];
        if b.trainable() {
            let (g, present) = back.grads.accumulate(lora.b, b.value().shape());
            let e = Epilogue { alpha: lora.scale, ..Epilogue::add_if(present) };
            gemm(Out::F32(g), dym.t(), Mat::of(&low, rows, rank), e);
        }
        if a.trainable() || input.slot.is_some() {
            let mut dlow = Tensor::uninit(&[rows, rank], input.dtype);
            let e = Epilogue { alpha: lora.scale, ..Epilogue::SET };
            gemm(Out::of(&mut dlow), dym, Mat::of(b.compute(), out, rank), e);
            let dlow_m = Mat::of(&dlow, rows, rank);
            if input.slot.is_some() {
                into_dx(dlow_m, a.compute(), rank);
            }
            if let (true, Some(x)) = (a.trainable(), x) {
                let (g, present) = back.grads.accumulate(lora.a, a.value().shape());
                gemm(Out::F32(g), dlow_m.t(), Mat::of(x, rows, inner), Epilogue::add_if(present));
            }
        }
    }
    Ok(())
}

/// `db += sum over rows of dy`.
pub(super) fn bias_grad(back: &mut Back<'_, '_>, bias: ParamId, dy: &Tensor, out: usize) {
    let g = back.grads.accumulate_zeroed(bias, &[out]);
    by_dtype!(dy.dtype(), T => {
        cpu::par_sum_rows(dy.slice::<T>(), out, g, #[inline(always)] |_, rows, sums| {
            for row in rows.chunks_exact(out) {
                for (s, v) in sums.iter_mut().zip(row) {
                    *s += v.up();
                }
            }
        });
    });
}
