//! The text decoder of the Llama, Qwen2/2.5 and Qwen3 families: one forward pass for training, scoring and generation.
//!
//! ```text
//! N rows (tokens of all sequences, packed), D hidden, H query heads, K key/value heads, d head, F inner, V vocabulary
//! x = embed[ids]                                              [N, D]
//! per block:  h = rms_norm(x);  q, k, v = h Wq, h Wk, h Wv    [N, H d] [N, K d] [N, K d]
//!             Qwen3: q, k = rms_norm per head;  q, k = rotary(q, k)
//!             x = x + attention(q, k, v) Wo
//!             h = rms_norm(x);  x = x + (silu(h Wg) * h Wu) Wd
//! hidden = rms_norm(x);  logits = hidden head^T               [N, D] [N, V]
//! ```
//!
//! Sources: Touvron et al. 2023 (Llama), Yang et al. 2024/2025 (Qwen2.5, Qwen3); `modeling_{llama,qwen2,qwen3}.py` of
//! transformers 5, against which `tests/parity.rs` compares logits, gradients and ten optimizer steps.
//! Deviation: checkpoints with a sliding window are run only up to the window's length, where it has no effect
//! ([`TextConfig::context`]); longer sequences are refused rather than computed without the window.

use ocelli_tensor::ops::{self, AttentionSpec, Linear, LogProbs, RotaryStyle, RotaryTable};
use ocelli_tensor::{DType, KvCache, KvShape, ParamId, Params, SeqLayout, Tape, Tensor, TensorError, Var};
use rand::Rng;

use crate::ModelError;
use crate::config::TextConfig;
use crate::weights::{TensorSpec, Weights};

/// Where a decoder's tensors stand in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextNames {
    /// Before `embed_tokens.weight`, `layers.0...` and `norm.weight`; `model.` for a plain decoder.
    pub prefix: String,
    /// The output layer, unused when it is tied to the embedding.
    pub head: String,
}

impl Default for TextNames {
    fn default() -> Self {
        Self { prefix: "model.".into(), head: "lm_head.weight".into() }
    }
}

/// How parameters are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// f32 master values with gradients.
    Trainable,
    /// No gradients; matrices in this type.
    Frozen(DType),
}

/// Position of every row for the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// One counter. `[N]`
    Linear(Vec<usize>),
    /// Time, height and width (M-RoPE, Qwen2-VL section 2.1). `[3][N]`
    Multimodal([Vec<f32>; 3]),
}

impl Positions {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Linear(p) => p.len(),
            Self::Multimodal(p) => p[0].len(),
        }
    }

    /// True when there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the rows of a forward pass attend to.
pub enum Attend<'a> {
    /// One another, as a layout says; the way of training and scoring.
    Packed(&'a SeqLayout),
    /// What each sequence has cached, and its own new rows (`new[s]` of them); the way of generation. Inference only.
    Cached {
        /// One cache per sequence; the new rows are appended.
        caches: &'a mut [&'a mut KvCache],
        /// Rows per sequence, in the order of the rows.
        new: &'a [usize],
    },
}

/// Features that are added to some rows after the first blocks (DeepStack, arXiv 2406.04334).
#[derive(Clone, Debug)]
pub struct DeepFeatures {
    /// The rows, each once.
    pub rows: Vec<usize>,
    /// What is added to them after block 0, 1, ... `[len(rows), D]` each.
    pub levels: Vec<Var>,
}

impl DeepFeatures {
    fn add(&self, tape: &mut Tape<'_>, x: &Var, level: &Var) -> Result<Var, TensorError> {
        let zero = Var::constant(Tensor::zeros(x.shape(), x.value().dtype()));
        let spread = ops::scatter_rows(tape, &zero, &self.rows, level)?;
        ops::add(tape, x, &spread)
    }
}

/// One transformer block.
#[derive(Clone, Copy, Debug)]
struct Block {
    input_layernorm: ParamId,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    qk_norm: Option<(ParamId, ParamId)>,
    post_attention_layernorm: ParamId,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// A decoder: ids into a [`Params`], nothing else. The same struct runs with any parameters of the same layout.
#[derive(Clone, Debug)]
pub struct TextModel {
    config: TextConfig,
    embed_tokens: ParamId,
    layers: Vec<Block>,
    norm: ParamId,
    lm_head: Linear,
}

impl TextModel {
    /// Names and shapes of all tensors of a decoder.
    pub fn specs(config: &TextConfig, names: &TextNames) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        // With a source that only writes down what it is asked for, building cannot fail.
        let built = Self::build(config, names, &mut |name, shape| {
            specs.push(TensorSpec::new(name, shape));
            Ok::<_, TensorError>(None)
        });
        debug_assert!(built.is_ok_and(|m| m.is_none()));
        specs
    }

    /// Reads a decoder from a checkpoint into `params`. Check the weights first ([`Weights::check`] with
    /// [`TextModel::specs`]), so that all disagreements are reported at once; [`crate::LanguageModel::load`] does both.
    pub fn load(
        params: &mut Params,
        weights: &Weights,
        config: &TextConfig,
        names: &TextNames,
        keep: Keep,
    ) -> Result<Self, ModelError> {
        let model = Self::build(config, names, &mut |name, shape| {
            let found = weights.shape(name).unwrap_or(&[]);
            if found != shape {
                let why = format!("expected shape {shape:?}, found {found:?}");
                return Err(ModelError::tensor(weights.path(), name, why));
            }
            weights.add_to(params, name, keep).map(Some)
        })?;
        model.ok_or_else(|| ModelError::Request("a decoder was built without parameters".into()))
    }

    /// A decoder with fresh trainable parameters: matrices normal with standard deviation 0.02, norms 1, biases 0.
    pub fn init(
        params: &mut Params,
        config: &TextConfig,
        names: &TextNames,
        rng: &mut impl Rng,
    ) -> Result<Self, ModelError> {
        let model = Self::build(config, names, &mut |name, shape| {
            let value = match shape {
                [_, _] => Tensor::randn(shape, 0.02, rng),
                _ if name.ends_with(".bias") => Tensor::zeros(shape, DType::F32),
                _ => Tensor::full(shape, 1.0, DType::F32),
            };
            params.add(name, value).map(Some).map_err(ModelError::from)
        })?;
        model.ok_or_else(|| ModelError::Request("a decoder was built without parameters".into()))
    }

    /// Walks over all tensors in the order of the checkpoint; `None` when the source gives no parameters.
    fn build<E>(
        config: &TextConfig,
        names: &TextNames,
        get: &mut dyn FnMut(&str, &[usize]) -> Result<Option<ParamId>, E>,
    ) -> Result<Option<Self>, E> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv, head_dim) = (config.q_width(), config.kv_width(), config.head_dim);
        let embed_tokens = get(&format!("{}embed_tokens.weight", names.prefix), &[config.vocab_size, d])?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for l in 0..config.num_hidden_layers {
            let at = format!("{}layers.{l}.", names.prefix);
            let mut vector = |part: &str, n: usize| get(&format!("{at}{part}.weight"), &[n]);
            let input_layernorm = vector("input_layernorm", d)?;
            let qk_norm = match config.qk_norm() {
                true => Some((vector("self_attn.q_norm", head_dim)?, vector("self_attn.k_norm", head_dim)?)),
                false => None,
            };
            let post_attention_layernorm = vector("post_attention_layernorm", d)?;
            let mut linear = |part: &str, out: usize, inner: usize, bias: bool| {
                let weight = get(&format!("{at}{part}.weight"), &[out, inner])?;
                let bias = if bias { get(&format!("{at}{part}.bias"), &[out])? } else { None };
                Ok(weight.map(|weight| Linear { weight, bias, lora: None }))
            };
            let q_proj = linear("self_attn.q_proj", q, d, config.qkv_bias)?;
            let k_proj = linear("self_attn.k_proj", kv, d, config.qkv_bias)?;
            let v_proj = linear("self_attn.v_proj", kv, d, config.qkv_bias)?;
            let o_proj = linear("self_attn.o_proj", d, q, config.o_bias)?;
            let gate_proj = linear("mlp.gate_proj", f, d, config.mlp_bias)?;
            let up_proj = linear("mlp.up_proj", f, d, config.mlp_bias)?;
            let down_proj = linear("mlp.down_proj", d, f, config.mlp_bias)?;
            layers.push((|| {
                Some(Block {
                    input_layernorm: input_layernorm?,
                    q_proj: q_proj?,
                    k_proj: k_proj?,
                    v_proj: v_proj?,
                    o_proj: o_proj?,
                    qk_norm: match qk_norm {
                        Some((q, k)) => Some((q?, k?)),
                        None => None,
                    },
                    post_attention_layernorm: post_attention_layernorm?,
                    gate_proj: gate_proj?,
                    up_proj: up_proj?,
                    down_proj: down_proj?,
                })
            })());
        }
        let norm = get(&format!("{}norm.weight", names.prefix), &[d])?;
        let lm_head = if config.tie_word_embeddings {
            embed_tokens
        } else {
            get(&names.head, &[config.vocab_size, d])?
        };
        Ok((|| {
            Some(Self {
                config: config.clone(),
                embed_tokens: embed_tokens?,
                layers: layers.into_iter().collect::<Option<_>>()?,
                norm: norm?,
                lm_head: lm_head?.into(),
            })
        })())
    }

    /// Sizes and switches.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The embedding table, `[V, D]`.
    pub fn embedding(&self) -> ParamId {
        self.embed_tokens
    }

    /// The output layer; the embedding table where they are tied.
    pub fn head(&self) -> Linear {
        self.lm_head
    }

    /// All linear layers of the blocks, for adapters and for freezing. The output layer is not among them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|b| {
            [
                &mut b.q_proj,
                &mut b.k_proj,
                &mut b.v_proj,
                &mut b.o_proj,
                &mut b.gate_proj,
                &mut b.up_proj,
                &mut b.down_proj,
            ]
        })
    }

    /// All linear layers of the blocks.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|b| {
            [&b.q_proj, &b.k_proj, &b.v_proj, &b.o_proj, &b.gate_proj, &b.up_proj, &b.down_proj]
        })
    }

    /// Shape of a cache for this decoder.
    pub fn kv_shape(&self) -> KvShape {
        let c = &self.config;
        KvShape { layers: c.num_hidden_layers, kv_heads: c.num_key_value_heads, head_dim: c.head_dim }
    }

    /// Rows of the embedding table. `[N, D]`
    ///
    /// # Errors
    /// An id is not in the vocabulary.
    pub fn embed(&self, tape: &mut Tape<'_>, ids: &[u32]) -> Result<Var, TensorError> {
        ops::embedding(tape, self.embed_tokens, ids)
    }

    /// Cosines and sines for rows at the given positions. Multimodal positions need a configuration with sections.
    pub fn rotary(&self, positions: &Positions) -> Result<RotaryTable, ModelError> {
        let head_dim = self.config.head_dim;
        let inv_freq: Vec<f32> = self.config.rope.frequencies(head_dim).iter().map(|&f| f as f32).collect();
        let pairs = inv_freq.len();
        let table = match positions {
            Positions::Linear(p) => {
                self.config.check_length(p.iter().max().map_or(0, |last| last + 1))?;
                let p: Vec<f32> = p.iter().map(|&p| p as f32).collect();
                RotaryTable::new(&[p], &vec![0; pairs], &inv_freq, RotaryStyle::Half)
            }
            Positions::Multimodal(axes) => {
                let Some(mrope) = self.config.rope.mrope else {
                    let why = "positions of time, height and width were given, but the configuration has no mrope_section";
                    return Err(ModelError::Request(why.into()));
                };
                let axis: Vec<usize> = (0..pairs).map(|j| mrope.axis(j)).collect();
                RotaryTable::new(axes, &axis, &inv_freq, RotaryStyle::Half)
            }
        };
        Ok(table?)
    }

    /// Hidden states after the last norm, `[N, D]`, from embeddings `x [N, D]` (image features may be spliced in).
    ///
    /// `deep` is added after the first blocks. With `checkpoint`, a recording tape keeps only each block's input and
    /// computes the block again in the backward pass. With `rows`, only those rows are returned, in that order, `[len(rows), D]`;
    /// behind the attention of the last block nothing is computed for the others.
    pub fn forward<'p>(
        &self,
        tape: &mut Tape<'p>,
        mut x: Var,
        rotary: &RotaryTable,
        mut attend: Attend<'_>,
        deep: Option<&DeepFeatures>,
        checkpoint: bool,
        rows: Option<&[usize]>,
    ) -> Result<Var, TensorError> {
        let spec = self.attention_spec();
        let eps = self.config.rms_norm_eps as f32;
        // Features that are added behind the last block need its result whole.
        let count = self.layers.len();
        let whole = count == 0 || deep.is_some_and(|d| d.levels.len() >= count);
        for (l, &block) in self.layers.iter().enumerate() {
            let rows = rows.filter(|_| l + 1 == count && !whole);
            x = match &mut attend {
                Attend::Cached { caches, new } => {
                    block.forward(tape, &x, rotary, (spec, eps), rows, |tape, q, k, v| {
                        ops::attend_cached(tape, (q, k, v), (caches, new), l, spec)
                    })?
                }
                Attend::Packed(layout) if checkpoint => {
                    let (rotary, layout) = (rotary.clone(), layout.clone());
                    let rows = rows.map(<[usize]>::to_vec);
                    let mut out = tape.checkpoint(&[&x], move |tape, inputs| {
                        let attend = |tape: &mut Tape<'p>, q: &Var, k: &Var, v: &Var| {
                            ops::attention(tape, q, k, v, &layout, spec)
                        };
                        Ok(vec![block.forward(
                            tape,
                            &inputs[0],
                            &rotary,
                            (spec, eps),
                            rows.as_deref(),
                            attend,
                        )?])
                    })?;
                    out.swap_remove(0)
                }
                Attend::Packed(layout) => {
                    block.forward(tape, &x, rotary, (spec, eps), rows, |tape, q, k, v| {
                        ops::attention(tape, q, k, v, layout, spec)
                    })?
                }
            };
            if let Some((deep, level)) = deep.and_then(|d| Some((d, d.levels.get(l)?))) {
                x = deep.add(tape, &x, level)?;
            }
        }
        if let Some(rows) = rows.filter(|_| whole) {
            x = ops::gather_rows(tape, &x, rows)?;
        }
        ops::rms_norm(tape, &x, self.norm, eps)
    }

    /// Hidden states `[N, D]` of packed token ids at the positions that the layout implies: what training on text needs.
    pub fn hidden(
        &self,
        tape: &mut Tape<'_>,
        ids: &[u32],
        layout: &SeqLayout,
        checkpoint: bool,
    ) -> Result<Var, ModelError> {
        let rotary = self.rotary(&Positions::Linear(layout.positions()))?;
        let x = self.embed(tape, ids)?;
        Ok(self.forward(tape, x, &rotary, Attend::Packed(layout), None, checkpoint, None)?)
    }

    /// Log-probability and entropy of `targets[i]` after row `rows[i]` of the hidden states; logits are never held
    /// whole. A row may be asked for several times (the last token of a shared prompt predicts every continuation).
    pub fn logprobs(
        &self,
        tape: &mut Tape<'_>,
        hidden: &Var,
        rows: &[usize],
        targets: &[u32],
        temperature: f32,
    ) -> Result<LogProbs, TensorError> {
        let h = ops::gather_rows(tape, hidden, rows)?;
        ops::linear_logprobs(tape, &h, self.lm_head, targets, temperature)
    }

    /// Logits of the given rows of the hidden states. `[len(rows), V]`
    pub fn logits(&self, tape: &mut Tape<'_>, hidden: &Var, rows: &[usize]) -> Result<Var, TensorError> {
        let h = ops::gather_rows(tape, hidden, rows)?;
        ops::linear(tape, &h, self.lm_head)
    }

    fn attention_spec(&self) -> AttentionSpec {
        let c = &self.config;
        AttentionSpec::new(c.num_attention_heads, c.num_key_value_heads, c.head_dim)
    }
}

impl Block {
    fn forward<'p>(
        &self,
        tape: &mut Tape<'p>,
        x: &Var,
        rotary: &RotaryTable,
        (spec, eps): (AttentionSpec, f32),
        rows: Option<&[usize]>,
        attend: impl FnOnce(&mut Tape<'p>, &Var, &Var, &Var) -> Result<Var, TensorError>,
    ) -> Result<Var, TensorError> {
        let attended = {
            let h = ops::rms_norm(tape, x, self.input_layernorm, eps)?;
            let mut qkv = ops::linear_many(tape, &h, &[self.q_proj, self.k_proj, self.v_proj])?.into_iter();
            let (Some(mut q), Some(mut k), Some(v)) = (qkv.next(), qkv.next(), qkv.next()) else {
                return Err(TensorError::Shape {
                    op: "linear_many",
                    what: "three layers gave fewer results".into(),
                });
            };
            if let Some((q_norm, k_norm)) = self.qk_norm {
                q = ops::rms_norm(tape, &q, q_norm, eps)?;
                k = ops::rms_norm(tape, &k, k_norm, eps)?;
            }
            let head_dim = q.value().cols() / spec.heads;
            q = ops::rotary(tape, &q, head_dim, rotary)?;
            k = ops::rotary(tape, &k, head_dim, rotary)?;
            let h = attend(tape, &q, &k, &v)?;
            let h = match rows {
                Some(rows) => ops::gather_rows(tape, &h, rows)?,
                None => h,
            };
            ops::linear(tape, &h, self.o_proj)?
        };
        let x = match rows {
            Some(rows) => &ops::gather_rows(tape, x, rows)?,
            None => x,
        };
        let x = ops::add(tape, x, &attended)?;
        let expanded = {
            let h = ops::rms_norm(tape, &x, self.post_attention_layernorm, eps)?;
            let mut both = ops::linear_many(tape, &h, &[self.gate_proj, self.up_proj])?.into_iter();
            let (Some(gate), Some(up)) = (both.next(), both.next()) else {
                return Err(TensorError::Shape {
                    op: "linear_many",
                    what: "two layers gave fewer results".into(),
                });
            };
            let h = ops::swiglu(tape, &gate, &up)?;
            ops::linear(tape, &h, self.down_proj)?
        };
        ops::add(tape, &x, &expanded)
    }
}
