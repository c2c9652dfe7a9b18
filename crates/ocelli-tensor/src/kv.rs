//! Keys and values of sequences being generated ([`KvCache`]), with prompts shared inside a group ([`KvPrefix`]).
//!
//! A cache owns its most recent tokens and refers to a chain of frozen prefixes before them, so a group of G answers to one prompt holds that
//! prompt once: fill a cache with the prompt, [`KvCache::freeze`] it, and start G caches with [`KvCache::behind`]. A prefix is freed
//! when the last sequence behind it is dropped.
//!
//! Layout per layer: keys in panels of 16 tokens `[kv_head][panel][d][16]`, values in rows `[kv_head][token][d]`: what the inner
//! product of decoding reads, without rearrangement.

use std::sync::Arc;

use crate::cpu::tile::PANEL;
use crate::error::{Result, shape_error};
use crate::tensor::{DType, Elem, Tensor};

/// Shape of a cache: the same for all sequences of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Transformer layers.
    pub layers: usize,
    /// Key/value heads per layer.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

/// Tokens of one layer.
#[derive(Debug, Clone)]
struct LayerKv {
    keys: Tensor,
    values: Tensor,
    len: usize,
}

/// A run of tokens, all layers.
#[derive(Debug, Clone)]
pub(crate) struct KvRun {
    shape: KvShape,
    capacity: usize,
    layers: Vec<LayerKv>,
}

/// Frozen tokens several sequences continue from.
#[derive(Debug)]
pub struct KvPrefix {
    before: Option<Arc<KvPrefix>>,
    run: KvRun,
    total: usize,
}

impl KvPrefix {
    /// Tokens up to and including this prefix.
    pub fn len(&self) -> usize {
        self.total
    }
    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
    pub(crate) fn run(&self) -> &KvRun {
        &self.run
    }
    pub(crate) fn before(&self) -> Option<&Arc<KvPrefix>> {
        self.before.as_ref()
    }
}

/// Keys and values of one sequence.
#[derive(Debug)]
pub struct KvCache {
    prefix: Option<Arc<KvPrefix>>,
    own: KvRun,
}

impl KvRun {
    fn new(shape: KvShape, capacity: usize) -> KvRun {
        let capacity = capacity.max(1).div_ceil(PANEL) * PANEL;
        let row = [shape.kv_heads, capacity, shape.head_dim];
        let empty = || Tensor::zeros(&row, DType::F32);
        let layers = (0..shape.layers).map(|_| LayerKv { keys: empty(), values: empty(), len: 0 }).collect();
        KvRun { shape, capacity, layers }
    }

    /// Tokens held by layer `l`.
    pub(crate) fn len(&self, l: usize) -> usize {
        self.layers[l].len
    }

    /// Panels of keys of a head, from a token that is a multiple of 16 on.
    pub(crate) fn panels(&self, l: usize, head: usize, token: usize) -> &[f32] {
        let d = self.shape.head_dim;
        &self.layers[l].keys.slice::<f32>()
            [(head * self.capacity + token) * d..(head + 1) * self.capacity * d]
    }

    /// Rows of values of a head, from a token on.
    pub(crate) fn values(&self, l: usize, head: usize, token: usize) -> &[f32] {
        let d = self.shape.head_dim;
        &self.layers[l].values.slice::<f32>()
            [(head * self.capacity + token) * d..(head + 1) * self.capacity * d]
    }

    fn grow(&mut self, need: usize) {
        let mut wider = KvRun::new(self.shape, need.max(self.capacity + self.capacity / 2));
        let d = self.shape.head_dim;
        let (old, new) = (self.capacity * d, wider.capacity * d);
        for (from, to) in self.layers.iter().zip(&mut wider.layers) {
            to.len = from.len;
            for (from, to) in [(&from.keys, &mut to.keys), (&from.values, &mut to.values)] {
                let to = to.fresh::<f32>();
                for (head, from) in from.slice::<f32>().chunks_exact(old).enumerate() {
                    to[head * new..head * new + old].copy_from_slice(from);
                }
            }
        }
        *self = wider;
    }

    /// Appends rows `[n][kv_heads * d]` to layer `l`.
    pub(crate) fn append<T: Elem>(&mut self, l: usize, k: &[T], v: &[T]) {
        let KvShape { kv_heads, head_dim: d, .. } = self.shape;
        let n = k.len() / (kv_heads * d);
        let start = self.layers[l].len;
        if start + n > self.capacity {
            self.grow(start + n);
        }
        let capacity = self.capacity;
        let layer = &mut self.layers[l];
        let (keys, values) = (layer.keys.fresh::<f32>(), layer.values.fresh::<f32>());
        for (t, (k, v)) in k.chunks_exact(kv_heads * d).zip(v.chunks_exact(kv_heads * d)).enumerate() {
            let token = start + t;
            for head in 0..kv_heads {
                let panel = (head * capacity + token / PANEL * PANEL) * d + token % PANEL;
                for (e, x) in k[head * d..(head + 1) * d].iter().enumerate() {
                    keys[panel + e * PANEL] = x.up();
                }
                let row = &mut values[(head * capacity + token) * d..][..d];
                row.iter_mut().zip(&v[head * d..(head + 1) * d]).for_each(|(o, x)| *o = x.up());
            }
        }
        layer.len += n;
    }
}

impl KvCache {
    /// An empty sequence with room for `capacity` tokens before it has to grow.
    pub fn new(shape: KvShape, capacity: usize) -> KvCache {
        KvCache { prefix: None, own: KvRun::new(shape, capacity) }
    }

    /// A sequence that continues from `prefix`.
    pub fn behind(prefix: &Arc<KvPrefix>, capacity: usize) -> KvCache {
        KvCache { prefix: Some(prefix.clone()), own: KvRun::new(prefix.run.shape, capacity) }
    }

    /// Tokens so far, prefixes included: the position of the next one.
    pub fn len(&self) -> usize {
        self.prefix.as_ref().map_or(0, |p| p.total) + self.own.layers.last().map_or(0, |l| l.len)
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its shape.
    pub fn shape(&self) -> KvShape {
        self.own.shape
    }

    /// Turns all tokens so far into a prefix others can stand behind. A cache that added nothing gives the prefix that it
    /// stands behind itself, so that freezing again and again builds no chain.
    pub fn freeze(self) -> Arc<KvPrefix> {
        let total = self.len();
        if let Some(prefix) = self.prefix.as_ref().filter(|p| p.total == total) {
            return prefix.clone();
        }
        Arc::new(KvPrefix { before: self.prefix, run: self.own, total })
    }

    /// Forgets all but the first `len` tokens.
    ///
    /// # Errors
    /// `len` is larger than the sequence or cuts into a shared prefix.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        let before = self.prefix.as_ref().map_or(0, |p| p.total);
        if len < before || len > self.len() {
            let what =
                format!("{len} is not between the shared prefix ({before}) and the length ({})", self.len());
            return shape_error("KvCache::truncate", what);
        }
        for layer in &mut self.own.layers {
            layer.len = layer.len.min(len - before);
        }
        Ok(())
    }

    pub(crate) fn prefix(&self) -> Option<&Arc<KvPrefix>> {
        self.prefix.as_ref()
    }

    pub(crate) fn own(&self) -> &KvRun {
        &self.own
    }

    pub(crate) fn own_mut(&mut self) -> &mut KvRun {
        &mut self.own
    }
}
