//! A small runtime of coarse, fused operations on a tape, with hand-written backward passes.
//!
//! Not a general tensor library: an operation exists because a model or a loss of this workspace needs it. Tensors are
//! contiguous `f32` or bf16; a model is a struct of [`ParamId`]s and a forward function over [`Var`]s.
//!
//! ```
//! use ocelli_tensor::{AdamW, AdamWConfig, Grads, Params, SeqLayout, Tape, Tensor, ops};
//! use rand::SeedableRng;
//!
//! // A one-block language model: 11 tokens, width 8, 2 heads.
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! let mut params = Params::new();
//! let mut matrix = |params: &mut Params, name: &str, shape: &[usize]| params.add(name, Tensor::randn(shape, 0.2, &mut rng));
//! let table = matrix(&mut params, "embed", &[11, 8])?;
//! let [q, k, v, o] = ["q", "k", "v", "o"].map(|n| matrix(&mut params, n, &[8, 8]));
//! let (qkv, o) = ([q?.into(), k?.into(), v?.into()], o?);
//! let norm = params.add("norm", Tensor::full(&[8], 1.0, ocelli_tensor::DType::F32))?;
//!
//! // Two sequences of 3 and 2 tokens, packed.
//! let (input, target) = ([1, 2, 3, 7, 8], [2, 3, 4, 8, 9]);
//! let layout = SeqLayout::causal(&[3, 2]);
//! let rope = ops::RotaryTable::one_dimensional(&layout.positions(), 4, 10_000.0, ops::RotaryStyle::Half);
//! let spec = ops::AttentionSpec::new(2, 2, 4);
//! let mut adam = AdamW::new(AdamWConfig::default());
//! let mut losses = Vec::new();
//! for _ in 0..20 {
//!     let mut tape = Tape::train(&params);
//!     let x = ops::embedding(&mut tape, table, &input)?;
//!     let h = ops::rms_norm(&mut tape, &x, norm, 1e-6)?;
//!     let [q, k, v] = <[_; 3]>::try_from(ops::linear_many(&mut tape, &h, &qkv)?).expect("three layers");
//!     let q = ops::rotary(&mut tape, &q, 4, &rope)?;
//!     let k = ops::rotary(&mut tape, &k, 4, &rope)?;
//!     let h = ops::attention(&mut tape, &q, &k, &v, &layout, spec)?;
//!     let h = ops::linear(&mut tape, &h, o)?;
//!     let x = ops::add(&mut tape, &x, &h)?;
//!     let lp = ops::linear_logprobs(&mut tape, &x, table, &target, 1.0)?.logprob;
//!     losses.push(-lp.value().to_vec().iter().sum::<f32>() / 5.0);
//!     // The loss is a function of the log-probabilities; so is the seed: d(loss)/d(lp) = -1/5.
//!     let seed = Tensor::full(&[5], -0.2, ocelli_tensor::DType::F32);
//!     let mut grads = Grads::new();
//!     tape.backward_from(&[(&lp, seed)], &mut grads)?;
//!     adam.step(&mut params, &grads)?;
//! }
//! assert!(losses[19] < losses[0]);
//! # Ok::<(), ocelli_tensor::TensorError>(())
//! ```
//!
//! # How a model is written
//!
//! * Put parameters into [`Params`] under the checkpoint's names; keep [`ParamId`]s and [`ops::Linear`]s in the model's struct.
//! * Work on packed rows `[total tokens, width]`; describe sequences by a [`SeqLayout`]. There is no padding.
//! * A value is freed when the last [`Var`] or backward pass that needs it is gone, so let temporaries end with their block, and put
//!   [`Tape::checkpoint`] around a block to keep only its input.
//! * Generation uses the same operations on an inference tape, with [`ops::attend_cached`] and [`KvCache`] in place of attention.
//! * A loss computes its derivative with respect to per-token log-probabilities and seeds [`Tape::backward_from`]. Gradients of
//!   several backward passes add up in [`Grads`].
//! * Frozen parameters ([`Params::add_frozen`]) cost no weight gradient, and what lies below the lowest trainable parameter is not recorded.
//!
//! # Precision
//!
//! `f32`, or bf16 activations and matrix operands with `f32` accumulation and `f32` master weights
//! ([`Params::set_compute_dtype`]). Norms, softmax, sums over tokens and the optimiser always work in `f32`, norms of gradients in `f64`.
//!
//! # Determinism
//!
//! Work is cut by shape, never by the number of threads, and sums are ordered: the same inputs give the same bits on the same
//! processor, however many threads run.

mod adamw;
mod cpu;
mod device;
mod error;
mod kv;
mod layout;
pub mod ops;
mod params;
mod tape;
mod tensor;

pub use adamw::{AdamW, AdamWConfig, AdamWGroup, Moments, StepInfo};
pub use cpu::{kernels, on_workers};
pub use device::{Device, PoolStats};
pub use error::{Result, TensorError};
pub use kv::{KvCache, KvPrefix, KvShape};
pub use layout::{PrefixGroup, Segment, SeqLayout, Span};
pub use params::{Grads, Param, ParamId, Params};
pub use tape::{LeafGrads, Mode, Tape, Var};
pub use tensor::{DType, Elem, Tensor};
