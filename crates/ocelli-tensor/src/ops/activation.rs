//! Elementwise activations.
//!
//! ```text
//! silu       x s(x)                        s the logistic function
//! gelu       x P(x),  P(x) = (1 + erf(x / sqrt 2)) / 2                              (Hendrycks & Gimpel 2016)
//! gelu_tanh  x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
//! quick_gelu x s(1.702 x)
//! relu       max(x, 0)
//! ```

use crate::cpu::{self, math};
use crate::error::Result;
use crate::tape::{Recipe, Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Which activation; the names are those of checkpoints' `hidden_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `silu`, `swish`.
    Silu,
    /// `gelu`: the exact one.
    Gelu,
    /// `gelu_pytorch_tanh`, `gelu_new`.
    GeluTanh,
    /// `quick_gelu`.
    QuickGelu,
    /// `relu`.
    Relu,
}

impl Activation {
    /// Value and derivative.
    #[inline(always)]
    fn eval(self, x: f32) -> (f32, f32) {
        const TANH: f32 = 0.797_884_6; // sqrt(2 / pi)
        match self {
            Activation::Silu => {
                let s = math::sigmoid(x);
                (x * s, s * (1.0 + x * (1.0 - s)))
            }
            Activation::Gelu => {
                let p = 0.5 * (1.0 + math::erf(x * std::f32::consts::FRAC_1_SQRT_2));
                (x * p, p + x * 0.398_942_3 * math::exp(-0.5 * x * x))
            }
            Activation::GeluTanh => {
                let t = math::tanh(TANH * (x + 0.044_715 * x * x * x));
                let slope = TANH * (1.0 + 3.0 * 0.044_715 * x * x);
                (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope)
            }
            Activation::QuickGelu => {
                let s = math::sigmoid(1.702 * x);
                (x * s, s * (1.0 + 1.702 * x * (1.0 - s)))
            }
            Activation::Relu => {
                if x > 0.0 || x.is_nan() {
                    (x, 1.0)
                } else {
                    (0.0, 0.0)
                }
            }
        }
    }
}

// One loop per activation, so that each vectorises.
macro_rules! each {
    ($f:ident, $run:expr) => {
        match $f {
            Activation::Silu => $run(Activation::Silu),
            Activation::Gelu => $run(Activation::Gelu),
            Activation::GeluTanh => $run(Activation::GeluTanh),
            Activation::QuickGelu => $run(Activation::QuickGelu),
            Activation::Relu => $run(Activation::Relu),
        }
    };
}

/// Applies `f` to every element.
///
/// # Errors
/// `x` belongs to another tape.
pub fn activate(tape: &mut Tape<'_>, x: &Var, f: Activation) -> Result<Var> {
    let slot = tape.tracked("activate", x)?;
    let x = x.value();
    let y = applied(x, f);
    let Some(slot) = slot else { return Ok(tape.constant(y)) };
    let x = x.clone();
    let recipe = {
        let x = x.clone();
        Recipe::new(move || applied(&x, f))
    };
    let out = tape.record(y, move |dy, back| {
        let mut dx = x.copied();
        by_dtype!(x.dtype(), T => {
            let (dx, dy) = (dx.fresh::<T>(), dy.slice::<T>());
            each!(f, |f: Activation| {
                cpu::par_zip(dx, dy, #[inline(always)] |x, dy| *x = T::down(f.eval(x.up()).1 * dy.up()));
            });
        });
        back.add(slot, dx)
    });
    Ok(out.with_recipe(recipe))
}

fn applied(x: &Tensor, f: Activation) -> Tensor {
    let mut y = Tensor::uninit(x.shape(), x.dtype());
    by_dtype!(x.dtype(), T => {
        let (x, y) = (x.slice::<T>(), y.fresh::<T>());
        each!(f, |f: Activation| cpu::par_map(y, x, #[inline(always)] |x| T::down(f.eval(x.up()).0)));
    });
    y
}
