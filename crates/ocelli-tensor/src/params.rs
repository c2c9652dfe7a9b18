//! The learnable numbers of a model ([`Params`]) and their gradients ([`Grads`]), both addressed by [`ParamId`].
//!
//! A model struct holds ids, not tensors: the same struct then runs with any set of parameters of the same layout (a
//! reference policy, a data-parallel replica), and the optimiser sees one flat list.

use std::collections::HashMap;

use crate::cpu;
use crate::error::{Result, TensorError, shape_error};
use crate::tensor::{DType, Tensor};

/// Handle of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(u32);

impl ParamId {
    /// Position in [`Params::iter`], and in everything that is stored per parameter.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One learnable (or frozen) tensor.
#[derive(Debug, Clone)]
pub struct Param {
    name: String,
    value: Tensor,
    compute: Option<Tensor>,
    trainable: bool,
    group: usize,
}

impl Param {
    /// The checkpoint's own name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The master value: `f32` when trainable; frozen matrices keep the type they were given.
    pub fn value(&self) -> &Tensor {
        &self.value
    }
    /// What operations compute with: a bf16 copy where one was made, else the master value.
    pub fn compute(&self) -> &Tensor {
        self.compute.as_ref().unwrap_or(&self.value)
    }
    /// Whether gradients are computed for it.
    pub fn trainable(&self) -> bool {
        self.trainable
    }
    /// Index of its optimiser group.
    pub fn group(&self) -> usize {
        self.group
    }
}

/// All parameters of a model.
#[derive(Debug, Clone)]
pub struct Params {
    params: Vec<Param>,
    by_name: HashMap<String, ParamId>,
    compute: DType,
}

impl Default for Params {
    fn default() -> Params {
        Params { params: Vec::new(), by_name: HashMap::new(), compute: DType::F32 }
    }
}

impl Params {
    /// An empty set computing in `f32`.
    pub fn new() -> Params {
        Params::default()
    }

    /// Adds a trainable parameter in group 0. Vectors (one dimension: norms and biases) are always kept in `f32`; a bf16
    /// matrix is widened once it is made trainable.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add(&mut self, name: impl Into<String>, value: Tensor) -> Result<ParamId> {
        self.insert(name.into(), value.to_dtype(DType::F32), true)
    }

    /// Adds a parameter no gradient is computed for; a matrix keeps its type, so a bf16 checkpoint stays half the size.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_frozen(&mut self, name: impl Into<String>, value: Tensor) -> Result<ParamId> {
        let value = if value.shape().len() < 2 { value.to_dtype(DType::F32) } else { value };
        self.insert(name.into(), value, false)
    }

    fn insert(&mut self, name: String, value: Tensor, trainable: bool) -> Result<ParamId> {
        if self.by_name.contains_key(&name) {
            return Err(TensorError::DuplicateParam(name));
        }
        let id = ParamId(self.params.len() as u32);
        self.by_name.insert(name.clone(), id);
        self.params.push(Param { name, value, compute: None, trainable, group: 0 });
        self.refresh(id);
        Ok(id)
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Total number of elements.
    pub fn element_count(&self) -> usize {
        self.params.iter().map(|p| p.value.len()).sum()
    }

    /// The id of a name.
    pub fn id(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }

    /// All ids, in the order they were added.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.params.len() as u32).map(ParamId)
    }

    /// All parameters with their ids, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Param)> {
        self.ids().zip(&self.params)
    }

    /// One parameter.
    ///
    /// # Errors
    /// The id is of another set.
    pub fn get(&self, id: ParamId) -> Result<&Param> {
        self.params.get(id.index()).ok_or(TensorError::UnknownParam(id))
    }

    fn get_mut(&mut self, id: ParamId) -> Result<&mut Param> {
        self.params.get_mut(id.index()).ok_or(TensorError::UnknownParam(id))
    }

    /// Replaces a value; the shape must stay.
    ///
    /// # Errors
    /// Unknown id, or another shape.
    pub fn set_value(&mut self, id: ParamId, value: Tensor) -> Result<()> {
        let p = self.get_mut(id)?;
        if p.value.shape() != value.shape() {
            let what = format!("{:?} has shape {:?}, not {:?}", p.name, p.value.shape(), value.shape());
            return shape_error("set_value", what);
        }
        let keep_f32 = p.trainable || value.shape().len() < 2;
        p.value = if keep_f32 { value.to_dtype(DType::F32) } else { value };
        self.refresh(id);
        Ok(())
    }

    /// Freezes or thaws a parameter; thawing a bf16 matrix widens its master value to `f32`.
    ///
    /// # Errors
    /// Unknown id.
    pub fn set_trainable(&mut self, id: ParamId, trainable: bool) -> Result<()> {
        let p = self.get_mut(id)?;
        p.trainable = trainable;
        if trainable {
            p.value = p.value.to_dtype(DType::F32);
        }
        self.refresh(id);
        Ok(())
    }

    /// Puts a parameter into an optimiser group (learning rate and weight decay of its own).
    ///
    /// # Errors
    /// Unknown id.
    pub fn set_group(&mut self, id: ParamId, group: usize) -> Result<()> {
        self.get_mut(id)?.group = group;
        Ok(())
    }

    /// The type activations and matrix products use.
    pub fn compute_dtype(&self) -> DType {
        self.compute
    }

    /// Chooses the type of activations and matrix products. With [`DType::Bf16`], trainable matrices keep an `f32` master
    /// value beside a bf16 copy that the operations read; products and sums still accumulate in `f32`.
    pub fn set_compute_dtype(&mut self, dtype: DType) {
        self.compute = dtype;
        for id in self.ids() {
            self.refresh(id);
        }
    }

    /// Changes a value in place and renews its compute copy.
    pub(crate) fn update(&mut self, id: ParamId, change: impl FnOnce(&mut [f32])) -> Result<()> {
        let p = self.get_mut(id)?;
        change(p.value.as_mut_slice::<f32>()?);
        self.refresh(id);
        Ok(())
    }

    fn refresh(&mut self, id: ParamId) {
        let compute = self.compute;
        let p = &mut self.params[id.index()];
        if compute == DType::Bf16 && p.value.shape().len() >= 2 && p.value.dtype() == DType::F32 {
            p.compute = Some(p.value.to_dtype(DType::Bf16));
        } else {
            p.compute = None;
        }
    }
}

/// Gradients by parameter, `f32`. Several backward passes add up in it.
#[derive(Debug, Clone, Default)]
pub struct Grads {
    slots: Vec<Option<Tensor>>,
}

impl Grads {
    /// No gradients yet.
    pub fn new() -> Grads {
        Grads::default()
    }

    /// The gradient of a parameter, if a backward pass reached it.
    pub fn get(&self, id: ParamId) -> Option<&Tensor> {
        self.slots.get(id.index())?.as_ref()
    }

    /// All gradients present, by position of their parameter.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Tensor)> {
        self.slots.iter().enumerate().filter_map(|(i, t)| Some((ParamId(i as u32), t.as_ref()?)))
    }

    /// Forgets all gradients; their memory returns to the pool.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    /// Multiplies all gradients by `factor` (for example 1 / number of micro-batches).
    pub fn scale(&mut self, factor: f32) {
        for t in self.slots.iter_mut().flatten() {
            if let Ok(g) = t.as_mut_slice::<f32>() {
                cpu::par_update(
                    g,
                    #[inline(always)]
                    |x| *x *= factor,
                );
            }
        }
    }

    /// Adds a gradient from elsewhere (another replica, a penalty computed by hand).
    ///
    /// # Errors
    /// Its shape differs from the one already there, or it is not `f32`.
    pub fn add(&mut self, id: ParamId, grad: &Tensor) -> Result<()> {
        let src = grad.as_slice::<f32>()?;
        match self.slot(id) {
            Some(t) if t.shape() != grad.shape() => {
                let what = format!("parameter {}: {:?} + {:?}", id.index(), t.shape(), grad.shape());
                shape_error("Grads::add", what)
            }
            Some(t) => {
                cpu::par_zip(
                    t.as_mut_slice::<f32>()?,
                    src,
                    #[inline(always)]
                    |a, b| *a += b,
                );
                Ok(())
            }
            slot => {
                *slot = Some(grad.clone());
                Ok(())
            }
        }
    }

    /// Writable elements of all gradients present, in parameter order (for all-reduce).
    ///
    /// # Errors
    /// Never in practice: gradients are `f32`.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Result<(ParamId, &mut [f32])>> {
        self.slots.iter_mut().enumerate().filter_map(|(i, t)| {
            let t = t.as_mut()?;
            Some(t.as_mut_slice::<f32>().map(|s| (ParamId(i as u32), s)))
        })
    }

    /// Euclidean norm over all gradients, summed in `f64` in a fixed order.
    pub fn norm(&self) -> f64 {
        self.iter()
            .map(|(_, t)| t.as_slice::<f32>().map_or(f64::NAN, cpu::sum_of_squares))
            .sum::<f64>()
            .sqrt()
    }

    fn slot(&mut self, id: ParamId) -> &mut Option<Tensor> {
        if self.slots.len() <= id.index() {
            self.slots.resize(id.index() + 1, None);
        }
        &mut self.slots[id.index()]
    }

    /// Where to put a gradient: the elements, and whether they already hold a sum to add to. When they do not, every
    /// element must be written.
    pub(crate) fn accumulate(&mut self, id: ParamId, shape: &[usize]) -> (&mut [f32], bool) {
        let slot = self.slot(id);
        let present = slot.is_some();
        let t = slot.get_or_insert_with(|| Tensor::uninit(shape, DType::F32));
        if !t.is_unique() {
            *t = t.copied();
        }
        (t.fresh(), present)
    }

    /// Like [`Grads::accumulate`], but zeroed if new: for scattered sums.
    pub(crate) fn accumulate_zeroed(&mut self, id: ParamId, shape: &[usize]) -> &mut [f32] {
        let (g, present) = self.accumulate(id, shape);
        if !present {
            g.fill(0.0);
        }
        g
    }
}
