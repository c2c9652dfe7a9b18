//! The tape: operations append what their backward pass needs; [`Tape::backward`] runs it in reverse.
//!
//! A [`Var`] owns its value (shared memory), so an activation lives exactly as long as the model's own variable or as
//! an operation's backward needs it: the tape itself keeps no values. Nothing is recorded in inference mode, or when neither the
//! inputs nor the parameters of an operation need a gradient.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cpu;
use crate::error::{Result, TensorError, shape_error};
use crate::params::{Grads, ParamId, Params};
use crate::tensor::{DType, Tensor, by_dtype};

/// What a tape is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Record for a backward pass.
    Train,
    /// Record nothing; values are the same bits as in training.
    Inference,
}

/// Position of a recorded value among all values of one tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    tape: u64,
    index: usize,
}

/// Computes a value again from what its operation keeps for its own backward pass, the same bits.
#[derive(Clone)]
pub(crate) struct Recipe(Arc<dyn Fn() -> Tensor + Send + Sync>);

impl Recipe {
    pub(crate) fn new(make: impl Fn() -> Tensor + Send + Sync + 'static) -> Recipe {
        Recipe(Arc::new(make))
    }
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipe")
    }
}

/// A value that a backward pass needs: itself, or, where that costs only a pass over its inputs (norms, activations), how to
/// make it again. A quarter to a third of a block's activations are of this kind.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    Value(Tensor),
    Again(Recipe),
}

impl Kept {
    pub(crate) fn get(&self) -> Tensor {
        match self {
            Kept::Value(t) => t.clone(),
            Kept::Again(recipe) => recipe.0(),
        }
    }
}

/// A value in a computation: a tensor, and where its gradient goes (nowhere, for constants). Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Var {
    value: Tensor,
    slot: Option<Slot>,
    recipe: Option<Recipe>,
}

impl Var {
    /// A value no gradient flows to. Needs no tape.
    pub fn constant(value: Tensor) -> Var {
        Var { value, slot: None, recipe: None }
    }

    /// The number(s).
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The numbers, without the variable.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// Shape of the value.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// Whether a gradient flows to it.
    pub fn needs_grad(&self) -> bool {
        self.slot.is_some()
    }

    /// The same value as a constant: gradients stop here.
    pub fn detach(&self) -> Var {
        Var::constant(self.value.clone())
    }

    /// The same memory under another shape; the gradient arrives in the original one.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Var> {
        Ok(Var { value: self.value.reshape(shape)?, slot: self.slot, recipe: None })
    }

    /// The same variable, whose value can be made again.
    pub(crate) fn with_recipe(self, recipe: Recipe) -> Var {
        Var { recipe: Some(recipe), ..self }
    }

    /// What to keep of it for a backward pass.
    pub(crate) fn keep(&self) -> Kept {
        match &self.recipe {
            Some(recipe) => Kept::Again(recipe.clone()),
            None => Kept::Value(self.value.clone()),
        }
    }
}

/// Gradients of one operation's outputs, as its backward pass receives them: `None` where nothing flowed.
pub(crate) type OutGrads = Vec<Option<Tensor>>;

type BackwardFn<'p> = Box<dyn FnOnce(OutGrads, &mut Back<'p, '_>) -> Result<()> + 'p>;

struct Node<'p> {
    /// First of its output slots.
    first: usize,
    /// Shapes of its outputs: gradients may arrive in another one, from variables that were reshaped.
    shapes: Vec<Arc<[usize]>>,
    backward: BackwardFn<'p>,
}

/// Records one forward pass over parameters of lifetime `'p`.
pub struct Tape<'p> {
    params: &'p Params,
    mode: Mode,
    id: u64,
    nodes: Vec<Node<'p>>,
    slots: usize,
}

/// What a backward pass may use: the parameters, their gradients, and the gradients of other recorded values.
pub(crate) struct Back<'p, 'a> {
    pub(crate) params: &'p Params,
    pub(crate) grads: &'a mut Grads,
    slots: &'a mut [Option<Tensor>],
}

impl Back<'_, '_> {
    /// Adds `grad` to what has flowed into `slot` so far.
    pub(crate) fn add(&mut self, slot: Slot, grad: Tensor) -> Result<()> {
        let place = &mut self.slots[slot.index];
        *place = Some(match place.take() {
            None => grad,
            Some(old) => sum(old, grad)?,
        });
        Ok(())
    }

    /// Like [`Back::add`] for a slot that may be absent.
    pub(crate) fn add_opt(
        &mut self,
        slot: Option<Slot>,
        grad: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        match slot {
            Some(s) => self.add(s, grad()?),
            None => Ok(()),
        }
    }

    /// Adds `factor * grad` to the gradient of a parameter, taking over its memory if it is the first.
    pub(crate) fn add_param(&mut self, id: ParamId, mut grad: Tensor, factor: f32) -> Result<()> {
        if factor != 1.0 {
            cpu::par_update(
                grad.as_mut_slice::<f32>()?,
                #[inline(always)]
                |g| *g *= factor,
            );
        }
        self.grads.add(id, &grad)
    }

    /// Takes what has flowed into `slot` so far if it can be added to in place, so that a kernel may accumulate into it; the
    /// caller hands it back with [`Back::put`].
    pub(crate) fn take_sum(&mut self, slot: Slot, shape: &[usize], dtype: DType) -> Option<Tensor> {
        let place = &mut self.slots[slot.index];
        let usable = place.as_mut().is_some_and(|t| t.dtype() == dtype && t.is_unique());
        if !usable {
            return None;
        }
        place.take()?.reshape(shape).ok()
    }

    /// Stores a gradient that already includes what [`Back::take_sum`] returned.
    pub(crate) fn put(&mut self, slot: Slot, grad: Tensor) -> Result<()> {
        self.add(slot, grad)
    }
}

/// `a + b`, reusing the memory of whichever has a single owner.
fn sum(mut a: Tensor, mut b: Tensor) -> Result<Tensor> {
    if a.len() != b.len() || a.dtype() != b.dtype() {
        let what = format!("gradients {:?} {:?} and {:?} {:?}", a.shape(), a.dtype(), b.shape(), b.dtype());
        return shape_error("backward", what);
    }
    if !a.is_unique() && b.is_unique() {
        std::mem::swap(&mut a, &mut b);
    }
    if !a.is_unique() {
        a = a.copied();
    }
    by_dtype!(a.dtype(), T => {
        use crate::tensor::Elem;
        cpu::par_zip(a.fresh::<T>(), b.slice::<T>(), #[inline(always)] |x, y| *x = T::down(x.up() + y.up()));
    });
    Ok(a)
}

/// Gradients of the variables made by [`Tape::leaf`].
#[derive(Debug, Default)]
pub struct LeafGrads {
    tape: u64,
    slots: Vec<Option<Tensor>>,
}

impl LeafGrads {
    /// The gradient of a leaf, in the leaf's shape; `None` if nothing flowed to it.
    pub fn get(&self, leaf: &Var) -> Option<Tensor> {
        let slot = leaf.slot.filter(|s| s.tape == self.tape)?;
        self.slots.get(slot.index)?.as_ref()?.reshape(leaf.shape()).ok()
    }
}

impl<'p> Tape<'p> {
    /// An empty tape over `params`.
    pub fn new(params: &'p Params, mode: Mode) -> Tape<'p> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tape { params, mode, id: NEXT.fetch_add(1, Ordering::Relaxed), nodes: Vec::new(), slots: 0 }
    }

    /// A tape that records.
    pub fn train(params: &'p Params) -> Tape<'p> {
        Tape::new(params, Mode::Train)
    }

    /// A tape that records nothing.
    pub fn inference(params: &'p Params) -> Tape<'p> {
        Tape::new(params, Mode::Inference)
    }

    /// The parameters it computes with.
    pub fn params(&self) -> &'p Params {
        self.params
    }

    /// What it is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Number of recorded operations.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing has been recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A value no gradient flows to.
    pub fn constant(&self, value: Tensor) -> Var {
        Var::constant(value)
    }

    /// An input whose gradient is wanted; read it from what [`Tape::backward`] returns. A constant in inference mode.
    pub fn leaf(&mut self, value: Tensor) -> Var {
        if self.mode == Mode::Inference {
            return Var::constant(value);
        }
        let slot = self.new_slots(1);
        Var { value, slot: Some(slot), recipe: None }
    }

    /// A parameter as a variable, for operations between variables; its gradient goes to [`Grads`].
    ///
    /// # Errors
    /// Unknown id.
    pub fn param(&mut self, id: ParamId) -> Result<Var> {
        let value = self.params.get(id)?.compute().clone();
        if !self.wants(id)? {
            return Ok(Var::constant(value));
        }
        let shape = value.shape().to_vec();
        Ok(self.record(value, move |dy, back| {
            let (g, present) = back.grads.accumulate(id, &shape);
            by_dtype!(dy.dtype(), T => {
                use crate::tensor::Elem;
                cpu::par_zip(g, dy.slice::<T>(), #[inline(always)] |a, b| *a = if present { *a + b.up() } else { b.up() });
            });
            Ok(())
        }))
    }

    /// Backward from a one-element `loss`, seeded with 1. Parameter gradients are added to `grads`.
    ///
    /// # Errors
    /// `loss` does not have one element, was not recorded on this tape, or an operation fails.
    pub fn backward(self, loss: &Var, grads: &mut Grads) -> Result<LeafGrads> {
        if loss.value.len() != 1 {
            return shape_error("backward", format!("a loss has one element, not shape {:?}", loss.shape()));
        }
        let seed = Tensor::full(loss.shape(), 1.0, loss.value.dtype());
        self.backward_from(&[(loss, seed)], grads)
    }

    /// Backward from several variables at once, each with its own d(loss)/d(variable): how a loss that is a function of
    /// per-token log-probabilities enters, without being an operation itself.
    ///
    /// # Errors
    /// A seed's shape or type differs from its variable's, or an operation fails.
    pub fn backward_from(mut self, seeds: &[(&Var, Tensor)], grads: &mut Grads) -> Result<LeafGrads> {
        let mut slots: Vec<Option<Tensor>> = vec![None; self.slots];
        let mut back = Back { params: self.params, grads, slots: &mut slots };
        for (var, seed) in seeds {
            if seed.len() != var.value.len() {
                let what = format!("seed {:?} for a variable of shape {:?}", seed.shape(), var.shape());
                return shape_error("backward_from", what);
            }
            if let Some(slot) = self.tracked("backward_from", var)? {
                back.add(slot, seed.to_dtype(var.value.dtype()))?;
            }
        }
        while let Some(node) = self.nodes.pop() {
            let mut outputs = OutGrads::with_capacity(node.shapes.len());
            for (i, shape) in node.shapes.iter().enumerate() {
                let grad = back.slots[node.first + i].take();
                outputs.push(grad.map(|g| g.reshape(shape)).transpose()?);
            }
            if outputs.iter().any(Option::is_some) {
                (node.backward)(outputs, &mut back)?;
            }
        }
        Ok(LeafGrads { tape: self.id, slots })
    }

    /// Runs `block` without keeping its activations; the backward pass runs it again. The result is the same numbers for less
    /// memory and one more forward pass of the block.
    ///
    /// `block` may use parameters and constants it captures, but variables only through its arguments (`inputs`, in order).
    ///
    /// # Errors
    /// Whatever `block` returns; [`TensorError::ForeignVar`] if it uses an outer variable.
    pub fn checkpoint<F>(&mut self, inputs: &[&Var], block: F) -> Result<Vec<Var>>
    where
        F: Fn(&mut Tape<'p>, &[Var]) -> Result<Vec<Var>> + 'p,
    {
        let constants: Vec<Var> = inputs.iter().map(|v| v.detach()).collect();
        if self.mode == Mode::Inference {
            return block(self, &constants);
        }
        let mut slots = Vec::with_capacity(inputs.len());
        for v in inputs {
            slots.push(self.tracked("checkpoint", v)?);
        }
        let mut dry = Tape::new(self.params, Mode::Inference);
        let values: Vec<Tensor> = block(&mut dry, &constants)?.into_iter().map(Var::into_value).collect();
        Ok(self.record_many(values, move |dys, back| {
            let mut tape = Tape::train(back.params);
            let leaves: Vec<Var> = constants
                .into_iter()
                .zip(&slots)
                .map(|(v, slot)| if slot.is_some() { tape.leaf(v.value) } else { v })
                .collect();
            let outputs = block(&mut tape, &leaves)?;
            let seeds: Vec<(&Var, Tensor)> =
                outputs.iter().zip(dys).filter_map(|(v, dy)| dy.map(|dy| (v, dy))).collect();
            let found = tape.backward_from(&seeds, back.grads)?;
            for (leaf, slot) in leaves.iter().zip(slots) {
                if let (Some(slot), Some(grad)) = (slot, found.get(leaf)) {
                    back.add(slot, grad)?;
                }
            }
            Ok(())
        }))
    }

    /// Whether gradients of this parameter are wanted by this tape.
    pub(crate) fn wants(&self, id: ParamId) -> Result<bool> {
        Ok(self.params.get(id)?.trainable() && self.mode == Mode::Train)
    }

    /// Where the gradient of `var` goes.
    pub(crate) fn tracked(&self, op: &'static str, var: &Var) -> Result<Option<Slot>> {
        match var.slot {
            Some(slot) if slot.tape != self.id => Err(TensorError::ForeignVar { op }),
            slot => Ok(slot),
        }
    }

    fn new_slots(&mut self, n: usize) -> Slot {
        let slot = Slot { tape: self.id, index: self.slots };
        self.slots += n;
        slot
    }

    /// Records an operation with one output.
    pub(crate) fn record(
        &mut self,
        value: Tensor,
        backward: impl FnOnce(Tensor, &mut Back<'p, '_>) -> Result<()> + 'p,
    ) -> Var {
        let slot = self.new_slots(1);
        let backward: BackwardFn<'p> = Box::new(move |outs, back| match outs.into_iter().next().flatten() {
            Some(dy) => backward(dy, back),
            None => Ok(()),
        });
        self.nodes.push(Node { first: slot.index, shapes: vec![value.shape().into()], backward });
        Var { value, slot: Some(slot), recipe: None }
    }

    /// Records an operation with several outputs.
    pub(crate) fn record_many(
        &mut self,
        values: Vec<Tensor>,
        backward: impl FnOnce(OutGrads, &mut Back<'p, '_>) -> Result<()> + 'p,
    ) -> Vec<Var> {
        let slot = self.new_slots(values.len());
        let shapes = values.iter().map(|v| v.shape().into()).collect();
        self.nodes.push(Node { first: slot.index, shapes, backward: Box::new(backward) });
        values
            .into_iter()
            .enumerate()
            .map(|(i, value)| Var { value, slot: Some(Slot { index: slot.index + i, ..slot }), recipe: None })
            .collect()
    }
}
