//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019), fused: one pass over parameter, gradient and both moments.
//!
//! ```text
//! g <- g * min(1, max_norm / (norm + 1e-6))
//! p <- p (1 - lr wd)
//! m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
//! p <- p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//! ```
//!
//! The same order of operations as `torch.optim.AdamW` and `clip_grad_norm_`. A parameter without a gradient in a step is left
//! alone, and its `t` does not advance.

use rayon::prelude::*;

use crate::cpu;
use crate::error::{Result, TensorError, shape_error};
use crate::params::{Grads, ParamId, Params};
use crate::tensor::{DType, Tensor};

/// Settings of one group of parameters ([`Params::set_group`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWGroup {
    /// Learning rate.
    pub lr: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// Settings common to all groups.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Gradients are scaled down to this Euclidean norm over all parameters; `None` leaves them.
    pub max_grad_norm: Option<f32>,
    /// By group index.
    pub groups: Vec<AdamWGroup>,
}

impl Default for AdamWConfig {
    /// `torch.optim.AdamW`'s defaults, one group, no clipping.
    fn default() -> AdamWConfig {
        let groups = vec![AdamWGroup { lr: 1e-3, weight_decay: 1e-2 }];
        AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, max_grad_norm: None, groups }
    }
}

/// What the optimiser remembers about one parameter.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Steps taken by this parameter.
    pub step: u64,
    /// Running mean of the gradient.
    pub exp_avg: Tensor,
    /// Running mean of its square.
    pub exp_avg_sq: Tensor,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepInfo {
    /// Norm over all gradients before clipping.
    pub grad_norm: f64,
    /// Factor the gradients were multiplied with, 1 if not clipped.
    pub clip: f32,
}

/// The optimiser.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    moments: Vec<Option<Moments>>,
}

impl AdamW {
    /// An optimiser without history.
    pub fn new(config: AdamWConfig) -> AdamW {
        AdamW { config, moments: Vec::new() }
    }

    /// Its settings.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Sets the learning rate of a group (schedules).
    ///
    /// # Errors
    /// There is no such group.
    pub fn set_lr(&mut self, group: usize, lr: f32) -> Result<()> {
        let groups = self.config.groups.len();
        match self.config.groups.get_mut(group) {
            Some(g) => {
                g.lr = lr;
                Ok(())
            }
            None => shape_error("AdamW::set_lr", format!("group {group} of {groups}")),
        }
    }

    /// State of a parameter, if it has taken a step (for checkpoints).
    pub fn moments(&self, id: ParamId) -> Option<&Moments> {
        self.moments.get(id.index())?.as_ref()
    }

    /// Restores the state of a parameter.
    ///
    /// # Errors
    /// Shapes differ from the parameter's, or are not `f32`.
    pub fn set_moments(&mut self, params: &Params, id: ParamId, moments: Moments) -> Result<()> {
        let p = params.get(id)?;
        for t in [&moments.exp_avg, &moments.exp_avg_sq] {
            if t.shape() != p.value().shape() || t.dtype() != DType::F32 {
                let what = format!(
                    "{:?} is {:?}, its moment {:?} {:?}",
                    p.name(),
                    p.value().shape(),
                    t.shape(),
                    t.dtype()
                );
                return shape_error("AdamW::set_moments", what);
            }
        }
        *self.slot(id) = Some(moments);
        Ok(())
    }

    /// One step on all parameters that are trainable and have a gradient. Does not clear the gradients.
    ///
    /// # Errors
    /// A gradient that is not finite (nothing is changed then), a group without settings, a shape that does not fit.
    pub fn step(&mut self, params: &mut Params, grads: &Grads) -> Result<StepInfo> {
        cpu::on_workers(|| self.step_here(params, grads))
    }

    fn step_here(&mut self, params: &mut Params, grads: &Grads) -> Result<StepInfo> {
        let mut work = Vec::new();
        let mut squares = 0.0f64;
        for (id, g) in grads.iter() {
            let p = params.get(id)?;
            if !p.trainable() {
                continue;
            }
            if g.shape() != p.value().shape() {
                let what = format!("{:?} {:?} has a gradient {:?}", p.name(), p.value().shape(), g.shape());
                return shape_error("AdamW::step", what);
            }
            let Some(&group) = self.config.groups.get(p.group()) else {
                let what =
                    format!("{:?} is in group {} of {}", p.name(), p.group(), self.config.groups.len());
                return shape_error("AdamW::step", what);
            };
            let g = g.as_slice::<f32>()?;
            let sum = cpu::sum_of_squares(g);
            if !sum.is_finite()
                && let Some((at, &value)) = g.iter().enumerate().find(|(_, v)| !v.is_finite())
            {
                return Err(TensorError::NonFiniteGradient { name: p.name().to_owned(), at, value });
            }
            squares += sum;
            work.push((id, g, group));
        }
        let grad_norm = squares.sqrt();
        let clip =
            self.config.max_grad_norm.map_or(1.0, |m| (f64::from(m) / (grad_norm + 1e-6)).min(1.0)) as f32;
        for (id, g, group) in work {
            let shape = params.get(id)?.value().shape().to_vec();
            let zeros = || Tensor::zeros(&shape, DType::F32);
            let (b1, b2, eps) = (self.config.beta1, self.config.beta2, self.config.eps);
            let moments = self.slot(id).get_or_insert_with(|| Moments {
                step: 0,
                exp_avg: zeros(),
                exp_avg_sq: zeros(),
            });
            moments.step += 1;
            let bias = |b: f32| 1.0 - f64::from(b).powf(moments.step as f64);
            let rate = (f64::from(group.lr) / bias(b1)) as f32;
            let inv_root = (1.0 / bias(b2).sqrt()) as f32;
            let keep = (1.0 - f64::from(group.lr) * f64::from(group.weight_decay)) as f32;
            let m = moments.exp_avg.as_mut_slice::<f32>()?;
            let v = moments.exp_avg_sq.as_mut_slice::<f32>()?;
            params.update(id, |p| {
                let moments = m.par_chunks_mut(cpu::PIECE).zip(v.par_chunks_mut(cpu::PIECE));
                let all = p.par_chunks_mut(cpu::PIECE).zip(g.par_chunks(cpu::PIECE)).zip(moments);
                all.for_each(|((p, g), (m, v))| {
                    cpu::vectorize(
                        #[inline(always)]
                        || {
                            let n = p.len();
                            let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
                            for i in 0..n {
                                let g = g[i] * clip;
                                m[i] += (1.0 - b1) * (g - m[i]);
                                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                                p[i] = p[i] * keep - rate * m[i] / (v[i].sqrt() * inv_root + eps);
                            }
                        },
                    );
                });
            })?;
        }
        Ok(StepInfo { grad_norm, clip })
    }

    fn slot(&mut self, id: ParamId) -> &mut Option<Moments> {
        if self.moments.len() <= id.index() {
            self.moments.resize(id.index() + 1, None);
        }
        &mut self.moments[id.index()]
    }
}
